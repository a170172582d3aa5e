/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * As many as the kernel lets into a message (SCM_MAX_FD in include/net/scm.h), because those it
 * finds no room for it closes itself: see close_one().
 */
#define MOST_FDS 253

static const int8_t n_fds_of[] = {
	[SL_BROKER_HANDOVER] = 2,     [SL_BROKER_RESOLVE] = 2,       [SL_BROKER_KILL] = 0,
	[SL_BROKER_PROBE] = 0,        [SL_BROKER_RELEASE] = 0,       [SL_BROKER_ADOPTED] = 0,
	[SL_BROKER_FLUSH] = 0,        [SL_BROKER_HELLO] = 4,         [SL_BROKER_RESULT] = 0,
	[SL_BROKER_CHANGED] = 0,      [SL_BROKER_ENDED] = 0,         [SL_BROKER_ADOPT] = 0,
	[SL_BROKER_FLUSHED] = 0,      [SL_BROKER_STATUS] = 0,        [SL_BROKER_NAT_KILL] = 0,
	[SL_BROKER_NAT_TARGET] = 0,   [SL_BROKER_NAT_FLOW] = 0,      [SL_BROKER_NAT_STATUS] = 0,
	[SL_BROKER_NAT_WORRIES] = 0,  [SL_BROKER_NAT_TOLD] = 0,      [SL_BROKER_SOCKMAP_LEAVE] = 0,
	[SL_BROKER_SOCKMAP_HELD] = 0, [SL_BROKER_SOCKMAP_HELLO] = 4, [SL_BROKER_SOCKMAP_STATUS] = 0,
	[SL_BROKER_DIFF] = 0,         [SL_BROKER_DIFF_TEXT] = 0,     [SL_BROKER_DRIFT] = 0,
};
_Static_assert(SL_ARRAY_LEN(n_fds_of) == SL_BROKER_TYPE_COUNT_, "a number per type");

/* ---- checks ---- */

int sl_broker_n_fds(uint32_t type)
{
	return type >= SL_BROKER_HANDOVER && type < SL_BROKER_TYPE_COUNT_ ? n_fds_of[type] : -1;
}

bool sl_broker_is_request(uint32_t type)
{
	return (type >= SL_BROKER_HANDOVER && type <= SL_BROKER_FLUSH) ||
	       type == SL_BROKER_NAT_KILL || type == SL_BROKER_NAT_TARGET ||
	       type == SL_BROKER_SOCKMAP_LEAVE || type == SL_BROKER_SOCKMAP_HELD ||
	       type == SL_BROKER_DIFF;
}

static bool is_ip(const struct sl_addr *a)
{
	return sl_addr_family(a) == AF_INET || sl_addr_family(a) == AF_INET6;
}

static bool is_ip_or_none(const struct sl_addr *a)
{
	return sl_addr_family(a) == AF_UNSPEC || is_ip(a);
}

static bool is_handover(const struct sl_broker_handover *h)
{
	return h->is_frozen <= 1 && h->to_sockmap <= 1 && is_ip_or_none(&h->client) &&
	       is_ip_or_none(&h->via);
}

static bool is_result(const struct sl_broker_result *r)
{
	return r->why > SL_WHY_NONE && r->why < SL_WHY_COUNT_ && r->is_final <= 1 &&
	       r->has_holes <= 1;
}

/* Each connection is of one family; the two of a flow need not be of the same. */
static bool is_flow(const struct sl_broker_flow *f)
{
	return is_ip(&f->client) && sl_addr_family(&f->client) == sl_addr_family(&f->front) &&
	       is_ip(&f->back) && sl_addr_family(&f->back) == sl_addr_family(&f->backend);
}

static bool is_status(const struct sl_broker_status *s)
{
	return s->is_on <= 1 && s->why < SL_WHY_COUNT_ && memchr(s->text, '\0', sizeof(s->text));
}

static bool is_sockmap_status(const struct sl_broker_sockmap_status *s)
{
	return s->is_on <= 1 && s->why < SL_WHY_COUNT_ && memchr(s->text, '\0', sizeof(s->text));
}

static bool is_text(const char *text, size_t size)
{
	return text[0] && memchr(text, '\0', size);
}

static bool is_nat_target(const struct sl_broker_nat_target *t)
{
	return is_text(t->route, sizeof(t->route)) && is_text(t->target, sizeof(t->target));
}

static bool is_nat_flow(const struct sl_broker_nat_flow *f)
{
	sa_family_t family = sl_addr_family(&f->client);

	return is_text(f->route, sizeof(f->route)) && is_ip(&f->client) &&
	       family == sl_addr_family(&f->front) && family == sl_addr_family(&f->backend) &&
	       f->is_udp <= 1 && f->is_over <= 1 && f->is_adopted <= 1 && f->is_established <= 1 &&
	       f->is_rough <= 1 && f->reason < SL_REASON_COUNT_;
}

/* Of a text of at most `max` bytes. */
static bool is_part(const struct sl_broker_part *w, uint32_t size, uint32_t max)
{
	size_t n;

	if (size > max || w->at % sizeof(w->text) != 0 || (w->at > 0 && w->at >= size))
		return false;
	n = size - w->at < sizeof(w->text) ? size - w->at : sizeof(w->text);
	for (size_t i = 0; i < sizeof(w->text); i++) {
		uint8_t c = (uint8_t)w->text[i];

		if (i < n ? (c < ' ' && c != '\n') || c == 0x7f : c != 0)
			return false;
	}
	return true;
}

/* What every datagram has: one size, a known type, the descriptors of the type. */
static int read_head(const void *bytes, size_t n, size_t n_fds, struct sl_broker_msg *ret)
{
	int want;

	if (n != sizeof(*ret))
		return -EBADMSG;
	memcpy(ret, bytes, sizeof(*ret));
	want = sl_broker_n_fds(ret->type);
	return want >= 0 && (size_t)want == n_fds ? 0 : -EBADMSG;
}

int sl_broker_check_request(const void *bytes, size_t n, size_t n_fds)
{
	struct sl_broker_msg msg;
	bool good = false;

	if (read_head(bytes, n, n_fds, &msg) < 0 || !sl_broker_is_request(msg.type))
		return -EBADMSG;
	if (msg.type == SL_BROKER_HANDOVER || msg.type == SL_BROKER_RESOLVE)
		good = is_handover(&msg.handover);
	else if (msg.type == SL_BROKER_ADOPTED)
		good = msg.flag <= 2;
	else if (msg.type == SL_BROKER_NAT_TARGET)
		good = msg.flag <= 1 && is_nat_target(&msg.nat_target);
	else
		good = true; /* KILL, PROBE, RELEASE, FLUSH, NAT_KILL, SOCKMAP_*, DIFF: any id;
				whose it is, the server knows */
	return good ? 0 : -EBADMSG;
}

int sl_broker_check_reply(const void *bytes, size_t n, size_t n_fds)
{
	struct sl_broker_msg msg;
	bool good = false;

	if (read_head(bytes, n, n_fds, &msg) < 0 || sl_broker_is_request(msg.type))
		return -EBADMSG;
	if (msg.type == SL_BROKER_RESULT)
		good = is_result(&msg.result);
	else if (msg.type == SL_BROKER_ENDED)
		good = msg.ended.how <= SL_BROKER_END_KILLED;
	else if (msg.type == SL_BROKER_ADOPT)
		good = is_flow(&msg.flow);
	else if (msg.type == SL_BROKER_STATUS)
		good = is_status(&msg.status);
	else if (msg.type == SL_BROKER_NAT_FLOW)
		good = is_nat_flow(&msg.nat_flow);
	else if (msg.type == SL_BROKER_NAT_STATUS)
		good = msg.nat_status.is_on <= 1 &&
		       memchr(msg.nat_status.text, '\0', sizeof(msg.nat_status.text));
	else if (msg.type == SL_BROKER_NAT_WORRIES)
		good = is_part(&msg.nat_worries, msg.flag, SL_BROKER_WORRIES_MAX);
	else if (msg.type == SL_BROKER_DIFF_TEXT)
		good = is_part(&msg.diff_text, msg.flag, SL_BROKER_DIFF_MAX);
	else if (msg.type == SL_BROKER_SOCKMAP_STATUS)
		good = is_sockmap_status(&msg.sockmap_status);
	else
		good = true; /* HELLO, CHANGED, FLUSHED, NAT_TOLD, SOCKMAP_HELLO, DRIFT */
	return good ? 0 : -EBADMSG;
}

/* ---- which worker ---- */

/* FNV-1a (Fowler, Noll, Vo); nobody gains by aiming at a worker. */
static uint32_t mix(uint32_t hash, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ p[i]) * UINT32_C(16777619);
	return hash;
}

unsigned sl_broker_nat_worker(const struct sl_broker_nat_flow *f, unsigned n_workers)
{
	const struct sl_addr *const addrs[] = { &f->client, &f->front, &f->backend };
	uint32_t hash = mix(UINT32_C(2166136261), &f->is_udp, sizeof(f->is_udp));

	for (size_t i = 0; i < SL_ARRAY_LEN(addrs); i++) {
		uint16_t port = sl_addr_port(addrs[i]);
		uint8_t ip[16];

		hash = mix(hash, ip, sl_addr_ip_bytes(addrs[i], ip));
		hash = mix(hash, &port, sizeof(port));
	}
	return (hash ^ hash >> 16) % n_workers;
}

/* ---- sending and receiving ---- */

int sl_broker_send(int sock, const struct sl_broker_msg *msg, const int *fds, size_t n_fds)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)msg, .iov_len = sizeof(*msg) };
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(SL_BROKER_MAX_FDS * sizeof(int))];
	} control = { 0 };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	bool is_request = sl_broker_is_request(msg->type);
	ssize_t n;

	if ((is_request ? sl_broker_check_request(msg, sizeof(*msg), n_fds)
			: sl_broker_check_reply(msg, sizeof(*msg), n_fds)) < 0)
		return -EINVAL;
	if (n_fds > 0) {
		struct cmsghdr *c;

		mh.msg_control = control.room;
		mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	do
		n = sendmsg(sock, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return 0;
	if (errno == ETOOMANYREFS || errno == ENOBUFS) /* they will be read */
		return -EAGAIN;
	return errno == ECONNRESET ? -EPIPE : -errno;
}

/*
 * Closing the last descriptor of a socket with SO_LINGER waits for its peer, whatever O_NONBLOCK
 * says, and whoever sent it decides that: so it is taken off. What makes it close with a RST stays.
 */
static void never_wait(int fd)
{
	struct linger l = { 0 };
	socklen_t len = sizeof(l);

	if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &len) < 0 || !l.l_onoff || l.l_linger == 0)
		return; /* also ENOTSOCK */
	l.l_onoff = 0;
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

static void close_one(int fd)
{
	never_wait(fd);
	(void)close(fd);
}

void sl_broker_close_fds(int fds[SL_BROKER_MAX_FDS])
{
	for (size_t i = 0; i < SL_BROKER_MAX_FDS; i++) {
		if (fds[i] >= 0)
			close_one(fds[i]);
		fds[i] = -1;
	}
}

/* What one call of recvmsg() has brought. */
struct datagram {
	struct sl_broker_msg msg;
	ssize_t n; /* bytes of it */
	size_t n_fds;
	size_t n_control; /* bytes of control data */
	int flags;
	int fds[SL_BROKER_MAX_FDS]; /* the first ones; what was beyond is closed */
};

static void take_fds(struct msghdr *mh, struct datagram *d)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t len = c->cmsg_len - CMSG_LEN(0);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i + sizeof(int) <= len; i += sizeof(int), d->n_fds++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i, sizeof(int));
			if (d->n_fds < SL_BROKER_MAX_FDS)
				d->fds[d->n_fds] = fd;
			else
				close_one(fd);
		}
	}
}

static int receive(int sock, struct datagram *d)
{
	struct iovec iov = { .iov_base = &d->msg, .iov_len = sizeof(d->msg) };
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(MOST_FDS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct msghdr mh = { .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.room,
			     .msg_controllen = sizeof(control.room) };
	bool was_reset = false;

	d->n_fds = 0;
	memset(d->fds, -1, sizeof(d->fds));
	while ((d->n = recvmsg(sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) < 0) {
		/*
		 * Once: the other side closed with something unread. What it had sent before that
		 * is still there and comes next, and then the end.
		 */
		if (errno == ECONNRESET && !was_reset)
			was_reset = true;
		else if (errno != EINTR)
			return errno == ECONNRESET ? -EPIPE : -errno;
	}
	d->flags = mh.msg_flags;
	d->n_control = mh.msg_controllen;
	take_fds(&mh, d);
	return 0;
}

/* A good request otherwise; there is room for more than any has, so it is not the sender's fault.
 */
static bool lacks_fds(const struct datagram *d)
{
	int n = d->n == sizeof(d->msg) ? sl_broker_n_fds(d->msg.type) : -1;

	return n > 0 && d->n_fds < (size_t)n &&
	       sl_broker_check_request(&d->msg, (size_t)d->n, (size_t)n) == 0;
}

int sl_broker_recv(int sock, bool requests, struct sl_broker_msg *ret, int fds[SL_BROKER_MAX_FDS])
{
	struct datagram d;
	int r = receive(sock, &d);

	memset(fds, -1, SL_BROKER_MAX_FDS * sizeof(fds[0]));
	if (r < 0)
		return r;
	if (d.n == 0 && d.n_fds == 0)
		return -EPIPE;
	/* A descriptor the process has no room for is missing, with MSG_CTRUNC and no error. */
	if (d.flags & MSG_CTRUNC)
		r = requests && !(d.flags & MSG_TRUNC) && lacks_fds(&d) ? -EMFILE : -EBADMSG;
	else if (d.flags & MSG_TRUNC)
		r = -EBADMSG;
	else if (requests)
		r = sl_broker_check_request(&d.msg, (size_t)d.n, d.n_fds);
	else
		r = sl_broker_check_reply(&d.msg, (size_t)d.n, d.n_fds);
	if (r == 0 || r == -EMFILE)
		*ret = d.msg;
	if (r < 0) {
		sl_broker_close_fds(d.fds);
		return r;
	}
	memcpy(fds, d.fds, sizeof(d.fds));
	return 0;
}

void sl_broker_hang_up(int sock)
{
	const int on = 1;
	struct datagram d;

	/* Each message, an empty one too, then comes with a sender; the end does not. */
	(void)setsockopt(sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	(void)shutdown(sock, SHUT_RDWR); /* no more can be sent, so the loop ends */
	while (receive(sock, &d) == 0 && (d.n > 0 || d.n_control > 0))
		sl_broker_close_fds(d.fds);
	(void)close(sock);
}
