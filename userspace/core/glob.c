/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <string.h>

#include "core/matcher.h"
#include "core/tls_hello.h"

/*
 * What stands before the first star is at the text's start, what stands after
 * the last at its end, and the pieces between follow each other in the middle: taking each
 * where it occurs first leaves the most for the rest, so nothing is ever tried
 * again. memmem() is linear, and names and their patterns have at most 253 bytes.
 */
bool sl_glob_match(const char *pattern, struct sl_slice text)
{
	const char *star = strchr(pattern, '*');
	const char *last;
	const char *at;
	const char *end;
	size_t head;
	size_t tail;

	if (!star || !text.p)
		return sl_slice_is(text, pattern);
	last = strrchr(star, '*');
	head = (size_t)(star - pattern);
	tail = strlen(last + 1);
	if (text.n < head || text.n - head < tail)
		return false;
	at = text.p + head;
	end = text.p + text.n - tail;
	if (memcmp(text.p, pattern, head) != 0 || memcmp(end, last + 1, tail) != 0)
		return false;
	while (star < last) {
		const char *piece = star + 1;

		star = strchr(piece, '*');
		at = memmem(at, (size_t)(end - at), piece, (size_t)(star - piece));
		if (!at)
			return false;
		at += star - piece;
	}
	return true;
}

#define LABEL_MAX 63 /* RFC 1035 section 2.3.4 */

/* `n`: without the label's stars, which may stand for nothing. */
static const char *check_label(size_t n, bool has_star)
{
	if (!n && !has_star)
		return "a dot is missing its label";
	return n > LABEL_MAX ? "a label has at most 63 characters" : NULL;
}

const char *sl_domain_pattern_check(const char *pattern)
{
	const char *why = NULL;
	bool has_star = false;
	size_t n = 0;

	if (!*pattern)
		return "a name is missing";
	if (strlen(pattern) > SL_NAME_MAX)
		return "a name has at most 253 characters";
	for (const char *c = pattern; *c && !why; c++) {
		if (*c == '.') {
			why = check_label(n, has_star);
			n = 0;
			has_star = false;
		} else if (*c == '*') {
			if (c[1] == '*')
				why = "one '*' is enough";
			has_star = true;
		} else if (*c >= 'A' && *c <= 'Z') {
			why = "names are compared in lower case";
		} else if ((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '-' ||
			   *c == '_') {
			n++;
		} else {
			why = "a name has letters, digits, '-', '_', '.' and '*' (IDN: as xn--)";
		}
	}
	return why ? why : check_label(n, has_star);
}
