/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_PACKET_H
#define SL_PROXY_PACKET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "broker/client.h"
#include "io/loop.h"

struct sl_conf_route;
struct sl_conn;
struct sl_worker;
struct sl_target;

/*
 * The packet engine as a connection's record sees it: no sockets, two entries in the kernel's
 * `flows`. What the record says is brought up to date once a second, when someone looks, at
 * deadlines and at events.
 */

/* The kernel's part of a record; embedded in its struct sl_handover. */
struct sl_packet_record {
	struct sl_list node; /* in the worker's list */
	struct sl_conn *conn;
	struct sl_broker_flow flow;
	uint64_t seen[SL_SIDE_COUNT_]; /* bytes in the kernel that are counted already */
	uint64_t read_ms;              /* when its entries were last there */
	uint64_t
		missing_since_ms; /* entries are gone, and nobody has said why; 0: they are there */
	bool is_over;             /* the broker knows */
	uint8_t n_probes;         /* of a side that is silent, unanswered so far */
	uint64_t next_probe_ms;
	uint64_t due_ms; /* to be brought up to date; later and later while nothing moves */
	uint32_t wait_ms;
};

/* A worker's flows in the kernel. */
struct sl_packet_flows {
	struct sl_worker *worker;
	struct sl_list list;
	size_t n;
	struct sl_timer timer;
	/* found without a route of theirs, and not yet said in the log */
	size_t n_lost;
	char lost_route[72]; /* of the first */
	struct sl_timer lost_timer;
	bool is_stopped; /* nothing the broker says is heard any more */
};
void sl_packet_flows_init(struct sl_packet_flows *flows, struct sl_worker *w);
void sl_packet_flows_stop(struct sl_packet_flows *flows);

/* The names of both sockets, while they are open. */
SL_MUST_CHECK int sl_packet_name(const struct sl_conn *c, struct sl_broker_flow *ret);
/* The kernel has taken over; closes the sockets without a word. May end the connection. */
void sl_packet_take_over(struct sl_conn *c, struct sl_packet_record *record);
/*
 * A record for a flow that has none: 0; -ENOENT: it is gone itself; -ESRCH: its route is, which has
 * been told and counted, and it is to be killed.
 */
SL_MUST_CHECK int sl_packet_adopt(struct sl_worker *w, uint64_t conn_id,
				  const struct sl_broker_flow *flow,
				  struct sl_packet_record *record, struct sl_conn **ret);
/* FINs may have been acknowledged: look. */
void sl_packet_changed(struct sl_conn *c);
void sl_packet_ended(struct sl_conn *c, const struct sl_broker_ended *ended);
/* The record goes. */
void sl_packet_forget(struct sl_conn *c, struct sl_packet_record *record);

/* Why the kernel carries what it carries of a route. */
enum sl_engine_reason sl_packet_reason(const struct sl_conf_route *conf);

/* Which of a route's targets a flow went to, for whoever adopts it. */
uint32_t sl_target_hash(const struct sl_target *t);

#endif
