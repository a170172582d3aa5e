/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_STATE_H
#define SL_BROKER_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "accel/packet.h"
#include "base/list.h"
#include "base/log.h"
#include "broker/conntrack.h"
#include "broker/diff.h"
#include "broker/drift.h"
#include "broker/flow.h"
#include "broker/linger.h"
#include "broker/nat.h"
#include "broker/peer.h"
#include "broker/policy.h"
#include "broker/routes.h"
#include "broker/server.h"
#include "broker/sockmap.h"
#include "broker/sweep.h"
#include "broker/validate.h"
#include "broker/watch.h"
#include "broker/worries.h"
#include "io/loop.h"

/*
 * The broker's state, shared by the files that are its parts: server.c (policies, status, flush,
 * stop), peer.c (channels), handover.c, linger.c, life.c (what becomes of a flow), sweep.c,
 * watch.c (interfaces), routes.c, conntrack.c. One thread, one loop.
 */

struct sl_flush {
	enum { SL_FLUSH_NONE = 0, SL_FLUSH_KILLING, SL_FLUSH_WAITING, SL_FLUSH_REMOVING } stage;
	size_t bucket; /* the next one of the table */
	struct sl_task task;
	struct sl_timer timer;
};

struct sl_broker {
	struct sl_broker_options options;
	struct sl_broker_times times;
	struct sl_loop *loop;

	struct sl_policy *policy[SL_BROKER_GENERATIONS]; /* the newest first */

	struct sl_packet *packet; /* NULL: off */
	int flows_fd;
	enum sl_engine_reason why_off; /* NONE: on */
	char off_text[100];
	int open_error; /* of the last try */

	struct sl_validator validator;
	struct sl_flow_table table;
	struct sl_list orphans; /* flows that nobody has a record of and no peer was told of */
	struct sl_list peers;   /* in the order in which they came */
	struct sl_task announce_task;

	struct sl_io events_io;
	struct sl_sweep sweep;
	struct sl_linger linger;
	struct sl_watch watch;
	struct sl_routes routes;
	struct sl_conntrack conntrack;
	struct sl_flush flush;

	struct sl_sockmap_keeper sockmap;

	struct sl_nat *nat;                     /* NULL before it is opened */
	struct sl_worries *worries;             /* NULL before it is opened */
	struct sl_broker_nat_status nat_status; /* as last told */
	uint64_t nat_proxy;                     /* which one is told of its flows */
	bool has_nat_proxy;
	struct sl_task nat_task; /* whether that is still so */

	struct sl_broker_status status; /* as last told */
	uint64_t status_at_ms;
	uint32_t n_adopted;
	uint32_t n_dropped;
	uint32_t n_repaired;
	uint32_t size_said; /* max_flows that waits for flows to end: so logged */
	bool has_ports;     /* of the policy, reserved: they are looked after */
	bool has_old_ports; /* of an earlier range, reserved as long as flows have them; perhaps */
	struct sl_timer status_timer;
	struct sl_drift drift;
	struct sl_diff diff;
	struct sl_log_limit log_limit;  /* for lines a proxy can provoke */
	struct sl_log_limit room_limit; /* that there are no descriptors left */
	struct sl_log_limit full_limit; /* that max_flows is reached */
};

static inline const struct sl_policy *sl_broker_policy(const struct sl_broker *b)
{
	return b->policy[0];
}

/* NULL: it is not known any more. */
const struct sl_policy *sl_broker_generation(const struct sl_broker *b, uint64_t generation);
bool sl_broker_is_on(const struct sl_broker *b);
/* Brings `status` up to date, and tells of it where it has changed. */
void sl_broker_refresh(struct sl_broker *b);
/* Something the status tells of has changed. */
void sl_broker_touch(struct sl_broker *b);
void sl_broker_flush(struct sl_broker *b);
/* Once a second: what had to wait for flows to end. */
void sl_broker_check(struct sl_broker *b);
/* A few times in ten seconds: for what a peer or a proxy can bring about. */
bool sl_broker_may_warn(struct sl_broker *b);

/*
 * Runs the control program on the request as it is filled in: enum sl_packet_result, or -errno of
 * the run. The answer stays in the request until the next one.
 */
int sl_broker_run(struct sl_broker *b);
/* The same with no more than an order about the flow of `key`; -ENODEV: off. */
int sl_broker_order(struct sl_broker *b, enum sl_packet_op op, uint64_t conn_id,
		    const struct sl_packet_key key[2]);

#endif
