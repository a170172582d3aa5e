/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/generation.h"

#include <errno.h>
#include <string.h>
#include <uthash.h>

/* Finds the routes of the generation before by name, while the next is built. */
struct name_entry {
	const char *name;
	const struct sl_gen_route *route;
	UT_hash_handle hh;
};

static void free_index(struct name_entry **index)
{
	struct name_entry *e;
	struct name_entry *next;

	HASH_ITER(hh, *index, e, next)
	{
		HASH_DEL(*index, e);
		free(e);
	}
}

static int index_routes(const struct sl_generation *g, struct name_entry **index)
{
	for (size_t i = 0; g && i < g->conf->n_routes; i++) {
		struct name_entry *e = calloc(1, sizeof(*e));

		if (!e)
			return -ENOMEM;
		e->name = g->routes[i].conf->name;
		e->route = &g->routes[i];
		HASH_ADD_KEYPTR(hh, *index, e->name, strlen(e->name), e);
	}
	return 0;
}

static struct sl_target *find_target(const struct sl_gen_route *before,
				     const struct sl_conf_target *conf)
{
	for (size_t i = 0; before && i < before->conf->n_targets; i++) {
		struct sl_target *t = before->targets[i];

		if (strcmp(t->address, conf->address) == 0 && t->port == conf->port)
			return t;
	}
	return NULL;
}

static int build_route(struct sl_gen_route *gr, const struct sl_gen_route *before,
		       unsigned n_workers, uint32_t *next_scope)
{
	int r = 0;

	if (before) {
		gr->route = sl_route_ref(before->route);
	} else {
		r = sl_route_new(gr->conf->name, *next_scope, n_workers, &gr->route);
		if (r < 0)
			return r;
		(*next_scope)++;
	}
	gr->targets = calloc(gr->conf->n_targets, sizeof(struct sl_target *));
	if (!gr->targets)
		return -ENOMEM;
	for (size_t i = 0; i < gr->conf->n_targets && r == 0; i++) {
		struct sl_target *known = find_target(before, &gr->conf->targets[i]);

		if (known)
			gr->targets[i] = sl_target_ref(known);
		else
			r = sl_target_new(&gr->conf->targets[i], &gr->targets[i]);
	}
	return r;
}

static int build_table(struct sl_generation *g)
{
	uint32_t *entries;
	uint32_t *first;
	size_t n = 0;

	for (size_t i = 0; i < g->conf->n_routes; i++)
		n += g->conf->routes[i].enabled ? g->conf->routes[i].n_ports : 0;
	g->rules = calloc(n + 1, sizeof(*g->rules));
	if (!g->rules)
		return -ENOMEM;
	n = 0;
	for (size_t i = 0; i < g->conf->n_routes; i++) {
		const struct sl_conf_route *route = &g->conf->routes[i];

		for (size_t p = 0; route->enabled && p < route->n_ports; p++)
			g->rules[n++] = (struct sl_route_rule){ .ip = route->ports[p].ip,
								.from = route->ports[p].from,
								.to = route->ports[p].to,
								.route = (uint32_t)i };
	}
	sl_route_table_plan(&g->table, g->rules, n);
	first = calloc(g->table.n_segments + 1, sizeof(*first));
	entries = calloc(g->table.n_entries + 1, sizeof(*entries));
	if (!first || !entries) {
		free(first);
		free(entries);
		return -ENOMEM;
	}
	sl_route_table_fill(&g->table, first, entries);
	return 0;
}

int sl_generation_new(struct sl_conf *conf, uint64_t number, unsigned n_workers,
		      const struct sl_generation *before, uint32_t *next_scope,
		      struct sl_generation **ret)
{
	_cleanup_(sl_generation_unrefp) struct sl_generation *g = NULL;
	struct name_entry *index = NULL;
	int r;

	g = calloc(1, sizeof(*g));
	if (!g) {
		sl_conf_free(conf);
		return -ENOMEM;
	}
	g->refs = 1;
	g->number = number;
	g->conf = conf;
	g->routes = calloc(conf->n_routes + 1, sizeof(*g->routes));
	if (!g->routes)
		return -ENOMEM;
	r = index_routes(before, &index);
	for (size_t i = 0; i < conf->n_routes && r == 0; i++) {
		struct name_entry *e = NULL;

		g->routes[i].conf = &conf->routes[i];
		HASH_FIND_STR(index, conf->routes[i].name, e);
		r = build_route(&g->routes[i], e ? e->route : NULL, n_workers, next_scope);
	}
	free_index(&index);
	if (r == 0)
		r = build_table(g);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(g);
	return 0;
}

struct sl_generation *sl_generation_ref(struct sl_generation *g)
{
	__atomic_add_fetch(&g->refs, 1, __ATOMIC_RELAXED);
	return g;
}

void sl_generation_unref(struct sl_generation *g)
{
	if (!g || __atomic_sub_fetch(&g->refs, 1, __ATOMIC_ACQ_REL) != 0)
		return;
	for (size_t i = 0; g->routes && i < g->conf->n_routes; i++) {
		struct sl_gen_route *gr = &g->routes[i];

		for (size_t t = 0; gr->targets && t < gr->conf->n_targets; t++)
			sl_target_unref(gr->targets[t]);
		free(gr->targets);
		sl_route_unref(gr->route);
	}
	free(g->routes);
	free(g->table.first);
	free(g->table.entries);
	free(g->rules);
	sl_conf_free(g->conf);
	free(g);
}

static void mark(struct sl_generation *g, bool is_stale)
{
	for (size_t i = 0; g && i < g->conf->n_routes; i++)
		for (size_t t = 0; t < g->routes[i].conf->n_targets; t++)
			g->routes[i].targets[t]->is_stale = is_stale;
}

/* Stops resolving what `from` has and `keep` (may be NULL) has not. */
static void give_up(struct sl_generation *from, struct sl_generation *keep)
{
	mark(from, true);
	mark(keep, false);
	for (size_t i = 0; from && i < from->conf->n_routes; i++)
		for (size_t t = 0; t < from->routes[i].conf->n_targets; t++)
			if (from->routes[i].targets[t]->is_stale)
				sl_target_unwatch(from->routes[i].targets[t]);
}

int sl_generation_watch(struct sl_generation *now, struct sl_generation *before, struct sl_dns *dns)
{
	int r = 0;

	for (size_t i = 0; i < now->conf->n_routes && r == 0; i++)
		for (size_t t = 0; t < now->routes[i].conf->n_targets && r == 0; t++)
			r = sl_target_watch(now->routes[i].targets[t], dns,
					    now->routes[i].conf->targets[t].host);
	if (r < 0)
		give_up(now, before); /* its targets are about to be freed */
	else
		give_up(before, now);
	return r;
}

void sl_generation_unwatch(struct sl_generation *g)
{
	for (size_t i = 0; g && i < g->conf->n_routes; i++)
		for (size_t t = 0; t < g->routes[i].conf->n_targets; t++)
			sl_target_unwatch(g->routes[i].targets[t]);
}
