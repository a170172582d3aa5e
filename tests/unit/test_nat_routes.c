/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/nat_routes.h"
#include "nft_routes.h"

static void plan(struct sl_nat_routes *r, const struct test_routes *t, uint32_t base, int want)
{
	const struct sl_nat_plan p = { .routes = t->route, .n_routes = t->n, .mark_base = base };

	assert_int_equal(sl_nat_routes_plan(r, &p, 2), want);
}

static void assert_mark(const struct sl_nat_routes *r, const char *name, uint32_t mark)
{
	const struct sl_nat_route *route = sl_nat_routes_named(r, name);

	assert_non_null(route);
	assert_int_equal(route->mark, mark);
	assert_ptr_equal(sl_nat_routes_find(r, mark), route);
}

/* Those that a table has, numbered from 1 on. */
static void adopt(struct sl_nat_routes *r, const struct test_routes *t)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	_cleanup_(sl_str_done) struct sl_str why = { 0 };

	assert_int_equal(sl_nft_build(t->route, t->n, NULL, &rs, &why), 0);
	assert_int_equal(sl_nat_routes_adopt(r, rs), 0);
	assert_int_equal(sl_nat_routes_n_gone(r), t->n);
}

static void names_keep_their_marks(void **state)
{
	_cleanup_(sl_nat_routes_done) struct sl_nat_routes r = { 0 };
	struct test_routes before, after;

	(void)state;
	test_routes_init(&before, 4);
	test_route(&before, "a");
	test_route(&before, "b");
	test_route(&before, "c");
	test_route(&before, "d");
	adopt(&r, &before);
	test_routes_init(&after, 4);
	test_route(&after, "new");
	test_route(&after, "b");
	test_route(&after, "newer");
	test_route(&after, "d");
	plan(&r, &after, 0, 0);
	assert_int_equal(sl_nat_routes_n_gone(&r), 2);
	assert_mark(&r, "b", 2);
	assert_mark(&r, "d", 4);
	assert_mark(&r, "new", 5); /* 1 and 3 are of routes that may have flows */
	assert_mark(&r, "newer", 6);
	assert_int_equal(sl_nat_routes_drop(&r, 2), 2);
	plan(&r, &before, 0, 0);
	assert_mark(&r, "a", 1);
	assert_mark(&r, "b", 2);
	assert_mark(&r, "c", 3);
	assert_mark(&r, "d", 4);
	test_routes_done(&before);
	test_routes_done(&after);
}

static void marks_begin_above_the_base(void **state)
{
	_cleanup_(sl_nat_routes_done) struct sl_nat_routes r = { 0 };
	struct test_routes t;

	(void)state;
	test_routes_init(&t, 3);
	test_route(&t, "a");
	test_route(&t, "b");
	plan(&r, &t, 0x1000, 0);
	assert_mark(&r, "a", 0x1001);
	assert_mark(&r, "b", 0x1002);
	test_route(&t, "c");
	plan(&r, &t, UINT32_MAX, -ENOSPC);
	assert_null(sl_nat_routes_named(&r, "c"));
	plan(&r, &t, UINT32_MAX - 1, 0);
	assert_mark(&r, "a", 0x1001);
	assert_mark(&r, "c", UINT32_MAX);
	test_routes_done(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_keep_their_marks),
		cmocka_unit_test(marks_begin_above_the_base),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
