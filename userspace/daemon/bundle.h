/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_BUNDLE_H
#define SL_DAEMON_BUNDLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "conf/conf.h"

/*
 * Long texts that travel between the processes as one descriptor: a memfd
 * whose contents can change no more once it is sent.
 */
#define SL_TEXT_MAX (1u << 20)
#define SL_BUNDLE_MAX (256u << 20)

/* What "sealed" means. */
#define SL_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* Goes on where signals interrupt it. */
SL_MUST_CHECK int sl_write_all(int fd, const void *bytes, size_t n);
/* A sealed memfd with these bytes; owned by the caller. */
SL_MUST_CHECK int sl_memfd_new(const char *name, const void *bytes, size_t n, int *ret_fd);
/*
 * The bytes of a sealed memfd, followed by a NUL that is not counted. -EPERM: not sealed;
 * -EFBIG: longer than `max`. Keeps the descriptor, whose offset does not matter.
 */
SL_MUST_CHECK int sl_memfd_read(int fd, size_t max, char **ret, size_t *ret_len);

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
