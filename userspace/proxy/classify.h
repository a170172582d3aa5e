/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_CLASSIFY_H
#define SL_PROXY_CLASSIFY_H

#include <stdbool.h>
#include <stdint.h>

struct sl_conn;

/*
 * From accept to the route: the PROXY header where the listener asks for one, the ClientHello
 * where routes of the port differ by it, and nothing where they do not. What
 * is read stays with the connection and goes to the backend unchanged, less the header. Each
 * call may end the connection, so it is the caller's last statement about it.
 */
void sl_classify_start(struct sl_conn *c);

/* The life cycle's action SL_ACT_READ_FIRST_BYTES. */
void sl_classify_read(struct sl_conn *c);

void sl_classify_on_socket(struct sl_conn *c);

/*
 * The PROXY header did not come in time. A client that may omit it and has said
 * nothing at all waits for the server to speak first: it is routed (true). Else the caller
 * ends the connection (false).
 */
bool sl_classify_without_header(struct sl_conn *c);

/* Gives back what only first bytes need; idempotent. */
void sl_classify_done(struct sl_conn *c);

#endif
