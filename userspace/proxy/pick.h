/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_PICK_H
#define SL_PROXY_PICK_H

#include <stddef.h>
#include <stdint.h>

#include "core/balance.h"
#include "proxy/generation.h"

/*
 * Which target a connection tries next. The one place that knows in which order
 * groups of targets are asked: those in good health, backups in good health, then what is only
 * held back after failed connects. Targets that are down, drained, without weight or
 * without an address are never chosen.
 */
struct sl_pick {
	const struct sl_gen_route *route;
	const struct sl_addr *client;
	uint64_t turn;   /* counts the route's connections */
	uint64_t random; /* fresh */
	uint64_t now_ms;
	const uint16_t *tried; /* targets left out */
	size_t n_tried;
};

/* `choices`: scratch for the route's targets. SL_NO_CHOICE: none. `ret_why` (may be NULL): how. */
size_t sl_pick_target(const struct sl_pick *pick, struct sl_candidate *choices,
		      const char **ret_why);

#endif
