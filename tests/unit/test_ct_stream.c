/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: clock_gettime recvmsg */
/* The kernel's own connection tracking, in a network namespace of this program alone. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "netns.h"
#include "nft/ct_stream.h"
#include "nft/ct_sysctl.h"

#define BASE 0x100
#define TCP_MARK (BASE + 1)
#define UDP_MARK (BASE + 2)
#define OTHER_MARK (BASE + 3)
#define REFUSED_MARK (BASE + 4)
#define FOREIGN_MARK 0x900

#define BACKEND_PORT 9001
#define STORM 20000 /* fewer where the machine is emulated, SLUICE_SLOW times as slow */
#define BURST 400
#define LONG_DUMP 3000 /* flows; more than two turns of the thread read of it */
#define STAYING 40     /* beside those that a burst ends */

static const char rules[] = "table inet t {\n"
			    " chain out { type nat hook output priority -105;\n"
			    "  tcp dport 8001 ct mark set 0x101 dnat ip to 127.0.0.1:9001\n"
			    "  udp dport 8001 ct mark set 0x102 dnat ip to 127.0.0.1:9001\n"
			    "  tcp dport 8002 ct mark set 0x103 dnat ip to 127.0.0.1:9001\n"
			    "  tcp dport 8003 ct mark set 0x104 dnat ip to 127.0.0.1:9\n"
			    "  tcp dport 8004 ct mark set 0x900 dnat ip to 127.0.0.1:9001\n"
			    " }\n"
			    "}\n";

/* The clock of the stream's thread leaps with each answer to a dump, if that is wanted. */
#define LEAP_S 20
static pthread_t main_thread;
static bool leaps;     /* atomic */
static unsigned leapt; /* atomic: how often */

ssize_t __real_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags)
{
	ssize_t n = __real_recvmsg(fd, m, flags);

	if (n > 0 && __atomic_load_n(&leaps, __ATOMIC_RELAXED))
		(void)__atomic_add_fetch(&leapt, 1, __ATOMIC_RELAXED);
	return n;
}

int __real_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
	int r = __real_clock_gettime(clock, ts);

	if (clock == CLOCK_MONOTONIC && !pthread_equal(pthread_self(), main_thread))
		ts->tv_sec += (time_t)__atomic_load_n(&leapt, __ATOMIC_RELAXED) * LEAP_S;
	return r;
}

/* What has been taken of a flow. */
struct seen {
	struct sl_ct_change last;
	unsigned opened;
	unsigned ended;
	uint64_t ended_us; /* when that was taken */
};

struct lab {
	struct sl_ct_stream *stream;
	struct seen *seen; /* by serial */
	size_t n_seen;
	size_t max_seen;
};

/* ---- backend: reads to the end, answers twice as much, closes ---- */

struct backend {
	int fd;
	pthread_t thread;
	bool must_stop;
};

static void serve(int fd)
{
	char buf[4096];
	size_t n = 0;
	ssize_t r;

	while ((r = recv(fd, buf, sizeof(buf), 0)) > 0)
		n += (size_t)r;
	if (r == 0 && n > 0 && 2 * n <= sizeof(buf)) {
		memset(buf, 'y', 2 * n);
		(void)send(fd, buf, 2 * n, MSG_NOSIGNAL);
	}
	(void)close(fd);
}

static void *run_backend(void *arg)
{
	struct backend *b = arg;
	struct pollfd p = { .fd = b->fd, .events = POLLIN };

	while (!__atomic_load_n(&b->must_stop, __ATOMIC_RELAXED)) {
		if (poll(&p, 1, 50) > 0) {
			int fd = accept(b->fd, NULL, NULL);

			if (fd >= 0)
				serve(fd);
		}
	}
	return NULL;
}

static struct sockaddr_in loopback(uint32_t host, uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_addr.s_addr = htonl(0x7f000000 + host),
				     .sin_port = htons(port) };
}

static int listen_backend(void)
{
	struct sockaddr_in a = loopback(1, BACKEND_PORT);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 4096), 0);
	return fd;
}

static void start_backend(struct backend *b)
{
	*b = (struct backend){ .fd = listen_backend() };
	assert_int_equal(pthread_create(&b->thread, NULL, run_backend, b), 0);
}

static void stop_backend(struct backend *b)
{
	__atomic_store_n(&b->must_stop, true, __ATOMIC_RELAXED);
	(void)pthread_join(b->thread, NULL);
	(void)close(b->fd);
}

/* ---- clients ---- */

/* From 127.0.`host`; -errno. */
static int try_connect(uint32_t host, uint16_t port)
{
	struct sockaddr_in from = loopback(host, 0);
	struct sockaddr_in to = loopback(1, port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
	    connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
		int r = -errno;

		(void)close(fd);
		return r;
	}
	return fd;
}

static int connect_to(uint16_t port)
{
	int fd = try_connect(1, port);

	assert_true(fd >= 0);
	return fd;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_in a;
	socklen_t n = sizeof(a);

	return getsockname(fd, (struct sockaddr *)&a, &n) == 0 ? ntohs(a.sin_port) : 0;
}

/* Sends `n` bytes and FIN, reads the answer, closes; false: not so. */
static bool talk(int fd, size_t n)
{
	char buf[4096] = { 0 };
	size_t got = 0;
	ssize_t r;

	if (send(fd, buf, n, MSG_NOSIGNAL) != (ssize_t)n || shutdown(fd, SHUT_WR) < 0)
		return false;
	while ((r = recv(fd, buf, sizeof(buf), 0)) > 0)
		got += (size_t)r;
	(void)close(fd);
	return r == 0 && got == 2 * n;
}

static void reset(int fd)
{
	const struct linger hard = { .l_onoff = 1 };

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	(void)close(fd);
}

/* ---- the stream's owner ---- */

static void start_limited(struct lab *l, size_t max_seen, size_t max_records, size_t rcvbuf,
			  unsigned dump_ms)
{
	struct sl_ct_stream_conf conf = { .mark_base = BASE,
					  .n_marks = 16,
					  .max_records = max_records,
					  .dump_ms = dump_ms,
					  .rcvbuf = rcvbuf };
	const char *what;

	sl_ct_timeouts_default(&conf.timeouts);
	sl_ct_timeouts_read(&conf.timeouts);
	*l = (struct lab){ .max_seen = max_seen, .seen = calloc(max_seen, sizeof(*l->seen)) };
	assert_non_null(l->seen);
	assert_int_equal(sl_ct_stream_start(&conf, &l->stream, &what), 0);
}

static void start(struct lab *l, size_t max_seen, size_t rcvbuf, unsigned dump_ms)
{
	start_limited(l, max_seen, 1 << 17, rcvbuf, dump_ms);
}

static void stop(struct lab *l)
{
	sl_ct_stream_stop(l->stream);
	free(l->seen);
}

static void note_change(struct lab *l, const struct sl_ct_change *c, uint64_t now_us)
{
	struct seen *s;

	assert_in_range(c->serial, 1, l->max_seen - 1);
	s = &l->seen[c->serial];
	if (c->serial > l->n_seen)
		l->n_seen = c->serial;
	s->last = *c;
	s->opened += !!(c->what & SL_CT_TELL_NEW);
	s->ended += !!(c->what & SL_CT_TELL_ENDED);
	assert_int_equal(s->opened, 1);
	assert_in_range(s->ended, 0, 1);
	if (c->what & SL_CT_TELL_ENDED)
		s->ended_us = now_us;
}

/* All there is. */
static void take(struct lab *l)
{
	struct sl_ct_change c[256];
	size_t n;

	do {
		uint64_t now_us = sl_clock_us();

		n = sl_ct_stream_take(l->stream, c, SL_ARRAY_LEN(c));
		for (size_t i = 0; i < n; i++)
			note_change(l, &c[i], now_us);
	} while (n == SL_ARRAY_LEN(c));
}

static size_t count_marks(const struct lab *l, uint32_t mark, bool only_ended)
{
	size_t n = 0;

	for (size_t i = 1; i <= l->n_seen; i++)
		n += l->seen[i].opened && l->seen[i].last.flow.mark == mark &&
		     (!only_ended || l->seen[i].ended);
	return n;
}

/* Waits for the eventfd and takes, until `n` flows of the mark are known, or ended. */
static void wait_for(struct lab *l, uint32_t mark, bool ended, size_t n, unsigned seconds)
{
	struct pollfd p = { .fd = sl_ct_stream_fd(l->stream), .events = POLLIN };
	uint64_t until_us = sl_clock_us() + seconds * UINT64_C(1000000);

	while (count_marks(l, mark, ended) < n) {
		if (sl_clock_us() > until_us)
			fail_msg("mark %x: %zu of %zu %s after %u s", mark,
				 count_marks(l, mark, ended), n, ended ? "ended" : "known",
				 seconds);
		if (poll(&p, 1, 100) > 0)
			take(l);
	}
}

static struct seen *flow_from(struct lab *l, uint16_t port)
{
	/* the newest: earlier tests may have used the port */
	for (size_t i = l->n_seen; i > 0; i--)
		if (sl_addr_port(&l->seen[i].last.flow.tuple[SL_CT_ORIG].src) == port)
			return &l->seen[i];
	fail_msg("no record of port %u", port);
	return NULL;
}

static struct sl_ct_stream_counts counts_of(struct lab *l)
{
	struct sl_ct_stream_counts c;

	sl_ct_stream_get_counts(l->stream, &c);
	return c;
}

static void wait_dumps(struct lab *l, uint64_t n)
{
	uint64_t until_us = sl_clock_us() + 10 * UINT64_C(1000000);
	uint64_t goal = counts_of(l).dumps + n;

	while (counts_of(l).dumps < goal) {
		assert_true(sl_clock_us() < until_us);
		(void)poll(NULL, 0, 10);
	}
}

static void wait_live(struct lab *l, uint64_t n)
{
	uint64_t until_us = sl_clock_us() + 10 * UINT64_C(1000000);

	while (counts_of(l).live != n) {
		assert_true(sl_clock_us() < until_us);
		(void)poll(NULL, 0, 10);
	}
}

/* ---- tests ---- */

static int set_up(void **state)
{
	FILE *nft;

	(void)state;
	main_thread = pthread_self();
	if (geteuid() != 0)
		return 0; /* every test skips */
	if (enter_netns() < 0)
		return -1;
	nft = popen("nft -f -", "w");
	if (!nft || fputs(rules, nft) == EOF || pclose(nft) != 0)
		return -1;
	return 0;
}

static void need_root(void)
{
	if (geteuid() != 0)
		skip();
}

/* How many times slower the machine is, because it is emulated, say. */
static uint32_t slowness(void)
{
	const char *slow = getenv("SLUICE_SLOW");
	unsigned long times = slow ? strtoul(slow, NULL, 10) : 1;

	return times > 1 && times < 100 ? (uint32_t)times : 1;
}

/*
 * IP and TCP headers with timestamps: 60 bytes in a SYN, 52 in others. A slow machine sends a
 * segment twice now and then, and says that it came twice.
 */
static void assert_bytes(const struct sl_ct_count *c, size_t payload)
{
	assert_in_range(c->packets, 3, 100);
	if (slowness() > 1)
		assert_in_range(c->bytes, payload + 60 + 52 * (c->packets - 1),
				2 * payload + 64 * c->packets);
	else
		assert_int_equal(c->bytes, payload + 60 + 52 * (c->packets - 1));
}

static void sysctls_are_set_and_restored(void **state)
{
	struct sl_ct_sysctls old;
	struct sl_ct_sysctls again;
	const char *what = NULL;
	uint32_t count;
	uint32_t max;

	(void)state;
	need_root();
	assert_int_equal(sl_ct_sysctl_set(&old, &what), 0);
	assert_null(what);
	assert_int_equal(sl_ct_sysctl_set(&again, &what), 0);
	assert_true(again.acct == -1 && again.timestamp == -1 && again.events == -1);
	assert_int_equal(sl_ct_sysctl_restore(&old), 0);
	assert_int_equal(sl_ct_sysctl_set(&again, &what), 0); /* on from here */
	assert_memory_equal(&again, &old, sizeof(old));
	assert_true(old.acct >= 0 || old.timestamp >= 0 || old.events >= 0);
	assert_int_equal(sl_ct_fill(&count, &max), 0);
	assert_true(max > 0 && count <= max);
}

static void a_connection_from_begin_to_end(void **state)
{
	struct backend b;
	struct lab l;
	struct seen *s;
	uint16_t port;
	int fd;

	(void)state;
	need_root();
	start_backend(&b);
	start(&l, 64, 1 << 20, 200);
	fd = connect_to(8001);
	port = port_of(fd);
	wait_for(&l, TCP_MARK, false, 1, 5);
	assert_int_equal(count_marks(&l, TCP_MARK, true), 0);
	assert_int_equal(sl_addr_port(&flow_from(&l, port)->last.flow.tuple[SL_CT_REPLY].src),
			 BACKEND_PORT);
	assert_true(talk(fd, 777));
	wait_for(&l, TCP_MARK, true, 1, 5);
	s = flow_from(&l, port);
	assert_int_equal(s->last.reason, SL_REASON_NORMAL);
	assert_false(s->last.is_adopted || s->last.is_resynced);
	assert_bytes(&s->last.flow.count[SL_CT_ORIG], 777);
	assert_bytes(&s->last.flow.count[SL_CT_REPLY], 1554);
	assert_true(s->last.end_ns >= s->last.start_ns);
	assert_true(s->last.end_ns - s->last.start_ns < 10 * UINT64_C(1000000000));
	assert_int_equal(counts_of(&l).live, 0);
	stop(&l);
	stop_backend(&b);
}

static void resets_and_refusals_have_their_reasons(void **state)
{
	int listener = -1;
	struct lab l;
	uint16_t port;
	int fd;

	(void)state;
	need_root();
	listener = listen_backend();
	start(&l, 256, 1 << 20, 200);
	fd = connect_to(8002);
	port = port_of(fd);
	reset(fd);
	assert_int_equal(try_connect(1, 8003), -ECONNREFUSED);
	wait_for(&l, REFUSED_MARK, true, 1, 5);
	wait_for(&l, OTHER_MARK, true, 1, 5);
	assert_int_equal(flow_from(&l, port)->last.reason, SL_REASON_ECONNRESET);
	for (size_t i = 1; i <= l.n_seen; i++)
		if (l.seen[i].last.flow.mark == REFUSED_MARK)
			assert_int_equal(l.seen[i].last.reason, SL_REASON_ECONNREFUSED);
	stop(&l);
	(void)close(listener);
}

static void write_sysctl(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) != EOF);
	assert_int_equal(fclose(f), 0);
}

static void datagrams_end_by_silence(void **state)
{
	struct sockaddr_in at = loopback(1, BACKEND_PORT);
	struct sockaddr_in to = loopback(1, 8001);
	struct sockaddr_in from;
	socklen_t n = sizeof(from);
	int server = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int asks = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int talks = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char buf[64] = "question";
	struct seen *s;
	struct lab l;

	(void)state;
	need_root();
	write_sysctl("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "1");
	assert_int_equal(bind(server, (struct sockaddr *)&at, sizeof(at)), 0);
	start(&l, 64, 1 << 20, 200);
	assert_int_equal(sendto(talks, buf, 8, 0, (struct sockaddr *)&to, sizeof(to)), 8);
	assert_int_equal(recvfrom(server, buf, sizeof(buf), 0, (struct sockaddr *)&from, &n), 8);
	assert_int_equal(sendto(server, buf, 20, 0, (struct sockaddr *)&from, n), 20);
	assert_int_equal(sendto(asks, buf, 5, 0, (struct sockaddr *)&to, sizeof(to)), 5);
	wait_for(&l, UDP_MARK, true, 2, 8);
	s = flow_from(&l, port_of(talks));
	assert_int_equal(s->last.reason, SL_REASON_INACTIVITY);
	assert_int_equal(s->last.flow.protocol, IPPROTO_UDP);
	assert_int_equal(s->last.flow.count[SL_CT_ORIG].bytes, 28 + 8);
	assert_int_equal(s->last.flow.count[SL_CT_REPLY].bytes, 28 + 20);
	s = flow_from(&l, port_of(asks));
	assert_int_equal(s->last.reason, SL_REASON_CONNECTION_TIMEOUT);
	assert_int_equal(s->last.flow.count[SL_CT_REPLY].packets, 0);
	stop(&l);
	(void)close(server);
	(void)close(asks);
	(void)close(talks);
}

static int delete_mark(const struct lab *l, uint32_t mark)
{
	return sl_ct_stream_delete_marks(l->stream, (struct sl_ct_marks){ mark, UINT32_MAX });
}

static void deleting_a_mark_leaves_the_others(void **state)
{
	const uint16_t ports[] = { 8001, 8001, 8002, 8002, 8004 };
	int fd[SL_ARRAY_LEN(ports)];
	int listener;
	struct seen *s;
	struct lab l;

	(void)state;
	need_root();
	listener = listen_backend();
	start(&l, 256, 1 << 20, 100);
	wait_dumps(&l, 2);
	take(&l);
	l.n_seen = 0; /* what earlier tests left is not of interest, and is over */
	memset(l.seen, 0, l.max_seen * sizeof(*l.seen));
	for (size_t i = 0; i < SL_ARRAY_LEN(ports); i++)
		fd[i] = connect_to(ports[i]);
	wait_for(&l, TCP_MARK, false, 2, 5);
	wait_for(&l, OTHER_MARK, false, 2, 5);
	assert_int_equal(delete_mark(&l, FOREIGN_MARK), -EINVAL);
	assert_int_equal(delete_mark(&l, 0), -EINVAL);
	/* a block with marks of others in it */
	assert_int_equal(
		sl_ct_stream_delete_marks(l.stream, (struct sl_ct_marks){ TCP_MARK & ~63u, ~63u }),
		-EINVAL);
	assert_int_equal(delete_mark(&l, TCP_MARK), 0);
	wait_for(&l, TCP_MARK, true, 2, 5);
	assert_int_equal(flow_from(&l, port_of(fd[0]))->last.reason, SL_REASON_NFTABLES_CLOSED);
	wait_dumps(&l, 2);
	take(&l);
	assert_int_equal(count_marks(&l, OTHER_MARK, true), 0);
	assert_int_equal(counts_of(&l).live, 2);
	assert_true(counts_of(&l).foreign > 0);

	s = flow_from(&l, port_of(fd[2]));
	assert_int_equal(sl_ct_stream_delete_flow(l.stream, &s->last.flow), 0);
	wait_for(&l, OTHER_MARK, true, 1, 5);
	assert_int_equal(s->last.reason, SL_REASON_NFTABLES_CLOSED);
	assert_int_equal(sl_ct_stream_delete_flow(l.stream, &s->last.flow), -ENOENT);
	assert_int_equal(counts_of(&l).live, 1);
	/* the foreign one is still translated: its bytes arrive */
	assert_int_equal(send(fd[4], "x", 1, MSG_NOSIGNAL), 1);
	stop(&l);

	/* one that was there before us is found */
	start(&l, 256, 1 << 20, 100);
	wait_for(&l, OTHER_MARK, false, 1, 5);
	wait_dumps(&l, 2);
	take(&l);
	s = flow_from(&l, port_of(fd[3]));
	assert_true(s->last.is_adopted && !s->ended && s->last.flow.has_counts);
	assert_int_equal(counts_of(&l).live, 1);
	for (size_t i = 0; i < SL_ARRAY_LEN(ports); i++)
		reset(fd[i]);
	(void)close(listener);
	wait_for(&l, OTHER_MARK, true, count_marks(&l, OTHER_MARK, false), 5);
	stop(&l);
}

static void lost_events_leave_no_ghost(void **state)
{
	static int fd[BURST], other[STAYING];
	struct sl_ct_stream_counts c;
	size_t n_before, n_over;
	int listener;
	struct lab l;

	(void)state;
	need_root();
	listener = listen_backend();
	start(&l, 8 * BURST, 1, 200); /* the kernel's minimum: a few events */
	wait_dumps(&l, 2);
	take(&l);
	n_before = count_marks(&l, TCP_MARK, true);
	n_over = count_marks(&l, OTHER_MARK, true);
	assert_int_equal(counts_of(&l).live, 0);
	for (size_t i = 0; i < STAYING; i++)
		other[i] = connect_to(8002);
	for (size_t i = 0; i < BURST; i++)
		fd[i] = connect_to(8001);
	wait_for(&l, TCP_MARK, false, n_before + BURST, 10);
	wait_live(&l, BURST + STAYING);
	/* all ends in one system call: most of their events find the buffer full */
	assert_int_equal(delete_mark(&l, TCP_MARK), 0);
	wait_for(&l, TCP_MARK, true, n_before + BURST, 10);
	c = counts_of(&l);
	assert_true(c.overruns > 0);
	assert_true(c.table.resynced > 0);
	assert_int_equal(c.live, STAYING);
	for (size_t i = 0; i < BURST; i++)
		assert_int_equal(flow_from(&l, port_of(fd[i]))->last.reason,
				 SL_REASON_NFTABLES_CLOSED);
	wait_dumps(&l, 2);
	take(&l);
	assert_int_equal(count_marks(&l, TCP_MARK, false), n_before + BURST);
	assert_int_equal(count_marks(&l, OTHER_MARK, true), n_over);
	print_message("%llu overruns, %llu of %u ends by the sweep\n",
		      (unsigned long long)c.overruns, (unsigned long long)c.table.resynced, BURST);
	for (size_t i = 0; i < BURST; i++)
		reset(fd[i]);
	for (size_t i = 0; i < STAYING; i++)
		reset(other[i]);
	wait_for(&l, OTHER_MARK, true, n_over + STAYING, 10);
	assert_int_equal(counts_of(&l).live, 0);
	stop(&l);
	(void)close(listener);
}

/* The table is full of ends that nobody takes; what finds no room is found later. */
static void a_slow_owner_catches_up(void **state)
{
	static int fd[200];
	size_t n_before;
	int listener;
	struct lab l;

	(void)state;
	need_root();
	listener = listen_backend();
	start_limited(&l, 1024, 150, 1 << 20, 100);
	wait_dumps(&l, 1);
	take(&l);
	n_before = count_marks(&l, OTHER_MARK, false);
	assert_in_range(l.n_seen, 0, 40); /* left by earlier tests, or there is no room */
	for (size_t i = 0; i < 100; i++)
		fd[i] = connect_to(8001);
	wait_live(&l, 100);
	assert_int_equal(delete_mark(&l, TCP_MARK), 0);
	wait_live(&l, 0);
	assert_int_equal(counts_of(&l).table.not_taken, 0);
	for (size_t i = 100; i < 200; i++)
		fd[i] = connect_to(8002);
	wait_dumps(&l, 2);
	assert_true(counts_of(&l).table.not_taken > 0);
	assert_in_range(counts_of(&l).records, 101, 150);
	assert_in_range(counts_of(&l).live, 1, 50);
	wait_for(&l, TCP_MARK, true, 100, 5);
	wait_for(&l, OTHER_MARK, false, n_before + 100, 5);
	wait_live(&l, 100);
	for (size_t i = 0; i < SL_ARRAY_LEN(fd); i++)
		reset(fd[i]);
	wait_for(&l, OTHER_MARK, true, n_before + 100, 5);
	assert_int_equal(counts_of(&l).live, 0);
	stop(&l);
	(void)close(listener);
}

/* ---- 20 000 short flows ---- */

struct storm {
	pthread_t thread;
	uint32_t from;
	uint32_t to;
	uint64_t (*ended_us)[65536]; /* by host and port */
	uint16_t (*payload)[65536];
	unsigned failed;
};

static void *run_storm(void *arg)
{
	struct storm *st = arg;

	for (uint32_t i = st->from; i < st->to; i++) {
		uint32_t host = i / 2000;
		int fd = try_connect(host + 2, 8002);
		uint16_t port = fd < 0 ? 0 : port_of(fd);

		if (fd < 0 || !talk(fd, 1 + i % 500)) {
			st->failed++;
			continue;
		}
		st->payload[host][port] = (uint16_t)(1 + i % 500);
		__atomic_store_n(&st->ended_us[host][port], sl_clock_us(), __ATOMIC_RELEASE);
	}
	return NULL;
}

static void check_storm(const struct lab *l, const struct storm *st, uint32_t size)
{
	uint64_t latest_us = 0;
	size_t n = 0;

	for (size_t i = 1; i <= l->n_seen; i++) {
		const struct sl_ct_flow *f = &l->seen[i].last.flow;
		const struct sl_addr *src = &f->tuple[SL_CT_ORIG].src;
		uint32_t host = ntohl(src->v4.sin_addr.s_addr) - 0x7f000002;
		uint16_t port = sl_addr_port(src);
		uint64_t late_us;

		if (f->mark != OTHER_MARK || host >= STORM / 2000 || st->payload[host][port] == 0)
			continue;
		n++;
		assert_int_equal(l->seen[i].last.reason, SL_REASON_NORMAL);
		assert_bytes(&f->count[SL_CT_ORIG], st->payload[host][port]);
		assert_bytes(&f->count[SL_CT_REPLY], 2U * st->payload[host][port]);
		st->payload[host][port] = 0; /* each once */
		late_us = l->seen[i].ended_us - st->ended_us[host][port];
		if (l->seen[i].ended_us > st->ended_us[host][port] && late_us > latest_us)
			latest_us = late_us;
	}
	assert_int_equal(n, size);
	print_message("latest record %llu ms after the end\n",
		      (unsigned long long)latest_us / 1000);
	assert_in_range(latest_us, 0, 5000000 * (uint64_t)slowness());
}

/*
 * One that takes longer than any deadline, but goes on: it would be in the way of all that follow.
 * The clock leaps with each answer.
 */
static void a_dump_that_goes_on_is_not_given_up(void **state)
{
	struct sl_ct_stream_counts c;
	struct backend b;
	struct lab l;

	(void)state;
	need_root();
	start_backend(&b);
	for (size_t i = 0; i < LONG_DUMP; i++)
		assert_true(talk(connect_to(8001), 1));
	__atomic_store_n(&leaps, true, __ATOMIC_RELAXED);
	start(&l, 8 * LONG_DUMP, 1 << 20, 200);
	/* some ports may have been used twice, and then the entry of the first is gone */
	wait_for(&l, TCP_MARK, true, LONG_DUMP * 9 / 10, 10);
	wait_dumps(&l, 1);
	__atomic_store_n(&leaps, false, __ATOMIC_RELAXED);
	c = counts_of(&l);
	assert_int_equal(c.dumps_failed, 0);
	assert_true(__atomic_load_n(&leapt, __ATOMIC_RELAXED) > 16);
	stop(&l);
	leapt = 0;
	stop_backend(&b);
}

static void every_short_flow_has_its_record(void **state)
{
	const uint32_t size = STORM / slowness();
	struct storm st[2] = { { .from = 0, .to = size / 2 }, { .from = size / 2, .to = size } };
	struct sl_ct_stream_counts c;
	struct backend b;
	uint64_t begin_us;
	size_t n_before;
	struct lab l;

	(void)state;
	need_root();
	start_backend(&b);
	st[0].ended_us = calloc(STORM / 2000, sizeof(*st[0].ended_us));
	st[0].payload = calloc(STORM / 2000, sizeof(*st[0].payload));
	assert_true(st[0].ended_us && st[0].payload);
	st[1].ended_us = st[0].ended_us;
	st[1].payload = st[0].payload;
	start(&l, 2 * STORM, 8 << 20, 1000);
	wait_dumps(&l, 1);
	take(&l);
	n_before = count_marks(&l, OTHER_MARK, true);
	begin_us = sl_clock_us();
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&st[i].thread, NULL, run_storm, &st[i]), 0);
	wait_for(&l, OTHER_MARK, true, n_before + size, 60);
	for (int i = 0; i < 2; i++) {
		(void)pthread_join(st[i].thread, NULL);
		assert_int_equal(st[i].failed, 0);
	}
	c = counts_of(&l);
	print_message("%u flows in %llu ms, %llu dumps, the last in %llu ms, %llu overruns\n", size,
		      (unsigned long long)(sl_clock_us() - begin_us) / 1000,
		      (unsigned long long)c.dumps, (unsigned long long)c.last_dump_us / 1000,
		      (unsigned long long)c.overruns);
	check_storm(&l, st, size);
	stop(&l);
	stop_backend(&b);
	free(st[0].ended_us);
	free(st[0].payload);
}

static int without_rights(void)
{
	struct sl_ct_stream_conf conf = {
		.mark_base = 1, .n_marks = 1, .max_records = 1, .dump_ms = 1000, .rcvbuf = 4096
	};
	struct sl_ct_sysctls old = { .acct = 0, .timestamp = 1, .events = 1 };
	struct sl_ct_stream *s = NULL;
	const char *what = NULL;

	if (setresuid(65534, 65534, 65534) < 0)
		return 1;
	if (sl_ct_stream_start(&conf, &s, &what) != -EPERM || s)
		return 2;
	if (!strstr(what, "events of connection tracking"))
		return 3;
	return sl_ct_sysctl_restore(&old) == -EPERM ? 0 : 4;
}

static void missing_rights_are_named(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	need_root();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(without_rights());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void wrong_settings_are_refused(void **state)
{
	const struct sl_ct_stream_conf good = {
		.mark_base = 1, .n_marks = 1, .max_records = 1, .dump_ms = 1000, .rcvbuf = 4096
	};
	struct sl_ct_stream_conf conf[4] = { good, good, good, good };
	struct sl_ct_stream *s = NULL;
	const char *what;

	(void)state;
	conf[0].n_marks = 0;
	conf[1].mark_base = UINT32_MAX;
	conf[1].n_marks = 2;
	conf[2].dump_ms = 0;
	conf[3].max_records = 0;
	for (size_t i = 0; i < SL_ARRAY_LEN(conf); i++)
		assert_int_equal(sl_ct_stream_start(&conf[i], &s, &what), -EINVAL);
	assert_null(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sysctls_are_set_and_restored),
		cmocka_unit_test(a_connection_from_begin_to_end),
		cmocka_unit_test(resets_and_refusals_have_their_reasons),
		cmocka_unit_test(datagrams_end_by_silence),
		cmocka_unit_test(deleting_a_mark_leaves_the_others),
		cmocka_unit_test(a_slow_owner_catches_up),
		cmocka_unit_test(lost_events_leave_no_ghost),
		cmocka_unit_test(a_dump_that_goes_on_is_not_given_up),
		cmocka_unit_test(every_short_flow_has_its_record),
		cmocka_unit_test(missing_rights_are_named),
		cmocka_unit_test(wrong_settings_are_refused),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
