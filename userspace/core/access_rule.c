/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/access_rule.h"

enum sl_access_rule sl_access_check(const struct sl_access_lists *global,
				    const struct sl_ip_set *deny_file,
				    const struct sl_access_lists *route,
				    const struct sl_addr *client)
{
	bool is_listed = !sl_ip_set_is_empty(&global->allow) || !sl_ip_set_is_empty(&route->allow);

	if (sl_ip_set_has(&global->deny, client))
		return SL_ACCESS_GLOBAL_DENY;
	if (deny_file && sl_ip_set_has(deny_file, client))
		return SL_ACCESS_DENY_FILE;
	if (sl_ip_set_has(&route->deny, client))
		return SL_ACCESS_ROUTE_DENY;
	if (!sl_ip_set_is_empty(&global->allow) && !sl_ip_set_has(&global->allow, client))
		return SL_ACCESS_NOT_IN_GLOBAL_ALLOW;
	if (!sl_ip_set_is_empty(&route->allow) && !sl_ip_set_has(&route->allow, client))
		return SL_ACCESS_NOT_IN_ROUTE_ALLOW;
	return is_listed ? SL_ACCESS_ALLOWED : SL_ACCESS_OPEN;
}

static const struct {
	const char *name;
	const char *text;
} rules[SL_ACCESS_COUNT_] = {
	[SL_ACCESS_OPEN] = { "open", "no list refuses it" },
	[SL_ACCESS_ALLOWED] = { "allowed", "allowed by every list that applies" },
	[SL_ACCESS_GLOBAL_DENY] = { "global_deny", "denied by global.security.deny" },
	[SL_ACCESS_DENY_FILE] = { "deny_file", "denied by global.security.deny_file" },
	[SL_ACCESS_ROUTE_DENY] = { "route_deny", "denied by the route's security.deny" },
	[SL_ACCESS_NOT_IN_GLOBAL_ALLOW] = { "global_allow", "not in global.security.allow" },
	[SL_ACCESS_NOT_IN_ROUTE_ALLOW] = { "route_allow", "not in the route's security.allow" },
};

const char *sl_access_rule_name(enum sl_access_rule rule)
{
	return rules[rule].name;
}

const char *sl_access_rule_text(enum sl_access_rule rule)
{
	return rules[rule].text;
}
