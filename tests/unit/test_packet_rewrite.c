/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Packets through the rewriting programs, one at a time, against what packet_oracle.h says; needs
 * root, runs in a network namespace of its own. What BPF_PROG_TEST_RUN cannot make (tags,
 * CHECKSUM_PARTIAL, real GSO packets, the way out) is in test_packet_live.c.
 */
#include <string.h>
#include <time.h>

#include "base/rand.h"
#include "packet_lab.h"

static struct lab lab;
static enum hook hook;

static int set_up(void **state)
{
	(void)state;
	return lab_open(&lab);
}

static int tear_down(void **state)
{
	(void)state;
	lab_close(&lab);
	return 0;
}

static void set_mtu(const char *device, unsigned mtu)
{
	char command[64];

	(void)snprintf(command, sizeof(command), "ip link set %s mtu %u", device, mtu);
	assert_int_equal(system(command), 0);
}

static void set_address(const char *device, const uint8_t mac[6])
{
	char command[128];

	(void)snprintf(command, sizeof(command),
		       "ip link set %s address %02x:%02x:%02x:%02x:%02x:%02x", device, mac[0],
		       mac[1], mac[2], mac[3], mac[4], mac[5]);
	assert_int_equal(system(command), 0);
}

/* Each test runs for both programs; which one is its initial state. */
static void begin(void **state)
{
	if (lab.why_skipped) {
		print_message("skipped: %s\n", lab.why_skipped);
		skip();
	}
	hook = (enum hook)(uintptr_t)*state;
	/* A failed test may have left it otherwise; with its address a device loses neighbours. */
	set_address("cli0", (const uint8_t *)CLI0_MAC);
	assert_int_equal(system(NEIGHBOURS), 0);
	set_mtu("cli0", 1500);
	set_mtu("srv0", 1500);
}

/* ---- expectations ---- */

enum fate {
	SENT,
	DROPPED,
	PASSED, /* to the stack, as it came */
};

struct want {
	enum fate fate;
	bool for_tc;  /* XDP may leave it to TC */
	bool is_data; /* payload or FIN */
	unsigned there;
	struct frame out;
	struct pair after;
	struct sl_packet_counts counts;
	struct noted events;
};

static int want_verdict(const struct want *w)
{
	static const int verdicts[2][3] = { { TC_SENT, TC_DROP, TC_PASS },
					    { XDP_REDIRECT, XDP_DROP, XDP_PASS } };

	return verdicts[hook][w->fate];
}

static bool is_left_to_tc(const struct want *w, const struct shot *s)
{
	return hook == HOOK_XDP && w->for_tc && s->verdict == XDP_PASS;
}

/* Checks the times and puts them into what is wanted. */
static void settle_times(const struct want *w, const struct shot *s,
			 const struct sl_packet_flow *got, struct sl_packet_flow *want)
{
	if (got->last_ns != 1)
		assert_in_range(got->last_ns, s->from_ns, s->to_ns);
	if (got->last_data_ns != 1)
		assert_in_range(got->last_data_ns, s->from_ns, s->to_ns);
	if (w->fate == SENT) {
		assert_int_not_equal(got->last_ns, 1);
		assert_int_equal(got->last_data_ns != 1, w->is_data);
	}
	if (want->closed_at && (uint16_t)(want->closed_at - got->closed_at) == 1)
		want->closed_at = got->closed_at; /* the unit has just passed */
	want->last_ns = got->last_ns;
	want->last_data_ns = got->last_data_ns;
}

static bool entries_are(const char *what, unsigned side, const struct want *w, const struct shot *s)
{
	bool same = true;

	if (s->there != w->there) {
		print_error("%s: %u entries, want %u\n", what, s->there, w->there);
		return false;
	}
	for (unsigned i = 0; i < 2 && w->there; i++) {
		struct sl_packet_flow want = w->after.flow[i];

		if (i == side)
			settle_times(w, s, &s->flow[i], &want);
		same &= same_flow(what, i, &s->flow[i], &want);
	}
	return same;
}

static void judge(const char *what, unsigned side, const struct frame *in, const struct want *w,
		  const struct shot *s)
{
	bool same;

	if (s->verdict != want_verdict(w)) {
		show_frame("in", in);
		(void)same_counts(what, &s->counts, &w->counts);
		fail_msg("%s: verdict %d, want %d", what, s->verdict, want_verdict(w));
	}
	same = same_frame(what, in, &s->out, &w->out);
	same &= same_counts(what, &s->counts, &w->counts);
	same &= same_events(what, &s->events, &w->events);
	same &= entries_are(what, side, w, s);
	if (!same)
		fail_msg("%s", what);
}

static void expect(const char *what, struct pair *p, unsigned side, const struct frame *in,
		   struct want *w, struct how how);

/* XDP has not touched it; now it is TC's turn. */
static void expect_left(const char *what, struct pair *p, unsigned side, const struct frame *in,
			struct want *w, const struct shot *s)
{
	struct want untouched = { .fate = PASSED, .there = 2, .after = *p, .out = *in };

	/* Not of each odd form it is known whose it is. */
	untouched.counts.xdp_passed = s->counts.xdp_passed ? 1 : 0;
	judge(what, side, in, &untouched, s);
	if (w->fate == SENT)
		memcpy(w->out.p, in->p, 12);
	w->counts.forwarded_tc += w->counts.forwarded_xdp;
	w->counts.forwarded_xdp = 0;
	hook = HOOK_TC;
	expect(what, p, side, in, w, (struct how){ 0 });
	hook = HOOK_XDP;
}

/* Runs a frame of `side` and checks all that became of it; *p is as the entries are then. */
static void expect(const char *what, struct pair *p, unsigned side, const struct frame *in,
		   struct want *w, struct how how)
{
	struct shot s;

	how.hook = hook;
	for (unsigned i = 0; i < 2; i++) {
		p->flow[i].last_ns = 1;
		p->flow[i].last_data_ns = 1;
		w->after.flow[i].last_ns = 1;
		w->after.flow[i].last_data_ns = 1;
	}
	s = shoot(&lab, p, in, side == 0 ? lab.cli : lab.srv, how);
	if (is_left_to_tc(w, &s)) {
		expect_left(what, p, side, in, w, &s);
		return;
	}
	judge(what, side, in, w, &s);
	*p = w->after;
}

/* XDP writes the Ethernet header itself; TC leaves that to the way out. */
static void set_way_out(struct pkt *k, unsigned side)
{
	if (hook == HOOK_TC)
		return;
	memcpy(k->eth_dst, side == 0 ? SERVER_MAC : CLIENT_MAC, 6);
	memcpy(k->eth_src, side == 0 ? SRV0_MAC : CLI0_MAC, 6);
}

/*
 * What XDP must do itself: data and acknowledgements with timestamps or no options, of a
 * connection of which no side has just ended.
 */
static bool is_common(const struct pkt *k, const struct sl_packet_flow *f)
{
	return !f->rst && f->peer_fin == f->peer_fin_acked &&
	       (k->flags & ~(TH_PSH_ | TH_ECE_ | TH_CWR_)) == TH_ACK_ &&
	       (k->n_opts == 0 || has_only_aligned_ts(k)) && !k->n_pad;
}

static void expect_sent_gso(const char *what, struct pair *p, unsigned side, const struct pkt *k,
			    struct how how)
{
	const unsigned segments = how.gso_segs ? how.gso_segs : 1;
	struct want w = { .fate = SENT, .there = 2, .after = *p };
	struct pkt out = rewritten(k, &p->flow[side], &p->flow[!side]);
	struct frame in;

	w.for_tc = !is_common(k, &p->flow[side]);
	w.is_data = !(k->flags & (TH_SYN_ | TH_RST_)) && (k->n_payload > 0 || k->flags & TH_FIN_);
	if (hook == HOOK_TC)
		w.counts.forwarded_tc = 1;
	else
		w.counts.forwarded_xdp = 1;
	account(&w.after, side, k, segments, &w.counts, &w.events);
	set_way_out(&out, side);
	build(k, &in);
	build(&out, &w.out);
	expect(what, p, side, &in, &w, how);
}

static void expect_sent(const char *what, struct pair *p, unsigned side, const struct pkt *k)
{
	expect_sent_gso(what, p, side, k, (struct how){ 0 });
}

/* Dropped for the reason whose counter is at `counter` in the row. */
static void expect_dropped(const char *what, struct pair *p, unsigned side, const struct pkt *k,
			   size_t counter)
{
	struct want w = { .fate = DROPPED, .there = 2, .for_tc = true, .after = *p };
	struct frame in;

	((__u64 *)&w.counts)[counter] = 1;
	w.after.flow[side].drops++;
	build(k, &in);
	w.out = in;
	expect(what, p, side, &in, &w, (struct how){ 0 });
}
#define DROP_OF(name) (offsetof(struct sl_packet_counts, name) / sizeof(uint64_t))

static void expect_frame_passed(const char *what, struct pair *p, unsigned side,
				const struct frame *in)
{
	struct want w = { .fate = PASSED, .there = 2, .after = *p, .out = *in };

	expect(what, p, side, in, &w, (struct how){ 0 });
}

static void expect_passed(const char *what, struct pair *p, unsigned side, const struct pkt *k)
{
	struct frame in;

	build(k, &in);
	expect_frame_passed(what, p, side, &in);
}

/* ---- the oracle itself ---- */

/* Sums of RFC 1071, section 3, and of a segment summed by hand. */
static void test_oracle(void **state)
{
	static const uint8_t example[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };
	struct pkt k = { .family = 4, .ttl = 64, .sport = 1, .dport = 2, .flags = TH_ACK_ };
	struct frame f;

	(void)state;
	assert_int_equal(fold_sum(sum_bytes(0, example, 8)), 0xddf2);
	assert_int_equal(fold_sum(sum_bytes(0, example, 7)), 0xddf2 - 0xf7);
	set_ip(k.src, "1.2.3.4");
	set_ip(k.dst, "5.6.7.8");
	build(&k, &f);
	assert_int_equal(f.n, 54);
	/* 4500+0028+4006+0102+0304+0506+0708 = 9542; its complement */
	assert_int_equal(get16(f.p + 14 + 10), 0x6abd);
	/* 0102+0304+0506+0708+0006+0014+0001+0002+5010 = 6041 */
	assert_int_equal(get16(f.p + 34 + 16), 0x9fbe);
	assert_int_equal(shift_window(1000, 7), 65535);
	assert_int_equal(shift_window(1000, 6), 64000);
	assert_int_equal(shift_window(65535, -14), 3);
}

/* ---- headers ---- */

static void test_plain(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);

		for (unsigned i = 0; i < 12; i++) {
			const unsigned side = i % 2;
			struct pkt k = plain_packet(&p, side);

			k.flags |= i % 3 ? TH_PSH_ : 0;
			k.n_payload = i * i * 10;
			k.fill = (uint8_t)(i * 31);
			expect_sent("plain", &p, side, &k);
		}
	}
}

static void test_every_field_is_kept(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k = plain_packet(&p, 0);

		k.n_payload = 5;
		k.frag = 0;
		k.tos = 0xb8;
		k.id = 0;
		k.flow_label = 0;
		expect_sent("no DF, a traffic class", &p, 0, &k);
		k = plain_packet(&p, 0);
		k.frag = 0x8000 | FRAG_DF;
		k.tos = 0xff;
		k.flow_label = 0xfffff;
		k.flags |= TH_URG_;
		k.urgent = 0xffff;
		k.n_payload = 9;
		k.reserved = 0xf;
		expect_sent("every bit", &p, 0, &k);
		k = plain_packet(&p, 1);
		k.flags = TH_ACK_ | TH_ECE_ | TH_CWR_;
		k.tos = 1;
		expect_sent("ECN", &p, 1, &k);
	}
}

/* What other programs have marked a packet with is theirs. */
static void test_mark(void **state)
{
	struct __sk_buff ctx = { .mark = 0x12345678, .priority = 6 }, after = { 0 };
	struct pair p;
	struct pkt k;
	struct frame in, out;
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in.p, .data_out = out.p,
		    .data_size_out = sizeof(out.p), .ctx_in = &ctx, .ctx_size_in = sizeof(ctx),
		    .ctx_out = &after, .ctx_size_out = sizeof(after));

	begin(state);
	p = new_pair(&lab, 4);
	k = plain_packet(&p, 0);
	build(&k, &in);
	lab_put(&lab, &p);
	ctx.ifindex = ctx.ingress_ifindex = lab.cli;
	o.data_size_in = (uint32_t)in.n;
	assert_int_equal(bpf_prog_test_run_opts(bpf_program__fd(lab.tc->progs.sl_packet_tc), &o),
			 0);
	assert_int_equal(o.retval, TC_SENT);
	assert_int_equal(after.mark, 0x12345678);
	assert_int_equal(after.priority, 6);
	lab_remove(&lab, &p);
}

/* Octets behind the packet, as short Ethernet frames have them, are no payload. */
static void test_padding(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k = plain_packet(&p, 0);

		for (k.n_pad = 1; k.n_pad <= 7; k.n_pad++)
			expect_sent("padding", &p, 0, &k);
		k.n_payload = 3;
		k.n_pad = 3;
		expect_sent("padding behind payload", &p, 0, &k);
	}
}

static void test_deltas(void **state)
{
	static const uint32_t deltas[] = { 0,          1,          0xffffffff, 0x80000000,
					   0x7fffffff, 0x0000ffff, 0xffff0000, 0x00010000 };

	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		for (size_t i = 0; i < 8; i++) {
			for (size_t j = 0; j < 8; j++) {
				struct pair p = new_pair(&lab, family);
				struct pkt k;

				p.flow[0].seq_delta = deltas[i];
				p.flow[1].ack_delta = -deltas[i];
				p.flow[1].seq_delta = deltas[j];
				p.flow[0].ack_delta = -deltas[j];
				p.flow[0].max_seq = 0xfffffff0;
				p.flow[1].max_ack = p.flow[0].max_seq + deltas[i];
				p.flow[0].max_ack = p.flow[1].max_seq + deltas[j];
				p.flow[0].tsval_delta = deltas[j];
				p.flow[0].tsecr_delta = deltas[i];
				k = plain_packet(&p, 0);
				k.n_payload = 32; /* over the wrap */
				opt_aligned_ts(&k, 0x80000001, deltas[i]);
				expect_sent("deltas", &p, 0, &k);
				assert_int_equal(p.flow[0].max_seq, 16);
				assert_int_equal(p.flow[0].bytes, 32);
				k = plain_packet(&p, 0);
				expect_sent("deltas", &p, 0, &k);
			}
		}
	}
}

static void test_broken_checksums_stay_broken(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k = plain_packet(&p, 0);

		for (unsigned e = 1; e < 0xffff; e = e * 3 + 1) {
			k = plain_packet(&p, 0);
			k.sum_error = (uint16_t)e;
			k.n_payload = 100;
			opt_aligned_ts(&k, 1, 2);
			expect_sent("TCP checksum", &p, 0, &k);
		}
		if (family == 6)
			continue;
		k = plain_packet(&p, 0);
		k.ip_sum_error = 0x1234;
		expect_sent("IP checksum", &p, 0, &k);
	}
}

static void test_window(void **state)
{
	static const uint16_t windows[] = { 0,     1,     3,     4,     255,   256,
					    32767, 32768, 65534, 65535, 16384, 16383 };

	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		for (int shift = -14; shift <= 14; shift++) {
			struct pair p = new_pair(&lab, family);

			p.flow[1].window_shift = (int8_t)shift;
			p.flow[0].peer_window_shift = (int8_t)shift;
			for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
				struct pkt k = plain_packet(&p, 1);

				k.window = windows[i];
				expect_sent("window", &p, 1, &k);
			}
		}
	}
}

/* No packet takes back what the proxy's own socket had offered, until the peer has offered more. */
static void test_promised_window(void **state)
{
	static const struct {
		int64_t ahead; /* of the acknowledgement */
		uint16_t window;
		uint8_t scale;
		int8_t shift;
		uint16_t want;
		bool goes_on;
	} cases[] = {
		{ 100000, 91, 10, 0, 98, true },
		{ 100000, 98, 10, 0, 98, false },
		{ 100000, 97, 10, 0, 98, true },
		{ 98 * 1024, 97, 10, 0, 98, true },
		{ 98 * 1024 + 1, 98, 10, 0, 99, true },
		{ 98 * 1024, 98, 10, 0, 98, false },
		{ 1, 0, 14, 0, 1, true },
		{ 0, 0, 14, 0, 0, false },
		{ -1, 0, 7, 0, 0, false },
		{ -0x7fffffff, 5, 7, 0, 5, false },
		{ 65535, 100, 0, 0, 65535, true },
		{ 65536, 100, 0, 0, 65535, true },
		{ 5000, 700, 0, 3, 5600, false },
		{ 5000, 600, 0, 3, 5000, true },
		{ 5000, 5000, 3, -3, 625, false },
		{ 5000, 4999, 3, -3, 625, true },
		{ 0x7fffffff, 65535, 14, 0, 65535, true },
	};

	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			struct pair p = new_pair(&lab, family);
			struct pkt k = plain_packet(&p, i & 1);
			struct sl_packet_flow *f = &p.flow[i & 1];

			f->is_promised = 1;
			f->promised = k.ack + (uint32_t)cases[i].ahead;
			f->window_scale = cases[i].scale;
			f->window_shift = cases[i].shift;
			k.window = cases[i].window;
			assert_int_equal(rewritten(&k, f, &p.flow[!(i & 1)]).window, cases[i].want);
			expect_sent("promised window", &p, i & 1, &k);
			assert_int_equal(f->is_promised, cases[i].goes_on);
		}
	}
}

/*
 * A bare acknowledgement of one who has sent more than the other's own window says the number at
 * its end, for as long as the other owes him a promise; nothing else is held back.
 */
static void test_number_within(void **state)
{
	static const struct {
		int32_t ahead;   /* of what was known to be within */
		int32_t offered; /* by the other, likewise */
		uint32_t payload;
		uint8_t flags;
		bool is_promised;
		int32_t want;
		bool goes_on;
	} cases[] = {
		{ 0, 0, 0, TH_ACK_, true, 0, true },
		{ 1, 0, 0, TH_ACK_, true, 0, true },
		{ 50000, 1000, 0, TH_ACK_, true, 1000, true },
		{ 50000, 50000, 0, TH_ACK_, true, 50000, true },
		{ 50000, 60000, 0, TH_ACK_ | TH_PSH_, true, 50000, true },
		{ 50000, 1000, 0, TH_ACK_, false, 50000, false },
		{ -1, 1000, 0, TH_ACK_, false, -1, true },
		{ 50000, 1000, 100, TH_ACK_, true, 50000, true },
		{ 50000, 1000, 0, TH_ACK_ | TH_FIN_, true, 50000, true },
		{ 50000, 1000, 0, TH_ACK_ | TH_RST_, true, 50000, true },
	};

	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			const unsigned side = i & 1;
			struct pair p = new_pair(&lab, family);
			struct pkt k = plain_packet(&p, side);
			struct sl_packet_flow *f = &p.flow[side];
			struct sl_packet_flow *other = &p.flow[!side];

			k.flags = cases[i].flags;
			k.n_payload = cases[i].payload;
			f->may_overrun = 1;
			f->within = k.seq + f->seq_delta - (uint32_t)cases[i].ahead;
			other->is_promised = cases[i].is_promised;
			other->promised = 0;
			other->max_ack = f->within - 1000;
			other->offered = f->within + (uint32_t)cases[i].offered;
			assert_int_equal(rewritten(&k, f, other).seq,
					 f->within + (uint32_t)cases[i].want);
			expect_sent("number within", &p, side, &k);
			assert_int_equal(f->may_overrun, cases[i].goes_on);
		}
	}
}

/*
 * A receiver may take back what it has offered (Linux does when it has no memory for what arrives),
 * and then a number that was within its window is not any more.
 */
static void test_edge_is_taken_back(void **state)
{
	begin(state);
	for (unsigned i = 0; i < 4; i++) {
		const unsigned side = i & 1;
		struct pair p = new_pair(&lab, i < 2 ? 4 : 6);
		struct sl_packet_flow *f = &p.flow[side], *other = &p.flow[!side];
		struct pkt mine = plain_packet(&p, side), its = plain_packet(&p, !side);
		const uint32_t got = other->max_ack;
		/* A row: an acknowledgement of it, then a bare one of mine. */
		const struct {
			uint32_t got;
			uint16_t window;
			uint32_t want;
		} rows[] = {
			{ 0, 20000, 160000 },        /* just so */
			{ 0, 8750, 70000 },          /* the same number, 90000 taken back */
			{ 0, 0, 0 },                 /* all of it */
			{ 10000, 0, 10000 },         /* opened by nothing, but it has got more */
			{ 10000, 17500, 150000 },    /* opened again, less than it was */
			{ (uint32_t)-1, 0, 150000 }, /* an old one says nothing */
			{ 10000, 20000, 160000 },
			{ 20000, 100, 20800 },
		};

		f->may_overrun = 1;
		f->within = got;
		other->is_promised = 1;
		other->promised = got + 1000000;
		other->offered = got;
		other->window_scale = 3;
		other->window_shift = 0;
		mine.seq += 160000;
		for (size_t j = 0; j < sizeof(rows) / sizeof(rows[0]); j++) {
			its.ack = got + rows[j].got;
			its.window = rows[j].window;
			expect_sent("its edge", &p, !side, &its);
			assert_int_equal(rewritten(&mine, f, other).seq, got + rows[j].want);
			expect_sent("mine, up to its edge", &p, side, &mine);
			assert_int_equal(f->may_overrun, 1);
		}
	}
}

/* What the control program sends as if from a peer says nothing of that peer's window or numbers.
 */
static void test_injected(void **state)
{
	struct __sk_buff ctx = { .mark = 0x534c5031 };

	begin(state);
	for (unsigned i = 0; i < 4; i++) {
		const unsigned side = i & 1;
		struct pair p = new_pair(&lab, i < 2 ? 4 : 6), after;
		struct sl_packet_flow *f = &p.flow[side], *other = &p.flow[!side];
		struct pkt k = plain_packet(&p, side), want;
		struct frame in, out, wanted;
		LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in.p, .data_out = out.p,
			    .data_size_out = sizeof(out.p), .ctx_in = &ctx,
			    .ctx_size_in = sizeof(ctx));

		want = rewritten(&k, f, other);
		f->is_promised = other->is_promised = 1;
		f->promised = f->max_ack + (i < 2 ? 100 : 1000000);
		f->may_overrun = 1;
		f->within = other->max_ack = other->offered = k.seq + f->seq_delta - 1000;
		lab_put(&lab, &p);
		build(&k, &in);
		build(&want, &wanted);
		o.data_size_in = (uint32_t)in.n;
		ctx.ifindex = ctx.ingress_ifindex = side == 0 ? lab.cli : lab.srv;
		assert_int_equal(
			bpf_prog_test_run_opts(bpf_program__fd(lab.tc->progs.sl_packet_tc), &o), 0);
		assert_int_equal(o.retval, TC_SENT);
		out.n = o.data_size_out;
		assert_true(same_frame("injected", &in, &out, &wanted));
		assert_int_equal(lab_get(&lab, &p, after.flow), 2);
		assert_true(same_flow("injected", side, &after.flow[side], f));
		assert_true(same_flow("injected", !side, &after.flow[!side], other));
		lab_remove(&lab, &p);
	}
}

/* Who sends into a closed window for long takes the other side for dead: it is told of it. */
static void test_promise_into_a_closed_window(void **state)
{
	static const struct {
		uint16_t window;
		uint16_t since; /* about seconds; 0: it was open */
		uint16_t want;
		bool goes_on;
	} cases[] = {
		{ 0, 0, 5000, true },      { 0, 20, 5000, true }, { 0, 40, 0, false },
		{ 1, 0, 5000, true },      { 1, 40, 5000, true }, { 0, 20000, 0, false },
		{ 6000, 40, 6000, false },
	};

	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			struct pair p = new_pair(&lab, family);
			struct pkt k = plain_packet(&p, i & 1);
			struct sl_packet_flow *f = &p.flow[i & 1];
			uint16_t at = (uint16_t)(closed_clock() - cases[i].since);

			f->is_promised = 1;
			f->promised = k.ack + 5000;
			f->window_scale = 0;
			f->window_shift = 0;
			f->closed_at = cases[i].since ? (at ? at : 1) : 0;
			k.window = cases[i].window;
			assert_int_equal(rewritten(&k, f, &p.flow[!(i & 1)]).window, cases[i].want);
			expect_sent("closed window", &p, i & 1, &k);
			assert_int_equal(f->is_promised, cases[i].goes_on);
		}
	}
}

static void test_clear_ecn(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		for (unsigned tos = 0; tos < 256; tos += 85) {
			for (unsigned ecn = 0; ecn < 4; ecn++) {
				struct pair p = new_pair(&lab, family);
				struct pkt k = plain_packet(&p, 0);

				p.flow[0].clear_ecn = 1;
				k.tos = (uint8_t)((tos & ~3u) | ecn);
				expect_sent("ECN cleared", &p, 0, &k);
				/* The other direction has its own mark. */
				k = plain_packet(&p, 1);
				k.tos = (uint8_t)((tos & ~3u) | ecn);
				expect_sent("ECN kept", &p, 1, &k);
			}
		}
	}
}

static void test_ttl(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k = plain_packet(&p, 0);

		k.n_payload = 7;
		for (unsigned ttl = 255; ttl >= 2; ttl -= ttl > 8 ? 31 : 1) {
			k.ttl = (uint8_t)ttl;
			expect_sent("TTL", &p, 0, &k);
		}
		k.ttl = 1;
		expect_dropped("TTL 1", &p, 0, &k, DROP_OF(ttl_dropped));
		k.ttl = 0;
		expect_dropped("TTL 0", &p, 0, &k, DROP_OF(ttl_dropped));
	}
}

/* ---- options ---- */

static void test_timestamps(void **state)
{
	static const uint32_t values[] = { 0, 1, 0x7fffffff, 0x80000000, 0xffffffff };

	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);

		for (unsigned i = 0; i < 50; i++) {
			const unsigned side = i / 25;
			struct pkt k = plain_packet(&p, side);

			opt_aligned_ts(&k, values[i % 5], values[i / 5 % 5]);
			k.n_payload = i;
			expect_sent("timestamps", &p, side, &k);
			assert_int_equal(p.flow[side].last_tsval, values[i % 5]);
			assert_int_equal(p.flow[side].last_tsecr, values[i / 5 % 5]);
		}
	}
}

/* The echo that would become 0, and those that are. */
static void test_echo_of_zero(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k = plain_packet(&p, 0);

		opt_aligned_ts(&k, 77, 0);
		expect_sent("echo 0", &p, 0, &k);
		k = plain_packet(&p, 0);
		opt_aligned_ts(&k, 77, -p.flow[0].tsecr_delta);
		expect_sent("echo becomes 0", &p, 0, &k);
		k = plain_packet(&p, 0);
		opt_nop(&k, 1);
		opt_ts(&k, 77, 0);
		opt_pad(&k, 1);
		expect_sent("echo 0, not aligned", &p, 0, &k);
	}
}

static void test_sack(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		for (unsigned n = 1; n <= 4; n++) {
			/* NOP NOP SACK; SACK first; at the wrap; behind timestamps */
			struct pair p = new_pair(&lab, family);
			struct pkt k = plain_packet(&p, 0);

			opt_nop(&k, 2);
			opt_sack(&k, k.ack + 1000, n);
			expect_sent("SACK", &p, 0, &k);
			k = plain_packet(&p, 1);
			opt_sack(&k, k.ack + 1000, n);
			opt_pad(&k, 1);
			expect_sent("SACK first", &p, 1, &k);
			k = plain_packet(&p, 0);
			opt_nop(&k, 1);
			opt_sack(&k, -500u - p.flow[0].ack_delta, n);
			opt_pad(&k, 0);
			expect_sent("SACK over the wrap", &p, 0, &k);
			if (n == 4)
				continue;
			k = plain_packet(&p, 0);
			opt_aligned_ts(&k, 5, 6);
			opt_nop(&k, 2);
			opt_sack(&k, k.ack + 1000, n);
			k.n_payload = 100;
			expect_sent("timestamps, SACK", &p, 0, &k);
			k = plain_packet(&p, 0);
			opt_sack(&k, k.ack + 1000, n);
			opt_ts(&k, 8, 9);
			opt_pad(&k, 0);
			expect_sent("SACK, timestamps", &p, 0, &k);
			k = plain_packet(&p, 0);
			opt_nop(&k, 1);
			opt_ts(&k, 8, 9);
			opt_sack(&k, k.ack + 1000, n);
			opt_pad(&k, 1);
			expect_sent("odd timestamps, SACK", &p, 0, &k);
		}
	}
}

/* Timestamps and SACK at every place of 40 octets, odd ones too. */
static void test_every_offset(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		for (size_t at = 0; at <= 30; at++) {
			struct pair p = new_pair(&lab, family);
			struct pkt k = plain_packet(&p, 0);

			opt_nop(&k, at);
			opt_ts(&k, 0x01020304 + (uint32_t)at, 0x05060708);
			opt_pad(&k, 1);
			k.n_payload = at;
			expect_sent("timestamps anywhere", &p, 0, &k);
			k = plain_packet(&p, 0);
			opt_nop(&k, at);
			opt_sack(&k, k.ack + 0x00ff00ff, 1);
			opt_pad(&k, 1);
			expect_sent("SACK anywhere", &p, 0, &k);
		}
	}
}

static void test_other_options(void **state)
{
	static const uint8_t unknown[6] = { 254, 6, 8, 10, 5, 10 };
	static const uint8_t mss[4] = { 2, 4, 5, 0xb4 };
	static const uint8_t mptcp[8] = { 30, 8, 0x20, 1, 8, 10, 1, 1 };
	static const uint8_t empty[2] = { 8, 2 };

	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k = plain_packet(&p, 0);

		opt(&k, unknown, 6);
		opt_pad(&k, 1);
		expect_sent("unknown alone", &p, 0, &k);
		k = plain_packet(&p, 0);
		opt(&k, unknown, 6);
		opt_ts(&k, 100, 200);
		expect_sent("unknown, timestamps", &p, 0, &k);
		k = plain_packet(&p, 0);
		opt_nop(&k, 40);
		expect_sent("40 NOPs", &p, 0, &k);
		k = plain_packet(&p, 0);
		opt_pad(&k, 0);
		opt(&k, (uint8_t[4]){ 0 }, 4);
		opt_ts(&k, 100, 200); /* behind the end: nobody's */
		opt_pad(&k, 0);
		expect_sent("end of the list", &p, 0, &k);
		k = plain_packet(&p, 0);
		opt(&k, mss, 4);
		opt(&k, mptcp, 8);
		opt_ts(&k, 1, 2);
		opt_pad(&k, 0);
		expect_sent("MSS, MPTCP, timestamps", &p, 0, &k);
		k = plain_packet(&p, 0);
		opt(&k, empty, 2);
		opt_ts(&k, 3, 4);
		expect_sent("timestamps without values, timestamps", &p, 0, &k);
		k = plain_packet(&p, 0);
		opt_ts(&k, 3, 4);
		opt_ts(&k, 5, 6);
		opt_ts(&k, 7, 8);
		opt_pad(&k, 1);
		expect_sent("timestamps thrice", &p, 0, &k);
	}
}

/* Lengths that fit, but not the option: no receiver reads it, the rest counts. */
static void test_odd_lengths(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		for (unsigned len = 2; len <= 30; len++) {
			struct pair p = new_pair(&lab, family);
			struct pkt k = plain_packet(&p, 0);
			uint8_t o[40] = { 0, (uint8_t)len };

			memset(o + 2, 0x5a, 38);
			o[0] = len == 10 ? 5 : 8;
			opt(&k, o, len);
			opt_ts(&k, 11, 12);
			opt_pad(&k, 1);
			expect_sent("timestamps of another length", &p, 0, &k);
			/* Blocks in part are left to the program. */
			if (len > 5 && (len - 2) % 8)
				continue;
			k = plain_packet(&p, 0);
			o[0] = 5;
			opt(&k, o, len);
			opt_ts(&k, 13, 14);
			opt_pad(&k, 1);
			expect_sent("SACK of another length", &p, 0, &k);
		}
	}
}

static void test_malformed_options(void **state)
{
	static const uint8_t cases[][4] = {
		{ 8, 0, 1, 1 },    { 8, 1, 1, 1 },   { 5, 0, 0, 0 },  { 1, 1, 1, 8 },
		{ 8, 10, 1, 1 },   { 254, 5, 1, 1 }, { 1, 1, 5, 10 }, { 1, 1, 1, 254 },
		{ 254, 0, 8, 10 }, { 5, 255, 1, 1 }, { 1, 1, 8, 3 },
	};

	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		for (size_t i = 0; i < sizeof(cases) / 4; i++) {
			struct pair p = new_pair(&lab, family);
			struct pkt k = plain_packet(&p, 0);

			opt(&k, cases[i], 4);
			assert_true(has_malformed_options(&k));
			k.n_payload = 20;
			expect_sent("malformed alone", &p, 0, &k);
			k = plain_packet(&p, 0);
			opt_aligned_ts(&k, 10, 20);
			opt(&k, cases[i], 4);
			expect_sent("malformed behind timestamps", &p, 0, &k);
		}
	}
}

static void test_no_timestamps(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k;

		for (unsigned i = 0; i < 2; i++) {
			p.flow[i].has_timestamps = 0;
			p.flow[i].tsval_delta = 0;
			p.flow[i].tsecr_delta = 0;
		}
		k = plain_packet(&p, 0);
		k.n_payload = 10;
		expect_sent("no timestamps", &p, 0, &k);
		k = plain_packet(&p, 1);
		opt_nop(&k, 2);
		opt_sack(&k, k.ack + 100, 3);
		expect_sent("no timestamps, SACK", &p, 1, &k);
	}
}

/* ---- what is noted ---- */

static struct pkt data_packet(const struct pair *p, unsigned side, uint32_t seq, size_t n)
{
	struct pkt k = plain_packet(p, side);

	opt_aligned_ts(&k, 1000, 2000);
	k.seq = seq;
	k.n_payload = n;
	return k;
}

static void test_bytes(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		const uint32_t start = 0xffffff80;
		struct pkt k;

		p.flow[0].max_seq = start;
		p.flow[1].max_ack = start + p.flow[0].seq_delta;
		k = data_packet(&p, 0, start, 100);
		expect_sent("data", &p, 0, &k);
		expect_sent("the same again", &p, 0, &k);
		k = data_packet(&p, 0, start + 50, 100);
		expect_sent("half of it again", &p, 0, &k);
		k = data_packet(&p, 0, start + 200, 50);
		expect_sent("behind a hole, over the wrap", &p, 0, &k);
		k = data_packet(&p, 0, start + 150, 50);
		expect_sent("the hole", &p, 0, &k);
		assert_int_equal(p.flow[0].bytes, 250);
		k = data_packet(&p, 0, start + 249, 0);
		expect_sent("keep-alive", &p, 0, &k);
		k = data_packet(&p, 0, start + 249, 1);
		expect_sent("keep-alive with an octet", &p, 0, &k);
		assert_int_equal(p.flow[0].bytes, 250);
		assert_int_equal(p.flow[0].packets, 7);
		assert_int_equal(p.flow[1].packets, 0);
		assert_int_equal(p.flow[0].max_seq, start + 250);
	}
}

static void test_old_acknowledgement(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		const uint32_t acked = p.flow[1].max_ack;
		struct pkt k;

		k = data_packet(&p, 0, p.flow[0].max_seq, 1000);
		expect_sent("data", &p, 0, &k);
		k = plain_packet(&p, 1);
		k.ack += 1000;
		expect_sent("acknowledged", &p, 1, &k);
		k.ack -= 400;
		expect_sent("an old one", &p, 1, &k);
		assert_int_equal(p.flow[1].max_ack, acked + 1000);
	}
}

static void test_fin(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k = data_packet(&p, 0, p.flow[0].max_seq, 10), ack;

		k.flags |= TH_FIN_;
		expect_sent("FIN with data", &p, 0, &k);
		assert_int_equal(p.flow[0].fin_seq, 1000011);
		assert_int_equal(p.flow[0].bytes, 10);
		expect_sent("FIN again", &p, 0, &k);
		ack = plain_packet(&p, 1);
		ack.ack = p.flow[1].peer_fin_seq - 1;
		expect_sent("the data acknowledged", &p, 1, &ack);
		assert_int_equal(p.flow[1].peer_fin_acked, 0);
		ack.ack++;
		expect_sent("FIN acknowledged", &p, 1, &ack);
		assert_int_equal(p.flow[1].peer_fin_acked, 1);
		expect_sent("once more", &p, 1, &ack);
		k = data_packet(&p, 1, p.flow[1].max_seq, 500);
		k.ack = ack.ack;
		expect_sent("the other side goes on", &p, 1, &k);
		k = plain_packet(&p, 1);
		k.flags |= TH_FIN_;
		expect_sent("and ends", &p, 1, &k);
		k = plain_packet(&p, 0);
		k.seq = p.flow[0].fin_seq;
		k.ack = p.flow[0].peer_fin_seq;
		expect_sent("the last acknowledgement", &p, 0, &k);
		assert_true(is_finished(&p));
	}
}

/* Each FIN acknowledges the other's; and one that comes in front of a hole. */
static void test_fin_crossing(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k = plain_packet(&p, 0);

		k.flags |= TH_FIN_;
		expect_sent("FIN", &p, 0, &k);
		k = plain_packet(&p, 1);
		k.ack = p.flow[1].peer_fin_seq;
		k.flags |= TH_FIN_;
		expect_sent("FIN that acknowledges", &p, 1, &k);
		assert_int_equal(p.flow[1].peer_fin_acked, 1);
		k = plain_packet(&p, 0);
		k.ack = p.flow[0].peer_fin_seq;
		expect_sent("acknowledged", &p, 0, &k);
		assert_true(is_finished(&p));

		p = new_pair(&lab, family);
		k = data_packet(&p, 0, p.flow[0].max_seq + 100, 50);
		k.flags |= TH_FIN_;
		expect_sent("FIN behind a hole", &p, 0, &k);
		k = plain_packet(&p, 1);
		expect_sent("asks for the hole", &p, 1, &k);
		assert_int_equal(p.flow[1].peer_fin_acked, 0);
		k = data_packet(&p, 0, p.flow[0].max_seq - 151, 100);
		expect_sent("the hole", &p, 0, &k);
		assert_int_equal(p.flow[0].bytes, 150);
		k = plain_packet(&p, 1);
		k.ack = p.flow[1].peer_fin_seq;
		expect_sent("all acknowledged", &p, 1, &k);
		assert_int_equal(p.flow[1].peer_fin_acked, 1);
	}
}

static void test_reset(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		/* Relative to what was sent; 300 octets of it are not acknowledged. */
		static const struct {
			int32_t at;
			bool is_noted;
		} cases[] = { { 0, true },       { -1, true },         { -300, true },
			      { -301, false },   { 1, false },         { 70000, false },
			      { -70000, false }, { INT32_MAX, false }, { INT32_MIN + 301, false } };

		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			for (unsigned with_ack = 0; with_ack < 2; with_ack++) {
				struct pair p = new_pair(&lab, family);
				struct pkt k;

				p.flow[0].max_seq += 300;
				k = plain_packet(&p, 0);
				k.seq += (uint32_t)cases[i].at;
				k.flags = with_ack ? TH_RST_ | TH_ACK_ : TH_RST_;
				k.ack = with_ack ? k.ack : 0;
				expect_sent("reset", &p, 0, &k);
				assert_int_equal(p.flow[0].rst, cases[i].is_noted);
				assert_int_equal(p.flow[1].rst, 0);
				expect_sent("reset again", &p, 0, &k);
			}
		}
	}
}

static void test_revival(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k = plain_packet(&p, 0);

		k.flags = TH_RST_;
		k.ack = 0;
		expect_sent("reset", &p, 0, &k);
		assert_int_equal(p.flow[0].rst, 1);
		k = data_packet(&p, 1, p.flow[1].max_seq, 10);
		expect_sent("data of the other side", &p, 1, &k);
		assert_int_equal(p.flow[0].rst, 1);
		k = plain_packet(&p, 0);
		expect_sent("an acknowledgement", &p, 0, &k);
		assert_int_equal(p.flow[0].rst, 1);
		k = data_packet(&p, 0, p.flow[0].max_seq, 10);
		expect_sent("data", &p, 0, &k);
		assert_int_equal(p.flow[0].rst, 0);
		assert_int_equal(p.flow[0].restarts, 1);
		k = plain_packet(&p, 0);
		k.flags = TH_RST_;
		k.ack = 0;
		expect_sent("a second reset is told again", &p, 0, &k);
		assert_int_equal(p.flow[0].rst, 1);
	}
}

/* The other direction's entry was deleted by hand: packets go on, and ends are ends of one side. */
static void test_lone_entry(void **state)
{
	static const uint8_t flags[] = { TH_ACK_, TH_ACK_ | TH_FIN_, TH_RST_, TH_SYN_ };

	begin(state);
	if (hook == HOOK_XDP)
		return;
	for (unsigned i = 0; i < 2 * sizeof(flags); i++) {
		struct pair p = new_pair(&lab, i % 2 ? 6 : 4);
		struct pkt k = plain_packet(&p, 0), out;
		struct frame in, got, want;

		k.flags = flags[i / 2];
		out = rewritten(&k, &p.flow[0], &p.flow[1]);
		build(&k, &in);
		build(&out, &want);
		lab_put(&lab, &p);
		assert_int_equal(bpf_map_delete_elem(lab_flows(&lab), &p.key[1]), 0);
		assert_int_equal(lab_run_tc(&lab, &in, lab.cli, 0, 0, &got), TC_SENT);
		assert_true(same_frame("lone", &in, &got, &want));
		assert_int_equal(lab_get(&lab, &p, p.flow), 1);
		assert_int_equal(p.flow[0].packets, 1);
		assert_int_equal(p.flow[0].fin, !!(k.flags & TH_FIN_));
		lab_remove(&lab, &p);
	}
	(void)lab_events(&lab);
}

/* Nobody reads the events: they are lost and counted, the entries have the same. */
static void test_events_lost(void **state)
{
	struct pair p;
	struct pkt k;
	struct frame in, out;
	struct sl_packet_counts before;
	struct noted events;
	unsigned lost = 0;

	begin(state);
	p = new_pair(&lab, 4);
	k = plain_packet(&p, 0);
	k.flags |= TH_FIN_;
	build(&k, &in);
	before = lab_counts(&lab);
	for (unsigned i = 0; i < 100000 && !lost; i++) {
		lab_put(&lab, &p);
		assert_int_equal(lab_run_tc(&lab, &in, lab.cli, 0, 0, &out), TC_SENT);
		lost = (unsigned)counts_since(lab_counts(&lab), before).events_lost;
	}
	assert_int_equal(lost, 1);
	assert_int_equal(lab_get(&lab, &p, p.flow), 2);
	assert_int_equal(p.flow[0].fin, 1);
	assert_int_equal(p.flow[1].peer_fin, 1);
	lab_remove(&lab, &p);
	events = lab_events(&lab);
	assert_true(events.n_more > 1000);
	p = new_pair(&lab, 4);
	expect_sent("there is room again", &p, 0, &k);
}

/* ---- SYN ---- */

static struct pkt syn_packet(const struct pair *p, unsigned side)
{
	static const uint8_t options[] = { 2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0,
					   0, 9, 0, 0,    0, 0, 1, 3,  3, 7 };
	struct pkt k = plain_packet(p, side);

	k.flags = TH_SYN_;
	k.seq += 0x30000000;
	k.ack = 0;
	opt(&k, options, sizeof(options));
	return k;
}

static void test_syn_on_live_pair(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k = syn_packet(&p, 0);

		p.flow[0].window_shift = 3;
		expect_sent("SYN", &p, 0, &k);
		assert_int_equal(p.flow[0].max_seq, 1000000);
		/* One side has ended, the other not. */
		p.flow[0].fin = 1;
		p.flow[0].fin_seq = p.flow[0].max_seq;
		p.flow[1].peer_fin = 1;
		p.flow[1].peer_fin_seq = p.flow[1].max_ack;
		p.flow[1].peer_fin_acked = 1;
		expect_sent("SYN, half closed", &p, 0, &k);
		p = new_pair(&lab, family);
		k.flags |= TH_ECE_ | TH_CWR_;
		expect_sent("SYN that asks for ECN", &p, 0, &k);
		k = syn_packet(&p, 0);
		k.flags |= TH_ACK_;
		k.ack = p.flow[0].max_ack;
		expect_sent("SYN ACK", &p, 0, &k);
	}
}

static void expect_reused(const char *what, struct pair *p, unsigned side, const struct pkt *k)
{
	struct want w = { .fate = PASSED, .there = 0, .for_tc = true, .after = *p };
	struct frame in;

	w.counts.reused = 1;
	note(&w.events, &p->flow[side], SL_PACKET_EV_REUSED);
	build(k, &in);
	w.out = in;
	expect(what, p, side, &in, &w, (struct how){ 0 });
}

static void test_syn_reuse(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		for (unsigned side = 0; side < 2; side++) {
			struct pair p = new_pair(&lab, family);
			struct pkt k = syn_packet(&p, side);

			p.flow[0].rst = 1;
			expect_reused("after a reset of the client", &p, side, &k);
			p = new_pair(&lab, family);
			p.flow[1].rst = 1;
			expect_reused("after a reset of the server", &p, side, &k);
			p = new_pair(&lab, family);
			for (unsigned i = 0; i < 2; i++)
				p.flow[i].fin = p.flow[i].peer_fin = p.flow[i].peer_fin_acked = 1;
			expect_reused("after both ends", &p, side, &k);
			p = new_pair(&lab, family);
			for (unsigned i = 0; i < 2; i++)
				p.flow[i].fin = p.flow[i].peer_fin = p.flow[i].peer_fin_acked = 1;
			k.flags |= TH_ACK_;
			k.ack = p.flow[side].max_ack;
			expect_sent("SYN ACK on a finished pair", &p, side, &k);
		}
	}
}

/* ---- states ---- */

static void set_state(struct pair *p, enum sl_packet_state s)
{
	p->flow[0].state = s;
	p->flow[1].state = s;
}

static void expect_starting_passed(const char *what, struct pair *p, const struct pkt *k)
{
	struct want w = { .fate = PASSED, .there = 2, .for_tc = true, .after = *p };
	struct frame in;

	build(k, &in);
	w.out = in;
	w.counts.starting_passed = 1;
	expect(what, p, 0, &in, &w, (struct how){ 0 });
}

static void test_starting(void **state)
{
	static const uint8_t flags[] = { TH_FIN_ | TH_ACK_, TH_SYN_, TH_SYN_ | TH_ACK_ };
	static const uint8_t resets[] = { TH_RST_, TH_RST_ | TH_ACK_ };

	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k = plain_packet(&p, 0);

		set_state(&p, SL_PACKET_STARTING);
		expect_starting_passed("an acknowledgement", &p, &k);
		opt_aligned_ts(&k, 1, 2);
		opt_nop(&k, 2);
		opt_sack(&k, k.ack + 100, 2);
		expect_starting_passed("with SACK", &p, &k);
		k = data_packet(&p, 0, p.flow[0].max_seq, 1);
		expect_dropped("an octet", &p, 0, &k, DROP_OF(starting_dropped));
		for (size_t i = 0; i < sizeof(flags); i++) {
			k = plain_packet(&p, 0);
			k.flags = flags[i];
			expect_dropped("flags", &p, 0, &k, DROP_OF(starting_dropped));
		}
		for (size_t i = 0; i < sizeof(resets); i++) { /* would not come again */
			k = plain_packet(&p, 0);
			k.flags = resets[i];
			expect_starting_passed("a reset", &p, &k);
		}
		assert_int_equal(p.flow[0].packets, 0);
	}
}

/* Fields an answer is free to choose. */
static void take_free_fields(struct pkt *want, const struct frame *got)
{
	const uint8_t *ip = got->p + ETH_LEN;

	memcpy(want->eth_dst, got->p, 6);
	memcpy(want->eth_src, got->p + 6, 6);
	if (want->family == 4) {
		want->tos = ip[1];
		want->id = (uint16_t)get16(ip + 4);
		want->frag = get16(ip + 6) & FRAG_DF;
		want->ttl = ip[8];
	} else {
		want->tos = (uint8_t)(get16(ip) >> 4);
		want->flow_label = get32(ip) & 0xfffff;
		want->ttl = ip[7];
	}
	assert_true(want->ttl >= 32);
}

static void expect_reset_answer(const char *what, struct pair *p, unsigned side,
				const struct pkt *k)
{
	const size_t ip_len = k->family == 4 ? 20 : 40;
	struct want w = { .fate = SENT, .there = 2, .after = *p };
	struct pkt answer = reset_answer(k);
	struct frame in;
	struct shot s;

	build(k, &in);
	s = shoot(&lab, p, &in, side == 0 ? lab.cli : lab.srv, (struct how){ .hook = hook });
	if (hook == HOOK_XDP && s.verdict == XDP_PASS) {
		assert_int_equal(s.counts.xdp_passed, 1);
		return;
	}
	assert_int_equal(s.out.n, ETH_LEN + ip_len + 20);
	take_free_fields(&answer, &s.out);
	answer.window = (uint16_t)get16(s.out.p + ETH_LEN + ip_len + 14);
	build(&answer, &w.out);
	w.counts.killed_answered = 1;
	/* It is entered as a packet that came, not as one that went. */
	w.after.flow[side].drops = s.flow[side].drops;
	w.after.flow[side].max_ack = s.flow[side].max_ack;
	for (unsigned i = 0; i < 2; i++)
		w.after.flow[i].last_ns = s.flow[i].last_ns;
	judge(what, 2, &in, &w, &s);
}

/* Its sender is gone: noted, if it is the sender's, and not answered. */
static void expect_killed_reset(const char *what, struct pair *p, unsigned side,
				const struct pkt *k)
{
	struct want w = { .fate = DROPPED, .there = 2, .for_tc = true, .after = *p };
	struct sl_packet_flow *f = &w.after.flow[side];
	struct frame in;

	w.counts.killed_dropped = 1;
	f->drops++;
	if (!is_reset_in_range(f, &w.after.flow[!side], k->seq)) {
		w.counts.rst_ignored = 1;
		if (is_reset_ahead(f, k->seq))
			note(&w.events, f, SL_PACKET_EV_RST_AHEAD);
	} else if (!f->rst) {
		f->rst = 1;
		note(&w.events, f, SL_PACKET_EV_RST);
	}
	build(k, &in);
	w.out = in;
	expect(what, p, side, &in, &w, (struct how){ 0 });
}

static void test_killed(void **state)
{
	static const uint8_t flags[] = { TH_ACK_, TH_PSH_ | TH_ACK_, TH_FIN_ | TH_ACK_,
					 TH_SYN_, TH_SYN_ | TH_ACK_, 0 };

	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		for (unsigned side = 0; side < 2; side++) {
			struct pair p = new_pair(&lab, family);
			struct pkt k;

			set_state(&p, SL_PACKET_KILLED);
			p.flow[0].killed_ns = p.flow[1].killed_ns = 123456;
			for (size_t i = 0; i < sizeof(flags); i++) {
				k = plain_packet(&p, side);
				k.flags = flags[i];
				k.ack = flags[i] & TH_ACK_ ? 0xfedcba98 : 0;
				expect_reset_answer("answer", &p, side, &k);
				if (flags[i] & TH_SYN_)
					continue;
				opt_aligned_ts(&k, 100, 200);
				opt_nop(&k, 2);
				opt_sack(&k, 12345, 2);
				k.n_payload = 1000;
				k.ttl = 1;
				k.tos = 0x03;
				expect_reset_answer("answer to data", &p, side, &k);
			}
			k = plain_packet(&p, side);
			k.n_pad = 6;
			expect_reset_answer("answer to a padded one", &p, side, &k);
			k = plain_packet(&p, side);
			k.flags = TH_RST_;
			k.ack = 0;
			k.seq += 100000;
			expect_killed_reset("a reset out of range", &p, side, &k);
			k.seq -= 100000;
			expect_killed_reset("a reset", &p, side, &k);
			k.flags = TH_RST_ | TH_ACK_;
			expect_killed_reset("a second reset", &p, side, &k);
		}
	}
}

/* ---- fragments and headers in between ---- */

static void test_fragments(void **state)
{
	struct pair p;
	struct pkt k;

	begin(state);
	p = new_pair(&lab, 4);
	k = data_packet(&p, 0, p.flow[0].max_seq, 1000);
	k.frag = FRAG_MF;
	k.l4_keep = 520;
	expect_dropped("first", &p, 0, &k, DROP_OF(fragment_dropped));
	k.l4_keep = 8;
	expect_dropped("first, of 8 octets", &p, 0, &k, DROP_OF(fragment_dropped));
	k.n_pad = 18;
	expect_dropped("first, of 8 octets, padded", &p, 0, &k, DROP_OF(fragment_dropped));
	k.n_pad = 0;
	k.l4_keep = 520;
	k.frag = FRAG_MF | FRAG_DF;
	expect_dropped("first, DF", &p, 0, &k, DROP_OF(fragment_dropped));
	memset(k.ip_opts, 1, 40);
	for (k.n_ip_opts = 4; k.n_ip_opts <= 40; k.n_ip_opts += 12) {
		struct want w = { .fate = DROPPED, .there = 2, .for_tc = true, .after = p };
		struct frame in;
		struct shot s;

		/* Both causes are right. */
		build(&k, &in);
		s = shoot(&lab, &p, &in, lab.cli, (struct how){ .hook = hook });
		w.out = in;
		w.after.flow[0].drops++;
		w.counts.fragment_dropped = !s.counts.extension_dropped;
		w.counts.extension_dropped = !w.counts.fragment_dropped;
		expect("first, with IP options", &p, 0, &in, &w, (struct how){ 0 });
	}
	k.n_ip_opts = 0;
	k.l4_skip = 520;
	k.l4_keep = 0;
	k.frag = 65;
	expect_passed("last", &p, 0, &k);
	k.l4_keep = 104;
	k.frag = 65 | FRAG_MF;
	expect_passed("one in the middle", &p, 0, &k);
}

struct v6_header {
	uint8_t type;
	uint8_t length; /* in 8 octets, without the first */
	uint8_t third;  /* octets 2 and 3 */
	uint8_t fourth;
};

/* Chains them in front of TCP. */
static void put_headers(struct pkt *k, const struct v6_header *h, size_t n)
{
	k->n_ext = 0;
	k->first_next = h[0].type;
	for (size_t i = 0; i < n; i++) {
		uint8_t *e = k->ext + k->n_ext;
		size_t len = 8 + (size_t)h[i].length * 8;

		if (k->n_ext + len > sizeof(k->ext))
			abort();
		memset(e, 0, len);
		e[0] = i + 1 < n ? h[i + 1].type : 6;
		e[1] = h[i].type == 44 ? 0 : h[i].length;
		if (h[i].type == 44) {
			e[2] = h[i].third;
			e[3] = h[i].fourth;
		} else {
			e[2] = 1; /* PadN over the rest */
			e[3] = (uint8_t)(len - 4);
		}
		k->n_ext += len;
	}
}

static void expect_v6(const char *what, const struct v6_header *h, size_t n, size_t counter)
{
	struct pair p = new_pair(&lab, 6);
	struct pkt k = data_packet(&p, 0, p.flow[0].max_seq, 100);

	put_headers(&k, h, n);
	expect_dropped(what, &p, 0, &k, counter);
	/* Of nobody's tuple: as it came, and not counted. */
	k.sport++;
	expect_passed(what, &p, 0, &k);
}

static void test_v6_headers(void **state)
{
	const size_t fragment = DROP_OF(fragment_dropped), extension = DROP_OF(extension_dropped);
	struct pair p;
	struct pkt k;

	begin(state);
	expect_v6("atomic fragment", (struct v6_header[]){ { 44, 0, 0, 0 } }, 1, fragment);
	expect_v6("first fragment", (struct v6_header[]){ { 44, 0, 0, 1 } }, 1, fragment);
	expect_v6("hop by hop", (struct v6_header[]){ { 0 } }, 1, extension);
	expect_v6("longer", (struct v6_header[]){ { 0, 4, 0, 0 } }, 1, extension);
	expect_v6("destination options", (struct v6_header[]){ { 60, 0, 0, 0 } }, 1, extension);
	expect_v6("routing", (struct v6_header[]){ { 43, 2, 0, 0 } }, 1, extension);
	expect_v6("several",
		  (struct v6_header[]){ { 0 }, { 60, 1, 0, 0 }, { 43, 0, 0, 0 }, { 60, 0, 0, 0 } },
		  4, extension);
	p = new_pair(&lab, 6);
	k = data_packet(&p, 0, p.flow[0].max_seq, 100);
	put_headers(&k, (struct v6_header[]){ { 44, 0, 0, 8 } }, 1);
	expect_passed("last fragment", &p, 0, &k);
	put_headers(&k, (struct v6_header[]){ { 44, 0, 1, 1 } }, 1);
	expect_passed("one in the middle", &p, 0, &k);
	k.l4_keep = 8;
	put_headers(&k, (struct v6_header[]){ { 44, 0, 0, 1 } }, 1);
	expect_dropped("first fragment of 8 octets", &p, 0, &k, fragment);
	put_headers(&k, (struct v6_header[]){ { 0 }, { 44, 0, 0, 1 } }, 2);
	k.l4_keep = 80;
	{
		struct frame in;
		struct shot s;

		build(&k, &in);
		s = shoot(&lab, &p, &in, lab.cli, (struct how){ .hook = hook });
		expect_dropped("fragment behind a header", &p, 0, &k,
			       s.counts.extension_dropped ? extension : fragment);
	}
}

static void test_ip_options(void **state)
{
	static const uint8_t record_route[12] = { 7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
	struct pair p;
	struct pkt k;

	begin(state);
	p = new_pair(&lab, 4);
	k = data_packet(&p, 0, p.flow[0].max_seq, 100);
	memset(k.ip_opts, 1, 40);
	for (k.n_ip_opts = 4; k.n_ip_opts <= 40; k.n_ip_opts += 4)
		expect_dropped("NOPs", &p, 0, &k, DROP_OF(extension_dropped));
	memcpy(k.ip_opts, record_route, 12);
	k.n_ip_opts = 12;
	expect_dropped("record route", &p, 0, &k, DROP_OF(extension_dropped));
	k.dport++;
	expect_passed("of nobody", &p, 0, &k);
}

/* ---- nobody's, and no TCP ---- */

static void test_unknown(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k;

		for (unsigned i = 0; i < 7; i++) {
			k = data_packet(&p, 0, p.flow[0].max_seq, 100);
			k.sport ^= i == 0;
			k.dport ^= i == 1 ? 0x8000 : 0;
			k.src[15] ^= i == 2;
			k.dst[15] ^= i == 3 ? 0x80 : 0;
			k.src[12] ^= i == 4;
			k.proto = i == 5 ? 17 : 0;
			k.proto = i == 6 ? 132 : k.proto;
			expect_passed("unknown", &p, 0, &k);
		}
		/* The other way round it is not its own. */
		k = data_packet(&p, 0, p.flow[0].max_seq, 100);
		memcpy(k.src, p.key[0].daddr, 16);
		memcpy(k.dst, p.key[0].saddr, 16);
		k.sport = p.key[0].dport;
		k.dport = p.key[0].sport;
		expect_passed("what we sent", &p, 0, &k);
	}
}

static void test_other_protocols(void **state)
{
	static const uint16_t types[] = { 0x0806, 0x8847, 0x88cc, 0x0000, 0x05dc };
	struct pair p;
	struct pkt k;
	struct frame f;

	begin(state);
	p = new_pair(&lab, 4);
	k = data_packet(&p, 0, p.flow[0].max_seq, 100);
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		build(&k, &f);
		set16(f.p + 12, types[i]);
		expect_frame_passed("another type", &p, 0, &f);
	}
	if (hook == HOOK_TC) { /* XDP does not know for whom a frame is */
		build(&k, &f);
		f.p[5] ^= 1;
		expect_frame_passed("a frame for another host", &p, 0, &f);
	}
	build(&k, &f);
	f.p[0] |= 1;
	expect_frame_passed("a frame for many", &p, 0, &f);
	build(&k, &f);
	f.p[14] = 0x65;
	expect_frame_passed("version 6 in an IPv4 frame", &p, 0, &f);
	build(&k, &f);
	f.p[14] = 0x44;
	expect_frame_passed("a header of 16 octets", &p, 0, &f);
	p = new_pair(&lab, 6);
	k = data_packet(&p, 0, p.flow[0].max_seq, 100);
	build(&k, &f);
	f.p[14] = 0x45;
	expect_frame_passed("version 4 in an IPv6 frame", &p, 0, &f);
}

/* Of a hardware address that looks like the begin of an IP packet. */
static void test_address_like_ip(void **state)
{
	static const uint8_t first[] = { 0x40, 0x44, 0x46, 0x60, 0x64, 0x6e };

	begin(state);
	for (size_t i = 0; i < sizeof(first); i++) {
		const uint8_t mac[6] = { first[i], 0x00, 0x05, 0xdc, 0x12, 0x34 };

		set_address("cli0", mac);
		for (unsigned family = 4; family <= 6; family += 2) {
			struct pair p = new_pair(&lab, family);
			struct pkt k = data_packet(&p, 0, p.flow[0].max_seq, 100);

			memcpy(k.eth_dst, mac, 6);
			expect_sent("address like IP", &p, 0, &k);
			k = plain_packet(&p, 0);
			memcpy(k.eth_dst, mac, 6);
			expect_sent("address like IP, short", &p, 0, &k);
			k.sport++;
			expect_passed("address like IP, of nobody", &p, 0, &k);
		}
	}
}

/* ---- broken packets of a known tuple ---- */

static void test_malformed(void **state)
{
	const size_t malformed = DROP_OF(malformed_dropped);

	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		const size_t ip_len = family == 4 ? 20 : 40;
		struct pair p = new_pair(&lab, family);
		struct pkt k = data_packet(&p, 0, p.flow[0].max_seq, 4);

		for (unsigned doff = 0; doff < 16; doff++) {
			k.doff = (uint8_t)doff;
			/* 5..8 are within the 36 octets, 9 just so; 0 here means "right" */
			if (doff == 0 || (doff >= 5 && doff <= 9))
				continue;
			expect_dropped("data offset", &p, 0, &k, malformed);
		}
		k = plain_packet(&p, 0);
		k.doff = 6;
		expect_dropped("data offset behind the end", &p, 0, &k, malformed);
		k.n_pad = 6;
		expect_dropped("data offset into padding", &p, 0, &k, malformed);
		k = plain_packet(&p, 0);
		for (k.l4_keep = 4; k.l4_keep < 20; k.l4_keep++)
			expect_dropped("short segment", &p, 0, &k, malformed);
		k.n_pad = 30;
		for (k.l4_keep = 4; k.l4_keep < 20; k.l4_keep++)
			expect_dropped("short segment, padded", &p, 0, &k, malformed);
		k = data_packet(&p, 0, p.flow[0].max_seq, 100);
		for (k.cut = 1; k.cut <= 128; k.cut += k.cut > 99 ? 1 : 9)
			expect_dropped("cut", &p, 0, &k, malformed);
		k = plain_packet(&p, 0);
		for (k.l4_keep = 1; k.l4_keep < 4; k.l4_keep++)
			expect_passed("without ports", &p, 0, &k);
		k = data_packet(&p, 0, p.flow[0].max_seq, 100);
		k.total = (uint16_t)(family == 4 ? ip_len : 1);
		expect_dropped("a length without ports", &p, 0, &k, malformed);
		k.total = (uint16_t)(family == 4 ? ip_len + 8 : 8);
		expect_dropped("a length of 8 octets", &p, 0, &k, malformed);
		k.total = 65535;
		expect_dropped("a length far behind the end", &p, 0, &k, malformed);
	}
}

/* Cut anywhere, also in front of the ports: no packet harms. */
static void test_every_length(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		const size_t ip_len = family == 4 ? 20 : 40;
		struct pair p = new_pair(&lab, family);
		struct pkt k = data_packet(&p, 0, p.flow[0].max_seq, 20);
		struct frame whole, f;

		build(&k, &whole);
		/* The kernel runs no test below an IP header. */
		for (f = whole, f.n = ETH_LEN + ip_len; f.n < whole.n; f.n++) {
			struct shot s = shoot(&lab, &p, &f, lab.cli, (struct how){ .hook = hook });

			assert_true(s.verdict == (hook == HOOK_TC ? TC_DROP : (int)XDP_DROP) ||
				    s.verdict == (hook == HOOK_TC ? TC_PASS : (int)XDP_PASS));
			if (hook == HOOK_TC && f.n >= ETH_LEN + ip_len + 4)
				assert_int_equal(s.verdict, TC_DROP);
			assert_memory_equal(f.p, s.out.p, f.n);
			assert_int_equal(s.flow[0].packets, 0);
		}
	}
}

/* ---- ICMP ---- */

/*
 * An error about what we forwarded to the sender of `side`'s packets, from a router on the way to
 * it; the quoted packet is of the other side, with data.
 */
static struct icmp error_about(const struct pair *p, unsigned side, uint8_t type, uint8_t code)
{
	struct pkt theirs = data_packet(p, !side, p->flow[!side].max_seq - 1000, 1000);
	struct icmp e = { .family = p->flow[side].family,
			  .ttl = 60,
			  .tos = 0xc0,
			  .id = 0x1111,
			  .type = type,
			  .code = code,
			  .rest = 1300,
			  .inner = rewritten(&theirs, &p->flow[!side], &p->flow[side]) };

	memcpy(e.eth_dst, side == 0 ? CLI0_MAC : SRV0_MAC, 6);
	memcpy(e.eth_src, side == 0 ? CLIENT_MAC : SERVER_MAC, 6);
	set_ip(e.src, e.family == 4 ? "10.99.98.97" : "2001:db8:ffff::97");
	memcpy(e.dst, p->key[side].daddr, 16);
	e.inner.ttl = 17;
	return e;
}

static void expect_translated(const char *what, struct pair *p, unsigned side, const struct icmp *e)
{
	struct want w = { .fate = SENT, .there = 2, .for_tc = true, .after = *p };
	struct icmp out = translated(e, &p->flow[side]);
	struct frame in;
	struct shot s;

	build_icmp(e, &in);
	build_icmp(&out, &w.out);
	s = shoot(&lab, p, &in, side == 0 ? lab.cli : lab.srv, (struct how){ .hook = hook });
	if (hook == HOOK_XDP) {
		assert_int_equal(s.verdict, XDP_PASS);
		assert_true(same_frame(what, &in, &s.out, &in));
		return;
	}
	w.counts.icmp_translated = 1;
	for (unsigned i = 0; i < 2; i++) {
		w.after.flow[i].last_ns = s.flow[i].last_ns;
		w.after.flow[i].last_data_ns = s.flow[i].last_data_ns;
	}
	judge(what, 2, &in, &w, &s);
}

static void expect_icmp_passed(const char *what, struct pair *p, unsigned side,
			       const struct icmp *e)
{
	struct frame in;

	build_icmp(e, &in);
	expect_frame_passed(what, p, side, &in);
}

static void test_icmp4(void **state)
{
	begin(state);
	for (unsigned side = 0; side < 2; side++) {
		static const uint8_t others[] = { 0, 4, 5, 8, 9, 10, 13, 14, 17, 18, 40 };
		struct pair p = new_pair(&lab, 4);
		struct icmp e;

		for (unsigned code = 0; code <= 15; code++) {
			e = error_about(&p, side, 3, (uint8_t)code);
			expect_translated("unreachable", &p, side, &e);
			for (e.quoted = 28; e.quoted <= 80; e.quoted += 4) {
				e.inner.seq += 0x10001;
				e.id++;
				expect_translated("quoted in part", &p, side, &e);
			}
		}
		for (unsigned code = 0; code < 2; code++) {
			e = error_about(&p, side, 11, (uint8_t)code);
			expect_translated("time exceeded", &p, side, &e);
		}
		e = error_about(&p, side, 12, 0);
		e.rest = 0x14000000;
		expect_translated("parameter problem", &p, side, &e);
		for (size_t i = 0; i < sizeof(others); i++) {
			e = error_about(&p, side, others[i], 0);
			expect_icmp_passed("another type", &p, side, &e);
		}
	}
}

static void test_icmp6(void **state)
{
	begin(state);
	for (unsigned side = 0; side < 2; side++) {
		static const uint8_t others[] = { 0, 5, 100, 127, 128, 129, 134, 135, 136, 137 };
		struct pair p = new_pair(&lab, 6);
		struct icmp e;

		for (unsigned type = 1; type <= 4; type++) {
			for (unsigned code = 0; code <= 6; code++) {
				e = error_about(&p, side, (uint8_t)type, (uint8_t)code);
				expect_translated("error", &p, side, &e);
				for (e.quoted = 48; e.quoted <= 100; e.quoted += 4) {
					e.inner.seq += 0x10001;
					expect_translated("quoted in part", &p, side, &e);
				}
			}
		}
		for (size_t i = 0; i < sizeof(others); i++) {
			e = error_about(&p, side, others[i], 0);
			expect_icmp_passed("another type", &p, side, &e);
		}
	}
}

static void test_icmp_of_nobody(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		const uint8_t type = family == 4 ? 3 : 2, code = family == 4 ? 4 : 0;
		const size_t ip_len = family == 4 ? 20 : 40;
		struct pair p = new_pair(&lab, family);
		struct icmp e;

		for (unsigned i = 0; i < 7; i++) {
			e = error_about(&p, 0, type, code);
			e.inner.sport ^= i == 0;
			e.inner.dport ^= i == 1 ? 0x100 : 0;
			e.inner.src[15] ^= i == 2;
			e.inner.dst[15] ^= i == 3 ? 0x80 : 0;
			e.inner.proto = i == 4 ? 17 : 0;
			if (i == 5) { /* what was never sent: the packet as it had come */
				memcpy(e.inner.src, p.key[0].saddr, 16);
				memcpy(e.inner.dst, p.key[0].daddr, 16);
				e.inner.sport = p.key[0].sport;
				e.inner.dport = p.key[0].dport;
			}
			if (i == 6)
				e.quoted = ip_len;
			expect_icmp_passed("of nobody", &p, 0, &e);
		}
	}
}

/* In force not yet or no more, not to be read, or at the end of its way. */
static void test_icmp_dropped(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		const uint8_t type = family == 4 ? 3 : 2, code = family == 4 ? 4 : 0;
		struct pair p = new_pair(&lab, family);
		struct icmp e = error_about(&p, 0, type, code);
		struct frame in;
		struct shot s;

		if (hook == HOOK_XDP)
			continue;
		build_icmp(&e, &in);
		set_state(&p, SL_PACKET_STARTING); /* the socket is still there */
		s = shoot(&lab, &p, &in, lab.cli, (struct how){ 0 });
		assert_int_equal(s.verdict, TC_PASS);
		assert_int_equal(s.counts.icmp_dropped + s.counts.icmp_translated, 0);
		set_state(&p, SL_PACKET_KILLED);
		s = shoot(&lab, &p, &in, lab.cli, (struct how){ 0 });
		assert_int_equal(s.verdict, TC_DROP);
		assert_int_equal(s.counts.icmp_dropped, 1);
		assert_int_equal(s.counts.icmp_translated, 0);
		set_state(&p, SL_PACKET_ACTIVE);
		e.ttl = 1;
		build_icmp(&e, &in);
		s = shoot(&lab, &p, &in, lab.cli, (struct how){ 0 });
		assert_int_equal(s.verdict, TC_DROP);
		assert_int_equal(s.counts.icmp_translated, 0);
		assert_int_equal(s.counts.ttl_dropped + s.counts.icmp_dropped, 1);
	}
}

/* A quoted packet with IP options, a fragment of one, an error in fragments. */
static void test_icmp_odd(void **state)
{
	struct pair p;
	struct icmp e;
	struct frame in;
	struct shot s;

	begin(state);
	p = new_pair(&lab, 4);
	e = error_about(&p, 0, 3, 4);
	e.inner.frag = 65;
	expect_icmp_passed("about a later fragment", &p, 0, &e);
	e = error_about(&p, 0, 3, 4);
	e.frag = FRAG_MF;
	build_icmp(&e, &in);
	s = shoot(&lab, &p, &in, lab.cli, (struct how){ .hook = hook });
	assert_true(s.verdict == want_verdict(&(struct want){ .fate = PASSED }) ||
		    s.verdict == want_verdict(&(struct want){ .fate = DROPPED }));
	assert_memory_equal(s.out.p, in.p, in.n);
	e.frag = 100;
	expect_icmp_passed("a later fragment", &p, 0, &e);
	/* Cut at every length: nothing is made of it that was not there. */
	for (unsigned family = 4; family <= 6; family += 2) {
		struct frame whole;

		p = new_pair(&lab, family);
		e = error_about(&p, 0, family == 4 ? 3 : 2, family == 4 ? 4 : 0);
		build_icmp(&e, &whole);
		for (in = whole, in.n = family == 4 ? 34 : 54; in.n < whole.n; in.n++) {
			s = shoot(&lab, &p, &in, lab.cli, (struct how){ .hook = hook });
			if (s.verdict == want_verdict(&(struct want){ .fate = SENT }))
				fail_msg("IPv%u, %zu of %zu octets: sent on", family, in.n,
					 whole.n);
			assert_int_equal(s.counts.icmp_translated, 0);
			assert_memory_equal(s.out.p, in.p, in.n);
		}
	}
}

/* ---- the way out is narrower ---- */

/* What "fragmentation needed" and "packet too big" must quote: the packet as it came. */
static struct icmp answer_about(const struct pkt *k, unsigned mtu, const struct frame *got)
{
	const size_t ip_len = k->family == 4 ? 20 : 40;
	const uint8_t *ip = got->p + ETH_LEN;
	struct pkt outer = { .family = k->family };
	struct icmp e = { .family = k->family,
			  .type = k->family == 4 ? 3 : 2,
			  .code = k->family == 4 ? 4 : 0,
			  .rest = mtu,
			  .inner = *k };

	take_free_fields(&outer, got);
	memcpy(e.eth_dst, outer.eth_dst, 6);
	memcpy(e.eth_src, outer.eth_src, 6);
	memcpy(e.src, k->dst, 16);
	memcpy(e.dst, k->src, 16);
	e.ttl = outer.ttl;
	e.tos = outer.tos;
	e.id = outer.id;
	e.frag = outer.frag;
	assert_int_equal(k->family == 4 ? 0 : get32(ip) & 0xfffff, 0);
	assert_true(got->n >= ETH_LEN + ip_len + 8 + ip_len + 20);
	e.quoted = got->n - ETH_LEN - ip_len - 8;
	/* Of a part of a segment nobody can verify it, so it may be anything. */
	e.inner.has_sum = true;
	e.inner.sum = (uint16_t)get16(ip + 2 * ip_len + 8 + 16);
	return e;
}

static void expect_too_big(const char *what, struct pair *p, const struct pkt *k, unsigned mtu,
			   struct how how)
{
	struct want w = { .fate = SENT, .there = 2, .after = *p };
	struct frame in;
	struct icmp answer;
	struct shot s;

	how.hook = hook;
	build(k, &in);
	s = shoot(&lab, p, &in, lab.cli, how);
	if (hook == HOOK_XDP) {
		assert_int_equal(s.verdict, XDP_PASS);
		assert_int_equal(s.counts.xdp_passed, 1);
		assert_true(same_frame(what, &in, &s.out, &in));
		assert_int_equal(s.flow[0].packets, p->flow[0].packets);
		return;
	}
	assert_int_equal(s.verdict, TC_SENT);
	answer = answer_about(k, mtu, &s.out);
	build_icmp(&answer, &w.out);
	w.counts.mtu_answered = 1;
	w.after.flow[0].drops++;
	w.after.flow[0].last_ns = s.flow[0].last_ns;
	w.after.flow[0].last_data_ns = s.flow[0].last_data_ns;
	judge(what, 2, &in, &w, &s);
	*p = w.after;
	p->flow[0].last_ns = p->flow[0].last_data_ns = 1;
}

static void test_mtu(void **state)
{
	begin(state);
	for (unsigned family = 4; family <= 6; family += 2) {
		const size_t header = (family == 4 ? 20 : 40) + 32;
		struct pair p = new_pair(&lab, family);
		struct pkt k = data_packet(&p, 0, p.flow[0].max_seq, 1300 - header);

		set_mtu("srv0", 1300);
		expect_sent("as long as it may be", &p, 0, &k);
		k = data_packet(&p, 0, p.flow[0].max_seq, 1301 - header);
		expect_too_big("an octet more", &p, &k, 1300, (struct how){ 0 });
		k.n_payload = 1300;
		k.frag = 0;
		k.tos = 3;
		expect_too_big("far more, may be fragmented", &p, &k, 1300, (struct how){ 0 });
		k = plain_packet(&p, 0);
		k.n_payload = 1400;
		expect_too_big("without options", &p, &k, 1300, (struct how){ 0 });
		opt_aligned_ts(&k, 1, 2);
		opt_nop(&k, 2);
		opt_sack(&k, k.ack + 1, 3);
		expect_too_big("with SACK", &p, &k, 1300, (struct how){ 0 });
		/* Padding is no part of it. */
		k = data_packet(&p, 0, p.flow[0].max_seq, 1290 - header);
		k.n_pad = 40;
		expect_sent("long by padding alone", &p, 0, &k);
		set_mtu("srv0", 1500);
		k = data_packet(&p, 0, p.flow[0].max_seq, 1500 - header);
		expect_sent("1500", &p, 0, &k);
		k.n_payload++;
		expect_too_big("1501", &p, &k, 1500, (struct how){ 0 });
		/* The client's device is another. */
		set_mtu("srv0", 1300);
		k = data_packet(&p, 1, p.flow[1].max_seq, 1500 - header);
		expect_sent("the other way", &p, 1, &k);
		set_mtu("srv0", 1500);
	}
}

/* A frame of several pages; what XDP needs is in the first. */
static void test_jumbo(void **state)
{
	begin(state);
	if (hook == HOOK_TC) /* BPF_PROG_TEST_RUN makes no such skb */
		return;
	set_mtu("srv0", 9000);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct pkt k = data_packet(&p, 0, p.flow[0].max_seq, 3900);

		expect_sent("jumbo", &p, 0, &k);
		assert_int_equal(p.flow[0].bytes, 3900);
	}
	set_mtu("srv0", 1500);
}

/* ---- what XDP does not decide ---- */

static void expect_no_way(const char *what, struct pair *p)
{
	struct pkt k = data_packet(p, 0, p->flow[0].max_seq, 100);
	struct want w = { .fate = SENT, .for_tc = true, .is_data = true, .there = 2, .after = *p };
	struct pkt out = rewritten(&k, &p->flow[0], &p->flow[1]);
	struct frame in;
	struct shot s;

	build(&k, &in);
	build(&out, &w.out);
	s = shoot(&lab, p, &in, lab.cli, (struct how){ .hook = HOOK_XDP });
	assert_int_equal(s.verdict, XDP_PASS);
	w.counts.forwarded_tc = 1;
	account(&w.after, 0, &k, 1, &w.counts, &w.events);
	expect(what, p, 0, &in, &w, (struct how){ 0 });
}

/* Another route than the entry has, none, no neighbour, no forwarding: TC has the last word. */
static void test_no_way(void **state)
{
	begin(state);
	if (hook == HOOK_TC)
		return;
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);

		p.flow[0].ifindex = lab.cli;
		expect_no_way("another device", &p);
		p = new_pair(&lab, family);
		p.flow[0].new_daddr[15]++;
		expect_no_way("no neighbour", &p);
		p = new_pair(&lab, family);
		set_ip(p.flow[0].new_daddr, family == 4 ? "8.8.8.8" : "2001:4860::8");
		expect_no_way("no route", &p);
		p = new_pair(&lab, family);
		set_ip(p.flow[0].new_daddr, family == 4 ? "198.51.100.1" : "2001:db8:2::1");
		expect_no_way("an address of ours", &p);
		assert_int_equal(system("sysctl -q -w net.ipv4.conf.cli0.forwarding=0 "
					"net.ipv6.conf.cli0.forwarding=0"),
				 0);
		p = new_pair(&lab, family);
		expect_no_way("no forwarding", &p);
		assert_int_equal(system("sysctl -q -w net.ipv4.conf.cli0.forwarding=1 "
					"net.ipv6.conf.cli0.forwarding=1"),
				 0);
	}
}

/* ---- GSO: what the program is told of it ---- */

static void test_gso(void **state)
{
	begin(state);
	if (hook == HOOK_XDP)
		return;
	for (unsigned family = 4; family <= 6; family += 2) {
		const unsigned header = (family == 4 ? 20 : 40) + 32;
		struct pair p = new_pair(&lab, family);
		struct pkt k = data_packet(&p, 0, p.flow[0].max_seq, 3000);

		expect_sent_gso("three segments", &p, 0, &k,
				(struct how){ .gso_size = 1000, .gso_segs = 3 });
		assert_int_equal(p.flow[0].packets, 3);
		assert_int_equal(p.flow[0].bytes, 3000);
		set_mtu("srv0", 1300);
		k = data_packet(&p, 0, p.flow[0].max_seq, 3000);
		expect_sent_gso("segments that just fit", &p, 0, &k,
				(struct how){ .gso_size = 1300 - header, .gso_segs = 3 });
		k = data_packet(&p, 0, p.flow[0].max_seq, 3000);
		expect_too_big("segments that do not", &p, &k, 1300,
			       (struct how){ .gso_size = 1301 - header, .gso_segs = 3 });
		set_mtu("srv0", 1500);
	}
}

/* ---- at random ---- */

static struct sl_rand dice;

static uint32_t roll(uint32_t n)
{
	return (uint32_t)sl_rand_below(&dice, n);
}

static uint32_t roll32(void)
{
	return (uint32_t)sl_rand_next(&dice);
}

static struct pair random_pair(unsigned family)
{
	struct pair p = new_pair(&lab, family);
	uint32_t sent[2] = { roll32(), roll32() };

	for (unsigned i = 0; i < 2; i++) {
		struct sl_packet_flow *f = &p.flow[i];

		f->seq_delta = roll(8) ? roll32() : 0;
		p.flow[!i].ack_delta = -f->seq_delta;
		f->tsval_delta = roll(8) ? roll32() : 0;
		p.flow[!i].tsecr_delta = -f->tsval_delta;
		f->window_shift = (int8_t)((int)roll(29) - 14);
		p.flow[!i].peer_window_shift = f->window_shift;
		f->clear_ecn = (uint8_t)roll(2);
		f->is_promised = (uint8_t)roll(2);
		f->may_overrun = (uint8_t)roll(2);
		f->window_scale = (uint8_t)roll(15);
		f->conn_id = roll32();
		f->max_seq = sent[i];
	}
	p.flow[1].conn_id = p.flow[0].conn_id;
	p.flow[0].max_ack = sent[1] + p.flow[1].seq_delta - roll(3000);
	p.flow[1].max_ack = sent[0] + p.flow[0].seq_delta - roll(3000);
	for (unsigned i = 0; i < 2; i++)
		p.flow[i].promised = p.flow[i].max_ack + roll(200000) - 50000;
	for (unsigned i = 0; i < 2; i++) {
		p.flow[i].offered = p.flow[i].max_ack + roll(100000);
		p.flow[i].within = p.flow[!i].max_ack + roll(50000);
	}
	return p;
}

/* Anything that fits: right options in any order, and at times octets by chance. */
static void random_options(struct pkt *k)
{
	const size_t room = roll(11) * 4;
	const bool is_noise = roll(12) == 0;

	while (k->n_opts < room) {
		const size_t left = room - k->n_opts;
		const uint32_t what = roll(8);

		if (is_noise) {
			opt(k, (uint8_t[]){ (uint8_t)(roll(2) ? roll(12) : roll32()) }, 1);
		} else if (what < 3 && left >= 10) {
			opt_ts(k, roll32(), roll(4) ? roll32() : 0);
		} else if (what < 5 && left >= 10) {
			uint32_t n = 1 + roll(4);

			while (2 + n * 8 > left)
				n--;
			opt_sack(k, roll32(), n);
		} else if (what == 5 && left >= 2) {
			uint8_t o[40] = { (uint8_t)(roll(2) ? 254 : 2 + roll(40)) };
			const uint32_t len = 2 + roll((uint32_t)left - 1);

			o[0] = o[0] == 5 || o[0] == 8 ? 253 : o[0];
			for (uint32_t i = 2; i < len; i++)
				o[i] = (uint8_t)roll32();
			o[1] = (uint8_t)len;
			opt(k, o, len);
		} else if (what == 6 && roll(20) == 0) {
			opt(k, (uint8_t[]){ 0 }, 1);
		} else {
			opt_nop(k, 1);
		}
	}
}

static struct pkt random_packet(const struct pair *p, unsigned side)
{
	const struct sl_packet_flow *me = &p->flow[side], *other = &p->flow[!side];
	struct pkt k = plain_packet(p, side);

	k.ttl = (uint8_t)(2 + roll(254));
	k.tos = (uint8_t)roll32();
	k.id = (uint16_t)roll32();
	k.frag = roll(2) ? FRAG_DF : 0;
	k.flow_label = roll32() & 0xfffff;
	k.window = (uint16_t)roll32();
	k.urgent = (uint16_t)roll32();
	k.reserved = (uint8_t)roll(16);
	k.fill = (uint8_t)roll32();
	k.sum_error = roll(10) ? 0 : (uint16_t)(1 + roll(0xfffe));
	k.n_payload = roll(3) ? roll(1380) : roll(3);
	k.n_pad = roll(6) ? 0 : roll(20);
	k.seq = me->max_seq - 3000 + roll(6000);
	if (roll(2))
		k.seq = me->max_seq;
	/* Nobody acknowledges what was not sent. */
	k.ack = me->max_ack - roll(3000);
	if (roll(2))
		k.ack += (other->max_seq + other->seq_delta - k.ack) / (1 + roll(3));
	k.flags |= (uint8_t)(roll(256) & (TH_PSH_ | TH_URG_ | TH_ECE_ | TH_CWR_));
	switch (roll(40)) {
	case 0:
		k.flags |= TH_FIN_;
		break;
	case 1:
		k.flags = TH_RST_ | (roll(2) ? TH_ACK_ : 0);
		k.n_payload = 0;
		break;
	case 2:
		k.flags |= TH_SYN_;
		break;
	default:
		break;
	}
	if (!(k.flags & TH_ACK_))
		k.ack = 0;
	if (roll(2))
		opt_aligned_ts(&k, roll32(), roll(4) ? roll32() : 0);
	else
		random_options(&k);
	return k;
}

static void random_run(unsigned pairs, unsigned packets)
{
	for (unsigned i = 0; i < pairs; i++) {
		struct pair p = random_pair(i % 2 ? 6 : 4);

		for (unsigned j = 0; j < packets; j++) {
			const unsigned side = roll(2);
			struct pkt k = random_packet(&p, side);

			expect_sent("at random", &p, side, &k);
		}
	}
}

/* SL_SEED repeats a run. */
static void test_random(void **state)
{
	const char *given = getenv("SL_SEED");
	uint64_t seed =
		given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();

	begin(state);
	print_message("seed: SL_SEED=%llu\n", (unsigned long long)seed);
	sl_rand_seed(&dice, seed);
	set_mtu("srv0", 9000);
	set_mtu("cli0", 9000);
	random_run(200, 40);
	set_mtu("srv0", 1500);
	set_mtu("cli0", 1500);
}

/* Octets by chance in whole packets of the tuple: no harm, and none gets out as another's. */
static void test_noise(void **state)
{
	begin(state);
	sl_rand_seed(&dice, 20261121);
	for (unsigned i = 0; i < 4000; i++) {
		const unsigned family = i % 2 ? 6 : 4;
		const size_t fixed = ETH_LEN + (family == 4 ? 20 : 40);
		struct pair p = random_pair(family);
		struct pkt k = random_packet(&p, 0);
		struct frame in;
		struct shot s;

		build(&k, &in);
		for (unsigned n = 1 + roll(6); n > 0; n--)
			in.p[ETH_LEN + roll((uint32_t)(fixed - ETH_LEN + 40))] = (uint8_t)roll32();
		s = shoot(&lab, &p, &in, lab.cli, (struct how){ .hook = hook });
		if (s.verdict != want_verdict(&(struct want){ .fate = SENT })) {
			assert_int_equal(s.flow[0].packets, 0);
			assert_memory_equal(s.out.p + ETH_LEN, in.p + ETH_LEN, in.n - ETH_LEN);
			continue;
		}
		/* It goes where it must, whatever it is. */
		if (family == 4)
			assert_memory_equal(s.out.p + 30, p.flow[0].new_daddr + 12, 4);
		else
			assert_memory_equal(s.out.p + 38, p.flow[0].new_daddr, 16);
		assert_int_equal(s.out.n, in.n);
	}
}

#define BOTH(fn)                                                        \
	{ #fn "/tc", fn, NULL, NULL, (void *)(uintptr_t)HOOK_TC },      \
	{                                                               \
#fn "/xdp", fn, NULL, NULL, (void *)(uintptr_t)HOOK_XDP \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_oracle),
		BOTH(test_plain),
		BOTH(test_every_field_is_kept),
		{ "test_mark", test_mark, NULL, NULL, (void *)(uintptr_t)HOOK_TC },
		BOTH(test_padding),
		BOTH(test_deltas),
		BOTH(test_broken_checksums_stay_broken),
		BOTH(test_window),
		BOTH(test_promised_window),
		BOTH(test_number_within),
		BOTH(test_edge_is_taken_back),
		{ "test_injected", test_injected, NULL, NULL, (void *)(uintptr_t)HOOK_TC },
		BOTH(test_promise_into_a_closed_window),
		BOTH(test_clear_ecn),
		BOTH(test_ttl),
		BOTH(test_timestamps),
		BOTH(test_echo_of_zero),
		BOTH(test_sack),
		BOTH(test_every_offset),
		BOTH(test_other_options),
		BOTH(test_odd_lengths),
		BOTH(test_malformed_options),
		BOTH(test_no_timestamps),
		BOTH(test_bytes),
		BOTH(test_old_acknowledgement),
		BOTH(test_fin),
		BOTH(test_fin_crossing),
		BOTH(test_reset),
		BOTH(test_revival),
		BOTH(test_lone_entry),
		BOTH(test_events_lost),
		BOTH(test_syn_on_live_pair),
		BOTH(test_syn_reuse),
		BOTH(test_starting),
		BOTH(test_killed),
		BOTH(test_fragments),
		BOTH(test_v6_headers),
		BOTH(test_ip_options),
		BOTH(test_unknown),
		BOTH(test_other_protocols),
		BOTH(test_address_like_ip),
		BOTH(test_malformed),
		BOTH(test_every_length),
		BOTH(test_icmp4),
		BOTH(test_icmp6),
		BOTH(test_icmp_of_nobody),
		BOTH(test_icmp_dropped),
		BOTH(test_icmp_odd),
		BOTH(test_mtu),
		BOTH(test_jumbo),
		BOTH(test_no_way),
		BOTH(test_gso),
		BOTH(test_random),
		BOTH(test_noise),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
