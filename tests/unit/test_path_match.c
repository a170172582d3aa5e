/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/matcher.h"

/* "match|remainder|name=value,..."; "-" for what is absent. */
static void describe(const struct sl_path_match *m, char *ret, size_t size)
{
	int n = snprintf(ret, size, "%.*s|%.*s|", (int)m->match.n, m->match.p,
			 m->remainder.p ? (int)m->remainder.n : 1,
			 m->remainder.p ? m->remainder.p : "-");

	for (size_t i = 0; i < m->n_params; i++)
		n += snprintf(ret + n, size - (size_t)n, "%s%.*s=%.*s", i ? "," : "",
			      (int)m->params[i].name.n, m->params[i].name.p,
			      (int)m->params[i].value.n, m->params[i].value.p);
}

static void paths_and_patterns(void **state)
{
	static const struct {
		const char *pattern;
		const char *path;
		const char *is; /* NULL: no match */
	} cases[] = {
		{ "/", "/", "/|-|" },
		{ "/", "/a", NULL },
		{ "/", "", NULL },
		{ "/a", "/a", "/a|-|" },
		{ "/a", "/a/", NULL },
		{ "/a/", "/a", NULL },
		{ "/a/", "/a/", "/a/|-|" },
		{ "/a", "/A", NULL },
		{ "/a", "/ab", NULL },
		{ "/a", "a", NULL },
		{ "/a//b", "/a//b", "/a//b|-|" },
		{ "/a//b", "/a/b", NULL },
		{ "/*", "/", "/||" },
		{ "/*", "/a/b", "/|a/b|" },
		{ "/api/*", "/api/a/b", "/api/|a/b|" },
		{ "/api/*", "/api/", "/api/||" },
		{ "/api/*", "/api", NULL },
		{ "/api/*", "/apis/x", NULL },
		{ "/api/*", "/x/api/y", NULL },
		{ "/a/*/b", "/a/x/b", "/a/x/b|-|" },
		{ "/a/*/b", "/a//b", NULL },
		{ "/a/*/b", "/a/x/y/b", NULL },
		{ "/a/*/b", "/a/x", NULL },
		{ "/a/*/", "/a/x/", "/a/x/|-|" },
		{ "/a/*/*", "/a/x/", "/a/x/||" },
		{ "/a/*/*", "/a/x/y/z", "/a/x/|y/z|" },
		{ "/u/:id", "/u/7", "/u/7|-|id=7" },
		{ "/u/:id", "/u/", NULL },
		{ "/u/:id", "/u/7/", NULL },
		{ "/u/:id/", "/u/7/", "/u/7/|-|id=7" },
		{ "/:a/:b-c/x", "/1/2/x", "/1/2/x|-|a=1,b-c=2" },
		{ "/api/:version/*", "/api/v1/users/3", "/api/v1/|users/3|version=v1" },
		{ "/api/:version/*", "/api/v1/", "/api/v1/||version=v1" },
		{ "/api/:version/*", "/api//x", NULL },
		{ "/a:b", "/a:b", "/a:b|-|" },
		{ "/a%20b", "/a%20b", "/a%20b|-|" },
	};
	struct sl_path_match before;
	struct sl_path_match m;

	(void)state;
	memset(&before, 0x5a, sizeof(before));
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		char buf[256];
		bool matches;

		memcpy(&m, &before, sizeof(m));
		matches = sl_path_match(cases[i].pattern, sl_slice_of(cases[i].path), &m);
		if (matches != (cases[i].is != NULL) ||
		    matches != sl_path_match(cases[i].pattern, sl_slice_of(cases[i].path), NULL))
			fail_msg("'%s' and '%s': %d", cases[i].pattern, cases[i].path, matches);
		if (!matches) {
			assert_memory_equal(&m, &before, sizeof(m));
			continue;
		}
		describe(&m, buf, sizeof(buf));
		assert_string_equal(buf, cases[i].is);
	}
	assert_false(sl_path_match("/", (struct sl_slice){ 0 }, NULL));
	assert_false(sl_path_match("/*", (struct sl_slice){ 0 }, NULL));
}

static void what_is_a_path_pattern(void **state)
{
	static const char *const good[] = {
		"/",    "/a",           "/a/",   "/*",   "/a/*/b",
		"/:x",  "/:a_1/:b-2/*", "/a//b", "/a:b", "/~x/%41!$&'()+,;=@",
		"/a.b",
	};
	static const struct {
		const char *text;
		const char *why;
	} bad[] = {
		{ "", "begins" },
		{ "a", "begins" },
		{ "*", "begins" },
		{ "/a*", "whole segment" },
		{ "/*.php", "whole segment" },
		{ "/**", "whole segment" },
		{ "/:", "parameter's name" },
		{ "/:/a", "parameter's name" },
		{ "/:a.b", "letters" },
		{ "/:a*", "letters" },
		{ "/:a/:a", "same name" },
		{ "/a?b", "before '?'" },
		{ "/a#b", "before '?'" },
		{ "/a b", "percent-encoded" },
		{ "/a\tb", "percent-encoded" },
		{ "/\xc3\xbc", "percent-encoded" },
		{ "/\x7f", "percent-encoded" },
	};
	char many[256] = "";
	char *long_one = malloc(SL_PATH_PATTERN_MAX + 2);

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(good); i++)
		if (sl_path_pattern_check(good[i]))
			fail_msg("'%s': %s", good[i], sl_path_pattern_check(good[i]));
	for (size_t i = 0; i < SL_ARRAY_LEN(bad); i++) {
		const char *why = sl_path_pattern_check(bad[i].text);

		if (!why || !strstr(why, bad[i].why))
			fail_msg("'%s': %s", bad[i].text, why ? why : "taken");
	}
	for (int i = 0; i < SL_PATH_MAX_PARAMS; i++)
		snprintf(many + strlen(many), sizeof(many) - strlen(many), "/:p%d", i);
	assert_null(sl_path_pattern_check(many));
	strcat(many, "/:more");
	assert_string_equal(sl_path_pattern_check(many), "a path has at most 16 parameters");
	/* Not checked, but not written past its end either. */
	assert_false(sl_path_match(many, sl_slice_of("/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17"),
				   NULL));
	assert_non_null(long_one);
	memset(long_one, 'a', SL_PATH_PATTERN_MAX + 1);
	long_one[0] = '/';
	long_one[SL_PATH_PATTERN_MAX + 1] = '\0';
	assert_string_equal(sl_path_pattern_check(long_one), "a path has at most 4096 characters");
	long_one[SL_PATH_PATTERN_MAX] = '\0';
	assert_null(sl_path_pattern_check(long_one));
	free(long_one);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_and_patterns),
		cmocka_unit_test(what_is_a_path_pattern),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
