/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_PROXY_ROLE_H
#define SL_DAEMON_PROXY_ROLE_H

/* The name it is started under. */
#define SL_PROXY_ARGV0 "sluiced: proxy"

/*
 * The unprivileged process: waits for its options on `channel_fd` (taken over), gives
 * up what it does not need, then serves until told to stop. Returns the exit code.
 * With --single it runs as a thread of the supervisor.
 */
int sl_proxy_role_run(int channel_fd);

#endif
