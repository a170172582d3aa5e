/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The backend of the tests. Bounded in time by timeout=SECONDS; ends on SIGTERM with one
 * JSON line and exit code 1 if a checked transfer went wrong. SIGUSR1 prints the line at
 * once, SIGUSR2 lets a paused sink read.
 *
 *   peer_server MODE listen=ADDR:PORT [listen=...] timeout=SECONDS [name=TEXT] ...
 *
 *   echo      returns what it gets, closes after the client's FIN
 *   sink      discards; rate=BYTES/s, paused=1 (until SIGUSR2), reply=1: "BYTES HASH" after EOF
 *   source    sends n=BYTES at once, then FIN; paused=1: not before SIGUSR2
 *   verify    the other end of `peer_client verify`; scales=1: the n-th address announces window
 *             scale n
 *   long      the other end of `peer_client long`
 *   close     accepts and closes (ms= later)
 *   rst       accepts and resets (ms= later)
 *   silent    a full backlog: SYNs are not answered
 *   reset     reads n=BYTES, then resets
 *   answer    ms= after the first bytes sends text= and FIN
 *   http      answers each request head with size=BYTES of body (or its name), ms= later
 *   banner    sends text= first, then echoes
 *   identify  sends "NAME PEER LOCAL" and FIN
 *   hold      accepts, neither reads nor closes
 */
#include "peer.h"
#include "peer_long.h"

enum { MAX_LISTEN = 64, ECHO_BYTES = 65536 };

static struct {
	struct args args;
	const char *mode;
	const char *name;
	const char *text;
	uint64_t n, ms, rate, size;
	uint64_t stall_us;
	bool paused, reply;
	step_fn step;
	int listener[MAX_LISTEN];
	int n_listeners;
	int filler[64];
	int n_fillers;
	uint64_t accepted, ok, bad, stalled, empty, bytes, errors, resets, max_gap;
	bool scales;
} srv;

static void print_totals(void)
{
	printf("{\"mode\":\"%s\",\"accepted\":%llu,\"open\":%d,\"ok\":%llu,\"bad\":%llu,"
	       "\"stalled\":%llu,\"empty\":%llu,\"errors\":%llu,\"bytes\":%llu,\"resets\":%llu,"
	       "\"max_gap_ms\":%llu,\"max_round_ms\":%llu}\n",
	       srv.mode, (unsigned long long)srv.accepted, loop.n - srv.n_listeners,
	       (unsigned long long)srv.ok, (unsigned long long)srv.bad,
	       (unsigned long long)srv.stalled, (unsigned long long)srv.empty,
	       (unsigned long long)srv.errors, (unsigned long long)srv.bytes,
	       (unsigned long long)srv.resets, (unsigned long long)srv.max_gap / 1000,
	       (unsigned long long)loop.longest / 1000);
	fflush(stdout);
}

/* ---- small writers ---- */

static void out_add(struct conn *c, const char *p, size_t n)
{
	if (c->out_off && c->out_off == c->out_len)
		c->out_off = c->out_len = 0;
	if (c->out_len + n > c->out_cap) {
		c->out_cap = (c->out_len + n) * 2;
		c->out = realloc(c->out, c->out_cap);
		if (!c->out)
			die("no memory");
	}
	memcpy(c->out + c->out_len, p, n);
	c->out_len += n;
}

static size_t out_pending(const struct conn *c)
{
	return c->out_len - c->out_off;
}

/* -1: the connection is gone. */
static int out_flush(struct conn *c)
{
	while (out_pending(c)) {
		ssize_t r = send(c->fd, c->out + c->out_off, out_pending(c), 0);

		if (r < 0)
			return errno == EAGAIN ? 0 : -1;
		c->out_off += (size_t)r;
		srv.bytes += (uint64_t)r;
	}
	return 0;
}

static void fail(struct conn *c)
{
	srv.errors++;
	conn_end(c, false);
}

/* ---- modes ---- */

static void step_echo(struct conn *c, uint32_t events)
{
	static char buf[ECHO_BYTES];

	(void)events;
	while (!c->eof && out_pending(c) < ECHO_BYTES) {
		ssize_t r = recv(c->fd, buf, sizeof(buf), 0);

		if (r < 0 && errno == EAGAIN)
			break;
		if (r < 0) {
			fail(c);
			return;
		}
		if (r == 0)
			c->eof = true;
		else
			out_add(c, buf, (size_t)r);
		if (out_flush(c)) {
			fail(c);
			return;
		}
	}
	if (out_flush(c)) {
		fail(c);
		return;
	}
	if (c->eof && !out_pending(c)) {
		srv.ok++;
		conn_end(c, false);
		return;
	}
	conn_want(c, (out_pending(c) < ECHO_BYTES && !c->eof ? (uint32_t)EPOLLIN : 0) |
			     (out_pending(c) ? (uint32_t)EPOLLOUT : 0));
}

static void sink_eof(struct conn *c)
{
	char line[64];
	int n;

	srv.ok++;
	if (srv.reply) {
		n = snprintf(line, sizeof(line), "%llu %016llx\n", (unsigned long long)c->bytes,
			     (unsigned long long)hash_end(&c->hash));
		out_add(c, line, (size_t)n);
		(void)out_flush(c);
	}
	conn_end(c, false);
}

static void step_sink(struct conn *c, uint32_t events)
{
	static uint8_t buf[262144];
	uint64_t now = now_us();
	size_t room = sizeof(buf);

	if (srv.paused && !(events & EPOLLERR)) {
		conn_want(c, 0);
		conn_wake(c, now + 50000);
		return;
	}
	if (srv.rate) {
		uint64_t due = (now - c->began) * srv.rate / 1000000;

		if (due <= c->bytes) {
			conn_want(c, 0);
			conn_wake(c, now + 20000);
			return;
		}
		room = due - c->bytes < room ? (size_t)(due - c->bytes) : room;
	}
	for (int burst = 0; burst < 16; burst++) {
		ssize_t r = recv(c->fd, buf, room, 0);

		if (r < 0 && errno == EAGAIN)
			break;
		if (r < 0) {
			fail(c);
			return;
		}
		if (r == 0) {
			sink_eof(c);
			return;
		}
		hash_add(&c->hash, buf, (size_t)r);
		c->bytes += (uint64_t)r;
		srv.bytes += (uint64_t)r;
		if (srv.rate)
			break;
	}
	conn_want(c, EPOLLIN);
}

static void step_source(struct conn *c, uint32_t events)
{
	static uint8_t buf[131072];

	if (events & EPOLLERR) {
		fail(c);
		return;
	}
	if (srv.paused) {
		conn_want(c, 0);
		conn_wake(c, now_us() + 20000);
		return;
	}
	while (c->bytes < srv.n) {
		size_t n =
			srv.n - c->bytes < sizeof(buf) ? (size_t)(srv.n - c->bytes) : sizeof(buf);
		ssize_t r;

		stream_bytes(1, c->bytes, buf, n);
		r = send(c->fd, buf, n, 0);
		if (r < 0 && errno == EAGAIN) {
			conn_want(c, EPOLLOUT);
			return;
		}
		if (r < 0) {
			fail(c);
			return;
		}
		c->bytes += (uint64_t)r;
		srv.bytes += (uint64_t)r;
	}
	if (!c->flag)
		shutdown(c->fd, SHUT_WR);
	c->flag = true;
	if (recv(c->fd, buf, sizeof(buf), 0) == 0) {
		srv.ok++;
		conn_end(c, false);
		return;
	}
	conn_want(c, EPOLLIN);
}

static void verify_end(struct conn *c, bool rst)
{
	if (c->x.max_gap > srv.max_gap)
		srv.max_gap = c->x.max_gap;
	conn_end(c, rst);
}

static void verify_bad(struct conn *c, const char *why)
{
	char peer[80];

	srv.bad++;
	fprintf(stderr, "verify: %s from %s: got %llu of %llu, sent %llu of %llu, eof %d\n", why,
		addr_text(&c->peer, peer, sizeof(peer)), (unsigned long long)c->x.got,
		(unsigned long long)c->x.len_in, (unsigned long long)c->x.sent,
		(unsigned long long)c->x.len_out, c->x.eof);
	verify_end(c, true);
}

/* False: ended. */
static bool verify_header(struct conn *c)
{
	struct xfer_header h;
	ssize_t r = recv(c->fd, c->head + c->head_len, sizeof(h) - c->head_len, 0);

	if (r < 0 && errno == EAGAIN)
		return true;
	if (r == 0 && !c->head_len) {
		srv.empty++;
		conn_end(c, false);
		return false;
	}
	if (r <= 0) {
		verify_bad(c, r ? strerror(errno) : "EOF in the header");
		return false;
	}
	c->head_len += (size_t)r;
	if (c->head_len < sizeof(h))
		return true;
	memcpy(&h, c->head, sizeof(h));
	if (h.magic != XFER_MAGIC) {
		verify_bad(c, "wrong magic");
		return false;
	}
	xfer_setup(&c->x, &h, true);
	c->progress = now_us();
	c->phase = PHASE_RUN;
	return true;
}

static void step_verify(struct conn *c, uint32_t events)
{
	const char *why = "";

	if (c->phase != PHASE_RUN) {
		if (!verify_header(c))
			return;
		if (c->phase != PHASE_RUN) {
			conn_want(c, EPOLLIN);
			return;
		}
	}
	if (xfer_stalled(c, now_us(), srv.stall_us)) {
		srv.stalled++;
		verify_bad(c, "stalled");
		return;
	}
	switch (xfer_step(c, events, &why)) {
	case XFER_RUNNING:
		break;
	case XFER_DONE:
		srv.ok++;
		srv.bytes += c->x.got + c->x.sent;
		verify_end(c, false);
		break;
	case XFER_RESET:
		srv.resets++;
		verify_end(c, true);
		break;
	case XFER_PEER_RESET:
		srv.resets++;
		verify_end(c, false);
		break;
	case XFER_BAD:
		verify_bad(c, why);
		break;
	}
}

static void long_over(struct conn *c, const char *why)
{
	if (why) {
		srv.bad++;
		fprintf(stderr, "long: %s: got %llu, sent %llu\n", why,
			(unsigned long long)c->lf->got, (unsigned long long)c->lf->sent);
	} else {
		srv.ok++;
	}
	srv.bytes += c->lf->got + c->lf->sent;
	if (c->lf->gap > srv.max_gap)
		srv.max_gap = c->lf->gap;
	conn_end(c, why != NULL);
}

static void step_long(struct conn *c, uint32_t events)
{
	const char *why = "";
	struct long_flow *f;
	ssize_t r;

	(void)events;
	if (!c->lf) {
		struct xfer_header *h = (struct xfer_header *)c->head;

		r = recv(c->fd, c->head + c->head_len, sizeof(*h) - c->head_len, 0);
		if (r < 0 && errno == EAGAIN) {
			conn_want(c, EPOLLIN);
			return;
		}
		c->head_len += r > 0 ? (size_t)r : 0;
		if (r <= 0 || (c->head_len == sizeof(*h) && h->magic != LONG_MAGIC)) {
			srv.empty++;
			conn_end(c, false);
			return;
		}
		if (c->head_len < sizeof(*h)) {
			conn_want(c, EPOLLIN);
			return;
		}
		c->lf = long_new(true);
		c->lf->header = *h;
		long_setup(c->lf);
	}
	f = c->lf;
	f->finish = f->eof && f->sent >= f->header.len_down;
	switch (long_step(c, srv.stall_us, &why)) {
	case XFER_RUNNING:
		break;
	case XFER_DONE:
		long_over(c, NULL);
		break;
	case XFER_RESET:
	case XFER_PEER_RESET:
	case XFER_BAD:
		long_over(c, why);
		break;
	}
}

/* True: the time `ms` after `began` has come. */
static bool delayed(struct conn *c)
{
	uint64_t due = c->began + srv.ms * 1000;

	if (now_us() >= due)
		return true;
	conn_want(c, 0);
	conn_wake(c, due);
	return false;
}

static void step_close(struct conn *c, uint32_t events)
{
	(void)events;
	if (!delayed(c))
		return;
	srv.ok++;
	conn_end(c, false);
}

static void step_rst(struct conn *c, uint32_t events)
{
	(void)events;
	if (!delayed(c))
		return;
	srv.ok++;
	conn_end(c, true);
}

static void step_reset(struct conn *c, uint32_t events)
{
	static char buf[65536];
	ssize_t r;

	(void)events;
	r = recv(c->fd, buf, sizeof(buf), 0);
	if (r < 0 && errno == EAGAIN) {
		conn_want(c, EPOLLIN);
		return;
	}
	if (r > 0)
		c->bytes += (uint64_t)r;
	if (r <= 0 || c->bytes >= srv.n) {
		srv.ok++;
		conn_end(c, true);
		return;
	}
	conn_want(c, EPOLLIN);
}

static void step_drain(struct conn *c, uint32_t events)
{
	static char buf[65536];
	ssize_t r;

	(void)events;
	if (out_flush(c)) {
		fail(c);
		return;
	}
	if (out_pending(c)) {
		conn_want(c, EPOLLOUT);
		return;
	}
	if (!c->flag)
		shutdown(c->fd, SHUT_WR);
	c->flag = true;
	r = recv(c->fd, buf, sizeof(buf), 0);
	if (r == 0) {
		srv.ok++;
		conn_end(c, false);
	} else if (r < 0 && errno != EAGAIN) {
		fail(c);
	} else {
		conn_want(c, EPOLLIN);
	}
}

static void step_answer(struct conn *c, uint32_t events)
{
	static char buf[65536];
	ssize_t r;

	(void)events;
	if (!c->count) {
		r = recv(c->fd, buf, sizeof(buf), 0);
		if (r <= 0 && !(r < 0 && errno == EAGAIN)) {
			srv.empty++;
			conn_end(c, false);
			return;
		}
		if (r < 0) {
			conn_want(c, EPOLLIN);
			return;
		}
		c->count = 1;
		c->began = now_us();
	}
	if (!delayed(c))
		return;
	out_add(c, srv.text, strlen(srv.text));
	c->step = step_drain;
	step_drain(c, 0);
}

static void http_answer(struct conn *c)
{
	char peer[80];
	char head[256];
	char body[256];
	size_t size = srv.size;
	int n = snprintf(body, sizeof(body), "%s %s\n", srv.name,
			 addr_text(&c->peer, peer, sizeof(peer)));

	if (!size)
		size = (size_t)n;
	n = snprintf(head, sizeof(head),
		     "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nContent-Type: text/plain\r\n\r\n",
		     size);
	out_add(c, head, (size_t)n);
	if (!srv.size) {
		out_add(c, body, size);
		return;
	}
	memset(body, 'x', sizeof(body));
	for (size_t left = size; left;) {
		size_t k = left < sizeof(body) ? left : sizeof(body);

		out_add(c, body, k);
		left -= k;
	}
}

/* Heads end with an empty line; `count` is how far the search for it has come. */
static void http_search(struct conn *c, const char *p, size_t n)
{
	static const char end[] = "\r\n\r\n";

	for (size_t i = 0; i < n; i++) {
		c->count = p[i] == end[c->count] ? c->count + 1 : p[i] == '\r';
		if (c->count < 4)
			continue;
		c->count = 0;
		c->limit++; /* requests not answered yet */
	}
	/* "close" anywhere in the first bytes of a head is good enough for a test peer */
	if (memmem(p, n, "HTTP/1.0", 8) || memmem(p, n, "onnection: close", 16))
		c->flag = true;
}

static void step_http(struct conn *c, uint32_t events)
{
	char buf[4096];
	ssize_t r;

	(void)events;
	if (!c->eof) {
		r = recv(c->fd, buf, sizeof(buf), 0);
		if (r == 0)
			c->eof = true;
		if (r < 0 && errno != EAGAIN) {
			fail(c);
			return;
		}
		if (r > 0) {
			c->began = now_us();
			http_search(c, buf, (size_t)r);
		}
	}
	if (c->limit) {
		if (!delayed(c))
			return;
		for (; c->limit; c->limit--)
			http_answer(c);
		srv.ok++;
		if (c->flag)
			c->phase = PHASE_DRAIN;
	}
	if (out_flush(c)) {
		fail(c);
		return;
	}
	if (!out_pending(c) && (c->eof || c->phase == PHASE_DRAIN)) {
		conn_end(c, false);
		return;
	}
	conn_want(c, (c->eof ? 0 : (uint32_t)EPOLLIN) | (out_pending(c) ? (uint32_t)EPOLLOUT : 0));
}

static void step_banner(struct conn *c, uint32_t events)
{
	out_add(c, srv.text, strlen(srv.text));
	c->step = step_echo;
	step_echo(c, events);
}

static void step_identify(struct conn *c, uint32_t events)
{
	struct sockaddr_storage self = { 0 };
	socklen_t len = sizeof(self);
	char peer[80], local[80], line[300];
	int n;

	(void)events;
	getsockname(c->fd, (struct sockaddr *)&self, &len);
	n = snprintf(line, sizeof(line), "%s %s %s\n", srv.name,
		     addr_text(&c->peer, peer, sizeof(peer)),
		     addr_text(&self, local, sizeof(local)));
	out_add(c, line, (size_t)n);
	c->step = step_drain;
	step_drain(c, 0);
}

static void step_hold(struct conn *c, uint32_t events)
{
	if (events & (EPOLLERR | EPOLLHUP)) {
		srv.errors++;
		conn_end(c, false);
		return;
	}
	conn_want(c, 0);
}

/* ---- listening ---- */

static void step_listener(struct conn *l, uint32_t events)
{
	(void)events;
	for (int burst = 0; burst < 64; burst++) {
		struct sockaddr_storage peer;
		socklen_t len = sizeof(peer);
		int fd = accept4(l->fd, (struct sockaddr *)&peer, &len,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct conn *c;
		int one = 1;

		if (fd < 0)
			return;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		srv.accepted++;
		c = conn_new(fd, srv.step);
		c->peer = peer;
		c->hash.value = HASH_START;
		c->step(c, EPOLLIN);
	}
}

static int listen_on(const char *text, int backlog, int nth)
{
	int rcvbuf = (int)arg_u64(&srv.args, "rcvbuf", 0);
	struct addr a = addr_parse(text);
	int fd = socket(a.sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (a.sa.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (srv.scales)
		clamp_to_scale(fd, (unsigned)nth % (MAX_SCALE + 1));
	if (rcvbuf)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf));
	if (bind(fd, (struct sockaddr *)&a.sa, a.len) || listen(fd, backlog))
		die("cannot listen on %s: %s", text, strerror(errno));
	return fd;
}

/* Connects to itself until the queue of connections to accept is full. */
static void fill_backlog(const char *text)
{
	struct addr a = addr_parse(text);

	for (int i = 0; i < 8; i++) {
		int fd = socket(a.sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

		(void)connect(fd, (struct sockaddr *)&a.sa, a.len);
		srv.filler[srv.n_fillers++] = fd;
	}
}

static const struct {
	const char *name;
	step_fn step;
} modes[] = {
	{ "echo", step_echo },     { "sink", step_sink },     { "source", step_source },
	{ "verify", step_verify }, { "close", step_close },   { "rst", step_rst },
	{ "silent", NULL },        { "reset", step_reset },   { "answer", step_answer },
	{ "http", step_http },     { "banner", step_banner }, { "identify", step_identify },
	{ "hold", step_hold },     { "long", step_long },
};

static void tick(uint64_t now)
{
	(void)now;
	if (got_usr1) {
		got_usr1 = 0;
		print_totals();
	}
	if (got_usr2) {
		got_usr2 = 0;
		srv.paused = false;
	}
	if (got_term)
		loop.stop = true;
}

static void choose_mode(const char *name)
{
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (!strcmp(modes[i].name, name)) {
			srv.mode = modes[i].name;
			srv.step = modes[i].step;
			return;
		}
	}
	die("unknown mode '%s'", name);
}

static void open_listeners(void)
{
	const char *text;
	int pos = 0;

	while ((text = arg_next(&srv.args, "listen", &pos))) {
		int fd = listen_on(text, srv.step ? 4096 : 0, srv.n_listeners);

		if (srv.n_listeners == MAX_LISTEN)
			die("too many addresses");
		srv.listener[srv.n_listeners++] = fd;
		if (!srv.step) {
			fill_backlog(text);
			(void)conn_new(fd, step_hold);
		} else {
			conn_want(conn_new(fd, step_listener), EPOLLIN);
		}
	}
	if (!srv.n_listeners)
		die("listen=ADDRESS:PORT is missing");
}

int main(int argc, char **argv)
{
	static const char *const known[] = { "listen", "timeout", "name",   "text",   "n",
					     "ms",     "rate",    "size",   "paused", "reply",
					     "stall",  "scales",  "rcvbuf", NULL };
	uint64_t timeout;

	if (argc < 2)
		die("usage: peer_server MODE listen=ADDR:PORT timeout=SECONDS ...");
	srv.args = (struct args){ argc - 2, argv + 2 };
	args_check(&srv.args, known);
	choose_mode(argv[1]);
	timeout = arg_u64(&srv.args, "timeout", 0);
	if (!timeout)
		die("timeout=SECONDS is missing");
	srv.name = arg_str(&srv.args, "name", srv.mode);
	srv.text = arg_str(&srv.args, "text", "hello\n");
	srv.n = arg_u64(&srv.args, "n", 0);
	srv.ms = arg_u64(&srv.args, "ms", 0);
	srv.rate = arg_u64(&srv.args, "rate", 0);
	srv.size = arg_u64(&srv.args, "size", 0);
	srv.paused = arg_u64(&srv.args, "paused", 0);
	srv.reply = arg_u64(&srv.args, "reply", 0);
	srv.scales = arg_u64(&srv.args, "scales", 0);
	srv.stall_us = arg_u64(&srv.args, "stall", 2000) * 1000;
	loop_init();
	open_listeners();
	loop_run(now_us() + timeout * 1000000, tick);
	print_totals();
	return srv.bad || srv.stalled || !loop.stop;
}
