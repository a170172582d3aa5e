/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/balance.h"

#include <string.h>

#include "base/siphash.h"

/* ---- hashes ---- */

static const uint8_t client_key[16] = "sluice client   ";
static const uint8_t name_key[16] = "sluice target   ";

uint64_t sl_balance_hash(const struct sl_addr *client)
{
	uint8_t ip[16];
	size_t n = sl_addr_ip_bytes(client, ip);

	return sl_siphash(ip, n, client_key);
}

uint64_t sl_balance_name(const char *name)
{
	uint64_t h = sl_siphash(name, strlen(name), name_key);

	return h ? h : 1;
}

/* The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every bit depends on every bit. */
static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9;
	x ^= x >> 27;
	x *= 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* ---- those a pick is among ---- */

struct field {
	const struct sl_candidate *choices;
	size_t n;
	const struct sl_candidate *like; /* only those as loaded as this one; NULL: all eligible */
};

/* As fractions of their shares. */
static bool is_less_loaded(const struct sl_candidate *a, const struct sl_candidate *b)
{
	return (uint64_t)a->active * b->share < (uint64_t)b->active * a->share;
}

static uint32_t share_of(const struct field *f, size_t i)
{
	const struct sl_candidate *c = &f->choices[i];

	if (c->share != 0 && f->like && (is_less_loaded(c, f->like) || is_less_loaded(f->like, c)))
		return 0;
	return c->share;
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b != 0) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/* ---- round robin ---- */

/*
 * A cycle has W turns, W being the sum of the shares divided by their greatest common divisor.
 * Targets of equal share form a class, which has its sum of turns at even distances, (k + 1/2) /
 * sum of the cycle, and gives them to its members in order. The turn with a number is found by
 * bisection over those times, in steps of 2^-TIME_BITS, without any state. (One class for each
 * target would let many of small, equal share come one right after the other.) Shares that find
 * no class left form one together, which strides over them.
 */
#define MAX_CLASSES 16
#define TIME_BITS 30

struct class
{
	uint32_t share; /* 0: of several shares */
	uint64_t turns; /* in a cycle */
	uint64_t n;
};

struct cycle {
	struct class class[MAX_CLASSES + 1]; /* the last is that of several shares */
	size_t n_classes;                    /* without the last */
	uint64_t turns;
	uint64_t unit; /* share of one turn */
};

static struct class *find_class(struct cycle *y, uint32_t share)
{
	for (size_t i = 0; i < y->n_classes; i++)
		if (y->class[i].share == share)
			return &y->class[i];
	return &y->class[MAX_CLASSES];
}

static void plan_cycle(const struct field *f, struct cycle *y)
{
	y->n_classes = 0;
	y->turns = 0;
	y->unit = 0;
	y->class[MAX_CLASSES] = (struct class){ 0 };
	for (size_t i = 0; i < f->n; i++)
		y->unit = gcd(share_of(f, i), y->unit);
	for (size_t i = 0; i < f->n; i++) {
		uint32_t share = share_of(f, i);
		struct class *c;

		if (share == 0)
			continue;
		c = find_class(y, share);
		if (c->share == 0 && y->n_classes < MAX_CLASSES) {
			c = &y->class[y->n_classes++];
			*c = (struct class){ .share = share };
		}
		c->n++;
		c->turns += share / y->unit;
		y->turns += share / y->unit;
	}
}

/* How many turns a class has had before `time`. */
static uint64_t turns_before(const struct class *c, uint64_t time)
{
	if (time == 0 || c->turns == 0)
		return 0;
	return (((time * 2 * c->turns - 1) >> TIME_BITS) + 1) / 2;
}

static uint64_t all_before(const struct cycle *y, uint64_t time)
{
	uint64_t n = turns_before(&y->class[MAX_CLASSES], time);

	for (size_t i = 0; i < y->n_classes; i++)
		n += turns_before(&y->class[i], time);
	return n;
}

/* The step of time in which turn `turn` of the cycle lies. */
static uint64_t find_time(const struct cycle *y, uint64_t turn)
{
	uint64_t low = 0;
	uint64_t high = UINT64_C(1) << TIME_BITS;

	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;

		if (all_before(y, middle) > turn)
			high = middle;
		else
			low = middle;
	}
	return low;
}

static size_t find_member(const struct field *f, const struct class *c, uint64_t k)
{
	uint64_t rank = k % c->n;

	for (size_t i = 0; i < f->n; i++)
		if (share_of(f, i) == c->share && rank-- == 0)
			return i;
	return SL_NO_CHOICE;
}

/* Each gets its share of consecutive places; strides near the golden ratio visit all evenly. */
static size_t find_mixed(const struct field *f, struct cycle *y, uint64_t k)
{
	struct class *mixed = &y->class[MAX_CLASSES];
	uint64_t stride = (mixed->turns * 2654435769 >> 32) | 1;
	uint64_t place;

	while (gcd(stride, mixed->turns) != 1)
		stride++;
	place = k * stride % mixed->turns;
	for (size_t i = 0; i < f->n; i++) {
		uint32_t share = share_of(f, i);

		if (share == 0 || find_class(y, share) != mixed)
			continue;
		if (place < share / y->unit)
			return i;
		place -= share / y->unit;
	}
	return SL_NO_CHOICE;
}

static size_t pick_in_turn(const struct field *f, uint64_t turn)
{
	struct cycle y;
	uint64_t time;

	plan_cycle(f, &y);
	if (y.turns == 0)
		return SL_NO_CHOICE;
	turn %= y.turns;
	time = find_time(&y, turn);
	turn -= all_before(&y, time);
	for (size_t i = 0; i <= MAX_CLASSES; i = i + 1 == y.n_classes ? MAX_CLASSES : i + 1) {
		const struct class *c = &y.class[i];
		uint64_t before = turns_before(c, time);
		uint64_t here = turns_before(c, time + 1) - before;

		if (turn >= here)
			turn -= here;
		else if (i == MAX_CLASSES)
			return find_mixed(f, &y, before + turn);
		else
			return find_member(f, c, before + turn);
	}
	return SL_NO_CHOICE;
}

/* ---- by load ---- */

static size_t pick_least(struct field *f, uint64_t turn)
{
	for (size_t i = 0; i < f->n; i++) {
		const struct sl_candidate *c = &f->choices[i];

		if (c->share != 0 && (!f->like || is_less_loaded(c, f->like)))
			f->like = c;
	}
	return pick_in_turn(f, turn);
}

/* One by its share, without `not_this`. */
static size_t draw(const struct field *f, uint64_t random, size_t not_this)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < f->n; i++)
		sum += i == not_this ? 0 : f->choices[i].share;
	if (sum == 0)
		return SL_NO_CHOICE;
	random %= sum;
	for (size_t i = 0; i < f->n; i++) {
		uint32_t share = i == not_this ? 0 : f->choices[i].share;

		if (random < share)
			return i;
		random -= share;
	}
	return SL_NO_CHOICE;
}

static size_t pick_of_two(const struct field *f, uint64_t random)
{
	size_t a = draw(f, mix(random), SL_NO_CHOICE);
	size_t b = a == SL_NO_CHOICE ? a : draw(f, mix(random + 1), a);

	if (b == SL_NO_CHOICE)
		return a;
	return is_less_loaded(&f->choices[b], &f->choices[a]) ? b : a;
}

/* ---- by client ---- */

/* -log2(u / 2^64) in steps of 2^-24, from u = 1 up. */
static uint64_t minus_log2(uint64_t u)
{
	unsigned shift = (unsigned)__builtin_clzll(u);
	uint64_t x = u << shift >> 32; /* 1 to 2, in steps of 2^-31 */
	uint64_t fraction = 0;

	for (int bit = 0; bit < 24; bit++) {
		x = x * x >> 31;
		fraction = fraction << 1 | x >> 32;
		x >>= x >> 32;
	}
	return ((uint64_t)(shift + 1) << 24) - fraction;
}

/*
 * Weighted rendezvous (Schindelhauer, Schomaker 2005): each target has a time to the client,
 * exponentially distributed with its share as the rate; the first wins. A target that leaves
 * changes nothing for the others.
 */
static size_t pick_rendezvous(const struct field *f, uint64_t client)
{
	size_t best = SL_NO_CHOICE;
	uint64_t best_time = 0;
	uint64_t best_hash = 0;

	for (size_t i = 0; i < f->n; i++) {
		const struct sl_candidate *c = &f->choices[i];
		uint64_t hash = mix(client ^ mix(c->name ? c->name : i + 1)) | 1;
		uint64_t time;

		if (c->share == 0)
			continue;
		time = minus_log2(hash);
		if (best != SL_NO_CHOICE) {
			uint64_t mine = time * f->choices[best].share;
			uint64_t its = best_time * c->share;

			if (mine > its || (mine == its && hash <= best_hash))
				continue;
		}
		best = i;
		best_time = time;
		best_hash = hash;
	}
	return best;
}

/*
 * Clients of a target that is out are spread over slots of their own: the next slots would be
 * those of few targets, because each takes its slots in strides.
 */
#define MAX_PROBES 16

static size_t pick_slot(const struct field *f, const struct sl_ticket *ticket)
{
	uint64_t hash = ticket->client;

	for (int i = 0; ticket->slots && ticket->n_slots && i < MAX_PROBES; i++) {
		uint16_t owner = ticket->slots[hash % ticket->n_slots];

		if (owner < f->n && f->choices[owner].share != 0)
			return owner;
		hash = mix(hash);
	}
	return pick_rendezvous(f, ticket->client);
}

size_t sl_balance_pick(enum sl_balance how, const struct sl_candidate *choices, size_t n,
		       const struct sl_ticket *ticket)
{
	struct field f = { .choices = choices, .n = n };

	switch (how) {
	case SL_BALANCE_ROUND_ROBIN:
		return pick_in_turn(&f, ticket->turn);
	case SL_BALANCE_LEAST_CONN:
		return pick_least(&f, ticket->turn);
	case SL_BALANCE_RANDOM:
		return pick_of_two(&f, ticket->random);
	case SL_BALANCE_SOURCE_HASH:
		return pick_rendezvous(&f, ticket->client);
	case SL_BALANCE_MAGLEV:
		return pick_slot(&f, ticket);
	}
	return SL_NO_CHOICE;
}
