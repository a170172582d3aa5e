/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/validate.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "io/sock.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* linux/socket.h, 5.14 */
#endif
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef TCPI_OPT_ECN
#define TCPI_OPT_ECN 8
#endif

static int get_int(int fd, int level, int name, int *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, level, name, ret, &len) < 0 ? -errno : 0;
}

static int get_cookie(int fd, int name, uint64_t *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, name, ret, &len) < 0 ? -errno : 0;
}

int sl_validator_init(struct sl_validator *v, uint32_t proxy_uid)
{
	_cleanup_fd_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t cookie;
	int r;

	if (fd < 0)
		return -errno;
	r = get_cookie(fd, SO_NETNS_COOKIE, &cookie);
	if (r < 0)
		return r;
	*v = (struct sl_validator){ .netns_cookie = cookie, .proxy_uid = proxy_uid };
	return 0;
}

/* A socket's uid is that of the process that made or accepted it. */
static bool is_theirs(const struct sl_validator *v, int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) &&
	       (v->proxy_uid == UINT32_MAX || st.st_uid == v->proxy_uid);
}

/* Other families may have a protocol of that number; only TCP tells TCP_INFO, asked next. */
static enum sl_engine_reason check_kind(const struct sl_validator *v, int fd)
{
	uint64_t netns;
	int proto;

	if (!is_theirs(v, fd) || get_int(fd, SOL_SOCKET, SO_PROTOCOL, &proto) < 0)
		return SL_WHY_NO_PRIVILEGE;
	if (proto == IPPROTO_MPTCP)
		return SL_WHY_MPTCP;
	if (proto != IPPROTO_TCP || get_cookie(fd, SO_NETNS_COOKIE, &netns) < 0 ||
	    netns != v->netns_cookie)
		return SL_WHY_NO_PRIVILEGE;
	return SL_WHY_NONE;
}

/* Another protocol lies on top of it, or a BPF program has its bytes. */
static bool has_ulp(int fd)
{
	char name[16];
	socklen_t len = sizeof(name);

	return getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &len) == 0 && len > 0;
}

static int get_tcp(int fd, struct sl_tcp_facts *ret)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return -errno;
	*ret = (struct sl_tcp_facts){
		.is_established = info.tcpi_state == TCP_ESTABLISHED,
		.has_timestamps = info.tcpi_options & TCPI_OPT_TIMESTAMPS,
		.has_sack = info.tcpi_options & TCPI_OPT_SACK,
		.has_ecn = info.tcpi_options & TCPI_OPT_ECN,
		.has_wscale = info.tcpi_options & TCPI_OPT_WSCALE,
		.snd_wscale = info.tcpi_snd_wscale,
		.rcv_wscale = info.tcpi_rcv_wscale,
		.advmss = info.tcpi_advmss,
		.pmtu = info.tcpi_pmtu,
	};
	return 0;
}

enum sl_engine_reason sl_validate_sock(const struct sl_validator *v, int fd,
				       struct sl_sock_facts *ret)
{
	struct sl_sock_facts s = { 0 };
	enum sl_engine_reason why = check_kind(v, fd);

	if (why != SL_WHY_NONE)
		return why;
	if (get_tcp(fd, &s.tcp) < 0)
		return SL_WHY_NO_PRIVILEGE;
	if (has_ulp(fd))
		return SL_WHY_NEEDS_TLS;
	if (get_cookie(fd, SO_COOKIE, &s.cookie) < 0)
		return SL_WHY_NO_PRIVILEGE;
	/* Read here, never taken from a request. */
	if (sl_sock_local(fd, &s.local) < 0 || sl_sock_peer(fd, &s.peer) < 0)
		return SL_WHY_HALF_CLOSED;
	s.tcp.is_ipv6 = sl_addr_family(&s.local) == AF_INET6;
	*ret = s;
	return SL_WHY_NONE;
}

enum sl_engine_reason sl_validate_pair(const struct sl_policy *policy, uint32_t route,
				       bool to_sockmap, const struct sl_sock_facts *client,
				       const struct sl_sock_facts *backend)
{
	uint16_t back = sl_addr_port(&backend->local);

	if (client->cookie == backend->cookie ||
	    !sl_policy_allows(policy, route, to_sockmap, &client->local, &backend->peer))
		return SL_WHY_NO_PRIVILEGE;
	if (to_sockmap)
		return SL_WHY_NONE;
	if (back < policy->port_from || back > policy->port_to)
		return SL_WHY_PORT_RANGE_FULL;
	return SL_WHY_NONE;
}
