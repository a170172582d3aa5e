/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_CERT_FILE_H
#define SL_DAEMON_CERT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

/* A file of certificates or of a key, as the supervisor reads it. */
#define SL_CERT_FILE_MAX (1u << 20)

/* What tells a file from the one that was there before; all zeros: never looked at. */
struct sl_cert_file_id {
	uint64_t dev;
	uint64_t ino;
	uint64_t mode;
	int64_t size;
	int64_t mtime_ns;
	int64_t ctime_ns;
	int64_t err; /* there is none: why */
};
struct sl_cert_file_id sl_cert_file_look(const char *path);
bool sl_cert_file_is_same(const struct sl_cert_file_id *a, const struct sl_cert_file_id *b);

struct sl_cert_file {
	struct sl_cert_file_id id;
	char *bytes; /* owned, wiped at the end; NULL: not read */
	size_t len;
};
void sl_cert_file_done(struct sl_cert_file *file);

/*
 * Reads a regular file, also through links, of at most SL_CERT_FILE_MAX bytes. `is_key`: when a
 * key is in it, nobody but its owner and its group may read it. -errno with what is wrong, and what
 * to do, in `why`, -EACCES for want of rights alone; ret->id is known also then.
 */
SL_MUST_CHECK int sl_cert_file_read(const char *path, bool is_key, struct sl_cert_file *ret,
				    struct sl_str *why);

#endif
