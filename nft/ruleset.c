/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/ruleset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool sl_nft_ruleset_is_ours(const struct sl_nft_ruleset *rs)
{
	static const char stem[] = "sluice ruleset "; /* of every SL_NFT_TABLE_COMMENT there was */

	return strncmp(sl_nft_text(rs, rs->comment), stem, sizeof(stem) - 1) == 0;
}

int sl_nft_ruleset_new(struct sl_nft_ruleset **ret)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = calloc(1, sizeof(*rs));

	if (!rs)
		return -ENOMEM;
	sl_str_addc(&rs->pool, '\0');
	if (rs->pool.oom)
		return -ENOMEM;
	*ret = SL_TAKE_PTR(rs);
	return 0;
}

void sl_nft_ruleset_free(struct sl_nft_ruleset *rs)
{
	if (!rs)
		return;
	for (size_t i = 0; i < rs->n_sets; i++)
		free(rs->sets[i].elems);
	for (size_t i = 0; i < rs->n_chains; i++)
		free(rs->chains[i].rules);
	free(rs->sets);
	free(rs->chains);
	free(rs->counters);
	sl_str_done(&rs->pool);
	free(rs);
}

uint32_t sl_nft_put_bytes(struct sl_nft_ruleset *rs, const void *bytes, size_t n)
{
	size_t at = rs->pool.len;

	if (at + n > UINT32_MAX / 2)
		rs->oom = true;
	else
		sl_str_add(&rs->pool, bytes, n);
	if (rs->oom || rs->pool.oom) {
		rs->oom = true;
		return 0;
	}
	return (uint32_t)at;
}

uint32_t sl_nft_put_text(struct sl_nft_ruleset *rs, const char *text)
{
	return *text ? sl_nft_put_bytes(rs, text, strlen(text) + 1) : 0;
}

/* Room for one more of `size` bytes; false: there is none. */
static bool grow(struct sl_nft_ruleset *rs, void **array, size_t n, size_t *cap, size_t size)
{
	size_t more = *cap ? *cap * 2 : 8;
	void *p;

	if (n < *cap)
		return true;
	p = reallocarray(*array, more, size);
	if (!p) {
		rs->oom = true;
		return false;
	}
	*array = p;
	*cap = more;
	return true;
}

struct sl_nft_set *sl_nft_put_set(struct sl_nft_ruleset *rs, const struct sl_nft_set *set)
{
	void *sets = rs->sets;

	if (!grow(rs, &sets, rs->n_sets, &rs->cap_sets, sizeof(*set)))
		return NULL;
	rs->sets = sets;
	rs->sets[rs->n_sets] = *set;
	return &rs->sets[rs->n_sets++];
}

void sl_nft_put_elem(struct sl_nft_ruleset *rs, struct sl_nft_set *set,
		     const struct sl_nft_elem *elem)
{
	void *elems;

	if (!set)
		return; /* memory had run out before */
	elems = set->elems;
	if (!grow(rs, &elems, set->n, &set->cap, sizeof(*elem)))
		return;
	set->elems = elems;
	set->elems[set->n++] = *elem;
}

struct sl_nft_chain *sl_nft_put_chain(struct sl_nft_ruleset *rs, const struct sl_nft_chain *chain)
{
	void *chains = rs->chains;

	if (!grow(rs, &chains, rs->n_chains, &rs->cap_chains, sizeof(*chain)))
		return NULL;
	rs->chains = chains;
	rs->chains[rs->n_chains] = *chain;
	return &rs->chains[rs->n_chains++];
}

void sl_nft_put_rule(struct sl_nft_ruleset *rs, struct sl_nft_chain *chain,
		     const struct sl_nft_rule *rule)
{
	void *rules;

	if (!chain)
		return;
	rules = chain->rules;
	if (!grow(rs, &rules, chain->n, &chain->cap, sizeof(*rule)))
		return;
	chain->rules = rules;
	chain->rules[chain->n++] = *rule;
}

void sl_nft_put_counter(struct sl_nft_ruleset *rs, const struct sl_nft_counter *counter)
{
	void *counters = rs->counters;

	if (!grow(rs, &counters, rs->n_counters, &rs->cap_counters, sizeof(*counter)))
		return;
	rs->counters = counters;
	rs->counters[rs->n_counters++] = *counter;
}

bool sl_nft_flowtable_has(const struct sl_nft_flowtable *ft, const char *device)
{
	for (size_t i = 0; i < ft->n; i++)
		if (strcmp(ft->device[i], device) == 0)
			return true;
	return false;
}

bool sl_nft_put_device(struct sl_nft_ruleset *rs, const char *name)
{
	struct sl_nft_flowtable *ft = &rs->flowtable;
	size_t i = 0;

	while (i < ft->n && strcmp(ft->device[i], name) < 0)
		i++;
	if (i < ft->n && strcmp(ft->device[i], name) == 0)
		return true;
	if (ft->n == SL_NFT_DEVICES || strlen(name) >= SL_NFT_DEVICE)
		return false;
	memmove(ft->device[i + 1], ft->device[i], (ft->n - i) * SL_NFT_DEVICE);
	memset(ft->device[i], 0, SL_NFT_DEVICE);
	memcpy(ft->device[i], name, strlen(name));
	ft->n++;
	return true;
}

int sl_nft_elem_compare(const struct sl_nft_elem *a, const struct sl_nft_elem *b)
{
	int r = memcmp(a->key, b->key, sizeof(a->key));

	if (r == 0)
		r = memcmp(a->end, b->end, sizeof(a->end));
	/* where one interval ends and the next begins, the end comes first */
	if (r == 0 && a->flags != b->flags)
		r = a->flags > b->flags ? -1 : 1;
	return r;
}

size_t sl_nft_set_find_repeated(const struct sl_nft_set *set)
{
	for (size_t i = 1; i < set->n; i++)
		if (sl_nft_elem_compare(&set->elems[i - 1], &set->elems[i]) == 0)
			return i;
	return 0;
}

static int compare_elems(const void *a, const void *b)
{
	return sl_nft_elem_compare(a, b);
}

/* Of sets, chains and counters: each begins with its name. */
static int compare_names(const void *a, const void *b)
{
	return strcmp(a, b);
}

static bool is_sorted(const struct sl_nft_set *set)
{
	for (size_t i = 1; i < set->n; i++)
		if (sl_nft_elem_compare(&set->elems[i - 1], &set->elems[i]) > 0)
			return false;
	return true;
}

int sl_nft_ruleset_sort(struct sl_nft_ruleset *rs)
{
	_Static_assert(offsetof(struct sl_nft_set, name) == 0, "compare_names() relies on it");
	_Static_assert(offsetof(struct sl_nft_chain, name) == 0, "compare_names() relies on it");
	_Static_assert(offsetof(struct sl_nft_counter, name) == 0, "compare_names() relies on it");

	if (rs->oom)
		return -ENOMEM;
	for (size_t i = 0; i < rs->n_sets; i++)
		if (!is_sorted(&rs->sets[i]))
			qsort(rs->sets[i].elems, rs->sets[i].n, sizeof(*rs->sets[i].elems),
			      compare_elems);
	if (rs->n_sets)
		qsort(rs->sets, rs->n_sets, sizeof(*rs->sets), compare_names);
	if (rs->n_chains)
		qsort(rs->chains, rs->n_chains, sizeof(*rs->chains), compare_names);
	if (rs->n_counters)
		qsort(rs->counters, rs->n_counters, sizeof(*rs->counters), compare_names);
	return 0;
}

struct sl_nft_set *sl_nft_find_set(const struct sl_nft_ruleset *rs, const char *name)
{
	return rs->n_sets ? bsearch(name, rs->sets, rs->n_sets, sizeof(*rs->sets), compare_names)
			  : NULL;
}

struct sl_nft_chain *sl_nft_find_chain(const struct sl_nft_ruleset *rs, const char *name)
{
	return rs->n_chains
		       ? bsearch(name, rs->chains, rs->n_chains, sizeof(*rs->chains), compare_names)
		       : NULL;
}

bool sl_nft_elem_is_same(const struct sl_nft_ruleset *ra, const struct sl_nft_elem *a,
			 const struct sl_nft_ruleset *rb, const struct sl_nft_elem *b)
{
	return memcmp(a->data, b->data, sizeof(a->data)) == 0 && a->verdict == b->verdict &&
	       strcmp(sl_nft_text(ra, a->name), sl_nft_text(rb, b->name)) == 0 &&
	       strcmp(sl_nft_text(ra, a->comment), sl_nft_text(rb, b->comment)) == 0;
}

bool sl_nft_set_has_same_form(const struct sl_nft_set *a, const struct sl_nft_set *b)
{
	return a->flags == b->flags && a->key_type == b->key_type && a->key_len == b->key_len &&
	       a->data_type == b->data_type && a->data_len == b->data_len &&
	       a->object_type == b->object_type && a->n_fields == b->n_fields &&
	       memcmp(a->field, b->field, sizeof(a->field)) == 0 && a->n_layout == b->n_layout &&
	       memcmp(a->layout, b->layout, sizeof(a->layout)) == 0 && a->size == b->size &&
	       a->timeout_ms == b->timeout_ms;
}

bool sl_nft_chain_has_same_form(const struct sl_nft_chain *a, const struct sl_nft_chain *b)
{
	return a->is_base == b->is_base && strcmp(a->type, b->type) == 0 && a->hook == b->hook &&
	       a->priority == b->priority;
}

bool sl_nft_rule_is_same(const struct sl_nft_ruleset *ra, const struct sl_nft_rule *a,
			 const struct sl_nft_ruleset *rb, const struct sl_nft_rule *b)
{
	return a->n_code == b->n_code &&
	       memcmp(ra->pool.p + a->code, rb->pool.p + b->code, a->n_code) == 0;
}
