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
#define AF_INET6 10
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

static __always_inline int is_for(const struct sl_steer_range *r, const struct bpf_sk_lookup *ctx)
{
	if (ctx->local_port < r->from || ctx->local_port > r->to)
		return 0;
	if (r->family == 0)
		return 1;
	if (r->family != ctx->family)
		return 0;
	if (r->family == AF_INET)
		return r->ip[0] == ctx->local_ip4;
	return r->ip[0] == ctx->local_ip6[0] && r->ip[1] == ctx->local_ip6[1] &&
	       r->ip[2] == ctx->local_ip6[2] && r->ip[3] == ctx->local_ip6[3];
}

/* The slot of the range for this packet, or SL_STEER_SLOTS. */
static __always_inline __u32 find_slot(const struct bpf_sk_lookup *ctx)
{
	__u32 key = 0;
	struct sl_steer_active *active = bpf_map_lookup_elem(&steer_active, &key);
	__u32 word, first, n;

	if (!active)
		return SL_STEER_SLOTS;
	word = *(volatile __u32 *)&active->bank_and_count;
	first = (word >> 16) ? SL_STEER_RANGES : 0;
	n = word & 0xffff;
	for (__u32 i = 0; i < SL_STEER_RANGES; i++) {
		struct sl_steer_range *r;

		if (i >= n)
			break;
		key = first + i;
		r = bpf_map_lookup_elem(&steer_ranges, &key);
		if (r && is_for(r, ctx))
			return key;
	}
	return SL_STEER_SLOTS;
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
