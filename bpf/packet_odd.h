/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BPF_PACKET_ODD_H
#define SL_BPF_PACKET_ODD_H

/*
 * TCP in fragments, behind IP options or extension headers, or cut short. Of a known tuple it
 * is dropped, never passed: our own stack has no such connection and would answer with a RST.
 * A first fragment may hold as little as eight octets of TCP; that is enough for the ports.
 * Later fragments have no ports, pass, and never become a packet without the first.
 */
#include "packet_tc.h"

#define IPPROTO_HOPOPTS 0
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_AH 51
#define IPPROTO_DSTOPTS 60
#define MAX_EXTENSIONS 8

enum oddity {
	CUT_SHORT = 0,
	FRAGMENT,
	EXTENSION,
};

struct ports {
	__be16 src;
	__be16 dst;
};

static __always_inline int drop_if_known(const struct sl_packet_key *key, enum oddity why)
{
	struct sl_packet_flow *f = bpf_map_lookup_elem(&flows, key);

	if (!f)
		return GO_ON;
	if (why == FRAGMENT)
		COUNT(fragment_dropped);
	else if (why == EXTENSION)
		COUNT(extension_dropped);
	else
		COUNT(malformed_dropped);
	return dropped(f);
}

static __noinline int handle_odd4(struct __sk_buff *skb, __u32 l3)
{
	struct sl_packet_key key;
	enum oddity why = CUT_SHORT;
	struct ipv4_head ip;
	struct ports ports;
	__u32 length;

	if (bpf_skb_load_bytes(skb, l3, &ip, sizeof(ip)) < 0 || ip.protocol != IPPROTO_TCP)
		return GO_ON;
	length = (ip.version_ihl & 0xf) * 4;
	if (ip.version_ihl >> 4 != 4 || length < sizeof(ip) || ip.fragment & bpf_htons(IPV4_OFFSET))
		return GO_ON;
	if (ip.fragment & bpf_htons(IPV4_MF))
		why = FRAGMENT;
	else if (length > sizeof(ip))
		why = EXTENSION;
	if (bpf_skb_load_bytes(skb, l3 + length, &ports, sizeof(ports)) < 0)
		return GO_ON;
	key_of4(&ip, ports.src, ports.dst, &key);
	return drop_if_known(&key, why);
}

static __always_inline int is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS ||
	       next == IPPROTO_AH || next == IPPROTO_FRAGMENT;
}

struct extensions {
	__u32 at;
	__u8 next;
	enum oddity why;
};

/* Whether there is another one behind; the length of an AH is RFC 4302's. */
static __always_inline int skip_extension(struct __sk_buff *skb, struct extensions *x)
{
	__u8 head[4]; /* next header, length, and of a fragment its offset */

	if (!is_extension(x->next) || bpf_skb_load_bytes(skb, x->at, head, sizeof(head)) < 0)
		return 0;
	if (x->next == IPPROTO_FRAGMENT) {
		/* RFC 8200 section 4.5: a later fragment ends the search. */
		if (head[2] || head[3] & 0xf8)
			return 0;
		x->why = FRAGMENT;
		x->at += 8;
	} else {
		if (x->why != FRAGMENT)
			x->why = EXTENSION;
		x->at += x->next == IPPROTO_AH ? (head[1] + 2) * 4 : (head[1] + 1) * 8;
	}
	x->next = head[0];
	return 1;
}

static __noinline int handle_odd6(struct __sk_buff *skb, __u32 l3)
{
	struct extensions x = { .at = l3 + sizeof(struct ipv6_head), .why = CUT_SHORT };
	struct sl_packet_key key;
	struct ipv6_head ip;
	struct ports ports;

	if (bpf_skb_load_bytes(skb, l3, &ip, sizeof(ip)) < 0)
		return GO_ON;
	x.next = ip.next;
	for (int i = 0; i < MAX_EXTENSIONS && x.next != IPPROTO_TCP; i++) {
		if (!skip_extension(skb, &x))
			break;
	}
	if (x.next != IPPROTO_TCP || bpf_skb_load_bytes(skb, x.at, &ports, sizeof(ports)) < 0)
		return GO_ON;
	key_of6(&ip, ports.src, ports.dst, &key);
	return drop_if_known(&key, x.why);
}

#endif
