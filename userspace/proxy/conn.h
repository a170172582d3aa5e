/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_CONN_H
#define SL_PROXY_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/list.h"
#include "core/conn_fsm.h"
#include "core/deadline.h"
#include "core/reason.h"
#include "core/tls_hello.h"
#include "io/loop.h"
#include "io/pipe.h"
#include "proxy/generation.h"
#include "proxy/moves.h"

struct sl_worker;
struct sl_engine;
struct sl_conn_tls;
struct sl_first;
struct sl_handover;
struct sl_nat_record;

/* More than forward.retries can ask for. */
#define SL_MAX_TRIES 11

/*
 * A connection: the one record, owned by its worker's registry from accept to
 * the end of the turn in which it closed. Nothing else allocates or frees it,
 * and only sl_conn_event() changes its state. After sl_conn_event(),
 * sl_conn_end() or sl_conn_fail() the caller must not touch the record: make
 * the call the last statement.
 */

/* One of the two sockets. */
struct sl_side_io {
	struct sl_io io;       /* io.fd -1: no socket; owned by the connection */
	enum sl_reason reason; /* NONE: not ended */
	bool hung_up;          /* its FIN has come; the edge is reported once, so it is kept */
	bool read_to_end; /* a short read does not prove that nothing is left (RST, urgent data) */
	bool wants_out;   /* EPOLLOUT is registered */
};

/* What the first bytes have told; kept for views and log lines. */
struct sl_hello_facts {
	uint32_t versions; /* SL_TLS_* offered; 0: no ClientHello */
	uint16_t name_len; /* 0: none */
	uint16_t alpn_len;
	char text[]; /* the name and a NUL, then the protocols as sl_hello.alpn has them */
};
static inline struct sl_slice sl_hello_facts_alpn(const struct sl_hello_facts *f)
{
	return (struct sl_slice){ .p = f->alpn_len ? f->text + f->name_len + 1 : NULL,
				  .n = f->alpn_len };
}

/* The bytes on their way from one side to the other; used by the relay engine. */
struct sl_flow {
	char *held; /* read but not yet sent; NULL mostly */
	uint32_t held_at;
	uint32_t held_len;
	uint8_t full_reads; /* in a row: tells bulk from messages */
	bool splicing;
	bool shut;           /* the FIN has been passed on */
	struct sl_pipe pipe; /* rd -1: none */
	uint64_t bytes;      /* handed to the receiving socket */
};

/* Flow i carries what side i sent. */
#define SL_UP SL_CLIENT
#define SL_DOWN SL_BACKEND

struct sl_conn {
	struct sl_list node; /* in the registry */
	bool is_cursor;      /* a survey's place in the list, not a connection */

	struct sl_worker *worker;
	uint64_t id;
	enum sl_conn_state state;
	struct sl_timer timer;
	struct sl_task again; /* the engine's budget ran out */
	struct sl_task reap;

	struct sl_generation *gen;        /* reference; NULL before routing */
	const struct sl_gen_route *route; /* inside gen */
	struct sl_target *target;         /* reference, while one is in use */
	const struct sl_engine *engine;   /* set once established */
	enum sl_engine_id engine_id;
	enum sl_engine_reason engine_reason;
	struct sl_moves moves;

	struct sl_side_io side[SL_SIDE_COUNT_];
	struct sl_flow flow[SL_SIDE_COUNT_];
	const char *early; /* first bytes, in the worker's scratch during the call that read them */
	uint32_t early_len;
	struct sl_first *first;       /* owned while first bytes are awaited: proxy/classify.c */
	struct sl_hello_facts *hello; /* owned; NULL: no ClientHello was read */
	struct sl_conn_tls *tls;      /* owned; NULL: no TLS ends or begins here: proxy/tls.c */

	struct sl_addr client; /* the real one: of the PROXY header, where there is one */
	struct sl_addr via;    /* the immediate peer then; AF_UNSPEC: the client itself */
	struct sl_addr local;  /* connected to; AF_UNSPEC: ask the socket */
	struct sl_addr backend;
	uint16_t port;                /* the client connected to */
	uint16_t tried[SL_MAX_TRIES]; /* targets connected to without success, and the current */
	uint32_t attempts;            /* connects begun */
	enum sl_reason last_failure;  /* of a connect */
	uint64_t turn;                /* where round robin stood for this connection */
	bool counted;                 /* in the limits: all, */
	bool counted_route;           /* its route, */
	bool counted_ip;              /* its address */
	bool target_active;
	bool target_connecting;
	bool header_due;    /* send_proxy: not yet sent on this attempt */
	bool reset;         /* close with RST */
	bool parts;         /* the client is told why, and may still be speaking: io/parting.h */
	bool got_data;      /* the client has sent at least one byte */
	bool missed_events; /* edges came while connecting: the engine must look for itself */
	bool warned;        /* of an end by inactivity; cleared by activity */

	/* the way to the kernel: proxy/handover.c */
	struct sl_handover *handover;  /* owned; NULL: has not been tried */
	struct sl_list young;          /* among those whose age will make them due */
	enum sl_engine_id handover_to; /* NONE: it stays with the relay */
	uint64_t handover_after;       /* bytes that make it due; UINT64_MAX: none */
	bool has_own_port;             /* its source port is one of packet.ports */
	bool let_go;                   /* the next process has the flow: nothing has ended */
	enum sl_reason ending; /* the engine was asked to end it, and why; NONE: it was not */

	struct sl_nat_record *nat; /* a flow of the kernel's NAT: proxy/nat.c; else NULL */

	uint64_t accepted_us;
	uint64_t ended_us;   /* where the end is told of later; 0: now */
	uint64_t entered_us; /* the state was entered */
	uint64_t attempt_us;
	uint64_t connect_us; /* how long the connect that succeeded took */
	uint64_t active_ms;
	uint64_t drain_at_ms; /* SL_NEVER: not draining */
	uint64_t drain_final_ms;
	uint64_t outq_seen; /* undelivered bytes in the kernel at the last deadline check */
};

/*
 * The first bytes have told where the connection goes, or that they need not be awaited: the
 * route's index in c->gen or SL_NO_ROUTE. Admits or refuses.
 */
void sl_conn_routed(struct sl_conn *c, uint32_t route);

/* Refused before anything was sent to or taken from a backend. */
void sl_conn_refuse(struct sl_conn *c, enum sl_reason why);

/* Takes an accepted socket over (ownership passes in every case). */
void sl_conn_open(struct sl_worker *w, int fd, const struct sl_addr *client, uint16_t port,
		  const struct sl_addr *local);

/* One step of the life cycle; the only function that stores a state. */
void sl_conn_event(struct sl_conn *c, enum sl_conn_event event);

/*
 * Ends the connection as a whole: `reason` goes to every side that exists and
 * has not ended. With `reset` both sockets send a RST, else what was handed to
 * the kernel is still delivered. Where the engine is to say the last word (engine.h) it ends with
 * that, three seconds later at most; further calls meanwhile end it at once, for the first one's
 * reason.
 */
void sl_conn_end(struct sl_conn *c, enum sl_reason reason, bool reset);

/* It ends, and whoever asks is not told of it any more. */
static inline bool sl_conn_is_ending(const struct sl_conn *c)
{
	return c->state == SL_CONN_CLOSED || c->ending != SL_REASON_NONE;
}

/* One side failed: its reason is `reason`, the other is reset and did nothing wrong. */
void sl_conn_fail(struct sl_conn *c, enum sl_side side, enum sl_reason reason);

/* A side's FIN has been read and passed on. */
void sl_conn_finished(struct sl_conn *c, enum sl_side side);

/* The worker is draining: see sl_proxy_drain(). */
void sl_conn_drain(struct sl_conn *c, uint64_t now_ms);

/* Bytes moved; cheap, called by engines. */
void sl_conn_moved(struct sl_conn *c, enum sl_side from, uint64_t bytes);

/* The same, found out later: the kernel has moved them, the last one at `at_ms`. */
void sl_conn_moved_in_kernel(struct sl_conn *c, enum sl_side from, uint64_t bytes, uint64_t at_ms);

/*
 * A flow of the kernel that has no record, because the process that had it is no more, or because
 * it never met one: `c` is new and sl_packet_adopt() or proxy/nat.c has filled it in.
 */
void sl_conn_adopted(struct sl_conn *c);

/*
 * The same, but `route` is the name of none: it is over, and this is all there is to say of it. Its
 * sides end with crash_recovered unless they have ended before.
 */
void sl_conn_lost(struct sl_conn *c, const char *route);

/* The other process, or the kernel alone, goes on with it: no reason, no access line. */
void sl_conn_let_go(struct sl_conn *c);

/*
 * Counts it as carried by `engine` from now on, and, where another one has carried it so far, that
 * it has moved: in either direction. The engine itself neither stops nor starts here.
 */
void sl_conn_use_engine(struct sl_conn *c, const struct sl_engine *engine,
			enum sl_engine_reason why);
void sl_conn_set_reason(struct sl_conn *c, enum sl_engine_reason why);

/* Neither the process nor the kernel's queues hold bytes that have not been acknowledged. */
bool sl_conn_is_at_rest(const struct sl_conn *c);

/* From its begin to now, or to its end. */
uint64_t sl_conn_age_us(const struct sl_conn *c);

/* Recomputes the deadline after something it depends on has changed. */
void sl_conn_rearm(struct sl_conn *c);

/* Watches a side's socket for everything but writability, edge-triggered. */
SL_MUST_CHECK int sl_conn_watch(struct sl_conn *c, enum sl_side side, bool want_out);
void sl_conn_want_out(struct sl_conn *c, enum sl_side side);

/* What the client has sent and nobody has taken yet: read in this call, or held since. */
struct sl_slice sl_conn_in_hand(const struct sl_conn *c);
void sl_conn_consume(struct sl_conn *c, size_t n);
/* What is in hand outlives this call, and the worker's scratch is free; false: out of memory. */
SL_MUST_CHECK bool sl_conn_keep(struct sl_conn *c);

/* Copies the unsent rest of what was read from `side`; false: out of memory. */
SL_MUST_CHECK bool sl_conn_hold(struct sl_conn *c, enum sl_side from, const char *bytes, size_t n);

#endif
