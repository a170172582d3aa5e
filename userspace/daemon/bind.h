/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_BIND_H
#define SL_DAEMON_BIND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/addr.h"
#include "base/cleanup.h"
#include "base/str.h"

/*
 * Listening sockets: close-on-exec, non-blocking. What accepted connections inherit
 * (TCP_NODELAY, keep-alive) is set here once instead of once per connection.
 */

/*
 * Binds and listens on `ip` (AF_UNSPEC: every address, IPv4 and IPv6 through one socket,
 * IPv4 alone where the host has no IPv6) and `port`. `shares_port`: other sockets of this
 * process on the port have sl_bind_share() set and will be closed soon.
 */
SL_MUST_CHECK int sl_bind_tcp(const struct sl_addr *ip, uint16_t port, int backlog,
			      bool shares_port, int *ret_fd);

/* Lets one more socket of the same user bind to the port of this one, or no longer. */
int sl_bind_share(int fd, bool on);

/* A new backlog for a socket that listens already. */
int sl_bind_set_backlog(int fd, int backlog);

/* True when a socket (of whatever process) listens on this address and port. */
bool sl_bind_is_taken(const struct sl_addr *ip, uint16_t port);

/* The control socket; replaces whatever is at `path`. `gid` (gid_t)-1: group unchanged. */
SL_MUST_CHECK int sl_bind_control(const char *path, gid_t gid, int *ret_fd);

/* "192.0.2.1:80", "[::]:80" for every address: what an operator looks for in `ss`. */
const char *sl_bind_name(const struct sl_addr *ip, uint16_t port, char buf[SL_ADDR_TEXT]);

/* Appends the error of a bind and what to do about it, as one line without its end. */
void sl_bind_explain(struct sl_str *out, int err, uint16_t port);

#endif
