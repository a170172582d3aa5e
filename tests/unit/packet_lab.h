/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_PACKET_LAB_H
#define SL_TESTS_PACKET_LAB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "packet_load.h"

/* One packet through a program, and all that changed beside it. */

/* ---- maps ---- */

static inline int lab_flows(const struct lab *l)
{
	return bpf_map__fd(l->tc->maps.flows);
}

static inline void lab_put(const struct lab *l, const struct pair *p)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			bpf_map_update_elem(lab_flows(l), &p->key[i], &p->flow[i], BPF_ANY), 0);
}

/* Entries that are there; the others are zeros. */
static inline unsigned lab_get(const struct lab *l, const struct pair *p,
			       struct sl_packet_flow flow[2])
{
	unsigned there = 0;

	for (int i = 0; i < 2; i++) {
		memset(&flow[i], 0, sizeof(flow[i]));
		if (bpf_map_lookup_elem(lab_flows(l), &p->key[i], &flow[i]) == 0)
			there++;
	}
	return there;
}

static inline void lab_remove(const struct lab *l, const struct pair *p)
{
	for (int i = 0; i < 2; i++)
		(void)bpf_map_delete_elem(lab_flows(l), &p->key[i]);
}

static inline struct sl_packet_counts lab_counts(const struct lab *l)
{
	static struct sl_packet_counts rows[1024];
	const int n = libbpf_num_possible_cpus();
	struct sl_packet_counts sum = { 0 };
	__u64 *to = (__u64 *)&sum;
	uint32_t zero = 0;

	assert_in_range(n, 1, 1024);
	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(l->tc->maps.counters), &zero, rows), 0);
	for (int i = 0; i < n; i++)
		for (size_t k = 0; k < sizeof(sum) / 8; k++)
			to[k] += ((const __u64 *)&rows[i])[k];
	return sum;
}

static inline struct sl_packet_counts counts_since(struct sl_packet_counts now,
						   struct sl_packet_counts before)
{
	__u64 *to = (__u64 *)&now;

	for (size_t k = 0; k < sizeof(now) / 8; k++)
		to[k] -= ((const __u64 *)&before)[k];
	return now;
}

static inline struct noted lab_events(struct lab *l)
{
	struct noted seen;

	assert_true(ring_buffer__consume(l->ring) >= 0);
	seen = l->seen;
	memset(&l->seen, 0, sizeof(l->seen));
	return seen;
}

/* ---- time ---- */

static inline uint64_t lab_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- one packet ---- */

/* What became of it, with all that changed beside it. */
struct shot {
	int verdict;
	struct frame out;
	unsigned there; /* entries */
	struct sl_packet_flow flow[2];
	struct sl_packet_counts counts;
	struct noted events;
	uint64_t from_ns; /* when */
	uint64_t to_ns;
};

static inline int lab_run_tc(struct lab *l, const struct frame *in, unsigned ifindex,
			     unsigned gso_size, unsigned gso_segs, struct frame *out)
{
	struct __sk_buff ctx = { .ifindex = ifindex,
				 .ingress_ifindex = ifindex,
				 .gso_size = gso_size,
				 .gso_segs = gso_segs };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in->p, .data_size_in = (uint32_t)in->n,
		    .data_out = out->p, .data_size_out = sizeof(out->p), .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx));

	assert_int_equal(bpf_prog_test_run_opts(bpf_program__fd(l->tc->progs.sl_packet_tc), &o), 0);
	out->n = o.data_size_out;
	return (int)o.retval;
}

static inline int lab_run_xdp(struct lab *l, const struct frame *in, unsigned ifindex,
			      struct frame *out)
{
	struct xdp_md ctx = { .data_end = (uint32_t)in->n, .ingress_ifindex = ifindex };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in->p, .data_size_in = (uint32_t)in->n,
		    .data_out = out->p, .data_size_out = sizeof(out->p), .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx));

	assert_int_equal(bpf_prog_test_run_opts(bpf_program__fd(l->xdp->progs.sl_packet_xdp), &o),
			 0);
	out->n = o.data_size_out;
	return (int)o.retval;
}

struct how {
	enum hook hook;
	unsigned gso_size; /* with TC */
	unsigned gso_segs;
	bool keep; /* entries stay as they are in the map */
};

/* Puts the entries of `p` into the map, runs one frame that arrives on `ifindex`. */
static inline struct shot shoot(struct lab *l, const struct pair *p, const struct frame *in,
				unsigned ifindex, struct how how)
{
	struct sl_packet_counts before;
	struct shot s = { 0 };

	lab_put(l, p);
	before = lab_counts(l);
	(void)lab_events(l);
	s.from_ns = lab_now();
	if (how.hook == HOOK_TC)
		s.verdict = lab_run_tc(l, in, ifindex, how.gso_size, how.gso_segs, &s.out);
	else
		s.verdict = lab_run_xdp(l, in, ifindex, &s.out);
	s.to_ns = lab_now();
	s.counts = counts_since(lab_counts(l), before);
	s.there = lab_get(l, p, s.flow);
	s.events = lab_events(l);
	if (!how.keep)
		lab_remove(l, p);
	return s;
}

/* ---- showing what differs ---- */

static inline void show_frame(const char *what, const struct frame *f)
{
	print_error("%s (%zu):", what, f->n);
	for (size_t i = 0; i < f->n; i++)
		print_error("%s%02x", i % 16 ? " " : "\n    ", f->p[i]);
	print_error("\n");
}

/*
 * Zero has two forms in a one's complement sum (RFC 1624 section 3), and kernels differ in which
 * their helpers leave. True if the TCP checksum is all that differs, and in nothing but that.
 */
static inline bool is_other_zero(const struct frame *got, const struct frame *want)
{
	const size_t at = 14 + (want->p[14] >> 4 == 4 ? (want->p[14] & 15) * 4u : 40u) + 16;
	const unsigned sum[2] = { got->p[at] << 8 | got->p[at + 1],
				  want->p[at] << 8 | want->p[at + 1] };

	return want->n >= at + 2 && (sum[0] ^ sum[1]) == 0xffff && (!sum[0] || !sum[1]) &&
	       memcmp(got->p, want->p, at) == 0 &&
	       memcmp(got->p + at + 2, want->p + at + 2, want->n - at - 2) == 0;
}

static inline bool same_frame(const char *what, const struct frame *in, const struct frame *got,
			      const struct frame *want)
{
	if (got->n == want->n && memcmp(got->p, want->p, got->n) == 0)
		return true;
	if (got->n == want->n && is_other_zero(got, want))
		return true;
	print_error("%s: the bytes differ\n", what);
	for (size_t i = 0; i < got->n && i < want->n; i++)
		if (got->p[i] != want->p[i])
			print_error("  at %zu: %02x, want %02x\n", i, got->p[i], want->p[i]);
	show_frame("in", in);
	show_frame("got", got);
	show_frame("want", want);
	return false;
}

static inline bool same_counts(const char *what, const struct sl_packet_counts *got,
			       const struct sl_packet_counts *want)
{
	static const char *const names[] = {
		"forwarded_tc",     "forwarded_xdp",    "options_walked",    "starting_passed",
		"starting_dropped", "fragment_dropped", "extension_dropped", "malformed_dropped",
		"ttl_dropped",      "vlan_passed",      "vlan_popped",       "icmp_translated",
		"icmp_dropped",     "mtu_answered",     "mtu_failed",        "killed_answered",
		"killed_dropped",   "reused",           "rst_ignored",       "events_lost",
		"xdp_passed",
	};
	const __u64 *a = (const __u64 *)got, *b = (const __u64 *)want;
	bool same = true;

	_Static_assert(sizeof(names) / sizeof(names[0]) == sizeof(*got) / 8, "a name per counter");
	for (size_t i = 0; i < sizeof(*got) / 8; i++)
		if (a[i] != b[i]) {
			print_error("%s: %s is %llu, want %llu\n", what, names[i],
				    (unsigned long long)a[i], (unsigned long long)b[i]);
			same = false;
		}
	return same;
}

#define SHOW(field)                                                                              \
	do {                                                                                     \
		if (got->field != want->field) {                                                 \
			print_error("%s: entry %u: " #field " is %llu, want %llu\n", what, side, \
				    (unsigned long long)got->field,                              \
				    (unsigned long long)want->field);                            \
		}                                                                                \
	} while (0)

/* The times of `want` must have been set from `got` before. */
static inline bool same_flow(const char *what, unsigned side, const struct sl_packet_flow *got,
			     const struct sl_packet_flow *want)
{
	if (memcmp(got, want, sizeof(*got)) == 0)
		return true;
	print_error("%s: entry %u differs\n", what, side);
	SHOW(state);
	SHOW(fin);
	SHOW(peer_fin);
	SHOW(peer_fin_acked);
	SHOW(rst);
	SHOW(max_seq);
	SHOW(max_ack);
	SHOW(fin_seq);
	SHOW(peer_fin_seq);
	SHOW(last_tsval);
	SHOW(last_tsecr);
	SHOW(drops);
	SHOW(restarts);
	SHOW(promised);
	SHOW(is_promised);
	SHOW(offered);
	SHOW(within);
	SHOW(may_overrun);
	SHOW(closed_at);
	SHOW(packets);
	SHOW(bytes);
	SHOW(last_ns);
	SHOW(last_data_ns);
	SHOW(killed_ns);
	return false;
}

/* In any order. */
static inline bool same_events(const char *what, const struct noted *got, const struct noted *want)
{
	bool same = got->n == want->n && got->n_more == 0;

	for (size_t i = 0; i < want->n; i++) {
		bool found = false;

		for (size_t k = 0; k < got->n; k++)
			found |= memcmp(&got->events[k], &want->events[i],
					sizeof(want->events[i])) == 0;
		same &= found;
	}
	if (!same) {
		for (size_t i = 0; i < got->n; i++)
			print_error("%s: event %d from %d\n", what, got->events[i].kind,
				    got->events[i].from);
		for (size_t i = 0; i < want->n; i++)
			print_error("%s: want event %d from %d\n", what, want->events[i].kind,
				    want->events[i].from);
	}
	return same;
}

#endif
