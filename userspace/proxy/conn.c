/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/conn.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/count.h"
#include "base/log.h"
#include "proxy/access_line.h"
#include "proxy/classify.h"
#include "proxy/connect.h"
#include "proxy/engine.h"
#include "proxy/handover.h"
#include "proxy/nat.h"
#include "proxy/tls.h"
#include "proxy/worker.h"

/* Closing a drained connection early needs this much silence, less where the drain is short. */
#define DRAIN_SILENCE_MS 1000
/* For the last counters of a flow that the kernel was asked to end. */
#define LAST_WORD_MS 3000
/* The supervisor waits 2 s. */
#define LAST_WORD_IN_HASTE_MS 1000

/* Those of defaults before the route is known. */
static const struct sl_timeouts *timeouts(const struct sl_conn *c)
{
	return c->route ? &c->route->conf->timeouts : &c->gen->conf->timeouts;
}

static void on_deadline(struct sl_timer *timer);
static void on_client(struct sl_io *io, uint32_t events);
static void on_backend(struct sl_io *io, uint32_t events);

/* ---- sockets ---- */

int sl_conn_watch(struct sl_conn *c, enum sl_side side, bool want_out)
{
	struct sl_side_io *s = &c->side[side];
	uint32_t events = SL_IO_IN | SL_IO_RDHUP | SL_IO_PRI | SL_IO_EDGE;
	int r;

	r = sl_io_start(c->worker->loop, &s->io, s->io.fd, events | (want_out ? SL_IO_OUT : 0u),
			side == SL_CLIENT ? on_client : on_backend);
	if (r == 0)
		s->wants_out = want_out;
	return r;
}

/* Once asked for, writability stays registered: the edge costs nothing while it does not come. */
void sl_conn_want_out(struct sl_conn *c, enum sl_side side)
{
	struct sl_side_io *s = &c->side[side];

	if (s->wants_out)
		return;
	if (sl_io_change(&s->io, SL_IO_IN | SL_IO_RDHUP | SL_IO_PRI | SL_IO_OUT | SL_IO_EDGE) == 0)
		s->wants_out = true;
}

/*
 * What close() leaves to the kernel is delivered as long as it moves; a reader
 * silent for as long as a half-closed connection may be is given up, because a
 * closed window that is probed and answered would keep the socket for ever.
 */
static void bound_delivery(const struct sl_conn *c, int fd)
{
	uint64_t limit_ms = !c->route                   ? 0
			    : c->route->conf->half_open ? timeouts(c)->half_closed_idle
							: timeouts(c)->close_grace;
	unsigned ms = limit_ms > INT_MAX ? INT_MAX : (unsigned)limit_ms;
	int left = 0;

	if (ms != 0 && ioctl(fd, SIOCOUTQ, &left) == 0 && left > 0)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

static void close_side(struct sl_conn *c, enum sl_side side)
{
	struct sl_side_io *s = &c->side[side];
	const struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

	if (s->io.fd < 0)
		return;
	if (c->parts && side == SL_CLIENT) {
		sl_io_stop(&s->io);
		sl_parting_take(c->worker->parting, SL_TAKE_FD(s->io.fd));
		return;
	}
	/* An end that was cut short must not look like one that was not. */
	if (c->reset || sl_tls_is_cut(c->tls, side == SL_CLIENT ? SL_BACKEND : SL_CLIENT))
		(void)setsockopt(s->io.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	else
		bound_delivery(c, s->io.fd);
	if (side == SL_CLIENT && sl_tls_is_away(c->tls)) {
		sl_io_stop(&s->io);
		sl_tls_take_socket(c);
		return;
	}
	if (c->handover) /* the broker may have a copy: close() would leave the registration */
		sl_io_stop(&s->io);
	else
		sl_io_forget(&s->io);
	sl_closep(&s->io.fd);
}

static bool is_in_kernel(const struct sl_conn *c)
{
	return c->engine && c->engine->is_in_kernel;
}

/* Of a flow in the kernel there is no socket, but both sides are there. */
static bool has_side(const struct sl_conn *c, enum sl_side side)
{
	return c->side[side].io.fd >= 0 || is_in_kernel(c);
}

bool sl_conn_hold(struct sl_conn *c, enum sl_side from, const char *bytes, size_t n)
{
	struct sl_flow *f = &c->flow[from];

	assert(!f->held && n <= UINT32_MAX);
	f->held = malloc(n);
	if (!f->held)
		return false;
	memcpy(f->held, bytes, n);
	f->held_at = 0;
	f->held_len = (uint32_t)n;
	return true;
}

bool sl_conn_keep(struct sl_conn *c)
{
	bool kept = c->early_len == 0 || sl_conn_hold(c, SL_UP, c->early, c->early_len);

	c->early_len = 0;
	return kept;
}

struct sl_slice sl_conn_in_hand(const struct sl_conn *c)
{
	const struct sl_flow *up = &c->flow[SL_UP];

	if (up->held)
		return (struct sl_slice){ .p = up->held + up->held_at, .n = up->held_len };
	return (struct sl_slice){ .p = c->early, .n = c->early_len };
}

void sl_conn_consume(struct sl_conn *c, size_t n)
{
	struct sl_flow *up = &c->flow[SL_UP];

	if (!up->held) {
		c->early += n;
		c->early_len -= (uint32_t)n;
		return;
	}
	up->held_at += (uint32_t)n;
	up->held_len -= (uint32_t)n;
	if (up->held_len == 0) {
		free(up->held);
		up->held = NULL;
	}
}

static void drop_held(struct sl_flow *f)
{
	free(f->held);
	f->held = NULL;
	f->held_len = 0;
}

/* ---- time ---- */

/* Until the route is known, the port's most patient one counts. */
static struct sl_deadline own_deadline(const struct sl_conn *c,
				       const struct sl_deadline_facts *facts)
{
	const struct sl_port_segment *segment;
	struct sl_timeouts early;

	if (c->route)
		return sl_deadline_next(timeouts(c), facts);
	segment = sl_generation_segment(c->gen, c->port);
	early = *timeouts(c);
	early.proxy_header = segment->proxy_header_ms;
	early.first_data = segment->first_data_ms;
	return sl_deadline_next(&early, facts);
}

/* When bytes may have moved last, as far as is known. */
static uint64_t active_ms(const struct sl_conn *c)
{
	return c->engine && c->engine->active_ms ? c->engine->active_ms(c) : c->active_ms;
}

static struct sl_deadline next_deadline(const struct sl_conn *c)
{
	const struct sl_deadline_facts facts = {
		.state = c->state,
		.keep_alive = c->route ? c->route->conf->keep_alive : SL_KEEP_ALIVE_STANDARD,
		.half_open = c->route && c->route->conf->half_open,
		.client_finished = c->side[SL_CLIENT].hung_up,
		.is_cut = sl_tls_is_cut(c->tls, SL_CLIENT) || sl_tls_is_cut(c->tls, SL_BACKEND),
		.accepted_ms = c->accepted_us / 1000,
		.attempt_ms = c->attempt_us / 1000,
		.entered_ms = c->entered_us / 1000,
		.active_ms = active_ms(c),
	};
	struct sl_deadline d = own_deadline(c, &facts);

	if (c->drain_final_ms < d.at_ms)
		d = (struct sl_deadline){ .at_ms = c->drain_final_ms,
					  .reason = SL_REASON_SHUTDOWN };
	if (c->drain_at_ms < d.at_ms)
		d = (struct sl_deadline){ .at_ms = c->drain_at_ms, .reason = SL_REASON_DRAINED };
	return d;
}

/* extended: the operator hears of a connection that has one plain idle limit left. */
static uint64_t warn_at(const struct sl_conn *c, struct sl_deadline d)
{
	if (!c->route || c->route->conf->keep_alive != SL_KEEP_ALIVE_EXTENDED || c->warned ||
	    d.reason != SL_REASON_INACTIVITY)
		return SL_NEVER;
	return d.at_ms - timeouts(c)->idle;
}

void sl_conn_rearm(struct sl_conn *c)
{
	struct sl_deadline d;
	uint64_t warn_ms;
	uint64_t at_ms;

	if (sl_conn_is_ending(c))
		return;
	d = next_deadline(c);
	warn_ms = warn_at(c, d);
	at_ms = warn_ms < d.at_ms ? warn_ms : d.at_ms;
	if (at_ms == SL_NEVER)
		sl_timer_stop(&c->timer);
	else
		sl_timer_start(c->worker->loop, &c->timer, at_ms, on_deadline);
}

void sl_conn_moved(struct sl_conn *c, enum sl_side from, uint64_t bytes)
{
	struct sl_route_counts *counts = &c->route->route->counts[c->worker->index];

	c->flow[from].bytes += bytes;
	c->active_ms = sl_loop_now_ms(c->worker->loop);
	c->warned = false;
	sl_count_add(from == SL_UP ? &counts->bytes_up[c->engine_id]
				   : &counts->bytes_down[c->engine_id],
		     bytes);
	if (c->flow[SL_UP].bytes + c->flow[SL_DOWN].bytes >= c->handover_after)
		sl_handover_due(c);
}

void sl_conn_moved_in_kernel(struct sl_conn *c, enum sl_side from, uint64_t bytes, uint64_t at_ms)
{
	struct sl_route_counts *counts = &c->route->route->counts[c->worker->index];

	c->flow[from].bytes += bytes;
	c->warned = false;
	if (at_ms > c->active_ms)
		c->active_ms = at_ms;
	sl_count_add(from == SL_UP ? &counts->bytes_up[c->engine_id]
				   : &counts->bytes_down[c->engine_id],
		     bytes);
}

static uint64_t undelivered(const struct sl_conn *c)
{
	uint64_t sum = 0;

	for (int i = 0; i < SL_SIDE_COUNT_; i++) {
		int n = 0;

		if (c->side[i].io.fd >= 0 && ioctl(c->side[i].io.fd, SIOCOUTQ, &n) == 0 && n > 0)
			sum += (uint64_t)n;
	}
	if (c->engine && c->engine->n_queued)
		sum += c->engine->n_queued(c);
	return sum;
}

/*
 * We have moved nothing for the whole period, but the kernel may still be
 * delivering what we gave it: a connection is silent only when that does not
 * shrink either.
 */
static bool kernel_is_delivering(struct sl_conn *c)
{
	uint64_t left = undelivered(c);
	bool shrinks = left != 0 && (c->outq_seen == 0 || left < c->outq_seen);

	c->outq_seen = left;
	if (shrinks) {
		c->active_ms = sl_loop_now_ms(c->worker->loop);
		c->warned = false;
	}
	return shrinks;
}

static void warn_of_inactivity(struct sl_conn *c)
{
	char client[SL_ADDR_TEXT];

	c->warned = true;
	sl_log_conn(SL_LOG_WARN, c->id,
		    "route %s: %s is silent, closing it in %" PRIu64 " ms unless it moves",
		    c->route->conf->name, sl_addr_format(&c->client, client), timeouts(c)->idle);
	sl_conn_rearm(c);
}

bool sl_conn_is_at_rest(const struct sl_conn *c)
{
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		if (c->flow[i].held || c->flow[i].pipe.used > 0)
			return false;
	return c->state != SL_CONN_CONNECTING && c->state != SL_CONN_HANDSHAKING &&
	       !c->again.is_queued && undelivered(c) == 0;
}

/*
 * As the configuration in force says, which may have changed since the connection began: the
 * supervisor waits no longer than the longest of that.
 */
static uint64_t drain_limit(const struct sl_conn *c)
{
	const struct sl_generation *now = c->worker->gen ? c->worker->gen : c->gen;
	const struct sl_gen_route *route =
		c->route ? sl_generation_find_route(now, c->route->conf->name) : NULL;
	uint64_t longest = 0;

	if (route)
		return route->conf->timeouts.drain;
	for (size_t i = 0; i < now->conf->n_routes; i++)
		if (now->conf->routes[i].timeouts.drain > longest)
			longest = now->conf->routes[i].timeouts.drain;
	return timeouts(c)->drain < longest ? timeouts(c)->drain : longest;
}

/* A drained connection in the middle of an exchange is left alone until the final deadline. */
static void drain_if_silent(struct sl_conn *c, uint64_t now_ms)
{
	uint64_t silence_ms = drain_limit(c) / 4;

	if (silence_ms > DRAIN_SILENCE_MS)
		silence_ms = DRAIN_SILENCE_MS;
	if (now_ms >= active_ms(c) + silence_ms && sl_conn_is_at_rest(c)) {
		sl_conn_end(c, SL_REASON_DRAINED, false);
		return;
	}
	c->drain_at_ms = now_ms + silence_ms / 2 + 1;
	sl_conn_rearm(c);
}

/*
 * A side has ended without close_notify. What it sent before is still delivered, as long as it
 * moves; then the other side is reset. One that had been told our end and had nothing more to say
 * has done no wrong.
 */
static void end_after_cut(struct sl_conn *c, uint64_t now_ms)
{
	enum sl_side side = sl_tls_is_cut(c->tls, SL_CLIENT) ? SL_CLIENT : SL_BACKEND;

	if (undelivered(c) > 0 &&
	    (kernel_is_delivering(c) || now_ms < active_ms(c) + timeouts(c)->close_grace))
		sl_timer_start(c->worker->loop, &c->timer, now_ms + SL_CUT_SILENCE_MS, on_deadline);
	else if (c->side[side].reason == SL_REASON_NORMAL)
		sl_conn_end(c, SL_REASON_NORMAL, false);
	else
		sl_conn_fail(c, side, SL_REASON_TLS_ERROR);
}

static void on_deadline(struct sl_timer *timer)
{
	struct sl_conn *c = SL_CONTAINER_OF(timer, struct sl_conn, timer);
	uint64_t now_ms = sl_loop_now_ms(c->worker->loop);
	struct sl_deadline d;

	if (c->engine && c->engine->refresh)
		c->engine->refresh(c);
	if (c->state == SL_CONN_CLOSED)
		return;
	d = next_deadline(c);
	if (now_ms < d.at_ms) { /* there was activity, or it is time for the warning */
		if (now_ms >= warn_at(c, d)) {
			warn_of_inactivity(c);
			return;
		}
		c->outq_seen = 0;
		sl_conn_rearm(c);
	} else if (d.reason == SL_REASON_DRAINED) {
		drain_if_silent(c, now_ms);
	} else if (d.reason == SL_REASON_CONNECTION_TIMEOUT) {
		sl_connect_failed(c, SL_REASON_CONNECTION_TIMEOUT);
	} else if (d.reason == SL_REASON_PROXY_HEADER_TIMEOUT) {
		if (!sl_classify_without_header(c))
			sl_conn_fail(c, SL_CLIENT, d.reason);
	} else if (d.reason == SL_REASON_FIRST_DATA_TIMEOUT) {
		sl_conn_fail(c, SL_CLIENT, d.reason);
	} else if (d.reason == SL_REASON_HANDSHAKE_TIMEOUT) {
		sl_tls_timed_out(c);
	} else if (d.reason == SL_REASON_TLS_ERROR) {
		end_after_cut(c, now_ms);
	} else if (d.reason != SL_REASON_MAX_LIFETIME && d.reason != SL_REASON_SHUTDOWN &&
		   kernel_is_delivering(c)) {
		sl_conn_rearm(c);
	} else {
		sl_conn_end(c, d.reason, false);
	}
}

/* Without this process. */
static bool goes_on(const struct sl_conn *c)
{
	return is_in_kernel(c) &&
	       (c->worker->hands_on || (c->nat && sl_nat_flows_go_on(c->worker->nat_flows)));
}

void sl_conn_drain(struct sl_conn *c, uint64_t now_ms)
{
	uint64_t limit_ms;

	if (sl_conn_is_ending(c) || !c->gen || c->drain_final_ms != SL_NEVER)
		return;
	if (goes_on(c)) {
		sl_conn_let_go(c);
		return;
	}
	limit_ms = drain_limit(c);
	c->drain_final_ms = now_ms + limit_ms;
	/* Before the final one, which would give the silent another reason. Datagrams have no end
	 * but silence: there is nothing to wait for. */
	c->drain_at_ms = now_ms;
	if (!c->route || !c->route->conf->is_udp)
		c->drain_at_ms += limit_ms / 2 + sl_rand_below(&c->worker->rand, limit_ms / 2);
	sl_conn_rearm(c);
}

/* ---- life cycle ---- */

uint64_t sl_conn_age_us(const struct sl_conn *c)
{
	uint64_t until_us = c->ended_us ? c->ended_us : sl_loop_now_us(c->worker->loop);

	return until_us - c->accepted_us;
}

static void count_end(struct sl_conn *c)
{
	struct sl_worker *w = c->worker;

	sl_hist_add(&w->counts.duration, sl_conn_age_us(c));
	for (int i = 0; i < SL_SIDE_COUNT_; i++) {
		enum sl_reason reason = c->side[i].reason;

		if (reason == SL_REASON_NONE)
			continue;
		sl_count_add(&w->counts.ended[i][reason], 1);
		if (c->route)
			sl_route_count_end(c->route->route, w->index, c->engine_id, (enum sl_side)i,
					   reason);
		else if (i == SL_CLIENT) /* all that such ends are counted by */
			sl_count_add(&w->counts.no_route_ended[reason], 1);
	}
}

static void leave_limits(struct sl_conn *c)
{
	if (c->counted_route)
		sl_limits_leave_route(c->worker->limits, c->route->route, &c->client, c->counted_ip,
				      sl_loop_now_ms(c->worker->loop) * 1000);
	if (c->counted)
		sl_limits_leave(c->worker->limits);
	c->counted_route = false;
	c->counted = false;
}

static void leave_engine(struct sl_conn *c)
{
	struct sl_worker *w = c->worker;
	struct sl_route_counts *counts = &c->route->route->counts[w->index];

	sl_count_add(&counts->active[c->engine_id], (uint64_t)-1);
	sl_count_add(&w->counts.engine_active[c->engine_id], (uint64_t)-1);
}

/* Everything a connection holds is given back here; each line is safe when there is nothing. */
static void release(struct sl_conn *c)
{
	struct sl_worker *w = c->worker;

	if (c->engine)
		c->engine->stop(c);
	sl_handover_thaw(c);
	sl_timer_stop(&c->timer);
	sl_task_cancel(&c->again);
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		drop_held(&c->flow[i]);
	if (!c->reset)
		sl_tls_end(c);
	close_side(c, SL_BACKEND);
	close_side(c, SL_CLIENT);
	if (!c->let_go)
		count_end(c);
	if (c->engine)
		leave_engine(c);
	leave_limits(c);
	if (!c->let_go)
		sl_access_line(c, c->route ? c->route->conf->name : NULL);
	sl_handover_leave(c);
	sl_connect_leave_target(c);
	sl_classify_done(c);
	sl_tls_leave(c);
	free(c->hello);
	sl_generation_unref(c->gen);
	sl_worker_retire_conn(w, c);
}

static void move(struct sl_conn *c, enum sl_engine_id to, enum sl_engine_reason why)
{
	struct sl_worker *w = c->worker;

	leave_engine(c);
	sl_moves_add(&c->moves, (struct sl_move){ .from = (uint8_t)c->engine_id,
						  .to = (uint8_t)to,
						  .why = (uint8_t)why,
						  .at_us = sl_loop_now_us(w->loop) });
	sl_count_add(&c->route->route->counts[w->index].moved, 1);
	sl_count_add(&w->counts.engine_moves[c->engine_id][to][why], 1);
}

/* Each engine's total has the periods that it carried: of one that came back, two. */
void sl_conn_use_engine(struct sl_conn *c, const struct sl_engine *engine,
			enum sl_engine_reason why)
{
	struct sl_worker *w = c->worker;
	struct sl_route_counts *counts = &c->route->route->counts[w->index];

	assert(c->engine != engine);
	if (c->engine)
		move(c, engine->id, why);
	c->engine = engine;
	c->engine_id = engine->id;
	c->engine_reason = why;
	sl_count_add(&counts->active[c->engine_id], 1);
	sl_count_add(&counts->total[c->engine_id], 1);
	sl_count_add(&w->counts.engine_active[c->engine_id], 1);
	sl_count_add(&w->counts.engine_total[c->engine_id], 1);
	sl_count_add(&w->counts.engine_why[c->engine_id][why], 1);
}

void sl_conn_set_reason(struct sl_conn *c, enum sl_engine_reason why)
{
	c->engine_reason = why;
}

static void start_engine(struct sl_conn *c)
{
	assert(c->route); /* the life cycle connects routed connections only */
	sl_conn_use_engine(c, c->tls ? &sl_engine_relay_tls : &sl_engine_relay,
			   sl_handover_reason(c));
	sl_hist_add(&c->worker->counts.connect, c->connect_us);
	sl_handover_watch(c);
	(void)c->engine->start(c); /* the relay takes every flow */
}

void sl_conn_adopted(struct sl_conn *c)
{
	sl_conn_event(c, SL_EV_ADOPTED);
}

void sl_conn_lost(struct sl_conn *c, const char *route)
{
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		if (c->side[i].reason == SL_REASON_NONE)
			c->side[i].reason = SL_REASON_CRASH_RECOVERED;
	count_end(c);
	sl_access_line(c, route);
	sl_conn_let_go(c); /* nothing more is said */
}

void sl_conn_let_go(struct sl_conn *c)
{
	c->let_go = true;
	sl_conn_event(c, SL_EV_ABORT);
}

static void enter(struct sl_conn *c, enum sl_conn_state state)
{
	uint64_t now_us;

	if (state == c->state)
		return;
	now_us = sl_loop_now_us(c->worker->loop);
	sl_hist_add(&c->worker->counts.in_state[c->state], now_us - c->entered_us);
	c->entered_us = now_us;
	c->state = state;
	if (state != SL_CONN_CLOSED && state != SL_CONN_CONNECTING)
		sl_conn_rearm(c); /* connecting: armed with each attempt */
}

void sl_conn_event(struct sl_conn *c, enum sl_conn_event event)
{
	struct sl_conn_step step = sl_conn_fsm_step(c->state, event, sl_connect_can_retry(c));

	enter(c, step.next);
	switch (step.action) {
	case SL_ACT_NONE:
		break;
	case SL_ACT_CONNECT:
		sl_connect_next(c);
		break;
	case SL_ACT_START_ENGINE:
		start_engine(c);
		break;
	case SL_ACT_RELEASE:
		release(c);
		break;
	case SL_ACT_READ_FIRST_BYTES:
		sl_classify_read(c);
		break;
	case SL_ACT_HANDSHAKE:
		sl_tls_begin(c);
		break;
	case SL_ACT_BUG:
	case SL_CONN_ACTION_COUNT_:
		sl_count_add(&c->worker->counts.fsm_bugs, 1);
		sl_log_conn(SL_LOG_ERROR, c->id, "impossible event %d in state %s, closing", event,
			    sl_conn_state_name(c->state));
		c->reset = true;
		release(c);
		break;
	}
}

static void on_no_last_word(struct sl_timer *timer)
{
	struct sl_conn *c = SL_CONTAINER_OF(timer, struct sl_conn, timer);

	sl_conn_end(c, c->ending, false);
}

/* What has passed since it was last told of would be in no access line, and counted nowhere. */
static bool waits_for_last_word(struct sl_conn *c, enum sl_reason reason)
{
	if (c->ending != SL_REASON_NONE || !c->engine || !c->engine->ask_end ||
	    !c->engine->ask_end(c))
		return false;
	c->ending = reason;
	sl_timer_start(c->worker->loop, &c->timer,
		       sl_loop_now_ms(c->worker->loop) +
			       (c->worker->in_haste ? LAST_WORD_IN_HASTE_MS : LAST_WORD_MS),
		       on_no_last_word);
	return true;
}

void sl_conn_end(struct sl_conn *c, enum sl_reason reason, bool reset)
{
	if (c->state == SL_CONN_CLOSED || waits_for_last_word(c, reason))
		return;
	if (c->ending != SL_REASON_NONE)
		reason = c->ending;
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		if (c->side[i].reason == SL_REASON_NONE && has_side(c, (enum sl_side)i))
			c->side[i].reason = reason;
	c->reset = reset;
	sl_conn_event(c, SL_EV_ABORT);
}

void sl_conn_fail(struct sl_conn *c, enum sl_side side, enum sl_reason reason)
{
	enum sl_side other = side == SL_CLIENT ? SL_BACKEND : SL_CLIENT;

	if (c->state == SL_CONN_CLOSED)
		return;
	if (!sl_tls_is_cut(c->tls, side) || c->side[side].reason == SL_REASON_NONE)
		c->side[side].reason = reason;
	if (c->side[other].reason == SL_REASON_NONE && has_side(c, other))
		c->side[other].reason = SL_REASON_NORMAL;
	c->reset = true;
	sl_conn_event(c, SL_EV_ABORT);
}

void sl_conn_finished(struct sl_conn *c, enum sl_side side)
{
	bool is_first = c->state == SL_CONN_ESTABLISHED;
	bool is_cut = sl_tls_is_cut(c->tls, SL_CLIENT) || sl_tls_is_cut(c->tls, SL_BACKEND);

	c->side[side].reason = sl_tls_is_cut(c->tls, side) && !c->tls->is_late[side]
				       ? SL_REASON_TLS_ERROR
				       : SL_REASON_NORMAL;
	if (is_first)
		sl_conn_event(c, SL_EV_ONE_FINISHED);
	else if (is_cut)
		end_after_cut(c, sl_loop_now_ms(c->worker->loop));
	else
		sl_conn_event(c, SL_EV_BOTH_FINISHED);
}

/* ---- events of the sockets ---- */

static void on_socket(struct sl_conn *c, enum sl_side side, uint32_t events)
{
	struct sl_side_io *s = &c->side[side];

	if (events & (SL_IO_RDHUP | SL_IO_HUP))
		s->hung_up = true;
	if (events & (SL_IO_ERR | SL_IO_HUP | SL_IO_PRI))
		s->read_to_end = true;
	if (sl_handover_has_sockets(c))
		return; /* looked for when they are ours again */
	if (c->engine) {
		c->engine->on_socket(c, side, events);
	} else if (c->state == SL_CONN_CONNECTING) {
		c->missed_events = true;
		sl_connect_on_socket(c, side, events);
	} else if (c->state == SL_CONN_HANDSHAKING) {
		sl_tls_on_socket(c, side, events);
	} else {
		sl_classify_on_socket(c);
	}
}

static void on_client(struct sl_io *io, uint32_t events)
{
	on_socket(SL_CONTAINER_OF(io, struct sl_conn, side[SL_CLIENT].io), SL_CLIENT, events);
}

static void on_backend(struct sl_io *io, uint32_t events)
{
	on_socket(SL_CONTAINER_OF(io, struct sl_conn, side[SL_BACKEND].io), SL_BACKEND, events);
}

/* ---- accept ---- */

void sl_conn_refuse(struct sl_conn *c, enum sl_reason why)
{
	struct sl_worker *w = c->worker;

	sl_count_add(&w->counts.rejected, 1);
	if (c->route)
		sl_count_add(&c->route->route->counts[w->index].rejected[why], 1);
	else
		sl_count_add(&w->counts.no_route_rejected[why], 1);
	sl_conn_end(c, why, true);
}

/* Security is enforced after the match and never influences it. */
static enum sl_reason admit(struct sl_conn *c)
{
	struct sl_worker *w = c->worker;
	const struct sl_conf_route *conf = c->route->conf;
	enum sl_access_rule rule =
		sl_access_check(&c->gen->conf->global.access, w->deny ? &w->deny->set : NULL,
				&conf->access, &c->client);
	enum sl_reason why;

	if (sl_access_is_denied(rule))
		return SL_REASON_ROUTE_IP_BLOCKED;
	/* Now, not when it was accepted: first bytes come in another order than connections. */
	why = sl_limits_enter_route(w->limits, c->route->route, conf, &c->client,
				    sl_loop_now_us(w->loop), &c->counted_ip);
	c->counted_route = why == SL_REASON_NONE;
	return why;
}

/*
 * Reads at once what has come with the connection, so that it can travel with
 * the backend's handshake. False: the connection has ended.
 */
static bool read_early(struct sl_conn *c)
{
	ssize_t n = recv(c->side[SL_CLIENT].io.fd, c->worker->scratch, SL_READ_SIZE, 0);

	if (n > 0) {
		c->early = c->worker->scratch;
		c->early_len = (uint32_t)n;
		c->got_data = true;
	} else if (n == 0 && !c->route->conf->half_open) {
		sl_conn_end(c, SL_REASON_CLOSED_BEFORE_DATA, false);
		return false;
	} else if (n == 0) {
		c->side[SL_CLIENT].hung_up = true;
	} else if (errno != EAGAIN && errno != EINTR) {
		sl_conn_fail(c, SL_CLIENT, sl_reason_from_errno(errno));
		return false;
	}
	return true;
}

void sl_conn_routed(struct sl_conn *c, uint32_t route)
{
	enum sl_reason why;

	if (route == SL_NO_ROUTE) {
		sl_conn_refuse(c, SL_REASON_NO_ROUTE);
		return;
	}
	c->route = &c->gen->routes[route];
	c->engine_id = SL_ENGINE_RELAY; /* in charge from the start, whatever takes over later */
	c->engine_reason = sl_handover_reason(c);
	why = admit(c);
	if (why != SL_REASON_NONE)
		sl_conn_refuse(c, why);
	else if (c->route->conf->tls)
		sl_conn_event(c, SL_EV_TLS_NEEDED);
	else if (c->got_data || read_early(c))
		sl_conn_event(c, SL_EV_ROUTED);
}

void sl_conn_open(struct sl_worker *w, int fd, const struct sl_addr *client, uint16_t port,
		  const struct sl_addr *local)
{
	struct sl_conn *c = sl_worker_new_conn(w);
	enum sl_reason why;

	sl_count_add(&w->counts.accepted, 1);
	if (!c) {
		sl_count_add(&w->counts.rejected, 1);
		(void)close(fd);
		return;
	}
	c->side[SL_CLIENT].io.fd = fd;
	c->client = *client;
	c->port = port;
	c->local = *local;
	c->gen = sl_generation_ref(w->gen);
	c->accepted_us = sl_loop_now_us(w->loop);
	c->entered_us = c->accepted_us;
	c->active_ms = c->accepted_us / 1000;
	why = sl_limits_enter(w->limits);
	c->counted = why == SL_REASON_NONE;
	if (why != SL_REASON_NONE)
		sl_conn_refuse(c, why);
	else
		sl_classify_start(c);
}
