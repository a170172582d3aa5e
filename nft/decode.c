/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/decode.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <stdio.h> /* libnftnl needs it */

#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/flowtable.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

#include "nft/attr.h"
#include "nft/codec.h"
#include "nft/expr.h"

struct reader {
	struct sl_nft_ruleset *rs;
	const char *table;
	struct sl_nft_chain *chain; /* whose rules are read; NULL: any */
	struct sl_nft_set *set;     /* whose elements are read */
	size_t at;
	struct sl_str code;
};

/* The comment in user data, a list of type, length, value; 0: none. */
static uint32_t read_comment(struct sl_nft_ruleset *rs, const uint8_t *udata, size_t n,
			     uint8_t type)
{
	for (size_t i = 0; i + 2 <= n && i + 2 + udata[i + 1] <= n; i += 2u + udata[i + 1])
		if (udata[i] == type && udata[i + 1] && udata[i + 1 + udata[i + 1]] == 0)
			return sl_nft_put_text(rs, (const char *)udata + i + 2);
	return 0;
}

static bool copy_name(char ret[SL_NFT_NAME], const char *name)
{
	if (strlen(name) >= SL_NFT_NAME)
		return false;
	snprintf(ret, SL_NFT_NAME, "%s", name);
	return true;
}

static int on_table(const struct nlmsghdr *nlh, void *arg)
{
	struct reader *rd = arg;
	struct nftnl_table *t = nftnl_table_alloc();
	uint32_t n = 0;
	const uint8_t *udata;

	if (!t || nftnl_table_nlmsg_parse(nlh, t) < 0) {
		rd->rs->oom = true;
	} else {
		rd->rs->flags = nftnl_table_get_u32(t, NFTNL_TABLE_FLAGS);
		rd->rs->has_others |= rd->rs->flags & NFT_TABLE_F_DORMANT;
		if (nftnl_table_is_set(t, NFTNL_TABLE_OWNER))
			rd->rs->owner = nftnl_table_get_u32(t, NFTNL_TABLE_OWNER);
		udata = nftnl_table_get_data(t, NFTNL_TABLE_USERDATA, &n);
		if (udata)
			rd->rs->comment = read_comment(rd->rs, udata, n, SL_NFT_UDATA_COMMENT);
	}
	if (t)
		nftnl_table_free(t);
	return 0;
}

/* All but the comment, which may change without making it another set. */
static void read_layout(struct sl_nft_set *set, const uint8_t *udata, size_t n)
{
	for (size_t i = 0; i + 2 <= n && i + 2 + udata[i + 1] <= n; i += 2u + udata[i + 1]) {
		size_t len = 2u + udata[i + 1];

		if (udata[i] == SL_NFT_UDATA_SET_COMMENT ||
		    set->n_layout + len > sizeof(set->layout))
			continue;
		memcpy(set->layout + set->n_layout, udata + i, len);
		set->n_layout = (uint8_t)(set->n_layout + len);
	}
}

static uint32_t timeout_of(uint64_t ms)
{
	return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX; /* longer than any of ours */
}

static void read_set(struct reader *rd, struct nftnl_set *s)
{
	struct sl_nft_set set = { .flags = nftnl_set_get_u32(s, NFTNL_SET_FLAGS) };
	const uint8_t *p;
	uint32_t n = 0;

	if (set.flags & NFT_SET_ANONYMOUS)
		return; /* goes with its rule, which is none of ours */
	set.key_type = nftnl_set_get_u32(s, NFTNL_SET_KEY_TYPE);
	set.key_len = nftnl_set_get_u32(s, NFTNL_SET_KEY_LEN);
	set.data_type = nftnl_set_get_u32(s, NFTNL_SET_DATA_TYPE);
	if (set.data_type != NFT_DATA_VERDICT)
		set.data_len = nftnl_set_get_u32(s, NFTNL_SET_DATA_LEN);
	if (nftnl_set_is_set(s, NFTNL_SET_OBJ_TYPE))
		set.object_type = nftnl_set_get_u32(s, NFTNL_SET_OBJ_TYPE);
	if (nftnl_set_is_set(s, NFTNL_SET_DESC_SIZE))
		set.size = nftnl_set_get_u32(s, NFTNL_SET_DESC_SIZE);
	if (nftnl_set_is_set(s, NFTNL_SET_TIMEOUT))
		set.timeout_ms = timeout_of(nftnl_set_get_u64(s, NFTNL_SET_TIMEOUT));
	p = nftnl_set_get_data(s, NFTNL_SET_DESC_CONCAT, &n);
	if (p && nftnl_set_is_set(s, NFTNL_SET_DESC_CONCAT) && n <= sizeof(set.field)) {
		memcpy(set.field, p, n);
		set.n_fields = (uint8_t)n;
	}
	p = nftnl_set_get_data(s, NFTNL_SET_USERDATA, &n);
	if (p) {
		read_layout(&set, p, n);
		set.comment = read_comment(rd->rs, p, n, SL_NFT_UDATA_SET_COMMENT);
	}
	if (!copy_name(set.name, nftnl_set_get_str(s, NFTNL_SET_NAME)) ||
	    set.key_len > SL_NFT_KEY || set.data_len > SL_NFT_DATA)
		rd->rs->has_others = true;
	else
		(void)sl_nft_put_set(rd->rs, &set);
}

static int on_set(const struct nlmsghdr *nlh, void *arg)
{
	struct reader *rd = arg;
	struct nftnl_set *s = nftnl_set_alloc();

	if (!s || nftnl_set_nlmsg_parse(nlh, s) < 0)
		rd->rs->oom = true;
	else if (strcmp(nftnl_set_get_str(s, NFTNL_SET_TABLE), rd->table) == 0)
		read_set(rd, s);
	if (s)
		nftnl_set_free(s);
	return 0;
}

static void read_chain(struct reader *rd, struct nftnl_chain *c)
{
	struct sl_nft_chain chain = { .is_base = nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM) };
	const char *type;
	uint32_t n = 0;
	const uint8_t *p;

	if (chain.is_base) {
		type = nftnl_chain_get_str(c, NFTNL_CHAIN_TYPE);
		chain.hook = nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM);
		chain.priority = nftnl_chain_get_s32(c, NFTNL_CHAIN_PRIO);
		snprintf(chain.type, sizeof(chain.type), "%s", type ? type : "");
		if (nftnl_chain_get_u32(c, NFTNL_CHAIN_POLICY) != NF_ACCEPT)
			rd->rs->has_others = true; /* ours never drop what they do not know */
	}
	p = nftnl_chain_get_data(c, NFTNL_CHAIN_USERDATA, &n);
	if (p)
		chain.comment = read_comment(rd->rs, p, n, SL_NFT_UDATA_COMMENT);
	if (!copy_name(chain.name, nftnl_chain_get_str(c, NFTNL_CHAIN_NAME)))
		rd->rs->has_others = true;
	else
		(void)sl_nft_put_chain(rd->rs, &chain);
}

static int on_chain(const struct nlmsghdr *nlh, void *arg)
{
	struct reader *rd = arg;
	struct nftnl_chain *c = nftnl_chain_alloc();

	if (!c || nftnl_chain_nlmsg_parse(nlh, c) < 0)
		rd->rs->oom = true;
	else if (strcmp(nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE), rd->table) == 0)
		read_chain(rd, c);
	if (c)
		nftnl_chain_free(c);
	return 0;
}

static int on_expr(struct nftnl_expr *k, void *arg)
{
	struct reader *rd = arg;
	struct sl_nft_expr e;

	sl_nft_expr_decode(k, &e);
	sl_nft_expr_put(&rd->code, &e);
	return 0;
}

static void read_rule(struct reader *rd, struct nftnl_rule *r)
{
	const char *name = nftnl_rule_get_str(r, NFTNL_RULE_CHAIN);
	struct sl_nft_chain *chain = sl_nft_find_chain(rd->rs, name);
	struct sl_nft_rule rule = { .handle = nftnl_rule_get_u64(r, NFTNL_RULE_HANDLE) };
	uint32_t n = 0;
	const uint8_t *p = nftnl_rule_get_data(r, NFTNL_RULE_USERDATA, &n);

	sl_str_clear(&rd->code);
	(void)nftnl_expr_foreach(r, on_expr, rd);
	if (rd->code.oom)
		rd->rs->oom = true;
	rule.n_code = (uint32_t)rd->code.len;
	rule.code = sl_nft_put_bytes(rd->rs, rd->code.p ? rd->code.p : "", rd->code.len);
	if (p)
		rule.comment = read_comment(rd->rs, p, n, SL_NFT_UDATA_COMMENT);
	sl_nft_put_rule(rd->rs, chain, &rule);
}

static int on_rule(const struct nlmsghdr *nlh, void *arg)
{
	struct reader *rd = arg;
	struct nftnl_rule *r = nftnl_rule_alloc();

	if (!r || nftnl_rule_nlmsg_parse(nlh, r) < 0)
		rd->rs->oom = true;
	else if (strcmp(nftnl_rule_get_str(r, NFTNL_RULE_TABLE), rd->table) == 0)
		read_rule(rd, r);
	if (r)
		nftnl_rule_free(r);
	return 0;
}

static int on_handle(const struct nlmsghdr *nlh, void *arg)
{
	struct reader *rd = arg;
	struct nftnl_rule *r = nftnl_rule_alloc();
	int res = 0;

	if (!r || nftnl_rule_nlmsg_parse(nlh, r) < 0)
		res = -ENOMEM;
	else if (strcmp(nftnl_rule_get_str(r, NFTNL_RULE_TABLE), rd->table) == 0 &&
		 strcmp(nftnl_rule_get_str(r, NFTNL_RULE_CHAIN), rd->chain->name) == 0) {
		if (rd->at < rd->chain->n)
			rd->chain->rules[rd->at].handle = nftnl_rule_get_u64(r, NFTNL_RULE_HANDLE);
		rd->at++;
	}
	if (r)
		nftnl_rule_free(r);
	return res;
}

static int on_object(const struct nlmsghdr *nlh, void *arg)
{
	struct reader *rd = arg;
	struct nftnl_obj *o = nftnl_obj_alloc();
	struct sl_nft_counter counter = { 0 };
	uint32_t n = 0;
	const uint8_t *p;

	if (!o || nftnl_obj_nlmsg_parse(nlh, o) < 0) {
		rd->rs->oom = true;
	} else if (strcmp(nftnl_obj_get_str(o, NFTNL_OBJ_TABLE), rd->table) == 0) {
		if (nftnl_obj_get_u32(o, NFTNL_OBJ_TYPE) != NFT_OBJECT_COUNTER ||
		    !copy_name(counter.name, nftnl_obj_get_str(o, NFTNL_OBJ_NAME))) {
			rd->rs->has_others = true;
		} else {
			counter.packets = nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_PKTS);
			counter.bytes = nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_BYTES);
			p = nftnl_obj_is_set(o, NFTNL_OBJ_USERDATA)
				    ? nftnl_obj_get_data(o, NFTNL_OBJ_USERDATA, &n)
				    : NULL;
			if (p)
				counter.comment = read_comment(rd->rs, p, n, SL_NFT_UDATA_COMMENT);
			sl_nft_put_counter(rd->rs, &counter);
		}
	}
	if (o)
		nftnl_obj_free(o);
	return 0;
}

static void read_flowtable(struct sl_nft_ruleset *rs, const struct nftnl_flowtable *f)
{
	const char *const *devices = NULL;

	if (nftnl_flowtable_is_set(f, NFTNL_FLOWTABLE_DEVICES))
		devices = nftnl_flowtable_get_array(f, NFTNL_FLOWTABLE_DEVICES);
	if (strcmp(nftnl_flowtable_get_str(f, NFTNL_FLOWTABLE_NAME), SL_NFT_FLOWTABLE) != 0 ||
	    nftnl_flowtable_get_u32(f, NFTNL_FLOWTABLE_PRIO) != 0)
		rs->has_others = true;
	rs->flowtable.is_there = true;
	rs->flowtable.flags = nftnl_flowtable_get_u32(f, NFTNL_FLOWTABLE_FLAGS);
	for (size_t i = 0; devices && devices[i]; i++)
		if (!sl_nft_put_device(rs, devices[i]))
			rs->has_others = true;
}

static int on_flowtable(const struct nlmsghdr *nlh, void *arg)
{
	struct reader *rd = arg;
	struct nftnl_flowtable *f = nftnl_flowtable_alloc();

	if (!f || nftnl_flowtable_nlmsg_parse(nlh, f) < 0)
		rd->rs->oom = true;
	else if (strcmp(nftnl_flowtable_get_str(f, NFTNL_FLOWTABLE_TABLE), rd->table) == 0)
		read_flowtable(rd->rs, f);
	if (f)
		nftnl_flowtable_free(f);
	return 0;
}

static void copy_value(uint8_t *ret, size_t size, const struct nlattr *nest)
{
	struct sl_attrs attrs = sl_attrs_in(nest);
	const struct nlattr *a = sl_attrs_next(&attrs);
	size_t n = a ? mnl_attr_get_payload_len(a) : 0;

	if (a && mnl_attr_get_type(a) == NFTA_DATA_VALUE && n <= size)
		memcpy(ret, mnl_attr_get_payload(a), n);
}

static void read_data(struct reader *rd, struct sl_nft_elem *e, const struct nlattr *nest)
{
	struct sl_attrs attrs = sl_attrs_in(nest);
	const struct nlattr *a = sl_attrs_next(&attrs);

	if (!a || mnl_attr_get_type(a) != NFTA_DATA_VERDICT) {
		copy_value(e->data, sizeof(e->data), nest);
		return;
	}
	attrs = sl_attrs_in(a);
	while ((a = sl_attrs_next(&attrs))) {
		if (mnl_attr_get_type(a) == NFTA_VERDICT_CODE)
			e->verdict = (int32_t)ntohl(mnl_attr_get_u32(a));
		if (mnl_attr_get_type(a) == NFTA_VERDICT_CHAIN)
			e->name = sl_nft_put_text(rd->rs, mnl_attr_get_str(a));
	}
}

static void read_elem(struct reader *rd, const struct nlattr *nest)
{
	struct sl_attrs attrs = sl_attrs_in(nest);
	struct sl_nft_elem e = { 0 };
	const struct nlattr *a;

	while ((a = sl_attrs_next(&attrs))) {
		switch (mnl_attr_get_type(a)) {
		case NFTA_SET_ELEM_KEY:
			copy_value(e.key, sizeof(e.key), a);
			break;
		case NFTA_SET_ELEM_KEY_END:
			copy_value(e.end, sizeof(e.end), a);
			break;
		case NFTA_SET_ELEM_FLAGS:
			e.flags = ntohl(mnl_attr_get_u32(a));
			break;
		case NFTA_SET_ELEM_DATA:
			read_data(rd, &e, a);
			break;
		case NFTA_SET_ELEM_OBJREF:
			e.name = sl_nft_put_text(rd->rs, mnl_attr_get_str(a));
			break;
		case NFTA_SET_ELEM_USERDATA:
			e.comment = read_comment(rd->rs, mnl_attr_get_payload(a),
						 mnl_attr_get_payload_len(a), SL_NFT_UDATA_COMMENT);
			break;
		default:
			break;
		}
	}
	sl_nft_put_elem(rd->rs, rd->set, &e);
}

static int on_elems(const struct nlmsghdr *nlh, void *arg)
{
	struct sl_attrs attrs = sl_attrs_of(nlh, sizeof(struct nfgenmsg)), elems;
	const struct nlattr *a;

	while ((a = sl_attrs_next(&attrs))) {
		if (mnl_attr_get_type(a) != NFTA_SET_ELEM_LIST_ELEMENTS)
			continue;
		elems = sl_attrs_in(a);
		while ((a = sl_attrs_next(&elems)))
			read_elem(arg, a);
	}
	return 0;
}

static int read_kind(struct sl_nft_socket *s, struct reader *rd, uint16_t type, sl_nft_answer_fn fn)
{
	const struct sl_nft_request q = { .type = type, .is_dump = true, .table = rd->table };

	return sl_nft_socket_ask(s, &q, fn, rd);
}

static int read_all(struct sl_nft_socket *s, struct reader *rd)
{
	const struct sl_nft_request table = { .type = NFT_MSG_GETTABLE, .table = rd->table };
	int r = sl_nft_socket_ask(s, &table, on_table, rd);

	if (r == 0)
		r = read_kind(s, rd, NFT_MSG_GETSET, on_set);
	if (r == 0)
		r = read_kind(s, rd, NFT_MSG_GETCHAIN, on_chain);
	if (r == 0)
		r = read_kind(s, rd, NFT_MSG_GETOBJ, on_object);
	if (r == 0)
		r = read_kind(s, rd, NFT_MSG_GETFLOWTABLE, on_flowtable);
	if (r == 0)
		r = sl_nft_ruleset_sort(rd->rs); /* rules look for their chains */
	if (r == 0)
		r = read_kind(s, rd, NFT_MSG_GETRULE, on_rule);
	for (size_t i = 0; r == 0 && i < rd->rs->n_sets; i++) {
		const struct sl_nft_request elems = { .type = NFT_MSG_GETSETELEM,
						      .is_dump = true,
						      .table = rd->table,
						      .attr = NFTA_SET_ELEM_LIST_SET,
						      .name = rd->rs->sets[i].name };

		if (rd->rs->sets[i].flags & NFT_SET_EVAL)
			continue;
		rd->set = &rd->rs->sets[i];
		r = sl_nft_socket_ask(s, &elems, on_elems, rd);
	}
	return r ? r : sl_nft_ruleset_sort(rd->rs);
}

int sl_nft_decode(struct sl_nft_socket *s, const char *table, struct sl_nft_ruleset **ret)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	struct reader rd = { .table = table };
	int r = sl_nft_ruleset_new(&rs);

	if (r < 0)
		return r;
	rd.rs = rs;
	r = read_all(s, &rd);
	sl_str_done(&rd.code);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(rs);
	return 0;
}

int sl_nft_decode_handles(struct sl_nft_socket *s, const char *table, struct sl_nft_chain *chain)
{
	struct reader rd = { .table = table, .chain = chain };
	const struct sl_nft_request q = { .type = NFT_MSG_GETRULE,
					  .is_dump = true,
					  .table = table,
					  .attr = NFTA_RULE_CHAIN,
					  .name = chain->name };
	int r = sl_nft_socket_ask(s, &q, on_handle, &rd);

	if (r < 0)
		return r;
	return rd.at == chain->n ? 0 : -ESTALE;
}
