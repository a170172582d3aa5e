/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_NAT_H
#define SL_PROXY_NAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "broker/wire.h"

struct sl_worker;
struct sl_generation;

/*
 * Flows of the kernel's NAT as records: the packets never meet a socket of ours, and what a record
 * says is what the broker told last, from events and dumps of connection tracking. So a record
 * lags behind, by SL_NAT_LAG_MS at most, and its bytes are those of packets, IP headers included.
 *
 * The kernel holds the truth. A record that is to end here (kill, deadline, drain) ends when the
 * broker says that the flow is over, because that brings the last counts; without that word it ends
 * three seconds later, and stays noted until it comes, so that no later broker brings it back as a
 * new one; one whose broker has died is matched by addresses and time of begin with what the next
 * one tells, and ends with crash_recovered when that has told of all it found, or when there is
 * none for SL_HANDOVER_DOUBT_MS. Flows of a route that this worker does not know (yet) wait for it;
 * they get an access line, but no record.
 *
 * One per worker; on its thread.
 */
struct sl_nat_flows;

/*
 * Broker and dumps are slower than any flow: silence shorter than this, or than what the broker
 * says of itself, means nothing.
 */
#define SL_NAT_LAG_MS 6000

SL_MUST_CHECK int sl_nat_flows_new(struct sl_worker *w, struct sl_nat_flows **ret);
void sl_nat_flows_free(struct sl_nat_flows *n); /* NULL is fine; no record is left in use */

/* What a broker says, of any flow at any time; valid by sl_broker_check_reply(). */
void sl_nat_flows_told(struct sl_nat_flows *n, uint64_t serial, const struct sl_broker_nat_flow *f);
/* What this broker has not told of is no more. */
void sl_nat_flows_all_told(struct sl_nat_flows *n);
void sl_nat_flows_linked(struct sl_nat_flows *n);
void sl_nat_flows_unlinked(struct sl_nat_flows *n);

/* The worker has another one than `before`, of which a reference is kept until the next. */
void sl_nat_flows_use_generation(struct sl_nat_flows *n, struct sl_generation *before);

/*
 * The worker drains. Where the flows go on, because another process takes them over or the rules
 * stay, their records are let go and no more are made; else flows that begin all the same drain
 * with the others.
 */
void sl_nat_flows_drain(struct sl_nat_flows *n);
/* The worker's loop runs no more: what ends now ends with what is known of it. NULL is fine. */
void sl_nat_flows_stop(struct sl_nat_flows *n);
bool sl_nat_flows_go_on(const struct sl_nat_flows *n);

#endif
