/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BPF_ABI_H
#define SL_BPF_ABI_H

#include <linux/types.h>

/*
 * The layout shared by the kernel programs and the daemon: fixed widths,
 * explicit padding, sizes asserted.
 */

/* ---- sklookup: many ports, one listening socket ---- */

#define SL_STEER_RANGES 256
#define SL_STEER_SLOTS (2 * SL_STEER_RANGES) /* two banks; one is live, one is written */

/* Connections to `ip` (family 0: any address) and a port of from..to go to the slot's socket. */
struct sl_steer_range {
	__u32 ip[4];  /* network order; IPv4 in ip[0] */
	__u32 family; /* AF_INET, AF_INET6 or 0 */
	__u16 from;
	__u16 to;
};
_Static_assert(sizeof(struct sl_steer_range) == 24, "layout");

/* Written as one word, so that a reader sees one bank or the other. */
struct sl_steer_active {
	__u32 bank_and_count; /* bank << 16 | number of ranges */
};
_Static_assert(sizeof(struct sl_steer_active) == 4, "layout");

enum sl_steer_outcome {
	SL_STEER_PASSED = 0, /* no range has this address and port */
	SL_STEER_STEERED,    /* given to the range's socket */
	SL_STEER_NO_SOCKET,  /* the range's socket is closed; looked up as if there were no range */
	SL_STEER_NOT_ASSIGNED, /* the kernel refused the socket; likewise */
	SL_STEER_OUTCOME_COUNT_,
};

/* ---- guard: SYNs of denied sources end before accept ---- */

/* Steps of a search halve this; a table holds one range less. */
#define SL_GUARD_RANGES (1 << 22)
#define SL_GUARD_PORTS 65536
#define SL_GUARD_ADDRS 65536

/* Inclusive, network order; a table is sorted and its ranges are disjoint. */
struct sl_guard_range4 {
	__u8 from[4];
	__u8 to[4];
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct sl_guard_range4) == 8, "layout");

struct sl_guard_range6 {
	__u8 from[16];
	__u8 to[16];
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct sl_guard_range6) == 32, "layout");

/* Where the daemon listens on a port: on every address of a family, or on those in guard_addrs. */
enum sl_guard_port {
	SL_GUARD_ANY4 = 1,
	SL_GUARD_ANY6 = 2,
	SL_GUARD_SOME4 = 4,
	SL_GUARD_SOME6 = 8,
};

struct sl_guard_addr {
	__u8 ip[16];  /* network order; IPv4 in the first four, zeros behind */
	__u16 family; /* AF_INET or AF_INET6 */
	__u16 port;   /* host order */
};
_Static_assert(sizeof(struct sl_guard_addr) == 20, "layout");

/* One row, so that a dump names each outcome. Later versions may append fields only. */
struct sl_guard_counts {
	__u64 passed4; /* SYN for a port of ours from a source that is not denied */
	__u64 passed6;
	__u64 dropped4; /* from a denied one */
	__u64 dropped6;
	__u64 forwarded; /* from a denied one, but for another host */
	__u64 unread;    /* TCP in fragments or behind odd headers: left to the daemon */
};
_Static_assert(sizeof(struct sl_guard_counts) == 48, "layout");

#endif
