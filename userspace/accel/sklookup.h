/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_ACCEL_SKLOOKUP_H
#define SL_ACCEL_SKLOOKUP_H

#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/cleanup.h"

/*
 * Port ranges of any size through one listening socket each: a program in the
 * network namespace's socket lookup hands connections for the range to that
 * socket. Program, link and maps live as long as their descriptors; nothing is
 * pinned. Needs CAP_BPF and CAP_NET_ADMIN to create, nothing to update.
 */
struct sl_sklookup;

struct sl_steer {
	struct sl_addr ip; /* AF_UNSPEC: every address; a port in it is ignored */
	uint16_t from;
	uint16_t to; /* inclusive */
	int fd;      /* listening TCP socket, borrowed; dual-stack IPv6 when ip is AF_UNSPEC */
};

struct sl_steer_counts {
	uint64_t passed;
	uint64_t steered;
	uint64_t no_socket;
	uint64_t not_assigned;
};

#define SL_SKLOOKUP_FDS 5
#define SL_SKLOOKUP_MAX_RANGES 256

/* Loads and attaches to the calling thread's network namespace; steers nothing yet. */
SL_MUST_CHECK int sl_sklookup_new(struct sl_sklookup **ret);
/* Takes over the descriptors of another process image's object, also on failure. */
SL_MUST_CHECK int sl_sklookup_adopt(const int fds[SL_SKLOOKUP_FDS], struct sl_sklookup **ret);
/* Borrowed, for a process image that will adopt them. */
void sl_sklookup_fds(const struct sl_sklookup *s, int ret[SL_SKLOOKUP_FDS]);
void sl_sklookup_free(struct sl_sklookup *s); /* detaches */
SL_DEFINE_CLEANUP(struct sl_sklookup, sl_sklookup_free);

/*
 * Replaces all ranges at once: before and after the switch every live range is served, and on
 * failure nothing has changed. The first range that fits wins. -E2BIG: too many.
 */
SL_MUST_CHECK int sl_sklookup_set(struct sl_sklookup *s, const struct sl_steer *ranges, size_t n);
SL_MUST_CHECK int sl_sklookup_counts(const struct sl_sklookup *s, struct sl_steer_counts *ret);

#endif
