/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_CONNTRACK_H
#define SL_BROKER_CONNTRACK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

/*
 * The connection tracking of this network namespace, by ctnetlink. It goes on counting our two
 * connections as established after a hand-over, for days, unless they are taken out. Where no rule
 * asks for tracking there is nothing to do, and the module is never loaded for our sake.
 */
struct sl_conntrack {
	int fd;       /* -1: no tracking here, as far as known */
	int count_fd; /* how much is tracked; -1: unknown */
	uint32_t seq;
};

void sl_conntrack_init(struct sl_conntrack *ct);
void sl_conntrack_done(struct sl_conntrack *ct);
/* Tracking may begin at any time; call it about once a second. */
void sl_conntrack_check(struct sl_conntrack *ct);

/* Nothing is tracked: mostly nobody has asked for it, and then a glance at the number is enough. */
bool sl_conntrack_is_idle(const struct sl_conntrack *ct);

/*
 * Whether addresses or ports of a connection are translated on this host: its packets on the wire
 * are not those that its socket's names tell of, and the packet engine cannot meet them.
 * `is_accepted`: it came to us.
 */
bool sl_conntrack_is_translated(struct sl_conntrack *ct, bool is_accepted,
				const struct sl_addr *local, const struct sl_addr *peer);

/* Takes it out; waits for no answer, and one that is not there is fine. */
void sl_conntrack_delete(struct sl_conntrack *ct, bool is_accepted, const struct sl_addr *local,
			 const struct sl_addr *peer);

#endif
