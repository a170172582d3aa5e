/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/server.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/json.h"
#include "base/log.h"

#define IDLE_MS 30000
#define HEAD_MS 10000
#define LINGER_MS 2000
#define LINGER_BYTES (UINT32_C(8) << 20)
#define ACCEPT_PAUSE_MS 100
#define ACCEPTS_PER_TURN 32
#define REQUESTS_PER_TURN 16
#define READ_CHUNK 16384
#define KEEP_BUFFER 65536 /* a larger one is not kept for the next request */

enum phase {
	PHASE_READ = 0, /* a request is awaited or incomplete */
	PHASE_ANSWER,   /* its call is with the handler */
	PHASE_WRITE,    /* the answer is on its way out */
	PHASE_LINGER,   /* answered and shut down; what still comes is thrown away */
};

enum outcome {
	GO_ON = 0, /* the phase changed: look again */
	WAIT,      /* for the descriptor, the timer or the handler */
	GONE,      /* the client is closed */
};

struct client {
	struct sl_list node; /* in server->clients, the longest inactive first */
	struct sl_server *server;
	struct sl_loop *loop;
	struct sl_io io;
	struct sl_timer timer;
	struct sl_task task; /* more work, or the end of the record */
	enum phase phase;
	uint32_t interest;
	struct sl_call *call; /* PHASE_ANSWER only */
	struct sl_str in;
	size_t need; /* bytes of the request that has begun; 0: its head is not complete */
	struct sl_str head;
	struct sl_str body;
	size_t sent;
	size_t discarded;
	bool in_handler;
	bool continue_sent;
	bool close_after;
	bool saw_eof;
};

struct sl_server {
	struct sl_server_options options;
	struct sl_io io;
	struct sl_timer pause; /* after accept() ran out of something */
	struct sl_task free_task;
	struct sl_log_limit log_limit;
	struct sl_list clients;
	struct sl_list calls;
	unsigned n_clients;
	uint64_t unread; /* bytes of answers not yet taken by their clients */
};

struct sl_call {
	struct sl_list node;      /* in server->calls */
	struct sl_server *server; /* NULL: freed */
	struct client *client;    /* NULL: left */
	struct sl_http_head head;
	struct sl_slice body;
	struct sl_str headers;
	bool keep_alive;
	bool is_head;
};

static void on_client(struct sl_io *io, uint32_t events);
static void on_listen(struct sl_io *io, uint32_t events);
static void run(struct client *c);

static const char *status_text(unsigned status)
{
	static const struct {
		unsigned status;
		const char *text;
	} texts[] = {
		{ 200, "OK" },
		{ 201, "Created" },
		{ 400, "Bad Request" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 408, "Request Timeout" },
		{ 411, "Length Required" },
		{ 413, "Content Too Large" },
		{ 414, "URI Too Long" },
		{ 417, "Expectation Failed" },
		{ 422, "Unprocessable Content" },
		{ 431, "Request Header Fields Too Large" },
		{ 500, "Internal Server Error" },
		{ 501, "Not Implemented" },
		{ 503, "Service Unavailable" },
		{ 505, "HTTP Version Not Supported" },
	};

	for (size_t i = 0; i < SL_ARRAY_LEN(texts); i++)
		if (texts[i].status == status)
			return texts[i].text;
	return "Unknown";
}

/* ---- clients ---- */

static void arm(struct client *c, uint64_t ms);

static void free_client(struct sl_task *task)
{
	struct client *c = SL_CONTAINER_OF(task, struct client, task);

	sl_str_done(&c->in);
	sl_str_done(&c->head);
	sl_str_done(&c->body);
	free(c);
}

static size_t unsent(const struct client *c)
{
	return c->head.len + c->body.len - c->sent;
}

/* The record stays until the end of the turn; the call, if any, until it is answered. */
static enum outcome close_client(struct client *c)
{
	if (c->call)
		c->call->client = NULL;
	c->call = NULL;
	c->server->unread -= unsent(c);
	c->server->n_clients--;
	sl_list_remove(&c->node);
	sl_timer_stop(&c->timer);
	sl_io_stop(&c->io);
	(void)close(c->io.fd);
	c->io.fd = -1;
	sl_task_cancel(&c->task);
	sl_loop_defer(c->loop, &c->task, free_client);
	return GONE;
}

/* The client did something: last to be dropped when others want its place. */
static void touch(struct client *c)
{
	sl_list_remove(&c->node);
	sl_list_add(&c->server->clients, &c->node);
}

static void set_phase(struct client *c, enum phase phase)
{
	c->phase = phase;
	if (phase == PHASE_ANSWER)
		sl_timer_stop(&c->timer);
}

static void watch(struct client *c)
{
	static const uint32_t wanted[] = {
		[PHASE_READ] = SL_IO_IN,
		[PHASE_ANSWER] = 0, /* leaving is reported anyway */
		[PHASE_WRITE] = SL_IO_OUT,
		[PHASE_LINGER] = SL_IO_IN,
	};

	if (c->interest == wanted[c->phase])
		return;
	c->interest = wanted[c->phase];
	if (sl_io_change(&c->io, c->interest) < 0)
		(void)close_client(c);
}

/* ---- answers ---- */

static void compose_head(struct client *c, unsigned status, const char *type, size_t body_len,
			 const struct sl_str *headers)
{
	sl_str_addf(&c->head, "HTTP/1.1 %u %s\r\n", status, status_text(status));
	sl_str_addf(&c->head, "Content-Type: %s\r\nContent-Length: %zu\r\n", type, body_len);
	sl_str_addf(&c->head, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
	if (headers)
		sl_str_add(&c->head, sl_str_text(headers), headers->len);
	sl_str_addf(&c->head, "Connection: %s\r\n\r\n", c->close_after ? "close" : "keep-alive");
}

/* From here the client owns the text of `body`. */
static void queue_answer(struct client *c, unsigned status, const char *type, struct sl_str *body,
			 bool is_head, const struct sl_str *headers)
{
	static const char no_memory[] = "{\"error\":\"out of memory\"}\n";

	if (body->oom) {
		sl_str_done(body);
		sl_str_adds(body, no_memory);
		status = 500;
		type = SL_TYPE_JSON;
	}
	compose_head(c, status, type, body->len, headers);
	if (is_head)
		sl_str_done(body);
	c->body = *body;
	*body = (struct sl_str){ 0 };
	c->sent = 0;
	c->server->unread += unsent(c);
	set_phase(c, PHASE_WRITE);
	arm(c, c->server->options.idle_ms);
}

static void compose_error(struct sl_str *out, const char *error, const char *hint)
{
	struct sl_json j = sl_json_on(out);

	sl_json_obj(&j, NULL);
	sl_json_str(&j, "error", error);
	sl_json_str(&j, "hint", hint);
	sl_json_obj_end(&j);
	sl_str_addc(out, '\n');
}

/* For requests that never become a call. */
static enum outcome refuse(struct client *c, unsigned status, const char *error, const char *hint)
{
	struct sl_str body = { 0 };

	c->close_after = true;
	compose_error(&body, error, hint);
	queue_answer(c, status, SL_TYPE_JSON, &body, false, NULL);
	return GO_ON;
}

static enum outcome linger(struct client *c)
{
	if (c->saw_eof || shutdown(c->io.fd, SHUT_WR) < 0)
		return close_client(c);
	/* Closing over unread bytes would reset the connection and take the answer with it. */
	set_phase(c, PHASE_LINGER);
	arm(c, LINGER_MS);
	return WAIT;
}

static enum outcome answer_is_out(struct client *c)
{
	size_t rest;

	if (c->close_after)
		return linger(c);
	rest = c->in.len - c->need;
	if (rest > 0)
		memmove(c->in.p, c->in.p + c->need, rest);
	c->in.len = rest;
	if (rest == 0 && c->in.cap > KEEP_BUFFER)
		sl_str_done(&c->in);
	sl_str_done(&c->body);
	sl_str_clear(&c->head);
	c->sent = 0;
	c->need = 0;
	c->continue_sent = false;
	set_phase(c, PHASE_READ);
	arm(c, rest ? c->server->options.head_ms : c->server->options.idle_ms);
	return GO_ON;
}

static enum outcome step_write(struct client *c)
{
	if (c->head.oom)
		return close_client(c);
	while (unsent(c) > 0) {
		size_t in_head = c->sent < c->head.len ? c->head.len - c->sent : 0;
		size_t in_body = c->sent > c->head.len ? c->sent - c->head.len : 0;
		struct iovec iov[2] = {
			{ .iov_base = c->head.p + (c->head.len - in_head), .iov_len = in_head },
			{ .iov_base = c->body.p ? c->body.p + in_body : NULL,
			  .iov_len = c->body.len - in_body },
		};
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
		ssize_t n = sendmsg(c->io.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == ENOBUFS))
			return WAIT;
		if (n < 0)
			return close_client(c);
		c->sent += (size_t)n;
		c->server->unread -= (size_t)n;
		touch(c);
		arm(c, c->server->options.idle_ms);
	}
	return answer_is_out(c);
}

/* ---- requests ---- */

/* Hands the complete request at the start of `in` to the handler. */
static enum outcome dispatch(struct client *c, const struct sl_http_head *head)
{
	struct sl_call *call = calloc(1, sizeof(*call));

	if (!call)
		return close_client(c);
	call->server = c->server;
	call->client = c;
	call->head = *head;
	call->body = (struct sl_slice){ .p = c->in.p + head->len, .n = c->need - head->len };
	call->keep_alive = head->keep_alive;
	call->is_head = sl_slice_is(head->method, "HEAD");
	sl_list_add(&c->server->calls, &call->node);
	c->call = call;
	set_phase(c, PHASE_ANSWER);
	c->in_handler = true;
	c->server->options.handle(c->server->options.arg, call);
	c->in_handler = false;
	return c->phase == PHASE_ANSWER ? WAIT : GO_ON;
}

/* The head is complete: is the body acceptable, and all there? */
static enum outcome take_request(struct client *c, const struct sl_http_head *head)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

	if (head->is_chunked)
		return refuse(c, 411, "chunked request bodies are not accepted",
			      "send the body with Content-Length, or none");
	if (head->content_length > SL_SERVER_MAX_BODY)
		return refuse(c, 413, "the request body is too long", "at most 1 MiB");
	if (c->need == 0)
		arm(c, c->server->options.idle_ms);
	c->need = head->len + (size_t)head->content_length;
	if (c->in.len >= c->need)
		return dispatch(c, head);
	if (c->saw_eof)
		return refuse(c, 400, "the request ended before its body was complete", NULL);
	if (head->expect_continue && !c->continue_sent) {
		c->continue_sent = true;
		/* So short that it fits, or the client is not reading at all: then it waits in
		 * vain. */
		if (send(c->io.fd, go_on, sizeof(go_on) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			return close_client(c);
	}
	return WAIT;
}

static enum outcome step_read(struct client *c)
{
	struct sl_http_head head;
	struct sl_http_fault fault = { 0 };

	if (c->need > c->in.len && !c->saw_eof)
		return WAIT; /* the head has been seen already */
	switch (sl_http_head_parse(sl_str_text(&c->in), c->in.len, SL_SERVER_MAX_HEAD, &head,
				   &fault)) {
	case SL_HTTP_OK:
		return take_request(c, &head);
	case SL_HTTP_MORE:
		break;
	case SL_HTTP_BAD:
		return refuse(c, fault.status, fault.why, "this socket speaks HTTP/1.1");
	case SL_HTTP_TOO_BIG:
		return refuse(c, fault.status, fault.why,
			      "at most 16 KiB for request line and headers");
	}
	if (!c->saw_eof)
		return WAIT;
	if (c->in.len == 0)
		return close_client(c);
	return refuse(c, 400, "the request ended before its head was complete", NULL);
}

/* False when the client was closed. */
static bool receive(struct client *c)
{
	size_t cap = c->need ? c->need : SL_SERVER_MAX_HEAD;
	char chunk[READ_CHUNK];

	while (c->in.len < cap) {
		size_t room = cap - c->in.len;
		ssize_t n = read(c->io.fd, chunk, room < sizeof(chunk) ? room : sizeof(chunk));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return true;
		if (n < 0) {
			(void)close_client(c);
			return false;
		}
		if (n == 0) {
			c->saw_eof = true;
			return true;
		}
		touch(c);
		if (c->in.len == 0)
			arm(c, c->server->options.head_ms);
		sl_str_add(&c->in, chunk, (size_t)n);
		if (c->in.oom) {
			(void)close_client(c);
			return false;
		}
	}
	return true;
}

static void discard(struct client *c)
{
	char chunk[READ_CHUNK];
	ssize_t n;

	while (c->discarded < LINGER_BYTES) {
		n = read(c->io.fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0)
			break;
		c->discarded += (size_t)n;
	}
	(void)close_client(c);
}

static void on_again(struct sl_task *task)
{
	run(SL_CONTAINER_OF(task, struct client, task));
}

/* Drives the client as far as it goes without waiting. */
static void run(struct client *c)
{
	enum outcome next = GO_ON;

	for (unsigned budget = REQUESTS_PER_TURN * 2; next == GO_ON; budget--) {
		if (budget == 0) {
			sl_loop_again(c->loop, &c->task, on_again);
			return;
		}
		switch (c->phase) {
		case PHASE_READ:
			next = step_read(c);
			break;
		case PHASE_WRITE:
			next = step_write(c);
			break;
		case PHASE_ANSWER:
		case PHASE_LINGER:
			next = WAIT;
			break;
		}
	}
	if (next != GONE)
		watch(c);
}

static void on_client(struct sl_io *io, uint32_t events)
{
	struct client *c = SL_CONTAINER_OF(io, struct client, io);

	if (c->phase == PHASE_LINGER) {
		discard(c);
		return;
	}
	if (c->phase == PHASE_ANSWER) {
		if (events & (SL_IO_HUP | SL_IO_ERR))
			(void)close_client(c);
		return;
	}
	if (c->phase == PHASE_READ && !receive(c))
		return;
	run(c);
}

static void on_deadline(struct sl_timer *timer)
{
	struct client *c = SL_CONTAINER_OF(timer, struct client, timer);

	if (c->phase == PHASE_READ && c->in.len > 0) {
		(void)refuse(c, 408, "the request did not arrive in time", NULL);
		run(c);
		return;
	}
	(void)close_client(c);
}

static void arm(struct client *c, uint64_t ms)
{
	/* Not the time of the turn: composing a large answer is no fault of the client. */
	sl_timer_start(c->loop, &c->timer, sl_loop_now_us(c->loop) / 1000 + ms, on_deadline);
}

/* ---- the listening socket ---- */

/* The longest inactive client that nothing is being done for, else the longest inactive one. */
static void drop_one(struct sl_server *server)
{
	struct client *victim = NULL;
	struct sl_list *pos;

	sl_list_for_each (pos, &server->clients) {
		struct client *c = SL_CONTAINER_OF(pos, struct client, node);

		if (!victim)
			victim = c;
		if (c->phase == PHASE_READ || c->phase == PHASE_LINGER) {
			victim = c;
			break;
		}
	}
	if (victim)
		(void)close_client(victim);
}

static int add_client(struct sl_server *server, int fd)
{
	struct client *c;
	int r;

	if (server->n_clients >= server->options.max_clients)
		drop_one(server);
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->server = server;
	c->loop = server->options.loop;
	c->interest = SL_IO_IN;
	r = sl_io_start(c->loop, &c->io, fd, c->interest, on_client);
	if (r < 0) {
		free(c);
		return r;
	}
	sl_list_init(&c->node);
	sl_list_add(&server->clients, &c->node);
	server->n_clients++;
	arm(c, server->options.idle_ms);
	return 0;
}

static void on_pause_over(struct sl_timer *timer)
{
	struct sl_server *server = SL_CONTAINER_OF(timer, struct sl_server, pause);

	if (sl_io_change(&server->io, SL_IO_IN) < 0)
		sl_timer_start(server->options.loop, timer,
			       sl_loop_now_ms(server->options.loop) + ACCEPT_PAUSE_MS,
			       on_pause_over);
}

/* Out of descriptors or memory: makes room, and does not spin on the readable socket. */
static void pause_accepting(struct sl_server *server, int err)
{
	uint64_t now_ms = sl_loop_now_ms(server->options.loop);

	if (sl_log_allowed(&server->log_limit, now_ms, 1, 10000))
		(void)sl_warn(err, "control: cannot accept a client, trying again in 100 ms");
	drop_one(server);
	(void)sl_io_change(&server->io, 0);
	sl_timer_start(server->options.loop, &server->pause, now_ms + ACCEPT_PAUSE_MS,
		       on_pause_over);
}

static void on_listen(struct sl_io *io, uint32_t events)
{
	struct sl_server *server = SL_CONTAINER_OF(io, struct sl_server, io);

	(void)events;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		_cleanup_fd_ int fd =
			accept4(server->io.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		int r;

		if (fd < 0 && (errno == EAGAIN || errno == EINVAL))
			return;
		if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
			continue;
		r = fd < 0 ? -errno : add_client(server, fd);
		if (r < 0) {
			pause_accepting(server, r);
			return;
		}
		(void)SL_TAKE_FD(fd);
	}
}

int sl_server_new(const struct sl_server_options *options, struct sl_server **ret)
{
	_cleanup_fd_ int fd = options->fd;
	struct sl_server *server = calloc(1, sizeof(*server));
	int r;

	if (!server)
		return -ENOMEM;
	server->options = *options;
	if (!server->options.idle_ms)
		server->options.idle_ms = IDLE_MS;
	if (!server->options.head_ms)
		server->options.head_ms = HEAD_MS;
	if (!server->options.max_clients)
		server->options.max_clients = SL_SERVER_MAX_CLIENTS;
	sl_list_init(&server->clients);
	sl_list_init(&server->calls);
	r = sl_io_start(options->loop, &server->io, fd, SL_IO_IN, on_listen);
	if (r < 0) {
		free(server);
		return r;
	}
	(void)SL_TAKE_FD(fd);
	*ret = server;
	return 0;
}

static void free_server(struct sl_task *task)
{
	free(SL_CONTAINER_OF(task, struct sl_server, free_task));
}

void sl_server_stop_accepting(struct sl_server *server)
{
	sl_timer_stop(&server->pause);
	sl_io_stop(&server->io);
	sl_closep(&server->io.fd);
}

void sl_server_free(struct sl_server *server)
{
	if (!server)
		return;
	while (!sl_list_is_empty(&server->clients))
		(void)close_client(SL_CONTAINER_OF(server->clients.next, struct client, node));
	while (!sl_list_is_empty(&server->calls)) {
		struct sl_call *call = SL_CONTAINER_OF(server->calls.next, struct sl_call, node);

		sl_list_remove(&call->node);
		call->server = NULL;
	}
	sl_server_stop_accepting(server);
	sl_loop_defer(server->options.loop, &server->free_task, free_server);
}

unsigned sl_server_n_clients(const struct sl_server *server)
{
	return server->n_clients;
}

/* ---- calls ---- */

const struct sl_http_head *sl_call_head(const struct sl_call *call)
{
	return &call->head;
}

struct sl_slice sl_call_body(const struct sl_call *call)
{
	return call->body;
}

bool sl_call_is_wanted(const struct sl_call *call)
{
	return call->client != NULL;
}

void sl_call_add_header(struct sl_call *call, const char *name, const char *value)
{
	sl_str_addf(&call->headers, "%s: %s\r\n", name, value);
}

void sl_call_reply(struct sl_call *call, unsigned status, const char *type, struct sl_str *body)
{
	struct client *c = call->client;

	if (c && c->server->unread > 0 && c->server->unread + body->len > SL_SERVER_MAX_UNREAD) {
		sl_str_done(body);
		compose_error(body, "too many large answers are waiting to be read",
			      "try again, or ask for less with limit=");
		status = 503;
		type = SL_TYPE_JSON;
	}
	if (c) {
		c->call = NULL;
		c->close_after = !call->keep_alive;
		queue_answer(c, status, type, body, call->is_head, &call->headers);
		/* Inside the handler its caller goes on; recursion would be the client's to choose.
		 */
		if (!c->in_handler)
			run(c);
	}
	sl_str_done(body);
	sl_str_done(&call->headers);
	sl_list_remove(&call->node);
	free(call);
}

void sl_call_fail(struct sl_call *call, unsigned status, const char *hint, const char *fmt, ...)
{
	_cleanup_(sl_str_done) struct sl_str error = { 0 };
	struct sl_str body = { 0 };
	va_list ap;

	va_start(ap, fmt);
	sl_str_addv(&error, fmt, ap);
	va_end(ap);
	compose_error(&body, sl_str_text(&error), hint);
	sl_call_reply(call, status, SL_TYPE_JSON, &body);
}
