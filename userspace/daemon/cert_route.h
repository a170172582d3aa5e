/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_CERT_ROUTE_H
#define SL_DAEMON_CERT_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "conf/conf.h"
#include "daemon/cert_file.h"
#include "tls/material.h"

/* The files of one route: which there are, their bytes, and whether they are fit for use. */

enum sl_cert_part {
	SL_CERT_PART_CHAIN = 0,
	SL_CERT_PART_KEY,
	SL_CERT_PART_STAPLE,
	SL_CERT_PART_CLIENT_CA,
	SL_CERT_PART_BACKEND_CA,
	SL_CERT_PART_BACKEND_CHAIN,
	SL_CERT_PART_BACKEND_KEY,
};

struct sl_cert_wanted {
	const char *path; /* the configuration's */
	enum sl_cert_part part;
	size_t cert; /* of CHAIN, KEY, STAPLE: which */
	bool is_key; /* also a chain, when the key is in it */
};
/* Up to `max` of them go to `ret`; the number there are. */
size_t sl_cert_route_files(const struct sl_conf_route *route, struct sl_cert_wanted *ret,
			   size_t max);
/* Whether both say the same of TLS, so that what was good for one is for the other. */
bool sl_cert_route_is_same(const struct sl_conf_route *a, const struct sl_conf_route *b);

/* What was found: texts without a final dot, each with its file; errors make the files useless. */
struct sl_cert_findings {
	struct sl_str errors;    /* a line each */
	struct sl_str forbidden; /* errors, too: this process may not read the file */
	struct sl_str warnings;
};
void sl_cert_findings_done(struct sl_cert_findings *f);

struct sl_cert_reading {
	const struct sl_conf_route *route; /* the configuration's */
	struct sl_cert_wanted *wanted;
	struct sl_cert_file *file; /* of each wanted one */
	size_t n;
	struct sl_material item; /* once all are read; points into `file` and the configuration */
};
void sl_cert_reading_done(struct sl_cert_reading *r); /* keys are wiped; accepts zeros */

/*
 * Reads all of them, also behind one that cannot be. -EINVAL: `found` says why; -E2BIG: they are
 * more than `max` bytes together.
 */
SL_MUST_CHECK int sl_cert_route_read(const struct sl_conf_route *route, size_t max,
				     struct sl_cert_reading *ret, struct sl_cert_findings *found);
/* The same bytes under the same names. */
bool sl_cert_material_is_same(const struct sl_material *a, const struct sl_material *b);

/* What files are looked at with. */
struct sl_cert_check {
	int64_t now_s;
	const struct sl_material *in_use; /* of that route; NULL: none */
	const void *system_ca;            /* PEM; NULL: none */
	size_t system_ca_len;
};
/*
 * -EINVAL: `found` says why. A certificate that is not valid at this time is a warning, but an
 * error when the one it would take the place of is.
 */
SL_MUST_CHECK int sl_cert_route_check(const struct sl_conf_route *route,
				      const struct sl_material *item,
				      const struct sl_cert_check *check,
				      struct sl_cert_findings *found);

#endif
