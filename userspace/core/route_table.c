/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/route_table.h"

#include <string.h>

static void start_segment(struct sl_route_table *t, unsigned port)
{
	if (port < 65536)
		t->starts[port / 64] |= UINT64_C(1) << (port % 64);
}

/* The segment that contains `port`. */
static size_t segment_of(const struct sl_route_table *t, uint16_t port)
{
	uint64_t up_to = t->starts[port / 64] & (UINT64_MAX >> (63 - port % 64));

	return t->rank[port / 64] + (size_t)__builtin_popcountll(up_to) - 1;
}

void sl_route_table_plan(struct sl_route_table *t, const struct sl_route_rule *rules, size_t n)
{
	uint32_t rank = 0;

	*t = (struct sl_route_table){ .rules = rules, .n_rules = n };
	start_segment(t, 0);
	for (size_t i = 0; i < n; i++) {
		start_segment(t, rules[i].from);
		start_segment(t, rules[i].to + 1u);
	}
	for (size_t w = 0; w < SL_PORT_WORDS; w++) {
		t->rank[w] = rank;
		rank += (uint32_t)__builtin_popcountll(t->starts[w]);
	}
	t->n_segments = rank;
	for (size_t i = 0; i < n; i++)
		t->n_entries += segment_of(t, rules[i].to) - segment_of(t, rules[i].from) + 1;
}

/* From the most to the least specific; the order of entries in a segment. */
enum kind {
	KIND_ADDRESS = 0,
	KIND_FAMILY,
	KIND_ANY,
	KIND_COUNT_,
};

static enum kind kind_of(const struct sl_route_rule *rule)
{
	if (sl_addr_family(&rule->ip) == AF_UNSPEC)
		return KIND_ANY;
	return sl_addr_is_any(&rule->ip) ? KIND_FAMILY : KIND_ADDRESS;
}

/* One pass over the rules of one kind, appending each to its segments. */
static void append_rules(struct sl_route_table *t, enum kind kind, uint32_t *next)
{
	for (size_t i = 0; i < t->n_rules; i++) {
		const struct sl_route_rule *rule = &t->rules[i];

		if (kind_of(rule) != kind)
			continue;
		for (size_t s = segment_of(t, rule->from); s <= segment_of(t, rule->to); s++)
			t->entries[next[s + 1]++] = (uint32_t)i;
	}
}

void sl_route_table_fill(struct sl_route_table *t, uint32_t *first, uint32_t *entries)
{
	uint32_t sum = 0;

	t->first = first;
	t->entries = entries;
	memset(first, 0, (t->n_segments + 1) * sizeof(*first));
	for (size_t i = 0; i < t->n_rules; i++)
		for (size_t s = segment_of(t, t->rules[i].from); s <= segment_of(t, t->rules[i].to);
		     s++)
			first[s + 1]++;
	/*
	 * Counts become the places where each segment's entries begin, kept one
	 * element late: appending moves each to where it ends, which is where
	 * the next begins.
	 */
	for (size_t s = 0; s < t->n_segments; s++) {
		uint32_t count = first[s + 1];

		first[s + 1] = sum;
		sum += count;
	}
	for (int kind = 0; kind < KIND_COUNT_; kind++)
		append_rules(t, (enum kind)kind, first);
}

/* 0.0.0.0 and :: stand for every address of their family. */
static bool matches(const struct sl_route_rule *rule, const struct sl_addr *local)
{
	if (sl_addr_family(&rule->ip) == AF_UNSPEC)
		return true;
	if (sl_addr_is_any(&rule->ip))
		return sl_addr_family(&rule->ip) == sl_addr_family(local);
	return sl_addr_same_ip(&rule->ip, local);
}

uint32_t sl_route_table_find(const struct sl_route_table *t, const struct sl_addr *local,
			     uint16_t port)
{
	size_t s = segment_of(t, port);

	for (uint32_t e = t->first[s]; e < t->first[s + 1]; e++) {
		const struct sl_route_rule *rule = &t->rules[t->entries[e]];

		if (matches(rule, local))
			return rule->route;
	}
	return SL_NO_ROUTE;
}

bool sl_route_table_needs_ip(const struct sl_route_table *t, uint16_t port)
{
	size_t s = segment_of(t, port);

	/* Rules with an address stand first. */
	return t->first[s] < t->first[s + 1] &&
	       sl_addr_family(&t->rules[t->entries[t->first[s]]].ip) != AF_UNSPEC;
}
