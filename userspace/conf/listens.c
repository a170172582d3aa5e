/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>

#include "conf/build.h"
#include "conf/ip_list.h"

#define DEFAULT_BACKLOG 4096

/* A range that something wants, and where in the files that was said first. */
struct span {
	struct sl_addr ip;
	uint32_t from;
	uint32_t to;
	struct sl_mark mark;
	size_t order;
};

struct spans {
	struct span *item;
	size_t n;
	size_t cap;
};

static int add_span(struct spans *s, struct span one)
{
	if (s->n == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 16;
		struct span *item = reallocarray(s->item, cap, sizeof(*item));

		if (!item)
			return -ENOMEM;
		s->item = item;
		s->cap = cap;
	}
	s->item[s->n++] = one;
	return 0;
}

static void spans_done(struct spans *s)
{
	free(s->item);
	*s = (struct spans){ 0 };
}

/* Every address comes before the ones it swallows: AF_UNSPEC, 0.0.0.0, IPv4, ::, IPv6. */
static int compare_spans(const void *a, const void *b)
{
	const struct span *x = a, *y = b;
	int c = sl_compare_ip(&x->ip, &y->ip);

	if (c == 0)
		c = (x->from > y->from) - (x->from < y->from);
	return c ? c : (x->order > y->order) - (x->order < y->order);
}

static int collect(const struct sl_conf *conf, struct spans *s)
{
	size_t order = 0;
	int r = 0;

	for (size_t i = 0; i < conf->n_routes; i++) {
		const struct sl_conf_route *route = &conf->routes[i];

		if (!route->enabled || route->engine == SL_CHOICE_NFTABLES)
			continue; /* NAT needs no socket */
		for (size_t j = 0; r == 0 && j < route->n_ports; j++) {
			const struct sl_port_spec *p = &route->ports[j];

			r = add_span(s, (struct span){ .ip = p->ip,
						       .from = p->from,
						       .to = p->to,
						       .mark = p->mark,
						       .order = order++ });
		}
	}
	return r;
}

/* Sorted ranges of equal addresses that overlap or touch become one, in place. */
static void merge_spans(struct spans *s)
{
	size_t n = 0;

	if (s->n)
		qsort(s->item, s->n, sizeof(*s->item), compare_spans);
	for (size_t i = 0; i < s->n; i++) {
		struct span *last = n ? &s->item[n - 1] : NULL, *now = &s->item[i];

		if (!last || !sl_addr_same_ip(&last->ip, &now->ip) || now->from > last->to + 1) {
			s->item[n++] = *now;
			continue;
		}
		if (now->to > last->to)
			last->to = now->to;
		if (now->order < last->order) {
			last->order = now->order;
			last->mark = now->mark;
		}
	}
	s->n = n;
}

/* The spans of one address inside a sorted list. */
static struct spans spans_of(const struct spans *s, const struct sl_addr *ip)
{
	struct spans part = { .item = s->item };

	if (s->n == 0)
		return part;
	while (part.item < s->item + s->n && sl_compare_ip(&part.item->ip, ip) < 0)
		part.item++;
	while (part.item + part.n < s->item + s->n && sl_compare_ip(&part.item[part.n].ip, ip) == 0)
		part.n++;
	return part;
}

/* First span that ends at or after `port`. */
static const struct span *find_span(const struct spans *s, uint32_t port)
{
	size_t lo = 0, hi = s->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->item[mid].to < port)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < s->n ? &s->item[lo] : NULL;
}

/* The next part of `rest` that no wider listener covers; it is cut off from `rest`. */
static bool next_uncovered(struct span *rest, const struct spans wider[2], struct span *ret)
{
	uint32_t end;

	while (rest->from <= rest->to) {
		const struct span *a = find_span(&wider[0], rest->from);
		const struct span *b = find_span(&wider[1], rest->from);

		if ((a && a->from <= rest->from) || (b && b->from <= rest->from)) {
			rest->from = (a && a->from <= rest->from ? a->to : b->to) + 1;
			continue;
		}
		end = rest->to;
		if (a && a->from <= end)
			end = a->from - 1;
		if (b && b->from <= end)
			end = b->from - 1;
		*ret = *rest;
		ret->to = end;
		rest->from = end + 1;
		return true;
	}
	return false;
}

static int swallow(const struct spans *all, struct spans *out)
{
	struct sl_addr any[] = { { .sa.sa_family = AF_UNSPEC },
				 { .v4.sin_family = AF_INET },
				 { .v6.sin6_family = AF_INET6 } };
	struct spans every = spans_of(all, &any[0]);
	struct spans v4 = spans_of(all, &any[1]), v6 = spans_of(all, &any[2]);
	int r = 0;

	for (size_t i = 0; i < all->n; i++) {
		struct span rest = all->item[i], part;
		struct spans wider[2] = { { 0 }, { 0 } };

		if (sl_addr_family(&rest.ip) != AF_UNSPEC)
			wider[0] = every;
		if (sl_addr_family(&rest.ip) == AF_INET && !sl_addr_is_any(&rest.ip))
			wider[1] = v4;
		if (sl_addr_family(&rest.ip) == AF_INET6 && !sl_addr_is_any(&rest.ip))
			wider[1] = v6;
		while (r == 0 && next_uncovered(&rest, wider, &part))
			r = add_span(out, part);
	}
	return r;
}

/* ---- backlogs ---- */

static int compare_entries(const void *a, const void *b)
{
	const struct sl_listener_entry *x = a, *y = b;
	const struct sl_mark *m = &x->ports.mark, *n = &y->ports.mark;
	int c = sl_compare_ip(&x->ports.ip, &y->ports.ip);

	if (c == 0)
		c = (int)x->ports.from - (int)y->ports.from;
	if (c == 0)
		c = (m->source > n->source) - (m->source < n->source);
	if (c == 0)
		c = (m->line > n->line) - (m->line < n->line);
	return c ? c : (m->column > n->column) - (m->column < n->column);
}

static bool is_earlier(const struct sl_mark *a, const struct sl_mark *b)
{
	if (a->source != b->source)
		return a->source < b->source;
	return a->line != b->line ? a->line < b->line : a->column < b->column;
}

static bool is_same_setting(const struct sl_proxy_setting *a, const struct sl_proxy_setting *b)
{
	return a == b ||
	       (a && b && a->required == b->required && sl_ip_list_is_equal(&a->from, &b->from));
}

/* Two entries for one port of one address could contradict each other. False when there are any. */
static bool check_entries(struct sl_build *b)
{
	struct sl_listener_entry *widest = NULL;
	char place[SL_PLACE_LEN];
	bool good = true;

	if (b->n_listeners)
		qsort(b->listeners, b->n_listeners, sizeof(*b->listeners), compare_entries);
	for (size_t i = 0; i < b->n_listeners; i++) {
		struct sl_listener_entry *e = &b->listeners[i];

		if (widest && sl_compare_ip(&widest->ports.ip, &e->ports.ip) == 0 &&
		    e->ports.from <= widest->ports.to) {
			bool swap = is_earlier(&e->ports.mark, &widest->ports.mark);
			const struct sl_listener_entry *first = swap ? e : widest;
			const struct sl_listener_entry *second = swap ? widest : e;

			good = false;
			sl_report_error(&b->report, second->ports.mark, NULL,
					"a port of this listener is already described at %s%s",
					sl_report_place(&b->report, first->ports.mark, place),
					is_same_setting(first->proxy, second->proxy)
						? ""
						: ", where accept_proxy differs");
			if (e->ports.to <= widest->ports.to)
				continue;
		}
		widest = e;
	}
	return good;
}

struct entries {
	struct sl_listener_entry *item;
	size_t n;
};

static struct entries entries_of(struct sl_build *b, const struct sl_addr *ip)
{
	size_t lo = 0, hi = b->n_listeners;
	struct entries part = { 0 };

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (sl_compare_ip(&b->listeners[mid].ports.ip, ip) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == b->n_listeners)
		return part;
	part.item = b->listeners + lo;
	while (lo + part.n < b->n_listeners && sl_compare_ip(&part.item[part.n].ports.ip, ip) == 0)
		part.n++;
	return part;
}

/* The entry with `port`, or NULL and in `*next` where the next one begins. */
static struct sl_listener_entry *entry_at(const struct entries *e, uint32_t port, uint32_t *next)
{
	size_t lo = 0, hi = e->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (e->item[mid].ports.to < port)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == e->n)
		return NULL;
	if (e->item[lo].ports.from <= port)
		return &e->item[lo];
	if (e->item[lo].ports.from < *next)
		*next = e->item[lo].ports.from;
	return NULL;
}

/* ---- accept_proxy ---- */

static struct sl_mark setting_mark(const struct sl_listener_entry *e)
{
	return e->proxy ? e->proxy->mark : e->ports.mark;
}

static void refuse_setting(struct sl_build *b, const struct sl_listener_entry *e,
			   const struct sl_listener_entry *wider)
{
	bool swap = is_earlier(&wider->ports.mark, &e->ports.mark);
	const struct sl_listener_entry *first = swap ? wider : e, *second = swap ? e : wider;
	char place[SL_PLACE_LEN];

	sl_report_error(&b->report, setting_mark(second), NULL,
			"accept_proxy differs for port %u from that of the listener at %s",
			e->ports.from > wider->ports.from ? e->ports.from : wider->ports.from,
			sl_report_place(&b->report, setting_mark(first), place));
}

/* The first entry of a wider address that says something else about a port of `e`. */
static const struct sl_listener_entry *find_contrary(const struct sl_listener_entry *e,
						     const struct entries *wider,
						     const struct sl_listener_entry *all)
{
	size_t lo = 0, hi = wider->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (wider->item[mid].ports.to < e->ports.from)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < wider->n && is_same_setting(wider->item[lo].proxy, e->proxy))
		lo = (size_t)(all + wider->item[lo].run - wider->item) + 1;
	return lo < wider->n && wider->item[lo].ports.from <= e->ports.to ? &wider->item[lo] : NULL;
}

/* The entries for every address, and for every address of the family, beside those of `ip`. */
static void wider_entries(struct sl_build *b, const struct sl_addr *ip, struct entries ret[2])
{
	struct sl_addr every = { 0 }, any = { .sa.sa_family = sl_addr_family(ip) };

	ret[0] = ret[1] = (struct entries){ 0 };
	if (sl_addr_family(ip) == AF_UNSPEC)
		return;
	ret[0] = entries_of(b, &every);
	if (!sl_addr_is_any(ip))
		ret[1] = entries_of(b, &any);
}

/* Whether a connection begins with a header must not depend on how its address is looked at. */
static void check_settings(struct sl_build *b)
{
	struct sl_listener_entry *all = b->listeners;

	for (size_t i = b->n_listeners; i-- > 0;) {
		bool goes_on = i + 1 < b->n_listeners &&
			       sl_compare_ip(&all[i].ports.ip, &all[i + 1].ports.ip) == 0 &&
			       is_same_setting(all[i].proxy, all[i + 1].proxy);

		all[i].run = goes_on ? all[i + 1].run : i;
	}
	for (size_t i = 0; i < b->n_listeners; i++) {
		const struct sl_listener_entry *contrary = NULL;
		struct entries wider[2];

		wider_entries(b, &all[i].ports.ip, wider);
		for (size_t k = 0; !contrary && k < SL_ARRAY_LEN(wider); k++)
			contrary = find_contrary(&all[i], &wider[k], all);
		if (contrary)
			refuse_setting(b, &all[i], contrary);
	}
}

struct accepts {
	struct sl_conf_accept_proxy *item;
	size_t n;
	size_t cap;
};

static int add_accept(struct accepts *a, const struct sl_listener_entry *e, uint32_t from,
		      uint32_t to)
{
	struct sl_conf_accept_proxy *one;
	int r;

	if (a->n == a->cap) {
		size_t cap = a->cap ? a->cap * 2 : 8;
		struct sl_conf_accept_proxy *item = reallocarray(a->item, cap, sizeof(*item));

		if (!item)
			return -ENOMEM;
		a->item = item;
		a->cap = cap;
	}
	one = &a->item[a->n];
	*one = (struct sl_conf_accept_proxy){ .ports = e->ports, .required = e->proxy->required };
	one->ports.from = (uint16_t)from;
	one->ports.to = (uint16_t)to;
	r = sl_ip_list_copy(&e->proxy->from, &one->from);
	if (r == 0)
		a->n++;
	return r;
}

/* What of an entry no wider one has; those agree with it. */
static int add_setting(struct sl_build *b, const struct sl_listener_entry *e, struct accepts *a)
{
	struct entries wider[2];
	int r = 0;

	wider_entries(b, &e->ports.ip, wider);
	for (uint32_t port = e->ports.from, end; r == 0 && port <= e->ports.to; port = end) {
		const struct sl_listener_entry *w;

		end = e->ports.to + 1U;
		w = entry_at(&wider[0], port, &end);
		if (!w)
			w = entry_at(&wider[1], port, &end);
		if (w && w->ports.to + 1U < end)
			end = w->ports.to + 1U;
		if (!w)
			r = add_accept(a, e, port, end - 1);
	}
	return r;
}

static int make_accepts(struct sl_build *b)
{
	struct accepts a = { 0 };
	int r = 0;

	for (size_t i = 0; r == 0 && i < b->n_listeners; i++)
		if (b->listeners[i].proxy)
			r = add_setting(b, &b->listeners[i], &a);
	b->conf->accept_proxies = a.item;
	b->conf->n_accept_proxies = a.n;
	return r;
}

/* ---- listening ---- */

struct listens {
	struct sl_listen_spec *item;
	size_t n;
	size_t cap;
};

static int add_listen(struct listens *l, const struct span *s, uint32_t from, uint32_t to,
		      int backlog)
{
	struct sl_listen_spec *last = l->n ? &l->item[l->n - 1] : NULL;

	if (last && last->backlog == backlog && last->to + 1U == from &&
	    sl_addr_same_ip(&last->ip, &s->ip)) {
		last->to = (uint16_t)to;
		return 0;
	}
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 16;
		struct sl_listen_spec *item = reallocarray(l->item, cap, sizeof(*item));

		if (!item)
			return -ENOMEM;
		l->item = item;
		l->cap = cap;
	}
	l->item[l->n++] = (struct sl_listen_spec){ .ip = s->ip,
						   .from = (uint16_t)from,
						   .to = (uint16_t)to,
						   .backlog = backlog,
						   .mark = s->mark };
	return 0;
}

/* Cuts a span where its backlog changes: an entry of its own address wins over a general one. */
static int add_backlogs(struct sl_build *b, const struct span *s, struct listens *l)
{
	struct sl_addr every = { 0 };
	struct entries own = entries_of(b, &s->ip), general = { 0 };
	int r = 0;

	if (sl_addr_family(&s->ip) != AF_UNSPEC)
		general = entries_of(b, &every);
	for (uint32_t port = s->from, end; r == 0 && port <= s->to; port = end) {
		struct sl_listener_entry *e;

		end = s->to + 1;
		e = entry_at(&own, port, &end);
		if (!e)
			e = entry_at(&general, port, &end);
		if (e && e->ports.to < end)
			end = e->ports.to + 1U;
		if (e)
			e->is_used = true;
		r = add_listen(l, s, port, end - 1, e ? e->backlog : DEFAULT_BACKLOG);
	}
	return r;
}

static void warn_of_unused(struct sl_build *b)
{
	for (size_t i = 0; b->report.n_errors == 0 && i < b->n_listeners; i++)
		if (!b->listeners[i].is_used)
			sl_report_warning(
				&b->report, b->listeners[i].ports.mark, NULL,
				"no enabled route listens here: this entry has no effect");
}

int sl_conf_make_listens(struct sl_build *b)
{
	_cleanup_(spans_done) struct spans all = { 0 };
	_cleanup_(spans_done) struct spans bare = { 0 };
	struct listens l = { 0 };
	int r;

	if (check_entries(b))
		check_settings(b);
	if (b->report.n_errors)
		return 0; /* nobody will get the result */
	r = make_accepts(b);
	if (r == 0)
		r = collect(b->conf, &all);
	if (r == 0) {
		merge_spans(&all);
		r = swallow(&all, &bare);
	}
	for (size_t i = 0; r == 0 && i < bare.n; i++)
		r = add_backlogs(b, &bare.item[i], &l);
	b->conf->listens = l.item;
	b->conf->n_listens = l.n;
	warn_of_unused(b);
	return r;
}
