/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/str.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

void sl_str_done(struct sl_str *s)
{
	free(s->p);
	*s = (struct sl_str){ 0 };
}

void sl_str_clear(struct sl_str *s)
{
	s->len = 0;
	s->oom = false;
	if (s->p)
		s->p[0] = '\0';
}

/* Room for `n` more bytes and the final NUL. */
static bool reserve(struct sl_str *s, size_t n)
{
	size_t cap = s->cap ? s->cap : 64;
	char *p;

	if (s->oom || n > SIZE_MAX / 4 - s->len)
		goto oom;
	if (s->len + n + 1 <= s->cap)
		return true;
	while (cap < s->len + n + 1)
		cap *= 2;
	p = realloc(s->p, cap);
	if (!p)
		goto oom;
	s->p = p;
	s->cap = cap;
	return true;
oom:
	s->oom = true;
	return false;
}

void sl_str_add(struct sl_str *s, const void *bytes, size_t n)
{
	if (!reserve(s, n))
		return;
	if (n)
		memcpy(s->p + s->len, bytes, n);
	s->len += n;
	s->p[s->len] = '\0';
}

void sl_str_adds(struct sl_str *s, const char *text)
{
	sl_str_add(s, text, strlen(text));
}

void sl_str_addc(struct sl_str *s, char c)
{
	sl_str_add(s, &c, 1);
}

void sl_str_addv(struct sl_str *s, const char *fmt, va_list ap)
{
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	if (n < 0 || !reserve(s, (size_t)n))
		return;
	(void)vsnprintf(s->p + s->len, (size_t)n + 1, fmt, ap);
	s->len += (size_t)n;
}

void sl_str_addf(struct sl_str *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	sl_str_addv(s, fmt, ap);
	va_end(ap);
}

void sl_str_add_escaped(struct sl_str *s, const void *bytes, size_t n, size_t max)
{
	const unsigned char *p = bytes;

	for (size_t i = 0; i < n && i < max; i++) {
		if (p[i] >= 0x20 && p[i] < 0x7f && p[i] != '\\' && p[i] != '"')
			sl_str_addc(s, (char)p[i]);
		else
			sl_str_addf(s, "\\x%02x", p[i]);
	}
	if (n > max)
		sl_str_adds(s, "...");
}

char *sl_str_take(struct sl_str *s)
{
	char *p = NULL;

	sl_str_add(s, "", 0);
	if (s->oom)
		sl_str_done(s);
	p = s->p;
	*s = (struct sl_str){ 0 };
	return p;
}
