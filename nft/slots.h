/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_SLOTS_H
#define SL_NFT_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "core/balance.h"

/*
 * The kernel chooses among several targets by a number below N: each slot of a map of N names
 * a target. Round robin and random: as many slots as weights, in lowest terms, spread evenly, of
 * the usable targets only. Source hash and Maglev: a table of fixed size, in which only the slots
 * of a target that is down go to others; source hash also when one is gone or has no weight, while
 * Maglev then moves a few more, and has the more even shares (core/balance.h).
 */
struct sl_nft_share {
	const char *name; /* identifies the target over time */
	uint32_t weight;  /* 0: never */
	bool is_down;
};

#define SL_NFT_SLOTS_MAX 65521 /* at most so many slots */
#define SL_NFT_NO_SLOT UINT16_MAX

/*
 * `*ret` is an array, which the caller frees, of `*ret_n` indices of `shares`; NULL and 0 when
 * none is usable. At most 4096 shares (-EINVAL); -ENOMEM.
 */
SL_MUST_CHECK int sl_nft_slots_fill(enum sl_balance how, const struct sl_nft_share *shares,
				    size_t n, uint16_t **ret, size_t *ret_n);

#endif
