/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_RUNTIME_H
#define SL_DAEMON_RUNTIME_H

#include <sys/types.h>

#include "base/cleanup.h"

/*
 * What an instance keeps in its runtime directory: the pid file, whose lock is the right to
 * the directory, and the control socket. Errors are logged with what to do about them.
 */
struct sl_runtime {
	char *dir;
	char *pid_path;
	char *control_path;
	int pid_fd; /* locked as long as the instance lives; -1: not ours */
};

/* Creates both directories where they are missing, takes the lock and writes the pid. */
SL_MUST_CHECK int sl_runtime_enter(const char *dir, const char *state_dir, struct sl_runtime *ret);
/*
 * The right to the directory without an instance: the lock, as long as `*ret_fd` is open (-1:
 * nobody ever ran there). -EBUSY: an instance runs, and the log says which.
 */
SL_MUST_CHECK int sl_runtime_lock(const char *dir, int *ret_fd);
/* Takes over `pid_fd` of the same instance before it replaced its program. */
SL_MUST_CHECK int sl_runtime_resume(const char *dir, int pid_fd, struct sl_runtime *ret);
/* Removes the files of the instance and lets the directory go. */
void sl_runtime_leave(struct sl_runtime *rt);
/* Frees memory and descriptors, leaves the files alone. */
void sl_runtime_done(struct sl_runtime *rt);

#endif
