/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_ROUTES_H
#define SL_BROKER_ROUTES_H

#include <stdbool.h>
#include <stdint.h>

#include "accel/packet.h"
#include "base/addr.h"
#include "io/loop.h"

struct sl_broker;

/* Of one pair of addresses, within a round. */
struct sl_route_memo {
	uint8_t from[16];
	uint8_t to[16];
	uint32_t ifindex; /* 0: none is known */
	uint32_t round;
};
#define SL_ROUTE_MEMOS 1024

/*
 * The kernel's routes: a flow leaves through the device that was right when it was handed over, so
 * after a change each is compared with what the kernel would do now.
 */
struct sl_routes {
	struct sl_io io; /* of `watch_fd` */
	int watch_fd;    /* changes; -1: cannot be followed */
	int ask_fd;
	uint32_t seq;
	uint32_t round;
	bool is_walking;
	bool is_dirty; /* changed again while walking */
	struct sl_packet_cursor cursor;
	struct sl_timer timer;
	struct sl_task task;
	struct sl_route_memo *memo;
};

SL_MUST_CHECK int sl_routes_start(struct sl_broker *b);
void sl_routes_stop(struct sl_broker *b);

/* The device packets of ours from `local` to `peer` leave through; 0: there is no route. */
uint32_t sl_routes_ask(struct sl_routes *r, const struct sl_addr *local,
		       const struct sl_addr *peer);
/* The name of an interface; -ENODEV. Unlike if_indextoname() it needs no further socket. */
SL_MUST_CHECK int sl_routes_name(struct sl_routes *r, unsigned ifindex, char ret[16]);

#endif
