/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BASE_CLOCK_H
#define SL_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Monotonic time. Read once per loop turn and passed down as a value. */
static inline uint64_t sl_clock_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static inline uint64_t sl_clock_ms(void)
{
	return sl_clock_us() / 1000;
}

/* Since 1970, which may be set back; as precise as the stamps of the kernel it is compared with. */
static inline uint64_t sl_clock_real_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

#endif
