/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SHARES_MAX 4096
#define TURNS_MAX 4096

static uint32_t usable(const struct sl_nft_share *s)
{
	return s->is_down ? 0 : s->weight;
}

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
	while (b) {
		uint32_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/* Weights in lowest terms, of which the sum is at most about TURNS_MAX. Returns the sum. */
static uint32_t reduce(const struct sl_nft_share *shares, size_t n, uint32_t *turns)
{
	uint32_t divisor = 0, sum = 0;
	uint64_t total = 0;

	for (size_t i = 0; i < n; i++)
		divisor = common_divisor(usable(&shares[i]), divisor);
	for (size_t i = 0; i < n; i++) {
		turns[i] = divisor ? usable(&shares[i]) / divisor : 0;
		total += turns[i];
	}
	for (size_t i = 0; i < n; i++) {
		if (total > TURNS_MAX && turns[i])
			turns[i] = (uint32_t)((uint64_t)turns[i] * (TURNS_MAX - n) / total) + 1;
		sum += turns[i];
	}
	return sum;
}

/* Each turn goes to who is owed most; what was taken is owed again by weight. */
static int fill_turns(const struct sl_nft_share *shares, size_t n, uint16_t **ret, size_t *ret_n)
{
	_cleanup_free_ uint32_t *turns = calloc(n, sizeof(*turns));
	_cleanup_free_ int64_t *owed = calloc(n, sizeof(*owed));
	_cleanup_free_ uint16_t *slots = NULL;
	uint32_t sum;

	if (!turns || !owed)
		return -ENOMEM;
	sum = reduce(shares, n, turns);
	slots = calloc(sum + 1, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (uint32_t slot = 0; slot < sum; slot++) {
		size_t best = 0;

		for (size_t i = 0; i < n; i++) {
			owed[i] += turns[i];
			if (owed[i] > owed[best])
				best = i;
		}
		owed[best] -= sum;
		slots[slot] = (uint16_t)best;
	}
	*ret_n = sum;
	*ret = sum ? SL_TAKE_PTR(slots) : NULL;
	return 0;
}

/*
 * Primes, 30 slots or more for a target, so that weights 1 and 2 can be told apart; slots that are
 * drawn need more, or chance makes the shares.
 */
static size_t table_size(size_t n, bool is_drawn)
{
	static const struct {
		size_t n_shares;
		size_t n_slots;
	} sizes[] = { { 8, 251 }, { 32, 1021 }, { 128, 4093 }, { 512, 16381 } };

	for (size_t i = is_drawn ? 1 : 0; i < SL_ARRAY_LEN(sizes); i++)
		if (n <= sizes[i].n_shares)
			return sizes[i].n_slots;
	return SL_NFT_SLOTS_MAX;
}

/* The targets draw for each slot, so whoever comes or goes moves no slot between others. */
static int draw_table(const struct sl_nft_share *shares, size_t n, uint16_t **ret, size_t *ret_n)
{
	_cleanup_free_ struct sl_candidate *choices = calloc(n, sizeof(*choices));
	size_t n_slots = table_size(n, true);
	_cleanup_free_ uint16_t *slots = calloc(n_slots, sizeof(*slots));

	if (!choices || !slots)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		choices[i] = (struct sl_candidate){ .share = usable(&shares[i]),
						    .name = sl_balance_name(shares[i].name) };
	for (size_t i = 0; i < n_slots; i++) {
		struct sl_ticket ticket = { .client = i };

		slots[i] = (uint16_t)sl_balance_pick(SL_BALANCE_SOURCE_HASH, choices, n, &ticket);
	}
	*ret_n = n_slots;
	*ret = SL_TAKE_PTR(slots);
	return 0;
}

static int fill_table(const struct sl_nft_share *shares, size_t n, uint16_t **ret, size_t *ret_n)
{
	_cleanup_free_ const char **names = calloc(n, sizeof(*names));
	_cleanup_free_ uint32_t *weights = calloc(n, sizeof(*weights));
	_cleanup_free_ uint64_t *scratch = calloc(2 * n, sizeof(*scratch));
	size_t n_slots = table_size(n, false);
	_cleanup_free_ uint16_t *slots = calloc(n_slots, sizeof(*slots));
	_cleanup_free_ uint16_t *rest = calloc(n_slots, sizeof(*rest));

	if (!names || !weights || !scratch || !slots || !rest)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		names[i] = shares[i].name;
		weights[i] = shares[i].weight;
	}
	sl_maglev_fill(slots, n_slots, names, weights, n, scratch);
	for (size_t i = 0; i < n; i++)
		weights[i] = usable(&shares[i]);
	sl_maglev_fill(rest, n_slots, names, weights, n, scratch);
	for (size_t i = 0; i < n_slots; i++)
		if (slots[i] != SL_NFT_NO_SLOT && shares[slots[i]].is_down)
			slots[i] = rest[i];
	*ret_n = n_slots;
	*ret = SL_TAKE_PTR(slots);
	return 0;
}

int sl_nft_slots_fill(enum sl_balance how, const struct sl_nft_share *shares, size_t n,
		      uint16_t **ret, size_t *ret_n)
{
	uint64_t total = 0;

	if (n > SHARES_MAX)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		total += usable(&shares[i]);
	if (total == 0) {
		*ret = NULL;
		*ret_n = 0;
		return 0;
	}
	if (how == SL_BALANCE_SOURCE_HASH)
		return draw_table(shares, n, ret, ret_n);
	if (how == SL_BALANCE_MAGLEV)
		return fill_table(shares, n, ret, ret_n);
	return fill_turns(shares, n, ret, ret_n);
}
