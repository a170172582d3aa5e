/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_CODEC_H
#define SL_NFT_CODEC_H

#include "nft/expr.h"

struct nftnl_expr;

/* Comments in user data, as nft numbers them; those of sets are numbered otherwise. */
#define SL_NFT_UDATA_COMMENT 0
#define SL_NFT_UDATA_SET_COMMENT 7

/* Between the expressions of nft/expr.h and those of libnftnl: one table for both directions. */

/* To be freed with the rule it is added to; NULL: out of memory. */
struct nftnl_expr *sl_nft_expr_encode(const struct sl_nft_expr *e);

/* What we never write becomes SL_NFT_FOREIGN. */
void sl_nft_expr_decode(struct nftnl_expr *kernel, struct sl_nft_expr *ret);

#endif
