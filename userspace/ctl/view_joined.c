/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/view_joined.h"

#include <stdlib.h>

static void add_half(struct sl_json *j, const char *key, const struct sl_joined_half *h)
{
	sl_json_obj(j, key);
	sl_json_u64(j, "bytes", h->bytes);
	sl_json_u64(j, "packets", h->packets);
	sl_json_u64(j, "passed_bytes", h->passed);
	sl_json_bool(j, "spilled", h->is_spilled);
	sl_json_u64(j, "spills", h->spills);
	sl_json_str(j, "spill_reason", h->why);
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
	return row->half[SL_CLIENT].is_spilled || row->half[SL_BACKEND].is_spilled ? "spilled"
										   : "active";
}

/* Before its first packet in the kernel the slots know of none. */
static void add_idle(struct sl_json *j, const struct sl_joined_row *row,
		     const struct sl_conn_row *record, uint64_t now_ns)
{
	uint64_t last = row->half[SL_CLIENT].last_ns;

	if (row->half[SL_BACKEND].last_ns > last)
		last = row->half[SL_BACKEND].last_ns;
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
	add_half(j, "up", &row->half[SL_CLIENT]);
	add_half(j, "down", &row->half[SL_BACKEND]);
	sl_json_obj_end(j);
}

void sl_view_joined(struct sl_json *j, const struct sl_joined_walk *w,
		    const struct sl_conn_survey *records, uint64_t now_ns)
{
	for (size_t i = 0; i < w->n; i++)
		add_row(j, &w->rows[i], record_of(&w->rows[i], records), now_ns);
}
