/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_DRIFT_H
#define SL_BROKER_DRIFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/str.h"
#include "core/drift_kind.h"
#include "io/loop.h"

struct sl_packet_key;

/*
 * The ledger of differences between kernel and records: whoever finds one says here what should be,
 * what is, and what was done about it. Part of the broker's thread; its memory is fixed, the oldest
 * make room. It logs nothing: whoever repairs says so in its own words, once.
 */
#define SL_DRIFT_ENTRIES 256
#define SL_DRIFT_WINDOW_MS 600000 /* so long `sluice diff` tells of one */

struct sl_drift_entry {
	struct sl_list node;
	uint64_t at_ms; /* of the loop; of the last time */
	uint32_t hash;  /* of what it is about */
	uint32_t times;
	enum sl_drift_kind kind;
	enum sl_drift_done done;
	char wanted[192]; /* as the records say; "": nothing */
	char found[192];  /* in the kernel; "": nothing */
	char how[120];    /* it was healed, or why not */
};

struct sl_drift {
	struct sl_loop *loop;
	struct sl_drift_entry *entry; /* SL_DRIFT_ENTRIES */
	size_t n;
	struct sl_list all; /* longest ago first */
	uint64_t count[SL_DRIFT_COUNT_];
	uint64_t n_unlisted; /* counted, and not in the list; until the last is as old */
	uint64_t unlisted_ms;
	/* At the end of the turn, not more than a few times a second. */
	void (*changed)(void *arg);
	void *arg;
	uint64_t told_ms;
	struct sl_timer timer;
};

SL_MUST_CHECK int sl_drift_init(struct sl_drift *d, struct sl_loop *loop,
				void (*changed)(void *arg), void *arg);
void sl_drift_done(struct sl_drift *d); /* zeros are fine */

/*
 * One difference. `wanted`, `found`: the object in words ("pin flows", "link of eth0"), NULL: there
 * should be, or there is, none. `fmt`: how it was put right, or why not. The same one again that
 * waits or was left counts once, until it is healed; one that was healed and comes back, again.
 * `d` NULL: nobody keeps a ledger.
 */
void sl_drift_note(struct sl_drift *d, enum sl_drift_kind kind, enum sl_drift_done done,
		   const char *wanted, const char *found, const char *fmt, ...) SL_PRINTF(6, 7);
/* So many more of the kind, which are counted and not described. */
void sl_drift_more(struct sl_drift *d, enum sl_drift_kind kind, uint64_t n);

/* "entry 10.0.0.1:4711 > 10.0.0.2:80 of connection 123, client's direction" */
#define SL_DRIFT_TEXT 256
const char *sl_drift_entry_text(const struct sl_packet_key *key, uint64_t conn_id, bool is_client,
				char ret[SL_DRIFT_TEXT]);

/*
 * Appends one difference in lines: "d KIND DONE NEW TIMES AGE_MS", "- WANTED", "+ FOUND", ". HOW",
 * of which the last three may be missing. What comes from elsewhere has no control characters then.
 */
struct sl_drift_line {
	enum sl_drift_kind kind;
	enum sl_drift_done done;
	bool is_new; /* found by this look */
	uint32_t times;
	uint64_t age_ms;
	const char *wanted;
	const char *found;
	const char *how;
};
void sl_drift_write_line(struct sl_str *to, const struct sl_drift_line *line);
/* Those of the window, longest ago first; new are those since `since_ms` of the loop. */
void sl_drift_write(const struct sl_drift *d, uint64_t since_ms, struct sl_str *to);

#endif
