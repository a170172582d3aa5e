/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <string.h>

#include "base/siphash.h"
#include "conf/build.h"

/*
 * Routes that can never match, because for every port (and every domain) they want another route
 * comes first and takes all of it. Only what is certain is reported: a route
 * hides another when it has no criteria beside ports (or beside that same domain) and precedes
 * it in the order of core/matcher.h. Whatever is merely unlikely is silent.
 */
#define N_PORTS 65536
/* Ports times domains of all routes; routes beyond it are not compared by domain. */
#define MAX_DOMAIN_CLAIMS ((size_t)1 << 20)

/* One port range of an enabled route that the daemon accepts for, alone or together with one of its
 * domains. */
struct claim {
	const struct sl_port_spec *ports;
	const struct sl_conf_route *route;
	const char *domain; /* NULL: any name, or none */
	uint64_t hash;      /* of the domain */
	bool is_taker;      /* the route asks for nothing else: it takes all of this */
	const struct sl_conf_route *winner; /* has all of it already; NULL: nobody */
};

struct claims {
	struct claim *item;
	size_t n;
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

/* Address and domain: claims that differ here do not compete. */
static int compare_groups(const struct claim *x, const struct claim *y)
{
	int c = sl_compare_ip(&x->ports->ip, &y->ports->ip);

	if (c == 0)
		c = (x->hash > y->hash) - (x->hash < y->hash);
	if (c == 0 && x->domain && y->domain && x->domain != y->domain)
		c = strcmp(x->domain, y->domain);
	return c;
}

/*
 * Inside a group by precedence. Who has further criteria comes before the takers of the same
 * priority, because more criteria win; only takers of a higher priority hide it.
 */
static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int c = compare_groups(x, y);

	if (c == 0)
		c = (x->route->priority < y->route->priority) -
		    (x->route->priority > y->route->priority);
	if (c == 0)
		c = (int)x->is_taker - (int)y->is_taker;
	if (c == 0)
		c = (x->route > y->route) - (x->route < y->route);
	return c ? c : (x->ports > y->ports) - (x->ports < y->ports);
}

static int compare_by_route(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int c = (x->route > y->route) - (x->route < y->route);

	return c ? c : (x->ports > y->ports) - (x->ports < y->ports);
}

static void sort(struct claims *c, int (*compare)(const void *, const void *))
{
	if (c->n > 1)
		qsort(c->item, c->n, sizeof(*c->item), compare);
}

/* ---- the ports of one group ---- */

/* Who has them, and where the next free one is. */
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
	size_t width = 0;

	for (size_t i = 0; i < n; i++)
		width += (size_t)(claims[i].ports->to - claims[i].ports->from) + 1;
	if (width > N_PORTS) {
		clear_ports(m);
		return;
	}
	for (size_t i = 0; i < n; i++)
		for (uint32_t p = claims[i].ports->from; p <= claims[i].ports->to; p++)
			m->next_free[p] = p;
}

/* All claims of a group, in their order. */
static void settle_group(struct port_map *m, struct claim *claims, size_t n)
{
	for (size_t i = 0, j; i < n; i = j) {
		for (j = i; j < n && claims[j].route == claims[i].route; j++)
			if (find_free(m, claims[j].ports->from) > claims[j].ports->to)
				claims[j].winner = m->owner[claims[j].ports->from];
		for (size_t k = i; k < j; k++)
			if (claims[k].is_taker)
				take_ports(m, &claims[k]);
	}
}

static void settle(struct port_map *m, struct claims *c)
{
	sort(c, compare_claims);
	for (size_t i = 0, j; i < c->n; i = j) {
		j = i + 1;
		while (j < c->n && compare_groups(&c->item[i], &c->item[j]) == 0)
			j++;
		if (j - i == 1)
			continue;
		settle_group(m, &c->item[i], j - i);
		give_back(m, &c->item[i], j - i);
	}
}

/* ---- priorities across addresses ---- */

/*
 * For each port the highest priority of a route that takes all of it on every address (of a
 * family); a tree of minima answers for ranges.
 */
struct ceiling {
	uint32_t least[2 * N_PORTS]; /* priority + 1; 0: nobody */
	const struct sl_conf_route *owner[N_PORTS];
};

/* `claims` is one group of takers for every address, in order of precedence. */
static void fill_ceiling(struct ceiling *t, struct port_map *m, const struct claim *claims,
			 size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (claims[i].is_taker)
			take_ports(m, &claims[i]);
	for (uint32_t p = 0; p < N_PORTS; p++) {
		bool is_taken = m->next_free[p] != p;

		t->owner[p] = is_taken ? m->owner[p] : NULL;
		t->least[N_PORTS + p] = is_taken ? m->owner[p]->priority + 1 : 0;
	}
	for (uint32_t i = N_PORTS - 1; i > 0; i--)
		t->least[i] = t->least[2 * i] < t->least[2 * i + 1] ? t->least[2 * i]
								    : t->least[2 * i + 1];
	clear_ports(m);
}

static uint32_t least_of(const struct ceiling *t, uint32_t from, uint32_t to)
{
	uint32_t least = UINT32_MAX;

	for (from += N_PORTS, to += N_PORTS + 1; from < to; from /= 2, to /= 2) {
		if (from & 1) {
			least = t->least[from] < least ? t->least[from] : least;
			from++;
		}
		if (to & 1) {
			to--;
			least = t->least[to] < least ? t->least[to] : least;
		}
	}
	return least;
}

/* Claims of one address, or of any with a domain, that a higher priority takes as a whole. */
static void press_down(const struct ceiling *t, struct claims *c, const struct sl_addr *every)
{
	for (size_t i = 0; i < c->n; i++) {
		struct claim *one = &c->item[i];
		const struct sl_addr *ip = &one->ports->ip;
		bool is_inside = sl_addr_family(every) == AF_UNSPEC ||
				 sl_addr_family(every) == sl_addr_family(ip);

		if (is_inside && !one->winner &&
		    least_of(t, one->ports->from, one->ports->to) > one->route->priority + 1)
			one->winner = t->owner[one->ports->from];
	}
}

/* Priority comes before everything else, also before the address and the domain. */
static int apply_priorities(struct port_map *m, struct claims *by_port, struct claims *by_domain)
{
	_cleanup_free_ struct ceiling *t = NULL;
	bool differ = false;

	for (size_t i = 1; i < by_port->n; i++)
		differ = differ ||
			 by_port->item[i].route->priority != by_port->item[0].route->priority;
	if (!differ)
		return 0;
	t = malloc(sizeof(*t));
	if (!t)
		return -ENOMEM;
	for (size_t i = 0, j; i < by_port->n; i = j) {
		const struct sl_addr *ip = &by_port->item[i].ports->ip;

		j = i + 1;
		while (j < by_port->n && compare_groups(&by_port->item[i], &by_port->item[j]) == 0)
			j++;
		if (sl_addr_family(ip) != AF_UNSPEC && !sl_addr_is_any(ip))
			continue;
		fill_ceiling(t, m, &by_port->item[i], j - i);
		press_down(t, by_port, ip);
		press_down(t, by_domain, ip);
	}
	return 0;
}

/* ---- routes ---- */

/* What NAT carries shares its ports with nobody: see sl_conf_check_nftables(). */
static bool is_compared(const struct sl_conf_route *r)
{
	return r->enabled && r->engine != SL_CHOICE_NFTABLES;
}

static bool has_more(const struct sl_conf_route *r)
{
	return r->path || r->has_clients || r->tls_versions || r->n_alpn;
}

static int collect_ports(const struct sl_conf *conf, struct claims *c)
{
	size_t n = 0;

	for (size_t i = 0; i < conf->n_routes; i++)
		n += conf->routes[i].n_ports;
	c->item = calloc(n + 1, sizeof(*c->item));
	if (!c->item)
		return -ENOMEM;
	for (size_t i = 0; i < conf->n_routes; i++) {
		const struct sl_conf_route *r = &conf->routes[i];

		for (size_t j = 0; is_compared(r) && j < r->n_ports; j++)
			c->item[c->n++] =
				(struct claim){ .ports = &r->ports[j],
						.route = r,
						.is_taker = !r->n_domains && !has_more(r) };
	}
	return 0;
}

/* How many claims by domain a route makes; 0 also for one with too many. */
static size_t count_domains(const struct sl_conf_route *r, size_t so_far)
{
	if (!is_compared(r) || r->n_domains == 0 || r->n_domains > MAX_DOMAIN_CLAIMS ||
	    r->n_ports * r->n_domains > MAX_DOMAIN_CLAIMS - so_far)
		return 0;
	return r->n_ports * r->n_domains;
}

static int collect_domains(const struct sl_conf *conf, struct claims *c)
{
	static const uint8_t key[16]; /* a fixed one: what collides is compared as text */
	size_t n = 0;

	for (size_t i = 0; i < conf->n_routes; i++)
		n += count_domains(&conf->routes[i], n);
	c->item = calloc(n + 1, sizeof(*c->item));
	if (!c->item)
		return -ENOMEM;
	for (size_t i = 0; i < conf->n_routes; i++) {
		const struct sl_conf_route *r = &conf->routes[i];

		if (count_domains(r, c->n) == 0)
			continue;
		for (size_t j = 0; j < r->n_domains; j++) {
			uint64_t hash = sl_siphash(r->domains[j], strlen(r->domains[j]), key);

			for (size_t k = 0; k < r->n_ports; k++)
				c->item[c->n++] = (struct claim){ .ports = &r->ports[k],
								  .route = r,
								  .domain = r->domains[j],
								  .hash = hash,
								  .is_taker = !has_more(r) };
		}
	}
	return 0;
}

/* Both lists by route: dead is who has lost every port, or every pair of a port and a domain. */
static void warn_of_dead(struct sl_build *b, const struct claims *by_port,
			 const struct claims *by_domain)
{
	char name[SL_QUOTE_LEN], other[SL_QUOTE_LEN], place[SL_PLACE_LEN];
	size_t d = 0;

	for (size_t i = 0, j; i < by_port->n; i = j) {
		const struct claim *c = &by_port->item[i];
		const struct sl_conf_route *winner = c->winner;
		bool is_dead = true, by_name = true;
		size_t first = d;

		for (j = i; j < by_port->n && by_port->item[j].route == c->route; j++)
			is_dead = is_dead && by_port->item[j].winner;
		for (; d < by_domain->n && by_domain->item[d].route == c->route; d++)
			by_name = by_name && by_domain->item[d].winner;
		by_name = by_name && d > first && !is_dead;
		if (by_name)
			winner = by_domain->item[first].winner;
		if ((is_dead || by_name) && c->route->name && winner->name)
			sl_report_warning(
				&b->report, c->ports->mark, NULL,
				"the route %s can never match: the route %s at %s has its %s "
				"already",
				sl_quote(c->route->name, name), sl_quote(winner->name, other),
				sl_report_place(&b->report, winner->mark, place),
				by_name ? "ports and domains" : "ports");
	}
}

static void claims_done(struct claims *c)
{
	free(c->item);
}

int sl_conf_check_reachable(struct sl_build *b)
{
	_cleanup_free_ struct port_map *m = malloc(sizeof(*m));
	_cleanup_(claims_done) struct claims by_port = { 0 };
	_cleanup_(claims_done) struct claims by_domain = { 0 };
	int r = m ? collect_ports(b->conf, &by_port) : -ENOMEM;

	if (r == 0)
		r = collect_domains(b->conf, &by_domain);
	if (r < 0)
		return r;
	clear_ports(m);
	settle(m, &by_port);
	settle(m, &by_domain);
	r = apply_priorities(m, &by_port, &by_domain);
	sort(&by_port, compare_by_route);
	sort(&by_domain, compare_by_route);
	warn_of_dead(b, &by_port, &by_domain);
	return r;
}
