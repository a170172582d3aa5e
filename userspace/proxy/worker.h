/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_WORKER_H
#define SL_PROXY_WORKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/rand.h"
#include "base/str.h"
#include "io/loop.h"
#include "io/parting.h"
#include "io/pipe.h"
#include "proxy/access.h"
#include "proxy/conn.h"
#include "proxy/deny.h"
#include "proxy/generation.h"
#include "proxy/handover.h"
#include "proxy/limits.h"
#include "proxy/nat.h"
#include "proxy/packet.h"
#include "proxy/proxy.h"
#include "proxy/source.h"
#include "proxy/tls.h"

/* One read's worth; bulk reads use all of it, first reads SL_READ_SIZE. */
#define SL_SCRATCH_SIZE (256u << 10)
#define SL_READ_SIZE (64u << 10)

/* Written by one worker, read by the control thread. */
struct sl_worker_counts {
	uint64_t accepted;
	uint64_t rejected;
	uint64_t engine_active[SL_ENGINE_COUNT_];
	uint64_t engine_total[SL_ENGINE_COUNT_];
	uint64_t engine_why[SL_ENGINE_COUNT_][SL_WHY_COUNT_];
	uint64_t engine_moves[SL_ENGINE_COUNT_][SL_ENGINE_COUNT_][SL_WHY_COUNT_]; /* from, to */
	uint64_t ended[SL_SIDE_COUNT_][SL_REASON_COUNT_];
	uint64_t no_route_rejected[SL_REASON_COUNT_];
	uint64_t no_route_ended[SL_REASON_COUNT_];
	uint64_t handover[SL_ENGINE_COUNT_][SL_WHY_COUNT_]; /* answers of the broker */
	struct sl_hist handover_time;
	uint64_t lost;    /* flows found in the kernel whose route is gone */
	uint64_t missing; /* flows whose entries had gone, and nobody said why */
	uint64_t accept_errors;
	uint64_t fsm_bugs;
	struct sl_hist connect;
	struct sl_hist duration;
	struct sl_hist in_state[SL_CONN_STATE_COUNT_];
};

/*
 * One event loop and all it owns. Everything but `loop` (for posting) and
 * `counts` belongs to the worker's own thread.
 */
struct sl_worker {
	unsigned index;
	struct sl_loop *loop;
	pthread_t thread;
	bool is_running;

	/* shared with the other workers, borrowed from the proxy */
	struct sl_limits *limits;
	struct sl_access *access;

	struct sl_generation *gen;    /* reference to the current one */
	struct sl_deny *deny;         /* reference to the addresses of deny_file; NULL: none */
	struct sl_candidate *choices; /* scratch of proxy/pick.c: for the route with most targets */
	size_t n_choices;
	struct sl_list conns; /* the registry */
	size_t n_conns;
	uint64_t next_id;
	uint64_t id_step;
	struct sl_list spare; /* closed records for reuse, at most MAX_SPARE */
	size_t n_spare;
	struct sl_pipe_pool *pipes;
	struct sl_parting *parting; /* sockets of clients that were told why they are refused */
	struct sl_tls_work tls;
	char *scratch;
	struct sl_rand rand;
	/* own choice of source ports, see proxy/connect.c; port_min 0: the kernel chooses */
	uint32_t port_min;
	uint32_t port_max;
	uint32_t port_step;
	uint32_t next_port;
	struct sl_handovers *handovers;
	struct sl_packet_flows packet_flows;
	struct sl_nat_flows *nat_flows;
	uint32_t nat_lag_ms; /* atomic, set by the control thread: as the broker says; 0: it has not
			      */
	struct sl_sources *sources;
	uint32_t sockmap_reason; /* likewise */
	uint32_t packet_reason;  /* atomic, set by the control thread: see sl_worker_packet_reason()
				  */
	struct sl_str access_lines;
	struct sl_task access_flush;
	struct sl_log_limit connect_log;
	struct sl_log_limit accept_log;
	struct sl_log_limit first_log;

	struct sl_list listeners; /* of struct sl_listener */
	struct sl_timer accept_pause;
	bool accept_paused;

	bool draining;
	bool in_haste;       /* what is open ends now */
	bool hands_on;       /* while draining: flows of the kernel go to the next process */
	sl_task_fn on_empty; /* runs (deferred) when draining and no connection is left */
	struct sl_task empty_task;
	void *on_empty_arg;

	struct sl_worker_counts counts;
};

struct sl_worker_options {
	unsigned index;
	unsigned n_workers;
	uint64_t first_conn_id;
	struct sl_limits *limits;
	struct sl_access *access;
	struct sl_tls_ticket_box *tickets;
	const char *no_ktls;
	uint32_t port_min; /* of the network namespace's ephemeral range; 0: unknown */
	uint32_t port_max;
};

int sl_worker_new(const struct sl_worker_options *options, struct sl_worker **ret);
SL_MUST_CHECK int sl_worker_start(struct sl_worker *w); /* its thread runs from here on */
/* Quits the loop, joins the thread, closes what is left. Accepts NULL. */
void sl_worker_free(struct sl_worker *w);

/* ---- on the worker's own thread ---- */

struct sl_conn *sl_worker_new_conn(struct sl_worker *w); /* NULL: out of memory */
/* The record goes back at the end of the turn. */
void sl_worker_retire_conn(struct sl_worker *w, struct sl_conn *c);
/* Gives a new connection the id of the flow it stands for. */
void sl_worker_rename_conn(struct sl_worker *w, struct sl_conn *c, uint64_t id);
/* SL_WHY_ELIGIBLE: flows may be handed over to that engine; else why none can be. */
enum sl_engine_reason sl_worker_packet_reason(const struct sl_worker *w);
enum sl_engine_reason sl_worker_sockmap_reason(const struct sl_worker *w);
/* Takes a reference. On -ENOMEM the generation before stays. */
SL_MUST_CHECK int sl_worker_use_generation(struct sl_worker *w, struct sl_generation *gen);
void sl_worker_flush_access_later(struct sl_worker *w); /* access_lines, at the end of the turn */

#endif
