/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/words.h"

#include <string.h>

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

bool sl_words_next_line(struct sl_words *rest, struct sl_words *ret)
{
	const char *end;
	size_t n;

	if (rest->n == 0)
		return false;
	end = memchr(rest->p, '\n', rest->n);
	n = end ? (size_t)(end - rest->p) : rest->n;
	*ret = (struct sl_words){ .p = rest->p, .n = n };
	n += end ? 1 : 0;
	rest->p += n;
	rest->n -= n;
	return true;
}

bool sl_words_next(struct sl_words *line, struct sl_words *ret)
{
	size_t start = 0;
	size_t end;

	while (start < line->n && is_blank(line->p[start]))
		start++;
	end = start;
	while (end < line->n && !is_blank(line->p[end]))
		end++;
	if (end == start)
		return false;
	*ret = (struct sl_words){ .p = line->p + start, .n = end - start };
	line->p += end;
	line->n -= end;
	return true;
}

bool sl_words_is(const struct sl_words *word, const char *text)
{
	return word->n == strlen(text) && memcmp(word->p, text, word->n) == 0;
}

bool sl_words_copy(const struct sl_words *word, char *buf, size_t size)
{
	if (word->n >= size || memchr(word->p, '\0', word->n))
		return false;
	memcpy(buf, word->p, word->n);
	buf[word->n] = '\0';
	return true;
}
