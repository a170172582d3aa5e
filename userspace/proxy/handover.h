/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_HANDOVER_H
#define SL_PROXY_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/client.h"
#include "core/reason.h"
#include "proxy/proxy.h"

struct sl_conn;
struct sl_joint;
struct sl_joints;
struct sl_worker;
struct sl_packet_record;

/*
 * How long a connection that a broker had begun with when it died waits to be told what became of
 * it. It cannot go on meanwhile, and is ended after that; so it must outlast the supervisor's
 * longest pause before the next start and that start itself, see daemon/brokering.c.
 */
#define SL_HANDOVER_DOUBT_MS 35000

/*
 * From the relay to the kernel. A connection becomes due once it has carried packet.after_bytes or
 * lived packet.after_age. From then on a timer looks for a moment at which nothing is on its way; a
 * flow that never has one is frozen for some milliseconds, a few times, then left alone. The broker
 * is asked at that moment, and until it answers the sockets are not touched.
 *
 * One per worker; on its thread.
 */
struct sl_handovers;

int sl_handovers_new(struct sl_worker *w, struct sl_handovers **ret);
void sl_handovers_free(struct sl_handovers *hs); /* NULL is fine */
/* A broker's channel (ownership passes); used once the worker has a generation. */
void sl_handovers_connect(struct sl_handovers *hs, int fd);
void sl_handovers_start(struct sl_handovers *hs); /* the worker has its first generation */
struct sl_broker_client *sl_handovers_client(const struct sl_handovers *hs);
/* There is no broker, or there was none at some time since. */
bool sl_handovers_were_alone(const struct sl_handovers *hs, uint64_t since_ms);

/* What carries a connection now, and why the kernel does not, or not yet. */
enum sl_engine_reason sl_handover_reason(const struct sl_conn *c);
/* The relay carries it: waits for it to become due. */
void sl_handover_watch(struct sl_conn *c);
/* It has carried enough. Does nothing in this call but take note. */
void sl_handover_due(struct sl_conn *c);
/* The broker has the sockets: whoever finds an event of theirs leaves it for later. */
bool sl_handover_has_sockets(const struct sl_conn *c);
/* To another engine, asked for by an operator. May end the connection. */
enum sl_move_result sl_handover_move(struct sl_conn *c, enum sl_engine_id to);
/* Of a connection that has been tried. */
struct sl_packet_record *sl_handover_record(const struct sl_conn *c);
/* Likewise, of the sockmap engine. */
struct sl_joint *sl_handover_joint(const struct sl_conn *c);
struct sl_joints *sl_handovers_joints(struct sl_handovers *hs);
/* Its sockets are about to be closed: the peers' last segments must get in. */
void sl_handover_thaw(struct sl_conn *c);
/* The connection is over, or has been let go: nothing of it stays here or, unless let go, in the
 * kernel. */
void sl_handover_leave(struct sl_conn *c);

#endif
