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

SL_MUST_CHECK int sl_checks_new(struct sl_loop *control, struct sl_checks **ret);
void sl_checks_free(struct sl_checks *c);
SL_DEFINE_CLEANUP(struct sl_checks, sl_checks_free);

/*
 * Checks the targets of `g` from now on, and no others; a reference is held. Checks of
 * targets that stay go on where they were, with the new settings from the next one on. NULL: none.
 */
SL_MUST_CHECK int sl_checks_use(struct sl_checks *c, struct sl_generation *g);

#endif
