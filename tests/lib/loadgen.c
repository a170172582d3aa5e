/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Load for benchmarks, both ends of it. Every run is bounded in time, prints one
 * line of KEY=VALUE pairs and exits 0, or says on standard error why it could not.
 *
 *   loadgen serve FROM-TO                                    backend, until it is killed
 *   loadgen down  ADDRESS PORT STREAMS SECONDS [PID...]      downloads
 *   loadgen up    ADDRESS PORT STREAMS SECONDS [PID...]      uploads
 *   loadgen ping  ADDRESS PORT CLIENTS SECONDS [PID...]      request/reply on kept connections
 *   loadgen byte, loadgen busy, loadgen kib                  the same with 1, 100, 1024 bytes
 *   loadgen conn  ADDRESS PORT CLIENTS SECONDS [PID...]      connect, request, reply, close
 *   loadgen idle  ADDRESS PORT COUNT     opens and uses each once, says "ready", waits for EOF
 *   loadgen open  ADDRESS PORT COUNT     the same, but nothing is ever sent
 *
 * A request and a reply are 64 bytes where nothing else is said. Before the measured window the
 * load runs for a while; with `gated` in front of the mode it then says "warm" and goes on until it
 * has read a line, so that others can see that it runs as it should.
 *
 * The PIDs are the processes of the proxy in the middle: the CPU time of all
 * their threads over the measured window is read from schedstat (it contains the
 * softirq work done in their context). The busy time of the whole system, both
 * ends of the load included, comes from /proc/stat.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "usage.h"

enum {
	MSG_SIZE = 64,
	BULK_SIZE = 256 * 1024,
	MAX_CLIENTS = 256,
	MAX_PIDS = 64,
	MAX_SAMPLES = 1 << 20, /* latencies kept per client */
	MAX_ERRORS = 1000,     /* a client gives up after so many */
	WARM_UP_MS = 300,
	SOCKET_TIMEOUT_S = 5,
};

/* The first byte of a connection tells the backend what the client wants. */
enum wish {
	WISH_UNKNOWN = 0,
	WISH_REPLY = 'R',
	WISH_DOWNLOAD = 'D',
	WISH_UPLOAD = 'U',
	WISH_ECHO = 'E', /* everything back, as it comes */
};

enum phase { PHASE_WARM_UP, PHASE_MEASURE, PHASE_STOP };

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void sleep_ms(uint64_t ms)
{
	struct timespec t = { .tv_sec = (time_t)(ms / 1000),
			      .tv_nsec = (long)(ms % 1000 * 1000000) };

	while (nanosleep(&t, &t) != 0 && errno == EINTR)
		;
}

/* As far as we may; a limit that is too low shows when it is reached. */
static void raise_fd_limit(void)
{
	struct rlimit limit = { .rlim_cur = 200000, .rlim_max = 200000 };

	if (setrlimit(RLIMIT_NOFILE, &limit) == 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- backend ------------------------------------------------------------ */

struct peer {
	int fd;
	bool is_listener;
	bool wants_out;
	enum wish wish;
	size_t request; /* bytes of the current request received */
};

struct backend {
	int epoll_fd;
	char *buf; /* BULK_SIZE, received into and sent from */
};

static int backend_add(struct backend *b, int fd, bool is_listener)
{
	struct peer *p = calloc(1, sizeof(*p));
	struct epoll_event ev = { .events = EPOLLIN };

	if (!p)
		return -ENOMEM;
	p->fd = fd;
	p->is_listener = is_listener;
	ev.data.ptr = p;
	if (epoll_ctl(b->epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0) {
		free(p);
		return -errno;
	}
	return 0;
}

static void backend_accept(struct backend *b, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0 && backend_add(b, fd, false) != 0)
		close(fd);
}

static void backend_want_out(struct backend *b, struct peer *p)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT, .data.ptr = p };

	if (!p->wants_out && epoll_ctl(b->epoll_fd, EPOLL_CTL_MOD, p->fd, &ev) == 0)
		p->wants_out = true;
}

/* Returns false when the connection is over. */
static bool backend_send(struct backend *b, struct peer *p)
{
	ssize_t n = send(p->fd, b->buf, BULK_SIZE, MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN)
		return false;
	backend_want_out(b, p);
	return true;
}

static enum wish wish_of(char first)
{
	switch (first) {
	case WISH_DOWNLOAD:
		return WISH_DOWNLOAD;
	case WISH_UPLOAD:
		return WISH_UPLOAD;
	case WISH_ECHO:
		return WISH_ECHO;
	default:
		return WISH_REPLY;
	}
}

/* MSG_TRUNC: TCP throws the bytes away in the kernel, so the receiver is not what is measured. */
static bool backend_receive(struct backend *b, struct peer *p)
{
	ssize_t n = recv(p->fd, b->buf, BULK_SIZE, p->wish == WISH_UPLOAD ? MSG_TRUNC : 0);

	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	if (p->wish == WISH_UNKNOWN)
		p->wish = wish_of(b->buf[0]);
	if (p->wish == WISH_UPLOAD)
		return true;
	if (p->wish == WISH_DOWNLOAD)
		return backend_send(b, p);
	if (p->wish == WISH_ECHO)
		return send(p->fd, b->buf, (size_t)n, MSG_NOSIGNAL) == n;
	for (p->request += (size_t)n; p->request >= MSG_SIZE; p->request -= MSG_SIZE) {
		if (send(p->fd, b->buf, MSG_SIZE, MSG_NOSIGNAL) != MSG_SIZE)
			return false;
	}
	return true;
}

static void backend_event(struct backend *b, struct peer *p, uint32_t events)
{
	bool alive = true;

	if (p->is_listener) {
		backend_accept(b, p->fd);
		return;
	}
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		alive = backend_receive(b, p);
	if (alive && (events & EPOLLOUT))
		alive = backend_send(b, p);
	if (!alive) {
		close(p->fd);
		free(p);
	}
}

static int listen_on(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
	    bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 4096) != 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

static int serve(const char *range)
{
	struct backend b = { .epoll_fd = epoll_create1(EPOLL_CLOEXEC),
			     .buf = calloc(1, BULK_SIZE) };
	unsigned from, to;

	if (sscanf(range, "%u-%u", &from, &to) != 2 || from == 0 || from > to || to > 65535)
		return -EINVAL;
	if (b.epoll_fd < 0 || !b.buf)
		return -ENOMEM;
	raise_fd_limit();
	for (unsigned port = from; port <= to; port++) {
		int fd = listen_on((uint16_t)port);
		int err = fd < 0 ? fd : backend_add(&b, fd, true);

		if (err)
			return err;
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event ev[64];
		int n = epoll_wait(b.epoll_fd, ev, 64, -1);

		for (int i = 0; i < n; i++)
			backend_event(&b, ev[i].data.ptr, ev[i].events);
	}
}

/* ---- clients ------------------------------------------------------------ */

struct run;

struct client {
	struct run *run;
	pthread_t thread;
	_Atomic uint64_t done; /* operations or bytes, read by the main thread */
	uint64_t errors;
	uint32_t *sample_ns; /* MAX_SAMPLES; may be NULL */
	uint32_t n_samples;
	char *buf; /* BULK_SIZE */
};

struct run {
	struct sockaddr_in to;
	unsigned n_clients;
	uint64_t measure_ms;
	size_t message; /* bytes of a request */
	bool is_gated;
	char *const *pids;
	int n_pids;
	_Atomic int phase;
	struct client client[MAX_CLIENTS];
};

static int connect_to(const struct sockaddr_in *to)
{
	struct timeval limit = { .tv_sec = SOCKET_TIMEOUT_S };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0 ||
	    connect(fd, (const struct sockaddr *)to, sizeof(*to)) != 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

static int exchange(int fd, char *buf, size_t size)
{
	size_t got = 0;

	memset(buf, size == MSG_SIZE ? WISH_REPLY : WISH_ECHO, size);
	if (send(fd, buf, size, MSG_NOSIGNAL) != (ssize_t)size)
		return -EPIPE;
	while (got < size) {
		ssize_t n = recv(fd, buf, size - got, 0);

		if (n <= 0)
			return n == 0 ? -EPIPE : -errno;
		got += (size_t)n;
	}
	return 0;
}

/* Counts what began and ended inside the measured window. */
static void record(struct client *c, int phase_before, uint64_t begin_ns)
{
	uint64_t took = now_ns() - begin_ns;

	if (phase_before != PHASE_MEASURE)
		return;
	atomic_fetch_add_explicit(&c->done, 1, memory_order_relaxed);
	if (c->n_samples < MAX_SAMPLES)
		c->sample_ns[c->n_samples++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
}

static void *conn_thread(void *arg)
{
	struct client *c = arg;
	int phase;

	while ((phase = c->run->phase) != PHASE_STOP && c->errors < MAX_ERRORS) {
		uint64_t begin = now_ns();
		int fd = connect_to(&c->run->to);

		if (fd < 0 || exchange(fd, c->buf, c->run->message) != 0)
			c->errors++;
		else
			record(c, phase, begin);
		if (fd >= 0)
			close(fd);
	}
	return NULL;
}

static void *ping_thread(void *arg)
{
	struct client *c = arg;
	int fd = connect_to(&c->run->to);
	int phase;

	if (fd < 0) {
		c->errors++;
		return NULL;
	}
	while ((phase = c->run->phase) != PHASE_STOP) {
		uint64_t begin = now_ns();

		if (exchange(fd, c->buf, c->run->message) != 0) {
			c->errors++;
			break;
		}
		record(c, phase, begin);
	}
	close(fd);
	return NULL;
}

static void bulk(struct client *c, char wish)
{
	int fd = connect_to(&c->run->to);

	if (fd < 0 || send(fd, &wish, 1, MSG_NOSIGNAL) != 1) {
		c->errors++;
		return;
	}
	while (c->run->phase != PHASE_STOP) {
		ssize_t n = wish == WISH_UPLOAD ? send(fd, c->buf, BULK_SIZE, MSG_NOSIGNAL)
						: recv(fd, c->buf, BULK_SIZE, MSG_TRUNC);

		if (n <= 0) {
			c->errors++;
			break;
		}
		atomic_fetch_add_explicit(&c->done, (uint64_t)n, memory_order_relaxed);
	}
	close(fd);
}

static void *down_thread(void *arg)
{
	bulk(arg, WISH_DOWNLOAD);
	return NULL;
}

static void *up_thread(void *arg)
{
	bulk(arg, WISH_UPLOAD);
	return NULL;
}

static uint64_t sum_done(struct run *r)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < r->n_clients; i++)
		sum += atomic_load_explicit(&r->client[i].done, memory_order_relaxed);
	return sum;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

/* Prints p50 and p99 of all clients' samples. */
static void print_latency(struct run *r)
{
	uint32_t *all;
	size_t n = 0;

	for (unsigned i = 0; i < r->n_clients; i++)
		n += r->client[i].n_samples;
	all = n ? malloc(n * sizeof(*all)) : NULL;
	if (!all)
		return;
	n = 0;
	for (unsigned i = 0; i < r->n_clients; i++) {
		memcpy(all + n, r->client[i].sample_ns, r->client[i].n_samples * sizeof(*all));
		n += r->client[i].n_samples;
	}
	qsort(all, n, sizeof(*all), compare_u32);
	printf("p50_us=%.1f p99_us=%.1f ", all[n / 2] / 1e3, all[n * 99 / 100] / 1e3);
	free(all);
}

struct window {
	uint64_t done;
	double seconds;
	double proxy_s, system_s, steal_s;
	uint64_t errors;
};

struct mode {
	const char *name;
	void *(*thread)(void *);
	bool is_bulk;   /* counts bytes, else operations and how long each took */
	size_t message; /* 0: MSG_SIZE */
};

static const struct mode modes[] = {
	{ "down", down_thread, true, 0 },    { "up", up_thread, true, 0 },
	{ "ping", ping_thread, false, 0 },   { "byte", ping_thread, false, 1 },
	{ "busy", ping_thread, false, 100 }, { "kib", ping_thread, false, 1024 },
	{ "conn", conn_thread, false, 0 },
};

static const struct mode *mode_of(const char *name)
{
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(modes[i].name, name) == 0)
			return &modes[i];
	}
	return NULL;
}

static unsigned start_clients(struct run *r, const struct mode *mode)
{
	unsigned n;

	for (n = 0; n < r->n_clients; n++) {
		struct client *c = &r->client[n];

		c->run = r;
		c->buf = calloc(1, BULK_SIZE);
		c->sample_ns = mode->is_bulk ? NULL : malloc(MAX_SAMPLES * sizeof(uint32_t));
		if (!c->buf || (!c->sample_ns && !mode->is_bulk) ||
		    pthread_create(&c->thread, NULL, mode->thread, c) != 0)
			break;
	}
	return n;
}

static void warm_up(const struct run *r)
{
	char line[64];

	sleep_ms(WARM_UP_MS);
	if (!r->is_gated)
		return;
	puts("warm");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		fputs("loadgen: the gate was closed\n", stderr);
}

/* The window starts after the warm-up and ends before the clients are told to stop. */
static int measure(struct run *r, const struct mode *mode, struct window *ret)
{
	unsigned n = start_clients(r, mode);
	struct usage before, after;
	uint64_t done, begin, end;

	warm_up(r);
	read_usage(r->pids, r->n_pids, &before);
	done = sum_done(r);
	begin = now_ns();
	r->phase = PHASE_MEASURE;
	sleep_ms(r->measure_ms);
	end = now_ns();
	ret->done = sum_done(r) - done;
	read_usage(r->pids, r->n_pids, &after);
	r->phase = PHASE_STOP;
	ret->errors = 0;
	for (unsigned i = 0; i < n; i++) {
		pthread_join(r->client[i].thread, NULL);
		ret->errors += r->client[i].errors;
	}
	ret->seconds = (double)(end - begin) / 1e9;
	ret->proxy_s = (double)(after.proxy_ns - before.proxy_ns) / 1e9;
	ret->system_s = (double)(after.system_ns - before.system_ns) / 1e9;
	ret->steal_s = (double)(after.steal_ns - before.steal_ns) / 1e9;
	return n == r->n_clients ? 0 : -ENOMEM;
}

static int run_load(struct run *r, const struct mode *mode)
{
	struct window w = { 0 };
	int err = measure(r, mode, &w);

	if (err)
		return err;
	if (w.done == 0)
		return -ECOMM;
	if (mode->is_bulk) {
		double gb = (double)w.done / 1e9;

		printf("gbit_s=%.3f proxy_s_gb=%.4f system_s_gb=%.4f ", gb * 8 / w.seconds,
		       w.proxy_s / gb, w.system_s / gb);
	} else {
		double n = (double)w.done;

		printf("rate=%.1f proxy_us=%.2f system_us=%.2f ", n / w.seconds,
		       w.proxy_s / n * 1e6, w.system_s / n * 1e6);
		print_latency(r);
	}
	printf("steal_s=%.2f errors=%llu\n", w.steal_s, (unsigned long long)w.errors);
	return 0;
}

/* ---- idle connections --------------------------------------------------- */

static int idle(const struct sockaddr_in *to, unsigned count, bool is_used)
{
	char buf[MSG_SIZE];

	raise_fd_limit();
	for (unsigned i = 0; i < count; i++) {
		int fd = connect_to(to);
		int err = fd < 0 ? fd : is_used ? exchange(fd, buf, MSG_SIZE) : 0;

		if (err) {
			fprintf(stderr, "loadgen: connection %u of %u\n", i + 1, count);
			return err;
		}
	}
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, buf, sizeof(buf)) > 0)
		;
	return 0;
}

static int usage(void)
{
	fputs("usage: loadgen serve FROM-TO\n"
	      "       loadgen [gated] down|up|ping|byte|busy|kib|conn ADDRESS PORT CLIENTS SECONDS "
	      "[PID...]\n"
	      "       loadgen idle|open ADDRESS PORT COUNT\n",
	      stderr);
	return 2;
}

static int command(int argc, char **argv, struct run *r)
{
	unsigned count = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 0;
	const struct mode *mode = mode_of(argv[1]);
	bool is_used = strcmp(argv[1], "idle") == 0;

	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		return serve(argv[2]);
	if (argc < 5 || count == 0)
		return -EINVAL;
	r->to.sin_family = AF_INET;
	r->to.sin_port = htons((uint16_t)strtoul(argv[3], NULL, 10));
	if (inet_pton(AF_INET, argv[2], &r->to.sin_addr) != 1)
		return -EINVAL;
	if (argc == 5 && (is_used || strcmp(argv[1], "open") == 0))
		return idle(&r->to, count, is_used);
	if (argc < 6 || argc - 6 > MAX_PIDS || count > MAX_CLIENTS || !mode)
		return -EINVAL;
	r->n_clients = count;
	r->message = mode->message ? mode->message : MSG_SIZE;
	r->measure_ms = (uint64_t)(strtod(argv[5], NULL) * 1000);
	r->pids = argv + 6;
	r->n_pids = argc - 6;
	return run_load(r, mode);
}

int main(int argc, char **argv)
{
	struct run *r = argc < 3 ? NULL : calloc(1, sizeof(*r));
	int err;

	if (!r)
		return usage();
	signal(SIGPIPE, SIG_IGN);
	r->is_gated = strcmp(argv[1], "gated") == 0;
	err = command(argc - r->is_gated, argv + r->is_gated, r);
	free(r);
	if (err == -EINVAL)
		return usage();
	if (err)
		fprintf(stderr, "loadgen: %s\n", strerror(-err));
	return err ? 1 : 0;
}
