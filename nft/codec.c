/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/codec.h"

#include <stdio.h> /* libnftnl/expr.h needs it */

#include <libnftnl/expr.h>
#include <linux/netfilter/nf_tables.h>
#include <string.h>

enum width {
	NO_VALUE = 0,
	REG, /* 32 bits; may be absent, which is not the same as 0 */
	U8,
	U32,
	U64,
};

static const struct shape {
	const char *name;
	struct {
		uint16_t attr;
		enum width width;
	} value[SL_NFT_VALUES];
	uint16_t text;    /* 0: none */
	uint16_t data[2]; /* 0: none */
} shapes[SL_NFT_EXPR_COUNT_] = {
	[SL_NFT_META] = { "meta",
			  { { NFTNL_EXPR_META_KEY, U32 }, { NFTNL_EXPR_META_DREG, REG } },
			  0,
			  { 0 } },
	[SL_NFT_CT] = { "ct",
			{ { NFTNL_EXPR_CT_KEY, U32 },
			  { NFTNL_EXPR_CT_DREG, REG },
			  { NFTNL_EXPR_CT_SREG, REG } },
			0,
			{ 0 } },
	[SL_NFT_PAYLOAD] = { "payload",
			     { { NFTNL_EXPR_PAYLOAD_BASE, U32 },
			       { NFTNL_EXPR_PAYLOAD_OFFSET, U32 },
			       { NFTNL_EXPR_PAYLOAD_LEN, U32 },
			       { NFTNL_EXPR_PAYLOAD_DREG, REG } },
			     0,
			     { 0 } },
	[SL_NFT_CMP] = { "cmp",
			 { { NFTNL_EXPR_CMP_SREG, REG }, { NFTNL_EXPR_CMP_OP, U32 } },
			 0,
			 { NFTNL_EXPR_CMP_DATA } },
	[SL_NFT_BITWISE] = { "bitwise",
			     { { NFTNL_EXPR_BITWISE_SREG, REG },
			       { NFTNL_EXPR_BITWISE_DREG, REG },
			       { NFTNL_EXPR_BITWISE_LEN, U32 } },
			     0,
			     { NFTNL_EXPR_BITWISE_MASK, NFTNL_EXPR_BITWISE_XOR } },
	[SL_NFT_LOOKUP] = { "lookup",
			    { { NFTNL_EXPR_LOOKUP_SREG, REG },
			      { NFTNL_EXPR_LOOKUP_DREG, REG },
			      { NFTNL_EXPR_LOOKUP_FLAGS, U32 } },
			    NFTNL_EXPR_LOOKUP_SET,
			    { 0 } },
	[SL_NFT_VERDICT] = { "immediate",
			     { { NFTNL_EXPR_IMM_VERDICT, U32 } },
			     NFTNL_EXPR_IMM_CHAIN,
			     { 0 } },
	[SL_NFT_VALUE] = { "immediate",
			   { { NFTNL_EXPR_IMM_DREG, REG } },
			   0,
			   { NFTNL_EXPR_IMM_DATA } },
	[SL_NFT_NAT] = { "nat",
			 { { NFTNL_EXPR_NAT_TYPE, U32 },
			   { NFTNL_EXPR_NAT_FAMILY, U32 },
			   { NFTNL_EXPR_NAT_REG_ADDR_MIN, REG },
			   { NFTNL_EXPR_NAT_REG_PROTO_MIN, REG } },
			 0,
			 { 0 } },
	[SL_NFT_MASQUERADE] = { "masq",
				{ { NFTNL_EXPR_MASQ_FLAGS, U32 },
				  { NFTNL_EXPR_MASQ_REG_PROTO_MIN, REG },
				  { NFTNL_EXPR_MASQ_REG_PROTO_MAX, REG } },
				0,
				{ 0 } },
	[SL_NFT_FIB] = { "fib",
			 { { NFTNL_EXPR_FIB_DREG, REG },
			   { NFTNL_EXPR_FIB_RESULT, U32 },
			   { NFTNL_EXPR_FIB_FLAGS, U32 } },
			 0,
			 { 0 } },
	[SL_NFT_REJECT] = { "reject",
			    { { NFTNL_EXPR_REJECT_TYPE, U32 }, { NFTNL_EXPR_REJECT_CODE, U8 } },
			    0,
			    { 0 } },
	[SL_NFT_LIMIT] = { "limit",
			   { { NFTNL_EXPR_LIMIT_RATE, U64 },
			     { NFTNL_EXPR_LIMIT_UNIT, U64 },
			     { NFTNL_EXPR_LIMIT_BURST, U32 },
			     { NFTNL_EXPR_LIMIT_TYPE, U32 },
			     { NFTNL_EXPR_LIMIT_FLAGS, U32 } },
			   0,
			   { 0 } },
	[SL_NFT_CONNLIMIT] = { "connlimit",
			       { { NFTNL_EXPR_CONNLIMIT_COUNT, U32 },
				 { NFTNL_EXPR_CONNLIMIT_FLAGS, U32 } },
			       0,
			       { 0 } },
	[SL_NFT_NUMGEN] = { "numgen",
			    { { NFTNL_EXPR_NG_DREG, REG },
			      { NFTNL_EXPR_NG_MODULUS, U32 },
			      { NFTNL_EXPR_NG_TYPE, U32 },
			      { NFTNL_EXPR_NG_OFFSET, U32 } },
			    0,
			    { 0 } },
	[SL_NFT_HASH] = { "hash",
			  { { NFTNL_EXPR_HASH_SREG, REG },
			    { NFTNL_EXPR_HASH_DREG, REG },
			    { NFTNL_EXPR_HASH_LEN, U32 },
			    { NFTNL_EXPR_HASH_MODULUS, U32 },
			    { NFTNL_EXPR_HASH_SEED, U32 },
			    { NFTNL_EXPR_HASH_TYPE, U32 },
			    { NFTNL_EXPR_HASH_OFFSET, U32 } },
			  0,
			  { 0 } },
	[SL_NFT_COUNTER_MAP] = { "objref",
				 { { NFTNL_EXPR_OBJREF_SET_SREG, REG } },
				 NFTNL_EXPR_OBJREF_SET_NAME,
				 { 0 } },
	[SL_NFT_FLOW] = { "flow_offload", { { 0, NO_VALUE } }, NFTNL_EXPR_FLOW_TABLE_NAME, { 0 } },
	/* and what is behind in its own functions */
	[SL_NFT_DYNSET] = { "dynset",
			    { { NFTNL_EXPR_DYNSET_SREG_KEY, REG }, { NFTNL_EXPR_DYNSET_OP, U32 } },
			    NFTNL_EXPR_DYNSET_SET_NAME,
			    { 0 } },
};
#define N_OWN_OF_DYNSET 2

static void set_value(struct nftnl_expr *k, uint16_t attr, enum width width, uint32_t value)
{
	switch (width) {
	case REG:
		if (value != SL_NFT_NO_REG)
			nftnl_expr_set_u32(k, attr, value);
		break;
	case U8:
		nftnl_expr_set_u8(k, attr, (uint8_t)value);
		break;
	case U32:
		nftnl_expr_set_u32(k, attr, value);
		break;
	case U64:
		nftnl_expr_set_u64(k, attr, value);
		break;
	case NO_VALUE:
		break;
	}
}

static unsigned n_values_of(const struct shape *s)
{
	unsigned n = 0;

	while (n < SL_NFT_VALUES && s->value[n].width != NO_VALUE)
		n++;
	return n;
}

static bool is_limit(uint32_t kind)
{
	return kind == SL_NFT_LIMIT || kind == SL_NFT_CONNLIMIT;
}

/* The limit of each element goes into `k`. */
static bool encode_limit(const struct sl_nft_expr *e, struct nftnl_expr *k)
{
	const uint32_t *values = e->value + N_OWN_OF_DYNSET;
	struct sl_nft_expr limit = { .kind = (enum sl_nft_expr_kind)values[0] };
	struct nftnl_expr *inner;

	if (e->n_values <= N_OWN_OF_DYNSET || !is_limit(values[0]))
		return false;
	limit.n_values = e->n_values - N_OWN_OF_DYNSET - 1;
	memcpy(limit.value, values + 1, limit.n_values * sizeof(limit.value[0]));
	inner = sl_nft_expr_encode(&limit);
	if (!inner)
		return false;
	(void)nftnl_expr_set(k, NFTNL_EXPR_DYNSET_EXPR, inner, 0); /* which owns it then */
	return true;
}

struct nftnl_expr *sl_nft_expr_encode(const struct sl_nft_expr *e)
{
	const struct shape *s = &shapes[e->kind];
	struct nftnl_expr *k = nftnl_expr_alloc(s->name);
	uint32_t len = s->data[1] ? e->n_data / 2u : e->n_data;
	unsigned n = e->kind == SL_NFT_DYNSET ? N_OWN_OF_DYNSET : e->n_values;

	if (!k)
		return NULL;
	for (unsigned i = 0; i < n; i++)
		set_value(k, s->value[i].attr, s->value[i].width, e->value[i]);
	if (e->kind == SL_NFT_VERDICT)
		nftnl_expr_set_u32(k, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	if (e->kind == SL_NFT_DYNSET && !encode_limit(e, k)) {
		nftnl_expr_free(k);
		return NULL;
	}
	if (s->text && *e->name)
		(void)nftnl_expr_set_str(k, s->text, e->name);
	for (uint32_t i = 0; i < 2 && s->data[i]; i++)
		(void)nftnl_expr_set(k, s->data[i], e->data + i * len, len);
	return k;
}

static uint32_t get_value(struct nftnl_expr *k, uint16_t attr, enum width width)
{
	if (!nftnl_expr_is_set(k, attr))
		return width == REG ? SL_NFT_NO_REG : 0;
	switch (width) {
	case U8:
		return nftnl_expr_get_u8(k, attr);
	case U64: {
		uint64_t value = nftnl_expr_get_u64(k, attr);

		return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
	}
	case REG:
	case U32:
		return nftnl_expr_get_u32(k, attr);
	case NO_VALUE:
		break;
	}
	return 0;
}

static enum sl_nft_expr_kind kind_of(struct nftnl_expr *k, const char *name)
{
	for (int i = 0; i < SL_NFT_EXPR_COUNT_; i++) {
		if (strcmp(shapes[i].name, name) != 0)
			continue;
		if (i == SL_NFT_VERDICT && !nftnl_expr_is_set(k, NFTNL_EXPR_IMM_VERDICT))
			continue; /* a value, then */
		return (enum sl_nft_expr_kind)i;
	}
	return SL_NFT_FOREIGN;
}

/* False: it does not fit, so it is none of ours. */
static bool get_data(struct nftnl_expr *k, uint16_t attr, struct sl_nft_expr *e)
{
	uint32_t len = 0;
	const void *p = nftnl_expr_is_set(k, attr) ? nftnl_expr_get(k, attr, &len) : NULL;

	if (!p || len > sizeof(e->data) - e->n_data)
		return false;
	memcpy(e->data + e->n_data, p, len);
	e->n_data = (uint8_t)(e->n_data + len);
	return true;
}

static bool decode(struct nftnl_expr *k, const struct shape *s, struct sl_nft_expr *e)
{
	for (unsigned i = 0; i < n_values_of(s); i++)
		e->value[e->n_values++] = get_value(k, s->value[i].attr, s->value[i].width);
	if (s->text && nftnl_expr_is_set(k, s->text)) {
		const char *text = nftnl_expr_get_str(k, s->text);

		if (strlen(text) >= sizeof(e->name))
			return false;
		snprintf(e->name, sizeof(e->name), "%s", text);
	}
	for (int i = 0; i < 2 && s->data[i]; i++)
		if (!get_data(k, s->data[i], e))
			return false;
	return true;
}

/* False: with something that ours never have. */
static bool decode_limit(struct nftnl_expr *k, struct sl_nft_expr *e)
{
	uint32_t len = 0;
	struct nftnl_expr *inner =
		(struct nftnl_expr *)(uintptr_t)nftnl_expr_get(k, NFTNL_EXPR_DYNSET_EXPR, &len);
	struct sl_nft_expr limit;

	if (!inner || nftnl_expr_is_set(k, NFTNL_EXPR_DYNSET_SREG_DATA) ||
	    (nftnl_expr_is_set(k, NFTNL_EXPR_DYNSET_TIMEOUT) &&
	     nftnl_expr_get_u64(k, NFTNL_EXPR_DYNSET_TIMEOUT) != 0) ||
	    (nftnl_expr_is_set(k, NFTNL_EXPR_DYNSET_FLAGS) &&
	     nftnl_expr_get_u32(k, NFTNL_EXPR_DYNSET_FLAGS) & NFT_DYNSET_F_INV))
		return false;
	sl_nft_expr_decode(inner, &limit);
	if (!is_limit(limit.kind))
		return false;
	e->value[e->n_values++] = limit.kind;
	memcpy(e->value + e->n_values, limit.value, limit.n_values * sizeof(limit.value[0]));
	e->n_values += limit.n_values;
	return true;
}

void sl_nft_expr_decode(struct nftnl_expr *kernel, struct sl_nft_expr *ret)
{
	const char *name = nftnl_expr_get_str(kernel, NFTNL_EXPR_NAME);
	struct sl_nft_expr e = { .kind = kind_of(kernel, name) };

	if (e.kind == SL_NFT_FOREIGN || !decode(kernel, &shapes[e.kind], &e) ||
	    (e.kind == SL_NFT_DYNSET && !decode_limit(kernel, &e))) {
		e = (struct sl_nft_expr){ .kind = SL_NFT_FOREIGN };
		snprintf(e.name, sizeof(e.name), "%s", name);
	}
	*ret = e;
}
