/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_SANDBOX_H
#define SL_DAEMON_SANDBOX_H

#include <stdbool.h>

#include "base/cleanup.h"
#include "daemon/channel.h"

/*
 * The system calls the proxy or broker may make, for the whole process and every thread to come.
 * Anything else kills it; a proxy that opens files is answered "no such file", because
 * libraries try at odd moments. SLUICE_SECCOMP=trap in the environment logs the call
 * instead and then dies.
 *
 * `*ret_on` is false where there is no filter: builds with a sanitizer, which needs more
 * calls than this, and kernels without seccomp.
 */
SL_MUST_CHECK int sl_sandbox_enter(enum sl_role role, bool *ret_on);

/*
 * The files the broker may open from now on: those in `bpf_dir` and beside it, the list of
 * reserved ports and settings of NAT and connection tracking, although it is uid 0, to which nearly
 * all others belong. Before the filter and with no_new_privs set; where the kernel has no Landlock
 * (Linux 5.13), the filter is what there is. Nothing in builds with a sanitizer.
 */
SL_MUST_CHECK int sl_sandbox_confine_files(const char *bpf_dir);

#endif
