/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls/backend.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "tls/backend_ssl.h"
#include "tls/cert_set_ssl.h"
#include "tls/library.h"
#include "tls/pem.h"
#include "tls/stream_ssl.h"

struct sl_tls_trust {
	unsigned n_refs; /* atomic */
	X509_STORE *store;
};

struct sl_tls_backend {
	unsigned n_refs; /* atomic */
	SSL_CTX *ctx;
	bool verifies;
};

struct sl_tls_target {
	unsigned n_refs; /* of one thread */
	struct sl_tls_backend *backend;
	char *name; /* NULL: none */
	bool is_address;
	size_t n_sessions;
	SSL_SESSION *sessions[SL_TLS_SESSIONS_MAX]; /* the newest last */
};

/* ---- whom to trust ---- */

int sl_tls_trust_new(const void *pem, size_t n, struct sl_tls_trust **ret)
{
	_cleanup_(sl_tls_trust_unrefp) struct sl_tls_trust *trust = calloc(1, sizeof(*trust));
	int r;

	if (!trust)
		return -ENOMEM;
	trust->n_refs = 1;
	r = sl_pem_store(pem, n, &trust->store);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(trust);
	return 0;
}

struct sl_tls_trust *sl_tls_trust_ref(struct sl_tls_trust *trust)
{
	(void)__atomic_add_fetch(&trust->n_refs, 1, __ATOMIC_RELAXED);
	return trust;
}

void sl_tls_trust_unref(struct sl_tls_trust *trust)
{
	if (!trust || __atomic_sub_fetch(&trust->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	X509_STORE_free(trust->store);
	free(trust);
}

/* ---- how to speak ---- */

/* Takes the reference over. */
static void keep(struct sl_tls_target *target, SSL_SESSION *session)
{
	if (target->n_sessions == SL_TLS_SESSIONS_MAX) {
		SSL_SESSION_free(target->sessions[0]);
		target->n_sessions--;
		memmove(target->sessions, target->sessions + 1,
			target->n_sessions * sizeof(target->sessions[0]));
	}
	target->sessions[target->n_sessions++] = session;
}

/* The library gives a reference, which the answer 1 keeps. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
	if (!SSL_SESSION_is_resumable(session))
		return 0;
	keep(sl_tls_stream_of(ssl)->target, session);
	return 1;
}

/*
 * Of a ticket that comes anew with a resumed session of TLS 1.2 the library does not tell, and the
 * old one may soon be good for nothing.
 */
void sl_tls_target_met(struct sl_tls_target *target, SSL *ssl)
{
	SSL_SESSION *session = SSL_get0_session(ssl);

	if (!SSL_session_reused(ssl) || SSL_version(ssl) != TLS1_2_VERSION)
		return;
	for (size_t i = 0; i < target->n_sessions; i++)
		if (target->sessions[i] == session)
			return;
	if (SSL_SESSION_is_resumable(session))
		keep(target, SSL_get1_session(ssl));
}

static int refuse(struct sl_str *why, const char *text, const char *value)
{
	ERR_clear_error();
	sl_str_addf(why, text, value);
	return -EINVAL;
}

static int set_suites(SSL_CTX *ctx, const struct sl_tls_backend_conf *conf, struct sl_str *why)
{
	const char *ciphers = conf->ciphers ? conf->ciphers : SL_TLS_CIPHERS ":HIGH:!aNULL:!PSK";
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

static int set_alpn(SSL_CTX *ctx, const struct sl_tls_backend_conf *conf, struct sl_str *why)
{
	_cleanup_(sl_str_done) struct sl_str list = { 0 };

	for (size_t i = 0; i < conf->n_alpn; i++) {
		size_t n = strlen(conf->alpn[i]);

		if (n == 0 || n > 255)
			return refuse(why, "'%s' cannot be an ALPN protocol", conf->alpn[i]);
		sl_str_addc(&list, (char)n);
		sl_str_adds(&list, conf->alpn[i]);
	}
	if (list.oom)
		return -ENOMEM;
	if (list.len == 0)
		return 0;
	return SSL_CTX_set_alpn_protos(ctx, (unsigned char *)list.p, (unsigned)list.len) == 0
		       ? 0
		       : -ENOMEM;
}

static int set_identity(SSL_CTX *ctx, const struct sl_tls_backend_conf *conf, struct sl_str *why)
{
	if (conf->trust) {
		SSL_CTX_set1_verify_cert_store(ctx, conf->trust->store);
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	} else {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
	}
	if (conf->cert && sl_cert_set_install_first(conf->cert, ctx) < 0)
		return refuse(why, "%s: the library does not take the certificate",
			      sl_cert_set_facts(conf->cert, 0)->label);
	return 0;
}

int sl_tls_backend_new(const struct sl_tls_backend_conf *conf, struct sl_str *why,
		       struct sl_tls_backend **ret)
{
	_cleanup_(sl_tls_backend_unrefp) struct sl_tls_backend *backend = NULL;
	int r = sl_tls_init();

	if (r < 0)
		return r;
	backend = calloc(1, sizeof(*backend));
	if (!backend)
		return -ENOMEM;
	backend->n_refs = 1;
	backend->verifies = conf->trust != NULL;
	backend->ctx = SSL_CTX_new(TLS_client_method());
	r = backend->ctx ? sl_tls_context_init(backend->ctx) : -ENOMEM;
	if (r == 0)
		r = set_suites(backend->ctx, conf, why);
	if (r == 0)
		r = set_alpn(backend->ctx, conf, why);
	if (r == 0)
		r = set_identity(backend->ctx, conf, why);
	ERR_clear_error();
	if (r < 0)
		return r;
	(void)SSL_CTX_set_session_cache_mode(backend->ctx,
					     SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(backend->ctx, on_session);
	*ret = SL_TAKE_PTR(backend);
	return 0;
}

struct sl_tls_backend *sl_tls_backend_ref(struct sl_tls_backend *backend)
{
	(void)__atomic_add_fetch(&backend->n_refs, 1, __ATOMIC_RELAXED);
	return backend;
}

void sl_tls_backend_unref(struct sl_tls_backend *backend)
{
	if (!backend || __atomic_sub_fetch(&backend->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	SSL_CTX_free(backend->ctx);
	free(backend);
}

/* ---- with whom ---- */

int sl_tls_target_new(struct sl_tls_backend *backend, const char *name, struct sl_tls_target **ret)
{
	_cleanup_(sl_tls_target_unrefp) struct sl_tls_target *target = NULL;
	unsigned char ip[16];

	if (backend->verifies && (!name || !*name))
		return -EINVAL;
	target = calloc(1, sizeof(*target));
	if (!target)
		return -ENOMEM;
	target->n_refs = 1;
	target->backend = sl_tls_backend_ref(backend);
	if (name && *name) {
		target->name = strdup(name);
		if (!target->name)
			return -ENOMEM;
		target->is_address =
			inet_pton(AF_INET, name, ip) == 1 || inet_pton(AF_INET6, name, ip) == 1;
	}
	*ret = SL_TAKE_PTR(target);
	return 0;
}

struct sl_tls_target *sl_tls_target_ref(struct sl_tls_target *target)
{
	target->n_refs++;
	return target;
}

void sl_tls_target_unref(struct sl_tls_target *target)
{
	if (!target || --target->n_refs > 0)
		return;
	for (size_t i = 0; i < target->n_sessions; i++)
		SSL_SESSION_free(target->sessions[i]);
	sl_tls_backend_unref(target->backend);
	free(target->name);
	free(target);
}

const char *sl_tls_target_name(const struct sl_tls_target *target)
{
	return target->name ? target->name : "any name";
}

size_t sl_tls_target_sessions(const struct sl_tls_target *target)
{
	return target->n_sessions;
}

static bool set_names(SSL *ssl, const struct sl_tls_target *target)
{
	if (!target->name)
		return true;
	if (target->is_address)
		return !target->backend->verifies ||
		       X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), target->name);
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set_tlsext_host_name(ssl, target->name) &&
	       (!target->backend->verifies || SSL_set1_host(ssl, target->name));
}

/* A ticket of TLS 1.3 is shown once, so that nobody can tell connections are of one client. */
static bool resume(SSL *ssl, struct sl_tls_target *target)
{
	SSL_SESSION *session;
	bool is_set;

	if (target->n_sessions == 0)
		return true;
	session = target->sessions[target->n_sessions - 1];
	is_set = SSL_set_session(ssl, session);
	if (SSL_SESSION_get_protocol_version(session) == TLS1_3_VERSION ||
	    !SSL_SESSION_is_resumable(session)) {
		target->n_sessions--;
		SSL_SESSION_free(session);
	}
	return is_set;
}

int sl_tls_target_connect(struct sl_tls_target *target, const struct sl_tls_wire *wire, void *owner,
			  struct sl_tls_stream **ret)
{
	SSL *ssl = SSL_new(target->backend->ctx);
	struct sl_tls_stream *s;
	int r;

	if (!ssl || !set_names(ssl, target) || !resume(ssl, target)) {
		SSL_free(ssl);
		ERR_clear_error();
		return -ENOMEM;
	}
	r = sl_tls_stream_new(ssl, wire, owner, &s);
	if (r < 0)
		return r;
	SSL_set_connect_state(ssl);
	s->target = sl_tls_target_ref(target);
	*ret = s;
	return 0;
}
