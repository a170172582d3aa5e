/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_SLOW_H
#define SL_TESTS_SLOW_H

#include <stdint.h>
#include <stdlib.h>

/* How many times slower this machine is than those the times of the tests are meant for. */
static inline uint64_t slow(void)
{
	const char *text = getenv("SLUICE_SLOW");
	unsigned long n = text ? strtoul(text, NULL, 10) : 1;

	return n ? n : 1;
}

#endif
