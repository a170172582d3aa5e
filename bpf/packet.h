/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BPF_PACKET_H
#define SL_BPF_PACKET_H

/*
 * What the TC and the XDP program share: wire formats, checksums, the tables,
 * the rewriting of headers and the accounts of a flow. Nothing here knows
 * where the bytes lie: headers are rewritten in a copy (TC) or in the packet (XDP).
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_ICMPV6 58

/* ---- wire formats ---- */

struct eth_head {
	__u8 dst[6];
	__u8 src[6];
	__be16 proto;
};

struct ipv4_head {
	__u8 version_ihl;
	__u8 tos;
	__be16 total;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__be32 src;
	__be32 dst;
};

#define IPV4_PLAIN 0x45 /* version 4, no options */
#define IPV4_DF 0x4000
#define IPV4_MF 0x2000
#define IPV4_OFFSET 0x1fff

struct ipv6_head {
	__be32 version_class_flow;
	__be16 payload;
	__u8 next;
	__u8 hops;
	__be32 src[4];
	__be32 dst[4];
};

struct tcp_head {
	__be16 src;
	__be16 dst;
	__be32 seq;
	__be32 ack;
	__u8 offset; /* in the upper four bits, in words */
	__u8 flags;
	__be16 window;
	__u16 checksum;
	__be16 urgent;
};

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define TCP_URG 0x20

/* RFC 7323 appendix A: two NOPs, then the timestamps, so that they are aligned. */
struct tcp_times {
	__be32 layout;
	__be32 value;
	__be32 echo;
};

#define TIMES_LAYOUT 0x0101080a

/* A packet of the usual form. `times` is there if the TCP header says so. */
struct packet4 {
	struct ipv4_head ip;
	struct tcp_head tcp;
	struct tcp_times times;
};

struct packet6 {
	struct ipv6_head ip;
	struct tcp_head tcp;
	struct tcp_times times;
};

#define TCP_PLAIN sizeof(struct tcp_head)
#define TCP_TIMED (sizeof(struct tcp_head) + sizeof(struct tcp_times))

/* ---- tables; the daemon pins them, nothing here does ---- */

/* Never an LRU: an entry that goes while its peers talk ends their connection. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2); /* the daemon sets twice its max_flows */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sl_packet_key);
	__type(value, struct sl_packet_flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sl_packet_counts);
} counters SEC(".maps");

static __always_inline struct sl_packet_counts *counts(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

#define COUNT(field)                                    \
	do {                                            \
		struct sl_packet_counts *n_ = counts(); \
                                                        \
		if (n_)                                 \
			n_->field++;                    \
	} while (0)

/* ---- checksums (RFC 1071, RFC 1624): sums of words as they lie in memory ---- */

static __always_inline __u64 sum_replaced(__u64 sum, __u32 was, __u32 is)
{
	return sum + (__u32)~was + is;
}

static __always_inline __u64 sum_replaced16(__u64 sum, __u16 was, __u16 is)
{
	return sum + (__u16)~was + is;
}

static __always_inline __u32 fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (__u32)sum;
}

static __always_inline __u16 fold16(__u64 sum)
{
	__u32 s = fold32(sum);

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return (__u16)s;
}

/* What stands there are no words to the compiler, which must not reorder accesses for that. */
typedef __u16 __attribute__((may_alias)) any_word;

/* n is even, and so is the address. */
static __always_inline __u64 sum_words(const void *words, const __u32 n)
{
	const any_word *w = words;
	__u64 sum = 0;

#pragma unroll
	for (__u32 i = 0; i < n / 2; i++)
		sum += w[i];
	return sum;
}

static __always_inline int is_version6(const struct ipv6_head *ip)
{
	return (ip->version_class_flow & bpf_htonl(0xf0000000)) == bpf_htonl(0x60000000);
}

/* ---- keys ---- */

/* An address of an entry or a key, which are octets for those who dump them, as words. */
struct address {
	__be32 word[4];
} __attribute__((may_alias));

static __always_inline void copy_address(void *to, const void *from)
{
	*(struct address *)to = *(const struct address *)from;
}

/* IPv4 as ::ffff:a.b.c.d. */
static __always_inline void put_ip4(void *to, __be32 ip)
{
	*(struct address *)to = (struct address){ { 0, 0, bpf_htonl(0xffff), ip } };
}

static __always_inline __be32 get_ip4(const void *from)
{
	return ((const struct address *)from)->word[3];
}

static __always_inline int is_ip4(const void *from)
{
	const struct address *a = from;

	return !a->word[0] && !a->word[1] && a->word[2] == bpf_htonl(0xffff);
}

static __always_inline void key_of4(const struct ipv4_head *ip, __be16 sport, __be16 dport,
				    struct sl_packet_key *key)
{
	put_ip4(key->saddr, ip->src);
	put_ip4(key->daddr, ip->dst);
	key->sport = bpf_ntohs(sport);
	key->dport = bpf_ntohs(dport);
}

static __always_inline void key_of6(const struct ipv6_head *ip, __be16 sport, __be16 dport,
				    struct sl_packet_key *key)
{
	copy_address(key->saddr, ip->src);
	copy_address(key->daddr, ip->dst);
	key->sport = bpf_ntohs(sport);
	key->dport = bpf_ntohs(dport);
}

/* Of the other direction: an answer to what we forwarded. */
static __always_inline void reverse_key(const struct sl_packet_flow *f, struct sl_packet_key *key)
{
	copy_address(key->saddr, f->new_daddr);
	copy_address(key->daddr, f->new_saddr);
	key->sport = f->new_dport;
	key->dport = f->new_sport;
}

/* ---- what a segment says, in host order ---- */

struct segment {
	__u32 l3; /* where the IP header begins */
	__u32 l4;
	__u32 length;     /* from the IP header on, without the padding of short frames */
	__u32 tcp_length; /* of the header */
	__u32 payload;
	__u32 seq;
	__u32 ack;
	__u32 segments; /* of a GSO packet */
	__u8 flags;
	__u32 mark;                  /* TC: of the packet */
	struct sl_packet_flow *flow; /* whose it is */
};

/* -1: lengths that contradict each other. */
static __always_inline int read_segment(const struct tcp_head *tcp, struct segment *s)
{
	__u32 heads = s->l4 - s->l3;

	s->tcp_length = (tcp->offset >> 4) * 4;
	if (s->tcp_length < TCP_PLAIN || heads + s->tcp_length > s->length)
		return -1;
	s->payload = s->length - heads - s->tcp_length;
	s->seq = bpf_ntohl(tcp->seq);
	s->ack = bpf_ntohl(tcp->ack);
	s->flags = tcp->flags;
	return 0;
}

/*
 * skb->mark of what the control program injects, from the hook's own host and in the same
 * namespace. Such packets are entered in no account, as no peer has sent them, and one for
 * a killed connection draws the answer it asks for.
 */
enum injected {
	NOT_INJECTED = 0,
	INJECTED = 0x534c5031,       /* as if the peer had sent it */
	INJECTED_PROBE = 0x534c5032, /* killed: ask the peer for a packet, to be answered exactly */
};

static __always_inline int is_injected(__u32 mark)
{
	return mark - INJECTED <= INJECTED_PROBE - INJECTED;
}

static __always_inline __s32 distance(__u32 from, __u32 to)
{
	return (__s32)(to - from);
}

/* ---- accounts ---- */

/*
 * A packet further ahead than that is not of this connection or will come again: it is
 * forwarded, as the receiver decides, but the accounts do not follow it.
 */
#define MAX_HOLE (1u << 24)
#define MAX_WINDOW (1u << 30) /* RFC 7323 section 2.3 */

/*
 * Moves a mark forward and says how far; by compare-and-swap, so that of two CPUs with
 * overlapping segments each counts what the other has not. A failure is another's progress.
 */
static __always_inline __u32 advance(__u32 *mark, __u32 to, __u32 most)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < 8; i++) {
		__u32 was = *(volatile __u32 *)mark;
		__u32 by = to - was;

		if (!by || by > most)
			return 0;
		if (__sync_val_compare_and_swap(mark, was, to) == was)
			return by;
	}
	return 0;
}

/*
 * Enters a segment that is going to be forwarded. Payload is what is new behind the last octet
 * seen: of a segment with a hole before it the hole counts now and not when it is filled, so
 * that in the end each octet has counted once. SYN and RST have numbers of their own.
 */
static __always_inline void note(struct sl_packet_flow *f, const struct segment *s)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 fin = s->flags & TCP_FIN ? 1 : 0;

	f->last_ns = now;
	__sync_fetch_and_add(&f->packets, s->segments);
	if (s->flags & (TCP_SYN | TCP_RST))
		return;
	if (s->payload || fin) {
		__u32 by = advance(&f->max_seq, s->seq + s->payload + fin, MAX_HOLE);

		f->last_data_ns = now;
		if (by > fin)
			__sync_fetch_and_add(&f->bytes, by - fin);
	}
	if (s->flags & TCP_ACK)
		advance(&f->max_ack, s->ack, MAX_WINDOW);
}

static __always_inline void note_times(struct sl_packet_flow *f, const struct tcp_times *t)
{
	f->last_tsval = bpf_ntohl(t->value);
	f->last_tsecr = bpf_ntohl(t->echo);
}

/* FIN, RST and what follows them need the other direction's entry: see packet_close.h. */
static __always_inline int concerns_close(const struct sl_packet_flow *f, const struct segment *s)
{
	if (s->flags & TCP_SYN)
		return 0;
	return s->flags & (TCP_FIN | TCP_RST) || f->rst || (f->peer_fin && !f->peer_fin_acked);
}

/* ---- rewriting ---- */

/* How the sums over a packet change. */
struct change {
	__u64 addresses; /* what TCP's pseudo header covers */
	__u64 segment;   /* what TCP covers itself */
	__u64 rest;      /* the IPv6 header's other fields, which no checksum covers */
};

static __always_inline __be32 shifted(__be32 number, __u32 delta)
{
	return bpf_htonl(bpf_ntohl(number) + delta);
}

/* RFC 3168: the lower two bits of the traffic class. */
#define ECN_BITS 0x03
#define IPV6_ECN_BITS 0x00300000

static __always_inline void rewrite_ip4(struct ipv4_head *ip, const struct sl_packet_flow *f,
					struct change *c)
{
	__be32 src = get_ip4(f->new_saddr);
	__be32 dst = get_ip4(f->new_daddr);
	__u64 header;

	c->addresses = sum_replaced(sum_replaced(0, ip->src, src), ip->dst, dst);
	header = (__u64)fold32(c->addresses) + (__u16)~ip->checksum;
	/* The TTL is the upper half of its word. */
	header += (__u16)~bpf_htons(0x0100);
	if (f->clear_ecn) {
		__u8 tos = ip->tos & (__u8)~ECN_BITS;

		header = sum_replaced16(header, bpf_htons(ip->tos), bpf_htons(tos));
		ip->tos = tos;
	}
	ip->src = src;
	ip->dst = dst;
	ip->ttl--;
	ip->checksum = (__u16)~fold16(header);
}

/* Returns the change of the sum. */
static __always_inline __u64 replace_ip6(__be32 to[4], const void *from)
{
	const struct address *a = from;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		sum = sum_replaced(sum, to[i], a->word[i]);
		to[i] = a->word[i];
	}
	return sum;
}

static __always_inline void rewrite_ip6(struct ipv6_head *ip, const struct sl_packet_flow *f,
					struct change *c)
{
	c->addresses = replace_ip6(ip->src, f->new_saddr) + replace_ip6(ip->dst, f->new_daddr);
	ip->hops--;
	c->rest += (__u16)~bpf_htons(0x0001);
	if (f->clear_ecn) {
		__be32 was = ip->version_class_flow;

		ip->version_class_flow = was & ~bpf_htonl(IPV6_ECN_BITS);
		c->rest = sum_replaced(c->rest, was, ip->version_class_flow);
	}
}

/* RFC 7323 section 2.3: the window of a SYN is never scaled. */
static __always_inline __be16 scaled_window(__be16 field, __s8 shift)
{
	__u32 window = bpf_ntohs(field);

	if (shift < 0)
		window >>= -shift & 15;
	else
		window <<= shift & 15;
	return bpf_htons(window > 0xffff ? 0xffff : (__u16)window);
}

/* 2^30 ns. By then a sender has tried about 9 times, and gives up after 15 (tcp_retries2). */
#define CLOSED_MOST 30

/*
 * To whom a closed window is kept open, to that of the promise, sends into it again and again and
 * takes the other side for dead in the end. One that is told of it asks for as long as it takes.
 */
static __always_inline int is_closed_for_long(__be16 field, struct sl_packet_flow *f)
{
	__u16 now;

	if (field) {
		f->closed_at = 0;
		return 0;
	}
	now = (__u16)(bpf_ktime_get_coarse_ns() >> 30);
	if (!f->closed_at)
		f->closed_at = now ? now : 1;
	return (__u16)(now - f->closed_at) >= CLOSED_MOST && now;
}

/*
 * A window is never taken back (RFC 9293 section 3.8.6). What the sender of the packet offers may
 * be less than our socket had offered in its place, and Linux does not recover when that happens
 * to both ends at once: an end that has sent more than its window puts the window's edge into
 * the number of its bare acknowledgements, and to a peer that has got more they look old.
 */
static __always_inline __be16 promised_window(__be16 field, __u32 ack, struct sl_packet_flow *f)
{
	__u32 left = f->promised - ack;
	__u32 scale = f->window_scale & 15;
	__u32 own = bpf_ntohs(field);
	__u32 least = (left + (1u << scale) - 1) >> scale;

	if (left - 1 >= 0x7fffffff || least <= own || is_closed_for_long(field, f)) {
		f->is_promised = 0;
		return field;
	}
	/* Also less than before: a receiver without memory for what arrives takes it back. */
	if (distance(f->max_ack, ack) >= 0)
		f->offered = ack + (own << scale);
	return bpf_htons(least > 0xffff ? 0xffff : (__u16)least);
}

/*
 * Who has filled such a window puts the number behind it into his bare acknowledgements. The
 * receiver, whose own window ends before, takes them for not its own, and with data on its way in
 * both directions neither end would hear again of what the other has got. So these say the
 * number at the end of the receiver's own window, which it takes. Where that is has to be looked up
 * for any number ahead of what it has got, since all else it may take back.
 */
static __always_inline __be32 number_within(__be32 seq, const struct segment *s,
					    struct sl_packet_flow *f)
{
	__u32 number = bpf_ntohl(seq);
	const struct sl_packet_flow *other;
	struct sl_packet_key key;
	__u32 edge, got;

	if (s->payload || s->flags & (TCP_SYN | TCP_FIN | TCP_RST) ||
	    distance(f->within, number) <= 0)
		return seq;
	reverse_key(f, &key);
	other = bpf_map_lookup_elem(&flows, &key);
	if (!other || other->conn_id != f->conn_id || !other->is_promised) {
		f->may_overrun = 0;
		return seq;
	}
	edge = other->offered;
	got = other->max_ack;
	f->within = got;
	if (distance(edge, got) > 0)
		edge = got;
	return distance(edge, number) > 0 ? bpf_htonl(edge) : seq;
}

static __always_inline void rewrite_tcp(struct tcp_head *tcp, const struct segment *s,
					struct change *c)
{
	struct sl_packet_flow *f = s->flow;
	__be16 window = tcp->window;
	__be16 src = bpf_htons(f->new_sport);
	__be16 dst = bpf_htons(f->new_dport);
	__be32 seq = shifted(tcp->seq, f->seq_delta);

	if (f->may_overrun && !is_injected(s->mark))
		seq = number_within(seq, s, f);
	c->segment = sum_replaced16(c->segment, tcp->src, src);
	c->segment = sum_replaced16(c->segment, tcp->dst, dst);
	c->segment = sum_replaced(c->segment, tcp->seq, seq);
	tcp->src = src;
	tcp->dst = dst;
	tcp->seq = seq;
	if (f->window_shift && !(tcp->flags & TCP_SYN))
		window = scaled_window(window, f->window_shift);
	if (tcp->flags & TCP_ACK) {
		__be32 ack = shifted(tcp->ack, f->ack_delta);

		if (f->is_promised && !is_injected(s->mark) && !(tcp->flags & (TCP_SYN | TCP_RST)))
			window = promised_window(window, s->ack, f);
		c->segment = sum_replaced(c->segment, tcp->ack, ack);
		tcp->ack = ack;
	}
	if (window != tcp->window) {
		c->segment = sum_replaced16(c->segment, tcp->window, window);
		tcp->window = window;
	}
}

/* An echo of 0 is none (RFC 7323 section 3.2 lets a sender without one write that). */
static __always_inline void rewrite_times(struct tcp_times *t, const struct sl_packet_flow *f,
					  struct change *c)
{
	__be32 value = shifted(t->value, f->tsval_delta);

	c->segment = sum_replaced(c->segment, t->value, value);
	t->value = value;
	if (t->echo) {
		__be32 echo = shifted(t->echo, f->tsecr_delta);

		c->segment = sum_replaced(c->segment, t->echo, echo);
		t->echo = echo;
	}
}

#endif
