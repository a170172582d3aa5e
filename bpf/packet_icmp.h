/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BPF_PACKET_ICMP_H
#define SL_BPF_PACKET_ICMP_H

/*
 * An ICMP error about a packet we forwarded quotes numbers its true sender does not know. It
 * is translated and sent on to that sender, in the name of the address that sender talks to:
 * the router's own address may not be routable there. Our own stack has no such connection,
 * and a lost "packet too big" would stall the flow for good.
 */
#include "packet_answer.h"

#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMPV6_FIRST_ERROR 1
#define ICMPV6_LAST_ERROR 4

/* What is there at least of the quoted TCP header (RFC 792). */
struct quoted_tcp {
	__be16 src;
	__be16 dst;
	__be32 seq;
};

struct error4 {
	struct icmp_head icmp;
	struct ipv4_head ip;
};

struct error6 {
	struct icmp_head icmp;
	struct ipv6_head ip;
};

static __always_inline int drop_icmp(void)
{
	COUNT(icmp_dropped);
	return DROP;
}

/* The quoted packet as its sender sent it: `f` is the direction towards that sender. */
static __always_inline __u64 unrewrite_quoted(struct quoted_tcp *t, const struct sl_packet_flow *f)
{
	struct quoted_tcp was = *t;
	__u64 sum;

	t->src = bpf_htons(f->new_dport);
	t->dst = bpf_htons(f->new_sport);
	t->seq = shifted(t->seq, f->ack_delta);
	sum = sum_replaced16(0, was.src, t->src);
	sum = sum_replaced16(sum, was.dst, t->dst);
	return sum_replaced(sum, was.seq, t->seq);
}

/* An answer to the quoted packet would be of this flow. Ours is only what is in force. */
static __always_inline struct sl_packet_flow *find_quoted(const struct sl_packet_key *key)
{
	struct sl_packet_flow *f = bpf_map_lookup_elem(&flows, key);

	return f && f->state != SL_PACKET_STARTING ? f : 0;
}

/*
 * The ICMP checksum covers the quoted packet and, in IPv6, the outer addresses. Stores that it
 * makes up for leave the sum over the packet (CHECKSUM_COMPLETE) as it is.
 */
static __always_inline int store_quoted(struct __sk_buff *skb, __u32 icmp_at, const void *ip,
					__u32 n, const struct quoted_tcp *t, __u64 sum)
{
	const __u32 ip_at = icmp_at + sizeof(struct icmp_head);

	if (bpf_skb_store_bytes(skb, ip_at, ip, n, 0) < 0 ||
	    bpf_skb_store_bytes(skb, ip_at + n, t, sizeof(*t), 0) < 0)
		return -1;
	return (int)bpf_l4_csum_replace(skb, icmp_at + offsetof(struct icmp_head, checksum), 0,
					fold32(sum), 0);
}

static __noinline int translate_quoted4(struct __sk_buff *skb, __u32 icmp_at,
					const struct sl_packet_flow *f)
{
	__u64 sum, header;
	struct quoted_tcp t;
	struct ipv4_head ip;
	__u16 was;

	if (bpf_skb_load_bytes(skb, icmp_at + sizeof(struct icmp_head), &ip, sizeof(ip)) < 0 ||
	    bpf_skb_load_bytes(skb, icmp_at + sizeof(struct error4), &t, sizeof(t)) < 0)
		return -1;
	was = ip.checksum;
	header = sum_replaced(0, ip.src, get_ip4(f->new_daddr));
	header = sum_replaced(header, ip.dst, get_ip4(f->new_saddr));
	ip.src = get_ip4(f->new_daddr);
	ip.dst = get_ip4(f->new_saddr);
	ip.checksum = (__u16)~fold16((__u64)fold32(header) + (__u16)~was);
	sum = fold32(header) + unrewrite_quoted(&t, f);
	return store_quoted(skb, icmp_at, &ip, sizeof(ip), &t,
			    sum_replaced16(sum, was, ip.checksum));
}

static __noinline int translate_outer4(struct __sk_buff *skb, __u32 l3,
				       const struct sl_packet_flow *f)
{
	struct ipv4_head ip;

	if (bpf_skb_load_bytes(skb, l3, &ip, sizeof(ip)) < 0 || ip.ttl <= 1)
		return -1;
	ip.src = get_ip4(f->new_saddr);
	ip.dst = get_ip4(f->new_daddr);
	ip.ttl--;
	ip.checksum = 0;
	ip.checksum = (__u16)~fold16(sum_words(&ip, sizeof(ip)));
	return (int)bpf_skb_store_bytes(skb, l3, &ip, sizeof(ip), 0);
}

static __always_inline int is_error4(__u8 type)
{
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER;
}

static __noinline int handle_icmp4(struct __sk_buff *skb, __u32 l3)
{
	const __u32 at = l3 + sizeof(struct ipv4_head);
	struct sl_packet_flow *f;
	struct sl_packet_key key;
	struct ipv4_head outer, answer = { 0 };
	struct quoted_tcp t;
	__u32 icmp_at, tcp_at;
	struct error4 e;

	if (bpf_skb_load_bytes(skb, l3, &outer, sizeof(outer)) < 0 ||
	    outer.fragment & bpf_htons(IPV4_OFFSET) || bpf_ntohs(outer.total) > skb->len - l3)
		return GO_ON;
	icmp_at = l3 + (outer.version_ihl & 0xf) * 4;
	if (bpf_skb_load_bytes(skb, icmp_at, &e, sizeof(e)) < 0 || !is_error4(e.icmp.type) ||
	    e.ip.protocol != IPPROTO_TCP || e.ip.fragment & bpf_htons(IPV4_OFFSET))
		return GO_ON;
	tcp_at = icmp_at + sizeof(e.icmp) + (e.ip.version_ihl & 0xf) * 4;
	if (bpf_skb_load_bytes(skb, tcp_at, &t, sizeof(t)) < 0)
		return GO_ON;
	answer.src = e.ip.dst;
	answer.dst = e.ip.src;
	key_of4(&answer, t.dst, t.src, &key);
	f = find_quoted(&key);
	if (!f)
		return GO_ON;
	if (f->state != SL_PACKET_ACTIVE || outer.version_ihl != IPV4_PLAIN ||
	    e.ip.version_ihl != IPV4_PLAIN || outer.fragment & bpf_htons(IPV4_MF) ||
	    translate_quoted4(skb, at, f) < 0 || translate_outer4(skb, l3, f) < 0)
		return drop_icmp();
	COUNT(icmp_translated);
	return send(skb, l3, f->ifindex);
}

static __noinline int translate_quoted6(struct __sk_buff *skb, __u32 icmp_at,
					const struct sl_packet_flow *f)
{
	struct quoted_tcp t;
	struct ipv6_head ip;
	__u64 sum;

	if (bpf_skb_load_bytes(skb, icmp_at + sizeof(struct icmp_head), &ip, sizeof(ip)) < 0 ||
	    bpf_skb_load_bytes(skb, icmp_at + sizeof(struct error6), &t, sizeof(t)) < 0)
		return -1;
	sum = replace_ip6(ip.src, f->new_daddr) + replace_ip6(ip.dst, f->new_saddr);
	sum = fold32(sum) + unrewrite_quoted(&t, f);
	return store_quoted(skb, icmp_at, &ip, sizeof(ip), &t, sum);
}

static __noinline int translate_outer6(struct __sk_buff *skb, __u32 l3,
				       const struct sl_packet_flow *f)
{
	const __u32 sum_at = l3 + sizeof(struct ipv6_head) + offsetof(struct icmp_head, checksum);
	struct ipv6_head ip;
	__u64 sum;

	if (bpf_skb_load_bytes(skb, l3, &ip, sizeof(ip)) < 0 || ip.hops <= 1)
		return -1;
	sum = replace_ip6(ip.src, f->new_saddr) + replace_ip6(ip.dst, f->new_daddr);
	ip.hops--;
	/* With CHECKSUM_COMPLETE the store adds what the pseudo header's change subtracts. */
	if (bpf_skb_store_bytes(skb, l3, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM) < 0)
		return -1;
	return (int)bpf_l4_csum_replace(skb, sum_at, 0, fold32(sum), BPF_F_PSEUDO_HDR);
}

static __noinline int handle_icmp6(struct __sk_buff *skb, __u32 l3)
{
	const __u32 at = l3 + sizeof(struct ipv6_head);
	struct sl_packet_flow *f;
	struct sl_packet_key key;
	struct quoted_tcp t;
	struct error6 e;
	__be16 payload;

	if (bpf_skb_load_bytes(skb, l3 + offsetof(struct ipv6_head, payload), &payload,
			       sizeof(payload)) < 0 ||
	    bpf_ntohs(payload) > skb->len - at)
		return GO_ON;
	if (bpf_skb_load_bytes(skb, at, &e, sizeof(e)) < 0 || e.icmp.type < ICMPV6_FIRST_ERROR ||
	    e.icmp.type > ICMPV6_LAST_ERROR || e.ip.next != IPPROTO_TCP ||
	    bpf_skb_load_bytes(skb, at + sizeof(e), &t, sizeof(t)) < 0)
		return GO_ON;
	copy_address(key.saddr, e.ip.dst);
	copy_address(key.daddr, e.ip.src);
	key.sport = bpf_ntohs(t.dst);
	key.dport = bpf_ntohs(t.src);
	f = find_quoted(&key);
	if (!f)
		return GO_ON;
	if (f->state != SL_PACKET_ACTIVE || translate_quoted6(skb, at, f) < 0 ||
	    translate_outer6(skb, l3, f) < 0)
		return drop_icmp();
	COUNT(icmp_translated);
	return send(skb, l3, f->ifindex);
}

#endif
