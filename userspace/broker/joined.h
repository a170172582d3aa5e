/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_JOINED_H
#define SL_BROKER_JOINED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "core/reason.h"

struct sl_sockmap_view;

/* Connections as the kernel's slots of the sockmap engine have them, for whoever has its maps. */
struct sl_joined_half {
	uint64_t bytes;  /* moved by the kernel */
	uint64_t passed; /* to the daemon */
	uint64_t packets;
	uint64_t last_ns; /* CLOCK_MONOTONIC; 0: none has come */
	uint32_t limit;
	uint32_t spills;
	uint32_t max_waiting;
	bool is_spilled; /* now */
	const char *why; /* the last spill: "limit", ...; NULL: there was none */
};
struct sl_joined_row {
	uint64_t conn_id;
	bool is_complete;                           /* none of its entries is missing */
	struct sl_joined_half half[SL_SIDE_COUNT_]; /* by sending side */
};

/* A walk in slices; zeros at its start. */
struct sl_joined_walk {
	struct sl_sockmap_view *maps; /* a reference; NULL: before the first slice, or none */
	uint32_t pair;                /* the next one */
	struct sl_joined_row *rows;
	size_t n;
	size_t cap;
	bool more; /* there are others */
};
/*
 * The rows of the next slice, as long as there are fewer than `max`, of connection `id` (0: of
 * any). 1: that was all; 0: call again; -ENOMEM. `maps`: the present ones, borrowed; NULL: there
 * are none.
 */
SL_MUST_CHECK int sl_joined_step(struct sl_joined_walk *w, struct sl_sockmap_view *maps, size_t max,
				 uint64_t id);
void sl_joined_done(struct sl_joined_walk *w);

/* Every outcome of the program by its name, in a fixed order; none when they cannot be read. */
void sl_joined_outcomes(const struct sl_sockmap_view *maps,
			void (*fn)(void *arg, const char *name, uint64_t value), void *arg);

#endif
