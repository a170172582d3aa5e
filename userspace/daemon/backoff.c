/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/backoff.h"

#include "base/cleanup.h"

#define WINDOW_MS 10000
#define WAIT_MS 1000

void sl_backoff_started(struct sl_backoff *b, uint64_t now_ms)
{
	b->since_ms = now_ms;
}

uint64_t sl_backoff_failed(struct sl_backoff *b)
{
	b->wait_ms = b->wait_ms ? b->wait_ms * 2 : WAIT_MS;
	if (b->wait_ms > SL_BACKOFF_MAX_MS)
		b->wait_ms = SL_BACKOFF_MAX_MS;
	return b->wait_ms;
}

uint64_t sl_backoff_died(struct sl_backoff *b, uint64_t now_ms)
{
	size_t n = SL_ARRAY_LEN(b->deaths_ms);

	b->deaths_ms[b->n_deaths++ % n] = now_ms;
	if (now_ms - b->since_ms > WINDOW_MS)
		b->wait_ms = 0;
	if (b->wait_ms == 0 &&
	    (b->n_deaths < n || now_ms - b->deaths_ms[b->n_deaths % n] > WINDOW_MS))
		return 0;
	return sl_backoff_failed(b);
}
