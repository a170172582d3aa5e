/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_NAT_ROUTES_H
#define SL_BROKER_NAT_ROUTES_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "broker/nat_plan.h"
#include "nft/ruleset.h"

/*
 * Who has which mark: routes of the plan, and those that have gone from it as long as they have
 * flows. No system call.
 */
struct sl_nat_route {
	char name[72];
	uint32_t mark;
	const struct sl_nft_route *plan; /* the plan's; NULL: gone */
	size_t first_target;             /* of the plan's, with `plan` */
	uint64_t n_flows;                /* live records */
	uint64_t counts_after;           /* flows up to this serial were not counted */
	bool has_stayers;                /* of the last look at flows that must go */
	uint64_t gone_after; /* gone: after so many dumps no flow in sight means there is none */
};

struct sl_nat_routes {
	struct sl_nat_route *item; /* by mark */
	size_t n;
	uint32_t *by_name;    /* indices */
	uint64_t last_serial; /* of the flows that have begun, of any mark */
};

void sl_nat_routes_done(struct sl_nat_routes *r);

/* Those that a table has, all of them gone; into an empty one. */
SL_MUST_CHECK int sl_nat_routes_adopt(struct sl_nat_routes *r,
				      const struct sl_nft_ruleset *installed);
/*
 * The routes of `plan`, which must outlive them. A name keeps its mark and flows; a new one gets
 * the lowest mark above the plan's base that nobody has. Those that are not in the plan stay, gone;
 * `gone_after` is what those that go now get. On failure nothing has changed. -ENOSPC: no mark is
 * left; -ENOMEM.
 */
SL_MUST_CHECK int sl_nat_routes_plan(struct sl_nat_routes *r, const struct sl_nat_plan *plan,
				     uint64_t gone_after);
/* Forgets the gone ones without flows that waited for so many dumps; how many. */
size_t sl_nat_routes_drop(struct sl_nat_routes *r, uint64_t n_dumps);

/*
 * A flow has begun, or ended, or both. Begins come in the order of their serials, so the end of one
 * that began before the route had its mark is known, and not counted. False: no route's.
 */
bool sl_nat_routes_count(struct sl_nat_routes *r, uint32_t mark, uint64_t serial, bool begins,
			 bool ends);

struct sl_nat_route *sl_nat_routes_find(const struct sl_nat_routes *r, uint32_t mark);
struct sl_nat_route *sl_nat_routes_named(const struct sl_nat_routes *r, const char *name);
size_t sl_nat_routes_n_gone(const struct sl_nat_routes *r);

#endif
