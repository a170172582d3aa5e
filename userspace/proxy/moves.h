/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_MOVES_H
#define SL_PROXY_MOVES_H

#include <stdint.h>

#include "core/reason.h"

/* From one engine to another, in the middle of a connection. */
struct sl_move {
	uint8_t from; /* enum sl_engine_id: a connection keeps a few, and there are many */
	uint8_t to;
	uint8_t why; /* enum sl_engine_reason: of the engine it went to */
	uint64_t at_us;
};

/* The last ones, which a connection remembers. */
#define SL_MOVES_KEPT 4
struct sl_moves {
	struct sl_move kept[SL_MOVES_KEPT]; /* a ring */
	uint32_t n;                         /* since it began, also those forgotten */
};

static inline void sl_moves_add(struct sl_moves *m, struct sl_move move)
{
	m->kept[m->n++ % SL_MOVES_KEPT] = move;
}

static inline unsigned sl_moves_n_kept(const struct sl_moves *m)
{
	return m->n < SL_MOVES_KEPT ? m->n : SL_MOVES_KEPT;
}

/* Of those kept the i-th, the oldest first. */
static inline const struct sl_move *sl_moves_at(const struct sl_moves *m, unsigned i)
{
	return &m->kept[(m->n - sl_moves_n_kept(m) + i) % SL_MOVES_KEPT];
}

#endif
