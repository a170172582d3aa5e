/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_CERT_STORE_H
#define SL_DAEMON_CERT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "conf/conf.h"
#include "daemon/cert_file.h"

/*
 * The files of certificates, keys and authorities of a configuration, as the supervisor has them:
 * the last good bytes of all routes in one sealed block (tls/material.h), of which it keeps no
 * other copy, and what the files looked like when they were last read.
 */
struct sl_cert_seen {
	char *path;
	struct sl_cert_file_id id;
};

struct sl_cert_seen_route {
	char *name;
	struct sl_cert_seen *file;
	size_t n;
	bool has_problem; /* newer files of it are not in use */
};

struct sl_cert_store {
	int fd;
	bool is_same;                     /* the block is that of the one before */
	struct sl_cert_seen_route *route; /* in file order; those alone that need something */
	size_t n;
	struct sl_cert_seen system; /* where authorities of the system are; path NULL: not asked */
};
void sl_cert_store_free(struct sl_cert_store *store); /* accepts NULL */
SL_DEFINE_CLEANUP(struct sl_cert_store, sl_cert_store_free);

/* A route of it holds a key, or clients end their TLS at it. */
bool sl_cert_store_has_keys(const struct sl_conf *conf);
bool sl_cert_store_has_servers(const struct sl_conf *conf);

struct sl_cert_ask {
	const struct sl_conf *conf;
	const struct sl_conf_sources *sources; /* to say where a route stands */
	const struct sl_cert_store *before;    /* what is in use; NULL: nothing */
	/* the configuration of that; routes that are the same in it are taken over unread; NULL:
	 * all are read */
	const struct sl_conf *conf_before;
	int64_t now_s; /* seconds since 1970 */
	/* nothing will be in use: what this process may not read is no error */
	bool is_check;
};
/*
 * Reads and checks; `*ret` stays as it is (NULL) where no route needs any of it, and with
 * `is_check`. -EINVAL: errors, which are in `diags`, as warnings are; "FILE:LINE:COLUMN: error:
 * route 'NAME': PATH: what".
 */
SL_MUST_CHECK int sl_cert_store_read(const struct sl_cert_ask *ask, struct sl_cert_store **ret,
				     struct sl_diags *diags);
/* All of a configuration, for those who check files. */
SL_MUST_CHECK int sl_cert_store_check(const struct sl_conf *conf,
				      const struct sl_conf_sources *sources,
				      struct sl_diags *diags);
/* After an exec: the block of the program before; takes over `fd`, also on failure. All files will
 * be looked at. */
SL_MUST_CHECK int sl_cert_store_adopt(const struct sl_conf *conf, int fd,
				      struct sl_cert_store **ret);

enum sl_cert_look {
	SL_CERT_LOOK_CHANGED = 0, /* files that are others than at the last look */
	SL_CERT_LOOK_PROBLEMS,    /* and those of routes with a problem */
	SL_CERT_LOOK_ALL,
};

/* What a look has brought. */
struct sl_cert_news {
	struct sl_str text; /* lines; those about errors and warnings begin so: "error: " */
	size_t n_looked;    /* routes */
	size_t n_replaced;  /* of them: other files are in use now */
	size_t n_bad;       /* of them: newer files cannot be used, the last good ones stay */
	bool is_changed;    /* store->fd is another block */
};
void sl_cert_news_done(struct sl_cert_news *news);
/*
 * Looks again at the files of what is in use, whose configuration is `conf`. Each problem is told
 * once, until the files, or what is wrong with them, are others. -errno: nothing has changed.
 */
SL_MUST_CHECK int sl_cert_store_look(struct sl_cert_store *store, const struct sl_conf *conf,
				     int64_t now_s, enum sl_cert_look which,
				     struct sl_cert_news *news);

#endif
