/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The library reads and writes through a BIO of ours instead of memory BIOs: those keep their
 * buffers, 4 to 6 KiB of each idle connection, and cost a copy of everything that comes in.
 * Reading ahead halves the calls of recv(); gathering what is sent quarters those of send() and
 * lets the kernel make large segments.
 */
#include "tls/stream.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>

#include "tls/backend_ssl.h"
#include "tls/server.h"
#include "tls/stream_ssl.h"

/* One segment on most paths, with IPv6, timestamps and the record's own bytes. */
#define SMALL_RECORD 1360
#define LARGE_RECORD 16384
/* So many bytes go in small records: about what a fresh connection may send at once. */
#define SMALL_BYTES 16384
#define PAUSE_MS 1000
/* AES-GCM is good for 2^24.5 records under one key (RFC 8446 section 5.5). */
#define RECORDS_PER_KEY (UINT64_C(1) << 23)
/* Held at most: a scratch full, and answers to the peer's messages. */
#define HELD_MAX (96 << 10)
/* On top of what the caller has room for. */
#define TURN_BYTES (32 << 10)
/* Messages after the handshake (key updates, tickets, renegotiation): each costs far more than its
 * bytes. */
#define UPDATES_MAX 64
#define BYTES_PER_UPDATE 1024

/* ---- the wire ---- */

static ssize_t socket_recv(void *owner, void *buf, size_t n)
{
	ssize_t r = recv((int)(intptr_t)owner, buf, n, 0);

	return r < 0 ? -errno : r;
}

static ssize_t socket_send(void *owner, const void *bytes, size_t n)
{
	ssize_t r = send((int)(intptr_t)owner, bytes, n, MSG_NOSIGNAL);

	return r < 0 ? -errno : r;
}

const struct sl_tls_wire sl_tls_socket = { .recv = socket_recv, .send = socket_send };

int sl_tls_scratch_init(struct sl_tls_scratch *scratch)
{
	scratch->len = 0;
	scratch->p = malloc(SL_TLS_SCRATCH_SIZE);
	return scratch->p ? 0 : -ENOMEM;
}

void sl_tls_scratch_done(struct sl_tls_scratch *scratch)
{
	free(SL_TAKE_PTR(scratch->p));
}

/* Bytes the wire took; less than `n` only when it takes no more now, or has failed. */
static size_t put(struct sl_tls_stream *s, const char *p, size_t n)
{
	size_t done = 0;

	while (done < n && s->wire_error == 0) {
		ssize_t r = s->wire->send(s->owner, p + done, n - done);

		if (r == -EAGAIN)
			break;
		if (r >= 0)
			done += (size_t)r;
		else if (r != -EINTR)
			s->wire_error = (int)r;
	}
	return done;
}

static void hold(struct sl_tls_stream *s, const char *p, size_t n)
{
	char *held;

	if (n == 0 || s->wire_error < 0)
		return;
	if (s->held_at > 0)
		memmove(s->held, s->held + s->held_at, s->held_len);
	s->held_at = 0;
	held = realloc(s->held, s->held_len + n);
	if (!held) {
		s->wire_error = -ENOMEM;
		return;
	}
	memcpy(held + s->held_len, p, n);
	s->held = held;
	s->held_len += n;
}

static void put_held(struct sl_tls_stream *s)
{
	size_t n = put(s, s->held + s->held_at, s->held_len);

	s->held_at += n;
	s->held_len -= n;
	if (s->held_len > 0)
		return;
	free(SL_TAKE_PTR(s->held));
	s->held_at = 0;
}

/* What is held goes first. */
static void put_scratch(struct sl_tls_stream *s)
{
	struct sl_tls_scratch *scratch = s->scratch;
	size_t n;

	if (s->held_len > 0 && scratch->len > 0)
		put_held(s);
	n = s->held_len > 0 ? 0 : put(s, scratch->p, scratch->len);
	hold(s, scratch->p + n, scratch->len - n);
	scratch->len = 0;
}

/* ---- what the library calls ---- */

static int on_write(BIO *bio, const char *p, int len)
{
	struct sl_tls_stream *s = BIO_get_data(bio);
	const char *whole = p;
	size_t left = (size_t)len;

	BIO_clear_retry_flags(bio);
	if (!s->scratch || len <= 0 || s->wire_error < 0)
		return -1;
	if (s->said_end) /* an answer to a key update: nothing comes behind our end */
		return len;
	if (s->held_len + s->scratch->len + left > HELD_MAX) {
		put_scratch(s);
		if (s->held_len > 0 && s->held_len + left > HELD_MAX) {
			BIO_set_retry_write(bio);
			return -1;
		}
	}
	while (left > 0 && s->wire_error == 0) {
		size_t room = SL_TLS_SCRATCH_SIZE - s->scratch->len;
		size_t n = left < room ? left : room;

		memcpy(s->scratch->p + s->scratch->len, p, n);
		s->scratch->len += n;
		p += n;
		left -= n;
		if (left > 0)
			put_scratch(s);
	}
	if (s->wire_error < 0)
		return -1;
	if (s->ktls)
		sl_ktls_count(&s->ktls->out, whole, (size_t)len);
	return len;
}

static size_t take_early(struct sl_tls_stream *s, char *buf, size_t n)
{
	if (n > s->early_len)
		n = s->early_len;
	memcpy(buf, s->early + s->early_at, n);
	s->early_at += n;
	s->early_len -= n;
	if (s->early_len == 0)
		free(SL_TAKE_PTR(s->early));
	return n;
}

static int read_wire(BIO *bio, char *buf, int len)
{
	struct sl_tls_stream *s = BIO_get_data(bio);
	size_t n = (size_t)len;
	ssize_t r;

	BIO_clear_retry_flags(bio);
	if (len <= 0 || s->failed < 0)
		return -1;
	if (s->early_len > 0)
		return (int)take_early(s, buf, n);
	if (s->has_ended || s->is_drained || s->turn == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	do {
		r = s->wire->recv(s->owner, buf, n);
	} while (r == -EINTR);
	if (r > 0) {
		s->is_drained = (size_t)r < n && !s->read_to_end;
		s->turn -= (size_t)r < s->turn ? (size_t)r : s->turn;
		return (int)r;
	}
	if (r == 0)
		s->has_ended = true;
	else if (r == -EAGAIN)
		s->is_drained = true;
	else
		s->wire_error = (int)r;
	if (s->wire_error == 0)
		BIO_set_retry_read(bio);
	return -1;
}

static int on_read(BIO *bio, char *buf, int len)
{
	struct sl_tls_stream *s = BIO_get_data(bio);
	int n = read_wire(bio, buf, len);

	if (s->ktls && n > 0)
		sl_ktls_count(&s->ktls->in, buf, (size_t)n);
	return n;
}

static long on_ctrl(BIO *bio, int what, long num, void *arg)
{
	(void)bio;
	(void)num;
	(void)arg;
	return what == BIO_CTRL_FLUSH ? 1 : 0;
}

/* One for the process, made by whoever comes first; NULL: no memory. */
static BIO_METHOD *wire_method(void)
{
	static BIO_METHOD *method;
	BIO_METHOD *have = __atomic_load_n(&method, __ATOMIC_ACQUIRE);
	BIO_METHOD *m;

	if (have)
		return have;
	m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "wire");
	if (m && BIO_meth_set_read(m, on_read) && BIO_meth_set_write(m, on_write) &&
	    BIO_meth_set_ctrl(m, on_ctrl) &&
	    __atomic_compare_exchange_n(&method, &have, m, false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		return m;
	BIO_meth_free(m);
	return have;
}

int sl_tls_count_update(struct sl_tls_stream *s)
{
	return ++s->n_updates <= UPDATES_MAX + s->n_received / BYTES_PER_UPDATE ? 0 : -EPROTO;
}

/*
 * A flood of messages that are cheap to send and dear to answer ends the connection. The library
 * stops at a side that is shut, between two messages.
 */
static void on_message(int is_ours, int version, int type, const void *bytes, size_t n, SSL *ssl,
		       void *arg)
{
	struct sl_tls_stream *s;

	(void)version;
	(void)arg;
	if (is_ours || type != SSL3_RT_HANDSHAKE || n == 0)
		return;
	s = sl_tls_stream_of(ssl);
	if (!s->is_ready || s->failed < 0)
		return;
	s->has_spare = true;
	if (sl_tls_count_update(s) == 0)
		return;
	sl_tls_set_error(s, "too many %s",
			 *(const unsigned char *)bytes == SSL3_MT_KEY_UPDATE
				 ? "key updates"
				 : "handshake messages");
	s->failed = -EPROTO;
	SSL_set_shutdown(ssl, SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
}

int sl_tls_context_init(SSL_CTX *ctx)
{
	if (!wire_method())
		return -ENOMEM;
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
	(void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_msg_callback(ctx, on_message);
	return 0;
}

int sl_tls_context_groups(SSL_CTX *ctx, const char *groups)
{
	if (groups)
		return SSL_CTX_set1_groups_list(ctx, groups) ? 0 : -EINVAL;
	/*
	 * OpenSSL 3.5 and later have the first of these, and know the star: shares of both are
	 * sent, so that a backend that has only one of them need not ask again.
	 */
	if (SSL_CTX_set1_groups_list(ctx, "*X25519MLKEM768:*X25519:P-256:P-384"))
		return 0;
	ERR_clear_error();
	return SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384") ? 0 : -EINVAL;
}

/* ---- life ---- */

int sl_tls_stream_new(SSL *ssl, const struct sl_tls_wire *wire, void *owner,
		      struct sl_tls_stream **ret)
{
	_cleanup_(sl_tls_stream_freep) struct sl_tls_stream *s = calloc(1, sizeof(*s));
	BIO *bio;

	if (!s) {
		SSL_free(ssl);
		return -ENOMEM;
	}
	s->ssl = ssl;
	s->wire = wire;
	s->owner = owner;
	s->turn = SL_TLS_HANDSHAKE_BYTES;
	bio = BIO_new(wire_method());
	if (!bio)
		return -ENOMEM;
	BIO_set_data(bio, s);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	*ret = SL_TAKE_PTR(s);
	return 0;
}

struct sl_tls_stream *sl_tls_stream_of(const SSL *ssl)
{
	return BIO_get_data(SSL_get_rbio(ssl));
}

/* What only the handshake needs: with the set goes the connection's hold on its keys. */
static void drop_handshake(struct sl_tls_stream *s)
{
	if (s->certs && s->is_ready)
		SSL_certs_clear(s->ssl);
	sl_cert_set_unref(SL_TAKE_PTR(s->certs));
	sl_tls_tickets_unref(SL_TAKE_PTR(s->tickets));
}

void sl_tls_stream_free(struct sl_tls_stream *s)
{
	if (!s)
		return;
	/* a session that went well stays good, whoever closed first */
	if (s->is_ready && s->failed == 0)
		SSL_set_shutdown(s->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(s->ssl);
	ERR_clear_error();
	drop_handshake(s);
	sl_tls_target_unref(s->target);
	sl_tls_server_unref(s->server);
	free(s->early);
	free(s->held);
	free(s->ktls);
	free(s->error);
	free(s);
}

int sl_tls_stream_unread(struct sl_tls_stream *s, const void *bytes, size_t n)
{
	char *early;

	if (s->early_len > 0)
		return -EBUSY;
	if (n == 0)
		return 0;
	early = malloc(n);
	if (!early)
		return -ENOMEM;
	memcpy(early, bytes, n);
	s->early = early;
	s->early_at = 0;
	s->early_len = n;
	return 0;
}

int sl_tls_stream_offer(struct sl_tls_stream *s, const char *protocol, size_t n)
{
	unsigned char list[256];

	if (n == 0 || n > 255)
		return -EINVAL;
	list[0] = (unsigned char)n;
	memcpy(list + 1, protocol, n);
	return SSL_set_alpn_protos(s->ssl, list, (unsigned)n + 1) == 0 ? 0 : -ENOMEM;
}

void sl_tls_stream_read_to_end(struct sl_tls_stream *s)
{
	s->read_to_end = true;
}

bool sl_tls_stream_is_ready(const struct sl_tls_stream *s)
{
	return s->is_ready;
}

bool sl_tls_stream_has_pending(const struct sl_tls_stream *s)
{
	return s->early_len > 0 || SSL_has_pending(s->ssl);
}

size_t sl_tls_stream_held(const struct sl_tls_stream *s)
{
	return s->ktls ? s->held_len + 2 * s->ktls->n_owed : s->held_len;
}

/* ---- steps ---- */

/* The queue of errors belongs to the thread: what another connection left there is not ours. */
static void begin(struct sl_tls_stream *s, struct sl_tls_scratch *scratch)
{
	ERR_clear_error();
	s->scratch = scratch;
	s->is_drained = false;
}

int sl_tls_fail_wire(struct sl_tls_stream *s)
{
	char text[64];

	sl_tls_set_error(s, "%s", strerror_r(-s->wire_error, text, sizeof(text)));
	s->failed = s->wire_error;
	return s->failed;
}

/* What the library's answer `r` means. */
static int judge(struct sl_tls_stream *s, int r)
{
	int e = SSL_get_error(s->ssl, r);

	if (s->failed < 0)
		return s->failed;
	switch (e) {
	case SSL_ERROR_NONE:
		return SL_TLS_GO;
	case SSL_ERROR_WANT_READ:
		return s->has_ended ? SL_TLS_CUT : SL_TLS_IN;
	case SSL_ERROR_WANT_WRITE:
		return SL_TLS_OUT;
	case SSL_ERROR_ZERO_RETURN:
		return SL_TLS_END;
	default:
		if (s->wire_error < 0)
			return sl_tls_fail_wire(s);
		s->failed = sl_tls_explain(s);
		return s->failed;
	}
}

/* Ends a call: what was encrypted leaves, an alert about a failure, too. */
static int finish(struct sl_tls_stream *s, int r)
{
	put_scratch(s);
	s->scratch = NULL;
	ERR_clear_error();
	return s->wire_error < 0 && s->failed == 0 ? sl_tls_fail_wire(s) : r;
}

static int cut_short(struct sl_tls_stream *s)
{
	sl_tls_set_error(s, "connection closed during the handshake");
	s->failed = -EPIPE;
	return s->failed;
}

int sl_tls_stream_handshake(struct sl_tls_stream *s, struct sl_tls_scratch *scratch)
{
	int r = sl_tls_stream_flush(s);

	if (r != SL_TLS_GO || s->is_ready)
		return r;
	begin(s, scratch);
	r = judge(s, SSL_do_handshake(s->ssl));
	if (r == SL_TLS_CUT || r == SL_TLS_END)
		r = cut_short(s);
	if (r == SL_TLS_IN && s->turn == 0) {
		sl_tls_set_error(s, "the handshake is too long");
		r = s->failed = -EPROTO;
	}
	s->is_ready = r == SL_TLS_GO;
	if (s->is_ready && s->target)
		sl_tls_target_met(s->target, s->ssl);
	if (s->is_ready || r < 0)
		drop_handshake(s);
	r = finish(s, r);
	return r >= 0 && s->held_len > 0 ? SL_TLS_OUT : r;
}

/*
 * Reading a message such as a ticket takes a buffer for an answer, which the library gives
 * back only after the next write. Not in the middle of a record: see CVE-2024-4741.
 */
static void give_spare_back(struct sl_tls_stream *s)
{
	if (SSL_has_pending(s->ssl) || strcmp(SSL_rstate_string(s->ssl), "RH") != 0)
		return;
	s->has_spare = !SSL_free_buffers(s->ssl);
}

int sl_tls_stream_read(struct sl_tls_stream *s, struct sl_tls_scratch *scratch, void *buf, size_t n,
		       size_t *ret_n)
{
	int r = SL_TLS_GO;
	size_t got = 0;
	size_t k;

	*ret_n = 0;
	if (s->failed < 0)
		return s->failed;
	s->turn = n + TURN_BYTES;
	if (sl_tls_stream_has_ktls(s)) {
		r = sl_ktls_read(s, buf, n, ret_n);
		s->n_received += *ret_n;
		return r < 0 && *ret_n > 0 ? SL_TLS_GO : r;
	}
	begin(s, scratch);
	while (r == SL_TLS_GO && got < n) {
		r = SSL_read_ex(s->ssl, (char *)buf + got, n - got, &k);
		if (r == 1)
			got += k;
		r = r == 1 ? SL_TLS_GO : judge(s, r);
		if (sl_ktls_stops_here(s))
			break;
	}
	if (r == SL_TLS_IN && s->turn == 0 && !s->is_drained)
		r = SL_TLS_GO;
	s->n_received += got;
	if (s->has_spare && r == SL_TLS_IN)
		give_spare_back(s);
	r = finish(s, r);
	if ((r == SL_TLS_GO || r == SL_TLS_IN) && sl_ktls_go_over(s))
		r = SL_TLS_GO;
	*ret_n = got;
	return r < 0 && got > 0 ? SL_TLS_GO : r; /* the next call tells of the failure */
}

static size_t record_size(struct sl_tls_stream *s, uint64_t now_ms)
{
	if (now_ms > s->wrote_ms + PAUSE_MS)
		s->burst = 0;
	s->wrote_ms = now_ms;
	return s->burst < SMALL_BYTES ? SMALL_RECORD : LARGE_RECORD;
}

static void count_record(struct sl_tls_stream *s, size_t n)
{
	if (s->burst < SMALL_BYTES)
		s->burst += (uint32_t)n;
	if (++s->n_records < RECORDS_PER_KEY || SSL_version(s->ssl) != TLS1_3_VERSION)
		return;
	if (SSL_key_update(s->ssl, SSL_KEY_UPDATE_NOT_REQUESTED))
		s->n_records = 0;
}

/* Up to the first bytes the wire does not take. */
static int encrypt(struct sl_tls_stream *s, uint64_t now_ms, const char *bytes, size_t n,
		   size_t *done)
{
	int r = SL_TLS_GO;
	size_t k;

	while (*done < n && r == SL_TLS_GO && s->held_len == 0) {
		size_t size = record_size(s, now_ms);

		r = SSL_write_ex(s->ssl, bytes + *done, n - *done < size ? n - *done : size, &k);
		if (r == 1) {
			*done += k;
			count_record(s, k);
		}
		r = r == 1 ? SL_TLS_GO : judge(s, r);
	}
	return r;
}

int sl_tls_stream_write(struct sl_tls_stream *s, struct sl_tls_scratch *scratch, uint64_t now_ms,
			const void *bytes, size_t n, size_t *ret_n)
{
	size_t done = 0;
	int r = sl_tls_stream_flush(s);

	*ret_n = 0;
	if (r != SL_TLS_GO)
		return r;
	if (!s->is_ready || s->said_end)
		return -EINVAL;
	if (sl_tls_stream_has_ktls(s))
		return sl_ktls_write(s, bytes, n, ret_n);
	do { /* again where the wire took what it had refused a moment before */
		begin(s, scratch);
		r = finish(s, encrypt(s, now_ms, bytes, n, &done));
	} while (r == SL_TLS_GO && done < n && s->held_len == 0);
	if (r < 0)
		return r;
	*ret_n = done;
	return s->held_len > 0 ? SL_TLS_OUT : r;
}

int sl_tls_stream_end(struct sl_tls_stream *s, struct sl_tls_scratch *scratch)
{
	int r;

	if (s->failed < 0)
		return s->failed;
	if (!s->is_ready)
		return -EINVAL;
	if (s->said_end)
		return sl_tls_stream_flush(s);
	if (sl_tls_stream_has_ktls(s))
		return sl_ktls_end(s);
	begin(s, scratch);
	r = SSL_shutdown(s->ssl);
	r = finish(s, r < 0 ? judge(s, r) : SL_TLS_GO);
	s->said_end = r == SL_TLS_GO;
	return r == SL_TLS_GO && s->held_len > 0 ? SL_TLS_OUT : r;
}

int sl_tls_stream_flush(struct sl_tls_stream *s)
{
	if (s->failed < 0)
		return s->failed;
	if (sl_tls_stream_has_ktls(s))
		return sl_ktls_flush(s);
	if (s->held_len > 0)
		put_held(s);
	if (s->wire_error < 0)
		return sl_tls_fail_wire(s);
	return s->held_len > 0 ? SL_TLS_OUT : SL_TLS_GO;
}

int sl_tls_stream_rekey(struct sl_tls_stream *s, struct sl_tls_scratch *scratch, bool both)
{
	int r;

	if (s->failed < 0)
		return s->failed;
	if (!s->is_ready || s->said_end)
		return -EINVAL;
	if (SSL_version(s->ssl) != TLS1_3_VERSION)
		return -EOPNOTSUPP;
	begin(s, scratch);
	r = SSL_key_update(s->ssl, both ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED);
	if (r == 1)
		r = SSL_do_handshake(s->ssl);
	if (r == 1)
		s->n_records = 0;
	r = finish(s, judge(s, r));
	return r >= 0 && s->held_len > 0 ? SL_TLS_OUT : r;
}
