/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/nat.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/nat_state.h"
#include "nft/ct_sysctl.h"

/* Until a table that could not be read is tried again. */
#define OPEN_MS 1000

/* ---- status ---- */

static void describe(const struct sl_nat *n, size_t n_routes, size_t n_gone, uint64_t not_taken,
		     char *ret, size_t size)
{
	char more[128] = "";
	size_t at;
	int len = 0;

	if (n_gone)
		len = snprintf(more, sizeof(more), ", %zu that %s gone still with flows", n_gone,
			       n_gone == 1 ? "is" : "are");
	if (n->is_stale)
		len += snprintf(more + len, sizeof(more) - (size_t)len,
				", of an older configuration");
	if (not_taken)
		(void)snprintf(more + len, sizeof(more) - (size_t)len,
			       ", no room for a record %" PRIu64 " times", not_taken);
	if (!n->is_applied || !n->routes.n) {
		(void)snprintf(ret, size, "off: %s",
			       n->why_off[0] ? n->why_off : "no route has this engine");
		return;
	}
	(void)snprintf(ret, size, "%zu route%s in table inet %s%s%s%s", n_routes,
		       n_routes == 1 ? "" : "s", n->name,
		       n->plan->is_draining ? ", no new flows" : "", more,
		       *n->offload.text ? "; " : "");
	at = strlen(ret);
	sl_nat_shorten(n->offload.text, ret + at, size - at);
}

void sl_nat_get_status(const struct sl_nat *n, struct sl_broker_nat_status *ret)
{
	size_t n_gone = sl_nat_routes_n_gone(&n->routes);
	struct sl_ct_stream_counts c = { 0 };
	struct sl_broker_nat_status s = {
		.is_on = n->is_applied && n->routes.n,
		.n_routes = (uint32_t)(n->routes.n - n_gone),
		.n_flows = (uint32_t)sl_nat_n_flows(n),
		.adopted = n->n_adopted,
		.repairs = n->n_repairs,
	};

	if (n->stream)
		sl_ct_stream_get_counts(n->stream, &c);
	s.resyncs = (uint32_t)(n->n_resyncs + c.overruns);
	/* two dumps are that far apart, and the second may take as long as the first */
	s.lag_ms = (uint32_t)((c.apart_us * 3 / 2 + c.last_dump_us) / 100000 * 100 + 100);
	if (n->stream && sl_ct_fill(&s.ct_count, &s.ct_max) < 0)
		s.ct_count = s.ct_max = 0;
	describe(n, s.n_routes, n_gone, c.table.not_taken, s.text, sizeof(s.text));
	*ret = s;
}

void sl_nat_refresh(struct sl_nat *n)
{
	struct sl_broker_nat_status now;

	sl_nat_get_status(n, &now);
	if (memcmp(&now, &n->status, sizeof(now)) == 0)
		return;
	n->status = now;
	if (n->options.changed)
		n->options.changed(n->options.arg, &now);
}

void sl_nat_say_off(struct sl_nat *n, const char *text)
{
	if (strncmp(n->why_off, text, sizeof(n->why_off) - 1) == 0)
		return;
	(void)snprintf(n->why_off, sizeof(n->why_off), "%.*s", (int)sizeof(n->why_off) - 1, text);
	sl_log(SL_LOG_WARN, "nftables: %s", text);
}

/* ---- plans ---- */

/* What is down stays down where the plan has it still. */
static void carry_down(const struct sl_nat *n, const struct sl_nft_route *now, bool *is_down)
{
	const struct sl_nat_route *old = sl_nat_routes_named(&n->routes, now->name);

	if (!old || !old->plan)
		return;
	for (size_t i = 0; i < now->n_targets; i++)
		for (size_t k = 0; k < old->plan->n_targets; k++)
			if (n->is_down[old->first_target + k] &&
			    strcmp(old->plan->targets[k].name, now->targets[i].name) == 0)
				is_down[i] = true;
}

static int take_plan(struct sl_nat *n, struct sl_nat_plan *plan)
{
	_cleanup_free_ bool *is_down = calloc(plan->n_targets + 1, sizeof(*is_down));
	_cleanup_free_ struct sl_nft_target *settled =
		calloc(plan->n_targets + 1, sizeof(*settled));
	size_t first_target = 0;
	int r;

	if (!is_down || !settled)
		return -ENOMEM;
	for (size_t i = 0; i < plan->n_routes; i++) {
		carry_down(n, &plan->routes[i], is_down + first_target);
		first_target += plan->routes[i].n_targets;
	}
	r = sl_nat_routes_plan(&n->routes, plan, sl_nat_dumps(n) + 2);
	if (r < 0)
		return r;
	free(n->is_down);
	n->is_down = SL_TAKE_PTR(is_down);
	free(n->settled);
	n->settled = SL_TAKE_PTR(settled);
	sl_nat_plan_free(n->plan);
	n->plan = plan;
	sl_nat_offload_plan(&n->offload, plan);
	return 0;
}

static void open_late(struct sl_nat *n)
{
	int r = n->is_busy ? sl_nat_open_table(n, true) : 0;

	if (r < 0)
		(void)sl_warn(r, "nftables: cannot open table inet %s", n->name);
}

static void on_late(struct sl_timer *timer)
{
	struct sl_nat *n = SL_CONTAINER_OF(timer, struct sl_nat, retry);

	sl_nat_set_plan(n, SL_TAKE_PTR(n->waiting));
}

/* Takes over the plan. */
static void wait_for_table(struct sl_nat *n, struct sl_nat_plan *plan)
{
	n->is_missed = plan->n_routes > 0 && !plan->is_draining;
	sl_nat_plan_free(n->waiting);
	n->waiting = NULL;
	sl_timer_stop(&n->retry);
	if (n->is_busy && n->is_missed) {
		n->waiting = plan;
		sl_timer_start(n->loop, &n->retry, sl_loop_now_ms(n->loop) + OPEN_MS, on_late);
	} else {
		sl_nat_plan_free(plan);
	}
	sl_nat_refresh(n);
}

void sl_nat_set_plan(struct sl_nat *n, struct sl_nat_plan *plan)
{
	int r;

	if (!n->table)
		open_late(n);
	if (!n->table) {
		wait_for_table(n, plan);
		return;
	}
	r = take_plan(n, plan);
	n->is_stale = r < 0;
	if (r < 0) {
		sl_nat_plan_free(plan);
		(void)sl_err(r, "nftables: cannot take the new configuration, the old one stays");
		sl_nat_refresh(n);
		return;
	}
	sl_nat_apply(n);
	if (n->stream && sl_nat_routes_n_gone(&n->routes))
		sl_ct_stream_dump_soon(n->stream);
	sl_nat_start_tick(n);
}

static bool is_same_table(const struct sl_nat *n, const struct sl_nat_plan *plan)
{
	return strcmp(n->name, plan->table) == 0 && n->mark_base == plan->mark_base;
}

bool sl_nat_can_take(const struct sl_nat *n, const struct sl_nat_plan *plan)
{
	if (!n->table)
		/* draining needs nothing of it */
		return plan->n_routes == 0 || plan->is_draining || n->is_barred ||
		       (n->is_busy && is_same_table(n, plan));
	return is_same_table(n, plan);
}

bool sl_nat_is_in_force(const struct sl_nat *n)
{
	return n->table ? n->is_applied && !n->is_stale : !n->is_missed;
}

void sl_nat_each_route(const struct sl_nat *n,
		       void (*fn)(void *arg, const struct sl_nft_route *route), void *arg)
{
	for (size_t i = 0; i < n->routes.n; i++) {
		const struct sl_nat_route *r = &n->routes.item[i];
		struct sl_nft_route route;

		if (!r->plan)
			continue;
		route = *r->plan;
		route.mark = r->mark;
		fn(arg, &route);
	}
}

const char *sl_nat_table(const struct sl_nat *n)
{
	return n->name;
}

void sl_nat_set_target(struct sl_nat *n, const struct sl_broker_nat_target *target, bool is_down)
{
	const struct sl_nat_route *route = sl_nat_routes_named(&n->routes, target->route);

	for (size_t i = 0; route && route->plan && i < route->plan->n_targets; i++) {
		bool *down = &n->is_down[route->first_target + i];

		if (*down == is_down || strcmp(route->plan->targets[i].name, target->target) != 0)
			continue;
		*down = is_down;
		sl_nat_apply_soon(n);
	}
}
