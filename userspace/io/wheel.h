/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_IO_WHEEL_H
#define SL_IO_WHEEL_H

#include <stdint.h>

#include "base/list.h"
#include "io/loop.h"

/*
 * Hierarchical timer wheel, 1 ms a tick: a timer stands on the level of the
 * highest 6-bit digit in which its time differs from the wheel's, so that every
 * 64-bit time has a place. Adding is O(1); a timer moves down at most once per
 * level before it is due. Taking one out is sl_list_remove() of its node; the
 * bit of a slot that became empty this way is cleared when it is met.
 */
#define SL_WHEEL_BITS 6
#define SL_WHEEL_SLOTS (1 << SL_WHEEL_BITS)
#define SL_WHEEL_LEVELS 11 /* 11 digits of 6 bits hold 64 bits */

struct sl_wheel {
	uint64_t now_ms;     /* everything due by then has been handed out */
	struct sl_list past; /* was due already when it was added */
	uint64_t used[SL_WHEEL_LEVELS];
	struct sl_list slot[SL_WHEEL_LEVELS][SL_WHEEL_SLOTS];
};

void sl_wheel_init(struct sl_wheel *w, uint64_t now_ms);

/* `timer->at_ms` is set and its node is in no list. */
void sl_wheel_add(struct sl_wheel *w, struct sl_timer *timer);

/*
 * When sl_wheel_advance() has something to do: exact for a time within 64 ms,
 * at or before the next timer otherwise. UINT64_MAX: no timer.
 */
uint64_t sl_wheel_next(struct sl_wheel *w);

/* Moves every timer with at_ms <= now_ms to the end of `due`. */
void sl_wheel_advance(struct sl_wheel *w, uint64_t now_ms, struct sl_list *due);

/* Stops every timer. */
void sl_wheel_clear(struct sl_wheel *w);

#endif
