/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "core/matcher.h"

static void names_and_patterns(void **state)
{
	static const struct {
		const char *pattern;
		const char *text;
		bool matches;
	} cases[] = {
		{ "example.com", "example.com", true },
		{ "example.com", "example.co", false },
		{ "example.com", "xexample.com", false },
		{ "*", "example.com", true },
		{ "*", "", true },
		{ "", "", true },
		{ "", "a", false },
		{ "*.x", "a.x", true },
		{ "*.x", "a.b.x", true },
		{ "*.x", "x", false },
		{ "*.x", "ax", false },
		{ "x.*", "x.a", true },
		{ "x.*", "x.a.b", true },
		{ "x.*", "x", false },
		{ "x.*", "xa.b", false },
		{ "api-*.example.*", "api-1.example.com", true },
		{ "api-*.example.*", "api-.example.", true },
		{ "api-*.example.*", "api-1.b.example.co.uk", true },
		{ "api-*.example.*", "api-1.example", false },
		{ "api-*.example.*", "aapi-1.example.com", false },
		{ "a*a", "a", false },
		{ "a*a", "aa", true },
		{ "a*b*a", "aba", true },
		{ "a*b*a", "aa", false },
		{ "a*bc*bc*d", "abcbcd", true },
		{ "a*bc*bc*d", "abcd", false },
		{ "ab*ba", "aba", false },
		{ "*a*", "bab", true },
		{ "*a*", "bbb", false },
		{ "**", "x", true },
		{ "a**b", "ab", true },
		{ "*ab*ab", "abab", true },
		{ "*ab*ab", "ab", false },
		{ "*aab", "aaab", true },
		{ "*aab*", "aaabx", true },
		{ "A.x", "a.x", false },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++)
		if (sl_glob_match(cases[i].pattern, sl_slice_of(cases[i].text)) != cases[i].matches)
			fail_msg("'%s' and '%s'", cases[i].pattern, cases[i].text);
	assert_false(sl_glob_match("*", (struct sl_slice){ 0 }));
	assert_false(sl_glob_match("", (struct sl_slice){ 0 }));
}

/* By the definition: a star is nothing, or one character and the star again. */
static bool oracle(const char *p, const char *t)
{
	if (*p == '*')
		return oracle(p + 1, t) || (*t && oracle(p, t + 1));
	return *p == *t && (!*p || oracle(p + 1, t + 1));
}

static void random_text(struct sl_rand *r, const char *from, size_t max, char *ret)
{
	size_t n = (size_t)sl_rand_below(r, max + 1);

	for (size_t i = 0; i < n; i++)
		ret[i] = from[sl_rand_below(r, strlen(from))];
	ret[n] = '\0';
}

static void random_patterns_agree_with_the_definition(void **state)
{
	struct sl_rand r;
	int matching = 0;

	(void)state;
	sl_rand_seed(&r, 7);
	for (int i = 0; i < 300000; i++) {
		char pattern[12];
		char text[16];

		random_text(&r, "ab*", 9, pattern);
		random_text(&r, "ab", 12, text);
		if (sl_glob_match(pattern, sl_slice_of(text)) != oracle(pattern, text))
			fail_msg("'%s' and '%s'", pattern, text);
		matching += oracle(pattern, text);
	}
	assert_in_range(matching, 10000, 290000);
}

static void what_is_a_domain_pattern(void **state)
{
	static const char *const good[] = {
		"example.com", "*",        "*.example.com",         "shop.*",
		"localhost",   "a",        "api-*.example.*",       "*.*",
		"10.0.0.1",    "_dmarc.x", "xn--bcher-kva.example", "a*b*c.*x*",
		"*a*",         "*.x.*.y",
	};
	static const struct {
		const char *text;
		const char *why;
	} bad[] = {
		{ "", "missing" },
		{ "Example.com", "lower case" },
		{ "example.com.", "missing its label" },
		{ ".example.com", "missing its label" },
		{ "a..b", "missing its label" },
		{ ".", "missing its label" },
		{ "*.", "missing its label" },
		{ "**.x", "one '*'" },
		{ "a b", "letters, digits" },
		{ "example.com:443", "letters, digits" },
		{ "b\xc3\xbc"
		  "cher.example",
		  "xn--" },
		{ "a/b", "letters, digits" },
		{ "a?b", "letters, digits" },
		{ "[::1]", "letters, digits" },
	};
	char label[80];
	char name[400] = "";

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(good); i++)
		if (sl_domain_pattern_check(good[i]))
			fail_msg("'%s': %s", good[i], sl_domain_pattern_check(good[i]));
	for (size_t i = 0; i < SL_ARRAY_LEN(bad); i++) {
		const char *why = sl_domain_pattern_check(bad[i].text);

		if (!why || !strstr(why, bad[i].why))
			fail_msg("'%s': %s", bad[i].text, why ? why : "taken");
	}
	memset(label, 'a', sizeof(label));
	label[63] = '\0';
	assert_null(sl_domain_pattern_check(label));
	label[63] = 'a';
	label[64] = '\0';
	assert_string_equal(sl_domain_pattern_check(label), "a label has at most 63 characters");
	for (int i = 0; i < 126; i++)
		strcat(name, "a.");
	strcat(name, "a");
	assert_int_equal(strlen(name), 253);
	assert_null(sl_domain_pattern_check(name));
	strcat(name, "a");
	assert_string_equal(sl_domain_pattern_check(name), "a name has at most 253 characters");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_patterns),
		cmocka_unit_test(random_patterns_agree_with_the_definition),
		cmocka_unit_test(what_is_a_domain_pattern),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
