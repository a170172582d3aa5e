/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_IO_SOCK_H
#define SL_IO_SOCK_H

#include "base/addr.h"

/* The two names of a connection, as sl_addr_set() makes them. -ENOTCONN: reset in the meantime. */
int sl_sock_local(int fd, struct sl_addr *ret);
int sl_sock_peer(int fd, struct sl_addr *ret);
/* What the kernel calls the socket as long as it runs (SO_COOKIE). */
int sl_sock_cookie(int fd, uint64_t *ret);

#endif
