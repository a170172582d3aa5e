/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BPF_PACKET_TC_H
#define SL_BPF_PACKET_TC_H

/* What the parts of the TC program share. */
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>

#include "packet.h"

/*
 * What becomes of a packet. Codes from STEP_ODD on are no verdicts: the rare cases are handled
 * at the top, because the stacks of a chain of calls must fit into 512 bytes.
 */
enum step {
	GO_ON = TC_ACT_UNSPEC, /* not ours: the next program, then the stack (tcx and clsact) */
	DROP = TC_ACT_SHOT,
	FORWARD = 0x100, /* internal: nothing speaks against it */
	STEP_ODD,        /* TCP in a form that is never forwarded */
	STEP_ICMP,
	STEP_KILLED,
	STEP_TOO_BIG = 0x10000, /* or'ed with the MTU */
};

#define MTU_MASK 0xffff

/*
 * Where the IP header begins: behind an Ethernet header (loopback and VLAN devices have one,
 * too), or at once on devices without link layer (tun, WireGuard). -1 for any other link
 * layer: no connection over such a device may be handed over.
 *
 * Nothing says which, but the first byte of an IP packet is its version, and where a hardware
 * address looks like one, the network header decides: the last byte counted from there is
 * still in the linear part only if nothing stands before it.
 */
static __always_inline int find_ip(struct __sk_buff *skb, __u8 version)
{
	const __u8 *data = (const __u8 *)(long)skb->data;
	const __u8 *end = (const __u8 *)(long)skb->data_end;
	const struct eth_head *eth;
	__u8 byte;

	if (data + sizeof(*eth) > end) {
		if (bpf_skb_pull_data(skb, sizeof(*eth)) < 0)
			return -1;
		data = (const __u8 *)(long)skb->data;
		end = (const __u8 *)(long)skb->data_end;
		if (data + sizeof(*eth) > end)
			return -1;
	}
	eth = (const struct eth_head *)data;
	if (data[0] >> 4 != version)
		return eth->proto == skb->protocol ? (int)sizeof(*eth) : -1;
	if (eth->proto != skb->protocol)
		return 0;
	return bpf_skb_load_bytes_relative(skb, (__u32)(end - data) - sizeof(*eth), &byte, 1,
					   BPF_HDR_START_NET) < 0
		       ? (int)sizeof(*eth)
		       : 0;
}

/* IEEE 802.1Q: VLAN id 0 is a priority alone; the frame belongs to the device itself. */
#define VLAN_VID_MASK 0x0fff

/*
 * The way out, with a fresh route and neighbour on the entry's device. That asks for an
 * Ethernet header, whatever is in it.
 */
static __always_inline int send(struct __sk_buff *skb, __u32 l3, __u32 ifindex)
{
	if (skb->vlan_present) {
		if (bpf_skb_vlan_pop(skb) < 0)
			return DROP;
		COUNT(vlan_popped);
	}
	if (!l3 && bpf_skb_change_head(skb, sizeof(struct eth_head), 0) < 0)
		return DROP;
	if (is_injected(skb->mark))
		skb->mark = 0;
	return (int)bpf_redirect_neigh(ifindex, 0, 0, 0);
}

static __always_inline int dropped(struct sl_packet_flow *f)
{
	__sync_fetch_and_add(&f->drops, 1);
	return DROP;
}

#endif
