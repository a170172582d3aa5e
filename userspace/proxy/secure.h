/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_SECURE_H
#define SL_PROXY_SECURE_H

#include <stdint.h>

#include "base/str.h"
#include "conf/conf.h"
#include "tls/backend.h"
#include "tls/cert_set.h"
#include "tls/material.h"
#include "tls/server.h"

/*
 * All that a route needs to speak TLS, made of its configuration and its material: immutable and
 * counted. New files or a new configuration make another one, which new handshakes use;
 * connections keep what they began with.
 */
struct sl_secure {
	uint32_t refs;                    /* atomic */
	char *route;                      /* its name */
	struct sl_tls_server *server;     /* NULL: the route passes its clients' bytes on */
	struct sl_cert_set *certs;        /* with `server` */
	struct sl_tls_backend *backend;   /* NULL: its targets are not spoken to in TLS */
	struct sl_cert_set *backend_cert; /* shown to targets; NULL: none */
	char *problem;                    /* of the material; NULL: none */
	uint8_t digest[16];               /* of what it was made of */
};

/*
 * What is wrong with certificates goes to `found` (may be NULL); what else is, as one line, to
 * `why`. `now_s` as in tls/cert_set.h. `before` (may be NULL) is used again when nothing
 * differs. -EINVAL: it cannot be used; -ENOENT: there is no material. The supervisor calls it to
 * check, the proxy to have it.
 */
SL_MUST_CHECK int sl_secure_new(const struct sl_conf_route *route, struct sl_materials *m,
				struct sl_secure *before, int64_t now_s, sl_cert_found_fn found,
				void *owner, struct sl_str *why, struct sl_secure **ret);
struct sl_secure *sl_secure_ref(struct sl_secure *s);
void sl_secure_unref(struct sl_secure *s); /* accepts NULL */
SL_DEFINE_CLEANUP(struct sl_secure, sl_secure_unref);

static inline bool sl_conf_needs_secure(const struct sl_conf_route *route)
{
	return route->enabled && (route->tls || route->backend_tls);
}

#endif
