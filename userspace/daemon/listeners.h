/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_LISTENERS_H
#define SL_DAEMON_LISTENERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "accel/sklookup.h"
#include "base/addr.h"
#include "base/str.h"
#include "conf/conf.h"

/*
 * The listening sockets of the configuration. Each is bound once and kept as
 * long as any configuration wants it: over reloads, proxy crashes and upgrades.
 * A set is built beside the one in force, sharing its sockets where the first
 * port and address are the same, and then one of the two is given up.
 */
struct sl_listener {
	uint64_t id; /* never used again for another listener */
	struct sl_addr ip;
	uint16_t from;
	uint16_t to; /* from < to: the program in the socket lookup steers the range here */
	int backlog;
	int fd;
};

struct sl_listeners {
	struct sl_listener *item; /* sorted by address, then port */
	size_t n;
};

/* The owner of the sk_lookup program and why there is none, should it be missing. */
struct sl_steering {
	struct sl_sklookup *sklookup; /* NULL: not in use, or not available */
	char text[160];               /* for the operator; "" before it was needed */
};

struct sl_listen_plan {
	const struct sl_conf *conf;
	const struct sl_conf_sources *sources; /* for FILE:LINE in messages */
	const struct sl_listeners *old;        /* in force; empty at the start */
	struct sl_steering *steering;
	uint64_t *next_id; /* counted up */
};

/*
 * Binds what is missing. Errors and warnings are appended to `report`, one a line; on
 * failure all new sockets are closed again, and the old set is as before. The new set
 * shares sockets with the old one: exactly one of sl_listeners_replace() and
 * sl_listeners_cancel() must follow.
 */
SL_MUST_CHECK int sl_listeners_build(const struct sl_listen_plan *plan, struct sl_listeners *ret,
				     struct sl_str *report);

/* Closes the sockets only `old` has; `now` stays. */
void sl_listeners_replace(struct sl_listeners *old, const struct sl_listeners *now);
/* Closes the sockets only `fresh` has; `old` stays. */
void sl_listeners_cancel(struct sl_listeners *fresh, const struct sl_listeners *old);
/* Closes all. */
void sl_listeners_done(struct sl_listeners *l);

/* The listener of the same id, or NULL. */
const struct sl_listener *sl_listeners_find(const struct sl_listeners *l,
					    const struct sl_listener *like);

/* Steers the ranges of `l` to its sockets, and nothing else. What was set before can be again. */
SL_MUST_CHECK int sl_steering_set(struct sl_steering *s, const struct sl_listeners *l);
/* `l` is in force: without ranges the program goes. */
void sl_steering_trim(struct sl_steering *s, const struct sl_listeners *l);
void sl_steering_done(struct sl_steering *s);

#endif
