/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_SOURCE_H
#define SL_PROXY_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

struct sl_conn;
struct sl_worker;
struct sl_sources;

/*
 * Source ports of connections that may be handed over: from packet.ports, where no flow of the
 * kernel uses the same port towards the same backend; and segment sizes that both paths carry. One
 * per worker.
 */
int sl_sources_new(struct sl_sources **ret);
void sl_sources_free(struct sl_sources *s); /* NULL is fine */

/*
 * Binds the unconnected socket `fd` to a port of ours towards c->backend; of a connection that
 * `may_move` the segments are made to fit. False: none is to be had; the socket is as it was.
 */
bool sl_source_bind(struct sl_conn *c, int fd, bool may_move);

/* The longest segment the way to `to` carries, TCP options included; 0: there is no way. */
uint32_t sl_source_mss(const struct sl_addr *to);

#endif
