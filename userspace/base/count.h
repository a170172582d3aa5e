/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BASE_COUNT_H
#define SL_BASE_COUNT_H

#include <stdint.h>

/*
 * Counters with one writing thread and any number of readers: no locked
 * instruction on the writer's side, no torn value on the readers'.
 */
static inline void sl_count_add(uint64_t *count, uint64_t n)
{
	__atomic_store_n(count, __atomic_load_n(count, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

static inline void sl_count_set(uint64_t *count, uint64_t n)
{
	__atomic_store_n(count, n, __ATOMIC_RELAXED);
}

static inline uint64_t sl_count_get(const uint64_t *count)
{
	return __atomic_load_n(count, __ATOMIC_RELAXED);
}

#endif
