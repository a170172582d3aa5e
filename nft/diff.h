/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_DIFF_H
#define SL_NFT_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "nft/ruleset.h"

/*
 * The least that makes the installed table the wanted one, in an order that the kernel takes in one
 * batch. What is the same stays: a rule that was replaced would begin its limits and counts anew.
 */
enum sl_nft_op_kind {
	SL_NFT_DEL_TABLE = 0,
	SL_NFT_ADD_TABLE,
	SL_NFT_ADD_SET,
	SL_NFT_ADD_COUNTER,
	SL_NFT_ADD_FLOWTABLE, /* or the interfaces that it has not yet */
	SL_NFT_CUT_FLOWTABLE, /* takes out those that are not wanted */
	SL_NFT_ADD_CHAIN,
	SL_NFT_DEL_ELEM,
	SL_NFT_ADD_ELEM,
	SL_NFT_ADD_RULE, /* before the rule `handle`; 0: at the end of its chain */
	SL_NFT_DEL_RULE, /* that with `handle` */
	SL_NFT_DEL_SET,
	SL_NFT_DEL_CHAIN,
	SL_NFT_DEL_COUNTER,
	SL_NFT_DEL_FLOWTABLE,
};

struct sl_nft_op {
	enum sl_nft_op_kind kind;
	/* the set, chain or counter: of the wanted ruleset when added, else of the installed one */
	uint32_t object;
	uint32_t index; /* of the element, or of the rule */
	uint64_t handle;
};

struct sl_nft_ops {
	struct sl_nft_op *op;
	size_t n;
	size_t cap;
	/* The operations from here on make a first load take effect, and so belong in one batch. */
	size_t n_silent;
};

void sl_nft_ops_done(struct sl_nft_ops *ops);

/*
 * Both sorted. `installed` NULL: there is no table. A table of another form, or with objects that
 * are not ours, is replaced as a whole. `ret` is to be given back with sl_nft_ops_done();
 * -ENOMEM.
 */
SL_MUST_CHECK int sl_nft_diff(const struct sl_nft_ruleset *installed,
			      const struct sl_nft_ruleset *wanted, struct sl_nft_ops *ret);

/*
 * For each rule of `wanted`'s chain `chain` the index of the same one that is installed, or
 * SL_NFT_NO_RULE: as many as possible are kept in their order. `ret` has room for the rules of
 * `wanted`. -ENOMEM.
 */
#define SL_NFT_NO_RULE UINT32_MAX
SL_MUST_CHECK int sl_nft_match_rules(const struct sl_nft_ruleset *installed,
				     const struct sl_nft_chain *old,
				     const struct sl_nft_ruleset *wanted,
				     const struct sl_nft_chain *chain, uint32_t *ret);

#endif
