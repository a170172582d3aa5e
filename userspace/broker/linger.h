/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_LINGER_H
#define SL_BROKER_LINGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "base/cleanup.h"
#include "io/loop.h"

struct sl_broker;
struct sl_kflow;

/*
 * Sockets of flows just handed over: a packet that had passed the hook before may still reach them.
 * They are in repair mode, so that closing them, also by dying, is silent.
 */
struct sl_linger_pair {
	int fd[2];
	uint64_t conn_id;
	uint64_t at_ms;
	uint64_t cookie[2];
	uint32_t rcv_nxt[2]; /* at the hand-over */
	struct sl_packet_key key[2];
};

struct sl_linger {
	struct sl_linger_pair *ring;
	size_t max; /* by the descriptors this process may have */
	size_t first;
	size_t n;
	struct sl_timer timer;
};

SL_MUST_CHECK int sl_linger_init(struct sl_linger *l);
/* Closes what is there. */
void sl_linger_done(struct sl_linger *l);

static inline bool sl_linger_is_full(const struct sl_linger *l)
{
	return l->n >= l->max;
}

/* Takes the descriptors; not when full. `pair->at_ms` is filled in. */
void sl_linger_add(struct sl_broker *b, const struct sl_linger_pair *pair);

/* It is over: whoever has the tuple next must not meet our sockets. */
void sl_linger_end(struct sl_kflow *f);

#endif
