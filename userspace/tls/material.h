/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_MATERIAL_H
#define SL_TLS_MATERIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "tls/cert_set.h"

/*
 * What routes need for TLS beside the configuration, as bytes: the files of certificates, keys and
 * authorities. The supervisor reads and checks them, and keeps the last good ones of each route;
 * the proxy, which may open none, is sent all of them as one block. Nothing here interprets PEM.
 */
struct sl_tls_trust;

struct sl_material {
	const char *route;
	const struct sl_cert_source *certs; /* shown to clients; the first one is the default */
	size_t n_certs;                     /* 0: the route does not terminate TLS */
	const void *client_ca;              /* PEM; NULL: none */
	size_t client_ca_len;
	const void *backend_ca; /* PEM; NULL: that of the system, or nothing is verified */
	size_t backend_ca_len;
	const struct sl_cert_source *backend_cert; /* shown to targets; NULL: none */
	/* Why newer files are not in use, for people, with the file's name; "": these are the
	 * newest. */
	const char *problem;
};

/* Immutable; every pointer above points into `block` or is owned here. */
struct sl_materials {
	struct sl_material *item; /* sorted by route */
	size_t n;
	const void *system_ca; /* PEM; NULL: no route verifies by it, or there is none */
	size_t system_ca_len;
	/* Made of it by proxy/secure.c for the first route that asks: parsing it takes 8 ms. */
	struct sl_tls_trust *system_trust; /* owned; NULL: not yet */
	uint64_t system_digest;            /* likewise; 0: not yet */
	char *block;                       /* of sl_materials_unpack(): wiped at the end */
	size_t block_len;
};
void sl_materials_done(struct sl_materials *m); /* keys are wiped; accepts zeros */

#define SL_MATERIALS_MAX (256u << 20)

/* A block with all of it; owned by the caller, who wipes it. -ENOMEM, -E2BIG. */
SL_MUST_CHECK int sl_materials_pack(const struct sl_materials *m, char **ret, size_t *ret_len);
/* Takes `block` (malloc) over, also on failure. -EBADMSG: no such block. */
SL_MUST_CHECK int sl_materials_unpack(char *block, size_t n, struct sl_materials *ret);

/* NULL: none of that route. */
const struct sl_material *sl_materials_find(const struct sl_materials *m, const char *route);

#endif
