/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_ROLE_H
#define SL_DAEMON_ROLE_H

#include "daemon/channel.h"

/* The descriptor a process of ours finds its channel at. */
#define SL_ROLE_CHANNEL_FD 3

/* The first message, waited for, and the log as it says. */
SL_MUST_CHECK int sl_role_wait_options(int fd, struct sl_msg_options *ret);
/*
 * A process of its own, not a thread: `argv0` is its name, and signals are ignored, because the
 * supervisor decides about life and death; a signal to the whole group is its business.
 */
void sl_role_begin(enum sl_role role, const char *argv0);

#endif
