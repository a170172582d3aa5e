/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_LISTENER_H
#define SL_PROXY_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy/proxy.h"

struct sl_worker;

/*
 * A listening socket shared by all workers: each watches the same descriptor
 * with EPOLLEXCLUSIVE, so that one connection wakes one of them, closing a
 * worker or a process loses no queued connection, and an upgrade can share it.
 */
struct sl_listen_socket {
	uint32_t refs;                 /* atomic: one per worker that watches it, and the proxy's */
	struct sl_proxy_listener conf; /* fd is owned */
	uint32_t mss; /* atomic: clients are told of no longer segments; 0: of any */
};

SL_MUST_CHECK int sl_listen_socket_new(const struct sl_proxy_listener *conf,
				       struct sl_listen_socket **ret);
struct sl_listen_socket *sl_listen_socket_ref(struct sl_listen_socket *s);
void sl_listen_socket_unref(struct sl_listen_socket *s); /* the last one closes */

/* ---- on the worker's own thread ---- */

SL_MUST_CHECK int sl_listener_add(struct sl_worker *w, struct sl_listen_socket *s);
/* First accepts what is queued when `accept_queued`. Unknown ids are ignored. */
void sl_listener_remove(struct sl_worker *w, uint64_t id, bool accept_queued);
/*
 * Descriptors or memory have run out (`err`): all listeners of the worker rest
 * for a moment, while established connections go on.
 */
void sl_listener_pause(struct sl_worker *w, int err);
/* No client is told of segments longer than `mss` from now on; any thread. */
void sl_listen_socket_clamp(struct sl_listen_socket *s, uint32_t mss);
/* No client that connects to `port` from now on is told of segments longer than `mss`. */
void sl_listener_clamp(struct sl_worker *w, uint16_t port, uint32_t mss);
void sl_listener_remove_all(struct sl_worker *w, bool accept_queued);

#endif
