/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_BREAKER_H
#define SL_CORE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The circuit breaker of global.overload: opens when more than `refuse_above`
 * per cent of the limit is in use, closes again below `resume_below` per cent.
 * Returns the new position.
 */
static inline bool sl_breaker_step(bool is_open, uint64_t active, uint64_t limit,
				   unsigned refuse_above, unsigned resume_below)
{
	if (is_open)
		return active * 100 >= limit * resume_below;
	return active * 100 > limit * refuse_above;
}

#endif
