/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/matcher.h"

#define MAX 300 /* longer than any name */

#define require(x)                        \
	do {                              \
		if (!(x))                 \
			__builtin_trap(); \
	} while (0)

/*
 * By the definition, as a table: does the rest of the pattern match the rest of the text? Filled
 * from the ends, one row of the text for each character of the pattern.
 */
static bool oracle_glob(const char *p, size_t pn, const char *t, size_t tn)
{
	static bool row[MAX + 1];
	static bool below[MAX + 1];

	memset(below, 0, sizeof(below));
	below[tn] = true;
	for (size_t i = pn; i-- > 0;) {
		for (size_t k = tn + 1; k-- > 0;) {
			bool rest = k < tn && (p[i] == '*' ? row[k + 1] : below[k + 1]);

			row[k] = p[i] == '*' ? below[k] || rest : rest && p[i] == t[k];
		}
		memcpy(below, row, sizeof(below));
	}
	return below[0];
}

/* What is before the next slash; the text goes on after it. */
static struct sl_slice take_segment(struct sl_slice *rest, bool *ret_more)
{
	struct sl_slice s = { .p = rest->p };

	while (s.n < rest->n && rest->p[s.n] != '/')
		s.n++;
	*ret_more = s.n < rest->n;
	rest->p += s.n + *ret_more;
	rest->n -= s.n + *ret_more;
	return s;
}

/* Segment by segment, by recursion; counts parameters. */
static bool oracle_path(struct sl_slice pattern, struct sl_slice path, size_t *n_params)
{
	bool more_want;
	bool more_got;
	struct sl_slice want = take_segment(&pattern, &more_want);
	struct sl_slice got;

	if (want.n == 1 && *want.p == '*' && !more_want)
		return true;
	got = take_segment(&path, &more_got);
	if (more_want != more_got)
		return false;
	if (want.n > 1 && *want.p == ':') {
		if (!got.n || ++*n_params > SL_PATH_MAX_PARAMS)
			return false;
	} else if (want.n == 1 && *want.p == '*') {
		if (!got.n)
			return false;
	} else if (want.n != got.n || memcmp(want.p, got.p, want.n) != 0) {
		return false;
	}
	return !more_want || oracle_path(pattern, path, n_params);
}

static bool is_within(struct sl_slice part, struct sl_slice whole)
{
	return part.p >= whole.p && part.p + part.n <= whole.p + whole.n;
}

static void check_glob(const char *pattern, struct sl_slice text)
{
	size_t n = strlen(pattern);

	if (n > MAX || text.n > MAX)
		return;
	require(sl_glob_match(pattern, text) == oracle_glob(pattern, n, text.p, text.n));
	if (!sl_domain_pattern_check(pattern)) {
		require(n > 0 && n <= 253 && pattern[n - 1] != '.' && pattern[0] != '.');
		require(!strstr(pattern, "..") && !strstr(pattern, "**"));
		require(strspn(pattern, "abcdefghijklmnopqrstuvwxyz0123456789-_.*") == n);
		/* Every pattern matches itself: a star stands for a star. */
		require(sl_glob_match(pattern, sl_slice_of(pattern)));
	}
}

static void check_path(const char *pattern, struct sl_slice path)
{
	struct sl_slice want = sl_slice_of(pattern);
	struct sl_path_match m;
	size_t n_params = 0;
	bool expected = *pattern == '/' && path.n && *path.p == '/';
	bool is_good = !sl_path_pattern_check(pattern);
	bool matches = sl_path_match(pattern, path, &m);

	if (expected)
		expected = oracle_path((struct sl_slice){ want.p + 1, want.n - 1 },
				       (struct sl_slice){ path.p + 1, path.n - 1 }, &n_params);
	require(matches == expected && matches == sl_path_match(pattern, path, NULL));
	require(!is_good || (*pattern == '/' && want.n <= SL_PATH_PATTERN_MAX));
	if (!matches)
		return;
	require(m.n_params == n_params && m.match.p == path.p);
	require(m.match.n + m.remainder.n == path.n);
	require((want.n > 1 && memcmp(want.p + want.n - 2, "/*", 2) == 0) ==
		(m.remainder.p != NULL));
	require(!m.remainder.p || m.remainder.p == path.p + m.match.n);
	for (size_t i = 0; i < m.n_params; i++) {
		require(m.params[i].name.n > 0 && is_within(m.params[i].name, want));
		require(m.params[i].value.n > 0 && is_within(m.params[i].value, m.match));
		require(!memchr(m.params[i].value.p, '/', m.params[i].value.n));
	}
}

/* The first line is the pattern, the rest what it is matched with. */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t n)
{
	const uint8_t *end = n ? memchr(input, '\n', n) : NULL;
	size_t len = end ? (size_t)(end - input) : n;
	struct sl_slice text = { 0 };
	char *pattern = malloc(len + 1);
	char *copy;

	require(pattern != NULL);
	if (len)
		memcpy(pattern, input, len);
	pattern[len] = '\0';
	/* In a block of its own size, so that reading past it shows. */
	text.n = end ? n - len - 1 : 0;
	copy = malloc(text.n ? text.n : 1);
	require(copy != NULL);
	if (text.n)
		memcpy(copy, end + 1, text.n);
	text.p = copy;
	check_glob(pattern, text);
	check_path(pattern, text);
	free(copy);
	free(pattern);
	return 0;
}
