/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_SECURE_H
#define SL_PROXY_SECURE_H

#include <pthread.h>
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

/*
 * Where a route's is found: one for all generations in which the route speaks TLS with the same
 * sides, so that keys which have been replaced are used, and held, by nobody who begins later.
 */
struct sl_secure_box {
	uint32_t refs;         /* atomic */
	pthread_mutex_t lock;  /* guards `now` against the control thread, which alone changes it */
	struct sl_secure *now; /* owned reference; NULL only before the first */
};
SL_MUST_CHECK int sl_secure_box_new(struct sl_secure_box **ret);
struct sl_secure_box *sl_secure_box_ref(struct sl_secure_box *box);
void sl_secure_box_unref(struct sl_secure_box *box);                        /* accepts NULL */
struct sl_secure *sl_secure_box_get(struct sl_secure_box *box);             /* a reference */
void sl_secure_box_set(struct sl_secure_box *box, struct sl_secure *fresh); /* takes it over */

static inline bool sl_conf_needs_secure(const struct sl_conf_route *route)
{
	return route->enabled && (route->tls || route->backend_tls);
}

#endif
