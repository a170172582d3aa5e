/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_PACKET_ORACLE_H
#define SL_TESTS_PACKET_ORACLE_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "abi.h"

/*
 * What the packet engine has to make of a packet, worked out the plain way: a packet is a set of
 * fields, the fields are changed, and the bytes are built anew with every checksum summed up over
 * all that it covers. Nothing here updates a checksum. Formats: RFC 791 (IPv4), 8200 (IPv6), 9293
 * (TCP), 2018 (SACK), 7323 (timestamps), 792 and 4443 (ICMP), 1071 (the checksum).
 */

#define TH_FIN_ 0x01
#define TH_SYN_ 0x02
#define TH_RST_ 0x04
#define TH_PSH_ 0x08
#define TH_ACK_ 0x10
#define TH_URG_ 0x20
#define TH_ECE_ 0x40
#define TH_CWR_ 0x80

#define ETH_LEN 14
#define FRAG_DF 0x4000
#define FRAG_MF 0x2000

/* ---- bytes ---- */

struct frame {
	uint8_t p[4096];
	size_t n;
};

static inline void put(struct frame *f, const void *bytes, size_t n)
{
	if (n > sizeof(f->p) - f->n)
		abort();
	if (n)
		memcpy(f->p + f->n, bytes, n);
	f->n += n;
}

static inline void put8(struct frame *f, unsigned v)
{
	put(f, (uint8_t[]){ (uint8_t)v }, 1);
}

static inline void put16(struct frame *f, unsigned v)
{
	put8(f, v >> 8);
	put8(f, v);
}

static inline void put32(struct frame *f, uint32_t v)
{
	put16(f, v >> 16);
	put16(f, v & 0xffff);
}

static inline void set16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline unsigned get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static inline void set32(uint8_t *p, uint32_t v)
{
	set16(p, v >> 16);
	set16(p + 2, v & 0xffff);
}

static inline uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* ---- checksums ---- */

static inline uint64_t sum_bytes(uint64_t sum, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sum += i % 2 ? p[i] : (unsigned)p[i] << 8;
	return sum;
}

static inline unsigned fold_sum(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (unsigned)sum;
}

/* Over the address pair, the length and the protocol, without the complement. */
static inline uint64_t sum_pseudo(unsigned family, const uint8_t src[16], const uint8_t dst[16],
				  size_t len, unsigned proto)
{
	const unsigned skip = family == 4 ? 12 : 0;

	return sum_bytes(sum_bytes(len + proto, src + skip, 16 - skip), dst + skip, 16 - skip);
}

/* ---- addresses ---- */

static inline void set_ip(uint8_t ip[16], const char *text)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (inet_pton(AF_INET6, text, ip) == 1)
		return;
	memcpy(ip, mapped, 12);
	if (inet_pton(AF_INET, text, ip + 12) != 1)
		abort();
}

/* ---- a TCP packet by its fields ---- */

struct pkt {
	uint8_t eth_dst[6];
	uint8_t eth_src[6];
	uint16_t tag[2]; /* the outer one first */
	unsigned n_tags;
	/* IP; IPv4 addresses as in struct sl_packet_key */
	uint8_t family; /* 4 or 6 */
	uint8_t ttl;
	uint8_t tos;
	uint8_t proto; /* 0: TCP */
	uint8_t src[16];
	uint8_t dst[16];
	uint16_t id;
	uint16_t frag; /* IPv4: flags and offset */
	uint32_t flow_label;
	uint8_t ip_opts[40]; /* IPv4 */
	size_t n_ip_opts;
	uint8_t ext[64]; /* IPv6: extension headers, the first of type first_next */
	size_t n_ext;
	uint8_t first_next;
	uint16_t total;        /* length in the IP header; 0: the right one */
	uint16_t ip_sum_error; /* IPv4: added to the header checksum */
	/* TCP */
	uint16_t sport;
	uint16_t dport;
	uint32_t seq;
	uint32_t ack;
	uint8_t flags;
	uint8_t reserved; /* the four bits */
	uint8_t doff;     /* 0: what the options need */
	uint16_t window;
	uint16_t urgent;
	uint8_t opts[40]; /* n_opts: a multiple of 4 */
	size_t n_opts;
	size_t n_payload;
	uint8_t fill;       /* of the payload: this, this + 7, ... */
	uint16_t sum_error; /* added to the checksum: what is broken stays broken */
	bool has_sum;       /* the checksum is `sum`, whatever is right */
	uint16_t sum;
	/* around it */
	size_t l4_skip; /* a fragment: this many octets of the segment are left out, */
	size_t l4_keep; /* and this many follow; 0: all */
	size_t n_pad;   /* octets behind the IP packet, as Ethernet pads short frames */
	size_t cut;     /* octets taken from the end, lengths unchanged */
};

static inline void put_tcp(struct frame *f, const struct pkt *k)
{
	const size_t at = f->n;
	const unsigned doff = k->doff ? k->doff : 5 + (unsigned)k->n_opts / 4;
	uint64_t sum;

	put16(f, k->sport);
	put16(f, k->dport);
	put32(f, k->seq);
	put32(f, k->ack);
	put8(f, doff << 4 | k->reserved);
	put8(f, k->flags);
	put16(f, k->window);
	put16(f, 0);
	put16(f, k->urgent);
	put(f, k->opts, k->n_opts);
	for (size_t i = 0; i < k->n_payload; i++)
		put8(f, k->fill + (unsigned)i * 7);
	sum = sum_pseudo(k->family, k->src, k->dst, f->n - at, 6);
	sum = ~fold_sum(sum_bytes(sum, f->p + at, f->n - at)) & 0xffff;
	if (k->sum_error)
		sum = fold_sum(sum + k->sum_error);
	set16(f->p + at + 16, k->has_sum ? k->sum : (unsigned)sum);
}

static inline void put_ip4(struct frame *f, const struct pkt *k, size_t len)
{
	const size_t at = f->n;
	const size_t header = 20 + k->n_ip_opts;
	uint64_t sum;

	put8(f, 0x40 | (unsigned)header / 4);
	put8(f, k->tos);
	put16(f, k->total ? k->total : (unsigned)(header + len));
	put16(f, k->id);
	put16(f, k->frag);
	put8(f, k->ttl);
	put8(f, k->proto ? k->proto : 6);
	put16(f, 0);
	put(f, k->src + 12, 4);
	put(f, k->dst + 12, 4);
	put(f, k->ip_opts, k->n_ip_opts);
	sum = ~fold_sum(sum_bytes(0, f->p + at, header)) & 0xffff;
	set16(f->p + at + 10, k->ip_sum_error ? fold_sum(sum + k->ip_sum_error) : (unsigned)sum);
}

static inline void put_ip6(struct frame *f, const struct pkt *k, size_t len)
{
	const unsigned proto = k->proto ? k->proto : 6;

	put32(f, 6u << 28 | (uint32_t)k->tos << 20 | k->flow_label);
	put16(f, k->total ? k->total : (unsigned)(k->n_ext + len));
	put8(f, k->n_ext ? k->first_next : proto);
	put8(f, k->ttl);
	put(f, k->src, 16);
	put(f, k->dst, 16);
	put(f, k->ext, k->n_ext);
}

static inline void put_eth(struct frame *f, const struct pkt *k)
{
	put(f, k->eth_dst, 6);
	put(f, k->eth_src, 6);
	for (unsigned i = 0; i < k->n_tags; i++) {
		put16(f, 0x8100);
		put16(f, k->tag[i]);
	}
	put16(f, k->family == 4 ? 0x0800 : 0x86dd);
}

static inline void build(const struct pkt *k, struct frame *f)
{
	struct frame segment = { .n = 0 };
	size_t len;

	put_tcp(&segment, k);
	len = k->l4_keep ? k->l4_keep : segment.n - k->l4_skip;
	f->n = 0;
	put_eth(f, k);
	if (k->family == 4)
		put_ip4(f, k, len);
	else
		put_ip6(f, k, len);
	put(f, segment.p + k->l4_skip, len);
	for (size_t i = 0; i < k->n_pad; i++)
		put8(f, 0xa5);
	f->n -= k->cut;
}

static inline size_t tcp_header_len(const struct pkt *k)
{
	return 20 + k->n_opts;
}

/* ---- options ---- */

static inline void opt(struct pkt *k, const void *bytes, size_t n)
{
	if (n > sizeof(k->opts) - k->n_opts)
		abort();
	memcpy(k->opts + k->n_opts, bytes, n);
	k->n_opts += n;
}

static inline void opt_nop(struct pkt *k, size_t n)
{
	while (n--)
		opt(k, (uint8_t[]){ 1 }, 1);
}

static inline void opt_ts(struct pkt *k, uint32_t tsval, uint32_t tsecr)
{
	uint8_t o[10] = { 8, 10 };

	set32(o + 2, tsval);
	set32(o + 6, tsecr);
	opt(k, o, sizeof(o));
}

static inline void opt_aligned_ts(struct pkt *k, uint32_t tsval, uint32_t tsecr)
{
	opt_nop(k, 2);
	opt_ts(k, tsval, tsecr);
}

/* `n` blocks of 100 octets, 1000 apart, from `first` on. */
static inline void opt_sack(struct pkt *k, uint32_t first, unsigned n)
{
	uint8_t o[34] = { 5, (uint8_t)(2 + 8 * n) };

	for (unsigned i = 0; i < n; i++) {
		set32(o + 2 + i * 8, first + i * 1000);
		set32(o + 6 + i * 8, first + i * 1000 + 100);
	}
	opt(k, o, 2 + (size_t)n * 8);
}

/* To a multiple of 4, by NOPs or, from the end of the list on, by zeros. */
static inline void opt_pad(struct pkt *k, uint8_t with)
{
	while (k->n_opts % 4)
		opt(k, &with, 1);
}

static inline bool has_only_aligned_ts(const struct pkt *k)
{
	return k->n_opts == 12 && memcmp(k->opts, "\1\1\10\12", 4) == 0;
}

/*
 * The option at *at, which is moved behind it: its kind, 0 at the end of the list; -1: its length
 * is not one. `*ret_len` is its length with kind and length octet.
 */
static inline int next_option(const struct pkt *k, size_t *at, size_t *ret_from, size_t *ret_len)
{
	size_t left = k->n_opts - *at;
	const uint8_t *p = k->opts + *at;

	*ret_from = *at;
	*ret_len = 1;
	if (left == 0 || p[0] == 0)
		return 0;
	if (p[0] != 1) {
		if (left < 2 || p[1] < 2 || p[1] > left)
			return -1;
		*ret_len = p[1];
	}
	*at += *ret_len;
	return p[0];
}

static inline bool has_malformed_options(const struct pkt *k)
{
	size_t at = 0, from, len;
	int kind;

	while ((kind = next_option(k, &at, &from, &len)) > 0)
		;
	return kind < 0;
}

/* What an option that breaks off leaves behind it is nobody's: no receiver reads on. */
static inline void rewrite_options(struct pkt *k, const struct sl_packet_flow *f)
{
	size_t at = 0, from, len;
	int kind;

	while ((kind = next_option(k, &at, &from, &len)) > 0) {
		uint8_t *o = k->opts + from;

		if (kind == 8 && len == 10) {
			set32(o + 2, get32(o + 2) + f->tsval_delta);
			if (get32(o + 6))
				set32(o + 6, get32(o + 6) + f->tsecr_delta);
		}
		if (kind == 5 && len >= 10 && (len - 2) % 8 == 0)
			for (size_t i = 2; i < len; i += 4)
				set32(o + i, get32(o + i) + f->ack_delta);
	}
}

/* The last timestamps of the list, as a receiver takes them. */
static inline bool find_timestamps(const struct pkt *k, uint32_t *tsval, uint32_t *tsecr)
{
	size_t at = 0, from, len;
	bool found = false;
	int kind;

	while ((kind = next_option(k, &at, &from, &len)) > 0) {
		if (kind != 8 || len != 10)
			continue;
		*tsval = get32(k->opts + from + 2);
		*tsecr = get32(k->opts + from + 6);
		found = true;
	}
	return found;
}

/* ---- rewriting ---- */

static inline uint16_t shift_window(uint16_t window, int shift)
{
	uint64_t w = window;

	w = shift >= 0 ? w << shift : w >> -shift;
	return w > 65535 ? 65535 : (uint16_t)w;
}

/* The unit of closed_at; never 0. */
static inline uint16_t closed_clock(void)
{
	struct timespec t;
	uint16_t now;

	(void)clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	now = (uint16_t)(((uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec) >> 30);
	return now ? now : 1;
}

static inline bool is_closed_for_long(const struct pkt *in, const struct sl_packet_flow *f)
{
	return f->closed_at && shift_window(in->window, f->window_shift) == 0 &&
	       (uint16_t)(closed_clock() - f->closed_at) >= 30;
}

/* What of the window that the proxy had opened is still ahead of the packet; 0: nothing. */
static inline uint32_t still_promised(const struct pkt *in, const struct sl_packet_flow *f)
{
	int32_t left = (int32_t)(f->promised - in->ack);

	if (!f->is_promised || !(in->flags & TH_ACK_) || in->flags & (TH_SYN_ | TH_RST_) ||
	    is_closed_for_long(in, f))
		return 0;
	return left > 0 ? (uint32_t)left : 0;
}

/* In octets, of the packet as it is forwarded. */
static inline uint64_t offered(const struct pkt *in, const struct sl_packet_flow *f)
{
	return (uint64_t)shift_window(in->window, f->window_shift) << f->window_scale;
}

/* A bare acknowledgement whose number, as forwarded, is past what is known to be in the window. */
static inline bool is_past(const struct pkt *in, const struct sl_packet_flow *f)
{
	return f->may_overrun && in->n_payload == 0 &&
	       !(in->flags & (TH_SYN_ | TH_FIN_ | TH_RST_)) &&
	       (int32_t)(in->seq + f->seq_delta - f->within) > 0;
}

static inline bool has_promise(const struct sl_packet_flow *other, const struct sl_packet_flow *f)
{
	return other->conn_id == f->conn_id && other->is_promised;
}

/* Where the window ends that this sender has opened himself: never before what he has got. */
static inline uint32_t own_edge(const struct sl_packet_flow *f)
{
	return (int32_t)(f->offered - f->max_ack) > 0 ? f->offered : f->max_ack;
}

/* `other`: the direction back. */
static inline struct pkt rewritten(const struct pkt *in, const struct sl_packet_flow *f,
				   const struct sl_packet_flow *other)
{
	struct pkt k = *in;

	memcpy(k.src, f->new_saddr, 16);
	memcpy(k.dst, f->new_daddr, 16);
	k.sport = f->new_sport;
	k.dport = f->new_dport;
	k.seq += f->seq_delta;
	if (is_past(in, f) && has_promise(other, f) && (int32_t)(k.seq - own_edge(other)) > 0)
		k.seq = own_edge(other);
	if (k.flags & TH_ACK_)
		k.ack += f->ack_delta;
	if (!(k.flags & TH_SYN_)) /* whose window is never scaled: RFC 7323, 2.2 */
		k.window = shift_window(k.window, f->window_shift);
	if (still_promised(in, f) > offered(in, f)) {
		uint64_t unit = (uint64_t)1 << f->window_scale;
		uint64_t units = (still_promised(in, f) + unit - 1) / unit;

		k.window = units > 65535 ? 65535 : (uint16_t)units;
	}
	k.ttl--;
	if (f->clear_ecn)
		k.tos &= (uint8_t)~3;
	rewrite_options(&k, f);
	return k;
}

/* ---- bookkeeping ---- */

struct pair {
	struct sl_packet_key key[2];
	struct sl_packet_flow flow[2];
};

struct noted {
	struct sl_packet_event events[8];
	size_t n;
	size_t n_more; /* there was no room for */
};

static inline void note(struct noted *e, const struct sl_packet_flow *f,
			enum sl_packet_event_kind kind)
{
	if (e->n == 8)
		abort();
	e->events[e->n++] =
		(struct sl_packet_event){ .conn_id = f->conn_id, .kind = kind, .from = f->from };
}

static inline bool is_after(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static inline bool is_finished(const struct pair *p)
{
	return (p->flow[0].peer_fin_acked && p->flow[1].peer_fin_acked) || p->flow[0].rst ||
	       p->flow[1].rst;
}

/* One from before what was acknowledged long ago is no end of this connection. */
static inline void account_fin(struct sl_packet_flow *me, struct sl_packet_flow *other,
			       uint32_t end, struct noted *e)
{
	if (me->fin || is_after(other->max_ack + other->ack_delta, end))
		return;
	me->fin = 1;
	me->fin_seq = end;
	other->peer_fin = 1;
	other->peer_fin_seq = end + me->seq_delta;
	note(e, me, SL_PACKET_EV_FIN);
}

/*
 * A reset counts if the other side may be there: behind all that it acknowledged, within all that
 * was sent (RFC 5961, 3.2, by what is known in the middle).
 */
static inline bool is_reset_in_range(const struct sl_packet_flow *me,
				     const struct sl_packet_flow *other, uint32_t seq)
{
	return !is_after(other->max_ack + other->ack_delta, seq) && !is_after(seq, me->max_seq);
}

/* Perhaps behind octets that were lost, of which not more than 16 MiB can be open. */
static inline bool is_reset_ahead(const struct sl_packet_flow *me, uint32_t seq)
{
	return is_after(seq, me->max_seq) && seq - me->max_seq <= 16777216;
}

static inline void account_ack(struct sl_packet_flow *me, uint32_t ack, struct noted *e)
{
	if (is_after(ack, me->max_ack))
		me->max_ack = ack;
	if (!me->peer_fin || me->peer_fin_acked || is_after(me->peer_fin_seq, ack))
		return;
	me->peer_fin_acked = 1;
	note(e, me, SL_PACKET_EV_FIN_ACKED);
}

static inline void account_payload(struct sl_packet_flow *me, const struct pkt *k)
{
	const uint32_t end = k->seq + (uint32_t)k->n_payload;
	const uint32_t fin_end = end + (k->flags & TH_FIN_ ? 1 : 0);

	if (k->n_payload == 0 && !(k->flags & TH_FIN_))
		return;
	if (is_after(end, me->max_seq)) {
		me->bytes += end - me->max_seq;
		me->max_seq = end;
	}
	if (is_after(fin_end, me->max_seq))
		me->max_seq = fin_end;
	if (k->n_payload && me->rst) {
		me->rst = 0;
		me->restarts++;
	}
}

/*
 * A forwarded packet in the entries and the counters, times left out. `segments`: 1, or those of a
 * GSO packet.
 */
static inline void account(struct pair *p, unsigned side, const struct pkt *k, unsigned segments,
			   struct sl_packet_counts *c, struct noted *e)
{
	struct sl_packet_flow *me = &p->flow[side], *other = &p->flow[!side];

	me->packets += segments;
	if (is_past(k, me) && has_promise(other, me))
		me->within = other->max_ack; /* the one thing he cannot take back */
	else if (is_past(k, me))
		me->may_overrun = 0;
	if (still_promised(k, me) > offered(k, me)) {
		if (shift_window(k->window, me->window_shift))
			me->closed_at = 0;
		else if (!me->closed_at)
			me->closed_at = closed_clock();
	}
	if (me->is_promised && k->flags & TH_ACK_ && !(k->flags & (TH_SYN_ | TH_RST_))) {
		const uint32_t edge = k->ack + (uint32_t)offered(k, me);

		if (still_promised(k, me) <= offered(k, me))
			me->is_promised = 0;
		else if (!is_after(me->max_ack, k->ack)) /* the last one said, if it is less, too */
			me->offered = edge;
	}
	if (k->n_opts && !has_only_aligned_ts(k))
		c->options_walked++;
	(void)find_timestamps(k, &me->last_tsval, &me->last_tsecr);
	if (k->flags & TH_SYN_)
		return; /* belongs to no octet of this connection */
	if (k->flags & TH_RST_) {
		if (!is_reset_in_range(me, other, k->seq)) {
			c->rst_ignored++;
			if (is_reset_ahead(me, k->seq))
				note(e, me, SL_PACKET_EV_RST_AHEAD);
		} else if (!me->rst) {
			me->rst = 1;
			note(e, me, SL_PACKET_EV_RST);
		}
		return;
	}
	if (k->flags & TH_ACK_)
		account_ack(me, k->ack, e);
	account_payload(me, k);
	if (k->flags & TH_FIN_)
		account_fin(me, other, k->seq + (uint32_t)k->n_payload + 1, e);
}

/* ---- ICMP errors ---- */

struct icmp {
	uint8_t eth_dst[6];
	uint8_t eth_src[6];
	uint8_t family;
	uint8_t ttl;
	uint8_t tos;
	uint8_t src[16];
	uint8_t dst[16];
	uint16_t id;
	uint8_t type;
	uint8_t code;
	uint32_t rest; /* second word: MTU, pointer, ... */
	struct pkt inner;
	size_t quoted; /* octets of the inner packet; 0: all */
	uint16_t frag;
};

static inline void put_icmp(struct frame *f, const struct icmp *e)
{
	const size_t at = f->n;
	struct frame inner;
	size_t n;
	uint64_t sum = 0;

	build(&e->inner, &inner);
	n = inner.n - ETH_LEN;
	if (e->quoted && e->quoted < n)
		n = e->quoted;
	put8(f, e->type);
	put8(f, e->code);
	put16(f, 0);
	put32(f, e->rest);
	put(f, inner.p + ETH_LEN, n);
	if (e->family == 6)
		sum = sum_pseudo(6, e->src, e->dst, f->n - at, 58);
	sum = sum_bytes(sum, f->p + at, f->n - at);
	set16(f->p + at + 2, ~fold_sum(sum) & 0xffff);
}

static inline void build_icmp(const struct icmp *e, struct frame *f)
{
	struct frame message = { .n = 0 };
	struct pkt outer = { .family = e->family,
			     .ttl = e->ttl,
			     .tos = e->tos,
			     .id = e->id,
			     .frag = e->frag,
			     .proto = e->family == 4 ? 1 : 58 };

	memcpy(outer.eth_dst, e->eth_dst, 6);
	memcpy(outer.eth_src, e->eth_src, 6);
	memcpy(outer.src, e->src, 16);
	memcpy(outer.dst, e->dst, 16);
	put_icmp(&message, e);
	f->n = 0;
	put_eth(f, &outer);
	if (e->family == 4)
		put_ip4(f, &outer, message.n);
	else
		put_ip6(f, &outer, message.n);
	put(f, message.p, message.n);
}

/* The checksum of the packet as built. */
static inline uint16_t tcp_sum_of(const struct pkt *k)
{
	struct frame segment = { .n = 0 };

	put_tcp(&segment, k);
	return (uint16_t)get16(segment.p + 16);
}

/*
 * An error about a packet we forwarded to the sender of `f`'s packets, told to who sent it:
 * addresses, ports and sequence number as that one knows them, from the address it talks to. The
 * quoted TCP checksum stays, since nobody can verify it over a part.
 */
static inline struct icmp translated(const struct icmp *in, const struct sl_packet_flow *f)
{
	struct icmp e = *in;

	memcpy(e.src, f->new_saddr, 16);
	memcpy(e.dst, f->new_daddr, 16);
	e.ttl--;
	e.inner.has_sum = true;
	e.inner.sum = tcp_sum_of(&in->inner);
	memcpy(e.inner.src, f->new_daddr, 16);
	memcpy(e.inner.dst, f->new_saddr, 16);
	e.inner.sport = f->new_dport;
	e.inner.dport = f->new_sport;
	e.inner.seq += f->ack_delta;
	return e;
}

/* ---- the answer to a packet of a killed pair ---- */

/* RFC 9293, 3.10.7.1: a segment without an acknowledgement is answered by its own end. */
static inline struct pkt reset_answer(const struct pkt *in)
{
	struct pkt k = {
		.family = in->family, .sport = in->dport, .dport = in->sport, .flags = TH_RST_
	};
	uint32_t len = (uint32_t)in->n_payload + !!(in->flags & TH_SYN_) + !!(in->flags & TH_FIN_);

	memcpy(k.src, in->dst, 16);
	memcpy(k.dst, in->src, 16);
	if (in->flags & TH_ACK_) {
		k.seq = in->ack;
	} else {
		k.flags |= TH_ACK_;
		k.ack = in->seq + len;
	}
	return k;
}

#endif
