/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_NAT_H
#define SL_BROKER_NAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "broker/nat_plan.h"
#include "broker/wire.h"
#include "io/loop.h"

/*
 * The owner of the table `inet NAME` and of the records of its flows: makes the kernel hold what
 * the plan says, repairs it when somebody else has changed it, tells of each flow. Part of the
 * broker's thread. The truth is the kernel's (elements carry the names and marks of routes,
 * conntrack the flows), so it may die at any moment and the next one goes on.
 */
struct sl_drift;
struct sl_nat;

struct sl_nat_options {
	struct sl_loop *loop;
	/* A flow has begun, changed or ended. False: no room now; it is told again after
	 * sl_nat_resume(). */
	bool (*tell)(void *arg, uint64_t serial, const struct sl_broker_nat_flow *flow);
	/* Once: every flow that the kernel had at the begin has been told of. False: to nobody, it
	 * is said again later. May be NULL. */
	bool (*told)(void *arg);
	void (*changed)(void *arg, const struct sl_broker_nat_status *status);
	struct sl_drift *drift; /* where differences are noted; NULL: nowhere */
	void *arg;
};

/*
 * Opens the table, reads what an earlier broker has left, and has the kernel load what it may have
 * to load: it comes before the sandbox, after which only the settings it knows of are within reach.
 * Changes nothing. A host where this fails has the engine off: 0 all the same, and the status says
 * why. Where the plan has no routes and the kernel no such table of ours it stays closed.
 */
SL_MUST_CHECK int sl_nat_new(const struct sl_nat_options *options, const struct sl_nat_plan *plan,
			     struct sl_nat **ret);
void sl_nat_free(struct sl_nat *n); /* leaves the kernel as it is */

/*
 * Takes over `plan`, of the same table, and makes the kernel hold it; the first one starts the
 * thread that follows the flows. Where that fails it is tried again until it works, and the status
 * says why. Routes that are not in it go when their last flow has ended; with the last of them the
 * table does, and the settings are as they were.
 */
void sl_nat_set_plan(struct sl_nat *n, struct sl_nat_plan *plan);
/*
 * False: this one cannot serve that plan (another table, or it is closed), but the next broker may.
 */
bool sl_nat_can_take(const struct sl_nat *n, const struct sl_nat_plan *plan);
/* Whether the kernel holds what the last plan wants; the status says why not. */
bool sl_nat_is_in_force(const struct sl_nat *n);

/* What health checks found; unknown names are ignored. Kept over plans that have the target. */
void sl_nat_set_target(struct sl_nat *n, const struct sl_broker_nat_target *target, bool is_down);
/* Its entry goes: whoever sends the next packet is answered by RST. */
void sl_nat_kill(struct sl_nat *n, uint64_t serial);

void sl_nat_resume(struct sl_nat *n);   /* whoever had no room has */
void sl_nat_tell_all(struct sl_nat *n); /* of every flow there is, as adopted: a new proxy */

/*
 * Reads the table anew and puts right what differs, and has connection tracking dumped. When
 * sl_nat_has_dumped() what is returned here, records and flows have been compared.
 */
uint64_t sl_nat_look(struct sl_nat *n);
bool sl_nat_has_dumped(const struct sl_nat *n, uint64_t dumps);

void sl_nat_get_status(const struct sl_nat *n, struct sl_broker_nat_status *ret);

/* Of the plan, with their marks; nothing as long as the table is not open. */
void sl_nat_each_route(const struct sl_nat *n,
		       void (*fn)(void *arg, const struct sl_nft_route *route), void *arg);

const char *sl_nat_table(const struct sl_nat *n); /* its name */

/* The end of the daemon: unless the plan keeps it, no new flows, then flows and table go, and the
 * settings are as they were. */
void sl_nat_stop(struct sl_nat *n);
/* The same, whatever the plan says: what comes next has another table. */
void sl_nat_leave(struct sl_nat *n);

/* Whether the kernel has a table of ours under that name; false also where that cannot be known. */
bool sl_nat_is_there(const char *table);
/* `sluiced --purge`, without any broker: 0, or -errno; lines about what was removed in `report`. */
SL_MUST_CHECK int sl_nat_purge(const char *table, struct sl_str *report);

#endif
