/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_EXPR_H
#define SL_NFT_EXPR_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/*
 * The code of a rule: its expressions in the order of evaluation, in one canonical form, whether
 * they are wanted or were read from the kernel. Two rules are the same when their bytes are.
 *
 * Each: kind, number of values, values (32 bits, host order), length of name, name, length of
 * data, data. Numbers are those of linux/netfilter/nf_tables.h.
 */
enum sl_nft_expr_kind {
	SL_NFT_META = 0,    /* key, dreg */
	SL_NFT_CT,          /* key, dreg, sreg */
	SL_NFT_PAYLOAD,     /* base, offset, len, dreg */
	SL_NFT_CMP,         /* sreg, op; data */
	SL_NFT_BITWISE,     /* sreg, dreg, len; data: mask, then what is xored */
	SL_NFT_LOOKUP,      /* sreg, dreg, flags; name of the set */
	SL_NFT_VERDICT,     /* code; name of the chain */
	SL_NFT_VALUE,       /* dreg; data */
	SL_NFT_NAT,         /* type, family, register of the address, of the port */
	SL_NFT_MASQUERADE,  /* flags, registers of the first and the last port */
	SL_NFT_FIB,         /* dreg, result, flags */
	SL_NFT_REJECT,      /* type, code */
	SL_NFT_LIMIT,       /* rate, unit (s), burst, type, flags */
	SL_NFT_CONNLIMIT,   /* count, flags */
	SL_NFT_NUMGEN,      /* dreg, modulus, type, offset */
	SL_NFT_HASH,        /* sreg, dreg, len, modulus, seed, type, offset */
	SL_NFT_COUNTER_MAP, /* sreg; name of the map */
	SL_NFT_FLOW,        /* ; name of the flow table */
	/* sreg, op, kind of the limit that each element has, values of that; name of the set */
	SL_NFT_DYNSET,
	SL_NFT_EXPR_COUNT_,
	SL_NFT_FOREIGN =
		0xff, /* what we never write; name: the kernel's. Equal to nothing wanted */
};

#define SL_NFT_NO_REG UINT32_MAX
#define SL_NFT_VALUES 8 /* at most */

struct sl_nft_expr {
	enum sl_nft_expr_kind kind;
	unsigned n_values;
	uint32_t value[SL_NFT_VALUES];
	char name[40];
	uint8_t n_data;
	uint8_t data[32];
};

void sl_nft_expr_put(struct sl_str *code, const struct sl_nft_expr *e);

/* The expression at `*at`, which then is that of the next. False at the end, or where it is cut. */
bool sl_nft_expr_next(const uint8_t *code, size_t n, size_t *at, struct sl_nft_expr *ret);

#endif
