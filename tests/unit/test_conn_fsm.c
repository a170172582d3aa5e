/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/rand.h"
#include "core/conn_fsm.h"

static const struct {
	enum sl_conn_state state;
	enum sl_conn_event event;
	int targets_left; /* -1: does not matter */
	enum sl_conn_state next;
	enum sl_conn_action action;
	const char *why;
} legal[] = {
	{ SL_CONN_ACCEPTED, SL_EV_BYTES_NEEDED, -1, SL_CONN_CLASSIFYING, SL_ACT_READ_FIRST_BYTES,
	  "routing needs bytes" },
	{ SL_CONN_ACCEPTED, SL_EV_ROUTED, -1, SL_CONN_CONNECTING, SL_ACT_CONNECT,
	  "routing needs none" },
	{ SL_CONN_ACCEPTED, SL_EV_ADOPTED, -1, SL_CONN_ESTABLISHED, SL_ACT_NONE,
	  "a flow of the kernel" },
	{ SL_CONN_CLASSIFYING, SL_EV_ROUTED, -1, SL_CONN_CONNECTING, SL_ACT_CONNECT,
	  "enough bytes" },
	{ SL_CONN_CONNECTING, SL_EV_CONNECTED, -1, SL_CONN_ESTABLISHED, SL_ACT_START_ENGINE,
	  "connected" },
	{ SL_CONN_CONNECTING, SL_EV_TLS_NEEDED, -1, SL_CONN_HANDSHAKING, SL_ACT_HANDSHAKE,
	  "connected, TLS first" },
	{ SL_CONN_CONNECTING, SL_EV_CONNECT_FAILED, 1, SL_CONN_CONNECTING, SL_ACT_CONNECT,
	  "next target" },
	{ SL_CONN_CONNECTING, SL_EV_CONNECT_FAILED, 0, SL_CONN_CLOSED, SL_ACT_RELEASE,
	  "no target left" },
	{ SL_CONN_ACCEPTED, SL_EV_TLS_NEEDED, -1, SL_CONN_HANDSHAKING, SL_ACT_HANDSHAKE,
	  "routed without bytes, TLS first" },
	{ SL_CONN_CLASSIFYING, SL_EV_TLS_NEEDED, -1, SL_CONN_HANDSHAKING, SL_ACT_HANDSHAKE,
	  "routed, TLS first" },
	{ SL_CONN_HANDSHAKING, SL_EV_CLIENT_SECURED, -1, SL_CONN_CONNECTING, SL_ACT_CONNECT,
	  "TLS with the client is done" },
	{ SL_CONN_HANDSHAKING, SL_EV_CONNECT_FAILED, 1, SL_CONN_CONNECTING, SL_ACT_CONNECT,
	  "TLS with the target failed, next target" },
	{ SL_CONN_HANDSHAKING, SL_EV_CONNECT_FAILED, 0, SL_CONN_CLOSED, SL_ACT_RELEASE,
	  "TLS with the target failed, none left" },
	{ SL_CONN_HANDSHAKING, SL_EV_SECURED, -1, SL_CONN_ESTABLISHED, SL_ACT_START_ENGINE,
	  "TLS is done" },
	{ SL_CONN_ESTABLISHED, SL_EV_ONE_FINISHED, -1, SL_CONN_CLOSING, SL_ACT_NONE, "one FIN" },
};

static void check(enum sl_conn_state state, enum sl_conn_event event, bool left,
		  struct sl_conn_step want, const char *why)
{
	struct sl_conn_step got = sl_conn_fsm_step(state, event, left);

	if (got.next != want.next || got.action != want.action)
		fail_msg("%s, event %d, targets left %d: %s (action %d): %s",
			 sl_conn_state_name(state), event, left, sl_conn_state_name(got.next),
			 got.action, why);
}

/* Every state with every event: what the table has, the ends that are legal everywhere, or a bug.
 */
static void exhaustive(void **state)
{
	unsigned used[SL_ARRAY_LEN(legal)] = { 0 };

	(void)state;
	for (int s = 0; s < SL_CONN_STATE_COUNT_; s++)
		for (int e = 0; e < SL_CONN_EVENT_COUNT_; e++)
			for (int left = 0; left < 2; left++) {
				struct sl_conn_step want = { SL_CONN_CLOSED, SL_ACT_BUG };
				const char *why = "cannot happen here";

				if (e == SL_EV_ABORT || e == SL_EV_BOTH_FINISHED)
					want.action = SL_ACT_RELEASE;
				if (s == SL_CONN_CLOSED)
					want.action = SL_ACT_NONE;
				for (size_t i = 0; i < SL_ARRAY_LEN(legal); i++) {
					if ((int)legal[i].state != s || (int)legal[i].event != e ||
					    (legal[i].targets_left >= 0 &&
					     legal[i].targets_left != left))
						continue;
					want = (struct sl_conn_step){ legal[i].next,
								      legal[i].action };
					why = legal[i].why;
					used[i]++;
				}
				check((enum sl_conn_state)s, (enum sl_conn_event)e, left, want,
				      why);
			}
	for (size_t i = 0; i < SL_ARRAY_LEN(legal); i++)
		assert_int_equal(used[i], legal[i].targets_left < 0 ? 2 : 1);
}

static bool releases(enum sl_conn_action action)
{
	return action == SL_ACT_RELEASE || action == SL_ACT_BUG;
}

/*
 * Whatever happens in whatever order: released exactly once, and not before it is closed;
 * the engine is started at most once; nothing is done after the release.
 */
static void random_walks(void **state)
{
	struct sl_rand r;

	(void)state;
	sl_rand_seed(&r, 1);
	for (int walk = 0; walk < 20000; walk++) {
		enum sl_conn_state s = SL_CONN_ACCEPTED;
		unsigned n_released = 0;
		unsigned n_started = 0;

		for (int i = 0; i < 200; i++) {
			enum sl_conn_event e = sl_rand_below(&r, SL_CONN_EVENT_COUNT_);
			struct sl_conn_step step;

			/* Most steps legal, or a walk would end at once. */
			if (sl_rand_below(&r, 20))
				for (size_t k = 0; k < SL_ARRAY_LEN(legal); k++)
					if (legal[k].state == s && sl_rand_below(&r, 2))
						e = legal[k].event;
			step = sl_conn_fsm_step(s, e, sl_rand_below(&r, 2));
			n_released += releases(step.action);
			n_started += step.action == SL_ACT_START_ENGINE;
			assert_true(releases(step.action) ==
				    (s != SL_CONN_CLOSED && step.next == SL_CONN_CLOSED));
			/* Never back but to a connect, before or after TLS with a side. */
			assert_true(step.next >= s ||
				    (s == SL_CONN_HANDSHAKING && step.action == SL_ACT_CONNECT));
			if (s == SL_CONN_CLOSED)
				assert_int_equal(step.action, SL_ACT_NONE);
			assert_int_equal(n_released, step.next == SL_CONN_CLOSED);
			s = step.next;
		}
		s = sl_conn_fsm_step(s, SL_EV_ABORT, false).next;
		assert_int_equal(s, SL_CONN_CLOSED);
		assert_true(n_started <= 1);
	}
}

static void names(void **state)
{
	static const char *const want[] = { "accepted",    "classifying", "connecting",
					    "handshaking", "established", "closing",
					    "closed" };

	(void)state;
	assert_int_equal(SL_ARRAY_LEN(want), SL_CONN_STATE_COUNT_);
	for (int i = 0; i < SL_CONN_STATE_COUNT_; i++)
		assert_string_equal(sl_conn_state_name((enum sl_conn_state)i), want[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exhaustive),
		cmocka_unit_test(random_walks),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
