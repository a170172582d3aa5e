/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <string.h>

#include "core/match_table.h"

/* Ranks. */

static enum sl_match_address address_of(const struct sl_match_ports *ports)
{
	if (sl_addr_family(&ports->ip) == AF_UNSPEC)
		return SL_MATCH_ANY_ADDRESS;
	return sl_addr_is_any(&ports->ip) ? SL_MATCH_ONE_FAMILY : SL_MATCH_ONE_ADDRESS;
}

/* 16 bits: exact names, then patterns by their literal characters, then none. */
static uint64_t rank_of_name(const char *domain)
{
	uint64_t literals = 0;
	bool has_star = false;

	for (; *domain; domain++) {
		has_star = has_star || *domain == '*';
		literals += *domain != '*';
	}
	if (!has_star)
		return 0xffff;
	return literals < 0xfffd ? literals + 1 : 0xfffe;
}

/* 16 bits: segments that are not a star or a parameter, and slashes; 0 only without a path. */
static uint64_t rank_of_path(const char *path)
{
	uint64_t literals = 0;

	if (!path)
		return 0;
	while (*path) {
		size_t n = strcspn(path + 1, "/") + 1;

		literals++;
		if (path[1] != ':' && !(n == 2 && path[1] == '*'))
			literals += n - 1;
		path += n;
	}
	return literals < 0xfffe ? literals + 1 : 0xffff;
}

static uint64_t rank_low(const struct sl_match_rule *rule, uint32_t index,
			 const struct sl_match_ports *ports)
{
	uint64_t criteria = (uint64_t) !!rule->clients + !!rule->tls_versions + !!rule->n_alpn;

	return (uint64_t)address_of(ports) << 34 | criteria << 32 | (uint32_t)~index;
}

/* Hash tables. */

/* A power of two, so that at most half is taken. */
static uint64_t table_size(uint64_t n)
{
	uint64_t size = 4;

	while (size < n * 2)
		size *= 2;
	return size;
}

struct sl_match_slot *sl_match_find_slot(const struct sl_matcher *m, enum sl_match_kind kind,
					 struct sl_slice text, uint64_t hash)
{
	uint64_t mixed = sl_match_mix(hash + (uint64_t)kind);
	uint32_t tag = (uint32_t)(mixed >> 32);

	for (size_t i = mixed & m->slot_mask;; i = (i + 1) & m->slot_mask) {
		struct sl_match_slot *slot = &m->slots[i];
		const struct sl_match_group *g = &m->groups[slot->group];

		if (!slot->group || (slot->hash == tag && g->kind == kind && g->len == text.n &&
				     memcmp(g->text, text.p, text.n) == 0))
			return slot;
	}
}

struct sl_match_list *sl_match_find_list(const struct sl_matcher *m, uint64_t key)
{
	for (size_t i = sl_match_mix(key) & m->list_mask;; i = (i + 1) & m->list_mask)
		if (!m->lists[i].key || m->lists[i].key == key)
			return &m->lists[i];
}

static uint64_t hash_text(enum sl_match_kind kind, struct sl_slice text)
{
	uint64_t hash = SL_MATCH_HASH_BEGIN;

	for (size_t i = 0; i < text.n; i++)
		hash = sl_match_hash_add(hash,
					 text.p[sl_match_is_from_end(kind) ? text.n - 1 - i : i]);
	return hash;
}

/* `index`: of the group, unless there is one with that text. Returns the group's. */
static uint32_t put_slot(struct sl_matcher *m, enum sl_match_kind kind, struct sl_slice text,
			 uint32_t index)
{
	uint64_t hash = hash_text(kind, text);
	struct sl_match_slot *slot = sl_match_find_slot(m, kind, text, hash);

	if (!slot->group) {
		slot->hash = (uint32_t)(sl_match_mix(hash + (uint64_t)kind) >> 32);
		slot->group = index;
	}
	return slot->group;
}

static uint32_t group_for(struct sl_matcher *m, enum sl_match_kind kind, struct sl_slice text)
{
	uint32_t group = put_slot(m, kind, text, m->n_groups);

	if (group == m->n_groups)
		m->groups[m->n_groups++] = (struct sl_match_group){
			.text = text.p,
			.len = (uint32_t)text.n,
			.kind = kind,
		};
	return group;
}

/* Names to groups. */

static struct sl_slice head_of(const char *domain)
{
	return (struct sl_slice){ .p = domain, .n = strcspn(domain, "*") };
}

static struct sl_slice tail_of(const char *domain)
{
	return sl_slice_of(strrchr(domain, '*') + 1);
}

static enum sl_match_kind kind_of(const char *domain)
{
	const char *star = strchr(domain, '*');

	if (!star)
		return SL_MATCH_EXACT;
	if (star == domain && star[1] == '.' && !strchr(star + 1, '*'))
		return SL_MATCH_SUFFIX;
	if (star > domain && star[-1] == '.' && !star[1])
		return SL_MATCH_PREFIX;
	return SL_MATCH_TAIL; /* or head */
}

static uint32_t simple_group(struct sl_matcher *m, const char *domain, enum sl_match_kind kind)
{
	if (kind == SL_MATCH_SUFFIX)
		return group_for(m, kind, tail_of(domain));
	return group_for(m, kind, head_of(domain));
}

/*
 * What a glob can be found by: its head, its tail, and each label between dots or ends that has no
 * star, because a name that matches has the same label. One at a time; false after the last.
 * A glob without any ("*x*") has its empty tail.
 */
struct handles {
	const char *domain;
	const char *label; /* the next to be looked at */
	bool had_head;
	bool had_tail;
	bool had_any;
};

struct handle {
	enum sl_match_kind kind;
	struct sl_slice text;
};

static bool next_handle(struct handles *h, struct handle *ret)
{
	if (!h->had_head) {
		h->had_head = true;
		*ret = (struct handle){ .kind = SL_MATCH_HEAD, .text = head_of(h->domain) };
		if (ret->text.n)
			return h->had_any = true;
	}
	while (h->label) {
		const char *label = h->label;
		size_t n = strcspn(label, ".*");

		h->label = strchr(label, '.');
		if (h->label)
			h->label++;
		*ret = (struct handle){ .kind = SL_MATCH_LABEL, .text = { .p = label, .n = n } };
		if (n && label[n] != '*')
			return h->had_any = true;
	}
	if (h->had_tail)
		return false;
	h->had_tail = true;
	*ret = (struct handle){ .kind = SL_MATCH_TAIL, .text = tail_of(h->domain) };
	return ret->text.n || !h->had_any;
}

static struct handles handles_of(const char *domain)
{
	return (struct handles){ .domain = domain, .label = domain };
}

static void count_glob(struct sl_matcher *m, const char *domain)
{
	struct handles h = handles_of(domain);
	struct handle handle;

	while (next_handle(&h, &handle))
		m->groups[group_for(m, handle.kind, handle.text)].n_globs++;
}

/*
 * The handle that fewest globs share: "tenant1-*.example.com" is found by its head,
 * "api-*.tenant1.com" by its tail, "api-*.tenant1.*" by its label.
 */
static uint32_t glob_group(struct sl_matcher *m, const char *domain)
{
	struct handles h = handles_of(domain);
	uint32_t fewest = UINT32_MAX;
	struct handle handle;
	uint32_t found = 0;

	while (next_handle(&h, &handle)) {
		uint32_t group = group_for(m, handle.kind, handle.text);

		if (m->groups[group].n_globs < fewest) {
			fewest = m->groups[group].n_globs;
			found = group;
		}
	}
	return found;
}

/* At most so many groups come into being for it. */
static uint64_t count_handles(const char *domain)
{
	struct handles h = handles_of(domain);
	struct handle handle;
	uint64_t n = 0;

	while (next_handle(&h, &handle))
		n++;
	return n;
}

static void note_length(struct sl_matcher *m, const struct sl_match_group *g)
{
	uint32_t n = g->len < 255 ? g->len : 255;

	m->lengths[g->kind][n / 64] |= UINT64_C(1) << n % 64;
}

static void group_names(struct sl_matcher *m)
{
	uint32_t *group_of = m->group_of;

	for (uint32_t i = 0; i < m->n_rules; i++)
		for (size_t d = 0; m->rules[i].enabled && d < m->rules[i].n_domains; d++)
			if (kind_of(m->rules[i].domains[d]) == SL_MATCH_TAIL)
				count_glob(m, m->rules[i].domains[d]);
	for (uint32_t i = 0; i < m->n_rules; i++) {
		for (size_t d = 0; m->rules[i].enabled && d < m->rules[i].n_domains; d++) {
			const char *domain = m->rules[i].domains[d];
			enum sl_match_kind kind = kind_of(domain);
			uint32_t group = kind == SL_MATCH_TAIL ? glob_group(m, domain)
							       : simple_group(m, domain, kind);

			note_length(m, &m->groups[group]);
			*group_of++ = group;
		}
	}
}

/* Entries, told to a function one by one. */

typedef void (*entry_fn)(struct sl_matcher *m, uint32_t group, uint32_t block,
			 const struct sl_match_entry *e);

/* The next block of the ports from `*from` to `to`; moves `*from` after it. */
static uint32_t next_block(uint32_t *from, uint32_t to)
{
	unsigned aligned = *from ? (unsigned)__builtin_ctz(*from) : 16;
	unsigned fits = 31 - (unsigned)__builtin_clz(to - *from + 1);
	unsigned free_bits = aligned < fits ? aligned : fits;
	uint32_t block = sl_match_block((uint16_t)*from, 16 - free_bits);

	*from += UINT32_C(1) << free_bits;
	return block;
}

static void each_block(struct sl_matcher *m, uint32_t group, const struct sl_match_ports *ports,
		       const struct sl_match_entry *e, entry_fn fn)
{
	for (uint32_t from = ports->from; from <= ports->to;)
		fn(m, group, next_block(&from, ports->to), e);
}

/* `group_of`: of the rule's domains. */
static void each_entry_of(struct sl_matcher *m, uint32_t index, const uint32_t *group_of,
			  entry_fn fn)
{
	const struct sl_match_rule *rule = &m->rules[index];
	uint64_t base = (uint64_t)rule->priority << 32 | rank_of_path(rule->path);
	bool needs_bytes = sl_match_rule_needs_bytes(rule);

	for (uint32_t p = 0; p < rule->n_ports; p++) {
		struct sl_match_entry e = { .port = p };
		uint64_t best = 0;

		e.low = rank_low(rule, index, &rule->ports[p]);
		for (uint32_t d = 0; d < rule->n_domains; d++) {
			uint64_t name = rank_of_name(rule->domains[d]);

			e.name = d;
			e.high = base | name << 16;
			best = name > best ? name : best;
			each_block(m, group_of[d], &rule->ports[p], &e, fn);
		}
		e.name = 0;
		e.high = base | best << 16;
		if (!rule->n_domains)
			each_block(m, needs_bytes ? SL_MATCH_BYTES : SL_MATCH_PLAIN,
				   &rule->ports[p], &e, fn);
		if (needs_bytes)
			each_block(m, SL_MATCH_WAIT, &rule->ports[p], &e, fn);
	}
}

static void each_entry(struct sl_matcher *m, entry_fn fn)
{
	const uint32_t *group_of = m->group_of;

	for (uint32_t i = 0; i < m->n_rules; i++) {
		if (!m->rules[i].enabled)
			continue;
		each_entry_of(m, i, group_of, fn);
		group_of += m->rules[i].n_domains;
	}
}

static void count_entry(struct sl_matcher *m, uint32_t group, uint32_t block,
			const struct sl_match_entry *e)
{
	uint64_t key = sl_match_list_key(group, block);
	struct sl_match_list *list = sl_match_find_list(m, key);
	struct sl_match_group *g = &m->groups[group];

	(void)e;
	if (!list->key) {
		list->key = key;
		g->n_lists++;
		g->levels |= UINT32_C(1) << (31 - __builtin_clz(block));
	}
	list->count++;
}

static void place_entry(struct sl_matcher *m, uint32_t group, uint32_t block,
			const struct sl_match_entry *e)
{
	struct sl_match_list *list = sl_match_find_list(m, sl_match_list_key(group, block));

	m->entries[list->first + list->count++] = *e;
}

/* Groups that are in use move to a table of their size: fewer cache lines to look at. */
static void shrink_slots(struct sl_matcher *m)
{
	uint64_t used = 0;

	for (uint32_t i = SL_MATCH_NAMELESS_COUNT_; i < m->n_groups; i++)
		used += m->groups[i].n_lists > 0;
	m->slot_mask = table_size(used) - 1;
	memset(m->slots, 0, (m->slot_mask + 1) * sizeof(*m->slots));
	for (uint32_t i = SL_MATCH_NAMELESS_COUNT_; i < m->n_groups; i++) {
		const struct sl_match_group *g = &m->groups[i];

		if (g->n_lists)
			(void)put_slot(m, g->kind, (struct sl_slice){ .p = g->text, .n = g->len },
				       i);
	}
}

/* Counts become places; counting begins anew with place_entry(). */
static void lay_out(struct sl_matcher *m)
{
	uint32_t sum = 0;

	for (size_t i = 0; i <= m->list_mask; i++) {
		m->lists[i].first = sum;
		sum += m->lists[i].count;
		m->lists[i].count = 0;
	}
}

static void sift(struct sl_match_entry *e, size_t i, size_t n)
{
	for (size_t child; (child = 2 * i + 1) < n; i = child) {
		struct sl_match_entry t = e[i];

		if (child + 1 < n && sl_match_entry_precedes(&e[child], &e[child + 1]))
			child++;
		if (!sl_match_entry_precedes(&e[i], &e[child]))
			return;
		e[i] = e[child];
		e[child] = t;
	}
}

/* Best first, by heap: n log n whatever the order was. */
static void sort_entries(struct sl_match_entry *e, size_t n)
{
	for (size_t i = n / 2; i-- > 0;)
		sift(e, i, n);
	for (size_t end = n; end-- > 1;) {
		struct sl_match_entry t = e[0];

		e[0] = e[end];
		e[end] = t;
		sift(e, 0, end);
	}
}

static void finish_lists(struct sl_matcher *m)
{
	for (size_t i = 0; i <= m->list_mask; i++) {
		const struct sl_match_list *list = &m->lists[i];
		struct sl_match_group *g = &m->groups[list->key >> 17];

		if (!list->key)
			continue;
		sort_entries(&m->entries[list->first], list->count);
		if (g->n_lists == 1) {
			g->block = (uint32_t)(list->key & 0x1ffff);
			g->first = list->first;
			g->count = list->count;
			g->best = m->entries[list->first];
		}
	}
}

static void mark_ports(uint64_t *words, unsigned from, unsigned to)
{
	for (unsigned w = from / 64; w <= to / 64; w++) {
		unsigned low = w == from / 64 ? from % 64 : 0;
		unsigned high = w == to / 64 ? to % 64 : 63;

		words[w] |= UINT64_MAX >> (63 - high + low) << low;
	}
}

static void mark_addresses(struct sl_matcher *m)
{
	for (uint32_t i = 0; i < m->n_rules; i++) {
		const struct sl_match_rule *rule = &m->rules[i];

		for (size_t p = 0; rule->enabled && p < rule->n_ports; p++)
			if (address_of(&rule->ports[p]) != SL_MATCH_ANY_ADDRESS &&
			    rule->ports[p].from <= rule->ports[p].to)
				mark_ports(m->needs_ip, rule->ports[p].from, rule->ports[p].to);
	}
}

/* The block. */

/* Numbers of items, and where in the block they begin. */
struct plan {
	uint64_t groups;
	uint64_t slots;
	uint64_t lists;
	uint64_t entries;
	uint64_t names;
	size_t groups_at;
	size_t slots_at;
	size_t lists_at;
	size_t entries_at;
	size_t names_at;
	size_t size;
};

static uint64_t count_blocks(const struct sl_match_rule *rule)
{
	uint64_t n = 0;

	for (size_t i = 0; i < rule->n_ports; i++)
		for (uint32_t from = rule->ports[i].from; from <= rule->ports[i].to; n++)
			(void)next_block(&from, rule->ports[i].to);
	return n;
}

/* Everything in the block is made of words of 8 bytes. */
static size_t place(size_t *end, uint64_t n, size_t size)
{
	size_t at = *end;

	*end += (n * size + 7) & ~(size_t)7;
	return at;
}

static bool count_rule(const struct sl_match_rule *rule, struct plan *p)
{
	uint64_t blocks;

	if (rule->n_ports > UINT32_MAX || rule->n_domains >= UINT32_MAX)
		return false;
	blocks = count_blocks(rule);
	if (blocks > UINT32_MAX || blocks * (rule->n_domains + 1) > UINT32_MAX)
		return false;
	p->entries += blocks * (rule->n_domains ? rule->n_domains : 1);
	if (sl_match_rule_needs_bytes(rule))
		p->entries += blocks;
	p->names += rule->n_domains;
	if (p->entries > UINT32_MAX || p->names > UINT32_MAX)
		return false;
	for (size_t d = 0; d < rule->n_domains; d++)
		p->groups += kind_of(rule->domains[d]) == SL_MATCH_TAIL
				     ? count_handles(rule->domains[d])
				     : 1;
	return p->groups <= UINT32_MAX;
}

/* False when indices would not fit. */
static bool make_plan(const struct sl_match_rule *rules, size_t n, struct plan *ret)
{
	struct plan p = { .groups = SL_MATCH_NAMELESS_COUNT_ };

	if (n >= SL_NEED_BYTES)
		return false;
	for (size_t i = 0; i < n; i++)
		if (rules[i].enabled && !count_rule(&rules[i], &p))
			return false;
	p.slots = table_size(p.groups);
	p.lists = table_size(p.entries);
	(void)place(&p.size, 1, sizeof(struct sl_matcher));
	p.groups_at = place(&p.size, p.groups + 1, SL_MATCH_GROUP_ALIGN);
	p.slots_at = place(&p.size, p.slots, sizeof(struct sl_match_slot));
	p.lists_at = place(&p.size, p.lists, sizeof(struct sl_match_list));
	p.entries_at = place(&p.size, p.entries, sizeof(struct sl_match_entry));
	p.names_at = place(&p.size, p.names, sizeof(uint32_t));
	*ret = p;
	return true;
}

size_t sl_matcher_size(const struct sl_match_rule *rules, size_t n)
{
	struct plan p;

	return make_plan(rules, n, &p) ? p.size : 0;
}

struct sl_matcher *sl_matcher_fill(void *block, const struct sl_match_rule *rules, size_t n)
{
	struct sl_matcher *m = block;
	char *start = block;
	struct plan p;

	if (!make_plan(rules, n, &p))
		return NULL;
	memset(m, 0, sizeof(*m));
	m->rules = rules;
	m->n_rules = (uint32_t)n;
	m->groups = (struct sl_match_group *)(((uintptr_t)start + p.groups_at +
					       SL_MATCH_GROUP_ALIGN - 1) &
					      ~(uintptr_t)(SL_MATCH_GROUP_ALIGN - 1));
	m->slots = (struct sl_match_slot *)(void *)(start + p.slots_at);
	m->lists = (struct sl_match_list *)(void *)(start + p.lists_at);
	m->entries = (struct sl_match_entry *)(void *)(start + p.entries_at);
	m->group_of = (uint32_t *)(void *)(start + p.names_at);
	m->slot_mask = p.slots - 1;
	m->list_mask = p.lists - 1;
	m->n_groups = SL_MATCH_NAMELESS_COUNT_;
	memset(m->groups, 0, SL_MATCH_NAMELESS_COUNT_ * sizeof(*m->groups));
	memset(m->slots, 0, p.slots * sizeof(*m->slots));
	memset(m->lists, 0, p.lists * sizeof(*m->lists));
	group_names(m);
	each_entry(m, count_entry);
	shrink_slots(m);
	lay_out(m);
	each_entry(m, place_entry);
	finish_lists(m);
	mark_addresses(m);
	return m;
}
