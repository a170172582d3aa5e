/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/view_sockmap.h"

#include <errno.h>
#include <stdlib.h>

/* Pairs looked at in one turn; few of them are in use. */
#define SLICE 4096

struct half {
	uint64_t redirected;
	uint64_t passed;
	uint64_t packets;
	uint64_t last_ns;
	uint32_t limit;
	uint32_t spills;
	uint32_t max_waiting;
	enum sl_sockmap_state state;
	enum sl_sockmap_spill why;
};

struct sl_joined_row {
	uint64_t conn_id;
	bool is_complete;
	struct half half[2]; /* enum sl_sockmap_side */
};

/* ---- slots ---- */

/* Of one direction; its socket's cookie goes to *ret_cookie. 0: it is free, or becoming so. */
static uint64_t read_slot(const struct sl_sockmap_slot *s, struct half *ret, uint64_t *ret_cookie)
{
	uint64_t id = __atomic_load_n(&s->conn_id, __ATOMIC_ACQUIRE);

	*ret = (struct half){
		.redirected = __atomic_load_n(&s->redirected, __ATOMIC_RELAXED),
		.passed = __atomic_load_n(&s->passed, __ATOMIC_RELAXED),
		.packets = __atomic_load_n(&s->packets, __ATOMIC_RELAXED),
		.last_ns = __atomic_load_n(&s->last_ns, __ATOMIC_RELAXED),
		.limit = __atomic_load_n(&s->limit, __ATOMIC_RELAXED),
		.spills = __atomic_load_n(&s->spills, __ATOMIC_RELAXED),
		.max_waiting = __atomic_load_n(&s->max_waiting, __ATOMIC_RELAXED),
		.state = __atomic_load_n(&s->state, __ATOMIC_RELAXED),
		.why = __atomic_load_n(&s->why, __ATOMIC_RELAXED),
	};
	*ret_cookie = __atomic_load_n(&s->cookie, __ATOMIC_ACQUIRE);
	if (__atomic_load_n(&s->conn_id, __ATOMIC_ACQUIRE) != id || ret->state == SL_SOCKMAP_FREE)
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

/* ---- what is said of them ---- */

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
	}
	return "unknown";
}

static bool is_spilled(const struct half *h)
{
	return h->state == SL_SOCKMAP_SPILLED;
}

static void add_half(struct sl_json *j, const char *key, const struct half *h)
{
	sl_json_obj(j, key);
	sl_json_u64(j, "bytes", h->redirected);
	sl_json_u64(j, "packets", h->packets);
	sl_json_u64(j, "passed_bytes", h->passed);
	sl_json_bool(j, "spilled", is_spilled(h));
	sl_json_u64(j, "spills", h->spills);
	sl_json_str(j, "spill_reason", spill_name(h->why));
	sl_json_u64(j, "max_waiting", h->max_waiting);
	sl_json_u64(j, "limit", h->limit);
	sl_json_obj_end(j);
}

static int by_id(const void *key, const void *row)
{
	uint64_t id = *(const uint64_t *)key;
	const struct sl_conn_row *record = row;

	return id < record->id ? -1 : id > record->id;
}

static const struct sl_conn_row *record_of(const struct sl_joined_row *row,
					   const struct sl_conn_survey *records)
{
	if (!records || records->n_rows == 0)
		return NULL;
	return bsearch(&row->conn_id, records->rows, records->n_rows, sizeof(*records->rows),
		       by_id);
}

/* "given_back": it stays in the maps, because taking it out would lose what is queued. */
static const char *state_of(const struct sl_joined_row *row, const struct sl_conn_row *record)
{
	if (record && record->engine != SL_ENGINE_SOCKMAP)
		return "given_back";
	return is_spilled(&row->half[0]) || is_spilled(&row->half[1]) ? "spilled" : "active";
}

/* Before its first packet in the kernel the slots know of none. */
static void add_idle(struct sl_json *j, const struct sl_joined_row *row,
		     const struct sl_conn_row *record, uint64_t now_ns)
{
	uint64_t last = row->half[0].last_ns;

	if (row->half[1].last_ns > last)
		last = row->half[1].last_ns;
	if (last)
		sl_json_f64(j, "idle_s",
			    (double)(now_ns > last ? (now_ns - last) / 1000000 : 0) / 1000);
	else if (record)
		sl_json_f64(j, "idle_s", (double)record->idle_ms / 1000);
	else
		sl_json_null(j, "idle_s");
}

static void add_addr(struct sl_json *j, const char *key, const struct sl_addr *addr)
{
	if (addr)
		sl_json_addr(j, key, addr);
	else
		sl_json_null(j, key);
}

static void add_row(struct sl_json *j, const struct sl_joined_row *row,
		    const struct sl_conn_row *record, uint64_t now_ns)
{
	sl_json_obj(j, NULL);
	sl_json_u64(j, "id", row->conn_id);
	sl_json_str(j, "route", record && record->route[0] ? record->route : NULL);
	sl_json_str(j, "engine", sl_engine_name(SL_ENGINE_SOCKMAP));
	sl_json_str(j, "state", state_of(row, record));
	sl_json_bool(j, "complete", row->is_complete);
	add_addr(j, "client", record ? &record->client : NULL);
	add_addr(j, "client_via", record ? &record->client_via : NULL);
	add_addr(j, "backend", record ? &record->backend : NULL);
	if (record)
		sl_json_f64(j, "age_s", (double)record->age_ms / 1000);
	else
		sl_json_null(j, "age_s");
	add_idle(j, row, record, now_ns);
	add_half(j, "up", &row->half[SL_SOCKMAP_CLIENT]);
	add_half(j, "down", &row->half[SL_SOCKMAP_BACKEND]);
	sl_json_obj_end(j);
}

void sl_joined_write(struct sl_json *j, const struct sl_joined_walk *w,
		     const struct sl_conn_survey *records, uint64_t now_ns)
{
	for (size_t i = 0; i < w->n; i++)
		add_row(j, &w->rows[i], record_of(&w->rows[i], records), now_ns);
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
