/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_SOCKMAP_H
#define SL_BROKER_SOCKMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "accel/sockmap.h"
#include "broker/wire.h"
#include "core/reason.h"
#include "io/loop.h"

struct sl_broker;
struct sl_peer;

/* What the broker knows of a pair of slots. */
struct sl_sockmap_owner {
	uint64_t conn_id; /* 0: the pair is free */
	uint64_t proxy;   /* which process has the record, */
	unsigned worker;
	bool is_held;      /* if this is set */
	uint8_t n_missing; /* looks in a row that found less than there has to be */
	bool was_told;     /* so its worker knows */
	uint64_t since_ms; /* nobody has held it since */
};

/*
 * The broker's part of the sockmap engine: joins sockets, tells workers of spills, keeps the maps
 * and the records alike. What is true is in the maps; a proxy closes its sockets itself.
 */
struct sl_sockmap_keeper {
	struct sl_sockmap *maps;       /* NULL: off */
	struct sl_sockmap_owner *pair; /* SL_SOCKMAP_SLOTS / 2 of them */
	enum sl_engine_reason why_off; /* NONE: on, or not asked for yet */
	int open_error;                /* of the last try */
	char off_text[100];
	struct sl_io events_io;
	struct sl_timer timer;
	uint32_t n_rounds;      /* walks that have ended */
	bool is_in_haste;       /* this walk goes on as fast as may be, */
	bool has_more_haste;    /* and so does the next one */
	uint32_t cursor;        /* pair looked at last */
	uint32_t n_orphans;     /* counted by the walk that ended last, */
	uint32_t n_orphans_now; /* and by this one */
	uint32_t n_repaired;
	uint32_t n_dropped;
	struct sl_broker_sockmap_status status; /* as last told */
};

/* Opens and tests the engine where the policy wants it and it has not been tried. */
void sl_sockmap_keeper_policy(struct sl_broker *b);
bool sl_sockmap_keeper_is_on(const struct sl_broker *b);
/* Off, but not for lack of something in the kernel. */
bool sl_sockmap_keeper_is_off_for_now(const struct sl_broker *b);
/* Leaves everything pinned. */
void sl_sockmap_keeper_close(struct sl_broker *b);
/* Sockets that are still in the maps are not any more: their workers go on with them. */
void sl_sockmap_keeper_take_out(struct sl_broker *b);
/* Takes everything away: closed, the packet engine too, and nobody has a socket in it any more. */
void sl_sockmap_keeper_remove(struct sl_broker *b);

/* HANDOVER and RESOLVE with to_sockmap; `fds` stay the caller's. */
void sl_sockmap_serve(struct sl_peer *p, const struct sl_broker_msg *msg,
		      int fds[SL_BROKER_MAX_FDS]);
/* LEAVE and HELD. */
void sl_sockmap_left(const struct sl_peer *p, const struct sl_broker_msg *msg);
void sl_sockmap_held(struct sl_peer *p, const struct sl_broker_msg *msg);
/* The channel has ended: its sockets may be gone. */
void sl_sockmap_peer_gone(const struct sl_peer *p);

/* Everything is looked at now. */
void sl_sockmap_reconcile_now(struct sl_broker *b);

#endif
