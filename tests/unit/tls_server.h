/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TLS_SERVER_H
#define TLS_SERVER_H

/* A TLS server for tests: one connection after the other, in a thread of its own. */

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct tls_server {
	pthread_t thread;
	SSL_CTX *ctx;
	int fd;
	uint16_t port;
	const char *answer; /* sent when a request's blank line has come; NULL: waits for the end */
	bool rude;          /* the answer ends without close_notify */
	unsigned n_handshakes; /* atomic */
	unsigned n_failed;     /* atomic: handshakes */
	unsigned n_resets;     /* atomic */
	unsigned n_ended;      /* atomic: connections over */
	char name[64];         /* SNI of the last one */
	char request[512];     /* of the last one */
};

static inline int listen_on_loopback(uint16_t port, int backlog)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	if (backlog >= 0)
		assert_int_equal(listen(fd, backlog), 0);
	return fd;
}

static inline uint16_t port_of(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	return ntohs(a.sin_port);
}

static inline void use_certificate(SSL_CTX *ctx)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();

	assert_true(key && x);
	assert_true(X509_set_version(x, 2) && ASN1_INTEGER_set(X509_get_serialNumber(x), 1));
	assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x), -3600));
	assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x), 3600));
	assert_true(X509_set_pubkey(x, key));
	assert_true(X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
					       (const unsigned char *)"test", -1, -1, 0));
	assert_true(X509_set_issuer_name(x, X509_get_subject_name(x)));
	assert_true(X509_sign(x, key, EVP_sha256()) > 0);
	assert_int_equal(SSL_CTX_use_certificate(ctx, x), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(ctx, key), 1);
	X509_free(x);
	EVP_PKEY_free(key);
}

static inline void serve_one(struct tls_server *s, SSL *ssl)
{
	const char *name;
	size_t n = 0;
	int r;

	if (SSL_accept(ssl) != 1) {
		__atomic_add_fetch(&s->n_failed, 1, __ATOMIC_RELEASE);
		return;
	}
	name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	(void)snprintf(s->name, sizeof(s->name), "%s", name ? name : "");
	__atomic_add_fetch(&s->n_handshakes, 1, __ATOMIC_RELEASE);
	while ((r = SSL_read(ssl, s->request + n, (int)(sizeof(s->request) - 1 - n))) > 0) {
		n += (size_t)r;
		s->request[n] = '\0';
		if (!s->answer || !strstr(s->request, "\r\n\r\n"))
			continue;
		(void)SSL_write(ssl, s->answer, (int)strlen(s->answer));
		if (!s->rude)
			(void)SSL_shutdown(ssl);
		(void)shutdown(SSL_get_fd(ssl), SHUT_WR);
		n = 0;
	}
}

static inline void *run_tls_server(void *arg)
{
	struct tls_server *s = arg;
	int fd;

	while ((fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		SSL *ssl = SSL_new(s->ctx);
		char rest[256];
		ssize_t n;

		SSL_set_fd(ssl, fd);
		serve_one(s, ssl);
		(void)shutdown(fd, SHUT_WR);
		while ((n = recv(fd, rest, sizeof(rest), 0)) > 0)
			;
		if (n < 0 && errno == ECONNRESET)
			__atomic_add_fetch(&s->n_resets, 1, __ATOMIC_RELEASE);
		SSL_free(ssl);
		ERR_clear_error();
		(void)close(fd);
		__atomic_add_fetch(&s->n_ended, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static inline void start_tls_server(struct tls_server *s, const char *answer)
{
	*s = (struct tls_server){ .answer = answer };
	s->ctx = SSL_CTX_new(TLS_server_method());
	assert_non_null(s->ctx);
	use_certificate(s->ctx);
	s->fd = listen_on_loopback(0, 128);
	s->port = port_of(s->fd);
	assert_int_equal(pthread_create(&s->thread, NULL, run_tls_server, s), 0);
}

/* Every connection to it is over, or ends because the other side does. */
static inline void stop_tls_server(struct tls_server *s)
{
	(void)shutdown(s->fd, SHUT_RD);
	assert_int_equal(pthread_join(s->thread, NULL), 0);
	assert_int_equal(close(s->fd), 0);
	SSL_CTX_free(s->ctx);
}

#endif
