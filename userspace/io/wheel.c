/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "io/wheel.h"

#include "base/cleanup.h"

#define SLOT_MASK (SL_WHEEL_SLOTS - 1)

struct place {
	unsigned level;
	unsigned slot;
};

void sl_wheel_init(struct sl_wheel *w, uint64_t now_ms)
{
	w->now_ms = now_ms;
	sl_list_init(&w->past);
	for (unsigned level = 0; level < SL_WHEEL_LEVELS; level++) {
		w->used[level] = 0;
		for (unsigned i = 0; i < SL_WHEEL_SLOTS; i++)
			sl_list_init(&w->slot[level][i]);
	}
}

void sl_wheel_add(struct sl_wheel *w, struct sl_timer *timer)
{
	unsigned level;
	unsigned slot;

	if (timer->at_ms <= w->now_ms) {
		sl_list_add(&w->past, &timer->node);
		return;
	}
	level = (63u - (unsigned)__builtin_clzll(timer->at_ms ^ w->now_ms)) / SL_WHEEL_BITS;
	slot = (unsigned)(timer->at_ms >> (level * SL_WHEEL_BITS)) & SLOT_MASK;
	w->used[level] |= UINT64_C(1) << slot;
	sl_list_add(&w->slot[level][slot], &timer->node);
}

/*
 * The first slot that holds a timer. A lower level is always earlier than a
 * higher one, and no slot in use lies before the wheel's time.
 */
static bool find_first(struct sl_wheel *w, struct place *ret)
{
	for (unsigned level = 0; level < SL_WHEEL_LEVELS; level++) {
		while (w->used[level]) {
			unsigned slot = (unsigned)__builtin_ctzll(w->used[level]);

			if (!sl_list_is_empty(&w->slot[level][slot])) {
				*ret = (struct place){ .level = level, .slot = slot };
				return true;
			}
			w->used[level] &= w->used[level] - 1;
		}
	}
	return false;
}

static uint64_t start_of(const struct sl_wheel *w, struct place p)
{
	unsigned shift = p.level * SL_WHEEL_BITS;

	return ((w->now_ms >> shift & ~(uint64_t)SLOT_MASK) | p.slot) << shift;
}

uint64_t sl_wheel_next(struct sl_wheel *w)
{
	struct place p;

	if (!sl_list_is_empty(&w->past))
		return w->now_ms;
	return find_first(w, &p) ? start_of(w, p) : UINT64_MAX;
}

/* The wheel's time has reached the slot: its timers are due or go to a lower level. */
static void empty_slot(struct sl_wheel *w, struct place p)
{
	struct sl_list timers;

	sl_list_init(&timers);
	sl_list_splice(&timers, &w->slot[p.level][p.slot]);
	w->used[p.level] &= ~(UINT64_C(1) << p.slot);
	while (!sl_list_is_empty(&timers)) {
		struct sl_timer *timer = SL_CONTAINER_OF(timers.next, struct sl_timer, node);

		sl_list_remove(&timer->node);
		sl_wheel_add(w, timer);
	}
}

void sl_wheel_advance(struct sl_wheel *w, uint64_t now_ms, struct sl_list *due)
{
	struct place p;

	while (find_first(w, &p)) {
		uint64_t start_ms = start_of(w, p);

		if (start_ms > now_ms)
			break;
		w->now_ms = start_ms;
		empty_slot(w, p);
	}
	if (now_ms > w->now_ms)
		w->now_ms = now_ms;
	sl_list_splice(due, &w->past);
}

static void clear_list(struct sl_list *l)
{
	while (!sl_list_is_empty(l)) {
		struct sl_timer *timer = SL_CONTAINER_OF(l->next, struct sl_timer, node);

		sl_list_remove(&timer->node);
		timer->fn = NULL;
	}
}

void sl_wheel_clear(struct sl_wheel *w)
{
	clear_list(&w->past);
	for (unsigned level = 0; level < SL_WHEEL_LEVELS; level++) {
		w->used[level] = 0;
		for (unsigned i = 0; i < SL_WHEEL_SLOTS; i++)
			clear_list(&w->slot[level][i]);
	}
}
