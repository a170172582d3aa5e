/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_TLS_H
#define SL_PROXY_TLS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/log.h"
#include "io/loop.h"
#include "proxy/proxy.h"
#include "proxy/secure.h"
#include "proxy/signer.h"

struct sl_conn;
struct sl_worker;

/*
 * TLS that ends or begins here: handshakes, and the streams a relay reads and writes. A step of a
 * handshake costs a fraction of a millisecond in one piece, so steps are not made where their event
 * is dispatched: they are queued, and made after the events of a turn, in the order they came,
 * for SL_TLS_TURN_US of each turn, at least one. Established flows wait for that at most.
 */
#define SL_TLS_TURN_US 1000
/* Open at a time, by worker: each has 47 KB of the library's buffers. The others wait, unopened. */
#define SL_TLS_HANDSHAKES_MAX 1024
/* A client may leave us waiting for so long while others wait for its place. A round trip of 1 s is
 * the longest that TCP takes for granted (RFC 6298, 2.1); a handshake has one, or two. */
#define SL_TLS_PATIENCE_MS 1000

/* The keys of tickets: set by the control thread, taken by workers. */
struct sl_tls_ticket_box {
	pthread_mutex_t lock;
	struct sl_tls_tickets *tickets; /* NULL: no resumption */
};

/* A worker's. */
struct sl_tls_work {
	struct sl_tls_scratch scratch;
	struct sl_list ready;     /* of sl_conn_tls: a step is to be made */
	struct sl_list away;      /* likewise: a step is being made by the signer */
	struct sl_signer *signer; /* made with the first step that is given away; NULL: none */
	bool has_flows;           /* established ones to be served meanwhile, at the last look */
	uint64_t looked_ms;
	struct sl_list waiting;   /* for one of the open handshakes to end */
	struct sl_list asked;     /* of sl_conn_tls, by `asked_ms`: clients whose turn it is */
	struct sl_timer patience; /* armed while somebody waits */
	struct sl_task task;
	struct sl_tls_ticket_box *tickets; /* borrowed from the proxy */
	struct sl_list targets;            /* of struct tls_target, the last used first */
	size_t n_targets;
	struct sl_log_limit log[SL_SIDE_COUNT_];
	uint64_t unsaid[SL_SIDE_COUNT_]; /* failures beyond it, since the last line */
	const char *no_ktls;             /* why the kernel has no TLS; NULL: it has */
	uint64_t n_open;    /* one writer, as are the next two; read by the control thread */
	uint64_t n_waiting; /* in `waiting` */
	uint64_t handshakes[SL_SIDE_COUNT_][SL_TLS_COUNT_VERSIONS_][2][SL_TLS_COUNT_RESULTS_];
};
SL_MUST_CHECK int sl_tls_work_init(struct sl_tls_work *work, struct sl_tls_ticket_box *tickets,
				   const char *no_ktls);
/* The loop has ended: nothing is made elsewhere any more. Before the connections end. */
void sl_tls_work_stop(struct sl_tls_work *work);
void sl_tls_work_done(struct sl_tls_work *work);
/* Routes or files have changed: what only they had is given back. */
void sl_tls_work_prune(struct sl_worker *w);

/* A connection's; made with its first handshake. */
struct sl_conn_tls {
	struct sl_conn *conn;
	struct sl_tls_work *work; /* its worker's */
	struct sl_list node;      /* in `ready`, `waiting` or `away` */
	struct sl_signer_job job;
	struct sl_list turn; /* in `asked` */
	uint64_t asked_ms;   /* when the client's answer was last waited for */
	uint64_t used_ms;    /* for how long those before have been, in all */
	bool is_away;        /* its stream is the signer's */
	bool is_due;         /* something has come meanwhile */
	int orphan_fd; /* of a connection that has ended meanwhile (`conn` is NULL then); -1: none
			*/
	struct sl_secure *secure; /* until the last handshake is done */
	struct sl_tls_stream
		*stream[SL_SIDE_COUNT_];  /* NULL: that side speaks no TLS, or not yet */
	enum sl_side side;                /* whose handshake it is */
	bool is_open;                     /* counted in n_open */
	bool is_waiting;                  /* counted in n_waiting */
	bool is_cut[SL_SIDE_COUNT_];      /* the side has ended without close_notify */
	bool is_late[SL_SIDE_COUNT_];     /* likewise, but told our end before, and silent since */
	uint64_t told_at[SL_SIDE_COUNT_]; /* bytes the side had sent when it was told our end */
	bool wants_out[SL_SIDE_COUNT_];   /* a flow waits until the side takes bytes again */
	bool has_ended[SL_SIDE_COUNT_];   /* its end has been read; passed on behind what is held */
};

static inline bool sl_tls_is(const struct sl_conn_tls *tls, enum sl_side side)
{
	return tls && tls->stream[side];
}

static inline bool sl_tls_is_away(const struct sl_conn_tls *tls)
{
	return tls && tls->is_away;
}

static inline bool sl_tls_is_cut(const struct sl_conn_tls *tls, enum sl_side side)
{
	return tls && tls->is_cut[side];
}

/* Its targets are spoken to in TLS. */
bool sl_tls_wants_backend(const struct sl_conn *c);

/*
 * The life cycle's action SL_ACT_HANDSHAKE: with the client, or, once that is done or not wanted
 * and the backend is connected, with the backend. Ends in sl_conn_event(), sl_connect_failed() or
 * the end of the connection.
 */
void sl_tls_begin(struct sl_conn *c);
/* The ClientHello is in hand. */
void sl_tls_got_hello(struct sl_conn *c);
/* Events of either socket while handshaking. */
void sl_tls_on_socket(struct sl_conn *c, enum sl_side side, uint32_t events);
/* timeouts.handshake has passed. */
void sl_tls_timed_out(struct sl_conn *c);

/* The connection ends and its sockets will say so: so does TLS, as far as the wires take it. */
void sl_tls_end(struct sl_conn *c);
/* The stream of an attempt that failed. */
void sl_tls_drop_backend(struct sl_conn *c);
/* Gives everything back; idempotent. */
void sl_tls_leave(struct sl_conn *c);

/* A failure of a stream of an established connection: logs it and ends the connection. */
void sl_tls_fail(struct sl_conn *c, enum sl_side side, int err);
/*
 * Reads what the client has sent, in the clear where TLS ends here: bytes, 0: its end, -EAGAIN, or
 * another -errno.
 */
ssize_t sl_tls_recv(struct sl_conn *c, enum sl_side side, void *buf, size_t n);

/* The client's socket is in use by the signer: it is taken over, and closed when that is done. */
void sl_tls_take_socket(struct sl_conn *c);

/* For views and log lines. */
void sl_tls_row(const struct sl_conn *c, enum sl_side side, struct sl_tls_row *ret);

#endif
