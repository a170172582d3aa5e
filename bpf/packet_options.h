/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BPF_PACKET_OPTIONS_H
#define SL_BPF_PACKET_OPTIONS_H

/* TCP options of any layout: timestamps (RFC 7323) and SACK blocks (RFC 2018, RFC 2883). */
#include "packet.h"

#define MAX_OPTIONS 40
/* Offsets are masked to 63, because the verifier does not see that they are smaller. */
#define OPTIONS_ROOM (64 + 8)

#define OPT_END 0
#define OPT_NOP 1
#define OPT_SACK 5
#define OPT_TIMES 8
#define OPT_TIMES_LENGTH 10
#define MAX_SACK_EDGES 8

struct options {
	__u8 was[OPTIONS_ROOM];
	__u8 is[OPTIONS_ROOM];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct options);
} options_scratch SEC(".maps");

struct options_walk {
	struct sl_packet_flow *f;
	__u32 at;
	__u32 length;
};

/* clang leaves out a mask it can prove to be needless; the verifier cannot. */
static __always_inline __u8 *option_byte(struct options *o, __u32 at)
{
	__u64 i = at;

	asm volatile("%0 &= 63" : "+r"(i));
	return o->is + i;
}

static __always_inline void shift_option(struct options *o, __u32 at, __u32 delta)
{
	__u8 *p = option_byte(o, at);
	__be32 number;

	__builtin_memcpy(&number, p, sizeof(number));
	number = shifted(number, delta);
	__builtin_memcpy(p, &number, sizeof(number));
}

static __always_inline void rewrite_times_option(struct options *o, __u32 at,
						 struct sl_packet_flow *f)
{
	__be32 value, echo;

	__builtin_memcpy(&value, option_byte(o, at + 2), sizeof(value));
	__builtin_memcpy(&echo, option_byte(o, at + 6), sizeof(echo));
	f->last_tsval = bpf_ntohl(value);
	f->last_tsecr = bpf_ntohl(echo);
	shift_option(o, at + 2, f->tsval_delta);
	if (echo)
		shift_option(o, at + 6, f->tsecr_delta);
}

static __always_inline void rewrite_sack_option(struct options *o, __u32 at, __u32 length,
						const struct sl_packet_flow *f)
{
#pragma unroll
	for (__u32 i = 0; i < MAX_SACK_EDGES; i++) {
		if (2 + 4 * (i + 1) <= length)
			shift_option(o, at + 2 + 4 * i, f->ack_delta);
	}
}

/* One option; 1 ends the walk. As receivers do, what follows a broken one is not looked at. */
static long walk_option(__u32 i, void *context)
{
	struct options_walk *w = context;
	__u32 zero = 0;
	struct options *o = bpf_map_lookup_elem(&options_scratch, &zero);
	struct sl_packet_flow *f = w->f;
	__u32 at = w->at;
	__u32 length;
	__u8 kind;

	(void)i;
	if (!o || at >= w->length || at >= MAX_OPTIONS)
		return 1;
	kind = *option_byte(o, at);
	if (kind == OPT_END)
		return 1;
	if (kind == OPT_NOP) {
		w->at = at + 1;
		return 0;
	}
	length = *option_byte(o, at + 1);
	if (length < 2 || at + length > w->length)
		return 1;
	if (kind == OPT_TIMES && length == OPT_TIMES_LENGTH)
		rewrite_times_option(o, at, f);
	else if (kind == OPT_SACK && length > 2 && length % 8 == 2)
		rewrite_sack_option(o, at, length, f);
	w->at = at + length;
	return 0;
}

/*
 * Rewrites the options of a segment in place. Returns the change of the sum over them, or a
 * negative number if they could not be read or written.
 */
static __noinline __s64 rewrite_options(struct __sk_buff *skb, const struct segment *s,
					struct sl_packet_flow *f)
{
	struct options_walk w = { .f = f };
	__u32 zero = 0;
	struct options *o = bpf_map_lookup_elem(&options_scratch, &zero);
	__u32 at = s->l4 + TCP_PLAIN;
	__u64 n = s->tcp_length - TCP_PLAIN;

	if (!o)
		return -1;
	/* The verifier of 6.1 follows a 64-bit length, one comparison at a time. */
	asm volatile("" : "+r"(n));
	if (n < 4)
		return -1;
	asm volatile("" : "+r"(n));
	if (n > MAX_OPTIONS)
		return -1;
	asm volatile("" : "+r"(n));
	__builtin_memset(o, 0, sizeof(*o));
	if (bpf_skb_load_bytes(skb, at, o->was, n) < 0)
		return -1;
	__builtin_memcpy(o->is, o->was, sizeof(o->is));
	w.length = (__u32)n;
	bpf_loop(MAX_OPTIONS, walk_option, &w, 0);
	if (bpf_skb_store_bytes(skb, at, o->is, n, 0) < 0)
		return -1;
	COUNT(options_walked);
	return (__u32)bpf_csum_diff((__be32 *)o->was, MAX_OPTIONS, (__be32 *)o->is, MAX_OPTIONS, 0);
}

#endif
