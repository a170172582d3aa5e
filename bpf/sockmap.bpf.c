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

/* The packet is counted before the state: who sees SPILLED sees that there is something to read. */
static __always_inline int spill(const struct packet *p, enum sl_sockmap_spill why)
{
	struct sl_sockmap_slot *slot = p->slot;
	int verdict = pass(p);

	STORE(slot->why, why);
	STORE(slot->spills, slot->spills + 1);
	STORE(slot->state, SL_SOCKMAP_SPILLED);
	tell(slot->conn_id, p->cookie, p->index);
	return verdict;
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

static __always_inline enum sl_sockmap_spill look_at_peer(const struct packet *p)
{
	struct bpf_sock *peer = bpf_map_lookup_elem(&sockmap_targets, &p->peer);
	enum sl_sockmap_spill why = SL_SOCKMAP_NO_TARGET;
	struct tcp_sock *tcp;

	if (!peer)
		return why;
	tcp = bpf_skc_to_tcp_sock(peer);
	if (tcp)
		why = waiting(p->slot, tcp->write_seq) > (__s32)p->slot->limit
			      ? SL_SOCKMAP_LIMIT
			      : SL_SOCKMAP_NOT_SPILLED;
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
