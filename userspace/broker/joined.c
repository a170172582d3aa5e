/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/joined.h"

#include <errno.h>
#include <stdlib.h>

#include "accel/sockmap.h"

/* Pairs looked at in one turn; few of them are in use. */
#define SLICE 4096

_Static_assert((int)SL_SOCKMAP_CLIENT == (int)SL_CLIENT &&
		       (int)SL_SOCKMAP_BACKEND == (int)SL_BACKEND,
	       "sides are what slots are numbered by");

/* ---- slots ---- */

static const char *spill_name(enum sl_sockmap_spill why)
{
	switch (why) {
	case SL_SOCKMAP_NOT_SPILLED:
		return NULL;
	case SL_SOCKMAP_LIMIT:
		return "limit";
	case SL_SOCKMAP_NO_TARGET:
		return "no_target";
	case SL_SOCKMAP_REFUSED:
		return "refused";
	case SL_SOCKMAP_ASKED:
		return "asked";
	case SL_SOCKMAP_NO_SOURCE:
		return "no_source";
	case SL_SOCKMAP_NO_ENTRY:
		return "no_entry";
	case SL_SOCKMAP_LOST:
		return "lost";
	}
	return "unknown";
}

/* Of one direction; its socket's cookie goes to *ret_cookie. 0: it is free, or becoming so. */
static uint64_t read_slot(const struct sl_sockmap_slot *s, struct sl_joined_half *ret,
			  uint64_t *ret_cookie)
{
	uint64_t id = __atomic_load_n(&s->conn_id, __ATOMIC_ACQUIRE);
	enum sl_sockmap_state state = __atomic_load_n(&s->state, __ATOMIC_RELAXED);

	*ret = (struct sl_joined_half){
		.bytes = __atomic_load_n(&s->redirected, __ATOMIC_RELAXED),
		.passed = __atomic_load_n(&s->passed, __ATOMIC_RELAXED),
		.packets = __atomic_load_n(&s->packets, __ATOMIC_RELAXED),
		.last_ns = __atomic_load_n(&s->last_ns, __ATOMIC_RELAXED),
		.limit = __atomic_load_n(&s->limit, __ATOMIC_RELAXED),
		.spills = __atomic_load_n(&s->spills, __ATOMIC_RELAXED),
		.max_waiting = __atomic_load_n(&s->max_waiting, __ATOMIC_RELAXED),
		.is_spilled = state == SL_SOCKMAP_SPILLED,
		.why = spill_name(__atomic_load_n(&s->why, __ATOMIC_RELAXED)),
	};
	*ret_cookie = __atomic_load_n(&s->cookie, __ATOMIC_ACQUIRE);
	if (__atomic_load_n(&s->conn_id, __ATOMIC_ACQUIRE) != id || state == SL_SOCKMAP_FREE)
		return 0;
	return id;
}

/* False: nobody has the pair, or it was being taken or freed just now. */
static bool read_pair(const struct sl_sockmap_view *maps, uint32_t pair, struct sl_joined_row *ret)
{
	uint64_t cookie[2];
	uint64_t id[2];

	for (uint32_t side = 0; side < 2; side++)
		id[side] = read_slot(sl_sockmap_view_slot(maps, 2 * pair + side), &ret->half[side],
				     &cookie[side]);
	if (!id[0] || id[0] != id[1])
		return false;
	ret->conn_id = id[0];
	ret->is_complete =
		sl_sockmap_view_has(maps, cookie[0]) && sl_sockmap_view_has(maps, cookie[1]);
	return true;
}

static int keep(struct sl_joined_walk *w, const struct sl_joined_row *row)
{
	if (w->n == w->cap) {
		size_t cap = w->cap ? 2 * w->cap : 64;
		struct sl_joined_row *rows = realloc(w->rows, cap * sizeof(*rows));

		if (!rows)
			return -ENOMEM;
		w->rows = rows;
		w->cap = cap;
	}
	w->rows[w->n++] = *row;
	return 0;
}

int sl_joined_step(struct sl_joined_walk *w, struct sl_sockmap_view *maps, size_t max, uint64_t id)
{
	/* The same ones to the end, whatever becomes of the broker. */
	if (!w->maps && maps)
		w->maps = sl_sockmap_view_ref(maps);
	for (int i = 0; w->maps && i < SLICE; i++, w->pair++) {
		struct sl_joined_row row;
		int r;

		if (!sl_sockmap_view_slot(w->maps, 2 * w->pair + 1))
			return 1;
		if (!read_pair(w->maps, w->pair, &row) || (id && row.conn_id != id))
			continue;
		w->more = w->n >= max;
		if (w->more)
			return 1;
		r = keep(w, &row);
		if (r < 0)
			return r;
	}
	return !w->maps;
}

void sl_joined_done(struct sl_joined_walk *w)
{
	sl_sockmap_view_unref(w->maps);
	free(w->rows);
	*w = (struct sl_joined_walk){ 0 };
}

/* ---- outcomes ---- */

#define OUTCOMES(X)          \
	X(redirected)        \
	X(passed)            \
	X(fins)              \
	X(spilled_limit)     \
	X(spilled_no_target) \
	X(spilled_refused)   \
	X(spilled_asked)     \
	X(returned)          \
	X(unknown)           \
	X(events_lost)       \
	X(trimmed)           \
	X(trim_failed)

#define X(name) +1
_Static_assert(sizeof(struct sl_sockmap_counts) == (0 OUTCOMES(X)) * sizeof(uint64_t),
	       "every counter has its name here");
#undef X

void sl_joined_outcomes(const struct sl_sockmap_view *maps,
			void (*fn)(void *arg, const char *name, uint64_t value), void *arg)
{
	struct sl_sockmap_counts counts;

	if (!maps || sl_sockmap_view_counts(maps, &counts) < 0)
		return;
#define X(name) fn(arg, #name, counts.name);
	OUTCOMES(X)
#undef X
}
