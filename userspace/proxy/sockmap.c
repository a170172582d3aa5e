/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The sockmap engine. Plain redirecting has no flow control and loses the ends of streams; what
 * makes it safe is in three places. The program (bpf/sockmap.bpf.c) bounds what waits at a socket:
 * above the bound a direction is spilled, that is, its bytes are passed to us, who forward them
 * only behind those that the kernel has queued, and hand the direction back when it has calmed
 * down. A FIN is passed on when the counters of both sockets prove that every byte before it has
 * been written. And no socket leaves the maps while bytes are queued: a connection that is moved
 * back to the relay stays in them, spilled for good.
 */
#include "proxy/sockmap.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/log.h"
#include "broker/client.h"
#include "io/sock.h"
#include "proxy/conn.h"
#include "proxy/engine.h"
#include "proxy/handover.h"
#include "proxy/worker.h"

/* Bytes per direction and turn, as of the relay. */
#define TURN_BUDGET (1 << 20)
/* No event tells that what was queued has been written: looks, ever rarer while nothing moves. */
#define WAIT_MIN_MS 1
#define WAIT_MAX_MS 50
/* A spilled direction that carries less than a quarter of the bound in this time goes back. */
#define WINDOW_MS 10
#define CALM_SHARE 4
/* What the kernel has queued before a RST gets so long to be written. */
#define LAST_WORDS_MS 100
/* Bytes that have come and cannot be read: they are lost, after so long. */
#define STUCK_MS 500
/*
 * All of a worker's are looked at so often, without an event: while nothing moves; while something
 * does, because the broker may be slow to tell; while nobody can tell. A look is a few loads.
 */
#define LOOK_MS 1000
#define LOOK_BUSY_MS 100
#define LOOK_ALONE_MS 20
/* So long after bytes have moved each look asks whether the program has seen all of them; later one
 * does in so long. */
#define FORGOTTEN_MS 10000
/* Reads of two counters that have to agree. */
#define TRIES 100

static void on_timer(struct sl_timer *timer);
static void on_again(struct sl_task *task);

static enum sl_side other(enum sl_side side)
{
	return side == SL_CLIENT ? SL_BACKEND : SL_CLIENT;
}

static int fd_of(const struct sl_joint *j, enum sl_side side)
{
	return j->conn->side[side].io.fd;
}

static uint64_t now_ms(const struct sl_joint *j)
{
	return sl_loop_now_ms(j->conn->worker->loop);
}

static uint64_t load(const __u64 *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

/* ---- slots ---- */

/* What `side` has sent: NULL: a broker has given the pair up, and the slot may be another's. */
static const struct sl_sockmap_slot *slot_of(const struct sl_joint *j, enum sl_side side)
{
	const struct sl_sockmap_slot *s =
		j->is_joined ? sl_sockmap_view_slot(j->view, 2 * j->pair + side) : NULL;

	return s && load(&s->conn_id) == j->conn->id ? s : NULL;
}

/* `consumed`: with WANTS_FAST, of what was passed up to the spill of that number. */
static void give_order(struct sl_joint *j, enum sl_side side, enum sl_sockmap_wish wish,
		       uint64_t consumed, uint32_t spills)
{
	struct sl_sockmap_order *order =
		slot_of(j, side) ? sl_sockmap_view_order(j->view, 2 * j->pair + side) : NULL;

	j->half[side].is_offered = wish == SL_SOCKMAP_WANTS_FAST;
	if (!order)
		return;
	/* The program compares the others when it has met the last. */
	__atomic_store_n(&order->consumed, consumed, __ATOMIC_RELEASE);
	__atomic_store_n(&order->spills, spills, __ATOMIC_RELEASE);
	__atomic_store_n(&order->wish, wish, __ATOMIC_RELEASE);
}

static bool is_fast(const struct sl_joint *j, enum sl_side side)
{
	const struct sl_sockmap_slot *s = slot_of(j, side);

	return s && __atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == SL_SOCKMAP_FAST;
}

/* Counts what the kernel has redirected since the last look. */
static void count(struct sl_joint *j, enum sl_side from)
{
	const struct sl_sockmap_slot *s = slot_of(j, from);
	struct sl_joint_half *h = &j->half[from];
	uint64_t redirected = s ? load(&s->redirected) : h->redirected;
	uint64_t n = redirected - h->redirected;

	if (n == 0)
		return;
	h->redirected = redirected;
	h->moved_ms = now_ms(j);
	h->is_drained = false;
	j->has_moved = true;
	j->wait_ms = WAIT_MIN_MS;
	sl_conn_moved_in_kernel(j->conn, from, n, load(&s->last_ns) / 1000000);
}

/* ---- sockets ---- */

static int get_info(int fd, struct tcp_info *ret)
{
	socklen_t len = sizeof(*ret);

	memset(ret, 0, sizeof(*ret));
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, ret, &len) < 0 ? -errno : 0;
}

/* Bytes ever written to the socket; a FIN sent counts as one. */
static int get_written(int fd, uint64_t *ret)
{
	struct tcp_info before;
	struct tcp_info after;
	int queued = 0;

	if (get_info(fd, &before) < 0)
		return -errno;
	for (int i = 0; i < TRIES; i++) {
		if (ioctl(fd, SIOCOUTQ, &queued) < 0 || get_info(fd, &after) < 0)
			return -errno;
		if (before.tcpi_bytes_acked == after.tcpi_bytes_acked) {
			*ret = after.tcpi_bytes_acked + (__u64)queued;
			return 0;
		}
		before = after;
	}
	return -EAGAIN;
}

/* Bytes that have come, those not read among them; a FIN counts as one. */
static int get_received(int fd, uint64_t *ret)
{
	struct tcp_info info;
	int r = get_info(fd, &info);

	if (r == 0)
		*ret = info.tcpi_bytes_received;
	return r;
}

/* The program runs with the socket locked: no packet is judged by an earlier order any more. */
static void settle(const struct sl_joint *j, enum sl_side side)
{
	struct tcp_info info;

	(void)get_info(fd_of(j, side), &info);
}

/*
 * While we read, the kernel must not queue anything past us: what it queued between our look at
 * what is written and a spill would be overtaken. False: it has the direction already.
 */
static bool take_back(struct sl_joint *j, enum sl_side from)
{
	give_order(j, from, SL_SOCKMAP_AS_IT_IS, 0, 0);
	settle(j, from);
	count(j, from);
	return !is_fast(j, from);
}

/* Everything the kernel or we have taken from `from` has been written to the other socket. */
static bool is_written(const struct sl_joint *j, enum sl_side from)
{
	const struct sl_joint_half *h = &j->half[from];
	uint64_t written = 0;

	return get_written(fd_of(j, other(from)), &written) == 0 &&
	       written - h->written_before == h->redirected + h->carried;
}

/* ... and nothing else has come from it but, with `fin` 1, its FIN. */
static bool is_all_taken(const struct sl_joint *j, enum sl_side from, unsigned fin)
{
	const struct sl_joint_half *h = &j->half[from];
	uint64_t received = 0;

	return get_received(fd_of(j, from), &received) == 0 &&
	       received - h->read_before == h->redirected + h->carried + fin;
}

/*
 * Of a direction in the kernel alone the FIN and errors are waited for: with more, each packet
 * would wake this thread for nothing.
 */
static void watch(const struct sl_joint *j, enum sl_side side)
{
	struct sl_conn *c = j->conn;
	uint32_t events = SL_IO_RDHUP | SL_IO_EDGE;

	if (c->side[side].io.fd < 0)
		return;
	if (j->half[side].is_in_daemon)
		events |= SL_IO_IN;
	c->side[side].wants_out = c->flow[other(side)].held != NULL;
	if (c->side[side].wants_out)
		events |= SL_IO_OUT;
	(void)sl_io_change(&c->side[side].io, events);
}

static void want_out(const struct sl_joint *j, enum sl_side side)
{
	if (!j->conn->side[side].wants_out)
		watch(j, side);
}

static void look_later(struct sl_joint *j, uint32_t ms)
{
	if (!sl_timer_is_armed(&j->timer) || j->timer.at_ms > now_ms(j) + ms)
		sl_timer_start(j->conn->worker->loop, &j->timer, now_ms(j) + ms, on_timer);
}

/* For what the kernel has queued. */
static void wait_for_kernel(struct sl_joint *j)
{
	look_later(j, j->wait_ms);
}

/* ---- a direction in our hands ---- */

enum carry_result {
	CARRY_DONE, /* nothing is left to be read now */
	CARRY_WAIT, /* for the receiver, or the kernel */
	CARRY_AGAIN,
	CARRY_END,    /* the stream has ended, or so it seems: the counters know */
	CARRY_FAILED, /* the connection has ended */
};

/*
 * Who meets the error of a socket first takes it away, and that may be the kernel's worker: what is
 * found later is EPIPE, as if we had closed the socket. After a FIN it is the error itself
 * (tcp_reset(), net/ipv4/tcp_input.c).
 */
static enum sl_reason reason_of(const struct sl_joint *j, enum sl_side side, int err)
{
	return sl_reason_from_errno(err == EPIPE && !j->half[side].has_fin ? ECONNRESET : err);
}

static enum carry_result fail(struct sl_joint *j, enum sl_side side, int err)
{
	sl_conn_fail(j->conn, side, reason_of(j, side, err));
	return CARRY_FAILED;
}

static void carried(struct sl_joint *j, enum sl_side from, size_t n)
{
	struct sl_joint_half *h = &j->half[from];

	h->carried += n;
	h->in_window += n;
	j->wait_ms = WAIT_MIN_MS;
	sl_conn_moved(j->conn, from, n);
}

static enum carry_result send_held(struct sl_joint *j, enum sl_side from)
{
	struct sl_flow *f = &j->conn->flow[from];

	while (f->held_len > 0) {
		ssize_t n = send(fd_of(j, other(from)), f->held + f->held_at, f->held_len,
				 MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			want_out(j, other(from));
			return CARRY_WAIT;
		}
		if (n < 0)
			return fail(j, other(from), errno);
		f->held_at += (uint32_t)n;
		f->held_len -= (uint32_t)n;
		carried(j, from, (size_t)n);
	}
	free(f->held);
	f->held = NULL;
	return CARRY_DONE;
}

static enum carry_result send_read(struct sl_joint *j, enum sl_side from, const char *bytes,
				   size_t n)
{
	while (n > 0) {
		ssize_t sent = send(fd_of(j, other(from)), bytes, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EAGAIN) {
			if (!sl_conn_hold(j->conn, from, bytes, n))
				return fail(j, from, ENOMEM);
			want_out(j, other(from));
			return CARRY_WAIT;
		}
		if (sent < 0)
			return fail(j, other(from), errno);
		bytes += sent;
		n -= (size_t)sent;
		carried(j, from, (size_t)sent);
	}
	return CARRY_DONE;
}

/*
 * Our bytes come behind those the kernel has queued. Whoever has seen SPILLED sees all that was
 * redirected before: the program counts first. It takes an order of ours for more to come.
 */
static bool is_our_turn(struct sl_joint *j, enum sl_side from)
{
	struct sl_joint_half *h = &j->half[from];

	count(j, from);
	if (!h->is_drained)
		h->is_drained = is_written(j, from);
	return h->is_drained;
}

static enum carry_result carry(struct sl_joint *j, enum sl_side from)
{
	struct sl_worker *w = j->conn->worker;
	size_t budget = TURN_BUDGET;
	enum carry_result result;

	if (!is_our_turn(j, from))
		return CARRY_WAIT;
	result = send_held(j, from);
	if (result != CARRY_DONE)
		return result;
	while (budget > 0) {
		ssize_t n = recv(fd_of(j, from), w->scratch, SL_SCRATCH_SIZE, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return CARRY_DONE;
		if (n < 0)
			return fail(j, from, errno);
		if (n == 0)
			return CARRY_END;
		result = send_read(j, from, w->scratch, (size_t)n);
		if (result != CARRY_DONE)
			return result;
		budget -= (size_t)n < budget ? (size_t)n : budget;
	}
	return CARRY_AGAIN;
}

/*
 * All that has come has been carried; what the program has counted of it is a matter of its own,
 * because it does not know what came while an entry was missing.
 */
struct offer {
	uint64_t passed;
	uint32_t spills;
};

/* *ret is read first: what is passed after that makes the order void. */
static bool may_go(const struct sl_joint *j, enum sl_side from, struct offer *ret)
{
	const struct sl_sockmap_slot *s = slot_of(j, from);

	if (!s)
		return false;
	ret->spills = __atomic_load_n(&s->spills, __ATOMIC_ACQUIRE);
	ret->passed = load(&s->passed);
	return s->why != SL_SOCKMAP_NO_SOURCE && !j->conn->side[from].hung_up &&
	       !j->conn->flow[from].held && j->half[from].in_window <= s->limit / CALM_SHARE &&
	       is_all_taken(j, from, 0);
}

static void make_offer(struct sl_joint *j, enum sl_side from, const struct offer *o)
{
	give_order(j, from, SL_SOCKMAP_WANTS_FAST, o->passed, o->spills);
}

/* An offer stands as long as nothing was passed to us since: there is nothing to be read. */
static bool is_offer_open(const struct sl_joint *j, enum sl_side from)
{
	const struct sl_sockmap_slot *s = slot_of(j, from);
	const struct sl_sockmap_order *order =
		s ? sl_sockmap_view_order(j->view, 2 * j->pair + from) : NULL;

	return order && j->half[from].is_offered && !j->is_out &&
	       load(&s->passed) == order->consumed &&
	       __atomic_load_n(&s->spills, __ATOMIC_ACQUIRE) == order->spills;
}

/*
 * What is passed to us waits in the kernel behind what is queued to the same socket, for good if
 * its peer does not read. So no direction goes back alone: the other one goes with it, or is there
 * already, or is over. The last of the two to come to rest takes both.
 */
static void hand_back(struct sl_joint *j, enum sl_side from)
{
	enum sl_side back = other(from);
	bool is_there = j->conn->flow[back].shut || is_fast(j, back) || is_offer_open(j, back);
	struct offer mine;
	struct offer its;

	if (!may_go(j, from, &mine)) {
		look_later(j, WINDOW_MS);
	} else if (is_there) {
		make_offer(j, from, &mine);
	} else if (may_go(j, back, &its)) {
		make_offer(j, back, &its);
		make_offer(j, from, &mine);
	}
}

/*
 * All that was passed has been carried. A direction that is calm is offered to the kernel; the
 * program takes it with a packet that finds nothing between the two.
 */
static void offer(struct sl_joint *j, enum sl_side from)
{
	const struct sl_sockmap_slot *s = slot_of(j, from);
	struct sl_joint_half *h = &j->half[from];
	uint64_t now = now_ms(j);
	bool is_calm;

	if (j->is_out || j->conn->side[from].hung_up || !s || s->why == SL_SOCKMAP_NO_SOURCE)
		return;
	if (now - h->window_ms < WINDOW_MS) {
		look_later(j, WINDOW_MS);
		return;
	}
	is_calm = h->in_window <= s->limit / CALM_SHARE;
	h->window_ms = now;
	h->in_window = 0;
	if (is_calm)
		hand_back(j, from);
	else
		look_later(j, WINDOW_MS);
}

/*
 * What was passed to us and not read when the socket was taken out of the maps is lost, and the
 * kernel gives nothing of what has come behind it.
 */
static bool is_stuck(struct sl_joint *j, enum sl_side from)
{
	struct sl_joint_half *h = &j->half[from];
	uint64_t received = 0;
	uint64_t taken =
		h->read_before + h->redirected + h->carried + (j->conn->side[from].hung_up ? 1 : 0);

	if (!j->is_lost || get_received(fd_of(j, from), &received) < 0 || received <= taken) {
		h->stuck_ms = 0;
		return false;
	}
	look_later(j, WAIT_MAX_MS);
	if (h->stuck_ms == 0 || h->stuck_at != taken) {
		h->stuck_ms = now_ms(j);
		h->stuck_at = taken;
	}
	return now_ms(j) - h->stuck_ms >= STUCK_MS;
}

static bool has_lost(const struct sl_joint *j, enum sl_side from)
{
	const struct sl_sockmap_slot *s = slot_of(j, from);

	return s && __atomic_load_n(&s->why, __ATOMIC_ACQUIRE) == SL_SOCKMAP_LOST;
}

static bool end_with_loss(struct sl_joint *j, const char *how)
{
	sl_log_conn(SL_LOG_ERROR, j->conn->id,
		    "sockmap: bytes were lost when %s, ending the connection", how);
	sl_conn_end(j->conn, SL_REASON_ERROR, true);
	return false;
}

static bool end_stuck(struct sl_joint *j)
{
	return end_with_loss(j, "a socket of it was taken out of the kernel's maps");
}

/* False: the connection has ended. */
static bool run_in_daemon(struct sl_joint *j, enum sl_side from)
{
	struct sl_conn *c = j->conn;

	switch (carry(j, from)) {
	case CARRY_DONE:
		if (is_stuck(j, from))
			return end_stuck(j);
		offer(j, from);
		return true;
	case CARRY_WAIT:
		if (!j->half[from].is_drained)
			wait_for_kernel(j);
		return true;
	case CARRY_AGAIN:
		if (!c->again.is_queued)
			sl_loop_again(c->worker->loop, &c->again, on_again);
		return true;
	case CARRY_END:
		return !is_stuck(j, from) || end_stuck(j);
	case CARRY_FAILED:
		break;
	}
	return false;
}

/* ---- ends ---- */

/*
 * recv() may say 0 while bytes are queued behind those of the other direction, and the FIN is
 * reported before the bytes in front of it are through. False: the connection has ended.
 */
static bool try_to_finish(struct sl_joint *j, enum sl_side from)
{
	struct sl_conn *c = j->conn;
	bool is_last = c->flow[other(from)].shut;

	if (c->flow[from].held || !is_all_taken(j, from, 1) || !is_written(j, from)) {
		wait_for_kernel(j);
		return true;
	}
	c->flow[from].shut = true;
	/* Closing sends it, too. */
	if (!is_last && shutdown(fd_of(j, other(from)), SHUT_WR) < 0 && errno != ENOTCONN) {
		sl_conn_fail(c, other(from), reason_of(j, other(from), errno));
		return false;
	}
	sl_conn_finished(c, from);
	return !is_last;
}

/* A RST ends both sides, but what came before it is delivered, as far as that takes no time. */
static bool try_to_fail(struct sl_joint *j, enum sl_side side)
{
	const struct sl_joint_half *h = &j->half[side];

	if (now_ms(j) - h->error_ms < LAST_WORDS_MS && !is_written(j, side)) {
		look_later(j, WAIT_MIN_MS);
		return true;
	}
	sl_conn_fail(j->conn, side, reason_of(j, side, h->error));
	return false;
}

static void note_error(struct sl_joint *j, enum sl_side side, int err)
{
	struct sl_joint_half *h = &j->half[side];

	if (err == 0 || h->error)
		return;
	h->error = err;
	h->error_ms = now_ms(j);
}

static void check_error(struct sl_joint *j, enum sl_side side)
{
	socklen_t len = sizeof(int);
	int err = 0;

	(void)getsockopt(fd_of(j, side), SOL_SOCKET, SO_ERROR, &err, &len);
	note_error(j, side, err);
}

/* What was queued before goes through the program when somebody looks at the queue. */
static void kick(struct sl_joint *j, enum sl_side side)
{
	char byte;

	if (recv(fd_of(j, side), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno != EAGAIN &&
	    errno != EINTR)
		note_error(j, side, errno);
}

/*
 * Of a direction in the kernel nothing is read. Should a packet lie in its queue for which the
 * program was not run, nothing would tell of it until the next one comes: seen once in 200 000
 * transfers on a machine with much to do. A silent direction is asked now and then.
 */
static void look_for_forgotten(struct sl_joint *j, enum sl_side from)
{
	struct sl_joint_half *h = &j->half[from];
	bool has_ended = j->conn->side[from].hung_up;
	uint64_t now = now_ms(j);

	if (h->error ||
	    (!has_ended && now - h->moved_ms >= FORGOTTEN_MS && now - h->asked_ms < FORGOTTEN_MS))
		return;
	h->asked_ms = now;
	if (!is_all_taken(j, from, has_ended))
		kick(j, from);
}

/* ---- a look at one direction, whatever the cause ---- */

/* False: the connection has ended. */
static bool look(struct sl_joint *j, enum sl_side from)
{
	struct sl_conn *c = j->conn;
	struct sl_joint_half *h = &j->half[from];
	bool is_ours;
	bool is_open;

	count(j, from);
	if (has_lost(j, from))
		return end_with_loss(j, "the kernel had no memory for a packet");
	if (c->flow[from].shut)
		return h->error ? try_to_fail(j, from) : true;
	is_ours = j->is_out || !is_fast(j, from);
	is_open = is_ours && is_offer_open(j, from);
	if (is_ours && h->is_offered && !is_open)
		is_ours = take_back(j, from);
	if (is_ours != h->is_in_daemon) {
		h->is_in_daemon = is_ours;
		h->window_ms = now_ms(j);
		h->in_window = 0;
		watch(j, from);
	}
	if (is_ours && !is_open && !run_in_daemon(j, from))
		return false;
	if (!is_ours || is_open)
		look_for_forgotten(j, from);
	if (h->error)
		return try_to_fail(j, from);
	return !c->side[from].hung_up || try_to_finish(j, from);
}

static bool look_at_both(struct sl_joint *j)
{
	return look(j, SL_UP) && look(j, SL_DOWN);
}

static void on_timer(struct sl_timer *timer)
{
	struct sl_joint *j = SL_CONTAINER_OF(timer, struct sl_joint, timer);

	if (j->wait_ms < WAIT_MAX_MS)
		j->wait_ms *= 2;
	(void)look_at_both(j);
}

static void on_again(struct sl_task *task)
{
	struct sl_conn *c = SL_CONTAINER_OF(task, struct sl_conn, again);

	(void)look_at_both(sl_handover_joint(c));
}

/* ---- a worker's connections ---- */

/* No broker hears of its spills. */
static bool is_alone(const struct sl_joint *j)
{
	const struct sl_sockmap_view *now =
		sl_broker_client_sockmap(sl_handovers_client(j->conn->worker->handovers));

	return j->is_joined && !(now && sl_sockmap_view_is_same(j->view, now));
}

static void on_look(struct sl_timer *timer);

static void look_at_all_in(struct sl_joints *js, uint64_t ms)
{
	if (!sl_list_is_empty(&js->list))
		sl_timer_start(js->worker->loop, &js->timer, sl_loop_now_ms(js->worker->loop) + ms,
			       on_look);
}

static void on_look(struct sl_timer *timer)
{
	struct sl_joints *js = SL_CONTAINER_OF(timer, struct sl_joints, timer);
	uint64_t next_ms = LOOK_MS;
	struct sl_list *pos;
	struct sl_list *tmp;

	sl_list_for_each_safe (pos, tmp, &js->list) {
		struct sl_joint *j = SL_CONTAINER_OF(pos, struct sl_joint, node);

		if (is_alone(j))
			next_ms = LOOK_ALONE_MS;
		else if (j->has_moved && next_ms > LOOK_BUSY_MS)
			next_ms = LOOK_BUSY_MS;
		j->has_moved = false;
		(void)look_at_both(j);
	}
	look_at_all_in(js, next_ms);
}

void sl_joints_init(struct sl_joints *js, struct sl_worker *w)
{
	*js = (struct sl_joints){ .worker = w };
	sl_list_init(&js->list);
}

void sl_joints_stop(struct sl_joints *js)
{
	sl_timer_stop(&js->timer);
}

void sl_joints_linked(struct sl_joints *js)
{
	struct sl_broker_client *cl = sl_handovers_client(js->worker->handovers);
	const struct sl_sockmap_view *now = sl_broker_client_sockmap(cl);
	struct sl_list *pos;

	sl_list_for_each (pos, &js->list) {
		const struct sl_joint *j = SL_CONTAINER_OF(pos, struct sl_joint, node);

		if (j->is_joined && sl_sockmap_view_is_same(j->view, now))
			sl_broker_sockmap_tell(cl, SL_BROKER_SOCKMAP_HELD, j->conn->id, j->pair);
	}
}

void sl_joints_unlinked(struct sl_joints *js)
{
	look_at_all_in(js, 0);
}

/* ---- into the kernel ---- */

/* Nothing of the receive queue may be there that has been read in part. */
static bool note_read(struct sl_joint *j, enum sl_side side)
{
	uint64_t received = 0;
	int unread = 0;

	if (get_received(fd_of(j, side), &received) < 0 ||
	    ioctl(fd_of(j, side), SIOCINQ, &unread) < 0 || unread != 0)
		return false;
	j->half[side].read_before = received;
	/* what has come between the two calls */
	return get_received(fd_of(j, side), &received) == 0 &&
	       received == j->half[side].read_before;
}

bool sl_joint_prepare(struct sl_joint *j)
{
	const struct sl_conn *c = j->conn;
	struct sl_sockmap_view *now =
		sl_broker_client_sockmap(sl_handovers_client(c->worker->handovers));

	if (c->again.is_queued)
		return false;
	for (int i = 0; i < SL_SIDE_COUNT_; i++) {
		j->half[i] = (struct sl_joint_half){ 0 };
		if (c->flow[i].held || c->flow[i].pipe.used > 0)
			return false;
	}
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		if (!note_read(j, (enum sl_side)i) ||
		    get_written(fd_of(j, other((enum sl_side)i)), &j->half[i].written_before) < 0)
			return false;
	sl_sockmap_view_unref(j->view);
	j->view = sl_sockmap_view_ref(now);
	return true;
}

bool sl_joint_has_begun(const struct sl_joint *j)
{
	for (int i = 0; i < SL_SIDE_COUNT_; i++) {
		uint64_t cookie;

		if (sl_sock_cookie(fd_of(j, (enum sl_side)i), &cookie) == 0 &&
		    sl_sockmap_view_has(j->view, cookie))
			return true;
	}
	return false;
}

void sl_joint_nudge(struct sl_joint *j)
{
	kick(j, SL_CLIENT);
	kick(j, SL_BACKEND);
}

/* From now on the engine has the sockets' events. */
static void begin(struct sl_joint *j)
{
	struct sl_conn *c = j->conn;
	struct sl_joints *js = sl_handovers_joints(c->worker->handovers);

	j->wait_ms = WAIT_MIN_MS;
	sl_list_remove(&j->node);
	sl_list_add(&js->list, &j->node);
	if (!sl_timer_is_armed(&js->timer))
		look_at_all_in(js, LOOK_MS);
	for (int i = 0; i < SL_SIDE_COUNT_; i++) {
		j->half[i].moved_ms = now_ms(j);
		watch(j, (enum sl_side)i);
	}
	sl_conn_rearm(c);
}

void sl_joint_take_over(struct sl_joint *j, uint32_t pair)
{
	struct sl_conn *c = j->conn;

	c->engine->stop(c);
	sl_task_cancel(&c->again);
	j->pair = pair;
	j->is_joined = true;
	sl_conn_use_engine(c, &sl_engine_sockmap, SL_WHY_CONFIGURED);
	begin(j);
	sl_joint_nudge(j);
	(void)look_at_both(j);
}

/* ---- and out of it ---- */

void sl_joint_move_out(struct sl_joint *j, enum sl_engine_reason why)
{
	if (j->is_out)
		return;
	j->is_out = true;
	for (int i = 0; i < SL_SIDE_COUNT_; i++) {
		give_order(j, (enum sl_side)i, SL_SOCKMAP_WANTS_SPILL, 0, 0);
		settle(j, (enum sl_side)i);
	}
	sl_conn_use_engine(j->conn, &sl_engine_unjoined, why);
	(void)look_at_both(j);
}

bool sl_joint_move_in(struct sl_joint *j)
{
	if (!j->is_out || j->is_lost || !slot_of(j, SL_UP) || !slot_of(j, SL_DOWN))
		return false;
	j->is_out = false;
	give_order(j, SL_UP, SL_SOCKMAP_AS_IT_IS, 0, 0);
	give_order(j, SL_DOWN, SL_SOCKMAP_AS_IT_IS, 0, 0);
	sl_conn_use_engine(j->conn, &sl_engine_sockmap, SL_WHY_CONFIGURED);
	(void)look_at_both(j);
	return true;
}

/* Nothing of what the kernel or we have taken for it has been lost with its place in the maps. */
static bool is_intact(const struct sl_joint *j, enum sl_side side)
{
	const struct sl_joint_half *h = &j->half[side];
	int unread = 0;
	uint64_t received = 0;

	/* All of a direction has been written whose FIN has been passed on. */
	if (!j->conn->flow[other(side)].shut && !is_written(j, other(side)))
		return false;
	if (get_received(fd_of(j, side), &received) < 0 ||
	    ioctl(fd_of(j, side), SIOCINQ, &unread) < 0)
		return false;
	return received - h->read_before - (j->conn->side[side].hung_up ? 1 : 0) ==
	       h->redirected + h->carried + j->conn->flow[side].held_len + (uint64_t)unread;
}

/*
 * Somebody has deleted entries of ours. What was queued to a socket that is in neither map is gone,
 * and would be missing in the middle of the stream.
 */
static void lost(struct sl_joint *j, uint32_t which)
{
	if (j->is_lost)
		return;
	j->is_lost = true;
	count(j, SL_UP);
	count(j, SL_DOWN);
	for (int i = 0; i < SL_SIDE_COUNT_; i++) {
		if (!(which & 1u << i) || is_intact(j, (enum sl_side)i))
			continue;
		(void)end_stuck(j);
		return;
	}
	sl_joint_move_out(j, SL_WHY_TAKEN_OUT);
}

void sl_joint_changed(struct sl_joint *j, uint32_t flag)
{
	if (flag & SL_BROKER_SOCKMAP_LOST)
		lost(j, flag & SL_BROKER_SOCKMAP_SIDES);
	else
		(void)look_at_both(j);
}

void sl_joint_forget(struct sl_joint *j)
{
	sl_timer_stop(&j->timer);
	sl_list_remove(&j->node);
	if (j->is_joined)
		sl_broker_sockmap_tell(sl_handovers_client(j->conn->worker->handovers),
				       SL_BROKER_SOCKMAP_LEAVE, j->conn->id, j->pair);
	sl_sockmap_view_unref(j->view);
	j->view = NULL;
}

/* ---- the engine ---- */

static int start(struct sl_conn *c)
{
	(void)c;
	return 0;
}

static void on_socket(struct sl_conn *c, enum sl_side side, uint32_t events)
{
	struct sl_joint *j = sl_handover_joint(c);

	if ((events & SL_IO_RDHUP) && !(events & (SL_IO_HUP | SL_IO_ERR)))
		j->half[side].has_fin = true;
	if (events & SL_IO_ERR)
		check_error(j, side);
	if ((events & SL_IO_OUT) && c->flow[other(side)].held && !look(j, other(side)))
		return;
	(void)look(j, side);
}

static void refresh(struct sl_conn *c)
{
	(void)look_at_both(sl_handover_joint(c));
}

/* A slow reader empties this queue while that of its socket stays full. */
static uint64_t n_queued(const struct sl_conn *c)
{
	const struct sl_joint *j = sl_handover_joint(c);
	uint64_t sum = 0;

	for (int i = 0; i < SL_SIDE_COUNT_; i++) {
		const struct sl_joint_half *h = &j->half[i];
		uint64_t written = 0;
		uint64_t taken = h->written_before + h->redirected + h->carried;

		if (c->flow[i].shut)
			continue;
		if (get_written(fd_of(j, other((enum sl_side)i)), &written) == 0 && written < taken)
			sum += taken - written;
	}
	return sum;
}

/* The sockets stay in the maps until they are closed, right after this. */
static void stop(struct sl_conn *c)
{
	struct sl_joint *j = sl_handover_joint(c);

	count(j, SL_UP);
	count(j, SL_DOWN);
	sl_timer_stop(&j->timer);
}

const struct sl_engine sl_engine_sockmap = {
	.id = SL_ENGINE_SOCKMAP,
	.start = start,
	.on_socket = on_socket,
	.refresh = refresh,
	.n_queued = n_queued,
	.stop = stop,
};

const struct sl_engine sl_engine_unjoined = {
	.id = SL_ENGINE_RELAY,
	.start = start,
	.on_socket = on_socket,
	.refresh = refresh,
	.n_queued = n_queued,
	.stop = stop,
};
