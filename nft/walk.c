/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/walk.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h> /* libnftnl needs it */

#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <linux/netfilter/xt_connmark.h>
#include <linux/netfilter/xt_conntrack.h>
#include <string.h>

#define REGISTERS 64 /* bytes: NFT_REG_1 to 4, or NFT_REG32_00 to 15 over them */
#define DEPTH 16     /* NFT_JUMP_STACK_SIZE of the kernel */
#define STEPS 100000 /* rules a walk looks at; the kernel's own jumps would be as many */

/* NF_CT_STATE_BIT() of the kernel: 1 << (ctinfo % IP_CT_IS_REPLY + 1) */
#define STATE_ESTABLISHED (1u << (IP_CT_ESTABLISHED + 1))
#define STATE_NEW (1u << (IP_CT_NEW + 1))

enum answer {
	NO = 0,
	YES,
	MAYBE,
};

struct registers {
	uint8_t value[REGISTERS];
	uint8_t known[REGISTERS]; /* bits */
	bool is_mark[REGISTERS];  /* made of the mark of the flow */
};

struct walker {
	const struct sl_nft_others_table *table;
	const struct sl_nft_packet *packet;
	struct sl_nft_walk *ret;
	unsigned n_steps;
};

/* A rule while it is looked at. */
struct looking {
	struct walker *w;
	const struct sl_nft_others_chain *chain;
	struct registers regs;
	enum answer matches;
	bool asks_mark; /* something in it depends on the mark */
	bool has_verdict;
	int32_t verdict;
	const char *to; /* chain of the verdict */
};

/* ---- registers ---- */

/* The place of a register of which `len` bytes are used; SIZE_MAX: there is none such. */
static size_t place_of(uint32_t reg, size_t len)
{
	size_t at = SIZE_MAX;

	if (reg >= NFT_REG_1 && reg <= NFT_REG_4)
		at = (reg - NFT_REG_1) * 16u;
	else if (reg >= NFT_REG32_00 && reg <= NFT_REG32_15)
		at = (reg - NFT_REG32_00) * 4u;
	return at != SIZE_MAX && at + len <= REGISTERS ? at : SIZE_MAX;
}

/* `known` NULL: all of it is; `value` NULL: nothing is. */
static void put(struct looking *l, uint32_t reg, const void *value, const void *known, size_t len)
{
	size_t padded = (len + 3) / 4 * 4;
	size_t at = place_of(reg, padded);

	if (at == SIZE_MAX)
		return;
	memset(l->regs.is_mark + at, 0, padded);
	/* the kernel fills the last word with zeros, on which keys of several fields rely */
	memset(l->regs.value + at + len, 0, padded - len);
	memset(l->regs.known + at + len, 0xff, padded - len);
	if (value)
		memcpy(l->regs.value + at, value, len);
	if (value && known)
		memcpy(l->regs.known + at, known, len);
	else
		memset(l->regs.known + at, value ? 0xff : 0, len);
}

static bool is_of_mark(const struct looking *l, size_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (l->regs.is_mark[at + i])
			return true;
	return false;
}

static bool is_known(const struct looking *l, size_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (l->regs.known[at + i] != 0xff)
			return false;
	return true;
}

/* Whether what is known of a register allows it to be `value`. */
static enum answer may_be(const struct looking *l, size_t at, const void *value, size_t len)
{
	const uint8_t *want = value;

	for (size_t i = 0; i < len; i++)
		if ((l->regs.value[at + i] ^ want[i]) & l->regs.known[at + i])
			return NO;
	return is_known(l, at, len) ? YES : MAYBE;
}

static enum answer not(enum answer a) { return a == MAYBE ? MAYBE : a == YES ? NO : YES; }

static void ask(struct looking *l, enum answer a)
{
	if (a == NO)
		l->matches = NO;
	else if (a == MAYBE && l->matches == YES)
		l->matches = MAYBE;
}

/* ---- what is known of the packet ---- */

static void load_meta(struct looking *l, const struct nftnl_expr *e)
{
	const struct sl_nft_packet *p = l->w->packet;
	uint32_t reg = nftnl_expr_get_u32(e, NFTNL_EXPR_META_DREG);
	uint16_t type = htons(p->family == NFPROTO_IPV4 ? ETH_P_IP : ETH_P_IPV6);
	size_t at;

	if (nftnl_expr_is_set(e, NFTNL_EXPR_META_SREG)) {
		at = place_of(nftnl_expr_get_u32(e, NFTNL_EXPR_META_SREG), 4);
		if (nftnl_expr_get_u32(e, NFTNL_EXPR_META_KEY) == NFT_META_MARK && at != SIZE_MAX &&
		    is_of_mark(l, at, 4) && l->matches != NO && !l->w->ret->copied_in)
			l->w->ret->copied_in = l->chain;
		return;
	}
	switch (nftnl_expr_get_u32(e, NFTNL_EXPR_META_KEY)) {
	case NFT_META_NFPROTO:
		put(l, reg, &p->family, NULL, 1);
		break;
	case NFT_META_L4PROTO:
		put(l, reg, &p->protocol, NULL, 1);
		break;
	case NFT_META_PROTOCOL:
		put(l, reg, &type, NULL, 2);
		break;
	case NFT_META_IIFNAME:
	case NFT_META_OIFNAME:
		put(l, reg, NULL, NULL, 16);
		break;
	default:
		put(l, reg, NULL, NULL, 4);
		break;
	}
}

static void load_ct(struct looking *l, const struct nftnl_expr *e)
{
	const struct sl_nft_packet *p = l->w->packet;
	uint32_t key = nftnl_expr_get_u32(e, NFTNL_EXPR_CT_KEY);
	uint32_t reg = nftnl_expr_get_u32(e, NFTNL_EXPR_CT_DREG);
	uint32_t state = p->is_new ? STATE_NEW : STATE_ESTABLISHED;
	uint32_t status = IPS_DST_NAT | IPS_DST_NAT_DONE;
	size_t at;

	if (nftnl_expr_is_set(e, NFTNL_EXPR_CT_SREG)) {
		if (key == NFT_CT_MARK && l->matches != NO && !l->w->ret->marked_in)
			l->w->ret->marked_in = l->chain;
		return;
	}
	switch (key) {
	case NFT_CT_STATE:
		put(l, reg, &state, NULL, 4);
		break;
	case NFT_CT_STATUS: /* the other bits are not known */
		put(l, reg, &status, &status, 4);
		break;
	case NFT_CT_MARK:
		put(l, reg, &p->mark, NULL, 4);
		at = place_of(reg, 4);
		if (at != SIZE_MAX)
			memset(l->regs.is_mark + at, true, 4);
		break;
	case NFT_CT_L3PROTOCOL:
		put(l, reg, &p->family, NULL, 1);
		break;
	case NFT_CT_PROTOCOL:
		put(l, reg, &p->protocol, NULL, 1);
		break;
	default:
		put(l, reg, NULL, NULL, 16);
		break;
	}
}

static void load_payload(struct looking *l, const struct nftnl_expr *e)
{
	const struct sl_nft_packet *p = l->w->packet;
	uint32_t base = nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_BASE);
	uint32_t offset = nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET);
	uint32_t len = nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_LEN);
	uint8_t header[48] = { 0 }, known[48] = { 0 };
	bool is4 = p->family == NFPROTO_IPV4;
	uint16_t port = htons(p->port);

	if (nftnl_expr_is_set(e, NFTNL_EXPR_PAYLOAD_SREG))
		return;
	if (base == NFT_PAYLOAD_NETWORK_HEADER) {
		header[is4 ? 9 : 6] = p->protocol;
		known[is4 ? 9 : 6] = 0xff;
		if (p->has_target) {
			memcpy(header + (is4 ? 16 : 24), p->target, is4 ? 4 : 16);
			memset(known + (is4 ? 16 : 24), 0xff, is4 ? 4 : 16);
		}
	} else if (base == NFT_PAYLOAD_TRANSPORT_HEADER) {
		if (p->has_target && p->port) {
			memcpy(header + 2, &port, 2);
			memset(known + 2, 0xff, 2);
		}
		if (p->protocol == IPPROTO_TCP) {
			header[13] = p->is_new ? 0x02 : 0x10; /* SYN, ACK */
			known[13] = 0x17;                     /* of FIN, SYN, RST, ACK */
		}
	}
	if (len <= sizeof(header) && offset <= sizeof(header) - len)
		put(l, nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_DREG), header + offset,
		    known + offset, len);
	else
		put(l, nftnl_expr_get_u32(e, NFTNL_EXPR_PAYLOAD_DREG), NULL, NULL, len);
}

/* ---- operations on registers ---- */

static void do_bitwise(struct looking *l, const struct nftnl_expr *e)
{
	uint32_t len = nftnl_expr_get_u32(e, NFTNL_EXPR_BITWISE_LEN), n_mask = 0, n_xor = 0;
	size_t from = place_of(nftnl_expr_get_u32(e, NFTNL_EXPR_BITWISE_SREG), len);
	size_t to = place_of(nftnl_expr_get_u32(e, NFTNL_EXPR_BITWISE_DREG), len);
	const uint8_t *mask = nftnl_expr_get(e, NFTNL_EXPR_BITWISE_MASK, &n_mask);
	const uint8_t * xor = nftnl_expr_get(e, NFTNL_EXPR_BITWISE_XOR, &n_xor);
	bool is_simple = nftnl_expr_get_u32(e, NFTNL_EXPR_BITWISE_OP) == NFT_BITWISE_BOOL && mask &&
			 n_mask >= len && xor&&n_xor >= len;

	if (from == SIZE_MAX || to == SIZE_MAX)
		return;
	for (size_t i = 0; i < len; i++) {
		l->regs.is_mark[to + i] = l->regs.is_mark[from + i];
		if (!is_simple) {
			l->regs.known[to + i] = 0;
			continue;
		}
		l->regs.value[to + i] = (uint8_t)((l->regs.value[from + i] & mask[i]) ^ xor[i]);
		l->regs.known[to + i] = (uint8_t)(l->regs.known[from + i] | ~mask[i]);
	}
}

/* Both directions are the same here: the machine is little-endian, or nothing changes. */
static void do_byteorder(struct looking *l, const struct nftnl_expr *e)
{
	uint32_t len = nftnl_expr_get_u32(e, NFTNL_EXPR_BYTEORDER_LEN);
	uint32_t size = nftnl_expr_get_u32(e, NFTNL_EXPR_BYTEORDER_SIZE);
	size_t from = place_of(nftnl_expr_get_u32(e, NFTNL_EXPR_BYTEORDER_SREG), len);
	size_t to = place_of(nftnl_expr_get_u32(e, NFTNL_EXPR_BYTEORDER_DREG), len);
	struct registers old = l->regs;

	if (from == SIZE_MAX || to == SIZE_MAX || size == 0 || len % size)
		return;
	for (size_t i = 0; i < len; i++) {
		size_t k = htons(1) == 1 ? i : i / size * size + (size - 1 - i % size);

		l->regs.value[to + i] = old.value[from + k];
		l->regs.known[to + i] = old.known[from + k];
		l->regs.is_mark[to + i] = old.is_mark[from + k];
	}
}

static enum answer compare(enum nft_cmp_ops op, int order)
{
	switch (op) {
	case NFT_CMP_EQ:
		return order == 0 ? YES : NO;
	case NFT_CMP_NEQ:
		return order != 0 ? YES : NO;
	case NFT_CMP_LT:
		return order < 0 ? YES : NO;
	case NFT_CMP_LTE:
		return order <= 0 ? YES : NO;
	case NFT_CMP_GT:
		return order > 0 ? YES : NO;
	case NFT_CMP_GTE:
		return order >= 0 ? YES : NO;
	}
	return MAYBE;
}

static void do_cmp(struct looking *l, const struct nftnl_expr *e)
{
	uint32_t op = nftnl_expr_get_u32(e, NFTNL_EXPR_CMP_OP), len = 0;
	const void *data = nftnl_expr_get(e, NFTNL_EXPR_CMP_DATA, &len);
	size_t at = place_of(nftnl_expr_get_u32(e, NFTNL_EXPR_CMP_SREG), len);
	enum answer a = MAYBE;

	if (at != SIZE_MAX && data) {
		l->asks_mark |= is_of_mark(l, at, len);
		if (is_known(l, at, len))
			a = compare((enum nft_cmp_ops)op, memcmp(l->regs.value + at, data, len));
		else if (op == NFT_CMP_EQ)
			a = may_be(l, at, data, len);
		else if (op == NFT_CMP_NEQ)
			a = not(may_be(l, at, data, len));
	}
	ask(l, a);
}

static void do_range(struct looking *l, const struct nftnl_expr *e)
{
	uint32_t n_from = 0, n_to = 0;
	const void *from = nftnl_expr_get(e, NFTNL_EXPR_RANGE_FROM_DATA, &n_from);
	const void *to = nftnl_expr_get(e, NFTNL_EXPR_RANGE_TO_DATA, &n_to);
	size_t at = place_of(nftnl_expr_get_u32(e, NFTNL_EXPR_RANGE_SREG), n_from);
	enum answer a = MAYBE;

	if (at != SIZE_MAX && from && to && n_from == n_to) {
		l->asks_mark |= is_of_mark(l, at, n_from);
		if (is_known(l, at, n_from))
			a = memcmp(l->regs.value + at, from, n_from) >= 0 &&
					    memcmp(l->regs.value + at, to, n_to) <= 0
				    ? YES
				    : NO;
		if (nftnl_expr_get_u32(e, NFTNL_EXPR_RANGE_OP) == NFT_RANGE_NEQ)
			a = not(a);
	}
	ask(l, a);
}

/* ---- sets ---- */

static enum answer find_interval(const struct looking *l, const struct sl_nft_others_set *set,
				 size_t at, const struct sl_nft_member **ret)
{
	const struct sl_nft_member *best = NULL;

	for (size_t i = 0; i < set->n; i++) {
		const struct sl_nft_member *m = &set->members[i];

		if (m->is_catch_all || at + m->len > REGISTERS)
			continue;
		if (!is_known(l, at, m->len))
			return MAYBE;
		if (memcmp(m->key, l->regs.value + at, m->len) <= 0 &&
		    (!best || memcmp(m->key, best->key, m->len) > 0 ||
		     (best->is_end && memcmp(m->key, best->key, m->len) == 0)))
			best = m;
	}
	*ret = best && !best->is_end ? best : NULL;
	return *ret ? YES : NO;
}

static enum answer find_member(const struct looking *l, const struct sl_nft_others_set *set,
			       size_t at, const struct sl_nft_member **ret)
{
	enum answer found = NO;

	if (set->is_vague || at == SIZE_MAX)
		return MAYBE;
	if (set->is_interval)
		found = find_interval(l, set, at, ret);
	for (size_t i = 0; found == NO && !set->is_interval && i < set->n; i++) {
		const struct sl_nft_member *m = &set->members[i];

		if (m->is_catch_all || at + m->len > REGISTERS)
			continue;
		found = may_be(l, at, m->key, m->len);
		*ret = m;
	}
	for (size_t i = 0; found == NO && i < set->n; i++) {
		if (!set->members[i].is_catch_all)
			continue;
		found = YES;
		*ret = &set->members[i];
	}
	return found;
}

static void do_lookup(struct looking *l, const struct nftnl_expr *e)
{
	const struct sl_nft_others_set *set =
		sl_nft_others_find_set(l->w->table, nftnl_expr_get_str(e, NFTNL_EXPR_LOOKUP_SET));
	size_t at = place_of(nftnl_expr_get_u32(e, NFTNL_EXPR_LOOKUP_SREG), 1);
	const struct sl_nft_member *m = NULL;
	enum answer a = set ? find_member(l, set, at, &m) : MAYBE;

	if (at != SIZE_MAX)
		l->asks_mark |= is_of_mark(l, at, 4);
	if (nftnl_expr_is_set(e, NFTNL_EXPR_LOOKUP_FLAGS) &&
	    nftnl_expr_get_u32(e, NFTNL_EXPR_LOOKUP_FLAGS) & NFT_LOOKUP_F_INV)
		a = not(a);
	ask(l, a);
	if (!nftnl_expr_is_set(e, NFTNL_EXPR_LOOKUP_DREG))
		return;
	if (nftnl_expr_get_u32(e, NFTNL_EXPR_LOOKUP_DREG) != NFT_REG_VERDICT) {
		put(l, nftnl_expr_get_u32(e, NFTNL_EXPR_LOOKUP_DREG), NULL, NULL, 16);
		return;
	}
	/* of several that may be meant one is as good as the other: any of them lets through */
	l->has_verdict = true;
	l->verdict = a == YES && m ? m->verdict : NF_ACCEPT;
	l->to = a == YES && m ? m->chain : NULL;
}

/* ---- extensions of iptables ---- */

static enum answer match_conntrack(const struct looking *l, const void *info, uint32_t len)
{
	struct xt_conntrack_mtinfo3 c; /* revision 2 is its beginning */
	unsigned state;
	bool is_it;

	if (len < sizeof(struct xt_conntrack_mtinfo2))
		return MAYBE;
	memset(&c, 0, sizeof(c));
	memcpy(&c, info, len < sizeof(c) ? len : sizeof(c));
	if ((c.match_flags & ~XT_CONNTRACK_STATE_ALIAS) != XT_CONNTRACK_STATE)
		return MAYBE;
	state = XT_CONNTRACK_STATE_DNAT |
		(l->w->packet->is_new ? XT_CONNTRACK_STATE_BIT(IP_CT_NEW)
				      : XT_CONNTRACK_STATE_BIT(IP_CT_ESTABLISHED));
	is_it = c.state_mask & state;
	if (!is_it && (c.state_mask & XT_CONNTRACK_STATE_SNAT))
		return MAYBE; /* masqueraded, perhaps */
	return is_it == !(c.invert_flags & XT_CONNTRACK_STATE) ? YES : NO;
}

static void do_match(struct looking *l, const struct nftnl_expr *e)
{
	const char *name = nftnl_expr_get_str(e, NFTNL_EXPR_MT_NAME);
	uint32_t len = 0;
	const void *info = nftnl_expr_get(e, NFTNL_EXPR_MT_INFO, &len);
	struct xt_connmark_mtinfo1 mark;

	if (strcmp(name, "comment") == 0)
		return;
	if (strcmp(name, "conntrack") == 0 && info) {
		ask(l, match_conntrack(l, info, len));
	} else if (strcmp(name, "connmark") == 0 && info && len >= sizeof(mark)) {
		memcpy(&mark, info, sizeof(mark));
		l->asks_mark = true;
		ask(l, ((l->w->packet->mark & mark.mask) == mark.mark) == !mark.invert ? YES : NO);
	} else {
		ask(l, MAYBE);
	}
}

static void do_target(struct looking *l, const struct nftnl_expr *e)
{
	static const char *const ends[] = { "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP" };
	const char *name = nftnl_expr_get_str(e, NFTNL_EXPR_TG_NAME);
	uint32_t len = 0;
	const void *info = nftnl_expr_get(e, NFTNL_EXPR_TG_INFO, &len);
	struct xt_connmark_tginfo1 mark;
	struct sl_nft_walk *ret = l->w->ret;

	if (strcmp(name, "REJECT") == 0) {
		l->has_verdict = true;
		l->verdict = NF_DROP;
	}
	for (size_t i = 0; i < SL_ARRAY_LEN(ends); i++) {
		if (strcmp(name, ends[i]) == 0) {
			l->has_verdict = true;
			l->verdict = NF_ACCEPT;
		}
	}
	if (strcmp(name, "CONNMARK") == 0 && info && len >= sizeof(mark) && l->matches != NO) {
		memcpy(&mark, info, sizeof(mark));
		/* where the shift of revision 2 stands, its mode is behind that of revision 1 */
		if (len >= sizeof(struct xt_connmark_tginfo2))
			mark.mode = ((const struct xt_connmark_tginfo2 *)info)->mode;
		if (mark.mode != XT_CONNMARK_RESTORE && !ret->marked_in)
			ret->marked_in = l->chain;
		if (mark.mode == XT_CONNMARK_RESTORE && !ret->copied_in)
			ret->copied_in = l->chain;
	}
}

/* ---- rules ---- */

static void do_immediate(struct looking *l, const struct nftnl_expr *e)
{
	uint32_t len = 0;
	const void *data;

	if (nftnl_expr_get_u32(e, NFTNL_EXPR_IMM_DREG) == NFT_REG_VERDICT) {
		l->has_verdict = true;
		l->verdict = (int32_t)nftnl_expr_get_u32(e, NFTNL_EXPR_IMM_VERDICT);
		l->to = nftnl_expr_get_str(e, NFTNL_EXPR_IMM_CHAIN);
		return;
	}
	data = nftnl_expr_get(e, NFTNL_EXPR_IMM_DATA, &len);
	put(l, nftnl_expr_get_u32(e, NFTNL_EXPR_IMM_DREG), data, NULL, len);
}

static void do_reject(struct looking *l, const struct nftnl_expr *e)
{
	(void)e;
	l->has_verdict = true;
	l->verdict = NF_DROP;
}

static void do_nat(struct looking *l, const struct nftnl_expr *e)
{
	(void)e;
	l->has_verdict = true;
	l->verdict = NF_ACCEPT;
}

static void do_nothing(struct looking *l, const struct nftnl_expr *e)
{
	(void)l;
	(void)e;
}

static const struct {
	const char *name;
	void (*look)(struct looking *l, const struct nftnl_expr *e);
} kinds[] = {
	{ "meta", load_meta },
	{ "ct", load_ct },
	{ "payload", load_payload },
	{ "bitwise", do_bitwise },
	{ "byteorder", do_byteorder },
	{ "cmp", do_cmp },
	{ "range", do_range },
	{ "lookup", do_lookup },
	{ "match", do_match },
	{ "target", do_target },
	{ "immediate", do_immediate },
	{ "reject", do_reject },
	{ "nat", do_nat },
	{ "masq", do_nat },
	{ "redir", do_nat },
	{ "counter", do_nothing },
	{ "log", do_nothing },
	{ "notrack", do_nothing },
	{ "objref", do_nothing },
	{ "last", do_nothing },
};

static int on_expr(struct nftnl_expr *e, void *arg)
{
	struct looking *l = arg;
	const char *name = nftnl_expr_get_str(e, NFTNL_EXPR_NAME);

	if (l->matches == NO || l->has_verdict)
		return 0;
	for (size_t i = 0; i < SL_ARRAY_LEN(kinds); i++) {
		if (strcmp(name, kinds[i].name) == 0) {
			kinds[i].look(l, e);
			return 0;
		}
	}
	/* whatever it is, it may decide, or load something */
	memset(l->regs.known, 0, sizeof(l->regs.known));
	ask(l, MAYBE);
	return 0;
}

static enum sl_nft_way walk_chain(struct walker *w, const struct sl_nft_others_chain *chain,
				  bool is_sure, unsigned depth);

/* NFT_JUMP and NFT_GOTO differ in what follows, which is the caller's. */
static enum sl_nft_way follow(struct walker *w, const char *name, bool is_sure, unsigned depth)
{
	const struct sl_nft_others_chain *to = sl_nft_others_find_chain(w->table, name);

	if (!to || depth >= DEPTH)
		return SL_NFT_WAY_ON;
	return walk_chain(w, to, is_sure, depth + 1);
}

/* What one rule does. `*ends`: the chain is left, whatever the way. */
static enum sl_nft_way walk_rule(struct walker *w, const struct sl_nft_others_chain *chain,
				 const struct nftnl_rule *rule, bool is_sure, unsigned depth,
				 bool *ends)
{
	struct looking l = { .w = w, .chain = chain, .matches = YES };
	enum sl_nft_way way = SL_NFT_WAY_ON;

	(void)nftnl_expr_foreach((struct nftnl_rule *)rule, on_expr, &l);
	if (l.matches == NO)
		return way;
	is_sure = is_sure && l.matches == YES;
	/* a rule that only lets our flows pass is what we ask for ourselves */
	if (l.asks_mark && !w->ret->asked_in && !(l.has_verdict && l.verdict == NF_ACCEPT))
		w->ret->asked_in = chain;
	if (!l.has_verdict)
		return way;
	switch (l.verdict) {
	case NF_DROP:
		way = SL_NFT_WAY_DROPPED;
		if (is_sure && !w->ret->dropped_in)
			w->ret->dropped_in = chain;
		break;
	case NFT_JUMP:
		way = follow(w, l.to, is_sure, depth);
		break;
	case NFT_GOTO:
		way = follow(w, l.to, is_sure, depth);
		*ends = is_sure;
		break;
	case NFT_RETURN:
		*ends = is_sure;
		break;
	case NFT_BREAK:
	case NFT_CONTINUE:
		break;
	default: /* ACCEPT, QUEUE, STOLEN */
		way = SL_NFT_WAY_ACCEPTED;
		break;
	}
	if (!is_sure && way == SL_NFT_WAY_ACCEPTED)
		w->ret->may_be_accepted = true;
	return is_sure ? way : SL_NFT_WAY_ON;
}

static enum sl_nft_way walk_chain(struct walker *w, const struct sl_nft_others_chain *chain,
				  bool is_sure, unsigned depth)
{
	enum sl_nft_way way = SL_NFT_WAY_ON;
	bool ends = false;

	for (size_t i = 0; i < chain->n && way == SL_NFT_WAY_ON && !ends; i++) {
		if (w->n_steps++ >= STEPS) {
			w->ret->is_too_long = true;
			return way;
		}
		way = walk_rule(w, chain, chain->rules[i], is_sure, depth, &ends);
	}
	return way;
}

void sl_nft_walk(const struct sl_nft_others_table *t, const struct sl_nft_others_chain *base,
		 const struct sl_nft_packet *packet, struct sl_nft_walk *ret)
{
	struct walker w = { .table = t, .packet = packet, .ret = ret };

	*ret = (struct sl_nft_walk){ 0 };
	ret->way = walk_chain(&w, base, true, 0);
	if (ret->way == SL_NFT_WAY_ON && base->drops) {
		ret->way = SL_NFT_WAY_DROPPED;
		ret->dropped_in = base;
	}
}
