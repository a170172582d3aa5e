/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/nat_routes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "nft/build.h"

void sl_nat_routes_done(struct sl_nat_routes *r)
{
	free(r->item);
	free(r->by_name);
	*r = (struct sl_nat_routes){ 0 };
}

/* ---- finding ---- */

struct sl_nat_route *sl_nat_routes_find(const struct sl_nat_routes *r, uint32_t mark)
{
	size_t from = 0, end = r->n;

	while (from < end) {
		size_t mid = from + (end - from) / 2;

		if (r->item[mid].mark == mark)
			return &r->item[mid];
		if (r->item[mid].mark < mark)
			from = mid + 1;
		else
			end = mid;
	}
	return NULL;
}

struct sl_nat_route *sl_nat_routes_named(const struct sl_nat_routes *r, const char *name)
{
	size_t from = 0, end = r->n;

	while (from < end) {
		size_t mid = from + (end - from) / 2;
		struct sl_nat_route *route = &r->item[r->by_name[mid]];
		int c = strcmp(route->name, name);

		if (c == 0)
			return route;
		if (c < 0)
			from = mid + 1;
		else
			end = mid;
	}
	return NULL;
}

size_t sl_nat_routes_n_gone(const struct sl_nat_routes *r)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n; i++)
		n += !r->item[i].plan;
	return n;
}

/* ---- order ---- */

static int by_mark(const void *a, const void *b)
{
	const struct sl_nat_route *x = a, *y = b;

	return (x->mark > y->mark) - (x->mark < y->mark);
}

static int by_name(const void *a, const void *b, void *arg)
{
	const struct sl_nat_route *item = arg;

	return strcmp(item[*(const uint32_t *)a].name, item[*(const uint32_t *)b].name);
}

static void sort(struct sl_nat_routes *r)
{
	qsort(r->item, r->n, sizeof(*r->item), by_mark);
	for (size_t i = 0; i < r->n; i++)
		r->by_name[i] = (uint32_t)i;
	qsort_r(r->by_name, r->n, sizeof(*r->by_name), by_name, r->item);
}

static int allocate(size_t n, struct sl_nat_routes *ret)
{
	ret->item = calloc(n + 1, sizeof(*ret->item));
	ret->by_name = calloc(n + 1, sizeof(*ret->by_name));
	return ret->item && ret->by_name ? 0 : -ENOMEM;
}

/* ---- filling ---- */

static void count_one(void *arg, uint32_t mark, const char *name)
{
	(void)mark;
	(void)name;
	++*(size_t *)arg;
}

/* Of two with one name, which only others can have made, the second is nobody's. */
static void adopt_one(void *arg, uint32_t mark, const char *name)
{
	struct sl_nat_routes *r = arg;
	struct sl_nat_route *to = &r->item[r->n++];

	to->mark = mark;
	(void)snprintf(to->name, sizeof(to->name), "%s", name);
}

int sl_nat_routes_adopt(struct sl_nat_routes *r, const struct sl_nft_ruleset *installed)
{
	_cleanup_(sl_nat_routes_done) struct sl_nat_routes out = { 0 };
	size_t n = 0;
	int res;

	sl_nft_each_route(installed, count_one, &n);
	res = allocate(n, &out);
	if (res < 0)
		return res;
	sl_nft_each_route(installed, adopt_one, &out);
	sort(&out);
	sl_nat_routes_done(r);
	*r = out;
	out = (struct sl_nat_routes){ 0 };
	return 0;
}

/* `stays` has a place for each old one. */
static void put_planned(struct sl_nat_routes *out, const struct sl_nat_routes *old,
			const struct sl_nat_plan *plan, bool *stays)
{
	size_t first_target = 0;

	for (size_t i = 0; i < plan->n_routes; i++) {
		const struct sl_nat_route *was = sl_nat_routes_named(old, plan->routes[i].name);
		struct sl_nat_route *to = &out->item[out->n++];

		(void)snprintf(to->name, sizeof(to->name), "%s", plan->routes[i].name);
		if (was) {
			stays[was - old->item] = true;
			to->mark = was->mark;
			to->n_flows = was->n_flows;
			to->counts_after = was->counts_after;
		} else {
			to->counts_after = old->last_serial;
		}
		to->plan = &plan->routes[i];
		to->first_target = first_target;
		first_target += plan->routes[i].n_targets;
	}
}

static void put_gone(struct sl_nat_routes *out, const struct sl_nat_routes *old, const bool *stays,
		     uint64_t gone_after)
{
	for (size_t i = 0; i < old->n; i++) {
		struct sl_nat_route *to = &out->item[out->n];

		if (stays[i])
			continue;
		*to = old->item[i];
		to->plan = NULL;
		if (old->item[i].plan || to->gone_after == 0)
			to->gone_after = gone_after;
		out->n++;
	}
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* To each that has none the lowest above `base` that nobody has. */
static int give_marks(struct sl_nat_routes *r, uint32_t base)
{
	_cleanup_free_ uint32_t *taken = calloc(r->n + 1, sizeof(*taken));
	size_t n_taken = 0, at = 0;
	uint32_t next = base;

	if (!taken)
		return -ENOMEM;
	for (size_t i = 0; i < r->n; i++)
		if (r->item[i].mark)
			taken[n_taken++] = r->item[i].mark;
	qsort(taken, n_taken, sizeof(*taken), by_value);
	for (size_t i = 0; i < r->n; i++) {
		if (r->item[i].mark)
			continue;
		do {
			if (next == UINT32_MAX)
				return -ENOSPC;
			next++;
			while (at < n_taken && taken[at] < next)
				at++;
		} while (at < n_taken && taken[at] == next);
		r->item[i].mark = next;
	}
	return 0;
}

int sl_nat_routes_plan(struct sl_nat_routes *r, const struct sl_nat_plan *plan, uint64_t gone_after)
{
	_cleanup_(sl_nat_routes_done) struct sl_nat_routes out = { 0 };
	_cleanup_free_ bool *stays = calloc(r->n + 1, sizeof(*stays));
	int res = stays ? allocate(plan->n_routes + r->n, &out) : -ENOMEM;

	if (res < 0)
		return res;
	put_planned(&out, r, plan, stays);
	put_gone(&out, r, stays, gone_after);
	res = give_marks(&out, plan->mark_base);
	if (res < 0)
		return res;
	sort(&out);
	out.last_serial = r->last_serial;
	sl_nat_routes_done(r);
	*r = out;
	out = (struct sl_nat_routes){ 0 };
	return 0;
}

size_t sl_nat_routes_drop(struct sl_nat_routes *r, uint64_t n_dumps)
{
	size_t n = 0, dropped;

	for (size_t i = 0; i < r->n; i++) {
		const struct sl_nat_route *route = &r->item[i];

		if (route->plan || route->n_flows || n_dumps < route->gone_after)
			r->item[n++] = *route;
	}
	dropped = r->n - n;
	r->n = n;
	if (dropped)
		sort(r);
	return dropped;
}

/* ---- flows ---- */

bool sl_nat_routes_count(struct sl_nat_routes *r, uint32_t mark, uint64_t serial, bool begins,
			 bool ends)
{
	struct sl_nat_route *route = sl_nat_routes_find(r, mark);

	if (begins)
		r->last_serial = serial;
	if (!route)
		return false;
	if (begins)
		route->n_flows++;
	if (ends && (begins || serial > route->counts_after))
		route->n_flows--;
	return true;
}
