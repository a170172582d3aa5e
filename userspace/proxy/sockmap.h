/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_SOCKMAP_H
#define SL_PROXY_SOCKMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "core/reason.h"
#include "io/loop.h"

struct sl_conn;
struct sl_sockmap_view;
struct sl_worker;

/*
 * The sockmap engine as a connection's record sees it: both sockets stay ours, the kernel queues
 * what one receives to the other. The slots of both say what has gone where; the daemon takes part
 * where one side takes too long (a spill) and at the ends, which it passes on when every byte
 * before them has been delivered.
 */

/* One direction: what one side sends, from the hand-over on. */
struct sl_joint_half {
	uint64_t read_before;    /* from the socket of the sender */
	uint64_t written_before; /* to that of the receiver */
	uint64_t redirected;     /* by the kernel, as last seen */
	uint64_t moved_ms;       /* when that changed */
	uint64_t asked_ms;       /* when it was last compared with what the socket has received */
	uint64_t carried;        /* by the daemon: read and written */
	bool is_in_daemon;       /* what is passed to the daemon is waited for */
	bool is_offered;         /* the kernel may take it back with any packet */
	uint64_t window_ms;      /* since when `in_window` counts */
	uint64_t in_window;      /* bytes carried */
	uint64_t stuck_ms;       /* bytes have come that cannot be read, since; 0: not so */
	uint64_t stuck_at;       /* what had been taken then */
	bool is_drained;         /* all of `redirected` has been written */
	bool has_fin;            /* the sender's came while nothing else was wrong */
	int error; /* of the sender's socket: ends it when what came before has gone */
	uint64_t error_ms;
};

/* The engine's part of a record; embedded in its struct sl_handover. */
struct sl_joint {
	struct sl_list node; /* among the worker's */
	struct sl_conn *conn;
	struct sl_sockmap_view *view; /* a reference; NULL: never asked */
	uint32_t pair;
	bool is_joined; /* it was given a pair of slots; whose they are by now, they say */
	bool is_lost;   /* somebody has taken a socket of it out of the maps */
	bool is_out;    /* the relay has it again, and keeps it */
	struct sl_joint_half half[SL_SIDE_COUNT_]; /* by sending side */
	struct sl_timer timer;                     /* for what no event tells of */
	bool has_moved;                            /* bytes, since all were looked at */
	uint32_t wait_ms;
};

/* A worker's connections of this engine. */
struct sl_joints {
	struct sl_worker *worker;
	struct sl_list list;
	struct sl_timer timer;
};
void sl_joints_init(struct sl_joints *js, struct sl_worker *w);
void sl_joints_stop(struct sl_joints *js);
/* A broker is there, with these maps: it is told what is held. */
void sl_joints_linked(struct sl_joints *js);
void sl_joints_unlinked(struct sl_joints *js);

/*
 * Nothing has been read in part, nothing waits to be sent: notes what each side has read and
 * written so far, which must not change until the broker has answered. False: not now.
 */
bool sl_joint_prepare(struct sl_joint *j);
/* Whether a broker has begun to join them. */
bool sl_joint_has_begun(const struct sl_joint *j);
/* A broker has died in it: what it has done already goes on. */
void sl_joint_nudge(struct sl_joint *j);
/* The broker has joined them. May end the connection. */
void sl_joint_take_over(struct sl_joint *j, uint32_t pair);
/* A spill, or, with SL_BROKER_SOCKMAP_LOST in `flag`, worse. May end the connection. */
void sl_joint_changed(struct sl_joint *j, uint32_t flag);
/* Out of the kernel without losing a byte: from now on the daemon carries it. May end it. */
void sl_joint_move_out(struct sl_joint *j, enum sl_engine_reason why);
/* The kernel may have it again: as after sl_joint_take_over(). False: it is in the maps no more. */
bool sl_joint_move_in(struct sl_joint *j);
/* The sockets are closed. */
void sl_joint_forget(struct sl_joint *j);

#endif
