/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/num.h"

#define YEARS_100 (UINT64_C(100) * 366 * 86400 * 1000)

struct row {
	const char *text;
	int r;
	uint64_t want;
	const char *why;
};

static void check(int (*parse)(const char *, uint64_t *), const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v = 4711;
		int r = parse(rows[i].text, &v);

		if (r != rows[i].r || v != (r < 0 ? 4711 : rows[i].want))
			fail_msg("%s: '%s' gives %d, %llu", rows[i].why, rows[i].text, r,
				 (unsigned long long)v);
	}
}

static int parse_plain(const char *text, uint64_t *ret)
{
	return sl_num_parse(text, 0, UINT64_MAX, ret);
}

static int parse_range(const char *text, uint64_t *ret)
{
	return sl_num_parse(text, 10, 20, ret);
}

static void plain(void **state)
{
	static const struct row rows[] = {
		{ "0", 0, 0, "zero" },
		{ "007", 0, 7, "leading zeros" },
		{ "18446744073709551615", 0, UINT64_MAX, "highest" },
		{ "18446744073709551616", -ERANGE, 0, "one too much" },
		{ "99999999999999999999999", -ERANGE, 0, "far too much" },
		{ "99999999999999999999999x", -EINVAL, 0, "not a number, whatever its size" },
		{ "", -EINVAL, 0, "empty" },
		{ "-1", -EINVAL, 0, "minus" },
		{ "+1", -EINVAL, 0, "plus" },
		{ " 1", -EINVAL, 0, "blank before" },
		{ "1 ", -EINVAL, 0, "blank after" },
		{ "0x10", -EINVAL, 0, "hexadecimal" },
		{ "1.5", -EINVAL, 0, "fraction" },
		{ "1e3", -EINVAL, 0, "exponent" },
	};

	(void)state;
	check(parse_plain, rows, SL_ARRAY_LEN(rows));
}

static void ranges(void **state)
{
	static const struct row rows[] = {
		{ "9", -ERANGE, 0, "below" }, { "10", 0, 10, "lowest" },
		{ "20", 0, 20, "highest" },   { "21", -ERANGE, 0, "above" },
		{ "x", -EINVAL, 0, "text" },
	};
	uint64_t v = 0;

	(void)state;
	check(parse_range, rows, SL_ARRAY_LEN(rows));
	assert_int_equal(sl_num_parsen("123456", 3, 0, 999, &v), 0);
	assert_int_equal(v, 123);
}

static void durations(void **state)
{
	static const struct row rows[] = {
		{ "0", 0, 0, "off" },
		{ "0s", 0, 0, "nothing of a unit" },
		{ "250ms", 0, 250, "milliseconds" },
		{ "30s", 0, 30000, "seconds" },
		{ "5m", 0, 300000, "minutes" },
		{ "4h", 0, 14400000, "hours" },
		{ "30d", 0, UINT64_C(2592000000), "days" },
		{ "36600d", 0, YEARS_100, "a hundred years" },
		{ "36601d", -ERANGE, 0, "more than a hundred years" },
		{ "99999999999999999999s", -ERANGE, 0, "more than 64 bits" },
		{ "30", -EINVAL, 0, "no unit" },
		{ "s", -EINVAL, 0, "no number" },
		{ "", -EINVAL, 0, "empty" },
		{ "1S", -EINVAL, 0, "upper case" },
		{ "1 s", -EINVAL, 0, "blank" },
		{ "1s5ms", -EINVAL, 0, "two units" },
		{ "-1s", -EINVAL, 0, "minus" },
		{ "1.5s", -EINVAL, 0, "fraction" },
		{ "1w", -EINVAL, 0, "unknown unit" },
	};

	(void)state;
	check(sl_num_parse_duration, rows, SL_ARRAY_LEN(rows));
}

static void sizes(void **state)
{
	static const struct row rows[] = {
		{ "0", 0, 0, "nothing" },
		{ "65536", 0, 65536, "bytes" },
		{ "64KiB", 0, 65536, "KiB" },
		{ "1MiB", 0, 1 << 20, "MiB" },
		{ "2GiB", 0, UINT64_C(2) << 30, "GiB" },
		{ "9223372036854775807", 0, INT64_MAX, "highest" },
		{ "9223372036854775808", -ERANGE, 0, "above the highest" },
		{ "8589934592GiB", -ERANGE, 0, "too many GiB" },
		{ "1KB", -EINVAL, 0, "decimal unit" },
		{ "1kib", -EINVAL, 0, "lower case" },
		{ "KiB", -EINVAL, 0, "no number" },
		{ "", -EINVAL, 0, "empty" },
	};

	(void)state;
	check(sl_num_parse_size, rows, SL_ARRAY_LEN(rows));
}

static void rates_and_percents(void **state)
{
	static const struct row rates[] = {
		{ "0", 0, 0, "no limit" },
		{ "50/s", 0, 3000, "a second" },
		{ "600/m", 0, 600, "a minute" },
		{ "4294967295/m", 0, UINT32_MAX, "highest" },
		{ "4294967296/m", -ERANGE, 0, "above" },
		{ "71582789/s", -ERANGE, 0, "above in seconds" },
		{ "50", -EINVAL, 0, "no unit" },
		{ "50/h", -EINVAL, 0, "unknown unit" },
		{ "/s", -EINVAL, 0, "no number" },
	};
	static const struct row percents[] = {
		{ "0%", 0, 0, "lowest" },           { "95%", 0, 95, "usual" },
		{ "100%", 0, 100, "highest" },      { "101%", -ERANGE, 0, "above" },
		{ "95", -EINVAL, 0, "no sign" },    { "%", -EINVAL, 0, "no number" },
		{ "9.5%", -EINVAL, 0, "fraction" },
	};

	(void)state;
	check(sl_num_parse_rate, rates, SL_ARRAY_LEN(rates));
	check(sl_num_parse_percent, percents, SL_ARRAY_LEN(percents));
}

/* What is printed reads back as the same value, in the largest unit that fits. */
static void formatted_durations(void **state)
{
	static const struct {
		uint64_t ms;
		const char *want;
	} rows[] = {
		{ 0, "0" },
		{ 1, "1ms" },
		{ 999, "999ms" },
		{ 1000, "1s" },
		{ 1500, "1500ms" },
		{ 90000, "90s" },
		{ 60000, "1m" },
		{ 14400000, "4h" },
		{ 86400000, "1d" },
		{ 90000000, "25h" },
		{ YEARS_100, "36600d" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		char buf[32];
		uint64_t v;

		assert_string_equal(sl_num_format_duration(rows[i].ms, buf), rows[i].want);
		assert_int_equal(sl_num_parse_duration(buf, &v), 0);
		assert_int_equal(v, rows[i].ms);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain),
		cmocka_unit_test(ranges),
		cmocka_unit_test(durations),
		cmocka_unit_test(sizes),
		cmocka_unit_test(rates_and_percents),
		cmocka_unit_test(formatted_durations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
