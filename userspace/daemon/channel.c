/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

#define MAX_PER_TURN 64

#define SUPERVISOR (1u << SL_ROLE_SUPERVISOR)
#define PROXY (1u << SL_ROLE_PROXY)
#define BROKER (1u << SL_ROLE_BROKER)

static const struct {
	int8_t n_fds;
	uint8_t senders;
} types[] = {
	[SL_MSG_OPTIONS] = { 0, SUPERVISOR },    [SL_MSG_FACTS] = { 0, SUPERVISOR },
	[SL_MSG_CONFIG] = { 1, SUPERVISOR },     [SL_MSG_LISTENER] = { 1, SUPERVISOR },
	[SL_MSG_REMOVE] = { 0, SUPERVISOR },     [SL_MSG_HTTP] = { 1, SUPERVISOR },
	[SL_MSG_NO_HTTP] = { 0, SUPERVISOR },    [SL_MSG_CONTROL] = { 1, SUPERVISOR },
	[SL_MSG_ACCESS] = { 1, SUPERVISOR },     [SL_MSG_NO_ACCESS] = { 0, SUPERVISOR },
	[SL_MSG_PREPARE] = { 0, SUPERVISOR },    [SL_MSG_ABORT] = { 0, SUPERVISOR },
	[SL_MSG_COMMIT] = { 0, SUPERVISOR },     [SL_MSG_REPLY] = { 1, SUPERVISOR },
	[SL_MSG_DENY] = { 1, SUPERVISOR },       [SL_MSG_DENIED] = { 1, SUPERVISOR },
	[SL_MSG_DRAIN] = { 0, SUPERVISOR },      [SL_MSG_STOP] = { 0, SUPERVISOR },
	[SL_MSG_BROKER] = { 1, SUPERVISOR },     [SL_MSG_NO_BROKER] = { 0, SUPERVISOR },
	[SL_MSG_POLICY] = { 1, SUPERVISOR },     [SL_MSG_NAT] = { 1, SUPERVISOR },
	[SL_MSG_WORKER] = { 1, SUPERVISOR },     [SL_MSG_READY] = { 0, PROXY | BROKER },
	[SL_MSG_PREPARED] = { 0, PROXY },        [SL_MSG_APPLIED] = { 0, PROXY },
	[SL_MSG_FAILED] = { 0, PROXY | BROKER }, [SL_MSG_REQUEST] = { 0, PROXY },
	[SL_MSG_CHANGE] = { 1, PROXY },          [SL_MSG_NAT_STATE] = { 0, BROKER },
	[SL_MSG_MATERIALS] = { 1, SUPERVISOR },  [SL_MSG_TICKETS] = { 1, SUPERVISOR },
};
_Static_assert(SL_ARRAY_LEN(types) == SL_MSG_COUNT_, "a row per type");

struct queued {
	struct sl_list node;
	struct sl_msg msg;
	int fd;
	bool is_owned;
};

struct sl_channel {
	struct sl_io io;
	struct sl_loop *loop;
	int fd;
	enum sl_role peer;
	sl_channel_fn fn; /* NULL: ended or freed */
	void *arg;
	struct sl_list queue;
	struct sl_task free_task;
};

const char *sl_role_name(enum sl_role role)
{
	static const char *const names[SL_ROLE_COUNT_] = {
		[SL_ROLE_SUPERVISOR] = "supervisor",
		[SL_ROLE_PROXY] = "proxy",
		[SL_ROLE_BROKER] = "broker",
	};

	return names[role];
}

int sl_msg_n_fds(uint32_t type)
{
	return type >= SL_MSG_OPTIONS && type < SL_MSG_COUNT_ ? types[type].n_fds : -1;
}

bool sl_msg_may_come_from(uint32_t type, enum sl_role sender)
{
	return type < SL_MSG_COUNT_ && (types[type].senders >> sender & 1);
}

int sl_channel_pair(int ret[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret) < 0)
		return -errno;
	return 0;
}

int sl_msg_send(int sock, const struct sl_msg *msg, int fd)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)msg, .iov_len = sizeof(*msg) };
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (sl_msg_n_fds(msg->type) != (fd >= 0))
		return -EINVAL;
	if (fd >= 0) {
		struct cmsghdr *c;

		mh.msg_control = control.room;
		mh.msg_controllen = sizeof(control.room);
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	if (sendmsg(sock, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		/* Too many descriptors in flight: they will be read. */
		return errno == ETOOMANYREFS || errno == ENOBUFS ? -EAGAIN : -errno;
	return 0;
}

/* Collects every descriptor of the message, so that none leaks; keeps the first. */
static size_t take_fds(struct msghdr *mh, int *ret_first)
{
	size_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t len = c->cmsg_len - CMSG_LEN(0);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i + sizeof(int) <= len; i += sizeof(int)) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i, sizeof(int));
			if (n++ == 0)
				*ret_first = fd;
			else
				(void)close(fd);
		}
	}
	return n;
}

int sl_msg_recv(int sock, struct sl_msg *ret, int *ret_fd)
{
	struct sl_msg msg;
	struct iovec iov = { .iov_base = &msg, .iov_len = sizeof(msg) };
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(4 * sizeof(int))];
	} control;
	struct msghdr mh = { .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.room,
			     .msg_controllen = sizeof(control.room) };
	_cleanup_fd_ int fd = -1;
	ssize_t n;
	size_t n_fds;

	do
		n = recvmsg(sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	n_fds = take_fds(&mh, &fd);
	if (n == 0 && n_fds == 0)
		return -EPIPE;
	/* A descriptor the receiver has no room for is missing with MSG_CTRUNC and no error. */
	if (n != sizeof(msg) || (mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return -EBADMSG;
	if (sl_msg_n_fds(msg.type) != (int)n_fds)
		return -EBADMSG;
	msg.text[sizeof(msg.text) - 1] = '\0';
	*ret = msg;
	*ret_fd = SL_TAKE_FD(fd);
	return 0;
}

static void free_queued(struct queued *q)
{
	sl_list_remove(&q->node);
	if (q->is_owned)
		(void)close(q->fd);
	free(q);
}

static void clear_queue(struct sl_channel *ch)
{
	while (!sl_list_is_empty(&ch->queue))
		free_queued(SL_CONTAINER_OF(ch->queue.next, struct queued, node));
}

static void end(struct sl_channel *ch, int err)
{
	sl_channel_fn fn = ch->fn;

	sl_io_stop(&ch->io);
	clear_queue(ch);
	ch->fn = NULL;
	if (fn)
		fn(ch->arg, err, NULL, -1);
}

static void receive(struct sl_channel *ch)
{
	for (int i = 0; ch->fn && i < MAX_PER_TURN; i++) {
		struct sl_msg msg;
		int fd = -1;
		int r = sl_msg_recv(ch->fd, &msg, &fd);

		if (r == -EAGAIN)
			return;
		if (r == 0 && !sl_msg_may_come_from(msg.type, ch->peer)) {
			sl_closep(&fd);
			r = -EBADMSG;
		}
		if (r < 0) {
			end(ch, r);
			return;
		}
		ch->fn(ch->arg, 0, &msg, fd);
	}
}

static void flush(struct sl_channel *ch)
{
	while (!sl_list_is_empty(&ch->queue)) {
		struct queued *q = SL_CONTAINER_OF(ch->queue.next, struct queued, node);
		int r = sl_msg_send(ch->fd, &q->msg, q->fd);

		if (r == -EAGAIN)
			return;
		if (r < 0) {
			/* The reader sees the end too and reports it; what it still has is read. */
			clear_queue(ch);
			break;
		}
		free_queued(q);
	}
	(void)sl_io_change(&ch->io, SL_IO_IN);
}

static void on_ready(struct sl_io *io, uint32_t events)
{
	struct sl_channel *ch = SL_CONTAINER_OF(io, struct sl_channel, io);

	if (events & SL_IO_OUT)
		flush(ch);
	if (events & (SL_IO_IN | SL_IO_HUP | SL_IO_ERR))
		receive(ch);
}

int sl_channel_new(struct sl_loop *loop, int fd, enum sl_role peer, sl_channel_fn fn, void *arg,
		   struct sl_channel **ret)
{
	_cleanup_fd_ int owned = fd;
	_cleanup_free_ struct sl_channel *ch = calloc(1, sizeof(*ch));
	int r;

	if (!ch)
		return -ENOMEM;
	*ch = (struct sl_channel){ .loop = loop, .fd = fd, .peer = peer, .fn = fn, .arg = arg };
	sl_list_init(&ch->queue);
	r = sl_io_start(loop, &ch->io, fd, SL_IO_IN, on_ready);
	if (r < 0)
		return r;
	(void)SL_TAKE_FD(owned);
	*ret = SL_TAKE_PTR(ch);
	return 0;
}

static void free_late(struct sl_task *task)
{
	free(SL_CONTAINER_OF(task, struct sl_channel, free_task));
}

void sl_channel_free(struct sl_channel *ch)
{
	if (!ch)
		return;
	ch->fn = NULL;
	sl_io_stop(&ch->io);
	clear_queue(ch);
	sl_closep(&ch->fd);
	sl_loop_defer(ch->loop, &ch->free_task, free_late);
}

static int enqueue(struct sl_channel *ch, const struct sl_msg *msg, int fd, bool is_owned)
{
	struct queued *q = calloc(1, sizeof(*q));

	if (!q)
		return -ENOMEM;
	q->msg = *msg;
	q->fd = fd;
	q->is_owned = is_owned;
	if (sl_list_is_empty(&ch->queue))
		(void)sl_io_change(&ch->io, SL_IO_IN | SL_IO_OUT);
	sl_list_add(&ch->queue, &q->node);
	return 0;
}

int sl_channel_send(struct sl_channel *ch, const struct sl_msg *msg, int fd)
{
	int r;

	if (!ch->fn)
		return -EPIPE;
	if (sl_list_is_empty(&ch->queue)) {
		r = sl_msg_send(ch->fd, msg, fd);
		if (r != -EAGAIN)
			return r;
	}
	return enqueue(ch, msg, fd, false);
}

int sl_channel_send_owned(struct sl_channel *ch, const struct sl_msg *msg, int fd)
{
	_cleanup_fd_ int owned = fd;
	int r;

	if (!ch->fn)
		return -EPIPE;
	if (sl_list_is_empty(&ch->queue)) {
		r = sl_msg_send(ch->fd, msg, fd);
		if (r != -EAGAIN)
			return r;
	}
	r = enqueue(ch, msg, fd, fd >= 0);
	if (r == 0)
		(void)SL_TAKE_FD(owned);
	return r;
}

bool sl_channel_is_flushed(const struct sl_channel *ch)
{
	return sl_list_is_empty(&ch->queue);
}

int sl_channel_fd(const struct sl_channel *ch)
{
	return ch->fd;
}
