/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_GENERATION_H
#define SL_PROXY_GENERATION_H

#include <stdint.h>

#include "conf/conf.h"
#include "core/route_table.h"
#include "proxy/route.h"
#include "proxy/target.h"

/*
 * One configuration as the workers use it: immutable, reference-counted, and
 * held by every connection it routed, so that a reload changes nothing for
 * them. Run-time objects of routes and targets are shared with the generation
 * before wherever their names are the same.
 */
struct sl_gen_route {
	const struct sl_conf_route *conf;
	struct sl_route *route;     /* owned reference */
	struct sl_target **targets; /* owned references, conf->n_targets of them */
};

struct sl_generation {
	uint32_t refs; /* atomic */
	uint64_t number;
	struct sl_conf *conf;        /* owned */
	struct sl_gen_route *routes; /* conf->n_routes of them, same order */
	struct sl_route_rule *rules; /* of the table */
	struct sl_route_table table;
};

/*
 * Takes `conf` over, also on failure. `before` may be NULL. `next_scope` numbers
 * routes that are new.
 */
SL_MUST_CHECK int sl_generation_new(struct sl_conf *conf, uint64_t number, unsigned n_workers,
				    const struct sl_generation *before, uint32_t *next_scope,
				    struct sl_generation **ret);
struct sl_generation *sl_generation_ref(struct sl_generation *g);
void sl_generation_unref(struct sl_generation *g); /* accepts NULL; any thread */
SL_DEFINE_CLEANUP(struct sl_generation, sl_generation_unref);

/*
 * Control thread: resolves the names of `now` and stops resolving those of
 * `before` (may be NULL) that it no longer has.
 */
SL_MUST_CHECK int sl_generation_watch(struct sl_generation *now, struct sl_generation *before,
				      struct sl_dns *dns);
/* Control thread: stops resolving every name of `g` (may be NULL). */
void sl_generation_unwatch(struct sl_generation *g);

#endif
