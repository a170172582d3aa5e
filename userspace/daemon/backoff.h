/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_BACKOFF_H
#define SL_DAEMON_BACKOFF_H

#include <stddef.h>
#include <stdint.h>

#define SL_BACKOFF_MAX_MS 10000

/*
 * When to start a process again that has died: at once, but more than five deaths in ten seconds
 * are a loop that must not take the host with it. It is over when one has lived that long. Zeroed
 * is a valid start; all times are monotonic milliseconds.
 */
struct sl_backoff {
	uint64_t deaths_ms[6]; /* of the last ones, oldest overwritten */
	size_t n_deaths;
	uint64_t since_ms; /* start of the one that runs */
	uint64_t wait_ms;  /* 0: not in a loop */
};

void sl_backoff_started(struct sl_backoff *b, uint64_t now_ms);
/* It has died: so long to wait before the next start, 0: none. */
uint64_t sl_backoff_died(struct sl_backoff *b, uint64_t now_ms);
/* It could not even be started: so long to wait, 1 s at first, twice as long each time, 10 s at
 * most. */
uint64_t sl_backoff_failed(struct sl_backoff *b);

#endif
