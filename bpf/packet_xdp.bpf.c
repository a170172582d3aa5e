// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The short way for what there is most of: data and acknowledgements of established pairs,
 * before the kernel makes an skb of them. Whatever is not plain, and whatever is in doubt, goes
 * on to the TC program, which is always there as well and knows all the cases. For devices that
 * fill in checksums only (not CHECKSUM_PARTIAL from a local sender): XDP is not told which do, so
 * it is attached only where it is asked for.
 * For whom a frame is, XDP is not told: a device in promiscuous mode that is flooded with frames
 * for another host of the same IP address would forward them, too.
 */
#include "packet.h"

/* Of a known tuple, left to TC. */
static __always_inline int leave(void)
{
	COUNT(xdp_passed);
	return XDP_PASS;
}

static __always_inline int is_plain(const struct tcp_head *tcp)
{
	return (tcp->flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_URG | TCP_ACK)) == TCP_ACK;
}

/* A close is followed by TC. */
static __always_inline int is_in_force(const struct sl_packet_flow *f, const struct segment *s)
{
	return f->state == SL_PACKET_ACTIVE && !concerns_close(f, s);
}

/* The lengths agree with each other and with the frame, and no option is there but `times`. */
static __always_inline int fits_frame(struct xdp_md *ctx, const struct tcp_head *tcp,
				      const struct tcp_times *times, struct segment *s)
{
	const void *end = (const void *)(long)ctx->data_end;

	if (sizeof(struct eth_head) + s->length > bpf_xdp_get_buff_len(ctx))
		return 0;
	if (read_segment(tcp, s) < 0)
		return 0;
	if (s->tcp_length == TCP_PLAIN)
		return 1;
	return s->tcp_length == TCP_TIMED && (const void *)(times + 1) <= end &&
	       times->layout == bpf_htonl(TIMES_LAYOUT);
}

/*
 * Route, neighbour and MTU. Only for the device of the entry; without forwarding enabled on the
 * way in the kernel gives no answer, and TC forwards.
 */
static __always_inline int find_way(struct xdp_md *ctx, const struct sl_packet_flow *f,
				    const struct segment *s, struct bpf_fib_lookup *fib)
{
	fib->l4_protocol = IPPROTO_TCP;
	fib->sport = bpf_htons(f->new_sport);
	fib->dport = bpf_htons(f->new_dport);
	fib->tot_len = (__u16)s->length;
	fib->ifindex = ctx->ingress_ifindex;
	if (bpf_fib_lookup(ctx, fib, sizeof(*fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return -1;
	return fib->ifindex == f->ifindex ? 0 : -1;
}

/* From here on nothing can go wrong: the accounts, then the packet. */
static __always_inline int forward(struct eth_head *eth, struct tcp_head *tcp,
				   struct tcp_times *times, struct segment *s, struct change *c,
				   const struct bpf_fib_lookup *fib)
{
	struct sl_packet_flow *f = s->flow;

	note(f, s);
	rewrite_tcp(tcp, s, c);
	if (s->tcp_length == TCP_TIMED) {
		note_times(f, times);
		rewrite_times(times, f, c);
	}
	tcp->checksum = (__u16)~fold16((__u64)fold32(c->addresses) + fold32(c->segment) +
				       (__u16)~tcp->checksum);
	__builtin_memcpy(eth->dst, fib->dmac, sizeof(eth->dst));
	__builtin_memcpy(eth->src, fib->smac, sizeof(eth->src));
	COUNT(forwarded_xdp);
	return (int)bpf_redirect(f->ifindex, 0);
}

static __noinline int forward4(struct xdp_md *ctx)
{
	struct eth_head *eth = (struct eth_head *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct packet4 *p = (struct packet4 *)(eth + 1);
	struct bpf_fib_lookup fib = { .family = AF_INET };
	struct segment s = { .l4 = sizeof(p->ip), .segments = 1 };
	struct change c = { 0 };
	struct sl_packet_key key;

	if ((void *)&p->times > end || p->ip.protocol != IPPROTO_TCP ||
	    p->ip.version_ihl != IPV4_PLAIN || p->ip.fragment & bpf_htons(IPV4_MF | IPV4_OFFSET))
		return XDP_PASS;
	key_of4(&p->ip, p->tcp.src, p->tcp.dst, &key);
	s.flow = bpf_map_lookup_elem(&flows, &key);
	if (!s.flow)
		return XDP_PASS;
	s.length = bpf_ntohs(p->ip.total);
	if (!is_plain(&p->tcp) || !fits_frame(ctx, &p->tcp, &p->times, &s) || p->ip.ttl <= 1 ||
	    !is_in_force(s.flow, &s))
		return leave();
	fib.tos = p->ip.tos;
	fib.ipv4_src = get_ip4(s.flow->new_saddr);
	fib.ipv4_dst = get_ip4(s.flow->new_daddr);
	if (find_way(ctx, s.flow, &s, &fib) < 0)
		return leave();
	rewrite_ip4(&p->ip, s.flow, &c);
	return forward(eth, &p->tcp, &p->times, &s, &c, &fib);
}

static __noinline int forward6(struct xdp_md *ctx)
{
	struct eth_head *eth = (struct eth_head *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct packet6 *p = (struct packet6 *)(eth + 1);
	struct bpf_fib_lookup fib = { .family = AF_INET6 };
	struct segment s = { .l4 = sizeof(p->ip), .segments = 1 };
	struct change c = { 0 };
	struct sl_packet_key key;

	if ((void *)&p->times > end || !is_version6(&p->ip) || p->ip.next != IPPROTO_TCP)
		return XDP_PASS;
	key_of6(&p->ip, p->tcp.src, p->tcp.dst, &key);
	s.flow = bpf_map_lookup_elem(&flows, &key);
	if (!s.flow)
		return XDP_PASS;
	s.length = bpf_ntohs(p->ip.payload) + sizeof(p->ip);
	if (!is_plain(&p->tcp) || !fits_frame(ctx, &p->tcp, &p->times, &s) || p->ip.hops <= 1 ||
	    !is_in_force(s.flow, &s))
		return leave();
	fib.flowinfo = p->ip.version_class_flow & bpf_htonl(0x0fffffff);
	copy_address(fib.ipv6_src, s.flow->new_saddr);
	copy_address(fib.ipv6_dst, s.flow->new_daddr);
	if (find_way(ctx, s.flow, &s, &fib) < 0)
		return leave();
	rewrite_ip6(&p->ip, s.flow, &c);
	return forward(eth, &p->tcp, &p->times, &s, &c, &fib);
}

SEC("xdp.frags")
int sl_packet_xdp(struct xdp_md *ctx)
{
	const struct eth_head *eth = (const struct eth_head *)(long)ctx->data;

	/* Nothing of ours is sent to a group of hosts. */
	if ((const void *)(eth + 1) > (const void *)(long)ctx->data_end || eth->dst[0] & 1)
		return XDP_PASS;
	if (eth->proto == bpf_htons(ETH_P_IP))
		return forward4(ctx);
	if (eth->proto == bpf_htons(ETH_P_IPV6))
		return forward6(ctx);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
