/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_WORRIES_H
#define SL_BROKER_WORRIES_H

#include <stddef.h>

#include "broker/nat.h"
#include "io/loop.h"

/*
 * What keeps flows of the kernel's NAT from arriving although our table is right (nft/trouble.h):
 * looked at when others have changed the kernel's rules, which it asks for once a second, and
 * every half minute, because host settings, routes and the fill of connection tracking change
 * without a word. Each worry is logged when it comes and when it goes. Part of the broker's thread.
 */
struct sl_worries;

struct sl_worries_options {
	struct sl_loop *loop;
	const struct sl_nat *nat; /* outlives it */
	/* they are others than before */
	void (*changed)(void *arg);
	void *arg;
};

SL_MUST_CHECK int sl_worries_new(const struct sl_worries_options *options, struct sl_worries **ret);
void sl_worries_free(struct sl_worries *w); /* NULL is fine */

/* Soon: the routes are others, or connection tracking fills up. */
void sl_worries_look(struct sl_worries *w);
/* One line each, as sl_broker_send_worries() tells them: SL_BROKER_WORRIES_MAX bytes at most. */
const char *sl_worries_text(const struct sl_worries *w);

/*
 * Appends the lines of `from`, of which kernel and others have had a say: no control characters,
 * at most SL_BROKER_WORRIES lines of SL_BROKER_WORRY_MAX bytes, of longer ones the end with what is
 * to be done stays. Pure.
 */
void sl_worries_bound(const char *from, struct sl_str *to);

#endif
