/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_ACCEL_GUARD_H
#define SL_ACCEL_GUARD_H

#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/cleanup.h"
#include "core/ip_set.h"

/*
 * Denied sources end in the kernel: a program at the ingress of each interface drops the SYNs they
 * send to ports of ours (bpf/guard.bpf.c). Program and tables live as long as their
 * descriptors; nothing is pinned. Needs CAP_BPF and CAP_NET_ADMIN to create and
 * to set rules, nothing to attach, and Linux 6.6 to attach.
 */
struct sl_guard;
struct sl_guard_counts; /* bpf/abi.h */

struct sl_guard_listen {
	struct sl_addr ip; /* AF_UNSPEC: every address; 0.0.0.0 or ::, all of the family */
	uint16_t from;
	uint16_t to; /* inclusive */
};

#define SL_GUARD_MAX_RANGES ((1u << 22) - 1)
#define SL_GUARD_MAX_ADDRS 65536

/*
 * Loads the program; nothing is denied yet. `count_fd`: counters of an earlier guard to go on
 * with, ownership passes, also on failure; -1 or of another layout: they begin at 0.
 */
SL_MUST_CHECK int sl_guard_new(int count_fd, struct sl_guard **ret);
void sl_guard_free(struct sl_guard *g);
SL_DEFINE_CLEANUP(struct sl_guard, sl_guard_free);

/*
 * Replaces the denied sources; globs of the set are ignored. Each packet meets the old or the
 * new ones, and on failure the old ones stay for at least one family. -E2BIG: too many.
 */
SL_MUST_CHECK int sl_guard_set_denied(struct sl_guard *g, const struct sl_ip_set *denied);

/*
 * Replaces the ports. Of those bound to single addresses only the first SL_GUARD_MAX_ADDRS
 * have room; `*ret_left` is how many are left out.
 */
SL_MUST_CHECK int sl_guard_set_listens(struct sl_guard *g, const struct sl_guard_listen *listens,
				       size_t n, size_t *ret_left);

/* Attaches to an interface of the calling thread's namespace until the link is closed. */
SL_MUST_CHECK int sl_guard_attach(const struct sl_guard *g, unsigned ifindex, int *ret_link_fd);
/* Whether the link is still attached to that interface. */
bool sl_guard_is_attached(int link_fd, unsigned ifindex);

/*
 * Borrowed. Whoever has it can read the counters, but neither write them nor
 * reach anything else by it.
 */
int sl_guard_count_fd(const struct sl_guard *g);
int sl_guard_program_fd(const struct sl_guard *g); /* borrowed; for tests */

/*
 * The counters as the kernel counts them, for any process that was given the descriptor, which
 * may be closed afterwards.
 */
SL_MUST_CHECK int sl_guard_map_counts(int count_fd, const struct sl_guard_counts **ret);
void sl_guard_unmap_counts(const struct sl_guard_counts *counts); /* NULL is fine */

#endif
