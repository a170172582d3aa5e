/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "io/ifwatch.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/log.h"

/* What the kernel uses for a part of a dump at most. */
#define MESSAGE_MAX 32768
/* Of messages in one turn; the rest comes in the next. */
#define PER_TURN 256

struct sl_ifwatch {
	struct sl_io io;
	struct sl_loop *loop;
	int fd;
	sl_ifwatch_fn fn;
	void *arg;
	struct sl_task free_task;
	_Alignas(NLMSG_ALIGNTO) char buf[MESSAGE_MAX];
};

static int ask_for_all(const struct sl_ifwatch *w)
{
	const struct {
		struct nlmsghdr head;
		struct ifinfomsg info;
	} request = { .head = { .nlmsg_len = sizeof(request),
				.nlmsg_type = RTM_GETLINK,
				.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		      .info = { .ifi_family = AF_UNSPEC } };

	return send(w->fd, &request, sizeof(request), 0) < 0 ? -errno : 0;
}

static void on_link(const struct sl_ifwatch *w, const struct nlmsghdr *h)
{
	const struct ifinfomsg *info = NLMSG_DATA(h);

	/* A port that leaves a bridge is a deleted link of family AF_BRIDGE. */
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*info)) || info->ifi_family != AF_UNSPEC ||
	    info->ifi_index <= 0)
		return;
	w->fn(w->arg, h->nlmsg_type == RTM_NEWLINK ? SL_IF_HERE : SL_IF_GONE,
	      (unsigned)info->ifi_index);
}

static void on_messages(const struct sl_ifwatch *w, size_t n)
{
	unsigned len = (unsigned)n;

	for (const struct nlmsghdr *h = (const void *)w->buf; NLMSG_OK(h, len);
	     h = NLMSG_NEXT(h, len))
		if (h->nlmsg_type == RTM_NEWLINK || h->nlmsg_type == RTM_DELLINK)
			on_link(w, h);
}

/* 0: something was there; -EAGAIN: nothing is. */
static int receive_one(struct sl_ifwatch *w)
{
	struct sockaddr_nl from = { 0 };
	struct iovec iov = { .iov_base = w->buf, .iov_len = sizeof(w->buf) };
	struct msghdr mh = {
		.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1
	};
	ssize_t n = recvmsg(w->fd, &mh, MSG_DONTWAIT);

	if (n < 0 && errno == ENOBUFS) {
		w->fn(w->arg, SL_IF_LOST, 0);
		return ask_for_all(w);
	}
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (from.nl_pid == 0) /* the kernel; other programs may send here, too */
		on_messages(w, (size_t)n);
	return 0;
}

static void on_ready(struct sl_io *io, uint32_t events)
{
	struct sl_ifwatch *w = SL_CONTAINER_OF(io, struct sl_ifwatch, io);
	int r = 0;

	(void)events;
	for (int i = 0; r == 0 && i < PER_TURN; i++)
		r = receive_one(w);
	if (r < 0 && r != -EAGAIN) {
		(void)sl_warn(r, "cannot follow interfaces that come and go any more");
		sl_io_stop(&w->io);
	}
	w->fn(w->arg, SL_IF_SETTLED, 0);
}

static int start(struct sl_ifwatch *w)
{
	const struct sockaddr_nl us = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };
	int r;

	w->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (w->fd < 0 || bind(w->fd, (const struct sockaddr *)&us, sizeof(us)) < 0)
		return -errno;
	r = ask_for_all(w);
	/* The kernel writes the next part of a dump when one is read: nothing is waited for. */
	while (r == 0)
		r = receive_one(w);
	return r == -EAGAIN ? sl_io_start(w->loop, &w->io, w->fd, SL_IO_IN, on_ready) : r;
}

int sl_ifwatch_new(struct sl_loop *loop, sl_ifwatch_fn fn, void *arg, struct sl_ifwatch **ret)
{
	struct sl_ifwatch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	*w = (struct sl_ifwatch){ .loop = loop, .fd = -1, .fn = fn, .arg = arg };
	r = start(w);
	if (r < 0) {
		sl_closep(&w->fd);
		free(w);
		return r;
	}
	fn(arg, SL_IF_SETTLED, 0);
	*ret = w;
	return 0;
}

static void free_late(struct sl_task *task)
{
	free(SL_CONTAINER_OF(task, struct sl_ifwatch, free_task));
}

void sl_ifwatch_free(struct sl_ifwatch *w)
{
	if (!w)
		return;
	sl_io_stop(&w->io);
	sl_closep(&w->fd);
	sl_loop_defer(w->loop, &w->free_task, free_late);
}
