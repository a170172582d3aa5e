/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/encode.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <stdio.h> /* libnftnl needs it */

#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/flowtable.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "nft/attr.h"
#include "nft/codec.h"
#include "nft/expr.h"

/* A list of elements has a length of 16 bits; every message fits into the room made for it. */
#define LIST_MAX 60000
#define ROOM (1u << 17)

#define UDATA_MAX 255 /* bytes of user data */

void sl_nft_batch_done(struct sl_nft_batch *b)
{
	free(b->buf);
	free(b->messages);
	*b = (struct sl_nft_batch){ 0 };
}

/* Where the next message begins, with ROOM behind it; NULL: out of memory. */
static char *room(struct sl_nft_batch *b)
{
	if (b->cap - b->len < ROOM) {
		size_t cap = b->cap ? b->cap * 2 : 4 * ROOM;
		uint8_t *buf = realloc(b->buf, cap);

		if (!buf) {
			b->oom = true;
			return NULL;
		}
		b->buf = buf;
		b->cap = cap;
	}
	return (char *)b->buf + b->len;
}

static void begin(struct sl_nft_batch *b, uint32_t generation)
{
	char *p = room(b);
	struct nlmsghdr *nlh;

	if (!p)
		return;
	nlh = nftnl_batch_begin(p, b->seq);
	mnl_attr_put_u32(nlh, NFNL_BATCH_GENID, htonl(generation));
	b->len += NLMSG_ALIGN(nlh->nlmsg_len);
}

static struct nlmsghdr *begin_message(struct sl_nft_batch *b, uint16_t type, uint16_t flags)
{
	char *p = room(b);

	if (!p)
		return NULL;
	return nftnl_nlmsg_build_hdr(p, type, NFPROTO_INET, flags, b->seq + 1 + (uint32_t)b->n);
}

static void end_message(struct sl_nft_batch *b, struct nlmsghdr *nlh, size_t op, size_t n_ops)
{
	if (b->n == b->cap_messages) {
		size_t cap = b->cap_messages ? b->cap_messages * 2 : 64;
		struct sl_nft_message *m = reallocarray(b->messages, cap, sizeof(*m));

		if (!m) {
			b->oom = true;
			return;
		}
		b->messages = m;
		b->cap_messages = cap;
	}
	b->messages[b->n++] =
		(struct sl_nft_message){ (uint32_t)b->len, nlh->nlmsg_len, op, n_ops };
	b->len += NLMSG_ALIGN(nlh->nlmsg_len);
}

/*
 * Success is silent unless the last message asks for an answer (older kernels ignore the
 * flag at the end of the batch).
 */
static void end(struct sl_nft_batch *b)
{
	char *p = room(b);
	struct nlmsghdr *nlh;

	if (!p || b->n == 0)
		return;
	nlh = (struct nlmsghdr *)(void *)(b->buf + b->messages[b->n - 1].offset);
	nlh->nlmsg_flags |= NLM_F_ACK;
	nlh = nftnl_batch_end(p, b->seq + 1 + (uint32_t)b->n);
	b->len += NLMSG_ALIGN(nlh->nlmsg_len);
}

/* User data: what there is already, and a comment. Returns the length. */
static uint32_t user_data(uint8_t buf[2 * UDATA_MAX], const uint8_t *before, size_t n_before,
			  uint8_t type, const char *comment)
{
	size_t len = strnlen(comment, 128) + 1, n = n_before;

	if (n_before)
		memcpy(buf, before, n_before);
	if (len > 1) {
		buf[n++] = type;
		buf[n++] = (uint8_t)len;
		memcpy(buf + n, comment, len - 1);
		n += len;
		buf[n - 1] = 0;
	}
	return (uint32_t)n;
}

static void put_table(struct sl_nft_batch *b, const struct sl_nft_encode *e, uint16_t type,
		      uint32_t flags, size_t op)
{
	struct nftnl_table *t = nftnl_table_alloc();
	struct nlmsghdr *nlh = begin_message(b, type, type == NFT_MSG_NEWTABLE ? NLM_F_CREATE : 0);
	uint8_t udata[2 * UDATA_MAX];
	uint32_t n = 0;

	if (!t || !nlh) {
		b->oom = true;
	} else {
		nftnl_table_set_str(t, NFTNL_TABLE_NAME, e->table);
		if (type == NFT_MSG_NEWTABLE) {
			n = user_data(udata, NULL, 0, SL_NFT_UDATA_COMMENT,
				      e->wanted ? sl_nft_text(e->wanted, e->wanted->comment) : "");
			nftnl_table_set_u32(t, NFTNL_TABLE_FLAGS, flags);
			if (n)
				(void)nftnl_table_set_data(t, NFTNL_TABLE_USERDATA, udata, n);
		}
		nftnl_table_nlmsg_build_payload(nlh, t);
		end_message(b, nlh, op, 1);
	}
	if (t)
		nftnl_table_free(t);
}

static void describe_set(struct nftnl_set *s, const struct sl_nft_set *set, const char *comment,
			 uint32_t id)
{
	uint8_t udata[2 * UDATA_MAX];
	uint32_t n;

	nftnl_set_set_u32(s, NFTNL_SET_FLAGS, set->flags);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, set->key_type);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, set->key_len);
	nftnl_set_set_u32(s, NFTNL_SET_ID, id);
	if (set->flags & NFT_SET_MAP) {
		nftnl_set_set_u32(s, NFTNL_SET_DATA_TYPE, set->data_type);
		nftnl_set_set_u32(s, NFTNL_SET_DATA_LEN, set->data_len);
	}
	if (set->object_type)
		nftnl_set_set_u32(s, NFTNL_SET_OBJ_TYPE, set->object_type);
	if (set->size)
		nftnl_set_set_u32(s, NFTNL_SET_DESC_SIZE, set->size);
	if (set->timeout_ms)
		nftnl_set_set_u64(s, NFTNL_SET_TIMEOUT, set->timeout_ms);
	/* on a concatenation without intervals the kernel refuses it */
	if (set->n_fields)
		(void)nftnl_set_set_data(s, NFTNL_SET_DESC_CONCAT, set->field, set->n_fields);
	n = user_data(udata, set->layout, set->n_layout, SL_NFT_UDATA_SET_COMMENT, comment);
	(void)nftnl_set_set_data(s, NFTNL_SET_USERDATA, udata, n);
}

static void put_set(struct sl_nft_batch *b, const struct sl_nft_encode *e,
		    const struct sl_nft_ruleset *rs, const struct sl_nft_set *set, uint16_t type,
		    size_t op)
{
	struct nftnl_set *s = nftnl_set_alloc();
	struct nlmsghdr *nlh = begin_message(b, type, type == NFT_MSG_NEWSET ? NLM_F_CREATE : 0);

	if (!s || !nlh) {
		b->oom = true;
	} else {
		(void)nftnl_set_set_str(s, NFTNL_SET_TABLE, e->table);
		(void)nftnl_set_set_str(s, NFTNL_SET_NAME, set->name);
		if (type == NFT_MSG_NEWSET)
			describe_set(s, set, sl_nft_text(rs, set->comment), (uint32_t)op + 1);
		nftnl_set_nlmsg_build_payload(nlh, s);
		end_message(b, nlh, op, 1);
	}
	if (s)
		nftnl_set_free(s);
}

static void put_chain(struct sl_nft_batch *b, const struct sl_nft_encode *e,
		      const struct sl_nft_ruleset *rs, const struct sl_nft_chain *chain,
		      uint16_t type, size_t op)
{
	struct nftnl_chain *c = nftnl_chain_alloc();
	struct nlmsghdr *nlh = begin_message(b, type, type == NFT_MSG_NEWCHAIN ? NLM_F_CREATE : 0);
	uint8_t udata[2 * UDATA_MAX];
	uint32_t n = 0;

	if (!c || !nlh) {
		b->oom = true;
	} else {
		(void)nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, e->table);
		(void)nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, chain->name);
		if (type == NFT_MSG_NEWCHAIN) {
			n = user_data(udata, NULL, 0, SL_NFT_UDATA_COMMENT,
				      sl_nft_text(rs, chain->comment));
			if (n)
				(void)nftnl_chain_set_data(c, NFTNL_CHAIN_USERDATA, udata, n);
			if (chain->is_base) {
				nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, chain->hook);
				nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, chain->priority);
				nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, NF_ACCEPT);
				(void)nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, chain->type);
			}
		}
		nftnl_chain_nlmsg_build_payload(nlh, c);
		end_message(b, nlh, op, 1);
	}
	if (c)
		nftnl_chain_free(c);
}

static void put_counter(struct sl_nft_batch *b, const struct sl_nft_encode *e,
			const struct sl_nft_ruleset *rs, const struct sl_nft_counter *counter,
			uint16_t type, size_t op)
{
	struct nftnl_obj *o = nftnl_obj_alloc();
	struct nlmsghdr *nlh = begin_message(b, type, type == NFT_MSG_NEWOBJ ? NLM_F_CREATE : 0);
	uint8_t udata[2 * UDATA_MAX];
	uint32_t n = 0;

	if (!o || !nlh) {
		b->oom = true;
	} else {
		nftnl_obj_set_str(o, NFTNL_OBJ_TABLE, e->table);
		nftnl_obj_set_str(o, NFTNL_OBJ_NAME, counter->name);
		nftnl_obj_set_u32(o, NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
		if (type == NFT_MSG_NEWOBJ) {
			nftnl_obj_set_u64(o, NFTNL_OBJ_CTR_PKTS, 0);
			nftnl_obj_set_u64(o, NFTNL_OBJ_CTR_BYTES, 0);
			n = user_data(udata, NULL, 0, SL_NFT_UDATA_COMMENT,
				      sl_nft_text(rs, counter->comment));
		}
		if (n)
			nftnl_obj_set_data(o, NFTNL_OBJ_USERDATA, udata, n);
		nftnl_obj_nlmsg_build_payload(nlh, o);
		end_message(b, nlh, op, 1);
	}
	if (o)
		nftnl_obj_free(o);
}

/* With the interfaces that `but` has not; NULL: all. */
static void put_flowtable(struct sl_nft_batch *b, const struct sl_nft_encode *e,
			  const struct sl_nft_flowtable *ft, const struct sl_nft_flowtable *but,
			  uint16_t type, size_t op)
{
	const char *devices[SL_NFT_DEVICES + 1] = { NULL };
	struct nftnl_flowtable *f = nftnl_flowtable_alloc();
	struct nlmsghdr *nlh =
		begin_message(b, type, type == NFT_MSG_NEWFLOWTABLE ? NLM_F_CREATE : 0);
	size_t n = 0;

	if (!f || !nlh) {
		b->oom = true;
	} else {
		(void)nftnl_flowtable_set_str(f, NFTNL_FLOWTABLE_TABLE, e->table);
		(void)nftnl_flowtable_set_str(f, NFTNL_FLOWTABLE_NAME, SL_NFT_FLOWTABLE);
		for (size_t i = 0; i < ft->n; i++)
			if (!but || !sl_nft_flowtable_has(but, ft->device[i]))
				devices[n++] = ft->device[i];
		if (type == NFT_MSG_NEWFLOWTABLE)
			nftnl_flowtable_set_u32(f, NFTNL_FLOWTABLE_FLAGS, ft->flags);
		if (type == NFT_MSG_NEWFLOWTABLE || but) {
			nftnl_flowtable_set_u32(f, NFTNL_FLOWTABLE_HOOKNUM, NF_NETDEV_INGRESS);
			nftnl_flowtable_set_u32(f, NFTNL_FLOWTABLE_PRIO, 0);
			if (n)
				(void)nftnl_flowtable_set_array(f, NFTNL_FLOWTABLE_DEVICES,
								devices);
		}
		nftnl_flowtable_nlmsg_build_payload(nlh, f);
		end_message(b, nlh, op, 1);
	}
	if (f)
		nftnl_flowtable_free(f);
}

/* False: out of memory, or code that we never write. */
static bool add_exprs(struct nftnl_rule *r, const struct sl_nft_ruleset *rs,
		      const struct sl_nft_rule *rule)
{
	const uint8_t *code = (const uint8_t *)rs->pool.p + rule->code;
	struct sl_nft_expr e;
	size_t at = 0;

	while (sl_nft_expr_next(code, rule->n_code, &at, &e)) {
		struct nftnl_expr *k = e.kind < SL_NFT_EXPR_COUNT_ ? sl_nft_expr_encode(&e) : NULL;

		if (!k)
			return false;
		nftnl_rule_add_expr(r, k);
	}
	return at == rule->n_code;
}

static void put_rule(struct sl_nft_batch *b, const struct sl_nft_encode *e,
		     const struct sl_nft_op *op, size_t index)
{
	const struct sl_nft_ruleset *rs = e->wanted;
	const struct sl_nft_chain *chain = &rs->chains[op->object];
	const struct sl_nft_rule *rule = &chain->rules[op->index];
	/* with a position and without NLM_F_APPEND: before that rule */
	struct nlmsghdr *nlh =
		begin_message(b, NFT_MSG_NEWRULE, NLM_F_CREATE | (op->handle ? 0 : NLM_F_APPEND));
	struct nftnl_rule *r = nftnl_rule_alloc();
	uint8_t udata[2 * UDATA_MAX];
	uint32_t n;

	if (!r || !nlh || !add_exprs(r, rs, rule)) {
		b->oom = true;
	} else {
		(void)nftnl_rule_set_str(r, NFTNL_RULE_TABLE, e->table);
		(void)nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, chain->name);
		if (op->handle)
			nftnl_rule_set_u64(r, NFTNL_RULE_POSITION, op->handle);
		n = user_data(udata, NULL, 0, SL_NFT_UDATA_COMMENT, sl_nft_text(rs, rule->comment));
		if (n)
			(void)nftnl_rule_set_data(r, NFTNL_RULE_USERDATA, udata, n);
		nftnl_rule_nlmsg_build_payload(nlh, r);
		end_message(b, nlh, index, 1);
	}
	if (r)
		nftnl_rule_free(r);
}

static void put_rule_removal(struct sl_nft_batch *b, const struct sl_nft_encode *e,
			     const struct sl_nft_op *op, size_t index)
{
	struct nlmsghdr *nlh = begin_message(b, NFT_MSG_DELRULE, 0);
	struct nftnl_rule *r = nftnl_rule_alloc();

	if (!r || !nlh) {
		b->oom = true;
	} else {
		(void)nftnl_rule_set_str(r, NFTNL_RULE_TABLE, e->table);
		(void)nftnl_rule_set_str(r, NFTNL_RULE_CHAIN,
					 e->installed->chains[op->object].name);
		nftnl_rule_set_u64(r, NFTNL_RULE_HANDLE, op->handle);
		nftnl_rule_nlmsg_build_payload(nlh, r);
		end_message(b, nlh, index, 1);
	}
	if (r)
		nftnl_rule_free(r);
}

static void put_value(struct nlmsghdr *nlh, uint16_t attr, const void *value, size_t len)
{
	struct nlattr *nest = mnl_attr_nest_start(nlh, attr);

	mnl_attr_put(nlh, NFTA_DATA_VALUE, len, value);
	mnl_attr_nest_end(nlh, nest);
}

static void put_verdict(struct nlmsghdr *nlh, int32_t code, const char *chain)
{
	struct nlattr *data = mnl_attr_nest_start(nlh, NFTA_SET_ELEM_DATA);
	struct nlattr *verdict = mnl_attr_nest_start(nlh, NFTA_DATA_VERDICT);

	mnl_attr_put_u32(nlh, NFTA_VERDICT_CODE, htonl((uint32_t)code));
	mnl_attr_put_strz(nlh, NFTA_VERDICT_CHAIN, chain);
	mnl_attr_nest_end(nlh, verdict);
	mnl_attr_nest_end(nlh, data);
}

static void put_elem(struct nlmsghdr *nlh, const struct sl_nft_ruleset *rs,
		     const struct sl_nft_set *set, const struct sl_nft_elem *elem, bool is_added)
{
	struct nlattr *nest = mnl_attr_nest_start(nlh, NFTA_LIST_ELEM);
	uint8_t udata[2 * UDATA_MAX];
	uint32_t n;

	if (elem->flags)
		mnl_attr_put_u32(nlh, NFTA_SET_ELEM_FLAGS, htonl(elem->flags));
	put_value(nlh, NFTA_SET_ELEM_KEY, elem->key, set->key_len);
	if (set->flags & NFT_SET_CONCAT)
		put_value(nlh, NFTA_SET_ELEM_KEY_END, elem->end, set->key_len);
	if (is_added) {
		if (set->object_type)
			mnl_attr_put_strz(nlh, NFTA_SET_ELEM_OBJREF, sl_nft_text(rs, elem->name));
		else if (elem->verdict)
			put_verdict(nlh, elem->verdict, sl_nft_text(rs, elem->name));
		else if (set->flags & NFT_SET_MAP)
			put_value(nlh, NFTA_SET_ELEM_DATA, elem->data, set->data_len);
		n = user_data(udata, NULL, 0, SL_NFT_UDATA_COMMENT, sl_nft_text(rs, elem->comment));
		if (n)
			mnl_attr_put(nlh, NFTA_SET_ELEM_USERDATA, n, udata);
	}
	mnl_attr_nest_end(nlh, nest);
}

/* As many elements of one set as fit, from operation `at` on. Returns how many. */
static size_t put_elems(struct sl_nft_batch *b, const struct sl_nft_encode *e, size_t at, size_t to)
{
	const struct sl_nft_op *first = &e->ops->op[at], *op = first;
	bool is_added = first->kind == SL_NFT_ADD_ELEM;
	const struct sl_nft_ruleset *rs = is_added ? e->wanted : e->installed;
	const struct sl_nft_set *set = &rs->sets[first->object];
	struct nlmsghdr *nlh = begin_message(b, is_added ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM,
					     is_added ? NLM_F_CREATE | NLM_F_EXCL : 0);
	struct nlattr *list;

	if (!nlh)
		return 1;
	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, e->table);
	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, set->name);
	list = mnl_attr_nest_start(nlh, NFTA_SET_ELEM_LIST_ELEMENTS);
	for (; op < e->ops->op + to && op->kind == first->kind && op->object == first->object;
	     op++) {
		put_elem(nlh, rs, set, &set->elems[op->index], is_added);
		if ((size_t)((char *)mnl_nlmsg_get_payload_tail(nlh) - (char *)list) > LIST_MAX) {
			op++;
			break;
		}
	}
	mnl_attr_nest_end(nlh, list);
	end_message(b, nlh, at, (size_t)(op - first));
	return (size_t)(op - first);
}

/* Returns how many operations the message took. */
static size_t put_op(struct sl_nft_batch *b, const struct sl_nft_encode *e, size_t at, size_t to)
{
	const struct sl_nft_op *op = &e->ops->op[at];
	const struct sl_nft_ruleset *old = e->installed, *new = e->wanted;

	switch (op->kind) {
	case SL_NFT_DEL_TABLE:
		put_table(b, e, NFT_MSG_DELTABLE, 0, at);
		break;
	case SL_NFT_ADD_TABLE:
		put_table(b, e, NFT_MSG_NEWTABLE, e->table_flags, at);
		break;
	case SL_NFT_ADD_SET:
		put_set(b, e, new, &new->sets[op->object], NFT_MSG_NEWSET, at);
		break;
	case SL_NFT_DEL_SET:
		put_set(b, e, old, &old->sets[op->object], NFT_MSG_DELSET, at);
		break;
	case SL_NFT_ADD_COUNTER:
		put_counter(b, e, new, &new->counters[op->object], NFT_MSG_NEWOBJ, at);
		break;
	case SL_NFT_DEL_COUNTER:
		put_counter(b, e, old, &old->counters[op->object], NFT_MSG_DELOBJ, at);
		break;
	case SL_NFT_ADD_FLOWTABLE:
		put_flowtable(b, e, &new->flowtable, NULL, NFT_MSG_NEWFLOWTABLE, at);
		break;
	case SL_NFT_CUT_FLOWTABLE:
		put_flowtable(b, e, &old->flowtable, &new->flowtable, NFT_MSG_DELFLOWTABLE, at);
		break;
	case SL_NFT_DEL_FLOWTABLE:
		put_flowtable(b, e, &old->flowtable, NULL, NFT_MSG_DELFLOWTABLE, at);
		break;
	case SL_NFT_ADD_CHAIN:
		put_chain(b, e, new, &new->chains[op->object], NFT_MSG_NEWCHAIN, at);
		break;
	case SL_NFT_DEL_CHAIN:
		put_chain(b, e, old, &old->chains[op->object], NFT_MSG_DELCHAIN, at);
		break;
	case SL_NFT_DEL_ELEM:
	case SL_NFT_ADD_ELEM:
		return put_elems(b, e, at, to);
	case SL_NFT_ADD_RULE:
		put_rule(b, e, op, at);
		break;
	case SL_NFT_DEL_RULE:
		put_rule_removal(b, e, op, at);
		break;
	}
	return 1;
}

/* Ends a batch, which then is the caller's. */
static int finish(struct sl_nft_batch *b, struct sl_nft_batch *ret)
{
	end(b);
	if (b->oom) {
		sl_nft_batch_done(b);
		return -ENOMEM;
	}
	*ret = *b;
	return 0;
}

static void put_ops(struct sl_nft_batch *b, const struct sl_nft_encode *e, size_t from, size_t to)
{
	while (from < to && !b->oom)
		from += put_op(b, e, from, to);
}

int sl_nft_encode(const struct sl_nft_encode *e, size_t from, size_t to, uint32_t seq,
		  struct sl_nft_batch *ret)
{
	struct sl_nft_batch b = { .seq = seq };

	begin(&b, e->generation);
	if (e->adopts)
		put_table(&b, e, NFT_MSG_NEWTABLE, e->table_flags, from);
	put_ops(&b, e, from, to);
	return finish(&b, ret);
}

int sl_nft_encode_removal(const char *table, uint32_t generation, uint32_t seq,
			  struct sl_nft_batch *ret)
{
	struct sl_nft_op op = { .kind = SL_NFT_DEL_TABLE };
	const struct sl_nft_ops ops = { .op = &op, .n = 1 };
	const struct sl_nft_encode e = { .table = table, .ops = &ops, .generation = generation };

	return sl_nft_encode(&e, 0, 1, seq, ret);
}

/* Nothing of the batch takes effect. */
static void put_refusal(struct sl_nft_batch *b, size_t op)
{
	const struct sl_nft_encode none = { .table = "there is no such table" };

	put_table(b, &none, NFT_MSG_DELTABLE, 0, op);
}

int sl_nft_encode_probe(uint32_t table_flags, uint32_t generation, uint32_t seq,
			struct sl_nft_batch *ret)
{
	const struct sl_nft_encode e = { .table = "probe of owners" };
	struct sl_nft_batch b = { .seq = seq };

	begin(&b, generation);
	put_table(&b, &e, NFT_MSG_NEWTABLE, table_flags, 0);
	put_refusal(&b, 1);
	return finish(&b, ret);
}

int sl_nft_encode_trial(const struct sl_nft_ruleset *wanted, uint32_t generation, uint32_t seq,
			struct sl_nft_batch *ret)
{
	_cleanup_(sl_nft_ops_done) struct sl_nft_ops ops = { 0 };
	const struct sl_nft_encode e = { .table = "trial of flow tables",
					 .wanted = wanted,
					 .ops = &ops };
	struct sl_nft_batch b = { .seq = seq };
	int r = sl_nft_diff(NULL, wanted, &ops);

	if (r < 0)
		return r;
	begin(&b, generation);
	put_ops(&b, &e, 0, ops.n);
	put_refusal(&b, ops.n);
	return finish(&b, ret);
}

size_t sl_nft_batch_op_at(const struct sl_nft_batch *b, const struct sl_nft_message *m,
			  uint32_t offset)
{
	const struct nlmsghdr *nlh = (const void *)(b->buf + m->offset);
	struct sl_attrs attrs = sl_attrs_of(nlh, sizeof(struct nfgenmsg)), elems;
	const struct nlattr *attr;
	size_t op = m->op;

	if (m->n_ops <= 1)
		return op;
	do
		attr = sl_attrs_next(&attrs);
	while (attr && mnl_attr_get_type(attr) != NFTA_SET_ELEM_LIST_ELEMENTS);
	if (!attr)
		return op;
	elems = sl_attrs_in(attr);
	for (attr = sl_attrs_next(&elems); attr; attr = sl_attrs_next(&elems), op++) {
		size_t at = (size_t)((const uint8_t *)attr - (const uint8_t *)nlh);

		if (offset < at + mnl_attr_get_len(attr))
			break;
	}
	return op < m->op + m->n_ops ? op : m->op;
}
