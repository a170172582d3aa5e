/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_CLIENT_H
#define SL_BROKER_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "accel/sockmap.h"
#include "base/addr.h"
#include "broker/wire.h"
#include "core/reason.h"
#include "io/loop.h"

/*
 * A worker's way to the broker: asks without blocking, keeps what must not be lost (kills,
 * releases) until a broker is there to take it, and reads flows itself through a read-only
 * descriptor. Lives on the worker's loop.
 */
struct sl_broker_client;

struct sl_broker_client_fns {
	/* A broker is there (HELLO has come), or has gone: what is in doubt is asked again. */
	void (*up)(void *arg);
	void (*down)(void *arg);
	void (*result)(void *arg, uint64_t conn_id, const struct sl_broker_result *result);
	void (*changed)(void *arg, uint64_t conn_id, uint32_t flag);
	void (*ended)(void *arg, uint64_t conn_id, const struct sl_broker_ended *ended);
	void (*adopt)(void *arg, uint64_t conn_id, const struct sl_broker_flow *flow);
	/*
	 * There is a channel, or it has gone: all that the kernel's NAT needs, because a broker
	 * whose packet engine is off never comes up. unlinked() precedes down().
	 */
	void (*linked)(void *arg);
	void (*unlinked)(void *arg);
	void (*nat_flow)(void *arg, uint64_t serial, const struct sl_broker_nat_flow *flow);
	void (*nat_told)(void *arg);   /* of every flow there is */
	void (*sockmap_up)(void *arg); /* its maps have come */
	/* control thread only */
	void (*sockmap_status)(void *arg, const struct sl_broker_sockmap_status *status);
	void (*status)(void *arg, const struct sl_broker_status *status);
	void (*flushed)(void *arg);
	void (*nat_status)(void *arg, const struct sl_broker_nat_status *status);
	/* Why flows may not arrive: lines, the whole text each time; "": all is well. */
	void (*nat_worries)(void *arg, const char *lines);
	/* What a look has found (broker/diff.h), whole. */
	void (*diff)(void *arg, const char *lines);
	void (*drift)(void *arg, const struct sl_broker_drift *drift);
};

int sl_broker_client_new(struct sl_loop *loop, const struct sl_broker_client_fns *fns, void *arg,
			 struct sl_broker_client **ret);
void sl_broker_client_free(struct sl_broker_client *cl); /* NULL is fine */
/* A new channel (ownership passes), in place of the one before. */
void sl_broker_client_connect(struct sl_broker_client *cl, int fd);

bool sl_broker_client_is_up(const struct sl_broker_client *cl);
/* The freeze filter for SO_ATTACH_BPF; -1: not up. Borrowed. */
int sl_broker_client_freeze_fd(const struct sl_broker_client *cl);
/* Read-only `flows`, `counters`, `routes`; -1: never was up. They stay usable while a broker is
 * away. */
int sl_broker_client_flows_fd(const struct sl_broker_client *cl);
int sl_broker_client_counters_fd(const struct sl_broker_client *cl);
int sl_broker_client_routes_fd(const struct sl_broker_client *cl);

/* The maps of the sockmap engine as the broker that is there now has them; NULL: it has none.
 * Borrowed: who keeps it takes a reference. */
struct sl_sockmap_view *sl_broker_client_sockmap(const struct sl_broker_client *cl);
/* LEAVE and HELD of a connection: kept while the channel has no room, and forgotten with it. */
void sl_broker_sockmap_tell(struct sl_broker_client *cl, enum sl_broker_type type, uint64_t conn_id,
			    uint32_t pair);

/* -EAGAIN: busy or not up, ask later; nothing is kept. The sockets stay the caller's. */
SL_MUST_CHECK int sl_broker_ask(struct sl_broker_client *cl, uint64_t conn_id,
				const struct sl_broker_handover *handover, int client_fd,
				int backend_fd);
/* After a broker died with a request unanswered, when the next one is up. */
SL_MUST_CHECK int sl_broker_resolve(struct sl_broker_client *cl, uint64_t conn_id,
				    const struct sl_broker_handover *handover, int client_fd,
				    int backend_fd);
/* KILL, PROBE, RELEASE, ADOPTED, FLUSH: kept until it can be sent. Losing a PROBE is harmless. */
void sl_broker_tell(struct sl_broker_client *cl, enum sl_broker_type type, uint64_t conn_id,
		    uint32_t flag);

/* ---- flows of the kernel's NAT ---- */

bool sl_broker_client_is_linked(const struct sl_broker_client *cl);
/*
 * Both are kept while the channel has no room, and forgotten with it: the next broker gives its
 * flows other serials, and is told of targets anew by linked(). Without a channel nothing is kept.
 */
void sl_broker_nat_kill(struct sl_broker_client *cl, uint64_t serial);
void sl_broker_nat_target(struct sl_broker_client *cl, const struct sl_broker_nat_target *target,
			  bool is_down);

/* The control thread's: answered by diff(), or by unlinked(). Nothing without a channel. */
void sl_broker_diff(struct sl_broker_client *cl);

/* ---- reading a flow ---- */

struct sl_flow_half {
	uint64_t packets;
	uint64_t bytes;   /* in the kernel */
	uint64_t relayed; /* before */
	bool fin;
	bool fin_acked; /* by the other side: everything before it has been delivered */
	bool rst;
	uint64_t last_ns; /* its last packet; CLOCK_MONOTONIC */
};
struct sl_flow_facts {
	uint64_t conn_id;                         /* whose it is now: a tuple may be in use again */
	struct sl_flow_half half[SL_SIDE_COUNT_]; /* by sending side */
	uint64_t last_data_ns;                    /* of both; CLOCK_MONOTONIC */
	uint64_t accepted_ns;
	uint32_t connect_us;
	uint32_t target_hash;
	char route[72];        /* "": unknown */
	struct sl_addr client; /* the real one */
	struct sl_addr via;
};
/* -ENOENT: one of its entries is not there. `want_names`: route, too (one more lookup). */
SL_MUST_CHECK int sl_broker_read_flow(const struct sl_broker_client *cl,
				      const struct sl_broker_flow *flow, bool want_names,
				      struct sl_flow_facts *ret);
/* Whether a source port towards a backend is free of flows in the kernel, also of those just over.
 */
bool sl_broker_is_free(const struct sl_broker_client *cl, const struct sl_addr *back,
		       const struct sl_addr *backend);

#endif
