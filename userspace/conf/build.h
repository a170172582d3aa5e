/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CONF_BUILD_H
#define SL_CONF_BUILD_H

#include "conf/keys.h"

/* A line of `listeners`: what its ports need beyond the defaults. */
struct sl_listener_entry {
	struct sl_port_spec ports;
	int backlog;
	bool is_used; /* some route listens there */
};

/* A configuration on its way from the tree to the finished structure. */
struct sl_build {
	struct sl_arena arena;
	struct sl_report report;
	struct sl_conf *conf; /* owned until the end */
	struct sl_mark overload_at;
	struct sl_mark http_at;
	struct sl_listener_entry *listeners; /* owned; in file order until the listen set is made */
	size_t n_listeners;
};

/* What no single value shows: names used twice, routes that can never match, and so on. */
SL_MUST_CHECK int sl_conf_check(struct sl_build *b);

/* Makes conf->listens of the enabled routes; warns of entries nobody uses. */
SL_MUST_CHECK int sl_conf_make_listens(struct sl_build *b);

/* Orders addresses: every address, then IPv4, then IPv6, each by value. */
int sl_compare_ip(const struct sl_addr *a, const struct sl_addr *b);

#endif
