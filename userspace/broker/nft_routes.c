/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/nft_routes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/ip_list.h"

/* Those below are not for source ports: packet.ports cannot begin there, either. */
#define SOURCE_PORTS 1024u
/* With fewer a target would soon lack ports, which is worse than a clash now and then. */
#define TOO_FEW_PORTS 1024u

struct maker {
	const struct sl_conf *conf;
	struct sl_nft_routes *out;
};

bool sl_nft_is_carried(const struct sl_conf_route *r)
{
	return r->enabled && r->engine == SL_CHOICE_NFTABLES;
}

/* ---- listeners ---- */

static int compare_listeners(const void *a, const void *b)
{
	const struct sl_nft_listener *x = a, *y = b;
	uint8_t ip[2][16] = { { 0 } };
	int c = (int)sl_addr_family(&x->ip) - (int)sl_addr_family(&y->ip);

	if (c == 0 && sl_addr_family(&x->ip) != AF_UNSPEC) {
		(void)sl_addr_ip_bytes(&x->ip, ip[0]);
		(void)sl_addr_ip_bytes(&y->ip, ip[1]);
		c = memcmp(ip[0], ip[1], sizeof(ip[0]));
	}
	return c ? c : (int)x->from - (int)y->from;
}

/* The kernel takes no two entries that overlap; those that only touch stay as written. */
static size_t merge_listeners(struct sl_nft_listener *l, size_t n)
{
	size_t made = 0;

	if (n)
		qsort(l, n, sizeof(*l), compare_listeners);
	for (size_t i = 0; i < n; i++) {
		struct sl_nft_listener *last = made ? &l[made - 1] : NULL;

		if (last && sl_addr_same_ip(&last->ip, &l[i].ip) && l[i].from <= last->to)
			last->to = l[i].to > last->to ? l[i].to : last->to;
		else
			l[made++] = l[i];
	}
	return made;
}

static bool has_any_of_family(const struct sl_conf_route *r)
{
	for (size_t i = 0; i < r->n_ports; i++)
		if (sl_addr_family(&r->ports[i].ip) != AF_UNSPEC && sl_addr_is_any(&r->ports[i].ip))
			return true;
	return false;
}

/* Beside 0.0.0.0 or ::, "every address" is written as these two, so that repetitions meet. */
static void put_listeners(struct maker *m, const struct sl_conf_route *r, struct sl_nft_route *to)
{
	static const sa_family_t families[] = { AF_INET, AF_INET6 };
	struct sl_nft_listener *l = m->out->listeners + m->out->n_listeners;
	bool is_split = has_any_of_family(r);
	size_t n = 0;

	for (size_t i = 0; i < r->n_ports; i++) {
		const struct sl_port_spec *p = &r->ports[i];

		if (!is_split || sl_addr_family(&p->ip) != AF_UNSPEC) {
			l[n++] = (struct sl_nft_listener){ p->ip, p->from, p->to };
			continue;
		}
		for (size_t f = 0; f < SL_ARRAY_LEN(families); f++) {
			l[n] = (struct sl_nft_listener){ .from = p->from, .to = p->to };
			l[n++].ip.sa.sa_family = families[f];
		}
	}
	to->listeners = l;
	to->n_listeners = merge_listeners(l, n);
	m->out->n_listeners += to->n_listeners;
}

/* ---- targets ---- */

static bool is_usable(const struct sl_nft_target *t)
{
	return t->weight > 0 && !t->is_down;
}

static bool is_backup_time(const struct sl_nft_target *t, const bool *is_backup, size_t n,
			   sa_family_t family)
{
	for (size_t i = 0; i < n; i++)
		if (!is_backup[i] && sl_addr_family(&t[i].addr) == family && is_usable(&t[i]))
			return false;
	return true;
}

void sl_nft_settle_targets(const struct sl_nft_route *route, const bool *is_backup,
			   const bool *is_down, struct sl_nft_target *ret)
{
	bool is_time4, is_time6;

	for (size_t i = 0; i < route->n_targets; i++) {
		ret[i] = route->targets[i];
		ret[i].is_down = is_down && is_down[i];
	}
	is_time4 = is_backup_time(ret, is_backup, route->n_targets, AF_INET);
	is_time6 = is_backup_time(ret, is_backup, route->n_targets, AF_INET6);
	for (size_t i = 0; i < route->n_targets; i++)
		if (is_backup[i] &&
		    !(sl_addr_family(&ret[i].addr) == AF_INET6 ? is_time6 : is_time4))
			ret[i].weight = 0;
}

static void put_targets(struct maker *m, const struct sl_conf_route *r, struct sl_nft_route *to)
{
	struct sl_nft_routes *out = m->out;

	to->targets = out->targets + out->n_targets;
	to->n_targets = r->n_targets;
	for (size_t i = 0; i < r->n_targets; i++) {
		const struct sl_conf_target *t = &r->targets[i];

		out->is_backup[out->n_targets] = t->backup;
		out->targets[out->n_targets++] = (struct sl_nft_target){
			.name = t->address,
			.addr = t->addr,
			.weight = t->drained ? 0 : t->weight,
		};
	}
}

/* ---- lists of clients ---- */

static const struct sl_ip_set *unless_empty(const struct sl_ip_set *set)
{
	return set && !sl_ip_set_is_empty(set) ? set : NULL;
}

static void append(struct sl_ip_set *to, const struct sl_ip_set *from)
{
	if (from->n4)
		memcpy(to->v4 + to->n4, from->v4, from->n4 * sizeof(*to->v4));
	if (from->n6)
		memcpy(to->v6 + to->n6, from->v6, from->n6 * sizeof(*to->v6));
	to->n4 += from->n4;
	to->n6 += from->n6;
}

/* Whoever the file or the configuration denies to all. */
static int make_deny(const struct sl_ip_set *conf, const struct sl_ip_set *file,
		     struct sl_nft_routes *out)
{
	struct sl_ip_counts counts = { 0 };
	int r;

	if (!conf || !file) {
		out->common.lists.deny = conf ? conf : file;
		return 0;
	}
	out->denied = calloc(1, sizeof(*out->denied));
	if (!out->denied)
		return -ENOMEM;
	counts.n4 = conf->n4 + file->n4;
	counts.n6 = conf->n6 + file->n6;
	r = sl_ip_list_alloc(&counts, out->denied);
	if (r < 0)
		return r;
	append(out->denied, conf);
	append(out->denied, file);
	sl_ip_set_build(out->denied, NULL);
	out->common.lists.deny = out->denied;
	return 0;
}

/* ---- all of them ---- */

static uint32_t clamp(uint64_t n)
{
	return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

/* 50/s has a burst of 50 and so many times 60 a minute, 50/m has 50 of both. */
static struct sl_nft_rate rate_of(uint64_t per_minute, uint64_t burst)
{
	uint32_t n = clamp(burst);

	return (struct sl_nft_rate){ n, burst == per_minute ? 60 : 1, n };
}

static enum sl_nft_refusal refusal_of(enum sl_refuse_choice choice)
{
	switch (choice) {
	case SL_REFUSE_CHOICE_ICMP:
		return SL_NFT_REFUSE_ICMP;
	case SL_REFUSE_CHOICE_DROP:
		return SL_NFT_REFUSE_DROP;
	case SL_REFUSE_CHOICE_RESET:
		break;
	}
	return SL_NFT_REFUSE_RESET;
}

static void put_route(struct maker *m, const struct sl_conf_route *r)
{
	struct sl_nft_route *to = &m->out->item[m->out->n];

	*to = (struct sl_nft_route){
		.name = r->name,
		.protocols = r->is_udp ? SL_NFT_UDP : SL_NFT_TCP,
		.balance = r->balance,
		.masquerade = !r->preserve_source,
		.allow = unless_empty(&r->access.allow),
		.deny = unless_empty(&r->access.deny),
		.max_connections = clamp(r->max_connections),
		.max_per_client = clamp(r->max_connections_per_ip),
		.per_client = rate_of(r->new_per_ip_per_minute, r->new_per_ip_burst),
		.connections = rate_of(r->new_connections.per_minute, r->new_connections.burst),
		.packets = rate_of(r->packets.per_minute, r->packets.burst),
		.refusal = refusal_of(r->refuse),
	};
	put_listeners(m, r, to);
	put_targets(m, r, to);
	m->out->n++;
}

/* One element more each, so that none is no failure. */
static int make_room(struct maker *m)
{
	size_t n = 1, n_listeners = 1, n_targets = 1;

	for (size_t i = 0; i < m->conf->n_routes; i++) {
		const struct sl_conf_route *r = &m->conf->routes[i];

		if (!sl_nft_is_carried(r))
			continue;
		n++;
		n_listeners += 2 * r->n_ports;
		n_targets += r->n_targets;
	}
	m->out->item = calloc(n, sizeof(*m->out->item));
	m->out->listeners = calloc(n_listeners, sizeof(*m->out->listeners));
	m->out->targets = calloc(n_targets, sizeof(*m->out->targets));
	m->out->is_backup = calloc(n_targets, sizeof(*m->out->is_backup));
	return m->out->item && m->out->listeners && m->out->targets && m->out->is_backup ? 0
											 : -ENOMEM;
}

/* The larger part of the source ports beside `from`..`to`; any, where those are nearly all. */
static struct sl_nft_ports ports_beside(uint16_t from, uint16_t to)
{
	unsigned n_below = (unsigned)from - SOURCE_PORTS;
	unsigned n_above = UINT16_MAX - (unsigned)to;

	if (n_below < TOO_FEW_PORTS && n_above < TOO_FEW_PORTS)
		return (struct sl_nft_ports){ 0 };
	if (n_below < n_above)
		return (struct sl_nft_ports){ (uint16_t)(to + 1), UINT16_MAX };
	return (struct sl_nft_ports){ SOURCE_PORTS, (uint16_t)(from - 1) };
}

/*
 * What the packet engine carries passes conntrack by, so that NAT would give the source port of one
 * of its flows to another connection to the same target.
 */
static struct sl_nft_ports masquerade_ports(const struct sl_conf *conf)
{
	const struct sl_conf_global *g = &conf->global;

	for (size_t i = 0; i < conf->n_routes; i++)
		if (conf->routes[i].enabled && sl_conf_may_packet(g, &conf->routes[i]))
			return ports_beside(g->packet.port_from, g->packet.port_to);
	return (struct sl_nft_ports){ 0 };
}

int sl_nft_routes_make(const struct sl_conf *conf, const struct sl_ip_set *deny_file,
		       struct sl_nft_routes *ret, struct sl_str *why)
{
	const struct sl_access_lists *all = &conf->global.access;
	_cleanup_(sl_nft_routes_done) struct sl_nft_routes out = { 0 };
	struct maker m = { .conf = conf, .out = &out };
	int r = make_room(&m);

	if (r < 0)
		return r;
	for (size_t i = 0; i < conf->n_routes; i++)
		if (sl_nft_is_carried(&conf->routes[i]))
			put_route(&m, &conf->routes[i]);
	if (out.n && deny_file && deny_file->n_globs) {
		sl_str_adds(why, "global.security.deny_file has patterns that are not ranges of "
				 "addresses, like 10.?.?.1, which 'engine: nftables' needs");
		return -EINVAL;
	}
	out.common.lists.allow = unless_empty(&all->allow);
	out.common.masquerade = masquerade_ports(conf);
	if (out.n)
		r = make_deny(unless_empty(&all->deny), unless_empty(deny_file), &out);
	if (r < 0)
		return r;
	*ret = out;
	out = (struct sl_nft_routes){ 0 };
	return 0;
}

void sl_nft_routes_done(struct sl_nft_routes *r)
{
	if (r->denied)
		sl_ip_list_done(r->denied);
	free(r->denied);
	free(r->item);
	free(r->listeners);
	free(r->targets);
	free(r->is_backup);
	*r = (struct sl_nft_routes){ 0 };
}
