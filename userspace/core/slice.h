/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_SLICE_H
#define SL_CORE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Borrowed bytes; p = NULL is "absent", which differs from empty. */
struct sl_slice {
	const char *p;
	size_t n;
};

static inline struct sl_slice sl_slice_of(const char *text)
{
	return (struct sl_slice){ .p = text, .n = strlen(text) };
}

static inline bool sl_slice_is(struct sl_slice s, const char *text)
{
	return s.p && s.n == strlen(text) && memcmp(s.p, text, s.n) == 0;
}

/* ASCII letters compare without case, whatever the locale. */
static inline bool sl_slice_is_nocase(struct sl_slice s, const char *text)
{
	if (!s.p || s.n != strlen(text))
		return false;
	for (size_t i = 0; i < s.n; i++) {
		unsigned char a = (unsigned char)s.p[i];
		unsigned char b = (unsigned char)text[i];

		a = a >= 'A' && a <= 'Z' ? (unsigned char)(a | 0x20) : a;
		b = b >= 'A' && b <= 'Z' ? (unsigned char)(b | 0x20) : b;
		if (a != b)
			return false;
	}
	return true;
}

#endif
