/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/tls.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/count.h"
#include "base/log.h"
#include "proxy/classify.h"
#include "proxy/conn.h"
#include "proxy/connect.h"
#include "proxy/engine.h"
#include "proxy/listener.h"
#include "proxy/worker.h"

/* Who looks whether flows would wait for the steps of handshakes: how often, at how many, and how
 * long they have lasted. */
#define LOOK_MS 100
#define LOOK_AT 4096
#define LASTING_US 1000000
/* A turn's share then: opening streams, and steps with targets. */
#define TURN_WITH_FLOWS_US 100
/* Of failures, with clients and with targets: whoever scans us hides no target's certificate. */
#define LINES 20
#define LINES_MS 10000
/* Targets whose sessions a worker keeps. */
#define TARGETS_MAX 1024

/* ---- targets, with the sessions that can be resumed ---- */

struct tls_target {
	struct sl_list node;
	struct sl_secure *secure; /* reference: its backend is what `of` was made for */
	struct sl_target *target; /* reference */
	struct sl_tls_target *with;
};

static void free_target(struct sl_tls_work *work, struct tls_target *t)
{
	sl_list_remove(&t->node);
	work->n_targets--;
	sl_tls_target_unref(t->with);
	sl_target_unref(t->target);
	sl_secure_unref(t->secure);
	free(t);
}

/* What its certificate has to say: an operator's word, or the host of the address. */
static const char *name_of(const struct sl_conf_route *route, const struct sl_conf_target *conf,
			   char text[SL_ADDR_TEXT])
{
	if (route->backend_tls->server_name)
		return route->backend_tls->server_name;
	return conf->host ? conf->host : sl_addr_format_ip(&conf->addr, text);
}

static int new_target(struct sl_conn *c, struct tls_target **ret)
{
	struct sl_tls_work *work = &c->worker->tls;
	const struct sl_conf_route *route = c->route->conf;
	const struct sl_conf_target *conf = &route->targets[c->tried[c->attempts - 1]];
	struct tls_target *t = calloc(1, sizeof(*t));
	char text[SL_ADDR_TEXT];
	int r;

	if (!t)
		return -ENOMEM;
	r = sl_tls_target_new(c->tls->secure->backend, name_of(route, conf, text), &t->with);
	if (r < 0) {
		free(t);
		return r;
	}
	t->secure = sl_secure_ref(c->tls->secure);
	t->target = sl_target_ref(c->target);
	sl_list_init(&t->node);
	work->n_targets++;
	if (work->n_targets > TARGETS_MAX)
		free_target(work, SL_CONTAINER_OF(work->targets.prev, struct tls_target, node));
	*ret = t;
	return 0;
}

static int find_target(struct sl_conn *c, struct sl_tls_target **ret)
{
	struct sl_tls_work *work = &c->worker->tls;
	struct tls_target *hit = NULL;
	struct sl_list *pos;
	int r = 0;

	sl_list_for_each (pos, &work->targets) {
		struct tls_target *t = SL_CONTAINER_OF(pos, struct tls_target, node);

		if (t->secure == c->tls->secure && t->target == c->target) {
			hit = t;
			break;
		}
	}
	if (!hit)
		r = new_target(c, &hit);
	if (r < 0)
		return r;
	sl_list_remove(&hit->node);
	sl_list_insert_after(&work->targets, &hit->node);
	*ret = hit->with;
	return 0;
}

static bool is_current(struct sl_generation *g, const struct tls_target *t)
{
	const struct sl_gen_route *route = sl_generation_find_route(g, t->secure->route);
	struct sl_secure *s = route ? sl_generation_get_secure(g, route) : NULL;
	bool hit = false;

	for (size_t i = 0; s == t->secure && i < route->conf->n_targets; i++)
		hit = hit || route->targets[i] == t->target;
	sl_secure_unref(s);
	return hit;
}

void sl_tls_work_prune(struct sl_worker *w)
{
	struct sl_list *pos;
	struct sl_list *tmp;

	sl_list_for_each_safe (pos, tmp, &w->tls.targets) {
		struct tls_target *t = SL_CONTAINER_OF(pos, struct tls_target, node);

		if (!w->gen || !is_current(w->gen, t))
			free_target(&w->tls, t);
	}
}

/* ---- a worker's part ---- */

int sl_tls_work_init(struct sl_tls_work *work, struct sl_tls_ticket_box *tickets,
		     const char *no_ktls)
{
	work->no_ktls = no_ktls;
	sl_list_init(&work->ready);
	sl_list_init(&work->waiting);
	sl_list_init(&work->away);
	sl_list_init(&work->asked);
	sl_list_init(&work->targets);
	work->tickets = tickets;
	return sl_tls_scratch_init(&work->scratch);
}

static void free_tls(struct sl_conn_tls *tls)
{
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		sl_tls_stream_free(tls->stream[i]);
	sl_closep(&tls->orphan_fd);
	sl_secure_unref(tls->secure);
	free(tls);
}

void sl_tls_work_done(struct sl_tls_work *work)
{
	struct sl_list *pos;
	struct sl_list *tmp;

	if (!work->targets.next)
		return;
	sl_list_for_each_safe (pos, tmp, &work->targets)
		free_target(work, SL_CONTAINER_OF(pos, struct tls_target, node));
	sl_task_cancel(&work->task);
	sl_timer_stop(&work->patience);
	sl_tls_scratch_done(&work->scratch);
}

static struct sl_tls_tickets *take_tickets(struct sl_tls_ticket_box *box)
{
	struct sl_tls_tickets *tickets;

	(void)pthread_mutex_lock(&box->lock);
	tickets = box->tickets ? sl_tls_tickets_ref(box->tickets) : NULL;
	(void)pthread_mutex_unlock(&box->lock);
	return tickets;
}

static void on_turn(struct sl_task *task);

static void make_steps_later(struct sl_worker *w)
{
	if (!w->tls.task.is_queued)
		sl_loop_defer(w->loop, &w->tls.task, on_turn);
}

/* From now on it waits for us. */
static void stop_asking(struct sl_conn_tls *tls)
{
	if (sl_list_is_empty(&tls->turn))
		return;
	tls->used_ms += sl_loop_now_ms(tls->conn->worker->loop) - tls->asked_ms;
	sl_list_remove(&tls->turn);
}

static void queue_step(struct sl_conn *c)
{
	struct sl_conn_tls *tls = c->tls;

	tls->is_due = true;
	stop_asking(tls);
	if (!sl_list_is_empty(&tls->node)) /* in line already, or away */
		return;
	sl_list_add(&c->worker->tls.ready, &tls->node);
	make_steps_later(c->worker);
}

/* Whoever waits longest takes the place of a handshake that is over, before any that comes now. */
static void let_next_in(struct sl_tls_work *work)
{
	struct sl_conn_tls *next;

	if (sl_list_is_empty(&work->waiting))
		return;
	next = SL_CONTAINER_OF(work->waiting.next, struct sl_conn_tls, node);
	sl_list_remove(&next->node);
	next->is_waiting = false;
	sl_count_add(&work->n_waiting, (uint64_t)-1);
	next->is_open = true;
	sl_count_add(&work->n_open, 1);
	queue_step(next->conn);
}

static void release_place(struct sl_conn_tls *tls)
{
	struct sl_tls_work *work = tls->work;

	if (tls->is_waiting)
		sl_count_add(&work->n_waiting, (uint64_t)-1);
	tls->is_waiting = false;
	sl_list_remove(&tls->turn);
	if (!tls->is_open)
		return;
	tls->is_open = false;
	sl_count_add(&work->n_open, (uint64_t)-1);
	let_next_in(work);
}

static void leave_line(struct sl_conn_tls *tls)
{
	sl_list_remove(&tls->node);
	release_place(tls);
}

static void come_back(struct sl_conn_tls *tls)
{
	tls->is_away = false;
	sl_list_remove(&tls->node);
	if (tls->conn)
		return;
	release_place(tls);
	free_tls(tls);
}

void sl_tls_work_stop(struct sl_tls_work *work)
{
	struct sl_list *pos;
	struct sl_list *tmp;

	sl_signer_free(SL_TAKE_PTR(work->signer));
	if (!work->away.next)
		return;
	sl_list_for_each_safe (pos, tmp, &work->away)
		come_back(SL_CONTAINER_OF(pos, struct sl_conn_tls, node));
}

/* ---- counts and words ---- */

static enum sl_tls_count_version version_of(const char *name)
{
	for (int v = SL_TLS_COUNT_1_2; v < SL_TLS_COUNT_VERSIONS_; v++)
		if (strcmp(sl_tls_count_version_name((enum sl_tls_count_version)v), name) == 0)
			return (enum sl_tls_count_version)v;
	return SL_TLS_COUNT_NONE;
}

const char *sl_tls_count_version_name(enum sl_tls_count_version version)
{
	static const char *const names[SL_TLS_COUNT_VERSIONS_] = { "", "TLSv1.2", "TLSv1.3" };

	return names[version];
}

const char *sl_tls_count_result_name(enum sl_tls_count_result result)
{
	static const char *const names[SL_TLS_COUNT_RESULTS_] = { "ok", "failed", "timeout" };

	return names[result];
}

static void count(struct sl_conn *c, enum sl_side side, enum sl_tls_count_result result)
{
	struct sl_tls_work *work = &c->worker->tls;
	enum sl_tls_count_version version = SL_TLS_COUNT_NONE;
	struct sl_tls_facts facts = { 0 };

	if (result == SL_TLS_COUNT_OK) {
		sl_tls_stream_facts(c->tls->stream[side], &facts);
		version = version_of(facts.version);
	}
	sl_count_add(&work->handshakes[side][version][facts.is_resumed][result], 1);
}

static void log_failure(struct sl_conn *c, enum sl_side side, const char *what, const char *why)
{
	struct sl_tls_work *work = &c->worker->tls;
	const char *whom = side == SL_CLIENT ? "client" : "target";
	char text[SL_ADDR_TEXT];

	if (!sl_log_allowed(&work->log[side], sl_loop_now_ms(c->worker->loop), LINES, LINES_MS)) {
		work->unsaid[side]++;
		return;
	}
	if (work->unsaid[side] > 0)
		sl_log(SL_LOG_WARN,
		       "TLS with %ss: %" PRIu64 " more failures had no line of their own", whom,
		       work->unsaid[side]);
	work->unsaid[side] = 0;
	sl_log_conn(SL_LOG_WARN, c->id, "route %s: TLS with %s %s%s: %s", c->route->conf->name,
		    whom, sl_addr_format(side == SL_CLIENT ? &c->client : &c->backend, text), what,
		    why);
}

/* ---- the end of a handshake ---- */

/* A side that is gone, or never spoke, has done nothing that TLS knows of. */
static enum sl_reason reason_of(const struct sl_conn *c, enum sl_side side, int err)
{
	if (err == -EPROTO)
		return SL_REASON_TLS_ERROR;
	if (err == -EPIPE)
		return side == SL_CLIENT && !c->got_data ? SL_REASON_CLOSED_BEFORE_DATA
							 : SL_REASON_TLS_ERROR;
	return sl_reason_from_errno(-err);
}

/* The alert is on its way: the socket says its end behind it, and is read until the client's. */
static void fail_client(struct sl_conn *c, int err)
{
	c->side[SL_CLIENT].reason = reason_of(c, SL_CLIENT, err);
	c->parts = err == -EPROTO;
	sl_conn_event(c, SL_EV_ABORT);
}

static void failed(struct sl_conn *c, int err)
{
	enum sl_side side = c->tls->side;
	const char *why = sl_tls_stream_error(c->tls->stream[side]);

	count(c, side, SL_TLS_COUNT_FAILED);
	if (err == -EPROTO || side == SL_BACKEND)
		log_failure(c, side, " failed", why[0] ? why : strerror(-err));
	if (side == SL_CLIENT)
		fail_client(c, err);
	else
		sl_connect_failed(c, reason_of(c, side, err));
}

/* No further handshake: keys of files that have changed go with the last one that used them. */
static void forget_secure(struct sl_conn *c)
{
	if (c->tls->side == SL_BACKEND || !sl_tls_wants_backend(c))
		sl_secure_unref(SL_TAKE_PTR(c->tls->secure));
}

static void succeeded(struct sl_conn *c)
{
	struct sl_conn_tls *tls = c->tls;
	enum sl_side side = tls->side;

	count(c, side, SL_TLS_COUNT_OK);
	c->active_ms = sl_loop_now_ms(c->worker->loop);
	if (side == SL_CLIENT)
		c->got_data = false; /* the ClientHello was for us */
	else
		(void)sl_target_count_connect(c->target, true, c->active_ms);
	forget_secure(c);
	c->missed_events = true; /* bytes behind the last step may have been read with it */
	sl_conn_event(c, side == SL_CLIENT ? SL_EV_CLIENT_SECURED : SL_EV_SECURED);
}

void sl_tls_timed_out(struct sl_conn *c)
{
	struct sl_conn_tls *tls = c->tls;

	if (tls)
		count(c, tls->side, SL_TLS_COUNT_TIMEOUT);
	/* A target that was told nothing, for there was no place, has not failed. */
	if (tls && tls->side == SL_BACKEND && tls->stream[SL_BACKEND]) {
		log_failure(c, SL_BACKEND, " failed", "no answer in time");
		sl_connect_failed(c, SL_REASON_HANDSHAKE_TIMEOUT);
	} else {
		sl_conn_end(c, SL_REASON_HANDSHAKE_TIMEOUT, false);
	}
}

/* ---- places ---- */

/* Nothing has come of it that has not been looked at. */
static bool is_silent(const struct sl_conn_tls *tls)
{
	char byte;

	return recv(tls->conn->side[SL_CLIENT].io.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
	       errno == EAGAIN;
}

/* A crowd that says hello and no more must not keep everybody else out until its deadline. */
static void on_patience(struct sl_timer *timer)
{
	struct sl_tls_work *work = SL_CONTAINER_OF(timer, struct sl_tls_work, patience);
	struct sl_worker *w = SL_CONTAINER_OF(work, struct sl_worker, tls);
	uint64_t now_ms = sl_loop_now_ms(w->loop);
	struct sl_list *pos;
	struct sl_list *tmp;

	if (sl_list_is_empty(&work->waiting))
		return;
	sl_timer_start(w->loop, timer, now_ms + LOOK_MS, on_patience);
	sl_list_for_each_safe (pos, tmp, &work->asked) {
		struct sl_conn_tls *tls = SL_CONTAINER_OF(pos, struct sl_conn_tls, turn);

		if (sl_list_is_empty(&work->waiting))
			return;
		if (now_ms + tls->used_ms >= tls->asked_ms + SL_TLS_PATIENCE_MS && is_silent(tls))
			sl_tls_timed_out(tls->conn);
	}
}

/* Its answer is waited for. Bytes one by one gain no time: the waits are added up. */
static void ask(struct sl_conn_tls *tls)
{
	if (tls->side != SL_CLIENT)
		return;
	tls->asked_ms = sl_loop_now_ms(tls->conn->worker->loop);
	sl_list_add(&tls->work->asked, &tls->turn);
}

/* Not more than so many at a time have buffers. False: it waits. */
static bool may_open(struct sl_conn_tls *tls)
{
	struct sl_worker *w = tls->conn->worker;
	struct sl_tls_work *work = &w->tls;

	if (tls->is_open)
		return true;
	if (work->n_open >= SL_TLS_HANDSHAKES_MAX) {
		sl_list_add(&work->waiting, &tls->node);
		tls->is_waiting = true;
		sl_count_add(&work->n_waiting, 1);
		if (!sl_timer_is_armed(&work->patience))
			sl_timer_start(w->loop, &work->patience, 0, on_patience);
		return false;
	}
	tls->is_open = true;
	sl_count_add(&work->n_open, 1);
	return true;
}

/* ---- steps ---- */

static int want_ktls(struct sl_conn *c, enum sl_side side)
{
	return c->worker->tls.no_ktls ? 0 : sl_tls_stream_want_ktls(c->tls->stream[side]);
}

static int open_client(struct sl_conn *c)
{
	struct sl_conn_tls *tls = c->tls;
	struct sl_slice hello = sl_conn_in_hand(c);
	struct sl_tls_tickets *tickets = take_tickets(c->worker->tls.tickets);
	int r = sl_tls_accept(tls->secure->server, tls->secure->certs, tickets, &sl_tls_socket,
			      sl_tls_fd(c->side[SL_CLIENT].io.fd), &tls->stream[SL_CLIENT]);

	sl_tls_tickets_unref(tickets);
	if (r == 0)
		r = want_ktls(c, SL_CLIENT);
	if (r == 0)
		r = sl_tls_stream_unread(tls->stream[SL_CLIENT], hello.p, hello.n);
	if (r == 0)
		sl_conn_consume(c, hello.n);
	return r;
}

static int open_backend(struct sl_conn *c)
{
	struct sl_tls_target *target = NULL;
	struct sl_tls_facts facts;
	int r = find_target(c, &target);

	if (r == 0)
		r = sl_tls_target_connect(target, &sl_tls_socket,
					  sl_tls_fd(c->side[SL_BACKEND].io.fd),
					  &c->tls->stream[SL_BACKEND]);
	if (r == 0)
		r = want_ktls(c, SL_BACKEND);
	if (r < 0 || !sl_tls_is(c->tls, SL_CLIENT))
		return r;
	/* The client speaks what was agreed with it, so the target must, too. */
	sl_tls_stream_facts(c->tls->stream[SL_CLIENT], &facts);
	return facts.alpn_len
		       ? sl_tls_stream_offer(c->tls->stream[SL_BACKEND], facts.alpn, facts.alpn_len)
		       : 0;
}

static int open_stream(struct sl_conn *c)
{
	if (c->tls->stream[c->tls->side])
		return 0;
	return c->tls->side == SL_CLIENT ? open_client(c) : open_backend(c);
}

/* A reset that came during the last step: its edge has been used up, and no engine sees another. */
static int pending_error(const struct sl_conn *c, enum sl_side side)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (c->side[side].read_to_end)
		(void)getsockopt(c->side[side].io.fd, SOL_SOCKET, SO_ERROR, &err, &len);
	return -err;
}

static void judge(struct sl_conn_tls *tls, int r)
{
	struct sl_conn *c = tls->conn;

	if (r == SL_TLS_OUT)
		sl_conn_want_out(c, tls->side);
	if (r == SL_TLS_OUT || r == SL_TLS_IN) {
		ask(tls);
		if (tls->is_due)
			queue_step(c);
		return;
	}
	leave_line(tls);
	if (r == SL_TLS_GO)
		r = pending_error(c, tls->side);
	if (r == SL_TLS_GO)
		succeeded(c);
	else
		failed(c, r);
}

/* In the worker's loop again. */
static void on_made(struct sl_task *task)
{
	struct sl_signer_job *job = SL_CONTAINER_OF(task, struct sl_signer_job, done);
	struct sl_conn_tls *tls = SL_CONTAINER_OF(job, struct sl_conn_tls, job);
	bool is_orphan = !tls->conn;

	come_back(tls);
	if (!is_orphan)
		judge(tls, job->result);
}

/* Those of targets are not: their sessions are the worker's. */
static bool give_away(struct sl_conn_tls *tls)
{
	struct sl_worker *w = tls->conn->worker;
	struct sl_tls_work *work = &w->tls;

	if (tls->side != SL_CLIENT || !work->has_flows)
		return false;
	if (!work->signer && sl_signer_new(w->loop, w->index, &work->signer) < 0)
		return false;
	tls->is_away = true;
	sl_list_add(&work->away, &tls->node);
	tls->job = (struct sl_signer_job){ .stream = tls->stream[SL_CLIENT], .on_done = on_made };
	sl_list_init(&tls->job.node);
	sl_signer_give(work->signer, &tls->job);
	return true;
}

static void run_step(struct sl_conn_tls *tls)
{
	struct sl_conn *c = tls->conn;
	int r;

	if (!may_open(tls))
		return;
	tls->is_due = false;
	r = open_stream(c);
	if (r < 0) {
		leave_line(tls);
		if (r == -ENOMEM) /* what is queued waits for better times */
			sl_listener_pause(c->worker, r);
		sl_conn_end(c, SL_REASON_ERROR, true);
		return;
	}
	if (c->side[tls->side].hung_up || c->side[tls->side].read_to_end)
		sl_tls_stream_read_to_end(tls->stream[tls->side]);
	if (!give_away(tls))
		judge(tls,
		      sl_tls_stream_handshake(tls->stream[tls->side], &c->worker->tls.scratch));
}

/*
 * Whether flows that have lasted would have to wait for the steps. The registry begins with the
 * oldest connections.
 */
static void look_for_flows(struct sl_worker *w, uint64_t now_us)
{
	struct sl_tls_work *work = &w->tls;
	struct sl_list *pos;
	int left = LOOK_AT;

	if (now_us / 1000 < work->looked_ms + LOOK_MS)
		return;
	work->looked_ms = now_us / 1000;
	work->has_flows = false;
	sl_list_for_each (pos, &w->conns) {
		const struct sl_conn *c = SL_CONTAINER_OF(pos, struct sl_conn, node);

		if (left-- == 0 || (!c->is_cursor && c->accepted_us + LASTING_US > now_us))
			return;
		if (c->is_cursor || !c->engine || c->engine->is_in_kernel)
			continue;
		work->has_flows = true;
		return;
	}
}

static void on_turn(struct sl_task *task)
{
	struct sl_tls_work *work = SL_CONTAINER_OF(task, struct sl_tls_work, task);
	struct sl_worker *w = SL_CONTAINER_OF(work, struct sl_worker, tls);
	uint64_t now_us = sl_loop_now_us(w->loop);
	uint64_t until_us;

	look_for_flows(w, now_us);
	until_us = now_us + (work->has_flows ? TURN_WITH_FLOWS_US : SL_TLS_TURN_US);
	while (!sl_list_is_empty(&work->ready)) {
		struct sl_conn_tls *tls =
			SL_CONTAINER_OF(work->ready.next, struct sl_conn_tls, node);

		sl_list_remove(&tls->node);
		run_step(tls);
		if (sl_loop_now_us(w->loop) >= until_us)
			break;
	}
	if (!sl_list_is_empty(&work->ready))
		sl_loop_again(w->loop, task, on_turn);
}

/* ---- begin ---- */

bool sl_tls_wants_backend(const struct sl_conn *c)
{
	return c->route->conf->backend_tls != NULL;
}

static bool make_tls(struct sl_conn *c)
{
	struct sl_conn_tls *tls;

	if (c->tls)
		return true;
	tls = calloc(1, sizeof(*tls));
	if (!tls)
		return false;
	tls->conn = c;
	tls->work = &c->worker->tls;
	tls->orphan_fd = -1;
	sl_list_init(&tls->node);
	sl_list_init(&tls->turn);
	tls->secure = sl_generation_get_secure(c->gen, c->route);
	c->tls = tls;
	return tls->secure != NULL;
}

/* Before it is connected it is the client's turn. */
static enum sl_side whose_turn(const struct sl_conn *c)
{
	return c->side[SL_BACKEND].io.fd >= 0 ? SL_BACKEND : SL_CLIENT;
}

void sl_tls_begin(struct sl_conn *c)
{
	if (!make_tls(c)) {
		sl_conn_end(c, SL_REASON_ERROR, true);
		return;
	}
	c->tls->side = whose_turn(c);
	if (c->tls->side == SL_CLIENT && !c->hello)
		sl_classify_read(c);
	else if (c->tls->side == SL_CLIENT)
		sl_tls_got_hello(c);
	else
		queue_step(c);
}

void sl_tls_got_hello(struct sl_conn *c)
{
	if (!sl_conn_keep(c) ||
	    (c->side[SL_CLIENT].io.fn == NULL && sl_conn_watch(c, SL_CLIENT, false) < 0))
		sl_conn_end(c, SL_REASON_ERROR, true);
	else
		queue_step(c);
}

void sl_tls_on_socket(struct sl_conn *c, enum sl_side side, uint32_t events)
{
	if (c->tls->side == SL_CLIENT && !c->tls->stream[SL_CLIENT] &&
	    sl_list_is_empty(&c->tls->node)) {
		sl_classify_on_socket(c); /* the ClientHello is still to come */
		return;
	}
	if (side == c->tls->side) {
		queue_step(c);
		return;
	}
	c->missed_events = true;
	sl_connect_on_socket(c, SL_CLIENT, events); /* it may leave, as during the connect */
}

/* ---- the end ---- */

void sl_tls_end(struct sl_conn *c)
{
	struct sl_conn_tls *tls = c->tls;

	for (int i = 0; tls && !tls->is_away && i < SL_SIDE_COUNT_; i++) {
		struct sl_tls_stream *s = tls->stream[i];

		/* an end that was cut short must not look like one that was not */
		if (s && sl_tls_stream_is_ready(s) &&
		    !tls->is_cut[i == SL_CLIENT ? SL_BACKEND : SL_CLIENT])
			(void)sl_tls_stream_end(s, &c->worker->tls.scratch);
	}
}

void sl_tls_drop_backend(struct sl_conn *c)
{
	if (!c->tls)
		return;
	leave_line(c->tls);
	sl_tls_stream_free(SL_TAKE_PTR(c->tls->stream[SL_BACKEND]));
}

void sl_tls_take_socket(struct sl_conn *c)
{
	c->tls->orphan_fd = SL_TAKE_FD(c->side[SL_CLIENT].io.fd);
}

void sl_tls_leave(struct sl_conn *c)
{
	struct sl_conn_tls *tls = c->tls;

	if (!tls)
		return;
	c->tls = NULL;
	if (tls->is_away) { /* it keeps its place: the stream is still there */
		__atomic_store_n(&tls->job.is_void, true, __ATOMIC_RELAXED);
		tls->conn = NULL;
	} else {
		leave_line(tls);
		free_tls(tls);
	}
}

void sl_tls_fail(struct sl_conn *c, enum sl_side side, int err)
{
	if (err == -EPROTO)
		log_failure(c, side, "", sl_tls_stream_error(c->tls->stream[side]));
	sl_conn_fail(c, side, err == -EPROTO ? SL_REASON_TLS_ERROR : sl_reason_from_errno(-err));
}

ssize_t sl_tls_recv(struct sl_conn *c, enum sl_side side, void *buf, size_t n)
{
	struct sl_tls_stream *s = c->tls->stream[side];
	size_t got = 0;
	int r;

	if (c->side[side].hung_up || c->side[side].read_to_end)
		sl_tls_stream_read_to_end(s);
	r = sl_tls_stream_read(s, &c->worker->tls.scratch, buf, n, &got);
	if (got > 0)
		return (ssize_t)got;
	if (r == SL_TLS_CUT)
		return -ECONNABORTED;
	return r < 0 ? r : r == SL_TLS_END ? 0 : -EAGAIN;
}

/* ---- views ---- */

void sl_tls_row(const struct sl_conn *c, enum sl_side side, struct sl_tls_row *ret)
{
	struct sl_tls_facts f;

	*ret = (struct sl_tls_row){ 0 };
	if (!sl_tls_is(c->tls, side) || c->tls->is_away ||
	    !sl_tls_stream_is_ready(c->tls->stream[side]))
		return;
	sl_tls_stream_facts(c->tls->stream[side], &f);
	(void)snprintf(ret->version, sizeof(ret->version), "%s", f.version);
	(void)snprintf(ret->cipher, sizeof(ret->cipher), "%s", f.cipher);
	(void)snprintf(ret->alpn, sizeof(ret->alpn), "%.*s", (int)f.alpn_len, f.alpn ? f.alpn : "");
	(void)snprintf(ret->peer, sizeof(ret->peer), "%.*s", (int)sizeof(ret->peer) - 1,
		       f.peer_subject);
	(void)snprintf(ret->ktls, sizeof(ret->ktls), "%s",
		       sl_tls_stream_has_ktls(c->tls->stream[side]) ? "tx+rx" : "off");
	ret->ktls_why = c->tls->work->no_ktls;
	if (!ret->ktls_why)
		ret->ktls_why = sl_tls_stream_ktls_why(c->tls->stream[side]);
	ret->is_resumed = f.is_resumed;
	ret->is_verified = f.is_verified;
}
