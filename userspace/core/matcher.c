/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/matcher.h"

#include "core/match_table.h"
#include "core/tls_hello.h"

/* Predicates: what one rule says of one connection. The search and the explanation share them. */

static bool port_fits(const struct sl_match_ports *ports, uint16_t port)
{
	return ports->from <= port && port <= ports->to;
}

/* 0.0.0.0 and :: stand for every address of their family. */
static bool address_fits(const struct sl_match_ports *ports, const struct sl_match_facts *facts)
{
	if (sl_addr_family(&ports->ip) == AF_UNSPEC)
		return true;
	if (sl_addr_is_any(&ports->ip))
		return sl_addr_family(&ports->ip) == sl_addr_family(&facts->local);
	return sl_addr_same_ip(&ports->ip, &facts->local);
}

static bool client_fits(const struct sl_match_rule *rule, const struct sl_match_facts *facts)
{
	return !rule->clients || sl_ip_set_has(rule->clients, &facts->client);
}

static bool hello_fits(const struct sl_match_rule *rule, const struct sl_match_facts *facts)
{
	return (!rule->tls_versions && !rule->n_alpn) || facts->known == SL_MATCH_HELLO;
}

static bool version_fits(const struct sl_match_rule *rule, const struct sl_match_facts *facts)
{
	return !rule->tls_versions || (rule->tls_versions & facts->tls_versions);
}

static bool alpn_fits(const struct sl_match_rule *rule, const struct sl_match_facts *facts)
{
	struct sl_slice rest = facts->alpn;
	struct sl_slice offered;

	if (!rule->n_alpn)
		return true;
	while (rest.p && sl_hello_next_alpn(&rest, &offered))
		for (size_t i = 0; i < rule->n_alpn; i++)
			if (sl_slice_is(offered, rule->alpn[i]))
				return true;
	return false;
}

static bool path_fits(const struct sl_match_rule *rule, const struct sl_match_facts *facts)
{
	return !rule->path || (facts->path.p && sl_path_match(rule->path, facts->path, NULL));
}

static bool name_fits(const struct sl_match_rule *rule, const struct sl_match_facts *facts)
{
	for (size_t i = 0; i < rule->n_domains; i++)
		if (sl_glob_match(rule->domains[i], facts->name))
			return true;
	return !rule->n_domains;
}

/* The search. */

struct search {
	const struct sl_matcher *m;
	const struct sl_match_facts *facts;
	bool bytes_are_known;       /* else only what is known at once is looked at */
	struct sl_match_entry best; /* so far; all zero, which every entry precedes: none */
};

/* Port and, except for globs, name are those of the list. */
static bool entry_fits(const struct search *s, const struct sl_match_entry *e, bool is_glob)
{
	const struct sl_match_rule *rule = &s->m->rules[sl_match_entry_rule(e)];

	if (sl_match_entry_address(e) != SL_MATCH_ANY_ADDRESS &&
	    !address_fits(&rule->ports[e->port], s->facts))
		return false;
	if (!client_fits(rule, s->facts))
		return false;
	if (!s->bytes_are_known)
		return true;
	if (is_glob && !sl_glob_match(rule->domains[e->name], s->facts->name))
		return false;
	return hello_fits(rule, s->facts) && version_fits(rule, s->facts) &&
	       alpn_fits(rule, s->facts) && path_fits(rule, s->facts);
}

/* False: no later entry of the same list can be better than the best, because they are in order. */
static bool try_entry(struct search *s, const struct sl_match_entry *e, bool is_glob)
{
	if (!sl_match_entry_precedes(e, &s->best))
		return false;
	/* Spares the rule's cache line. */
	if ((is_glob || !sl_match_entry_is_plain(e)) && !entry_fits(s, e, is_glob))
		return true;
	s->best = *e;
	return false;
}

static void try_entries(struct search *s, uint32_t first, uint32_t count, bool is_glob)
{
	const struct sl_match_entry *e = &s->m->entries[first];
	const struct sl_match_entry *end = e + count;

	while (e < end && try_entry(s, e, is_glob))
		e++;
}

static void try_group(struct search *s, uint32_t index)
{
	const struct sl_match_group *g = &s->m->groups[index];
	bool is_glob = sl_match_is_glob(g->kind);

	for (uint32_t levels = g->levels; levels; levels &= levels - 1) {
		uint32_t block = sl_match_block(s->facts->port, (unsigned)__builtin_ctz(levels));
		const struct sl_match_list *list;

		if (g->n_lists == 1) {
			if (g->block == block && try_entry(s, &g->best, is_glob))
				try_entries(s, g->first + 1, g->count - 1, is_glob);
			return;
		}
		list = sl_match_find_list(s->m, sl_match_list_key(index, block));
		if (list->key)
			try_entries(s, list->first, list->count, is_glob);
	}
}

static void try_text(struct search *s, enum sl_match_kind kind, struct sl_slice text, uint64_t hash)
{
	const struct sl_match_slot *slot;

	if (!sl_match_has_length(s->m, kind, text.n))
		return;
	slot = sl_match_find_slot(s->m, kind, text, hash);
	if (slot->group)
		try_group(s, slot->group);
}

static void try_from_start(struct search *s)
{
	struct sl_slice name = s->facts->name;
	struct sl_slice label = { .p = name.p };
	uint64_t hash = SL_MATCH_HASH_BEGIN;
	uint64_t label_hash = SL_MATCH_HASH_BEGIN;

	for (size_t n = 0;; n++) {
		struct sl_slice text = { .p = name.p, .n = n };
		bool ends = n == name.n;

		try_text(s, SL_MATCH_HEAD, text, hash);
		if (n && name.p[n - 1] == '.')
			try_text(s, SL_MATCH_PREFIX, text, hash);
		if (ends || name.p[n] == '.')
			try_text(s, SL_MATCH_LABEL, label, label_hash);
		if (ends)
			break;
		hash = sl_match_hash_add(hash, name.p[n]);
		if (name.p[n] == '.') {
			label = (struct sl_slice){ .p = name.p + n + 1 };
			label_hash = SL_MATCH_HASH_BEGIN;
		} else {
			label.n++;
			label_hash = sl_match_hash_add(label_hash, name.p[n]);
		}
	}
	try_text(s, SL_MATCH_EXACT, name, hash);
}

static void try_from_end(struct search *s)
{
	struct sl_slice name = s->facts->name;
	uint64_t hash = SL_MATCH_HASH_BEGIN;

	for (size_t n = 0;; n++) {
		struct sl_slice text = { .p = name.p + name.n - n, .n = n };

		try_text(s, SL_MATCH_TAIL, text, hash);
		if (n && *text.p == '.')
			try_text(s, SL_MATCH_SUFFIX, text, hash);
		if (n == name.n)
			break;
		hash = sl_match_hash_add(hash, text.p[-1]);
	}
}

/*
 * At most three probes for each label, one for each length that heads and tails of globs have, and
 * one for the whole name, however many names are configured.
 */
static void try_names(struct search *s)
{
	try_from_start(s);
	try_from_end(s);
}

uint32_t sl_matcher_find(const struct sl_matcher *m, const struct sl_match_facts *facts)
{
	struct search s = { .m = m, .facts = facts };
	struct sl_match_entry plain;

	s.bytes_are_known = facts->known != SL_MATCH_NO_BYTES;
	try_group(&s, SL_MATCH_PLAIN);
	if (s.bytes_are_known) {
		try_group(&s, SL_MATCH_BYTES);
		if (facts->name.p)
			try_names(&s);
	} else {
		plain = s.best;
		try_group(&s, SL_MATCH_WAIT);
		if (sl_match_entry_precedes(&s.best, &plain))
			return SL_NEED_BYTES;
	}
	return s.best.low ? sl_match_entry_rule(&s.best) : SL_NO_ROUTE;
}

bool sl_matcher_needs_ip(const struct sl_matcher *m, uint16_t port)
{
	return m->needs_ip[port / 64] >> port % 64 & 1;
}

/* The explanation. */

static const struct {
	const char *name;
	const char *text;
} verdicts[SL_MATCH_VERDICT_COUNT_] = {
	[SL_MATCH_WON] = { "won", "this is the route" },
	[SL_MATCH_OUTRANKED] = { "outranked", "it matches, but another route precedes it" },
	[SL_MATCH_DISABLED] = { "disabled", "the route is disabled" },
	[SL_MATCH_PORT] = { "port", "the route is for other ports" },
	[SL_MATCH_ADDRESS] = { "address", "the route is for another listening address" },
	[SL_MATCH_NO_HELLO] = { "no_hello", "the route needs a TLS ClientHello" },
	[SL_MATCH_NO_NAME] = { "no_name", "the route has domains, the client names none" },
	[SL_MATCH_DOMAIN] = { "domain", "none of the route's domains is the client's name" },
	[SL_MATCH_PATH] = { "path", "the route's path is not the request's, or there is none" },
	[SL_MATCH_CLIENT] = { "client", "the client's address is not among the route's clients" },
	[SL_MATCH_TLS_VERSION] = { "tls_version", "the client offers no such TLS version" },
	[SL_MATCH_ALPN] = { "alpn", "the client offers no such application protocol" },
};

const char *sl_match_verdict_name(enum sl_match_verdict v)
{
	return verdicts[v].name;
}

const char *sl_match_verdict_text(enum sl_match_verdict v)
{
	return verdicts[v].text;
}

/* SL_MATCH_WON when port and address fit. */
static enum sl_match_verdict judge_ports(const struct sl_match_rule *rule,
					 const struct sl_match_facts *facts)
{
	enum sl_match_verdict v = SL_MATCH_PORT;

	for (size_t i = 0; i < rule->n_ports; i++) {
		if (!port_fits(&rule->ports[i], facts->port))
			continue;
		if (address_fits(&rule->ports[i], facts))
			return SL_MATCH_WON;
		v = SL_MATCH_ADDRESS;
	}
	return v;
}

enum sl_match_verdict sl_matcher_judge(const struct sl_matcher *m,
				       const struct sl_match_facts *facts, uint32_t winner,
				       uint32_t route)
{
	const struct sl_match_rule *rule = &m->rules[route];
	enum sl_match_verdict ports;

	if (route == winner)
		return SL_MATCH_WON;
	if (!rule->enabled)
		return SL_MATCH_DISABLED;
	ports = judge_ports(rule, facts);
	if (ports != SL_MATCH_WON)
		return ports;
	if (!hello_fits(rule, facts))
		return SL_MATCH_NO_HELLO;
	if (rule->n_domains && (!facts->name.p || facts->known == SL_MATCH_NO_BYTES))
		return SL_MATCH_NO_NAME;
	if (!name_fits(rule, facts))
		return SL_MATCH_DOMAIN;
	if (!path_fits(rule, facts) || (rule->path && facts->known == SL_MATCH_NO_BYTES))
		return SL_MATCH_PATH;
	if (!client_fits(rule, facts))
		return SL_MATCH_CLIENT;
	if (!version_fits(rule, facts))
		return SL_MATCH_TLS_VERSION;
	return alpn_fits(rule, facts) ? SL_MATCH_OUTRANKED : SL_MATCH_ALPN;
}
