/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_BALANCE_H
#define SL_CORE_BALANCE_H

#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

/* Which target the next connection gets. Pure; the caller says what each target is worth now. */
enum sl_balance {
	SL_BALANCE_ROUND_ROBIN = 0,
	SL_BALANCE_LEAST_CONN,
	SL_BALANCE_RANDOM, /* the less loaded of two */
	SL_BALANCE_SOURCE_HASH,
	SL_BALANCE_MAGLEV,
};

#define SL_SHARE_ONE 1024 /* weight 1 at full strength */

struct sl_candidate {
	uint32_t share;  /* weight times SL_SHARE_ONE, less during slow start; 0: not eligible */
	uint32_t active; /* connections it has */
	/* sl_balance_name() of what identifies it over time, for source_hash; 0: its index */
	uint64_t name;
};

struct sl_ticket {
	uint64_t turn;         /* counts the route's connections: round robin */
	uint64_t random;       /* fresh: random */
	uint64_t client;       /* hash of the client's address: source_hash, maglev */
	const uint16_t *slots; /* sl_maglev_fill(): maglev */
	size_t n_slots;
};

#define SL_NO_CHOICE SIZE_MAX

/*
 * The index of the choice, or SL_NO_CHOICE when none is eligible. Over any W consecutive turns with
 * unchanged shares, W being the sum of weights, round robin gives each target exactly its weight,
 * spread evenly; equal weights are taken in order. least_conn compares connections per share, ties
 * go round. source_hash and maglev move only clients of targets that are not eligible. Linear in n,
 * maglev constant while the slot's target is eligible. At most 4096 choices.
 */
size_t sl_balance_pick(enum sl_balance how, const struct sl_candidate *choices, size_t n,
		       const struct sl_ticket *ticket);

/* Of the address without its port. Unseeded, so that every process and engine agrees. */
uint64_t sl_balance_hash(const struct sl_addr *client);
uint64_t sl_balance_name(const char *name); /* never 0 */

/*
 * Maglev (Eisenbud et al., NSDI 2016, section 3.4). `names` identify the targets over time;
 * the table's size is a prime from sl_maglev_size(), at least 128 slots for each target and
 * the same size for 1 to 512 of them: a table of another size is another table. When one of N
 * targets leaves or comes, at most 2/N of the slots change, N up to 100 and weights equal.
 */
size_t sl_maglev_size(size_t n_targets);
/*
 * `scratch`: 2 * n elements. Weight 0: no slots; where no target has weight, every
 * slot is UINT16_MAX. At most 65535 targets; `n_slots` is prime.
 */
void sl_maglev_fill(uint16_t *slots, size_t n_slots, const char *const *names,
		    const uint32_t *weights, size_t n, uint64_t *scratch);

#endif
