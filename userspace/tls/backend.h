/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_BACKEND_H
#define SL_TLS_BACKEND_H

#include "base/str.h"
#include "tls/cert_set.h"
#include "tls/stream.h"
#include "tls/version.h"

/*
 * TLS towards backends. Three things, from the wide to the narrow:
 * whom to trust (a file of authorities, shared by all that name it), how to speak (of a route), and
 * with whom (a target, of one worker), who has the sessions that can be resumed.
 */

/* Immutable and counted. */
struct sl_tls_trust;
/* PEM. -ENOENT: no certificate in it; -EBADMSG: one cannot be read; -E2BIG: more than 4096. */
SL_MUST_CHECK int sl_tls_trust_new(const void *pem, size_t n, struct sl_tls_trust **ret);
struct sl_tls_trust *sl_tls_trust_ref(struct sl_tls_trust *trust);
void sl_tls_trust_unref(struct sl_tls_trust *trust); /* accepts NULL */
SL_DEFINE_CLEANUP(struct sl_tls_trust, sl_tls_trust_unref);

struct sl_tls_backend_conf {
	struct sl_tls_trust *trust; /* whose certificates are good; NULL: nothing is verified */
	struct sl_cert_set *cert;   /* shown when asked for: its first; NULL: none */
	enum sl_tls_version min_version;
	const char *ciphers; /* NULL: the defaults, as below */
	const char *suites;
	const char *groups;
	const char *const *alpn; /* offered in this order */
	size_t n_alpn;
};

/* Immutable and counted; takes references of its own. */
struct sl_tls_backend;
/* -EINVAL with the reason in `why`. */
SL_MUST_CHECK int sl_tls_backend_new(const struct sl_tls_backend_conf *conf, struct sl_str *why,
				     struct sl_tls_backend **ret);
struct sl_tls_backend *sl_tls_backend_ref(struct sl_tls_backend *backend);
void sl_tls_backend_unref(struct sl_tls_backend *backend); /* accepts NULL */
SL_DEFINE_CLEANUP(struct sl_tls_backend, sl_tls_backend_unref);

/*
 * A target, as one thread knows it. Counted by that thread alone; streams hold one.
 * `name`: what its certificate has to say, and SNI unless it is an address; NULL: neither.
 */
struct sl_tls_target;
/* -EINVAL: something is to be verified, and there is no name. */
SL_MUST_CHECK int sl_tls_target_new(struct sl_tls_backend *backend, const char *name,
				    struct sl_tls_target **ret);
struct sl_tls_target *sl_tls_target_ref(struct sl_tls_target *target);
void sl_tls_target_unref(struct sl_tls_target *target); /* accepts NULL */
SL_DEFINE_CLEANUP(struct sl_tls_target, sl_tls_target_unref);
/* Sessions kept for it: at most SL_TLS_SESSIONS_MAX, each used once where TLS 1.3 wants that. */
#define SL_TLS_SESSIONS_MAX 4
size_t sl_tls_target_sessions(const struct sl_tls_target *target);

/* The wire must be connected, or about to be. */
SL_MUST_CHECK int sl_tls_target_connect(struct sl_tls_target *target,
					const struct sl_tls_wire *wire, void *owner,
					struct sl_tls_stream **ret);

#endif
