/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/rand.h"

static json_t *parse(const struct sl_str *s)
{
	json_error_t err;
	json_t *root = json_loadb(s->p, s->len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &err);

	if (!root)
		fail_msg("%s at %d in %s", err.text, err.position, s->p);
	return root;
}

static void every_kind_of_value(void **state)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };
	struct sl_json j = sl_json_on(&s);

	(void)state;
	sl_json_obj(&j, NULL);
	sl_json_str(&j, "s", "text");
	sl_json_str(&j, "none", NULL);
	sl_json_u64(&j, "u", UINT64_MAX);
	sl_json_i64(&j, "i", INT64_MIN);
	sl_json_f64(&j, "f", 0.25);
	sl_json_f64(&j, "nan", NAN);
	sl_json_f64(&j, "inf", INFINITY);
	sl_json_bool(&j, "yes", true);
	sl_json_bool(&j, "no", false);
	sl_json_arr(&j, "a");
	sl_json_u64(&j, NULL, 1);
	sl_json_obj(&j, NULL);
	sl_json_obj_end(&j);
	sl_json_arr(&j, NULL);
	sl_json_arr_end(&j);
	sl_json_null(&j, NULL);
	sl_json_arr_end(&j);
	sl_json_obj(&j, "o");
	sl_json_i64(&j, "k\"ey", -1);
	sl_json_obj_end(&j);
	sl_json_obj_end(&j);
	assert_string_equal(
		sl_str_text(&s),
		"{\"s\":\"text\",\"none\":null,\"u\":18446744073709551615,"
		"\"i\":-9223372036854775808,\"f\":0.25,\"nan\":null,\"inf\":null,"
		"\"yes\":true,\"no\":false,\"a\":[1,{},[],null],\"o\":{\"k\\\"ey\":-1}}");
	assert_int_equal(j.depth, 0);
}

static void strings(void **state)
{
	static const struct {
		const char *in;
		const char *want; /* as read back */
		const char *why;
	} rows[] = {
		{ "", "", "empty" },
		{ "a\"b\\c/d", "a\"b\\c/d", "quote, backslash, slash" },
		{ "\n\r\t\b\f\x01\x1f\x7f", "\n\r\t\b\f\x01\x1f\x7f", "control" },
		{ "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f", "two bytes" },
		{ "\xe2\x82\xac\xed\x9f\xbf", "\xe2\x82\xac\xed\x9f\xbf", "three bytes" },
		{ "\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf", "\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf",
		  "four bytes and U+10FFFF" },
		{ "a\xff"
		  "b",
		  "a\xef\xbf\xbd"
		  "b",
		  "never a byte of UTF-8" },
		{ "\x80", "\xef\xbf\xbd", "continuation alone" },
		{ "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd", "overlong, two bytes" },
		{ "\xc3", "\xef\xbf\xbd", "cut at the end" },
		{ "\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd", "three bytes cut" },
		{ "\xe2\x82z", "\xef\xbf\xbd\xef\xbf\xbdz", "third byte wrong" },
		{ "\xe0\x80\xaf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "overlong, three bytes" },
		{ "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "surrogate" },
		{ "\xf0\x8f\xbf\xbf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
		  "overlong, four bytes" },
		{ "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
		  "above U+10FFFF" },
		{ "\xf5\x80\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
		  "start byte above F4" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		_cleanup_(sl_str_done) struct sl_str s = { 0 };
		struct sl_json j = sl_json_on(&s);
		json_t *root;

		sl_json_str(&j, NULL, rows[i].in);
		root = parse(&s);
		if (strcmp(json_string_value(root), rows[i].want) != 0)
			fail_msg("%s: %s", rows[i].why, s.p);
		json_decref(root);
	}
}

/* Whatever the bytes, the output is JSON, and of valid input nothing is lost. */
static void random_bytes(void **state)
{
	struct sl_rand r;

	(void)state;
	sl_rand_seed(&r, 99);
	for (int round = 0; round < 20000; round++) {
		_cleanup_(sl_str_done) struct sl_str s = { 0 };
		struct sl_json j = sl_json_on(&s);
		size_t n = sl_rand_below(&r, 12);
		char *bytes = malloc(n ? n : 1);
		json_t *root;

		for (size_t i = 0; i < n; i++)
			bytes[i] = (char)(0x80 * (sl_rand_below(&r, 4) > 0) + 1 +
					  sl_rand_below(&r, 127));
		sl_json_arr(&j, NULL);
		sl_json_strn(&j, NULL, bytes, n);
		sl_json_arr_end(&j);
		root = parse(&s);
		assert_true(json_string_length(json_array_get(root, 0)) >= n);
		json_decref(root);
		free(bytes);
	}
}

static void deep_nesting(void **state)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };
	struct sl_json j = sl_json_on(&s);
	json_t *root;

	(void)state;
	for (int i = 0; i < 60; i++) {
		sl_json_arr(&j, NULL);
		sl_json_u64(&j, NULL, 1);
	}
	for (int i = 0; i < 60; i++) {
		sl_json_u64(&j, NULL, 2);
		sl_json_arr_end(&j);
	}
	root = parse(&s);
	assert_int_equal(json_array_size(root), 3);
	json_decref(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_value),
		cmocka_unit_test(strings),
		cmocka_unit_test(random_bytes),
		cmocka_unit_test(deep_nesting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
