/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "io/sock.h"

#include <errno.h>
#include <sys/socket.h>

static int name_of(int fd, int (*get)(int, struct sockaddr *, socklen_t *), struct sl_addr *ret)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);

	if (get(fd, (struct sockaddr *)&ss, &len) < 0)
		return -errno;
	sl_addr_set(ret, (const struct sockaddr *)&ss);
	return 0;
}

int sl_sock_local(int fd, struct sl_addr *ret)
{
	return name_of(fd, getsockname, ret);
}

int sl_sock_cookie(int fd, uint64_t *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret, &len) < 0 ? -errno : 0;
}

int sl_sock_peer(int fd, struct sl_addr *ret)
{
	return name_of(fd, getpeername, ret);
}
