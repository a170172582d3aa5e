/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/numbers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nft/build.h"

/* What a table has, by name; then which numbers are taken, in order. */
struct known {
	struct sl_nft_number *item;
	size_t n;
	uint32_t *taken;
	size_t n_taken;
};

static int count_one(void *arg, uint32_t mark, const char *name)
{
	(void)mark;
	(void)name;
	++*(size_t *)arg;
	return 0;
}

static int note_one(void *arg, uint32_t mark, const char *name)
{
	struct known *k = arg;

	k->item[k->n++] = (struct sl_nft_number){ name, mark };
	k->taken[k->n_taken++] = mark;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct sl_nft_number *)a)->name,
		      ((const struct sl_nft_number *)b)->name);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int give(struct known *k, uint32_t base, struct sl_nft_number *routes, size_t n)
{
	uint32_t next = base;
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		const struct sl_nft_number *same = NULL;

		if (routes[i].mark == 0 && k->n)
			same = bsearch(&routes[i], k->item, k->n, sizeof(*k->item), by_name);
		if (same)
			routes[i].mark = same->mark;
		else if (routes[i].mark)
			k->taken[k->n_taken++] = routes[i].mark;
	}
	qsort(k->taken, k->n_taken, sizeof(*k->taken), by_value);
	for (size_t i = 0; i < n; i++) {
		if (routes[i].mark)
			continue;
		do {
			if (next == UINT32_MAX)
				return -ENOSPC;
			next++;
			while (at < k->n_taken && k->taken[at] < next)
				at++;
		} while (at < k->n_taken && k->taken[at] == next);
		routes[i].mark = next;
	}
	return 0;
}

int sl_nft_numbers_give(const struct sl_nft_ruleset *installed, uint32_t base,
			struct sl_nft_number *routes, size_t n)
{
	_cleanup_free_ struct sl_nft_number *item = NULL;
	_cleanup_free_ uint32_t *taken = NULL;
	struct known k = { 0 };
	size_t n_installed = 0;

	if (installed)
		(void)sl_nft_each_route(installed, count_one, &n_installed);
	item = calloc(n_installed + 1, sizeof(*item));
	taken = calloc(n_installed + n + 1, sizeof(*taken));
	if (!item || !taken)
		return -ENOMEM;
	k.item = item;
	k.taken = taken;
	if (installed)
		(void)sl_nft_each_route(installed, note_one, &k);
	qsort(k.item, k.n, sizeof(*k.item), by_name);
	return give(&k, base, routes, n);
}
