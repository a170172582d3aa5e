/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rand.h"
#include "io/wheel.h"

static void never_called(struct sl_timer *timer)
{
	(void)timer;
	fail();
}

static void add(struct sl_wheel *w, struct sl_timer *t, uint64_t at_ms)
{
	t->at_ms = at_ms;
	t->fn = never_called;
	sl_wheel_add(w, t);
}

static bool is_due(struct sl_list *due, struct sl_timer *t)
{
	struct sl_list *pos;

	sl_list_for_each (pos, due)
		if (pos == &t->node)
			return true;
	return false;
}

/* Goes to the time of every wake-up the wheel asks for; returns how many there were. */
static unsigned walk(struct sl_wheel *w, struct sl_timer *t, struct sl_list *due)
{
	unsigned n = 0;

	while (!is_due(due, t)) {
		uint64_t next = sl_wheel_next(w);

		assert_true(next <= t->at_ms || next == w->now_ms);
		assert_true(next > w->now_ms || n == 0);
		sl_wheel_advance(w, next, due);
		assert_true(++n <= SL_WHEEL_LEVELS);
	}
	return n;
}

static void distances(void **state)
{
	static const struct {
		uint64_t now;
		uint64_t at;
		const char *why;
	} rows[] = {
		{ 1000, 1000, "now" },
		{ 1000, 0, "long ago" },
		{ 1000, 1001, "next tick" },
		{ 0, 63, "end of the first level" },
		{ 0, 64, "start of the second level" },
		{ 63, 64, "next tick, but across a digit" },
		{ 4095, 4096, "next tick across two digits" },
		{ (1 << 18) - 1, 1 << 18, "next tick across three digits" },
		{ 123456789, 123456789 + 14400000, "four hours" },
		{ 1, UINT64_MAX, "the end of time" },
		{ UINT64_MAX - 1, UINT64_MAX, "the last tick" },
		{ 0, UINT64_C(1) << 63, "the highest bit" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		struct sl_wheel w;
		struct sl_timer t;
		struct sl_list due;

		sl_list_init(&due);
		sl_wheel_init(&w, rows[i].now);
		assert_int_equal(sl_wheel_next(&w), UINT64_MAX);
		add(&w, &t, rows[i].at);
		if (rows[i].at > rows[i].now + 1) {
			sl_wheel_advance(&w, rows[i].at - 1, &due);
			if (!sl_list_is_empty(&due))
				fail_msg("early: %s", rows[i].why);
		}
		(void)walk(&w, &t, &due);
		assert_true(w.now_ms == (rows[i].at > rows[i].now ? rows[i].at : rows[i].now));
		assert_int_equal(sl_wheel_next(&w), UINT64_MAX);
	}
}

static void time_never_goes_back(void **state)
{
	struct sl_wheel w;
	struct sl_timer t;
	struct sl_list due;

	(void)state;
	sl_list_init(&due);
	sl_wheel_init(&w, 1000);
	sl_wheel_advance(&w, 10, &due);
	assert_int_equal(w.now_ms, 1000);
	add(&w, &t, 500);
	sl_wheel_advance(&w, 10, &due);
	assert_true(is_due(&due, &t));
}

static void removed_timers_cost_no_wake_up(void **state)
{
	struct sl_wheel w;
	struct sl_timer near;
	struct sl_timer far;

	(void)state;
	sl_wheel_init(&w, 0);
	add(&w, &near, 10);
	add(&w, &far, 50);
	assert_int_equal(sl_wheel_next(&w), 10);
	sl_list_remove(&near.node);
	assert_int_equal(sl_wheel_next(&w), 50);
	sl_list_remove(&far.node);
	assert_int_equal(sl_wheel_next(&w), UINT64_MAX);
}

static void clear_stops_everything(void **state)
{
	static const uint64_t at[] = { 0, 5, 70, 5000, 1 << 20, UINT64_MAX };
	struct sl_wheel w;
	struct sl_timer t[SL_ARRAY_LEN(at)];

	(void)state;
	sl_wheel_init(&w, 1);
	for (size_t i = 0; i < SL_ARRAY_LEN(at); i++)
		add(&w, &t[i], at[i]);
	sl_wheel_clear(&w);
	for (size_t i = 0; i < SL_ARRAY_LEN(at); i++)
		assert_false(sl_timer_is_armed(&t[i]));
	assert_int_equal(sl_wheel_next(&w), UINT64_MAX);
}

#define N_TIMERS 200
#define N_STEPS 50000

/* Takes what is due and compares with the plain definition: all with at_ms <= now, no other. */
static void check_due(struct sl_timer *t, uint64_t now_ms, struct sl_list *due)
{
	while (!sl_list_is_empty(due)) {
		struct sl_timer *fired = SL_CONTAINER_OF(due->next, struct sl_timer, node);

		assert_true(fired->at_ms <= now_ms);
		assert_non_null(fired->fn);
		fired->fn = NULL;
		sl_list_remove(&fired->node);
	}
	for (size_t i = 0; i < N_TIMERS; i++)
		if (t[i].fn)
			assert_true(t[i].at_ms > now_ms);
}

static void random_against_the_definition(void **state)
{
	static struct sl_wheel w;
	static struct sl_timer t[N_TIMERS];
	struct sl_list due;
	struct sl_rand r;

	(void)state;
	sl_rand_seed(&r, 20240607);
	sl_list_init(&due);
	for (int round = 0; round < 4; round++) {
		uint64_t now_ms = round == 0 ? 0 : sl_rand_next(&r) >> (16 * round);

		for (size_t i = 0; i < N_TIMERS; i++)
			t[i].fn = NULL;
		sl_wheel_init(&w, now_ms);
		for (unsigned step = 0; step < N_STEPS; step++) {
			struct sl_timer *one = &t[sl_rand_below(&r, N_TIMERS)];
			uint64_t spread = UINT64_C(1) << sl_rand_below(&r, 24);

			if (one->fn)
				sl_list_remove(&one->node);
			one->fn = NULL;
			if (sl_rand_below(&r, 4))
				add(&w, one, now_ms + sl_rand_below(&r, spread));
			if (sl_rand_below(&r, 3) == 0)
				now_ms += sl_rand_below(&r, UINT64_C(1) << sl_rand_below(&r, 14));
			assert_true(sl_wheel_next(&w) >= w.now_ms);
			sl_wheel_advance(&w, now_ms, &due);
			check_due(t, now_ms, &due);
		}
	}
}

/* The promise of sl_wheel_next(): sleeping by it is never too long for any timer. */
static void next_is_never_late(void **state)
{
	static struct sl_wheel w;
	static struct sl_timer t[N_TIMERS];
	struct sl_list due;
	struct sl_rand r;
	uint64_t last_ms = 0;

	(void)state;
	sl_rand_seed(&r, 7);
	sl_list_init(&due);
	sl_wheel_init(&w, 999999);
	for (size_t i = 0; i < N_TIMERS; i++)
		add(&w, &t[i], 999999 + sl_rand_below(&r, 20000000));
	for (unsigned n = 0; sl_wheel_next(&w) != UINT64_MAX; n++) {
		uint64_t next = sl_wheel_next(&w);

		assert_true(next >= last_ms);
		assert_true(n < N_TIMERS * SL_WHEEL_LEVELS);
		sl_wheel_advance(&w, next, &due);
		while (!sl_list_is_empty(&due)) {
			struct sl_timer *fired = SL_CONTAINER_OF(due.next, struct sl_timer, node);

			assert_true(fired->at_ms == next || fired->at_ms <= 999999);
			sl_list_remove(&fired->node);
		}
		last_ms = next;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(distances),
		cmocka_unit_test(time_never_goes_back),
		cmocka_unit_test(removed_timers_cost_no_wake_up),
		cmocka_unit_test(clear_stops_everything),
		cmocka_unit_test(random_against_the_definition),
		cmocka_unit_test(next_is_never_late),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
