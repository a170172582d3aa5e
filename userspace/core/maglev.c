/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/siphash.h"
#include "core/balance.h"

#include <string.h>

#define FREE UINT16_MAX

/*
 * Primes. Measured for all N up to 100: with 65537 slots at most 1.7/N of them change when one
 * target leaves, with 16411 it is 2.6/N.
 */
static const struct {
	size_t n_targets; /* at most */
	size_t n_slots;
} sizes[] = { { 512, 65537 }, { 4096, 524309 }, { 65535, 8388539 } };

size_t sl_maglev_size(size_t n_targets)
{
	size_t i = 0;

	while (i + 1 < sizeof(sizes) / sizeof(sizes[0]) && n_targets > sizes[i].n_targets)
		i++;
	return sizes[i].n_slots;
}

/* Where one target stands in its own order of all slots: `at`, then `skip` further each time. */
struct walk {
	uint32_t at;
	uint32_t skip;
};

static void start_walk(const char *name, size_t n_slots, uint64_t *ret)
{
	static const uint8_t offset_key[16] = "sluice maglev of";
	static const uint8_t skip_key[16] = "sluice maglev sk";
	size_t len = strlen(name);
	struct walk w = { .at = (uint32_t)(sl_siphash(name, len, offset_key) % n_slots),
			  .skip = (uint32_t)(sl_siphash(name, len, skip_key) % (n_slots - 1)) + 1 };

	memcpy(ret, &w, sizeof(w));
}

/* The next free slot in the order of the target; there is one. */
static size_t next_slot(const uint16_t *slots, size_t n_slots, uint64_t *walk)
{
	struct walk w;
	size_t slot;

	memcpy(&w, walk, sizeof(w));
	do {
		slot = w.at;
		w.at += w.skip;
		if (w.at >= n_slots)
			w.at -= (uint32_t)n_slots;
	} while (slots[slot] != FREE);
	memcpy(walk, &w, sizeof(w));
	return slot;
}

/*
 * Targets take slots in turn; one of weight w takes part in w of the turns that the heaviest
 * takes, spread over them by carrying the rest over.
 */
void sl_maglev_fill(uint16_t *slots, size_t n_slots, const char *const *names,
		    const uint32_t *weights, size_t n, uint64_t *scratch)
{
	uint64_t *carried = scratch + n;
	uint32_t heaviest = 0;
	size_t n_free = n_slots;

	for (size_t i = 0; i < n; i++) {
		start_walk(names[i], n_slots, &scratch[i]);
		carried[i] = 0;
		heaviest = weights[i] > heaviest ? weights[i] : heaviest;
	}
	memset(slots, 0xff, n_slots * sizeof(*slots));
	if (heaviest == 0)
		return; /* no slot names a target */
	for (size_t i = 0; n_free > 0; i = i + 1 < n ? i + 1 : 0) {
		carried[i] += weights[i];
		if (carried[i] < heaviest)
			continue;
		carried[i] -= heaviest;
		slots[next_slot(slots, n_slots, &scratch[i])] = (uint16_t)i;
		n_free--;
	}
}
