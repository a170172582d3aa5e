/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_BROKER_ROLE_H
#define SL_DAEMON_BROKER_ROLE_H

/* The name it is started under. */
#define SL_BROKER_ARGV0 "sluiced: broker"

/*
 * The owner of the kernel's objects: waits for its options and its first policy on `channel_fd`
 * (taken over), loads, gives up what only loading needs, then serves the channels it is given
 * until told to stop. Ended any other way it leaves the kernel as it is. Returns the exit code; 0
 * also when a policy asks for what only the next broker can do. With --single it runs as a thread
 * of the supervisor.
 */
int sl_broker_role_run(int channel_fd);

#endif
