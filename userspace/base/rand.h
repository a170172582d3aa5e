/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BASE_RAND_H
#define SL_BASE_RAND_H

#include <stdint.h>

/* xorshift64*: spreads retries and drains; never for secrets. The state is passed down. */
struct sl_rand {
	uint64_t state; /* never 0 after sl_rand_seed() */
};

static inline void sl_rand_seed(struct sl_rand *r, uint64_t seed)
{
	r->state = seed ? seed : 0x9e3779b97f4a7c15;
}

static inline uint64_t sl_rand_next(struct sl_rand *r)
{
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return r->state * 0x2545f4914f6cdd1d;
}

/* Uniform enough in [0, n); 0 for n = 0. */
static inline uint64_t sl_rand_below(struct sl_rand *r, uint64_t n)
{
	return n ? (sl_rand_next(r) >> 11) % n : 0;
}

#endif
