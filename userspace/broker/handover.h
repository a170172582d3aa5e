/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_HANDOVER_H
#define SL_BROKER_HANDOVER_H

#include "broker/peer.h"
#include "broker/wire.h"

/*
 * Serve HANDOVER and RESOLVE: validate, commit, answer. Nothing waits between freezing the sockets
 * and the answer. Descriptors that are kept are taken out of `fds`.
 */
void sl_handover(struct sl_peer *p, const struct sl_broker_msg *msg, int fds[SL_BROKER_MAX_FDS]);
void sl_handover_resolve(struct sl_peer *p, const struct sl_broker_msg *msg,
			 int fds[SL_BROKER_MAX_FDS]);

/* The same with sockets that there was no room to receive: refused, for the moment. */
void sl_handover_without(struct sl_peer *p, const struct sl_broker_msg *msg);

#endif
