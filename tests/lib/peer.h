/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_PEER_H
#define SL_TESTS_PEER_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
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

/*
 * What the test client and the test server share: arguments, addresses, a
 * small epoll loop, the generated streams and the checked transfer. The code
 * is independent of the product on purpose: a peer must not repeat its bugs.
 */

/* ---- arguments: key=value, the last one wins ---- */

struct args {
	int n;
	char **v;
};

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "peer: ");
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(2);
}

static inline const char *arg_next(const struct args *a, const char *key, int *pos)
{
	size_t len = strlen(key);

	for (; *pos < a->n; (*pos)++) {
		const char *s = a->v[*pos];

		if (!strncmp(s, key, len) && s[len] == '=') {
			(*pos)++;
			return s + len + 1;
		}
	}
	return NULL;
}

static inline const char *arg_str(const struct args *a, const char *key, const char *fallback)
{
	const char *found = fallback;
	const char *s;
	int pos = 0;

	while ((s = arg_next(a, key, &pos)))
		found = s;
	return found;
}

static inline uint64_t arg_u64(const struct args *a, const char *key, uint64_t fallback)
{
	const char *s = arg_str(a, key, NULL);
	unsigned long long value;
	char *end;

	if (!s)
		return fallback;
	value = strtoull(s, &end, 0);
	if (*end || !*s)
		die("%s=%s is not a number", key, s);
	return value;
}

/* A typing error in a test must not become a default. */
static inline void args_check(const struct args *a, const char *const *known)
{
	for (int i = 0; i < a->n; i++) {
		size_t len = strcspn(a->v[i], "=");
		const char *const *k = known;

		while (*k && (strlen(*k) != len || strncmp(*k, a->v[i], len)))
			k++;
		if (!*k || a->v[i][len] != '=')
			die("unknown argument '%s'", a->v[i]);
	}
}

/* ---- time ---- */

static inline uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* ---- addresses: 10.0.0.1:80, [fd91::1]:80 ---- */

struct addr {
	struct sockaddr_storage sa;
	socklen_t len;
};

static inline struct addr addr_parse(const char *text)
{
	struct addr ret = { .len = 0 };
	struct sockaddr_in *v4 = (struct sockaddr_in *)&ret.sa;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&ret.sa;
	const char *colon = strrchr(text, ':');
	char host[128];
	size_t len;
	uint16_t port;

	if (!colon || (len = (size_t)(colon - text)) >= sizeof(host))
		die("'%s' is not ADDRESS:PORT", text);
	port = htons((uint16_t)atoi(colon + 1));
	memcpy(host, text, len);
	host[len] = 0;
	if (host[0] == '[' && len > 2) {
		host[len - 1] = 0;
		v6->sin6_family = AF_INET6;
		v6->sin6_port = port;
		ret.len = sizeof(*v6);
		if (inet_pton(AF_INET6, host + 1, &v6->sin6_addr) == 1)
			return ret;
	} else {
		v4->sin_family = AF_INET;
		v4->sin_port = port;
		ret.len = sizeof(*v4);
		if (inet_pton(AF_INET, host, &v4->sin_addr) == 1)
			return ret;
	}
	die("'%s' is not ADDRESS:PORT", text);
}

static inline const char *addr_text(const struct sockaddr_storage *sa, char *buf, size_t size)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)sa;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)sa;
	char host[INET6_ADDRSTRLEN] = "?";

	if (sa->ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		snprintf(buf, size, "[%s]:%u", host, ntohs(v6->sin6_port));
	} else {
		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		snprintf(buf, size, "%s:%u", host, ntohs(v4->sin_port));
	}
	return buf;
}

static inline void close_with_rst(int fd)
{
	struct linger hard = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	close(fd);
}

enum { MAX_SCALE = 14 };

/* Before connect() or listen(): the kernel announces this window scale, if tcp_rmem allows. */
static inline void clamp_to_scale(int fd, unsigned scale)
{
	int clamp = 65535 << scale;

	if (setsockopt(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &clamp, sizeof(clamp)))
		die("TCP_WINDOW_CLAMP: %s", strerror(errno));
}

static inline void raise_file_limit(void)
{
	struct rlimit r;

	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
}

/* ---- random numbers and generated streams ---- */

static inline uint64_t mix64(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static inline uint64_t rng_next(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	return mix64(*state);
}

/* Uniform in [0, n). */
static inline uint64_t rng_below(uint64_t *state, uint64_t n)
{
	return n ? rng_next(state) % n : 0;
}

/* Logarithmically uniform in [1, max]. */
static inline uint64_t rng_log(uint64_t *state, uint64_t max)
{
	double u = (double)(rng_next(state) >> 11) / 9007199254740992.0;
	uint64_t v = (uint64_t)exp(u * log((double)max + 1));

	return v < 1 ? 1 : v > max ? max : v;
}

/* Byte i of the stream `seed`, for any i: both ends can make and check every byte. */
static inline void stream_bytes(uint64_t seed, uint64_t off, uint8_t *buf, size_t n)
{
	size_t i = 0;

	while (i < n) {
		uint64_t word = mix64(seed + (off / 8) * 0x9e3779b97f4a7c15ull);
		size_t skip = off % 8;
		size_t take = 8 - skip < n - i ? 8 - skip : n - i;

		memcpy(buf + i, (const uint8_t *)&word + skip, take);
		i += take;
		off += take;
	}
}

#define HASH_START 0xcbf29ce484222325ull

/* Running hash of a byte stream; the same whatever the pieces. */
struct hash {
	uint64_t value;
	uint64_t word;
	unsigned fill;
};

static inline void hash_add(struct hash *h, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		if (!h->fill && n - i >= 8) {
			uint64_t w;

			memcpy(&w, p + i, 8);
			h->value = (h->value ^ w) * 0x100000001b3ull;
			h->value ^= h->value >> 29;
			i += 8;
			continue;
		}
		h->word |= (uint64_t)p[i++] << (8 * h->fill);
		if (++h->fill == 8) {
			h->value = (h->value ^ h->word) * 0x100000001b3ull;
			h->value ^= h->value >> 29;
			h->word = 0;
			h->fill = 0;
		}
	}
}

static inline uint64_t hash_end(const struct hash *h)
{
	return mix64(h->value ^ h->word ^ ((uint64_t)h->fill << 56));
}

/* ---- loop: one conn per descriptor, stepped on events and when its time comes ---- */

struct conn;
typedef void (*step_fn)(struct conn *c, uint32_t events);

enum phase {
	PHASE_CONNECTING = 0,
	PHASE_HEADER,
	PHASE_RUN,
	PHASE_DRAIN,
};

struct xfer {
	uint64_t rng;
	uint64_t seed_out, len_out, sent;
	uint64_t seed_in, len_in, got;
	uint64_t hold_at; /* sending waits here for the other side's EOF */
	bool fin_after_eof;
	bool eof, fin_sent;
	uint64_t chunk_max;
	unsigned pauses; /* left */
	uint64_t write_wake, read_wake;
	uint64_t gate_out, gate_in; /* PING: so many bytes out for so many in; 0: no gate */
	unsigned lead;              /* rounds the client is ahead of the server: 1 at the client */
	uint64_t rest_at,
		rest_us; /* REST, HALF: silence here, once the other side's half is here */
	bool rested, rest_after_eof;
	bool waiting; /* burst: at the client nothing, at the server one byte until it starts */
	bool server;
	bool slow;       /* reads XFER_SIP at a time, with pauses */
	bool with_slow;  /* one of the two does */
	bool rst_ok;     /* the other side may reset */
	uint64_t rst_at; /* reset once so many bytes passed both ways; UINT64_MAX: never */
	uint64_t max_gap;
};

struct conn {
	int fd;
	int tag; /* which target or listener */
	uint32_t interest;
	uint64_t wake; /* 0: none */
	step_fn step;
	enum phase phase;
	uint64_t began, progress;
	struct xfer x;
	uint8_t head[64];
	size_t head_len;
	char *out; /* bytes to send, owned */
	size_t out_len, out_off;
	size_t out_cap;
	uint64_t bytes;
	uint64_t limit; /* mode's own */
	uint64_t count; /* mode's own */
	bool eof, flag;
	struct hash hash;
	struct sockaddr_storage peer;
	struct long_flow *lf; /* mode long: owned */
	void *own;            /* what a program adds */
};

struct loop {
	int epoll;
	struct conn **by_fd;
	int cap;
	int n;
	uint64_t next_wake;
	uint64_t longest; /* round: what we may have kept others waiting, by work or for want of a
			     CPU */
	bool stop;
};

static struct loop loop;
static volatile sig_atomic_t got_term, got_usr1, got_usr2;

static inline void on_signal(int sig)
{
	if (sig == SIGUSR1)
		got_usr1 = 1;
	else if (sig == SIGUSR2)
		got_usr2 = 1;
	else
		got_term = 1;
}

static inline void loop_init(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGUSR2, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	raise_file_limit();
	loop.epoll = epoll_create1(EPOLL_CLOEXEC);
	loop.next_wake = UINT64_MAX;
}

static inline struct conn *conn_new(int fd, step_fn step)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		die("no memory");
	if (fd >= loop.cap) {
		int cap = fd * 2 + 64;

		loop.by_fd = realloc(loop.by_fd, (size_t)cap * sizeof(*loop.by_fd));
		if (!loop.by_fd)
			die("no memory");
		memset(loop.by_fd + loop.cap, 0, (size_t)(cap - loop.cap) * sizeof(*loop.by_fd));
		loop.cap = cap;
	}
	c->fd = fd;
	c->step = step;
	c->began = c->progress = now_us();
	loop.by_fd[fd] = c;
	loop.n++;
	return c;
}

static inline void conn_want(struct conn *c, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.fd = c->fd };

	if (c->interest == (events | 1u << 31))
		return;
	if (epoll_ctl(loop.epoll, c->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &ev))
		die("epoll_ctl: %s", strerror(errno));
	c->interest = events | 1u << 31; /* the top bit: it is in the set */
}

/* To be stepped at `when` at the latest, events or not. */
static inline void conn_wake(struct conn *c, uint64_t when)
{
	c->wake = when;
	if (when && when < loop.next_wake)
		loop.next_wake = when;
}

static inline void conn_end(struct conn *c, bool rst)
{
	loop.by_fd[c->fd] = NULL;
	loop.n--;
	if (rst)
		close_with_rst(c->fd);
	else
		close(c->fd);
	free(c->out);
	free(c->lf);
	free(c);
}

static inline int conn_error(const struct conn *c)
{
	socklen_t len = sizeof(int);
	int err = 0;

	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	return err;
}

static inline void loop_wakes(uint64_t now)
{
	loop.next_wake = UINT64_MAX;
	for (int fd = 0; fd < loop.cap; fd++) {
		struct conn *c = loop.by_fd[fd];

		if (!c || !c->wake)
			continue;
		if (c->wake <= now) {
			c->wake = 0;
			c->step(c, 0);
			c = loop.by_fd[fd];
		}
		if (c && c->wake && c->wake < loop.next_wake)
			loop.next_wake = c->wake;
	}
}

/* At both ends of a round. */
static inline void loop_round(uint64_t *began)
{
	uint64_t now = now_us();

	if (*began && now - *began > loop.longest)
		loop.longest = now - *began;
	*began = *began ? 0 : now;
}

/* Until `loop.stop` or the time `until`; `tick` runs after each round. */
static inline void loop_run(uint64_t until, void (*tick)(uint64_t now))
{
	struct epoll_event ev[256];
	uint64_t began = 0;

	while (!loop.stop) {
		uint64_t now = now_us();
		uint64_t to = loop.next_wake < until ? loop.next_wake : until;
		int ms = to <= now ? 0
				   : (int)((to - now + 999) / 1000 > 100 ? 100
									 : (to - now + 999) / 1000);
		int n;

		if (now >= until)
			return;
		n = epoll_wait(loop.epoll, ev, 256, ms);
		loop_round(&began);
		for (int i = 0; i < n; i++) {
			struct conn *c = loop.by_fd[ev[i].data.fd];

			if (c)
				c->step(c, ev[i].events);
		}
		now = now_us();
		if (now >= loop.next_wake)
			loop_wakes(now);
		tick(now);
		loop_round(&began);
	}
}

/* ---- the checked transfer ---- */

/* How it moves its bytes: like send(), recv(), shutdown(SHUT_WR). A program may have its own. */
#ifndef XFER_SEND
#define XFER_SEND(c, buf, n) send((c)->fd, buf, n, 0)
#define XFER_RECV(c, buf, n) recv((c)->fd, buf, n, 0)
#define XFER_SHUT(c) shutdown((c)->fd, SHUT_WR)
#endif

#define XFER_MAGIC 0x534c5646u
enum xfer_order {
	XFER_BOTH = 0,     /* each end closes when it has sent everything */
	XFER_CLIENT_FIRST, /* the server's last bytes and FIN come after the client's FIN */
	XFER_SERVER_FIRST,
	XFER_ORDER_COUNT_,
};

/* What a transfer looks like. All but MIXED send as fast as they can. */
enum xfer_shape {
	XFER_MIXED = 0, /* random chunks and pauses both ways */
	XFER_PING,      /* one small request, one small answer, and again */
	XFER_UP,        /* bulk, and a few bytes the other way */
	XFER_DOWN,
	XFER_DUPLEX, /* bulk both ways */
	XFER_HALF,   /* request, FIN, silence, a long answer */
	XFER_REST,   /* bulk both ways, silence on both sides in the middle */
	XFER_SHAPE_COUNT_,
};

enum {
	XFER_RST_CLIENT = 1, /* this side resets somewhere */
	XFER_RST_SERVER = 2,
	XFER_BURST = 4,       /* the server shows one byte and waits for the client's first */
	XFER_SLOW_CLIENT = 8, /* this side reads slowly, all the time */
	XFER_SLOW_SERVER = 16,
};

/* First bytes on the wire, in the order of the machine: both ends run on it. */
struct xfer_header {
	uint32_t magic;
	uint8_t order;
	uint8_t shape;
	uint8_t flags;
	uint8_t rest; /* in 10 ms */
	uint64_t seed_up, seed_down;
	uint64_t len_up, len_down;
};

enum xfer_result {
	XFER_RUNNING = 0,
	XFER_DONE,
	XFER_BAD,
	XFER_RESET,      /* time to reset, as planned */
	XFER_PEER_RESET, /* the other side has, as planned */
};

/* Fewer, larger pieces for large totals, so that every transfer takes bounded time. */
static inline void xfer_pace(struct xfer *x, uint64_t rng, unsigned max_pauses)
{
	x->rng = rng;
	x->chunk_max = rng_log(&x->rng, 256 * 1024);
	if (x->chunk_max < (x->len_out + x->len_in) / 96)
		x->chunk_max = (x->len_out + x->len_in) / 96;
	x->pauses = (unsigned)rng_below(&x->rng, max_pauses + 1);
}

static inline uint64_t xfer_rounds(const struct xfer_header *h)
{
	return 1 + h->seed_up % 200;
}

/* Lengths, at the client. `max` bounds each direction. */
static inline void xfer_plan(struct xfer_header *h, uint64_t *rng, uint64_t max)
{
	uint64_t bulk = max / 2 + rng_below(rng, max / 2 + 1);
	uint64_t few = rng_log(rng, 1000);

	h->len_up = h->shape == XFER_DOWN || h->shape == XFER_HALF ? few : bulk;
	h->len_down = h->shape == XFER_UP ? few : bulk;
	if (h->shape == XFER_DUPLEX || h->shape == XFER_REST)
		h->len_down = max / 2 + rng_below(rng, max / 2 + 1);
	if (h->shape == XFER_HALF)
		h->order = XFER_CLIENT_FIRST;
	if (h->shape == XFER_MIXED) {
		h->len_up = rng_below(rng, 20) ? rng_log(rng, max) : 0;
		h->len_down = rng_below(rng, 20) ? rng_log(rng, max) : 0;
	}
	if (h->shape == XFER_PING) {
		h->len_up = xfer_rounds(h) * rng_log(rng, 1400);
		h->len_down = xfer_rounds(h) * rng_log(rng, 1400);
	}
	/* both need a byte to start from */
	if (h->flags & (XFER_RST_CLIENT | XFER_RST_SERVER | XFER_BURST)) {
		h->len_up = h->len_up ? h->len_up : 1;
		h->len_down = h->len_down ? h->len_down : 1;
	}
}

static inline void xfer_setup(struct xfer *x, const struct xfer_header *h, bool server)
{
	bool last = h->order == (server ? XFER_CLIENT_FIRST : XFER_SERVER_FIRST);

	x->server = server;
	x->seed_out = server ? h->seed_down : h->seed_up;
	x->len_out = x->hold_at = server ? h->len_down : h->len_up;
	x->seed_in = server ? h->seed_up : h->seed_down;
	x->len_in = server ? h->len_up : h->len_down;
	xfer_pace(x, server ? h->seed_up ^ h->seed_down : h->seed_up + h->seed_down,
		  h->shape == XFER_MIXED ? 8 : 0);
	if (h->shape != XFER_MIXED && x->chunk_max < 65536)
		x->chunk_max = 65536;
	x->fin_after_eof = last;
	if (last && h->shape == XFER_MIXED)
		x->hold_at = rng_below(&x->rng, x->len_out + 1);
	if (last && h->shape == XFER_HALF)
		x->hold_at = 0;
	if (h->shape == XFER_PING) {
		x->gate_out = x->len_out / xfer_rounds(h);
		x->gate_in = x->len_in / xfer_rounds(h);
		x->lead = !server;
	}
	x->rested = h->shape != XFER_REST && !(h->shape == XFER_HALF && server);
	x->rest_at = h->shape == XFER_REST ? x->len_out / 2 : 0;
	x->rest_after_eof = h->shape == XFER_HALF;
	x->rest_us = h->rest * 10000u;
	x->waiting = h->flags & XFER_BURST;
	x->slow = h->flags & (server ? XFER_SLOW_SERVER : XFER_SLOW_CLIENT);
	x->with_slow = h->flags & (XFER_SLOW_SERVER | XFER_SLOW_CLIENT);
	x->rst_ok = h->flags & (server ? XFER_RST_CLIENT : XFER_RST_SERVER);
	x->rst_at = UINT64_MAX;
	if (h->flags & (server ? XFER_RST_SERVER : XFER_RST_CLIENT))
		x->rst_at = mix64(h->seed_up ^ h->seed_down) % (h->len_up + h->len_down + 1);
}

/* What a slow reader takes at a time, and the longest of its pauses. */
enum { XFER_SIP = 4096, XFER_SIP_US = 4000 };

static inline uint64_t xfer_maybe_pause(struct xfer *x, uint64_t now)
{
	if (!x->pauses || rng_below(&x->rng, 4))
		return 0;
	x->pauses--;
	return now + rng_below(&x->rng, 20000);
}

/*
 * At a time and each way: hundreds of connections share one thread, and one that reads in tiny
 * pieces is not to look stalled to its peer, which may have to wait until it has read all.
 */
enum { XFER_PIECE = 65536, XFER_BURSTS = 64 };

static inline size_t xfer_chunk(struct xfer *x)
{
	uint64_t n = rng_log(&x->rng, x->chunk_max);

	return (size_t)(n > XFER_PIECE ? XFER_PIECE : n);
}

static uint8_t xfer_buf[XFER_PIECE], xfer_want[XFER_PIECE];

/* Silence this side did not choose counts as a gap. */
static inline void xfer_progress(struct conn *c, uint64_t now)
{
	struct xfer *x = &c->x;
	uint64_t since = c->progress;

	if (x->read_wake > since)
		since = x->read_wake;
	if (x->write_wake > since)
		since = x->write_wake;
	if (now > since && now - since > x->max_gap)
		x->max_gap = now - since;
	c->progress = now;
}

/* How far the stream may be sent now. */
static inline uint64_t xfer_send_limit(struct xfer *x, uint64_t now)
{
	uint64_t stop = x->eof || x->hold_at > x->len_out ? x->len_out : x->hold_at;

	if (x->waiting && x->server && x->got)
		x->waiting = false;
	if (x->waiting)
		return x->server && stop ? 1 : 0;
	if (x->gate_in && (x->got / x->gate_in + x->lead) * x->gate_out < stop)
		stop = (x->got / x->gate_in + x->lead) * x->gate_out;
	if (x->rested)
		return stop;
	if (x->sent >= x->rest_at && x->got >= x->len_in / 2 && (x->eof || !x->rest_after_eof)) {
		x->rested = true;
		x->write_wake = now + x->rest_us;
		return stop;
	}
	return x->rest_at < stop ? x->rest_at : stop;
}

/* True: an error that was planned. */
static inline bool xfer_is_reset(const struct xfer *x, int err)
{
	return x->rst_ok && (err == ECONNRESET || err == EPIPE);
}

static inline enum xfer_result xfer_write(struct conn *c, uint64_t now, const char **why)
{
	struct xfer *x = &c->x;
	uint64_t stop = xfer_send_limit(x, now);

	uint64_t most = x->sent + XFER_PIECE;

	for (int burst = 0;
	     burst < XFER_BURSTS && x->sent < stop && x->sent < most && x->write_wake <= now;
	     burst++) {
		size_t n = xfer_chunk(x);
		ssize_t r;

		if (n > stop - x->sent)
			n = (size_t)(stop - x->sent);
		stream_bytes(x->seed_out, x->sent, xfer_buf, n);
		r = XFER_SEND(c, xfer_buf, n);
		if (r < 0 && errno == EAGAIN)
			break;
		if (r < 0) {
			*why = strerror(errno);
			return xfer_is_reset(x, errno) ? XFER_PEER_RESET : XFER_BAD;
		}
		x->sent += (uint64_t)r;
		xfer_progress(c, now);
		x->write_wake = xfer_maybe_pause(x, now);
	}
	if (x->sent == x->len_out && !x->fin_sent && (x->eof || !x->fin_after_eof)) {
		if (XFER_SHUT(c) < 0) {
			*why = strerror(errno);
			return x->rst_ok ? XFER_PEER_RESET : XFER_BAD;
		}
		x->fin_sent = true;
		xfer_progress(c, now);
	}
	return XFER_RUNNING;
}

static inline enum xfer_result xfer_read(struct conn *c, uint64_t now, const char **why)
{
	struct xfer *x = &c->x;

	uint64_t most = x->got + XFER_PIECE;

	for (int burst = 0; burst < XFER_BURSTS && !x->eof && x->got < most && x->read_wake <= now;
	     burst++) {
		ssize_t r = XFER_RECV(c, xfer_buf, x->slow ? XFER_SIP : xfer_chunk(x));

		if (r < 0 && errno == EAGAIN)
			break;
		if (r < 0) {
			*why = errno == ECONNRESET ? "RST in place of EOF" : strerror(errno);
			return xfer_is_reset(x, errno) ? XFER_PEER_RESET : XFER_BAD;
		}
		xfer_progress(c, now);
		if (r == 0) {
			x->eof = true;
			break;
		}
		if ((uint64_t)r > x->len_in - x->got) {
			*why = "more bytes than were sent";
			return XFER_BAD;
		}
		stream_bytes(x->seed_in, x->got, xfer_want, (size_t)r);
		if (memcmp(xfer_buf, xfer_want, (size_t)r) != 0) {
			*why = "wrong bytes";
			return XFER_BAD;
		}
		x->got += (uint64_t)r;
		x->read_wake =
			x->slow ? now + rng_below(&x->rng, XFER_SIP_US) : xfer_maybe_pause(x, now);
	}
	if (x->eof && x->got != x->len_in) {
		*why = "EOF before the last byte";
		return XFER_BAD;
	}
	return XFER_RUNNING;
}

/* What to wait for next. */
static inline void xfer_arm(struct conn *c, uint64_t now)
{
	struct xfer *x = &c->x;
	uint32_t want = 0;
	uint64_t wake = 0;

	if (!x->eof) {
		if (x->read_wake > now)
			wake = x->read_wake;
		else
			want |= EPOLLIN;
	}
	if (x->sent < xfer_send_limit(x, now)) {
		if (x->write_wake <= now)
			want |= EPOLLOUT;
		else if (!wake || x->write_wake < wake)
			wake = x->write_wake;
	}
	conn_want(c, want);
	conn_wake(c, wake ? wake : now + 100000);
}

/* Moves what can be moved now and arms events and wake-up for the rest. */
static inline enum xfer_result xfer_step(struct conn *c, uint32_t events, const char **why)
{
	struct xfer *x = &c->x;
	uint64_t now = now_us();
	enum xfer_result r;

	if (events & EPOLLHUP) /* nothing more to wait for, and polling would spin */
		x->read_wake = 0;
	r = xfer_read(c, now, why);
	if (r == XFER_RUNNING)
		r = xfer_write(c, now, why);
	if (r != XFER_RUNNING)
		return r;
	if (x->sent + x->got >= x->rst_at && x->got)
		return XFER_RESET;
	if (x->eof && x->fin_sent)
		return XFER_DONE;
	xfer_arm(c, now);
	return XFER_RUNNING;
}

static inline bool xfer_stalled(const struct conn *c, uint64_t now, uint64_t limit_us)
{
	const struct xfer *x = &c->x;
	uint64_t since = c->progress;

	if (x->read_wake > since)
		since = x->read_wake;
	if (x->write_wake > since)
		since = x->write_wake;
	/* who has sent everything hears nothing until a slow reader has come to its end */
	if (x->with_slow)
		limit_us *= 4;
	return !x->waiting && now > since && now - since > limit_us;
}

static inline void json_text(const char *p, size_t n)
{
	putchar('"');
	for (size_t i = 0; i < n; i++) {
		unsigned char ch = (unsigned char)p[i];

		if (ch == '"' || ch == '\\')
			printf("\\%c", ch);
		else if (ch == '\n')
			printf("\\n");
		else if (ch < 0x20 || ch > 0x7e)
			printf("\\u%04x", ch);
		else
			putchar(ch);
	}
	putchar('"');
}

#endif
