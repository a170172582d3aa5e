/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BASE_STR_H
#define SL_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

/*
 * Growing text. Appends never fail at the call site: running out of memory
 * sets the sticky `oom` flag, later appends do nothing, and the user of the
 * text checks once. `p` is NUL-terminated after the first append; it may hold
 * NUL bytes itself.
 */
struct sl_str {
	char *p;
	size_t len;
	size_t cap;
	bool oom;
};

void sl_str_done(struct sl_str *s);  /* frees and resets; usable with _cleanup_() */
void sl_str_clear(struct sl_str *s); /* keeps the memory */
void sl_str_add(struct sl_str *s, const void *bytes, size_t n);
void sl_str_adds(struct sl_str *s, const char *text);
void sl_str_addc(struct sl_str *s, char c);
void sl_str_addf(struct sl_str *s, const char *fmt, ...) SL_PRINTF(2, 3);
void sl_str_addv(struct sl_str *s, const char *fmt, va_list ap) SL_PRINTF(2, 0);

/*
 * Appends bytes that came from a peer: printable ASCII as it is, anything else
 * (also backslash and double quote) as \xNN, at most `max` input bytes and
 * then "...".
 */
void sl_str_add_escaped(struct sl_str *s, const void *bytes, size_t n, size_t max);

/* The text, never NULL. */
static inline const char *sl_str_text(const struct sl_str *s)
{
	return s->p ? s->p : "";
}

/*
 * Hands the text over to the caller, who frees it; `s` is empty afterwards.
 * NULL when memory ran out at any append.
 */
char *sl_str_take(struct sl_str *s);

#endif
