/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_NAT_SETTINGS_H
#define SL_BROKER_NAT_SETTINGS_H

#include "base/cleanup.h"
#include "nft/ct_sysctl.h"
#include "nft/ruleset.h"

struct sl_nat;

/* What was changed of the host, to be put back; kept in the table, as names of counters. */
struct sl_nat_settings {
	struct sl_ct_sysctls ct;
	int localnet; /* -1: left alone */
};

void sl_nat_settings_init(struct sl_nat_settings *s); /* nothing was changed */

/* What an earlier broker has changed and this one would put back. */
void sl_nat_read_kept(const struct sl_nft_ruleset *rs, struct sl_nat_settings *ret);
/* The kernel is told before they are changed, so that whoever comes after us knows. */
SL_MUST_CHECK int sl_nat_put_kept(struct sl_nat *n, struct sl_nft_ruleset *rs);

/* What of them will have to be changed; those known from before stay known. */
void sl_nat_look_at_settings(struct sl_nat *n);
void sl_nat_change_settings(struct sl_nat *n);
/* Now and then. True: somebody else has changed some, which is said; they are put back as at the
 * start. */
bool sl_nat_must_set_again(struct sl_nat *n);
/*
 * While the table is still there: as long as it is, whoever comes after us knows what to put back,
 * and it keeps the network away from 127.0.0.1. What others have changed since stays.
 */
void sl_nat_restore_settings(struct sl_nat_settings *was);

#endif
