/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_CLIENT_H
#define SL_TLS_CLIENT_H

#include <stddef.h>

#include "base/cleanup.h"

/* What the connections to TLS servers have in common; they keep it alive themselves. */
struct sl_tls_client;

/*
 * For checks whether somebody speaks TLS: certificates are not verified, old versions and short
 * keys are good enough. Nothing secret may be sent.
 */
SL_MUST_CHECK int sl_tls_client_new_unverified(struct sl_tls_client **ret);
void sl_tls_client_free(struct sl_tls_client *client); /* accepts NULL */
SL_DEFINE_CLEANUP(struct sl_tls_client, sl_tls_client_free);

/* One connection over a non-blocking socket, which stays the caller's. SIGPIPE is ignored. */
struct sl_tls_conn;

/* `server_name`: for SNI; NULL: none. */
SL_MUST_CHECK int sl_tls_connect(struct sl_tls_client *client, int fd, const char *server_name,
				 struct sl_tls_conn **ret);
void sl_tls_conn_free(struct sl_tls_conn *conn); /* accepts NULL; sends nothing */
SL_DEFINE_CLEANUP(struct sl_tls_conn, sl_tls_conn_free);

/*
 * What a step needs before it is called again with the same arguments. An end or an error of the
 * connection is negative: -errno of the socket, -EPROTO what the peer said or did, -EPIPE an end
 * without TLS's own. sl_tls_conn_error() has the words.
 */
enum sl_tls_want {
	SL_TLS_DONE = 0,
	SL_TLS_WANT_READ,
	SL_TLS_WANT_WRITE,
};
int sl_tls_handshake(struct sl_tls_conn *conn);
/* `ret_n` is written on SL_TLS_DONE; 0 bytes read: the peer has ended its side properly. */
int sl_tls_read(struct sl_tls_conn *conn, void *buf, size_t n, size_t *ret_n);
int sl_tls_write(struct sl_tls_conn *conn, const void *bytes, size_t n, size_t *ret_n);
/* Tells the peer that nothing more comes, as far as the socket takes it now. */
void sl_tls_say_end(struct sl_tls_conn *conn);

/* Of the step that failed; static text, or the connection's own. */
const char *sl_tls_conn_error(const struct sl_tls_conn *conn);

#endif
