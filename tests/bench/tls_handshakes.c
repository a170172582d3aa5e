/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the library allows: handshakes per second of one core, both ends in memory and no socket in
 * between, and bytes per second. CPU time of the side named, read around each of its calls.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tls/backend.h"
#include "tls/library.h"
#include "tls/server.h"
#include "tls/stream_ssl.h"

#define RUN_S 0.7
#define BULK_BYTES (UINT64_C(400) << 20)

struct line {
	char b[256 << 10];
	size_t at, len;
};

struct end {
	struct line *in, *out;
	struct sl_tls_stream *s;
	double spent_s;
	double longest_s; /* of one call */
};

static struct line up, down;
static struct sl_tls_scratch scratch;

static double now_s(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static ssize_t line_recv(void *owner, void *buf, size_t n)
{
	struct line *l = ((struct end *)owner)->in;

	n = n < l->len ? n : l->len;
	if (n == 0)
		return -EAGAIN;
	memcpy(buf, l->b + l->at, n);
	l->at += n;
	l->len -= n;
	return (ssize_t)n;
}

static ssize_t line_send(void *owner, const void *bytes, size_t n)
{
	struct line *l = ((struct end *)owner)->out;

	if (l->len == 0)
		l->at = 0;
	n = n < sizeof(l->b) - l->at - l->len ? n : sizeof(l->b) - l->at - l->len;
	if (n == 0)
		return -EAGAIN;
	memcpy(l->b + l->at + l->len, bytes, n);
	l->len += n;
	return (ssize_t)n;
}

static const struct sl_tls_wire wire = { .recv = line_recv, .send = line_send };

static char *text_of(BIO *b, size_t *ret_n)
{
	char *p;
	long n = BIO_get_mem_data(b, &p);

	assert(n > 0);
	*ret_n = (size_t)n;
	return p;
}

static struct sl_cert_set *make_certs(EVP_PKEY *key)
{
	struct sl_cert_source s = { .label = "x" };
	struct sl_cert_set *set = NULL;
	X509 *x = X509_new();
	BIO *chain = BIO_new(BIO_s_mem());
	BIO *secret = BIO_new(BIO_s_mem());

	assert(key && x && chain && secret);
	assert(X509_gmtime_adj(X509_getm_notBefore(x), -3600));
	assert(X509_gmtime_adj(X509_getm_notAfter(x), 36000));
	assert(X509_set_pubkey(x, key) && X509_sign(x, key, EVP_sha256()) > 0);
	assert(PEM_write_bio_X509(chain, x));
	assert(PEM_write_bio_PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL));
	s.chain = text_of(chain, &s.chain_len);
	s.key = text_of(secret, &s.key_len);
	assert(sl_cert_set_new(&s, 1, time(NULL), NULL, NULL, &set) == 0);
	BIO_free(chain);
	BIO_free(secret);
	X509_free(x);
	EVP_PKEY_free(key);
	return set;
}

static int step(struct end *e)
{
	double begin = now_s();
	int r = sl_tls_stream_handshake(e->s, &scratch);
	double took = now_s() - begin;

	e->spent_s += took;
	e->longest_s = took > e->longest_s ? took : e->longest_s;
	assert(r >= 0);
	return r;
}

/* The record of tickets, too, which a client reads with its first data. */
static void shake(struct end *server, struct end *client)
{
	char buf[64];
	size_t n;
	int c = SL_TLS_IN;
	int s = SL_TLS_IN;

	while (c != SL_TLS_GO || s != SL_TLS_GO) {
		c = c ? step(client) : c;
		s = s ? step(server) : s;
	}
	(void)sl_tls_stream_read(client->s, &scratch, buf, sizeof(buf), &n);
}

struct setup {
	struct sl_tls_server *server;
	struct sl_tls_backend *backend;
	struct sl_cert_set *certs;
	struct sl_tls_tickets *tickets;
	int version;
};

static void open_ends(struct setup *u, struct sl_tls_target *target, struct end *server,
		      struct end *client)
{
	double begin = now_s();

	up.len = down.len = 0;
	server->in = client->out = &up;
	server->out = client->in = &down;
	assert(sl_tls_accept(u->server, u->certs, u->tickets, &wire, server, &server->s) == 0);
	server->spent_s += now_s() - begin;
	assert(sl_tls_target_connect(target, &wire, client, &client->s) == 0);
	assert(SSL_set_max_proto_version(client->s->ssl, u->version)); /* as a peer would */
}

static void close_ends(struct end *server, struct end *client)
{
	double begin = now_s();

	sl_tls_stream_free(server->s);
	server->spent_s += now_s() - begin;
	sl_tls_stream_free(client->s);
}

static void handshakes(struct setup *u, const char *what, int is_resumed)
{
	struct end server = { 0 };
	struct end client = { 0 };
	struct sl_tls_target *target = NULL;
	double begin = now_s();
	unsigned n = 0;
	unsigned resumed = 0;

	while (now_s() < begin + RUN_S) {
		struct sl_tls_facts f;

		if (!target)
			assert(sl_tls_target_new(u->backend, "x.example", &target) == 0);
		open_ends(u, target, &server, &client);
		shake(&server, &client);
		sl_tls_stream_facts(server.s, &f);
		resumed += f.is_resumed;
		close_ends(&server, &client);
		if (!is_resumed)
			sl_tls_target_unref(SL_TAKE_PTR(target));
		n++;
	}
	sl_tls_target_unref(target);
	printf("%-34s server %7.0f/s, client %7.0f/s; %3.0f %% resumed; longest step %.2f ms\n",
	       what, n / server.spent_s, n / client.spent_s, 100.0 * resumed / n,
	       server.longest_s * 1e3);
}

static void bulk(struct setup *u)
{
	static char buf[64 << 10];
	struct end server = { 0 };
	struct end client = { 0 };
	struct sl_tls_target *target = NULL;
	struct sl_tls_facts f;
	double writing = 0;
	double reading = 0;

	assert(sl_tls_target_new(u->backend, "x.example", &target) == 0);
	open_ends(u, target, &server, &client);
	shake(&server, &client);
	sl_tls_stream_facts(server.s, &f);
	for (uint64_t done = 0; done < BULK_BYTES;) {
		double begin = now_s();
		double between;
		size_t n = 0;
		size_t k;

		assert(sl_tls_stream_write(server.s, &scratch, 1, buf, sizeof(buf), &n) == 0);
		between = now_s();
		writing += between - begin;
		for (size_t got = 0; got < n; got += k)
			assert(sl_tls_stream_read(client.s, &scratch, buf, sizeof(buf), &k) >= 0);
		reading += now_s() - between;
		done += n;
	}
	printf("%-34s write %.2f GB/s, read %.2f GB/s\n", f.cipher, BULK_BYTES / writing / 1e9,
	       BULK_BYTES / reading / 1e9);
	close_ends(&server, &client);
	sl_tls_target_unref(target);
}

/* ---- over a socket, where calls cost, too ---- */

static unsigned long n_recv, n_send;

static ssize_t counted_recv(void *owner, void *buf, size_t n)
{
	n_recv++;
	return sl_tls_socket.recv(owner, buf, n);
}

static ssize_t counted_send(void *owner, const void *bytes, size_t n)
{
	n_send++;
	return sl_tls_socket.send(owner, bytes, n);
}

static const struct sl_tls_wire counted = { .recv = counted_recv, .send = counted_send };

static void connect_both(int fd[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int at = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(bind(at, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(at, 1) == 0);
	assert(getsockname(at, (struct sockaddr *)&a, &len) == 0);
	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(connect(fd[0], (struct sockaddr *)&a, sizeof(a)) == 0);
	fd[1] = accept4(at, NULL, NULL, SOCK_CLOEXEC);
	assert(fd[1] >= 0 && close(at) == 0);
	for (int i = 0; i < 2; i++)
		assert(fcntl(fd[i], F_SETFL, O_NONBLOCK) == 0);
}

static double write_some(struct sl_tls_stream *s, char *buf, size_t room, uint64_t left,
			 size_t *ret_n)
{
	double begin = now_s();
	int r = SL_TLS_GO;
	size_t n = left < room ? (size_t)left : room;

	assert((r = sl_tls_stream_write(s, &scratch, 1, buf, n, ret_n)) >= 0);
	return now_s() - begin;
}

static double read_some(struct sl_tls_stream *s, char *buf, size_t room, size_t *ret_n)
{
	double begin = now_s();
	int r = SL_TLS_GO;
	size_t n;

	for (*ret_n = 0; r == SL_TLS_GO; *ret_n += n)
		assert((r = sl_tls_stream_read(s, &scratch, buf, room, &n)) >= 0);
	return now_s() - begin;
}

static void bulk_by_socket(struct setup *u, size_t room)
{
	static char buf[256 << 10];
	struct sl_tls_target *target = NULL;
	struct sl_tls_stream *s, *c;
	struct sl_tls_facts f;
	uint64_t sent = 0;
	uint64_t got = 0;
	double writing = 0;
	double reading = 0;
	int r = SL_TLS_IN;
	int q = SL_TLS_IN;
	int fd[2];
	size_t n;

	connect_both(fd);
	assert(sl_tls_target_new(u->backend, "x.example", &target) == 0);
	assert(sl_tls_accept(u->server, u->certs, u->tickets, &counted, sl_tls_fd(fd[1]), &s) == 0);
	assert(sl_tls_target_connect(target, &counted, sl_tls_fd(fd[0]), &c) == 0);
	assert(SSL_set_max_proto_version(c->ssl, u->version));
	while (r != SL_TLS_GO || q != SL_TLS_GO) {
		r = r ? sl_tls_stream_handshake(c, &scratch) : r;
		q = q ? sl_tls_stream_handshake(s, &scratch) : q;
		assert(r >= 0 && q >= 0);
	}
	sl_tls_stream_facts(s, &f);
	n_recv = n_send = 0;
	while (got < BULK_BYTES) {
		for (int i = 0; i < 4 && sent < BULK_BYTES; i++, sent += n)
			writing += write_some(s, buf, room, BULK_BYTES - sent, &n);
		reading += read_some(c, buf, room, &n);
		got += n;
		assert(sl_tls_stream_flush(s) >= 0);
	}
	printf("  socket, %3zu KiB at a time: CPU s/GB write %.3f, read %.3f; calls per MiB: send "
	       "%.1f, recv %.1f\n",
	       room >> 10, writing / (BULK_BYTES / 1e9), reading / (BULK_BYTES / 1e9),
	       (double)n_send / (BULK_BYTES >> 20), (double)n_recv / (BULK_BYTES >> 20));
	sl_tls_stream_free(s);
	sl_tls_stream_free(c);
	sl_tls_target_unref(target);
	(void)close(fd[0]);
	(void)close(fd[1]);
}

static void measure(const char *name, EVP_PKEY *key, int version)
{
	struct sl_tls_ticket_key ticket_key;
	struct setup u = { .certs = make_certs(key), .version = version };
	struct sl_str why = { 0 };
	char what[64];

	assert(sl_tls_ticket_key_make(&ticket_key) == 0);
	assert(sl_tls_tickets_new(&ticket_key, 1, &u.tickets) == 0);
	assert(sl_tls_server_new(&(struct sl_tls_server_conf){ 0 }, &why, &u.server) == 0);
	assert(sl_tls_backend_new(&(struct sl_tls_backend_conf){ 0 }, &why, &u.backend) == 0);
	for (int i = 0; i < 2; i++) {
		(void)snprintf(what, sizeof(what), "%s %s", name, i ? "resumed" : "full");
		handshakes(&u, what, i);
	}
	bulk(&u);
	bulk_by_socket(&u, 64 << 10);
	bulk_by_socket(&u, 256 << 10);
	sl_tls_backend_unref(u.backend);
	sl_tls_server_unref(u.server);
	sl_tls_tickets_unref(u.tickets);
	sl_cert_set_unref(u.certs);
}

int main(void)
{
	assert(sl_tls_init() == 0);
	assert(sl_tls_scratch_init(&scratch) == 0);
	measure("ECDSA P-256, TLS 1.3", EVP_EC_gen("P-256"), TLS1_3_VERSION);
	measure("RSA 2048, TLS 1.3", EVP_RSA_gen(2048), TLS1_3_VERSION);
	measure("ECDSA P-256, TLS 1.2", EVP_EC_gen("P-256"), TLS1_2_VERSION);
	measure("RSA 2048, TLS 1.2", EVP_RSA_gen(2048), TLS1_2_VERSION);
	sl_tls_scratch_done(&scratch);
	return 0;
}
