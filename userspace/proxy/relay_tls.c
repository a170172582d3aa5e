/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The relay where one side or both speak TLS: bytes in the clear pass through the worker's scratch
 * buffer. What the relay without TLS says of edges holds here, too: a flow is pumped until the side
 * it reads says "no more", or the side it writes takes no more, or its budget is used up.
 */
#include "proxy/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "proxy/conn.h"
#include "proxy/tls.h"
#include "proxy/worker.h"

/* Bytes per flow and turn: encryption costs ten times what the relay's copies do. */
#define TURN_BUDGET (256 << 10)
/* A turn that splices less was not bulk. */
#define BULK_BYTES (16 << 10)

enum pump_result {
	PUMP_ON = 0,   /* goes on in this turn */
	PUMP_IDLE,     /* waits for an event of either socket */
	PUMP_AGAIN,    /* budget used up */
	PUMP_FINISHED, /* the end has just been passed on */
	PUMP_ENDED,    /* the connection has ended; do not touch it */
};

/* What reading a side came to, beside the bytes. */
enum got {
	GOT_MORE = 0, /* there may be more at once */
	GOT_ALL,      /* an event tells of more */
	GOT_END,
	GOT_CUT, /* ended, without TLS's own end */
};

static enum sl_side other(enum sl_side side)
{
	return side == SL_CLIENT ? SL_BACKEND : SL_CLIENT;
}

static struct sl_tls_stream *stream_of(const struct sl_conn *c, enum sl_side side)
{
	return c->tls->stream[side];
}

/* The kernel's TLS tells of a record it refuses by an error of the socket, to whoever asks first.
 */
static int refused_record(struct sl_conn *c, enum sl_side side, int err)
{
	struct sl_tls_stream *s = stream_of(c, side);
	size_t n;

	if (!sl_tls_stream_has_ktls(s) || (err != -EBADMSG && err != -EMSGSIZE && err != -EINVAL))
		return err;
	sl_tls_stream_splice_said(s, err);
	err = sl_tls_stream_read(s, &c->worker->tls.scratch, c->worker->scratch, SL_READ_SIZE, &n);
	return err < 0 ? err : -EPROTO;
}

/* `err`: of the socket, or of TLS. */
static enum pump_result fail(struct sl_conn *c, enum sl_side side, int err)
{
	if (stream_of(c, side))
		sl_tls_fail(c, side, refused_record(c, side, err));
	else
		sl_conn_fail(c, side, sl_reason_from_errno(-err));
	return PUMP_ENDED;
}

/*
 * What waits may leave by the other flow's hands (reading sends answers, and what is held with
 * them), so whoever waits is remembered, not looked for.
 */
static void wait_for_room(struct sl_conn *c, enum sl_side to)
{
	c->tls->wants_out[to] = true;
	sl_conn_want_out(c, to);
}

/* ---- one side ---- */

static int read_plain(struct sl_conn *c, enum sl_side from, size_t want, size_t *ret_n)
{
	struct sl_side_io *s = &c->side[from];
	ssize_t n;

	*ret_n = 0;
	do
		n = recv(s->io.fd, c->worker->scratch, want, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? GOT_ALL : -errno;
	*ret_n = (size_t)n;
	if (n == 0)
		return GOT_END;
	if ((size_t)n == want || s->read_to_end)
		return GOT_MORE;
	return s->hung_up ? GOT_END : GOT_ALL;
}

static int read_tls(struct sl_conn *c, enum sl_side from, size_t want, size_t *ret_n)
{
	struct sl_tls_stream *s = stream_of(c, from);
	int r;

	if (c->side[from].hung_up || c->side[from].read_to_end)
		sl_tls_stream_read_to_end(s);
	r = sl_tls_stream_read(s, &c->worker->tls.scratch, c->worker->scratch, want, ret_n);
	if (sl_tls_stream_held(s) > 0) /* an answer to the peer's own messages */
		wait_for_room(c, from);
	switch (r) {
	case SL_TLS_GO:
		return GOT_MORE;
	case SL_TLS_OUT: /* too many such answers */
		return GOT_ALL;
	case SL_TLS_END:
		return GOT_END;
	case SL_TLS_CUT:
		return GOT_CUT;
	default:
		return r < 0 ? r : GOT_ALL;
	}
}

static int write_plain(struct sl_conn *c, enum sl_side to, const char *bytes, size_t n,
		       size_t *ret_n)
{
	ssize_t sent = send(c->side[to].io.fd, bytes, n, MSG_NOSIGNAL);

	*ret_n = sent > 0 ? (size_t)sent : 0;
	return sent < 0 && errno != EAGAIN && errno != EINTR ? -errno : 0;
}

static int write_tls(struct sl_conn *c, enum sl_side to, const char *bytes, size_t n, size_t *ret_n)
{
	int r = sl_tls_stream_write(stream_of(c, to), &c->worker->tls.scratch,
				    sl_loop_now_ms(c->worker->loop), bytes, n, ret_n);

	return r < 0 ? r : 0;
}

/* As many as the side takes now; *ret_n of them. */
static int write_side(struct sl_conn *c, enum sl_side from, const char *bytes, size_t n,
		      size_t *ret_n)
{
	enum sl_side to = other(from);
	int r = stream_of(c, to) ? write_tls(c, to, bytes, n, ret_n)
				 : write_plain(c, to, bytes, n, ret_n);

	if (*ret_n > 0)
		sl_conn_moved(c, from, *ret_n);
	return r;
}

/* ---- one flow ---- */

/* Encrypted bytes that the socket did not take. */
static enum pump_result send_encrypted(struct sl_conn *c, enum sl_side to)
{
	struct sl_tls_stream *s = stream_of(c, to);
	int r = s ? sl_tls_stream_flush(s) : SL_TLS_GO;

	if (r < 0)
		return fail(c, to, r);
	if (r == SL_TLS_OUT) {
		wait_for_room(c, to);
		return PUMP_IDLE;
	}
	return PUMP_ON;
}

/* What was spliced out of one socket and not yet into the other. */
static enum pump_result send_piped(struct sl_conn *c, enum sl_side from)
{
	struct sl_flow *f = &c->flow[from];
	enum sl_side to = other(from);

	while (f->pipe.used > 0) {
		ssize_t n = splice(f->pipe.rd, NULL, c->side[to].io.fd, NULL, f->pipe.used,
				   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

		if (n < 0 && errno == EAGAIN) {
			wait_for_room(c, to);
			return PUMP_IDLE;
		}
		if (n <= 0)
			return fail(c, to, n < 0 ? -errno : -EPIPE);
		f->pipe.used -= (size_t)n;
		sl_conn_moved(c, from, (uint64_t)n);
	}
	return PUMP_ON;
}

static enum pump_result send_held(struct sl_conn *c, enum sl_side from)
{
	struct sl_flow *f = &c->flow[from];
	enum pump_result result = send_encrypted(c, other(from));

	if (result == PUMP_ON)
		result = send_piped(c, from);
	while (result == PUMP_ON && f->held_len > 0) {
		size_t n;
		int r = write_side(c, from, f->held + f->held_at, f->held_len, &n);

		if (r < 0)
			return fail(c, other(from), r);
		f->held_at += (uint32_t)n;
		f->held_len -= (uint32_t)n;
		if (n == 0) {
			wait_for_room(c, other(from));
			return PUMP_IDLE;
		}
	}
	if (result != PUMP_ENDED && f->held_len == 0) {
		free(f->held);
		f->held = NULL;
	}
	return result;
}

static enum pump_result send_read(struct sl_conn *c, enum sl_side from, size_t n)
{
	const char *bytes = c->worker->scratch;
	size_t sent = 0;

	while (sent < n) {
		size_t k;
		int r = write_side(c, from, bytes + sent, n - sent, &k);

		if (r < 0)
			return fail(c, other(from), r);
		if (k == 0)
			break;
		sent += k;
	}
	if (sent < n && !sl_conn_hold(c, from, bytes + sent, n - sent))
		return fail(c, from, -ENOMEM);
	if (sent < n) {
		wait_for_room(c, other(from));
		return PUMP_IDLE;
	}
	return send_encrypted(c, other(from));
}

/*
 * Everything the side sent has been handed over: its end follows, unless closing sends it anyway.
 * An end that may be an attacker's is not passed on as one.
 */
static enum pump_result pass_end(struct sl_conn *c, enum sl_side from)
{
	enum sl_side to = other(from);
	struct sl_tls_stream *s = stream_of(c, to);
	int r = 0;

	if (c->tls->is_cut[from]) {
		c->flow[from].shut = true;
		return PUMP_FINISHED;
	}
	if (s)
		r = sl_tls_stream_end(s, &c->worker->tls.scratch);
	if (r < 0)
		return fail(c, to, r);
	if (r == SL_TLS_OUT) {
		wait_for_room(c, to);
		return PUMP_IDLE;
	}
	c->flow[from].shut = true;
	c->tls->told_at[to] = c->flow[to].bytes;
	if (!c->flow[to].shut && shutdown(c->side[to].io.fd, SHUT_WR) < 0 && errno != ENOTCONN)
		return fail(c, to, -errno);
	return PUMP_FINISHED;
}

/* ---- bulk that the kernel encrypts ---- */

static void on_again(struct sl_task *task);

/* What came while the kernel took over may cause no event, in either direction. */
static bool leave_to_kernel(struct sl_conn *c, enum sl_side side)
{
	struct sl_tls_stream *s = stream_of(c, side);

	if (!s || sl_tls_stream_has_ktls(s))
		return true;
	if (sl_tls_stream_start_ktls(s) < 0)
		return false;
	if (!c->again.is_queued)
		sl_loop_again(c->worker->loop, &c->again, on_again);
	return true;
}

/* Both sides are plain to splice(): no TLS, or the kernel's. One side alone gains nothing. */
static bool may_splice(struct sl_conn *c, enum sl_side from)
{
	bool may = !c->side[from].read_to_end && !c->side[from].hung_up;

	for (int i = 0; may && i < SL_SIDE_COUNT_; i++)
		may = !c->tls->stream[i] || !sl_tls_stream_ktls_why(c->tls->stream[i]);
	for (int i = 0; may && i < SL_SIDE_COUNT_; i++)
		may = leave_to_kernel(c, (enum sl_side)i);
	return may;
}

static void stop_splicing(struct sl_conn *c, enum sl_side from)
{
	struct sl_flow *f = &c->flow[from];

	if (f->pipe.rd >= 0)
		sl_pipe_give(c->worker->pipes, &f->pipe);
	f->splicing = false;
	f->full_reads = 0;
}

static void start_splicing(struct sl_conn *c, enum sl_side from)
{
	struct sl_flow *f = &c->flow[from];

	f->splicing = may_splice(c, from);
}

/*
 * The end, a record that is no data, an urgent mark: reading knows what it is. Not an error of the
 * socket, which is told once: behind it reading sees an end, and would pass it on as one.
 */
static enum pump_result splice_said(struct sl_conn *c, enum sl_side from, ssize_t n)
{
	int err = n < 0 ? -errno : 0;

	stop_splicing(c, from);
	if (n < 0 && !stream_of(c, from))
		return fail(c, from, err);
	if (n < 0)
		sl_tls_stream_splice_said(stream_of(c, from), err);
	return PUMP_ON;
}

static enum pump_result splice_once(struct sl_conn *c, enum sl_side from, int64_t *budget)
{
	struct sl_flow *f = &c->flow[from];
	enum pump_result result;
	ssize_t n;

	if (f->pipe.rd < 0 && sl_pipe_take(c->worker->pipes, &f->pipe) < 0) {
		stop_splicing(c, from);
		return PUMP_ON;
	}
	do
		n = splice(c->side[from].io.fd, NULL, f->pipe.wr, NULL, f->pipe.size,
			   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN) {
		/* whoever is silent needs no pipe */
		if (TURN_BUDGET - *budget < BULK_BYTES)
			stop_splicing(c, from);
		else
			sl_pipe_give(c->worker->pipes, &f->pipe);
		return PUMP_IDLE;
	}
	if (n <= 0)
		return splice_said(c, from, n);
	f->pipe.used = (size_t)n;
	*budget -= n;
	result = send_piped(c, from);
	return result == PUMP_ON && *budget <= 0 ? PUMP_AGAIN : result;
}

/* ---- the relay's own ---- */

static enum pump_result pump_once(struct sl_conn *c, enum sl_side from, int64_t *budget)
{
	size_t want = c->flow[from].full_reads ? SL_SCRATCH_SIZE : SL_READ_SIZE;
	enum pump_result result = PUMP_ON;
	size_t n;
	int r = stream_of(c, from) ? read_tls(c, from, want, &n) : read_plain(c, from, want, &n);

	if (r < 0)
		return fail(c, from, r);
	if (n >= SL_READ_SIZE && c->flow[from].full_reads)
		start_splicing(c, from);
	c->flow[from].full_reads = n >= SL_READ_SIZE;
	c->tls->has_ended[from] = r == GOT_END || r == GOT_CUT;
	c->tls->is_cut[from] = r == GOT_CUT;
	c->tls->is_late[from] = r == GOT_CUT && c->flow[other(from)].shut &&
				c->flow[from].bytes + n == c->tls->told_at[from];
	if (n > 0)
		result = send_read(c, from, n);
	if (result != PUMP_ON)
		return result;
	if (c->tls->has_ended[from])
		return pass_end(c, from);
	*budget -= (int64_t)n + 512; /* also of what is no data */
	return r == GOT_ALL ? PUMP_IDLE : *budget <= 0 ? PUMP_AGAIN : PUMP_ON;
}

static enum pump_result pump(struct sl_conn *c, enum sl_side from)
{
	int64_t budget = TURN_BUDGET;
	enum pump_result result;

	if (c->flow[from].shut)
		return PUMP_IDLE;
	result = send_held(c, from);
	if (result == PUMP_ON && c->tls->has_ended[from])
		return pass_end(c, from);
	while (result == PUMP_ON)
		result = c->flow[from].splicing ? splice_once(c, from, &budget)
						: pump_once(c, from, &budget);
	return result;
}

/* ---- the engine ---- */

/* Pumps and reports; false: the connection has ended. */
static bool run(struct sl_conn *c, enum sl_side from)
{
	bool is_last;

	switch (pump(c, from)) {
	case PUMP_ON:
	case PUMP_IDLE:
		return true;
	case PUMP_AGAIN:
		/* Queued by the other flow: asking again would put it off. */
		if (!c->again.is_queued)
			sl_loop_again(c->worker->loop, &c->again, on_again);
		return true;
	case PUMP_FINISHED:
		stop_splicing(c, from);
		is_last = c->flow[other(from)].shut;
		sl_conn_finished(c, from);
		return !is_last;
	case PUMP_ENDED:
		break;
	}
	return false;
}

static void on_again(struct sl_task *task)
{
	struct sl_conn *c = SL_CONTAINER_OF(task, struct sl_conn, again);

	if (run(c, SL_UP))
		(void)run(c, SL_DOWN);
}

/* A RST whose error the pump could not meet, because the other side takes no bytes now. */
static void check_error(struct sl_conn *c, enum sl_side side)
{
	socklen_t len = sizeof(int);
	int err = 0;

	(void)getsockopt(c->side[side].io.fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err != 0)
		(void)fail(c, side, -err);
}

/* Writing again, and reading where answers of TLS were in the way. */
static bool run_waiting(struct sl_conn *c, enum sl_side side)
{
	c->tls->wants_out[side] = false;
	return run(c, other(side)) && run(c, side);
}

static bool has_room(const struct sl_conn *c, enum sl_side side, uint32_t events)
{
	const struct sl_tls_stream *s = stream_of(c, side);

	return c->tls->wants_out[side] &&
	       ((events & SL_IO_OUT) || (s && sl_tls_stream_held(s) == 0));
}

static void on_socket(struct sl_conn *c, enum sl_side side, uint32_t events)
{
	if ((events & (SL_IO_IN | SL_IO_RDHUP | SL_IO_HUP | SL_IO_ERR | SL_IO_PRI)) &&
	    !run(c, side))
		return;
	if (has_room(c, side, events) && !run_waiting(c, side))
		return;
	if (events & SL_IO_ERR)
		check_error(c, side);
}

/* Bytes may have been read with the last step of a handshake: no event tells of them. */
static int start(struct sl_conn *c)
{
	if (run(c, SL_UP))
		(void)run(c, SL_DOWN);
	return 0;
}

static uint64_t n_queued(const struct sl_conn *c)
{
	uint64_t sum = 0;

	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		if (c->tls->stream[i])
			sum += sl_tls_stream_held(c->tls->stream[i]);
	return sum;
}

static void stop(struct sl_conn *c)
{
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		stop_splicing(c, (enum sl_side)i);
}

const struct sl_engine sl_engine_relay_tls = {
	.id = SL_ENGINE_RELAY,
	.start = start,
	.on_socket = on_socket,
	.n_queued = n_queued,
	.stop = stop,
};
