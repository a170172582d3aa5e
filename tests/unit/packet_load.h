/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_PACKET_LOAD_H
#define SL_TESTS_PACKET_LOAD_H

#include <errno.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "accel/compat.h"
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

#define NEIGHBOURS                                                                            \
	"ip neigh replace 192.0.2.77 lladdr 02:00:00:00:00:11 dev cli0 nud permanent && "     \
	"ip neigh replace 198.51.100.80 lladdr 02:00:00:00:00:21 dev srv0 nud permanent && "  \
	"ip neigh replace 2001:db8:1::77 lladdr 02:00:00:00:00:11 dev cli0 nud permanent && " \
	"ip neigh replace 2001:db8:2::80 lladdr 02:00:00:00:00:21 dev srv0 nud permanent"

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
	"ip addr add 2001:db8:2::1/64 dev srv0 nodad && " NEIGHBOURS

/* ---- setting up ---- */

static inline int lab_note_event(void *ctx, void *data, size_t n)
{
	struct noted *seen = ctx;
	struct sl_packet_event e;

	if (n != sizeof(e))
		return -EINVAL;
	if (seen->n == sizeof(seen->events) / sizeof(seen->events[0])) {
		seen->n_more++;
		return 0;
	}
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
	for (map = bpf_object__next_map(l->xdp->obj, NULL); map;
	     map = bpf_object__next_map(l->xdp->obj, map)) {
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
	int r;

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
	r = lab_load(l);
	if (r == -EPERM) {
		l->why_skipped = "no privileges for BPF";
		return 0;
	}
	return r;
}

static inline void lab_close(struct lab *l)
{
	ring_buffer__free(l->ring);
	sl_packet_xdp_bpf__destroy(l->xdp);
	sl_packet_bpf__destroy(l->tc);
	memset(l, 0, sizeof(*l));
}

/* ---- attaching ---- */

/* By tcx, or on clsact where the kernel has none: then the link is -1. */
static inline int lab_attach(const struct lab *l, unsigned ifindex, int *ret_link)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = bpf_program__fd(l->tc->progs.sl_packet_tc));
	int link = sl_compat_tcx_attach(opts.prog_fd, (int)ifindex);
	int r;

	if (link < 0 && errno != EINVAL)
		return -errno;
	r = link < 0 ? bpf_tc_hook_create(&hook) : 0;
	if (link < 0 && r == 0)
		r = bpf_tc_attach(&hook, &opts);
	if (r == 0)
		*ret_link = link;
	return r;
}

static inline int lab_detach(unsigned ifindex, int link)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);

	return link >= 0 ? close(link) : bpf_tc_hook_destroy(&hook);
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
