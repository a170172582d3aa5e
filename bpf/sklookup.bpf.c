// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Steers TCP connections to any port of a range to the one socket that listens
 * for the range. Fails open: whatever goes wrong, the lookup continues as if
 * this program were not there.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "abi.h"

#define AF_INET 2
#define IPPROTO_TCP 6

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sl_steer_active);
} steer_active SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SL_STEER_SLOTS);
	__type(key, __u32);
	__type(value, struct sl_steer_range);
} steer_ranges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, SL_STEER_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} steer_socks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SL_STEER_OUTCOME_COUNT_);
	__type(key, __u32);
	__type(value, __u64);
} steer_count SEC(".maps");

static __always_inline int count(enum sl_steer_outcome outcome)
{
	__u32 key = outcome;
	__u64 *n = bpf_map_lookup_elem(&steer_count, &key);

	if (n)
		(*n)++;
	return SK_PASS;
}

/* What a connection asks for, and the slot found for it. */
struct search {
	__u32 ip[4];
	__u32 family;
	__u32 port;
	__u32 first; /* slot of the live bank */
	__u32 slot;  /* SL_STEER_SLOTS: none */
};

static __always_inline int is_for(const struct sl_steer_range *r, const struct search *s)
{
	if (s->port < r->from || s->port > r->to)
		return 0;
	if (r->family == 0)
		return 1;
	return r->family == s->family && r->ip[0] == s->ip[0] && r->ip[1] == s->ip[1] &&
	       r->ip[2] == s->ip[2] && r->ip[3] == s->ip[3];
}

static long visit(__u32 i, struct search *s)
{
	__u32 slot = s->first + i;
	struct sl_steer_range *r = bpf_map_lookup_elem(&steer_ranges, &slot);

	if (!r || !is_for(r, s))
		return 0;
	s->slot = slot;
	return 1;
}

/*
 * The slot of the range for this connection, or SL_STEER_SLOTS. A helper does the loop: unrolled
 * by the verifier it would be too much without CAP_PERFMON, which nothing else needs.
 */
static __always_inline __u32 find_slot(const struct bpf_sk_lookup *ctx)
{
	struct search s = { .family = ctx->family,
			    .port = ctx->local_port,
			    .slot = SL_STEER_SLOTS };
	__u32 key = 0;
	struct sl_steer_active *active = bpf_map_lookup_elem(&steer_active, &key);
	__u32 word;

	if (!active)
		return SL_STEER_SLOTS;
	word = *(volatile __u32 *)&active->bank_and_count;
	s.first = (word >> 16) ? SL_STEER_RANGES : 0;
	if (s.family == AF_INET) {
		s.ip[0] = ctx->local_ip4;
	} else {
		s.ip[0] = ctx->local_ip6[0];
		s.ip[1] = ctx->local_ip6[1];
		s.ip[2] = ctx->local_ip6[2];
		s.ip[3] = ctx->local_ip6[3];
	}
	bpf_loop(word & 0xffff, visit, &s, 0);
	return s.slot;
}

SEC("sk_lookup")
int sl_steer(struct bpf_sk_lookup *ctx)
{
	struct bpf_sock *sk;
	__u32 slot;
	long err;

	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	slot = find_slot(ctx);
	if (slot >= SL_STEER_SLOTS)
		return count(SL_STEER_PASSED);
	sk = bpf_map_lookup_elem(&steer_socks, &slot);
	if (!sk)
		return count(SL_STEER_NO_SOCKET);
	err = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return count(err ? SL_STEER_NOT_ASSIGNED : SL_STEER_STEERED);
}

char LICENSE[] SEC("license") = "GPL";
