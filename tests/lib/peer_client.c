/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The client of the tests. Bounded in time by timeout=SECONDS; prints one JSON line and ends
 * with 0 when everything went as it should, 1 when not, 2 on a wrong command line.
 *
 *   peer_client MODE to=ADDR:PORT [to=...] timeout=SECONDS [src=ADDR,ADDR|PREFIX/LEN] ...
 *
 *   verify   n= transfers with c= at a time against `peer_server verify`: every byte checked both
 *            ways, random sizes up to max=, chunks, pauses and orders of closing; seed=
 *            shapes=mixed,ping,up,down,duplex,half,rest or all (default mixed); rest=MS of silence
 *            in the middle; rst=PERCENT of the transfers are reset somewhere, by either side;
 *            burst=1: all connect, then all start at once; burst=2: at SIGUSR1; wait=MS: that much
 *            later; wrap=1: sequence numbers start just below 2^32; scales=1: any window scale;
 *            rcvbuf=, sndbuf=BYTES; slow=PERCENT of the transfers have a slow reader, at either end
 *            or both
 *   long     c= transfers against `peer_server long`, both ways at once (way=up, way=down: one),
 *            every byte checked and hashed, until n= bytes have gone up and t= seconds have
 *            passed, or SIGTERM; rate= bytes/s
 *   churn    n= connections, c= at a time, given up in every phase= (list of numbers, below);
 *            reset_ok=1: the other side may reset first
 *   rate     for t= seconds c= clients connect, request, read to EOF, close; pause=MS between
 *   hold     n= idle connections until SIGTERM; ping=1: each gets one byte echoed first
 *   trickle  c= connections, each has a line echoed every ms= until SIGTERM or t= seconds
 *   shot     one connection: send=TEXT or up=BYTES, fin=1, hold=1 (stay silent until the end),
 *            rst_ms= / close_ms= / fin_ms= (leave then), stop=BYTES (read so many, then RST);
 *            burst=2: sends nothing before SIGUSR1
 */
#include "peer.h"
#include "peer_long.h"

enum { MAX_TARGETS = 16, MAX_SOURCES = 64 };

enum outcome {
	OUT_OK = 0,
	OUT_REFUSED,
	OUT_RESET,
	OUT_TIMEOUT,
	OUT_SHORT,
	OUT_ERROR,
	OUT_COUNT_,
};
static const char *const outcome_names[OUT_COUNT_] = { "ok",      "refused", "reset",
						       "timeout", "short",   "error" };

static struct {
	struct args args;
	struct addr target[MAX_TARGETS];
	int n_targets;
	struct addr source[MAX_SOURCES];
	int n_sources;
	uint32_t prefix, prefix_size; /* host order; size 0: none */
	uint64_t rng;
	uint64_t n, c, ms, max, stall_us, limit_us, pause_us;
	uint64_t started, done;
	uint64_t count[OUT_COUNT_];
	uint64_t stalled, bytes;
	bool reset_ok;
	uint64_t end_us;
	const char *request;
	size_t request_len;
	uint64_t expect;
	uint32_t *sample;
	size_t n_samples, cap_samples;
	uint64_t last_ok, max_gap;
	uint64_t phase_list[16];
	unsigned n_phases;
	unsigned shapes, n_shapes; /* bits */
	uint64_t rst, slow, rest_ms, burst, wait_us, ready, resets;
	bool wrap, scales;
	int rcvbuf, sndbuf;
	uint64_t worst_gap;
} cl;

/* ---- connecting ---- */

static void bind_source(int fd, int family)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	int one = 1;

	if (!cl.n_sources && !cl.prefix_size)
		return;
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	if (cl.prefix_size && family == AF_INET) {
		v4.sin_addr.s_addr =
			htonl(cl.prefix + 1 + (uint32_t)(cl.started % (cl.prefix_size - 2)));
		if (bind(fd, (struct sockaddr *)&v4, sizeof(v4)))
			die("bind: %s", strerror(errno));
	} else if (cl.n_sources) {
		const struct addr *a = &cl.source[cl.started % (uint64_t)cl.n_sources];

		if (bind(fd, (const struct sockaddr *)&a->sa, a->len))
			die("bind: %s", strerror(errno));
	}
}

/* The sequence numbers of this side pass 2^32 within the first 300 KB. */
static void wrap_soon(int fd)
{
	int on = 1, off = -1, queue = TCP_SEND_QUEUE;
	uint32_t seq = (uint32_t)-1 - (uint32_t)rng_below(&cl.rng, 300000);

	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &seq, sizeof(seq)) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)))
		die("TCP_REPAIR: %s", strerror(errno));
}

static void tune(int fd)
{
	if (cl.rcvbuf)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &cl.rcvbuf, sizeof(cl.rcvbuf));
	if (cl.sndbuf)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &cl.sndbuf, sizeof(cl.sndbuf));
	if (cl.scales)
		clamp_to_scale(fd, (unsigned)rng_below(&cl.rng, MAX_SCALE + 1));
	if (cl.wrap)
		wrap_soon(fd);
}

/* NULL: refused at once (errno). Starts connecting otherwise. */
static struct conn *dial(step_fn step)
{
	int tag = (int)(cl.started % (uint64_t)cl.n_targets);
	const struct addr *to = &cl.target[tag];
	int fd = socket(to->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct conn *c;
	int one = 1;

	if (fd < 0)
		die("socket: %s", strerror(errno));
	bind_source(fd, to->sa.ss_family);
	cl.started++;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	tune(fd);
	if (connect(fd, (const struct sockaddr *)&to->sa, to->len) && errno != EINPROGRESS) {
		int err = errno;

		close(fd);
		errno = err;
		return NULL;
	}
	c = conn_new(fd, step);
	c->tag = tag;
	return c;
}

static enum outcome outcome_of(int err)
{
	switch (err) {
	case ECONNREFUSED:
		return OUT_REFUSED;
	case ECONNRESET:
	case EPIPE:
		return OUT_RESET;
	case ETIMEDOUT:
		return OUT_TIMEOUT;
	default:
		return OUT_ERROR;
	}
}

/* True: still connecting or failed; `ret_err` tells which. */
static bool connecting(struct conn *c, uint32_t events, int *ret_err)
{
	*ret_err = 0;
	if (c->phase != PHASE_CONNECTING)
		return false;
	if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
		conn_want(c, EPOLLOUT);
		return true;
	}
	*ret_err = conn_error(c);
	if (*ret_err)
		return true;
	c->phase = PHASE_HEADER;
	return false;
}

static void print_counts(void)
{
	for (int i = 0; i < OUT_COUNT_; i++)
		printf("%s\"%s\":%llu", i ? "," : "", outcome_names[i],
		       (unsigned long long)cl.count[i]);
}

static uint64_t failures(void)
{
	uint64_t n = 0;

	for (int i = OUT_OK + 1; i < OUT_COUNT_; i++)
		n += cl.count[i];
	return n;
}

/* ---- verify ---- */

static const char *const shape_names[XFER_SHAPE_COUNT_] = { "mixed",  "ping", "up",  "down",
							    "duplex", "half", "rest" };

static void parse_shapes(const char *text)
{
	while (*text) {
		size_t len = strcspn(text, ",");
		unsigned before = cl.shapes;

		for (unsigned i = 0; i < XFER_SHAPE_COUNT_; i++) {
			bool same = strlen(shape_names[i]) == len &&
				    !strncmp(text, shape_names[i], len);

			if (same || (len == 3 && !strncmp(text, "all", 3)))
				cl.shapes |= 1u << i;
		}
		if (cl.shapes == before)
			die("shapes=%s", text);
		text += len;
		text += *text == ',';
	}
	cl.n_shapes = (unsigned)__builtin_popcount(cl.shapes);
}

static enum xfer_shape any_shape(void)
{
	unsigned left = cl.n_shapes > 1 ? (unsigned)rng_below(&cl.rng, cl.n_shapes) : 0;

	for (unsigned i = 0; i < XFER_SHAPE_COUNT_; i++)
		if (cl.shapes >> i & 1 && !left--)
			return (enum xfer_shape)i;
	return XFER_MIXED;
}

static void step_verify(struct conn *c, uint32_t events);

static void verify_plan(struct conn *c)
{
	struct xfer_header h = { .magic = XFER_MAGIC };

	h.shape = (uint8_t)any_shape();
	h.order = (uint8_t)rng_below(&cl.rng, XFER_ORDER_COUNT_);
	h.seed_up = rng_next(&cl.rng);
	h.seed_down = rng_next(&cl.rng);
	h.rest = (uint8_t)(cl.rest_ms / 10);
	if (cl.rst && rng_below(&cl.rng, 100) < cl.rst)
		h.flags = rng_below(&cl.rng, 2) ? XFER_RST_CLIENT : XFER_RST_SERVER;
	if (cl.slow && rng_below(&cl.rng, 100) < cl.slow)
		h.flags |= (uint8_t)((1 + rng_below(&cl.rng, 3)) * XFER_SLOW_CLIENT);
	if (cl.burst)
		h.flags |= XFER_BURST;
	xfer_plan(&h, &cl.rng, cl.max);
	memcpy(c->head, &h, sizeof(h));
	c->head_len = sizeof(h);
	xfer_setup(&c->x, &h, false);
}

static void verify_start(void)
{
	while ((uint64_t)loop.n < cl.c && cl.started < cl.n) {
		struct conn *c = dial(step_verify);

		if (!c) {
			fprintf(stderr, "verify: connect: %s\n", strerror(errno));
			cl.count[OUT_ERROR]++;
			cl.done++;
			continue;
		}
		verify_plan(c);
		conn_want(c, EPOLLOUT);
		conn_wake(c, now_us() + 100000);
	}
}

/* Everyone is connected, as far as anyone will be: off they go. */
static void burst_start(uint64_t now)
{
	for (int fd = 0; fd < loop.cap; fd++) {
		struct conn *c = loop.by_fd[fd];

		if (!c)
			continue;
		c->x.waiting = false;
		c->progress = now;
		step_verify(c, 0);
	}
}

static void burst_tick(uint64_t now)
{
	static bool told, off;
	static uint64_t at;

	if (off || cl.ready + cl.done < cl.n)
		return;
	if (!told) {
		told = true;
		at = now + cl.wait_us;
		printf("{\"mode\":\"verify\",\"ready\":%llu}\n", (unsigned long long)cl.ready);
		fflush(stdout);
	}
	if (now < at || (cl.burst == 2 && !got_usr1))
		return;
	off = true;
	burst_start(now);
}

static void verify_end(struct conn *c, bool rst)
{
	if (c->x.max_gap > cl.worst_gap)
		cl.worst_gap = c->x.max_gap;
	if (c->flag && c->x.waiting)
		cl.ready--;
	cl.done++;
	conn_end(c, rst);
}

static void verify_bad(struct conn *c, const char *why)
{
	struct sockaddr_storage self = { 0 };
	socklen_t len = sizeof(self);
	struct xfer_header h;
	char own[80];

	memcpy(&h, c->head, sizeof(h));
	getsockname(c->fd, (struct sockaddr *)&self, &len);
	fprintf(stderr,
		"verify: %s: %s, %s, order %u, sent %llu of %llu, got %llu of %llu, eof %d, after "
		"%llu "
		"ms\n",
		why, addr_text(&self, own, sizeof(own)), shape_names[h.shape], h.order,
		(unsigned long long)c->x.sent, (unsigned long long)c->x.len_out,
		(unsigned long long)c->x.got, (unsigned long long)c->x.len_in, c->x.eof,
		(unsigned long long)(now_us() - c->began) / 1000);
	verify_end(c, true);
}

/* False: the connection is gone. */
static bool verify_header(struct conn *c)
{
	/* the first bytes of a connection always fit */
	if (send(c->fd, c->head, c->head_len, 0) != (ssize_t)c->head_len) {
		cl.count[OUT_ERROR]++;
		verify_bad(c, "header not sent");
		return false;
	}
	c->progress = now_us();
	c->phase = PHASE_RUN;
	return true;
}

static void verify_result(struct conn *c, enum xfer_result result, const char *why)
{
	switch (result) {
	case XFER_RUNNING:
		if (c->x.waiting && c->x.got && !c->flag) {
			c->flag = true;
			cl.ready++;
		}
		break;
	case XFER_DONE:
		cl.count[OUT_OK]++;
		cl.bytes += c->x.got + c->x.sent;
		verify_end(c, false);
		break;
	case XFER_RESET:
	case XFER_PEER_RESET:
		cl.count[OUT_OK]++;
		cl.resets++;
		verify_end(c, result == XFER_RESET);
		break;
	case XFER_BAD:
		cl.count[OUT_ERROR]++;
		verify_bad(c, why);
		break;
	}
}

static void step_verify(struct conn *c, uint32_t events)
{
	enum xfer_result result;
	const char *why = "";
	int err;

	if (xfer_stalled(c, now_us(), cl.stall_us)) {
		cl.stalled++;
		verify_bad(c, "stalled");
		return;
	}
	if (connecting(c, events, &err)) {
		conn_wake(c, now_us() + 100000);
		if (err) {
			cl.count[outcome_of(err)]++;
			verify_bad(c, strerror(err));
		}
		return;
	}
	if (c->phase == PHASE_HEADER && !verify_header(c))
		return;
	result = xfer_step(c, events, &why);
	verify_result(c, result, why);
}

static void verify_tick(uint64_t now)
{
	verify_start();
	if (cl.burst)
		burst_tick(now);
	loop.stop = cl.done == cl.n || got_term;
}

static int run_verify(uint64_t until)
{
	uint64_t began = now_us();
	uint64_t bad;

	cl.rest_ms = arg_u64(&cl.args, "rest", 300);
	cl.rst = arg_u64(&cl.args, "rst", 0);
	cl.slow = arg_u64(&cl.args, "slow", 0);
	cl.burst = arg_u64(&cl.args, "burst", 0);
	cl.wait_us = arg_u64(&cl.args, "wait", 0) * 1000;
	parse_shapes(arg_str(&cl.args, "shapes", "mixed"));
	if (cl.burst)
		cl.c = cl.n;
	verify_start();
	loop_run(until, verify_tick);
	bad = cl.n - cl.count[OUT_OK] - cl.stalled;
	printf("{\"mode\":\"verify\",\"n\":%llu,\"ok\":%llu,\"bad\":%llu,\"stalled\":%llu,"
	       "\"resets\":%llu,\"bytes\":%llu,\"max_gap_ms\":%llu,\"max_round_ms\":%llu,\"s\":%."
	       "2f}\n",
	       (unsigned long long)cl.n, (unsigned long long)cl.count[OUT_OK],
	       (unsigned long long)bad, (unsigned long long)cl.stalled,
	       (unsigned long long)cl.resets, (unsigned long long)cl.bytes,
	       (unsigned long long)cl.worst_gap / 1000, (unsigned long long)loop.longest / 1000,
	       (double)(now_us() - began) / 1e6);
	return bad || cl.stalled;
}

/* ---- long ---- */

static struct {
	uint64_t ok, bad, up, down, gap, hash_up, hash_down;
} lg;

static void long_over(struct conn *c, const char *why)
{
	struct long_flow *f = c->lf;

	if (!why)
		why = long_compare(f);
	if (why) {
		fprintf(stderr, "long: %s: sent %llu, got %llu, after %llu ms\n", why,
			(unsigned long long)f->sent, (unsigned long long)f->got,
			(unsigned long long)(now_us() - c->began) / 1000);
		lg.bad++;
	} else {
		lg.ok++;
	}
	lg.up += f->sent;
	lg.down += f->got;
	lg.hash_up ^= hash_end(&f->out);
	lg.hash_down ^= hash_end(&f->in);
	if (f->gap > lg.gap)
		lg.gap = f->gap;
	if (!why && f->trailer.gap > lg.gap)
		lg.gap = f->trailer.gap;
	cl.done++;
	conn_end(c, why != NULL);
}

static void step_long(struct conn *c, uint32_t events)
{
	struct long_flow *f = c->lf;
	uint64_t now = now_us();
	const char *why = "";
	int err;

	if (connecting(c, events, &err)) {
		conn_wake(c, now + 100000);
		if (err)
			long_over(c, strerror(err));
		return;
	}
	if (c->phase == PHASE_HEADER) {
		if (send(c->fd, &f->header, sizeof(f->header), 0) != sizeof(f->header)) {
			long_over(c, "header not sent");
			return;
		}
		c->phase = PHASE_RUN;
		f->began = f->last_in = f->last_out = now;
	}
	f->finish = got_term || (f->sent >= cl.n && now >= cl.end_us);
	switch (long_step(c, cl.stall_us, &why)) {
	case XFER_BAD:
	case XFER_RESET:
	case XFER_PEER_RESET:
		long_over(c, why);
		break;
	case XFER_DONE:
		long_over(c, NULL);
		break;
	case XFER_RUNNING:
		break;
	}
}

static void long_tick(uint64_t now)
{
	(void)now;
	if (got_usr1) {
		uint64_t up = lg.up, down = lg.down;

		got_usr1 = 0;
		for (int fd = 0; fd < loop.cap; fd++) {
			if (loop.by_fd[fd]) {
				up += loop.by_fd[fd]->lf->sent;
				down += loop.by_fd[fd]->lf->got;
			}
		}
		printf("{\"mode\":\"long\",\"open\":%d,\"up\":%llu,\"down\":%llu}\n", loop.n,
		       (unsigned long long)up, (unsigned long long)down);
		fflush(stdout);
	}
	loop.stop = cl.done == cl.c;
}

static uint8_t long_way(void)
{
	const char *way = arg_str(&cl.args, "way", "both");

	if (strcmp(way, "up") == 0)
		return XFER_UP;
	if (strcmp(way, "down") == 0)
		return XFER_DOWN;
	if (strcmp(way, "both") != 0)
		die("way=%s", way);
	return XFER_DUPLEX;
}

static int run_long(uint64_t until)
{
	uint64_t began = now_us();

	cl.end_us = began + arg_u64(&cl.args, "t", 0) * 1000000;
	cl.n = arg_u64(&cl.args, "n", 0);
	while (cl.started < cl.c) {
		struct conn *c = dial(step_long);

		if (!c)
			die("connect: %s", strerror(errno));
		c->lf = long_new(false);
		c->lf->header = (struct xfer_header){ .magic = LONG_MAGIC,
						      .seed_up = rng_next(&cl.rng),
						      .seed_down = rng_next(&cl.rng),
						      .len_up = arg_u64(&cl.args, "rate", 0),
						      .len_down = cl.n,
						      .shape = long_way() };
		long_setup(c->lf);
		conn_want(c, EPOLLOUT);
		conn_wake(c, began + 100000);
	}
	loop_run(until, long_tick);
	printf("{\"mode\":\"long\",\"flows\":%llu,\"ok\":%llu,\"bad\":%llu,\"up\":%llu,\"down\":%"
	       "llu,"
	       "\"max_gap_ms\":%llu,\"hash_up\":\"%016llx\",\"hash_down\":\"%016llx\",\"s\":%.2f}"
	       "\n",
	       (unsigned long long)cl.c, (unsigned long long)lg.ok,
	       (unsigned long long)(cl.c - lg.ok), (unsigned long long)lg.up,
	       (unsigned long long)lg.down, (unsigned long long)lg.gap / 1000,
	       (unsigned long long)lg.hash_up, (unsigned long long)lg.hash_down,
	       (double)(now_us() - began) / 1e6);
	return lg.ok != cl.c;
}

/* ---- churn: against `peer_server http size=...` or a port nobody answers on ---- */

enum churn_phase {
	CHURN_CLOSE_AT_ONCE = 0, /* connected, nothing sent, close */
	CHURN_RST_AT_ONCE,
	CHURN_MID_CONNECT,       /* close before the handshake is known to be done */
	CHURN_HALF_ANSWER_CLOSE, /* unread bytes: the kernel sends RST */
	CHURN_HALF_ANSWER_RST,
	CHURN_HALF_REQUEST, /* part of a request, close */
	CHURN_WHOLE_CLOSE,  /* the whole answer, close */
	CHURN_FIN_THEN_RST, /* request and FIN, some of the answer, RST */
	CHURN_FIN_WHOLE,    /* request and FIN, the whole answer and the EOF */
	CHURN_LINGER,       /* nothing sent, stays for ms=, then close */
	CHURN_COUNT_,
};

static void step_churn(struct conn *c, uint32_t events);

static void churn_end(struct conn *c, bool rst, enum outcome how)
{
	if (how == OUT_RESET && cl.reset_ok)
		how = OUT_OK;
	cl.count[how]++;
	cl.done++;
	conn_end(c, rst);
}

static void churn_start(void)
{
	while ((uint64_t)loop.n < cl.c && cl.started < cl.n) {
		uint64_t phase = cl.phase_list[cl.started % cl.n_phases];
		struct conn *c = dial(step_churn);

		if (!c) {
			cl.count[outcome_of(errno)]++;
			cl.done++;
			continue;
		}
		c->count = phase;
		c->limit = rng_below(&cl.rng, cl.expect) + 1; /* of the answer */
		if (phase == CHURN_MID_CONNECT) {
			churn_end(c, rng_below(&cl.rng, 2), OUT_OK);
			continue;
		}
		conn_want(c, EPOLLOUT);
		conn_wake(c, c->began + cl.limit_us);
	}
}

/* True: ended. */
static bool churn_send(struct conn *c)
{
	size_t len = cl.request_len;

	switch ((enum churn_phase)c->count) {
	case CHURN_CLOSE_AT_ONCE:
	case CHURN_RST_AT_ONCE:
	case CHURN_MID_CONNECT:
		churn_end(c, c->count == CHURN_RST_AT_ONCE, OUT_OK);
		return true;
	case CHURN_LINGER:
		conn_want(c, 0);
		conn_wake(c, c->began + cl.ms * 1000);
		return false;
	case CHURN_HALF_REQUEST:
		len /= 2;
		break;
	case CHURN_HALF_ANSWER_CLOSE:
	case CHURN_HALF_ANSWER_RST:
	case CHURN_WHOLE_CLOSE:
	case CHURN_FIN_THEN_RST:
	case CHURN_FIN_WHOLE:
	case CHURN_COUNT_:
		break;
	}
	if (send(c->fd, cl.request, len, 0) != (ssize_t)len) {
		churn_end(c, true, OUT_ERROR);
		return true;
	}
	if (c->count == CHURN_HALF_REQUEST) {
		churn_end(c, false, OUT_OK);
		return true;
	}
	if (c->count == CHURN_FIN_THEN_RST || c->count == CHURN_FIN_WHOLE)
		shutdown(c->fd, SHUT_WR);
	conn_want(c, EPOLLIN);
	return false;
}

static void churn_read(struct conn *c)
{
	static char buf[16384];
	bool whole = c->count == CHURN_WHOLE_CLOSE || c->count == CHURN_FIN_WHOLE;
	size_t room = sizeof(buf);
	ssize_t r;

	if (!whole && c->limit - c->bytes < room)
		room = c->limit - c->bytes;
	r = recv(c->fd, buf, room, 0);
	if (r < 0 && errno == EAGAIN)
		return;
	if (r < 0) {
		churn_end(c, true, outcome_of(errno));
		return;
	}
	c->bytes += (uint64_t)r;
	if (r == 0)
		churn_end(c, false, c->bytes >= cl.expect ? OUT_OK : OUT_SHORT);
	else if (!whole && c->bytes >= c->limit)
		churn_end(c, c->count != CHURN_HALF_ANSWER_CLOSE, OUT_OK);
	else if (c->count == CHURN_WHOLE_CLOSE && c->bytes >= cl.expect)
		churn_end(c, false, OUT_OK);
}

static void step_churn(struct conn *c, uint32_t events)
{
	int err;

	if (c->count == CHURN_LINGER && c->phase == PHASE_HEADER) {
		if (events & (EPOLLERR | EPOLLHUP))
			churn_end(c, false, OUT_RESET);
		else
			churn_end(c, false, OUT_OK);
		return;
	}
	if (!events && now_us() >= c->began + cl.limit_us) {
		churn_end(c, true, OUT_TIMEOUT);
		return;
	}
	if (connecting(c, events, &err)) {
		if (err)
			churn_end(c, true, outcome_of(err));
		return;
	}
	if (c->phase == PHASE_HEADER) {
		if (!churn_send(c) && c->count != CHURN_LINGER)
			c->phase = PHASE_RUN;
		return;
	}
	churn_read(c);
}

static void churn_tick(uint64_t now)
{
	(void)now;
	churn_start();
	loop.stop = cl.done == cl.n || got_term;
}

static int run_churn(uint64_t until)
{
	const char *list = arg_str(&cl.args, "phase", "0,1,2,3,4,5,6,7,8");

	while (*list && cl.n_phases < 16) {
		cl.phase_list[cl.n_phases] = strtoull(list, (char **)&list, 10);
		if (cl.phase_list[cl.n_phases++] >= CHURN_COUNT_)
			die("phase= goes to %d", CHURN_COUNT_ - 1);
		list += *list == ',';
	}
	if (!cl.expect)
		cl.expect = 1;
	churn_start();
	loop_run(until, churn_tick);
	printf("{\"mode\":\"churn\",\"n\":%llu,\"done\":%llu,", (unsigned long long)cl.n,
	       (unsigned long long)cl.done);
	print_counts();
	printf("}\n");
	return failures() || cl.done != cl.n;
}

/* ---- rate ---- */

static void step_rate(struct conn *c, uint32_t events);

static void rate_dial(void)
{
	struct conn *c = dial(step_rate);

	if (!c) {
		cl.count[outcome_of(errno)]++;
		return;
	}
	conn_want(c, EPOLLOUT);
	conn_wake(c, c->began + cl.limit_us);
}

static void rate_sample(uint64_t us)
{
	if (cl.n_samples == cl.cap_samples) {
		cl.cap_samples = cl.cap_samples * 2 + 4096;
		cl.sample = realloc(cl.sample, cl.cap_samples * sizeof(*cl.sample));
		if (!cl.sample)
			die("no memory");
	}
	cl.sample[cl.n_samples++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static void rate_end(struct conn *c, enum outcome how)
{
	uint64_t now = now_us();

	cl.count[how]++;
	if (how == OUT_OK) {
		rate_sample(now - c->began);
		if (now - cl.last_ok > cl.max_gap)
			cl.max_gap = now - cl.last_ok;
		cl.last_ok = now;
	} else if (arg_u64(&cl.args, "v", 0)) {
		fprintf(stderr, "rate: %s after %llu ms, %llu bytes\n", outcome_names[how],
			(unsigned long long)(now - c->began) / 1000, (unsigned long long)c->bytes);
	}
	conn_end(c, how == OUT_TIMEOUT);
}

static void step_rate(struct conn *c, uint32_t events)
{
	static char buf[16384];
	ssize_t r;
	int err;

	if (!events && now_us() >= c->began + cl.limit_us) {
		rate_end(c, OUT_TIMEOUT);
		return;
	}
	if (connecting(c, events, &err)) {
		if (err)
			rate_end(c, outcome_of(err));
		return;
	}
	if (c->phase == PHASE_HEADER) {
		c->phase = PHASE_RUN;
		if (send(c->fd, cl.request, cl.request_len, 0) != (ssize_t)cl.request_len) {
			rate_end(c, outcome_of(errno));
			return;
		}
		conn_want(c, EPOLLIN);
		return;
	}
	for (;;) {
		r = recv(c->fd, buf, sizeof(buf), 0);
		if (r < 0 && errno == EAGAIN)
			return;
		if (r < 0) {
			rate_end(c, outcome_of(errno));
			return;
		}
		if (r == 0) {
			rate_end(c, c->bytes < cl.expect ? OUT_SHORT : OUT_OK);
			return;
		}
		c->bytes += (uint64_t)r;
	}
}

static void rate_tick(uint64_t now)
{
	static uint64_t next;

	if (now < cl.end_us && !got_term) {
		while ((uint64_t)loop.n < cl.c && now >= next) {
			rate_dial();
			if (cl.pause_us)
				next = now + cl.pause_us / cl.c;
		}
		if (cl.pause_us && next < loop.next_wake)
			loop.next_wake = next;
	} else if (!loop.n) {
		loop.stop = true;
	}
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static uint32_t percentile(double p)
{
	size_t i = (size_t)(p * (double)cl.n_samples);

	if (!cl.n_samples)
		return 0;
	return cl.sample[i < cl.n_samples ? i : cl.n_samples - 1];
}

static int run_rate(uint64_t until)
{
	uint64_t began = now_us();
	double s;

	cl.end_us = began + arg_u64(&cl.args, "t", 1) * 1000000;
	cl.last_ok = began;
	if (!cl.expect)
		cl.expect = 1;
	rate_tick(began);
	loop_run(until, rate_tick);
	s = (double)(now_us() - began) / 1e6;
	qsort(cl.sample, cl.n_samples, sizeof(*cl.sample), compare_u32);
	printf("{\"mode\":\"rate\",");
	print_counts();
	printf(",\"unfinished\":%d,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u,"
	       "\"max_gap_ms\":%llu,\"per_s\":%.0f}\n",
	       loop.n, percentile(0.5), percentile(0.99), percentile(1),
	       (unsigned long long)cl.max_gap / 1000, (double)cl.count[OUT_OK] / s);
	return failures() || loop.n || !cl.count[OUT_OK];
}

/* ---- hold ---- */

static uint64_t held, lost;

static void step_hold(struct conn *c, uint32_t events)
{
	char buf[4096];
	ssize_t r;
	int err;

	if (connecting(c, events, &err)) {
		if (err) {
			cl.count[outcome_of(err)]++;
			cl.done++;
			conn_end(c, true);
		}
		return;
	}
	if (c->phase == PHASE_HEADER) {
		c->phase = PHASE_RUN;
		if (!cl.ms) {
			cl.done++;
			held++;
		} else if (send(c->fd, "x", 1, 0) != 1) { /* refused meanwhile */
			cl.count[outcome_of(errno)]++;
			cl.done++;
			conn_end(c, true);
			return;
		}
		conn_want(c, EPOLLIN);
		return;
	}
	r = recv(c->fd, buf, sizeof(buf), 0);
	if (r < 0 && errno == EAGAIN)
		return;
	if (r > 0) {
		if (cl.ms && !c->flag) {
			c->flag = true;
			cl.done++;
			held++;
		}
		return;
	}
	if (cl.ms && !c->flag) {
		cl.count[r ? OUT_RESET : OUT_SHORT]++;
		cl.done++;
	} else {
		lost++;
		cl.count[r ? OUT_RESET : OUT_SHORT]++;
	}
	conn_end(c, false);
}

static void hold_tick(uint64_t now)
{
	static bool told;

	(void)now;
	while (cl.started < cl.n && cl.started - cl.done < cl.c) {
		struct conn *c = dial(step_hold);

		if (c) {
			conn_want(c, EPOLLOUT);
		} else {
			cl.count[outcome_of(errno)]++;
			cl.done++;
		}
	}
	if (cl.done == cl.n && !told) {
		told = true;
		printf("{\"mode\":\"hold\",\"held\":%llu,", (unsigned long long)held);
		print_counts();
		printf("}\n");
		fflush(stdout);
	}
	loop.stop = got_term;
}

static int run_hold(uint64_t until)
{
	uint64_t rst = arg_u64(&cl.args, "rst", 0);

	cl.ms = arg_u64(&cl.args, "ping", 0);
	hold_tick(0);
	loop_run(until, hold_tick);
	printf("{\"mode\":\"hold\",\"held\":%llu,\"lost\":%llu,", (unsigned long long)held,
	       (unsigned long long)lost);
	print_counts();
	printf("}\n");
	for (int fd = 0; rst && fd < loop.cap; fd++)
		if (loop.by_fd[fd])
			conn_end(loop.by_fd[fd], true);
	return lost || held != cl.n || !loop.stop;
}

/* ---- trickle ---- */

static uint64_t rounds, breaks;

static void trickle_break(struct conn *c, const char *why)
{
	fprintf(stderr, "trickle: %s after %llu rounds, %llu ms\n", why,
		(unsigned long long)c->count, (unsigned long long)(now_us() - c->began) / 1000);
	breaks++;
	conn_end(c, true);
}

static void step_trickle(struct conn *c, uint32_t events)
{
	uint64_t now = now_us();
	char buf[32], want[32];
	ssize_t r;
	int err;

	if (connecting(c, events, &err)) {
		if (err)
			trickle_break(c, strerror(err));
		return;
	}
	if (c->phase == PHASE_HEADER) {
		c->phase = PHASE_RUN;
		c->progress = now;
	}
	if (!c->flag && now >= c->progress) {
		snprintf(want, sizeof(want), "%07llu\n", (unsigned long long)c->count % 10000000);
		if (send(c->fd, want, 8, 0) != 8) {
			trickle_break(c, strerror(errno));
			return;
		}
		c->flag = true; /* answer awaited */
		c->bytes = 0;
		c->progress = now;
	} else if (c->flag && now - c->progress > cl.stall_us) {
		trickle_break(c, "no answer");
		return;
	}
	r = recv(c->fd, buf, 8 - c->bytes, 0);
	if (r == 0 || (r < 0 && errno != EAGAIN)) {
		trickle_break(c, r ? strerror(errno) : "EOF");
		return;
	}
	if (r > 0) {
		snprintf(want, sizeof(want), "%07llu\n", (unsigned long long)c->count % 10000000);
		if (memcmp(buf, want + c->bytes, (size_t)r) != 0) {
			trickle_break(c, "wrong bytes");
			return;
		}
		c->bytes += (uint64_t)r;
		if (c->bytes == 8) {
			c->flag = false;
			c->bytes = 0;
			c->count++;
			rounds++;
			c->progress = now + cl.ms * 1000;
		}
	}
	conn_want(c, EPOLLIN);
	conn_wake(c, c->flag ? now + 100000 : c->progress);
}

static void trickle_tick(uint64_t now)
{
	loop.stop = got_term || now >= cl.end_us || !loop.n;
}

static int run_trickle(uint64_t until)
{
	int open_at_end;

	cl.end_us = now_us() + arg_u64(&cl.args, "t", 3600) * 1000000;
	for (uint64_t i = 0; i < cl.c; i++) {
		struct conn *c = dial(step_trickle);

		if (!c)
			die("connect: %s", strerror(errno));
		conn_want(c, EPOLLOUT);
		conn_wake(c, now_us() + 100000);
	}
	loop_run(until, trickle_tick);
	open_at_end = loop.n;
	printf("{\"mode\":\"trickle\",\"rounds\":%llu,\"breaks\":%llu,\"open\":%d}\n",
	       (unsigned long long)rounds, (unsigned long long)breaks, open_at_end);
	return breaks || !rounds || (uint64_t)open_at_end != cl.c;
}

/* ---- shot ---- */

static struct {
	uint64_t up, sent, got, stop;
	uint64_t fin_ms, close_ms, rst_ms, connect_us, end_us;
	bool fin, hold, fin_sent, waits;
	const char *connect;
	int connect_errno;
	const char *end;
	char text[2048];
	size_t text_len;
	struct hash hash_out, hash_in;
} shot = { .connect = "timeout", .end = "timeout" };

static void shot_end(struct conn *c, const char *how, bool rst)
{
	shot.end = how;
	shot.end_us = now_us() - c->began;
	conn_end(c, rst);
	loop.stop = true;
}

/* -1: ended. */
static int shot_send(struct conn *c)
{
	if (shot.waits && !got_usr1)
		return 0;
	while (shot.sent < cl.request_len + shot.up) {
		const uint8_t *p = xfer_buf;
		size_t n;
		ssize_t r;

		if (shot.sent < cl.request_len) {
			p = (const uint8_t *)cl.request + shot.sent;
			n = cl.request_len - shot.sent;
		} else {
			uint64_t off = shot.sent - cl.request_len;

			n = shot.up - off < 65536 ? (size_t)(shot.up - off) : 65536;
			stream_bytes(1, off, xfer_buf, n);
		}
		r = send(c->fd, p, n, 0);
		if (r < 0 && errno == EAGAIN)
			return 0;
		if (r < 0) {
			shot_end(c, "reset", false);
			return -1;
		}
		hash_add(&shot.hash_out, p, (size_t)r);
		shot.sent += (uint64_t)r;
	}
	if (shot.fin && !shot.fin_sent) {
		shutdown(c->fd, SHUT_WR);
		shot.fin_sent = true;
	}
	return 0;
}

/* -1: ended. */
static int shot_read(struct conn *c)
{
	for (;;) {
		size_t room = sizeof(xfer_buf);
		ssize_t r;

		if (shot.stop && shot.stop - shot.got < room)
			room = shot.stop - shot.got;
		r = recv(c->fd, xfer_buf, room, 0);
		if (r < 0 && errno == EAGAIN)
			return 0;
		if (r <= 0) {
			shot_end(c, r == 0 ? "eof" : outcome_names[outcome_of(errno)], false);
			return -1;
		}
		hash_add(&shot.hash_in, xfer_buf, (size_t)r);
		for (ssize_t i = 0; i < r && shot.text_len < sizeof(shot.text); i++)
			shot.text[shot.text_len++] = (char)xfer_buf[i];
		shot.got += (uint64_t)r;
		if (shot.stop && shot.got >= shot.stop) {
			shot_end(c, "stopped", true);
			return -1;
		}
	}
}

static void step_shot(struct conn *c, uint32_t events)
{
	uint64_t age_ms = (now_us() - c->began) / 1000;
	bool can_send;
	int err;

	if (shot.rst_ms && age_ms >= shot.rst_ms) {
		shot_end(c, "left", true);
		return;
	}
	if (shot.close_ms && age_ms >= shot.close_ms) {
		shot_end(c, "left", false);
		return;
	}
	conn_wake(c, now_us() + 2000);
	if (connecting(c, events, &err)) {
		if (err == ECONNRESET) { /* accepted, then reset before we looked */
			shot.connect = "ok";
			shot_end(c, "reset", true);
		} else if (err) {
			shot.connect = outcome_names[outcome_of(err)];
			shot.connect_errno = err;
			shot_end(c, "none", true);
		}
		return;
	}
	if (c->phase == PHASE_HEADER) {
		c->phase = PHASE_RUN;
		shot.connect = "ok";
		shot.connect_us = now_us() - c->began;
	}
	if (shot.fin_ms && age_ms >= shot.fin_ms)
		shot.fin = true;
	if (shot_send(c))
		return;
	if (shot.hold) {
		conn_want(c, 0);
		if (events & (EPOLLERR | EPOLLHUP))
			shot_end(c, conn_error(c) ? "reset" : "eof", false);
		return;
	}
	if (shot_read(c))
		return;
	can_send = shot.sent < cl.request_len + shot.up && (!shot.waits || got_usr1);
	conn_want(c, EPOLLIN | (can_send ? (uint32_t)EPOLLOUT : 0));
}

static void shot_tick(uint64_t now)
{
	(void)now;
	if (got_term)
		loop.stop = true;
}

static int run_shot(uint64_t until)
{
	struct conn *c;

	shot.up = arg_u64(&cl.args, "up", 0);
	shot.fin = arg_u64(&cl.args, "fin", 0);
	shot.hold = arg_u64(&cl.args, "hold", 0);
	shot.fin_ms = arg_u64(&cl.args, "fin_ms", 0);
	shot.rst_ms = arg_u64(&cl.args, "rst_ms", 0);
	shot.close_ms = arg_u64(&cl.args, "close_ms", 0);
	shot.stop = arg_u64(&cl.args, "stop", 0);
	shot.waits = arg_u64(&cl.args, "burst", 0) == 2;
	shot.hash_in.value = shot.hash_out.value = HASH_START;
	c = dial(step_shot);
	if (c) {
		conn_want(c, EPOLLOUT);
		conn_wake(c, now_us() + 2000);
		loop_run(until, shot_tick);
	} else {
		shot.connect_errno = errno;
		shot.connect = outcome_names[outcome_of(errno)];
		shot.end = "none";
	}
	printf("{\"mode\":\"shot\",\"connect\":\"%s\",\"connect_errno\":\"%s\","
	       "\"connect_ms\":%.1f,\"end\":\"%s\","
	       "\"end_ms\":%.1f,\"sent\":%llu,\"got\":%llu,\"hash_out\":\"%016llx\","
	       "\"hash_in\":\"%016llx\",\"text\":",
	       shot.connect, shot.connect_errno ? strerrorname_np(shot.connect_errno) : "",
	       (double)shot.connect_us / 1e3, shot.end, (double)shot.end_us / 1e3,
	       (unsigned long long)shot.sent, (unsigned long long)shot.got,
	       (unsigned long long)hash_end(&shot.hash_out),
	       (unsigned long long)hash_end(&shot.hash_in));
	json_text(shot.text, shot.text_len);
	printf("}\n");
	return strcmp(shot.connect, "ok") != 0 || !strcmp(shot.end, "timeout");
}

/* ---- command line ---- */

static void parse_sources(const char *text)
{
	const char *slash = strchr(text, '/');
	char part[160];

	if (slash) {
		struct addr a;

		snprintf(part, sizeof(part), "%.*s:0", (int)(slash - text), text);
		a = addr_parse(part);
		cl.prefix = ntohl(((struct sockaddr_in *)&a.sa)->sin_addr.s_addr);
		cl.prefix_size = 1u << (32 - atoi(slash + 1));
		return;
	}
	while (*text && cl.n_sources < MAX_SOURCES) {
		size_t len = strcspn(text, ",");

		snprintf(part, sizeof(part), "%.*s:0", (int)len, text);
		cl.source[cl.n_sources++] = addr_parse(part);
		text += len;
		text += *text == ',';
	}
}

static const struct {
	const char *name;
	int (*run)(uint64_t until);
} modes[] = {
	{ "long", run_long }, { "verify", run_verify }, { "churn", run_churn },
	{ "rate", run_rate }, { "hold", run_hold },     { "trickle", run_trickle },
	{ "shot", run_shot },
};

static void parse_common(void)
{
	const char *text;
	int pos = 0;

	while ((text = arg_next(&cl.args, "to", &pos)) && cl.n_targets < MAX_TARGETS)
		cl.target[cl.n_targets++] = addr_parse(text);
	if (!cl.n_targets)
		die("to=ADDRESS:PORT is missing");
	text = arg_str(&cl.args, "src", NULL);
	if (text)
		parse_sources(text);
	cl.rng = arg_u64(&cl.args, "seed", now_us());
	cl.n = arg_u64(&cl.args, "n", 1);
	cl.c = arg_u64(&cl.args, "c", 1);
	cl.ms = arg_u64(&cl.args, "ms", 100);
	cl.max = arg_u64(&cl.args, "max", 4u << 20);
	cl.stall_us = arg_u64(&cl.args, "stall", 2000) * 1000;
	cl.limit_us = arg_u64(&cl.args, "limit", 5000) * 1000;
	cl.pause_us = arg_u64(&cl.args, "pause", 0) * 1000;
	cl.wrap = arg_u64(&cl.args, "wrap", 0);
	cl.scales = arg_u64(&cl.args, "scales", 0);
	cl.rcvbuf = (int)arg_u64(&cl.args, "rcvbuf", 0);
	cl.sndbuf = (int)arg_u64(&cl.args, "sndbuf", 0);
	cl.reset_ok = arg_u64(&cl.args, "reset_ok", 0);
	cl.expect = arg_u64(&cl.args, "expect", 0);
	cl.request = arg_str(&cl.args, "send", "");
	cl.request_len = strlen(cl.request);
}

int main(int argc, char **argv)
{
	static const char *const known[] = {
		"to",     "timeout",  "src",    "seed",   "n",      "c",      "ms",       "max",
		"stall",  "limit",    "pause",  "expect", "send",   "phase",  "t",        "ping",
		"rst",    "up",       "fin",    "hold",   "fin_ms", "rst_ms", "close_ms", "stop",
		"v",      "reset_ok", "shapes", "rest",   "burst",  "wait",   "wrap",     "scales",
		"rcvbuf", "sndbuf",   "rate",   "way",    "slow",   NULL
	};
	uint64_t timeout;

	if (argc < 2)
		die("usage: peer_client MODE to=ADDR:PORT timeout=SECONDS ...");
	cl.args = (struct args){ argc - 2, argv + 2 };
	args_check(&cl.args, known);
	timeout = arg_u64(&cl.args, "timeout", 0);
	if (!timeout)
		die("timeout=SECONDS is missing");
	parse_common();
	if (!cl.request_len && (!strcmp(argv[1], "churn") || !strcmp(argv[1], "rate"))) {
		cl.request = "GET / HTTP/1.0\r\nConnection: close\r\n\r\n";
		cl.request_len = strlen(cl.request);
	}
	loop_init();
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (!strcmp(modes[i].name, argv[1]))
			return modes[i].run(now_us() + timeout * 1000000);
	die("unknown mode '%s'", argv[1]);
}
