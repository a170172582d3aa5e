/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/listeners.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/bind.h"

/* Longer ranges are worth a program in the socket lookup. */
#define MAX_PLAIN_PORTS 16

struct builder {
	const struct sl_listen_plan *plan;
	struct sl_listeners set;
	size_t cap;
	size_t n_steered;
	struct sl_str *report;
	uint8_t own_ports[8192]; /* bit per port some old or new socket of ours is bound to */
};

static int compare_ip(const struct sl_addr *a, const struct sl_addr *b)
{
	uint8_t x[16], y[16];
	size_t n;

	if (sl_addr_family(a) != sl_addr_family(b))
		return sl_addr_family(a) < sl_addr_family(b) ? -1 : 1;
	n = sl_addr_ip_bytes(a, x);
	(void)sl_addr_ip_bytes(b, y);
	return n ? memcmp(x, y, n) : 0;
}

static int compare(const void *a, const void *b)
{
	const struct sl_listener *x = a, *y = b;
	int r = compare_ip(&x->ip, &y->ip);

	return r ? r : (int)x->from - (int)y->from;
}

/* Same address and first port: the same socket serves, whatever the range. */
static struct sl_listener *find_socket(const struct sl_listeners *l, const struct sl_listener *like)
{
	if (l->n == 0)
		return NULL;
	return bsearch(like, l->item, l->n, sizeof(*l->item), compare);
}

const struct sl_listener *sl_listeners_find(const struct sl_listeners *l,
					    const struct sl_listener *like)
{
	const struct sl_listener *hit = find_socket(l, like);

	return hit && hit->id == like->id ? hit : NULL;
}

static void close_except(struct sl_listeners *l, const struct sl_listeners *keep)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct sl_listener *kept = find_socket(keep, &l->item[i]);

		if (!kept || kept->fd != l->item[i].fd)
			sl_closep(&l->item[i].fd);
	}
	free(l->item);
	*l = (struct sl_listeners){ 0 };
}

void sl_listeners_replace(struct sl_listeners *old, const struct sl_listeners *now)
{
	close_except(old, now);
}

void sl_listeners_cancel(struct sl_listeners *fresh, const struct sl_listeners *old)
{
	/* A shared socket may have got the backlog of the set that is not to be. */
	for (size_t i = 0; i < fresh->n; i++) {
		const struct sl_listener *was = find_socket(old, &fresh->item[i]);

		if (was && was->backlog != fresh->item[i].backlog)
			(void)sl_bind_set_backlog(was->fd, was->backlog);
	}
	close_except(fresh, old);
}

void sl_listeners_done(struct sl_listeners *l)
{
	const struct sl_listeners none = { 0 };

	close_except(l, &none);
}

/* ---- building a set ---- */

static void mark_port(struct builder *b, uint16_t port)
{
	b->own_ports[port / 8] |= (uint8_t)(1u << port % 8);
}

static bool is_own_port(const struct builder *b, uint16_t port)
{
	return b->own_ports[port / 8] & (1u << port % 8);
}

/*
 * "FILE:LINE: KINDroute 'NAME': ", the place that wants to listen. KIND is never "error: ": that
 * marks what is wrong in the file itself.
 */
static void add_place(struct builder *b, const struct sl_listen_spec *spec, const char *kind)
{
	const struct sl_conf *conf = b->plan->conf;
	const struct sl_conf_sources *sources = b->plan->sources;

	if (spec->mark.source < sources->n)
		sl_str_addf(b->report, "%s:%u: ", sources->item[spec->mark.source].name,
			    spec->mark.line);
	sl_str_adds(b->report, kind);
	for (size_t i = 0; i < conf->n_routes; i++) {
		const struct sl_conf_route *route = &conf->routes[i];

		for (size_t j = 0; route->enabled && j < route->n_ports; j++) {
			if (route->ports[j].from > spec->to || route->ports[j].to < spec->from)
				continue;
			sl_str_addf(b->report, "route '%s': ", route->name);
			return;
		}
	}
}

static int report_bind(struct builder *b, const struct sl_listen_spec *spec, uint16_t port, int err)
{
	char name[SL_ADDR_TEXT];

	add_place(b, spec, "");
	sl_str_addf(b->report, "cannot listen on %s: ", sl_bind_name(&spec->ip, port, name));
	sl_bind_explain(b->report, err, port);
	sl_str_addc(b->report, '\n');
	return err;
}

/*
 * One address of a port while an old socket of ours has every address, or the other way
 * round: both may be bound for the moment if both say so. The permission is taken back at
 * once; it would let any program of this user that asks for SO_REUSEPORT in (and the
 * kernel remembers it for such programs as long as the port is bound).
 */
static int bind_beside_old(struct builder *b, const struct sl_listener *l, int *ret_fd)
{
	const struct sl_listeners *old = b->plan->old;
	size_t n_shared = 0;
	int r = -EADDRINUSE;

	for (size_t i = 0; i < old->n; i++)
		if (old->item[i].from == l->from && sl_bind_share(old->item[i].fd, true) == 0)
			n_shared++;
	if (n_shared > 0)
		r = sl_bind_tcp(&l->ip, l->from, l->backlog, true, ret_fd);
	for (size_t i = 0; i < old->n; i++)
		if (old->item[i].from == l->from)
			(void)sl_bind_share(old->item[i].fd, false);
	if (r == 0)
		(void)sl_bind_share(*ret_fd, false);
	return r;
}

static int open_socket(struct builder *b, const struct sl_listen_spec *spec, struct sl_listener *l)
{
	const struct sl_listener *old = find_socket(b->plan->old, l);
	int r;

	if (old) {
		l->fd = old->fd;
		return old->backlog == l->backlog ? 0 : sl_bind_set_backlog(l->fd, l->backlog);
	}
	r = sl_bind_tcp(&l->ip, l->from, l->backlog, false, &l->fd);
	if (r == -EADDRINUSE)
		r = bind_beside_old(b, l, &l->fd);
	return r < 0 ? report_bind(b, spec, l->from, r) : 0;
}

static int add(struct builder *b, const struct sl_listen_spec *spec, uint16_t from, uint16_t to)
{
	struct sl_listener l = {
		.ip = spec->ip, .from = from, .to = to, .backlog = spec->backlog, .fd = -1
	};
	const struct sl_listener *old = find_socket(b->plan->old, &l);
	int r;

	if (b->set.n == b->cap) {
		size_t cap = b->cap ? b->cap * 2 : 64;
		struct sl_listener *item = realloc(b->set.item, cap * sizeof(*item));

		if (!item)
			return -ENOMEM;
		b->set.item = item;
		b->cap = cap;
	}
	r = open_socket(b, spec, &l);
	if (r < 0)
		return r;
	l.id = old && old->to == to ? old->id : (*b->plan->next_id)++;
	mark_port(b, from);
	b->set.item[b->set.n++] = l;
	return 0;
}

static int add_plain(struct builder *b, const struct sl_listen_spec *spec)
{
	int r = 0;

	for (unsigned port = spec->from; r == 0 && port <= spec->to; port++)
		r = add(b, spec, (uint16_t)port, (uint16_t)port);
	return r;
}

/* Steering would take connections away from whoever listens in the range now. */
static int check_range(struct builder *b, const struct sl_listen_spec *spec)
{
	const struct sl_listener like = { .ip = spec->ip, .from = spec->from };
	const struct sl_listener *old = find_socket(b->plan->old, &like);

	if (old && old->to == spec->to)
		return 0;
	for (unsigned port = spec->from; port <= spec->to; port++)
		if (!is_own_port(b, (uint16_t)port) && sl_bind_is_taken(&spec->ip, (uint16_t)port))
			return report_bind(b, spec, (uint16_t)port, -EADDRINUSE);
	return 0;
}

static bool can_steer(struct builder *b)
{
	struct sl_steering *s = b->plan->steering;
	int r;

	if (s->sklookup)
		return true;
	r = sl_sklookup_new(&s->sklookup);
	if (r == 0) {
		(void)snprintf(s->text, sizeof(s->text), "sk_lookup");
		return true;
	}
	(void)snprintf(s->text, sizeof(s->text), "no sk_lookup (%s)", strerror(-r));
	return false;
}

static int add_range(struct builder *b, const struct sl_listen_spec *spec)
{
	const char *why = NULL;
	int r;

	if (b->n_steered == SL_SKLOOKUP_MAX_RANGES)
		why = "there are too many ranges for sk_lookup";
	else if (!can_steer(b))
		why = b->plan->steering->text;
	if (why) {
		add_place(b, spec, "warning: ");
		sl_str_addf(b->report, "ports %u-%u get a socket each: %s\n", spec->from, spec->to,
			    why);
		return add_plain(b, spec);
	}
	r = check_range(b, spec);
	if (r < 0)
		return r;
	b->n_steered++;
	return add(b, spec, spec->from, spec->to);
}

int sl_listeners_build(const struct sl_listen_plan *plan, struct sl_listeners *ret,
		       struct sl_str *report)
{
	struct builder b = { .plan = plan, .report = report };
	int r = 0;

	for (size_t i = 0; i < plan->old->n; i++)
		mark_port(&b, plan->old->item[i].from);
	for (size_t i = 0; r == 0 && i < plan->conf->n_listens; i++) {
		const struct sl_listen_spec *spec = &plan->conf->listens[i];

		if (spec->to - spec->from >= MAX_PLAIN_PORTS)
			r = add_range(&b, spec);
		else
			r = add_plain(&b, spec);
	}
	if (b.set.n > 0)
		qsort(b.set.item, b.set.n, sizeof(*b.set.item), compare);
	if (r < 0) {
		sl_listeners_cancel(&b.set, plan->old);
		return r;
	}
	*ret = b.set;
	return 0;
}

/* ---- steering ---- */

static bool is_range(const struct sl_listener *l)
{
	return l->from != l->to;
}

int sl_steering_set(struct sl_steering *s, const struct sl_listeners *l)
{
	struct sl_steer range[SL_SKLOOKUP_MAX_RANGES];
	size_t n = 0;

	if (!s->sklookup)
		return 0;
	for (size_t i = 0; i < l->n; i++) {
		const struct sl_listener *from = &l->item[i];

		if (!is_range(from))
			continue;
		if (n == SL_ARRAY_LEN(range))
			return -E2BIG;
		range[n++] = (struct sl_steer){
			.ip = from->ip, .from = from->from, .to = from->to, .fd = from->fd
		};
	}
	return sl_sklookup_set(s->sklookup, range, n);
}

void sl_steering_trim(struct sl_steering *s, const struct sl_listeners *l)
{
	bool is_needed = !s->sklookup; /* why there is none is still to be told */

	for (size_t i = 0; i < l->n && !is_needed; i++)
		is_needed = is_range(&l->item[i]);
	if (!is_needed)
		sl_steering_done(s);
}

void sl_steering_done(struct sl_steering *s)
{
	sl_sklookup_free(s->sklookup);
	*s = (struct sl_steering){ 0 };
}
