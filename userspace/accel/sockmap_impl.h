/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_ACCEL_SOCKMAP_IMPL_H
#define SL_ACCEL_SOCKMAP_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "accel/rows.h"
#include "accel/sockmap.h"
#include "base/cleanup.h"
#include "base/str.h"

/* What the parts of the sockmap engine's owner share; nobody else includes it, but their test. */

struct sl_sockmap_bpf;

enum sl_sockmap_map {
	SL_SOCKMAP_FLOWS = 0,
	SL_SOCKMAP_SLOT_MAP,
	SL_SOCKMAP_ORDERS,
	SL_SOCKMAP_TARGETS,
	SL_SOCKMAP_SOURCES,
	SL_SOCKMAP_META,
	SL_SOCKMAP_EVENTS, /* from here on: those that can begin anew beside the others */
	SL_SOCKMAP_COUNTERS,
	SL_SOCKMAP_MAP_COUNT_,
};
#define SL_SOCKMAP_ADOPTED SL_SOCKMAP_EVENTS /* the number of those that cannot */

struct sl_sockmap {
	char *dir;
	int lock_fd; /* -1: the packet engine has it */
	struct sl_sockmap_bpf *skel;
	int maps[SL_SOCKMAP_MAP_COUNT_]; /* the skeleton's */
	int prog;                        /* likewise */
	uint32_t prog_id;
	struct sl_sockmap_slot *slots;   /* mapped */
	struct sl_sockmap_order *orders; /* mapped */
	uint64_t *used;                  /* a bit for each pair */
	uint32_t n_pairs;
	uint32_t n_used;
	uint32_t next; /* where the next free one is looked for */
	struct sl_rows events;
	/* of the sl_sockmap_events() that is running */
	void (*on_event)(void *arg, const struct sl_sockmap_event *e);
	void *event_arg;
};

/* sl_sockmap_open() with a table of this size, as a kernel of this release ("6.12.1") would. */
SL_MUST_CHECK int sl_sockmap_open_as(const struct sl_sockmap_options *options, uint32_t n_pairs,
				     const char *release, struct sl_sockmap_found *found,
				     struct sl_str *report, struct sl_sockmap **ret);

const char *sl_sockmap_map_name(enum sl_sockmap_map map);

/* ---- pairs (sockmap_pairs.c) ---- */

/* Which pairs are in use, from the slots; what is left of others is cleared. */
SL_MUST_CHECK int sl_sockmap_find_pairs(struct sl_sockmap *s);

/* The steps of sl_sockmap_join(), so that a test can cut it short. */
enum sl_sockmap_step {
	SL_SOCKMAP_STEP_SLOTS = 0,
	SL_SOCKMAP_STEP_FLOW, /* of the client, then of the backend; so are the next two */
	SL_SOCKMAP_STEP_TARGET = SL_SOCKMAP_STEP_FLOW + 2,
	SL_SOCKMAP_STEP_SOURCE = SL_SOCKMAP_STEP_TARGET + 2,
	SL_SOCKMAP_STEP_COUNT_ = SL_SOCKMAP_STEP_SOURCE + 2,
};
/* The pair that sl_sockmap_join() would take; -ENOSPC. */
SL_MUST_CHECK int sl_sockmap_take_pair(struct sl_sockmap *s, uint32_t *ret);
SL_MUST_CHECK int sl_sockmap_do_step(struct sl_sockmap *s, enum sl_sockmap_step step, uint32_t pair,
				     const struct sl_sockmap_pair *p);

#endif
