/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_TLS_HELLO_H
#define SL_CORE_TLS_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "core/slice.h"

/*
 * The ClientHello at the start of a byte stream (RFC 8446 section 4.1.2, RFC 5246, RFC
 * 6066), in whatever segments and TLS records it comes. Nothing is decided before the
 * whole message is there, because its last extension may contradict the first;
 * what cannot become a hello is told from the first byte that shows it.
 */
#define SL_HELLO_MAX (UINT32_C(64) << 10) /* of the handshake message */
/* The most bytes of the stream that can be needed: each record may carry as little as one byte. */
#define SL_HELLO_STREAM_MAX (SL_HELLO_MAX * 6)
#define SL_NAME_MAX 253

/* Bits of sl_hello.versions. */
#define SL_TLS_1_0 1u
#define SL_TLS_1_1 2u
#define SL_TLS_1_2 4u
#define SL_TLS_1_3 8u

enum sl_hello_result {
	SL_HELLO_OK = 0,
	SL_HELLO_MORE,    /* a prefix of a possible hello: call again with more bytes */
	SL_HELLO_NOT_TLS, /* something else, maybe a fine one */
	SL_HELLO_BAD,     /* TLS, but malformed or larger than SL_HELLO_MAX */
};

/* How far the stream has been looked at, so that new bytes cost only themselves. Begins as { 0 }.
 */
struct sl_hello_reader {
	size_t at;      /* the next record's header begins here */
	size_t message; /* bytes of the handshake message in the records before it */
	size_t length;  /* of the message with its header; 0: not known yet */
	uint8_t head[4];
};

struct sl_hello {
	struct sl_slice name; /* SNI: lower case, no trailing dot; absent without one */
	struct sl_slice
		alpn; /* the protocol list's entries: length byte, then bytes; absent without */
	uint32_t versions; /* offered: supported_versions, else up to legacy_version */
	bool has_ech;      /* the name is the outer one */
	size_t len;        /* bytes of the stream up to the end of the hello's last record */
};

/*
 * `bytes` are all `n` of the stream so far, from its first. `joined` is scratch of
 * SL_HELLO_MAX bytes, where the message is put together when it came in several
 * records; the slices of `ret` point into `bytes` or `joined` (the name is written in lower case
 * there, never into `bytes`). `ret` is written on OK only, `ret_why` (static text) on BAD only.
 */
enum sl_hello_result sl_hello_read(struct sl_hello_reader *reader, const void *bytes, size_t n,
				   uint8_t *joined, struct sl_hello *ret, const char **ret_why);

/* Takes the next protocol off the entries of sl_hello.alpn; false when none is left. */
bool sl_hello_next_alpn(struct sl_slice *rest, struct sl_slice *ret);

/*
 * A name as SNI, Host or the operator give it, made comparable: lower case, without one
 * trailing dot and, with `strip_port`, without ":PORT". 1 to 253 letters, digits, '-', '_' and dots
 * between non-empty labels of at most 63; else -EINVAL. `buf` holds SL_NAME_MAX + 1,
 * NUL-terminated.
 */
SL_MUST_CHECK int sl_name_normalize(struct sl_slice name, bool strip_port,
				    char buf[SL_NAME_MAX + 1], size_t *ret_len);

#endif
