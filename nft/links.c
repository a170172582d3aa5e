/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/links.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "nft/attr.h"

#define WAIT_SECONDS 5
#define BUFFER (1u << 15)

struct sl_nft_links {
	struct mnl_socket *ask;
	struct mnl_socket *watch;
	uint32_t seq;
	uint8_t buf[BUFFER];
};

static int open_sockets(struct sl_nft_links *l)
{
	const struct timeval wait = { .tv_sec = WAIT_SECONDS };

	l->ask = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!l->ask || mnl_socket_bind(l->ask, 0, MNL_SOCKET_AUTOPID) < 0 ||
	    setsockopt(mnl_socket_get_fd(l->ask), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0)
		return -errno;
	l->watch = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!l->watch || mnl_socket_bind(l->watch, RTMGRP_LINK, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	return 0;
}

int sl_nft_links_open(struct sl_nft_links **ret)
{
	struct sl_nft_links *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	r = open_sockets(l);
	if (r < 0) {
		sl_nft_links_close(l);
		return r;
	}
	*ret = l;
	return 0;
}

void sl_nft_links_close(struct sl_nft_links *l)
{
	if (!l)
		return;
	if (l->ask)
		(void)mnl_socket_close(l->ask);
	if (l->watch)
		(void)mnl_socket_close(l->watch);
	free(l);
}

int sl_nft_links_fd(const struct sl_nft_links *l)
{
	return mnl_socket_get_fd(l->watch);
}

static bool is_named(const struct nlmsghdr *nlh, char (*names)[SL_NFT_DEVICE], size_t n)
{
	struct sl_attrs attrs;
	const struct nlattr *a;

	if ((nlh->nlmsg_type != RTM_NEWLINK && nlh->nlmsg_type != RTM_DELLINK) ||
	    nlh->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifinfomsg)))
		return false;
	attrs = sl_attrs_of(nlh, sizeof(struct ifinfomsg));
	while ((a = sl_attrs_next(&attrs)))
		for (size_t i = 0; mnl_attr_get_type(a) == IFLA_IFNAME && i < n; i++)
			if (strcmp(mnl_attr_get_str(a), names[i]) == 0)
				return true;
	return false;
}

bool sl_nft_links_read(struct sl_nft_links *l, char (*names)[SL_NFT_DEVICE], size_t n)
{
	bool is_found = false;

	for (;;) {
		ssize_t len = recv(mnl_socket_get_fd(l->watch), l->buf, sizeof(l->buf), 0);
		const struct nlmsghdr *nlh = (const void *)l->buf;
		int left = (int)len;

		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0 && errno == ENOBUFS) {
			is_found = true; /* some are lost */
			continue;
		}
		if (len <= 0)
			return is_found;
		for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
			is_found |= is_named(nlh, names, n);
	}
}

int sl_nft_links_has(struct sl_nft_links *l, const char *name)
{
	uint8_t request[256];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(request);

	if (strlen(name) >= SL_NFT_DEVICE)
		return -EINVAL;
	nlh->nlmsg_type = RTM_GETLINK;
	nlh->nlmsg_flags = NLM_F_REQUEST;
	nlh->nlmsg_seq = ++l->seq;
	(void)mnl_nlmsg_put_extra_header(nlh, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(nlh, IFLA_IFNAME, name);
	if (mnl_socket_sendto(l->ask, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		ssize_t len = recv(mnl_socket_get_fd(l->ask), l->buf, sizeof(l->buf), 0);
		const struct nlmsghdr *answer = (const void *)l->buf;
		int error;

		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (!mnl_nlmsg_ok(answer, (int)len) || answer->nlmsg_seq != l->seq)
			continue;
		if (answer->nlmsg_type != NLMSG_ERROR)
			return 1;
		error = ((const struct nlmsgerr *)mnl_nlmsg_get_payload(answer))->error;
		return error == -ENODEV ? 0 : error;
	}
}
