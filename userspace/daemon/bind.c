/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/bind.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* A Unix socket with a full queue refuses at once; a crowd of idle clients must not do that. */
#define CONTROL_BACKLOG 1024

static int set_opt(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* Ordered as they must be set; all of them are inherited by accepted sockets. */
static int set_options(int fd, bool is_v6, bool is_dual)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ SOL_SOCKET, SO_REUSEADDR, 1 },    { SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_NODELAY, 1 },    { IPPROTO_TCP, TCP_KEEPIDLE, 60 },
		{ IPPROTO_TCP, TCP_KEEPINTVL, 15 }, { IPPROTO_TCP, TCP_KEEPCNT, 5 },
		{ SOL_SOCKET, SO_OOBINLINE, 1 }, /* urgent bytes stay in the stream */
	};

	for (size_t i = 0; i < SL_ARRAY_LEN(options); i++) {
		int r = set_opt(fd, options[i].level, options[i].name, options[i].value);

		if (r < 0)
			return r;
	}
	return is_v6 ? set_opt(fd, IPPROTO_IPV6, IPV6_V6ONLY, !is_dual) : 0;
}

static int open_bound(const struct sl_addr *at, bool is_dual, bool shares_port, int *ret)
{
	bool is_v6 = sl_addr_family(at) == AF_INET6;
	_cleanup_fd_ int fd =
		socket(sl_addr_family(at), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = set_options(fd, is_v6, is_dual);
	if (r < 0)
		return r;
	if (shares_port) {
		r = sl_bind_share(fd, true);
		if (r < 0)
			return r;
	}
	if (bind(fd, &at->sa, sl_addr_len(at)) < 0)
		return -errno;
	*ret = SL_TAKE_FD(fd);
	return 0;
}

static struct sl_addr any_of(sa_family_t family, uint16_t port)
{
	struct sl_addr a;

	memset(&a, 0, sizeof(a));
	a.sa.sa_family = family;
	sl_addr_set_port(&a, port);
	return a;
}

static int open_for(const struct sl_addr *ip, uint16_t port, bool shares_port, int *ret)
{
	struct sl_addr at;
	int r;

	if (sl_addr_family(ip) != AF_UNSPEC) {
		at = *ip;
		sl_addr_set_port(&at, port);
		return open_bound(&at, false, shares_port, ret);
	}
	at = any_of(AF_INET6, port);
	r = open_bound(&at, true, shares_port, ret);
	if (r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL) {
		at = any_of(AF_INET, port);
		r = open_bound(&at, false, shares_port, ret);
	}
	return r;
}

int sl_bind_tcp(const struct sl_addr *ip, uint16_t port, int backlog, bool shares_port, int *ret_fd)
{
	_cleanup_fd_ int fd = -1;
	int r = open_for(ip, port, shares_port, &fd);

	if (r < 0)
		return r;
	if (listen(fd, backlog) < 0)
		return -errno;
	*ret_fd = SL_TAKE_FD(fd);
	return 0;
}

int sl_bind_share(int fd, bool on)
{
	return set_opt(fd, SOL_SOCKET, SO_REUSEPORT, on);
}

int sl_bind_set_backlog(int fd, int backlog)
{
	return listen(fd, backlog) < 0 ? -errno : 0;
}

/* Looks for a listening socket of this port in one of the kernel's tables. */
static bool is_listed(const char *path, uint16_t port)
{
	FILE *f = fopen(path, "re");
	char line[512];
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		unsigned at, state;

		if (sscanf(line, " %*u: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x", &at, &state) == 2)
			found = at == port && state == TCP_LISTEN;
	}
	(void)fclose(f);
	return found;
}

bool sl_bind_is_taken(const struct sl_addr *ip, uint16_t port)
{
	_cleanup_fd_ int fd = -1;

	if (open_for(ip, port, false, &fd) != -EADDRINUSE)
		return false;
	/* An outgoing connection that got this port as its own is in the way of bind() only. */
	return is_listed("/proc/thread-self/net/tcp", port) ||
	       is_listed("/proc/thread-self/net/tcp6", port);
}

int sl_bind_control(const char *path, gid_t gid, int *ret_fd)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	_cleanup_fd_ int fd = -1;
	mode_t mask;
	int r;

	if (strlen(path) >= sizeof(at.sun_path))
		return -ENAMETOOLONG;
	memcpy(at.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	/* Never open to others, not even between bind() and a chmod(). */
	mask = umask(0117);
	r = bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0 ? -errno : 0;
	(void)umask(mask);
	if (r < 0)
		return r;
	if (gid != (gid_t)-1 && lchown(path, (uid_t)-1, gid) < 0)
		return -errno;
	if (listen(fd, CONTROL_BACKLOG) < 0)
		return -errno;
	*ret_fd = SL_TAKE_FD(fd);
	return 0;
}

const char *sl_bind_name(const struct sl_addr *ip, uint16_t port, char buf[SL_ADDR_TEXT])
{
	struct sl_addr at = *ip;

	if (sl_addr_family(ip) == AF_UNSPEC)
		at = any_of(AF_INET6, port);
	sl_addr_set_port(&at, port);
	return sl_addr_format(&at, buf);
}

void sl_bind_explain(struct sl_str *out, int err, uint16_t port)
{
	char name[128];

	sl_str_adds(out, strerror_r(-err, name, sizeof(name)));
	if (err == -EADDRINUSE)
		sl_str_addf(out,
			    " (another program listens there; ss -ltnp 'sport = :%u' names it)",
			    port);
	else if (err == -EACCES && port < 1024)
		sl_str_adds(out, " (ports below 1024 need root or CAP_NET_BIND_SERVICE)");
	else if (err == -EADDRNOTAVAIL)
		sl_str_adds(out, " (no interface of this host has that address)");
	else if (err == -EMFILE || err == -ENFILE)
		sl_str_adds(out, " (raise the limit of open files: LimitNOFILE= or ulimit -n)");
}
