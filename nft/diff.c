/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/diff.h"

#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <stdlib.h>
#include <string.h>

struct diff {
	const struct sl_nft_ruleset *old;
	const struct sl_nft_ruleset *new;
	struct sl_nft_ops ops;
	bool oom;
};

void sl_nft_ops_done(struct sl_nft_ops *ops)
{
	free(ops->op);
	*ops = (struct sl_nft_ops){ 0 };
}

static void add(struct diff *d, enum sl_nft_op_kind kind, size_t object, size_t index,
		uint64_t handle)
{
	struct sl_nft_ops *ops = &d->ops;

	if (ops->n == ops->cap) {
		size_t cap = ops->cap ? ops->cap * 2 : 64;
		struct sl_nft_op *op = reallocarray(ops->op, cap, sizeof(*op));

		if (!op) {
			d->oom = true;
			return;
		}
		ops->op = op;
		ops->cap = cap;
	}
	ops->op[ops->n++] = (struct sl_nft_op){ kind, (uint32_t)object, (uint32_t)index, handle };
}

/*
 * Walks two sorted arrays of objects that begin with their names. Calls `fn` with the index in
 * each, or NONE where it is only in the other.
 */
#define NONE SIZE_MAX

struct array {
	const void *p;
	size_t n;
	size_t size;
};

typedef void (*pair_fn)(struct diff *d, size_t old, size_t new);

static void pairs(struct diff *d, struct array old, struct array new, pair_fn fn)
{
	size_t i = 0, j = 0;

	while (i < old.n || j < new.n) {
		int r = i == old.n   ? 1
			: j == new.n ? -1
				     : strcmp((const char *)old.p + i * old.size,
					      (const char *)new.p + j *new.size);

		if (r < 0)
			fn(d, i++, NONE);
		else if (r > 0)
			fn(d, NONE, j++);
		else
			fn(d, i++, j++);
	}
}

static void each_set(struct diff *d, pair_fn fn)
{
	pairs(d, (struct array){ d->old->sets, d->old->n_sets, sizeof(*d->old->sets) },
	      (struct array){ d->new->sets, d->new->n_sets, sizeof(*d->new->sets) }, fn);
}

static void each_chain(struct diff *d, pair_fn fn)
{
	pairs(d, (struct array){ d->old->chains, d->old->n_chains, sizeof(*d->old->chains) },
	      (struct array){ d->new->chains, d->new->n_chains, sizeof(*d->new->chains) }, fn);
}

static void each_counter(struct diff *d, pair_fn fn)
{
	pairs(d, (struct array){ d->old->counters, d->old->n_counters, sizeof(*d->old->counters) },
	      (struct array){ d->new->counters, d->new->n_counters, sizeof(*d->new->counters) },
	      fn);
}

static void new_set(struct diff *d, size_t old, size_t new)
{
	if (old == NONE)
		add(d, SL_NFT_ADD_SET, new, 0, 0);
}

static void new_chain(struct diff *d, size_t old, size_t new)
{
	if (old == NONE)
		add(d, SL_NFT_ADD_CHAIN, new, 0, 0);
}

static void new_counter(struct diff *d, size_t old, size_t new)
{
	if (old == NONE)
		add(d, SL_NFT_ADD_COUNTER, new, 0, 0);
}

static bool is_end_at(const struct sl_nft_set *set, size_t i)
{
	return i < set->n && set->elems[i].flags & NFT_SET_ELEM_INTERVAL_END;
}

static bool is_same_elem(const struct diff *d, const struct sl_nft_set *a, size_t i,
			 const struct sl_nft_set *b, size_t j)
{
	return sl_nft_elem_compare(&a->elems[i], &b->elems[j]) == 0 &&
	       sl_nft_elem_is_same(d->old, &a->elems[i], d->new, &b->elems[j]);
}

/*
 * Of intervals of two elements also the other one is the same: the kernel takes out, and puts in,
 * beginning and end together, and refuses one alone (since 7.0, and earlier ones repaired since).
 */
static bool has_same_partner(const struct diff *d, const struct sl_nft_set *a, size_t i,
			     const struct sl_nft_set *b, size_t j)
{
	if (!(a->flags & NFT_SET_INTERVAL) || a->flags & NFT_SET_CONCAT)
		return true;
	if (is_end_at(a, i))
		return i > 0 && j > 0 && is_same_elem(d, a, i - 1, b, j - 1);
	if (!is_end_at(a, i + 1) || !is_end_at(b, j + 1)) /* up to the last address there is */
		return is_end_at(a, i + 1) == is_end_at(b, j + 1);
	return is_same_elem(d, a, i + 1, b, j + 1);
}

/* One walk through the elements of a set; takes out, or puts in, what is not the same. */
static void walk_elems(struct diff *d, size_t old, size_t new, enum sl_nft_op_kind kind)
{
	const struct sl_nft_set *a = &d->old->sets[old], *b = &d->new->sets[new];
	size_t i = 0, j = 0;

	while (i < a->n || j < b->n) {
		int r = i == a->n   ? 1
			: j == b->n ? -1
				    : sl_nft_elem_compare(&a->elems[i], &b->elems[j]);
		bool is_same =
			r == 0 && is_same_elem(d, a, i, b, j) && has_same_partner(d, a, i, b, j);

		if (kind == SL_NFT_DEL_ELEM && r <= 0 && !is_same)
			add(d, kind, old, i, 0);
		if (kind == SL_NFT_ADD_ELEM && r >= 0 && !is_same)
			add(d, kind, new, j, 0);
		i += r <= 0;
		j += r >= 0;
	}
}

static void old_elems(struct diff *d, size_t old, size_t new)
{
	if (old != NONE && new != NONE)
		walk_elems(d, old, new, SL_NFT_DEL_ELEM);
}

static void new_elems(struct diff *d, size_t old, size_t new)
{
	if (new == NONE)
		return;
	if (old != NONE) {
		walk_elems(d, old, new, SL_NFT_ADD_ELEM);
		return;
	}
	for (size_t i = 0; i < d->new->sets[new].n; i++)
		add(d, SL_NFT_ADD_ELEM, new, i, 0);
}

/* The longest common subsequence; chains are short. */
int sl_nft_match_rules(const struct sl_nft_ruleset *installed, const struct sl_nft_chain *old,
		       const struct sl_nft_ruleset *wanted, const struct sl_nft_chain *chain,
		       uint32_t *ret)
{
	size_t n = old->n, m = chain->n, width = m + 1;
	_cleanup_free_ uint32_t *best = calloc((n + 1) * width, sizeof(*best));
	size_t i = 0, j = 0;

	if (!best)
		return -ENOMEM;
	for (i = n; i-- > 0;) {
		for (j = m; j-- > 0;) {
			uint32_t skip_old = best[(i + 1) * width + j];
			uint32_t skip_new = best[i * width + j + 1];

			if (sl_nft_rule_is_same(installed, &old->rules[i], wanted,
						&chain->rules[j]))
				best[i * width + j] = best[(i + 1) * width + j + 1] + 1;
			else
				best[i * width + j] = skip_old > skip_new ? skip_old : skip_new;
		}
	}
	for (i = 0, j = 0; j < m;) {
		if (i < n &&
		    sl_nft_rule_is_same(installed, &old->rules[i], wanted, &chain->rules[j]))
			ret[j++] = (uint32_t)i++;
		else if (i < n && best[(i + 1) * width + j] >= best[i * width + j + 1])
			i++;
		else
			ret[j++] = SL_NFT_NO_RULE;
	}
	return 0;
}

static void put_rules(struct diff *d, size_t new, const uint32_t *kept, size_t old)
{
	const struct sl_nft_chain *chain = &d->new->chains[new];

	for (size_t j = 0; j < chain->n; j++) {
		uint64_t before = 0;

		if (kept && kept[j] != SL_NFT_NO_RULE)
			continue;
		for (size_t k = j; kept && k < chain->n && before == 0; k++)
			if (kept[k] != SL_NFT_NO_RULE)
				before = d->old->chains[old].rules[kept[k]].handle;
		add(d, SL_NFT_ADD_RULE, new, j, before);
	}
}

static void drop_rules(struct diff *d, size_t old, const uint32_t *kept, size_t n_kept)
{
	const struct sl_nft_chain *chain = &d->old->chains[old];

	for (size_t i = 0; i < chain->n; i++) {
		bool stays = false;

		for (size_t j = 0; j < n_kept && !stays; j++)
			stays = kept[j] == i;
		if (!stays)
			add(d, SL_NFT_DEL_RULE, old, i, chain->rules[i].handle);
	}
}

static bool has_same_rules(const struct diff *d, const struct sl_nft_chain *a,
			   const struct sl_nft_chain *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!sl_nft_rule_is_same(d->old, &a->rules[i], d->new, &b->rules[i]))
			return false;
	return true;
}

/* What a chain there is already is to get, or to lose. */
static void change_rules(struct diff *d, size_t old, size_t new, bool drops)
{
	const struct sl_nft_chain *a = &d->old->chains[old], *b = &d->new->chains[new];
	_cleanup_free_ uint32_t *kept = NULL;

	if (has_same_rules(d, a, b))
		return;
	kept = calloc(b->n + 1, sizeof(*kept));
	if (!kept || sl_nft_match_rules(d->old, a, d->new, b, kept) < 0) {
		d->oom = true;
		return;
	}
	if (drops)
		drop_rules(d, old, kept, b->n);
	else
		put_rules(d, new, kept, old);
}

static void new_rules(struct diff *d, size_t old, size_t new, bool of_base)
{
	if (new == NONE || d->new->chains[new].is_base != of_base)
		return;
	if (old != NONE)
		change_rules(d, old, new, false);
	else
		put_rules(d, new, NULL, 0);
}

static void new_inner_rules(struct diff *d, size_t old, size_t new)
{
	new_rules(d, old, new, false);
}

static void new_base_rules(struct diff *d, size_t old, size_t new)
{
	new_rules(d, old, new, true);
}

static void old_rules(struct diff *d, size_t old, size_t new)
{
	if (old == NONE)
		return;
	if (new != NONE)
		change_rules(d, old, new, true);
	else
		drop_rules(d, old, NULL, 0);
}

static void old_set(struct diff *d, size_t old, size_t new)
{
	if (new == NONE)
		add(d, SL_NFT_DEL_SET, old, 0, 0);
}

static void old_chain(struct diff *d, size_t old, size_t new)
{
	if (new == NONE)
		add(d, SL_NFT_DEL_CHAIN, old, 0, 0);
}

static void old_counter(struct diff *d, size_t old, size_t new)
{
	if (new == NONE)
		add(d, SL_NFT_DEL_COUNTER, old, 0, 0);
}

static bool lacks(const struct sl_nft_flowtable *a, const struct sl_nft_flowtable *b)
{
	for (size_t i = 0; i < b->n; i++)
		if (!sl_nft_flowtable_has(a, b->device[i]))
			return true;
	return false;
}

static void new_flowtable(struct diff *d)
{
	const struct sl_nft_flowtable *old = &d->old->flowtable, *new = &d->new->flowtable;

	if (!new->is_there)
		return;
	if (!old->is_there || lacks(old, new))
		add(d, SL_NFT_ADD_FLOWTABLE, 0, 0, 0);
	if (old->is_there && lacks(new, old))
		add(d, SL_NFT_CUT_FLOWTABLE, 0, 0, 0);
}

static void old_flowtable(struct diff *d)
{
	if (d->old->flowtable.is_there && !d->new->flowtable.is_there)
		add(d, SL_NFT_DEL_FLOWTABLE, 0, 0, 0);
}

/* Objects of one name have one form, or nothing can be kept. */
static bool has_same_form(const struct sl_nft_ruleset *a, const struct sl_nft_ruleset *b)
{
	if (a->has_others || strcmp(sl_nft_text(a, a->comment), sl_nft_text(b, b->comment)) != 0)
		return false;
	if (a->flowtable.is_there && b->flowtable.is_there &&
	    a->flowtable.flags != b->flowtable.flags)
		return false;
	for (size_t i = 0; i < b->n_sets; i++) {
		const struct sl_nft_set *set = sl_nft_find_set(a, b->sets[i].name);

		if (set && !sl_nft_set_has_same_form(set, &b->sets[i]))
			return false;
	}
	for (size_t i = 0; i < b->n_chains; i++) {
		const struct sl_nft_chain *chain = sl_nft_find_chain(a, b->chains[i].name);

		if (chain && !sl_nft_chain_has_same_form(chain, &b->chains[i]))
			return false;
	}
	return true;
}

int sl_nft_diff(const struct sl_nft_ruleset *installed, const struct sl_nft_ruleset *wanted,
		struct sl_nft_ops *ret)
{
	static const struct sl_nft_ruleset nothing;
	struct diff d = { .old = installed, .new = wanted };

	if (!installed || !has_same_form(installed, wanted)) {
		if (installed)
			add(&d, SL_NFT_DEL_TABLE, 0, 0, 0);
		add(&d, SL_NFT_ADD_TABLE, 0, 0, 0);
		d.old = &nothing;
	}
	/* what others refer to comes before them, and goes after them */
	each_set(&d, new_set);
	each_counter(&d, new_counter);
	new_flowtable(&d);
	each_chain(&d, new_chain);
	each_set(&d, old_elems);
	each_set(&d, new_elems);
	each_chain(&d, new_inner_rules);
	d.ops.n_silent = d.ops.n;
	each_chain(&d, new_base_rules);
	each_chain(&d, old_rules);
	each_set(&d, old_set);
	each_chain(&d, old_chain);
	each_counter(&d, old_counter);
	old_flowtable(&d);
	if (d.oom) {
		sl_nft_ops_done(&d.ops);
		return -ENOMEM;
	}
	*ret = d.ops;
	return 0;
}
