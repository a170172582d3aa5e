/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "core/deadline.h"

static const struct sl_timeouts usual = {
	.proxy_header = 5,
	.first_data = 10,
	.handshake = 20,
	.connect = 30,
	.idle = 1000,
	.close_grace = 50,
	.half_closed = 300,
	.half_closed_idle = 100,
};
static const struct sl_timeouts none = { 0 };
static const struct sl_timeouts short_life = {
	.proxy_header = 500,
	.first_data = 500,
	.handshake = 500,
	.connect = 500,
	.idle = 500,
	.close_grace = 500,
	.half_closed = 500,
	.max_lifetime = 100,
};
static const struct sl_timeouts long_life = { .idle = 1000, .max_lifetime = 5000 };
static const struct sl_timeouts no_silence = { .half_closed = 300 };
static const struct sl_timeouts silence_only = { .half_closed_idle = 100 };
static const struct sl_timeouts huge = { .idle = UINT64_MAX / 4, .connect = UINT64_MAX - 5 };

#define NEVER SL_NEVER, SL_REASON_NONE

static const struct {
	const struct sl_timeouts *t;
	struct sl_deadline_facts f;
	uint64_t at_ms;
	enum sl_reason reason;
	const char *why;
} rows[] = {
	{ &usual,
	  { .state = SL_CONN_ACCEPTED, .accepted_ms = 100, .entered_ms = 100 },
	  105,
	  SL_REASON_PROXY_HEADER_TIMEOUT,
	  "PROXY header" },
	{ &usual,
	  { .state = SL_CONN_CLASSIFYING, .accepted_ms = 100, .entered_ms = 103 },
	  113,
	  SL_REASON_FIRST_DATA_TIMEOUT,
	  "first bytes, from the start of the state" },
	{ &usual,
	  { .state = SL_CONN_CLASSIFYING, .accepted_ms = 100, .entered_ms = 103, .active_ms = 109 },
	  113,
	  SL_REASON_FIRST_DATA_TIMEOUT,
	  "dripping bytes do not extend it" },
	{ &usual,
	  { .state = SL_CONN_CONNECTING, .entered_ms = 100, .attempt_ms = 120 },
	  150,
	  SL_REASON_CONNECTION_TIMEOUT,
	  "each attempt has its own time" },
	{ &usual,
	  { .state = SL_CONN_CONNECTING,
	    .attempt_ms = 100,
	    .active_ms = 70,
	    .client_finished = true },
	  120,
	  SL_REASON_CLOSED_DURING_CONNECT,
	  "client gone: the grace ends first" },
	{ &usual,
	  { .state = SL_CONN_CONNECTING,
	    .attempt_ms = 100,
	    .active_ms = 100,
	    .client_finished = true },
	  130,
	  SL_REASON_CONNECTION_TIMEOUT,
	  "client gone: the connect ends first" },
	{ &usual,
	  { .state = SL_CONN_CONNECTING,
	    .attempt_ms = 100,
	    .active_ms = 70,
	    .client_finished = true,
	    .half_open = true },
	  130,
	  SL_REASON_CONNECTION_TIMEOUT,
	  "half-open: a FIN is no hurry" },
	{ &usual,
	  { .state = SL_CONN_HANDSHAKING, .entered_ms = 200 },
	  220,
	  SL_REASON_HANDSHAKE_TIMEOUT,
	  "handshake" },
	{ &usual,
	  { .state = SL_CONN_HANDSHAKING,
	    .entered_ms = 200,
	    .active_ms = 190,
	    .client_finished = true },
	  220,
	  SL_REASON_HANDSHAKE_TIMEOUT,
	  "with the client: its FIN is met by TLS" },
	{ &usual,
	  { .state = SL_CONN_HANDSHAKING,
	    .entered_ms = 200,
	    .attempt_ms = 195,
	    .active_ms = 165,
	    .client_finished = true },
	  215,
	  SL_REASON_CLOSED_DURING_CONNECT,
	  "with the target, client gone: the grace ends first" },
	{ &usual,
	  { .state = SL_CONN_HANDSHAKING,
	    .entered_ms = 200,
	    .attempt_ms = 195,
	    .active_ms = 165,
	    .client_finished = true,
	    .half_open = true },
	  220,
	  SL_REASON_HANDSHAKE_TIMEOUT,
	  "with the target, half-open: a FIN is no hurry" },
	{ &usual,
	  { .state = SL_CONN_ESTABLISHED, .entered_ms = 100, .active_ms = 900 },
	  1900,
	  SL_REASON_INACTIVITY,
	  "idle since the last byte" },
	{ &usual,
	  { .state = SL_CONN_ESTABLISHED, .active_ms = 900, .keep_alive = SL_KEEP_ALIVE_EXTENDED },
	  6900,
	  SL_REASON_INACTIVITY,
	  "extended: six times" },
	{ &usual,
	  { .state = SL_CONN_ESTABLISHED, .active_ms = 900, .keep_alive = SL_KEEP_ALIVE_IMMORTAL },
	  NEVER,
	  "immortal" },
	{ &long_life,
	  { .state = SL_CONN_ESTABLISHED, .active_ms = 900, .keep_alive = SL_KEEP_ALIVE_IMMORTAL },
	  5000,
	  SL_REASON_MAX_LIFETIME,
	  "immortal, but for its lifetime" },
	{ &long_life,
	  { .state = SL_CONN_ESTABLISHED, .accepted_ms = 10, .active_ms = 3900 },
	  4900,
	  SL_REASON_INACTIVITY,
	  "idle before the end of the lifetime" },
	{ &long_life,
	  { .state = SL_CONN_ESTABLISHED, .accepted_ms = 10, .active_ms = 4900 },
	  5010,
	  SL_REASON_MAX_LIFETIME,
	  "the lifetime first" },
	{ &usual,
	  { .state = SL_CONN_CLOSING, .entered_ms = 400, .active_ms = 100 },
	  450,
	  SL_REASON_CLOSE_GRACE,
	  "grace from the FIN when nothing came since" },
	{ &usual,
	  { .state = SL_CONN_CLOSING, .entered_ms = 400, .active_ms = 800 },
	  850,
	  SL_REASON_CLOSE_GRACE,
	  "grace from the last byte: answers are not cut" },
	{ &usual,
	  { .state = SL_CONN_CLOSING, .entered_ms = 400, .active_ms = 410, .half_open = true },
	  700,
	  SL_REASON_PARITY_CHECK,
	  "half-open: the age of the FIN" },
	{ &usual,
	  { .state = SL_CONN_CLOSING, .entered_ms = 400, .active_ms = 650, .half_open = true },
	  750,
	  SL_REASON_PARITY_CHECK,
	  "half-open: old enough, but not silent enough" },
	{ &no_silence,
	  { .state = SL_CONN_CLOSING, .entered_ms = 400, .active_ms = 650, .half_open = true },
	  700,
	  SL_REASON_PARITY_CHECK,
	  "half-open: silence not asked for" },
	{ &silence_only,
	  { .state = SL_CONN_CLOSING, .entered_ms = 400, .active_ms = 650, .half_open = true },
	  NEVER,
	  "half-open: age off switches the check off" },
	{ &none, { .state = SL_CONN_ACCEPTED }, NEVER, "off" },
	{ &none, { .state = SL_CONN_CLASSIFYING }, NEVER, "off" },
	{ &none, { .state = SL_CONN_CONNECTING, .client_finished = true }, NEVER, "off" },
	{ &none, { .state = SL_CONN_HANDSHAKING }, NEVER, "off" },
	{ &none, { .state = SL_CONN_ESTABLISHED }, NEVER, "off" },
	{ &none, { .state = SL_CONN_CLOSING }, NEVER, "off" },
	{ &usual, { .state = SL_CONN_CLOSED }, NEVER, "over" },
	{ &short_life, { .state = SL_CONN_CLOSED }, NEVER, "over, whatever the lifetime" },
	{ &short_life, { .state = SL_CONN_ACCEPTED }, 100, SL_REASON_MAX_LIFETIME, "any state" },
	{ &short_life, { .state = SL_CONN_CLASSIFYING }, 100, SL_REASON_MAX_LIFETIME, "any state" },
	{ &short_life, { .state = SL_CONN_CONNECTING }, 100, SL_REASON_MAX_LIFETIME, "any state" },
	{ &short_life, { .state = SL_CONN_HANDSHAKING }, 100, SL_REASON_MAX_LIFETIME, "any state" },
	{ &short_life, { .state = SL_CONN_CLOSING }, 100, SL_REASON_MAX_LIFETIME, "any state" },
	{ &huge,
	  { .state = SL_CONN_CONNECTING, .attempt_ms = 100 },
	  NEVER,
	  "beyond the end of time" },
	{ &huge,
	  { .state = SL_CONN_ESTABLISHED, .active_ms = 8 },
	  UINT64_MAX / 4 + 8,
	  SL_REASON_INACTIVITY,
	  "far but not beyond" },
	{ &usual,
	  { .state = SL_CONN_ESTABLISHED, .active_ms = 900, .keep_alive = (enum sl_keep_alive)99 },
	  1900,
	  SL_REASON_INACTIVITY,
	  "an unknown treatment is the standard one" },
};

static void table(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		struct sl_deadline d = sl_deadline_next(rows[i].t, &rows[i].f);

		if (d.at_ms != rows[i].at_ms || d.reason != rows[i].reason)
			fail_msg("%s, %s: %" PRIu64 " %s", sl_conn_state_name(rows[i].f.state),
				 rows[i].why, d.at_ms, sl_reason_name(d.reason));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
