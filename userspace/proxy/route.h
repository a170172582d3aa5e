/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_ROUTE_H
#define SL_PROXY_ROUTE_H

#include <stdint.h>

#include "conf/conf.h"
#include "core/reason.h"

/* Ends by side and reason; allocated when the first connection of that engine ends. */
struct sl_ended {
	uint64_t n[SL_SIDE_COUNT_][SL_REASON_COUNT_];
};

/* What one worker has counted for one route. */
struct sl_route_counts {
	uint64_t active[SL_ENGINE_COUNT_];
	uint64_t total[SL_ENGINE_COUNT_];
	uint64_t bytes_up[SL_ENGINE_COUNT_];
	uint64_t bytes_down[SL_ENGINE_COUNT_];
	uint64_t moved; /* from one engine to another: counted in total[] of both */
	uint64_t rejected[SL_REASON_COUNT_];
	struct sl_ended *ended[SL_ENGINE_COUNT_]; /* published atomically, NULL until needed */
};

/*
 * The run-time side of a route: what must outlive a reload. Found again by the
 * route's name; referenced by generations.
 */
struct sl_route {
	uint32_t refs;        /* atomic */
	uint32_t scope;       /* number in the limits' ledger, never reused, never 0 */
	uint64_t active;      /* atomic: admitted connections, for the limit and the views */
	uint32_t next_target; /* atomic: round robin over all workers */
	unsigned n_workers;
	char *name;
	struct sl_route_counts *counts; /* one per worker */
};

SL_MUST_CHECK int sl_route_new(const char *name, uint32_t scope, unsigned n_workers,
			       struct sl_route **ret);
struct sl_route *sl_route_ref(struct sl_route *r);
void sl_route_unref(struct sl_route *r); /* accepts NULL */

/* Worker `worker` counts the end of a side. Losing a count to lack of memory is accepted. */
void sl_route_count_end(struct sl_route *r, unsigned worker, enum sl_engine_id engine,
			enum sl_side side, enum sl_reason reason);

#endif
