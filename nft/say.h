/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_SAY_H
#define SL_NFT_SAY_H

#include "nft/diff.h"
#include "nft/table.h"

/*
 * Appends to `to` what the operations change, in words, as nft writes them where that fits a line.
 * An element that is replaced is one change. Pure.
 */
void sl_nft_say_ops(const char *table, const struct sl_nft_ruleset *installed,
		    const struct sl_nft_ruleset *wanted, const struct sl_nft_ops *ops,
		    struct sl_nft_changes *to);

#endif
