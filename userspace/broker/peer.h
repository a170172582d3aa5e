/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_PEER_H
#define SL_BROKER_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "broker/wire.h"
#include "io/loop.h"

struct sl_broker;
struct sl_kflow;

/* Hand-overs of one channel: a storm of honest ones fits, a flood does not. */
#define SL_PEER_RATE 5000 /* per second */
#define SL_PEER_BURST 2000

/*
 * A channel of a proxy. It is not read while something for it could not be sent, so one reply is
 * all that has to be kept; what it is to be told of flows is kept in the flows.
 */
struct sl_peer {
	struct sl_list node; /* in the broker's list */
	struct sl_broker *broker;
	struct sl_io io;
	int fd;
	uint64_t proxy;
	unsigned worker;
	unsigned n_workers;
	uint64_t tokens; /* in millionths of a hand-over */
	uint64_t tokens_at_us;
	struct sl_list flows; /* whose record it has, or was told of */
	struct sl_list todo;  /* those of them with something to be told */
	struct sl_broker_msg out;
	bool has_out;
	bool is_blocked; /* the last send would have waited */
	bool awaits_out;
	bool has_hello;
	bool has_sockmap_hello;
	bool wants_sockmap_status;
	bool wants_status;
	bool wants_nat_status;
	bool wants_nat_told;
	bool wants_worries;
	uint32_t worries_at; /* so much of their text it has */
	bool asks_diff;      /* for a look that has not begun */
	bool awaits_diff;    /* its end */
	bool wants_diff;
	bool wants_drift;
	uint32_t diff_at; /* so much of the text it has */
	bool wants_flushed;
	bool is_flushing;
	bool is_leaving; /* it lets go of its flows; they are not given back to it */
	struct sl_task flush_task;
	struct sl_task free_task;
};

int sl_peer_new(struct sl_broker *b, uint64_t proxy, unsigned worker, unsigned n_workers, int fd);
/* Its flows are orphans then. */
void sl_peer_close(struct sl_peer *p);

/* A hand-over is taken from what the channel may ask for; false: there is nothing left. */
bool sl_peer_take_token(struct sl_peer *p);
/* An answer to the request being served. */
void sl_peer_reply(struct sl_peer *p, const struct sl_broker_msg *msg);
/* What does no harm when it is lost: not kept where the channel has no room, which is
 * false. */
bool sl_peer_hint(struct sl_peer *p, const struct sl_broker_msg *msg);
/* To the flow's owner, or whoever becomes it; at the end of the turn. */
void sl_peer_tell(struct sl_kflow *f, uint8_t what);
/* To the worker of the proxy that is told of flows of the kernel's NAT. False: it has no room. */
bool sl_peers_tell_nat(struct sl_broker *b, uint64_t serial, const struct sl_broker_nat_flow *flow);
/* To its workers, behind all that they have been told of: those were all. False: there is nobody.
 */
bool sl_peers_tell_nat_is_all(struct sl_broker *b);
/* To the control thread: they are others now. */
void sl_peer_tell_worries(struct sl_peer *p);
/* Sends what there is; at the end of the turn. */
void sl_peer_flush_later(struct sl_peer *p);
/* Sends all there is now, to be read by others than this thread, until `until_us` of the loop. */
void sl_peers_flush_now(struct sl_broker *b, uint64_t until_us);
/* Orphans are offered to the newest proxy; at the end of the turn. */
void sl_peers_announce(struct sl_broker *b);

#endif
