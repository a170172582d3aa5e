/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Streams that leave their records to the kernel. Where the kernel has no TLS these tests see that
 * it is said and that streams work on; keys and counts are checked against the library anywhere.
 * The others run under tests/vm.
 */
#include "tls_pair.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "slow.h"
#include "tls/ktls.h"
/* Looks under the cover, to play a peer that no library would be. */
#include "tls/ktls_ssl.h"
#include "tls/stream_ssl.h"

static struct ident id;
static struct sl_cert_set *certs;
static struct sl_tls_tickets *tickets;
static struct sl_tls_trust *trust;
static struct sl_tls_scratch scratch;
static unsigned char buf[1 << 20];

static const char *const ciphers[] = { "ECDHE-ECDSA-AES128-GCM-SHA256",
				       "ECDHE-ECDSA-AES256-GCM-SHA384",
				       "ECDHE-ECDSA-CHACHA20-POLY1305" };
#define N_CIPHERS 3

static int set_up(void **state)
{
	struct sl_tls_ticket_key key;

	(void)state;
	assert_int_equal(sl_tls_init(), 0);
	id = make_ident((struct wish){ .cn = "x", .names = "DNS:x.example" });
	certs = set_of_one(&id);
	assert_int_equal(sl_tls_trust_new(id.pem, strlen(id.pem), &trust), 0);
	assert_int_equal(sl_tls_ticket_key_make(&key), 0);
	assert_int_equal(sl_tls_tickets_new(&key, 1, &tickets), 0);
	assert_int_equal(sl_tls_scratch_init(&scratch), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sl_tls_scratch_done(&scratch);
	sl_cert_set_unref(certs);
	sl_tls_tickets_unref(tickets);
	sl_tls_trust_unref(trust);
	drop_ident(&id);
	return 0;
}

/* ---- two streams over TCP ---- */

enum { CLIENT, SERVER };

struct wanted {
	const char *cipher; /* of TLS 1.2; NULL: TLS 1.3 */
	bool ktls[2];
	unsigned char fragment; /* max_fragment_length the client asks for */
	int sndbuf, rcvbuf;     /* the server's, the client's */
};

struct tcp {
	int fd[2];
	struct sl_tls_stream *s[2];
	struct sl_tls_server *server;
	struct sl_tls_backend *backend;
	struct sl_tls_target *target;
};

static void connect_tcp(int fd[2], const struct wanted *w)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int at = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;

	assert_true(at >= 0);
	assert_int_equal(bind(at, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(at, (struct sockaddr *)&a, &len), 0);
	assert_int_equal(listen(at, 1), 0);
	fd[CLIENT] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (w->rcvbuf)
		assert_int_equal(
			setsockopt(fd[CLIENT], SOL_SOCKET, SO_RCVBUF, &w->rcvbuf, sizeof(int)), 0);
	assert_int_equal(connect(fd[CLIENT], (struct sockaddr *)&a, sizeof(a)), 0);
	fd[SERVER] = accept4(at, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd[SERVER] >= 0);
	assert_int_equal(close(at), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fcntl(fd[i], F_SETFL, O_NONBLOCK), 0);
		assert_int_equal(setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
	}
	if (w->sndbuf)
		assert_int_equal(
			setsockopt(fd[SERVER], SOL_SOCKET, SO_SNDBUF, &w->sndbuf, sizeof(int)), 0);
}

/* An event of that end, or of the other, which may have to act first. */
static void wait_for(const struct tcp *t, short client, short server)
{
	struct pollfd p[2] = { { .fd = t->fd[CLIENT], .events = client },
			       { .fd = t->fd[SERVER], .events = server } };

	assert_true(poll(p, 2, (int)(2000 * slow())) > 0);
}

static void shake_hands(struct tcp *t)
{
	int r[2] = { SL_TLS_IN, SL_TLS_IN };

	while (r[0] != 0 || r[1] != 0) {
		for (int i = 0; i < 2; i++) {
			r[i] = r[i] ? sl_tls_stream_handshake(t->s[i], &scratch) : 0;
			if (r[i] < 0)
				fail_msg("%s", sl_tls_stream_error(t->s[i]));
		}
		if (r[0] || r[1])
			wait_for(t, r[0] ? POLLIN : 0, r[1] ? POLLIN : 0);
	}
}

static void open_streams(struct tcp *t, const struct wanted *w)
{
	connect_tcp(t->fd, w);
	assert_int_equal(sl_tls_accept(t->server, certs, tickets, &sl_tls_socket,
				       sl_tls_fd(t->fd[SERVER]), &t->s[SERVER]),
			 0);
	assert_int_equal(sl_tls_target_connect(t->target, &sl_tls_socket, sl_tls_fd(t->fd[CLIENT]),
					       &t->s[CLIENT]),
			 0);
	if (w->cipher)
		assert_true(SSL_set_max_proto_version(t->s[CLIENT]->ssl, TLS1_2_VERSION));
	if (w->fragment)
		assert_true(SSL_set_tlsext_max_fragment_length(t->s[CLIENT]->ssl, w->fragment) ==
			    1);
	for (int i = 0; i < 2; i++)
		if (w->ktls[i])
			assert_int_equal(sl_tls_stream_want_ktls(t->s[i]), 0);
}

static void open_tcp(struct tcp *t, const struct wanted *w)
{
	*t = (struct tcp){ 0 };
	t->server = server_of(&(struct sl_tls_server_conf){ .scope = "r", .ciphers = w->cipher });
	t->backend =
		backend_of(&(struct sl_tls_backend_conf){ .trust = trust, .ciphers = w->cipher });
	t->target = target_of(t->backend, "x.example");
	open_streams(t, w);
	shake_hands(t);
}

static void close_streams(struct tcp *t)
{
	for (int i = 0; i < 2; i++) {
		sl_tls_stream_free(t->s[i]);
		if (t->fd[i] >= 0)
			assert_int_equal(close(t->fd[i]), 0);
	}
}

static void close_tcp(struct tcp *t)
{
	close_streams(t);
	sl_tls_target_unref(t->target);
	sl_tls_backend_unref(t->backend);
	sl_tls_server_unref(t->server);
}

/* What is on its way to it is read: tickets, and a last flight. Nothing but that may come. */
static void start(struct tcp *t, int who)
{
	assert_int_equal(sl_tls_stream_start_ktls(t->s[who]), 0);
	assert_true(sl_tls_stream_has_ktls(t->s[who]));
	assert_null(sl_tls_stream_ktls_why(t->s[who]));
	assert_int_equal(sl_tls_stream_start_ktls(t->s[who]), 0);
}

static void open_ktls(struct tcp *t, const struct wanted *w)
{
	open_tcp(t, w);
	for (int i = 0; i < 2; i++)
		if (w->ktls[i])
			start(t, i);
}

static bool has_kernel(void)
{
	const char *missing = sl_tls_ktls_missing();

	if (missing)
		print_message("skipped: %s\n", missing);
	return missing == NULL;
}

/* ---- bytes ---- */

static unsigned char byte_at(uint64_t key, size_t i)
{
	uint64_t x = (i + key) * 0x9e3779b97f4a7c15;

	return (unsigned char)(x >> 56);
}

static void check_bytes(uint64_t key, size_t at, const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != byte_at(key, at + i))
			fail_msg("byte %zu is wrong", at + i);
}

/* One direction, through the streams or through pipes as a relay would. */
struct flow {
	int from, to;
	bool splices_out, splices_in;
	uint64_t key;
	size_t total, sent, got;
	bool said_end, has_end, has_fin;
	int in[2], out[2]; /* pipes */
	size_t in_out;     /* bytes in the second */
};

static void open_flow(struct flow *f)
{
	assert_int_equal(pipe2(f->in, O_NONBLOCK | O_CLOEXEC), 0);
	assert_int_equal(pipe2(f->out, O_NONBLOCK | O_CLOEXEC), 0);
}

static void close_flow(struct flow *f)
{
	for (int i = 0; i < 2; i++) {
		(void)close(f->in[i]);
		(void)close(f->out[i]);
	}
}

static void fill_bytes(struct flow *f, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = byte_at(f->key, f->sent + i);
}

static void splice_out(struct tcp *t, struct flow *f)
{
	ssize_t n = (ssize_t)(f->total - f->sent - f->in_out);

	if (f->in_out == 0) {
		n = n < 40000 ? n : 40000;
		fill_bytes(f, (size_t)n);
		n = write(f->out[1], buf, (size_t)n);
		assert_true(n > 0);
		f->in_out = (size_t)n;
	}
	n = splice(f->out[0], NULL, t->fd[f->from], NULL, f->in_out, SPLICE_F_NONBLOCK);
	assert_true(n > 0 || errno == EAGAIN);
	f->in_out -= n > 0 ? (size_t)n : 0;
	f->sent += n > 0 ? (size_t)n : 0;
}

static void write_out(struct tcp *t, struct flow *f)
{
	size_t n = f->total - f->sent < 70000 ? f->total - f->sent : 70000;
	size_t took;
	int r;

	fill_bytes(f, n);
	r = sl_tls_stream_write(t->s[f->from], &scratch, 1, buf, n, &took);
	assert_true(r == SL_TLS_GO || r == SL_TLS_OUT);
	memset(buf, 0xee, n);
	f->sent += took;
}

static void send_some(struct tcp *t, struct flow *f)
{
	struct sl_tls_stream *s = t->s[f->from];
	int r;

	if (f->sent < f->total && sl_tls_stream_flush(s) == SL_TLS_GO) {
		if (f->splices_out)
			splice_out(t, f);
		else
			write_out(t, f);
		return;
	}
	if (f->sent < f->total || f->has_fin)
		return;
	r = f->said_end ? sl_tls_stream_flush(s) : sl_tls_stream_end(s, &scratch);
	assert_true(r == SL_TLS_GO || r == SL_TLS_OUT);
	assert_int_equal(r == SL_TLS_GO, sl_tls_stream_held(s) == 0);
	f->said_end = true;
	if (r == SL_TLS_OUT)
		return;
	assert_int_equal(shutdown(t->fd[f->from], SHUT_WR), 0);
	f->has_fin = true;
}

static void read_in(struct tcp *t, struct flow *f)
{
	size_t n;
	int r = sl_tls_stream_read(t->s[f->to], &scratch, buf, 50000, &n);

	if (r < 0)
		fail_msg("%d %s at %zu of %zu", r, sl_tls_stream_error(t->s[f->to]), f->got,
			 f->total);
	assert_true(r != SL_TLS_CUT);
	check_bytes(f->key, f->got, buf, n);
	f->got += n;
	f->has_end = r == SL_TLS_END;
}

static void splice_in(struct tcp *t, struct flow *f)
{
	ssize_t n = splice(t->fd[f->to], NULL, f->in[1], NULL, 65536, SPLICE_F_NONBLOCK);

	if (n > 0) {
		assert_int_equal(read(f->in[0], buf, (size_t)n), n);
		check_bytes(f->key, f->got, buf, (size_t)n);
		f->got += (size_t)n;
	} else if (n == 0) {
		read_in(t, f);
	} else if (errno != EAGAIN) {
		assert_int_equal(errno, EINVAL);
		sl_tls_stream_splice_said(t->s[f->to], -errno);
		read_in(t, f);
	}
}

static void run_flows(struct tcp *t, struct flow *f, size_t n)
{
	size_t n_open = n;

	for (size_t i = 0; i < n; i++)
		open_flow(&f[i]);
	while (n_open > 0) {
		short events[2] = { 0, 0 };

		n_open = 0;
		for (size_t i = 0; i < n; i++) {
			send_some(t, &f[i]);
			if (f[i].has_end)
				continue;
			if (f[i].splices_in)
				splice_in(t, &f[i]);
			else
				read_in(t, &f[i]);
			n_open++;
			events[f[i].to] |= POLLIN;
			events[f[i].from] |= f[i].has_fin ? 0 : POLLOUT;
		}
		if (n_open > 0)
			wait_for(t, events[CLIENT], events[SERVER]);
	}
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(f[i].got, f[i].total);
		close_flow(&f[i]);
	}
}

static void pass_some(struct tcp *t, size_t up, size_t down)
{
	struct flow f[2] = { { .from = CLIENT, .to = SERVER, .key = 1, .total = up },
			     { .from = SERVER, .to = CLIENT, .key = 2, .total = down } };

	run_flows(t, f, 2);
}

/* One message, whole. */
static void tell(struct tcp *t, int from, const char *text)
{
	int to = from == CLIENT ? SERVER : CLIENT;
	char got[64];
	size_t done = 0;
	size_t n;
	int r;

	assert_int_equal(sl_tls_stream_write(t->s[from], &scratch, 1, text, strlen(text), &n), 0);
	assert_int_equal(n, strlen(text));
	while (done < n) {
		size_t k;

		wait_for(t, to == CLIENT ? POLLIN : 0, to == SERVER ? POLLIN : 0);
		r = sl_tls_stream_read(t->s[to], &scratch, got + done, sizeof(got) - done, &k);
		if (r < 0)
			fail_msg("%s", sl_tls_stream_error(t->s[to]));
		assert_true(r == SL_TLS_IN || r == SL_TLS_GO);
		done += k;
	}
	assert_int_equal(done, n);
	assert_memory_equal(got, text, n);
}

/* What that end reads next that is not "nothing yet". */
static int read_next(struct tcp *t, int who, size_t *ret_n)
{
	int r = SL_TLS_IN;

	*ret_n = 0;
	for (int i = 0; i < 1000 && r == SL_TLS_IN && *ret_n == 0; i++) {
		wait_for(t, who == CLIENT ? POLLIN : 0, who == SERVER ? POLLIN : 0);
		r = sl_tls_stream_read(t->s[who], &scratch, buf, sizeof(buf), ret_n);
	}
	return r;
}

static void read_until(struct tcp *t, int who, int wanted)
{
	size_t n;
	int r = read_next(t, who, &n);

	if (r != wanted)
		print_message("%d: %s\n", r, sl_tls_stream_error(t->s[who]));
	assert_int_equal(r, wanted);
	assert_int_equal(n, 0);
}

/* ---- on any kernel ---- */

static void the_host_is_asked_once_and_for_sure(void **state)
{
	const char *missing = sl_tls_ktls_missing();
	struct wanted none = { 0 };
	int fd[2];
	int r;

	(void)state;
	connect_tcp(fd, &none);
	r = setsockopt(fd[0], IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls"));
	if (missing) {
		assert_string_equal(missing, "the kernel has no TLS");
		assert_int_equal(r, -1);
		assert_int_equal(errno, ENOENT);
	} else {
		assert_int_equal(r, 0);
	}
	(void)close(fd[0]);
	(void)close(fd[1]);
}

static void a_kernel_without_it_is_told_of_and_changes_nothing(void **state)
{
	struct wanted w = { .ktls = { true, true } };

	(void)state;
	for (int i = 0; i < N_CIPHERS; i++) {
		struct tcp t;

		w.cipher = ciphers[i];
		open_tcp(&t, &w);
		for (int k = 0; k < 2; k++) {
			assert_null(sl_tls_stream_ktls_why(t.s[k]));
			if (!sl_tls_ktls_missing()) {
				start(&t, k);
				continue;
			}
			assert_int_equal(sl_tls_stream_start_ktls(t.s[k]), -EOPNOTSUPP);
			assert_string_equal(sl_tls_stream_ktls_why(t.s[k]),
					    "the kernel has no TLS");
			assert_false(sl_tls_stream_has_ktls(t.s[k]));
			assert_int_equal(sl_tls_stream_start_ktls(t.s[k]), -EOPNOTSUPP);
		}
		pass_some(&t, 1000000, 300000);
		close_tcp(&t);
	}
}

static void expect_why(struct tcp *t, int who, const char *why)
{
	assert_int_equal(sl_tls_stream_start_ktls(t->s[who]), -EOPNOTSUPP);
	assert_false(sl_tls_stream_has_ktls(t->s[who]));
	assert_string_equal(sl_tls_stream_ktls_why(t->s[who]), why);
}

static void the_reasons_against_it_have_words(void **state)
{
	struct wanted w = { .cipher = ciphers[0], .ktls = { true, false } };
	struct pair p;
	struct tcp t;

	(void)state;
	open_tcp(&t, &w);
	expect_why(&t, SERVER, "not asked for");
	assert_int_equal(sl_tls_stream_end(t.s[CLIENT], &scratch), SL_TLS_GO);
	expect_why(&t, CLIENT, "the connection is ending");
	close_tcp(&t);

	w.cipher = "ECDHE-ECDSA-AES128-SHA256";
	open_tcp(&t, &w);
	expect_why(&t, CLIENT, "the kernel does not have the cipher");
	pass_some(&t, 5000, 5000);
	close_tcp(&t);

	w = (struct wanted){ .cipher = ciphers[0],
			     .ktls = { true, true },
			     .fragment = TLSEXT_max_fragment_length_1024 };
	open_tcp(&t, &w);
	expect_why(&t, SERVER, "the client wants short records");
	expect_why(&t, CLIENT, "the client wants short records");
	pass_some(&t, 5000, 5000);
	close_tcp(&t);

	w = (struct wanted){ .ktls = { true, true } };
	open_tcp(&t, &w);
	expect_why(&t, SERVER, "a key update would break it");
	close_tcp(&t);

	w = (struct wanted){ .cipher = ciphers[0] };
	open_tcp(&t, &w);
	open_pair(&p, t.server, certs, NULL, t.target, 0);
	assert_int_equal(sl_tls_stream_want_ktls(p.server.s), 0);
	assert_true(SSL_set_max_proto_version(p.client.s->ssl, TLS1_2_VERSION));
	shake_well(&p);
	assert_string_equal(sl_tls_stream_ktls_why(p.server.s), "no socket");
	assert_int_equal(sl_tls_stream_start_ktls(p.server.s), -EOPNOTSUPP);
	close_pair(&p);
	close_tcp(&t);
}

/* Peers of TLS 1.3 change keys as they like, whatever was wanted. */
static void key_updates_of_1_3_meet_no_kernel(void **state)
{
	struct wanted w = { .ktls = { true, true } };
	struct tcp t;

	(void)state;
	open_tcp(&t, &w);
	for (int i = 0; i < 2; i++)
		expect_why(&t, i, "a key update would break it");
	for (int i = 0; i < 10; i++) {
		assert_int_equal(sl_tls_stream_rekey(t.s[CLIENT], &scratch, i % 2), SL_TLS_GO);
		tell(&t, CLIENT, "up");
		tell(&t, SERVER, "down");
		assert_int_equal(sl_tls_stream_rekey(t.s[SERVER], &scratch, i % 3 == 0), SL_TLS_GO);
		tell(&t, SERVER, "down");
		tell(&t, CLIENT, "up");
	}
	pass_some(&t, 300000, 300000);
	close_tcp(&t);
}

/* A record's beginning is the same wherever the wire cuts it. */
static void records_are_counted_however_they_are_cut(void **state)
{
	struct sl_rand rand;
	unsigned char wire[4000];
	size_t len = 0;

	(void)state;
	sl_rand_seed(&rand, 7);
	for (int i = 0; i < 20; i++) {
		size_t n = i == 3 ? 1 : sl_rand_below(&rand, 180);

		wire[len] = i == 3 ? 20 : 23;
		wire[len + 1] = wire[len + 2] = 3;
		wire[len + 3] = 0;
		wire[len + 4] = (unsigned char)n;
		memset(wire + len + 5, i, n);
		len += 5 + n;
	}
	for (int round = 0; round < 200; round++) {
		struct sl_ktls_count c = { 0 };

		for (size_t at = 0; at < len;) {
			size_t n = 1 + sl_rand_below(&rand, round < 100 ? 7 : 900);

			n = n < len - at ? n : len - at;
			sl_ktls_count(&c, wire + at, n);
			at += n;
		}
		assert_int_equal(c.at, 0);
		assert_true(c.is_secret);
		assert_int_equal(c.n, 16);
	}
}

/* What the kernel does with a key: one record, sealed or opened. */
static size_t use_key(const union sl_ktls_key *key, bool seals, const unsigned char *in, size_t n,
		      unsigned char *out)
{
	bool is_chacha = key->info.cipher_type == TLS_CIPHER_CHACHA20_POLY1305;
	bool is_128 = key->info.cipher_type == TLS_CIPHER_AES_GCM_128;
	const EVP_CIPHER *cipher = is_chacha ? EVP_chacha20_poly1305()
				   : is_128  ? EVP_aes_128_gcm()
					     : EVP_aes_256_gcm();
	const unsigned char *secret = is_chacha ? key->chacha20.key
				      : is_128  ? key->gcm_128.key
						: key->gcm_256.key;
	const unsigned char *seq = is_chacha ? key->chacha20.rec_seq
				   : is_128  ? key->gcm_128.rec_seq
					     : key->gcm_256.rec_seq;
	size_t shown = is_chacha ? 0 : 8;
	const unsigned char *body = in + (seals ? 0 : 5 + shown);
	size_t body_len = seals ? n : n - 5 - shown - 16;
	unsigned char aad[13], nonce[12];
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int k = 0;

	if (is_chacha) {
		memcpy(nonce, key->chacha20.iv, 12);
		for (int i = 0; i < 8; i++)
			nonce[4 + i] ^= seq[i];
	} else {
		memcpy(nonce, is_128 ? key->gcm_128.salt : key->gcm_256.salt, 4);
		memcpy(nonce + 4, is_128 ? key->gcm_128.iv : key->gcm_256.iv, 8);
		if (!seals)
			memcpy(nonce + 4, in + 5, 8);
	}
	memcpy(aad, seq, 8);
	memcpy(aad + 8, "\x17\x03\x03", 3);
	aad[11] = (unsigned char)(body_len >> 8);
	aad[12] = (unsigned char)body_len;
	assert_true(EVP_CipherInit_ex(ctx, cipher, NULL, secret, nonce, seals));
	if (!seals)
		assert_true(
			EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, 16, (void *)(in + n - 16)));
	assert_true(EVP_CipherUpdate(ctx, NULL, &k, aad, sizeof(aad)));
	assert_true(EVP_CipherUpdate(ctx, out + (seals ? 5 + shown : 0), &k, body, (int)body_len));
	assert_int_equal(k, body_len);
	assert_true(EVP_CipherFinal_ex(ctx, out + (seals ? 5 + shown : 0) + k, &k));
	if (seals) {
		memcpy(out, "\x17\x03\x03", 3);
		out[3] = (unsigned char)((shown + n + 16) >> 8);
		out[4] = (unsigned char)(shown + n + 16);
		memcpy(out + 5, nonce + 4, shown);
		assert_true(
			EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, out + 5 + shown + n));
		body_len = 5 + shown + n + 16;
	}
	EVP_CIPHER_CTX_free(ctx);
	return body_len;
}

/* The library's own peer takes what is sealed with the keys we derive, and is read by them. */
static void try_keys(struct pair *p, struct end *ours, struct end *peer, int n_before)
{
	struct line *out = ours->out;
	struct sl_ktls_keys keys;
	unsigned char text[64];
	unsigned char last[8];
	size_t n;

	for (int i = 0; i < n_before; i++) {
		say(p, ours, peer, "some of ours");
		if (i % 2)
			say(p, peer, ours, "some of theirs");
	}
	assert_int_equal(
		sl_ktls_derive(ours->s->ssl, &ours->s->ktls->in, &ours->s->ktls->out, &keys), 0);
	memcpy(last, ours->s->ktls->out.head + 5, 8);
	assert_int_equal(out->len, 0);
	n = use_key(&keys.tx, true, (const unsigned char *)"by the kernel", 13, text);
	if (keys.tx.info.cipher_type != TLS_CIPHER_CHACHA20_POLY1305)
		assert_memory_not_equal(text + 5, last, 8);
	memcpy(out->b, text, n);
	out->at = 0;
	out->len = n;
	assert_true(sl_tls_stream_read(peer->s, &p->scratch, text, sizeof(text), &n) >= 0);
	assert_int_equal(n, 13);
	assert_memory_equal(text, "by the kernel", 13);

	assert_int_equal(sl_tls_stream_write(peer->s, &p->scratch, 1, "to the kernel", 13, &n), 0);
	n = use_key(&keys.rx, false, ours->in->b + ours->in->at, ours->in->len, text);
	assert_int_equal(n, 13);
	assert_memory_equal(text, "to the kernel", 13);
}

static void derived_keys_are_those_of_the_library(void **state)
{
	(void)state;
	for (int i = 0; i < N_CIPHERS * 2 * 2; i++) {
		struct wanted w = { .cipher = ciphers[i % N_CIPHERS] };
		bool is_server = i / N_CIPHERS % 2;
		struct sl_tls_server *server = server_of(
			&(struct sl_tls_server_conf){ .scope = "r", .ciphers = w.cipher });
		struct sl_tls_backend *backend =
			backend_of(&(struct sl_tls_backend_conf){ .trust = trust });
		struct sl_tls_target *target = target_of(backend, "x.example");

		for (int resumed = 0; resumed < 2; resumed++) {
			struct sl_tls_facts facts;
			struct pair p;
			struct end *ours = is_server ? &p.server : &p.client;

			open_pair(&p, server, certs, tickets, target, 0);
			assert_true(SSL_set_max_proto_version(p.client.s->ssl, TLS1_2_VERSION));
			assert_int_equal(sl_tls_stream_want_ktls(ours->s), 0);
			shake_well(&p);
			sl_tls_stream_facts(ours->s, &facts);
			assert_int_equal(facts.is_resumed, resumed);
			assert_string_equal(facts.cipher, w.cipher);
			try_keys(&p, ours, is_server ? &p.client : &p.server,
				 i < N_CIPHERS * 2 ? 0 : 21);
			close_pair(&p);
		}
		sl_tls_target_unref(target);
		sl_tls_backend_unref(backend);
		sl_tls_server_unref(server);
	}
}

/* ---- where the kernel has it ---- */

static void kernel_carries_bytes_both_ways(void **state)
{
	(void)state;
	if (!has_kernel())
		skip();
	for (int i = 0; i < N_CIPHERS * 4; i++) {
		bool splices = i / N_CIPHERS % 2;
		int ours = i / N_CIPHERS / 2 ? CLIENT : SERVER;
		struct wanted w = { .cipher = ciphers[i % N_CIPHERS] };
		struct flow f[2] = { { .from = CLIENT, .to = SERVER, .key = 5, .total = 3000000 },
				     { .from = SERVER, .to = CLIENT, .key = 6, .total = 2000001 } };
		struct tcp t;

		w.ktls[ours] = true; /* the peer is the library */
		open_ktls(&t, &w);
		f[ours == CLIENT ? 0 : 1].splices_out = splices;
		f[ours == CLIENT ? 1 : 0].splices_in = splices;
		run_flows(&t, f, 2);
		close_tcp(&t);
	}
}

static void kernel_speaks_to_kernel(void **state)
{
	(void)state;
	if (!has_kernel())
		skip();
	for (int i = 0; i < N_CIPHERS; i++) {
		struct wanted w = { .cipher = ciphers[i], .ktls = { true, true } };
		struct flow f[2] = { { .from = CLIENT,
				       .to = SERVER,
				       .key = 5,
				       .total = 1500000,
				       .splices_out = true,
				       .splices_in = true },
				     { .from = SERVER,
				       .to = CLIENT,
				       .key = 6,
				       .total = 1500000,
				       .splices_out = i % 2,
				       .splices_in = i % 2 } };
		struct tcp t;

		open_ktls(&t, &w);
		run_flows(&t, f, 2);
		close_tcp(&t);
	}
}

/* At any moment between two records, after any number of them. */
static void kernel_takes_over_at_any_time(void **state)
{
	(void)state;
	if (!has_kernel())
		skip();
	for (int i = 0; i < N_CIPHERS * 2; i++) {
		struct wanted w = { .cipher = ciphers[i % N_CIPHERS] };
		int ours = i / N_CIPHERS;
		struct tcp t;
		size_t n;

		w.ktls[ours] = true;
		open_tcp(&t, &w);
		for (int k = 0; k < 30; k++) {
			tell(&t, k % 3 ? SERVER : CLIENT, "before");
		}
		/* the peer's next record is there already, and not read */
		assert_int_equal(sl_tls_stream_write(t.s[!ours], &scratch, 1, "early", 5, &n), 0);
		wait_for(&t, ours == CLIENT ? POLLIN : 0, ours == SERVER ? POLLIN : 0);
		start(&t, ours);
		assert_int_equal(read_next(&t, ours, &n), SL_TLS_IN);
		assert_int_equal(n, 5);
		assert_memory_equal(buf, "early", 5);
		tell(&t, CLIENT, "after");
		tell(&t, SERVER, "after");
		pass_some(&t, 100000, 100000);
		close_tcp(&t);
	}
}

/* The socket is never empty, and records do not end where reads do. */
static void kernel_takes_over_while_bytes_keep_coming(void **state)
{
	(void)state;
	if (!has_kernel())
		skip();
	for (int i = 0; i < N_CIPHERS; i++) {
		struct wanted w = { .cipher = ciphers[i], .ktls = { false, true } };
		const size_t n = 200000;
		size_t done = 0, at_first = 0, k;
		struct tcp t;

		open_tcp(&t, &w);
		for (size_t j = 0; j < n; j++)
			buf[j] = byte_at(9, j);
		assert_int_equal(sl_tls_stream_write(t.s[CLIENT], &scratch, 1, buf, 100, &k), 0);
		assert_int_equal(
			sl_tls_stream_write(t.s[CLIENT], &scratch, 1, buf + 100, n - 100, &k), 0);
		wait_for(&t, 0, POLLIN);
		while (done < n) {
			int r = sl_tls_stream_read(t.s[SERVER], &scratch, buf, 3000, &k);

			assert_true(r == SL_TLS_GO || r == SL_TLS_IN);
			check_bytes(9, done, buf, k);
			done += k;
			if (done == 3000)
				assert_int_equal(sl_tls_stream_start_ktls(t.s[SERVER]), -EAGAIN);
			if (!at_first && sl_tls_stream_has_ktls(t.s[SERVER]))
				at_first = done;
			if (r == SL_TLS_IN && done < n)
				wait_for(&t, 0, POLLIN);
		}
		assert_in_range(at_first, 3001, 100000);
		tell(&t, SERVER, "answer");
		tell(&t, CLIENT, "request");
		close_tcp(&t);
	}
}

/* A resumed session: the first request comes in the flight that ends the handshake, cut anywhere.
 */
static void bytes_read_with_the_handshake_are_kept(void **state)
{
	struct wanted w = { .cipher = ciphers[0], .ktls = { false, true } };
	struct tcp t;
	size_t n, done;

	(void)state;
	if (!has_kernel())
		skip();
	open_tcp(&t, &w);
	for (int round = 0; round < 3; round++) {
		int r;

		tell(&t, CLIENT, "for the session");
		close_streams(&t);
		open_streams(&t, &w);
		assert_int_equal(sl_tls_stream_handshake(t.s[CLIENT], &scratch), SL_TLS_IN);
		wait_for(&t, 0, POLLIN);
		assert_int_equal(sl_tls_stream_handshake(t.s[SERVER], &scratch), SL_TLS_IN);
		wait_for(&t, POLLIN, 0);
		assert_int_equal(sl_tls_stream_handshake(t.s[CLIENT], &scratch), SL_TLS_GO);
		assert_true(SSL_session_reused(t.s[CLIENT]->ssl));
		for (size_t i = 0; i < 60000; i++)
			buf[i] = byte_at(9, i);
		n = round == 0 ? 5 : round == 1 ? 1200 : 60000;
		assert_int_equal(sl_tls_stream_write(t.s[CLIENT], &scratch, 1, buf, n, &done), 0);
		wait_for(&t, 0, POLLIN);
		assert_int_equal(sl_tls_stream_handshake(t.s[SERVER], &scratch), SL_TLS_GO);
		assert_int_equal(sl_tls_stream_start_ktls(t.s[SERVER]), -EAGAIN);
		assert_null(sl_tls_stream_ktls_why(t.s[SERVER]));
		for (done = 0; done < n;) {
			size_t k;

			wait_for(&t, 0, sl_tls_stream_has_pending(t.s[SERVER]) ? POLLOUT : POLLIN);
			r = sl_tls_stream_read(t.s[SERVER], &scratch, buf, 3000, &k);
			assert_true(r == SL_TLS_GO || r == SL_TLS_IN);
			check_bytes(9, done, buf, k);
			done += k;
			r = sl_tls_stream_start_ktls(t.s[SERVER]);
			assert_true(r == 0 || (r == -EAGAIN && done < n));
		}
		assert_true(sl_tls_stream_has_ktls(t.s[SERVER]));
		tell(&t, SERVER, "answer");
		tell(&t, CLIENT, "request");
	}
	close_tcp(&t);
}

static void directions_end_by_themselves(void **state)
{
	(void)state;
	if (!has_kernel())
		skip();
	for (int first = 0; first < 2; first++) {
		struct wanted w = { .cipher = ciphers[1], .ktls = { true, true } };
		struct tcp t;
		size_t n;

		open_ktls(&t, &w);
		tell(&t, first, "request");
		assert_int_equal(sl_tls_stream_end(t.s[first], &scratch), SL_TLS_GO);
		assert_int_equal(sl_tls_stream_end(t.s[first], &scratch), SL_TLS_GO);
		assert_int_equal(sl_tls_stream_write(t.s[first], &scratch, 1, "x", 1, &n), -EINVAL);
		assert_int_equal(shutdown(t.fd[first], SHUT_WR), 0);
		read_until(&t, !first, SL_TLS_END);
		assert_int_equal(sl_tls_stream_read(t.s[!first], &scratch, buf, 9, &n), SL_TLS_END);
		for (int i = 0; i < 5; i++)
			tell(&t, !first, "answer");
		assert_int_equal(sl_tls_stream_end(t.s[!first], &scratch), SL_TLS_GO);
		read_until(&t, first, SL_TLS_END);
		close_tcp(&t);
	}
}

static void cuts_are_told_from_ends(void **state)
{
	struct wanted w = { .cipher = ciphers[0], .ktls = { false, true } };
	unsigned char record[200];
	struct flow f = { 0 };
	struct tcp t;
	size_t n;

	(void)state;
	if (!has_kernel())
		skip();
	for (int how = 0; how < 4; how++) {
		open_ktls(&t, &w);
		tell(&t, CLIENT, "before");
		/* FIN alone; behind some bytes; within a record; RST */
		if (how == 1)
			assert_int_equal(
				sl_tls_stream_write(t.s[CLIENT], &scratch, 1, "last", 4, &n), 0);
		memcpy(record, "\x17\x03\x03\x00\x64", 5);
		if (how == 2)
			assert_int_equal(send(t.fd[CLIENT], record, 50, 0), 50);
		if (how == 3)
			assert_int_equal(setsockopt(t.fd[CLIENT], SOL_SOCKET, SO_LINGER,
						    &(struct linger){ .l_onoff = 1 },
						    sizeof(struct linger)),
					 0);
		if (how < 3) {
			assert_int_equal(shutdown(t.fd[CLIENT], SHUT_WR), 0);
		} else {
			assert_int_equal(close(t.fd[CLIENT]), 0);
			t.fd[CLIENT] = -1;
		}
		if (how == 1) {
			(void)read_next(&t, SERVER, &n);
			assert_int_equal(n, 4);
		}
		read_until(&t, SERVER, how < 3 ? SL_TLS_CUT : -ECONNRESET);
		if (how < 3)
			tell(&t, SERVER, "still possible");
		close_tcp(&t);
	}
	open_flow(&f); /* splice() gives 0 at a cut as at an end: reading tells */
	open_ktls(&t, &w);
	assert_int_equal(shutdown(t.fd[CLIENT], SHUT_WR), 0);
	wait_for(&t, 0, POLLIN);
	assert_int_equal(splice(t.fd[SERVER], NULL, f.in[1], NULL, 65536, SPLICE_F_NONBLOCK), 0);
	read_until(&t, SERVER, SL_TLS_CUT);
	close_tcp(&t);
	close_flow(&f);
}

/* By the kernel, that takes any type. */
static void send_record(int fd, int type, const void *bytes, size_t n)
{
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = n };
	union {
		struct cmsghdr align;
		char b[CMSG_SPACE(1)];
	} control = { 0 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.b,
			    .msg_controllen = CMSG_LEN(1) };

	CMSG_FIRSTHDR(&m)->cmsg_level = 282;
	CMSG_FIRSTHDR(&m)->cmsg_type = TLS_SET_RECORD_TYPE;
	CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN(1);
	*CMSG_DATA(CMSG_FIRSTHDR(&m)) = (unsigned char)type;
	assert_int_equal(sendmsg(fd, &m, 0), n);
}

static void alerts_and_strange_records_are_met(void **state)
{
	static const struct {
		int type;
		const char *bytes;
		size_t n;
		int repeat;
		int result;
		const char *words;
		int alert; /* what the peer is told; 0: nothing */
	} cases[] = {
		{ 21, "\x02\x28", 2, 1, -EPROTO, "alert received: handshake failure", 0 },
		{ 21, "\x02\x14", 2, 1, -EPROTO, "alert received: bad record mac", 0 },
		{ 21, "\x01\x64", 2, 1, -EPROTO, "alert received: no renegotiation", 0 },
		{ 21, "\x01\x5a", 2, 5, SL_TLS_IN, "", 0 },
		{ 21, "\x01\x5a", 2, 6, -EPROTO, "too many warn alerts", 10 },
		{ 21, "\x01\x5a\x01\x00", 4, 1, SL_TLS_END, "", 0 },
		{ 21, "\x01", 1, 1, SL_TLS_IN, "", 0 },
		{ 20, "\x01", 1, 1, -EPROTO, "unexpected record", 10 },
		{ 99, "\x01", 1, 1, -EPROTO, "unexpected record", 10 },
		{ 22, "\x14\x00\x00\x0c", 4, 1, -EPROTO, "unexpected message", 10 },
		{ 22, "\x01\x7f\xff\xff", 4, 1, -EPROTO, "the handshake is too long", 50 },
		{ 22, "\x01\x00\x00", 3, 1, SL_TLS_IN, "", 0 },
		{ 22, "\x01\x00\x00\x00", 4, 200, -EPROTO, "too many handshake messages", 10 },
	};

	(void)state;
	if (!has_kernel())
		skip();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]) * 2; i++) {
		struct wanted w = { .cipher = ciphers[i % N_CIPHERS], .ktls = { true, true } };
		size_t k = i / 2;
		struct flow f = { 0 };
		struct tcp t;
		size_t n;
		int r = SL_TLS_IN;

		open_flow(&f);
		open_ktls(&t, &w);
		tell(&t, CLIENT, "before");
		for (int j = 0; j < cases[k].repeat && r == SL_TLS_IN; j++) {
			send_record(t.fd[CLIENT], cases[k].type, cases[k].bytes, cases[k].n);
			wait_for(&t, 0, POLLIN);
			if (i % 2) { /* met by splice() first */
				assert_int_equal(splice(t.fd[SERVER], NULL, f.in[1], NULL, 65536,
							SPLICE_F_NONBLOCK),
						 -1);
				assert_int_equal(errno, EINVAL);
				sl_tls_stream_splice_said(t.s[SERVER], -errno);
			}
			r = sl_tls_stream_read(t.s[SERVER], &scratch, buf, sizeof(buf), &n);
			assert_int_equal(n, 0);
		}
		if (r != cases[k].result)
			print_message("case %zu: %d %s\n", k, r, sl_tls_stream_error(t.s[SERVER]));
		assert_int_equal(r, cases[k].result);
		assert_string_equal(sl_tls_stream_error(t.s[SERVER]), cases[k].words);
		if (r == -EPROTO) {
			assert_int_equal(sl_tls_stream_read(t.s[SERVER], &scratch, buf, 9, &n), r);
			assert_int_equal(sl_tls_stream_write(t.s[SERVER], &scratch, 1, "x", 1, &n),
					 r);
			assert_int_equal(sl_tls_stream_end(t.s[SERVER], &scratch), r);
		} else if (r == SL_TLS_IN && cases[k].n > 1 && cases[k].type == 21) {
			tell(&t, CLIENT, "after");
		}
		if (cases[k].alert) {
			char words[64];

			(void)snprintf(words, sizeof(words), "alert received: %s",
				       SSL_alert_desc_string_long(cases[k].alert));
			do {
				r = read_next(&t, CLIENT, &n);
			} while (r >= 0);
			/* answers to renegotiations come first */
			if (cases[k].repeat < 10)
				assert_string_equal(sl_tls_stream_error(t.s[CLIENT]), words);
		}
		close_tcp(&t);
		close_flow(&f);
	}
}

static void changed_records_are_noticed(void **state)
{
	static const struct {
		const char *head;
		const char *words;
		int error; /* splice()'s */
		const char *alert;
	} cases[] = {
		{ "\x17\x03\x03\x00\x40", "a record was changed on its way", EBADMSG,
		  "alert received: bad record mac" },
		{ "\x17\x03\x03\x7f\xff", "a record is too long", EMSGSIZE,
		  "alert received: record overflow" },
		{ "\x17\x02\x03\x00\x40", "not TLS", EINVAL, "alert received: protocol version" },
		{ "GET /", "not TLS", EINVAL, "alert received: protocol version" },
	};
	unsigned char record[69] = { 0 };

	(void)state;
	if (!has_kernel())
		skip();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]) * 2; i++) {
		struct wanted w = { .cipher = ciphers[i % N_CIPHERS], .ktls = { false, true } };
		size_t k = i / 2;
		struct flow f = { 0 };
		struct tcp t;
		size_t n;

		open_flow(&f);
		open_ktls(&t, &w);
		tell(&t, CLIENT, "good");
		memcpy(record, cases[k].head, 5);
		assert_int_equal(send(t.fd[CLIENT], record, sizeof(record), 0), sizeof(record));
		wait_for(&t, 0, POLLIN);
		if (i % 2) {
			assert_int_equal(
				splice(t.fd[SERVER], NULL, f.in[1], NULL, 65536, SPLICE_F_NONBLOCK),
				-1);
			assert_int_equal(errno, cases[k].error);
			sl_tls_stream_splice_said(t.s[SERVER], -errno);
		}
		assert_int_equal(sl_tls_stream_read(t.s[SERVER], &scratch, buf, 9, &n), -EPROTO);
		assert_string_equal(sl_tls_stream_error(t.s[SERVER]), cases[k].words);
		assert_int_equal(read_next(&t, CLIENT, &n), -EPROTO);
		assert_string_equal(sl_tls_stream_error(t.s[CLIENT]), cases[k].alert);
		close_tcp(&t);
		close_flow(&f);
	}
}

/* A peer that asks for it with all a library sends, from either side. */
static void renegotiation_is_refused(void **state)
{
	(void)state;
	if (!has_kernel())
		skip();
	for (int i = 0; i < N_CIPHERS * 2; i++) {
		struct wanted w = { .cipher = ciphers[i % N_CIPHERS] };
		int ours = i / N_CIPHERS;
		struct sl_tls_stream *peer;
		struct tcp t;
		size_t n;
		int r;

		w.ktls[ours] = true;
		open_ktls(&t, &w);
		peer = t.s[!ours];
		tell(&t, CLIENT, "before");
		(void)SSL_clear_options(peer->ssl, SSL_OP_NO_RENEGOTIATION);
		peer->scratch = &scratch;
		assert_int_equal(SSL_renegotiate(peer->ssl), 1);
		r = SSL_do_handshake(peer->ssl);
		assert_true(r <= 0 || ours == CLIENT);
		ERR_clear_error();
		peer->scratch = NULL;
		assert_true(scratch.len > 0);
		assert_int_equal(send(t.fd[!ours], scratch.p, scratch.len, 0), scratch.len);
		scratch.len = 0;
		wait_for(&t, ours == CLIENT ? POLLIN : 0, ours == SERVER ? POLLIN : 0);
		assert_int_equal(sl_tls_stream_read(t.s[ours], &scratch, buf, 99, &n), SL_TLS_IN);
		assert_int_equal(n, 0);
		assert_int_equal(sl_tls_stream_held(t.s[ours]), 0);
		/* ours goes on; the library takes the answer for a failure of the handshake */
		assert_int_equal(sl_tls_stream_write(t.s[ours], &scratch, 1, "x", 1, &n), 0);
		assert_int_equal(read_next(&t, !ours, &n), -EPROTO);
		assert_string_equal(sl_tls_stream_error(peer), "no renegotiation");
		close_tcp(&t);
	}
}

/* Answers that the peer does not take wait, few; then nothing is read, and all goes on later. */
static void unread_answers_wait(void **state)
{
	struct wanted w = {
		.cipher = ciphers[0], .ktls = { true, true }, .sndbuf = 4096, .rcvbuf = 4096
	};
	struct pollfd full = { .events = POLLOUT };
	struct tcp t;
	size_t n;
	size_t sent = 0;
	int r;

	(void)state;
	if (!has_kernel())
		skip();
	open_ktls(&t, &w);
	full.fd = t.fd[SERVER];
	do { /* until nothing is taken, now and later */
		r = sl_tls_stream_write(t.s[SERVER], &scratch, 1, buf, 8192, &n);
		sent += n;
	} while (r == SL_TLS_GO || poll(&full, 1, (int)(200 * slow())) > 0);
	for (int i = 0; i < 10; i++)
		send_record(t.fd[CLIENT], 22, "\x01\x00\x00\x00", 4);
	for (int i = 0; i < 10; i++) {
		wait_for(&t, 0, POLLIN);
		r = sl_tls_stream_read(t.s[SERVER], &scratch, buf, 99, &n);
		if (r == SL_TLS_OUT)
			break;
	}
	assert_int_equal(r, SL_TLS_OUT);
	assert_int_equal(n, 0);
	assert_int_equal(sl_tls_stream_held(t.s[SERVER]), 2 * 3);
	assert_int_equal(sl_tls_stream_end(t.s[SERVER], &scratch), SL_TLS_OUT);
	assert_int_equal(sl_tls_stream_read(t.s[SERVER], &scratch, buf, 99, &n), SL_TLS_OUT);
	for (r = SL_TLS_GO; sent > 0; sent -= n) {
		wait_for(&t, POLLIN, 0);
		r = sl_tls_stream_read(t.s[CLIENT], &scratch, buf, sizeof(buf), &n);
		assert_true(r >= 0 && n <= sent);
		(void)sl_tls_stream_flush(t.s[SERVER]);
	}
	while (sl_tls_stream_flush(t.s[SERVER]) == SL_TLS_OUT)
		wait_for(&t, 0, POLLOUT);
	/* no library's peer asks so often; ours takes the first answer as refused */
	r = read_next(&t, CLIENT, &n);
	assert_int_equal(r, -EPROTO);
	assert_string_equal(sl_tls_stream_error(t.s[CLIENT]), "alert received: no renegotiation");
	close_tcp(&t);
}

/* The kernel takes more than TCP has room for: the end must not be what is lost. */
static void slow_readers_get_everything(void **state)
{
	static const int sizes[] = { 4096, 20000, 60000, 0 };

	(void)state;
	if (!has_kernel())
		skip();
	for (int i = 0; i < 4 * 6; i++) {
		struct wanted w = { .cipher = ciphers[i % N_CIPHERS],
				    .ktls = { false, true },
				    .sndbuf = sizes[i % 4],
				    .rcvbuf = 4096 };
		struct flow f = { .from = SERVER,
				  .to = CLIENT,
				  .key = (uint64_t)i,
				  .total = 150000 + 977 * (size_t)i,
				  .splices_out = i / 4 % 2 };
		struct tcp t;

		open_ktls(&t, &w);
		open_flow(&f);
		/* all that is taken, then the end, while nothing is read */
		for (int idle = 0; idle < 50 && !f.has_fin; idle++) {
			size_t before = f.sent;

			send_some(&t, &f);
			idle = f.sent > before ? 0 : idle;
		}
		while (!f.has_end) {
			wait_for(&t, POLLIN, f.has_fin ? 0 : POLLOUT);
			send_some(&t, &f);
			read_in(&t, &f);
		}
		assert_int_equal(f.got, f.total);
		close_flow(&f);
		close_tcp(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_host_is_asked_once_and_for_sure),
		cmocka_unit_test(a_kernel_without_it_is_told_of_and_changes_nothing),
		cmocka_unit_test(the_reasons_against_it_have_words),
		cmocka_unit_test(key_updates_of_1_3_meet_no_kernel),
		cmocka_unit_test(records_are_counted_however_they_are_cut),
		cmocka_unit_test(derived_keys_are_those_of_the_library),
		cmocka_unit_test(kernel_carries_bytes_both_ways),
		cmocka_unit_test(kernel_speaks_to_kernel),
		cmocka_unit_test(kernel_takes_over_at_any_time),
		cmocka_unit_test(kernel_takes_over_while_bytes_keep_coming),
		cmocka_unit_test(bytes_read_with_the_handshake_are_kept),
		cmocka_unit_test(directions_end_by_themselves),
		cmocka_unit_test(cuts_are_told_from_ends),
		cmocka_unit_test(alerts_and_strange_records_are_met),
		cmocka_unit_test(changed_records_are_noticed),
		cmocka_unit_test(renegotiation_is_refused),
		cmocka_unit_test(unread_answers_wait),
		cmocka_unit_test(slow_readers_get_everything),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
