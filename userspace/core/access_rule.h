/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_ACCESS_RULE_H
#define SL_CORE_ACCESS_RULE_H

#include <stdbool.h>

#include "base/addr.h"
#include "core/ip_set.h"

/*
 * Who may connect. Deny wins over allow wherever either stands; an empty allow
 * list allows everybody, and a client must be in each allow list that is not empty.
 */
struct sl_access_lists {
	struct sl_ip_set allow;
	struct sl_ip_set deny;
};

enum sl_access_rule {
	SL_ACCESS_OPEN = 0, /* no list says anything */
	SL_ACCESS_ALLOWED,
	SL_ACCESS_GLOBAL_DENY,
	SL_ACCESS_DENY_FILE,
	SL_ACCESS_ROUTE_DENY,
	SL_ACCESS_NOT_IN_GLOBAL_ALLOW,
	SL_ACCESS_NOT_IN_ROUTE_ALLOW,
	SL_ACCESS_COUNT_,
};

/* `deny_file` may be NULL. */
enum sl_access_rule sl_access_check(const struct sl_access_lists *global,
				    const struct sl_ip_set *deny_file,
				    const struct sl_access_lists *route,
				    const struct sl_addr *client);
static inline bool sl_access_is_denied(enum sl_access_rule rule)
{
	return rule > SL_ACCESS_ALLOWED;
}
const char *sl_access_rule_name(enum sl_access_rule rule); /* "global_deny" */
const char *sl_access_rule_text(enum sl_access_rule rule); /* "denied by global.security.deny" */

#endif
