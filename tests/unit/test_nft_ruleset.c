/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Routes become a ruleset, and two rulesets the least that leads from one to the other. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <linux/netfilter/nf_tables.h>

#include "nft/diff.h"
#include "nft/expr.h"
#include "nft/slots.h"

#include "nft_routes.h"

/* The number of elements of a set whose comment is `name`; all of them if NULL. */
static size_t count(const struct sl_nft_ruleset *rs, const char *set, const char *name)
{
	const struct sl_nft_set *s = sl_nft_find_set(rs, set);
	size_t n = 0;

	assert_non_null(s);
	for (size_t i = 0; i < s->n; i++)
		n += !name || strcmp(sl_nft_text(rs, s->elems[i].comment), name) == 0;
	return n;
}

static void families_of_targets_are_listened_on(void **state)
{
	struct test_routes t;
	struct sl_nft_ruleset *rs;
	struct sl_nft_route *r;

	(void)state;
	test_routes_init(&t, 8);
	r = test_route(&t, "v4");
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.0.0.1", 8080, 1);
	r = test_route(&t, "both");
	test_listen(r, NULL, 81, 81);
	test_listen(r, "10.1.1.1", 9000, 9100);
	test_listen(r, "::", 82, 82);
	r->protocols = SL_NFT_TCP | SL_NFT_UDP;
	test_target(r, "10.0.0.1", 8080, 1);
	test_target(r, "fd00::1", 8080, 1);
	r = test_route(&t, "nobody");
	test_listen(r, NULL, 83, 83);
	rs = test_build(&t);
	assert_int_equal(count(rs, "any4", "v4"), 1);
	assert_int_equal(count(rs, "any6", "v4"), 0);
	assert_int_equal(count(rs, "any4", "both"), 2);
	assert_int_equal(count(rs, "any6", "both"), 4);
	assert_int_equal(count(rs, "listen4_range", "both"), 2);
	/* refused in both families: there the listener must be, or other rules would have it */
	assert_int_equal(count(rs, "any4", "nobody"), 1);
	assert_int_equal(count(rs, "any6", "nobody"), 1);
	assert_int_equal(count(rs, "to4", NULL), 2);
	assert_int_equal(count(rs, "to6", NULL), 1);
	assert_int_equal(count(rs, "route_counter", NULL), 3);
	sl_nft_ruleset_free(rs);
	test_routes_done(&t);
}

static void states_differ_by_listeners_and_kill(void **state)
{
	static const size_t listeners[] = { 1, 0, 0 }, killed[] = { 0, 0, 1 };

	(void)state;
	for (int s = SL_NFT_ON; s <= SL_NFT_KILLED; s++) {
		struct test_routes t;
		struct sl_nft_ruleset *rs;
		struct sl_nft_route *r;

		test_routes_init(&t, 1);
		r = test_route(&t, "a");
		r->state = (enum sl_nft_state)s;
		test_listen(r, NULL, 80, 80);
		test_target(r, "10.0.0.1", 80, 1);
		rs = test_build(&t);
		assert_int_equal(count(rs, "any4", NULL), listeners[s]);
		assert_int_equal(count(rs, "kill", "a"), killed[s]);
		assert_int_equal(count(rs, "to4", "a"), 1);
		sl_nft_ruleset_free(rs);
		test_routes_done(&t);
	}
}

/* What all packets of the host would pass is there for those who need it. */
static void chains_of_all_packets_are_there_when_needed(void **state)
{
	static const char *const chains[] = { "guard", "killer_in", "killer_out", "police" };
	static const struct {
		const char *target;
		enum sl_nft_state state;
		unsigned packets;
		bool has[4];
	} cases[] = {
		{ "10.0.0.1", SL_NFT_ON, 0, { 0 } },
		{ "::1", SL_NFT_DRAINING, 0, { 0 } },
		{ "127.3.2.1", SL_NFT_ON, 0, { true, false, false, false } },
		{ "10.0.0.1", SL_NFT_KILLED, 0, { false, true, true, false } },
		{ "10.0.0.1", SL_NFT_ON, 5, { false, false, false, true } },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		struct test_routes t;
		struct sl_nft_ruleset *rs;
		struct sl_nft_route *r;

		test_routes_init(&t, 1);
		r = test_route(&t, "a");
		r->state = cases[i].state;
		r->packets = (struct sl_nft_rate){ cases[i].packets, 1, cases[i].packets };
		test_target(r, cases[i].target, 80, 1);
		rs = test_build(&t);
		for (size_t k = 0; k < SL_ARRAY_LEN(chains); k++)
			assert_int_equal(!!sl_nft_find_chain(rs, chains[k]), cases[i].has[k]);
		/* what was a target on loopback may have flows yet */
		assert_int_equal(sl_nft_put_guard(rs), 0);
		assert_int_equal(sl_nft_put_guard(rs), 0);
		assert_int_equal(sl_nft_find_chain(rs, "guard")->n, 1);
		sl_nft_ruleset_free(rs);
		test_routes_done(&t);
	}
}

static void lists_are_ranges_with_exclusive_ends(void **state)
{
	struct sl_ip4_range v4[] = { { 0x0a000000, 0x0affffff },
				     { 0x0b000000, 0x0b000000 }, /* neighbours: one range */
				     { 0xe0000000, 0xffffffff } };
	struct sl_ip6_range v6[] = { { { 0xfd }, { 0xfd, 0xff } } };
	const struct sl_ip_set list = { .v4 = v4, .n4 = 3, .v6 = v6, .n6 = 1 };
	const struct sl_nft_set *set;
	struct sl_nft_ruleset *rs;
	struct sl_nft_route *r;
	struct test_routes t;

	(void)state;
	test_routes_init(&t, 1);
	r = test_route(&t, "a");
	r->deny = &list;
	rs = test_build(&t);
	set = sl_nft_find_set(rs, "deny4_1");
	assert_non_null(set);
	assert_int_equal(set->n, 3); /* the last range has no end: it is the rest */
	assert_memory_equal(set->elems[0].key, "\x0a\0\0\0", 4);
	assert_int_equal(set->elems[0].flags, 0);
	assert_memory_equal(set->elems[1].key, "\x0b\0\0\1", 4);
	assert_int_equal(set->elems[1].flags, NFT_SET_ELEM_INTERVAL_END);
	assert_memory_equal(set->elems[2].key, "\xe0\0\0\0", 4);
	assert_int_equal(sl_nft_find_set(rs, "deny6_1")->n, 2);
	assert_null(sl_nft_find_set(rs, "allow4_1"));
	assert_int_equal(count(rs, "route_policy", "a"), 1);
	assert_int_equal(sl_nft_find_chain(rs, "policy_1")->n, 2);
	sl_nft_ruleset_free(rs);
	test_routes_done(&t);
}

static void faults_name_the_routes(void **state)
{
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	struct sl_nft_ruleset *rs = NULL;
	struct test_routes t;
	struct sl_nft_route *r;

	(void)state;
	test_routes_init(&t, 2);
	r = test_route(&t, "first");
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.0.0.1", 8080, 1);
	r = test_route(&t, "second");
	test_listen(r, "0.0.0.0", 80, 80);
	test_target(r, "10.0.0.2", 8080, 1);
	assert_int_equal(sl_nft_build(t.route, t.n, NULL, &rs, &why), -EINVAL);
	assert_null(rs);
	assert_non_null(strstr(sl_str_text(&why), "'first'"));
	assert_non_null(strstr(sl_str_text(&why), "'second'"));
	assert_non_null(strstr(sl_str_text(&why), "'any4'"));
	sl_str_clear(&why);
	test_target(r, "10.0.0.3", 0, 1);
	assert_int_equal(sl_nft_build(t.route, t.n, NULL, &rs, &why), -EINVAL);
	assert_non_null(strstr(sl_str_text(&why), "'second': some targets keep the port"));
	test_routes_done(&t);
}

static void note_route(void *arg, uint32_t mark, const char *name)
{
	char *seen = arg;

	sprintf(seen + strlen(seen), "%u=%s ", mark, name);
}

static void numbers_can_be_read_back(void **state)
{
	char seen[64] = "";
	struct test_routes t;
	struct sl_nft_ruleset *rs;

	(void)state;
	test_routes_init(&t, 3);
	test_route(&t, "a");
	test_route(&t, "b");
	test_route(&t, "c");
	rs = test_build(&t);
	sl_nft_each_route(rs, note_route, seen);
	assert_string_equal(seen, "1=a 2=b 3=c ");
	sl_nft_ruleset_free(rs);
	test_routes_done(&t);
}

static void turns_are_weights(void **state)
{
	const struct sl_nft_share shares[] = {
		{ "a", 4, false }, { "b", 2, false }, { "c", 0, false }, { "d", 6, true }
	};
	static const uint16_t expected[] = { 0, 1, 0 };
	uint16_t *slots = NULL;
	size_t n = 0;

	(void)state;
	assert_int_equal(sl_nft_slots_fill(SL_BALANCE_ROUND_ROBIN, shares, 4, &slots, &n), 0);
	assert_int_equal(n, 3);
	assert_memory_equal(slots, expected, sizeof(expected));
	free(slots);
	assert_int_equal(sl_nft_slots_fill(SL_BALANCE_RANDOM, shares + 2, 2, &slots, &n), 0);
	assert_int_equal(n, 0);
	assert_null(slots);
}

static void large_weights_stay_within_bounds(void **state)
{
	struct sl_nft_share shares[300];
	uint16_t *slots = NULL;
	size_t n = 0, of_first = 0;

	(void)state;
	for (size_t i = 0; i < 300; i++)
		shares[i] = (struct sl_nft_share){ "x", i == 0 ? 1000 : 997, false };
	assert_int_equal(sl_nft_slots_fill(SL_BALANCE_RANDOM, shares, 300, &slots, &n), 0);
	assert_in_range(n, 300, 4096);
	for (size_t i = 0; i < n; i++)
		of_first += slots[i] == 0;
	assert_in_range(of_first, 1, n / 100);
	free(slots);
}

/* When one target is down only its slots have another. */
static void only_slots_of_the_dead_move(void **state)
{
	struct sl_nft_share shares[] = { { "10.0.0.1:80", 1, false },
					 { "10.0.0.2:80", 1, false },
					 { "10.0.0.3:80", 2, false } };
	uint16_t *before = NULL, *after = NULL;
	size_t n = 0, m = 0, of[3] = { 0 };

	(void)state;
	assert_int_equal(sl_nft_slots_fill(SL_BALANCE_MAGLEV, shares, 3, &before, &n), 0);
	shares[1].is_down = true;
	assert_int_equal(sl_nft_slots_fill(SL_BALANCE_MAGLEV, shares, 3, &after, &m), 0);
	assert_int_equal(n, m);
	for (size_t i = 0; i < n; i++) {
		of[before[i]]++;
		if (before[i] != 1)
			assert_int_equal(before[i], after[i]);
		else
			assert_int_not_equal(after[i], 1);
	}
	assert_in_range(of[2], n / 2 - 2, n / 2 + 2);
	assert_in_range(of[0], n / 4 - 2, n / 4 + 2);
	free(before);
	free(after);
}

/* Whether a target is down, drained (weight 0) or removed. */
static void source_hash_moves_nobody_else(void **state)
{
	static const char *const names[] = { "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80",
					     "10.0.0.4:80" };
	static const size_t without[] = { 0, 1, 3 }; /* the third */
	struct sl_nft_share shares[4];
	uint16_t *before = NULL, *after = NULL;
	size_t n = 0, m = 0, of[4] = { 0 };

	(void)state;
	for (size_t i = 0; i < 4; i++)
		shares[i] = (struct sl_nft_share){ names[i], i == 3 ? 3 : 1, false };
	assert_int_equal(sl_nft_slots_fill(SL_BALANCE_SOURCE_HASH, shares, 4, &before, &n), 0);
	for (int way = 0; way < 3; way++) {
		size_t left = way == 2 ? 3 : 4;

		shares[2].is_down = way == 0;
		shares[2].weight = way == 1 ? 0 : 1;
		if (way == 2)
			shares[2] = shares[3];
		assert_int_equal(
			sl_nft_slots_fill(SL_BALANCE_SOURCE_HASH, shares, left, &after, &m), 0);
		assert_int_equal(n, m);
		for (size_t i = 0; i < n; i++) {
			size_t now = way == 2 ? without[after[i]] : after[i];

			assert_true(before[i] == 2 ? now != 2 : now == before[i]);
		}
		free(after);
		after = NULL;
	}
	for (size_t i = 0; i < n; i++)
		of[before[i]]++;
	assert_in_range(of[3], n * 45 / 100, n * 55 / 100);
	for (size_t i = 0; i < 3; i++)
		assert_in_range(of[i], n * 13 / 100, n * 20 / 100);
	free(before);
}

/* Code of rules: what was put in comes out, and every cut is an end. */
static void code_is_read_as_it_was_written(void **state)
{
	struct sl_nft_expr a = {
		.kind = SL_NFT_LOOKUP, .n_values = 3, .value = { 1, 2, 3 }, .name = "any4"
	};
	struct sl_nft_expr b = {
		.kind = SL_NFT_CMP, .n_values = 2, .value = { 7, 8 }, .n_data = 3, .data = "xyz"
	};
	_cleanup_(sl_str_done) struct sl_str code = { 0 };
	struct sl_nft_expr e;
	size_t at = 0, n_first;

	(void)state;
	sl_nft_expr_put(&code, &a);
	n_first = code.len;
	sl_nft_expr_put(&code, &b);
	assert_true(sl_nft_expr_next((uint8_t *)code.p, code.len, &at, &e));
	assert_memory_equal(&e, &a, sizeof(a));
	assert_int_equal(at, n_first);
	assert_true(sl_nft_expr_next((uint8_t *)code.p, code.len, &at, &e));
	assert_memory_equal(&e, &b, sizeof(b));
	assert_false(sl_nft_expr_next((uint8_t *)code.p, code.len, &at, &e));
	for (size_t cut = 0; cut < n_first; cut++) {
		uint8_t *copy = malloc(cut + 1);

		memcpy(copy, code.p, cut);
		at = 0;
		assert_false(sl_nft_expr_next(copy, cut, &at, &e));
		assert_int_equal(at, 0);
		free(copy);
	}
}

/* A kernel in miniature: it refuses what the kernel would refuse. */
static bool is_referred_to(const struct sl_nft_ruleset *k, const char *chain)
{
	for (size_t i = 0; i < k->n_sets; i++)
		for (size_t j = 0; j < k->sets[i].n; j++)
			if (strcmp(sl_nft_text(k, k->sets[i].elems[j].name), chain) == 0)
				return true;
	return false;
}

static struct sl_nft_set *set_of(struct sl_nft_ruleset *k, const char *name)
{
	for (size_t i = 0; i < k->n_sets; i++)
		if (strcmp(k->sets[i].name, name) == 0)
			return &k->sets[i];
	return NULL;
}

static struct sl_nft_chain *chain_of(struct sl_nft_ruleset *k, const char *name)
{
	for (size_t i = 0; i < k->n_chains; i++)
		if (strcmp(k->chains[i].name, name) == 0)
			return &k->chains[i];
	return NULL;
}

static size_t counter_of(struct sl_nft_ruleset *k, const char *name)
{
	size_t i = 0;

	while (i < k->n_counters && strcmp(k->counters[i].name, name) != 0)
		i++;
	return i;
}

static struct sl_nft_set empty_set(struct sl_nft_ruleset *k, const struct sl_nft_ruleset *from,
				   const struct sl_nft_set *set)
{
	struct sl_nft_set copy = *set;

	copy.elems = NULL;
	copy.n = copy.cap = 0;
	copy.comment = sl_nft_put_text(k, sl_nft_text(from, set->comment));
	return copy;
}

static void put_elem_copy(struct sl_nft_ruleset *k, struct sl_nft_set *set,
			  const struct sl_nft_ruleset *from, const struct sl_nft_elem *elem)
{
	struct sl_nft_elem e = *elem;

	e.name = sl_nft_put_text(k, sl_nft_text(from, elem->name));
	e.comment = sl_nft_put_text(k, sl_nft_text(from, elem->comment));
	sl_nft_put_elem(k, set, &e);
}

static struct sl_nft_rule rule_copy(struct sl_nft_ruleset *k, const struct sl_nft_ruleset *from,
				    const struct sl_nft_rule *rule, uint64_t handle)
{
	struct sl_nft_rule copy = { .n_code = rule->n_code, .handle = handle };

	copy.code = sl_nft_put_bytes(k, from->pool.p + rule->code, rule->n_code);
	copy.comment = sl_nft_put_text(k, sl_nft_text(from, rule->comment));
	return copy;
}

static struct sl_nft_ruleset *copy_of(const struct sl_nft_ruleset *from, uint64_t *handle)
{
	struct sl_nft_ruleset *k = NULL;

	assert_int_equal(sl_nft_ruleset_new(&k), 0);
	k->comment = sl_nft_put_text(k, sl_nft_text(from, from->comment));
	for (size_t i = 0; i < from->n_sets; i++) {
		struct sl_nft_set set = empty_set(k, from, &from->sets[i]);
		struct sl_nft_set *s = sl_nft_put_set(k, &set);

		for (size_t j = 0; j < from->sets[i].n; j++)
			put_elem_copy(k, s, from, &from->sets[i].elems[j]);
	}
	for (size_t i = 0; i < from->n_chains; i++) {
		struct sl_nft_chain chain = from->chains[i], *c;

		chain.rules = NULL;
		chain.n = chain.cap = 0;
		c = sl_nft_put_chain(k, &chain);
		for (size_t j = 0; j < from->chains[i].n; j++) {
			struct sl_nft_rule r =
				rule_copy(k, from, &from->chains[i].rules[j], ++*handle);

			sl_nft_put_rule(k, c, &r);
		}
	}
	for (size_t i = 0; i < from->n_counters; i++)
		sl_nft_put_counter(k, &from->counters[i]);
	return k;
}

static void change_elem(struct sl_nft_ruleset *k, struct sl_nft_set *set,
			const struct sl_nft_ruleset *from, const struct sl_nft_elem *elem, bool add)
{
	size_t at = 0;

	assert_non_null(set);
	while (at < set->n && sl_nft_elem_compare(&set->elems[at], elem) != 0)
		at++;
	if (!add) {
		assert_true(at < set->n); /* else: -ENOENT */
		set->elems[at] = set->elems[--set->n];
		return;
	}
	assert_true(at == set->n); /* else: -EEXIST */
	if (elem->verdict)
		assert_non_null(chain_of(k, sl_nft_text(from, elem->name)));
	if (set->object_type)
		assert_true(counter_of(k, sl_nft_text(from, elem->name)) < k->n_counters);
	put_elem_copy(k, set, from, elem);
}

static void add_rule(struct sl_nft_ruleset *k, struct sl_nft_chain *chain,
		     const struct sl_nft_ruleset *from, const struct sl_nft_rule *rule,
		     uint64_t before)
{
	struct sl_nft_rule copy = rule_copy(k, from, rule, 0);
	size_t at = 0;

	assert_non_null(chain);
	sl_nft_put_rule(k, chain, &copy);
	if (before == 0)
		return;
	while (at < chain->n && chain->rules[at].handle != before)
		at++;
	assert_true(at < chain->n);
	memmove(&chain->rules[at + 1], &chain->rules[at], (chain->n - 1 - at) * sizeof(copy));
	chain->rules[at] = copy;
}

static void drop_rule(struct sl_nft_chain *chain, uint64_t handle)
{
	size_t at = 0;

	assert_non_null(chain);
	while (at < chain->n && chain->rules[at].handle != handle)
		at++;
	assert_true(at < chain->n);
	chain->n--;
	memmove(&chain->rules[at], &chain->rules[at + 1],
		(chain->n - at) * sizeof(chain->rules[0]));
}

static void play(struct sl_nft_ruleset *k, const struct sl_nft_ruleset *old,
		 const struct sl_nft_ruleset *new, const struct sl_nft_op *op)
{
	struct sl_nft_chain chain;
	struct sl_nft_set set, *s;
	struct sl_nft_chain *c;
	size_t i;

	switch (op->kind) {
	case SL_NFT_ADD_FLOWTABLE:
		k->flowtable.is_there = true;
		k->flowtable.flags = new->flowtable.flags;
		for (i = 0; i < new->flowtable.n; i++)
			assert_true(sl_nft_put_device(k, new->flowtable.device[i]));
		break;
	case SL_NFT_CUT_FLOWTABLE:
		assert_true(k->flowtable.is_there);
		k->flowtable = new->flowtable;
		break;
	case SL_NFT_DEL_FLOWTABLE:
		assert_true(k->flowtable.is_there);
		k->flowtable = (struct sl_nft_flowtable){ 0 };
		break;
	case SL_NFT_ADD_SET:
		assert_null(set_of(k, new->sets[op->object].name));
		set = empty_set(k, new, &new->sets[op->object]);
		(void)sl_nft_put_set(k, &set);
		break;
	case SL_NFT_ADD_COUNTER:
		assert_true(counter_of(k, new->counters[op->object].name) == k->n_counters);
		sl_nft_put_counter(k, &new->counters[op->object]);
		break;
	case SL_NFT_ADD_CHAIN:
		chain = new->chains[op->object];
		assert_null(chain_of(k, chain.name));
		chain.rules = NULL;
		chain.n = chain.cap = 0;
		(void)sl_nft_put_chain(k, &chain);
		break;
	case SL_NFT_DEL_ELEM:
		change_elem(k, set_of(k, old->sets[op->object].name), old,
			    &old->sets[op->object].elems[op->index], false);
		break;
	case SL_NFT_ADD_ELEM:
		change_elem(k, set_of(k, new->sets[op->object].name), new,
			    &new->sets[op->object].elems[op->index], true);
		break;
	case SL_NFT_ADD_RULE:
		add_rule(k, chain_of(k, new->chains[op->object].name), new,
			 &new->chains[op->object].rules[op->index], op->handle);
		break;
	case SL_NFT_DEL_RULE:
		drop_rule(chain_of(k, old->chains[op->object].name), op->handle);
		break;
	case SL_NFT_DEL_SET:
		s = set_of(k, old->sets[op->object].name);
		assert_non_null(s);
		free(s->elems);
		*s = k->sets[--k->n_sets];
		break;
	case SL_NFT_DEL_CHAIN:
		c = chain_of(k, old->chains[op->object].name);
		assert_non_null(c);
		assert_int_equal(c->n, 0);
		assert_false(is_referred_to(k, c->name)); /* else: -EBUSY */
		free(c->rules);
		*c = k->chains[--k->n_chains];
		break;
	case SL_NFT_DEL_COUNTER:
		i = counter_of(k, old->counters[op->object].name);
		assert_true(i < k->n_counters);
		assert_false(is_referred_to(k, k->counters[i].name));
		k->counters[i] = k->counters[--k->n_counters];
		break;
	case SL_NFT_DEL_TABLE:
	case SL_NFT_ADD_TABLE:
		fail();
	}
}

static void give_handles(struct sl_nft_ruleset *rs, uint64_t *handle)
{
	for (size_t i = 0; i < rs->n_chains; i++)
		for (size_t j = 0; j < rs->chains[i].n; j++)
			rs->chains[i].rules[j].handle = ++*handle;
}

/* What is the same under both names must have kept its handle: it was never replaced. */
static void assert_rules_kept(const struct sl_nft_ruleset *old, const struct sl_nft_ruleset *k)
{
	for (size_t i = 0; i < old->n_chains; i++) {
		const struct sl_nft_chain *a = &old->chains[i];
		const struct sl_nft_chain *b = sl_nft_find_chain(k, a->name);

		for (size_t j = 0; b && a->n == b->n && j < a->n; j++)
			if (sl_nft_rule_is_same(old, &a->rules[j], k, &b->rules[j]) && a->n == 1)
				assert_int_equal(a->rules[j].handle, b->rules[j].handle);
	}
}

static uint32_t next(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	*x ^= *x << 5;
	return *x;
}

static void random_routes(struct test_routes *t, uint32_t *x)
{
	static struct sl_ip4_range lists[2][2] = { { { 1, 5 }, { 7, 9 } }, { { 1, 4 }, { 7, 9 } } };
	static const struct sl_ip_set sets[2] = { { .v4 = lists[0], .n4 = 2 },
						  { .v4 = lists[1], .n4 = 2 } };
	static const char *const targets[] = { "10.0.0.1", "10.0.0.2", "fd00::1", "10.0.0.3" };
	uint32_t n = next(x) % 8;

	for (uint32_t i = 0; i < n; i++) {
		struct sl_nft_route *r = test_route(t, "route");
		uint32_t bits = next(x);

		if (bits % 4 == 0) {
			r->mark += 100; /* as if others had come and gone */
			snprintf(t->names[t->n - 1], sizeof(t->names[0]), "other");
		}
		r->protocols = bits >> 2 & 1 ? SL_NFT_TCP : SL_NFT_TCP | SL_NFT_UDP;
		r->state = (enum sl_nft_state)(bits >> 3 & 3) % 3;
		r->balance = (enum sl_balance)(bits >> 5 & 7) % 5;
		r->masquerade = bits >> 8 & 1;
		r->allow = bits >> 9 & 1 ? &sets[bits >> 10 & 1] : NULL;
		r->deny = bits >> 11 & 1 ? &sets[bits >> 12 & 1] : NULL;
		r->max_connections = bits >> 13 & 1 ? bits >> 14 & 3 : 0;
		r->connections = (struct sl_nft_rate){ bits >> 16 & 1 ? 10 : 0, 1, 5 };
		r->packets = (struct sl_nft_rate){ bits >> 17 & 1 ? 10 : 0, 1, 5 };
		r->refusal = (enum sl_nft_refusal)(bits >> 18 & 3) % 3;
		test_listen(r, NULL, (uint16_t)(1000 + i * 10), (uint16_t)(1000 + i * 10));
		if (bits >> 20 & 1)
			test_listen(r, "10.9.9.9", (uint16_t)(i * 10 + 1), (uint16_t)(i * 10 + 9));
		for (uint32_t j = 0; j < (bits >> 21 & 3); j++)
			test_target(r, targets[j + (bits >> 23 & 1)], bits >> 24 & 1 ? 80 : 0,
				    bits >> 25 & 3)
				->is_down = j == 1 && bits >> 27 & 1;
	}
}

static void differences_lead_there(void **state)
{
	uint32_t x = 2463534242u;
	size_t n_ops = 0;

	(void)state;
	for (int round = 0; round < 400; round++) {
		struct sl_nft_ruleset *a, *b, *k;
		struct sl_nft_ops ops = { 0 }, none = { 0 };
		struct test_routes ta, tb;
		uint64_t handle = 0, same = 0;

		test_routes_init(&ta, 8);
		test_routes_init(&tb, 8);
		random_routes(&ta, &x);
		random_routes(&tb, &x);
		a = test_build(&ta);
		b = test_build(&tb);
		give_handles(a, &handle);
		k = copy_of(a, &same);
		assert_int_equal(sl_nft_diff(a, b, &ops), 0);
		for (size_t i = 0; i < ops.n; i++)
			play(k, a, b, &ops.op[i]);
		n_ops += ops.n;
		assert_int_equal(sl_nft_ruleset_sort(k), 0);
		assert_int_equal(sl_nft_diff(k, b, &none), 0);
		assert_int_equal(none.n, 0);
		assert_int_equal(k->n_sets, b->n_sets);
		assert_int_equal(k->n_chains, b->n_chains);
		assert_int_equal(k->n_counters, b->n_counters);
		assert_rules_kept(a, k);
		sl_nft_ops_done(&ops);
		sl_nft_ops_done(&none);
		assert_int_equal(sl_nft_diff(a, a, &ops), 0);
		assert_int_equal(ops.n, 0);
		sl_nft_ops_done(&ops);
		sl_nft_ruleset_free(a);
		sl_nft_ruleset_free(b);
		sl_nft_ruleset_free(k);
		test_routes_done(&ta);
		test_routes_done(&tb);
	}
	assert_true(n_ops > 400);
}

/* With ports those of TCP come first, and no range is the same as another, or as none. */
static void masquerading_is_from_ports(void **state)
{
	static const struct sl_nft_ports ranges[] = {
		{ 0, 0 }, { 1024, 39999 }, { 1024, 39998 }, { 1025, 39999 }
	};
	struct sl_nft_ruleset *rs[SL_ARRAY_LEN(ranges)];
	struct test_routes t;

	(void)state;
	test_routes_init(&t, 1);
	test_route(&t, "a")->masquerade = true;
	for (size_t i = 0; i < SL_ARRAY_LEN(ranges); i++) {
		uint64_t handle = 0;

		t.common.masquerade = ranges[i];
		rs[i] = test_build(&t);
		give_handles(rs[i], &handle);
		assert_int_equal(sl_nft_find_chain(rs[i], "post")->n, i ? 8 : 4);
	}
	for (size_t i = 1; i < SL_ARRAY_LEN(ranges); i++) {
		const struct sl_nft_chain *plain = sl_nft_find_chain(rs[0], "post");
		const struct sl_nft_chain *post = sl_nft_find_chain(rs[i], "post");
		struct sl_nft_ops ops = { 0 };

		/* what is for the others is what is for all without ports */
		for (size_t k = 0; k < 4; k++)
			assert_true(sl_nft_rule_is_same(rs[i], &post->rules[4 + k], rs[0],
							&plain->rules[k]));
		assert_int_equal(sl_nft_diff(rs[i - 1], rs[i], &ops), 0);
		assert_int_equal(ops.n, i == 1 ? 4 : 8);
		sl_nft_ops_done(&ops);
	}
	for (size_t i = 0; i < SL_ARRAY_LEN(ranges); i++)
		sl_nft_ruleset_free(rs[i]);
	test_routes_done(&t);
}

/* What one route says about a target of several is not the business of the others. */
static void a_shared_target_stays_when_one_goes(void **state)
{
	struct sl_nft_ruleset *a, *b;
	struct sl_nft_ops ops = { 0 };
	struct test_routes t;

	(void)state;
	test_many_routes(&t, 40);
	a = test_build(&t);
	t.route++;
	t.n--;
	b = test_build(&t);
	assert_int_equal(sl_nft_diff(a, b, &ops), 0);
	assert_int_equal(ops.n, 4); /* listener, target, counter and its element */
	sl_nft_ops_done(&ops);
	sl_nft_ruleset_free(a);
	sl_nft_ruleset_free(b);
	t.route--;
	test_routes_done(&t);
}

/* Changes of the sets of one list, a letter for each operation: b, e out, B, E in. */
static const char *list_ops(const struct sl_ip4_range *from, size_t n_from,
			    const struct sl_ip4_range *to, size_t n_to)
{
	static char text[32];
	struct sl_ip_set list = { .v4 = (struct sl_ip4_range *)from, .n4 = n_from };
	struct sl_nft_ruleset *a, *b;
	struct sl_nft_ops ops = { 0 };
	struct test_routes t;
	size_t n = 0;

	test_routes_init(&t, 1);
	test_route(&t, "a")->deny = &list;
	a = test_build(&t);
	list = (struct sl_ip_set){ .v4 = (struct sl_ip4_range *)to, .n4 = n_to };
	b = test_build(&t);
	assert_int_equal(sl_nft_diff(a, b, &ops), 0);
	for (; n < ops.n; n++) {
		bool is_added = ops.op[n].kind == SL_NFT_ADD_ELEM;
		const struct sl_nft_elem *e =
			&(is_added ? b : a)->sets[ops.op[n].object].elems[ops.op[n].index];
		bool is_end = e->flags & NFT_SET_ELEM_INTERVAL_END;

		assert_true(n + 1 < sizeof(text));
		text[n] = is_added ? is_end ? 'E' : 'B' : is_end ? 'e' : 'b';
	}
	text[n] = '\0';
	sl_nft_ops_done(&ops);
	sl_nft_ruleset_free(a);
	sl_nft_ruleset_free(b);
	test_routes_done(&t);
	return text;
}

/* The kernel takes no beginning of an interval without its end. */
static void intervals_come_and_go_as_a_whole(void **state)
{
	static const struct sl_ip4_range a[] = { { 1, 5 }, { 7, 9 }, { 20, 30 } };
	static const struct sl_ip4_range longer[] = { { 1, 5 }, { 7, 10 }, { 20, 30 } };
	static const struct sl_ip4_range earlier[] = { { 1, 5 }, { 7, 9 }, { 19, 30 } };
	static const struct sl_ip4_range less[] = { { 1, 5 }, { 20, 30 } };
	static const struct sl_ip4_range joined[] = { { 1, 9 }, { 20, 30 } };
	static const struct sl_ip4_range open[] = { { 1, 5 }, { 7, 9 }, { 20, UINT32_MAX } };

	(void)state;
	assert_string_equal(list_ops(a, 3, a, 3), "");
	assert_string_equal(list_ops(a, 3, longer, 3), "beBE");
	assert_string_equal(list_ops(a, 3, earlier, 3), "beBE");
	assert_string_equal(list_ops(a, 3, less, 2), "be");
	assert_string_equal(list_ops(less, 2, a, 3), "BE");
	assert_string_equal(list_ops(a, 3, joined, 2), "bebeBE");
	assert_string_equal(list_ops(a, 3, open, 3), "beB");
	assert_string_equal(list_ops(open, 3, a, 3), "bBE");
	assert_string_equal(list_ops(open, 3, open, 3), "");
}

/* A rule in the middle comes, goes: those around it stay. */
static void rules_around_a_change_stay(void **state)
{
	struct sl_nft_ruleset *a, *b;
	struct sl_nft_ops ops = { 0 };
	struct test_routes t;
	struct sl_nft_route *r;
	uint64_t handle = 0;
	const struct sl_nft_chain *chain;
	static struct sl_ip4_range range = { 1, 5 };
	static const struct sl_ip_set list = { .v4 = &range, .n4 = 1 };

	(void)state;
	test_routes_init(&t, 1);
	r = test_route(&t, "a");
	r->deny = &list;
	r->max_connections = 3;
	a = test_build(&t);
	give_handles(a, &handle);
	r->connections = (struct sl_nft_rate){ 10, 1, 5 };
	b = test_build(&t);
	assert_int_equal(sl_nft_diff(a, b, &ops), 0);
	assert_int_equal(ops.n, 1);
	assert_int_equal(ops.op[0].kind, SL_NFT_ADD_RULE);
	chain = sl_nft_find_chain(a, "policy_1");
	assert_int_equal(ops.op[0].handle, chain->rules[2].handle); /* before "ct count" */
	sl_nft_ops_done(&ops);
	handle = 0;
	give_handles(b, &handle);
	assert_int_equal(sl_nft_diff(b, a, &ops), 0);
	assert_int_equal(ops.n, 1);
	assert_int_equal(ops.op[0].kind, SL_NFT_DEL_RULE);
	sl_nft_ops_done(&ops);
	sl_nft_ruleset_free(a);
	sl_nft_ruleset_free(b);
	test_routes_done(&t);
}

/* Kinds of the operations from one ruleset to the other, as letters. */
static const char *flowtable_ops(const struct sl_nft_ruleset *a, const struct sl_nft_ruleset *b)
{
	static char text[16];
	struct sl_nft_ops ops = { 0 };
	size_t n = 0;

	assert_int_equal(sl_nft_diff(a, b, &ops), 0);
	for (size_t i = 0; i < ops.n; i++) {
		enum sl_nft_op_kind kind = ops.op[i].kind;

		assert_true(n + 1 < sizeof(text));
		if (kind == SL_NFT_ADD_FLOWTABLE)
			text[n++] = 'a';
		else if (kind == SL_NFT_CUT_FLOWTABLE)
			text[n++] = 'c';
		else if (kind == SL_NFT_DEL_FLOWTABLE)
			text[n++] = 'd';
		else if (kind == SL_NFT_DEL_RULE)
			text[n++] = 'r'; /* it comes before what it refers to goes */
		else if (kind == SL_NFT_DEL_TABLE)
			text[n++] = 'T';
	}
	text[n] = '\0';
	sl_nft_ops_done(&ops);
	return text;
}

static void flow_tables(void **state)
{
	char devices[][SL_NFT_DEVICE] = { "eth1", "eth0", "eth2", "eth0" };
	struct sl_nft_ruleset *none, *rs[2], *other;
	struct test_routes t;

	(void)state;
	test_routes_init(&t, 2);
	(void)test_route(&t, "on");
	test_route(&t, "killed")->state = SL_NFT_KILLED;
	none = test_build(&t);
	for (size_t i = 0; i < 2; i++) {
		rs[i] = test_build(&t);
		assert_int_equal(sl_nft_put_offload(rs[i], t.route, t.n, devices + i, 3 - i), 0);
	}
	assert_int_equal(rs[0]->flowtable.n, 3);
	assert_string_equal(rs[0]->flowtable.device[0], "eth0");
	assert_string_equal(rs[0]->flowtable.device[2], "eth2");
	assert_int_equal(count(rs[0], "offloads", NULL), 1);
	assert_int_equal(count(rs[0], "offloads", "on"), 1);
	assert_string_equal(flowtable_ops(none, rs[0]), "a");
	assert_string_equal(flowtable_ops(rs[0], rs[0]), "");
	assert_string_equal(flowtable_ops(rs[0], rs[1]), "c");
	assert_string_equal(flowtable_ops(rs[1], rs[0]), "a");
	assert_string_equal(flowtable_ops(rs[0], none), "rd");
	other = test_build(&t);
	assert_int_equal(sl_nft_put_offload(other, t.route, t.n, devices, 1), 0);
	assert_string_equal(flowtable_ops(other, rs[1]), "ac");
	other->flowtable.flags = 0; /* as nobody of us makes it */
	assert_string_equal(flowtable_ops(other, rs[1]), "Ta");
	for (int i = 0; i < SL_NFT_DEVICES; i++) {
		char name[SL_NFT_DEVICE];

		(void)snprintf(name, sizeof(name), "x%d", i);
		assert_int_equal(sl_nft_put_device(other, name), i < SL_NFT_DEVICES - 1);
	}
	assert_false(sl_nft_put_device(none, "sixteen letters!"));
	sl_nft_ruleset_free(none);
	sl_nft_ruleset_free(rs[0]);
	sl_nft_ruleset_free(rs[1]);
	sl_nft_ruleset_free(other);
	test_routes_done(&t);
}

static void one_of_many_is_two_operations(void **state)
{
	struct sl_nft_ruleset *a, *b;
	struct sl_nft_ops ops = { 0 };
	struct test_routes t;

	(void)state;
	test_many_routes(&t, 10000);
	a = test_build(&t);
	sl_addr_set_port((struct sl_addr *)&t.route[5000].targets[0].addr, 9);
	b = test_build(&t);
	assert_int_equal(sl_nft_diff(a, b, &ops), 0);
	assert_int_equal(ops.n, 2);
	assert_int_equal(ops.op[0].kind, SL_NFT_DEL_ELEM);
	assert_int_equal(ops.op[1].kind, SL_NFT_ADD_ELEM);
	assert_string_equal(a->sets[ops.op[0].object].name, "to4");
	assert_string_equal(b->sets[ops.op[1].object].name, "to4");
	sl_nft_ops_done(&ops);
	sl_nft_ruleset_free(b);
	/* one more: listener, target, counter and its element; the target's hairpin is there */
	sl_addr_set_port((struct sl_addr *)&t.route[5000].targets[0].addr, 5001);
	t.n--;
	b = test_build(&t);
	assert_int_equal(sl_nft_diff(b, a, &ops), 0);
	assert_int_equal(ops.n, 4);
	sl_nft_ops_done(&ops);
	sl_nft_ruleset_free(a);
	sl_nft_ruleset_free(b);
	test_routes_done(&t);
}

static void another_form_is_replaced_as_a_whole(void **state)
{
	struct sl_nft_ruleset *a, *b;
	struct sl_nft_ops ops = { 0 };
	struct test_routes t;

	(void)state;
	test_many_routes(&t, 2);
	a = test_build(&t);
	b = test_build(&t);
	assert_int_equal(sl_nft_diff(NULL, b, &ops), 0);
	assert_int_equal(ops.op[0].kind, SL_NFT_ADD_TABLE);
	/* what makes it take effect comes last: rules of base chains */
	for (size_t i = 0; i < ops.n; i++) {
		bool is_base =
			ops.op[i].kind == SL_NFT_ADD_RULE && b->chains[ops.op[i].object].is_base;

		assert_int_equal(is_base, i >= ops.n_silent);
	}
	sl_nft_ops_done(&ops);
	a->comment = sl_nft_put_text(a, "sluice ruleset 0");
	assert_int_equal(sl_nft_diff(a, b, &ops), 0);
	assert_int_equal(ops.op[0].kind, SL_NFT_DEL_TABLE);
	assert_int_equal(ops.op[1].kind, SL_NFT_ADD_TABLE);
	sl_nft_ops_done(&ops);
	a->comment = b->comment;
	sl_nft_find_set(a, "any4")->flags |= NFT_SET_TIMEOUT;
	a->comment = sl_nft_put_text(a, SL_NFT_TABLE_COMMENT);
	assert_int_equal(sl_nft_diff(a, b, &ops), 0);
	assert_int_equal(ops.op[0].kind, SL_NFT_DEL_TABLE);
	sl_nft_ops_done(&ops);
	sl_nft_ruleset_free(a);
	sl_nft_ruleset_free(b);
	test_routes_done(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(families_of_targets_are_listened_on),
		cmocka_unit_test(states_differ_by_listeners_and_kill),
		cmocka_unit_test(chains_of_all_packets_are_there_when_needed),
		cmocka_unit_test(lists_are_ranges_with_exclusive_ends),
		cmocka_unit_test(faults_name_the_routes),
		cmocka_unit_test(numbers_can_be_read_back),
		cmocka_unit_test(turns_are_weights),
		cmocka_unit_test(large_weights_stay_within_bounds),
		cmocka_unit_test(only_slots_of_the_dead_move),
		cmocka_unit_test(source_hash_moves_nobody_else),
		cmocka_unit_test(code_is_read_as_it_was_written),
		cmocka_unit_test(differences_lead_there),
		cmocka_unit_test(masquerading_is_from_ports),
		cmocka_unit_test(a_shared_target_stays_when_one_goes),
		cmocka_unit_test(intervals_come_and_go_as_a_whole),
		cmocka_unit_test(rules_around_a_change_stay),
		cmocka_unit_test(flow_tables),
		cmocka_unit_test(one_of_many_is_two_operations),
		cmocka_unit_test(another_form_is_replaced_as_a_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
