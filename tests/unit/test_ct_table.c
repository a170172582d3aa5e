/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <linux/netfilter/nf_conntrack_common.h>

#include "base/rand.h"
#include "nft/ct_table.h"

#define SEC UINT64_C(1000000000)
#define ROUNDS 4000 /* of the random walk, each with a seed of its own */

static void new_table(struct sl_ct_table *t, size_t max)
{
	struct sl_ct_timeouts timeouts;

	sl_ct_timeouts_default(&timeouts);
	assert_int_equal(sl_ct_table_init(t, max, &timeouts), 0);
}

static struct sl_ct_flow tcp_flow(uint32_t n, enum sl_ct_kind kind, enum sl_ct_tcp state)
{
	struct sl_ct_flow f = {
		.kind = kind, .protocol = IPPROTO_TCP, .id = n, .mark = n, .tcp = state
	};

	for (int d = 0; d < SL_CT_DIR_COUNT_; d++) {
		f.tuple[d].src.v4.sin_family = AF_INET;
		f.tuple[d].dst.v4.sin_family = AF_INET;
	}
	sl_addr_set_port(&f.tuple[SL_CT_ORIG].src, (uint16_t)n);
	return f;
}

static struct sl_ct_flow with_bytes(struct sl_ct_flow f, uint64_t up, uint64_t down)
{
	f.has_counts = true;
	f.count[SL_CT_ORIG] = (struct sl_ct_count){ .packets = up / 100, .bytes = up };
	f.count[SL_CT_REPLY] = (struct sl_ct_count){ .packets = down / 100, .bytes = down };
	return f;
}

static void note(struct sl_ct_table *t, struct sl_ct_flow f, uint64_t now_s)
{
	sl_ct_table_note(t, &f, now_s * SEC);
}

static void whole_dump(struct sl_ct_table *t, const struct sl_ct_flow *f, size_t n, uint64_t now_s)
{
	sl_ct_table_dump_begin(t);
	for (size_t i = 0; i < n; i++)
		note(t, f[i], now_s);
	sl_ct_table_dump_end(t, true);
	while (sl_ct_table_sweep(t, 1, now_s * SEC))
		;
}

static struct sl_ct_change take_one(struct sl_ct_table *t)
{
	struct sl_ct_change c[2] = { 0 };

	assert_int_equal(sl_ct_table_take(t, c, 2), 1);
	return c[0];
}

static void nothing_told(struct sl_ct_table *t)
{
	struct sl_ct_change c;

	assert_int_equal(sl_ct_table_take(t, &c, 1), 0);
}

/* ---- reasons, times ---- */

static void reasons_come_from_the_last_state(void **state)
{
	static const struct {
		const char *why;
		enum sl_ct_tcp tcp; /* NONE: UDP */
		uint32_t status;
		uint32_t left_s;
		enum sl_reason reason;
	} rows[] = {
		{ "no answer", SL_CT_TCP_SYN_SENT, 0, 0, SL_REASON_CONNECTION_TIMEOUT },
		{ "both sent a SYN", SL_CT_TCP_SYN_SENT2, 0, 0, SL_REASON_CONNECTION_TIMEOUT },
		{ "no ACK", SL_CT_TCP_SYN_RECV, 0, 0, SL_REASON_CONNECTION_TIMEOUT },
		{ "connecting, cut", SL_CT_TCP_SYN_SENT, 0, 9, SL_REASON_NFTABLES_CLOSED },
		{ "silent", SL_CT_TCP_ESTABLISHED, 0, 0, SL_REASON_INACTIVITY },
		{ "cut", SL_CT_TCP_ESTABLISHED, 0, 9, SL_REASON_NFTABLES_CLOSED },
		{ "half closed", SL_CT_TCP_FIN_WAIT, 0, 0, SL_REASON_NORMAL },
		{ "half closed, cut", SL_CT_TCP_CLOSE_WAIT, 0, 9, SL_REASON_NFTABLES_CLOSED },
		{ "last ACK missing", SL_CT_TCP_LAST_ACK, 0, 9, SL_REASON_NORMAL },
		{ "closed", SL_CT_TCP_TIME_WAIT, 0, 0, SL_REASON_NORMAL },
		{ "closed, tuple used again", SL_CT_TCP_TIME_WAIT, 0, 9, SL_REASON_NORMAL },
		{ "reset", SL_CT_TCP_CLOSE, IPS_SEEN_REPLY, 9, SL_REASON_ECONNRESET },
		{ "refused", SL_CT_TCP_CLOSE, 0, 9, SL_REASON_ECONNREFUSED },
		{ "UDP, answered", SL_CT_TCP_NONE, IPS_SEEN_REPLY, 0, SL_REASON_INACTIVITY },
		{ "UDP, no answer", SL_CT_TCP_NONE, 0, 0, SL_REASON_CONNECTION_TIMEOUT },
		{ "UDP, cut", SL_CT_TCP_NONE, IPS_SEEN_REPLY, 9, SL_REASON_NFTABLES_CLOSED },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		struct sl_ct_flow f = tcp_flow(1, SL_CT_DESTROY, rows[i].tcp);

		f = with_bytes(f, 100, 100);
		f.protocol = rows[i].tcp == SL_CT_TCP_NONE ? IPPROTO_UDP : IPPROTO_TCP;
		f.status = rows[i].status;
		f.has_timeout = rows[i].left_s > 0;
		f.timeout_s = rows[i].left_s;
		if (sl_ct_reason(&f, false) != rows[i].reason)
			fail_msg("%s: %s", rows[i].why, sl_reason_name(sl_ct_reason(&f, false)));
	}
}

static void a_reset_by_a_client_that_gave_up_is_no_refusal(void **state)
{
	struct sl_ct_flow f = with_bytes(tcp_flow(1, SL_CT_DESTROY, SL_CT_TCP_CLOSE), 100, 0);

	(void)state;
	assert_int_equal(sl_ct_reason(&f, false), SL_REASON_ECONNRESET);
}

static void the_end_is_the_last_packet(void **state)
{
	struct sl_ct_flow f = tcp_flow(1, SL_CT_DESTROY, SL_CT_TCP_TIME_WAIT);
	struct sl_ct_table t;

	(void)state;
	new_table(&t, 8);
	f.start_ns = 100 * SEC;
	f.stop_ns = 235 * SEC;
	note(&t, f, 240);
	assert_int_equal(take_one(&t).end_ns, 115 * SEC); /* 120 s of TIME_WAIT before */
	f.has_timeout = true;
	f.timeout_s = 90;
	note(&t, f, 240);
	assert_int_equal(take_one(&t).end_ns, 205 * SEC); /* taken out after 30 of these */
	f.tcp = SL_CT_TCP_ESTABLISHED;
	note(&t, f, 240);
	assert_int_equal(take_one(&t).end_ns, 235 * SEC); /* cut: that is the end */
	f.has_timeout = false;
	note(&t, f, 240);
	assert_int_equal(take_one(&t).end_ns, 100 * SEC); /* not before it began */
	sl_ct_table_done(&t);
}

static void a_shortened_timeout_makes_no_flow_shorter_than_seen(void **state)
{
	struct sl_ct_flow f = tcp_flow(1, SL_CT_DUMPED, SL_CT_TCP_ESTABLISHED);
	struct sl_ct_table t;

	(void)state;
	new_table(&t, 8);
	f.start_ns = 100 * SEC;
	note(&t, with_bytes(f, 100, 100), 110);
	note(&t, with_bytes(f, 300, 300), 500);
	assert_int_equal(take_one(&t).what, SL_CT_TELL_NEW | SL_CT_TELL_CHANGED);
	f.kind = SL_CT_DESTROY;
	f.stop_ns = 800 * SEC; /* 300 s unacknowledged, not 5 days */
	note(&t, with_bytes(f, 300, 300), 800);
	assert_int_equal(take_one(&t).end_ns, 500 * SEC);
	sl_ct_table_done(&t);
}

/* ---- single stories ---- */

static void a_short_flow_is_told_once(void **state)
{
	struct sl_ct_table t;
	struct sl_ct_change c;

	(void)state;
	new_table(&t, 8);
	note(&t, tcp_flow(7, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 5);
	note(&t, with_bytes(tcp_flow(7, SL_CT_DESTROY, SL_CT_TCP_TIME_WAIT), 500, 900), 6);
	assert_int_equal(t.n, 1);
	c = take_one(&t);
	assert_int_equal(c.what, SL_CT_TELL_NEW | SL_CT_TELL_ENDED);
	assert_int_equal(c.flow.count[SL_CT_REPLY].bytes, 900);
	assert_int_equal(c.reason, SL_REASON_NORMAL);
	assert_false(c.is_adopted || c.is_resynced);
	assert_int_equal(t.n, 0);
	sl_ct_table_done(&t);
}

static void a_closed_connection_ends_before_its_entry(void **state)
{
	struct sl_ct_flow f = with_bytes(tcp_flow(7, SL_CT_DUMPED, SL_CT_TCP_TIME_WAIT), 5, 9);
	struct sl_ct_table t;
	struct sl_ct_change c;

	(void)state;
	new_table(&t, 8);
	note(&t, tcp_flow(7, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 5);
	assert_int_equal(take_one(&t).what, SL_CT_TELL_NEW);
	f.has_timeout = true;
	f.timeout_s = 118;
	whole_dump(&t, &f, 1, 10);
	c = take_one(&t);
	assert_int_equal(c.what, SL_CT_TELL_ENDED);
	assert_int_equal(c.end_ns, 8 * SEC);
	assert_int_equal(c.flow.count[SL_CT_REPLY].bytes, 9);
	whole_dump(&t, &f, 1, 12);
	note(&t, tcp_flow(7, SL_CT_DESTROY, SL_CT_TCP_TIME_WAIT), 130);
	nothing_told(&t);
	assert_int_equal(t.n, 0);
	sl_ct_table_done(&t);
}

static void an_old_answer_makes_no_ghost(void **state)
{
	struct sl_ct_flow f = tcp_flow(7, SL_CT_DUMPED, SL_CT_TCP_ESTABLISHED);
	struct sl_ct_table t;

	(void)state;
	new_table(&t, 8);
	note(&t, tcp_flow(7, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 5);
	sl_ct_table_dump_begin(&t);
	note(&t, tcp_flow(7, SL_CT_DESTROY, SL_CT_TCP_ESTABLISHED), 6);
	note(&t, f, 6); /* filled in by the kernel before that */
	assert_true(take_one(&t).what & SL_CT_TELL_ENDED);
	sl_ct_table_dump_end(&t, true);
	assert_false(sl_ct_table_sweep(&t, 9, 6 * SEC));
	nothing_told(&t);
	assert_int_equal(t.n, 0);
	f.status = IPS_DYING;
	note(&t, f, 7);
	nothing_told(&t);
	sl_ct_table_done(&t);
}

static void a_broken_dump_ends_nothing(void **state)
{
	struct sl_ct_table t;

	(void)state;
	new_table(&t, 8);
	note(&t, tcp_flow(7, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 5);
	assert_int_equal(take_one(&t).what, SL_CT_TELL_NEW);
	sl_ct_table_dump_begin(&t);
	sl_ct_table_dump_end(&t, false);
	assert_false(sl_ct_table_sweep(&t, 9, 6 * SEC));
	nothing_told(&t);
	whole_dump(&t, NULL, 0, 7);
	assert_true(take_one(&t).is_resynced);
	assert_int_equal(t.counts.resynced, 1);
	sl_ct_table_done(&t);
}

/* Of lost ends: somebody took it out only if it had time left. */
static void a_lost_end_after_long_silence_is_that_of_silence(void **state)
{
	static const struct {
		uint32_t status;
		bool is_seen; /* by a dump, 1 s later */
		uint64_t gone_s;
		enum sl_reason reason;
	} rows[] = { /* 30 s, 120 s once both have spoken */
		     { 0, true, 30, SL_REASON_CONNECTION_TIMEOUT },
		     { 0, true, 29, SL_REASON_NFTABLES_CLOSED },
		     { IPS_SEEN_REPLY | IPS_ASSURED, true, 120, SL_REASON_INACTIVITY },
		     { IPS_SEEN_REPLY | IPS_ASSURED, true, 119, SL_REASON_NFTABLES_CLOSED },
		     { 0, false, 0, SL_REASON_CONNECTION_TIMEOUT }
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sl_ct_flow f = tcp_flow(7, SL_CT_NEW, SL_CT_TCP_NONE);
		struct sl_ct_table t;

		new_table(&t, 8);
		f.protocol = IPPROTO_UDP;
		f.status = rows[i].status;
		note(&t, f, 100);
		f = with_bytes(f, 9, 9);
		f.kind = SL_CT_DUMPED;
		f.has_timeout = true;
		f.timeout_s = 29;
		if (rows[i].is_seen)
			whole_dump(&t, &f, 1, 101);
		assert_true(take_one(&t).what & SL_CT_TELL_NEW);
		whole_dump(&t, NULL, 0, 100 + rows[i].gone_s);
		assert_int_equal(take_one(&t).reason, rows[i].reason);
		sl_ct_table_done(&t);
	}
}

static void the_same_tuple_again_is_another_flow(void **state)
{
	struct sl_ct_flow f = tcp_flow(7, SL_CT_DUMPED, SL_CT_TCP_ESTABLISHED);
	struct sl_ct_change c[4];
	struct sl_ct_table t;

	(void)state;
	new_table(&t, 8);
	f.start_ns = 3 * SEC;
	note(&t, f, 4);
	note(&t, tcp_flow(7, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 5); /* its own, late */
	note(&t, tcp_flow(7, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 6); /* the next one's */
	f.start_ns = 6 * SEC;
	note(&t, f, 7);
	f.start_ns = 8 * SEC;
	note(&t, f, 9); /* and one more */
	assert_int_equal(sl_ct_table_take(&t, c, 4), 3);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(c[i].serial, i + 1);
		assert_int_equal(c[i].start_ns, (i == 0 ? 3 : i == 1 ? 6 : 8) * SEC);
		assert_int_equal(!!(c[i].what & SL_CT_TELL_ENDED), i < 2);
		assert_int_equal(c[i].is_resynced, i < 2);
	}
	assert_int_equal(t.n_live, 1);
	sl_ct_table_done(&t);
}

static void the_same_tuple_again_while_a_dump_runs(void **state)
{
	struct sl_ct_flow f = tcp_flow(7, SL_CT_DUMPED, SL_CT_TCP_ESTABLISHED);
	struct sl_ct_change c[4];
	struct sl_ct_table t;

	(void)state;
	new_table(&t, 8);
	f.start_ns = 3 * SEC;
	note(&t, f, 4);
	sl_ct_table_dump_begin(&t);
	f.kind = SL_CT_DESTROY;
	note(&t, f, 5);
	note(&t, tcp_flow(7, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 6);
	sl_ct_table_dump_end(&t, true);
	while (sl_ct_table_sweep(&t, 1, 6 * SEC))
		;
	assert_int_equal(sl_ct_table_take(&t, c, 4), 2);
	assert_int_equal(c[0].what, SL_CT_TELL_NEW | SL_CT_TELL_ENDED);
	assert_int_equal(c[1].what, SL_CT_TELL_NEW);
	assert_int_equal(t.n_live, 1);
	sl_ct_table_done(&t);
}

/* What was dumped of it is read behind what came after it, whose begin is not known yet. */
static void an_old_answer_is_not_of_the_next_one(void **state)
{
	struct sl_ct_flow f = tcp_flow(7, SL_CT_DESTROY, SL_CT_TCP_TIME_WAIT);
	struct sl_ct_change c[4];
	struct sl_ct_table t;

	(void)state;
	new_table(&t, 8);
	note(&t, tcp_flow(7, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 3);
	sl_ct_table_dump_begin(&t);
	f.start_ns = 3 * SEC;
	note(&t, with_bytes(f, 500, 500), 4);
	note(&t, tcp_flow(7, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 4);
	f.kind = SL_CT_DUMPED;
	note(&t, with_bytes(f, 500, 500), 4);
	sl_ct_table_dump_end(&t, true);
	while (sl_ct_table_sweep(&t, 1, 5 * SEC))
		;
	assert_int_equal(sl_ct_table_take(&t, c, 4), 2);
	assert_int_equal(c[0].what, SL_CT_TELL_NEW | SL_CT_TELL_ENDED);
	assert_int_equal(c[0].reason, SL_REASON_NORMAL);
	assert_int_equal(c[1].what, SL_CT_TELL_NEW);
	assert_int_equal(c[1].flow.count[SL_CT_ORIG].bytes, 0);
	assert_int_equal(t.n_live, 1);
	sl_ct_table_done(&t);
}

/* The kernel marks it, then sends DESTROY; a dump in between is no reason to miss it. */
static void one_that_dies_is_not_missing(void **state)
{
	struct sl_ct_flow f = tcp_flow(7, SL_CT_DUMPED, SL_CT_TCP_ESTABLISHED);
	struct sl_ct_change c;
	struct sl_ct_table t;

	(void)state;
	new_table(&t, 8);
	note(&t, tcp_flow(7, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 3);
	f.status = IPS_DYING;
	f.start_ns = 3 * SEC;
	whole_dump(&t, &f, 1, 4);
	assert_int_equal(take_one(&t).what, SL_CT_TELL_NEW);
	f.kind = SL_CT_DESTROY;
	f.tcp = SL_CT_TCP_TIME_WAIT;
	note(&t, with_bytes(f, 500, 500), 5);
	c = take_one(&t);
	assert_int_equal(c.what, SL_CT_TELL_ENDED);
	assert_int_equal(c.reason, SL_REASON_NORMAL);
	assert_int_equal(c.flow.count[SL_CT_ORIG].bytes, 500);
	assert_int_equal(t.n, 0);
	sl_ct_table_done(&t);
}

/* Nobody knows when it began, but that it has been silent since. */
static void an_end_before_it_was_seen(void **state)
{
	struct sl_ct_flow f = tcp_flow(7, SL_CT_DUMPED, SL_CT_TCP_TIME_WAIT);
	struct sl_ct_change c;
	struct sl_ct_table t;

	(void)state;
	new_table(&t, 8);
	f.has_timeout = true;
	f.timeout_s = 90; /* of 120 */
	note(&t, f, 1000);
	c = take_one(&t);
	assert_int_equal(c.end_ns, 970 * SEC);
	assert_int_equal(c.start_ns, 970 * SEC);
	sl_ct_table_done(&t);
}

static void what_is_said_of_its_predecessor_is_not_believed(void **state)
{
	struct sl_ct_flow f = tcp_flow(7, SL_CT_DUMPED, SL_CT_TCP_ESTABLISHED);
	struct sl_ct_change c[4];
	struct sl_ct_table t;

	(void)state;
	new_table(&t, 8);
	f.start_ns = 6 * SEC;
	note(&t, f, 7);
	f.start_ns = 3 * SEC;
	note(&t, with_bytes(f, 500, 500), 7);
	f.kind = SL_CT_DESTROY;
	note(&t, f, 8);
	assert_int_equal(sl_ct_table_take(&t, c, 4), 1);
	assert_int_equal(c[0].start_ns, 6 * SEC);
	assert_int_equal(c[0].flow.count[SL_CT_ORIG].bytes, 0);
	assert_int_equal(t.n_live, 1);
	sl_ct_table_done(&t);
}

static void counts_once_known_stay(void **state)
{
	struct sl_ct_table t;
	struct sl_ct_change c;

	(void)state;
	new_table(&t, 8);
	note(&t, with_bytes(tcp_flow(7, SL_CT_DUMPED, SL_CT_TCP_ESTABLISHED), 500, 900), 5);
	note(&t, tcp_flow(7, SL_CT_DESTROY, SL_CT_TCP_NONE), 6);
	c = take_one(&t);
	assert_true(c.flow.has_counts);
	assert_int_equal(c.flow.count[SL_CT_REPLY].bytes, 900);
	assert_int_equal(c.flow.tcp, SL_CT_TCP_ESTABLISHED);
	sl_ct_table_done(&t);
}

/* Or its end would be told of another than its begin. */
static void a_flow_keeps_its_mark(void **state)
{
	struct sl_ct_flow f = tcp_flow(1, SL_CT_DUMPED, SL_CT_TCP_ESTABLISHED);
	struct sl_ct_change c;
	struct sl_ct_table t;

	(void)state;
	new_table(&t, 8);
	note(&t, tcp_flow(1, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 1);
	f.mark = 7;
	whole_dump(&t, &f, 1, 2);
	f.kind = SL_CT_DESTROY;
	note(&t, f, 3);
	assert_int_equal(sl_ct_table_take(&t, &c, 1), 1);
	assert_int_equal(c.what, SL_CT_TELL_NEW | SL_CT_TELL_CHANGED | SL_CT_TELL_ENDED);
	assert_int_equal(c.flow.mark, 1);
	sl_ct_table_done(&t);
}

static void a_full_table_catches_up(void **state)
{
	struct sl_ct_flow f[4];
	struct sl_ct_change c[8];
	struct sl_ct_table t;

	(void)state;
	new_table(&t, 2);
	for (uint32_t i = 0; i < 4; i++) {
		note(&t, tcp_flow(i, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 1);
		f[i] = tcp_flow(i, SL_CT_DUMPED, SL_CT_TCP_ESTABLISHED);
	}
	assert_int_equal(t.n, 2);
	assert_int_equal(t.counts.not_taken, 2);
	note(&t, tcp_flow(0, SL_CT_DESTROY, SL_CT_TCP_ESTABLISHED), 2);
	note(&t, tcp_flow(1, SL_CT_DESTROY, SL_CT_TCP_ESTABLISHED), 2);
	whole_dump(&t, f + 2, 2, 3); /* nobody has taken the ends: still no room */
	assert_int_equal(t.counts.not_taken, 4);
	assert_int_equal(sl_ct_table_take(&t, c, 8), 2);
	whole_dump(&t, f + 2, 2, 4);
	assert_int_equal(sl_ct_table_take(&t, c, 8), 2);
	assert_true(c[0].is_adopted && c[1].is_adopted);
	assert_int_equal(t.n_live, 2);
	/* there may be more from now on, but not fewer */
	sl_ct_table_grow(&t, 3);
	sl_ct_table_grow(&t, 1);
	whole_dump(&t, f + 1, 3, 5);
	assert_int_equal(t.n_live, 3);
	assert_int_equal(t.counts.not_taken, 4);
	for (uint32_t i = 4; i < 1000; i++) { /* more than there are buckets */
		sl_ct_table_grow(&t, i);
		note(&t, tcp_flow(i, SL_CT_NEW, SL_CT_TCP_SYN_SENT), 6);
	}
	assert_int_equal(t.n_live, 999);
	sl_ct_table_done(&t);
}

/* ---- against a model ---- */

#define N_SLOTS 6
#define MAX_FLOWS 256
#define QUEUE 4096

/* A kernel of a few tuples; what it says waits in two queues. */
struct model {
	struct sl_rand rand;
	struct sl_ct_table table;
	struct sl_ct_flow slot[N_SLOTS];                     /* mark 0: free */
	enum { IS_THERE, IS_DYING, IS_TOLD } stage[N_SLOTS]; /* of its end */
	uint32_t last_flow;                                  /* the mark of each is its number */
	uint32_t last_id;
	uint64_t now_s;
	struct sl_ct_flow events[QUEUE];
	size_t events_from, events_to;
	struct sl_ct_flow answers[QUEUE];
	size_t answered[QUEUE]; /* so many events had been sent before */
	size_t answers_from, answers_to;
	int dumping; /* -1: no; otherwise the next slot */
	bool must_drain;
	size_t drain_to;
	bool is_sweeping;
	bool loses;
	uint64_t packets[MAX_FLOWS];
	unsigned opened[MAX_FLOWS];
	unsigned ended[MAX_FLOWS];
	uint64_t told_packets[MAX_FLOWS];
	unsigned n_lost;
};

static void emit(struct model *m, struct sl_ct_flow f)
{
	if (m->loses && sl_rand_below(&m->rand, 3) == 0) {
		m->n_lost++;
		return;
	}
	assert_true(m->events_to < QUEUE);
	m->events[m->events_to++] = f;
}

static bool is_idle(const struct model *m)
{
	return m->dumping < 0 && !m->table.is_dumping && !m->must_drain && !m->is_sweeping;
}

static void create(struct model *m, size_t i)
{
	/* what waits in the queues of events that were lost may be of a predecessor: only guesses
	 */
	bool is_told_apart = !m->loses || (is_idle(m) && m->events_from == m->events_to);
	bool reuse = is_told_apart && m->slot[i].id != 0 && sl_rand_below(&m->rand, 3) == 0;
	uint32_t id = reuse ? m->slot[i].id : ++m->last_id;
	struct sl_ct_flow f;

	if (m->last_flow + 1 >= MAX_FLOWS)
		return;
	f = tcp_flow((uint32_t)i, SL_CT_NEW, SL_CT_TCP_SYN_SENT);
	f.id = id;
	f.mark = ++m->last_flow;
	m->packets[f.mark] = 1;
	emit(m, f);
	f.tcp = SL_CT_TCP_ESTABLISHED;
	f.start_ns = m->now_s * SEC;
	f.has_counts = true;
	f.count[SL_CT_ORIG].packets = 1;
	m->slot[i] = f;
}

static void die(struct model *m, size_t i)
{
	struct sl_ct_flow gone = m->slot[i];

	if (m->stage[i] == IS_TOLD) {
		m->stage[i] = IS_THERE;
		m->slot[i].mark = 0;
		return;
	}
	gone.kind = SL_CT_DESTROY;
	gone.stop_ns = m->now_s * SEC;
	emit(m, gone);
	m->stage[i] = IS_TOLD;
}

/* One step in the life of a tuple. */
static void live(struct model *m)
{
	size_t i = sl_rand_below(&m->rand, N_SLOTS);
	struct sl_ct_flow *f = &m->slot[i];

	if (m->stage[i] != IS_THERE) {
		die(m, i);
	} else if (f->mark == 0) {
		create(m, i);
	} else if (f->tcp == SL_CT_TCP_ESTABLISHED && sl_rand_below(&m->rand, 2)) {
		f->count[SL_CT_ORIG].packets = ++m->packets[f->mark];
	} else if (f->tcp == SL_CT_TCP_ESTABLISHED && sl_rand_below(&m->rand, 2)) {
		f->tcp = SL_CT_TCP_TIME_WAIT;
	} else {
		f->status |= IPS_DYING;
		m->stage[i] = IS_DYING;
	}
}

static void dump_step(struct model *m)
{
	struct sl_ct_flow done = { 0 };

	if (m->dumping < 0) {
		if (!is_idle(m))
			return;
		sl_ct_table_dump_begin(&m->table);
		m->dumping = 0;
		m->answers_from = m->answers_to = 0;
	}
	m->answered[m->answers_to] = m->events_to;
	if (m->dumping < N_SLOTS && m->slot[m->dumping].mark != 0) {
		m->answers[m->answers_to] = m->slot[m->dumping];
		m->answers[m->answers_to++].kind = SL_CT_DUMPED;
	} else if (m->dumping == N_SLOTS) {
		m->answers[m->answers_to++] = done;
	}
	m->dumping = m->dumping == N_SLOTS ? -1 : m->dumping + 1;
}

static void read_event(struct model *m)
{
	if (m->events_from < m->events_to)
		sl_ct_table_note(&m->table, &m->events[m->events_from++], m->now_s * SEC);
	if (m->must_drain && m->events_from >= m->drain_to) {
		m->must_drain = false;
		m->is_sweeping = true;
	}
}

static void read_answer(struct model *m)
{
	const struct sl_ct_flow *f = &m->answers[m->answers_from];

	if (m->answers_from == m->answers_to || m->events_from < m->answered[m->answers_from])
		return;
	m->answers_from++;
	if (f->mark != 0) {
		sl_ct_table_note(&m->table, f, m->now_s * SEC);
		return;
	}
	sl_ct_table_dump_end(&m->table, true);
	m->must_drain = true;
	m->drain_to = m->events_to;
}

static void sweep_step(struct model *m)
{
	if (m->is_sweeping)
		m->is_sweeping = sl_ct_table_sweep(&m->table, 1 + sl_rand_below(&m->rand, 3),
						   m->now_s * SEC);
}

static bool take_step(struct model *m)
{
	struct sl_ct_change c[3];
	size_t n = sl_ct_table_take(&m->table, c, 1 + sl_rand_below(&m->rand, 3));

	for (size_t i = 0; i < n; i++) {
		uint32_t flow = c[i].flow.mark;

		assert_in_range(flow, 1, m->last_flow);
		m->opened[flow] += !!(c[i].what & SL_CT_TELL_NEW);
		m->ended[flow] += !!(c[i].what & SL_CT_TELL_ENDED);
		assert_int_equal(m->opened[flow], 1); /* before or with its end, and once */
		assert_in_range(m->ended[flow], 0, 1);
		assert_true(c[i].what & SL_CT_TELL_ENDED || !m->ended[flow]);
		m->told_packets[flow] = c[i].flow.count[SL_CT_ORIG].packets;
	}
	return n > 0;
}

static void quiesce(struct model *m)
{
	m->loses = false;
	for (size_t i = 0; i < N_SLOTS; i++) /* it takes the kernel microseconds */
		while (m->stage[i] != IS_THERE)
			die(m, i);
	for (int dumps = 0; dumps < 3; dumps++) {
		do {
			dump_step(m);
		} while (m->dumping >= 0);
		while (m->answers_from < m->answers_to || m->events_from < m->events_to ||
		       m->must_drain) {
			read_event(m);
			read_answer(m);
		}
		while (m->is_sweeping)
			sweep_step(m);
	}
	while (take_step(m))
		;
}

static void check_end(const struct model *m, bool was_lossy)
{
	unsigned n_live = 0;
	unsigned n_kept = 0;
	bool is_there[MAX_FLOWS] = { 0 };
	size_t n_found;

	for (size_t i = 0; i < N_SLOTS; i++) {
		const struct sl_ct_flow *f = &m->slot[i];
		bool is_over = f->tcp == SL_CT_TCP_TIME_WAIT;

		if (f->mark == 0)
			continue;
		is_there[f->mark] = true;
		n_live += !is_over;
		n_kept++;
		assert_int_equal(m->opened[f->mark], 1);
		assert_int_equal(m->ended[f->mark], is_over);
		assert_int_equal(m->told_packets[f->mark], m->packets[f->mark]);
	}
	/* each live one is found by its number, and no other */
	n_found = 0;
	for (uint64_t serial = 1; serial <= m->table.last_serial; serial++) {
		struct sl_ct_flow f;

		if (!sl_ct_table_find(&m->table, serial, &f))
			continue;
		n_found++;
		assert_true(is_there[f.mark]);
	}
	assert_int_equal(n_found, n_live);
	/* no ghost: nothing is open that the kernel does not have */
	assert_int_equal(m->table.n_live, n_live);
	assert_int_equal(m->table.n, n_kept);
	for (uint32_t i = 1; i <= m->last_flow; i++) {
		if (!is_there[i])
			assert_int_equal(m->ended[i], m->opened[i]);
		if (was_lossy)
			continue;
		assert_int_equal(m->opened[i], 1);
		assert_int_equal(m->told_packets[i], m->packets[i]);
	}
	if (!was_lossy)
		assert_int_equal(m->table.counts.resynced, 0);
}

static unsigned walk(uint64_t seed, bool loses)
{
	struct model *m = calloc(1, sizeof(*m));
	unsigned resynced;

	assert_non_null(m);
	sl_rand_seed(&m->rand, seed * 2654435761 + 1);
	new_table(&m->table, 512);
	m->dumping = -1;
	m->loses = loses;
	for (int i = 0; i < 400; i++) {
		static void (*const step[])(struct model *) = {
			live,       live,       live,        dump_step, dump_step,
			read_event, read_event, read_answer, sweep_step
		};
		size_t k = sl_rand_below(&m->rand, SL_ARRAY_LEN(step) + 1);

		m->now_s++;
		if (k < SL_ARRAY_LEN(step))
			step[k](m);
		else
			(void)take_step(m);
	}
	quiesce(m);
	check_end(m, loses);
	resynced = (unsigned)m->table.counts.resynced;
	sl_ct_table_done(&m->table);
	free(m);
	return resynced;
}

static void count_flow(void *arg, const struct sl_ct_flow *f)
{
	*(size_t *)arg += f->mark;
}

static void what_is_live_is_told_again(void **state)
{
	struct sl_ct_table t;
	struct sl_ct_change c[4];
	struct sl_ct_flow f;
	uint64_t serial;
	size_t marks = 0;

	(void)state;
	new_table(&t, 8);
	t.last_serial = 1000;
	note(&t, tcp_flow(1, SL_CT_NEW, SL_CT_TCP_NONE), 5);
	note(&t, tcp_flow(2, SL_CT_NEW, SL_CT_TCP_NONE), 5);
	note(&t, tcp_flow(3, SL_CT_NEW, SL_CT_TCP_NONE), 5);
	assert_int_equal(sl_ct_table_take(&t, c, 2), 2);
	assert_int_equal(c[0].serial, 1001);
	serial = c[1].serial;
	assert_true(sl_ct_table_find(&t, serial, &f));
	assert_int_equal(f.mark, 2);
	note(&t, tcp_flow(1, SL_CT_DESTROY, SL_CT_TCP_TIME_WAIT), 6);
	assert_false(sl_ct_table_find(&t, 1001, &f));
	sl_ct_table_each(&t, count_flow, &marks);
	assert_int_equal(marks, 2 + 3);
	sl_ct_table_retell(&t);
	/* nobody heard of the third yet; the first is over, which is told as ever */
	assert_int_equal(sl_ct_table_take(&t, c, 4), 3);
	assert_int_equal(c[0].flow.mark, 3);
	assert_int_equal(c[0].what, SL_CT_TELL_NEW | SL_CT_TELL_AGAIN);
	assert_int_equal(c[1].flow.mark, 1);
	assert_int_equal(c[1].what, SL_CT_TELL_ENDED);
	assert_int_equal(c[2].serial, serial);
	assert_int_equal(c[2].what, SL_CT_TELL_AGAIN);
	nothing_told(&t);
	note(&t, tcp_flow(2, SL_CT_DESTROY, SL_CT_TCP_TIME_WAIT), 7);
	assert_int_equal(take_one(&t).what, SL_CT_TELL_ENDED);
	sl_ct_table_done(&t);
}

static void every_flow_has_its_record_when_nothing_is_lost(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < ROUNDS; seed++)
		(void)walk(seed, false);
}

static void no_ghost_stays_when_events_are_lost(void **state)
{
	unsigned resynced = 0;

	(void)state;
	for (uint64_t seed = 0; seed < ROUNDS; seed++)
		resynced += walk(seed, true);
	assert_true(resynced > ROUNDS); /* or the walk proves nothing */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reasons_come_from_the_last_state),
		cmocka_unit_test(a_reset_by_a_client_that_gave_up_is_no_refusal),
		cmocka_unit_test(the_end_is_the_last_packet),
		cmocka_unit_test(a_shortened_timeout_makes_no_flow_shorter_than_seen),
		cmocka_unit_test(a_lost_end_after_long_silence_is_that_of_silence),
		cmocka_unit_test(a_short_flow_is_told_once),
		cmocka_unit_test(a_closed_connection_ends_before_its_entry),
		cmocka_unit_test(an_old_answer_makes_no_ghost),
		cmocka_unit_test(a_broken_dump_ends_nothing),
		cmocka_unit_test(the_same_tuple_again_is_another_flow),
		cmocka_unit_test(the_same_tuple_again_while_a_dump_runs),
		cmocka_unit_test(an_old_answer_is_not_of_the_next_one),
		cmocka_unit_test(one_that_dies_is_not_missing),
		cmocka_unit_test(an_end_before_it_was_seen),
		cmocka_unit_test(what_is_said_of_its_predecessor_is_not_believed),
		cmocka_unit_test(counts_once_known_stay),
		cmocka_unit_test(a_flow_keeps_its_mark),
		cmocka_unit_test(a_full_table_catches_up),
		cmocka_unit_test(what_is_live_is_told_again),
		cmocka_unit_test(every_flow_has_its_record_when_nothing_is_lost),
		cmocka_unit_test(no_ghost_stays_when_events_are_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
