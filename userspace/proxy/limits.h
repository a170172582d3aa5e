/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_LIMITS_H
#define SL_PROXY_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "conf/conf.h"
#include "core/reason.h"
#include "proxy/route.h"

/*
 * Admission of connections. The one thing workers share and change together,
 * because a limit is a promise of the whole daemon: one atomic counter for
 * all, one for each route, and the ledger of client addresses behind a lock
 * that is taken only on routes with limits per address.
 */
struct sl_limits;

int sl_limits_new(struct sl_limits **ret);
void sl_limits_free(struct sl_limits *l);

/* Control thread: the limits of the current configuration; open connections stay counted. */
SL_MUST_CHECK int sl_limits_configure(struct sl_limits *l, const struct sl_conf_global *conf);

/* SL_REASON_NONE: counted in, sl_limits_leave() must follow. Otherwise why not. */
enum sl_reason sl_limits_enter(struct sl_limits *l);
void sl_limits_leave(struct sl_limits *l);

/*
 * The same for a route and its client; `*ret_tracked` tells whether the
 * address was counted and is handed back to sl_limits_leave_route().
 */
enum sl_reason sl_limits_enter_route(struct sl_limits *l, struct sl_route *route,
				     const struct sl_conf_route *conf, const struct sl_addr *client,
				     uint64_t now_us, bool *ret_tracked);
void sl_limits_leave_route(struct sl_limits *l, struct sl_route *route,
			   const struct sl_addr *client, bool tracked, uint64_t now_us);

/*
 * A flow that the kernel has let in counts, but nobody can refuse it any more. Left as above, with
 * no address counted.
 */
void sl_limits_count(struct sl_limits *l, struct sl_route *route);

uint64_t sl_limits_active(const struct sl_limits *l);
bool sl_limits_is_overloaded(const struct sl_limits *l);

#endif
