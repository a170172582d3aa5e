/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/ip_list.h"

#include <errno.h>
#include <string.h>

void sl_ip_list_count(struct sl_ip_counts *counts, const struct sl_ip_pattern *pattern)
{
	switch (pattern->kind) {
	case SL_IP_RANGE4:
		counts->n4++;
		break;
	case SL_IP_RANGE6:
		counts->n6++;
		break;
	case SL_IP_GLOB4:
		counts->n_globs++;
		break;
	}
}

int sl_ip_list_alloc(const struct sl_ip_counts *counts, struct sl_ip_set *ret)
{
	_cleanup_(sl_ip_list_done) struct sl_ip_set set = { 0 };

	if (counts->n4)
		set.v4 = calloc(counts->n4, sizeof(*set.v4));
	if (counts->n6)
		set.v6 = calloc(counts->n6, sizeof(*set.v6));
	if (counts->n_globs)
		set.globs = calloc(counts->n_globs, sizeof(*set.globs));
	if ((counts->n4 && !set.v4) || (counts->n6 && !set.v6) || (counts->n_globs && !set.globs))
		return -ENOMEM;
	*ret = set;
	set = (struct sl_ip_set){ 0 };
	return 0;
}

int sl_ip_list_copy(const struct sl_ip_set *from, struct sl_ip_set *ret)
{
	struct sl_ip_counts counts = { from->n4, from->n6, from->n_globs };
	struct sl_ip_set set;
	int r = sl_ip_list_alloc(&counts, &set);

	if (r < 0)
		return r;
	if (from->n4)
		memcpy(set.v4, from->v4, from->n4 * sizeof(*set.v4));
	if (from->n6)
		memcpy(set.v6, from->v6, from->n6 * sizeof(*set.v6));
	if (from->n_globs)
		memcpy(set.globs, from->globs, from->n_globs * sizeof(*set.globs));
	set.n4 = from->n4;
	set.n6 = from->n6;
	set.n_globs = from->n_globs;
	*ret = set;
	return 0;
}

static bool is_same(const void *a, const void *b, size_t n, size_t size)
{
	return n == 0 || memcmp(a, b, n * size) == 0;
}

bool sl_ip_list_is_equal(const struct sl_ip_set *a, const struct sl_ip_set *b)
{
	return a->n4 == b->n4 && a->n6 == b->n6 && a->n_globs == b->n_globs &&
	       is_same(a->v4, b->v4, a->n4, sizeof(*a->v4)) &&
	       is_same(a->v6, b->v6, a->n6, sizeof(*a->v6)) &&
	       is_same(a->globs, b->globs, a->n_globs, sizeof(*a->globs));
}

void sl_ip_list_done(struct sl_ip_set *set)
{
	free(set->v4);
	free(set->v6);
	free(set->globs);
	*set = (struct sl_ip_set){ 0 };
}
