/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_IP_LEDGER_H
#define SL_CORE_IP_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

/*
 * How many connections each client address has open on each route, and how
 * fast it opens new ones. A fixed array given by the caller, open addressing
 * with a keyed hash; an entry is kept while it has open connections or its
 * rate is not yet forgotten, so memory is bounded whatever clients do.
 *
 * The rate is a virtual schedule (GCRA, ITU-T I.371): `next_us` is the time at
 * which an evenly spaced client would open its next connection.
 */
struct sl_ip_entry {
	uint64_t next_us;
	uint32_t scope; /* the route's number; 0: the slot is free */
	uint32_t active;
	uint8_t ip[16];
	uint8_t ip_len;
};

struct sl_ip_ledger {
	struct sl_ip_entry *slots; /* borrowed, zeroed, a power of two of them */
	size_t n_slots;
	size_t n_used;
	uint8_t key[16];
	uint64_t untracked; /* admissions that found no room; see sl_ip_ledger_open() */
};

struct sl_ip_limits {
	uint64_t max_active;      /* 0: no limit */
	uint64_t rate_per_minute; /* 0: no limit */
	uint64_t burst; /* connections that may come at once; at least 1 when there is a rate */
};

enum sl_ip_verdict {
	SL_IP_OK = 0,
	SL_IP_OK_UNTRACKED, /* no room: admitted, and sl_ip_ledger_close() must not be called */
	SL_IP_TOO_MANY,
	SL_IP_TOO_FAST,
};

/*
 * Counts a new connection in unless a limit refuses it. When every slot is
 * taken by entries that still matter, the connection is admitted and not
 * tracked: a full table must not become a way to lock out other clients.
 */
enum sl_ip_verdict sl_ip_ledger_open(struct sl_ip_ledger *l, uint32_t scope,
				     const struct sl_addr *client,
				     const struct sl_ip_limits *limits, uint64_t now_us);
void sl_ip_ledger_close(struct sl_ip_ledger *l, uint32_t scope, const struct sl_addr *client,
			uint64_t now_us);

/*
 * Exchanges the array for `slots` (zeroed, a power of two, larger) and carries
 * the entries over; an entry that finds no room is lost. Returns the old array
 * (NULL at first) for the caller to free.
 */
struct sl_ip_entry *sl_ip_ledger_move(struct sl_ip_ledger *l, struct sl_ip_entry *slots,
				      size_t n_slots);

#endif
