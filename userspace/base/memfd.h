/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BASE_MEMFD_H
#define SL_BASE_MEMFD_H

#include <fcntl.h>
#include <stddef.h>

#include "base/cleanup.h"

/*
 * What travels between the processes as one descriptor: a memfd whose contents can change no more
 * once it is sent.
 */

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

#endif
