/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_STREAM_SSL_H
#define SL_TLS_STREAM_SSL_H

/* Within tls/ only: what server.c and backend.c see of a stream. */

#include <openssl/ssl.h>

#include "tls/cert_set.h"
#include "tls/ktls_ssl.h"
#include "tls/stream.h"
#include "tls/tickets.h"

struct sl_tls_target;
struct sl_tls_server;

/* All a peer may send for one handshake; the library's own limits are within it. */
#define SL_TLS_HANDSHAKE_BYTES (256 << 10)

struct sl_tls_stream {
	SSL *ssl;
	const struct sl_tls_wire *wire;
	void *owner;

	char *early; /* read off the wire by somebody else */
	size_t early_at;
	size_t early_len;
	char *held; /* encrypted, not taken by the wire */
	size_t held_at;
	size_t held_len;
	char *error; /* NULL before a failure, and when memory ran out for it */

	/* until the handshake is over */
	struct sl_cert_set *certs;
	struct sl_tls_tickets *tickets;

	struct sl_tls_server *server; /* of streams to clients: whose callbacks may be called */
	struct sl_tls_target *target; /* of backend streams: who keeps their sessions */

	struct sl_ktls *ktls; /* NULL: not wanted */

	struct sl_tls_scratch *scratch; /* during a call */
	uint64_t wrote_ms;
	uint64_t n_records;  /* sent under the same keys */
	uint64_t n_received; /* bytes given out */
	uint32_t n_updates;  /* the peer's, less what its bytes allow */
	uint32_t burst;      /* bytes since the last pause */
	int failed;          /* -errno; then nothing works any more */
	int wire_error;      /* -errno of the call's */
	size_t turn;         /* bytes of the wire that this call may still read */
	bool read_to_end;
	bool is_drained; /* the wire gave less than asked for in this call */
	bool has_ended;  /* the wire has */
	bool is_ready;
	bool said_end;
	bool has_spare; /* a buffer that nothing is in */
};

/*
 * Takes `ssl` over in any case. The stream finds itself by sl_tls_stream_of() in callbacks.
 */
SL_MUST_CHECK int sl_tls_stream_new(SSL *ssl, const struct sl_tls_wire *wire, void *owner,
				    struct sl_tls_stream **ret);
struct sl_tls_stream *sl_tls_stream_of(const SSL *ssl);

/* What both sides' contexts have in common. -ENOMEM. */
SL_MUST_CHECK int sl_tls_context_init(SSL_CTX *ctx);
/* X25519MLKEM768 first, where the library has it; `groups` NULL: the default. -EINVAL. */
SL_MUST_CHECK int sl_tls_context_groups(SSL_CTX *ctx, const char *groups);

/* The wire's error becomes the stream's. */
int sl_tls_fail_wire(struct sl_tls_stream *s);
/* One more message after the handshake; -EPROTO: they are too many. */
int sl_tls_count_update(struct sl_tls_stream *s);

/* What the thread's error queue and the connection say of a failure; clears the queue. */
int sl_tls_explain(struct sl_tls_stream *s);
void sl_tls_set_error(struct sl_tls_stream *s, const char *fmt, ...) SL_PRINTF(2, 3);

#endif
