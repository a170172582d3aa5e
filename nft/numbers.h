/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_NUMBERS_H
#define SL_NFT_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "nft/ruleset.h"

struct sl_nft_number {
	const char *name;
	uint32_t mark; /* 0: to be given */
};

/*
 * Gives a number to each route that has none: the one that a route of its name has in `installed`
 * (NULL: none), else the lowest above `base` that neither `installed` nor another route here has.
 * A route that has gone keeps its number as long as it stands in the table: until its flows have
 * ended. -ENOSPC: none is left; -ENOMEM.
 */
SL_MUST_CHECK int sl_nft_numbers_give(const struct sl_nft_ruleset *installed, uint32_t base,
				      struct sl_nft_number *routes, size_t n);

#endif
