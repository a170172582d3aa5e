/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/hosts.h"

#include <string.h>
#include <strings.h>

#include "core/words.h"

static struct sl_words without_comment(struct sl_words line)
{
	const char *hash = line.n ? memchr(line.p, '#', line.n) : NULL;

	if (hash)
		line.n = (size_t)(hash - line.p);
	return line;
}

static struct sl_words without_dot(struct sl_words name)
{
	if (name.n > 0 && name.p[name.n - 1] == '.')
		name.n--;
	return name;
}

static bool has_name(struct sl_words line, const struct sl_words *name)
{
	struct sl_words word;

	while (sl_words_next(&line, &word)) {
		word = without_dot(word);
		if (word.n == name->n && strncasecmp(word.p, name->p, word.n) == 0)
			return true;
	}
	return false;
}

static size_t add_unique(struct sl_addr *addrs, size_t n, const struct sl_addr *a)
{
	for (size_t i = 0; i < n; i++)
		if (sl_addr_same_ip(&addrs[i], a))
			return n;
	addrs[n] = *a;
	return n + 1;
}

size_t sl_hosts_find(const char *text, size_t len, const char *name, struct sl_addr *addrs,
		     size_t max)
{
	struct sl_words wanted = without_dot((struct sl_words){ .p = name, .n = strlen(name) });
	struct sl_words rest = { .p = text, .n = len };
	struct sl_words line;
	struct sl_words word;
	char ip[SL_ADDR_TEXT];
	struct sl_addr a;
	size_t n = 0;

	if (wanted.n == 0)
		return 0;
	while (n < max && sl_words_next_line(&rest, &line)) {
		line = without_comment(line);
		if (!sl_words_next(&line, &word) || !has_name(line, &wanted))
			continue;
		if (sl_words_copy(&word, ip, sizeof(ip)) && sl_addr_parse_ip(ip, &a) == 0)
			n = add_unique(addrs, n, &a);
	}
	return n;
}
