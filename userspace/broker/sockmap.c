/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/sockmap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/peer.h"
#include "broker/state.h"

#define PAIRS (SL_SOCKMAP_SLOTS / 2)
/* Events of one turn; a worker finds what is not told by itself, within a second. */
#define EVENTS 4096
/* One walk takes a second, or longer where there are more pairs than slices hold. */
#define SLICE 256
#define SLICE_MS 50
/* A packet has met no entry: its connection stands still until it is found. */
#define QUICK_SLICE_MS 5
#define ROUND_MS 1000
/* While sockets of a proxy that has gone are being closed. */
#define HASTE_MS 50
/* Looks that have to agree, because the end of a connection may be on its way. */
#define MISSING_LOOKS 2
/* For a proxy to say what it holds. */
#define CLAIM_MS 5000
#define CHECKS 3
/* With more connections than this, only each so many-th walk looks for entries of none. */
#define SWEEP_PAIRS 2000
#define SWEEP_ROUNDS 10

static void on_timer(struct sl_timer *timer);

static struct sl_sockmap_keeper *keeper(struct sl_broker *b)
{
	return &b->sockmap;
}

bool sl_sockmap_keeper_is_on(const struct sl_broker *b)
{
	return b->sockmap.maps && sl_broker_policy(b);
}

bool sl_sockmap_keeper_is_off_for_now(const struct sl_broker *b)
{
	return !b->sockmap.maps && b->sockmap.open_error < 0 && b->sockmap.open_error != -ENOTSUP;
}

static void walk_later(struct sl_broker *b, uint64_t ms)
{
	sl_timer_start(b->loop, &keeper(b)->timer, sl_loop_now_ms(b->loop) + ms, on_timer);
}

/* ---- telling workers ---- */

static struct sl_peer *peer_of(const struct sl_broker *b, const struct sl_sockmap_owner *o)
{
	struct sl_list *i;

	if (!o->is_held)
		return NULL;
	sl_list_for_each (i, &b->peers) {
		struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		if (p->proxy == o->proxy && p->worker == o->worker)
			return p;
	}
	return NULL;
}

/* False: the channel is full. Of a spill the worker finds out by itself. */
static bool tell(const struct sl_broker *b, const struct sl_sockmap_owner *o, uint32_t lost)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_CHANGED,
					   .conn_id = o->conn_id,
					   .flag = lost };
	struct sl_peer *p = peer_of(b, o);

	return p && sl_peer_hint(p, &msg);
}

/* For tell(): these sockets of the pair are in no map any more. */
static uint32_t lost_flag(uint32_t pair, uint32_t sides)
{
	return pair << SL_BROKER_SOCKMAP_PAIR_SHIFT | SL_BROKER_SOCKMAP_LOST | sides;
}

/* From the first one on. */
static void walk_at_once(struct sl_broker *b)
{
	keeper(b)->cursor = UINT32_MAX;
	walk_later(b, 0);
}

/* Each of a flood of events would have it begin anew, and never get to those behind. */
static void walk_in_haste(struct sl_broker *b)
{
	struct sl_sockmap_keeper *k = keeper(b);

	k->has_more_haste = k->is_in_haste;
	if (k->is_in_haste)
		return;
	k->is_in_haste = true;
	walk_at_once(b);
}

static void on_event(void *arg, const struct sl_sockmap_event *e)
{
	struct sl_broker *b = arg;
	uint32_t pair = e->slot / 2;

	if (e->conn_id == 0) /* its entry was taken away: found and mended by the walk */
		walk_in_haste(b);
	else if (pair < PAIRS && keeper(b)->pair[pair].conn_id == e->conn_id)
		(void)tell(b, &keeper(b)->pair[pair], 0);
}

static void on_events(struct sl_io *io, uint32_t events)
{
	struct sl_broker *b = SL_CONTAINER_OF(io, struct sl_broker, sockmap.events_io);

	(void)events;
	if (sl_sockmap_events(b->sockmap.maps, EVENTS, on_event, b) < 0)
		sl_io_stop(io); /* workers look by themselves */
}

/* ---- the walk ---- */

static void give_up(struct sl_broker *b, uint32_t pair)
{
	struct sl_sockmap_keeper *k = keeper(b);

	sl_sockmap_leave(k->maps, pair, k->pair[pair].conn_id);
	k->pair[pair] = (struct sl_sockmap_owner){ 0 };
}

/* Both of its sockets are closed, or somebody has taken them out. */
static bool is_gone(const struct sl_sockmap_facts *f)
{
	return !f->is_target[0] && !f->is_target[1] && !f->is_source[0] && !f->is_source[1];
}

/* Bit n: socket n is in neither map, and what was queued to it is lost. */
static uint32_t lost_sockets(const struct sl_sockmap_facts *f)
{
	uint32_t lost = 0;

	for (uint32_t i = 0; i < 2; i++)
		if (!f->is_target[i] && !f->is_source[i])
			lost |= UINT32_C(1) << i;
	return lost;
}

static bool is_whole(const struct sl_broker *b, uint32_t pair, const struct sl_sockmap_facts *f)
{
	const struct sl_sockmap_slot *slots = sl_sockmap_slots(b->sockmap.maps);

	for (uint32_t i = 0; i < 2; i++) {
		bool never_source = slots[2 * pair + i].why == SL_SOCKMAP_NO_SOURCE;

		if (!f->is_target[i] || (!f->is_source[i] && !never_source))
			return false;
	}
	return true;
}

static void note_socket(struct sl_broker *b, const struct sl_sockmap_owner *o, int side,
			enum sl_drift_done done, const char *map, const char *how)
{
	char text[96];

	(void)snprintf(text, sizeof(text), "entry of %s, connection %" PRIu64 ", %s's socket", map,
		       o->conn_id, sl_side_name((enum sl_side)side));
	sl_drift_note(&b->drift, SL_DRIFT_SOCKMAP_ENTRY, done, text, NULL, "%s", how);
}

static void note_orphan(struct sl_broker *b, uint64_t conn_id, const char *how)
{
	char text[96];

	(void)snprintf(text, sizeof(text), "entries of sockmap_flows, connection %" PRIu64,
		       conn_id);
	sl_drift_note(&b->drift, SL_DRIFT_SOCKMAP_ORPHAN, SL_DRIFT_REMOVED, NULL, text, "%s", how);
}

/* "pin" or "program", each name followed by a blank. */
static void note_objects(struct sl_broker *b, const char *names)
{
	while (*names) {
		size_t n = strcspn(names, " ");
		bool is_program = strncmp(names, SL_SOCKMAP_ATTACHED " ", n + 1) == 0;
		char text[64];

		(void)snprintf(text, sizeof(text),
			       is_program ? "%.*s on sockmap_sources" : "pin %.*s", (int)n, names);
		sl_drift_note(&b->drift,
			      is_program ? SL_DRIFT_SOCKMAP_PROGRAM : SL_DRIFT_SOCKMAP_PIN,
			      SL_DRIFT_REPAIRED, text, NULL,
			      is_program ? "attached again" : "pinned again");
		names += names[n] ? n + 1 : n;
	}
}

static void restore(struct sl_broker *b, uint32_t pair, const struct sl_sockmap_facts *f)
{
	struct sl_sockmap_owner *o = &keeper(b)->pair[pair];

	if ((f->has_flow[0] && f->has_flow[1]) || sl_sockmap_restore(b->sockmap.maps, pair) <= 0)
		return;
	for (int i = 0; i < 2; i++)
		if (!f->has_flow[i])
			note_socket(b, o, i, SL_DRIFT_REPAIRED, "sockmap_flows", "made again");
	keeper(b)->n_repaired++;
	sl_log_conn(SL_LOG_WARN, o->conn_id,
		    "sockmap: its entry of sockmap_flows was gone, it is there again");
	(void)tell(b, o, 0);
}

/* The worker has the sockets: it goes on with them. */
static void missing(struct sl_broker *b, uint32_t pair, const struct sl_sockmap_facts *f)
{
	struct sl_sockmap_owner *o = &keeper(b)->pair[pair];

	if (o->was_told || (o->n_missing < MISSING_LOOKS && ++o->n_missing < MISSING_LOOKS))
		return;
	o->was_told = tell(b, o, lost_flag(pair, lost_sockets(f)));
	if (!o->was_told) /* with the next look: nobody else would read what comes */
		return;
	for (int i = 0; i < 2; i++) {
		if (!f->is_target[i])
			note_socket(b, o, i, SL_DRIFT_REPAIRED, "sockmap_targets",
				    "the relay goes on with the connection");
		if (!f->is_source[i])
			note_socket(b, o, i, SL_DRIFT_REPAIRED, "sockmap_sources",
				    "the relay goes on with the connection");
	}
	keeper(b)->n_repaired++;
	sl_log_conn(
		SL_LOG_WARN, o->conn_id,
		"sockmap: somebody has taken a socket of it out of the kernel's maps, the relay "
		"goes on with it");
}

static void look_at(struct sl_broker *b, uint32_t pair)
{
	struct sl_sockmap_keeper *k = keeper(b);
	struct sl_sockmap_owner *o = &k->pair[pair];
	struct sl_sockmap_facts f;

	sl_sockmap_look(k->maps, pair, &f);
	if (f.conn_id == 0) {
		*o = (struct sl_sockmap_owner){ 0 };
		return;
	}
	if (o->conn_id != f.conn_id)
		*o = (struct sl_sockmap_owner){ .conn_id = f.conn_id,
						.since_ms = sl_loop_now_ms(b->loop) };
	if (!o->is_held && is_gone(&f)) {
		k->n_dropped++;
		note_orphan(b, f.conn_id, "its sockets are closed");
		give_up(b, pair);
		return;
	}
	if (!o->is_held && sl_loop_now_ms(b->loop) - o->since_ms >= CLAIM_MS)
		k->n_orphans_now++;
	restore(b, pair, &f);
	if (is_whole(b, pair, &f))
		o->n_missing = 0;
	else if (o->is_held)
		missing(b, pair, &f);
}

static bool has_unheld(const struct sl_sockmap_keeper *k)
{
	uint32_t pair = UINT32_MAX;

	while (sl_sockmap_next(k->maps, &pair))
		if (!k->pair[pair].is_held)
			return true;
	return false;
}

static void look_at_objects(struct sl_broker *b, bool was_detached)
{
	struct sl_sockmap_keeper *k = keeper(b);
	_cleanup_(sl_str_done) struct sl_str names = { 0 };
	unsigned repaired = 0;

	if (was_detached) {
		sl_str_adds(&names, SL_SOCKMAP_ATTACHED " ");
		k->n_repaired++;
	}
	if (sl_sockmap_repin(k->maps, &repaired, &names) < 0 || names.len == 0)
		return;
	note_objects(b, sl_str_text(&names));
	sl_log(SL_LOG_WARN, "sockmap: put back in %s: %.*s", sl_broker_policy(b)->bpf_dir,
	       (int)names.len - 1, sl_str_text(&names));
	k->n_repaired += repaired;
}

/* A walk through the whole of sockmap_flows: less often when it is large. */
static void sweep(struct sl_broker *b)
{
	struct sl_sockmap_keeper *k = keeper(b);
	size_t n_swept;

	if (k->n_rounds++ % SWEEP_ROUNDS != 0 && sl_sockmap_n_pairs(k->maps) > SWEEP_PAIRS)
		return;
	n_swept = sl_sockmap_sweep(k->maps);
	if (n_swept == 0)
		return;
	sl_log(SL_LOG_WARN,
	       "sockmap: removed %zu entr%s of sockmap_flows that no connection explains", n_swept,
	       n_swept == 1 ? "y" : "ies");
	sl_drift_note(&b->drift, SL_DRIFT_SOCKMAP_ORPHAN, SL_DRIFT_REMOVED, NULL,
		      "entries of sockmap_flows that no connection explains", "removed");
	k->n_dropped += (uint32_t)n_swept;
}

static void end_round(struct sl_broker *b)
{
	struct sl_sockmap_keeper *k = keeper(b);

	sweep(b);
	k->n_orphans = k->n_orphans_now;
	k->n_orphans_now = 0;
	look_at_objects(b, false);
	sl_broker_touch(b);
}

/* False: that was the end of a round. */
static bool walk(struct sl_broker *b, size_t n)
{
	struct sl_sockmap_keeper *k = keeper(b);

	for (size_t i = 0; i < n; i++) {
		if (!sl_sockmap_next(k->maps, &k->cursor)) {
			k->cursor = UINT32_MAX;
			end_round(b);
			return false;
		}
		look_at(b, k->cursor);
	}
	return true;
}

static void on_timer(struct sl_timer *timer)
{
	struct sl_broker *b = SL_CONTAINER_OF(timer, struct sl_broker, sockmap.timer);
	struct sl_sockmap_keeper *k = keeper(b);
	bool has_more = walk(b, SLICE);

	if (!has_more) {
		k->is_in_haste = k->has_more_haste;
		k->has_more_haste = false;
	}
	walk_later(b, k->is_in_haste              ? QUICK_SLICE_MS
		      : has_more || has_unheld(k) ? SLICE_MS
						  : ROUND_MS);
}

void sl_sockmap_reconcile_now(struct sl_broker *b)
{
	if (!b->sockmap.maps)
		return;
	keeper(b)->cursor = UINT32_MAX;
	while (walk(b, SLICE))
		;
}

/* ---- on and off ---- */

static void off(struct sl_broker *b, int err, enum sl_engine_reason why, const char *text)
{
	struct sl_sockmap_keeper *k = keeper(b);

	k->open_error = err;
	k->why_off = why;
	(void)snprintf(k->off_text, sizeof(k->off_text), "%s", text);
	sl_log(SL_LOG_WARN, "sockmap: off (%s), connections stay on relay", text);
}

static int start(struct sl_broker *b)
{
	struct sl_sockmap_keeper *k = keeper(b);

	k->pair = calloc(PAIRS, sizeof(*k->pair));
	if (!k->pair)
		return -ENOMEM;
	walk_at_once(b);
	return sl_io_start(b->loop, &k->events_io, sl_sockmap_events_fd(k->maps), SL_IO_IN,
			   on_events);
}

/* On a machine that has no time for it one may fail. */
static int check(struct sl_sockmap *maps, struct sl_str *report)
{
	int r = -EIO;

	for (int i = 0; r < 0 && i < CHECKS; i++) {
		sl_str_clear(report);
		r = sl_sockmap_check(maps, report);
	}
	return r;
}

static void turn_on(struct sl_broker *b)
{
	const struct sl_sockmap_options options = { .dir = sl_broker_policy(b)->bpf_dir,
						    .has_lock = b->packet };
	_cleanup_(sl_str_done) struct sl_str report = { 0 };
	struct sl_sockmap_keeper *k = keeper(b);
	struct sl_sockmap_found found = { 0 };
	int r = sl_sockmap_open(&options, &found, &report, &k->maps);

	if (r < 0) {
		off(b, r,
		    r == -EPERM || r == -EACCES ? SL_WHY_NO_PRIVILEGE : SL_WHY_NOT_LINUX_SUPPORTED,
		    report.len ? sl_str_text(&report) : strerror(-r));
		return;
	}
	r = check(k->maps, &report);
	if (r == 0)
		r = start(b);
	if (r < 0) {
		sl_sockmap_keeper_close(b);
		off(b, r, SL_WHY_SELF_TEST_FAILED,
		    report.len ? sl_str_text(&report) : strerror(-r));
		return;
	}
	k->why_off = SL_WHY_NONE;
	k->open_error = 0;
	sl_info("sockmap: on, found %" PRIu32 " connection%s%s%s%s", found.n_pairs,
		found.n_pairs == 1 ? "" : "s", found.why[0] ? " (" : "", found.why,
		found.why[0] ? ")" : "");
}

void sl_sockmap_keeper_policy(struct sl_broker *b)
{
	const struct sl_policy *policy = sl_broker_policy(b);
	struct sl_list *i;

	if (b->sockmap.maps || b->sockmap.why_off != SL_WHY_NONE ||
	    (!policy->wants_sockmap && !sl_sockmap_is_pinned(policy->bpf_dir)))
		return;
	turn_on(b);
	sl_list_for_each (i, &b->peers) /* they came before there was something to say */
		sl_peer_flush_later(SL_CONTAINER_OF(i, struct sl_peer, node));
}

void sl_sockmap_keeper_close(struct sl_broker *b)
{
	struct sl_sockmap_keeper *k = keeper(b);

	sl_io_stop(&k->events_io);
	sl_timer_stop(&k->timer);
	sl_sockmap_close(k->maps);
	k->maps = NULL;
	free(k->pair);
	k->pair = NULL;
}

/* Closed, the maps would let go of them some time later, and nobody would read what comes. */
void sl_sockmap_keeper_take_out(struct sl_broker *b)
{
	struct sl_sockmap_keeper *k = keeper(b);
	uint32_t pair = UINT32_MAX;

	while (k->maps && sl_sockmap_next(k->maps, &pair)) {
		sl_sockmap_take_out(k->maps, pair);
		(void)tell(b, &k->pair[pair], lost_flag(pair, SL_BROKER_SOCKMAP_SIDES));
	}
}

void sl_sockmap_keeper_remove(struct sl_broker *b)
{
	_cleanup_(sl_str_done) struct sl_str report = { 0 };
	const char *dir = sl_broker_policy(b)->bpf_dir;
	int r = sl_sockmap_purge(dir, &report);

	if (r < 0)
		(void)sl_warn(r, "sockmap: cannot remove everything in %s; try sluiced --purge",
			      dir);
}

/* ---- requests ---- */

static bool is_final(enum sl_engine_reason why)
{
	return why == SL_WHY_NO_PRIVILEGE || why == SL_WHY_HALF_CLOSED || why == SL_WHY_NEEDS_TLS ||
	       why == SL_WHY_MPTCP || why == SL_WHY_SELF_TEST_FAILED ||
	       why == SL_WHY_NOT_LINUX_SUPPORTED;
}

static enum sl_engine_reason why_of(int r)
{
	switch (r) {
	case 0:
		return SL_WHY_ELIGIBLE;
	case -ENOSPC:
	case -E2BIG:
	case -ENOMEM:
		return SL_WHY_MAP_FULL;
	case -EOPNOTSUPP:
		return SL_WHY_HALF_CLOSED;
	case -EEXIST:
		return SL_WHY_NO_PRIVILEGE;
	case -EAGAIN:
		return SL_WHY_RATE_LIMITED;
	case -ENOENT: /* RESOLVE: nothing has happened to it */
		return SL_WHY_NOT_QUIESCENT;
	default:
		return SL_WHY_NOT_LINUX_SUPPORTED;
	}
}

static enum sl_engine_reason check_room(struct sl_peer *p, bool is_new)
{
	const struct sl_broker *b = p->broker;

	if (!sl_sockmap_keeper_is_on(b))
		return b->sockmap.why_off ? b->sockmap.why_off : SL_WHY_NO_PRIVILEGE;
	return !is_new || sl_peer_take_token(p) ? SL_WHY_NONE : SL_WHY_RATE_LIMITED;
}

static enum sl_engine_reason check_sockets(const struct sl_broker *b,
					   const int fds[SL_BROKER_MAX_FDS],
					   struct sl_sock_facts sock[2],
					   struct sl_sockmap_pair *ret)
{
	for (int i = 0; i < 2; i++) {
		enum sl_engine_reason why = sl_validate_sock(&b->validator, fds[i], &sock[i]);

		if (why != SL_WHY_NONE)
			return why;
		ret->fd[i] = fds[i];
		ret->cookie[i] = sock[i].cookie;
	}
	return SL_WHY_NONE;
}

static enum sl_engine_reason check_policy(const struct sl_broker *b,
					  const struct sl_broker_msg *msg,
					  const struct sl_sock_facts sock[2],
					  struct sl_sockmap_pair *ret)
{
	const struct sl_policy *policy = sl_broker_generation(b, msg->handover.generation);

	if (!policy) /* a newer one is on its way from the supervisor, perhaps */
		return msg->handover.generation > sl_broker_policy(b)->generation
			       ? SL_WHY_RATE_LIMITED
			       : SL_WHY_NO_PRIVILEGE;
	ret->limit = policy->sockmap_limit;
	return sl_validate_pair(policy, msg->handover.route, true, &sock[0], &sock[1]);
}

/* The program is on sockmap_sources, perhaps again. */
static int ensure_program(struct sl_broker *b)
{
	int r = sl_sockmap_ensure_program(b->sockmap.maps);

	if (r > 0)
		look_at_objects(b, true);
	return r;
}

static int join(struct sl_broker *b, const struct sl_broker_msg *msg,
		const struct sl_sockmap_pair *pair, uint32_t *ret)
{
	struct sl_sockmap *maps = b->sockmap.maps;
	int r = ensure_program(b);

	if (r < 0)
		return r;
	r = msg->type == SL_BROKER_RESOLVE ? sl_sockmap_resolve(maps, pair, ret)
					   : sl_sockmap_join(maps, pair, ret);
	if (r < 0 || ensure_program(b) == 0)
		return r;
	/* Detached in between: as a source without a program nobody would ever read it. */
	sl_sockmap_leave(maps, *ret, pair->conn_id);
	return -EAGAIN;
}

static enum sl_engine_reason try(struct sl_peer *p, const struct sl_broker_msg *msg,
				 int fds[SL_BROKER_MAX_FDS], uint32_t *ret_pair)
{
	struct sl_broker *b = p->broker;
	struct sl_sockmap_pair pair = { .conn_id = msg->conn_id };
	struct sl_sock_facts sock[2];
	bool is_new = msg->type != SL_BROKER_RESOLVE;
	enum sl_engine_reason why = check_room(p, is_new);
	int r;

	if (why == SL_WHY_NONE)
		why = check_sockets(b, fds, sock, &pair);
	/*
	 * What an earlier broker has begun was allowed, and is finished or taken back: a worker who
	 * is refused goes on with the sockets as if they were in no map.
	 */
	if (why == SL_WHY_NONE && is_new)
		why = check_policy(b, msg, sock, &pair);
	if (why != SL_WHY_NONE)
		return why;
	r = join(b, msg, &pair, ret_pair);
	if (r == 0)
		keeper(b)->pair[*ret_pair] = (struct sl_sockmap_owner){ .conn_id = msg->conn_id,
									.proxy = p->proxy,
									.worker = p->worker,
									.is_held = true };
	sl_broker_touch(b);
	return why_of(r);
}

void sl_sockmap_serve(struct sl_peer *p, const struct sl_broker_msg *msg,
		      int fds[SL_BROKER_MAX_FDS])
{
	struct sl_broker_msg answer = { .type = SL_BROKER_RESULT, .conn_id = msg->conn_id };
	uint32_t pair = 0;
	enum sl_engine_reason why = try(p, msg, fds, &pair);

	if (why == SL_WHY_NO_PRIVILEGE && sl_sockmap_keeper_is_on(p->broker) &&
	    sl_broker_may_warn(p->broker))
		sl_log_conn(SL_LOG_WARN, msg->conn_id,
			    "sockmap: refused a hand-over that the configuration does not allow");
	answer.result.why = why;
	answer.result.is_final = is_final(why);
	answer.result.pair = pair;
	sl_broker_close_fds(fds); /* before the answer: the worker may close its own at once */
	sl_peer_reply(p, &answer);
}

static struct sl_sockmap_owner *owner_of(const struct sl_peer *p, const struct sl_broker_msg *msg)
{
	struct sl_sockmap_keeper *k = keeper(p->broker);
	struct sl_sockmap_owner *o;

	if (!k->maps || msg->flag >= PAIRS)
		return NULL;
	o = &k->pair[msg->flag];
	return o->conn_id == msg->conn_id && (!o->is_held || o->proxy == p->proxy) ? o : NULL;
}

void sl_sockmap_left(const struct sl_peer *p, const struct sl_broker_msg *msg)
{
	if (!owner_of(p, msg))
		return;
	give_up(p->broker, msg->flag);
	sl_broker_touch(p->broker);
}

void sl_sockmap_held(struct sl_peer *p, const struct sl_broker_msg *msg)
{
	const struct sl_broker_msg lost = { .type = SL_BROKER_CHANGED,
					    .conn_id = msg->conn_id,
					    /* no socket of it is known to be there */
					    .flag = SL_BROKER_SOCKMAP_LOST |
						    SL_BROKER_SOCKMAP_SIDES };
	struct sl_sockmap_owner *o;

	if (p->broker->sockmap.maps && msg->flag < PAIRS)
		look_at(p->broker, msg->flag); /* what this broker has not met yet */
	o = owner_of(p, msg);
	if (!o) {
		(void)sl_peer_hint(p, &lost);
		return;
	}
	o->proxy = p->proxy;
	o->worker = p->worker;
	o->is_held = true;
	o->was_told = false; /* on another channel, and perhaps not heard */
}

/* Its sockets are being closed, if it has died. */
void sl_sockmap_peer_gone(const struct sl_peer *p)
{
	struct sl_sockmap_keeper *k = keeper(p->broker);
	uint32_t pair = UINT32_MAX;

	if (!k->maps)
		return;
	while (sl_sockmap_next(k->maps, &pair)) {
		struct sl_sockmap_owner *o = &k->pair[pair];

		if (o->proxy != p->proxy || o->worker != p->worker)
			continue;
		o->is_held = false;
		o->since_ms = sl_loop_now_ms(p->broker->loop);
	}
	k->cursor = UINT32_MAX;
	walk_later(p->broker, HASTE_MS);
}
