/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_RESOLV_CONF_H
#define SL_CORE_RESOLV_CONF_H

#include <stddef.h>

#include "base/addr.h"

#define SL_RESOLV_SERVERS 8
#define SL_RESOLV_DOMAINS 6
#define SL_RESOLV_NAME 254 /* bytes of a name with its NUL */

/* What resolv.conf(5) says; limits of the options as there. */
struct sl_resolv_conf {
	struct sl_addr server[SL_RESOLV_SERVERS]; /* port 0; no two are equal */
	size_t n_servers;
	char domain[SL_RESOLV_DOMAINS][SL_RESOLV_NAME]; /* without a final dot */
	size_t n_domains;
	unsigned ndots;     /* 0 to 15 */
	unsigned timeout_s; /* 1 to 30: for one try of one server */
	unsigned attempts;  /* 1 to 5: tries of each server */
};

/*
 * Never fails: what is unknown, malformed or too much is passed over, because a
 * resolver must work with files written for others. Addresses with a scope
 * ("fe80::1%eth0") are passed over too. Without a server n_servers is 0.
 */
void sl_resolv_conf_parse(const char *text, size_t len, struct sl_resolv_conf *ret);

#endif
