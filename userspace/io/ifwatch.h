/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_IO_IFWATCH_H
#define SL_IO_IFWATCH_H

#include "io/loop.h"

/*
 * The interfaces of this network namespace, by rtnetlink (rtnetlink(7)); needs no privilege. A
 * device that moves to another namespace is gone.
 */
enum sl_ifwatch_event {
	SL_IF_HERE = 0, /* it is there, perhaps as before */
	SL_IF_GONE,
	SL_IF_LOST,    /* events were lost: some may be gone; SL_IF_HERE follows for the others */
	SL_IF_SETTLED, /* nothing more is known for the moment */
};
typedef void (*sl_ifwatch_fn)(void *arg, enum sl_ifwatch_event event, unsigned ifindex);

struct sl_ifwatch;

/* Reports those that are there, and SL_IF_SETTLED, before it returns. */
int sl_ifwatch_new(struct sl_loop *loop, sl_ifwatch_fn fn, void *arg, struct sl_ifwatch **ret);
void sl_ifwatch_free(struct sl_ifwatch *w); /* not from its own callback; NULL is fine */

#endif
