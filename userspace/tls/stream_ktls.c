/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A stream whose records the kernel makes and opens. The library has no part in it any more: its
 * keys are behind. What is left of the protocol is small: alerts, and messages that ask for a
 * renegotiation, which are refused as the library refuses them.
 */
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <string.h>

#include "tls/ktls_ssl.h"
#include "tls/stream_ssl.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

/* Alerts and empty records in a row, each as the library bounds them. */
#define WARNINGS_MAX 5
#define EMPTY_MAX 32
/* What a record costs us at least. */
#define RECORD_COST 32
/* What TLS may hold back below us: two records, in small segments. */
#define REST_MAX (64 << 10)

static int fd_of(const struct sl_tls_stream *s)
{
	return (int)(intptr_t)s->owner;
}

/* ---- going over ---- */

int sl_tls_stream_want_ktls(struct sl_tls_stream *s)
{
	if (!s->ktls)
		s->ktls = calloc(1, sizeof(*s->ktls));
	return s->ktls ? 0 : -ENOMEM;
}

bool sl_tls_stream_has_ktls(const struct sl_tls_stream *s)
{
	return s->ktls && s->ktls->is_on;
}

const char *sl_tls_stream_ktls_why(const struct sl_tls_stream *s)
{
	const SSL_SESSION *session = SSL_get_session(s->ssl);

	if (sl_tls_stream_has_ktls(s))
		return NULL;
	if (!s->ktls)
		return "not asked for";
	if (s->ktls->why)
		return s->ktls->why;
	if (s->wire != &sl_tls_socket)
		return "no socket";
	if (!s->is_ready)
		return NULL;
	if (SSL_version(s->ssl) != TLS1_2_VERSION)
		return "a key update would break it";
	if (!sl_ktls_has_cipher(s->ssl))
		return "the kernel does not have the cipher";
	/* the kernel's are as long as it likes */
	if (session && SSL_SESSION_get_max_fragment_length(session) != 0)
		return "the client wants short records";
	if (s->said_end || (SSL_get_shutdown(s->ssl) & SSL_RECEIVED_SHUTDOWN))
		return "the connection is ending";
	return NULL;
}

/* Nothing is between the wire and whoever uses the stream, and no record is begun. */
static bool is_quiet(const struct sl_tls_stream *s)
{
	const struct sl_ktls *k = s->ktls;

	return s->is_ready && s->held_len == 0 && !sl_tls_stream_has_pending(s) && k->in.at == 0 &&
	       k->out.at == 0 && k->in.is_secret && k->out.is_secret;
}

static int give_up(struct sl_tls_stream *s, const char *why)
{
	s->ktls->why = why;
	s->ktls->is_due = false;
	SSL_set_read_ahead(s->ssl, 1);
	return -EOPNOTSUPP;
}

/* What the peer sends comes first: a kernel without the cipher says so while nothing is lost. */
static int install(struct sl_tls_stream *s, const struct sl_ktls_keys *keys)
{
	int fd = fd_of(s);

	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) < 0)
		return give_up(s, sl_ktls_refusal(errno));
	if (setsockopt(fd, SOL_TLS, TLS_RX, &keys->rx, keys->len) < 0)
		return give_up(s, errno == EPERM || errno == ENOMEM
					  ? sl_ktls_refusal(errno)
					  : "the kernel does not have the cipher");
	if (setsockopt(fd, SOL_TLS, TLS_TX, &keys->tx, keys->len) < 0) {
		s->wire_error = -errno;
		return sl_tls_fail_wire(s);
	}
	s->ktls->is_on = true;
	s->ktls->is_due = false;
	return 0;
}

int sl_tls_stream_start_ktls(struct sl_tls_stream *s)
{
	struct sl_ktls_keys keys;
	const char *why;
	int r;

	if (s->failed < 0)
		return s->failed;
	if (sl_tls_stream_has_ktls(s))
		return 0;
	why = sl_tls_stream_ktls_why(s);
	if (why)
		return s->ktls ? give_up(s, why) : -EOPNOTSUPP;
	if (!is_quiet(s)) {
		s->ktls->is_due = true;
		SSL_set_read_ahead(s->ssl, 0); /* a record, and not a byte of the next */
		return -EAGAIN;
	}
	r = sl_ktls_derive(s->ssl, &s->ktls->in, &s->ktls->out, &keys);
	r = r < 0 ? give_up(s, sl_ktls_refusal(-r)) : install(s, &keys);
	explicit_bzero(&keys, sizeof(keys));
	return r;
}

bool sl_ktls_stops_here(const struct sl_tls_stream *s)
{
	return s->ktls && s->ktls->is_due && s->ktls->in.at == 0 && !sl_tls_stream_has_pending(s);
}

bool sl_ktls_go_over(struct sl_tls_stream *s)
{
	return sl_ktls_stops_here(s) && s->failed == 0 && is_quiet(s) &&
	       sl_tls_stream_start_ktls(s) == 0;
}

void sl_tls_stream_splice_said(struct sl_tls_stream *s, int error)
{
	if (sl_tls_stream_has_ktls(s) && error != -EAGAIN && error != -EINTR)
		s->ktls->told = -error;
}

/* ---- alerts ---- */

static int send_alert(struct sl_tls_stream *s, unsigned char level, unsigned char what)
{
	unsigned char body[2] = { level, what };
	struct iovec iov = { .iov_base = body, .iov_len = sizeof(body) };
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(1)];
	} control = { 0 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.b,
			    .msg_controllen = CMSG_LEN(1) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	ssize_t n;

	c->cmsg_level = SOL_TLS;
	c->cmsg_type = TLS_SET_RECORD_TYPE;
	c->cmsg_len = CMSG_LEN(1);
	*CMSG_DATA(c) = SSL3_RT_ALERT;
	do {
		n = sendmsg(fd_of(s), &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static int fail_with(struct sl_tls_stream *s, unsigned char alert, const char *words)
{
	socklen_t len = sizeof(int);
	int error;

	/* what the kernel says of a record stays on the socket, and nothing is sent meanwhile */
	(void)getsockopt(fd_of(s), SOL_SOCKET, SO_ERROR, &error, &len);
	(void)send_alert(s, SSL3_AL_FATAL, alert);
	sl_tls_set_error(s, "%s", words);
	s->failed = -EPROTO;
	return s->failed;
}

/*
 * The kernel takes bytes that its TCP has no room for, and forgets them when the socket is shut
 * before there is. So the last record is given to it only where TCP certainly has room for all:
 * what TLS holds back goes first, under the same lock.
 */
static bool takes_the_rest(int fd)
{
	struct pollfd out = { .fd = fd, .events = POLLOUT };
	int size = 3 * REST_MAX / 2; /* the kernel doubles it */
	uint32_t mem[SK_MEMINFO_VARS];

	for (int i = 0; i < 2; i++) {
		socklen_t len = sizeof(mem);

		if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &len) < 0)
			return true;
		if (mem[SK_MEMINFO_WMEM_QUEUED] + REST_MAX <= mem[SK_MEMINFO_SNDBUF])
			return true;
		if (mem[SK_MEMINFO_SNDBUF] < 3 * REST_MAX)
			(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	}
	/* writable is a third of so large a buffer; until then an event is to come */
	return poll(&out, 1, 0) > 0;
}

int sl_ktls_flush(struct sl_tls_stream *s)
{
	struct sl_ktls *k = s->ktls;

	while (k->n_owed > 0) {
		int r = -EAGAIN;

		if (k->owed[0][1] != SSL3_AD_CLOSE_NOTIFY || takes_the_rest(fd_of(s)))
			r = send_alert(s, k->owed[0][0], k->owed[0][1]);
		if (r == -EAGAIN)
			return SL_TLS_OUT;
		if (r < 0) {
			s->wire_error = r;
			return sl_tls_fail_wire(s);
		}
		k->n_owed--;
		memmove(k->owed, k->owed + 1, k->n_owed * sizeof(k->owed[0]));
	}
	return SL_TLS_GO;
}

/* There is room: reading stops before the last place, which is close_notify's. */
static int owe(struct sl_tls_stream *s, unsigned char alert)
{
	struct sl_ktls *k = s->ktls;

	k->owed[k->n_owed][0] = SSL3_AL_WARNING;
	k->owed[k->n_owed++][1] = alert;
	return sl_ktls_flush(s);
}

int sl_ktls_end(struct sl_tls_stream *s)
{
	s->said_end = true;
	return owe(s, SSL3_AD_CLOSE_NOTIFY);
}

/* ---- reading ---- */

static int on_alert(struct sl_tls_stream *s, unsigned char level, unsigned char what)
{
	struct sl_ktls *k = s->ktls;

	if (what == SSL3_AD_CLOSE_NOTIFY) {
		k->has_end = true;
		return SL_TLS_END;
	}
	if (level == SSL3_AL_WARNING && what != SSL_AD_NO_RENEGOTIATION) {
		if (++k->n_warnings <= WARNINGS_MAX)
			return SL_TLS_GO;
		return fail_with(s, SSL_AD_UNEXPECTED_MESSAGE, "too many warn alerts");
	}
	sl_tls_set_error(s, "alert received: %s", SSL_alert_desc_string_long(what));
	s->failed = -EPROTO;
	return s->failed;
}

static int on_alerts(struct sl_tls_stream *s, const unsigned char *p, size_t n)
{
	struct sl_ktls *k = s->ktls;
	int r = SL_TLS_GO;

	for (size_t i = 0; i < n && r == SL_TLS_GO; i++) {
		k->alert[k->n_alert++] = p[i];
		if (k->n_alert < 2)
			continue;
		k->n_alert = 0;
		r = on_alert(s, k->alert[0], k->alert[1]);
	}
	return r;
}

/* Only what begins a renegotiation may come; its body is of no interest. */
static int on_message(struct sl_tls_stream *s)
{
	struct sl_ktls *k = s->ktls;
	int expected = SSL_is_server(s->ssl) ? SSL3_MT_CLIENT_HELLO : SSL3_MT_HELLO_REQUEST;
	int r;

	k->skip = (uint32_t)k->message[1] << 16 | (uint32_t)k->message[2] << 8 | k->message[3];
	if (k->message[0] != expected)
		return fail_with(s, SSL_AD_UNEXPECTED_MESSAGE, "unexpected message");
	if (k->skip > SL_TLS_HANDSHAKE_BYTES)
		return fail_with(s, SSL_AD_DECODE_ERROR, "the handshake is too long");
	if (sl_tls_count_update(s) < 0)
		return fail_with(s, SSL_AD_UNEXPECTED_MESSAGE, "too many handshake messages");
	r = s->said_end ? SL_TLS_GO : owe(s, SSL_AD_NO_RENEGOTIATION);
	return r == SL_TLS_OUT ? SL_TLS_GO : r;
}

static int on_messages(struct sl_tls_stream *s, const unsigned char *p, size_t n)
{
	struct sl_ktls *k = s->ktls;
	int r = SL_TLS_GO;

	while (n > 0 && r == SL_TLS_GO) {
		size_t skipped = n < k->skip ? n : k->skip;

		k->skip -= (uint32_t)skipped;
		p += skipped;
		n -= skipped;
		if (n == 0)
			break;
		if (k->n_owed >= SL_KTLS_OWED_MAX - 1) /* a record full of requests */
			return fail_with(s, SSL_AD_UNEXPECTED_MESSAGE,
					 "too many handshake messages");
		k->message[k->n_message++] = *p++;
		n--;
		if (k->n_message < sizeof(k->message))
			continue;
		k->n_message = 0;
		r = on_message(s);
	}
	return r;
}

static int on_record(struct sl_tls_stream *s, int type, const unsigned char *p, size_t n,
		     size_t *ret_n)
{
	struct sl_ktls *k = s->ktls;

	if (n == 0 && ++k->n_empty > EMPTY_MAX)
		return fail_with(s, SSL_AD_UNEXPECTED_MESSAGE, "too many empty records");
	if (n > 0)
		k->n_empty = 0;
	if (type != SSL3_RT_ALERT)
		k->n_warnings = 0;
	switch (type) {
	case SSL3_RT_APPLICATION_DATA:
		*ret_n = n;
		return SL_TLS_GO;
	case SSL3_RT_ALERT:
		return on_alerts(s, p, n);
	case SSL3_RT_HANDSHAKE:
		return on_messages(s, p, n);
	default:
		return fail_with(s, SSL_AD_UNEXPECTED_MESSAGE, "unexpected record");
	}
}

static int on_error(struct sl_tls_stream *s, int error)
{
	switch (error) {
	case EBADMSG:
		return fail_with(s, SSL_AD_BAD_RECORD_MAC, "a record was changed on its way");
	case EMSGSIZE:
		return fail_with(s, SSL_AD_RECORD_OVERFLOW, "a record is too long");
	case EINVAL:
		return fail_with(s, SSL_AD_PROTOCOL_VERSION, "not TLS");
	default:
		s->wire_error = -error;
		return sl_tls_fail_wire(s);
	}
}

/* Of what one record is, or several of data; -1: the kernel does not tell. */
static int type_of(struct msghdr *m)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(m);

	if (!c || c->cmsg_level != SOL_TLS || c->cmsg_type != TLS_GET_RECORD_TYPE)
		return -1;
	return *CMSG_DATA(c);
}

static int read_once(struct sl_tls_stream *s, void *buf, size_t room, size_t *ret_n)
{
	struct iovec iov = { .iov_base = buf, .iov_len = room };
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(1)];
	} control;
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.b,
			    .msg_controllen = sizeof(control.b) };
	bool was_refused = s->ktls->told == EINVAL; /* a record that is no data, or none at all */
	ssize_t n;
	int type;

	s->ktls->told = 0;

	do {
		n = recvmsg(fd_of(s), &m, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno != EAGAIN || was_refused))
		return on_error(s, errno == EAGAIN ? EINVAL : errno);
	if (n < 0)
		return SL_TLS_IN;
	type = type_of(&m);
	if (type < 0 && n == 0 && was_refused)
		return on_error(s, EINVAL);
	if (type < 0 && n == 0) {
		s->has_ended = true;
		return SL_TLS_CUT;
	}
	return on_record(s, type, buf, (size_t)n, ret_n);
}

int sl_ktls_read(struct sl_tls_stream *s, char *buf, size_t n, size_t *ret_n)
{
	struct sl_ktls *k = s->ktls;
	int r = k->has_end ? SL_TLS_END : SL_TLS_GO;

	if (k->told != 0 && k->told != EINVAL) /* splice() has taken the socket's error with it */
		return on_error(s, k->told);
	while (r == SL_TLS_GO && *ret_n < n && s->turn > 0) {
		size_t got = 0;

		if (k->n_owed >= SL_KTLS_OWED_MAX - 1 && sl_ktls_flush(s) != SL_TLS_GO)
			return s->failed < 0 ? s->failed : SL_TLS_OUT;
		r = read_once(s, buf + *ret_n, n - *ret_n, &got);
		*ret_n += got;
		s->turn -= got + RECORD_COST < s->turn ? got + RECORD_COST : s->turn;
	}
	return r;
}

/* ---- writing ---- */

int sl_ktls_write(struct sl_tls_stream *s, const char *bytes, size_t n, size_t *ret_n)
{
	while (*ret_n < n) {
		ssize_t k = send(fd_of(s), bytes + *ret_n, n - *ret_n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (k >= 0) {
			*ret_n += (size_t)k;
		} else if (errno == EAGAIN) {
			return SL_TLS_OUT;
		} else if (errno != EINTR) {
			s->wire_error = -errno;
			return sl_tls_fail_wire(s);
		}
	}
	return SL_TLS_GO;
}
