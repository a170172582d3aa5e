/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/build.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "nft/form.h"
#include "nft/rules.h"
#include "nft/slots.h"

/* NFT_FLOWTABLE_COUNTER (Linux 5.7): what passes counts in conntrack. An enum, not in all headers.
 */
#define FLOWTABLE_COUNTER 0x2
#define TARGETS_MAX 4096

struct builder {
	struct sl_nft_ruleset *rs;
	const struct sl_nft_route *route; /* the one being put in; NULL: what is of the table */
	uint32_t name;                    /* the route's, as text */
};

/* The sets of the table come first, in the order of their forms; valid until one is added. */
static struct sl_nft_set *fixed(struct builder *b, enum sl_nft_form form)
{
	return (size_t)form < b->rs->n_sets ? &b->rs->sets[form] : NULL;
}

/* One of the route, or of the table where there is none. NULL: out of memory. */
static struct sl_nft_set *put_set(struct builder *b, enum sl_nft_form form)
{
	struct sl_nft_set set;

	sl_nft_form_set(form, b->route ? b->route->mark : 0, &set);
	set.comment = b->route ? b->name : sl_nft_put_text(b->rs, sl_nft_form_comment(form));
	return sl_nft_put_set(b->rs, &set);
}

static void put_fixed_sets(struct builder *b)
{
	for (int i = 0; i < SL_NFT_FIXED_COUNT_; i++)
		(void)put_set(b, (enum sl_nft_form)i);
}

static void set_mark(uint8_t *field, uint32_t mark)
{
	memcpy(field, &mark, sizeof(mark)); /* host order, as the kernel compares it */
}

/* Address and, in the next word, port. Returns the bytes of the address. */
static size_t set_target(uint8_t *field, const struct sl_addr *addr)
{
	uint16_t port = htons(sl_addr_port(addr));
	size_t n = sl_addr_ip_bytes(addr, field);

	memcpy(field + n, &port, sizeof(port));
	return n;
}

static void put_mark(struct builder *b, enum sl_nft_form form)
{
	struct sl_nft_elem e = { .comment = b->name };

	set_mark(e.key, b->route->mark);
	sl_nft_put_elem(b->rs, fixed(b, form), &e);
}

static void put_jump(struct builder *b, enum sl_nft_form form, int32_t verdict, const char *chain)
{
	struct sl_nft_elem e = { .comment = b->name, .verdict = verdict };

	set_mark(e.key, b->route->mark);
	e.name = sl_nft_put_text(b->rs, chain);
	sl_nft_put_elem(b->rs, fixed(b, form), &e);
}

static bool is_ip6(const struct sl_addr *a)
{
	return sl_addr_family(a) == AF_INET6;
}

static size_t count_targets(const struct sl_nft_route *r, bool ip6)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n_targets; i++)
		n += is_ip6(&r->targets[i].addr) == ip6;
	return n;
}

static bool keeps_port(const struct sl_nft_route *r, bool ip6)
{
	for (size_t i = 0; i < r->n_targets; i++)
		if (is_ip6(&r->targets[i].addr) == ip6)
			return sl_addr_port(&r->targets[i].addr) == 0;
	return false;
}

/* One listener in one family, one protocol. */
static void put_listener(struct builder *b, const struct sl_nft_listener *l, bool ip6,
			 uint8_t protocol)
{
	bool has_address = sl_addr_family(&l->ip) != AF_UNSPEC && !sl_addr_is_any(&l->ip);
	bool is_range = l->from != l->to;
	struct sl_nft_elem e = { .comment = b->name };
	uint16_t from = htons(l->from), to = htons(l->to);
	size_t at = 0;
	int form;

	if (has_address) {
		at = sl_addr_ip_bytes(&l->ip, e.key);
		form = is_range ? SL_NFT_LISTEN4_RANGE : SL_NFT_LISTEN4;
	} else {
		form = is_range ? SL_NFT_ANY4_RANGE : SL_NFT_ANY4;
	}
	e.key[at] = protocol;
	memcpy(e.key + at + 4, &from, sizeof(from));
	if (is_range) {
		memcpy(e.end, e.key, sizeof(e.end));
		memcpy(e.end + at + 4, &to, sizeof(to));
	}
	set_mark(e.data, b->route->mark);
	sl_nft_put_elem(b->rs, fixed(b, (enum sl_nft_form)(form + ip6)), &e);
}

static void put_listeners(struct builder *b)
{
	const struct sl_nft_route *r = b->route;

	for (size_t i = 0; i < r->n_listeners; i++) {
		const struct sl_nft_listener *l = &r->listeners[i];
		sa_family_t family = sl_addr_family(&l->ip);

		for (int ip6 = 0; ip6 <= 1; ip6++) {
			if (family != AF_UNSPEC && is_ip6(&l->ip) != ip6)
				continue;
			if (r->n_targets > 0 && count_targets(r, ip6) == 0)
				continue; /* NAT does not cross families */
			if (r->protocols & SL_NFT_TCP)
				put_listener(b, l, ip6, IPPROTO_TCP);
			if (r->protocols & SL_NFT_UDP)
				put_listener(b, l, ip6, IPPROTO_UDP);
		}
	}
}

static void put_single_target(struct builder *b, const struct sl_nft_target *t, bool ip6)
{
	bool keeps = sl_addr_port(&t->addr) == 0;
	struct sl_nft_elem e = { .comment = b->name };
	int form = keeps ? SL_NFT_TO4_ADDRESS : SL_NFT_TO4;

	set_mark(e.key, b->route->mark);
	(void)set_target(e.data, &t->addr);
	sl_nft_put_elem(b->rs, fixed(b, (enum sl_nft_form)(form + ip6)), &e);
}

/* The map of several targets; `*ret_n` is the number of its slots. */
static int put_slots(struct builder *b, bool ip6, size_t n, uint32_t *ret_n)
{
	const struct sl_nft_route *r = b->route;
	_cleanup_free_ struct sl_nft_share *shares = calloc(n, sizeof(*shares));
	_cleanup_free_ size_t *index = calloc(n, sizeof(*index));
	_cleanup_free_ uint16_t *slots = NULL;
	int form = keeps_port(r, ip6) ? SL_NFT_SLOTS4_ADDRESS : SL_NFT_SLOTS4;
	struct sl_nft_set *set;
	size_t n_slots = 0, at = 0;
	int res;

	if (!shares || !index)
		return -ENOMEM;
	for (size_t i = 0; i < r->n_targets; i++) {
		if (is_ip6(&r->targets[i].addr) != ip6)
			continue;
		shares[at] = (struct sl_nft_share){ r->targets[i].name, r->targets[i].weight,
						    r->targets[i].is_down };
		index[at++] = i;
	}
	res = sl_nft_slots_fill(r->balance, shares, n, &slots, &n_slots);
	if (res < 0)
		return res;
	*ret_n = (uint32_t)n_slots;
	if (n_slots == 0)
		return 0;
	set = put_set(b, (enum sl_nft_form)(form + ip6));
	for (uint32_t slot = 0; slot < n_slots; slot++) {
		struct sl_nft_elem e = { 0 };

		if (slots[slot] == SL_NFT_NO_SLOT)
			continue;
		set_mark(e.key, slot);
		(void)set_target(e.data, &r->targets[index[slots[slot]]].addr);
		sl_nft_put_elem(b->rs, set, &e);
	}
	return 0;
}

static int put_targets(struct builder *b)
{
	const struct sl_nft_route *r = b->route;
	struct sl_nft_slots_chain slots = { 0 };
	char name[SL_NFT_NAME];
	int res;

	for (int ip6 = 0; ip6 <= 1; ip6++) {
		size_t n = count_targets(r, ip6);

		if (n > 1) {
			slots.family[ip6].keeps_port = keeps_port(r, ip6);
			res = put_slots(b, ip6, n, &slots.family[ip6].n_slots);
			if (res < 0)
				return res;
			continue;
		}
		for (size_t i = 0; i < r->n_targets; i++) {
			const struct sl_nft_target *t = &r->targets[i];

			if (is_ip6(&t->addr) == ip6 && t->weight && !t->is_down)
				put_single_target(b, t, ip6);
		}
	}
	if (slots.family[0].n_slots || slots.family[1].n_slots) {
		snprintf(name, sizeof(name), "slots_%u", r->mark);
		sl_nft_put_slots_chain(b->rs, r, name, b->name, &slots);
		put_jump(b, SL_NFT_ROUTE_SLOTS, NFT_JUMP, name);
	}
	return 0;
}

/* A range takes two elements: where it begins and, unless it is the rest, where it has ended. */
static void put_range(struct builder *b, struct sl_nft_set *set, const uint8_t *from,
		      const uint8_t *to, size_t len)
{
	struct sl_nft_elem start = { 0 }, end = { .flags = NFT_SET_ELEM_INTERVAL_END };
	size_t i = len;

	memcpy(start.key, from, len);
	sl_nft_put_elem(b->rs, set, &start);
	memcpy(end.key, to, len);
	while (i > 0 && ++end.key[i - 1] == 0)
		i--;
	if (i > 0)
		sl_nft_put_elem(b->rs, set, &end);
}

static void put_prefixes4(struct builder *b, enum sl_nft_form form, const struct sl_ip_set *list)
{
	struct sl_nft_set *set = put_set(b, form);

	for (size_t i = 0; i < list->n4; i++) {
		uint32_t from = htonl(list->v4[i].from), to;

		/* neighbours as one, or an end would stand on a beginning */
		while (i + 1 < list->n4 && list->v4[i].to + 1 == list->v4[i + 1].from)
			i++;
		to = htonl(list->v4[i].to);
		put_range(b, set, (const uint8_t *)&from, (const uint8_t *)&to, sizeof(from));
	}
}

static bool follows6(const uint8_t *last, const uint8_t *first)
{
	uint8_t next[16];
	size_t i = sizeof(next);

	memcpy(next, last, sizeof(next));
	while (i > 0 && ++next[i - 1] == 0)
		i--;
	return i > 0 && memcmp(next, first, sizeof(next)) == 0;
}

static void put_prefixes6(struct builder *b, enum sl_nft_form form, const struct sl_ip_set *list)
{
	struct sl_nft_set *set = put_set(b, form);

	for (size_t i = 0; i < list->n6; i++) {
		size_t first = i;

		while (i + 1 < list->n6 && follows6(list->v6[i].to, list->v6[i + 1].from))
			i++;
		put_range(b, set, list->v6[first].from, list->v6[i].to, 16);
	}
}

/* For both families, as the rules are. */
static void put_client_sets(struct builder *b, int form)
{
	for (int ip6 = 0; ip6 <= 1; ip6++) {
		struct sl_nft_set *set = put_set(b, (enum sl_nft_form)(form + ip6));

		if (set)
			sl_nft_client_set_name(b->route, (enum sl_nft_form)(form + ip6), set->name);
	}
}

static void put_lists(struct builder *b, const struct sl_nft_lists *lists)
{
	if (lists->deny) {
		put_prefixes4(b, SL_NFT_DENY4, lists->deny);
		put_prefixes6(b, SL_NFT_DENY6, lists->deny);
	}
	if (lists->allow) {
		put_prefixes4(b, SL_NFT_ALLOW4, lists->allow);
		put_prefixes6(b, SL_NFT_ALLOW6, lists->allow);
	}
}

static void put_policy(struct builder *b)
{
	const struct sl_nft_route *r = b->route;
	char name[SL_NFT_NAME];

	put_lists(b, &(struct sl_nft_lists){ r->allow, r->deny });
	if (r->max_per_client)
		put_client_sets(b, SL_NFT_CLIENTS4);
	if (r->per_client.rate)
		put_client_sets(b, SL_NFT_NEW4);
	if (r->deny || r->allow || r->max_connections || r->connections.rate || r->max_per_client ||
	    r->per_client.rate) {
		snprintf(name, sizeof(name), "policy_%u", r->mark);
		sl_nft_put_policy_chain(b->rs, r, name, b->name);
		put_jump(b, SL_NFT_ROUTE_POLICY, NFT_JUMP, name);
	}
	if (r->packets.rate) {
		snprintf(name, sizeof(name), "packets_%u", r->mark);
		sl_nft_put_packets_chain(b->rs, r, name, b->name);
		put_jump(b, SL_NFT_ROUTE_PACKETS, NFT_JUMP, name);
	}
	if (r->refusal != SL_NFT_REFUSE_RESET)
		put_jump(b, SL_NFT_ROUTE_REFUSE, NFT_GOTO, sl_nft_refuse_chain(r->refusal));
}

static void put_hairpins(struct builder *b)
{
	const struct sl_nft_route *r = b->route;

	for (size_t i = 0; i < r->n_targets; i++) {
		const struct sl_addr *a = &r->targets[i].addr;
		struct sl_nft_elem e = { 0 }; /* without a name: others may have the target, too */
		size_t n = sl_addr_ip_bytes(a, e.key);

		if (sl_addr_is_loopback(a))
			continue;
		memcpy(e.key + n, e.key, n);
		sl_nft_put_elem(b->rs, fixed(b, is_ip6(a) ? SL_NFT_HAIRPIN6 : SL_NFT_HAIRPIN4), &e);
	}
}

static void put_counter(struct builder *b)
{
	struct sl_nft_counter c = { .comment = b->name };
	struct sl_nft_elem e = { .comment = b->name };

	snprintf(c.name, sizeof(c.name), "route_%u", b->route->mark);
	sl_nft_put_counter(b->rs, &c);
	set_mark(e.key, b->route->mark);
	e.name = sl_nft_put_text(b->rs, c.name);
	sl_nft_put_elem(b->rs, fixed(b, SL_NFT_ROUTE_COUNTER), &e);
}

/* What a caller got wrong; NULL: nothing. */
static const char *fault_of(const struct sl_nft_route *r)
{
	for (size_t i = 0; i < r->n_targets; i++) {
		const struct sl_addr *a = &r->targets[i].addr;

		if (sl_addr_family(a) != AF_INET && sl_addr_family(a) != AF_INET6)
			return "a target has no address";
		if ((sl_addr_port(a) == 0) != keeps_port(r, is_ip6(a)))
			return "some targets keep the port and some do not";
	}
	for (size_t i = 0; i < r->n_listeners; i++)
		if (r->listeners[i].from == 0 || r->listeners[i].from > r->listeners[i].to)
			return "a listener has no port";
	if ((r->allow && r->allow->n_globs) || (r->deny && r->deny->n_globs))
		return "its lists have patterns that are not ranges of addresses";
	if ((r->connections.rate && !r->connections.seconds) ||
	    (r->packets.rate && !r->packets.seconds) ||
	    (r->per_client.rate && !r->per_client.seconds))
		return "a rate has no period";
	if (r->mark == 0)
		return "its mark is 0";
	if (!*r->name || strlen(r->name) > SL_NFT_ROUTE_NAME)
		return "its name is empty or too long";
	return r->n_targets > TARGETS_MAX ? "it has more than 4096 targets" : NULL;
}

static int put_route(struct builder *b)
{
	int r = put_targets(b);

	if (r < 0)
		return r;
	put_counter(b);
	put_policy(b);
	if (b->route->state == SL_NFT_ON)
		put_listeners(b);
	if (b->route->state == SL_NFT_KILLED)
		put_mark(b, SL_NFT_KILL);
	if (b->route->masquerade)
		put_mark(b, SL_NFT_MASQ);
	else
		put_hairpins(b);
	return 0;
}

/* Of targets that several routes have one is enough. */
static void drop_repeated(struct sl_nft_set *set)
{
	size_t n = 0;

	for (size_t i = 0; i < set->n; i++)
		if (n == 0 || sl_nft_elem_compare(&set->elems[n - 1], &set->elems[i]) != 0)
			set->elems[n++] = set->elems[i];
	set->n = n;
}

static int refuse_repeated(const struct sl_nft_ruleset *rs, struct sl_str *why)
{
	for (size_t i = 0; i < rs->n_sets; i++) {
		const struct sl_nft_set *set = &rs->sets[i];
		size_t at = sl_nft_set_find_repeated(set);

		if (at == 0)
			continue;
		sl_str_addf(why, "routes '%s' and '%s' have the same element in '%s'",
			    sl_nft_text(rs, set->elems[at - 1].comment),
			    sl_nft_text(rs, set->elems[at].comment), set->name);
		return -EINVAL;
	}
	return 0;
}

bool sl_nft_needs_localnet(const struct sl_nft_route *route)
{
	for (size_t i = 0; i < route->n_targets; i++)
		if (!is_ip6(&route->targets[i].addr) &&
		    sl_addr_is_loopback(&route->targets[i].addr))
			return true;
	return false;
}

/* The chains that all packets pass, as far as these routes need them. */
static void put_needed_chains(struct sl_nft_ruleset *rs, const struct sl_nft_route *routes,
			      size_t n)
{
	bool guards = false, kills = false, polices = false;

	for (size_t i = 0; i < n; i++) {
		guards |= sl_nft_needs_localnet(&routes[i]);
		kills |= routes[i].state == SL_NFT_KILLED;
		polices |= routes[i].packets.rate != 0;
	}
	if (guards)
		sl_nft_put_guard_chain(rs);
	if (kills)
		sl_nft_put_killer_chains(rs);
	if (polices)
		sl_nft_put_police_chain(rs);
}

int sl_nft_build(const struct sl_nft_route *routes, size_t n, const struct sl_nft_common *common,
		 struct sl_nft_ruleset **ret, struct sl_str *why)
{
	static const struct sl_nft_common none;
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	struct builder b = { 0 };
	int r = sl_nft_ruleset_new(&rs);

	if (r < 0)
		return r;
	if (!common)
		common = &none;
	b.rs = rs;
	rs->comment = sl_nft_put_text(rs, SL_NFT_TABLE_COMMENT);
	put_fixed_sets(&b);
	put_lists(&b, &common->lists);
	sl_nft_put_fixed_chains(rs, common);
	put_needed_chains(rs, routes, n);
	for (size_t i = 0; i < n; i++) {
		const char *fault = fault_of(&routes[i]);

		if (fault) {
			sl_str_addf(why, "route '%s': %s", routes[i].name, fault);
			return -EINVAL;
		}
		b.route = &routes[i];
		b.name = sl_nft_put_text(rs, routes[i].name);
		r = put_route(&b);
		if (r < 0)
			return r;
	}
	r = sl_nft_ruleset_sort(rs);
	if (r < 0)
		return r;
	drop_repeated(sl_nft_find_set(rs, "hairpin4"));
	drop_repeated(sl_nft_find_set(rs, "hairpin6"));
	r = refuse_repeated(rs, why);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(rs);
	return 0;
}

int sl_nft_put_guard(struct sl_nft_ruleset *rs)
{
	if (sl_nft_find_chain(rs, SL_NFT_GUARD))
		return 0;
	sl_nft_put_guard_chain(rs);
	return sl_nft_ruleset_sort(rs);
}

int sl_nft_put_offload(struct sl_nft_ruleset *rs, const struct sl_nft_route *routes, size_t n,
		       char (*devices)[SL_NFT_DEVICE], size_t n_devices)
{
	struct builder b = { .rs = rs };
	struct sl_nft_set *set = put_set(&b, SL_NFT_OFFLOADS);

	for (size_t i = 0; i < n; i++) {
		struct sl_nft_elem e = { .comment = sl_nft_put_text(rs, routes[i].name) };

		if (routes[i].state == SL_NFT_KILLED || routes[i].packets.rate)
			continue; /* its packets are to be seen */
		set_mark(e.key, routes[i].mark);
		sl_nft_put_elem(rs, set, &e);
	}
	sl_nft_put_offer_chain(rs);
	rs->flowtable.is_there = true;
	rs->flowtable.flags = FLOWTABLE_COUNTER;
	for (size_t i = 0; i < n_devices; i++)
		(void)sl_nft_put_device(rs, devices[i]);
	return sl_nft_ruleset_sort(rs);
}

void sl_nft_each_route(const struct sl_nft_ruleset *rs, sl_nft_route_fn fn, void *arg)
{
	const struct sl_nft_set *set;
	char name[SL_NFT_NAME];

	sl_nft_form_name(SL_NFT_ROUTE_COUNTER, 0, name);
	set = sl_nft_find_set(rs, name);
	for (size_t i = 0; set && i < set->n; i++) {
		uint32_t mark;

		memcpy(&mark, set->elems[i].key, sizeof(mark));
		fn(arg, mark, sl_nft_text(rs, set->elems[i].comment));
	}
}
