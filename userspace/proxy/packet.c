/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/packet.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/count.h"
#include "base/log.h"
#include "io/sock.h"
#include "proxy/conn.h"
#include "proxy/engine.h"
#include "proxy/handover.h"
#include "proxy/worker.h"

#define REFRESH_MS 1000
#define REFRESH_MAX_MS 8000
/* With more flows than this they take turns; who looks at one brings it up to date anyway. */
#define REFRESH_SLICE 512
#define REFRESH_SLICE_MS 100
/* Entries vanish before the broker says so: a new connection has taken the tuple, or someone has
 * deleted them. */
#define MISSING_MS 2500
#define LOST_SAY_MS 200

/* ---- counters ---- */

static void add_bytes(struct sl_conn *c, enum sl_side from, uint64_t in_kernel)
{
	struct sl_packet_record *p = sl_handover_record(c);
	uint64_t n;

	if (in_kernel <= p->seen[from])
		return;
	n = in_kernel - p->seen[from];
	p->seen[from] = in_kernel;
	sl_conn_moved_in_kernel(c, from, n, 0);
}

static void add_activity(struct sl_conn *c, uint64_t last_data_ns)
{
	uint64_t at_ms = last_data_ns / 1000000;

	if (at_ms > c->active_ms)
		c->active_ms = at_ms;
}

/* False: its entries are not there. */
static bool read_counters(struct sl_conn *c, struct sl_flow_facts *facts)
{
	struct sl_packet_record *p = sl_handover_record(c);
	struct sl_broker_client *cl = sl_handovers_client(c->worker->handovers);

	if (sl_broker_read_flow(cl, &p->flow, false, facts) < 0 || facts->conn_id != c->id)
		return false;
	p->read_ms = sl_loop_now_ms(c->worker->loop);
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		add_bytes(c, (enum sl_side)i, facts->half[i].bytes);
	add_activity(c, facts->last_data_ns);
	return true;
}

/*
 * What keep-alive is to a socket: a side that has sent nothing for long, no acknowledgement either,
 * is asked for a sign of life. The figures are those of the relay's sockets (tcp(7),
 * proxy/connect.c).
 */
struct patience {
	uint64_t silence_ms;
	uint64_t interval_ms;
	uint8_t probes;
};

static bool is_dead(struct sl_conn *c, uint64_t last_ns)
{
	static const struct patience standard = { 7200000, 75000, 9 };
	static const struct patience keen = { 60000, 15000, 5 };
	const struct patience *patience =
		c->route->conf->keep_alive == SL_KEEP_ALIVE_STANDARD ? &standard : &keen;
	struct sl_broker_client *cl = sl_handovers_client(c->worker->handovers);
	struct sl_packet_record *p = sl_handover_record(c);
	uint64_t now_ms = sl_loop_now_ms(c->worker->loop);

	if (now_ms < last_ns / 1000000 + patience->silence_ms) {
		p->n_probes = 0;
		p->next_probe_ms = 0;
		return false;
	}
	/* Without a broker nobody asks, and no answer means nothing. */
	if (now_ms < p->next_probe_ms || !sl_broker_client_is_up(cl))
		return false;
	if (p->n_probes == patience->probes)
		return true;
	p->n_probes++;
	p->next_probe_ms = now_ms + patience->interval_ms;
	sl_broker_tell(cl, SL_BROKER_PROBE, c->id, 0);
	return false;
}

static void look_for_life(struct sl_conn *c, const struct sl_flow_facts *facts)
{
	enum sl_side side = facts->half[SL_CLIENT].last_ns < facts->half[SL_BACKEND].last_ns
				    ? SL_CLIENT
				    : SL_BACKEND;

	if (is_dead(c, facts->half[side].last_ns))
		sl_conn_fail(c, side, SL_REASON_ETIMEDOUT);
}

/*
 * Its entries are gone, and nobody has said why. While there is no broker a new connection from the
 * same port makes room for itself, but only where the flow was over; how is not known.
 */
static void end_missing(struct sl_conn *c)
{
	const struct sl_packet_record *p = sl_handover_record(c);
	bool were_alone = sl_handovers_were_alone(c->worker->handovers, p->read_ms);

	sl_count_add(&c->worker->counts.missing, !were_alone);
	sl_conn_end(c, were_alone ? SL_REASON_CRASH_RECOVERED : SL_REASON_FORCE_CLEANUP, true);
}

static void finish(struct sl_conn *c, enum sl_side side)
{
	if (c->state != SL_CONN_CLOSED && c->side[side].reason == SL_REASON_NONE)
		sl_conn_finished(c, side);
}

/* Who has ended by himself is not ended by what comes next. May end the connection. */
static void note_fins(struct sl_conn *c, const struct sl_flow_facts *facts)
{
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		c->side[i].hung_up = c->side[i].hung_up || facts->half[i].fin;
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		if (facts->half[i].fin_acked)
			finish(c, (enum sl_side)i);
}

static void refresh(struct sl_conn *c)
{
	struct sl_packet_record *p = sl_handover_record(c);
	uint64_t now_ms = sl_loop_now_ms(c->worker->loop);
	struct sl_flow_facts facts;

	if (read_counters(c, &facts)) {
		p->missing_since_ms = 0;
		note_fins(c, &facts);
		if (c->state != SL_CONN_CLOSED)
			look_for_life(c, &facts);
		return;
	}
	if (p->missing_since_ms == 0)
		p->missing_since_ms = now_ms;
	else if (now_ms - p->missing_since_ms >= MISSING_MS)
		end_missing(c);
}

/* Silent flows are asked less often: FINs and RSTs are told of, and deadlines look for themselves.
 */
static void refresh_if_due(struct sl_packet_record *p)
{
	struct sl_conn *c = p->conn;
	uint64_t now_ms = sl_loop_now_ms(c->worker->loop);
	uint64_t seen = p->seen[SL_UP] + p->seen[SL_DOWN];

	if (now_ms < p->due_ms)
		return;
	refresh(c);
	if (c->state == SL_CONN_CLOSED)
		return; /* and the record with it */
	if (p->seen[SL_UP] + p->seen[SL_DOWN] != seen || p->wait_ms == 0)
		p->wait_ms = REFRESH_MS;
	else if (p->wait_ms < REFRESH_MAX_MS)
		p->wait_ms *= 2;
	p->due_ms = now_ms + p->wait_ms;
}

static void on_refresh(struct sl_timer *timer)
{
	struct sl_packet_flows *flows = SL_CONTAINER_OF(timer, struct sl_packet_flows, timer);
	size_t n = flows->n < REFRESH_SLICE ? flows->n : REFRESH_SLICE;
	uint64_t wait_ms = flows->n > n ? REFRESH_SLICE_MS : REFRESH_MS;

	for (size_t i = 0; i < n && !sl_list_is_empty(&flows->list); i++) {
		struct sl_packet_record *p =
			SL_CONTAINER_OF(flows->list.next, struct sl_packet_record, node);

		sl_list_remove(&p->node);
		sl_list_add(&flows->list, &p->node);
		refresh_if_due(p);
	}
	if (flows->n > 0)
		sl_timer_start(flows->worker->loop, timer,
			       sl_loop_now_ms(flows->worker->loop) + wait_ms, on_refresh);
}

void sl_packet_flows_init(struct sl_packet_flows *flows, struct sl_worker *w)
{
	*flows = (struct sl_packet_flows){ .worker = w };
	sl_list_init(&flows->list);
}

void sl_packet_flows_stop(struct sl_packet_flows *flows)
{
	sl_timer_stop(&flows->timer);
	sl_timer_stop(&flows->lost_timer);
	flows->is_stopped = true;
}

enum sl_engine_reason sl_packet_reason(const struct sl_conf_route *conf)
{
	return conf->engine == SL_CHOICE_PACKET ? SL_WHY_CONFIGURED : SL_WHY_ELIGIBLE;
}

/* From now on the kernel has it. */
static void carry(struct sl_conn *c, struct sl_packet_record *p)
{
	struct sl_packet_flows *flows = &c->worker->packet_flows;

	sl_conn_use_engine(c, &sl_engine_packet, sl_packet_reason(c->route->conf));
	p->conn = c;
	p->read_ms = sl_loop_now_ms(c->worker->loop);
	sl_list_add(&flows->list, &p->node);
	flows->n++;
	if (!sl_timer_is_armed(&flows->timer))
		sl_timer_start(c->worker->loop, &flows->timer,
			       sl_loop_now_ms(c->worker->loop) + REFRESH_MS, on_refresh);
}

void sl_packet_forget(struct sl_conn *c, struct sl_packet_record *p)
{
	sl_list_remove(&p->node);
	c->worker->packet_flows.n--;
}

/* ---- into the kernel ---- */

int sl_packet_name(const struct sl_conn *c, struct sl_broker_flow *ret)
{
	int client = c->side[SL_CLIENT].io.fd;
	int backend = c->side[SL_BACKEND].io.fd;
	int r = sl_sock_peer(client, &ret->client);

	if (r == 0)
		r = sl_sock_local(client, &ret->front);
	if (r == 0)
		r = sl_sock_local(backend, &ret->back);
	if (r == 0)
		r = sl_sock_peer(backend, &ret->backend);
	return r;
}

/* In repair mode, with copies at the broker: nothing is sent. */
static void close_silently(struct sl_conn *c, enum sl_side side)
{
	sl_io_stop(&c->side[side].io);
	sl_closep(&c->side[side].io.fd);
}

void sl_packet_take_over(struct sl_conn *c, struct sl_packet_record *p)
{
	c->engine->stop(c);
	sl_task_cancel(&c->again);
	close_silently(c, SL_CLIENT);
	close_silently(c, SL_BACKEND);
	carry(c, p);
	sl_conn_rearm(c);
}

/* ---- adoption ---- */

uint32_t sl_target_hash(const struct sl_target *t)
{
	return (uint32_t)(t->name ^ t->name >> 32);
}

static void adopt_target(struct sl_conn *c, uint32_t hash)
{
	for (size_t i = 0; i < c->route->conf->n_targets; i++) {
		struct sl_target *t = c->route->targets[i];

		if (sl_target_hash(t) != hash)
			continue;
		c->target = sl_target_ref(t);
		__atomic_fetch_add(&t->active, 1, __ATOMIC_RELAXED);
		c->target_active = true;
		return;
	}
}

/* Limits count it, but cannot refuse it any more. */
static void adopt_limits(struct sl_conn *c)
{
	struct sl_limits *limits = c->worker->limits;

	c->counted = sl_limits_enter(limits) == SL_REASON_NONE;
	c->counted_route = sl_limits_enter_route(limits, c->route->route, c->route->conf,
						 &c->client, sl_loop_now_us(c->worker->loop),
						 &c->counted_ip) == SL_REASON_NONE;
}

static void adopt_facts(struct sl_conn *c, const struct sl_flow_facts *facts,
			const struct sl_broker_flow *flow)
{
	c->client = facts->client;
	c->via = facts->via;
	c->local = flow->front;
	c->port = sl_addr_port(&flow->front);
	c->backend = flow->backend;
	c->accepted_us = facts->accepted_ns / 1000;
	c->entered_us = c->accepted_us;
	c->connect_us = facts->connect_us;
	c->active_ms = c->accepted_us / 1000;
	c->got_data = true;
	c->has_own_port = true;
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		c->flow[i].bytes = facts->half[i].bytes + facts->half[i].relayed;
}

/* One line for all that a broker tells of in a row. */
static void on_lost(struct sl_timer *timer)
{
	struct sl_packet_flows *flows = SL_CONTAINER_OF(timer, struct sl_packet_flows, lost_timer);
	bool is_one = flows->n_lost == 1;

	sl_log(SL_LOG_WARN,
	       "packet: worker %u dropped %zu flow%s found in the kernel, both sides are reset: "
	       "the configuration has no route '%s' any more%s",
	       flows->worker->index, flows->n_lost, is_one ? "" : "s", flows->lost_route,
	       is_one ? "" : " (the first one's)");
	flows->n_lost = 0;
}

static void say_lost(struct sl_packet_flows *flows, const char *route)
{
	struct sl_loop *loop = flows->worker->loop;

	if (flows->n_lost++ == 0)
		(void)snprintf(flows->lost_route, sizeof(flows->lost_route), "%s", route);
	if (!sl_timer_is_armed(&flows->lost_timer))
		sl_timer_start(loop, &flows->lost_timer, sl_loop_now_ms(loop) + LOST_SAY_MS,
			       on_lost);
}

/* Nobody can carry it on: neither limits nor targets nor timeouts of it are known. */
static void lose(struct sl_conn *c, const struct sl_flow_facts *facts)
{
	struct sl_worker *w = c->worker;
	bool is_closed = true;

	for (int i = 0; i < SL_SIDE_COUNT_; i++) {
		if (facts->half[i].fin_acked)
			c->side[i].reason = SL_REASON_NORMAL;
		is_closed = is_closed && facts->half[i].fin_acked;
	}
	if (!is_closed) {
		sl_count_add(&w->counts.lost, 1);
		say_lost(&w->packet_flows, facts->route);
	}
	c->engine_id = SL_ENGINE_PACKET;
	c->engine_reason = SL_WHY_ELIGIBLE;
	c->entered_us = sl_loop_now_us(w->loop);
	sl_conn_lost(c, facts->route[0] ? facts->route : NULL);
}

int sl_packet_adopt(struct sl_worker *w, uint64_t conn_id, const struct sl_broker_flow *flow,
		    struct sl_packet_record *p, struct sl_conn **ret)
{
	struct sl_flow_facts facts;
	struct sl_conn *c;
	int r = sl_broker_read_flow(sl_handovers_client(w->handovers), flow, true, &facts);

	if (r < 0)
		return r;
	c = sl_worker_new_conn(w);
	if (!c)
		return -ENOMEM;
	sl_worker_rename_conn(w, c, conn_id);
	c->gen = sl_generation_ref(w->gen);
	c->route = sl_generation_find_route(w->gen, facts.route);
	adopt_facts(c, &facts, flow);
	if (!c->route) {
		lose(c, &facts);
		return -ESRCH;
	}
	adopt_limits(c);
	adopt_target(c, facts.target_hash);
	p->flow = *flow;
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		p->seen[i] = facts.half[i].bytes;
	add_activity(c, facts.last_data_ns);
	carry(c, p);
	*ret = c;
	return 0;
}

/* ---- events ---- */

void sl_packet_changed(struct sl_conn *c)
{
	struct sl_flow_facts facts;

	if (read_counters(c, &facts)) /* else gone: the broker says why */
		note_fins(c, &facts);
}

/* After its FIN it is what a socket would say: there was something for it that it does not read. */
static void fail_reset(struct sl_conn *c, enum sl_side side)
{
	sl_conn_fail(c, side, c->side[side].hung_up ? SL_REASON_EPIPE : SL_REASON_ECONNRESET);
}

void sl_packet_ended(struct sl_conn *c, const struct sl_broker_ended *ended)
{
	sl_handover_record(c)->is_over = true;
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		add_bytes(c, (enum sl_side)i, ended->bytes[i]);
	add_activity(c, ended->last_data_ns);
	switch ((enum sl_broker_end)ended->how) {
	case SL_BROKER_END_CLOSED:
		finish(c, SL_CLIENT);
		finish(c, SL_BACKEND);
		break;
	case SL_BROKER_END_RST_CLIENT:
		fail_reset(c, SL_CLIENT);
		break;
	case SL_BROKER_END_RST_BACKEND:
		fail_reset(c, SL_BACKEND);
		break;
	case SL_BROKER_END_LOST:
		sl_conn_end(c, SL_REASON_FORCE_CLEANUP, true);
		break;
	case SL_BROKER_END_LATE:
	case SL_BROKER_END_BROKEN:
		sl_conn_end(c, SL_REASON_ERROR, true);
		break;
	case SL_BROKER_END_KILLED:
		sl_packet_changed(c);
		sl_conn_end(c, SL_REASON_KILLED, true);
		break;
	}
}

/* ---- the engine ---- */

static int start(struct sl_conn *c)
{
	(void)c;
	return 0;
}

static void on_socket(struct sl_conn *c, enum sl_side side, uint32_t events)
{
	(void)c;
	(void)side;
	(void)events;
}

/* Until its entries are killed it goes on, so the last counters are those that come behind that. */
static bool ask_end(struct sl_conn *c)
{
	const struct sl_packet_record *p = sl_handover_record(c);
	struct sl_broker_client *cl = sl_handovers_client(c->worker->handovers);
	struct sl_flow_facts facts;

	if (p->is_over || c->worker->packet_flows.is_stopped || !sl_broker_client_is_up(cl) ||
	    !read_counters(c, &facts))
		return false;
	sl_broker_tell(cl, SL_BROKER_KILL, c->id, 1);
	return true;
}

/* The last counters; what is not over is reset on both sides. */
static void stop(struct sl_conn *c)
{
	struct sl_packet_record *p = sl_handover_record(c);
	struct sl_broker_client *cl = sl_handovers_client(c->worker->handovers);
	struct sl_flow_facts facts;

	if (p->is_over)
		return;
	(void)read_counters(c, &facts);
	p->is_over = true;
	sl_broker_tell(cl, c->let_go ? SL_BROKER_RELEASE : SL_BROKER_KILL, c->id, 0);
}

const struct sl_engine sl_engine_packet = {
	.id = SL_ENGINE_PACKET,
	.is_in_kernel = true,
	.start = start,
	.on_socket = on_socket,
	.refresh = refresh,
	.ask_end = ask_end,
	.stop = stop,
};
