/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_PACKET_LAB_H
#define SL_TESTS_PACKET_LAB_H

#include <errno.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "netns.h"
#include "packet.skel.h"
#include "packet_oracle.h"
#include "packet_xdp.skel.h"

/*
 * The packet programs in a network namespace with two pairs of devices, cli0 - cli1 and srv0 -
 * srv1: cli0 and srv0 are the proxy's, what a test sends into cli1 arrives at cli0. Programs run by
 * BPF_PROG_TEST_RUN see nothing of that but the devices' MTU and, in XDP, routes and neighbours.
 */
struct lab {
	struct sl_packet_bpf *tc;
	struct sl_packet_xdp_bpf *xdp;
	struct ring_buffer *ring;
	struct noted seen; /* events since the last look */
	unsigned cli;      /* ifindex of cli0 */
	unsigned srv;
	const char *why_skipped;
};

enum hook { HOOK_TC, HOOK_XDP };

#define LAB_FLOWS 64

#define TC_PASS (-1)
#define TC_DROP 2
#define TC_SENT 7

#define CLIENT_MAC "\x02\x00\x00\x00\x00\x11"
#define CLI0_MAC "\x02\x00\x00\x00\x00\x10"
#define SERVER_MAC "\x02\x00\x00\x00\x00\x21"
#define SRV0_MAC "\x02\x00\x00\x00\x00\x20"

#define LAYOUT                                                                              \
	"ip link add cli0 address 02:00:00:00:00:10 type veth peer name cli1 address "      \
	"02:00:00:00:00:11 && "                                                             \
	"ip link add srv0 address 02:00:00:00:00:20 type veth peer name srv1 address "      \
	"02:00:00:00:00:21 && "                                                             \
	"sysctl -q -w net.ipv6.conf.cli1.disable_ipv6=1 net.ipv6.conf.srv1.disable_ipv6=1 " \
	"net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 && "                          \
	"for d in cli0 cli1 srv0 srv1; do ip link set $d up || exit 1; done && "            \
	"ip addr add 192.0.2.1/24 dev cli0 && ip addr add 198.51.100.1/24 dev srv0 && "     \
	"ip addr add 2001:db8:1::1/64 dev cli0 nodad && "                                   \
	"ip addr add 2001:db8:2::1/64 dev srv0 nodad && "                                   \
	"ip neigh add 192.0.2.77 lladdr 02:00:00:00:00:11 dev cli0 nud permanent && "       \
	"ip neigh add 198.51.100.80 lladdr 02:00:00:00:00:21 dev srv0 nud permanent && "    \
	"ip neigh add 2001:db8:1::77 lladdr 02:00:00:00:00:11 dev cli0 nud permanent && "   \
	"ip neigh add 2001:db8:2::80 lladdr 02:00:00:00:00:21 dev srv0 nud permanent"

/* ---- setting up ---- */

static inline int lab_note_event(void *ctx, void *data, size_t n)
{
	struct noted *seen = ctx;
	struct sl_packet_event e;

	if (n != sizeof(e) || seen->n == sizeof(seen->events) / sizeof(seen->events[0]))
		return -E2BIG;
	memcpy(&e, data, sizeof(e));
	seen->events[seen->n++] = e;
	return 0;
}

/* The XDP program works on the maps of the other one. */
static inline int lab_load_xdp(struct lab *l)
{
	struct bpf_map *map, *same;
	int r = 0;

	l->xdp = sl_packet_xdp_bpf__open();
	if (!l->xdp)
		return -errno;
	bpf_object__for_each_map(map, l->xdp->obj)
	{
		same = bpf_object__find_map_by_name(l->tc->obj, bpf_map__name(map));
		if (same && !strchr(bpf_map__name(map), '.') && r == 0)
			r = bpf_map__reuse_fd(map, bpf_map__fd(same));
	}
	return r ? r : sl_packet_xdp_bpf__load(l->xdp);
}

static inline int lab_load(struct lab *l)
{
	int r;

	l->tc = sl_packet_bpf__open();
	if (!l->tc)
		return -errno;
	r = bpf_map__set_max_entries(l->tc->maps.flows, LAB_FLOWS);
	if (r == 0)
		r = sl_packet_bpf__load(l->tc);
	if (r < 0)
		return r;
	l->ring = ring_buffer__new(bpf_map__fd(l->tc->maps.events), lab_note_event, &l->seen, NULL);
	if (!l->ring)
		return -errno;
	return lab_load_xdp(l);
}

/* 0, or `why_skipped` says what this machine lacks; anything else is a failure. */
static inline int lab_open(struct lab *l)
{
	memset(l, 0, sizeof(*l));
	if (geteuid() != 0) {
		l->why_skipped = "not root";
		return 0;
	}
	if (enter_netns() < 0) {
		l->why_skipped = "no network namespace of its own";
		return 0;
	}
	if (system(LAYOUT) != 0)
		return -EIO;
	l->cli = if_nametoindex("cli0");
	l->srv = if_nametoindex("srv0");
	return lab_load(l);
}

static inline void lab_close(struct lab *l)
{
	ring_buffer__free(l->ring);
	sl_packet_xdp_bpf__destroy(l->xdp);
	sl_packet_bpf__destroy(l->tc);
	memset(l, 0, sizeof(*l));
}

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
	l->seen.n = 0;
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

static inline bool same_frame(const char *what, const struct frame *in, const struct frame *got,
			      const struct frame *want)
{
	if (got->n == want->n && memcmp(got->p, want->p, got->n) == 0)
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
	bool same = got->n == want->n;

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

/* ---- the pair most tests use ---- */

/*
 * A client and a server in the networks of cli0 and srv0. Deltas are far from 0 and from each
 * other; the sequence numbers of plain_packet() fit.
 */
static inline struct pair new_pair(const struct lab *l, unsigned family)
{
	const char *const ips[2][4] = {
		{ "192.0.2.77", "192.0.2.1", "198.51.100.1", "198.51.100.80" },
		{ "2001:db8:1::77", "2001:db8:1::1", "2001:db8:2::1", "2001:db8:2::80" },
	};
	const char *const *ip = ips[family == 6];
	struct pair p = { 0 };

	set_ip(p.key[0].saddr, ip[0]);
	set_ip(p.key[0].daddr, ip[1]);
	set_ip(p.key[1].saddr, ip[3]);
	set_ip(p.key[1].daddr, ip[2]);
	p.key[0].sport = 51234;
	p.key[0].dport = 443;
	p.key[1].sport = 8080;
	p.key[1].dport = 40001;
	for (unsigned i = 0; i < 2; i++) {
		struct sl_packet_flow *f = &p.flow[i];
		const struct sl_packet_key *out = &p.key[!i];

		memcpy(f->new_saddr, out->daddr, 16);
		memcpy(f->new_daddr, out->saddr, 16);
		f->new_sport = out->dport;
		f->new_dport = out->sport;
		f->ifindex = i == 0 ? l->srv : l->cli;
		f->peer_ifindex = i == 0 ? l->cli : l->srv;
		f->family = (uint8_t)family;
		f->state = SL_PACKET_ACTIVE;
		f->from = i == 0 ? SL_PACKET_CLIENT : SL_PACKET_BACKEND;
		f->seq_delta = i == 0 ? 0x12345678 : 0xcafe0123;
		f->ack_delta = i == 0 ? -0xcafe0123u : -0x12345678u;
		f->tsval_delta = i == 0 ? 0x00ab0000 : 0x80000001;
		f->tsecr_delta = i == 0 ? -0x80000001u : -0x00ab0000u;
		f->has_timestamps = 1;
		f->conn_id = 4711;
		f->route_id = 3;
		f->last_ns = 1;
		f->last_data_ns = 1;
		f->relayed_bytes = 65536;
	}
	/* Each has sent up to max_seq, and the other has acknowledged it. */
	p.flow[0].max_seq = 1000000;
	p.flow[1].max_seq = 5000000;
	p.flow[0].max_ack = 5000000 + p.flow[1].seq_delta;
	p.flow[1].max_ack = 1000000 + p.flow[0].seq_delta;
	return p;
}

/* The next packet of a side in order: an acknowledgement of all, without options or payload. */
static inline struct pkt plain_packet(const struct pair *p, unsigned side)
{
	const struct sl_packet_key *key = &p->key[side];
	struct pkt k = { .family = p->flow[side].family,
			 .ttl = 63,
			 .id = 0x4321,
			 .frag = FRAG_DF,
			 .flow_label = 0x54321,
			 .sport = key->sport,
			 .dport = key->dport,
			 .seq = p->flow[side].max_seq,
			 .ack = p->flow[side].max_ack,
			 .flags = TH_ACK_,
			 .window = 501,
			 .fill = 0x31 };

	memcpy(k.eth_dst, side == 0 ? CLI0_MAC : SRV0_MAC, 6);
	memcpy(k.eth_src, side == 0 ? CLIENT_MAC : SERVER_MAC, 6);
	memcpy(k.src, key->saddr, 16);
	memcpy(k.dst, key->daddr, 16);
	return k;
}

#endif
