/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls/server.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

#include "tls/cert_set_ssl.h"
#include "tls/library.h"
#include "tls/pem.h"
#include "tls/stream_ssl.h"
#include "tls/tickets_ssl.h"

#define CLIENT_CAS_MAX 256
/* Seconds for which a session may be resumed, if its key lives that long. */
#define SESSION_S 7200

struct sl_tls_server {
	unsigned n_refs; /* atomic */
	SSL_CTX *ctx;
	unsigned char *alpn; /* as the library wants it */
	size_t alpn_len;
};

/* ---- during handshakes ---- */

/* Without it the library would not remember the name a session is for. */
static int on_name(SSL *ssl, int *alert, void *arg)
{
	(void)ssl;
	(void)alert;
	(void)arg;
	return SSL_TLSEXT_ERR_OK;
}

static int on_cert(SSL *ssl, void *arg)
{
	const struct sl_tls_stream *s = sl_tls_stream_of(ssl);

	(void)arg;
	return sl_cert_set_install(s->certs, SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name),
				   ssl) == 0;
}

static int on_alpn(SSL *ssl, const unsigned char **ret, unsigned char *ret_len,
		   const unsigned char *offered, unsigned n, void *arg)
{
	const struct sl_tls_server *server = arg;
	unsigned char *chosen = NULL;

	(void)ssl;
	if (SSL_select_next_proto(&chosen, ret_len, server->alpn, (unsigned)server->alpn_len,
				  offered, n) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*ret = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static int on_status(SSL *ssl, void *arg)
{
	const struct sl_tls_stream *s = sl_tls_stream_of(ssl);
	const unsigned char *staple;
	unsigned char *copy;
	size_t n;

	(void)arg;
	if (!s->certs || !sl_cert_set_staple(s->certs, ssl, &staple, &n))
		return SSL_TLSEXT_ERR_NOACK;
	copy = OPENSSL_memdup(staple, n);
	if (!copy)
		return SSL_TLSEXT_ERR_NOACK;
	SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)n); /* takes it over */
	return SSL_TLSEXT_ERR_OK;
}

static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
		     EVP_MAC_CTX *mac, int seal)
{
	return sl_tls_tickets_use(sl_tls_stream_of(ssl)->tickets, name, iv, cipher, mac, seal != 0,
				  SSL_version(ssl) == TLS1_3_VERSION);
}

/* ---- making one ---- */

static int refuse(struct sl_str *why, const char *text, const char *value)
{
	unsigned long e = ERR_peek_last_error();

	ERR_clear_error();
	if (ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE)
		return -ENOMEM;
	sl_str_addf(why, text, value);
	return -EINVAL;
}

static int set_suites(SSL_CTX *ctx, const struct sl_tls_server_conf *conf, struct sl_str *why)
{
	const char *ciphers = conf->ciphers ? conf->ciphers : SL_TLS_CIPHERS;
	const char *suites = conf->suites ? conf->suites : SL_TLS_SUITES;

	if (!SSL_CTX_set_min_proto_version(
		    ctx, conf->min_version == SL_TLS_MIN_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION))
		return -ENOMEM;
	if (!SSL_CTX_set_cipher_list(ctx, ciphers))
		return refuse(why, "no cipher of the library is meant by '%s'", ciphers);
	if (!SSL_CTX_set_ciphersuites(ctx, suites))
		return refuse(why, "'%s' has a cipher suite that the library does not know",
			      suites);
	if (sl_tls_context_groups(ctx, conf->groups) < 0)
		return refuse(why, "'%s' has a group that the library does not know",
			      conf->groups ? conf->groups : "default");
	return 0;
}

/* Length, then bytes, of each. */
static int set_alpn(struct sl_tls_server *server, const struct sl_tls_server_conf *conf,
		    struct sl_str *why)
{
	_cleanup_(sl_str_done) struct sl_str list = { 0 };

	for (size_t i = 0; i < conf->n_alpn; i++) {
		size_t n = strlen(conf->alpn[i]);

		if (n == 0 || n > 255)
			return refuse(why, "'%s' cannot be an ALPN protocol", conf->alpn[i]);
		sl_str_addc(&list, (char)n);
		sl_str_adds(&list, conf->alpn[i]);
	}
	if (list.len == 0 && !list.oom)
		return 0;
	server->alpn_len = list.len;
	server->alpn = (unsigned char *)sl_str_take(&list);
	if (!server->alpn)
		return -ENOMEM;
	SSL_CTX_set_alpn_select_cb(server->ctx, on_alpn, server);
	return 0;
}

/* Which authorities are meant is told to clients, so that a browser can choose. */
static int set_client_auth(SSL_CTX *ctx, const struct sl_tls_server_conf *conf, struct sl_str *why)
{
	_cleanup_(sl_x509s_freep) STACK_OF(X509) *cas = NULL;
	X509_STORE *store = NULL;
	int mode = SSL_VERIFY_PEER;
	int r;

	if (conf->client_auth == SL_TLS_CLIENT_AUTH_NONE)
		return 0;
	if (conf->client_auth == SL_TLS_CLIENT_AUTH_REQUIRED)
		mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	r = sl_pem_certs(conf->client_ca, conf->client_ca_len, CLIENT_CAS_MAX, &cas);
	if (r == 0)
		r = sl_pem_store(conf->client_ca, conf->client_ca_len, &store);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		sl_str_addf(why,
			    "%s: ", conf->client_ca_label ? conf->client_ca_label : "client_ca");
		return refuse(why, "%s",
			      r == -ENOENT  ? "there is no certificate in it"
			      : r == -E2BIG ? "there are more than 256 certificates in it"
					    : "a certificate in it cannot be read");
	}
	SSL_CTX_set0_verify_cert_store(ctx, store);
	for (int i = 0; i < sk_X509_num(cas); i++)
		if (!SSL_CTX_add_client_CA(ctx, sk_X509_value(cas, i)))
			return -ENOMEM;
	SSL_CTX_set_verify(ctx, mode, NULL);
	return 0;
}

/* A session made under one policy says nothing about another. */
static int set_scope(SSL_CTX *ctx, const struct sl_tls_server_conf *conf)
{
	_cleanup_(sl_str_done) struct sl_str all = { 0 };
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	sl_str_addf(&all, "%s%c%d%c%d%c", conf->scope ? conf->scope : "", 0, (int)conf->client_auth,
		    0, (int)conf->min_version, 0);
	if (conf->client_auth != SL_TLS_CLIENT_AUTH_NONE)
		sl_str_add(&all, conf->client_ca, conf->client_ca_len);
	if (all.oom || !EVP_Digest(all.p, all.len, digest, &n, EVP_sha256(), NULL) ||
	    !SSL_CTX_set_session_id_context(ctx, digest, 32))
		return -ENOMEM;
	return 0;
}

static int set_callbacks(SSL_CTX *ctx)
{
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_timeout(ctx, SESSION_S);
	(void)SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	/* Each costs 6 % of a handshake; one that is used again is replaced at once. */
	(void)SSL_CTX_set_num_tickets(ctx, 1);
	(void)SSL_CTX_set_dh_auto(ctx, 1);
	SSL_CTX_set_cert_cb(ctx, on_cert, NULL);
	if (!SSL_CTX_set_max_early_data(ctx, 0) ||
	    !SSL_CTX_set_tlsext_servername_callback(ctx, on_name) ||
	    !SSL_CTX_set_tlsext_status_cb(ctx, on_status) ||
	    !SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket))
		return -ENOMEM;
	return 0;
}

int sl_tls_server_new(const struct sl_tls_server_conf *conf, struct sl_str *why,
		      struct sl_tls_server **ret)
{
	_cleanup_(sl_tls_server_unrefp) struct sl_tls_server *server = NULL;
	int r = sl_tls_init();

	if (r < 0)
		return r;
	server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	server->n_refs = 1;
	server->ctx = SSL_CTX_new(TLS_server_method());
	r = server->ctx ? sl_tls_context_init(server->ctx) : -ENOMEM;
	if (r == 0)
		r = set_callbacks(server->ctx);
	if (r == 0)
		r = set_suites(server->ctx, conf, why);
	if (r == 0)
		r = set_alpn(server, conf, why);
	if (r == 0)
		r = set_client_auth(server->ctx, conf, why);
	if (r == 0)
		r = set_scope(server->ctx, conf);
	ERR_clear_error();
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(server);
	return 0;
}

struct sl_tls_server *sl_tls_server_ref(struct sl_tls_server *server)
{
	(void)__atomic_add_fetch(&server->n_refs, 1, __ATOMIC_RELAXED);
	return server;
}

void sl_tls_server_unref(struct sl_tls_server *server)
{
	if (!server || __atomic_sub_fetch(&server->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	SSL_CTX_free(server->ctx);
	free(server->alpn);
	free(server);
}

int sl_tls_accept(struct sl_tls_server *server, struct sl_cert_set *certs,
		  struct sl_tls_tickets *tickets, const struct sl_tls_wire *wire, void *owner,
		  struct sl_tls_stream **ret)
{
	SSL *ssl = SSL_new(server->ctx);
	struct sl_tls_stream *s;
	int r;

	ERR_clear_error();
	if (!ssl)
		return -ENOMEM;
	r = sl_tls_stream_new(ssl, wire, owner, &s);
	if (r < 0)
		return r;
	SSL_set_accept_state(ssl);
	s->server = sl_tls_server_ref(server);
	s->certs = sl_cert_set_ref(certs);
	if (tickets) {
		s->tickets = sl_tls_tickets_ref(tickets);
	} else {
		(void)SSL_set_options(ssl, SSL_OP_NO_TICKET);
		(void)SSL_set_num_tickets(ssl, 0);
	}
	*ret = s;
	return 0;
}
