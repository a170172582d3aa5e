/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/balance.h"
#include "proxy/target.h"

static struct sl_conf_target literal = { .address = (char *)"192.0.2.1:80",
					 .port = 80,
					 .weight = 3 };
static struct sl_conf_target name = { .address = (char *)"shop.example:80",
				      .host = (char *)"shop.example",
				      .port = 80,
				      .weight = 1 };

static int make_target(void **state)
{
	struct sl_target *t = NULL;

	assert_int_equal(sl_addr_parse("192.0.2.1:80", &literal.addr), 0);
	assert_int_equal(sl_target_new(&literal, &t), 0);
	*state = t;
	return 0;
}

static int drop_target(void **state)
{
	sl_target_unref(*state);
	return 0;
}

static uint32_t share(struct sl_target *t, uint64_t now_ms)
{
	return sl_target_share(t, &literal, 10000, true, now_ms);
}

static void a_share_is_the_weight(void **state)
{
	struct sl_target *t = *state;
	struct sl_conf_target conf = literal;

	assert_int_equal(share(t, 5), 3 * SL_SHARE_ONE);
	conf.weight = 0;
	assert_int_equal(sl_target_share(t, &conf, 0, true, 5), 0);
	conf.weight = 1000;
	assert_int_equal(sl_target_share(t, &conf, 0, true, 5), 1000 * SL_SHARE_ONE);
	conf.drained = true;
	assert_int_equal(sl_target_share(t, &conf, 0, true, 5), 0);
	t->is_down = 1;
	assert_int_equal(share(t, 5), 0);
	assert_int_equal(t->name, sl_balance_name("192.0.2.1:80"));
}

static void names_count_once_they_resolve(void **state)
{
	struct sl_target *t = NULL;

	(void)state;
	assert_int_equal(sl_target_new(&name, &t), 0);
	assert_int_equal(sl_target_share(t, &name, 0, true, 5), 0);
	t->addrs[0] = literal.addr;
	t->n_addrs = 1;
	assert_int_equal(sl_target_share(t, &name, 0, true, 5), SL_SHARE_ONE);
	sl_target_unref(t);
}

static void slow_start_begins_when_it_is_up(void **state)
{
	struct sl_target *t = *state;

	t->up_since_ms = 50000;
	assert_int_equal(share(t, 50000), 3 * (SL_SHARE_ONE / 10));
	assert_int_equal(share(t, 49990), 3 * (SL_SHARE_ONE / 10)); /* an older turn's time */
	assert_in_range(share(t, 55000), 3 * 562, 3 * 564);
	assert_int_equal(share(t, 60000), 3 * SL_SHARE_ONE);
	assert_int_equal(sl_target_share(t, &literal, 0, true, 50000), 3 * SL_SHARE_ONE);
}

static void failures_in_a_row_hold_it_back(void **state)
{
	struct sl_target *t = *state;

	assert_false(sl_target_count_connect(t, false, 1000));
	assert_false(sl_target_count_connect(t, false, 1000));
	assert_false(sl_target_count_connect(t, true, 1000)); /* no longer in a row */
	assert_false(sl_target_count_connect(t, false, 1000));
	assert_false(sl_target_count_connect(t, false, 1000));
	assert_int_equal(share(t, 1000), 3 * SL_SHARE_ONE);
	assert_true(sl_target_count_connect(t, false, 1000));
	assert_int_equal(share(t, 1000), 0);
	assert_int_equal(share(t, 1999), 0);
	assert_int_equal(sl_target_share(t, &literal, 0, false, 1999), 3 * SL_SHARE_ONE);
	assert_int_equal(share(t, 2000), 3 * SL_SHARE_ONE);
	/* connects that were under way make it no longer */
	for (int i = 0; i < 100; i++)
		assert_false(sl_target_count_connect(t, false, 1999));
	assert_int_equal(share(t, 2000), 3 * SL_SHARE_ONE);
	assert_true(sl_target_count_connect(t, false, 2000));
	assert_int_equal(share(t, 3999), 0);
	assert_true(sl_target_count_connect(t, false, 4000));
	assert_int_equal(share(t, 7999), 0);
	/* one success ends it and its history */
	assert_false(sl_target_count_connect(t, true, 5000));
	assert_int_equal(share(t, 5000), 3 * SL_SHARE_ONE);
	assert_false(sl_target_count_connect(t, false, 5001));
	assert_false(sl_target_count_connect(t, false, 5001));
	assert_true(sl_target_count_connect(t, false, 5001));
	assert_int_equal(share(t, 6000), 0);
	assert_int_equal(share(t, 6001), 3 * SL_SHARE_ONE);
}

struct worker {
	pthread_t thread;
	struct sl_target *target;
	unsigned n_holds;
};

/* A dead target under load: time passes in steps of 1 ms, 16 s in all. */
static void *fail_often(void *arg)
{
	struct worker *w = arg;

	for (uint64_t ms = 0; ms < 16000; ms++)
		for (int i = 0; i < 5; i++)
			w->n_holds += sl_target_count_connect(w->target, false, ms);
	return NULL;
}

/* However many workers fail at once, holds are those of one: 1 + 2 + 4 + 8 s, and one more. */
static void workers_share_one_hold(void **state)
{
	struct worker w[4] = { 0 };
	unsigned n_holds = 0;

	for (size_t i = 0; i < 4; i++) {
		w[i].target = *state;
		assert_int_equal(pthread_create(&w[i].thread, NULL, fail_often, &w[i]), 0);
	}
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(w[i].thread, NULL), 0);
		n_holds += w[i].n_holds;
	}
	assert_in_range(n_holds, 1, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_share_is_the_weight, make_target, drop_target),
		cmocka_unit_test(names_count_once_they_resolve),
		cmocka_unit_test_setup_teardown(slow_start_begins_when_it_is_up, make_target,
						drop_target),
		cmocka_unit_test_setup_teardown(failures_in_a_row_hold_it_back, make_target,
						drop_target),
		cmocka_unit_test_setup_teardown(workers_share_one_hold, make_target, drop_target),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
