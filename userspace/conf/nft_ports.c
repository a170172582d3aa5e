/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>

#include "conf/build.h"

/*
 * NAT takes its connections before any socket could, so a port is either the kernel's or the
 * daemon's: whoever else wants it, or expects a PROXY header on it, would wait in vain. Among
 * routes of NAT an address of its own comes before every address, whatever stands first.
 */
#define N_PORTS 65536

enum side {
	NAT = 0, /* a route with `engine: nftables` */
	DAEMON,  /* any other route */
	HEADER,  /* accept_proxy of a listener */
	N_SIDES,
};

struct claim {
	struct sl_addr ip; /* AF_UNSPEC: every one; 0.0.0.0 or ::, every one of that family */
	uint32_t from;
	uint32_t to;
	enum side side;
	const struct sl_conf_route *route; /* NULL: of a listener */
	struct sl_mark mark;
};

/* Who has a port on every address; the second index is 1 for IPv6. */
struct wide {
	const struct claim *owner[N_SIDES][2][N_PORTS];
};

struct claims {
	struct claim *item;
	size_t n;
};

static bool is_before(const struct sl_mark *a, const struct sl_mark *b)
{
	if (a->source != b->source)
		return a->source < b->source;
	return a->line != b->line ? a->line < b->line : a->column < b->column;
}

/* Every address, 0.0.0.0, those of IPv4, ::, those of IPv6; then by port and place. */
static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int c = sl_compare_ip(&x->ip, &y->ip);

	if (c == 0)
		c = (x->from > y->from) - (x->from < y->from);
	return c ? c : is_before(&y->mark, &x->mark) - is_before(&x->mark, &y->mark);
}

static const char *side_text(const struct claim *c)
{
	if (c->side == NAT)
		return "'engine: nftables'";
	return c->side == HEADER ? "'accept_proxy'" : "a route that the daemon accepts for";
}

/* True when the two exclude each other, which is reported at the second of them. */
static bool refuse(struct sl_build *b, const struct claim *x, const struct claim *y)
{
	const struct claim *first = is_before(&x->mark, &y->mark) ? x : y;
	const struct claim *second = first == x ? y : x;
	char place[SL_PLACE_LEN];

	if ((x->side != NAT && y->side != NAT) || x->route == y->route)
		return false;
	if (x->side == y->side)
		sl_report_error(&b->report, second->mark, NULL,
				"port %u belongs to another route with 'engine: nftables' already "
				"(at %s)",
				x->from > y->from ? x->from : y->from,
				sl_report_place(&b->report, first->mark, place));
	else
		sl_report_error(&b->report, second->mark, NULL,
				"port %u cannot be shared by %s and %s (at %s): the kernel leads "
				"its connections past the daemon",
				x->from > y->from ? x->from : y->from, side_text(second),
				side_text(first), sl_report_place(&b->report, first->mark, place));
	return true;
}

/* ---- the same address ---- */

/* One group: sorted by port. At most one report for each claim. */
static void check_group(struct sl_build *b, const struct claim *c, size_t n)
{
	const struct claim *widest[N_SIDES] = { NULL };

	for (size_t i = 0; i < n; i++) {
		bool is_refused = false;

		for (int side = 0; side < N_SIDES && !is_refused; side++)
			if (widest[side] && widest[side]->to >= c[i].from)
				is_refused = refuse(b, widest[side], &c[i]);
		if (!widest[c[i].side] || c[i].to > widest[c[i].side]->to)
			widest[c[i].side] = &c[i];
	}
}

/* ---- an address of its own and every address ---- */

static bool is_wide(const struct claim *c)
{
	return sl_addr_family(&c->ip) == AF_UNSPEC || sl_addr_is_any(&c->ip);
}

static bool has_family(const struct claim *c, int ip6)
{
	return sl_addr_family(&c->ip) == AF_UNSPEC ||
	       (sl_addr_family(&c->ip) == AF_INET6) == (ip6 != 0);
}

static void check_against_wide(struct sl_build *b, const struct wide *w, const struct claim *c)
{
	for (int side = 0; side < N_SIDES; side++) {
		if (!is_wide(c) && side == NAT && c->side == NAT)
			continue; /* the address of its own comes first */
		for (int ip6 = 0; ip6 <= 1; ip6++)
			for (uint32_t p = c->from; has_family(c, ip6) && p <= c->to; p++)
				if (w->owner[side][ip6][p] && refuse(b, w->owner[side][ip6][p], c))
					return;
	}
}

/* A group of one wide address, after it has been compared with wider ones. */
static void note_wide(struct wide *w, const struct claim *c, size_t n)
{
	uint32_t next[N_SIDES] = { 0 }; /* ports below are noted already */

	for (size_t i = 0; i < n; i++) {
		uint32_t *from = &next[c[i].side];

		*from = c[i].from > *from ? c[i].from : *from;
		for (; *from <= c[i].to; ++*from)
			for (int ip6 = 0; ip6 <= 1; ip6++)
				if (has_family(&c[i], ip6))
					w->owner[c[i].side][ip6][*from] = &c[i];
	}
}

static int check_claims(struct sl_build *b, struct claims *all)
{
	_cleanup_free_ struct wide *w = calloc(1, sizeof(*w));
	struct claim *c = all->item;

	if (!w)
		return -ENOMEM;
	qsort(c, all->n, sizeof(*c), compare_claims);
	/* the wide groups first: they stand before and between the others */
	for (int pass = 0; pass <= 1; pass++) {
		for (size_t i = 0, j; i < all->n; i = j) {
			j = i + 1;
			while (j < all->n && sl_compare_ip(&c[i].ip, &c[j].ip) == 0)
				j++;
			if (is_wide(&c[i]) != (pass == 0))
				continue;
			check_group(b, c + i, j - i);
			for (size_t k = i; k < j; k++)
				check_against_wide(b, w, &c[k]);
			if (pass == 0)
				note_wide(w, c + i, j - i);
		}
	}
	return 0;
}

/* ---- collecting ---- */

static void add_routes(struct claims *all, const struct sl_conf *conf, bool is_udp)
{
	for (size_t i = 0; i < conf->n_routes; i++) {
		const struct sl_conf_route *r = &conf->routes[i];

		for (size_t j = 0; r->enabled && r->is_udp == is_udp && j < r->n_ports; j++)
			all->item[all->n++] = (struct claim){
				.ip = r->ports[j].ip,
				.from = r->ports[j].from,
				.to = r->ports[j].to,
				.side = r->engine == SL_CHOICE_NFTABLES ? NAT : DAEMON,
				.route = r,
				.mark = r->ports[j].mark,
			};
	}
}

static void add_headers(struct claims *all, const struct sl_build *b)
{
	for (size_t i = 0; i < b->n_listeners; i++) {
		const struct sl_listener_entry *e = &b->listeners[i];

		if (e->proxy)
			all->item[all->n++] = (struct claim){
				.ip = e->ports.ip,
				.from = e->ports.from,
				.to = e->ports.to,
				.side = HEADER,
				.mark = e->proxy->mark,
			};
	}
}

static bool has_nat(const struct claims *all)
{
	for (size_t i = 0; i < all->n; i++)
		if (all->item[i].side == NAT)
			return true;
	return false;
}

int sl_conf_check_nft_ports(struct sl_build *b)
{
	_cleanup_free_ struct claim *item = NULL;
	size_t cap = b->n_listeners + 1;

	for (size_t i = 0; i < b->conf->n_routes; i++)
		cap += b->conf->routes[i].n_ports;
	item = calloc(cap, sizeof(*item));
	if (!item)
		return -ENOMEM;
	for (int udp = 0; udp <= 1; udp++) {
		struct claims all = { .item = item };
		int r = 0;

		add_routes(&all, b->conf, udp);
		if (!udp)
			add_headers(&all, b);
		if (has_nat(&all))
			r = check_claims(b, &all);
		if (r < 0)
			return r;
	}
	return 0;
}
