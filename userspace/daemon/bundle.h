/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_BUNDLE_H
#define SL_DAEMON_BUNDLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/memfd.h"
#include "conf/conf.h"

/* Long texts that travel between the processes, as sealed memfds (base/memfd.h). */
#define SL_TEXT_MAX (1u << 20)
#define SL_BUNDLE_MAX (256u << 20)

/* Everything a proxy process needs to read but may not open. */
struct sl_bundle {
	struct sl_conf_sources sources;
	char *resolv_conf; /* NULL: no such file */
	size_t resolv_conf_len;
	char *hosts; /* NULL: no such file */
	size_t hosts_len;
};

void sl_bundle_done(struct sl_bundle *b);
SL_MUST_CHECK int sl_bundle_pack(const struct sl_bundle *b, int *ret_fd);
/* -EBADMSG: not a bundle. */
SL_MUST_CHECK int sl_bundle_unpack(int fd, struct sl_bundle *ret);

/* A whole file of the host, NULL when it is not there or longer than SL_TEXT_MAX. */
char *sl_bundle_read_file(const char *path, size_t *ret_len);

#endif
