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

#endif
