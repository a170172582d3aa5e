/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/others.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <stdio.h> /* libnftnl needs it */

#include <libnftnl/chain.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

#include "nft/attr.h"

/* What a dump fills. A callback ends it by returning an error. */
struct reader {
	struct sl_nft_others *all;
	const char *ours;
	struct sl_nft_others_table *table;
	struct sl_nft_others_set *set;
	uint8_t family;
};

/* Room for one more, zeroed; NULL: out of memory. */
static void *grow(void *array, size_t n, size_t *cap, size_t size)
{
	uint8_t *p = array;

	if (n == *cap) {
		size_t more = *cap ? *cap * 2 : 8;

		p = reallocarray(array, more, size);
		if (!p)
			return NULL;
		*cap = more;
	}
	memset(p + n * size, 0, size);
	return p;
}

#define ADD(array, n, cap)                                               \
	({                                                               \
		void *p_ = grow((array), (n), &(cap), sizeof(*(array))); \
		if (p_)                                                  \
			(array) = p_;                                    \
		p_ ? &(array)[(n)++] : NULL;                             \
	})

static int on_table(const struct nlmsghdr *nlh, void *arg)
{
	struct reader *rd = arg;
	struct nftnl_table *t = nftnl_table_alloc();
	struct sl_nft_others_table *ret;
	const char *name;
	int r = 0;

	if (!t || nftnl_table_nlmsg_parse(nlh, t) < 0) {
		r = -ENOMEM;
	} else {
		name = nftnl_table_get_str(t, NFTNL_TABLE_NAME);
		if (rd->family != NFPROTO_INET || strcmp(name, rd->ours) != 0) {
			ret = ADD(rd->all->tables, rd->all->n, rd->all->cap);
			if (ret) {
				ret->family = rd->family;
				ret->is_dormant = nftnl_table_get_u32(t, NFTNL_TABLE_FLAGS) &
						  NFT_TABLE_F_DORMANT;
				snprintf(ret->name, sizeof(ret->name), "%s", name);
			}
			r = ret ? 0 : -ENOMEM;
		}
	}
	if (t)
		nftnl_table_free(t);
	return r;
}

static bool is_of(const struct reader *rd, const char *table)
{
	return table && strcmp(table, rd->table->name) == 0;
}

static int on_chain(const struct nlmsghdr *nlh, void *arg)
{
	struct reader *rd = arg;
	struct nftnl_chain *c = nftnl_chain_alloc();
	struct sl_nft_others_chain *ret;
	const char *type;
	int r = 0;

	if (!c || nftnl_chain_nlmsg_parse(nlh, c) < 0) {
		r = -ENOMEM;
	} else if (is_of(rd, nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE))) {
		ret = ADD(rd->table->chains, rd->table->n, rd->table->cap);
		if (ret) {
			snprintf(ret->name, sizeof(ret->name), "%s",
				 nftnl_chain_get_str(c, NFTNL_CHAIN_NAME));
			ret->is_base = nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM);
			ret->hook = nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM);
			ret->priority = nftnl_chain_get_s32(c, NFTNL_CHAIN_PRIO);
			type = nftnl_chain_get_str(c, NFTNL_CHAIN_TYPE);
			ret->is_nat = type && strcmp(type, "nat") == 0;
			ret->drops = ret->is_base &&
				     nftnl_chain_get_u32(c, NFTNL_CHAIN_POLICY) == NF_DROP;
		}
		r = ret ? 0 : -ENOMEM;
	}
	if (c)
		nftnl_chain_free(c);
	return r;
}

static int on_set(const struct nlmsghdr *nlh, void *arg)
{
	struct reader *rd = arg;
	struct nftnl_set *s = nftnl_set_alloc();
	struct sl_nft_others_set *ret;
	uint32_t flags;
	int r = 0;

	if (!s || nftnl_set_nlmsg_parse(nlh, s) < 0) {
		r = -ENOMEM;
	} else if (is_of(rd, nftnl_set_get_str(s, NFTNL_SET_TABLE))) {
		ret = ADD(rd->table->sets, rd->table->n_sets, rd->table->cap_sets);
		if (ret) {
			flags = nftnl_set_get_u32(s, NFTNL_SET_FLAGS);
			snprintf(ret->name, sizeof(ret->name), "%s",
				 nftnl_set_get_str(s, NFTNL_SET_NAME));
			ret->is_interval = flags & NFT_SET_INTERVAL;
			ret->is_vague = (flags & (NFT_SET_EVAL | NFT_SET_TIMEOUT)) ||
					(ret->is_interval && (flags & NFT_SET_CONCAT));
		}
		r = ret ? 0 : -ENOMEM;
	}
	if (s)
		nftnl_set_free(s);
	return r;
}

static int on_rule(const struct nlmsghdr *nlh, void *arg)
{
	struct reader *rd = arg;
	struct nftnl_rule *rule = nftnl_rule_alloc(), **place;
	struct sl_nft_others_chain *c;
	int r = 0;

	if (!rule || nftnl_rule_nlmsg_parse(nlh, rule) < 0) {
		r = -ENOMEM;
	} else if (is_of(rd, nftnl_rule_get_str(rule, NFTNL_RULE_TABLE))) {
		c = (struct sl_nft_others_chain *)sl_nft_others_find_chain(
			rd->table, nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN));
		if (rd->all->n_rules++ >= SL_NFT_OTHERS_RULES) {
			r = -E2BIG;
		} else if (c) {
			place = ADD(c->rules, c->n, c->cap);
			if (place)
				*place = SL_TAKE_PTR(rule);
			r = place ? 0 : -ENOMEM;
		} /* else: the chain is newer than our list of chains, the generation tells */
	}
	if (rule)
		nftnl_rule_free(rule);
	return r;
}

static int read_verdict(struct sl_nft_member *m, const struct nlattr *data)
{
	struct sl_attrs attrs = sl_attrs_in(data);
	const struct nlattr *a = sl_attrs_next(&attrs);

	if (!a || mnl_attr_get_type(a) != NFTA_DATA_VERDICT)
		return 0;
	attrs = sl_attrs_in(a);
	while ((a = sl_attrs_next(&attrs))) {
		if (mnl_attr_get_type(a) == NFTA_VERDICT_CODE)
			m->verdict = (int32_t)ntohl(mnl_attr_get_u32(a));
		if (mnl_attr_get_type(a) == NFTA_VERDICT_CHAIN && !m->chain)
			m->chain = strdup(mnl_attr_get_str(a));
		if (mnl_attr_get_type(a) == NFTA_VERDICT_CHAIN && !m->chain)
			return -ENOMEM;
	}
	return 0;
}

static void read_key(struct sl_nft_member *m, const struct nlattr *nest)
{
	struct sl_attrs attrs = sl_attrs_in(nest);
	const struct nlattr *a = sl_attrs_next(&attrs);
	size_t n = a ? mnl_attr_get_payload_len(a) : 0;

	if (a && mnl_attr_get_type(a) == NFTA_DATA_VALUE && n <= sizeof(m->key)) {
		memcpy(m->key, mnl_attr_get_payload(a), n);
		m->len = (uint8_t)n;
	}
}

static int read_member(struct sl_nft_others_set *set, const struct nlattr *nest)
{
	struct sl_attrs attrs = sl_attrs_in(nest);
	struct sl_nft_member *m;
	const struct nlattr *a;
	uint32_t flags;
	int r = 0;

	if (set->n >= SL_NFT_OTHERS_MEMBERS) {
		set->is_vague = true;
		return 1; /* enough */
	}
	m = ADD(set->members, set->n, set->cap);
	if (!m)
		return -ENOMEM;
	while (r == 0 && (a = sl_attrs_next(&attrs))) {
		switch (mnl_attr_get_type(a)) {
		case NFTA_SET_ELEM_KEY:
			read_key(m, a);
			break;
		case NFTA_SET_ELEM_FLAGS:
			flags = ntohl(mnl_attr_get_u32(a));
			m->is_end = flags & NFT_SET_ELEM_INTERVAL_END;
			m->is_catch_all = flags & NFT_SET_ELEM_CATCHALL;
			break;
		case NFTA_SET_ELEM_DATA:
			r = read_verdict(m, a);
			break;
		default:
			break;
		}
	}
	return r;
}

static int on_members(const struct nlmsghdr *nlh, void *arg)
{
	struct reader *rd = arg;
	struct sl_attrs attrs = sl_attrs_of(nlh, sizeof(struct nfgenmsg)), members;
	const struct nlattr *a;
	int r = 0;

	while (r == 0 && (a = sl_attrs_next(&attrs))) {
		if (mnl_attr_get_type(a) != NFTA_SET_ELEM_LIST_ELEMENTS)
			continue;
		members = sl_attrs_in(a);
		while (r == 0 && (a = sl_attrs_next(&members)))
			r = read_member(rd->set, a);
		break;
	}
	return r;
}

static int compare_chains(const void *a, const void *b)
{
	return strcmp(((const struct sl_nft_others_chain *)a)->name,
		      ((const struct sl_nft_others_chain *)b)->name);
}

static int compare_sets(const void *a, const void *b)
{
	return strcmp(((const struct sl_nft_others_set *)a)->name,
		      ((const struct sl_nft_others_set *)b)->name);
}

const struct sl_nft_others_chain *sl_nft_others_find_chain(const struct sl_nft_others_table *t,
							   const char *name)
{
	struct sl_nft_others_chain key;

	if (!name || t->n == 0)
		return NULL;
	snprintf(key.name, sizeof(key.name), "%s", name);
	return bsearch(&key, t->chains, t->n, sizeof(key), compare_chains);
}

const struct sl_nft_others_set *sl_nft_others_find_set(const struct sl_nft_others_table *t,
						       const char *name)
{
	struct sl_nft_others_set key;

	if (!name || t->n_sets == 0)
		return NULL;
	snprintf(key.name, sizeof(key.name), "%s", name);
	return bsearch(&key, t->sets, t->n_sets, sizeof(key), compare_sets);
}

static int read_kind(struct sl_nft_socket *s, struct reader *rd, uint16_t type, sl_nft_answer_fn fn)
{
	const struct sl_nft_request q = {
		.type = type, .is_dump = true, .family = rd->family, .table = rd->table->name
	};

	return sl_nft_socket_ask(s, &q, fn, rd);
}

static int read_members(struct sl_nft_socket *s, struct reader *rd)
{
	for (size_t i = 0; i < rd->table->n_sets; i++) {
		struct sl_nft_others_set *set = &rd->table->sets[i];
		const struct sl_nft_request q = { .type = NFT_MSG_GETSETELEM,
						  .is_dump = true,
						  .family = rd->family,
						  .table = rd->table->name,
						  .attr = NFTA_SET_ELEM_LIST_SET,
						  .name = set->name };
		int r;

		if (set->is_vague)
			continue;
		rd->set = set;
		r = sl_nft_socket_ask(s, &q, on_members, rd);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_table(struct sl_nft_socket *s, struct reader *rd)
{
	int r = read_kind(s, rd, NFT_MSG_GETCHAIN, on_chain);

	if (r == 0 && rd->table->n)
		qsort(rd->table->chains, rd->table->n, sizeof(*rd->table->chains), compare_chains);
	if (r == 0)
		r = read_kind(s, rd, NFT_MSG_GETRULE, on_rule);
	if (r == 0)
		r = read_kind(s, rd, NFT_MSG_GETSET, on_set);
	if (r == 0 && rd->table->n_sets)
		qsort(rd->table->sets, rd->table->n_sets, sizeof(*rd->table->sets), compare_sets);
	return r ? r : read_members(s, rd);
}

int sl_nft_others_read(struct sl_nft_socket *s, const char *ours, struct sl_nft_others **ret)
{
	static const uint8_t families[] = { NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_INET };
	_cleanup_(sl_nft_others_freep) struct sl_nft_others *o = calloc(1, sizeof(*o));
	struct reader rd = { .all = o, .ours = ours };
	uint32_t before, after;
	int r = o ? sl_nft_socket_generation(s, &before) : -ENOMEM;

	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(families); i++) {
		const struct sl_nft_request q = { .type = NFT_MSG_GETTABLE,
						  .is_dump = true,
						  .family = families[i] };

		rd.family = families[i];
		r = sl_nft_socket_ask(s, &q, on_table, &rd);
	}
	for (size_t i = 0; r == 0 && i < o->n; i++) {
		rd.table = &o->tables[i];
		rd.family = rd.table->family;
		r = read_table(s, &rd);
		if (r == -ENOENT)
			r = -EINTR; /* gone since we were told of it */
	}
	if (r == 0)
		r = sl_nft_socket_generation(s, &after);
	if (r == 0 && before != after)
		r = -EINTR;
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(o);
	return 0;
}

void sl_nft_others_free(struct sl_nft_others *o)
{
	if (!o)
		return;
	for (size_t i = 0; i < o->n; i++) {
		struct sl_nft_others_table *t = &o->tables[i];

		for (size_t k = 0; k < t->n; k++) {
			for (size_t j = 0; j < t->chains[k].n; j++)
				nftnl_rule_free(t->chains[k].rules[j]);
			free(t->chains[k].rules);
		}
		for (size_t k = 0; k < t->n_sets; k++) {
			for (size_t j = 0; j < t->sets[k].n; j++)
				free(t->sets[k].members[j].chain);
			free(t->sets[k].members);
		}
		free(t->chains);
		free(t->sets);
	}
	free(o->tables);
	free(o);
}
