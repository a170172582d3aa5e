/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_DIFF_H
#define SL_BROKER_DIFF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "io/loop.h"

struct sl_broker;
struct sl_peer;

/*
 * A look at everything at once, asked for by a proxy's control thread (SL_BROKER_DIFF): what is to
 * be healed is, and the answer tells of it and of what the ledger has of the last ten minutes. One
 * look at a time; who asks meanwhile gets the next one.
 *
 * The answer is lines, as sl_drift_write() makes them, and before them one for each engine:
 * "l ENGINE N_FLOWS WHAT": what was looked at, and how many connections of it the broker knows;
 * "x ENGINE WHY": there is nothing to look at.
 */
struct sl_diff {
	enum { SL_DIFF_IDLE = 0, SL_DIFF_RESTING, SL_DIFF_WALKING, SL_DIFF_DUMPING } stage;
	uint64_t since_ms;
	uint64_t dumps_until;   /* of connection tracking: sl_nat_look() */
	uint64_t not_before_ms; /* the next look */
	struct sl_timer timer;
	struct sl_str text; /* of the last look */
	bool is_again;      /* somebody asked during it */
};

/* `p` is told when the look that begins now, or next, is over. */
void sl_diff_ask(struct sl_peer *p);
void sl_diff_stop(struct sl_broker *b);
/* From the sweep: every entry of `flows` has been looked at. */
void sl_diff_walked(struct sl_broker *b);
/* Of the last look; what sl_peer sends in parts. */
const char *sl_diff_text(const struct sl_broker *b);

#endif
