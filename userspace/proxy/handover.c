/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/handover.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/count.h"
#include "base/log.h"
#include "proxy/choose.h"
#include "proxy/conn.h"
#include "proxy/engine.h"
#include "proxy/packet.h"
#include "proxy/sockmap.h"
#include "proxy/worker.h"

#define BUCKETS 4096
/* Connections lately over, of which a new broker may tell. */
#define OVER 8192
/* Looks for a quiet moment before the flow is frozen, and the pauses between them. */
static const uint8_t poll_ms[] = { 1, 1, 2, 4, 8, 16, 32 };
/*
 * Frozen, a flow loses what its peers send; they send it again, after their timers' patience (200
 * ms at least, RFC 6298 as Linux has it). Each time a little longer: what is queued must
 * get out meanwhile.
 */
static const uint8_t freeze_ms[] = { 20, 30, 40, 60, 100, 150 };
#define FREEZE_PAUSE_MS 300
/* No answer: the broker hangs. */
#define ANSWER_MS 10000
#define BUSY_MS 2
#define RETRY_MS 1000
#define RETRY_MAX_MS 64000

enum phase {
	WAITING = 0, /* for a quiet moment */
	FROZEN,      /* the same, and the peers' bytes do not get in */
	ASKED,       /* the broker has the sockets, too */
	IN_DOUBT,    /* it died before it answered */
	IN_KERNEL,   /* the packet engine carries it */
	JOINED,      /* its sockets are in the maps of the sockmap engine, whoever carries it */
};

/* Those whose age makes them due, in the order in which they are: one for each engine. */
enum {
	YOUNG_FOR_PACKET = 0,
	YOUNG_FOR_SOCKMAP,
	YOUNG_COUNT_,
};

struct sl_handover {
	struct sl_list node; /* in a bucket, by id */
	struct sl_conn *conn;
	enum phase phase;
	struct sl_timer timer;
	uint8_t polls;
	uint8_t freezes;
	uint8_t retries;
	bool is_frozen; /* the filter is on */
	bool missed_events;
	bool goes_by_newest; /* the broker does not know its configuration */
	uint64_t frozen_until_ms;
	uint64_t asked_us;
	uint64_t answer_by_ms;
	enum sl_engine_id to;
	struct sl_packet_record record; /* of the one, */
	struct sl_joint joint;          /* or the other */
};

struct sl_handovers {
	struct sl_worker *worker;
	struct sl_broker_client *client;
	uint64_t known_from; /* generation: the broker has not seen those before it */
	int waiting_fd;      /* a channel that waits for the first generation */
	uint64_t up_ms;      /* since when the broker is there */
	struct young {
		struct sl_handovers *owner;
		struct sl_list list;
		struct sl_timer timer;
	} young[YOUNG_COUNT_];
	struct sl_joints joints;
	struct sl_list bucket[BUCKETS];
	uint64_t over[OVER]; /* ids, in the order they were given */
};

static void on_timer(struct sl_timer *timer);

static uint64_t now_ms(const struct sl_handover *h)
{
	return sl_loop_now_ms(h->conn->worker->loop);
}

static void wait(struct sl_handover *h, enum phase phase, uint64_t ms)
{
	h->phase = phase;
	sl_timer_start(h->conn->worker->loop, &h->timer, now_ms(h) + ms, on_timer);
}

/* ---- by id ---- */

static struct sl_list *bucket_of(struct sl_handovers *hs, uint64_t conn_id)
{
	return &hs->bucket[conn_id / hs->worker->id_step % BUCKETS];
}

static struct sl_handover *find(struct sl_handovers *hs, uint64_t conn_id)
{
	struct sl_list *bucket = bucket_of(hs, conn_id);
	struct sl_list *pos;

	sl_list_for_each (pos, bucket) {
		struct sl_handover *h = SL_CONTAINER_OF(pos, struct sl_handover, node);

		if (h->conn->id == conn_id)
			return h;
	}
	return NULL;
}

/*
 * The broker may die before it has noted that a record is over; what the next one tells of then is
 * no new connection. After a RST it may be one: the flow has gone on.
 */
static void remember_id(struct sl_handovers *hs, uint64_t conn_id)
{
	hs->over[conn_id / hs->worker->id_step % OVER] = conn_id;
}

static void remember(struct sl_handovers *hs, const struct sl_conn *c)
{
	if (c->side[SL_CLIENT].reason != SL_REASON_ECONNRESET &&
	    c->side[SL_BACKEND].reason != SL_REASON_ECONNRESET)
		remember_id(hs, c->id);
}

static bool was_here(const struct sl_handovers *hs, uint64_t conn_id)
{
	return hs->over[conn_id / hs->worker->id_step % OVER] == conn_id;
}

static struct sl_handover *new_handover(struct sl_conn *c)
{
	struct sl_handover *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->conn = c;
	h->to = c->handover_to;
	sl_list_init(&h->record.node);
	sl_list_init(&h->joint.node);
	h->joint.conn = c;
	sl_list_add(bucket_of(c->worker->handovers, c->id), &h->node);
	c->handover = h;
	return h;
}

struct sl_packet_record *sl_handover_record(const struct sl_conn *c)
{
	return &c->handover->record;
}

struct sl_joint *sl_handover_joint(const struct sl_conn *c)
{
	return &c->handover->joint;
}

struct sl_joints *sl_handovers_joints(struct sl_handovers *hs)
{
	return &hs->joints;
}

/* ---- freezing ---- */

static void filter(const struct sl_conn *c, enum sl_side side, int option, int value)
{
	if (c->side[side].io.fd >= 0)
		(void)setsockopt(c->side[side].io.fd, SOL_SOCKET, option, &value, sizeof(value));
}

static void freeze(struct sl_handover *h)
{
	int program = sl_broker_client_freeze_fd(h->conn->worker->handovers->client);

	filter(h->conn, SL_CLIENT, SO_ATTACH_BPF, program);
	filter(h->conn, SL_BACKEND, SO_ATTACH_BPF, program);
	h->is_frozen = true;
	h->freezes++;
	h->frozen_until_ms = now_ms(h) + freeze_ms[h->freezes - 1];
}

static void thaw(struct sl_handover *h)
{
	if (!h->is_frozen)
		return;
	filter(h->conn, SL_CLIENT, SO_DETACH_FILTER, 0);
	filter(h->conn, SL_BACKEND, SO_DETACH_FILTER, 0);
	h->is_frozen = false;
}

/* ---- the end of trying ---- */

static void drop(struct sl_handover *h)
{
	h->conn->handover = NULL;
	sl_timer_stop(&h->timer);
	sl_joint_forget(&h->joint);
	sl_list_remove(&h->node);
	free(h);
}

/* The relay keeps it for good, which is a choice and counted as one. */
static void give_up(struct sl_handover *h, enum sl_engine_reason why)
{
	struct sl_conn *c = h->conn;

	sl_conn_set_reason(c, why);
	sl_count_add(&c->worker->counts.engine_why[c->engine_id][why], 1);
	thaw(h);
	drop(h);
}

static void try_later(struct sl_handover *h)
{
	uint64_t ms = (uint64_t)RETRY_MS << h->retries;

	thaw(h);
	h->polls = 0;
	if (ms < RETRY_MAX_MS)
		h->retries++;
	wait(h, WAITING, ms);
}

/* ---- which engine ---- */

static bool may_use(const struct sl_conf *conf, const struct sl_gen_route *route,
		    enum sl_engine_id engine)
{
	return engine == SL_ENGINE_SOCKMAP ? sl_conf_may_sockmap(route->conf)
					   : sl_conf_may_packet(&conf->global, route->conf);
}

static struct sl_choice choose(const struct sl_conn *c, struct sl_choice_due *ret_due)
{
	const struct sl_addr *peer = sl_addr_family(&c->via) ? &c->via : &c->client;
	struct sl_choice_facts facts = sl_choose_facts(&c->gen->conf->global, c->route->conf,
						       sl_worker_packet_reason(c->worker),
						       sl_worker_sockmap_reason(c->worker));
	struct sl_choice choice;

	facts.is_connected = c->connect_us != 0;
	facts.mixes_families = sl_addr_family(peer) != sl_addr_family(&c->backend);
	facts.has_own_port = c->has_own_port;
	facts.bytes = c->flow[SL_UP].bytes + c->flow[SL_DOWN].bytes;
	facts.age_ms = (sl_loop_now_us(c->worker->loop) - c->entered_us) / 1000;
	choice = sl_choose(&facts);
	if (ret_due)
		*ret_due = choice.item[0].engine == SL_ENGINE_SOCKMAP ? facts.sockmap_due
								      : facts.packet_due;
	return choice;
}

/* The one that is to end up with it: once it is due, or now. */
static const struct sl_choice_item *goal_of(const struct sl_choice *choice)
{
	const struct sl_choice_item *later = sl_choice_later(choice);

	return later ? later : sl_choice_now(choice);
}

enum sl_engine_reason sl_handover_reason(const struct sl_conn *c)
{
	const struct sl_choice choice = choose(c, NULL);
	const struct sl_choice_item *goal = goal_of(&choice);

	return goal->engine == SL_ENGINE_RELAY ? goal->why : SL_WHY_SHORT_LIVED;
}

/* The kernel's side of it can be asked. */
static bool is_there(const struct sl_handover *h)
{
	const struct sl_broker_client *cl = h->conn->worker->handovers->client;

	return h->to == SL_ENGINE_SOCKMAP ? sl_broker_client_sockmap(cl) != NULL
					  : sl_broker_client_is_up(cl);
}

static enum sl_engine_reason off_reason(const struct sl_handover *h)
{
	return h->to == SL_ENGINE_SOCKMAP ? sl_worker_sockmap_reason(h->conn->worker)
					  : sl_worker_packet_reason(h->conn->worker);
}

/* ---- a quiet moment ---- */

/* Bytes that are on their way do not matter to the sockmap engine: only those in our hands do. */
static void not_at_hand(struct sl_handover *h)
{
	if (h->polls < SL_ARRAY_LEN(poll_ms)) {
		wait(h, WAITING, poll_ms[h->polls++]);
		return;
	}
	sl_conn_set_reason(h->conn, SL_WHY_NOT_QUIESCENT);
	try_later(h);
}

/* `may_freeze`: nothing is missing from what the peers have sent. */
static void not_quiet(struct sl_handover *h, bool may_freeze)
{
	if (h->to == SL_ENGINE_SOCKMAP) {
		not_at_hand(h);
	} else if (h->is_frozen && now_ms(h) < h->frozen_until_ms) {
		wait(h, FROZEN, 1);
	} else if (h->is_frozen && h->freezes >= SL_ARRAY_LEN(freeze_ms)) {
		give_up(h, SL_WHY_NOT_QUIESCENT);
	} else if (h->is_frozen) {
		thaw(h);
		wait(h, WAITING, (uint64_t)FREEZE_PAUSE_MS * h->freezes);
	} else if (h->polls < SL_ARRAY_LEN(poll_ms)) {
		wait(h, WAITING, poll_ms[h->polls++]);
	} else if (!may_freeze) {
		wait(h, WAITING, poll_ms[SL_ARRAY_LEN(poll_ms) - 1]);
	} else {
		freeze(h);
		wait(h, FROZEN, 1);
	}
}

static bool has_target(const struct sl_gen_route *route, const struct sl_target *target)
{
	for (size_t i = 0; target && i < route->conf->n_targets; i++)
		if (route->targets[i]->name == target->name)
			return true;
	return false;
}

/*
 * The broker remembers the configurations that came while it was there. Connections of others go by
 * the newest, as far as that has their route and target; *ret is where the route is found then.
 * NULL: it has not, or wants it on the relay.
 */
static const struct sl_gen_route *find_route(const struct sl_handover *h,
					     const struct sl_generation **ret)
{
	const struct sl_conn *c = h->conn;
	const struct sl_generation *newest = c->worker->gen;
	const struct sl_gen_route *route;

	if (!h->goes_by_newest && c->gen->number >= c->worker->handovers->known_from &&
	    newest->number - c->gen->number < SL_BROKER_GENERATIONS) {
		*ret = c->gen;
		return c->route;
	}
	route = sl_generation_find_route(newest, c->route->conf->name);
	if (!route || !may_use(newest->conf, route, h->to) || !has_target(route, c->target))
		return NULL;
	*ret = newest;
	return route;
}

/* Of its route, what the broker is to judge it by; without one, what it was accepted by. */
static struct sl_broker_handover describe(const struct sl_handover *h)
{
	const struct sl_conn *c = h->conn;
	const struct sl_generation *gen = c->gen;
	const struct sl_gen_route *route = find_route(h, &gen);

	return (struct sl_broker_handover){
		.generation = gen->number,
		.route = (uint32_t)((route ? route : c->route) - gen->routes),
		.is_frozen = h->is_frozen,
		.client = c->client,
		.via = c->via,
		.accepted_us = c->accepted_us,
		.relayed = { c->flow[SL_UP].bytes, c->flow[SL_DOWN].bytes },
		.connect_us = c->connect_us > UINT32_MAX ? UINT32_MAX : (uint32_t)c->connect_us,
		.target_hash = c->target ? sl_target_hash(c->target) : 0,
		.to_sockmap = h->to == SL_ENGINE_SOCKMAP,
	};
}

static void ask(struct sl_handover *h)
{
	struct sl_conn *c = h->conn;
	struct sl_broker_handover request = describe(h);
	int r = h->to == SL_ENGINE_SOCKMAP ? 0 : sl_packet_name(c, &h->record.flow);

	h->asked_us = sl_loop_now_us(c->worker->loop);
	if (r == 0)
		r = sl_broker_ask(c->worker->handovers->client, c->id, &request,
				  c->side[SL_CLIENT].io.fd, c->side[SL_BACKEND].io.fd);
	if (r == 0) {
		h->answer_by_ms = now_ms(h) + ANSWER_MS;
		wait(h, ASKED, ANSWER_MS);
	} else if (r == -EAGAIN && (!h->is_frozen || now_ms(h) < h->frozen_until_ms)) {
		wait(h, h->is_frozen ? FROZEN : WAITING, BUSY_MS);
	} else {
		try_later(h);
	}
}

static void attempt(struct sl_handover *h)
{
	struct sl_conn *c = h->conn;
	const struct sl_generation *gen;

	if (c->state != SL_CONN_ESTABLISHED || c->side[SL_CLIENT].hung_up ||
	    c->side[SL_BACKEND].hung_up)
		give_up(h, SL_WHY_HALF_CLOSED);
	else if (off_reason(h) != SL_WHY_ELIGIBLE || !is_there(h))
		try_later(h);
	else if (!find_route(h, &gen))
		give_up(h, SL_WHY_CONFIGURED);
	else if (h->to == SL_ENGINE_SOCKMAP ? sl_joint_prepare(&h->joint) : sl_conn_is_at_rest(c))
		ask(h);
	else
		not_quiet(h, true);
}

/* What came while the broker had the sockets. */
static void resume(struct sl_conn *c)
{
	c->engine->on_socket(c, SL_CLIENT, SL_IO_IN | SL_IO_OUT);
	if (c->state != SL_CONN_CLOSED)
		c->engine->on_socket(c, SL_BACKEND, SL_IO_IN | SL_IO_OUT);
}

/* At the end of the time on_timer() gives it up. */
static void wait_for_broker(struct sl_handover *h)
{
	uint64_t now = now_ms(h);

	wait(h, IN_DOUBT, h->answer_by_ms > now ? h->answer_by_ms - now : 0);
}

/* Asks the next broker what became of it. */
static void resolve(struct sl_handover *h)
{
	struct sl_conn *c = h->conn;
	struct sl_broker_client *cl = c->worker->handovers->client;
	struct sl_broker_handover request = describe(h);
	int r = sl_broker_resolve(cl, c->id, &request, c->side[SL_CLIENT].io.fd,
				  c->side[SL_BACKEND].io.fd);

	if (r < 0 && is_there(h))
		wait(h, IN_DOUBT, BUSY_MS);
	else if (r < 0)
		wait_for_broker(h);
	else
		wait(h, ASKED, h->answer_by_ms - now_ms(h));
}

/* Nobody can tell what became of it: if it is in the kernel, it must not be in both. */
static void end_in_doubt(struct sl_handover *h)
{
	sl_log_conn(SL_LOG_ERROR, h->conn->id,
		    "no broker has answered for %" PRIu64 " ms, ending the connection",
		    now_ms(h) - h->asked_us / 1000);
	sl_conn_end(h->conn, SL_REASON_ERROR, true);
}

static void on_timer(struct sl_timer *timer)
{
	struct sl_handover *h = SL_CONTAINER_OF(timer, struct sl_handover, timer);

	switch (h->phase) {
	case WAITING:
	case FROZEN:
		attempt(h);
		break;
	case ASKED:
	case IN_DOUBT:
		if (now_ms(h) < h->answer_by_ms)
			resolve(h);
		else
			end_in_doubt(h);
		break;
	case IN_KERNEL:
	case JOINED:
		break;
	}
}

/* ---- answers ---- */

static void resolve_all(struct sl_handovers *hs, enum sl_engine_id to)
{
	for (size_t i = 0; i < BUCKETS; i++) {
		struct sl_list *pos;

		sl_list_for_each (pos, &hs->bucket[i]) {
			struct sl_handover *h = SL_CONTAINER_OF(pos, struct sl_handover, node);

			/* Too late for those that end in this turn. */
			if (h->phase == IN_DOUBT && h->to == to && now_ms(h) < h->answer_by_ms)
				resolve(h);
		}
	}
}

static void on_up(void *arg)
{
	struct sl_handovers *hs = arg;

	hs->up_ms = sl_loop_now_ms(hs->worker->loop);
	resolve_all(hs, SL_ENGINE_PACKET);
}

static void on_sockmap_up(void *arg)
{
	struct sl_handovers *hs = arg;

	sl_joints_linked(&hs->joints);
	resolve_all(hs, SL_ENGINE_SOCKMAP);
}

static bool is_in_repair(const struct sl_conn *c, enum sl_side side)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return getsockopt(c->side[side].io.fd, IPPROTO_TCP, TCP_REPAIR, &on, &len) < 0 || on != 0;
}

static bool may_have_begun(const struct sl_handover *h)
{
	return h->to == SL_ENGINE_SOCKMAP
		       ? sl_joint_has_begun(&h->joint)
		       : is_in_repair(h->conn, SL_CLIENT) || is_in_repair(h->conn, SL_BACKEND);
}

/*
 * The broker will not read the request any more. Where it has not begun with the sockets nothing is
 * in doubt; else the next one knows.
 */
static void left_alone(struct sl_handover *h)
{
	struct sl_conn *c = h->conn;
	bool missed_events = h->missed_events;

	if (may_have_begun(h)) {
		if (h->to == SL_ENGINE_SOCKMAP)
			sl_joint_nudge(&h->joint);
		h->answer_by_ms = h->asked_us / 1000 + SL_HANDOVER_DOUBT_MS;
		wait_for_broker(h);
		return;
	}
	h->is_frozen = h->to == SL_ENGINE_PACKET; /* perhaps by the broker */
	h->missed_events = false;
	try_later(h);
	if (missed_events)
		resume(c);
}

/* The channel has gone, and with it whoever was asked. */
static void leave_all_alone(struct sl_handovers *hs)
{
	for (size_t i = 0; i < BUCKETS; i++) {
		struct sl_list *pos;
		struct sl_list *tmp;

		sl_list_for_each_safe (pos, tmp, &hs->bucket[i]) {
			struct sl_handover *h = SL_CONTAINER_OF(pos, struct sl_handover, node);

			if (h->phase == ASKED)
				left_alone(h);
		}
	}
}

/* It may have forgotten the configuration that this one came by. */
static bool may_go_by_newest(const struct sl_handover *h, const struct sl_broker_result *result)
{
	return result->is_final && result->why == SL_WHY_NO_PRIVILEGE && !h->goes_by_newest &&
	       h->conn->gen != h->conn->worker->gen;
}

static void refused(struct sl_handover *h, const struct sl_broker_result *result)
{
	struct sl_conn *c = h->conn;
	enum sl_engine_reason why = (enum sl_engine_reason)result->why;
	bool missed_events = h->missed_events;

	h->missed_events = false;
	if (may_go_by_newest(h, result)) {
		h->goes_by_newest = true;
		why = SL_WHY_RATE_LIMITED; /* not yet */
		try_later(h);
	} else if (result->is_final) {
		give_up(h, why);
	} else if (why == SL_WHY_NOT_QUIESCENT) {
		not_quiet(h, !result->has_holes);
	} else {
		try_later(h);
	}
	sl_conn_set_reason(c, why);
	if (missed_events)
		resume(c);
}

static void taken_over(struct sl_handover *h, const struct sl_broker_result *result)
{
	struct sl_conn *c = h->conn;

	sl_timer_stop(&h->timer);
	if (h->to == SL_ENGINE_SOCKMAP) {
		h->phase = JOINED;
		sl_joint_take_over(&h->joint, result->pair);
		return;
	}
	h->phase = IN_KERNEL;
	h->is_frozen = false; /* with the sockets */
	sl_packet_take_over(c, &h->record);
	if (c->worker->hands_on)
		sl_conn_let_go(c);
}

static void on_result(void *arg, uint64_t conn_id, const struct sl_broker_result *result)
{
	struct sl_handovers *hs = arg;
	struct sl_handover *h = find(hs, conn_id);
	struct sl_worker_counts *counts = &hs->worker->counts;

	if (!h || (h->phase != ASKED && h->phase != IN_DOUBT)) {
		/* Ended meanwhile. The broker of the packet engine was told. */
		if (!h && result->why == SL_WHY_ELIGIBLE)
			sl_broker_sockmap_tell(hs->client, SL_BROKER_SOCKMAP_LEAVE, conn_id,
					       result->pair);
		return;
	}
	sl_count_add(&counts->handover[h->to][result->why], 1);
	sl_hist_add(&counts->handover_time, sl_loop_now_us(hs->worker->loop) - h->asked_us);
	if (result->why == SL_WHY_ELIGIBLE)
		taken_over(h, result);
	else
		refused(h, result);
}

static struct sl_conn *in_kernel(struct sl_handovers *hs, uint64_t conn_id)
{
	struct sl_handover *h = find(hs, conn_id);

	return h && h->phase == IN_KERNEL ? h->conn : NULL;
}

static void on_changed(void *arg, uint64_t conn_id, uint32_t flag)
{
	struct sl_handovers *hs = arg;
	struct sl_handover *h = find(hs, conn_id);

	if (h && h->phase == IN_KERNEL)
		sl_packet_changed(h->conn);
	else if (h && h->phase == JOINED)
		sl_joint_changed(&h->joint, flag);
	else if (!h && (flag & SL_BROKER_SOCKMAP_LOST)) /* its end was not read */
		sl_broker_sockmap_tell(hs->client, SL_BROKER_SOCKMAP_LEAVE, conn_id,
				       flag >> SL_BROKER_SOCKMAP_PAIR_SHIFT);
}

static void on_ended(void *arg, uint64_t conn_id, const struct sl_broker_ended *ended)
{
	struct sl_conn *c = in_kernel(arg, conn_id);

	if (c)
		sl_packet_ended(c, ended);
}

/* ADOPTED's flag: the worker has a record; cannot have one; its route is unknown. */
static uint32_t adopt(struct sl_handovers *hs, uint64_t conn_id, const struct sl_broker_flow *flow)
{
	struct sl_handover *h = calloc(1, sizeof(*h));
	struct sl_conn *c = NULL;
	int r;

	if (!h)
		return 0;
	h->phase = IN_KERNEL;
	h->to = SL_ENGINE_PACKET;
	sl_list_init(&h->joint.node);
	r = sl_packet_adopt(hs->worker, conn_id, flow, &h->record, &c);
	if (r < 0) {
		if (r == -ESRCH)
			remember_id(hs, conn_id);
		free(h);
		return r == -ESRCH ? 2 : 0;
	}
	h->conn = c;
	c->handover = h;
	sl_list_add(bucket_of(hs, conn_id), &h->node);
	sl_conn_adopted(c);
	return 1;
}

/* Of a connection in doubt the next broker may have found the entries before it was asked. */
static uint32_t claim(struct sl_handovers *hs, uint64_t conn_id, const struct sl_broker_flow *flow)
{
	const struct sl_handover *h = find(hs, conn_id);

	if (!h)
		return was_here(hs, conn_id) ? 0 : adopt(hs, conn_id, flow);
	return h->phase == ASKED || h->phase == IN_DOUBT || h->phase == IN_KERNEL;
}

static void on_adopt(void *arg, uint64_t conn_id, const struct sl_broker_flow *flow)
{
	struct sl_handovers *hs = arg;
	uint32_t how = claim(hs, conn_id, flow);
	struct sl_conn *c;

	sl_broker_tell(hs->client, SL_BROKER_ADOPTED, conn_id, how);
	c = how == 1 ? in_kernel(hs, conn_id) : NULL;
	if (c && hs->worker->hands_on) {
		sl_conn_let_go(c);
	} else if (c) {
		sl_packet_changed(c); /* FINs may have passed while nobody looked */
		if (hs->worker->draining)
			sl_conn_drain(c, sl_loop_now_ms(hs->worker->loop));
	}
}

/* ---- the kernel's NAT ---- */

static void on_nat_flow(void *arg, uint64_t serial, const struct sl_broker_nat_flow *flow)
{
	struct sl_handovers *hs = arg;

	sl_nat_flows_told(hs->worker->nat_flows, serial, flow);
}

static void on_nat_told(void *arg)
{
	struct sl_handovers *hs = arg;

	sl_nat_flows_all_told(hs->worker->nat_flows);
}

static void on_linked(void *arg)
{
	struct sl_handovers *hs = arg;

	/* One that has just begun has been told of the newest alone. */
	hs->known_from = hs->worker->gen->number;
	sl_nat_flows_linked(hs->worker->nat_flows);
}

static void on_unlinked(void *arg)
{
	struct sl_handovers *hs = arg;

	sl_nat_flows_unlinked(hs->worker->nat_flows);
	sl_joints_unlinked(&hs->joints);
	leave_all_alone(hs);
}

/* ---- becoming due ---- */

static void on_young(struct sl_timer *timer);

static void wait_young(struct young *y, uint64_t at_ms)
{
	if (!sl_timer_is_armed(&y->timer))
		sl_timer_start(y->owner->worker->loop, &y->timer, at_ms, on_young);
}

static void on_young(struct sl_timer *timer)
{
	struct young *y = SL_CONTAINER_OF(timer, struct young, timer);
	uint64_t now = sl_loop_now_ms(y->owner->worker->loop);

	while (!sl_list_is_empty(&y->list)) {
		struct sl_conn *c = SL_CONTAINER_OF(y->list.next, struct sl_conn, young);
		const struct sl_conf_global *g = &c->gen->conf->global;
		uint64_t at = c->entered_us / 1000 + (c->handover_to == SL_ENGINE_SOCKMAP
							      ? g->sockmap.after_age_ms
							      : g->packet.after_age_ms);

		if (now < at) {
			wait_young(y, at);
			return;
		}
		sl_handover_due(c);
	}
}

void sl_handover_watch(struct sl_conn *c)
{
	struct sl_handovers *hs = c->worker->handovers;
	struct sl_choice_due due;
	const struct sl_choice choice = choose(c, &due);
	enum sl_engine_id goal = goal_of(&choice)->engine;
	struct young *y;

	if (goal == SL_ENGINE_RELAY)
		return;
	c->handover_to = goal;
	c->handover_after = due.bytes;
	y = &hs->young[goal == SL_ENGINE_SOCKMAP ? YOUNG_FOR_SOCKMAP : YOUNG_FOR_PACKET];
	sl_list_add(&y->list, &c->young);
	if (due.bytes == 0 || due.age_ms == 0)
		sl_handover_due(c);
	else
		wait_young(y, sl_loop_now_ms(hs->worker->loop) + due.age_ms);
}

void sl_handover_due(struct sl_conn *c)
{
	struct sl_handover *h;

	sl_list_remove(&c->young);
	c->handover_after = UINT64_MAX;
	if (c->handover || c->state != SL_CONN_ESTABLISHED)
		return;
	h = new_handover(c);
	if (h)
		wait(h, WAITING, 0);
}

/* ---- on demand ---- */

static enum sl_move_result move_to_relay(struct sl_conn *c)
{
	struct sl_handover *h = c->handover;

	if (c->engine_id == SL_ENGINE_SOCKMAP) {
		sl_joint_move_out(&h->joint, SL_WHY_MOVED);
		return SL_MOVE_BEGUN;
	}
	if (c->engine_id != SL_ENGINE_RELAY)
		return SL_MOVE_NO_WAY_OUT;
	/* It was on its way to the kernel, perhaps. */
	sl_list_remove(&c->young);
	c->handover_after = UINT64_MAX;
	if (h && h->phase <= FROZEN)
		give_up(h, SL_WHY_MOVED);
	return SL_MOVE_IS_THERE;
}

static enum sl_move_result move_to_kernel(struct sl_conn *c, enum sl_engine_id to)
{
	const struct sl_choice choice = choose(c, NULL);
	struct sl_handover *h = c->handover;

	if (goal_of(&choice)->engine != to)
		return SL_MOVE_NOT_ITS;
	if (c->side[SL_CLIENT].hung_up || c->side[SL_BACKEND].hung_up)
		return SL_MOVE_NOT_OPEN;
	if (h && h->phase == JOINED)
		return sl_joint_move_in(&h->joint) ? SL_MOVE_BEGUN : SL_MOVE_NOT_ITS;
	c->handover_to = to;
	if (!h)
		sl_handover_due(c);
	else if (h->phase == WAITING) /* now, not when it would be tried again */
		wait(h, WAITING, 0);
	return SL_MOVE_BEGUN;
}

enum sl_move_result sl_handover_move(struct sl_conn *c, enum sl_engine_id to)
{
	if (c->state != SL_CONN_ESTABLISHED && c->state != SL_CONN_CLOSING)
		return SL_MOVE_NOT_OPEN;
	if (to == SL_ENGINE_RELAY)
		return move_to_relay(c);
	if (c->engine_id == to)
		return SL_MOVE_IS_THERE;
	if (c->engine_id != SL_ENGINE_RELAY)
		return SL_MOVE_NO_WAY_OUT;
	return move_to_kernel(c, to);
}

bool sl_handover_has_sockets(const struct sl_conn *c)
{
	struct sl_handover *h = c->handover;

	if (!h || (h->phase != ASKED && h->phase != IN_DOUBT))
		return false;
	h->missed_events = true;
	return true;
}

void sl_handover_thaw(struct sl_conn *c)
{
	if (c->handover)
		thaw(c->handover);
}

void sl_handover_leave(struct sl_conn *c)
{
	struct sl_handover *h = c->handover;

	sl_list_remove(&c->young);
	if (!h)
		return;
	if (h->to == SL_ENGINE_PACKET && (h->phase == ASKED || h->phase == IN_DOUBT))
		sl_broker_tell(c->worker->handovers->client, SL_BROKER_KILL, c->id, 0);
	if (h->phase == IN_KERNEL)
		sl_packet_forget(c, &h->record);
	if (h->to == SL_ENGINE_PACKET && h->phase >= ASKED && !c->let_go)
		remember(c->worker->handovers, c);
	drop(h);
}

/* ---- life ---- */

int sl_handovers_new(struct sl_worker *w, struct sl_handovers **ret)
{
	static const struct sl_broker_client_fns fns = { .up = on_up,
							 .sockmap_up = on_sockmap_up,
							 .result = on_result,
							 .changed = on_changed,
							 .ended = on_ended,
							 .adopt = on_adopt,
							 .linked = on_linked,
							 .unlinked = on_unlinked,
							 .nat_flow = on_nat_flow,
							 .nat_told = on_nat_told };
	struct sl_handovers *hs = calloc(1, sizeof(*hs));
	int r;

	if (!hs)
		return -ENOMEM;
	hs->worker = w;
	hs->waiting_fd = -1;
	for (size_t i = 0; i < YOUNG_COUNT_; i++) {
		hs->young[i].owner = hs;
		sl_list_init(&hs->young[i].list);
	}
	sl_joints_init(&hs->joints, w);
	for (size_t i = 0; i < BUCKETS; i++)
		sl_list_init(&hs->bucket[i]);
	r = sl_broker_client_new(w->loop, &fns, hs, &hs->client);
	if (r < 0) {
		free(hs);
		return r;
	}
	*ret = hs;
	return 0;
}

void sl_handovers_free(struct sl_handovers *hs)
{
	if (!hs)
		return;
	for (size_t i = 0; i < YOUNG_COUNT_; i++)
		sl_timer_stop(&hs->young[i].timer);
	sl_joints_stop(&hs->joints);
	sl_broker_client_free(hs->client);
	sl_closep(&hs->waiting_fd);
	free(hs);
}

void sl_handovers_connect(struct sl_handovers *hs, int fd)
{
	if (hs->worker->gen) {
		sl_broker_client_connect(hs->client, fd);
		return;
	}
	sl_closep(&hs->waiting_fd);
	hs->waiting_fd = fd;
}

void sl_handovers_start(struct sl_handovers *hs)
{
	if (hs->waiting_fd >= 0)
		sl_broker_client_connect(hs->client, SL_TAKE_FD(hs->waiting_fd));
}

bool sl_handovers_were_alone(const struct sl_handovers *hs, uint64_t since_ms)
{
	return !sl_broker_client_is_up(hs->client) || hs->up_ms >= since_ms;
}

struct sl_broker_client *sl_handovers_client(const struct sl_handovers *hs)
{
	return hs->client;
}
