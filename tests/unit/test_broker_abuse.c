/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A proxy process that somebody else has taken over: it has channels to the broker and whatever
 * descriptors it can make, and speaks the protocol as badly as it likes. The broker is a process of
 * its own, as in the daemon; each abuse must be refused in time, and an honest proxy is served
 * meanwhile. Needs root; runs in a network namespace and on a bpf file system of its own.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rand.h"
#include "broker/server.h"
#include "netns.h"

#define PROXY_UID 65534
#define GENERATION 5
#define FRONT "127.0.0.1:7443"
#define BACKEND "127.0.0.2:9443"
#define FIRST_PORT 41000
#define LAST_PORT 41999
/* An answer, or the end of a channel, comes within it; so does an honest hand-over meanwhile. */
#define DEADLINE_MS 1000
#define FLOOD_RISES_MS 30000 /* on a busy machine it takes its time */
#define HONEST 0             /* channel of proxy 1; each of the others is of one more proxy */
#define CHANNELS 40

static const char *why_skipped;
static char root[] = "/tmp/sl_abuse.XXXXXX"; /* the bpf file system */

static struct {
	pid_t broker;
	int end; /* closed: the broker is to stop */
	int channel[CHANNELS];
	int front_fd; /* listeners; the front one is root's, as the supervisor's */
	int backend_fd;
	uint16_t next_port;
	uint64_t next_id;
	int next_channel;
} w = { .next_port = FIRST_PORT, .next_id = 1000, .next_channel = HONEST + 1 };

/* ---- the broker's process ---- */

static struct sl_addr addr(const char *text)
{
	struct sl_addr a = { 0 };

	if (sl_addr_parse(text, &a) < 0)
		abort();
	return a;
}

static struct sl_policy *new_policy(void)
{
	struct sl_policy *p = calloc(1, sizeof(*p));

	if (!p)
		abort();
	*p = (struct sl_policy){
		.generation = GENERATION,
		.port_from = FIRST_PORT,
		.port_to = LAST_PORT,
		.max_flows = 4096,
		.n_listens = 1,
		.n_routes = 1,
		.n_targets = 1,
		.listens = calloc(1, sizeof(*p->listens)),
		.routes = calloc(1, sizeof(*p->routes)),
		.targets = calloc(1, sizeof(*p->targets)),
		.interfaces = calloc(1, sizeof(*p->interfaces)),
	};
	if (!p->listens || !p->routes || !p->targets || !p->interfaces)
		abort();
	p->listens[0] = (struct sl_policy_listen){ addr(FRONT), 7443, 7443 };
	p->routes[0] = (struct sl_policy_route){ .name = "shop",
						 .n_targets = 1,
						 .min_port = 7443,
						 .max_port = 7443,
						 .may_packet = true };
	p->targets[0] = (struct sl_policy_target){ addr(BACKEND), 9443 };
	(void)snprintf(p->bpf_dir, sizeof(p->bpf_dir), "%s/sluice", root);
	return p;
}

static struct sl_loop *broker_loop;

static void on_end(struct sl_io *io, uint32_t events)
{
	(void)events;
	sl_io_stop(io);
	sl_loop_quit(broker_loop);
}

static int run_broker(int end, const int channels[CHANNELS])
{
	struct sl_broker_options options = { .proxy_uid = PROXY_UID };
	struct sl_broker *broker = NULL;
	struct sl_io io = { 0 };
	int r;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	r = sl_loop_new(&broker_loop);
	options.loop = broker_loop;
	if (r == 0)
		r = sl_broker_new(&options, &broker);
	if (r == 0)
		sl_broker_set_policy(broker, new_policy());
	for (unsigned i = 0; r == 0 && i < CHANNELS; i++)
		r = sl_broker_add_channel(broker, i + 1, 0, 1, channels[i]);
	if (r == 0)
		r = sl_io_start(broker_loop, &io, end, SL_IO_IN, on_end);
	if (r == 0)
		r = sl_loop_run(broker_loop);
	if (broker)
		sl_broker_stop(broker);
	sl_broker_free(broker);
	sl_loop_free(broker_loop);
	return r == 0 ? 0 : 1;
}

static void start_broker(void)
{
	int theirs[CHANNELS], pair[2], end[2];

	assert_int_equal(pipe2(end, O_CLOEXEC), 0);
	for (int i = 0; i < CHANNELS; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
		w.channel[i] = pair[0];
		theirs[i] = pair[1];
	}
	(void)fflush(NULL);
	w.broker = fork();
	assert_true(w.broker >= 0);
	if (w.broker == 0) {
		(void)close(end[1]);
		for (int i = 0; i < CHANNELS; i++)
			(void)close(w.channel[i]);
		exit(run_broker(end[0], theirs));
	}
	(void)close(end[0]);
	w.end = end[1];
	for (int i = 0; i < CHANNELS; i++)
		(void)close(theirs[i]);
}

/* ---- talking ---- */

static bool is_alive(void)
{
	return kill(w.broker, 0) == 0 && waitpid(w.broker, NULL, WNOHANG) == 0;
}

/* 0: the next reply; -ETIMEDOUT: there is none; -EPIPE: the channel is closed. */
static int next_reply(int channel, struct sl_broker_msg *ret, uint64_t until_ms)
{
	for (;;) {
		int fds[SL_BROKER_MAX_FDS];
		int r = sl_broker_recv(channel, false, ret, fds);
		uint64_t now = sl_clock_ms();
		struct pollfd p = { .fd = channel, .events = POLLIN };

		sl_broker_close_fds(fds);
		if (r != -EAGAIN)
			return r;
		if (now >= until_ms || poll(&p, 1, (int)(until_ms - now)) == 0)
			return -ETIMEDOUT;
	}
}

static int await_reply(int channel, uint32_t type, uint64_t id, struct sl_broker_msg *ret)
{
	uint64_t until = sl_clock_ms() + DEADLINE_MS;
	int r;

	do
		r = next_reply(channel, ret, until);
	while (r == 0 && (ret->type != type || ret->conn_id != id));
	return r;
}

/* One more proxy. */
static int new_channel(void)
{
	int i = w.next_channel++;

	assert_true(i < CHANNELS);
	return w.channel[i];
}

static void send_raw(int sock, const void *bytes, size_t len, const int *fds, size_t n_fds)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = len };
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(253 * sizeof(int))];
	} control = { 0 };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

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
	(void)sendmsg(sock, &mh, MSG_NOSIGNAL);
}

/* ---- connections; the inner two sockets are the proxy's ---- */

struct conn {
	uint64_t id;
	int client;
	int front;
	int back;
	int backend;
};

static int listen_on(const char *where)
{
	const struct sl_addr a = addr(where);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, &a.sa, sl_addr_len(&a)), 0);
	assert_int_equal(listen(fd, 64), 0);
	return fd;
}

static int connect_to(const char *where, uint16_t from_port)
{
	const struct sl_addr to = addr(where);
	struct sl_addr from = addr("127.0.0.1:1");
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	assert_true(fd >= 0);
	sl_addr_set_port(&from, from_port);
	if (from_port) {
		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
		assert_int_equal(bind(fd, &from.sa, sl_addr_len(&from)), 0);
	}
	assert_int_equal(connect(fd, &to.sa, sl_addr_len(&to)), 0);
	return fd;
}

static int accept_from(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* What the proxy makes is made by its user. */
static struct conn new_conn(void)
{
	struct conn c = { .id = w.next_id++ };

	c.client = connect_to(FRONT, 0);
	(void)setfsuid(PROXY_UID);
	c.front = accept_from(w.front_fd);
	c.back = connect_to(BACKEND, w.next_port++);
	(void)setfsuid(0);
	c.backend = accept_from(w.backend_fd);
	return c;
}

static void close_conn(struct conn *c)
{
	int *fds[] = { &c->client, &c->front, &c->back, &c->backend };

	for (size_t i = 0; i < SL_ARRAY_LEN(fds); i++)
		sl_closep(fds[i]);
}

static void expect(int from, int to, const char *text)
{
	struct pollfd p = { .fd = to, .events = POLLIN };
	char got[16] = { 0 };

	assert_int_equal(send(from, text, strlen(text), MSG_NOSIGNAL), strlen(text));
	assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
	assert_int_equal(recv(to, got, sizeof(got) - 1, 0), strlen(text));
	assert_string_equal(got, text);
}

static void expect_relayed(const struct conn *c)
{
	expect(c->client, c->front, "to us");
	expect(c->back, c->backend, "to it");
	expect(c->backend, c->back, "from it");
	expect(c->front, c->client, "from us");
}

static void expect_in_kernel(const struct conn *c)
{
	expect(c->client, c->backend, "hello");
	expect(c->backend, c->client, "welcome");
}

static struct sl_broker_msg request_of(enum sl_broker_type type, const struct conn *c)
{
	return (struct sl_broker_msg){ .type = type,
				       .conn_id = c->id,
				       .handover = { .generation = GENERATION } };
}

/* SL_WHY_NONE: no answer in time; SL_WHY_COUNT_: the channel has been closed. */
static enum sl_engine_reason ask_with(int channel, const struct sl_broker_msg *msg, int a, int b)
{
	const int fds[2] = { a, b };
	struct sl_broker_msg reply;
	int r;

	send_raw(channel, msg, sizeof(*msg), fds, 2);
	r = await_reply(channel, SL_BROKER_RESULT, msg->conn_id, &reply);
	if (r == -EPIPE)
		return SL_WHY_COUNT_;
	return r < 0 ? SL_WHY_NONE : (enum sl_engine_reason)reply.result.why;
}

static struct conn in_kernel(int channel)
{
	struct conn c = new_conn();
	const struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);

	assert_string_equal(sl_engine_reason_name(ask_with(channel, &msg, c.front, c.back)),
			    "eligible");
	sl_closep(&c.front);
	sl_closep(&c.back);
	expect_in_kernel(&c);
	return c;
}

/* An honest proxy hands over, in time, whatever others do; the flow ends as flows do. */
static void expect_served(void)
{
	uint64_t start = sl_clock_ms();
	struct conn c;

	assert_true(is_alive());
	c = in_kernel(w.channel[HONEST]);
	if (sl_clock_ms() - start >= DEADLINE_MS)
		fail_msg("an honest proxy had to wait");
	close_conn(&c);
}

/* ---- what the broker has open ---- */

static unsigned n_broker_fds(void)
{
	char path[64];
	unsigned n = 0;
	DIR *d;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", w.broker);
	d = opendir(path);
	assert_non_null(d);
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n;
}

/* Sockets of hand-overs stay for a moment. */
static unsigned settled_fds(void)
{
	unsigned n = n_broker_fds();

	for (uint64_t since = sl_clock_ms(); sl_clock_ms() - since < 200;) {
		struct timespec tick = { .tv_nsec = 5000000 };

		(void)nanosleep(&tick, NULL);
		if (n_broker_fds() != n) {
			n = n_broker_fds();
			since = sl_clock_ms();
		}
	}
	return n;
}

static void expect_fds(unsigned wanted)
{
	uint64_t until = sl_clock_ms() + 2 * DEADLINE_MS;

	while (n_broker_fds() != wanted && sl_clock_ms() < until) {
		struct timespec tick = { .tv_nsec = 5000000 };

		(void)nanosleep(&tick, NULL);
	}
	assert_int_equal(n_broker_fds(), wanted);
}

static void expect_closed(int channel, const char *why)
{
	uint64_t until = sl_clock_ms() + DEADLINE_MS;
	struct sl_broker_msg msg;
	int r;

	do
		r = next_reply(channel, &msg, until);
	while (r == 0);
	if (r != -EPIPE)
		fail_msg("%s: the channel is open", why);
}

/* ---- forged messages ---- */

static void test_forged_messages(void **state)
{
	static const struct {
		const char *why;
		uint32_t type;
		size_t len;
		size_t n_fds;
		uint32_t flag;
	} rows[] = {
		{ "one byte", SL_BROKER_KILL, 1, 0, 0 },
		{ "short", SL_BROKER_KILL, 255, 0, 0 },
		{ "long", SL_BROKER_KILL, 257, 0, 0 },
		{ "very long, with descriptors", SL_BROKER_HANDOVER, 60000, 2, 0 },
		{ "no type", 0, 256, 0, 0 },
		{ "a type that is none", SL_BROKER_TYPE_COUNT_, 256, 0, 0 },
		{ "a reply", SL_BROKER_HELLO, 256, 4, 0 },
		{ "no descriptors", SL_BROKER_HANDOVER, 256, 0, 0 },
		{ "one descriptor", SL_BROKER_RESOLVE, 256, 1, 0 },
		{ "three descriptors", SL_BROKER_HANDOVER, 256, 3, 0 },
		{ "253 descriptors", SL_BROKER_HANDOVER, 256, 253, 0 },
		{ "253 descriptors and nothing", SL_BROKER_HANDOVER, 0, 253, 0 },
		{ "unasked descriptors", SL_BROKER_KILL, 256, 2, 0 },
		{ "an adoption of another kind", SL_BROKER_ADOPTED, 256, 0, 3 },
		{ "a worker that flushes", SL_BROKER_FLUSH, 256, 0, 0 },
		{ "a worker that has everything looked at", SL_BROKER_DIFF, 256, 0, 0 },
	};
	static char bytes[60000];
	unsigned before;
	int fds[253];

	(void)state;
	if (why_skipped)
		skip();
	for (size_t i = 0; i < SL_ARRAY_LEN(fds); i++)
		fds[i] = STDERR_FILENO;
	before = settled_fds();
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		struct sl_broker_msg msg = { .type = rows[i].type, .flag = rows[i].flag };
		int channel = new_channel();

		memcpy(bytes, &msg, sizeof(msg));
		send_raw(channel, bytes, rows[i].len, fds, rows[i].n_fds);
		expect_closed(channel, rows[i].why);
	}
	expect_served();
	/* each channel is gone, and nothing that came along is left */
	expect_fds(before - (unsigned)SL_ARRAY_LEN(rows));
}

/* Addresses and flags that no honest proxy sends. */
static void test_forged_fields(void **state)
{
	struct sl_broker_msg msg;
	struct conn c;
	int fds[2];

	(void)state;
	if (why_skipped)
		skip();
	c = new_conn();
	fds[0] = c.front;
	fds[1] = c.back;
	for (int i = 0; i < 3; i++) {
		int channel = new_channel();

		msg = request_of(SL_BROKER_HANDOVER, &c);
		if (i == 0)
			msg.handover.client.sa.sa_family = AF_UNIX;
		else if (i == 1)
			msg.handover.via.sa.sa_family = 0xffff;
		else
			msg.handover.is_frozen = 2;
		send_raw(channel, &msg, sizeof(msg), fds, 2);
		expect_closed(channel, "a forged field");
	}
	expect_relayed(&c);
	close_conn(&c);
	expect_served();
}

/* ---- hand-overs that the configuration does not allow ---- */

static void expect_refused(int channel, const struct sl_broker_msg *msg, int a, int b,
			   const char *what)
{
	enum sl_engine_reason why = ask_with(channel, msg, a, b);

	if (why == SL_WHY_NONE || why == SL_WHY_COUNT_ || why == SL_WHY_ELIGIBLE)
		fail_msg("%s: %s", what,
			 why == SL_WHY_NONE     ? "no answer"
			 : why == SL_WHY_COUNT_ ? "the channel is closed"
						: "accepted");
}

static void test_wrong_claims(void **state)
{
	static const uint64_t generations[] = { 0, GENERATION - 1, GENERATION + 1, UINT64_MAX };
	static const uint32_t routes[] = { 1, 2, 0x7fffffff, UINT32_MAX };
	int channel, listener, elsewhere, other_front;
	struct sl_broker_msg msg;
	struct conn c;

	(void)state;
	if (why_skipped)
		skip();
	c = new_conn();
	channel = new_channel();
	for (size_t i = 0; i < SL_ARRAY_LEN(generations); i++) {
		msg = request_of(SL_BROKER_HANDOVER, &c);
		msg.handover.generation = generations[i];
		expect_refused(channel, &msg, c.front, c.back, "generation");
	}
	for (size_t i = 0; i < SL_ARRAY_LEN(routes); i++) {
		msg = request_of(SL_BROKER_HANDOVER, &c);
		msg.handover.route = routes[i];
		expect_refused(channel, &msg, c.front, c.back, "route");
	}
	/* a backend that is none, and a listener of the proxy's own on the port of the real one */
	msg = request_of(SL_BROKER_HANDOVER, &c);
	listener = listen_on("127.0.0.3:9443");
	(void)setfsuid(PROXY_UID);
	elsewhere = connect_to("127.0.0.3:9443", w.next_port++);
	(void)setfsuid(0);
	expect_refused(channel, &msg, c.front, elsewhere, "another backend");
	(void)close(elsewhere);
	(void)close(listener);
	(void)setfsuid(PROXY_UID);
	listener = listen_on("127.0.0.9:7443");
	elsewhere = connect_to("127.0.0.9:7443", 0);
	other_front = accept_from(listener);
	(void)setfsuid(0);
	expect_refused(channel, &msg, other_front, c.back, "another listener");
	(void)close(elsewhere);
	(void)close(other_front);
	(void)close(listener);
	/* a source port of ordinary programs */
	(void)setfsuid(PROXY_UID);
	elsewhere = connect_to(BACKEND, LAST_PORT + 7);
	(void)setfsuid(0);
	other_front = accept_from(w.backend_fd);
	expect_refused(channel, &msg, c.front, elsewhere, "another source port");
	(void)close(elsewhere);
	(void)close(other_front);
	expect_refused(channel, &msg, c.back, c.front, "the wrong way round");
	expect_refused(channel, &msg, c.front, c.front, "one socket twice");
	expect_refused(channel, &msg, c.client, c.backend, "the peers' own sockets");
	expect_relayed(&c);
	close_conn(&c);
	expect_served();
}

/* ---- descriptors of others ---- */

struct options {
	int repair;
	int filter; /* instructions; -1: a program that is not classic */
	int reuse;
};

static struct options options_of(int fd)
{
	struct options o = { 0 };
	socklen_t len = sizeof(o.repair);

	(void)getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &o.repair, &len);
	len = 0;
	o.filter = getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &len) < 0 ? -1 : (int)len;
	len = sizeof(o.reuse);
	(void)getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &o.reuse, &len);
	return o;
}

/* A descriptor that is not the proxy's, in either place, in either request: nothing befalls it. */
static void expect_untouched(int channel, struct conn *c, int foreign, const char *what)
{
	static const enum sl_broker_type types[] = { SL_BROKER_HANDOVER, SL_BROKER_RESOLVE };
	const struct options before = options_of(foreign);
	struct options after;

	for (size_t i = 0; i < SL_ARRAY_LEN(types); i++) {
		struct sl_broker_msg msg = request_of(types[i], c);

		msg.conn_id = w.next_id++;
		expect_refused(channel, &msg, foreign, c->back, what);
		msg.conn_id = w.next_id++;
		expect_refused(channel, &msg, c->front, foreign, what);
		msg.conn_id = w.next_id++;
		expect_refused(channel, &msg, foreign, foreign, what);
	}
	after = options_of(foreign);
	if (memcmp(&before, &after, sizeof(before)) != 0)
		fail_msg("%s: it is not as it was", what);
	expect_relayed(c);
}

static int other_netns_front(int *ret_client, int *ret_listener)
{
	int ours = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), front;

	assert_true(ours >= 0);
	assert_int_equal(enter_netns(), 0);
	(void)setfsuid(PROXY_UID);
	*ret_listener = listen_on(FRONT);
	*ret_client = connect_to(FRONT, 0);
	front = accept_from(*ret_listener);
	(void)setfsuid(0);
	assert_int_equal(setns(ours, CLONE_NEWNET), 0);
	(void)close(ours);
	return front;
}

static void test_foreign_sockets(void **state)
{
	int channel, fd, client, listener;
	struct conn c, roots;

	(void)state;
	if (why_skipped)
		skip();
	c = new_conn();
	channel = new_channel();
	expect_untouched(channel, &c, w.front_fd, "the supervisor's listener");
	/* a connection of another program of this host, which has leaked somehow */
	roots = (struct conn){ .client = connect_to(FRONT, 0) };
	roots.front = accept_from(w.front_fd);
	roots.back = connect_to(BACKEND, w.next_port++);
	roots.backend = accept_from(w.backend_fd);
	expect_untouched(channel, &c, roots.front, "another user's socket");
	expect_untouched(channel, &c, roots.back, "another user's socket");
	expect_relayed(&roots);
	close_conn(&roots);
	fd = other_netns_front(&client, &listener);
	expect_untouched(channel, &c, fd, "a socket of another namespace");
	expect(client, fd, "there");
	(void)close(fd);
	(void)close(client);
	(void)close(listener);
	(void)setfsuid(PROXY_UID);
	fd = listen_on("127.0.0.1:7444");
	(void)setfsuid(0);
	expect_untouched(channel, &c, fd, "a listener of its own");
	(void)close(fd);
	close_conn(&c);
	expect_served();
}

static void test_odd_descriptors(void **state)
{
	static const char *const what[] = { "UDP",   "unconnected", "UNIX",      "netlink",
					    "pipe",  "file",        "directory", "eventfd",
					    "epoll", "memfd",       "namespace", "O_PATH",
					    "raw" };
	int channel, fd[SL_ARRAY_LEN(what)], pipes[2];
	unsigned before;
	struct conn c;

	(void)state;
	if (why_skipped)
		skip();
	c = new_conn();
	channel = new_channel();
	before = settled_fds();
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	(void)setfsuid(PROXY_UID);
	fd[0] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	fd[2] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	fd[3] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
	(void)setfsuid(0);
	fd[4] = pipes[1];
	fd[5] = open("/dev/null", O_RDWR | O_CLOEXEC);
	fd[6] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd[7] = eventfd(0, EFD_CLOEXEC);
	fd[8] = epoll_create1(EPOLL_CLOEXEC);
	fd[9] = memfd_create("x", MFD_CLOEXEC);
	fd[10] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	fd[11] = open("/dev/null", O_PATH | O_CLOEXEC);
	fd[12] = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP);
	for (size_t i = 0; i < SL_ARRAY_LEN(what); i++) {
		assert_true(fd[i] >= 0);
		expect_untouched(channel, &c, fd[i], what[i]);
		(void)close(fd[i]);
	}
	(void)close(pipes[0]);
	close_conn(&c);
	expect_fds(before);
	expect_served();
}

/* Its own channel, sent through itself: the cycle must go when the channel does. */
static void test_channel_in_itself(void **state)
{
	struct sl_broker_msg msg;
	struct conn c;
	unsigned before;
	int channel;

	(void)state;
	if (why_skipped)
		skip();
	c = new_conn();
	before = settled_fds();
	channel = new_channel();
	for (int i = 0; i < 20; i++) {
		msg = request_of(SL_BROKER_HANDOVER, &c);
		expect_refused(channel, &msg, channel, channel, "its own channel");
	}
	(void)shutdown(channel, SHUT_RDWR);
	expect_fds(before - 1);
	close_conn(&c);
	expect_served();
}

/* ---- flows of others ---- */

static void test_flows_of_others(void **state)
{
	static const enum sl_broker_type orders[] = { SL_BROKER_KILL, SL_BROKER_RELEASE,
						      SL_BROKER_ADOPTED, SL_BROKER_PROBE };
	struct conn victim, own;
	int channel, front, back;
	struct sl_broker_msg msg;

	(void)state;
	if (why_skipped)
		skip();
	victim = new_conn();
	front = dup(victim.front);
	back = dup(victim.back);
	msg = request_of(SL_BROKER_HANDOVER, &victim);
	assert_int_equal(ask_with(w.channel[HONEST], &msg, victim.front, victim.back),
			 SL_WHY_ELIGIBLE);
	sl_closep(&victim.front);
	sl_closep(&victim.back);
	channel = new_channel();
	/* with its very sockets one is told where they are, and it stays another's */
	msg.type = SL_BROKER_RESOLVE;
	assert_int_equal(ask_with(channel, &msg, front, back), SL_WHY_ELIGIBLE);
	(void)close(front);
	(void)close(back);
	own = new_conn();
	for (uint32_t flag = 0; flag < 3; flag++) {
		for (size_t i = 0; i < SL_ARRAY_LEN(orders); i++) {
			msg = (struct sl_broker_msg){ .type = orders[i],
						      .flag = flag,
						      .conn_id = victim.id };
			send_raw(channel, &msg, sizeof(msg), NULL, 0);
		}
	}
	/* its id, with sockets of our own; the answers also show that the orders have been read */
	msg = request_of(SL_BROKER_HANDOVER, &own);
	msg.conn_id = victim.id;
	expect_refused(channel, &msg, own.front, own.back, "another proxy's id");
	msg.type = SL_BROKER_RESOLVE;
	expect_refused(channel, &msg, own.front, own.back, "another proxy's id");
	expect_in_kernel(&victim);
	expect_relayed(&own);
	/* what it is told of others is nothing, and its own can be carried still */
	msg = request_of(SL_BROKER_HANDOVER, &own);
	assert_int_equal(ask_with(channel, &msg, own.front, own.back), SL_WHY_ELIGIBLE);
	sl_closep(&own.front);
	sl_closep(&own.back);
	expect_in_kernel(&own);
	expect_in_kernel(&victim);
	close_conn(&own);
	close_conn(&victim);
	expect_served();
}

/* Copies kept after the hand-over, used, and resolved again and again. */
static void test_sockets_kept(void **state)
{
	struct sl_broker_msg msg;
	int channel, front, back;
	unsigned before;
	struct conn c;

	(void)state;
	if (why_skipped)
		skip();
	before = settled_fds();
	channel = new_channel();
	c = new_conn();
	msg = request_of(SL_BROKER_HANDOVER, &c);
	assert_int_equal(ask_with(channel, &msg, c.front, c.back), SL_WHY_ELIGIBLE);
	front = c.front;
	back = c.back;
	for (int i = 0; i < 50; i++) {
		struct linger linger = { .l_onoff = 1, .l_linger = 3 };

		msg = request_of(SL_BROKER_RESOLVE, &c);
		msg.handover.is_frozen = i % 2;
		(void)setsockopt(front, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
		(void)send(back, "injected", 8, MSG_DONTWAIT | MSG_NOSIGNAL);
		assert_int_not_equal(ask_with(channel, &msg, front, back), SL_WHY_NONE);
		msg.type = SL_BROKER_HANDOVER;
		expect_refused(channel, &msg, front, back, "once more");
	}
	(void)close(front);
	(void)close(back);
	c.front = c.back = -1;
	expect_fds(before);
	close_conn(&c);
	expect_served();
}

/* ---- floods, with an honest proxy beside them ---- */

struct flood {
	pthread_t thread;
	int channel;
	int fds[2];
	atomic_bool stop;
	atomic_ulong n;
	void (*make)(struct sl_broker_msg *msg, struct sl_rand *rand);
	size_t n_fds;
	bool is_deaf; /* never reads what is answered */
};

static void *flood(void *arg)
{
	struct flood *f = arg;
	struct sl_rand rand;

	sl_rand_seed(&rand, 7);
	while (!atomic_load(&f->stop)) {
		struct sl_broker_msg msg = { 0 }, reply;
		struct pollfd p = { .fd = f->channel,
				    .events = (short)(POLLOUT | (f->is_deaf ? 0 : POLLIN)) };
		int fds[SL_BROKER_MAX_FDS];

		f->make(&msg, &rand);
		if (sl_broker_send(f->channel, &msg, f->fds, f->n_fds) == 0) {
			f->n++;
			continue;
		}
		while (!f->is_deaf && sl_broker_recv(f->channel, false, &reply, fds) == 0)
			sl_broker_close_fds(fds);
		(void)poll(&p, 1, 10);
	}
	return NULL;
}

/* Until the honest proxy has been served so often, each time within the deadline. */
static void flood_with(struct flood *f, unsigned served)
{
	uint64_t until = sl_clock_ms() + FLOOD_RISES_MS;

	assert_int_equal(pthread_create(&f->thread, NULL, flood, f), 0);
	for (unsigned i = 0; i < served || (sl_clock_ms() < until && atomic_load(&f->n) <= 100);
	     i++)
		expect_served();
	atomic_store(&f->stop, true);
	assert_int_equal(pthread_join(f->thread, NULL), 0);
	assert_true(f->n > 100);
	assert_true(is_alive());
}

static void make_orders(struct sl_broker_msg *msg, struct sl_rand *rand)
{
	static const enum sl_broker_type types[] = { SL_BROKER_KILL, SL_BROKER_PROBE,
						     SL_BROKER_RELEASE, SL_BROKER_ADOPTED };

	msg->type = types[sl_rand_next(rand) % SL_ARRAY_LEN(types)];
	msg->conn_id = sl_rand_next(rand) % 4096;
	msg->flag = (uint32_t)(sl_rand_next(rand) % 3);
}

static void make_handovers(struct sl_broker_msg *msg, struct sl_rand *rand)
{
	msg->type = sl_rand_next(rand) % 2 ? SL_BROKER_HANDOVER : SL_BROKER_RESOLVE;
	msg->conn_id = UINT64_C(1) << 40 | sl_rand_next(rand);
	msg->handover.generation = GENERATION;
	msg->handover.route = 1; /* which is none */
}

static void test_flood_of_orders(void **state)
{
	struct flood f = { .make = make_orders };

	(void)state;
	if (why_skipped)
		skip();
	f.channel = new_channel();
	flood_with(&f, 20);
}

static void test_flood_of_handovers(void **state)
{
	struct flood f = { .make = make_handovers, .n_fds = 2 };
	unsigned before;
	struct conn c;

	(void)state;
	if (why_skipped)
		skip();
	before = settled_fds();
	c = new_conn();
	f.channel = new_channel();
	f.fds[0] = c.front;
	f.fds[1] = c.back;
	flood_with(&f, 20);
	expect_relayed(&c);
	close_conn(&c);
	expect_fds(before);
}

/* Answers pile up, until the broker stops reading that channel, and no other. */
static void test_flood_by_the_deaf(void **state)
{
	struct flood f = { .make = make_handovers, .n_fds = 2, .is_deaf = true };
	unsigned before;
	struct conn c;

	(void)state;
	if (why_skipped)
		skip();
	before = settled_fds();
	c = new_conn();
	f.channel = new_channel();
	f.fds[0] = c.front;
	f.fds[1] = c.back;
	flood_with(&f, 20);
	close_conn(&c);
	/* it dies with its channel full both ways */
	(void)shutdown(f.channel, SHUT_RDWR);
	expect_fds(before - 1);
	expect_served();
}

/* ---- sockets that make who closes them wait ---- */

/* One of the proxy's, with bytes its client does not read. */
static void make_linger(int fd)
{
	const struct linger linger = { .l_onoff = 1, .l_linger = 5 };
	static const char junk[65536];

	while (send(fd, junk, sizeof(junk), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
}

/* The broker has the last descriptor of each, by every way that leads to its closing. */
static void test_linger(void **state)
{
	enum { N = 6 };
	struct conn c[N];
	unsigned before;
	int channel[2];

	(void)state;
	if (why_skipped)
		skip();
	before = settled_fds();
	for (int i = 0; i < N; i++) {
		c[i] = new_conn();
		make_linger(c[i].front);
	}
	for (int i = 0; i < 2; i++)
		channel[i] = new_channel();
	for (int i = 0; i < N; i++) {
		struct sl_broker_msg msg =
			request_of(i % 2 ? SL_BROKER_RESOLVE : SL_BROKER_HANDOVER, &c[i]);
		int fds[20];

		for (int k = 0; k < 20; k++)
			fds[k] = c[i].back;
		fds[i < 3 ? 0 : 19] = c[i].front;
		/* refused; then surplus in a message that ends the channel; then behind that one */
		send_raw(channel[i >= 3], &msg, sizeof(msg), fds, i < 3 ? 2 : 20);
		sl_closep(&c[i].front);
		sl_closep(&c[i].back);
	}
	expect_served();
	expect_closed(channel[1], "20 descriptors");
	expect_served();
	expect_fds(before - 1);
	for (int i = 0; i < N; i++)
		close_conn(&c[i]);
}

/* ---- all ---- */

static int set_up_all(void **state)
{
	struct sl_broker_msg msg;

	(void)state;
	if (geteuid() != 0) {
		why_skipped = "not root";
		return 0;
	}
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    enter_netns() < 0) {
		why_skipped = "no namespaces of its own";
		return 0;
	}
	if (!mkdtemp(root) || mount("bpf", root, "bpf", 0, "mode=0700") < 0) {
		why_skipped = "no bpf file system";
		return 0;
	}
	w.front_fd = listen_on(FRONT);
	w.backend_fd = listen_on(BACKEND);
	start_broker();
	/* it loads its programs first */
	for (int i = 0; i < 10; i++)
		if (await_reply(w.channel[HONEST], SL_BROKER_HELLO, 0, &msg) == 0)
			return 0;
	return -1;
}

static int tear_down_all(void **state)
{
	char dir[64];
	int status = -1;

	(void)state;
	if (why_skipped) {
		print_message("skipped: %s\n", why_skipped);
		return 0;
	}
	(void)close(w.end);
	for (uint64_t until = sl_clock_ms() + 5000; sl_clock_ms() < until;) {
		struct timespec tick = { .tv_nsec = 5000000 };

		if (waitpid(w.broker, &status, WNOHANG) == w.broker)
			break;
		(void)nanosleep(&tick, NULL);
	}
	(void)snprintf(dir, sizeof(dir), "%s/sluice", root);
	/* it has lived until now, ends as it should, and leaves nothing */
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(access(dir, F_OK), -1);
	(void)umount(root);
	(void)rmdir(root);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forged_messages),   cmocka_unit_test(test_forged_fields),
		cmocka_unit_test(test_wrong_claims),      cmocka_unit_test(test_foreign_sockets),
		cmocka_unit_test(test_odd_descriptors),   cmocka_unit_test(test_channel_in_itself),
		cmocka_unit_test(test_flows_of_others),   cmocka_unit_test(test_sockets_kept),
		cmocka_unit_test(test_flood_of_orders),   cmocka_unit_test(test_flood_of_handovers),
		cmocka_unit_test(test_flood_by_the_deaf), cmocka_unit_test(test_linger),
	};

	return cmocka_run_group_tests_name("broker_abuse", tests, set_up_all, tear_down_all);
}
