/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls/client.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>

#include "tls/library.h"

struct sl_tls_client {
	SSL_CTX *ctx;
};

struct sl_tls_conn {
	SSL *ssl;
	char error[96];
};

int sl_tls_client_new_unverified(struct sl_tls_client **ret)
{
	_cleanup_(sl_tls_client_freep) struct sl_tls_client *client = NULL;
	int r = sl_tls_init();

	if (r < 0)
		return r;
	client = calloc(1, sizeof(*client));
	if (!client)
		return -ENOMEM;
	client->ctx = SSL_CTX_new(TLS_client_method());
	if (!client->ctx)
		goto no_memory;
	SSL_CTX_set_verify(client->ctx, SSL_VERIFY_NONE, NULL);
	SSL_CTX_set_security_level(client->ctx, 0);
	(void)SSL_CTX_set_session_cache_mode(client->ctx, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_mode(client->ctx,
			       SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS);
	(void)SSL_CTX_set_options(client->ctx, SSL_OP_LEGACY_SERVER_CONNECT | SSL_OP_NO_TICKET);
	if (!SSL_CTX_set_min_proto_version(client->ctx, TLS1_VERSION))
		goto no_memory;
	*ret = SL_TAKE_PTR(client);
	return 0;

no_memory:
	ERR_clear_error();
	return -ENOMEM;
}

void sl_tls_client_free(struct sl_tls_client *client)
{
	if (!client)
		return;
	SSL_CTX_free(client->ctx);
	free(client);
}

int sl_tls_connect(struct sl_tls_client *client, int fd, const char *server_name,
		   struct sl_tls_conn **ret)
{
	_cleanup_(sl_tls_conn_freep) struct sl_tls_conn *conn = NULL;

	conn = calloc(1, sizeof(*conn));
	if (!conn)
		return -ENOMEM;
	conn->ssl = SSL_new(client->ctx);
	if (!conn->ssl || !SSL_set_fd(conn->ssl, fd) ||
	    (server_name && !SSL_set_tlsext_host_name(conn->ssl, server_name))) {
		ERR_clear_error();
		return -ENOMEM;
	}
	SSL_set_connect_state(conn->ssl);
	*ret = SL_TAKE_PTR(conn);
	return 0;
}

void sl_tls_conn_free(struct sl_tls_conn *conn)
{
	if (!conn)
		return;
	SSL_free(conn->ssl);
	ERR_clear_error();
	free(conn);
}

const char *sl_tls_conn_error(const struct sl_tls_conn *conn)
{
	return conn->error;
}

static void set_error(struct sl_tls_conn *conn, const char *text)
{
	(void)snprintf(conn->error, sizeof(conn->error), "%s", text);
}

/* The first of the thread's queue says what happened; later ones say where that led. */
static int protocol_failed(struct sl_tls_conn *conn)
{
	unsigned long e = ERR_get_error();
	const char *reason = e ? ERR_reason_error_string(e) : NULL;

	set_error(conn, reason ? reason : "protocol error");
	ERR_clear_error();
	if (ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE)
		return -ENOMEM;
	if (ERR_GET_REASON(e) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
		set_error(conn, "connection closed");
		return -EPIPE;
	}
	return -EPROTO;
}

static int socket_failed(struct sl_tls_conn *conn, int err)
{
	char name[64];

	ERR_clear_error();
	set_error(conn, err ? strerror_r(err, name, sizeof(name)) : "connection closed");
	return err ? -err : -EPIPE;
}

/* What became of a call of the library that returned `r`; errno is still its own. */
static int judge(struct sl_tls_conn *conn, int r)
{
	int err = errno;

	switch (SSL_get_error(conn->ssl, r)) {
	case SSL_ERROR_NONE:
		return SL_TLS_DONE;
	case SSL_ERROR_WANT_READ:
		return SL_TLS_WANT_READ;
	case SSL_ERROR_WANT_WRITE:
		return SL_TLS_WANT_WRITE;
	case SSL_ERROR_SYSCALL:
		return socket_failed(conn, err);
	case SSL_ERROR_ZERO_RETURN:
		set_error(conn, "connection closed");
		return -EPIPE;
	default:
		return protocol_failed(conn);
	}
}

/* The queue of errors belongs to the thread: what another connection left there is not ours. */
static void begin(void)
{
	ERR_clear_error();
	errno = 0;
}

int sl_tls_handshake(struct sl_tls_conn *conn)
{
	begin();
	return judge(conn, SSL_do_handshake(conn->ssl));
}

int sl_tls_read(struct sl_tls_conn *conn, void *buf, size_t n, size_t *ret_n)
{
	int r;

	begin();
	r = SSL_read_ex(conn->ssl, buf, n, ret_n);
	if (r == 0 && SSL_get_error(conn->ssl, r) == SSL_ERROR_ZERO_RETURN) {
		*ret_n = 0;
		return SL_TLS_DONE;
	}
	return judge(conn, r);
}

int sl_tls_write(struct sl_tls_conn *conn, const void *bytes, size_t n, size_t *ret_n)
{
	begin();
	return judge(conn, SSL_write_ex(conn->ssl, bytes, n, ret_n));
}

void sl_tls_say_end(struct sl_tls_conn *conn)
{
	begin();
	if (SSL_is_init_finished(conn->ssl))
		(void)SSL_shutdown(conn->ssl);
	ERR_clear_error();
}
