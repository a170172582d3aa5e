/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_CONNECT_H
#define SL_PROXY_CONNECT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/reason.h"

struct sl_conn;

/* From a routed connection to a connected backend socket. */

/* Whether another target may be tried after the attempts made so far. */
bool sl_connect_can_retry(const struct sl_conn *c);
/* Begins a connect to the next target; ends in sl_conn_event(), sl_conn_fail() or sl_conn_end(). */
void sl_connect_next(struct sl_conn *c);
/* Gives the target back; idempotent. */
void sl_connect_leave_target(struct sl_conn *c);
/* Events of either socket while connecting. */
void sl_connect_on_socket(struct sl_conn *c, enum sl_side side, uint32_t events);
/* The running attempt failed; goes on with the next target if one is left. */
void sl_connect_failed(struct sl_conn *c, enum sl_reason reason);

#endif
