/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_HEALTH_H
#define SL_PROXY_HEALTH_H

#include "io/loop.h"
#include "proxy/generation.h"

/*
 * Active checks: one state machine for each target of a route with `health`, on the
 * control loop, never on a worker's. What a check finds is kept on the target, which
 * outlives reloads.
 */
struct sl_checks;

/*
 * A target went down or up, or of nftables routes what it is: once after its first checks, and now
 * and then while it is down. Names as in the configuration.
 */
typedef void (*sl_checks_fn)(void *arg, const char *route, const char *target, bool is_down);

SL_MUST_CHECK int sl_checks_new(struct sl_loop *control, sl_checks_fn changed, void *arg,
				struct sl_checks **ret);
void sl_checks_free(struct sl_checks *c);
SL_DEFINE_CLEANUP(struct sl_checks, sl_checks_free);

/*
 * Checks the targets of `g` from now on, and no others; a reference is held. Checks of
 * targets that stay go on where they were, with the new settings from the next one on. NULL: none.
 */
SL_MUST_CHECK int sl_checks_use(struct sl_checks *c, struct sl_generation *g);

/* Calls `changed` for each that is down now. */
void sl_checks_tell_down(struct sl_checks *c);

#endif
