/* SPDX-License-Identifier: GPL-3.0-or-later */
/* When a process that has died is started again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/backoff.h"

static void test_at_once(void **state)
{
	struct sl_backoff b = { 0 };

	(void)state;
	/* One death every three seconds, for ever. */
	for (uint64_t now = 100000; now < 200000; now += 3000) {
		sl_backoff_started(&b, now);
		assert_int_equal(sl_backoff_died(&b, now + 2999), 0);
	}
}

static void test_loop_is_held_back(void **state)
{
	static const uint64_t waits[] = { 1000, 2000, 4000, 8000, 10000, 10000 };
	struct sl_backoff b = { 0 };
	uint64_t now = 100000;

	(void)state;
	for (int i = 0; i < 5; i++) {
		sl_backoff_started(&b, now);
		assert_int_equal(sl_backoff_died(&b, ++now), 0);
	}
	for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
		sl_backoff_started(&b, now);
		assert_int_equal(sl_backoff_died(&b, ++now), waits[i]);
		now += waits[i];
	}
	/* One that has lived for more than ten seconds ends it. */
	sl_backoff_started(&b, now);
	now += 10001;
	assert_int_equal(sl_backoff_died(&b, now), 0);
	sl_backoff_started(&b, now);
	assert_int_equal(sl_backoff_died(&b, now + 1), 0);
}

static void test_cannot_be_started(void **state)
{
	static const uint64_t waits[] = { 1000, 2000, 4000, 8000, 10000, 10000 };
	struct sl_backoff b = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++)
		assert_int_equal(sl_backoff_failed(&b), waits[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_at_once),
		cmocka_unit_test(test_loop_is_held_back),
		cmocka_unit_test(test_cannot_be_started),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
