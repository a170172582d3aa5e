/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_WATCH_H
#define SL_BROKER_WATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "io/ifwatch.h"
#include "io/loop.h"

struct sl_broker;

struct sl_watched {
	unsigned ifindex;
	char name[16];
	bool is_wanted; /* by the policy; where it is not, the program stays while there are flows
			 */
	bool is_attached;
	bool is_here;  /* false: in doubt, since events were lost */
	bool was_said; /* that it cannot be attached to */
};

/* Our program on each interface the policy names, whatever comes, goes, or takes it off. */
struct sl_watch {
	struct sl_ifwatch *ifwatch;
	struct sl_watched *item;
	size_t n;
	size_t cap;
	struct sl_timer timer;
	bool had_no_dir;   /* said once */
	bool had_no_ports; /* likewise */
};

SL_MUST_CHECK int sl_watch_start(struct sl_broker *b);
void sl_watch_stop(struct sl_broker *b);
/* At links, pins and reserved ports, which are put back where they are missing; it does so once a
 * second. */
void sl_watch_look(struct sl_broker *b);
/* The policy has changed. */
void sl_watch_policy(struct sl_broker *b);

/* Hand-overs may count on the program there. */
bool sl_watch_has(const struct sl_watch *w, unsigned ifindex);
/* Missing: named by the policy, and not there. */
void sl_watch_count(const struct sl_broker *b, unsigned *ret_attached, unsigned *ret_failed,
		    unsigned *ret_missing);
/* Names of those that are attached, each followed by a blank, as many as fit; the rest is zeros. */
void sl_watch_names(const struct sl_broker *b, char *ret, size_t size);

#endif
