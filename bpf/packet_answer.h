/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BPF_PACKET_ANSWER_H
#define SL_BPF_PACKET_ANSWER_H

/* Packets turned round: the RST of a killed connection, and the ICMP error for one too big. */
#include "packet_close.h"
#include "packet_tc.h"

#define ANSWER_TTL 64

/* ---- a killed connection ---- */

/*
 * The number a RST must have is the one its receiver expects next (RFC 5961 section 3), which
 * is what it has just acknowledged.
 */
static __always_inline void turn_into_rst(struct tcp_head *t, const struct segment *s)
{
	__u32 end = s->seq + s->payload + !!(s->flags & TCP_SYN) + !!(s->flags & TCP_FIN);
	struct tcp_head rst = {
		.src = t->dst, .dst = t->src, .offset = TCP_PLAIN / 4 << 4, .flags = TCP_RST
	};

	if (s->flags & TCP_ACK) {
		rst.seq = t->ack;
	} else {
		/* RFC 9293 section 3.10.7.1 */
		rst.flags |= TCP_ACK;
		rst.ack = bpf_htonl(end);
	}
	*t = rst;
}

/*
 * A keep-alive in the other side's name. Its timestamps are the peer's own ones: what it has
 * echoed last passes its check of old duplicates (RFC 7323 section 5).
 */
static __always_inline void turn_into_probe(struct tcp_head *t, struct tcp_times *times)
{
	struct tcp_head probe = { .src = t->dst,
				  .dst = t->src,
				  .seq = shifted(t->ack, (__u32)-1),
				  .ack = t->seq,
				  .offset = t->offset,
				  .flags = TCP_ACK };
	__be32 value = times->value;

	times->value = times->echo;
	times->echo = value;
	*t = probe;
}

/*
 * The packet may have come with CHECKSUM_PARTIAL, and then somebody completes the sum later, or
 * without, and nobody does. Both must end in the right sum. With p the sum over the pseudo
 * header and r the one over the rest of the segment, the field c has to satisfy
 *	c = -(p + r)	as it stands, and
 *	c = -(r + c)	so that completing it changes nothing,
 * whence r = -2p and c = p. The window is free to make r that: nobody takes a window from a
 * RST or from a segment outside of his own.
 */
static __always_inline void seal(struct tcp_head *t, __u64 pseudo, __u64 others)
{
	t->window = 0;
	t->checksum = 0;
	others += sum_words(t, sizeof(*t));
	t->window = (__u16)~fold16(2 * (__u64)fold16(pseudo) + others);
	t->checksum = fold16(pseudo);
}

/* What the packet still tells about its sender. 0: it is not to be answered. */
static __always_inline int note_killed(struct __sk_buff *skb, struct sl_packet_flow *f,
				       const struct segment *s)
{
	if (is_injected(skb->mark))
		return 1;
	__sync_fetch_and_add(&f->drops, 1);
	f->last_ns = bpf_ktime_get_coarse_ns();
	if (s->flags & TCP_RST) {
		follow_close(f, s);
		COUNT(killed_dropped);
		return 0;
	}
	if (s->flags & TCP_ACK && !(s->flags & TCP_SYN))
		advance(&f->max_ack, s->ack, MAX_WINDOW);
	return 1;
}

static __always_inline int send_answer(struct __sk_buff *skb, const struct sl_packet_flow *f,
				       __u32 l3)
{
	COUNT(killed_answered);
	return send(skb, l3, f->peer_ifindex ? f->peer_ifindex : skb->ifindex);
}

static __always_inline int drop_killed(void)
{
	COUNT(killed_dropped);
	return DROP;
}

static __always_inline int wants_probe(struct __sk_buff *skb, const struct tcp_head *t)
{
	return skb->mark == INJECTED_PROBE && t->offset >> 4 <= TCP_TIMED / 4;
}

static __noinline int answer_killed4(struct __sk_buff *skb, struct segment *s,
				     struct sl_packet_flow *f)
{
	struct packet4 p = { 0 };
	__u32 n = TCP_PLAIN;
	__be32 src;

	if (!note_killed(skb, f, s))
		return DROP;
	if (bpf_skb_load_bytes(skb, s->l3, &p, sizeof(p.ip) + TCP_PLAIN) < 0)
		return drop_killed();
	if (!wants_probe(skb, &p.tcp)) {
		turn_into_rst(&p.tcp, s);
	} else {
		if (s->tcp_length == TCP_TIMED &&
		    bpf_skb_load_bytes(skb, s->l4 + TCP_PLAIN, &p.times, sizeof(p.times)) == 0)
			n = TCP_TIMED;
		turn_into_probe(&p.tcp, &p.times);
	}
	src = p.ip.dst;
	p.ip = (struct ipv4_head){ .version_ihl = IPV4_PLAIN,
				   .total = bpf_htons(sizeof(p.ip) + n),
				   .fragment = bpf_htons(IPV4_DF),
				   .ttl = ANSWER_TTL,
				   .protocol = IPPROTO_TCP,
				   .src = src,
				   .dst = p.ip.src };
	p.ip.checksum = (__u16)~fold16(sum_words(&p.ip, sizeof(p.ip)));
	seal(&p.tcp, (__u64)p.ip.src + p.ip.dst + bpf_htons(IPPROTO_TCP) + bpf_htons(n),
	     n == TCP_TIMED ? sum_words(&p.times, sizeof(p.times)) : 0);
	if (bpf_skb_change_tail(skb, s->l3 + sizeof(p.ip) + n, 0) < 0 ||
	    bpf_skb_store_bytes(skb, s->l3, &p, sizeof(p.ip) + n, BPF_F_RECOMPUTE_CSUM) < 0)
		return drop_killed();
	return send_answer(skb, f, s->l3);
}

static __noinline int answer_killed6(struct __sk_buff *skb, struct segment *s,
				     struct sl_packet_flow *f)
{
	struct packet6 p = { 0 };
	__u32 n = TCP_PLAIN;
	__be32 src[4];

	if (!note_killed(skb, f, s))
		return DROP;
	if (bpf_skb_load_bytes(skb, s->l3, &p, sizeof(p.ip) + TCP_PLAIN) < 0)
		return drop_killed();
	if (!wants_probe(skb, &p.tcp)) {
		turn_into_rst(&p.tcp, s);
	} else {
		if (s->tcp_length == TCP_TIMED &&
		    bpf_skb_load_bytes(skb, s->l4 + TCP_PLAIN, &p.times, sizeof(p.times)) == 0)
			n = TCP_TIMED;
		turn_into_probe(&p.tcp, &p.times);
	}
	copy_address(src, p.ip.dst);
	copy_address(p.ip.dst, p.ip.src);
	copy_address(p.ip.src, src);
	p.ip.version_class_flow = bpf_htonl(6u << 28);
	p.ip.payload = bpf_htons(n);
	p.ip.hops = ANSWER_TTL;
	seal(&p.tcp, sum_words(p.ip.src, 32) + bpf_htons(IPPROTO_TCP) + bpf_htons(n),
	     n == TCP_TIMED ? sum_words(&p.times, sizeof(p.times)) : 0);
	if (bpf_skb_change_tail(skb, s->l3 + sizeof(p.ip) + n, 0) < 0 ||
	    bpf_skb_store_bytes(skb, s->l3, &p, sizeof(p.ip) + n, BPF_F_RECOMPUTE_CSUM) < 0)
		return drop_killed();
	return send_answer(skb, f, s->l3);
}

/* ---- a packet that does not fit our own way out ---- */

/*
 * A redirect does not look at the MTU, and nobody would tell the sender. The error quotes the
 * IP header and twenty octets of TCP. The quoted checksum is as free as nobody checks it, and
 * must not be changed when a CHECKSUM_PARTIAL packet is completed, so it is the fixpoint
 * c = -(r + c) modulo 65535, where r is the sum over the other quoted octets.
 */
static __always_inline void seal_quoted(struct tcp_head *t)
{
	__u32 r;

	t->checksum = 0;
	r = fold16(sum_words(t, sizeof(*t))) % 65535;
	/* 32768 is one half: 2 * 32768 = 65536 = 1. */
	t->checksum = (__u16)((65535 - r) * 32768u % 65535);
}

struct icmp_head {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 rest; /* of an error about size: the MTU, in IPv4 in the lower half */
};

#define ICMP_UNREACHABLE 3
#define ICMP_NEEDS_FRAGMENTATION 4
#define ICMPV6_TOO_BIG 2
#define ICMP_TOS 0xc0 /* RFC 1812 section 4.3.2.5: internetwork control */

struct too_big4 {
	__u16 pad;
	struct eth_head eth;
	struct ipv4_head ip;
	struct icmp_head icmp;
};

struct too_big6 {
	__u16 pad;
	struct eth_head eth;
	struct ipv6_head ip;
	struct icmp_head icmp;
};

static __always_inline int mtu_failed(void)
{
	COUNT(mtu_failed);
	return DROP;
}

static __always_inline int send_too_big(struct __sk_buff *skb, __u32 ifindex)
{
	COUNT(mtu_answered);
	return send(skb, sizeof(struct eth_head), ifindex ? ifindex : skb->ifindex);
}

/* RFC 1191 section 4 */
static __noinline int answer_too_big4(struct __sk_buff *skb, const struct segment *s, __u32 mtu,
				      __u32 ifindex)
{
	struct packet4 p = { 0 };
	struct too_big4 m = { .eth.proto = bpf_htons(ETH_P_IP),
			      .ip = { .version_ihl = IPV4_PLAIN,
				      .tos = ICMP_TOS,
				      .total = bpf_htons(sizeof(m.ip) + sizeof(m.icmp) +
							 sizeof(p.ip) + TCP_PLAIN),
				      .ttl = ANSWER_TTL,
				      .protocol = IPPROTO_ICMP },
			      .icmp = { .type = ICMP_UNREACHABLE,
					.code = ICMP_NEEDS_FRAGMENTATION,
					.rest = bpf_htonl(mtu) } };
	const __u32 quoted = sizeof(p.ip) + TCP_PLAIN;
	const __u32 added = sizeof(m) - sizeof(m.pad);

	if (bpf_skb_change_tail(skb, s->l3 + quoted, 0) < 0 ||
	    bpf_skb_load_bytes(skb, s->l3, &p, quoted) < 0)
		return mtu_failed();
	seal_quoted(&p.tcp);
	m.ip.src = p.ip.dst;
	m.ip.dst = p.ip.src;
	m.ip.checksum = (__u16)~fold16(sum_words(&m.ip, sizeof(m.ip)));
	m.icmp.checksum =
		(__u16)~fold16(sum_words(&m.icmp, sizeof(m.icmp)) + sum_words(&p, quoted));
	if (bpf_skb_store_bytes(skb, s->l4, &p.tcp, TCP_PLAIN, 0) < 0 ||
	    bpf_skb_change_head(skb, added - s->l3, 0) < 0 ||
	    bpf_skb_store_bytes(skb, 0, &m.eth, added, 0) < 0)
		return mtu_failed();
	return send_too_big(skb, ifindex);
}

/* RFC 8201, RFC 4443 section 3.2 */
static __noinline int answer_too_big6(struct __sk_buff *skb, const struct segment *s, __u32 mtu,
				      __u32 ifindex)
{
	struct packet6 p = { 0 };
	const __u32 quoted = sizeof(p.ip) + TCP_PLAIN;
	struct too_big6 m = { .eth.proto = bpf_htons(ETH_P_IPV6),
			      .ip = { .version_class_flow = bpf_htonl(6u << 28),
				      .payload =
					      bpf_htons(sizeof(m.icmp) + sizeof(p.ip) + TCP_PLAIN),
				      .next = IPPROTO_ICMPV6,
				      .hops = ANSWER_TTL },
			      .icmp = { .type = ICMPV6_TOO_BIG, .rest = bpf_htonl(mtu) } };
	const __u32 added = sizeof(m) - sizeof(m.pad);

	if (bpf_skb_change_tail(skb, s->l3 + quoted, 0) < 0 ||
	    bpf_skb_load_bytes(skb, s->l3, &p, quoted) < 0)
		return mtu_failed();
	seal_quoted(&p.tcp);
	copy_address(m.ip.src, p.ip.dst);
	copy_address(m.ip.dst, p.ip.src);
	m.icmp.checksum =
		(__u16)~fold16(sum_words(m.ip.src, 32) + m.ip.payload + bpf_htons(IPPROTO_ICMPV6) +
			       sum_words(&m.icmp, sizeof(m.icmp)) + sum_words(&p, quoted));
	if (bpf_skb_store_bytes(skb, s->l4, &p.tcp, TCP_PLAIN, 0) < 0 ||
	    bpf_skb_change_head(skb, added - s->l3, 0) < 0 ||
	    bpf_skb_store_bytes(skb, 0, &m.eth, added, 0) < 0)
		return mtu_failed();
	return send_too_big(skb, ifindex);
}

#endif
