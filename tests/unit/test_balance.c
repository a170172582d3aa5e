/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "core/balance.h"

#define MAX 600

struct set {
	struct sl_candidate c[MAX];
	size_t n;
	uint64_t turns; /* of a cycle */
};

static struct set weights(size_t n, const uint32_t *w)
{
	struct set s = { .n = n };

	for (size_t i = 0; i < n; i++) {
		s.c[i].share = w[i] * SL_SHARE_ONE;
		s.turns += w[i];
	}
	return s;
}

#define weights_of(...) \
	weights(sizeof((uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t), (uint32_t[]){ __VA_ARGS__ })

static size_t pick(enum sl_balance how, const struct set *s, struct sl_ticket ticket)
{
	return sl_balance_pick(how, s->c, s->n, &ticket);
}

static size_t rr(const struct set *s, uint64_t turn)
{
	return pick(SL_BALANCE_ROUND_ROBIN, s, (struct sl_ticket){ .turn = turn });
}

static void no_choice(void **state)
{
	struct set s = weights_of(0, 0, 0);
	struct set none = { 0 };

	(void)state;
	for (int how = 0; how <= SL_BALANCE_MAGLEV; how++) {
		const struct sl_ticket t = { .turn = 7, .random = 7, .client = 7 };

		assert_int_equal(pick(how, &s, t), SL_NO_CHOICE);
		assert_int_equal(pick(how, &none, t), SL_NO_CHOICE);
	}
	s.c[1].share = 5;
	for (int how = 0; how <= SL_BALANCE_MAGLEV; how++)
		for (uint64_t i = 0; i < 20; i++) {
			const struct sl_ticket t = { .turn = i, .random = i * i, .client = i };

			assert_int_equal(pick(how, &s, t), 1);
		}
}

/* ---- round robin ---- */

static void equal_weights_are_taken_in_order(void **state)
{
	struct set s = { .n = 7 };

	(void)state;
	for (size_t i = 0; i < s.n; i++)
		s.c[i].share = 3 * SL_SHARE_ONE;
	for (uint64_t t = 0; t < 100; t++)
		assert_int_equal(rr(&s, t), t % 7);
	s.c[2].share = 0;
	s.c[6].share = 0;
	for (uint64_t t = 0; t < 100; t++) {
		static const size_t left[] = { 0, 1, 3, 4, 5 };

		assert_int_equal(rr(&s, t), left[t % 5]);
	}
}

static void assert_sequence(const struct set *s, const char *want)
{
	char got[64] = { 0 };

	for (size_t t = 0; t < strlen(want); t++)
		got[t] = (char)('a' + rr(s, t));
	assert_string_equal(got, want);
}

static void small_weights_are_interleaved(void **state)
{
	struct set s;

	(void)state;
	s = weights_of(2, 1);
	assert_sequence(&s, "abaaba");
	s = weights_of(1, 1, 2);
	assert_sequence(&s, "acbcacbc");
	s = weights_of(5, 1, 1);
	assert_sequence(&s, "abaaacaabaaaca");
	s = weights_of(2, 2, 2, 1, 1);
	assert_sequence(&s, "abdcabec");
}

/* Over every window of a cycle's length each target has exactly its weight. */
static void assert_exact(const struct set *s, uint64_t start, uint64_t unit)
{
	uint64_t seen[MAX] = { 0 };
	uint64_t length = 2 * s->turns + 3;
	uint16_t *got = malloc(length * sizeof(*got));

	assert_non_null(got);
	for (uint64_t t = 0; t < length; t++) {
		size_t i = rr(s, start + t);

		assert_true(i < s->n);
		got[t] = (uint16_t)i;
		seen[i]++;
		if (t >= s->turns)
			seen[got[t - s->turns]]--;
		if (t + 1 < s->turns)
			continue;
		for (size_t k = 0; k < s->n; k++)
			if (seen[k] != s->c[k].share / unit)
				fail_msg("target %zu of share %u: %zu times", k, s->c[k].share,
					 (size_t)seen[k]);
	}
	free(got);
}

static void cycles_are_exact(void **state)
{
	struct sl_rand rand;
	struct set s;

	(void)state;
	sl_rand_seed(&rand, 1);
	for (int round = 0; round < 60; round++) {
		uint32_t w[40];
		size_t n = 1 + sl_rand_below(&rand, 40);

		w[0] = 1; /* the weights have no common divisor */
		for (size_t i = 1; i < n; i++)
			w[i] = (uint32_t)sl_rand_below(&rand, round < 30 ? 4 : 60);
		s = weights(n, w);
		assert_exact(&s, sl_rand_next(&rand) >> 8, SL_SHARE_ONE);
	}
}

/* Slow start: shares that are no multiples of anything. */
static void odd_shares_are_exact(void **state)
{
	struct set s = { .n = 4, .turns = 3 * 1024 + 517 + 1 };

	(void)state;
	s.c[0].share = 1024;
	s.c[1].share = 2048;
	s.c[2].share = 517;
	s.c[3].share = 1;
	assert_exact(&s, 123456789, 1);
}

static void large_sets_are_exact(void **state)
{
	struct set s = { .n = MAX };

	(void)state;
	for (size_t i = 0; i < MAX; i++) {
		s.c[i].share = (uint32_t)(i % 37);
		s.turns += i % 37;
	}
	assert_exact(&s, 99, 1);
}

/* The widest set: 4096 targets of weight 1000, one of them in slow start. */
static void extremes_stay_in_bounds(void **state)
{
	struct sl_candidate *c = calloc(4096, sizeof(*c));
	size_t first = 0;

	(void)state;
	assert_non_null(c);
	for (size_t i = 0; i < 4096; i++)
		c[i].share = 1000 * SL_SHARE_ONE;
	c[4000].share = 1000 * SL_SHARE_ONE - 1;
	for (uint64_t t = 0; t < 2000; t++) {
		const struct sl_ticket ticket = { .turn = UINT64_MAX - t * 7777777 };
		size_t i = sl_balance_pick(SL_BALANCE_ROUND_ROBIN, c, 4096, &ticket);

		assert_true(i < 4096);
		first += i < 2048;
	}
	assert_in_range(first, 850, 1150);
	free(c);
}

/* From any turn on, no target is ahead of or behind its share by much. */
static double worst_deviation(const struct set *s)
{
	double worst = 0;

	for (uint64_t start = 0; start < s->turns; start++) {
		double seen[MAX] = { 0 };

		for (uint64_t t = 0; t < s->turns; t++) {
			seen[rr(s, start + t)]++;
			for (size_t k = 0; k < s->n; k++) {
				double due = (double)(t + 1) * s->c[k].share /
					     ((double)s->turns * SL_SHARE_ONE);
				double off = seen[k] > due ? seen[k] - due : due - seen[k];

				worst = off > worst ? off : worst;
			}
		}
	}
	return worst;
}

static void turns_are_spread(void **state)
{
	struct set s;
	uint32_t w[101];

	(void)state;
	s = weights_of(3, 1);
	assert_true(worst_deviation(&s) < 1.01);
	s = weights_of(10, 5, 5, 1);
	assert_true(worst_deviation(&s) < 2);
	s = weights_of(1, 2, 3, 4, 5, 6, 7, 8);
	assert_true(worst_deviation(&s) < 2);
	/* a heavy one among many light ones has every second turn */
	for (size_t i = 0; i < 101; i++)
		w[i] = i == 50 ? 100 : 1;
	s = weights(101, w);
	assert_true(worst_deviation(&s) < 1.01);
	/* more different weights than classes */
	for (size_t i = 0; i < 30; i++)
		w[i] = (uint32_t)i + 1;
	s = weights(30, w);
	assert_true(worst_deviation(&s) < 6);
}

/* ---- by load ---- */

static void least_conn_compares_by_share(void **state)
{
	struct set s = weights_of(1, 2, 4);

	(void)state;
	s.c[0].active = 1;
	s.c[1].active = 1;
	s.c[2].active = 3;
	for (uint64_t t = 0; t < 10; t++)
		assert_int_equal(pick(SL_BALANCE_LEAST_CONN, &s, (struct sl_ticket){ .turn = t }),
				 1);
	s.c[1].share = 0;
	assert_int_equal(pick(SL_BALANCE_LEAST_CONN, &s, (struct sl_ticket){ 0 }), 2);
	s.c[2].active = UINT32_MAX;
	assert_int_equal(pick(SL_BALANCE_LEAST_CONN, &s, (struct sl_ticket){ 0 }), 0);
}

static void ties_go_round(void **state)
{
	struct set s = weights_of(1, 1, 2, 1);
	size_t seen[4] = { 0 };

	(void)state;
	s.c[0].active = 3;
	s.c[1].active = 1;
	s.c[2].active = 2;
	s.c[3].active = 1;
	for (uint64_t t = 0; t < 40; t++)
		seen[pick(SL_BALANCE_LEAST_CONN, &s, (struct sl_ticket){ .turn = t })]++;
	assert_int_equal(seen[0], 0);
	assert_int_equal(seen[1], 10);
	assert_int_equal(seen[2], 20);
	assert_int_equal(seen[3], 10);
}

/* Connections that stay: least_conn ends with each target's share of them. */
static void least_conn_fills_by_weight(void **state)
{
	struct set s = weights_of(1, 2, 3);

	(void)state;
	for (uint64_t t = 0; t < 600; t++)
		s.c[pick(SL_BALANCE_LEAST_CONN, &s, (struct sl_ticket){ .turn = t })].active++;
	assert_in_range(s.c[0].active, 99, 101);
	assert_in_range(s.c[1].active, 199, 201);
	assert_in_range(s.c[2].active, 299, 301);
}

static void random_avoids_the_loaded(void **state)
{
	struct set s = weights_of(1, 1, 1, 1, 1);
	struct sl_rand rand;
	size_t seen[5] = { 0 };

	(void)state;
	sl_rand_seed(&rand, 5);
	s.c[3].active = 10; /* always one of two that differ, so never chosen */
	for (int i = 0; i < 8000; i++) {
		const struct sl_ticket t = { .random = sl_rand_next(&rand) };

		seen[pick(SL_BALANCE_RANDOM, &s, t)]++;
	}
	assert_int_equal(seen[3], 0);
	for (size_t i = 0; i < 5; i++)
		if (i != 3)
			assert_in_range(seen[i], 1800, 2200);
	/* two are left: the less loaded always wins */
	s.n = 2;
	s.c[0].active = 1;
	for (int i = 0; i < 100; i++) {
		const struct sl_ticket t = { .random = sl_rand_next(&rand) };

		assert_int_equal(pick(SL_BALANCE_RANDOM, &s, t), 1);
	}
}

static void random_keeps_load_even(void **state)
{
	struct set s = weights_of(1, 1, 2, 1, 1, 1, 1, 2);
	struct sl_rand rand;

	(void)state;
	sl_rand_seed(&rand, 6);
	for (int i = 0; i < 10000; i++) {
		const struct sl_ticket t = { .random = sl_rand_next(&rand) };

		s.c[pick(SL_BALANCE_RANDOM, &s, t)].active++;
	}
	/* two choices leave a gap of a few, one would leave one of about 60 */
	for (size_t i = 0; i < s.n; i++)
		assert_in_range(s.c[i].active, 1000 * s.c[i].share / SL_SHARE_ONE - 12,
				1000 * s.c[i].share / SL_SHARE_ONE + 12);
}

/* ---- by client ---- */

static size_t by_client(const struct set *s, uint64_t client)
{
	return pick(SL_BALANCE_SOURCE_HASH, s, (struct sl_ticket){ .client = client });
}

static void source_hash_follows_weights(void **state)
{
	struct set s = weights_of(1, 2, 3, 0, 4);
	struct sl_rand rand;
	size_t seen[5] = { 0 };

	(void)state;
	sl_rand_seed(&rand, 9);
	for (int i = 0; i < 100000; i++)
		seen[by_client(&s, sl_rand_next(&rand))]++;
	for (size_t i = 0; i < 5; i++) /* 10 000 a weight, six standard deviations */
		assert_in_range(seen[i],
				10000 * (s.c[i].share / SL_SHARE_ONE) - (s.c[i].share ? 1000 : 0),
				10000 * (s.c[i].share / SL_SHARE_ONE) + 1000 * (s.c[i].share != 0));
}

static void source_hash_moves_only_clients_of_the_lost(void **state)
{
	struct set s = weights_of(1, 3, 2, 1, 5, 1);
	struct sl_rand rand;
	size_t inherited[6] = { 0 };

	(void)state;
	sl_rand_seed(&rand, 10);
	for (int i = 0; i < 20000; i++) {
		uint64_t client = sl_rand_next(&rand);
		size_t before = by_client(&s, client);
		struct set without = s;
		size_t after;

		without.c[4].share = 0;
		after = by_client(&without, client);
		if (before == 4)
			inherited[after]++;
		else
			assert_int_equal(after, before);
	}
	assert_int_equal(inherited[4], 0);
	for (size_t i = 0; i < 6; i++)
		if (i != 4)
			assert_true(inherited[i] > 500);
}

/* Slow start: a share that grows takes clients from others and moves none between them. */
static void source_hash_grows_smoothly(void **state)
{
	struct set a = weights_of(1, 1, 1);
	struct set b = a;
	struct sl_rand rand;

	(void)state;
	a.c[1].share = 100;
	sl_rand_seed(&rand, 11);
	for (int i = 0; i < 5000; i++) {
		uint64_t client = sl_rand_next(&rand);
		size_t after = by_client(&b, client);

		if (after != 1)
			assert_int_equal(by_client(&a, client), after);
	}
}

/* With names, places do not matter: a reload that takes one out moves only its clients. */
static void source_hash_knows_names(void **state)
{
	struct set s = weights_of(1, 1, 1, 1);
	struct set shifted = { .n = 3 };
	struct sl_rand rand;

	(void)state;
	for (size_t i = 0; i < 4; i++)
		s.c[i].name = sl_balance_name((const char *[]){ "a", "b", "c", "d" }[i]);
	shifted.c[0] = s.c[3];
	shifted.c[1] = s.c[1];
	shifted.c[2] = s.c[2];
	sl_rand_seed(&rand, 12);
	for (int i = 0; i < 5000; i++) {
		uint64_t client = sl_rand_next(&rand);
		size_t before = by_client(&s, client);

		if (before != 0)
			assert_int_equal(shifted.c[by_client(&shifted, client)].name,
					 s.c[before].name);
	}
}

static void hashes_are_the_same_everywhere(void **state)
{
	struct sl_addr a;
	struct sl_addr b;

	(void)state;
	assert_int_equal(sl_addr_parse("192.0.2.7:1000", &a), 0);
	assert_int_equal(sl_addr_parse("192.0.2.7:2000", &b), 0);
	assert_int_equal(sl_balance_hash(&a), sl_balance_hash(&b));
	assert_int_equal(sl_balance_hash(&a), UINT64_C(0xb471148451313a89));
	assert_int_equal(sl_addr_parse("192.0.2.8:1000", &b), 0);
	assert_int_not_equal(sl_balance_hash(&a), sl_balance_hash(&b));
	assert_int_equal(sl_addr_parse("[2001:db8::7]:1", &a), 0);
	assert_int_equal(sl_balance_hash(&a), UINT64_C(0xaa518acf27429898));
	assert_int_equal(sl_balance_name("10.0.0.1:80"), UINT64_C(0x376123272aa84392));
}

/* ---- Maglev ---- */

struct table {
	uint16_t *slots;
	size_t n_slots;
	char text[MAX][24];
	const char *names[MAX];
	uint32_t weights[MAX];
	uint64_t scratch[2 * MAX];
};

static int make_table(void **state)
{
	struct table *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	t->n_slots = sl_maglev_size(1);
	t->slots = malloc(t->n_slots * sizeof(*t->slots));
	assert_non_null(t->slots);
	for (size_t i = 0; i < MAX; i++) {
		(void)snprintf(t->text[i], sizeof(t->text[i]), "10.1.%zu.%zu:443", i / 200,
			       i % 200);
		t->names[i] = t->text[i];
		t->weights[i] = 1;
	}
	*state = t;
	return 0;
}

static int drop_table(void **state)
{
	struct table *t = *state;

	free(t->slots);
	free(t);
	return 0;
}

static void fill(struct table *t, size_t n)
{
	sl_maglev_fill(t->slots, t->n_slots, t->names, t->weights, n, t->scratch);
}

static void sizes_are_prime_and_large(void **state)
{
	(void)state;
	for (size_t n = 1; n <= 65535; n += n < 5000 ? 1 : 997) {
		size_t size = sl_maglev_size(n);

		assert_true(size >= 128 * n);
		assert_true(n == 1 || size >= sl_maglev_size(n - 1));
		if (n != 1 && size == sl_maglev_size(n - 1))
			continue;
		for (size_t d = 2; d * d <= size; d++)
			assert_int_not_equal(size % d, 0);
	}
	assert_int_equal(sl_maglev_size(1), sl_maglev_size(512));
	assert_true(sl_maglev_size(65535) >= 128 * 65535);
}

static void assert_proportional(struct table *t, size_t n)
{
	size_t seen[MAX] = { 0 };
	uint64_t sum = 0;

	fill(t, n);
	for (size_t s = 0; s < t->n_slots; s++) {
		assert_true(t->slots[s] < n);
		seen[t->slots[s]]++;
	}
	for (size_t i = 0; i < n; i++)
		sum += t->weights[i];
	for (size_t i = 0; i < n; i++) {
		double due = (double)t->n_slots * t->weights[i] / (double)sum;
		double off = (double)seen[i] > due ? (double)seen[i] - due : due - (double)seen[i];

		/* one slot is the least that can be missed */
		if (off > due * 0.02 && off > 1.5)
			fail_msg("%zu targets, weight %u: %zu slots, %.1f are due", n,
				 t->weights[i], seen[i], due);
	}
}

static void slots_are_proportional(void **state)
{
	struct table *t = *state;
	struct sl_rand rand;

	for (size_t n = 1; n <= 512; n += n < 20 ? 1 : 41)
		assert_proportional(t, n);
	sl_rand_seed(&rand, 3);
	for (int round = 0; round < 20; round++) {
		size_t n = 1 + sl_rand_below(&rand, 100);

		for (size_t i = 0; i < n; i++)
			t->weights[i] = (uint32_t)sl_rand_below(&rand, round < 10 ? 4 : 1001);
		t->weights[sl_rand_below(&rand, n)] = 3; /* one at least */
		assert_proportional(t, n);
	}
}

static void nothing_has_no_slots(void **state)
{
	struct table *t = *state;

	t->weights[0] = 0;
	t->weights[1] = 0;
	fill(t, 2);
	for (size_t s = 0; s < t->n_slots; s++)
		assert_int_equal(t->slots[s], UINT16_MAX);
	fill(t, 0);
	assert_int_equal(t->slots[5], UINT16_MAX);
	t->weights[1] = 1;
	fill(t, 2);
	for (size_t s = 0; s < t->n_slots; s++)
		assert_int_equal(t->slots[s], 1);
}

/* N and N - 1 targets, whichever is the one that leaves; read backwards it comes. */
static void disruption_is_bounded(void **state)
{
	struct table *t = *state;
	uint16_t *with = malloc(t->n_slots * sizeof(*with));

	assert_non_null(with);
	for (size_t n = 2; n <= 100; n++) {
		size_t step = n < 10 ? 1 : n / 5;

		fill(t, n);
		memcpy(with, t->slots, t->n_slots * sizeof(*with));
		for (size_t gone = 0; gone < n; gone += step) {
			size_t changed = 0;

			for (size_t i = gone; i < n; i++)
				t->names[i] = t->text[i + 1];
			fill(t, n - 1);
			for (size_t i = gone; i < n; i++)
				t->names[i] = t->text[i];
			for (size_t s = 0; s < t->n_slots; s++) {
				size_t now = t->slots[s];

				changed += now + (now >= gone) != with[s];
			}
			if (changed * n > 2 * t->n_slots)
				fail_msg("%zu of %zu: %zu slots changed", gone, n, changed);
		}
	}
	free(with);
}

static size_t by_slot(const struct set *s, const struct table *t, uint64_t client)
{
	return pick(
		SL_BALANCE_MAGLEV, s,
		(struct sl_ticket){ .client = client, .slots = t->slots, .n_slots = t->n_slots });
}

static void clients_follow_their_slot(void **state)
{
	struct table *t = *state;
	struct set s = weights_of(1, 1, 1, 1, 1, 1);
	struct set less = s;
	struct sl_rand rand;
	size_t inherited[6] = { 0 };

	fill(t, 6);
	less.c[2].share = 0;
	less.c[5].share = 0;
	sl_rand_seed(&rand, 4);
	for (int i = 0; i < 60000; i++) {
		uint64_t client = sl_rand_next(&rand);
		size_t owner = t->slots[client % t->n_slots];
		size_t now = by_slot(&less, t, client);

		assert_int_equal(by_slot(&s, t, client), owner);
		assert_int_equal(by_slot(&less, t, client), now); /* always the same */
		if (owner == 2 || owner == 5)
			inherited[now]++;
		else
			assert_int_equal(now, owner);
	}
	for (size_t i = 0; i < 6; i++) {
		if (i == 2 || i == 5)
			assert_int_equal(inherited[i], 0);
		else /* 5000 each if spread evenly */
			assert_in_range(inherited[i], 4600, 5400);
	}
}

/* Backups own no slot, and a table may be of another set: someone is found all the same. */
static void probing_ends(void **state)
{
	struct table *t = *state;
	struct set s = { .n = MAX };
	struct sl_rand rand;
	size_t seen[2] = { 0 };

	t->weights[7] = 0;
	t->weights[8] = 0;
	fill(t, 512);
	s.c[7].share = SL_SHARE_ONE;
	s.c[8].share = SL_SHARE_ONE;
	sl_rand_seed(&rand, 4);
	for (int i = 0; i < 1000; i++) {
		size_t got = by_slot(&s, t, sl_rand_next(&rand));

		assert_in_range(got, 7, 8);
		seen[got - 7]++;
	}
	assert_true(seen[0] > 400 && seen[1] > 400);
	s.n = 3; /* slots of 510 others */
	s.c[1].share = 1;
	for (int i = 0; i < 1000; i++)
		assert_int_equal(by_slot(&s, t, sl_rand_next(&rand)), 1);
	s.c[1].share = 0;
	assert_int_equal(by_slot(&s, t, 1), SL_NO_CHOICE);
	/* no table at all, and one that is empty */
	s.c[2].share = 1;
	assert_int_equal(pick(SL_BALANCE_MAGLEV, &s, (struct sl_ticket){ .client = 3 }), 2);
	assert_int_equal(pick(SL_BALANCE_MAGLEV, &s, (struct sl_ticket){ .slots = t->slots }), 2);
}

static void tables_are_the_same_everywhere(void **state)
{
	struct table *t = *state;
	uint64_t sum = 0;

	for (size_t i = 0; i < 9; i++)
		t->weights[i] = (uint32_t)i + 1;
	fill(t, 9);
	for (size_t s = 0; s < t->n_slots; s++)
		sum = sum * 31 + t->slots[s];
	assert_int_equal(sum, UINT64_C(0x8c2888c583431499));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_choice),
		cmocka_unit_test(equal_weights_are_taken_in_order),
		cmocka_unit_test(small_weights_are_interleaved),
		cmocka_unit_test(cycles_are_exact),
		cmocka_unit_test(odd_shares_are_exact),
		cmocka_unit_test(large_sets_are_exact),
		cmocka_unit_test(extremes_stay_in_bounds),
		cmocka_unit_test(turns_are_spread),
		cmocka_unit_test(least_conn_compares_by_share),
		cmocka_unit_test(ties_go_round),
		cmocka_unit_test(least_conn_fills_by_weight),
		cmocka_unit_test(random_avoids_the_loaded),
		cmocka_unit_test(random_keeps_load_even),
		cmocka_unit_test(source_hash_follows_weights),
		cmocka_unit_test(source_hash_moves_only_clients_of_the_lost),
		cmocka_unit_test(source_hash_grows_smoothly),
		cmocka_unit_test(source_hash_knows_names),
		cmocka_unit_test(hashes_are_the_same_everywhere),
		cmocka_unit_test_setup_teardown(sizes_are_prime_and_large, make_table, drop_table),
		cmocka_unit_test_setup_teardown(slots_are_proportional, make_table, drop_table),
		cmocka_unit_test_setup_teardown(nothing_has_no_slots, make_table, drop_table),
		cmocka_unit_test_setup_teardown(disruption_is_bounded, make_table, drop_table),
		cmocka_unit_test_setup_teardown(clients_follow_their_slot, make_table, drop_table),
		cmocka_unit_test_setup_teardown(probing_ends, make_table, drop_table),
		cmocka_unit_test_setup_teardown(tables_are_the_same_everywhere, make_table,
						drop_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
