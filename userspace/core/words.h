/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_WORDS_H
#define SL_CORE_WORDS_H

#include <stdbool.h>
#include <stddef.h>

/* Lines and words of the system's text files. Everything points into the text given. */
struct sl_words {
	const char *p;
	size_t n;
};

/* Takes the next line, without its end, off `rest`; false when nothing is left. */
bool sl_words_next_line(struct sl_words *rest, struct sl_words *ret);

/* Takes the next word, delimited by blanks, off `line`; false when nothing is left. */
bool sl_words_next(struct sl_words *line, struct sl_words *ret);

bool sl_words_is(const struct sl_words *word, const char *text);

/* As a C string of at most `size` bytes with its NUL; false when it does not fit. */
bool sl_words_copy(const struct sl_words *word, char *buf, size_t size);

#endif
