/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/build.h"

#include <errno.h>
#include <string.h>

#define N_PORTS 65536

/* ---- targets ---- */

static int compare_targets(const void *a, const void *b)
{
	const struct sl_conf_target *x = *(const struct sl_conf_target *const *)a;
	const struct sl_conf_target *y = *(const struct sl_conf_target *const *)b;
	int c = strcmp(x->address, y->address);

	return c ? c : (x > y) - (x < y);
}

static int check_targets(struct sl_build *b, const struct sl_conf_route *route)
{
	_cleanup_free_ const struct sl_conf_target **sorted = NULL;
	char address[SL_QUOTE_LEN], place[SL_PLACE_LEN];
	size_t n = 0;

	if (route->n_targets < 2)
		return 0;
	sorted = calloc(route->n_targets, sizeof(struct sl_conf_target *));
	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < route->n_targets; i++)
		if (route->targets[i].address)
			sorted[n++] = &route->targets[i];
	if (n > 1)
		qsort(sorted, n, sizeof(struct sl_conf_target *), compare_targets);
	for (size_t i = 1; i < n; i++) {
		if (strcmp(sorted[i - 1]->address, sorted[i]->address) != 0)
			continue;
		sl_report_error(&b->report, sorted[i]->mark, NULL,
				"the target %s is already in this route, at %s",
				sl_quote(sorted[i]->address, address),
				sl_report_place(&b->report, sorted[i - 1]->mark, place));
	}
	return 0;
}

/* ---- routes that can never match ---- */

/* One port range of an enabled route. */
struct claim {
	const struct sl_port_spec *ports;
	const struct sl_conf_route *route;
	const struct sl_conf_route *winner; /* has all of it already; NULL: nobody */
};

int sl_compare_ip(const struct sl_addr *a, const struct sl_addr *b)
{
	uint8_t x[16] = { 0 }, y[16] = { 0 };

	if (sl_addr_family(a) != sl_addr_family(b))
		return (int)sl_addr_family(a) - (int)sl_addr_family(b);
	if (sl_addr_family(a) == AF_UNSPEC)
		return 0;
	(void)sl_addr_ip_bytes(a, x);
	(void)sl_addr_ip_bytes(b, y);
	return memcmp(x, y, sizeof(x));
}

static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int c = sl_compare_ip(&x->ports->ip, &y->ports->ip);

	if (c == 0)
		c = (x->route > y->route) - (x->route < y->route);
	return c ? c : (x->ports > y->ports) - (x->ports < y->ports);
}

static int compare_claims_by_route(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int c = (x->route > y->route) - (x->route < y->route);

	return c ? c : (x->ports > y->ports) - (x->ports < y->ports);
}

/* The ports of one address: who has them, and where the next free one is. */
struct port_map {
	const struct sl_conf_route *owner[N_PORTS];
	uint32_t
		next_free[N_PORTS + 1]; /* a hint that only grows: paths are shortened on the way */
};

static uint32_t find_free(struct port_map *m, uint32_t port)
{
	uint32_t free_port = port, next;

	while (m->next_free[free_port] != free_port)
		free_port = m->next_free[free_port];
	for (; port != free_port; port = next) {
		next = m->next_free[port];
		m->next_free[port] = free_port;
	}
	return free_port;
}

static void take_ports(struct port_map *m, const struct claim *c)
{
	for (uint32_t p = find_free(m, c->ports->from); p <= c->ports->to; p = find_free(m, p)) {
		m->owner[p] = c->route;
		m->next_free[p] = p + 1;
	}
}

static void clear_ports(struct port_map *m)
{
	for (uint32_t p = 0; p <= N_PORTS; p++)
		m->next_free[p] = p;
}

/* Only what earlier claims took must be given back: 10 000 addresses share one map. */
static void give_back(struct port_map *m, const struct claim *claims, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (uint32_t p = claims[i].ports->from; p <= claims[i].ports->to; p++)
			m->next_free[p] = p;
}

/* All claims to one address, in file order of their routes. */
static void settle_address(struct port_map *m, struct claim *claims, size_t n)
{
	size_t width = 0;

	for (size_t i = 0, j; i < n; i = j) {
		for (j = i; j < n && claims[j].route == claims[i].route; j++)
			if (find_free(m, claims[j].ports->from) > claims[j].ports->to)
				claims[j].winner = m->owner[claims[j].ports->from];
		for (size_t k = i; k < j; k++)
			take_ports(m, &claims[k]);
	}
	for (size_t i = 0; i < n; i++)
		width += (size_t)(claims[i].ports->to - claims[i].ports->from) + 1;
	if (width > N_PORTS)
		clear_ports(m);
	else
		give_back(m, claims, n);
}

static void warn_of_dead(struct sl_build *b, struct claim *claims, size_t n)
{
	char name[SL_QUOTE_LEN], other[SL_QUOTE_LEN], place[SL_PLACE_LEN];

	if (n)
		qsort(claims, n, sizeof(*claims), compare_claims_by_route);
	for (size_t i = 0, j; i < n; i = j) {
		const struct claim *c = &claims[i];
		bool is_dead = true;

		for (j = i; j < n && claims[j].route == c->route; j++)
			is_dead = is_dead && claims[j].winner;
		if (is_dead && c->route->name && c->winner->name)
			sl_report_warning(
				&b->report, c->ports->mark, NULL,
				"the route %s can never match: the route %s at %s has its "
				"ports already",
				sl_quote(c->route->name, name), sl_quote(c->winner->name, other),
				sl_report_place(&b->report, c->winner->mark, place));
	}
}

static int check_reachable(struct sl_build *b)
{
	_cleanup_free_ struct port_map *m = malloc(sizeof(*m));
	_cleanup_free_ struct claim *claims = NULL;
	size_t n = 0;

	for (size_t i = 0; i < b->conf->n_routes; i++)
		n += b->conf->routes[i].n_ports;
	claims = calloc(n + 1, sizeof(*claims));
	if (!m || !claims)
		return -ENOMEM;
	n = 0;
	for (size_t i = 0; i < b->conf->n_routes; i++) {
		const struct sl_conf_route *r = &b->conf->routes[i];

		for (size_t j = 0; r->enabled && j < r->n_ports; j++)
			claims[n++] = (struct claim){ .ports = &r->ports[j], .route = r };
	}
	if (n)
		qsort(claims, n, sizeof(*claims), compare_claims);
	clear_ports(m);
	for (size_t i = 0, j; i < n; i = j) {
		for (j = i; j < n; j++)
			if (sl_compare_ip(&claims[i].ports->ip, &claims[j].ports->ip) != 0)
				break;
		settle_address(m, &claims[i], j - i);
	}
	warn_of_dead(b, claims, n);
	return 0;
}

/* ---- the daemon as a whole ---- */

static void check_overload(struct sl_build *b)
{
	const struct sl_conf_global *g = &b->conf->global;

	if (g->resume_below_percent > g->refuse_above_percent)
		sl_report_error(
			&b->report, b->overload_at, NULL,
			"global.overload.resume_below (%u%%) must not be above refuse_above "
			"(%u%%)",
			g->resume_below_percent, g->refuse_above_percent);
}

/* Whether listening on both would fail or take the other's connections. */
static bool is_same_socket(const struct sl_addr *http, const struct sl_port_spec *p)
{
	if (sl_addr_port(http) < p->from || sl_addr_port(http) > p->to)
		return false;
	if (sl_addr_family(&p->ip) == AF_UNSPEC)
		return true;
	return sl_addr_family(&p->ip) == sl_addr_family(http) &&
	       (sl_addr_is_any(&p->ip) || sl_addr_is_any(http) || sl_addr_same_ip(&p->ip, http));
}

static void check_http(struct sl_build *b)
{
	const struct sl_conf_global *g = &b->conf->global;
	char place[SL_PLACE_LEN], addr[SL_ADDR_TEXT];

	for (size_t i = 0; g->http_enabled && i < b->conf->n_routes; i++) {
		const struct sl_conf_route *r = &b->conf->routes[i];

		for (size_t j = 0; r->enabled && j < r->n_ports; j++) {
			if (!is_same_socket(&g->http, &r->ports[j]))
				continue;
			if (g->http_is_explicit)
				sl_report_error(&b->report, r->ports[j].mark, NULL,
						"this port is taken by global.http (at %s)",
						sl_report_place(&b->report, b->http_at, place));
			else
				sl_report_warning(
					&b->report, r->ports[j].mark, NULL,
					"this port is the default of global.http (%s), which "
					"will not be served: set global.http to another address "
					"or to none",
					sl_addr_format(&g->http, addr));
			return;
		}
	}
}

static void check_any_route(struct sl_build *b)
{
	struct sl_mark start = { .source = 0, .line = 1, .column = 1 };

	for (size_t i = 0; i < b->conf->n_routes; i++)
		if (b->conf->routes[i].enabled)
			return;
	if (b->report.n_errors == 0)
		sl_report_warning(&b->report, start, NULL, "%s: nothing will be forwarded",
				  b->conf->n_routes ? "every route is disabled"
						    : "there is no route");
}

int sl_conf_check(struct sl_build *b)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < b->conf->n_routes; i++)
		r = check_targets(b, &b->conf->routes[i]);
	/* with errors elsewhere, what routes match is not known completely */
	if (r == 0 && b->report.n_errors == 0)
		r = check_reachable(b);
	check_overload(b);
	check_http(b);
	check_any_route(b);
	return r;
}
