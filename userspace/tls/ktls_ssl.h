/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_KTLS_SSL_H
#define SL_TLS_KTLS_SSL_H

/*
 * Within tls/ only: how a stream of TLS 1.2 goes over to the kernel, and what it does there.
 *
 * The library can hand keys to the kernel itself, at ChangeCipherSpec and not later. We do it
 * after the handshake, when nothing of the connection is between two places: then both directions
 * go at once or none, a request that came with the last flight does no harm, and connections that
 * stay small pay nothing. Keys are derived once more from the master secret; how many
 * records each key has served is counted on the wire.
 */

#include <linux/tls.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/cleanup.h"

struct sl_tls_stream;

/* The header of a record, and what AES-GCM has behind it: the nonce's explicit part. */
#define SL_KTLS_HEAD 13

/* One direction's bytes, cut into records. */
struct sl_ktls_count {
	unsigned char head[SL_KTLS_HEAD]; /* of the record under way or, between two, the last */
	size_t at, len;                   /* in that record; 0: between two */
	bool is_secret;                   /* ChangeCipherSpec has gone by */
	uint64_t n;                       /* records since */
};
void sl_ktls_count(struct sl_ktls_count *c, const void *bytes, size_t n);

union sl_ktls_key {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 gcm_128;
	struct tls12_crypto_info_aes_gcm_256 gcm_256;
	struct tls12_crypto_info_chacha20_poly1305 chacha20;
};

struct sl_ktls_keys {
	union sl_ktls_key rx, tx;
	socklen_t len; /* of each */
};

/* Whether the kernel may know it. */
bool sl_ktls_has_cipher(const SSL *ssl);
/* For the next record of either direction. To be wiped. -ENOMEM, or -EIO: the library refuses. */
SL_MUST_CHECK int sl_ktls_derive(const SSL *ssl, const struct sl_ktls_count *in,
				 const struct sl_ktls_count *out, struct sl_ktls_keys *ret);

/* Why the kernel did not take a connection over, by the errno of TCP_ULP. */
const char *sl_ktls_refusal(int error);

#define SL_KTLS_OWED_MAX 4

struct sl_ktls {
	struct sl_ktls_count in, out;
	const char *why; /* it is never to be; NULL: it is, or may become so */
	bool is_on;
	bool is_due; /* was asked for at a moment that was not quiet: reading makes one */

	/* from then on */
	unsigned char owed[SL_KTLS_OWED_MAX][2]; /* alerts the wire has not taken */
	unsigned n_owed;
	unsigned char message[4]; /* header of a handshake message */
	unsigned n_message;
	uint32_t skip; /* bytes of its body */
	unsigned char alert[2];
	unsigned n_alert;
	unsigned n_warnings, n_empty; /* in a row */
	bool has_end;                 /* close_notify has come */
	int told;                     /* what splice() said: errno */
};

/*
 * While it is due, reading stops behind each record, and goes over at the first that is quiet:
 * where bytes keep coming, no other moment might ever be.
 */
bool sl_ktls_stops_here(const struct sl_tls_stream *s);
/* True: it went over, so that what came meanwhile is to be read. Or the stream has failed. */
bool sl_ktls_go_over(struct sl_tls_stream *s);

/* As the functions of stream.h without "ktls", once it is on. */
int sl_ktls_read(struct sl_tls_stream *s, char *buf, size_t n, size_t *ret_n);
int sl_ktls_write(struct sl_tls_stream *s, const char *bytes, size_t n, size_t *ret_n);
int sl_ktls_end(struct sl_tls_stream *s);
int sl_ktls_flush(struct sl_tls_stream *s);

#endif
