// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * What one socket of a connection has received is queued to the other one, as long as no more than
 * a limit waits there. Past it everything goes to the daemon, whose full buffers close the sender's
 * window, until the daemon has passed on all of it and asks for the fast way again.
 *
 * The kernel holds the lock of the receiving socket here: its slot has one writer at a time.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "packet_kernel.h"

/* ---- tables; the daemon pins them, nothing here does ---- */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SL_SOCKMAP_SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct sl_sockmap_flow);
} sockmap_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SL_SOCKMAP_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sl_sockmap_slot);
} sockmap_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SL_SOCKMAP_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sl_sockmap_order);
} sockmap_orders SEC(".maps");

/* Two, because both sockets of a connection must be targets before either is a source. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, SL_SOCKMAP_SLOTS);
	__type(key, __u64);
	__type(value, __u64);
} sockmap_targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, SL_SOCKMAP_SLOTS);
	__type(key, __u64);
	__type(value, __u64);
} sockmap_sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} sockmap_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sl_sockmap_counts);
} sockmap_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sl_sockmap_meta);
} sockmap_meta SEC(".maps");

static __always_inline struct sl_sockmap_counts *counts(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&sockmap_counters, &zero);
}

#define COUNT(field)                                     \
	do {                                             \
		struct sl_sockmap_counts *n_ = counts(); \
                                                         \
		if (n_)                                  \
			n_->field++;                     \
	} while (0)

/* Others read at any time: each field is written whole, in the order of the program. */
#define STORE(field, value) (*(volatile __typeof__(field) *)&(field) = (value))
#define LOAD(field) (*(const volatile __typeof__(field) *)&(field))

/* ---- octets that have come before ---- */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sk_buff {
	char cb[48];
};
struct tcp_skb_cb {
	__u32 seq;
};
#pragma clang attribute pop

/* linux/bpf.h calls struct __sk_buff what it gives a program; this is the kernel's own. */
extern void *bpf_cast_to_kern_ctx(void *obj) __ksym;

/* What bpf_skb_adjust_room() takes off at once, and of the longest packet (64 KiB and a header). */
#define TRIM_MAX 4095
#define TRIMS 17

static __always_inline int trim(struct __sk_buff *skb, __u32 n)
{
	for (int i = 0; i < TRIMS && n > 0; i++) {
		__u32 part = n < TRIM_MAX ? n : TRIM_MAX;

		if (bpf_skb_adjust_room(skb, -(__s32)part, 0, 0))
			return -1;
		n -= part;
	}
	return n == 0 ? 0 : -1;
}

/*
 * A sender that has not heard of an acknowledgement in time sends again, and may put new octets
 * behind the old ones. TCP queues such a segment whole; whoever reads a socket is given the new
 * ones alone, but here the packet is all there is (tcp_read_skb()). 0: it begins where the one
 * before ended.
 */
static __always_inline int skip_old(struct __sk_buff *skb, struct sl_sockmap_slot *slot)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);
	struct tcp_sock *tcp = skb->sk ? bpf_skc_to_tcp_sock(skb->sk) : NULL;
	const struct tcp_skb_cb *cb = (const void *)kernel->cb;
	__u32 seq;
	__s32 old;

	if (!tcp || bpf_probe_read_kernel(&seq, sizeof(seq), &cb->seq))
		return -1;
	/* Nothing has been taken yet: so far everything was read. */
	if (!slot->has_next) {
		STORE(slot->next_seq, tcp->copied_seq);
		STORE(slot->has_next, 1);
	}
	old = (__s32)(slot->next_seq - seq);
	if (old > 0 && (__u32)old < skb->len) {
		if (trim(skb, (__u32)old))
			return -1;
		seq += (__u32)old;
		COUNT(trimmed);
	}
	STORE(slot->next_seq, seq + skb->len);
	return 0;
}

/* ---- one packet ---- */

struct packet {
	struct __sk_buff *skb;
	struct sl_sockmap_slot *slot;
	const struct sl_sockmap_order *order;
	__u64 cookie;
	__u64 peer;
	__u32 index; /* of the slot */
};

static __always_inline void tell(__u64 conn_id, __u64 cookie, __u32 slot)
{
	struct sl_sockmap_event event = { .conn_id = conn_id, .cookie = cookie, .slot = slot };

	if (bpf_ringbuf_output(&sockmap_events, &event, sizeof(event), 0))
		COUNT(events_lost);
}

/* Its bytes are in nobody's account, but they are not lost. */
static __always_inline int unknown(__u64 cookie)
{
	COUNT(unknown);
	tell(0, cookie, 0);
	return SK_PASS;
}

static __always_inline int pass(const struct packet *p)
{
	struct sl_sockmap_slot *slot = p->slot;

	STORE(slot->packets, slot->packets + 1);
	STORE(slot->passed, slot->passed + p->skb->len);
	COUNT(passed);
	return SK_PASS;
}

static __always_inline void set_spilled(const struct packet *p, enum sl_sockmap_spill why)
{
	struct sl_sockmap_slot *slot = p->slot;

	STORE(slot->why, why);
	STORE(slot->spills, slot->spills + 1);
	STORE(slot->state, SL_SOCKMAP_SPILLED);
	tell(slot->conn_id, p->cookie, p->index);
}

/* The packet is counted before the state: who sees SPILLED sees that there is something to read. */
static __always_inline int spill(const struct packet *p, enum sl_sockmap_spill why)
{
	int verdict = pass(p);

	set_spilled(p, why);
	return verdict;
}

/*
 * Its old octets could not be cut off (no memory): passed on they would come twice. It is gone, and
 * so is what follows, until the daemon has ended the connection.
 */
static __always_inline int lose(const struct packet *p)
{
	COUNT(trim_failed);
	set_spilled(p, SL_SOCKMAP_LOST);
	return SK_DROP;
}

/* Nobody but this program writes to the other socket while the state is FAST. */
static __always_inline __s32 waiting(struct sl_sockmap_slot *slot, __u32 write_seq)
{
	__u32 redirected = (__u32)slot->redirected;
	__s32 n;

	if (!slot->is_based) {
		STORE(slot->base, write_seq - redirected);
		STORE(slot->is_based, 1);
	}
	n = (__s32)(redirected - (write_seq - slot->base));
	if (n > 0 && (__u32)n > slot->max_waiting)
		STORE(slot->max_waiting, (__u32)n);
	return n;
}

/*
 * Whatever the peer has room for, the kernel's worker writes, and nothing stays queued to its
 * socket. What is passed to the daemon from that socket waits behind this queue: for a peer who may
 * read no more, although it is not for him, and in memory that no window bounds. Of what is
 * written, an eighth is for the kernel's own records of it, and a page for those of small pieces.
 */
#define RECORDS 4096

static __always_inline int has_room(const struct tcp_sock *peer, __u32 n)
{
	const struct sock *sk = &peer->inet_conn.icsk_inet.sk;

	return (__s64)sk->sk_sndbuf - sk->sk_wmem_queued >= (__s64)n + n / 8 + RECORDS;
}

static __always_inline int is_too_much(const struct packet *p, const struct tcp_sock *peer)
{
	__s32 n = waiting(p->slot, peer->write_seq);

	return n > (__s32)p->slot->limit || !has_room(peer, (n > 0 ? n : 0) + p->skb->len);
}

static __always_inline enum sl_sockmap_spill look_at_peer(const struct packet *p)
{
	struct bpf_sock *peer = bpf_map_lookup_elem(&sockmap_targets, &p->peer);
	enum sl_sockmap_spill why = SL_SOCKMAP_NO_TARGET;
	struct tcp_sock *tcp;

	if (!peer)
		return why;
	tcp = bpf_skc_to_tcp_sock(peer);
	if (tcp)
		why = is_too_much(p, tcp) ? SL_SOCKMAP_LIMIT : SL_SOCKMAP_NOT_SPILLED;
	bpf_sk_release(peer);
	return why;
}

static __always_inline int redirect(struct packet *p)
{
	struct sl_sockmap_slot *slot = p->slot;

	if (bpf_sk_redirect_hash(p->skb, &sockmap_targets, &p->peer, 0) != SK_PASS) {
		COUNT(spilled_refused);
		return spill(p, SL_SOCKMAP_REFUSED);
	}
	/* Before it is queued: nobody ever finds more written than counted. */
	STORE(slot->packets, slot->packets + 1);
	STORE(slot->redirected, slot->redirected + p->skb->len);
	COUNT(redirected);
	return SK_PASS;
}

static __always_inline int fast(struct packet *p)
{
	enum sl_sockmap_spill why;

	if (LOAD(p->order->wish) == SL_SOCKMAP_WANTS_SPILL) {
		COUNT(spilled_asked);
		return spill(p, SL_SOCKMAP_ASKED);
	}
	why = look_at_peer(p);
	if (why == SL_SOCKMAP_NO_TARGET) {
		COUNT(spilled_no_target);
		return spill(p, why);
	}
	if (why == SL_SOCKMAP_LIMIT) {
		COUNT(spilled_limit);
		return spill(p, why);
	}
	return redirect(p);
}

/* The daemon has passed on all it was given, and nothing more can have come since. */
static __always_inline int may_return(const struct packet *p)
{
	return LOAD(p->order->wish) == SL_SOCKMAP_WANTS_FAST &&
	       LOAD(p->order->spills) == p->slot->spills &&
	       LOAD(p->order->consumed) == p->slot->passed;
}

SEC("sk_skb/stream_verdict")
int sl_sockmap_verdict(struct __sk_buff *skb)
{
	struct packet p = { .skb = skb };
	const struct sl_sockmap_flow *flow;

	/* A FIN alone: redirected it would be taken for an error of the other socket. */
	if (skb->len == 0) {
		COUNT(fins);
		return SK_DROP;
	}
	p.cookie = bpf_get_socket_cookie(skb);
	flow = bpf_map_lookup_elem(&sockmap_flows, &p.cookie);
	if (!flow)
		return unknown(p.cookie);
	p.index = flow->slot;
	p.peer = flow->peer;
	p.slot = bpf_map_lookup_elem(&sockmap_slots, &p.index);
	p.order = bpf_map_lookup_elem(&sockmap_orders, &p.index);
	if (!p.slot || !p.order || p.slot->cookie != p.cookie)
		return unknown(p.cookie);
	if (p.slot->why == SL_SOCKMAP_LOST)
		return SK_DROP;
	if (skip_old(skb, p.slot))
		return lose(&p);
	STORE(p.slot->last_ns, bpf_ktime_get_coarse_ns());
	if (p.slot->state == SL_SOCKMAP_SPILLED) {
		if (!may_return(&p))
			return pass(&p);
		STORE(p.slot->is_based, 0);
		STORE(p.slot->state, SL_SOCKMAP_FAST);
		COUNT(returned);
	}
	return fast(&p);
}

char LICENSE[] SEC("license") = "GPL";
