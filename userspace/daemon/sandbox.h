/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_SANDBOX_H
#define SL_DAEMON_SANDBOX_H

#include <stdbool.h>

#include "base/cleanup.h"

/*
 * The system calls the proxy may make, for the whole process and every thread to come.
 * Anything else kills it; opening files answers "no such file", because libraries try at odd
 * moments. SLUICE_SECCOMP=trap in the environment logs the call instead and then dies.
 *
 * `*ret_on` is false where there is no filter: builds with a sanitizer, which needs more
 * calls than this, and kernels without seccomp.
 */
SL_MUST_CHECK int sl_sandbox_enter(bool *ret_on);

#endif
