/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A connection that changes its engine, back and forth: what it remembers, and what is counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/conn.h"
#include "proxy/engine.h"
#include "proxy/worker.h"

struct lab {
	struct sl_worker worker;
	struct sl_route *route;
	struct sl_gen_route gen_route;
	struct sl_conn conn;
};

static int setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	assert_non_null(lab);
	assert_int_equal(sl_loop_new(&lab->worker.loop), 0);
	assert_int_equal(sl_route_new("r", 1, 1, &lab->route), 0);
	lab->gen_route.route = lab->route;
	lab->conn.worker = &lab->worker;
	lab->conn.route = &lab->gen_route;
	*state = lab;
	return 0;
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	sl_route_unref(lab->route);
	sl_loop_free(lab->worker.loop);
	free(lab);
	return 0;
}

static void counts_are(const struct lab *lab, enum sl_engine_id engine, uint64_t active,
		       uint64_t total)
{
	assert_int_equal(lab->route->counts[0].active[engine], active);
	assert_int_equal(lab->route->counts[0].total[engine], total);
	assert_int_equal(lab->worker.counts.engine_active[engine], active);
	assert_int_equal(lab->worker.counts.engine_total[engine], total);
}

static uint64_t all_moves(const struct lab *lab)
{
	uint64_t sum = 0;

	for (int from = 0; from < SL_ENGINE_COUNT_; from++)
		for (int to = 0; to < SL_ENGINE_COUNT_; to++)
			for (int why = 0; why < SL_WHY_COUNT_; why++)
				sum += lab->worker.counts.engine_moves[from][to][why];
	return sum;
}

static void the_first_engine_is_no_move(void **state)
{
	struct lab *lab = *state;

	sl_conn_use_engine(&lab->conn, &sl_engine_relay, SL_WHY_SHORT_LIVED);
	assert_int_equal(lab->conn.moves.n, 0);
	assert_int_equal(sl_moves_n_kept(&lab->conn.moves), 0);
	assert_int_equal(lab->route->counts[0].moved, 0);
	assert_int_equal(all_moves(lab), 0);
	counts_are(lab, SL_ENGINE_RELAY, 1, 1);
}

static void back_and_forth(void **state)
{
	struct lab *lab = *state;
	struct sl_conn *c = &lab->conn;
	const struct sl_move *m;
	uint64_t before_us;
	uint64_t after_us;

	sl_conn_use_engine(c, &sl_engine_relay, SL_WHY_SHORT_LIVED);
	before_us = sl_loop_now_us(lab->worker.loop);
	sl_conn_use_engine(c, &sl_engine_packet, SL_WHY_ELIGIBLE);
	after_us = sl_loop_now_us(lab->worker.loop);
	counts_are(lab, SL_ENGINE_RELAY, 0, 1);
	counts_are(lab, SL_ENGINE_PACKET, 1, 1);
	assert_int_equal(c->engine_id, SL_ENGINE_PACKET);
	sl_conn_use_engine(c, &sl_engine_relay, SL_WHY_HALF_CLOSED);
	assert_int_equal(c->engine_id, SL_ENGINE_RELAY);
	assert_int_equal(c->engine_reason, SL_WHY_HALF_CLOSED);
	/* Two periods on the relay, one connection: the route's total leaves out what has moved. */
	counts_are(lab, SL_ENGINE_RELAY, 1, 2);
	counts_are(lab, SL_ENGINE_PACKET, 0, 1);
	assert_int_equal(lab->route->counts[0].moved, 2);
	assert_int_equal(c->moves.n, 2);
	m = sl_moves_at(&c->moves, 0);
	assert_int_equal(m->from, SL_ENGINE_RELAY);
	assert_int_equal(m->to, SL_ENGINE_PACKET);
	assert_int_equal(m->why, SL_WHY_ELIGIBLE);
	assert_in_range(m->at_us, before_us, after_us);
	m = sl_moves_at(&c->moves, 1);
	assert_int_equal(m->from, SL_ENGINE_PACKET);
	assert_int_equal(m->to, SL_ENGINE_RELAY);
	assert_int_equal(m->why, SL_WHY_HALF_CLOSED);
	assert_int_equal(
		lab->worker.counts.engine_moves[SL_ENGINE_RELAY][SL_ENGINE_PACKET][SL_WHY_ELIGIBLE],
		1);
	assert_int_equal(lab->worker.counts.engine_moves[SL_ENGINE_PACKET][SL_ENGINE_RELAY]
							[SL_WHY_HALF_CLOSED],
			 1);
	assert_int_equal(all_moves(lab), 2);
}

/* Each move has a reason of its own here. */
static void the_last_ones_are_remembered(void **state)
{
	struct lab *lab = *state;
	struct sl_conn *c = &lab->conn;

	sl_conn_use_engine(c, &sl_engine_relay, SL_WHY_SHORT_LIVED);
	for (unsigned n = 1; n <= 9; n++) {
		unsigned kept = n < SL_MOVES_KEPT ? n : SL_MOVES_KEPT;

		sl_conn_use_engine(c, n % 2 ? &sl_engine_packet : &sl_engine_relay,
				   (enum sl_engine_reason)(SL_WHY_NONE + n));
		assert_int_equal(c->moves.n, n);
		assert_int_equal(sl_moves_n_kept(&c->moves), kept);
		for (unsigned i = 0; i < kept; i++)
			assert_int_equal(sl_moves_at(&c->moves, i)->why,
					 SL_WHY_NONE + n - kept + 1 + i);
	}
	counts_are(lab, SL_ENGINE_RELAY, 0, 5);
	counts_are(lab, SL_ENGINE_PACKET, 1, 5);
	assert_int_equal(all_moves(lab), 9);
	assert_int_equal(lab->route->counts[0].moved, 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_first_engine_is_no_move, setup, teardown),
		cmocka_unit_test_setup_teardown(back_and_forth, setup, teardown),
		cmocka_unit_test_setup_teardown(the_last_ones_are_remembered, setup, teardown),
	};

	return cmocka_run_group_tests_name("moves", tests, NULL, NULL);
}
