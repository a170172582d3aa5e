/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BPF_PACKET_CONTROL_H
#define SL_BPF_PACKET_CONTROL_H

/*
 * What the daemon asks for, one request at a time, in the namespace of the devices. Run by
 * BPF_PROG_TEST_RUN with a frame of at least 60 octets whose type is that of the flow (0x0800
 * or 0x86dd): the frame is what packets are made of that have to be injected.
 */
#include <bpf/bpf_core_read.h>

#include "packet_kernel.h"
#include "packet_tc.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sl_packet_request);
} packet_request SEC(".maps");

#define TCP_ESTABLISHED 1

/* ---- sockets ---- */

static __always_inline struct bpf_sock *find_socket(struct __sk_buff *skb,
						    const struct sl_packet_key *key)
{
	struct bpf_sock_tuple t = { 0 };

	if (is_ip4(key->saddr)) {
		t.ipv4.saddr = get_ip4(key->saddr);
		t.ipv4.daddr = get_ip4(key->daddr);
		t.ipv4.sport = bpf_htons(key->sport);
		t.ipv4.dport = bpf_htons(key->dport);
		return bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	copy_address(t.ipv6.saddr, key->saddr);
	copy_address(t.ipv6.daddr, key->daddr);
	t.ipv6.sport = bpf_htons(key->sport);
	t.ipv6.dport = bpf_htons(key->dport);
	return bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* The device of the cached route; a route that is dead has an `obsolete` other than these. */
static __always_inline __u32 route_device(struct tcp_sock *tp)
{
	struct dst_entry *dst = tp->inet_conn.icsk_inet.sk.sk_dst_cache;
	struct net_device *dev;

	if (!dst || (dst->obsolete != 0 && dst->obsolete != -1))
		return 0;
	dev = dst->dev;
	return dev ? (__u32)dev->ifindex : 0;
}

static __always_inline int has_signatures(struct tcp_sock *tp)
{
	if (bpf_core_field_exists(tp->md5sig_info) && tp->md5sig_info)
		return 1;
	return bpf_core_field_exists(tp->ao_info) && tp->ao_info;
}

static __always_inline void copy_socket(struct tcp_sock *tp, struct sl_packet_sock *to)
{
	to->cookie = (__u64)tp->inet_conn.icsk_inet.sk.__sk_common.skc_cookie.counter;
	to->state = tp->inet_conn.icsk_inet.sk.__sk_common.skc_state;
	to->rcv_nxt = tp->rcv_nxt;
	to->rcv_wup = tp->rcv_wup;
	to->rcv_edge = tp->rcv_wup + tp->rcv_wnd;
	to->copied_seq = tp->copied_seq;
	to->snd_una = tp->snd_una;
	to->snd_nxt = tp->snd_nxt;
	to->write_seq = tp->write_seq;
	to->ts_recent = tp->rx_opt.ts_recent;
	to->out_ifindex = route_device(tp);
	to->in_ifindex = 0;
	if (bpf_core_field_exists(tp->inet_conn.icsk_inet.sk.sk_rx_dst_ifindex))
		to->in_ifindex = (__u32)tp->inet_conn.icsk_inet.sk.sk_rx_dst_ifindex;
	to->out_of_order = tp->out_of_order_queue.rb_node != 0;
	to->backlog = tp->inet_conn.icsk_inet.sk.sk_backlog.len != 0;
	to->urgent = tp->urg_data != 0;
	to->md5 = has_signatures(tp) != 0;
}

/* last_tsecr is what the socket has echoed to it. */
static __noinline int read_socket(struct __sk_buff *skb, struct sl_packet_request *r, __u32 side)
{
	struct bpf_sock *sk;
	struct tcp_sock *tp;

	side &= 1;
	sk = find_socket(skb, &r->key[side]);
	if (!sk)
		return -1;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp) {
		copy_socket(tp, &r->sock[side]);
		r->flow[side].last_tsecr = tp->rx_opt.rcv_tsecr;
	}
	bpf_sk_release(sk);
	return tp ? 0 : -1;
}

static __always_inline enum sl_packet_result judge(const struct sl_packet_request *r, int side)
{
	const struct sl_packet_sock *s = &r->sock[side];

	if (s->cookie != r->cookie[side])
		return SL_PACKET_NO_SOCKET;
	if (s->state != TCP_ESTABLISHED)
		return SL_PACKET_NOT_ESTABLISHED;
	if (s->md5)
		return SL_PACKET_MD5;
	if (s->urgent)
		return SL_PACKET_URGENT;
	if (!sl_packet_is_quiet(s))
		return SL_PACKET_NOT_QUIET;
	return r->ifindex[side] || s->out_ifindex ? SL_PACKET_DONE : SL_PACKET_NO_DEVICE;
}

/* A cookie of 0 is any. */
static __always_inline enum sl_packet_result look(struct __sk_buff *skb,
						  struct sl_packet_request *r)
{
	for (__u32 i = 0; i < 2; i++) {
		if (read_socket(skb, r, i) < 0)
			return SL_PACKET_NO_SOCKET;
		if (r->cookie[i] && r->cookie[i] != r->sock[i].cookie)
			return SL_PACKET_NO_SOCKET;
	}
	return SL_PACKET_DONE;
}

/* ---- COMMIT ---- */

/* All that can be told from the keys; the accounts begin at nothing. */
static __always_inline void prepare(struct sl_packet_request *r, const int side)
{
	const struct sl_packet_key *key = &r->key[side];
	const struct sl_packet_key *other = &r->key[!side];
	struct sl_packet_flow *f = &r->flow[side];

	copy_address(f->new_saddr, other->daddr);
	copy_address(f->new_daddr, other->saddr);
	f->new_sport = other->dport;
	f->new_dport = other->sport;
	f->family = is_ip4(key->saddr) ? 4 : 6;
	f->state = SL_PACKET_STARTING;
	f->from = side;
	f->fin = f->peer_fin = f->peer_fin_acked = f->rst = 0;
	f->fin_seq = f->peer_fin_seq = 0;
	f->drops = f->restarts = 0;
	f->packets = f->bytes = 0;
	f->killed_ns = 0;
	f->told = 0;
	f->last_ns = f->last_data_ns = bpf_ktime_get_coarse_ns();
	f->peer_window_shift = r->flow[!side].window_shift;
	f->conn_id = r->conn_id;
}

/*
 * Any value but 0 is an error. Before Linux 6.4 the kernel's functions return an int here whose
 * upper half nobody fills: as the long of the helper it is positive, and "< 0" never true.
 */
static __always_inline enum sl_packet_result add_entry(const struct sl_packet_key *key,
						       const struct sl_packet_flow *flow)
{
	return bpf_map_update_elem(&flows, key, flow, BPF_NOEXIST) ? SL_PACKET_MAP_FULL
								   : SL_PACKET_DONE;
}

/*
 * An entry is never replaced, whoever's it is: one of this very connection says that it has
 * been handed over before. Only a finished pair makes room, as it does for a SYN.
 */
static __always_inline enum sl_packet_result insert(struct sl_packet_request *r, const int side)
{
	struct sl_packet_key *key = &r->key[side];
	struct sl_packet_flow *f = bpf_map_lookup_elem(&flows, key);

	if (f && (f->conn_id == r->conn_id || !give_up_finished(f, key)))
		return SL_PACKET_TAKEN;
	return add_entry(key, &r->flow[side]);
}

/*
 * Numbers of one connection into those of the other: the next octet the peer sends is the next
 * one we would have sent, and what it has acknowledged is what we have received.
 *
 * Timestamps: the peer's last one becomes our own clock of now. That is not below any we have
 * sent, and equal is enough (RFC 7323 section 5.3, R1), so the receiver takes the next packet.
 * From there on the peer's clock ticks and ours is no longer heard, if only our socket sends
 * nothing any more: the daemon has flushed its delayed acknowledgement before it read the clock.
 */
static __always_inline void link(const struct sl_packet_request *r, const int side,
				 struct sl_packet_flow *f)
{
	const struct sl_packet_sock *own = &r->sock[side];
	const struct sl_packet_sock *other = &r->sock[!side];

	f->ifindex = r->ifindex[!side];
	f->peer_ifindex = r->ifindex[side];
	f->seq_delta = other->snd_nxt - own->rcv_nxt;
	f->ack_delta = other->rcv_nxt - own->snd_nxt;
	f->max_seq = own->rcv_nxt;
	f->max_ack = own->snd_una;
	f->promised = other->rcv_edge - f->ack_delta;
	f->offered = own->snd_una;
	f->within = other->snd_nxt;
	f->is_promised = f->may_overrun = 1;
	f->closed_at = 0;
	f->tsval_delta = f->tsecr_delta = 0;
	f->last_tsval = f->last_tsecr = 0;
	if (!f->has_timestamps)
		return;
	f->tsval_delta = r->ts_now[!side] - own->ts_recent;
	f->tsecr_delta = other->ts_recent - r->ts_now[side];
	f->last_tsval = own->ts_recent;
	f->last_tsecr = r->flow[side].last_tsecr;
}

/* Exchanged, which is a full barrier: whoever sees the state sees the rest. */
static __always_inline void publish(struct sl_packet_flow *f, enum sl_packet_state state)
{
	__sync_lock_test_and_set((__u32 *)&f->state, state);
}

static __always_inline enum sl_packet_result activate(struct sl_packet_request *r)
{
	struct sl_packet_flow *client = bpf_map_lookup_elem(&flows, &r->key[0]);
	struct sl_packet_flow *backend = bpf_map_lookup_elem(&flows, &r->key[1]);

	if (!client || !backend)
		return SL_PACKET_NO_FLOW;
	if (!r->ifindex[0])
		r->ifindex[0] = r->sock[0].out_ifindex;
	if (!r->ifindex[1])
		r->ifindex[1] = r->sock[1].out_ifindex;
	link(r, SL_PACKET_CLIENT, client);
	link(r, SL_PACKET_BACKEND, backend);
	publish(client, SL_PACKET_ACTIVE);
	publish(backend, SL_PACKET_ACTIVE);
	return SL_PACKET_DONE;
}

/* With both entries there no more data reaches the sockets: now look at them. */
static __always_inline enum sl_packet_result inspect(struct __sk_buff *skb,
						     struct sl_packet_request *r)
{
	enum sl_packet_result result;

	if (read_socket(skb, r, SL_PACKET_CLIENT) < 0 || read_socket(skb, r, SL_PACKET_BACKEND) < 0)
		return SL_PACKET_NO_SOCKET;
	result = judge(r, SL_PACKET_CLIENT);
	return result ? result : judge(r, SL_PACKET_BACKEND);
}

static __always_inline enum sl_packet_result commit(struct __sk_buff *skb,
						    struct sl_packet_request *r)
{
	enum sl_packet_result result;

	prepare(r, SL_PACKET_CLIENT);
	prepare(r, SL_PACKET_BACKEND);
	if (r->flow[0].family != r->flow[1].family)
		return SL_PACKET_NO_SOCKET;
	result = insert(r, SL_PACKET_CLIENT);
	if (result)
		return result;
	result = insert(r, SL_PACKET_BACKEND);
	if (!result) {
		result = inspect(skb, r);
		if (!result)
			result = activate(r);
		if (result)
			bpf_map_delete_elem(&flows, &r->key[1]);
	}
	if (result)
		bpf_map_delete_elem(&flows, &r->key[0]);
	return result;
}

/* ---- existing pairs ---- */

struct pair {
	struct sl_packet_flow *f[2];
};

/*
 * The entries of key[0] and its reverse; if the first is gone, of key[1] and its reverse. Both
 * keys are filled then. Entries of another connection are left out.
 */
static __always_inline void find_pair(struct sl_packet_request *r, struct pair *p)
{
	p->f[0] = bpf_map_lookup_elem(&flows, &r->key[0]);
	if (p->f[0])
		reverse_key(p->f[0], &r->key[1]);
	p->f[1] = bpf_map_lookup_elem(&flows, &r->key[1]);
	if (!p->f[0] && p->f[1])
		reverse_key(p->f[1], &r->key[0]);
	if (p->f[0] && r->conn_id && p->f[0]->conn_id != r->conn_id)
		p->f[0] = 0;
	if (p->f[1] && r->conn_id && p->f[1]->conn_id != r->conn_id)
		p->f[1] = 0;
	if (p->f[0] && p->f[1] && p->f[0]->conn_id != p->f[1]->conn_id)
		p->f[1] = 0;
}

/* ---- KILL and PROBE ---- */

/* A window is asked for, though nobody takes it from a segment that is old. */
#define INJECTED_WINDOW 512
#define INJECTED_TTL 64

struct injection {
	__u32 before; /* so much less than the next sequence number */
	__u32 mark;
};

static __always_inline __u32 fill_tcp(const struct sl_packet_key *key,
				      const struct sl_packet_flow *f, __u32 before,
				      struct tcp_head *tcp, struct tcp_times *times)
{
	__u32 n = f->has_timestamps ? TCP_TIMED : TCP_PLAIN;

	*tcp = (struct tcp_head){ .src = bpf_htons(key->sport),
				  .dst = bpf_htons(key->dport),
				  .seq = bpf_htonl(f->max_seq - before),
				  .ack = bpf_htonl(f->max_ack),
				  .offset = (__u8)(n / 4 << 4),
				  .flags = TCP_ACK,
				  .window = bpf_htons(INJECTED_WINDOW) };
	*times = (struct tcp_times){ 0 };
	if (f->has_timestamps)
		*times = (struct tcp_times){ bpf_htonl(TIMES_LAYOUT), bpf_htonl(f->last_tsval),
					     bpf_htonl(f->last_tsecr) };
	return n;
}

/* Absent timestamps are zeros, which add nothing. */
static __always_inline void sum_tcp(struct tcp_head *tcp, const struct tcp_times *times,
				    __u64 pseudo)
{
	tcp->checksum = (__u16)~fold16(pseudo + sum_words(tcp, sizeof(*tcp)) +
				       sum_words(times, sizeof(*times)));
}

/* The address is nobody's: the hook knows such a frame by its mark. */
static __always_inline int inject_frame(struct __sk_buff *skb, __u32 ifindex, __u32 mark)
{
	skb->mark = mark;
	return bpf_clone_redirect(skb, ifindex, BPF_F_INGRESS) == 0 ? 0 : -1;
}

static __noinline int inject4(struct __sk_buff *skb, const struct sl_packet_key *key,
			      const struct sl_packet_flow *f, const struct injection *in)
{
	struct eth_head eth = { .proto = bpf_htons(ETH_P_IP) };
	struct packet4 p = { 0 };
	__u32 n = fill_tcp(key, f, in->before, &p.tcp, &p.times);

	p.ip = (struct ipv4_head){ .version_ihl = IPV4_PLAIN,
				   .total = bpf_htons(sizeof(p.ip) + n),
				   .fragment = bpf_htons(IPV4_DF),
				   .ttl = INJECTED_TTL,
				   .protocol = IPPROTO_TCP,
				   .src = get_ip4(key->saddr),
				   .dst = get_ip4(key->daddr) };
	p.ip.checksum = (__u16)~fold16(sum_words(&p.ip, sizeof(p.ip)));
	sum_tcp(&p.tcp, &p.times,
		(__u64)p.ip.src + p.ip.dst + bpf_htons(IPPROTO_TCP) + bpf_htons(n));
	if (bpf_skb_change_tail(skb, sizeof(eth) + sizeof(p.ip) + n, 0) < 0 ||
	    bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) < 0 ||
	    bpf_skb_store_bytes(skb, sizeof(eth), &p, sizeof(p.ip) + n, 0) < 0)
		return -1;
	return inject_frame(skb, f->peer_ifindex, in->mark);
}

static __noinline int inject6(struct __sk_buff *skb, const struct sl_packet_key *key,
			      const struct sl_packet_flow *f, const struct injection *in)
{
	struct eth_head eth = { .proto = bpf_htons(ETH_P_IPV6) };
	struct packet6 p = { 0 };
	__u32 n = fill_tcp(key, f, in->before, &p.tcp, &p.times);

	p.ip.version_class_flow = bpf_htonl(6u << 28);
	p.ip.payload = bpf_htons(n);
	p.ip.next = IPPROTO_TCP;
	p.ip.hops = INJECTED_TTL;
	copy_address(p.ip.src, key->saddr);
	copy_address(p.ip.dst, key->daddr);
	sum_tcp(&p.tcp, &p.times, sum_words(p.ip.src, 32) + bpf_htons(IPPROTO_TCP) + bpf_htons(n));
	if (bpf_skb_change_tail(skb, sizeof(eth) + sizeof(p.ip) + n, 0) < 0 ||
	    bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) < 0 ||
	    bpf_skb_store_bytes(skb, sizeof(eth), &p, sizeof(p.ip) + n, 0) < 0)
		return -1;
	return inject_frame(skb, f->peer_ifindex, in->mark);
}

static __always_inline int inject(struct __sk_buff *skb, const struct sl_packet_key *key,
				  const struct sl_packet_flow *f, __u32 before, __u32 mark)
{
	struct injection in = { .before = before, .mark = mark };

	if (f->family == 4)
		return inject4(skb, key, f, &in);
	return inject6(skb, key, f, &in);
}

/*
 * The first time one packet as if from the peer draws the RST. When asked again it may be that
 * the peer has sent more since than we have seen: a keep-alive makes it say what it expects.
 */
static __always_inline int kill_side(struct __sk_buff *skb, const struct sl_packet_key *key,
				     struct sl_packet_flow *f)
{
	int again = f->state == SL_PACKET_KILLED;
	int r;

	if (!f->killed_ns)
		f->killed_ns = bpf_ktime_get_ns();
	publish(f, SL_PACKET_KILLED);
	r = inject(skb, key, f, 0, INJECTED);
	if (again)
		r |= inject(skb, key, f, 0, INJECTED_PROBE);
	return r;
}

static __always_inline enum sl_packet_result kill(struct __sk_buff *skb,
						  struct sl_packet_request *r)
{
	struct pair p;
	int failed = 0;

	find_pair(r, &p);
	if (!p.f[0] && !p.f[1])
		return SL_PACKET_NO_FLOW;
	if (p.f[0])
		failed |= kill_side(skb, &r->key[0], p.f[0]);
	if (p.f[1])
		failed |= kill_side(skb, &r->key[1], p.f[1]);
	return failed ? SL_PACKET_NOT_SENT : SL_PACKET_DONE;
}

static __always_inline int is_active(const struct sl_packet_flow *f)
{
	return f && f->state == SL_PACKET_ACTIVE;
}

/* RFC 9293 section 3.8.4: one octet that has been acknowledged, here without the octet. */
static __always_inline enum sl_packet_result probe(struct __sk_buff *skb,
						   struct sl_packet_request *r)
{
	struct pair p;
	int failed = 0;

	find_pair(r, &p);
	if (!is_active(p.f[0]) && !is_active(p.f[1]))
		return SL_PACKET_NO_FLOW;
	if (is_active(p.f[0]))
		failed |= inject(skb, &r->key[0], p.f[0], 1, INJECTED);
	if (is_active(p.f[1]))
		failed |= inject(skb, &r->key[1], p.f[1], 1, INJECTED);
	return failed ? SL_PACKET_NOT_SENT : SL_PACKET_DONE;
}

/* ---- REMOVE, ROUTE, RESTORE ---- */

static __always_inline enum sl_packet_result remove(struct sl_packet_request *r)
{
	struct sl_packet_flow *f = bpf_map_lookup_elem(&flows, &r->key[0]);
	struct sl_packet_flow *other;

	if (f && f->conn_id != r->conn_id)
		return SL_PACKET_TAKEN;
	if (f)
		reverse_key(f, &r->key[1]);
	other = bpf_map_lookup_elem(&flows, &r->key[1]);
	if (other && other->conn_id != r->conn_id)
		return SL_PACKET_TAKEN;
	if (!f && other) {
		reverse_key(other, &r->key[0]);
		f = bpf_map_lookup_elem(&flows, &r->key[0]);
		if (f && f->conn_id != r->conn_id)
			return SL_PACKET_TAKEN;
	}
	if (f)
		bpf_map_delete_elem(&flows, &r->key[0]);
	if (other)
		bpf_map_delete_elem(&flows, &r->key[1]);
	return SL_PACKET_DONE;
}

/* 0 leaves a side as it is. */
static __always_inline void set_devices(struct sl_packet_flow *f, __u32 own, __u32 other)
{
	if (own)
		f->peer_ifindex = own;
	if (other)
		f->ifindex = other;
}

static __always_inline enum sl_packet_result route(struct sl_packet_request *r)
{
	struct pair p;

	find_pair(r, &p);
	if (!p.f[0] && !p.f[1])
		return SL_PACKET_NO_FLOW;
	if (p.f[0])
		set_devices(p.f[0], r->ifindex[0], r->ifindex[1]);
	if (p.f[1])
		set_devices(p.f[1], r->ifindex[1], r->ifindex[0]);
	return SL_PACKET_DONE;
}

/*
 * What the one direction knows of the other. Of its accounts nothing; of its numbers what has
 * been acknowledged, which is what the killing of a quiet connection needs.
 */
static __always_inline void mirror(const struct sl_packet_key *key, const struct sl_packet_flow *f,
				   struct sl_packet_flow *g)
{
	*g = *f;
	copy_address(g->new_saddr, key->daddr);
	copy_address(g->new_daddr, key->saddr);
	g->new_sport = key->dport;
	g->new_dport = key->sport;
	g->ifindex = f->peer_ifindex;
	g->peer_ifindex = f->ifindex;
	g->seq_delta = -f->ack_delta;
	g->ack_delta = -f->seq_delta;
	g->tsval_delta = -f->tsecr_delta;
	g->tsecr_delta = -f->tsval_delta;
	g->window_shift = f->peer_window_shift;
	g->peer_window_shift = f->window_shift;
	g->from = f->from == SL_PACKET_CLIENT ? SL_PACKET_BACKEND : SL_PACKET_CLIENT;
	g->fin = f->peer_fin;
	g->fin_seq = f->peer_fin_seq + f->ack_delta;
	g->peer_fin = f->fin;
	g->peer_fin_seq = f->fin_seq + f->seq_delta;
	g->peer_fin_acked = 0;
	g->rst = 0;
	g->max_seq = f->max_ack + f->ack_delta;
	g->max_ack = f->max_seq + f->seq_delta;
	g->last_tsval = f->last_tsecr + f->tsecr_delta;
	g->last_tsecr = f->last_tsval + f->tsval_delta;
	g->is_promised = g->may_overrun = 0;
	g->drops = g->restarts = 0;
	g->packets = g->bytes = g->relayed_bytes = 0;
}

static __always_inline enum sl_packet_result restore(struct sl_packet_request *r)
{
	struct sl_packet_flow *f = bpf_map_lookup_elem(&flows, &r->key[0]);
	struct sl_packet_flow *there;

	if (!f || (r->conn_id && r->conn_id != f->conn_id))
		return SL_PACKET_NO_FLOW;
	reverse_key(f, &r->key[1]);
	there = bpf_map_lookup_elem(&flows, &r->key[1]);
	if (there)
		return there->conn_id == f->conn_id ? SL_PACKET_DONE : SL_PACKET_TAKEN;
	mirror(&r->key[0], f, &r->flow[1]);
	return add_entry(&r->key[1], &r->flow[1]);
}

static __always_inline enum sl_packet_result mark_told(struct sl_packet_request *r)
{
	struct pair p;

	find_pair(r, &p);
	if (!p.f[0] && !p.f[1])
		return SL_PACKET_NO_FLOW;
	if (p.f[0])
		p.f[0]->told = 1;
	if (p.f[1])
		p.f[1]->told = 1;
	return SL_PACKET_DONE;
}

static __always_inline enum sl_packet_result serve(struct __sk_buff *skb,
						   struct sl_packet_request *r)
{
	switch (r->op) {
	case SL_PACKET_OP_LOOK:
		return look(skb, r);
	case SL_PACKET_OP_COMMIT:
		return commit(skb, r);
	case SL_PACKET_OP_KILL:
		return kill(skb, r);
	case SL_PACKET_OP_PROBE:
		return probe(skb, r);
	case SL_PACKET_OP_REMOVE:
		return remove(r);
	case SL_PACKET_OP_ROUTE:
		return route(r);
	case SL_PACKET_OP_RESTORE:
		return restore(r);
	case SL_PACKET_OP_TOLD:
		return mark_told(r);
	}
	return SL_PACKET_NO_REQUEST;
}

static __always_inline int control(struct __sk_buff *skb)
{
	__u64 start = bpf_ktime_get_ns();
	__u32 zero = 0;
	struct sl_packet_request *r = bpf_map_lookup_elem(&packet_request, &zero);

	if (!r)
		return SL_PACKET_NO_REQUEST;
	r->result = serve(skb, r);
	r->took_ns = bpf_ktime_get_ns() - start;
	return (int)r->result;
}

#endif
