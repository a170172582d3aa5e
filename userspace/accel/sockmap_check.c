/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The start-up test: one connection of ours through the engine, over the loopback interface, with
 * the part of the daemon played here. What is sent is a pattern, so that the receiver knows each
 * byte by its place.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "accel/sockmap_impl.h"
#include "base/clock.h"

#define DEADLINE_US 2000000
#define CONN_ID UINT64_MAX
#define SOME 1000
#define LIMIT (32u << 10)
#define SMALL_BUFFER (16 << 10)
#define TOO_MUCH (8u << 20) /* with the limit and such buffers nothing like it fits in */

/* client <-> in, out <-> server: `in` and `out` are what a proxy has. */
enum end {
	CLIENT = 0,
	IN,
	OUT,
	SERVER,
	END_COUNT_,
};

struct check {
	struct sl_sockmap *s;
	struct sl_str *report;
	const char *step;
	uint64_t deadline_us;
	int fd[END_COUNT_];
	uint64_t sent[END_COUNT_]; /* by an end, counted from the start */
	uint64_t got[END_COUNT_];
	uint64_t written0[END_COUNT_]; /* written() when nothing had been */
	uint64_t relayed;              /* by us, from `in` to `out` */
	uint32_t pair;
	bool is_joined;
};

static void check_done(struct check *c)
{
	if (c->is_joined)
		sl_sockmap_leave(c->s, c->pair, CONN_ID);
	for (int i = 0; i < END_COUNT_; i++)
		sl_closep(&c->fd[i]);
}

SL_PRINTF(3, 4)
static int failed(const struct check *c, int err, const char *fmt, ...)
{
	va_list ap;

	sl_str_addf(c->report, "the self-test failed at %s: ", c->step);
	va_start(ap, fmt);
	sl_str_addv(c->report, fmt, ap);
	va_end(ap);
	return err;
}

static int failed_call(const struct check *c, const char *call)
{
	int err = -errno;

	return failed(c, err, "%s: %s", call, strerror(-err));
}

/* A moment, or -ETIME. */
static int nap(const struct check *c)
{
	if (sl_clock_us() > c->deadline_us)
		return -ETIME;
	(void)poll(NULL, 0, 1);
	return 0;
}

static const struct sl_sockmap_slot *slot_of(const struct check *c, enum end end)
{
	return &sl_sockmap_slots(c->s)[2 * c->pair + (end == OUT)];
}

#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_ACQUIRE)

/* ---- sockets ---- */

static int new_socket(void)
{
	const int size = SMALL_BUFFER;
	_cleanup_fd_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0 ||
			setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) < 0))
		return -1;
	return SL_TAKE_FD(fd);
}

static int listen_on_loopback(const struct check *c, struct sockaddr_in *ret_addr, int *ret_fd)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct ifreq lo = { .ifr_name = "lo" };
	socklen_t size = sizeof(addr);
	_cleanup_fd_ int fd = new_socket();

	if (fd < 0)
		return failed_call(c, "socket");
	if (ioctl(fd, SIOCGIFFLAGS, &lo) == 0 && !(lo.ifr_flags & IFF_UP))
		return failed(c, -ENETDOWN, "the loopback interface is down");
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return failed_call(c, "bind");
	if (listen(fd, 8) < 0 || getsockname(fd, (struct sockaddr *)&addr, &size) < 0)
		return failed_call(c, "listen");
	*ret_addr = addr;
	*ret_fd = SL_TAKE_FD(fd);
	return 0;
}

/* Whoever else comes to the port is sent away. */
static int accept_from(const struct check *c, int listener, int connected, int *ret_fd)
{
	struct sockaddr_in want;
	struct sockaddr_in from;
	socklen_t size = sizeof(want);
	int r = 0;

	if (getsockname(connected, (struct sockaddr *)&want, &size) < 0)
		return failed_call(c, "getsockname");
	while (r == 0) {
		_cleanup_fd_ int fd = -1;

		size = sizeof(from);
		fd = accept4(listener, (struct sockaddr *)&from, &size,
			     SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0 && from.sin_port == want.sin_port &&
		    from.sin_addr.s_addr == want.sin_addr.s_addr) {
			*ret_fd = SL_TAKE_FD(fd);
			return 0;
		}
		r = fd < 0 ? nap(c) : 0;
	}
	return failed(c, r, "a connection over the loopback interface does not come about");
}

static int connect_to(const struct check *c, int listener, const struct sockaddr_in *addr,
		      int *ret_connected, int *ret_accepted)
{
	_cleanup_fd_ int fd = new_socket();
	int r;

	if (fd < 0)
		return failed_call(c, "socket");
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 && errno != EINPROGRESS)
		return failed_call(c, "connect");
	r = accept_from(c, listener, fd, ret_accepted);
	if (r == 0)
		*ret_connected = SL_TAKE_FD(fd);
	return r;
}

static int cookie_of(int fd, uint64_t *ret)
{
	socklen_t size = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret, &size) < 0 ? -errno : 0;
}

/* Before the FIN: what was given to a socket, by us or by the kernel, less a constant. */
static int written(int fd, uint64_t *ret)
{
	struct tcp_info before = { 0 };
	struct tcp_info info = { 0 };
	int waiting = 0;

	do {
		socklen_t size = sizeof(info);

		before = info;
		if (ioctl(fd, SIOCOUTQ, &waiting) < 0 ||
		    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
			return -errno;
	} while (info.tcpi_bytes_acked != before.tcpi_bytes_acked);
	*ret = info.tcpi_bytes_acked + (unsigned)waiting;
	return 0;
}

/* ---- bytes ---- */

static uint8_t pattern(uint64_t at)
{
	return (uint8_t)((at * 0x9e3779b97f4a7c15u) >> 56);
}

/* At most `n`; how many is in *ret. */
static int send_some(struct check *c, enum end end, size_t n, size_t *ret)
{
	uint8_t buf[4096];
	ssize_t done;

	if (n > sizeof(buf))
		n = sizeof(buf);
	for (size_t i = 0; i < n; i++)
		buf[i] = pattern(c->sent[end] + i);
	done = send(c->fd[end], buf, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (done < 0 && errno != EAGAIN)
		return failed_call(c, "send");
	*ret = done < 0 ? 0 : (size_t)done;
	c->sent[end] += *ret;
	return 0;
}

static int send_all(struct check *c, enum end end, size_t n)
{
	while (n > 0) {
		size_t done = 0;
		int r = send_some(c, end, n, &done);

		if (r < 0)
			return r;
		n -= done;
		if (done == 0 && nap(c) < 0)
			return failed(c, -ETIME, "nothing can be sent");
	}
	return 0;
}

/* Takes what is there: 1, nothing: 0. */
static int receive_some(struct check *c, enum end end)
{
	uint8_t buf[4096];
	ssize_t n = recv(c->fd[end], buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN ? 0 : failed_call(c, "recv");
	if (n == 0)
		return failed(c, -EPIPE, "the stream ended after %llu bytes",
			      (unsigned long long)c->got[end]);
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] != pattern(c->got[end] + (uint64_t)i))
			return failed(c, -EBADMSG, "byte %llu is another one",
				      (unsigned long long)c->got[end] + (uint64_t)i);
	c->got[end] += (uint64_t)n;
	return 1;
}

/* All that `from` has sent. */
static int receive_all(struct check *c, enum end end, enum end from)
{
	while (c->got[end] < c->sent[from]) {
		int r = receive_some(c, end);

		if (r < 0)
			return r;
		if (r == 0 && nap(c) < 0)
			return failed(c, -ETIME, "%llu of %llu bytes arrived",
				      (unsigned long long)c->got[end],
				      (unsigned long long)c->sent[from]);
	}
	return 0;
}

static int receive_end(struct check *c, enum end end)
{
	ssize_t n;
	char byte;

	while ((n = recv(c->fd[end], &byte, 1, MSG_DONTWAIT)) < 0 && errno == EAGAIN)
		if (nap(c) < 0)
			return failed(c, -ETIME, "the end of the stream does not arrive");
	return n == 0 ? 0 : failed(c, -EBADMSG, "a byte, or an error, instead of the end");
}

/* ---- the steps ---- */

static int step_connect(struct check *c)
{
	_cleanup_fd_ int listener = -1;
	struct sockaddr_in addr;
	int r = listen_on_loopback(c, &addr, &listener);

	if (r == 0)
		r = connect_to(c, listener, &addr, &c->fd[CLIENT], &c->fd[IN]);
	if (r == 0)
		r = connect_to(c, listener, &addr, &c->fd[OUT], &c->fd[SERVER]);
	return r;
}

/* What came before the engine is passed on by a look at it, which takes nothing away. */
static int step_queued(struct check *c)
{
	struct sl_sockmap_pair p = { .conn_id = CONN_ID,
				     .fd = { c->fd[IN], c->fd[OUT] },
				     .limit = LIMIT };
	char byte;
	int r = send_all(c, CLIENT, SOME);

	while (r == 0 && recv(c->fd[IN], &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0)
		if (nap(c) < 0)
			return failed(c, -ETIME, "nothing arrives at the proxy");
	for (int side = 0; r == 0 && side < 2; side++) {
		r = cookie_of(p.fd[side], &p.cookie[side]);
		if (r == 0)
			r = written(p.fd[side], &c->written0[side == 0 ? IN : OUT]);
		if (r < 0)
			return failed(c, r, "a socket is not readable: %s", strerror(-r));
	}
	if (r < 0)
		return r;
	r = sl_sockmap_join(c->s, &p, &c->pair);
	if (r < 0)
		return failed(c, r, "the kernel does not take the sockets: %s", strerror(-r));
	c->is_joined = true;
	(void)recv(c->fd[IN], &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return receive_all(c, SERVER, CLIENT);
}

static int step_redirect(struct check *c)
{
	int r = send_all(c, CLIENT, SOME);

	if (r == 0)
		r = receive_all(c, SERVER, CLIENT);
	if (r == 0)
		r = send_all(c, SERVER, SOME);
	if (r == 0)
		r = receive_all(c, CLIENT, SERVER);
	if (r < 0)
		return r;
	if (LOAD(slot_of(c, IN)->redirected) != c->sent[CLIENT] ||
	    LOAD(slot_of(c, OUT)->redirected) != c->sent[SERVER])
		return failed(c, -EBADMSG, "%llu and %llu bytes were counted, not %llu and %llu",
			      (unsigned long long)LOAD(slot_of(c, IN)->redirected),
			      (unsigned long long)LOAD(slot_of(c, OUT)->redirected),
			      (unsigned long long)c->sent[CLIENT],
			      (unsigned long long)c->sent[SERVER]);
	return 0;
}

/* Nobody reads: the limit must be met before all of this has found a place. */
static int step_limit(struct check *c)
{
	const uint64_t before = c->sent[CLIENT];

	while (LOAD(slot_of(c, IN)->state) != SL_SOCKMAP_SPILLED) {
		size_t n = 0;
		int r = send_some(c, CLIENT, SIZE_MAX, &n);

		if (r < 0)
			return r;
		if (c->sent[CLIENT] - before > TOO_MUCH)
			return failed(c, -EOVERFLOW, "%llu bytes were taken with nobody reading",
				      (unsigned long long)(c->sent[CLIENT] - before));
		if (n == 0 && nap(c) < 0)
			return failed(c, -ETIME, "it was not met after %llu bytes",
				      (unsigned long long)(c->sent[CLIENT] - before));
	}
	return 0;
}

/* All that was redirected and relayed has been given to the socket, nothing waits before it. */
static int is_drained(const struct check *c, enum end end, bool *ret)
{
	const uint64_t relayed = end == OUT ? c->relayed : 0;
	uint64_t redirected = LOAD(slot_of(c, end == OUT ? IN : OUT)->redirected);
	uint64_t now = 0;
	int r = written(c->fd[end], &now);

	*ret = now - c->written0[end] == redirected + relayed;
	return r < 0 ? failed(c, r, "a socket is not readable: %s", strerror(-r)) : 0;
}

/* As a worker does it: only behind what was redirected. Moved something: 1. */
static int relay_some(struct check *c)
{
	uint8_t buf[4096];
	bool is_clear = false;
	int r = is_drained(c, OUT, &is_clear);
	ssize_t n;
	ssize_t done;

	if (r < 0 || !is_clear)
		return r;
	n = recv(c->fd[IN], buf, sizeof(buf), MSG_DONTWAIT);
	if (n <= 0)
		return n < 0 && errno == EAGAIN ? 0 : failed_call(c, "recv");
	for (ssize_t at = 0; at < n; at += done) {
		done = send(c->fd[OUT], buf + at, (size_t)(n - at), MSG_NOSIGNAL | MSG_DONTWAIT);
		if (done < 0 && errno != EAGAIN)
			return failed_call(c, "send");
		if (done < 0)
			done = 0;
		c->relayed += (uint64_t)done;
		if (done == 0) {
			r = receive_some(c, SERVER);
			if (r < 0 || (r == 0 && nap(c) < 0))
				return r < 0 ? r : failed(c, -ETIME, "nothing can be written");
		}
	}
	return 1;
}

static int step_return(struct check *c)
{
	struct sl_sockmap_order *order = &c->s->orders[2 * c->pair];
	int r = 0;

	while (r == 0 && c->got[SERVER] < c->sent[CLIENT]) {
		int moved = relay_some(c);
		int n = moved < 0 ? moved : receive_some(c, SERVER);

		r = n < 0 ? n : 0;
		if (r == 0 && moved == 0 && n == 0 && nap(c) < 0)
			r = failed(c, -ETIME, "%llu of %llu bytes arrived",
				   (unsigned long long)c->got[SERVER],
				   (unsigned long long)c->sent[CLIENT]);
	}
	if (r < 0)
		return r;
	__atomic_store_n(&order->consumed, c->relayed, __ATOMIC_RELEASE);
	__atomic_store_n(&order->spills, LOAD(slot_of(c, IN)->spills), __ATOMIC_RELEASE);
	__atomic_store_n(&order->wish, SL_SOCKMAP_WANTS_FAST, __ATOMIC_RELEASE);
	r = send_all(c, CLIENT, SOME);
	if (r == 0)
		r = receive_all(c, SERVER, CLIENT);
	if (r == 0 && LOAD(slot_of(c, IN)->state) != SL_SOCKMAP_FAST)
		r = failed(c, -EPROTO, "the daemon has relayed %llu of %llu bytes and gets more",
			   (unsigned long long)c->relayed,
			   (unsigned long long)LOAD(slot_of(c, IN)->passed));
	return r;
}

/* The end of what `from` sends, which the proxy sees at `in` and passes on by `out`. */
static int close_half(struct check *c, enum end from, enum end in, enum end out, enum end to)
{
	struct pollfd p = { .fd = c->fd[in], .events = POLLRDHUP };
	struct tcp_info info = { 0 };
	socklen_t size = sizeof(info);
	bool is_clear = false;
	uint64_t counted;
	int r = 0;

	if (shutdown(c->fd[from], SHUT_WR) < 0)
		return failed_call(c, "shutdown");
	while (poll(&p, 1, 0) == 0)
		if (nap(c) < 0)
			return failed(c, -ETIME, "the end does not arrive at the proxy");
	if (getsockopt(c->fd[in], IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
		return failed_call(c, "TCP_INFO");
	counted = LOAD(slot_of(c, in)->redirected) + LOAD(slot_of(c, in)->passed);
	if (info.tcpi_bytes_received != counted + 1)
		return failed(c, -EBADMSG, "%llu bytes were received, %llu counted",
			      (unsigned long long)info.tcpi_bytes_received - 1,
			      (unsigned long long)counted);
	while (r == 0 && !is_clear) {
		r = is_drained(c, out, &is_clear);
		if (r == 0 && !is_clear && nap(c) < 0)
			r = failed(c, -ETIME, "bytes stay in the kernel");
	}
	if (r == 0 && shutdown(c->fd[out], SHUT_WR) < 0)
		r = failed_call(c, "shutdown");
	return r < 0 ? r : receive_end(c, to);
}

static int step_half_close(struct check *c)
{
	int r = close_half(c, CLIENT, IN, OUT, SERVER);

	if (r == 0)
		r = send_all(c, SERVER, SOME);
	if (r == 0)
		r = receive_all(c, CLIENT, SERVER);
	return r == 0 ? close_half(c, SERVER, OUT, IN, CLIENT) : r;
}

int sl_sockmap_check(struct sl_sockmap *s, struct sl_str *report)
{
	static const struct {
		const char *name;
		int (*run)(struct check *c);
	} steps[] = {
		{ "connecting", step_connect },
		{ "data that came before", step_queued },
		{ "redirecting", step_redirect },
		{ "the limit", step_limit },
		{ "the way back from the limit", step_return },
		{ "a half-close", step_half_close },
	};
	_cleanup_(check_done) struct check c = {
		.s = s,
		.report = report,
		.deadline_us = sl_clock_us() + DEADLINE_US,
		.fd = { -1, -1, -1, -1 },
	};
	int r = 0;

	_Static_assert(END_COUNT_ == 4, "all -1 at first");
	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(steps); i++) {
		c.step = steps[i].name;
		r = steps[i].run(&c);
	}
	return r;
}
