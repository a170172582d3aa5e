/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_SWEEP_H
#define SL_BROKER_SWEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "accel/packet.h"
#include "io/loop.h"

struct sl_broker;
struct sl_kflow;

/* Entries read in one turn. */
#define SL_SWEEP_SLICE 1024

/* An entry that belongs to no flow: it is removed when it is still there after its grace. */
#define SL_STRAYS 64
struct sl_stray {
	struct sl_packet_key key;
	uint64_t since_ms;
	uint32_t round; /* in which it was last met; 0: none */
};

/* The walk through `flows`, slice by slice, again and again: what it finds is the truth. */
struct sl_sweep {
	uint32_t round;   /* counts up; what was not met in one is gone */
	bool is_checking; /* for what was not met; otherwise walking */
	struct sl_packet_cursor cursor;
	struct sl_packet_key *keys; /* room for a slice; also used by routes.c */
	struct sl_packet_flow *flows;
	uint64_t round_at_ms; /* when it began */
	size_t n_slices;      /* of the round before: by them the next is spread out */
	size_t slice;
	struct sl_timer timer;
	struct sl_list closing; /* flows of which a FIN was told, and that are looked at soon */
	struct sl_timer look_timer;
	bool is_first;   /* round: every flow is of an earlier broker */
	bool is_hurried; /* the round is asked for: it is not spread out */
	struct sl_stray stray[SL_STRAYS];
};

SL_MUST_CHECK int sl_sweep_init(struct sl_broker *b);
void sl_sweep_done(struct sl_broker *b);
/* The first round at once, so that every flow is known; then it goes on by itself. */
void sl_sweep_start(struct sl_broker *b);
void sl_sweep_stop(struct sl_broker *b);
/* A whole round from now on, as fast as it goes: sl_diff_walked() when it is over. */
void sl_sweep_now(struct sl_broker *b);
/* In a moment, after what the kernel has told by then. */
void sl_sweep_look_soon(struct sl_kflow *f);
/* What the kernel tells as it happens. */
void sl_sweep_events(struct sl_broker *b);

#endif
