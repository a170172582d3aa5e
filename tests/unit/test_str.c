/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: realloc */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"

static bool no_memory;

void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_realloc(void *p, size_t n)
{
	return no_memory ? NULL : __real_realloc(p, n);
}

static void appends(void **state)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };

	(void)state;
	assert_string_equal(sl_str_text(&s), "");
	sl_str_adds(&s, "a");
	sl_str_addc(&s, 'b');
	sl_str_add(&s, "cdef", 2);
	sl_str_addf(&s, "%d-%s", 7, "x");
	sl_str_add(&s, NULL, 0);
	assert_string_equal(sl_str_text(&s), "abcd7-x");
	assert_int_equal(s.len, 7);
	sl_str_add(&s, "\0z", 2);
	assert_int_equal(s.len, 9);
	assert_memory_equal(s.p, "abcd7-x\0z", 10);
	sl_str_clear(&s);
	assert_string_equal(sl_str_text(&s), "");
	assert_true(s.cap > 0);
}

static void clear_of_nothing(void **state)
{
	struct sl_str s = { 0 };

	(void)state;
	sl_str_clear(&s);
	assert_string_equal(sl_str_text(&s), "");
	sl_str_done(&s);
}

static void grows(void **state)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };

	(void)state;
	for (int i = 0; i < 10000; i++)
		sl_str_addf(&s, "%c", 'a' + i % 26);
	assert_int_equal(s.len, 10000);
	assert_false(s.oom);
	for (size_t i = 0; i < s.len; i++)
		assert_int_equal(s.p[i], 'a' + i % 26);
	assert_int_equal(s.p[s.len], 0);
}

static void escapes(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		size_t max;
		const char *want;
		const char *why;
	} rows[] = {
		{ "plain text", 10, 100, "plain text", "nothing to do" },
		{ "a\"b\\c", 5, 100, "a\\x22b\\x5cc", "quote and backslash" },
		{ "\r\n\t\0", 4, 100, "\\x0d\\x0a\\x09\\x00", "control" },
		{ "\xff\x80~\x7f", 4, 100, "\\xff\\x80~\\x7f", "high bytes and DEL" },
		{ "abcdef", 6, 3, "abc...", "cut" },
		{ "abc", 3, 3, "abc", "exactly as long" },
		{ "abc", 3, 0, "...", "no room" },
		{ "", 0, 0, "", "empty" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		_cleanup_(sl_str_done) struct sl_str s = { 0 };

		sl_str_add_escaped(&s, rows[i].bytes, rows[i].n, rows[i].max);
		if (strcmp(sl_str_text(&s), rows[i].want) != 0)
			fail_msg("%s: %s", rows[i].why, sl_str_text(&s));
	}
}

static void out_of_memory_is_sticky(void **state)
{
	struct sl_str s = { 0 };

	(void)state;
	sl_str_adds(&s, "kept");
	no_memory = true;
	for (int i = 0; i < 100; i++)
		sl_str_adds(&s, "more and more");
	no_memory = false;
	assert_true(s.oom);
	sl_str_addf(&s, "%s", "later");
	assert_true(strncmp(s.p, "kept", 4) == 0);
	assert_null(strstr(s.p, "later"));
	assert_null(sl_str_take(&s));
	assert_int_equal(s.len, 0);
	assert_false(s.oom);
}

static void too_much_is_out_of_memory(void **state)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };

	(void)state;
	sl_str_add(&s, "x", SIZE_MAX);
	assert_true(s.oom);
	sl_str_clear(&s);
	assert_false(s.oom);
}

static void take_hands_over(void **state)
{
	struct sl_str s = { 0 };
	char *p;

	(void)state;
	sl_str_adds(&s, "mine");
	p = sl_str_take(&s);
	assert_string_equal(p, "mine");
	assert_null(s.p);
	free(p);
	p = sl_str_take(&s); /* also of nothing */
	assert_string_equal(p, "");
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(appends),
		cmocka_unit_test(clear_of_nothing),
		cmocka_unit_test(grows),
		cmocka_unit_test(escapes),
		cmocka_unit_test(out_of_memory_is_sticky),
		cmocka_unit_test(too_much_is_out_of_memory),
		cmocka_unit_test(take_hands_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
