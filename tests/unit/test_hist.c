/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "core/hist.h"

static void bounds_ascend(void **state)
{
	(void)state;
	assert_int_equal(sl_hist_bound_us[0], 500);
	assert_int_equal(sl_hist_bound_us[SL_HIST_BUCKETS - 1], UINT64_C(86400) * 1000000);
	for (int i = 1; i < SL_HIST_BUCKETS; i++)
		assert_true(sl_hist_bound_us[i] > sl_hist_bound_us[i - 1]);
}

static size_t bucket_of(uint64_t us)
{
	struct sl_hist h = { 0 };
	size_t found = SIZE_MAX;

	sl_hist_add(&h, us);
	assert_int_equal(h.sum_us, us);
	for (size_t i = 0; i <= SL_HIST_BUCKETS; i++) {
		if (!h.bucket[i])
			continue;
		assert_int_equal(h.bucket[i], 1);
		assert_int_equal(found, SIZE_MAX);
		found = i;
	}
	return found;
}

/* Bounds are inclusive, as Prometheus has them. */
static void values_fall_where_they_belong(void **state)
{
	(void)state;
	assert_int_equal(bucket_of(0), 0);
	for (size_t i = 0; i < SL_HIST_BUCKETS; i++) {
		assert_int_equal(bucket_of(sl_hist_bound_us[i]), i);
		assert_int_equal(bucket_of(sl_hist_bound_us[i] + 1), i + 1);
	}
	assert_int_equal(bucket_of(UINT64_MAX), SL_HIST_BUCKETS);
}

static void merge_adds(void **state)
{
	struct sl_hist total = { 0 };
	struct sl_hist a = { 0 };
	struct sl_hist b = { 0 };

	(void)state;
	sl_hist_add(&a, 1);
	sl_hist_add(&a, 700);
	sl_hist_add(&b, 2);
	sl_hist_merge(&total, &a);
	sl_hist_merge(&total, &b);
	assert_int_equal(total.bucket[0], 2);
	assert_int_equal(total.bucket[1], 1);
	assert_int_equal(total.sum_us, 703);
	assert_int_equal(b.bucket[1], 0);
}

static void counters(void **state)
{
	uint64_t n = 5;

	(void)state;
	sl_count_add(&n, 3);
	assert_int_equal(sl_count_get(&n), 8);
	sl_count_set(&n, 1);
	assert_int_equal(sl_count_get(&n), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bounds_ascend),
		cmocka_unit_test(values_fall_where_they_belong),
		cmocka_unit_test(merge_adds),
		cmocka_unit_test(counters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
