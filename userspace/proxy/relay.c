/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The relay engine: bytes go through this process. Small messages are copied
 * through the worker's scratch buffer, bulk is spliced through a pipe, and the
 * two are chosen by what the flow does. A flow reads only when nothing of it
 * waits to be sent, so each direction holds at most one read's worth.
 *
 * Sockets are edge-triggered. What makes that safe: after every event a flow
 * is pumped until the kernel says "no more" in one of three ways (EAGAIN, end
 * of file, or a read shorter than asked for, which proves the queue empty
 * except after RST or urgent data: see read_to_end), or until its budget is
 * used up and it queues itself for the next turn.
 */
#include "proxy/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "proxy/conn.h"
#include "proxy/worker.h"

/* Bytes per flow and turn, so that one fast flow does not starve the others. */
#define TURN_BUDGET (1 << 20)
/* Full reads in a row that make a flow bulk. */
#define BULK_READS 2
/* A turn that splices less was not bulk. */
#define BULK_BYTES (16 << 10)

enum pump_result {
	PUMP_IDLE,     /* waits for an event of either socket */
	PUMP_AGAIN,    /* budget used up */
	PUMP_FINISHED, /* the FIN has just been passed on */
	PUMP_ENDED,    /* the connection has ended; do not touch it */
};

static enum sl_side other(enum sl_side side)
{
	return side == SL_CLIENT ? SL_BACKEND : SL_CLIENT;
}

static enum pump_result fail(struct sl_conn *c, enum sl_side side, int err)
{
	sl_conn_fail(c, side, sl_reason_from_errno(err));
	return PUMP_ENDED;
}

static enum pump_result fail_errno(struct sl_conn *c, enum sl_side side)
{
	return fail(c, side, errno);
}

/* Sends what is held; true when nothing is left, else `*ret` says why not. */
static bool send_held(struct sl_conn *c, enum sl_side from, enum pump_result *ret)
{
	struct sl_flow *f = &c->flow[from];

	while (f->held_len > 0) {
		ssize_t n = send(c->side[other(from)].io.fd, f->held + f->held_at, f->held_len,
				 MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			sl_conn_want_out(c, other(from));
			*ret = PUMP_IDLE;
			return false;
		}
		if (n < 0) {
			*ret = fail_errno(c, other(from));
			return false;
		}
		f->held_at += (uint32_t)n;
		f->held_len -= (uint32_t)n;
		sl_conn_moved(c, from, (uint64_t)n);
	}
	free(f->held);
	f->held = NULL;
	return true;
}

/* The same for what is in the pipe. */
static bool send_piped(struct sl_conn *c, enum sl_side from, enum pump_result *ret)
{
	struct sl_flow *f = &c->flow[from];

	while (f->pipe.used > 0) {
		ssize_t n = splice(f->pipe.rd, NULL, c->side[other(from)].io.fd, NULL, f->pipe.used,
				   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

		if (n < 0 && errno == EAGAIN) {
			sl_conn_want_out(c, other(from));
			*ret = PUMP_IDLE;
			return false;
		}
		if (n <= 0) {
			*ret = fail(c, other(from), n < 0 ? errno : EPIPE);
			return false;
		}
		f->pipe.used -= (size_t)n;
		sl_conn_moved(c, from, (uint64_t)n);
	}
	return true;
}

/* Everything the side sent has been delivered: its FIN follows, unless closing sends it anyway. */
static enum pump_result pass_fin(struct sl_conn *c, enum sl_side from)
{
	c->flow[from].shut = true;
	if (!c->flow[other(from)].shut && shutdown(c->side[other(from)].io.fd, SHUT_WR) < 0 &&
	    errno != ENOTCONN)
		return fail_errno(c, other(from));
	return PUMP_FINISHED;
}

/*
 * Sends what was just read; the last bytes before a FIN wait for it, so that
 * both travel in one segment.
 */
static bool send_read(struct sl_conn *c, enum sl_side from, const char *bytes, size_t n,
		      bool is_last, enum pump_result *ret)
{
	int fd = c->side[other(from)].io.fd;

	while (n > 0) {
		ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL | (is_last ? MSG_MORE : 0));

		if (sent < 0 && errno == EAGAIN) {
			if (!sl_conn_hold(c, from, bytes, n)) {
				*ret = fail(c, from, ENOMEM);
				return false;
			}
			sl_conn_want_out(c, other(from));
			*ret = PUMP_IDLE;
			return false;
		}
		if (sent < 0) {
			*ret = fail_errno(c, other(from));
			return false;
		}
		bytes += sent;
		n -= (size_t)sent;
		sl_conn_moved(c, from, (uint64_t)sent);
	}
	return true;
}

static enum pump_result copy(struct sl_conn *c, enum sl_side from, int64_t *budget)
{
	struct sl_side_io *s = &c->side[from];
	struct sl_flow *f = &c->flow[from];
	char *buf = c->worker->scratch;
	enum pump_result result;

	for (;;) {
		size_t want = f->full_reads ? SL_SCRATCH_SIZE : SL_READ_SIZE;
		ssize_t n = recv(s->io.fd, buf, want, 0);
		bool is_short = n > 0 && (size_t)n < want && !s->read_to_end;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return PUMP_IDLE;
		if (n < 0)
			return fail_errno(c, from);
		if (n == 0)
			return pass_fin(c, from);
		if (!send_read(c, from, buf, (size_t)n, is_short && s->hung_up, &result))
			return result;
		if (is_short && s->hung_up)
			return pass_fin(c, from);
		f->full_reads = (size_t)n == want ? (uint8_t)(f->full_reads + 1) : 0;
		if (is_short)
			return PUMP_IDLE;
		if (f->full_reads >= BULK_READS && !s->read_to_end) {
			f->splicing = true;
			return PUMP_AGAIN;
		}
		*budget -= n;
		if (*budget <= 0)
			return PUMP_AGAIN;
	}
}

/* Back to copying: the flow is not bulk, or there is no pipe to be had. */
static void stop_splicing(struct sl_conn *c, struct sl_flow *f)
{
	if (f->pipe.rd >= 0)
		sl_pipe_give(c->worker->pipes, &f->pipe);
	f->splicing = false;
	f->full_reads = 0;
}

static enum pump_result splice_through(struct sl_conn *c, enum sl_side from, int64_t *budget)
{
	struct sl_flow *f = &c->flow[from];
	int64_t moved = 0;
	enum pump_result result;

	if (f->pipe.rd < 0 && sl_pipe_take(c->worker->pipes, &f->pipe) < 0) {
		stop_splicing(c, f);
		return copy(c, from, budget);
	}
	for (;;) {
		ssize_t n = splice(c->side[from].io.fd, NULL, f->pipe.wr, NULL, f->pipe.size,
				   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			if (moved < BULK_BYTES)
				stop_splicing(c, f);
			else
				sl_pipe_give(c->worker->pipes, &f->pipe);
			return PUMP_IDLE;
		}
		if (n < 0)
			return fail_errno(c, from);
		if (n == 0) { /* the end, or an urgent mark in front of more: recv() knows */
			stop_splicing(c, f);
			return copy(c, from, budget);
		}
		f->pipe.used = (size_t)n;
		if (!send_piped(c, from, &result))
			return result;
		moved += n;
		*budget -= n;
		if (*budget <= 0)
			return PUMP_AGAIN;
	}
}

static enum pump_result pump(struct sl_conn *c, enum sl_side from)
{
	struct sl_flow *f = &c->flow[from];
	int64_t budget = TURN_BUDGET;
	enum pump_result result;

	if (f->shut)
		return PUMP_IDLE;
	if (!send_held(c, from, &result) || !send_piped(c, from, &result))
		return result;
	if (f->splicing && c->side[from].read_to_end)
		stop_splicing(c, f); /* splice() stops at an urgent mark and cannot pass it */
	if (!f->splicing)
		result = copy(c, from, &budget);
	else
		result = splice_through(c, from, &budget);
	if (result == PUMP_AGAIN && budget > 0 && f->splicing) /* copy() has just found bulk */
		result = splice_through(c, from, &budget);
	return result;
}

static void on_again(struct sl_task *task);

/* Pumps and reports; false: the connection has ended. */
static bool run(struct sl_conn *c, enum sl_side from)
{
	bool is_last;

	switch (pump(c, from)) {
	case PUMP_IDLE:
		return true;
	case PUMP_AGAIN:
		/* Queued by the other flow: asking again would put it off. */
		if (!c->again.is_queued)
			sl_loop_again(c->worker->loop, &c->again, on_again);
		return true;
	case PUMP_FINISHED:
		stop_splicing(c, &c->flow[from]);
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
		sl_conn_fail(c, side, sl_reason_from_errno(err));
}

static void on_socket(struct sl_conn *c, enum sl_side side, uint32_t events)
{
	if ((events & (SL_IO_IN | SL_IO_RDHUP | SL_IO_HUP | SL_IO_ERR | SL_IO_PRI)) &&
	    !run(c, side))
		return;
	if ((events & SL_IO_OUT) &&
	    (c->flow[other(side)].held || c->flow[other(side)].pipe.used > 0) &&
	    !run(c, other(side)))
		return;
	if (events & SL_IO_ERR)
		check_error(c, side);
}

/*
 * When both sockets were watched only now, their edges are still to come;
 * otherwise some may have come and gone while connecting.
 */
static int start(struct sl_conn *c)
{
	if (!c->missed_events && !c->side[SL_CLIENT].hung_up)
		return 0;
	if (run(c, SL_UP))
		(void)run(c, SL_DOWN);
	return 0;
}

static void stop(struct sl_conn *c)
{
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		stop_splicing(c, &c->flow[i]);
}

const struct sl_engine sl_engine_relay = {
	.id = SL_ENGINE_RELAY,
	.start = start,
	.on_socket = on_socket,
	.stop = stop,
};
