// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Drops the SYN that would open a connection from a denied source to a port of
 * ours. Nothing else is ever dropped: no packet of an established connection,
 * none for another host or another program. Fails open: what cannot be read
 * goes on, and the daemon applies the same lists after accept.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_HOPOPTS 0
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_AH 51
#define IPPROTO_DSTOPTS 60
#define MAX_EXTENSIONS 6
#define VLAN_VID_MASK 0x0fff

/* Of a tcx link TC_ACT_UNSPEC means: ask the next program (TCX_NEXT). */
enum verdict {
	GO_ON = TC_ACT_UNSPEC,
	DROP = TC_ACT_SHOT,
};

struct guard_set4 {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_INNER_MAP | BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sl_guard_range4);
};

struct guard_set6 {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_INNER_MAP | BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sl_guard_range6);
};

/* Types that only tables inside tables have would else be forward declarations in the BTF. */
static const volatile struct {
	struct sl_guard_range4 range4;
	struct sl_guard_range6 range6;
} guard_types SEC(".rodata") __attribute__((used));

/* The denied sources; a new table takes the place of the old one whole. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct guard_set4);
} guard_deny4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct guard_set6);
} guard_deny6 SEC(".maps");

/* By port: bits of enum sl_guard_port. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SL_GUARD_PORTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u32);
} guard_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SL_GUARD_ADDRS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sl_guard_addr);
	__type(value, __u32);
} guard_addrs SEC(".maps");

/* Frozen by the daemon: only the program writes, so that the descriptor may be given away. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sl_guard_counts);
} guard_count SEC(".maps");

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
	__u8 offset;
	__u8 flags;
	__be16 window;
	__be16 checksum;
	__be16 urgent;
};

#define TCP_SYN 0x02
#define TCP_ACK 0x10

struct syn {
	__u32 family;
	__be32 src[4]; /* IPv4 in the first */
	__be32 dst[4];
	__u16 src_port; /* host order */
	__u16 dst_port;
};

enum kind {
	NOT_SYN = 0,
	SYN,
	UNREAD,
};

/* From the network header, which is at a different place on devices without link-layer header. */
static __always_inline int load(struct __sk_buff *skb, __u32 at, void *to, __u32 n)
{
	return bpf_skb_load_bytes_relative(skb, at, to, n, BPF_HDR_START_NET);
}

static __always_inline enum kind read_tcp(struct __sk_buff *skb, __u32 at, struct syn *syn)
{
	struct tcp_head tcp;

	if (load(skb, at, &tcp, sizeof(tcp)) < 0)
		return UNREAD;
	if ((tcp.flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return NOT_SYN;
	syn->src_port = bpf_ntohs(tcp.src);
	syn->dst_port = bpf_ntohs(tcp.dst);
	return SYN;
}

static __always_inline enum kind read4(struct __sk_buff *skb, struct syn *syn)
{
	struct ipv4_head ip;
	__u32 length;

	if (load(skb, 0, &ip, sizeof(ip)) < 0 || ip.protocol != IPPROTO_TCP)
		return NOT_SYN;
	length = (ip.version_ihl & 0xf) * 4;
	if (ip.version_ihl >> 4 != 4 || length < sizeof(ip))
		return NOT_SYN;
	/* More fragments, or an offset. */
	if (ip.fragment & bpf_htons(0x3fff))
		return UNREAD;
	syn->family = AF_INET;
	syn->src[0] = ip.src;
	syn->dst[0] = ip.dst;
	return read_tcp(skb, length, syn);
}

/* RFC 8200 section 4; the length of an AH is RFC 4302's. */
static __always_inline enum kind read6(struct __sk_buff *skb, struct syn *syn)
{
	struct ipv6_head ip;
	__u32 at = sizeof(ip);
	__u8 next;

	if (load(skb, 0, &ip, sizeof(ip)) < 0)
		return NOT_SYN;
	syn->family = AF_INET6;
	__builtin_memcpy(syn->src, ip.src, 16);
	__builtin_memcpy(syn->dst, ip.dst, 16);
	next = ip.next;
	for (int i = 0; i <= MAX_EXTENSIONS; i++) {
		__u8 head[4]; /* next header, length, and of a fragment its offset */

		if (next == IPPROTO_TCP)
			return read_tcp(skb, at, syn);
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_AH && next != IPPROTO_FRAGMENT)
			return NOT_SYN;
		if (load(skb, at, head, sizeof(head)) < 0)
			return UNREAD;
		if (next == IPPROTO_FRAGMENT) {
			/* An atomic fragment is whole (RFC 6946). */
			if (head[2] || head[3] & ~0x06)
				return UNREAD;
			at += 8;
		} else if (next == IPPROTO_AH) {
			at += (head[1] + 2) * 4;
		} else {
			at += (head[1] + 1) * 8;
		}
		next = head[0];
	}
	return UNREAD;
}

static __always_inline int is_listening(const struct syn *syn)
{
	__u32 is4 = syn->family == AF_INET;
	struct sl_guard_addr addr = { .family = syn->family, .port = syn->dst_port };
	__u32 port = syn->dst_port;
	__u32 *bits = bpf_map_lookup_elem(&guard_ports, &port);

	if (!bits)
		return 0;
	if (*bits & (is4 ? SL_GUARD_ANY4 : SL_GUARD_ANY6))
		return 1;
	if (!(*bits & (is4 ? SL_GUARD_SOME4 : SL_GUARD_SOME6)))
		return 0;
	__builtin_memcpy(addr.ip, syn->dst, 16);
	return bpf_map_lookup_elem(&guard_addrs, &addr) != 0;
}

/*
 * The number of ranges that begin at or below the address, by steps that halve. An index
 * beyond the table is one beyond the address, so that the table needs no count.
 */
static __always_inline int is_denied4(__be32 address)
{
	__u32 ip = bpf_ntohl(address);
	__u32 zero = 0;
	void *set = bpf_map_lookup_elem(&guard_deny4, &zero);
	struct sl_guard_range4 *r;
	__u32 n = 0;
	__u32 at;

	if (!set)
		return 0;
	for (__u32 step = SL_GUARD_RANGES / 2; step; step /= 2) {
		at = n + step - 1;
		r = bpf_map_lookup_elem(set, &at);
		if (r && bpf_ntohl(*(__be32 *)r->from) <= ip)
			n += step;
	}
	at = n - 1;
	r = bpf_map_lookup_elem(set, &at);
	return r && ip <= bpf_ntohl(*(__be32 *)r->to);
}

struct ip6 {
	__u64 hi;
	__u64 lo;
};

static __always_inline struct ip6 load_ip6(const void *p)
{
	const __be64 *half = p;

	return (struct ip6){ bpf_be64_to_cpu(half[0]), bpf_be64_to_cpu(half[1]) };
}

static __always_inline int is_above(struct ip6 a, struct ip6 b)
{
	return a.hi != b.hi ? a.hi > b.hi : a.lo > b.lo;
}

static __always_inline int is_denied6(const __be32 address[4])
{
	struct ip6 ip = { (__u64)bpf_ntohl(address[0]) << 32 | bpf_ntohl(address[1]),
			  (__u64)bpf_ntohl(address[2]) << 32 | bpf_ntohl(address[3]) };
	__u32 zero = 0;
	void *set = bpf_map_lookup_elem(&guard_deny6, &zero);
	struct sl_guard_range6 *r;
	__u32 n = 0;
	__u32 at;

	if (!set)
		return 0;
	for (__u32 step = SL_GUARD_RANGES / 2; step; step /= 2) {
		at = n + step - 1;
		r = bpf_map_lookup_elem(set, &at);
		if (r && !is_above(load_ip6(r->from), ip))
			n += step;
	}
	at = n - 1;
	r = bpf_map_lookup_elem(set, &at);
	return r && !is_above(ip, load_ip6(r->to));
}

/*
 * The frame was sent to this host; so was the packet if routing would not send it on,
 * be it that its destination is local or that this interface forwards nothing.
 */
static __always_inline int is_for_us(struct __sk_buff *skb, const struct syn *syn)
{
	struct bpf_fib_lookup fib = { .family = (__u8)syn->family,
				      .l4_protocol = IPPROTO_TCP,
				      .sport = bpf_htons(syn->src_port),
				      .dport = bpf_htons(syn->dst_port),
				      .ifindex = skb->ifindex };
	long r;

	if (syn->family == AF_INET) {
		fib.ipv4_src = syn->src[0];
		fib.ipv4_dst = syn->dst[0];
	} else {
		__builtin_memcpy(fib.ipv6_src, syn->src, 16);
		__builtin_memcpy(fib.ipv6_dst, syn->dst, 16);
	}
	r = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	return r == BPF_FIB_LKUP_RET_NOT_FWDED || r == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

static __always_inline enum kind read(struct __sk_buff *skb, struct syn *syn)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return read4(skb, syn);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return read6(skb, syn);
	return NOT_SYN;
}

/*
 * The barrier keeps the compiler from merging branches into one addition with a computed
 * pointer, which is not allowed without CAP_PERFMON.
 */
static __always_inline void add_one(__u64 *n)
{
	asm volatile("" : "+r"(n));
	__sync_fetch_and_add(n, 1);
}

static __always_inline enum verdict decide(struct __sk_buff *skb, const struct syn *syn,
					   struct sl_guard_counts *n)
{
	__u32 is4 = syn->family == AF_INET;

	if (is4 ? !is_denied4(syn->src[0]) : !is_denied6(syn->src)) {
		if (is4)
			add_one(&n->passed4);
		else
			add_one(&n->passed6);
		return GO_ON;
	}
	if (!is_for_us(skb, syn)) {
		add_one(&n->forwarded);
		return GO_ON;
	}
	if (is4)
		add_one(&n->dropped4);
	else
		add_one(&n->dropped6);
	return DROP;
}

SEC("tc")
int sl_guard(struct __sk_buff *skb)
{
	struct sl_guard_counts *n;
	struct syn syn = { 0 };
	enum kind kind;
	__u32 zero = 0;

	if (skb->pkt_type != PACKET_HOST)
		return GO_ON;
	/* With a tag it is for a VLAN device, where it is seen again; id 0 is only a priority. */
	if (skb->vlan_present && (skb->vlan_tci & VLAN_VID_MASK))
		return GO_ON;
	kind = read(skb, &syn);
	if (kind == NOT_SYN)
		return GO_ON;
	n = bpf_map_lookup_elem(&guard_count, &zero);
	if (!n)
		return GO_ON;
	if (kind == UNREAD) {
		add_one(&n->unread);
		return GO_ON;
	}
	return is_listening(&syn) ? decide(skb, &syn, n) : GO_ON;
}

char LICENSE[] SEC("license") = "GPL";
