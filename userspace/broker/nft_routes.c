/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/nft_routes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/ip_list.h"

struct maker {
	const struct sl_conf *conf;
	const struct sl_ip_set *deny_file; /* NULL: none */
	struct sl_nft_routes *out;
	/* for the many routes whose lists are those of `defaults`; NULL: not made yet */
	const struct sl_ip_set *default_allow;
	const struct sl_ip_set *default_deny;
};

static bool is_carried(const struct sl_conf_route *r)
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

/* Takes over what `set` owns. */
static const struct sl_ip_set *keep_set(struct maker *m, struct sl_ip_set *set)
{
	struct sl_ip_set *kept = &m->out->sets[m->out->n_sets++];

	*kept = *set;
	*set = (struct sl_ip_set){ 0 };
	return kept;
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

/* Whoever is in one of them; NULL where nobody is. */
static int join(struct maker *m, const struct sl_ip_set *const *parts, size_t n,
		const struct sl_ip_set **ret)
{
	_cleanup_(sl_ip_list_done) struct sl_ip_set set = { 0 };
	const struct sl_ip_set *only = NULL;
	struct sl_ip_counts counts = { 0 };
	size_t n_parts = 0;
	int r;

	for (size_t i = 0; i < n; i++) {
		if (!parts[i] || sl_ip_set_is_empty(parts[i]))
			continue;
		only = parts[i];
		n_parts++;
		counts.n4 += parts[i]->n4;
		counts.n6 += parts[i]->n6;
	}
	if (n_parts < 2) {
		*ret = only;
		return 0;
	}
	r = sl_ip_list_alloc(&counts, &set);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		if (parts[i])
			append(&set, parts[i]);
	sl_ip_set_build(&set, NULL);
	*ret = keep_set(m, &set);
	return 0;
}

static void cut4(const struct sl_ip_set *a, const struct sl_ip_set *b, struct sl_ip_set *to)
{
	for (size_t i = 0, j = 0; i < a->n4 && j < b->n4;) {
		const struct sl_ip4_range *x = &a->v4[i], *y = &b->v4[j];
		uint32_t from = x->from > y->from ? x->from : y->from;
		uint32_t end = x->to < y->to ? x->to : y->to;

		if (from <= end)
			to->v4[to->n4++] = (struct sl_ip4_range){ from, end };
		if (x->to < y->to)
			i++;
		else
			j++;
	}
}

static void cut6(const struct sl_ip_set *a, const struct sl_ip_set *b, struct sl_ip_set *to)
{
	for (size_t i = 0, j = 0; i < a->n6 && j < b->n6;) {
		const struct sl_ip6_range *x = &a->v6[i], *y = &b->v6[j];
		const uint8_t *from = memcmp(x->from, y->from, 16) > 0 ? x->from : y->from;
		const uint8_t *end = memcmp(x->to, y->to, 16) < 0 ? x->to : y->to;

		if (memcmp(from, end, 16) <= 0) {
			memcpy(to->v6[to->n6].from, from, 16);
			memcpy(to->v6[to->n6++].to, end, 16);
		}
		if (memcmp(x->to, y->to, 16) < 0)
			i++;
		else
			j++;
	}
}

/* Whoever is in both; a list that is empty as written lets everybody in: NULL. */
static int meet(struct maker *m, const struct sl_ip_set *a, const struct sl_ip_set *b,
		const struct sl_ip_set **ret)
{
	struct sl_ip_counts counts = { a->n4 + b->n4, a->n6 + b->n6, 0 };
	_cleanup_(sl_ip_list_done) struct sl_ip_set set = { 0 };
	int r;

	if (sl_ip_set_is_empty(a) || sl_ip_set_is_empty(b)) {
		const struct sl_ip_set *only = sl_ip_set_is_empty(a) ? b : a;

		*ret = sl_ip_set_is_empty(only) ? NULL : only;
		return 0;
	}
	r = sl_ip_list_alloc(&counts, &set);
	if (r < 0)
		return r;
	cut4(a, b, &set);
	cut6(a, b, &set);
	*ret = keep_set(m, &set); /* it may be empty: then nobody is let in */
	return 0;
}

/* A list that was not written in the route has the memory of the one in `defaults`. */
static bool is_same_list(const struct sl_ip_set *a, const struct sl_ip_set *b)
{
	return a->v4 == b->v4 && a->v6 == b->v6 && a->globs == b->globs;
}

static int make_allow(struct maker *m, const struct sl_ip_set *own, const struct sl_ip_set **ret)
{
	bool is_default = is_same_list(own, &m->conf->default_access.allow);
	int r;

	if (is_default && m->default_allow) {
		*ret = m->default_allow;
		return 0;
	}
	r = meet(m, &m->conf->global.access.allow, own, ret);
	if (r == 0 && is_default)
		m->default_allow = *ret;
	return r;
}

static int make_deny(struct maker *m, const struct sl_ip_set *own, const struct sl_ip_set **ret)
{
	const struct sl_ip_set *parts[] = { &m->conf->global.access.deny, m->deny_file, own };
	bool is_default = is_same_list(own, &m->conf->default_access.deny);
	int r;

	if (is_default && m->default_deny) {
		*ret = m->default_deny;
		return 0;
	}
	r = join(m, parts, SL_ARRAY_LEN(parts), ret);
	if (r == 0 && is_default)
		m->default_deny = *ret;
	return r;
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

static int put_route(struct maker *m, const struct sl_conf_route *r)
{
	struct sl_nft_route *to = &m->out->item[m->out->n];
	int res;

	*to = (struct sl_nft_route){
		.name = r->name,
		.protocols = r->is_udp ? SL_NFT_UDP : SL_NFT_TCP,
		.balance = r->balance,
		.masquerade = !r->preserve_source,
		.max_connections = clamp(r->max_connections),
		.max_per_client = clamp(r->max_connections_per_ip),
		.per_client = rate_of(r->new_per_ip_per_minute, r->new_per_ip_burst),
		.connections = rate_of(r->new_connections.per_minute, r->new_connections.burst),
		.packets = rate_of(r->packets.per_minute, r->packets.burst),
		.refusal = refusal_of(r->refuse),
	};
	res = make_allow(m, &r->access.allow, &to->allow);
	if (res == 0)
		res = make_deny(m, &r->access.deny, &to->deny);
	if (res < 0)
		return res;
	put_listeners(m, r, to);
	put_targets(m, r, to);
	m->out->n++;
	return 0;
}

/* One element more each, so that none is no failure. */
static int make_room(struct maker *m)
{
	size_t n = 1, n_listeners = 1, n_targets = 1;

	for (size_t i = 0; i < m->conf->n_routes; i++) {
		const struct sl_conf_route *r = &m->conf->routes[i];

		if (!is_carried(r))
			continue;
		n++;
		n_listeners += 2 * r->n_ports;
		n_targets += r->n_targets;
	}
	m->out->item = calloc(n, sizeof(*m->out->item));
	m->out->listeners = calloc(n_listeners, sizeof(*m->out->listeners));
	m->out->targets = calloc(n_targets, sizeof(*m->out->targets));
	m->out->is_backup = calloc(n_targets, sizeof(*m->out->is_backup));
	m->out->sets = calloc(2 * n, sizeof(*m->out->sets));
	return m->out->item && m->out->listeners && m->out->targets && m->out->is_backup &&
			       m->out->sets
		       ? 0
		       : -ENOMEM;
}

int sl_nft_routes_make(const struct sl_conf *conf, const struct sl_ip_set *deny_file,
		       struct sl_nft_routes *ret, struct sl_str *why)
{
	_cleanup_(sl_nft_routes_done) struct sl_nft_routes out = { 0 };
	struct maker m = { .conf = conf, .deny_file = deny_file, .out = &out };
	int r = make_room(&m);

	for (size_t i = 0; r == 0 && i < conf->n_routes; i++)
		if (is_carried(&conf->routes[i]))
			r = put_route(&m, &conf->routes[i]);
	if (r < 0)
		return r;
	if (out.n && deny_file && deny_file->n_globs) {
		sl_str_adds(why, "global.security.deny_file has patterns that are not ranges of "
				 "addresses, like 10.?.?.1, which 'engine: nftables' needs");
		return -EINVAL;
	}
	*ret = out;
	out = (struct sl_nft_routes){ 0 };
	return 0;
}

void sl_nft_routes_done(struct sl_nft_routes *r)
{
	for (size_t i = 0; i < r->n_sets; i++)
		sl_ip_list_done(&r->sets[i]);
	free(r->sets);
	free(r->item);
	free(r->listeners);
	free(r->targets);
	free(r->is_backup);
	*r = (struct sl_nft_routes){ 0 };
}
