/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/say.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* nft's numbers of data types (its include/datatype.h), as in nft/form.c. */
enum {
	INTEGER = 4,
	ADDR4 = 7,
	ADDR6 = 8,
	PROTO = 12,
	PORT = 13,
	MARK = 19,
	TYPE_BITS = 6,
	TYPE_MASK = 63,
};

/* Fields of a key at most. */
#define FIELDS 5

struct text {
	char *at;
	size_t left;
};

static void say(struct text *t, const char *fmt, ...) SL_PRINTF(2, 3);
static void say(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->at, t->left, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	if ((size_t)n >= t->left)
		n = t->left ? (int)t->left - 1 : 0;
	t->at += n;
	t->left -= (size_t)n;
}

/* ---- values ---- */

static size_t length_of(unsigned type)
{
	return type == ADDR6 ? 16 : type == PORT ? 2 : type == PROTO ? 1 : 4;
}

static void say_field(struct text *t, unsigned type, const uint8_t *bytes)
{
	char ip[INET6_ADDRSTRLEN];
	uint32_t number;

	memcpy(&number, bytes, sizeof(number));
	switch (type) {
	case ADDR4:
	case ADDR6:
		say(t, "%s",
		    inet_ntop(type == ADDR4 ? AF_INET : AF_INET6, bytes, ip, sizeof(ip)) ? ip
											 : "?");
		break;
	case PROTO:
		if (*bytes == IPPROTO_TCP || *bytes == IPPROTO_UDP)
			say(t, "%s", *bytes == IPPROTO_TCP ? "tcp" : "udp");
		else
			say(t, "%u", *bytes);
		break;
	case PORT:
		say(t, "%u", bytes[0] << 8 | bytes[1]);
		break;
	case MARK:
		say(t, "0x%08x", number);
		break;
	case INTEGER:
	default:
		say(t, "%u", number);
	}
}

/* `end` NULL: no interval. */
static void say_value(struct text *t, uint32_t type, const uint8_t *bytes, const uint8_t *end)
{
	unsigned types[FIELDS];
	size_t n = 0, at = 0;

	for (; type && n < FIELDS; type >>= TYPE_BITS)
		types[n++] = type & TYPE_MASK;
	while (n-- > 0) {
		size_t len = length_of(types[n]);

		say_field(t, types[n], bytes + at);
		if (end && memcmp(bytes + at, end + at, len) != 0) {
			say(t, "-");
			say_field(t, types[n], end + at);
		}
		at += (len + 3) / 4 * 4;
		say(t, "%s", n ? " . " : "");
	}
}

static const char *kind_of(const struct sl_nft_set *set)
{
	return set->data_type || set->object_type ? "map" : "set";
}

static void say_comment(struct text *t, const char *comment)
{
	if (*comment)
		say(t, " (%s)", comment);
}

static void say_elem(struct text *t, const struct sl_nft_ruleset *rs, const struct sl_nft_set *set,
		     const struct sl_nft_elem *e)
{
	static const uint8_t none[SL_NFT_KEY];
	bool is_range = memcmp(e->end, none, sizeof(none)) != 0;

	say(t, "element ");
	say_value(t, set->key_type, e->key, is_range ? e->end : NULL);
	if (e->flags & NFT_SET_ELEM_INTERVAL_END)
		say(t, " (end)");
	if (e->verdict)
		say(t, " : %s %s", e->verdict == NFT_JUMP ? "jump" : "goto",
		    sl_nft_text(rs, e->name));
	else if (set->object_type)
		say(t, " : %s", sl_nft_text(rs, e->name));
	else if (set->data_type) {
		say(t, " : ");
		say_value(t, set->data_type, e->data, NULL);
	}
	say(t, " of %s %s", kind_of(set), set->name);
	say_comment(t, sl_nft_text(rs, e->comment));
}

static void say_rule(struct text *t, const struct sl_nft_ruleset *rs, const struct sl_nft_op *op)
{
	const struct sl_nft_chain *chain = &rs->chains[op->object];
	const struct sl_nft_rule *rule = &chain->rules[op->index];

	say(t, "rule %u of chain %s", op->index + 1, chain->name);
	say_comment(t, sl_nft_text(rs, rule->comment));
}

static void say_set(struct text *t, const struct sl_nft_set *set)
{
	say(t, "%s %s", kind_of(set), set->name);
}

/* ---- operations ---- */

static bool is_removal(const struct sl_nft_op *op)
{
	switch (op->kind) {
	case SL_NFT_ADD_TABLE:
	case SL_NFT_ADD_SET:
	case SL_NFT_ADD_COUNTER:
	case SL_NFT_ADD_FLOWTABLE:
	case SL_NFT_ADD_CHAIN:
	case SL_NFT_ADD_ELEM:
	case SL_NFT_ADD_RULE:
		return false;
	case SL_NFT_DEL_TABLE:
	case SL_NFT_CUT_FLOWTABLE:
	case SL_NFT_DEL_ELEM:
	case SL_NFT_DEL_RULE:
	case SL_NFT_DEL_SET:
	case SL_NFT_DEL_CHAIN:
	case SL_NFT_DEL_COUNTER:
	case SL_NFT_DEL_FLOWTABLE:
		break;
	}
	return true;
}

static void say_object(struct text *t, const char *table, const struct sl_nft_ruleset *rs,
		       const struct sl_nft_op *op)
{
	switch (op->kind) {
	case SL_NFT_ADD_TABLE:
	case SL_NFT_DEL_TABLE:
		say(t, "table inet %s", table);
		break;
	case SL_NFT_ADD_SET:
	case SL_NFT_DEL_SET:
		say_set(t, &rs->sets[op->object]);
		break;
	case SL_NFT_ADD_COUNTER:
	case SL_NFT_DEL_COUNTER:
		say(t, "counter %s", rs->counters[op->object].name);
		break;
	case SL_NFT_ADD_FLOWTABLE:
	case SL_NFT_CUT_FLOWTABLE:
	case SL_NFT_DEL_FLOWTABLE:
		say(t, "flowtable " SL_NFT_FLOWTABLE);
		break;
	case SL_NFT_ADD_CHAIN:
	case SL_NFT_DEL_CHAIN:
		say(t, "chain %s", rs->chains[op->object].name);
		break;
	case SL_NFT_ADD_ELEM:
	case SL_NFT_DEL_ELEM:
		say_elem(t, rs, &rs->sets[op->object], &rs->sets[op->object].elems[op->index]);
		break;
	case SL_NFT_ADD_RULE:
	case SL_NFT_DEL_RULE:
		say_rule(t, rs, op);
		break;
	}
}

/* Among those that are described; NULL: it is not. */
static struct sl_nft_change *removed_of_key(const struct sl_nft_ruleset *installed,
					    const struct sl_nft_ruleset *wanted,
					    const struct sl_nft_op *add,
					    const struct sl_nft_op *const *op_of,
					    struct sl_nft_changes *to, size_t from)
{
	const struct sl_nft_set *set = &wanted->sets[add->object];

	for (size_t i = from; i < to->n && i < SL_NFT_CHANGES; i++) {
		const struct sl_nft_op *op = op_of[i];
		const struct sl_nft_set *old;

		if (!op || op->kind != SL_NFT_DEL_ELEM)
			continue;
		old = &installed->sets[op->object];
		if (strcmp(old->name, set->name) == 0 &&
		    sl_nft_elem_compare(&old->elems[op->index], &set->elems[add->index]) == 0)
			return &to->item[i];
	}
	return NULL;
}

/* A table that is made anew is one change, whatever is in it. */
static bool is_of_new_table(const struct sl_nft_ops *ops)
{
	return ops->n &&
	       (ops->op[0].kind == SL_NFT_DEL_TABLE || ops->op[0].kind == SL_NFT_ADD_TABLE);
}

static void say_table(const char *table, const struct sl_nft_ops *ops, struct sl_nft_changes *to)
{
	struct sl_nft_change *c = to->n < SL_NFT_CHANGES ? &to->item[to->n] : NULL;

	to->n++;
	if (!c)
		return;
	*c = (struct sl_nft_change){ 0 };
	(void)snprintf(c->wanted, sizeof(c->wanted), "table inet %s", table);
	if (ops->op[0].kind == SL_NFT_DEL_TABLE)
		(void)snprintf(c->found, sizeof(c->found),
			       "table inet %s with another form, or objects of others", table);
}

void sl_nft_say_ops(const char *table, const struct sl_nft_ruleset *installed,
		    const struct sl_nft_ruleset *wanted, const struct sl_nft_ops *ops,
		    struct sl_nft_changes *to)
{
	const struct sl_nft_op *op_of[SL_NFT_CHANGES] = { NULL };
	size_t from = to->n;

	if (is_of_new_table(ops)) {
		say_table(table, ops, to);
		return;
	}
	for (size_t i = 0; i < ops->n; i++) {
		const struct sl_nft_op *op = &ops->op[i];
		bool is_gone = is_removal(op);
		struct sl_nft_change *c =
			op->kind == SL_NFT_ADD_ELEM
				? removed_of_key(installed, wanted, op, op_of, to, from)
				: NULL;
		struct text t;

		if (!c) {
			size_t at = to->n++;

			if (at >= SL_NFT_CHANGES)
				continue;
			op_of[at] = op;
			c = &to->item[at];
			*c = (struct sl_nft_change){ 0 };
		}
		t = is_gone ? (struct text){ c->found, sizeof(c->found) }
			    : (struct text){ c->wanted, sizeof(c->wanted) };
		say_object(&t, table, is_gone ? installed : wanted, op);
	}
}
