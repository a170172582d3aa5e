/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * TLS as client and as server of the tests, many connections in one thread. Bounded in time by
 * timeout=SECONDS; prints one JSON line and ends with 0 when everything went as it should, 1 when
 * not, 2 on a wrong command line.
 *
 *   tls_peer MODE to=ADDR:PORT [to=...] | listen=ADDR:PORT [listen=...] timeout=SECONDS ...
 *
 *   verify  n= transfers with c= at a time against `peer_server verify` or `tls_peer serve`: every
 *           byte checked both ways; max=, shapes=, rst=PERCENT, slow=PERCENT, stall=MS, seed= as of
 *           `peer_client verify`. An end without close_notify is no end: bad, and `truncated`.
 *           updates=N: up to so many key updates a connection, half of them asked of both sides
 *   knock   handshakes, c= at a time, n= of them or for t= seconds: each sends send= (default "x"),
 *           waits for a byte and ends by close_notify; counts them by the certificate's serial
 * number cut     one whole handshake to count the bytes of it, then n= that are given up after the
 * k-th byte, k from 0 on, round and round: how=fin (wait for the other side's end), rst, close,
 *           stall (silent until the other side ends), or mix of the first three; only=K,K,...:
 * there serve   the other end of verify, or echo=1: returns what it gets; until SIGTERM; cert=,
 * key=; tickets=0: gives out none
 *
 * All: v=1.2, 1.3 or both (by turns); sni=NAME; ca=FILE (else nothing is verified); cert=, key=;
 * alpn=LIST; groups=, sigalgs=, ciphers=; resume=PERCENT of connections offer a session, if there
 * is one; small=PERCENT send records of 512 bytes; drip=BYTES: the handshake leaves in pieces of 1
 * to so many.
 */
#include <sys/types.h>

struct conn;
static ssize_t tls_send(struct conn *c, const void *buf, size_t n);
static ssize_t tls_recv(struct conn *c, void *buf, size_t n);
static int tls_shut(struct conn *c);
#define XFER_SEND(c, buf, n) tls_send(c, buf, n)
#define XFER_RECV(c, buf, n) tls_recv(c, buf, n)
#define XFER_SHUT(c) tls_shut(c)
#include "peer.h"
#include <openssl/err.h>
#include <openssl/ssl.h>

enum { MAX_ADDRS = 16, MAX_SESSIONS = 64, MAX_SERIALS = 256, MAX_CUTS = 64, HELD_MAX = 65536 };

enum tls_how { HOW_FIN = 0, HOW_RST, HOW_CLOSE, HOW_MIX, HOW_STALL, HOW_COUNT_ };
static const char *const how_names[HOW_COUNT_] = { "fin", "rst", "close", "mix", "stall" };

struct tls {
	SSL *ssl;
	char out[HELD_MAX]; /* encrypted, on its way */
	size_t out_len, out_off;
	uint64_t wire_out;
	uint64_t cut_at; /* UINT64_MAX: never */
	uint64_t end_at; /* where our close_notify ends: nothing may come behind it */
	enum tls_how how;
	unsigned updates; /* left */
	bool wire_eof, fin, with_fin, is_cut, is_ready, offered;
	char why[160];
};

static struct {
	struct args args;
	const char *mode;
	SSL_CTX *ctx;
	bool is_server, echo;
	struct addr addr[MAX_ADDRS];
	int n_addrs, n_listeners;
	uint64_t rng, n, c, max, stall_us, limit_us, end_us;
	uint64_t rst, slow, resume, small, drip, updates;
	unsigned shapes, n_shapes; /* bits */
	const char *sni, *request;
	int versions[2], n_versions;
	SSL_SESSION *session[2][MAX_SESSIONS]; /* by version: 0: 1.2, 1: 1.3 */
	int n_sessions[2];
	uint64_t started, done, ok, bad, stalled, truncated, resets, bytes;
	uint64_t offered, resumed, full, failed, by_version[2], updated, worst_gap;
	char serial[MAX_SERIALS][48];
	uint64_t by_serial[MAX_SERIALS];
	int n_serials, complaints;
	enum tls_how how;
	uint64_t whole, only[MAX_CUTS]; /* bytes of a whole handshake */
	unsigned n_only;
	uint64_t ended, reset, hung, passed, took_min, took_max;
	uint8_t alpn[256];
	unsigned alpn_len;
} tp;

static struct tls *tls_of(const struct conn *c)
{
	return c->own;
}

__attribute__((format(printf, 2, 3))) static void complain(const struct conn *c, const char *fmt,
							   ...)
{
	struct sockaddr_storage self = { 0 };
	socklen_t len = sizeof(self);
	char own[80];
	va_list ap;

	if (tp.complaints++ >= 20)
		return;
	getsockname(c->fd, (struct sockaddr *)&self, &len);
	fprintf(stderr, "%s: %s: ", tp.mode, addr_text(&self, own, sizeof(own)));
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ", after %llu ms\n", (unsigned long long)(now_us() - c->began) / 1000);
}

/* ---- a stream over a socket: the library sees memory, and what it made is sent from here ---- */

static void tls_fail(struct tls *t)
{
	unsigned long e = ERR_peek_last_error();

	ERR_error_string_n(e, t->why, sizeof(t->why));
	ERR_clear_error();
	errno = EPROTO;
}

static size_t tls_held(const struct tls *t)
{
	return t->out_len - t->out_off + BIO_ctrl_pending(SSL_get_wbio(t->ssl));
}

/* How much may leave now: less in a handshake that drips, not beyond where it is cut or ended. */
static size_t tls_portion(struct conn *c)
{
	struct tls *t = tls_of(c);
	uint64_t stop = t->cut_at < t->end_at ? t->cut_at : t->end_at;
	size_t n = t->out_len - t->out_off;

	if (tp.drip && !t->is_ready) {
		size_t drop = 1 + (size_t)rng_below(&tp.rng, tp.drip);

		n = drop < n ? drop : n;
	}
	return n > stop - t->wire_out ? (size_t)(stop - t->wire_out) : n;
}

static void tls_refill(struct tls *t)
{
	int n = 0;

	if (t->out_off < t->out_len)
		return;
	n = BIO_read(SSL_get_wbio(t->ssl), t->out, sizeof(t->out));
	t->out_off = 0;
	t->out_len = n > 0 ? (size_t)n : 0;
}

/* -1: the connection is gone, see errno. What is left waits for EPOLLOUT. */
static int tls_flush(struct conn *c)
{
	struct tls *t = tls_of(c);

	for (;;) {
		ssize_t r;

		tls_refill(t);
		if (t->wire_out >= t->end_at)
			t->out_len = t->out_off = 0;
		if (!t->out_len || t->is_cut)
			break;
		r = send(c->fd, t->out + t->out_off, tls_portion(c), 0);
		if (r < 0)
			return errno == EAGAIN ? 0 : -1;
		t->out_off += (size_t)r;
		t->wire_out += (uint64_t)r;
		t->is_cut = t->wire_out >= t->cut_at;
		if (tp.drip && !t->is_ready)
			break;
	}
	if (t->wire_out == t->end_at && t->with_fin && !t->fin) {
		t->fin = true;
		return shutdown(c->fd, SHUT_WR);
	}
	return 0;
}

/* 0: there is more, or the wire has ended; -1: see errno. */
static int tls_fill(struct conn *c)
{
	static char buf[32768];
	struct tls *t = tls_of(c);
	ssize_t r = recv(c->fd, buf, sizeof(buf), 0);

	if (r < 0)
		return -1;
	if (r == 0)
		t->wire_eof = true;
	else if (BIO_write(SSL_get_rbio(t->ssl), buf, (int)r) != r)
		die("no memory");
	return 0;
}

/* After a call of the library that did not succeed: 1: again; 0: the end; -1: see errno. */
static int tls_again(struct conn *c, int r)
{
	struct tls *t = tls_of(c);

	switch (SSL_get_error(t->ssl, r)) {
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_WANT_READ:
		if (tls_flush(c))
			return -1;
		if (t->wire_eof) {
			errno = ENODATA;
			return -1;
		}
		return tls_fill(c) ? -1 : 1;
	default:
		tls_fail(t);
		(void)tls_flush(c); /* the alert */
		errno = EPROTO;
		return -1;
	}
}

static ssize_t tls_recv(struct conn *c, void *buf, size_t n)
{
	struct tls *t = tls_of(c);

	for (;;) {
		int r, again;

		ERR_clear_error();
		r = SSL_read(t->ssl, buf, (int)n);
		if (r > 0)
			return tls_flush(c) ? -1 : r;
		again = tls_again(c, r);
		if (again <= 0)
			return again;
	}
}

static void tls_maybe_update(struct tls *t)
{
	if (!t->updates || SSL_version(t->ssl) < TLS1_3_VERSION || rng_below(&tp.rng, 4))
		return;
	t->updates--;
	tp.updated++;
	if (!SSL_key_update(t->ssl, rng_below(&tp.rng, 2) ? SSL_KEY_UPDATE_REQUESTED
							  : SSL_KEY_UPDATE_NOT_REQUESTED))
		die("SSL_key_update");
}

static ssize_t tls_send(struct conn *c, const void *buf, size_t n)
{
	struct tls *t = tls_of(c);
	int r;

	if (tls_flush(c))
		return -1;
	if (tls_held(t)) {
		errno = EAGAIN;
		return -1;
	}
	tls_maybe_update(t);
	ERR_clear_error();
	r = SSL_write(t->ssl, buf, (int)n);
	if (r <= 0) {
		tls_fail(t);
		return -1;
	}
	return tls_flush(c) ? -1 : r;
}

static int tls_shut(struct conn *c)
{
	struct tls *t = tls_of(c);

	if (SSL_shutdown(t->ssl) < 0) {
		tls_fail(t);
		return -1;
	}
	t->end_at = t->wire_out + tls_held(t);
	return tls_flush(c);
}

static void tls_end(struct conn *c, bool rst)
{
	struct tls *t = tls_of(c);

	c->own = NULL;
	SSL_free(t->ssl);
	free(t);
	conn_end(c, rst);
}

static const char *tls_words(const struct conn *c, int err)
{
	const struct tls *t = tls_of(c);

	if (err == ENODATA)
		return "the wire ended without close_notify";
	return err == EPROTO ? t->why : strerror(err);
}

/* Beside what the transfer waits for: room for what is encrypted, bytes that are read already. */
static void tls_arm(struct conn *c)
{
	struct tls *t = tls_of(c);
	uint64_t now = now_us();

	if (tls_held(t))
		conn_want(c, (c->interest & ~(1u << 31)) | EPOLLOUT);
	if ((c->interest & EPOLLIN) &&
	    (SSL_has_pending(t->ssl) || t->wire_eof || BIO_ctrl_pending(SSL_get_rbio(t->ssl))))
		conn_wake(c, now);
	if (tp.drip && !t->is_ready && tls_held(t))
		conn_wake(c, now + 200);
}

/* ---- sessions ---- */

static int on_session(SSL *ssl, SSL_SESSION *session)
{
	int v = SSL_SESSION_get_protocol_version(session) == TLS1_3_VERSION;
	int *n = &tp.n_sessions[v];
	int at = *n < MAX_SESSIONS ? (*n)++ : (int)rng_below(&tp.rng, MAX_SESSIONS);

	(void)ssl;
	if (*n == MAX_SESSIONS && tp.session[v][at])
		SSL_SESSION_free(tp.session[v][at]);
	tp.session[v][at] = session;
	return 1;
}

/*
 * A ticket of TLS 1.3 is used once, so that nobody can tell who comes back. The session of a
 * connection that was reset is none any more, for the library.
 */
static void offer_session(struct tls *t, int version)
{
	int v = version == TLS1_3_VERSION;
	SSL_SESSION *session;
	int at;

	if (!tp.n_sessions[v] || rng_below(&tp.rng, 100) >= tp.resume)
		return;
	at = (int)rng_below(&tp.rng, (uint64_t)tp.n_sessions[v]);
	session = tp.session[v][at];
	t->offered = SSL_SESSION_is_resumable(session);
	if (t->offered && !SSL_set_session(t->ssl, session))
		die("SSL_set_session");
	if (!v && t->offered)
		return;
	SSL_SESSION_free(session);
	tp.session[v][at] = tp.session[v][--tp.n_sessions[v]];
	tp.session[v][tp.n_sessions[v]] = NULL;
}

/* ---- making one ---- */

static void tls_new(struct conn *c)
{
	struct tls *t = calloc(1, sizeof(*t));
	BIO *in = BIO_new(BIO_s_mem());
	BIO *out = BIO_new(BIO_s_mem());
	int version = tp.versions[tp.started % (uint64_t)tp.n_versions];

	if (!t || !in || !out)
		die("no memory");
	t->ssl = SSL_new(tp.ctx);
	if (!t->ssl)
		die("no memory");
	BIO_set_mem_eof_return(in, -1);
	BIO_set_mem_eof_return(out, -1);
	SSL_set_bio(t->ssl, in, out);
	SSL_set_read_ahead(t->ssl, 1);
	if (!tp.is_server || tp.n_versions == 1) {
		SSL_set_min_proto_version(t->ssl, version);
		SSL_set_max_proto_version(t->ssl, version);
	}
	t->cut_at = t->end_at = UINT64_MAX;
	t->updates = (unsigned)rng_below(&tp.rng, tp.updates + 1);
	t->with_fin = rng_below(&tp.rng, 2);
	if (rng_below(&tp.rng, 100) < tp.small)
		SSL_set_max_send_fragment(t->ssl, 512);
	if (tp.is_server) {
		SSL_set_accept_state(t->ssl);
	} else {
		SSL_set_connect_state(t->ssl);
		if (tp.sni) {
			SSL_set_tlsext_host_name(t->ssl, tp.sni);
			SSL_set1_host(t->ssl, tp.sni);
		}
		offer_session(t, version);
	}
	c->own = t;
}

static struct conn *dial(step_fn step)
{
	int tag = (int)(tp.started % (uint64_t)tp.n_addrs);
	const struct addr *to = &tp.addr[tag];
	int fd = socket(to->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct conn *c;
	int one = 1;

	if (fd < 0)
		die("socket: %s", strerror(errno));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (const struct sockaddr *)&to->sa, to->len) && errno != EINPROGRESS)
		die("connect: %s", strerror(errno));
	c = conn_new(fd, step);
	c->tag = tag;
	tls_new(c);
	tp.started++;
	conn_want(c, EPOLLOUT);
	conn_wake(c, now_us() + 100000);
	return c;
}

/* 1: connected and the handshake is done; 0: not yet; -1: failed, errno is set. */
static int tls_ready(struct conn *c, uint32_t events)
{
	struct tls *t = tls_of(c);
	int r;

	if (t->is_ready)
		return 1;
	if (c->phase == PHASE_CONNECTING) {
		if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
			return 0;
		errno = conn_error(c);
		if (errno)
			return -1;
		c->phase = PHASE_HEADER;
		t->is_cut = !t->cut_at;
	}
	for (;;) {
		int again;

		ERR_clear_error();
		r = SSL_do_handshake(t->ssl);
		if (r == 1)
			break;
		again = tls_again(c, r);
		if (again < 0 && errno == EAGAIN)
			break;
		if (again <= 0)
			return -1;
	}
	if (tls_flush(c))
		return -1;
	conn_want(c, EPOLLIN);
	conn_wake(c, now_us() + 100000);
	tls_arm(c);
	if (r != 1 || (tp.drip && tls_held(t)))
		return 0;
	t->is_ready = true;
	tp.by_version[SSL_version(t->ssl) == TLS1_3_VERSION]++;
	tp.offered += t->offered;
	tp.resumed += SSL_session_reused(t->ssl) == 1;
	tp.full += SSL_session_reused(t->ssl) != 1;
	return 1;
}

static void print_handshakes(uint64_t began)
{
	printf("\"offered\":%llu,\"resumed\":%llu,\"full\":%llu,\"tls12\":%llu,\"tls13\":%llu,"
	       "\"updates\":%llu,\"s\":%.2f}\n",
	       (unsigned long long)tp.offered, (unsigned long long)tp.resumed,
	       (unsigned long long)tp.full, (unsigned long long)tp.by_version[0],
	       (unsigned long long)tp.by_version[1], (unsigned long long)tp.updated,
	       (double)(now_us() - began) / 1e6);
	fflush(stdout);
}

/* ---- verify and serve ---- */

static const char *const shape_names[XFER_SHAPE_COUNT_] = { "mixed",  "ping", "up",  "down",
							    "duplex", "half", "rest" };

static void parse_shapes(const char *text)
{
	while (*text) {
		size_t len = strcspn(text, ",");
		unsigned before = tp.shapes;

		for (unsigned i = 0; i < XFER_SHAPE_COUNT_; i++) {
			bool same = strlen(shape_names[i]) == len &&
				    !strncmp(text, shape_names[i], len);

			if (same || (len == 3 && !strncmp(text, "all", 3)))
				tp.shapes |= 1u << i;
		}
		if (tp.shapes == before)
			die("shapes=%s", text);
		text += len;
		text += *text == ',';
	}
	tp.n_shapes = (unsigned)__builtin_popcount(tp.shapes);
}

static enum xfer_shape any_shape(void)
{
	unsigned left = (unsigned)rng_below(&tp.rng, tp.n_shapes);

	for (unsigned i = 0; i < XFER_SHAPE_COUNT_; i++)
		if (tp.shapes >> i & 1 && !left--)
			return (enum xfer_shape)i;
	return XFER_MIXED;
}

static void verify_plan(struct conn *c)
{
	struct xfer_header h = { .magic = XFER_MAGIC };

	h.shape = (uint8_t)any_shape();
	h.order = (uint8_t)rng_below(&tp.rng, XFER_ORDER_COUNT_);
	h.seed_up = rng_next(&tp.rng);
	h.seed_down = rng_next(&tp.rng);
	h.rest = 30;
	if (tp.rst && rng_below(&tp.rng, 100) < tp.rst)
		h.flags = rng_below(&tp.rng, 2) ? XFER_RST_CLIENT : XFER_RST_SERVER;
	if (tp.slow && rng_below(&tp.rng, 100) < tp.slow)
		h.flags |= (uint8_t)((1 + rng_below(&tp.rng, 3)) * XFER_SLOW_CLIENT);
	xfer_plan(&h, &tp.rng, tp.max);
	memcpy(c->head, &h, sizeof(h));
	c->head_len = sizeof(h);
	xfer_setup(&c->x, &h, false);
}

static void verify_over(struct conn *c, bool rst)
{
	if (c->x.max_gap > tp.worst_gap)
		tp.worst_gap = c->x.max_gap;
	tp.done++;
	tls_end(c, rst);
}

static void verify_bad(struct conn *c, const char *why)
{
	struct xfer_header h;

	memcpy(&h, c->head, sizeof(h));
	tp.bad++;
	tp.truncated += errno == ENODATA;
	complain(c, "%s: %s, order %u, flags %u, sent %llu of %llu, got %llu of %llu, eof %d", why,
		 shape_names[h.shape % XFER_SHAPE_COUNT_], h.order, h.flags,
		 (unsigned long long)c->x.sent, (unsigned long long)c->x.len_out,
		 (unsigned long long)c->x.got, (unsigned long long)c->x.len_in, c->x.eof);
	verify_over(c, true);
}

/* All is done but for what still waits to be sent. */
static void verify_drain(struct conn *c)
{
	if (tls_flush(c)) {
		if (c->x.rst_ok || errno == EPIPE || errno == ECONNRESET)
			errno = 0;
		verify_bad(c, "gone before our end was sent");
		return;
	}
	if (tls_held(tls_of(c))) {
		c->phase = PHASE_DRAIN;
		conn_want(c, EPOLLOUT);
		conn_wake(c, now_us() + 100000);
		return;
	}
	tp.ok++;
	tp.bytes += c->x.got + c->x.sent;
	verify_over(c, false);
}

static void verify_result(struct conn *c, enum xfer_result result, const char *why)
{
	switch (result) {
	case XFER_RUNNING:
		tls_arm(c);
		break;
	case XFER_DONE:
		verify_drain(c);
		break;
	case XFER_RESET:
	case XFER_PEER_RESET:
		tp.ok++;
		tp.resets++;
		verify_over(c, result == XFER_RESET);
		break;
	case XFER_BAD:
		verify_bad(c, errno == ENODATA || errno == EPROTO ? tls_words(c, errno) : why);
		break;
	}
}

/* True: go on. */
static bool verify_alive(struct conn *c, uint32_t events)
{
	int r;

	if (xfer_stalled(c, now_us(), tp.stall_us)) {
		tp.stalled++;
		errno = 0;
		verify_bad(c, "stalled");
		return false;
	}
	r = tls_ready(c, events);
	if (r < 0) {
		int err = errno;

		tp.failed++;
		complain(c, "handshake: %s", tls_words(c, err));
		verify_bad(c, "no handshake");
	}
	return r > 0;
}

static void step_verify(struct conn *c, uint32_t events)
{
	enum xfer_result result;
	const char *why = "";

	if (!verify_alive(c, events))
		return;
	if (c->phase == PHASE_DRAIN) {
		verify_drain(c);
		return;
	}
	if (c->phase == PHASE_HEADER) {
		if (tls_send(c, c->head, c->head_len) != (ssize_t)c->head_len) {
			verify_bad(c, "header not sent");
			return;
		}
		c->progress = now_us();
		c->phase = PHASE_RUN;
	}
	errno = 0;
	result = xfer_step(c, events, &why);
	verify_result(c, result, why);
}

static void verify_tick(uint64_t now)
{
	(void)now;
	while ((uint64_t)loop.n < tp.c && tp.started < tp.n && !got_term)
		verify_plan(dial(step_verify));
	loop.stop = tp.done == tp.n || (got_term && !loop.n);
}

static int run_verify(uint64_t until)
{
	uint64_t began = now_us();

	loop_run(until, verify_tick);
	printf("{\"mode\":\"verify\",\"n\":%llu,\"ok\":%llu,\"bad\":%llu,\"stalled\":%llu,"
	       "\"truncated\":%llu,\"failed\":%llu,\"resets\":%llu,\"bytes\":%llu,\"max_gap_ms\":%"
	       "llu,",
	       (unsigned long long)tp.n, (unsigned long long)tp.ok,
	       (unsigned long long)(tp.n - tp.ok), (unsigned long long)tp.stalled,
	       (unsigned long long)tp.truncated, (unsigned long long)tp.failed,
	       (unsigned long long)tp.resets, (unsigned long long)tp.bytes,
	       (unsigned long long)tp.worst_gap / 1000);
	print_handshakes(began);
	return tp.ok != tp.n;
}

/* The header of a transfer: 1: there; 0: not yet; -1: over. */
static int serve_header(struct conn *c)
{
	struct xfer_header h;

	while (c->head_len < sizeof(h)) {
		ssize_t r = tls_recv(c, c->head + c->head_len, sizeof(h) - c->head_len);

		if (r < 0 && errno == EAGAIN) {
			conn_want(c, EPOLLIN);
			tls_arm(c);
			return 0;
		}
		if (r <= 0) {
			int err = r ? errno : 0;

			errno = err;
			verify_bad(c, r ? tls_words(c, err) : "end in the header");
			return -1;
		}
		c->head_len += (size_t)r;
	}
	memcpy(&h, c->head, sizeof(h));
	errno = 0;
	if (h.magic != XFER_MAGIC) {
		verify_bad(c, "wrong magic");
		return -1;
	}
	xfer_setup(&c->x, &h, true);
	c->progress = now_us();
	c->phase = PHASE_RUN;
	return 1;
}

static void step_serve(struct conn *c, uint32_t events)
{
	enum xfer_result result;
	const char *why = "";

	if (!verify_alive(c, events))
		return;
	if (c->phase == PHASE_DRAIN) {
		verify_drain(c);
		return;
	}
	if (c->phase != PHASE_RUN && serve_header(c) <= 0)
		return;
	errno = 0;
	result = xfer_step(c, events, &why);
	verify_result(c, result, why);
}

static void echo_over(struct conn *c, bool good)
{
	tp.ok += good;
	tp.bad += !good;
	tp.done++;
	tls_end(c, !good);
}

/* Reads no more than it has sent on. */
static void step_echo(struct conn *c, uint32_t events)
{
	static char buf[16384];
	struct tls *t = tls_of(c);
	int ready = tls_ready(c, events);

	if (ready <= 0) {
		if (ready < 0) {
			tp.failed++;
			echo_over(c, false);
		}
		return;
	}
	for (;;) {
		ssize_t r;

		if (tls_flush(c)) {
			echo_over(c, false);
			return;
		}
		if (c->eof && !tls_held(t)) {
			echo_over(c, true);
			return;
		}
		if (tls_held(t)) {
			conn_want(c, EPOLLOUT);
			return;
		}
		r = tls_recv(c, buf, sizeof(buf));
		if (r < 0 && errno == EAGAIN)
			break;
		if (r < 0) {
			tp.truncated += errno == ENODATA;
			echo_over(c, false);
			return;
		}
		c->eof = r == 0;
		if (r ? tls_send(c, buf, (size_t)r) != r : tls_shut(c) != 0) {
			echo_over(c, false);
			return;
		}
		tp.bytes += (uint64_t)r;
	}
	conn_want(c, EPOLLIN);
}

static void step_listener(struct conn *l, uint32_t events)
{
	(void)events;
	for (int burst = 0; burst < 64; burst++) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct conn *c;
		int one = 1;

		if (fd < 0)
			return;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		tp.started++;
		c = conn_new(fd, tp.echo ? step_echo : step_serve);
		tls_new(c);
		c->phase = PHASE_HEADER;
		c->step(c, EPOLLIN);
	}
}

static void print_served(void)
{
	printf("{\"mode\":\"serve\",\"accepted\":%llu,\"open\":%d,\"ok\":%llu,\"bad\":%llu,"
	       "\"stalled\":%llu,\"truncated\":%llu,\"failed\":%llu,\"resets\":%llu,\"bytes\":%"
	       "llu,",
	       (unsigned long long)tp.started, loop.n - tp.n_listeners, (unsigned long long)tp.ok,
	       (unsigned long long)tp.bad, (unsigned long long)tp.stalled,
	       (unsigned long long)tp.truncated, (unsigned long long)tp.failed,
	       (unsigned long long)tp.resets, (unsigned long long)tp.bytes);
	print_handshakes(now_us());
}

static void serve_tick(uint64_t now)
{
	(void)now;
	loop.stop = got_term;
	if (got_usr1)
		print_served();
	got_usr1 = 0;
}

static int run_serve(uint64_t until)
{
	for (int i = 0; i < tp.n_addrs; i++) {
		const struct addr *a = &tp.addr[i];
		int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		int one = 1;

		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (a->sa.ss_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
		if (bind(fd, (const struct sockaddr *)&a->sa, a->len) || listen(fd, 4096))
			die("cannot listen: %s", strerror(errno));
		conn_want(conn_new(fd, step_listener), EPOLLIN);
		tp.n_listeners++;
	}
	loop_run(until, serve_tick);
	print_served();
	return tp.bad || tp.stalled || !loop.stop;
}

/* ---- knock ---- */

static void count_serial(SSL *ssl)
{
	X509 *cert = SSL_get0_peer_certificate(ssl);
	BIGNUM *number;
	char *text;
	int i = 0;

	if (!cert)
		return;
	number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
	text = number ? BN_bn2hex(number) : NULL;
	if (!text)
		die("no memory");
	while (i < tp.n_serials && strcmp(tp.serial[i], text) != 0)
		i++;
	if (i < MAX_SERIALS) {
		snprintf(tp.serial[i], sizeof(tp.serial[i]), "%s", text);
		tp.by_serial[i]++;
		if (i == tp.n_serials)
			tp.n_serials++;
	}
	OPENSSL_free(text);
	BN_free(number);
}

static void knock_bad(struct conn *c, int err, const char *what)
{
	tp.bad++;
	tp.truncated += err == ENODATA;
	complain(c, "%s: %s", what, tls_words(c, err));
	tp.done++;
	tls_end(c, true);
}

static void step_knock(struct conn *c, uint32_t events)
{
	char buf[4096];
	int ready = tls_ready(c, events);
	ssize_t r;

	if (now_us() - c->began > tp.limit_us) {
		tp.stalled++;
		knock_bad(c, ETIMEDOUT, "stalled");
		return;
	}
	if (ready < 0)
		knock_bad(c, errno, "handshake");
	if (ready <= 0)
		return;
	if (c->phase == PHASE_HEADER) {
		size_t n = strlen(tp.request);

		if (tls_send(c, tp.request, n) != (ssize_t)n) {
			knock_bad(c, errno, "request");
			return;
		}
		c->phase = PHASE_RUN;
	}
	r = tls_recv(c, buf, sizeof(buf));
	if (r <= 0) {
		if (!r || errno != EAGAIN)
			knock_bad(c, r ? errno : 0, "answer");
		return;
	}
	count_serial(tls_of(c)->ssl);
	tp.bytes += (uint64_t)r;
	tp.ok++;
	tp.done++;
	(void)tls_shut(c);
	tls_end(c, false);
}

static void knock_tick(uint64_t now)
{
	bool over = got_term || (tp.end_us ? now >= tp.end_us : tp.started >= tp.n);

	while (!over && (uint64_t)loop.n < tp.c && (tp.end_us || tp.started < tp.n))
		dial(step_knock);
	loop.stop = over && !loop.n;
}

static int run_knock(uint64_t until)
{
	uint64_t began = now_us();

	tp.request = arg_str(&tp.args, "send", "x");
	if (arg_u64(&tp.args, "t", 0))
		tp.end_us = began + arg_u64(&tp.args, "t", 0) * 1000000;
	loop_run(until, knock_tick);
	printf("{\"mode\":\"knock\",\"n\":%llu,\"ok\":%llu,\"bad\":%llu,\"stalled\":%llu,"
	       "\"truncated\":%llu,\"serials\":{",
	       (unsigned long long)tp.started, (unsigned long long)tp.ok,
	       (unsigned long long)(tp.started - tp.ok), (unsigned long long)tp.stalled,
	       (unsigned long long)tp.truncated);
	for (int i = 0; i < tp.n_serials; i++)
		printf("%s\"%s\":%llu", i ? "," : "", tp.serial[i],
		       (unsigned long long)tp.by_serial[i]);
	printf("},");
	print_handshakes(began);
	return tp.ok != tp.started || !tp.ok;
}

/* ---- cut ---- */

static void cut_over(struct conn *c, uint64_t *which, bool rst)
{
	uint64_t took = now_us() - c->began;

	if (which == &tp.ended || which == &tp.reset) {
		tp.took_min = took < tp.took_min ? took : tp.took_min;
		tp.took_max = took > tp.took_max ? took : tp.took_max;
	}
	(*which)++;
	tp.done++;
	tls_end(c, rst);
}

/* Given up: what is left to do is to see the other side leave, if that is what is wanted. */
static void step_left(struct conn *c, uint32_t events)
{
	char buf[4096];
	ssize_t r;

	(void)events;
	do
		r = recv(c->fd, buf, sizeof(buf), 0);
	while (r > 0);
	if (r == 0) {
		cut_over(c, &tp.ended, false);
	} else if (errno != EAGAIN) {
		cut_over(c, &tp.reset, false);
	} else if (now_us() - c->began > tp.limit_us) {
		complain(c, "still open, cut at %llu", (unsigned long long)tls_of(c)->cut_at);
		cut_over(c, &tp.hung, true);
	} else {
		conn_want(c, EPOLLIN);
		conn_wake(c, now_us() + 50000);
	}
}

static void cut_leave(struct conn *c)
{
	switch (tls_of(c)->how) {
	case HOW_RST:
	case HOW_CLOSE:
		cut_over(c, &tp.passed, tls_of(c)->how == HOW_RST);
		return;
	case HOW_FIN:
		shutdown(c->fd, SHUT_WR);
		break;
	case HOW_STALL:
	case HOW_MIX:
	case HOW_COUNT_:
		break;
	}
	c->step = step_left;
	step_left(c, 0);
}

static void step_cut(struct conn *c, uint32_t events)
{
	struct tls *t = tls_of(c);
	int ready = tls_ready(c, events);

	if (ready < 0 && !t->is_cut) {
		tp.bad++;
		complain(c, "cut at %llu: %s", (unsigned long long)t->cut_at, tls_words(c, errno));
		cut_over(c, &tp.failed, true);
		return;
	}
	if (t->is_cut) {
		cut_leave(c);
		return;
	}
	if (ready > 0 && !tp.whole && t->cut_at == UINT64_MAX) {
		tp.whole = t->wire_out;
		tp.started--;
		(void)tls_shut(c);
		tls_end(c, false);
	} else if (ready > 0) {
		complain(c, "done before byte %llu", (unsigned long long)t->cut_at);
		tp.bad++;
		cut_over(c, &tp.failed, true);
	} else if (now_us() - c->began > tp.limit_us) {
		complain(c, "no handshake");
		tp.bad++;
		cut_over(c, &tp.hung, true);
	}
}

static void cut_tick(uint64_t now)
{
	(void)now;
	if (!tp.whole && !loop.n && tp.done)
		loop.stop = true; /* not even a whole one */
	if (!tp.whole && !loop.n && !loop.stop)
		dial(step_cut);
	while (tp.whole && (uint64_t)loop.n < tp.c && tp.started < tp.n && !got_term) {
		struct tls *t = tls_of(dial(step_cut));
		uint64_t i = tp.started - 1;

		t->cut_at = tp.n_only ? tp.only[i % tp.n_only] : i % (tp.whole + 1);
		if ((int64_t)t->cut_at < 0)
			t->cut_at += tp.whole;
		t->how = tp.how == HOW_MIX ? (enum tls_how)((i / (tp.whole + 1) + i) % HOW_MIX)
					   : tp.how;
	}
	loop.stop = loop.stop || tp.done == tp.n || got_term;
}

static void parse_cuts(void)
{
	const char *text = arg_str(&tp.args, "how", "mix");
	const char *only = arg_str(&tp.args, "only", "");

	while (tp.how < HOW_COUNT_ && strcmp(text, how_names[tp.how]) != 0)
		tp.how++;
	if (tp.how == HOW_COUNT_)
		die("how=%s", text);
	while (*only && tp.n_only < MAX_CUTS) {
		tp.only[tp.n_only++] = (uint64_t)strtoll(only, NULL, 10);
		only += strcspn(only, ",");
		only += *only == ',';
	}
}

static int run_cut(uint64_t until)
{
	uint64_t began = now_us();

	parse_cuts();
	tp.took_min = UINT64_MAX;
	loop_run(until, cut_tick);
	if (!tp.ended && !tp.reset)
		tp.took_min = 0;
	printf("{\"mode\":\"cut\",\"n\":%llu,\"whole\":%llu,\"left\":%llu,\"ended\":%llu,\"reset\":"
	       "%llu,\"hung\":%llu,\"bad\":%llu,\"min_ms\":%llu,\"max_ms\":%llu,",
	       (unsigned long long)tp.done, (unsigned long long)tp.whole,
	       (unsigned long long)tp.passed, (unsigned long long)tp.ended,
	       (unsigned long long)tp.reset, (unsigned long long)tp.hung,
	       (unsigned long long)tp.bad, (unsigned long long)tp.took_min / 1000,
	       (unsigned long long)tp.took_max / 1000);
	print_handshakes(began);
	return tp.bad || tp.hung || tp.done != tp.n;
}

/* ---- starting ---- */

static void set_alpn(const char *text)
{
	while (*text && tp.alpn_len < sizeof(tp.alpn) - 64) {
		size_t len = strcspn(text, ",");

		tp.alpn[tp.alpn_len++] = (uint8_t)len;
		memcpy(tp.alpn + tp.alpn_len, text, len);
		tp.alpn_len += (unsigned)len;
		text += len;
		text += *text == ',';
	}
}

static void make_context(void)
{
	const char *ca = arg_str(&tp.args, "ca", NULL);
	const char *cert = arg_str(&tp.args, "cert", NULL);
	const char *key = arg_str(&tp.args, "key", cert);
	const char *groups = arg_str(&tp.args, "groups", NULL);
	const char *sigalgs = arg_str(&tp.args, "sigalgs", NULL);
	const char *ciphers = arg_str(&tp.args, "ciphers", NULL);
	bool ok;

	tp.ctx = SSL_CTX_new(tp.is_server ? TLS_server_method() : TLS_client_method());
	if (!tp.ctx)
		die("no context");
	SSL_CTX_set_mode(tp.ctx, SSL_MODE_RELEASE_BUFFERS);
	ok = !cert || (SSL_CTX_use_certificate_chain_file(tp.ctx, cert) == 1 &&
		       SSL_CTX_use_PrivateKey_file(tp.ctx, key, SSL_FILETYPE_PEM) == 1);
	ok = ok && (!ca || SSL_CTX_load_verify_locations(tp.ctx, ca, NULL) == 1);
	ok = ok && (!groups || SSL_CTX_set1_groups_list(tp.ctx, groups) == 1);
	ok = ok && (!sigalgs || SSL_CTX_set1_sigalgs_list(tp.ctx, sigalgs) == 1);
	ok = ok && (!ciphers || SSL_CTX_set_cipher_list(tp.ctx, ciphers) == 1);
	if (!ok) {
		ERR_print_errors_fp(stderr);
		die("the arguments do not make a context");
	}
	if (ca)
		SSL_CTX_set_verify(tp.ctx, SSL_VERIFY_PEER, NULL);
	set_alpn(arg_str(&tp.args, "alpn", ""));
	if (tp.alpn_len)
		SSL_CTX_set_alpn_protos(tp.ctx, tp.alpn, tp.alpn_len);
	if (!arg_u64(&tp.args, "tickets", 1)) {
		SSL_CTX_set_options(tp.ctx, SSL_OP_NO_TICKET);
		SSL_CTX_set_num_tickets(tp.ctx, 0);
	}
	if (tp.is_server)
		return;
	SSL_CTX_set_session_cache_mode(tp.ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(tp.ctx, on_session);
}

static void parse_versions(const char *text)
{
	bool both = !strcmp(text, "both");

	if (both || !strcmp(text, "1.2"))
		tp.versions[tp.n_versions++] = TLS1_2_VERSION;
	if (both || !strcmp(text, "1.3"))
		tp.versions[tp.n_versions++] = TLS1_3_VERSION;
	if (!tp.n_versions)
		die("v=%s", text);
}

static void parse_common(void)
{
	const char *text;
	int pos = 0;

	while ((text = arg_next(&tp.args, tp.is_server ? "listen" : "to", &pos)) &&
	       tp.n_addrs < MAX_ADDRS)
		tp.addr[tp.n_addrs++] = addr_parse(text);
	if (!tp.n_addrs)
		die("to=ADDRESS:PORT or listen=ADDRESS:PORT is missing");
	tp.rng = arg_u64(&tp.args, "seed", now_us());
	tp.n = arg_u64(&tp.args, "n", 1);
	tp.c = arg_u64(&tp.args, "c", 1);
	tp.max = arg_u64(&tp.args, "max", 4u << 20);
	tp.stall_us = arg_u64(&tp.args, "stall", 5000) * 1000;
	tp.limit_us = arg_u64(&tp.args, "limit", 5000) * 1000;
	tp.rst = arg_u64(&tp.args, "rst", 0);
	tp.slow = arg_u64(&tp.args, "slow", 0);
	tp.resume = arg_u64(&tp.args, "resume", 0);
	tp.small = arg_u64(&tp.args, "small", 0);
	tp.drip = arg_u64(&tp.args, "drip", 0);
	tp.updates = arg_u64(&tp.args, "updates", 0);
	tp.echo = arg_u64(&tp.args, "echo", 0);
	tp.sni = arg_str(&tp.args, "sni", NULL);
	parse_shapes(arg_str(&tp.args, "shapes", "mixed"));
	parse_versions(arg_str(&tp.args, "v", "both"));
}

static const struct {
	const char *name;
	int (*run)(uint64_t until);
} modes[] = {
	{ "verify", run_verify }, { "serve", run_serve }, { "knock", run_knock }, { "cut", run_cut }
};

int main(int argc, char **argv)
{
	static const char *const known[] = { "to",      "listen",  "timeout", "seed",    "n",
					     "c",       "max",     "stall",   "limit",   "rst",
					     "slow",    "resume",  "small",   "updates", "echo",
					     "sni",     "shapes",  "v",       "ca",      "cert",
					     "key",     "alpn",    "drip",    "groups",  "t",
					     "sigalgs", "ciphers", "send",    "how",     "only",
					     "name",    "tickets", NULL };
	uint64_t timeout;

	if (argc < 2)
		die("usage: tls_peer MODE to=ADDR:PORT timeout=SECONDS ...");
	tp.args = (struct args){ argc - 2, argv + 2 };
	tp.mode = argv[1];
	args_check(&tp.args, known);
	timeout = arg_u64(&tp.args, "timeout", 0);
	if (!timeout)
		die("timeout=SECONDS is missing");
	tp.is_server = !strcmp(tp.mode, "serve");
	parse_common();
	make_context();
	loop_init();
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (!strcmp(modes[i].name, tp.mode))
			return modes[i].run(now_us() + timeout * 1000000);
	die("unknown mode '%s'", tp.mode);
}
