/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/generation.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/log.h"

bool sl_generation_accepts(const struct sl_conf_route *route)
{
	return route->enabled && route->engine != SL_CHOICE_NFTABLES;
}

/* ---- routes by name ---- */

static int compare_names(const void *a, const void *b)
{
	const struct sl_gen_route *const *x = a;
	const struct sl_gen_route *const *y = b;

	return strcmp((*x)->conf->name, (*y)->conf->name);
}

static int index_routes(struct sl_generation *g)
{
	size_t n = g->conf->n_routes;

	g->by_name = calloc(n + 1, sizeof(struct sl_gen_route *));
	if (!g->by_name)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		g->by_name[i] = &g->routes[i];
	qsort(g->by_name, n, sizeof(g->by_name[0]), compare_names);
	return 0;
}

const struct sl_gen_route *sl_generation_find_route(const struct sl_generation *g, const char *name)
{
	size_t low = 0;
	size_t high = g->conf->n_routes;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(g->by_name[middle]->conf->name, name);

		if (order == 0)
			return g->by_name[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* ---- what outlives a reload ---- */

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

static uint32_t slots_of(const struct sl_conf_target *t)
{
	return t->backup ? 0 : t->weight; /* backups have none */
}

static bool has_same_slots(const struct sl_conf_route *a, const struct sl_conf_route *b)
{
	bool is_same = a->balance == b->balance && a->n_targets == b->n_targets;

	for (size_t i = 0; is_same && i < a->n_targets; i++)
		is_same = strcmp(a->targets[i].address, b->targets[i].address) == 0 &&
			  slots_of(&a->targets[i]) == slots_of(&b->targets[i]);
	return is_same;
}

static int fill_slots(struct sl_slots *slots, const struct sl_conf_route *conf)
{
	size_t n = conf->n_targets;
	_cleanup_free_ uint64_t *scratch = calloc(2 * n, sizeof(*scratch));
	_cleanup_free_ const char **names = calloc(n, sizeof(*names));
	_cleanup_free_ uint32_t *weights = calloc(n, sizeof(*weights));

	if (!scratch || !names || !weights)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		names[i] = conf->targets[i].address;
		weights[i] = slots_of(&conf->targets[i]);
	}
	sl_maglev_fill(slots->slot, slots->n, names, weights, n, scratch);
	return 0;
}

/* Filling takes milliseconds, and route changes may come a hundred times a second. */
static int build_slots(struct sl_gen_route *gr, const struct sl_gen_route *before)
{
	size_t n = sl_maglev_size(gr->conf->n_targets);

	if (gr->conf->balance != SL_BALANCE_MAGLEV)
		return 0;
	if (before && has_same_slots(gr->conf, before->conf)) {
		gr->slots = before->slots;
		__atomic_add_fetch(&gr->slots->refs, 1, __ATOMIC_RELAXED);
		return 0;
	}
	gr->slots = malloc(sizeof(*gr->slots) + n * sizeof(gr->slots->slot[0]));
	if (!gr->slots)
		return -ENOMEM;
	gr->slots->refs = 1;
	gr->slots->n = n;
	return fill_slots(gr->slots, gr->conf);
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
	return r == 0 ? build_slots(gr, before) : r;
}

/* ---- the matcher ---- */

static void fill_rule(struct sl_match_rule *rule, const struct sl_conf_route *route,
		      struct sl_match_ports *ports)
{
	for (size_t i = 0; i < route->n_ports; i++)
		ports[i] = (struct sl_match_ports){ .ip = route->ports[i].ip,
						    .from = route->ports[i].from,
						    .to = route->ports[i].to };
	*rule = (struct sl_match_rule){ .enabled = sl_generation_accepts(route),
					.ports = ports,
					.n_ports = route->n_ports,
					.priority = route->priority,
					.domains = (const char *const *)route->domains,
					.n_domains = route->n_domains,
					.path = route->path,
					.clients = route->has_clients ? &route->clients : NULL,
					.tls_versions = route->tls_versions,
					.alpn = (const char *const *)route->alpn,
					.n_alpn = route->n_alpn };
}

static int build_matcher(struct sl_generation *g)
{
	const struct sl_conf *conf = g->conf;
	size_t n = 0;
	size_t size;

	for (size_t i = 0; i < conf->n_routes; i++)
		n += conf->routes[i].n_ports;
	g->rules = calloc(conf->n_routes + 1, sizeof(*g->rules));
	g->ports = calloc(n + 1, sizeof(*g->ports));
	if (!g->rules || !g->ports)
		return -ENOMEM;
	n = 0;
	for (size_t i = 0; i < conf->n_routes; i++) {
		fill_rule(&g->rules[i], &conf->routes[i], &g->ports[n]);
		n += conf->routes[i].n_ports;
	}
	size = sl_matcher_size(g->rules, conf->n_routes);
	if (size == 0)
		return -EOVERFLOW;
	g->matcher_block = malloc(size);
	if (!g->matcher_block)
		return -ENOMEM;
	g->matcher = sl_matcher_fill(g->matcher_block, g->rules, conf->n_routes);
	return 0;
}

/* ---- segments of ports ---- */

static int compare_segments(const void *a, const void *b)
{
	const struct sl_port_segment *x = a;
	const struct sl_port_segment *y = b;

	return (x->from > y->from) - (x->from < y->from);
}

static size_t find_segment(const struct sl_generation *g, uint16_t port)
{
	size_t low = 0;
	size_t high = g->n_segments;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (g->segments[middle].from <= port)
			low = middle;
		else
			high = middle;
	}
	return low;
}

const struct sl_port_segment *sl_generation_segment(const struct sl_generation *g, uint16_t port)
{
	return &g->segments[find_segment(g, port)];
}

/* 0 is no limit, and so the longest; SL_NEVER marks ports no route has spoken for. */
static uint64_t longer(uint64_t a, uint64_t b)
{
	if (a == SL_NEVER || b == SL_NEVER)
		return a == SL_NEVER ? b : a;
	return a == 0 || b == 0 ? 0 : a > b ? a : b;
}

static void add_route(struct sl_generation *g, const struct sl_conf_route *route,
		      const struct sl_port_spec *ports)
{
	for (size_t i = find_segment(g, ports->from);
	     i < g->n_segments && g->segments[i].from <= ports->to; i++) {
		struct sl_port_segment *s = &g->segments[i];

		s->proxy_header_ms = longer(s->proxy_header_ms, route->timeouts.proxy_header);
		s->first_data_ms = longer(s->first_data_ms, route->timeouts.first_data);
	}
}

static void add_accept_proxy(struct sl_generation *g, const struct sl_port_spec *ports)
{
	for (size_t i = find_segment(g, ports->from);
	     i < g->n_segments && g->segments[i].from <= ports->to; i++)
		g->segments[i].accepts_proxy = true;
}

static size_t cut(struct sl_port_segment *cuts, size_t n, const struct sl_port_spec *ports)
{
	cuts[n++].from = ports->from;
	if (ports->to < UINT16_MAX)
		cuts[n++].from = (uint16_t)(ports->to + 1);
	return n;
}

/* Ports are cut wherever a route or listener begins or ends. */
static size_t cut_ports(struct sl_port_segment *cuts, const struct sl_conf *conf)
{
	size_t n = 1; /* the first begins at 0 */
	size_t kept = 1;

	for (size_t i = 0; i < conf->n_routes; i++)
		for (size_t p = 0; p < conf->routes[i].n_ports; p++)
			n = cut(cuts, n, &conf->routes[i].ports[p]);
	for (size_t i = 0; i < conf->n_accept_proxies; i++)
		n = cut(cuts, n, &conf->accept_proxies[i].ports);
	qsort(cuts, n, sizeof(*cuts), compare_segments);
	for (size_t i = 1; i < n; i++)
		if (cuts[i].from != cuts[kept - 1].from)
			cuts[kept++].from = cuts[i].from;
	return kept;
}

static int build_segments(struct sl_generation *g)
{
	const struct sl_conf *conf = g->conf;
	size_t n = conf->n_accept_proxies;

	for (size_t i = 0; i < conf->n_routes; i++)
		n += conf->routes[i].n_ports;
	g->segments = calloc(2 * n + 1, sizeof(*g->segments));
	if (!g->segments)
		return -ENOMEM;
	g->n_segments = cut_ports(g->segments, conf);
	for (size_t i = 0; i < g->n_segments; i++) {
		g->segments[i].proxy_header_ms = SL_NEVER;
		g->segments[i].first_data_ms = SL_NEVER;
	}
	for (size_t i = 0; i < conf->n_routes; i++)
		for (size_t p = 0;
		     sl_generation_accepts(&conf->routes[i]) && p < conf->routes[i].n_ports; p++)
			add_route(g, &conf->routes[i], &conf->routes[i].ports[p]);
	for (size_t i = 0; i < conf->n_accept_proxies; i++)
		add_accept_proxy(g, &conf->accept_proxies[i].ports);
	for (size_t i = 0; i < g->n_segments; i++) {
		if (g->segments[i].proxy_header_ms == SL_NEVER)
			g->segments[i].proxy_header_ms = conf->timeouts.proxy_header;
		if (g->segments[i].first_data_ms == SL_NEVER)
			g->segments[i].first_data_ms = conf->timeouts.first_data;
	}
	return 0;
}

/* ---- PROXY headers ---- */

static bool is_at(const struct sl_port_spec *ports, const struct sl_addr *local, uint16_t port)
{
	if (port < ports->from || port > ports->to)
		return false;
	if (sl_addr_family(&ports->ip) == AF_UNSPEC)
		return true;
	if (sl_addr_is_any(&ports->ip))
		return sl_addr_family(&ports->ip) == sl_addr_family(local);
	return sl_addr_same_ip(&ports->ip, local);
}

const struct sl_conf_accept_proxy *sl_generation_accept_proxy(const struct sl_generation *g,
							      const struct sl_addr *local,
							      uint16_t port)
{
	if (!sl_generation_segment(g, port)->accepts_proxy)
		return NULL;
	for (size_t i = 0; i < g->conf->n_accept_proxies; i++)
		if (is_at(&g->conf->accept_proxies[i].ports, local, port))
			return &g->conf->accept_proxies[i];
	return NULL;
}

static bool is_nat(const struct sl_conf_route *r, bool is_udp)
{
	return r->enabled && r->engine == SL_CHOICE_NFTABLES && r->is_udp == is_udp;
}

const struct sl_gen_route *sl_generation_find_nat(const struct sl_generation *g,
						  const struct sl_addr *local, uint16_t port,
						  bool is_udp)
{
	const struct sl_gen_route *found = NULL;

	for (size_t i = 0; i < g->conf->n_routes; i++) {
		const struct sl_conf_route *r = &g->conf->routes[i];

		for (size_t p = 0; is_nat(r, is_udp) && p < r->n_ports; p++) {
			const struct sl_port_spec *ports = &r->ports[p];
			bool is_one = sl_addr_family(&ports->ip) && !sl_addr_is_any(&ports->ip);

			if (!sl_addr_family(local) ? port < ports->from || port > ports->to
						   : !is_at(ports, local, port))
				continue;
			if (is_one)
				return &g->routes[i];
			if (!found)
				found = &g->routes[i];
		}
	}
	return found;
}

bool sl_generation_needs_ip(const struct sl_generation *g, uint16_t port)
{
	bool accepts_proxy = sl_generation_segment(g, port)->accepts_proxy;

	for (size_t i = 0; accepts_proxy && i < g->conf->n_accept_proxies; i++) {
		const struct sl_port_spec *ports = &g->conf->accept_proxies[i].ports;

		if (port >= ports->from && port <= ports->to &&
		    sl_addr_family(&ports->ip) != AF_UNSPEC)
			return true;
	}
	return sl_matcher_needs_ip(g->matcher, port);
}

int sl_generation_new(struct sl_conf *conf, uint64_t number, unsigned n_workers,
		      const struct sl_generation *before, uint32_t *next_scope,
		      struct sl_generation **ret)
{
	_cleanup_(sl_generation_unrefp) struct sl_generation *g = NULL;
	int r = 0;

	g = calloc(1, sizeof(*g));
	if (!g) {
		sl_conf_free(conf);
		return -ENOMEM;
	}
	g->refs = 1;
	g->number = number;
	g->conf = conf;
	g->routes = calloc(conf->n_routes + 1, sizeof(*g->routes));
	g->secure = calloc(conf->n_routes + 1, sizeof(struct sl_secure_box *));
	if (!g->routes || !g->secure)
		return -ENOMEM;
	for (size_t i = 0; i < conf->n_routes && r == 0; i++) {
		const char *name = conf->routes[i].name;

		g->routes[i].conf = &conf->routes[i];
		r = build_route(&g->routes[i],
				before ? sl_generation_find_route(before, name) : NULL, n_workers,
				next_scope);
	}
	if (r == 0)
		r = index_routes(g);
	if (r == 0)
		r = build_matcher(g);
	if (r == 0)
		r = build_segments(g);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(g);
	return 0;
}

/* ---- TLS ---- */

static bool is_same_name(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* A connection of either generation can use what is made for the other. */
static bool speaks_alike(const struct sl_conf_route *a, const struct sl_conf_route *b)
{
	if (!a->tls != !b->tls || !a->backend_tls != !b->backend_tls)
		return false;
	return !a->backend_tls ||
	       is_same_name(a->backend_tls->server_name, b->backend_tls->server_name);
}

static int find_box(struct sl_generation *g, size_t i, const struct sl_generation *before)
{
	const struct sl_conf_route *conf = &g->conf->routes[i];
	const struct sl_gen_route *route =
		before ? sl_generation_find_route(before, conf->name) : NULL;
	struct sl_secure_box *box = route ? before->secure[route - before->routes] : NULL;

	if (g->secure[i])
		return 0;
	if (!box || !speaks_alike(route->conf, conf))
		return sl_secure_box_new(&g->secure[i]);
	g->secure[i] = sl_secure_box_ref(box);
	return 0;
}

/* The supervisor has found no fault in the same bytes, so there is little to say. */
static int make_secure(struct sl_generation *g, size_t i, const struct sl_generation *before,
		       struct sl_materials *m, bool *ret_changed)
{
	const struct sl_conf_route *route = &g->conf->routes[i];
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	struct sl_secure *fresh = NULL;
	int r = find_box(g, i, before);

	if (r < 0)
		return r;
	r = sl_secure_new(route, m, g->secure[i]->now, (int64_t)time(NULL), NULL, NULL, &why,
			  &fresh);
	if (r < 0)
		return sl_err(r, "route %s: TLS cannot be set up: %s", route->name,
			      why.len ? sl_str_text(&why) : "a certificate cannot be used");
	*ret_changed = *ret_changed || fresh != g->secure[i]->now;
	sl_secure_box_set(g->secure[i], fresh);
	return 0;
}

/* Files of the next configuration may come before it, without those that it needs no more. */
static bool has_files(const struct sl_conf_route *route, const struct sl_materials *m)
{
	const struct sl_conf_backend_tls *b = route->backend_tls;
	const struct sl_material *files = sl_materials_find(m, route->name);

	if (route->tls && (!files || files->n_certs == 0))
		return false;
	if (b && b->verify == SL_VERIFY_CHOICE_FILE && (!files || !files->backend_ca))
		return false;
	if (b && b->verify == SL_VERIFY_CHOICE_SYSTEM && !m->system_ca)
		return false;
	return !b || !b->cert || (files && files->backend_cert);
}

int sl_generation_secure(struct sl_generation *g, const struct sl_generation *before,
			 struct sl_materials *m, bool *ret_changed)
{
	int first = 0;

	*ret_changed = false;
	for (size_t i = 0; i < g->conf->n_routes && (first == 0 || before == g); i++) {
		const struct sl_conf_route *route = &g->conf->routes[i];
		int r;

		if (!sl_conf_needs_secure(route) || (before == g && !has_files(route, m)))
			continue;
		r = make_secure(g, i, before, m, ret_changed);
		first = first ? first : r;
	}
	return first;
}

struct sl_secure *sl_generation_get_secure(struct sl_generation *g,
					   const struct sl_gen_route *route)
{
	struct sl_secure_box *box = g->secure[route - g->routes];

	return box ? sl_secure_box_get(box) : NULL;
}

/* The last connection of a generation may end on any worker. */
static void unref_slots(struct sl_slots *slots)
{
	if (slots && __atomic_sub_fetch(&slots->refs, 1, __ATOMIC_ACQ_REL) == 0)
		free(slots);
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
	for (size_t i = 0; g->secure && i < g->conf->n_routes; i++)
		sl_secure_box_unref(g->secure[i]);
	free(g->secure);
	for (size_t i = 0; g->routes && i < g->conf->n_routes; i++) {
		struct sl_gen_route *gr = &g->routes[i];

		for (size_t t = 0; gr->targets && t < gr->conf->n_targets; t++)
			sl_target_unref(gr->targets[t]);
		free(gr->targets);
		unref_slots(gr->slots);
		sl_route_unref(gr->route);
	}
	free(g->routes);
	free(g->by_name);
	free(g->matcher_block);
	free(g->segments);
	free(g->ports);
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
