/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_PRIVS_H
#define SL_DAEMON_PRIVS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/str.h"

/* Who the proxy process becomes; (uid_t)-1 and (gid_t)-1 mean unchanged. */
struct sl_identity {
	uid_t uid;
	gid_t gid;
	gid_t socket_gid; /* group of the control socket */
};

/*
 * `user` NULL: the account "sluice" where it exists, else unchanged. Not being root means
 * unchanged too. Appends a warning to `note` where the operator should know; -ENOENT when a
 * named account does not exist.
 */
SL_MUST_CHECK int sl_privs_find(const char *user, struct sl_identity *ret, struct sl_str *note);

/* Descriptors of a process that serves so much. */
uint64_t sl_privs_files_needed(uint64_t max_connections, uint64_t n_listeners);

/*
 * Raises RLIMIT_NOFILE to what `max_connections` and `n_listeners` need, or as far as
 * allowed; the limit now in force. Processes started afterwards inherit it.
 */
uint64_t sl_privs_raise_files(uint64_t max_connections, uint64_t n_listeners, uint64_t *ret_needed);

/*
 * What is in this process's memory appears in no core file, and no other process of its account
 * reads it; for good. Not in builds with a sanitizer: looking for leaks takes ptrace().
 */
SL_MUST_CHECK int sl_privs_hide_memory(void);

/*
 * The supervisor keeps what binding, starting, signalling and steering need, and loses the rest
 * for good. Nothing happens without root.
 */
SL_MUST_CHECK int sl_privs_trim_supervisor(void);

/*
 * The proxy gives up everything: identity, capabilities, the bounding set, the right to gain any by
 * exec, core dumps and being traced; and dies with `supervisor`. -ESRCH: that is dead already.
 */
SL_MUST_CHECK int sl_privs_drop(uid_t uid, gid_t gid, pid_t supervisor);

/*
 * The broker stays uid 0, to which what is pinned belongs, but keeps of its capabilities only what
 * kernel objects need: NET_ADMIN, BPF, PERFMON, NET_RAW, as far as it has them; the rest as
 * above.
 */
SL_MUST_CHECK int sl_privs_enter_broker(pid_t supervisor);
/* Programs are loaded and raw sockets are open: NET_ADMIN alone is left. */
SL_MUST_CHECK int sl_privs_end_loading(void);

#endif
