/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_DENY_H
#define SL_PROXY_DENY_H

#include <stdint.h>

#include "base/cleanup.h"
#include "core/ip_set.h"

/* The addresses of global.security.deny_file: immutable, shared by all workers. */
struct sl_deny {
	uint32_t refs; /* atomic */
	struct sl_ip_set set;
};

/* The arrays of `set` pass, also on failure; it is emptied. */
SL_MUST_CHECK int sl_deny_new(struct sl_ip_set *set, struct sl_deny **ret);
struct sl_deny *sl_deny_ref(struct sl_deny *d);
void sl_deny_unref(struct sl_deny *d); /* accepts NULL; any thread */

#endif
