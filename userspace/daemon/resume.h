/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_RESUME_H
#define SL_DAEMON_RESUME_H

#include "base/cleanup.h"

/*
 * The supervisor replaces its own program in place: same process, same children, same
 * descriptors. What the new program must know goes through a sealed memfd.
 */
#define SL_STATE_VERSION 4

struct sl_supervisor;

/*
 * Executes s->exe with the state. Returns only on failure, with everything as before.
 */
int sl_resume_exec(struct sl_supervisor *s);

/* Fills `s`, whose loop exists, from the state; takes over the descriptor. */
SL_MUST_CHECK int sl_resume_load(struct sl_supervisor *s, int state_fd);

#endif
