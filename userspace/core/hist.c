/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/hist.h"

#define MS UINT64_C(1000)
#define SEC (1000 * MS)

const uint64_t sl_hist_bound_us[SL_HIST_BUCKETS] = {
	MS / 2,  MS,       5 * MS,   10 * MS,  50 * MS,   100 * MS,   500 * MS,    SEC,
	5 * SEC, 10 * SEC, 30 * SEC, 60 * SEC, 300 * SEC, 3600 * SEC, 14400 * SEC, 86400 * SEC,
};

void sl_hist_add(struct sl_hist *h, uint64_t us)
{
	size_t i = 0;

	while (i < SL_HIST_BUCKETS && us > sl_hist_bound_us[i])
		i++;
	sl_count_add(&h->bucket[i], 1);
	sl_count_add(&h->sum_us, us);
}

void sl_hist_merge(struct sl_hist *to, const struct sl_hist *from)
{
	for (size_t i = 0; i <= SL_HIST_BUCKETS; i++)
		to->bucket[i] += sl_count_get(&from->bucket[i]);
	to->sum_us += sl_count_get(&from->sum_us);
}
