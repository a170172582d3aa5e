/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_ACCEL_ROWS_H
#define SL_ACCEL_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

/* What both engines of the kernel read in the same way: events from a ring, counters of all CPUs.
 */

struct ring_buffer;

/* A ring of the kernel's, read a bounded number of records at a time. Must not move once open. */
struct sl_rows {
	struct ring_buffer *ring; /* owned */
	size_t row_size;          /* shorter records are skipped */
	/* of the sl_rows_read() that is running */
	void (*fn)(void *arg, const void *row);
	void *arg;
	size_t n;
	size_t max;
};
SL_MUST_CHECK int sl_rows_open(struct sl_rows *r, int ring_fd, size_t row_size);
/* May be called twice, and on what was never opened (all zeros). */
void sl_rows_close(struct sl_rows *r);
/* Calls `fn` for at most `max` records; how many there were, or -errno. */
SL_MUST_CHECK int sl_rows_read(struct sl_rows *r, size_t max,
			       void (*fn)(void *arg, const void *row), void *arg);

/*
 * Adds up the first row of a per-CPU array, `n` numbers of 64 bits. How many CPUs there may be is
 * read from a file once: see sl_packet_read_init().
 */
SL_MUST_CHECK int sl_rows_sum(int counters_fd, uint64_t *ret, size_t n);

#endif
