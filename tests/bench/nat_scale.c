/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the table of the kernel's NAT costs whoever writes it: nat_scale [ROUTES [CHANGES]], in a
 * network namespace of its own; needs root. A line of key=value, as tests/bench/run wants it.
 *
 * Kernel time is that inside the sends of a batch, in which the kernel does all of it; loads
 * and changes are medians of many. Memory is watched over CHANGES transactions, of which each
 * replaces a target and every second adds or takes away a route, in a table of a tenth of the
 * routes, as each builds the whole ruleset. The first tenth of them is for the allocators to
 * settle.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../unit/netns.h"
#include "../unit/nft_routes.h"
#include "nft/table.h"

#define SAMPLES 51 /* of a change */
#define LOADS 5
#define LEFT_OUT 10 /* of the changes, one in so many: the first */

struct change {
	uint64_t kernel_us;
	uint64_t apply_us;
	uint64_t all_us; /* with the building of the ruleset */
};

static void die(const char *what, int r)
{
	fprintf(stderr, "nat_scale: %s: %s\n", what, strerror(abs(r)));
	exit(1);
}

static uint64_t now_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* KiB behind `name` in one of /proc's lists. */
static long kib_of(const char *path, const char *name)
{
	char line[256];
	long kib = -1;
	FILE *f = fopen(path, "re");

	while (f && kib < 0 && fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0)
			kib = strtol(line + strlen(name), NULL, 10);
	if (f)
		(void)fclose(f);
	return kib;
}

static struct sl_nft_table *open_table(void)
{
	struct sl_nft_table *t = NULL;
	int r = sl_nft_table_open("sluice", &t);

	if (r < 0)
		die("nf_tables", r);
	return t;
}

static struct change apply(struct sl_nft_table *t, const struct test_routes *routes)
{
	struct sl_nft_report report = { 0 };
	uint64_t start = now_us();
	struct sl_nft_ruleset *rs = test_build(routes);
	uint64_t built = now_us();
	int r = sl_nft_table_apply(t, &rs, &report);

	if (r < 0)
		die(report.text[0] ? report.text : "apply", r);
	return (struct change){ .kernel_us = report.kernel_us,
				.apply_us = now_us() - built,
				.all_us = now_us() - start };
}

/* Another port of its target than the last time. */
static void change_target(struct test_routes *routes, size_t i, unsigned turn)
{
	struct sl_nft_target *t = (struct sl_nft_target *)&routes->route[i].targets[0];

	sl_addr_set_port(&t->addr, (uint16_t)(20000 + turn % 2));
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t median(uint64_t *v, size_t n)
{
	qsort(v, n, sizeof(*v), by_size);
	return v[n / 2];
}

/* One of `n` is changed, again and again. */
static void changes(struct sl_nft_table *t, struct test_routes *routes)
{
	uint64_t kernel[SAMPLES], applied[SAMPLES], all[SAMPLES];

	for (unsigned i = 0; i < SAMPLES; i++) {
		struct change c;

		change_target(routes, routes->n / 2, i);
		c = apply(t, routes);
		kernel[i] = c.kernel_us;
		applied[i] = c.apply_us;
		all[i] = c.all_us;
	}
	printf(" change_kernel_us=%lu change_apply_us=%lu change_all_us=%lu",
	       median(kernel, SAMPLES), median(applied, SAMPLES), median(all, SAMPLES));
}

/* Into a namespace that has no such table; the last time it stays for the changes. */
static void load_and_change(size_t n)
{
	uint64_t kernel[LOADS], all[LOADS];
	struct test_routes routes;
	struct sl_nft_table *t = open_table();
	struct sl_nft_report report = { 0 };

	test_many_routes(&routes, n);
	for (int i = 0; i < LOADS; i++) {
		struct change c;

		if (i > 0 && sl_nft_table_remove(t, &report) < 0)
			die("remove", EIO);
		c = apply(t, &routes);
		kernel[i] = c.kernel_us;
		all[i] = c.all_us;
	}
	printf("load_kernel_ms=%.2f load_all_ms=%.2f", (double)median(kernel, LOADS) / 1000,
	       (double)median(all, LOADS) / 1000);
	changes(t, &routes);
	if (sl_nft_table_remove(t, &report) < 0)
		die("remove", EIO);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

/* The kernel frees what a transaction has replaced later, in the background. */
static void settle(void)
{
	(void)usleep(300000);
}

static void memory(size_t n, unsigned turns)
{
	struct test_routes routes;
	struct sl_nft_table *t = open_table();
	long rss = 0, slab = 0;

	test_many_routes(&routes, n);
	(void)apply(t, &routes);
	for (unsigned i = 0; i < turns; i++) {
		if (i == turns / LEFT_OUT) {
			settle();
			rss = kib_of("/proc/self/status", "VmRSS:");
			slab = kib_of("/proc/meminfo", "SUnreclaim:");
		}
		change_target(&routes, i % (n / 2), i / (unsigned)(n / 2));
		routes.n = n - i / 2 % 2;
		(void)apply(t, &routes);
	}
	settle();
	printf(" rss_grown_kb=%ld slab_grown_kb=%ld", kib_of("/proc/self/status", "VmRSS:") - rss,
	       kib_of("/proc/meminfo", "SUnreclaim:") - slab);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

int main(int argc, char **argv)
{
	size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 10000;
	unsigned turns = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
	int r = enter_netns();

	if (r < 0)
		die("a network namespace", r);
	if (n < 1 || n > 60000 || (turns > 0 && (turns < LEFT_OUT || n < 100))) {
		fprintf(stderr, "usage: nat_scale [ROUTES [CHANGES]]\n");
		return 2;
	}
	load_and_change(n);
	if (turns > 0)
		memory(n / 10, turns);
	printf("\n");
	return 0;
}
