/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What routing costs by the number of routes on one port, and what a million prefixes cost.
 * Sizes take turns within each round, so that whatever else the machine does meets all alike;
 * the best and the median round are shown, of lists the best of each phase.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rand.h"
#include "core/matcher.h"

#define ROUNDS 101
#define LOOKUPS 4096
#define MILLION 1000000
#define TEXT 64

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *must(void *p)
{
	if (!p) {
		perror("malloc");
		exit(1);
	}
	return p;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Routes with one domain each: a third exact, a third wildcards, a third globs. */
struct routes {
	size_t n;
	struct sl_matcher *m;
	double build_ms;
	char (*names)[TEXT]; /* asked for, NUL-terminated */
	double ns[ROUNDS];
};

static const char *const patterns[] = { "www.tenant%zu.example.com", "*.tenant%zu.example.com",
					"api-*.tenant%zu.example.*" };
static const char *const names[] = { "www.tenant%zu.example.com", "a.tenant%zu.example.com",
				     "api-7.tenant%zu.example.org" };

static void make_routes(struct routes *r, size_t n, size_t n_busy, struct sl_rand *rand)
{
	static const struct sl_match_ports on_443 = { .from = 443, .to = 443 };
	struct sl_match_rule *rules = must(calloc(n, sizeof(*rules)));
	char(*text)[TEXT] = must(calloc(n, TEXT));
	const char **domains = must(calloc(n, sizeof(*domains)));
	double start;

	r->n = n;
	for (size_t i = 0; i < n; i++) {
		snprintf(text[i], TEXT, patterns[i % 3], i);
		domains[i] = text[i];
		rules[i] = (struct sl_match_rule){ .enabled = true,
						   .ports = &on_443,
						   .n_ports = 1,
						   .domains = &domains[i],
						   .n_domains = 1 };
	}
	start = now();
	r->m = sl_matcher_fill(must(malloc(sl_matcher_size(rules, n))), rules, n);
	r->build_ms = (now() - start) / 1e6;
	r->names = must(calloc(LOOKUPS, TEXT));
	for (size_t i = 0; i < LOOKUPS; i++) {
		size_t route = (size_t)sl_rand_below(rand, n_busy) * (n / n_busy);

		snprintf(r->names[i], TEXT, names[route % 3], route);
	}
}

/* One round; every lookup must find the route it was made for. */
static double measure(const struct routes *r)
{
	size_t found = 0;
	double start = now();

	for (size_t i = 0; i < LOOKUPS; i++) {
		struct sl_match_facts f = { .port = 443, .known = SL_MATCH_HELLO };

		f.name = sl_slice_of(r->names[i]);
		found += sl_matcher_find(r->m, &f) < r->n;
	}
	start = now() - start;
	if (found != LOOKUPS) {
		fprintf(stderr, "%zu of %d names found a route\n", found, LOOKUPS);
		exit(1);
	}
	return start / LOOKUPS;
}

static void bench_matcher(const char *what, size_t n_busy)
{
	static const size_t sizes[] = { 10, 100, 1000, 10000 };
	struct routes r[SL_ARRAY_LEN(sizes)];
	struct sl_rand rand;

	sl_rand_seed(&rand, 5);
	for (size_t i = 0; i < SL_ARRAY_LEN(sizes); i++)
		make_routes(&r[i], sizes[i], n_busy ? n_busy : sizes[i], &rand);
	for (int round = 0; round < ROUNDS; round++)
		for (size_t i = 0; i < SL_ARRAY_LEN(sizes); i++)
			r[i].ns[round] = measure(&r[i]);
	printf("%s\n", what);
	for (size_t i = 0; i < SL_ARRAY_LEN(sizes); i++)
		qsort(r[i].ns, ROUNDS, sizeof(double), by_value);
	for (size_t i = 0; i < SL_ARRAY_LEN(sizes); i++)
		printf("  %6zu routes: best %6.1f ns, median %6.1f ns, %5.2f x of 10; "
		       "built in %.2f ms\n",
		       r[i].n, r[i].ns[0], r[i].ns[ROUNDS / 2],
		       r[i].ns[ROUNDS / 2] / r[0].ns[ROUNDS / 2], r[i].build_ms);
}

/* Lines of random prefixes, in no order. */
static struct sl_slice make_list(bool is_v6, struct sl_rand *rand)
{
	char *text = must(malloc((size_t)MILLION * 48));
	size_t n = 0;

	for (int i = 0; i < MILLION; i++) {
		uint64_t r = sl_rand_next(rand);

		if (is_v6)
			n += (size_t)sprintf(text + n, "2%03x:%x:%x::/48\n", (unsigned)(r & 0xfff),
					     (unsigned)(r >> 16 & 0xffff),
					     (unsigned)(r >> 32 & 0xffff));
		else
			n += (size_t)sprintf(text + n, "%u.%u.%u.%u/%u\n", (unsigned)(r & 255),
					     (unsigned)(r >> 8 & 255), (unsigned)(r >> 16 & 255),
					     (unsigned)(r >> 24 & 255),
					     20 + (unsigned)(r >> 40) % 13);
	}
	return (struct sl_slice){ .p = text, .n = n };
}

static int count_prefix(void *arg, const uint8_t *ip, unsigned bits)
{
	(void)ip;
	(void)bits;
	++*(size_t *)arg;
	return 0;
}

enum phase {
	PARSE = 0,
	BUILD,
	PREFIXES,
	HAS,
	PHASES,
};

struct list_result {
	double ns[PHASES]; /* the best round */
	size_t n_ranges;
	size_t n_prefixes;
	size_t n_in;
};

static void lookups(const struct sl_ip_set *set, bool is_v6, struct list_result *res)
{
	struct sl_rand rand;

	sl_rand_seed(&rand, 10);
	res->n_in = 0;
	for (int i = 0; i < MILLION; i++) {
		struct sl_addr a = { 0 };
		uint64_t r = sl_rand_next(&rand);

		a.sa.sa_family = is_v6 ? AF_INET6 : AF_INET;
		memcpy(is_v6 ? (void *)&a.v6.sin6_addr : (void *)&a.v4.sin_addr, &r, is_v6 ? 8 : 4);
		if (is_v6)
			a.v6.sin6_addr.s6_addr[0] = 0x20 | (r & 0xf);
		res->n_in += sl_ip_set_has(set, &a);
	}
}

static void note(struct list_result *res, enum phase phase, double *start)
{
	double end = now();

	if (res->ns[phase] == 0 || end - *start < res->ns[phase])
		res->ns[phase] = end - *start;
	*start = end;
}

/* With fresh memory, as when a list is loaded. */
static void list_round(struct sl_slice text, bool is_v6, struct list_result *res)
{
	struct sl_ip_set set = { 0 };
	struct sl_ip_pattern pattern;
	struct sl_slice one;
	const char *why;
	void *scratch;
	size_t line = 0;
	double t = now();

	set.v4 = must(malloc((size_t)MILLION * sizeof(*set.v4)));
	set.v6 = must(malloc((size_t)MILLION * sizeof(*set.v6)));
	while (sl_ip_file_next(&text, &line, &one)) {
		if (sl_ip_pattern_parse(one, &pattern, &why)) {
			fprintf(stderr, "line %zu: %s\n", line, why);
			exit(1);
		}
		sl_ip_set_put(&set, &pattern);
	}
	note(res, PARSE, &t);
	scratch = must(malloc((size_t)MILLION * sizeof(*set.v6)));
	sl_ip_set_build(&set, scratch);
	free(scratch);
	note(res, BUILD, &t);
	res->n_prefixes = 0;
	for (size_t i = 0; i < set.n4; i++)
		(void)sl_ip4_prefixes(&set.v4[i], count_prefix, &res->n_prefixes);
	for (size_t i = 0; i < set.n6; i++)
		(void)sl_ip6_prefixes(&set.v6[i], count_prefix, &res->n_prefixes);
	note(res, PREFIXES, &t);
	lookups(&set, is_v6, res);
	note(res, HAS, &t);
	res->n_ranges = set.n4 + set.n6;
	free(set.v4);
	free(set.v6);
}

static void bench_list(const char *what, bool is_v6)
{
	struct list_result res = { 0 };
	struct sl_slice text;
	struct sl_rand rand;

	sl_rand_seed(&rand, 9);
	text = make_list(is_v6, &rand);
	for (int i = 0; i < 5; i++)
		list_round(text, is_v6, &res);
	printf("%s: parsed in %.0f ms, sorted and merged in %.0f ms (%zu ranges), "
	       "as %zu prefixes in %.0f ms; membership %.0f ns (%.1f %% in)\n",
	       what, res.ns[PARSE] / 1e6, res.ns[BUILD] / 1e6, res.n_ranges, res.n_prefixes,
	       res.ns[PREFIXES] / 1e6, res.ns[HAS] / MILLION, (double)res.n_in * 100 / MILLION);
	free((void *)(uintptr_t)text.p);
}

int main(void)
{
	bench_matcher("a lookup, names of all routes alike:", 0);
	bench_matcher("a lookup, names of ten routes:", 10);
	bench_list("a million IPv4 prefixes", false);
	bench_list("a million IPv6 prefixes", true);
	return 0;
}
