/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_STREAM_H
#define SL_TLS_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

/*
 * One TLS connection, of either side, over whatever carries its bytes; made by tls/server.h or
 * tls/backend.h. Nothing here blocks, and a call does at most one buffer's worth of work.
 *
 * What is encrypted during a call is gathered in the thread's scratch and sent in one go; what the
 * wire does not take is held by the stream. So a call never has to be repeated with the same bytes,
 * and an idle stream has no buffer.
 *
 * A stream belongs to one thread at a time and keeps nothing of it between calls.
 */
struct sl_tls_stream;

/* Where encrypted bytes come from and go to. */
struct sl_tls_wire {
	/* How many, fewer than asked for: none are left now; 0: the end; -EAGAIN; or another
	 * -errno. */
	ssize_t (*recv)(void *owner, void *buf, size_t n);
	/* How many; -EAGAIN: none now; or another -errno. */
	ssize_t (*send)(void *owner, const void *bytes, size_t n);
};
/* A non-blocking socket; the owner is the descriptor: sl_tls_fd(). It stays the caller's. */
extern const struct sl_tls_wire sl_tls_socket;
static inline void *sl_tls_fd(int fd)
{
	return (void *)(intptr_t)fd;
}

/* A thread's, lent to each call; nothing is in it between calls, and it may be large. */
struct sl_tls_scratch {
	char *p;
	size_t len;
};
/* Four full records of any cipher: 64 KiB leave by one send(). */
#define SL_TLS_SCRATCH_SIZE (4 * (16384 + 128))
SL_MUST_CHECK int sl_tls_scratch_init(struct sl_tls_scratch *scratch);
void sl_tls_scratch_done(struct sl_tls_scratch *scratch);

/* What is to be waited for, or -errno: sl_tls_stream_error() then has the words. */
enum sl_tls_next {
	SL_TLS_GO = 0, /* nothing: the step is done; when reading, there may be more at once */
	SL_TLS_IN,     /* the wire has no more bytes now */
	SL_TLS_OUT,    /* the wire takes no more bytes now */
	SL_TLS_END,    /* close_notify has come: the peer has ended its side properly */
	SL_TLS_CUT,    /* the wire has ended without it; writing is still possible */
};

/*
 * -EPROTO: TLS failed, by what the peer did or by what we ask of it; -EPIPE: the wire ended during
 * the handshake; -ENOMEM; or what the wire said. All further calls give the same.
 *
 * After SL_TLS_GO bytes of the peer may have been read already: read before waiting.
 */
int sl_tls_stream_handshake(struct sl_tls_stream *s, struct sl_tls_scratch *scratch);
/*
 * `*ret_n` bytes are in `buf`, whatever is returned; 0 with an error. SL_TLS_GO: `buf` is full, or
 * the turn is over. Renegotiation is refused, key updates are answered. SL_TLS_OUT
 * only when answers to the peer's own messages pile up: nothing is read before the wire takes
 * them.
 */
int sl_tls_stream_read(struct sl_tls_stream *s, struct sl_tls_scratch *scratch, void *buf, size_t n,
		       size_t *ret_n);
/*
 * `*ret_n` bytes are taken and need not be kept. SL_TLS_GO: all of them, and all is on the wire;
 * SL_TLS_OUT: encrypted bytes wait, if not in the stream, in the socket, and nothing more is taken
 * before sl_tls_stream_flush() said SL_TLS_GO. `now_ms` (monotonic): the first bytes after a pause
 * go in records of one segment each, so that the peer can read the first before the last is there.
 */
int sl_tls_stream_write(struct sl_tls_stream *s, struct sl_tls_scratch *scratch, uint64_t now_ms,
			const void *bytes, size_t n, size_t *ret_n);
/* close_notify behind all that was written; reading goes on. Again does nothing. */
int sl_tls_stream_end(struct sl_tls_stream *s, struct sl_tls_scratch *scratch);
/* Sends what is held: SL_TLS_GO when that is all, or SL_TLS_OUT. */
int sl_tls_stream_flush(struct sl_tls_stream *s);
/* New keys for what we send, and for what the peer sends if `both`. -EOPNOTSUPP before TLS 1.3. */
int sl_tls_stream_rekey(struct sl_tls_stream *s, struct sl_tls_scratch *scratch, bool both);
/* Sends nothing; accepts NULL. What is left of secrets is wiped. */
void sl_tls_stream_free(struct sl_tls_stream *s);
SL_DEFINE_CLEANUP(struct sl_tls_stream, sl_tls_stream_free);

/* Bytes that were read off the wire before the stream was made come first. They are copied. */
SL_MUST_CHECK int sl_tls_stream_unread(struct sl_tls_stream *s, const void *bytes, size_t n);
/* Before the handshake with a backend: this protocol alone (ALPN) instead of those configured. */
SL_MUST_CHECK int sl_tls_stream_offer(struct sl_tls_stream *s, const char *protocol, size_t n);
/* The wire has said that it ends (RDHUP): a short read no longer means that it is empty. */
void sl_tls_stream_read_to_end(struct sl_tls_stream *s);

bool sl_tls_stream_is_ready(const struct sl_tls_stream *s); /* the handshake is done */
/* Bytes of the wire that were taken in and not given out; they cause no event of the wire. */
bool sl_tls_stream_has_pending(const struct sl_tls_stream *s);
size_t sl_tls_stream_held(const struct sl_tls_stream *s); /* bytes flush would send */
/* Says which check failed, in words for a log line; "" before a failure. The stream's own. */
const char *sl_tls_stream_error(const struct sl_tls_stream *s);

/*
 * ---- TLS by the kernel (kTLS) ----
 *
 * A stream of TLS 1.2 over a socket of TCP can leave its records to the kernel, so that the bytes
 * are moved by splice() and never come here. TLS 1.3 stays with us: the peer may change keys at any
 * time, and the kernel does not follow. How a relay does it:
 *
 * - sl_tls_stream_want_ktls() before the first step; sl_tls_stream_start_ktls() at any time after
 *   the handshake, best when the flow has shown that it is bulk. It changes nothing for those who
 *   read and write the stream: all functions do the same as before. Read before waiting again:
 *   what came meanwhile may cause no event.
 * - From then on plain bytes may be written to the socket, by send() or splice(), once
 *   sl_tls_stream_held() is 0. Not with MSG_MORE or SPLICE_F_MORE unless more comes at once: the
 *   kernel waits for a whole record. What has been written must be out of the pipe before
 *   sl_tls_stream_end(); FIN must not be sent before end or flush has said SL_TLS_GO, for the
 *   kernel forgets records that TCP has no room for.
 * - And plain bytes may be taken off the socket by splice(), one record with each call. When that
 *   fails with something else than EAGAIN or EINTR (EINVAL: the next record is no data), it is told
 *   to the stream by sl_tls_stream_splice_said(), and the next sl_tls_stream_read() does
 *   what is to be done, and says it. When splice() gives 0, read, too: it knows whether that
 *   is the end. Bytes that such a read gives come before what is spliced later. Not recv():
 *   it cannot see where the data end. EBADMSG, EMSGSIZE and EINVAL met as the socket's SO_ERROR
 *   are told in the same way.
 */
SL_MUST_CHECK int sl_tls_stream_want_ktls(struct sl_tls_stream *s);
/*
 * 0: both directions are the kernel's, also when they were before. -EAGAIN: not at this moment,
 * bytes are held or pending; reading, which from now on may stop short of its buffer, gets there.
 * -EOPNOTSUPP: never, sl_tls_stream_ktls_why() tells; all goes on as it was. Another -errno: the
 * stream has failed.
 */
SL_MUST_CHECK int sl_tls_stream_start_ktls(struct sl_tls_stream *s);
bool sl_tls_stream_has_ktls(const struct sl_tls_stream *s);
/* Why it never will, in words for people, static; NULL: it has, or may yet. */
const char *sl_tls_stream_ktls_why(const struct sl_tls_stream *s);
/* -errno. */
void sl_tls_stream_splice_said(struct sl_tls_stream *s, int error);

/* After the handshake; the texts belong to the stream. */
struct sl_tls_facts {
	const char *version; /* "TLSv1.3" */
	const char *cipher;
	const char *group; /* of the key exchange; "" where the library does not tell */
	const char *sni;   /* "" without */
	const char *alpn;  /* not terminated */
	size_t alpn_len;
	bool is_resumed;
	bool has_peer_cert;
	bool is_verified;          /* it was asked for, came, and is good */
	char peer_subject[256];    /* escaped; "" without a certificate */
	char peer_name[128];       /* its common name */
	char peer_fingerprint[65]; /* SHA-256, hexadecimal */
};
void sl_tls_stream_facts(const struct sl_tls_stream *s, struct sl_tls_facts *ret);

#endif
