/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_SERVER_H
#define SL_TLS_SERVER_H

#include "base/str.h"
#include "tls/cert_set.h"
#include "tls/stream.h"
#include "tls/tickets.h"
#include "tls/version.h"

enum sl_tls_client_auth {
	SL_TLS_CLIENT_AUTH_NONE = 0,
	SL_TLS_CLIENT_AUTH_OPTIONAL, /* one that is shown must be good */
	SL_TLS_CLIENT_AUTH_REQUIRED,
};

struct sl_tls_server_conf {
	enum sl_tls_version min_version;
	const char *ciphers; /* of TLS 1.2; NULL: SL_TLS_CIPHERS */
	const char *suites;  /* of TLS 1.3; NULL: SL_TLS_SUITES */
	const char *groups;  /* NULL: X25519MLKEM768 where there is one, X25519, P-256, P-384 */
	const char *const
		*alpn; /* accepted, the best first; a client that offers only others is refused */
	size_t n_alpn; /* 0: the extension is not answered */
	enum sl_tls_client_auth client_auth;
	const void *client_ca; /* PEM */
	size_t client_ca_len;
	const char *client_ca_label; /* for messages: its file; NULL: "client_ca" */
	const char *scope; /* sessions of another scope are not resumed: the route's name */
};

/* How a route speaks to clients. Immutable and counted, for all threads. */
struct sl_tls_server;
/* -EINVAL with the reason in `why`. */
SL_MUST_CHECK int sl_tls_server_new(const struct sl_tls_server_conf *conf, struct sl_str *why,
				    struct sl_tls_server **ret);
struct sl_tls_server *sl_tls_server_ref(struct sl_tls_server *server);
void sl_tls_server_unref(struct sl_tls_server *server); /* accepts NULL */
SL_DEFINE_CLEANUP(struct sl_tls_server, sl_tls_server_unref);

/*
 * A stream to a client. It holds `certs` and `tickets` (NULL: no resumption) until its handshake is
 * over, so the caller may have others for the next one at any time.
 */
SL_MUST_CHECK int sl_tls_accept(struct sl_tls_server *server, struct sl_cert_set *certs,
				struct sl_tls_tickets *tickets, const struct sl_tls_wire *wire,
				void *owner, struct sl_tls_stream **ret);

#endif
