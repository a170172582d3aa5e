// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Two established TCP connections rewritten into each other: what a client sends to us leaves
 * as if we had sent it to the backend, and back. An entry per direction says how. What is not
 * of an entry is not touched: the next program and the stack see it as it came.
 *
 * sl_packet_tc	     ingress of every device a packet of a flow may come through
 * sl_packet_control run by the daemon: makes, ends and changes entries
 * sl_packet_freeze  on a socket: acknowledgements and RSTs are heard, nothing else
 */
#include "packet.h"
#include "packet_close.h"
#include "packet_control.h"
#include "packet_icmp.h"
#include "packet_odd.h"
#include "packet_options.h"

/* Names of routes, for whoever reads the entries: the daemon after a restart, a person. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct sl_packet_route);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sl_packet_meta);
} meta SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sl_packet_ports);
} ports SEC(".maps");

/* RFC 1122 section 3.3.3: what every host takes, so that small packets need no question. */
#define ALWAYS_FITS 576

/* The MTU if the packet, or each segment it will be cut into, does not fit; else 0. */
static __always_inline __u32 exceeded_mtu(struct __sk_buff *skb, const struct segment *s)
{
	__u32 gso = skb->gso_size;
	__u32 length = gso && s->payload > gso ? s->length - s->payload + gso : s->length;
	__u32 mtu = 1;

	if (length <= ALWAYS_FITS)
		return 0;
	/* Asks about one octet, so that the answer is the device's MTU and not an error. */
	if (bpf_check_mtu(skb, s->flow->ifindex, &mtu, 0, 0) < 0 || mtu <= 1)
		return 0;
	return length > mtu ? mtu & MTU_MASK : 0;
}

static __always_inline __u32 count_segments(const struct __sk_buff *skb, const struct segment *s)
{
	__u32 gso = skb->gso_size;

	if (skb->gso_segs)
		return skb->gso_segs;
	return gso ? (s->payload + gso - 1) / gso : 1;
}

/*
 * Before activation the sockets are still ours, and their numbers must not move any more. A RST
 * goes up: it would not come again, and who looks at the sockets sees what it has done.
 */
static __always_inline int hold_back(const struct segment *s)
{
	if (s->payload || s->flags & (TCP_FIN | TCP_SYN)) {
		COUNT(starting_dropped);
		return dropped(s->flow);
	}
	COUNT(starting_passed);
	return GO_ON;
}

/* What there is to say about a packet of an entry before it is touched. */
static __always_inline int decide(struct __sk_buff *skb, const struct sl_packet_key *key,
				  const struct tcp_head *tcp, __u8 ttl, struct segment *s)
{
	struct sl_packet_flow *f = s->flow;
	enum sl_packet_state state = *(volatile enum sl_packet_state *)&f->state;
	__u32 mtu;

	if (read_segment(tcp, s) < 0) {
		COUNT(malformed_dropped);
		return dropped(f);
	}
	if (state == SL_PACKET_STARTING)
		return hold_back(s);
	if ((s->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && give_up_finished(f, key))
		return GO_ON;
	if (state != SL_PACKET_ACTIVE)
		return STEP_KILLED;
	if (ttl <= 1) {
		COUNT(ttl_dropped);
		return dropped(f);
	}
	mtu = exceeded_mtu(skb, s);
	if (mtu) {
		dropped(f);
		return STEP_TOO_BIG | (int)mtu;
	}
	return FORWARD;
}

/*
 * Options, timestamps aside, are rare: SACK blocks after a loss. -1: unreadable.
 * 1: there is nothing but `times`, which are rewritten.
 */
static __always_inline int rewrite_rest(struct __sk_buff *skb, const struct segment *s,
					struct tcp_times *times, struct change *c)
{
	struct sl_packet_flow *f = s->flow;
	__s64 sum;

	if (s->tcp_length == TCP_PLAIN)
		return 0;
	if (s->tcp_length == TCP_TIMED && times->layout == bpf_htonl(TIMES_LAYOUT)) {
		if (!is_injected(s->mark))
			note_times(f, times);
		rewrite_times(times, f, c);
		return 1;
	}
	sum = rewrite_options(skb, s, f);
	if (sum < 0)
		return -1;
	c->segment += (__u64)sum;
	return 0;
}

/*
 * The last steps. With CHECKSUM_PARTIAL the field has the sum over the pseudo header alone, so
 * the two changes go in apart. With CHECKSUM_COMPLETE the first call subtracts what has changed
 * in the pseudo header, as suits IPv4, whose header sums up to the same before and after; an
 * IPv6 header does not, which the third call says.
 */
static __always_inline int finish(struct __sk_buff *skb, const struct segment *s,
				  const struct change *c, const int is6)
{
	__u32 at = s->l4 + offsetof(struct tcp_head, checksum);
	struct sl_packet_flow *f = s->flow;

	if (bpf_l4_csum_replace(skb, at, 0, fold32(c->addresses), BPF_F_PSEUDO_HDR) < 0 ||
	    bpf_l4_csum_replace(skb, at, 0, fold32(c->segment), 0) < 0)
		return dropped(f);
	if (is6)
		bpf_csum_update(skb, fold32(c->addresses + c->rest));
	if (!is_injected(s->mark)) {
		note(f, s);
		if (concerns_close(f, s))
			follow_close(f, s);
	}
	COUNT(forwarded_tc);
	return send(skb, s->l3, f->ifindex);
}

/* The length of the packet without padding; BIG TCP has none in the header. */
static __always_inline __u32 whole_length(const struct __sk_buff *skb, __u32 l3, __u32 length)
{
	return length || !skb->gso_size ? length : skb->len - l3;
}

static __noinline int forward4(struct __sk_buff *skb, struct segment *s)
{
	struct sl_packet_key key;
	struct change c = { 0 };
	struct packet4 p;
	const __u32 heads = sizeof(p.ip) + TCP_PLAIN;
	int r;

	/* Most have timestamps; what stands in their place otherwise is not looked at. */
	if (bpf_skb_load_bytes(skb, s->l3, &p, sizeof(p)) < 0 &&
	    bpf_skb_load_bytes(skb, s->l3, &p, heads) < 0)
		return STEP_ODD;
	if (p.ip.protocol != IPPROTO_TCP)
		return p.ip.protocol == IPPROTO_ICMP ? STEP_ICMP : GO_ON;
	if (p.ip.version_ihl != IPV4_PLAIN || p.ip.fragment & bpf_htons(IPV4_MF | IPV4_OFFSET))
		return STEP_ODD;
	key_of4(&p.ip, p.tcp.src, p.tcp.dst, &key);
	s->flow = bpf_map_lookup_elem(&flows, &key);
	if (!s->flow)
		return GO_ON;
	s->l4 = s->l3 + sizeof(p.ip);
	s->length = whole_length(skb, s->l3, bpf_ntohs(p.ip.total));
	if (s->length > skb->len - s->l3)
		s->length = 0; /* found to be too short in a moment */
	r = decide(skb, &key, &p.tcp, p.ip.ttl, s);
	if (r != FORWARD)
		return r;
	s->segments = count_segments(skb, s);
	s->mark = skb->mark;
	rewrite_ip4(&p.ip, s->flow, &c);
	rewrite_tcp(&p.tcp, s, &c);
	r = rewrite_rest(skb, s, &p.times, &c);
	if (r < 0 || bpf_skb_store_bytes(skb, s->l3, &p, r ? sizeof(p) : heads, 0) < 0)
		return dropped(s->flow);
	return finish(skb, s, &c, 0);
}

static __noinline int forward6(struct __sk_buff *skb, struct segment *s)
{
	struct sl_packet_key key;
	struct change c = { 0 };
	struct packet6 p;
	const __u32 heads = sizeof(p.ip) + TCP_PLAIN;
	__u32 payload;
	int r;

	/* Most have timestamps; what stands in their place otherwise is not looked at. */
	if (bpf_skb_load_bytes(skb, s->l3, &p, sizeof(p)) < 0 &&
	    bpf_skb_load_bytes(skb, s->l3, &p, heads) < 0)
		return STEP_ODD;
	if (p.ip.next == IPPROTO_ICMPV6)
		return STEP_ICMP;
	if (!is_version6(&p.ip))
		return GO_ON;
	if (p.ip.next != IPPROTO_TCP)
		return is_extension(p.ip.next) ? STEP_ODD : GO_ON;
	key_of6(&p.ip, p.tcp.src, p.tcp.dst, &key);
	s->flow = bpf_map_lookup_elem(&flows, &key);
	if (!s->flow)
		return GO_ON;
	s->l4 = s->l3 + sizeof(p.ip);
	payload = bpf_ntohs(p.ip.payload);
	s->length = whole_length(skb, s->l3, payload ? payload + sizeof(p.ip) : 0);
	if (s->length > skb->len - s->l3)
		s->length = 0; /* found to be too short in a moment */
	r = decide(skb, &key, &p.tcp, p.ip.hops, s);
	if (r != FORWARD)
		return r;
	s->segments = count_segments(skb, s);
	s->mark = skb->mark;
	rewrite_ip6(&p.ip, s->flow, &c);
	rewrite_tcp(&p.tcp, s, &c);
	r = rewrite_rest(skb, s, &p.times, &c);
	if (r < 0 || bpf_skb_store_bytes(skb, s->l3, &p, r ? sizeof(p) : heads, 0) < 0)
		return dropped(s->flow);
	return finish(skb, s, &c, 1);
}

static __always_inline int run4(struct __sk_buff *skb, struct segment *s)
{
	int step = forward4(skb, s);

	if (step == STEP_ODD)
		return handle_odd4(skb, s->l3);
	if (step == STEP_ICMP)
		return handle_icmp4(skb, s->l3);
	if (step == STEP_KILLED)
		return s->flow ? answer_killed4(skb, s, s->flow) : DROP;
	if (step >= STEP_TOO_BIG)
		return s->flow ? answer_too_big4(skb, s, step & MTU_MASK, s->flow->peer_ifindex)
			       : DROP;
	return step;
}

static __always_inline int run6(struct __sk_buff *skb, struct segment *s)
{
	int step = forward6(skb, s);

	if (step == STEP_ODD)
		return handle_odd6(skb, s->l3);
	if (step == STEP_ICMP)
		return handle_icmp6(skb, s->l3);
	if (step == STEP_KILLED)
		return s->flow ? answer_killed6(skb, s, s->flow) : DROP;
	if (step >= STEP_TOO_BIG)
		return s->flow ? answer_too_big6(skb, s, step & MTU_MASK, s->flow->peer_ifindex)
			       : DROP;
	return step;
}

/*
 * A tag inside of a priority tag: the stack takes off the outer one and looks on, and so do we,
 * lest it finds a segment of ours inside.
 */
static __always_inline int uncover_tag(struct __sk_buff *skb)
{
	if (!skb->vlan_present || skb->vlan_tci & VLAN_VID_MASK ||
	    (skb->protocol != bpf_htons(ETH_P_8021Q) && skb->protocol != bpf_htons(ETH_P_8021AD)))
		return 0;
	return bpf_skb_vlan_pop(skb) < 0 ? -1 : 0;
}

SEC("tc")
int sl_packet_tc(struct __sk_buff *skb)
{
	struct segment s = { 0 };
	int is6, l3;

	if (uncover_tag(skb) < 0)
		return DROP;
	is6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	if (!is6 && skb->protocol != bpf_htons(ETH_P_IP))
		return GO_ON;
	/* Frames for other hosts are seen in promiscuous mode. Injected ones have no address. */
	if (skb->pkt_type != PACKET_HOST && !is_injected(skb->mark))
		return GO_ON;
	if (skb->vlan_present && skb->vlan_tci & VLAN_VID_MASK) {
		COUNT(vlan_passed);
		return GO_ON;
	}
	l3 = find_ip(skb, is6 ? 6 : 4);
	if (l3 < 0)
		return GO_ON;
	s.l3 = (__u32)l3;
	return is6 ? run6(skb, &s) : run4(skb, &s);
}

/* The TCP flags, from where a TCP socket's filter begins to read. */
#define TCP_FLAGS_AT 13

/*
 * What would move the numbering is dropped and will come again; of all else the header alone
 * arrives. That a RST does, or a connection reset meanwhile would never be known to be over.
 * The length returned is at least the header's (sk_filter_trim_cap).
 */
SEC("socket")
int sl_packet_freeze(struct __sk_buff *skb)
{
	__u8 flags;

	if (bpf_skb_load_bytes(skb, TCP_FLAGS_AT, &flags, sizeof(flags)) < 0)
		return 0;
	return flags & (TCP_FIN | TCP_SYN) ? 0 : 1;
}

SEC("tc")
int sl_packet_control(struct __sk_buff *skb)
{
	return control(skb);
}

char LICENSE[] SEC("license") = "GPL";
