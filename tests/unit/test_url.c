/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "core/url.h"

static int decode(const char *in, bool plus, char *buf, size_t size)
{
	return sl_url_decode(sl_slice_of(in), plus, buf, size);
}

static void escapes_are_decoded(void **state)
{
	static const struct {
		const char *in;
		bool plus;
		const char *out; /* NULL: refused */
	} cases[] = {
		{ "", false, "" },
		{ "abc", false, "abc" },
		{ "a%20b", false, "a b" },
		{ "a+b", false, "a+b" },
		{ "a+b", true, "a b" },
		{ "%2b", true, "+" },
		{ "%C3%a9", false, "\xc3\xa9" },
		{ "%2525", false, "%25" },
		{ "%", false, NULL },
		{ "%4", false, NULL },
		{ "%4g", false, NULL },
		{ "%g4", false, NULL },
		{ "a%00b", false, NULL },
		{ "%-1", false, NULL },
	};
	char buf[32];

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		int r = decode(cases[i].in, cases[i].plus, buf, sizeof(buf));

		assert_int_equal(r, cases[i].out ? 0 : -EINVAL);
		if (cases[i].out)
			assert_string_equal(buf, cases[i].out);
	}
}

static void output_is_bounded(void **state)
{
	char buf[8];

	(void)state;
	assert_int_equal(decode("abc", false, buf, 4), 0);
	assert_int_equal(decode("abc", false, buf, 3), -ENOSPC);
	assert_int_equal(decode("%41%42%43", false, buf, 4), 0);
	assert_string_equal(buf, "ABC");
	assert_int_equal(decode("", false, buf, 1), 0);
	assert_int_equal(decode("", false, buf, 0), -ENOSPC);
	assert_int_equal(sl_url_query(sl_slice_of("a=1"), "a", buf, 0), -ENOSPC);
}

static void parameters_are_found(void **state)
{
	struct sl_slice q =
		sl_slice_of("id=7&route=a%20b+c&all&&empty=&x=1=2&bad=%zz&twice=1&twice=2");
	char buf[32];

	(void)state;
	assert_int_equal(sl_url_query(q, "id", buf, sizeof(buf)), 1);
	assert_string_equal(buf, "7");
	assert_int_equal(sl_url_query(q, "route", buf, sizeof(buf)), 1);
	assert_string_equal(buf, "a b c");
	assert_int_equal(sl_url_query(q, "all", buf, sizeof(buf)), 1);
	assert_string_equal(buf, "");
	assert_int_equal(sl_url_query(q, "empty", buf, sizeof(buf)), 1);
	assert_string_equal(buf, "");
	assert_int_equal(sl_url_query(q, "x", buf, sizeof(buf)), 1);
	assert_string_equal(buf, "1=2");
	assert_int_equal(sl_url_query(q, "i", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "");
	assert_int_equal(sl_url_query(q, "bad", buf, sizeof(buf)), -EINVAL);
	assert_int_equal(sl_url_query(q, "twice", buf, sizeof(buf)), -EEXIST);
	assert_int_equal(sl_url_query((struct sl_slice){ 0 }, "id", buf, sizeof(buf)), 0);
}

static void pairs_are_cut_in_order(void **state)
{
	struct sl_slice q = sl_slice_of("&&a=1&b&=c&");
	struct sl_slice name;
	struct sl_slice value;

	(void)state;
	assert_true(sl_url_next_pair(&q, &name, &value));
	assert_true(sl_slice_is(name, "a") && sl_slice_is(value, "1"));
	assert_true(sl_url_next_pair(&q, &name, &value));
	assert_true(sl_slice_is(name, "b"));
	assert_null(value.p);
	assert_true(sl_url_next_pair(&q, &name, &value));
	assert_true(sl_slice_is(name, "") && sl_slice_is(value, "c"));
	assert_false(sl_url_next_pair(&q, &name, &value));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(escapes_are_decoded),
		cmocka_unit_test(output_is_bounded),
		cmocka_unit_test(parameters_are_found),
		cmocka_unit_test(pairs_are_cut_in_order),
	};

	return cmocka_run_group_tests_name("url", tests, NULL, NULL);
}
