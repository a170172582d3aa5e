/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CONF_UTF8_H
#define SL_CONF_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The one definition of characters and lines for everything that computes a
 * place: a character is a well-formed UTF-8 sequence or one stray byte; lines
 * end as they do for libyaml, whose places are mixed with ours.
 */

/* Bytes of the character at p (n > 0 of them are there); *ret is UINT32_MAX for a stray byte. */
size_t sl_utf8_decode(const char *p, size_t n, uint32_t *ret);

/* Bytes of the line break at p, 0 when there is none. CR LF is one break. */
size_t sl_utf8_break(const char *p, size_t n);

/* May stand in YAML text as it is. */
bool sl_utf8_is_printable(uint32_t c);

/* Would disturb a terminal or hide text: controls, directional marks, invisible characters. */
bool sl_utf8_is_unsafe(uint32_t c);

/* Columns on a terminal: 0, 1 or 2. */
unsigned sl_utf8_width(uint32_t c);

#endif
