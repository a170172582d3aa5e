/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_CT_SYSCTL_H
#define SL_NFT_CT_SYSCTL_H

#include "nft/ct_table.h"

/*
 * Settings of connection tracking and of NAT in the network namespace of the calling thread, below
 * /proc/sys/net. Needs the right to write there.
 */

/* Values to go back to; -1: leave it alone. */
struct sl_ct_sysctls {
	int acct;      /* counts of packets and bytes */
	int timestamp; /* start and stop; both only for flows that begin afterwards */
	int events;    /* 1: flows that begin while nobody listens send a DESTROY, too */
};

/* What sl_ct_sysctl_set() would change; changes nothing. -errno as there. */
SL_MUST_CHECK int sl_ct_sysctl_look(struct sl_ct_sysctls *ret_old, const char **ret_what);
/*
 * Sets what records need, each to 1, where it is not so yet. `ret_old` is what was changed, and
 * is filled in as far as it went also on failure. -EPERM or another error, with the name of the
 * setting in `ret_what`; -ENOENT: no connection tracking (no module), or not this setting.
 */
SL_MUST_CHECK int sl_ct_sysctl_set(struct sl_ct_sysctls *ret_old, const char **ret_what);
/* Goes on after a failure; the first one is returned. */
int sl_ct_sysctl_restore(const struct sl_ct_sysctls *old);

/*
 * Whether packets for 127.0.0.0/8 may come from and go to the network, which targets there need
 * (net.ipv4.conf.all.route_localnet): 0 or 1, or -errno.
 */
int sl_nat_sysctl_localnet(void);
SL_MUST_CHECK int sl_nat_sysctl_set_localnet(bool on);

/* The timeouts in force; what cannot be read is left as it is. */
void sl_ct_timeouts_read(struct sl_ct_timeouts *t);

/* nf_conntrack_count and nf_conntrack_max; -errno. */
SL_MUST_CHECK int sl_ct_fill(uint32_t *ret_count, uint32_t *ret_max);

#endif
