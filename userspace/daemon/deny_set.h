/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_DENY_SET_H
#define SL_DAEMON_DENY_SET_H

#include <stddef.h>

#include "base/cleanup.h"
#include "conf/ip_list.h"
#include "core/ip_set.h"

/*
 * Sets of addresses that own their memory (conf/ip_list.h frees it), and their form in a
 * sealed memfd.
 */

/* Globs of up to so many ranges are turned into these. */
#define SL_DENY_EXPAND_MAX 4096u
/* Of one kind, in a memfd: 4 million patterns and what becomes of a thousand globs. */
#define SL_DENY_RANGES_MAX (8u << 20)

/* Appends copies; sl_deny_set_build() must follow. -ENOMEM: nothing is appended. */
SL_MUST_CHECK int sl_deny_set_append(struct sl_ip_set *set, const struct sl_ip_set *more);
/*
 * Puts the ranges of small globs in their place; sl_deny_set_build() must follow. -E2BIG: that
 * would be more than SL_DENY_RANGES_MAX.
 */
SL_MUST_CHECK int sl_deny_set_expand(struct sl_ip_set *set);
/* Sorts and merges, in linear time where there is memory for it. */
void sl_deny_set_build(struct sl_ip_set *set);

/* The set, which is built, as a sealed memfd. */
SL_MUST_CHECK int sl_deny_set_pack(const struct sl_ip_set *set, int *ret_fd);
/*
 * A copy of it. Nothing is believed: -EPERM not sealed, -EBADMSG anything but sorted, disjoint
 * ranges in exactly the size the header says, within the limits.
 */
SL_MUST_CHECK int sl_deny_set_unpack(int fd, struct sl_ip_set *ret);

#endif
