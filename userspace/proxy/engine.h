/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_ENGINE_H
#define SL_PROXY_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/reason.h"

struct sl_conn;

/*
 * A way to move bytes between the two sides of an established connection.
 * start() either takes over the I/O of both sockets and returns 0, or returns
 * -errno and leaves the connection exactly as it was, so that the next engine
 * may be tried. After that the engine reports through sl_conn_moved(),
 * sl_conn_finished(), sl_conn_fail() and nothing else. stop() is idempotent and
 * never blocks; it gives back what the engine holds and leaves the sockets, where there are any, to
 * the connection, which closes or resets them.
 */
struct sl_engine {
	enum sl_engine_id id;
	bool is_in_kernel; /* no socket of ours is part of it, and it needs no process */
	int (*start)(struct sl_conn *c);
	void (*on_socket)(struct sl_conn *c, enum sl_side side, uint32_t events);
	/* NULL: what the record says is always true. Else makes it so; may end the connection. */
	void (*refresh)(struct sl_conn *c);
	/* NULL: bytes are known as they pass. Else when the last may have passed for all we know.
	 */
	uint64_t (*active_ms)(const struct sl_conn *c);
	/*
	 * NULL: the connection is over when it is told to be. Else asks the kernel to end the flow,
	 * whose last counters come with the news that it has; false: no such news will come.
	 */
	bool (*ask_end)(struct sl_conn *c);
	/* NULL: none. Else bytes that wait in front of the sockets' own queues. */
	uint64_t (*n_queued)(const struct sl_conn *c);
	void (*stop)(struct sl_conn *c);
};

extern const struct sl_engine sl_engine_relay;
/* The same where one side or both speak TLS: its bytes cannot be left to the kernel. */
extern const struct sl_engine sl_engine_relay_tls;
/* Started by proxy/handover.c alone: the flow is in the kernel already. */
extern const struct sl_engine sl_engine_packet;
/* Likewise; and its other half, for connections that have come out of the kernel again. */
extern const struct sl_engine sl_engine_sockmap;
extern const struct sl_engine sl_engine_unjoined;
/* Likewise by proxy/nat.c. */
extern const struct sl_engine sl_engine_nat;

#endif
