/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/sweep.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "broker/diff.h"
#include "broker/life.h"
#include "broker/state.h"

/* Also of flows looked at in one turn. */
#define SLICE SL_SWEEP_SLICE
/* In the usual time of a round; an entry costs about 1.5 us. */
#define SLICES_PER_ROUND 20
/* Events in one turn; more are found by the walk, or in the next one. */
#define EVENTS 4096
/* An entry that belongs to no flow goes after that. */
#define GRACE_MS 900
/* One that was not met for so many is gone; a round that is asked for breaks off another. */
#define ROUNDS 3
/* From the first FIN to a look at what has become of the flow. */
#define CLOSE_MS 2

int sl_sweep_init(struct sl_broker *b)
{
	struct sl_sweep *s = &b->sweep;

	*s = (struct sl_sweep){ .round = 1,
				.keys = calloc(SLICE, sizeof(*s->keys)),
				.flows = calloc(SLICE, sizeof(*s->flows)) };
	sl_list_init(&s->closing);
	if (s->keys && s->flows)
		return 0;
	sl_sweep_done(b);
	return -ENOMEM;
}

void sl_sweep_done(struct sl_broker *b)
{
	sl_sweep_stop(b);
	free(b->sweep.keys);
	free(b->sweep.flows);
	b->sweep.keys = NULL;
	b->sweep.flows = NULL;
}

/* ---- what is met ---- */

/* NULL: there are too many already, this one's turn comes. */
static struct sl_stray *stray_of(struct sl_broker *b, const struct sl_packet_key *key)
{
	struct sl_sweep *s = &b->sweep;
	struct sl_stray *free = NULL;

	for (size_t i = 0; i < SL_STRAYS; i++) {
		struct sl_stray *at = &s->stray[i];

		if (at->round + ROUNDS < s->round || at->round == 0)
			free = at;
		else if (memcmp(&at->key, key, sizeof(*key)) == 0)
			return at;
	}
	if (free)
		*free = (struct sl_stray){ .key = *key, .since_ms = sl_loop_now_ms(b->loop) };
	return free;
}

static void remove_stray(struct sl_broker *b, const struct sl_packet_key *key, uint64_t conn_id,
			 const char *text)
{
	int r = sl_packet_delete_stray(b->packet, key);

	if (r < 0 && r != -ENOENT) {
		sl_drift_note(&b->drift, SL_DRIFT_PACKET_STRAY, SL_DRIFT_LEFT, NULL, text,
			      "cannot be removed: %s", strerror(-r));
		return;
	}
	sl_drift_note(&b->drift, SL_DRIFT_PACKET_STRAY, SL_DRIFT_REMOVED, NULL, text,
		      "it belongs to no connection");
	if (sl_broker_may_warn(b))
		sl_log_conn(SL_LOG_WARN, conn_id,
			    "packet: an entry of `flows` belonged to no connection, it is removed");
}

static void find_stray(struct sl_broker *b, const struct sl_packet_key *key,
		       const struct sl_packet_flow *entry)
{
	struct sl_stray *stray = stray_of(b, key);
	char text[SL_DRIFT_TEXT];

	if (!stray)
		return;
	stray->round = b->sweep.round;
	(void)sl_drift_entry_text(key, entry->conn_id, entry->from == SL_PACKET_CLIENT, text);
	if (sl_loop_now_ms(b->loop) - stray->since_ms >= GRACE_MS) {
		stray->round = 0;
		remove_stray(b, key, entry->conn_id, text);
	} else {
		sl_drift_note(&b->drift, SL_DRIFT_PACKET_STRAY, SL_DRIFT_WAITS, NULL, text,
			      "it belongs to no connection, and is removed if it stays");
	}
}

/* Both entries are there, and say the same of each other. */
static bool is_whole(const struct sl_broker *b, const struct sl_packet_key *key,
		     const struct sl_packet_flow *entry)
{
	struct sl_packet_key partner, back;
	struct sl_packet_flow other;

	sl_packet_partner(entry, &partner);
	if (sl_packet_look_up(b->packet, &partner, &other) < 0)
		return false;
	sl_packet_partner(&other, &back);
	return other.conn_id == entry->conn_id && other.from == 1 - entry->from &&
	       memcmp(&back, key, sizeof(back)) == 0;
}

static void note_orphan(struct sl_broker *b, const struct sl_packet_key *key,
			const struct sl_packet_flow *entry)
{
	char text[SL_DRIFT_TEXT];

	(void)sl_drift_entry_text(key, entry->conn_id, entry->from == SL_PACKET_CLIENT, text);
	sl_drift_note(&b->drift, SL_DRIFT_PACKET_ORPHAN, SL_DRIFT_ADOPTED, NULL, text,
		      "offered to the proxy with its other entry");
	if (sl_broker_may_warn(b))
		sl_log_conn(SL_LOG_WARN, entry->conn_id,
			    "packet: a flow in `flows` that nobody had a record of");
}

/* Not made by this process: of an earlier one. */
static struct sl_kflow *adopt(struct sl_broker *b, const struct sl_packet_key *key,
			      const struct sl_packet_flow *entry)
{
	struct sl_packet_key keys[2];
	struct sl_kflow *f = NULL;

	sl_packet_keys(key, entry, keys);
	if (sl_flow_add(b, entry->conn_id, keys, &f) < 0)
		return NULL;
	/* Of others the record is over. */
	if (entry->state != SL_PACKET_KILLED && !entry->told)
		sl_flow_orphan(f);
	if (!b->sweep.is_first)
		note_orphan(b, key, entry);
	return f;
}

static void remove_unfinished(struct sl_broker *b, const struct sl_packet_key *key,
			      const struct sl_packet_flow *entry)
{
	struct sl_packet_key keys[2];

	sl_packet_keys(key, entry, keys);
	(void)sl_broker_order(b, SL_PACKET_OP_REMOVE, entry->conn_id, keys);
}

static bool is_sane(const struct sl_packet_flow *entry)
{
	return entry->from == SL_PACKET_CLIENT || entry->from == SL_PACKET_BACKEND;
}

static void meet(struct sl_broker *b, const struct sl_packet_key *key,
		 const struct sl_packet_flow *entry)
{
	const struct sl_kflow_half *other;
	struct sl_kflow *f;

	if (!is_sane(entry)) {
		find_stray(b, key, entry);
		return;
	}
	f = sl_flow_find(&b->table, entry->conn_id);
	if (!f && entry->state == SL_PACKET_STARTING) { /* nobody is committing now */
		remove_unfinished(b, key, entry);
		return;
	}
	if (!f && !b->sweep.is_first && !is_whole(b, key, entry)) {
		find_stray(b, key, entry);
		return;
	}
	if (!f)
		f = adopt(b, key, entry);
	if (!f)
		return; /* no memory: in the next round */
	if (memcmp(&f->key[entry->from], key, sizeof(*key)) != 0) {
		find_stray(b, key, entry);
		return;
	}
	sl_flow_note(f, entry, b->sweep.round);
	other = &f->half[1 - entry->from];
	if (other->is_here && other->round == b->sweep.round)
		sl_life_judge(f);
}

/* 1: the walk is over. */
static int walk_slice(struct sl_broker *b)
{
	struct sl_sweep *s = &b->sweep;
	size_t n = 0;
	int r = sl_packet_batch(b->flows_fd, &s->cursor, SLICE, s->keys, s->flows, &n);

	for (size_t i = 0; r >= 0 && i < n; i++)
		meet(b, &s->keys[i], &s->flows[i]);
	return r;
}

/* ---- what is not ---- */

static bool was_met(const struct sl_broker *b, const struct sl_kflow *f)
{
	return f->half[0].round == b->sweep.round && f->half[1].round == b->sweep.round;
}

/* 1: none is left. */
static int check_slice(struct sl_broker *b)
{
	struct sl_flow_table *t = &b->table;

	for (size_t i = 0; i < SLICE; i++) {
		struct sl_kflow *f;

		if (sl_list_is_empty(&t->seen))
			return 1;
		f = SL_CONTAINER_OF(t->seen.next, struct sl_kflow, seen);
		if (was_met(b, f))
			return 1;
		sl_list_remove(&f->seen);
		sl_list_add(&t->seen, &f->seen);
		f->half[0].round = b->sweep.round;
		f->half[1].round = b->sweep.round;
		sl_life_look(f);
	}
	return 0;
}

/* ---- rounds ---- */

static void begin_round(struct sl_broker *b)
{
	struct sl_sweep *s = &b->sweep;

	s->n_slices = s->slice;
	s->slice = 0;
	s->is_checking = false;
	s->round++;
	s->round_at_ms = sl_loop_now_ms(b->loop);
	s->cursor = (struct sl_packet_cursor){ 0 };
}

/* 1: the round is over. */
static int step(struct sl_broker *b)
{
	struct sl_sweep *s = &b->sweep;
	int r = s->is_checking ? check_slice(b) : walk_slice(b);

	s->slice++;
	if (r < 0) {
		(void)sl_warn(r, "packet: cannot read `flows`, trying again");
		return 1;
	}
	if (r == 1 && !s->is_checking) {
		/* What has just been deleted with a reason is told with it. */
		sl_sweep_events(b);
		s->is_checking = true;
		r = 0;
	}
	return r;
}

/* A large table is walked more slowly: events tell of ends at once, whatever the round takes. */
static uint64_t round_ms(const struct sl_broker *b)
{
	return b->times.round_ms * (1 + b->sweep.n_slices / SLICES_PER_ROUND);
}

static void on_timer(struct sl_timer *timer)
{
	struct sl_broker *b = SL_CONTAINER_OF(timer, struct sl_broker, sweep.timer);
	struct sl_sweep *s = &b->sweep;
	uint64_t now = sl_loop_now_ms(b->loop);
	uint64_t next;

	if (step(b) == 1) {
		bool was_hurried = s->is_hurried;

		next = s->round_at_ms + round_ms(b);
		begin_round(b);
		s->is_hurried = false;
		s->round_at_ms = next > now ? next : now;
		if (was_hurried)
			sl_diff_walked(b);
	} else if (s->is_hurried) {
		next = now + 1;
	} else {
		next = s->round_at_ms + round_ms(b) * s->slice / (s->n_slices + 1);
	}
	sl_timer_start(b->loop, timer, next > now ? next : now + 1, on_timer);
}

void sl_sweep_now(struct sl_broker *b)
{
	begin_round(b);
	b->sweep.is_hurried = true;
	sl_timer_start(b->loop, &b->sweep.timer, sl_loop_now_ms(b->loop), on_timer);
}

void sl_sweep_start(struct sl_broker *b)
{
	begin_round(b);
	b->sweep.is_first = true;
	while (step(b) == 0)
		;
	b->sweep.is_first = false;
	begin_round(b);
	b->sweep.round_at_ms += b->times.round_ms;
	sl_timer_start(b->loop, &b->sweep.timer, b->sweep.round_at_ms, on_timer);
}

void sl_sweep_stop(struct sl_broker *b)
{
	sl_timer_stop(&b->sweep.timer);
	sl_timer_stop(&b->sweep.look_timer);
}

/* ---- events ---- */

static void on_look_timer(struct sl_timer *timer)
{
	struct sl_broker *b = SL_CONTAINER_OF(timer, struct sl_broker, sweep.look_timer);
	struct sl_list *closing = &b->sweep.closing;
	size_t n = 0;

	/* What has just been deleted with a reason is told with it. */
	sl_sweep_events(b);
	for (const struct sl_list *i = closing->next; i != closing; i = i->next)
		n++;
	/* One that is to be looked at once more comes behind them. */
	for (; n > 0 && !sl_list_is_empty(closing); n--) {
		struct sl_kflow *f = SL_CONTAINER_OF(closing->next, struct sl_kflow, closing);

		sl_list_remove(&f->closing);
		sl_life_look(f);
	}
}

/* A close is four events within a round trip, and mostly one look is enough for them. */
void sl_sweep_look_soon(struct sl_kflow *f)
{
	struct sl_broker *b = f->broker;

	if (sl_list_is_empty(&f->closing))
		sl_list_add(&b->sweep.closing, &f->closing);
	if (!sl_timer_is_armed(&b->sweep.look_timer))
		sl_timer_start(b->loop, &b->sweep.look_timer, sl_loop_now_ms(b->loop) + CLOSE_MS,
			       on_look_timer);
}

static void on_event(void *arg, const struct sl_packet_event *e)
{
	struct sl_broker *b = arg;
	struct sl_kflow *f = sl_flow_find(&b->table, e->conn_id);

	if (!f || f->is_gone)
		return;
	switch (e->kind) {
	case SL_PACKET_EV_FIN:
	case SL_PACKET_EV_FIN_ACKED:
		sl_sweep_look_soon(f);
		break;
	case SL_PACKET_EV_RST:
		/* should a next connection have taken the tuple already */
		f->half[e->from].rst = true;
		sl_life_look(f);
		break;
	case SL_PACKET_EV_REUSED:
		sl_life_reused(f);
		break;
	case SL_PACKET_EV_RST_AHEAD:
		sl_life_ask(f, e->from);
		break;
	}
}

void sl_sweep_events(struct sl_broker *b)
{
	int n = sl_packet_events(b->packet, EVENTS, on_event, b);

	if (n < 0)
		(void)sl_warn(n,
			      "packet: cannot read `events`, ends of flows are found by the walk");
}
