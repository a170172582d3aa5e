/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_HIST_H
#define SL_CORE_HIST_H

#include <stddef.h>
#include <stdint.h>

#include "base/count.h"

/*
 * Histogram with fixed upper bounds from 0.5 ms to a day, shared by every duration the
 * daemon exports; one writer, any number of readers.
 */
#define SL_HIST_BUCKETS 16
extern const uint64_t sl_hist_bound_us[SL_HIST_BUCKETS]; /* ascending; above the last is +Inf */

struct sl_hist {
	uint64_t bucket[SL_HIST_BUCKETS + 1]; /* not cumulative */
	uint64_t sum_us;
};

void sl_hist_add(struct sl_hist *h, uint64_t us);

/* Adds `from`, which another thread may be writing, to `to`. */
void sl_hist_merge(struct sl_hist *to, const struct sl_hist *from);

#endif
