/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "accel/rows.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#define ENOUGH (-ECANCELED)

/* libbpf has taken the record out of the ring even where this ends the walk. */
static int on_record(void *arg, void *record, size_t size)
{
	struct sl_rows *r = arg;

	if (size < r->row_size)
		return 0;
	r->fn(r->arg, record);
	r->n++;
	return r->n == r->max ? ENOUGH : 0;
}

int sl_rows_open(struct sl_rows *r, int ring_fd, size_t row_size)
{
	*r = (struct sl_rows){ .row_size = row_size };
	r->ring = ring_buffer__new(ring_fd, on_record, r, NULL);
	return r->ring ? 0 : -errno;
}

void sl_rows_close(struct sl_rows *r)
{
	ring_buffer__free(SL_TAKE_PTR(r->ring));
}

int sl_rows_read(struct sl_rows *r, size_t max, void (*fn)(void *arg, const void *row), void *arg)
{
	int err;

	if (max == 0 || max > INT_MAX)
		return max == 0 ? 0 : -EINVAL;
	r->fn = fn;
	r->arg = arg;
	r->n = 0;
	r->max = max;
	err = ring_buffer__consume(r->ring);
	return err < 0 && err != ENOUGH ? err : (int)r->n;
}

int sl_rows_sum(int counters_fd, uint64_t *ret, size_t n)
{
	_cleanup_free_ uint64_t *rows = NULL;
	uint32_t zero = 0;
	int n_cpus = libbpf_num_possible_cpus();

	if (n_cpus < 0)
		return n_cpus;
	rows = calloc((size_t)n_cpus * n, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	if (bpf_map_lookup_elem(counters_fd, &zero, rows) < 0)
		return -errno;
	memset(ret, 0, n * sizeof(*ret));
	for (size_t i = 0; i < (size_t)n_cpus * n; i++)
		ret[i % n] += rows[i];
	return 0;
}
