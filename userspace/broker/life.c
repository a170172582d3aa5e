/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/life.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "broker/state.h"

/* Repeats of a kill, after it: a RST, or what draws it, may be lost on the way. */
static const uint32_t kill_again_ms[] = { 200, 1000, 3000 };

static int order(const struct sl_kflow *f, enum sl_packet_op op)
{
	return sl_broker_order(f->broker, op, f->conn_id, f->key);
}

static void end(struct sl_kflow *f, enum sl_broker_end how)
{
	if (f->stage == SL_KFLOW_OVER)
		return;
	sl_timer_stop(&f->timer);
	f->stage = SL_KFLOW_OVER;
	f->how = how;
	f->broker->table.n_over++;
	if (how == SL_BROKER_END_CLOSED)
		sl_linger_end(f);
	sl_broker_touch(f->broker);
	if (f->owner || f->is_orphan)
		sl_peer_tell(f, SL_TELL_ENDED);
}

/* ---- reading ---- */

/* 1: both are there. */
static int read_entries(struct sl_kflow *f)
{
	struct sl_packet_flow entry;
	int n = 0;

	if (!f->broker->packet)
		return -ENODEV;
	for (int i = 0; i < 2; i++) {
		int r = sl_packet_look_up(f->broker->packet, &f->key[i], &entry);

		f->half[i].is_here = r == 0 && entry.conn_id == f->conn_id;
		if (f->half[i].is_here)
			sl_flow_note(f, &entry, f->broker->sweep.round);
		n += f->half[i].is_here;
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return n == 2;
}

/* ---- kill ---- */

static void on_kill_timer(struct sl_timer *timer)
{
	struct sl_kflow *f = SL_CONTAINER_OF(timer, struct sl_kflow, timer);
	uint32_t after = kill_again_ms[f->kill_step++];

	(void)order(f, SL_PACKET_OP_KILL);
	if (f->kill_step < SL_ARRAY_LEN(kill_again_ms))
		sl_timer_start(f->broker->loop, timer,
			       sl_loop_now_ms(f->broker->loop) + kill_again_ms[f->kill_step] -
				       after,
			       on_kill_timer);
}

void sl_life_kill(struct sl_kflow *f, enum sl_broker_end how)
{
	int r;

	if (f->killed_ns)
		return;
	end(f, how);
	f->killed_ns = sl_clock_us() * 1000;
	r = order(f, SL_PACKET_OP_KILL);
	if (r == SL_PACKET_NO_FLOW)
		return; /* the sweep sees that it is gone */
	/* Nothing is forwarded from now on: what its owner is told at the end of the turn. */
	(void)read_entries(f);
	if (r < 0 && sl_broker_may_warn(f->broker))
		sl_log_conn(SL_LOG_WARN, f->conn_id,
			    "packet: cannot reset the flow, trying again: %s", strerror(-r));
	f->kill_step = 0;
	sl_timer_start(f->broker->loop, &f->timer,
		       sl_loop_now_ms(f->broker->loop) + kill_again_ms[0], on_kill_timer);
}

/* ---- over ---- */

static void drop_if_done(struct sl_kflow *f)
{
	/* An orphan without entries can be told to nobody. */
	if (f->is_gone && !f->owner)
		sl_flow_drop(f);
}

/* So noted in the entries, or the next broker would report it once more. */
void sl_life_told(struct sl_kflow *f)
{
	if (!f->is_gone && f->broker->packet)
		(void)order(f, SL_PACKET_OP_TOLD);
	sl_flow_disown(f);
	drop_if_done(f);
}

void sl_life_gone(struct sl_kflow *f, enum sl_broker_end how)
{
	sl_timer_stop(&f->timer);
	f->is_gone = true;
	end(f, how);
	drop_if_done(f);
}

void sl_life_remove(struct sl_kflow *f)
{
	int r = order(f, SL_PACKET_OP_REMOVE);

	if (r < 0) {
		if (sl_broker_may_warn(f->broker))
			sl_log_conn(SL_LOG_WARN, f->conn_id,
				    "packet: cannot remove the flow, trying again: %s",
				    strerror(-r));
		return;
	}
	sl_life_gone(f, f->how);
}

/* ---- judging ---- */

enum {
	MARK_CLIENT_FIN = 1,
	MARK_BACKEND_FIN = 2,
	MARK_CLIENT_FIN_ACKED = 4,
	MARK_BACKEND_FIN_ACKED = 8,
};

static uint8_t fin_marks(const struct sl_kflow *f)
{
	const struct sl_kflow_half *c = &f->half[SL_PACKET_CLIENT];
	const struct sl_kflow_half *b = &f->half[SL_PACKET_BACKEND];

	return (uint8_t)((c->fin ? MARK_CLIENT_FIN : 0) | (b->fin ? MARK_BACKEND_FIN : 0) |
			 (b->peer_fin_acked ? MARK_CLIENT_FIN_ACKED : 0) |
			 (c->peer_fin_acked ? MARK_BACKEND_FIN_ACKED : 0));
}

static bool is_closed(const struct sl_kflow *f)
{
	return f->half[SL_PACKET_CLIENT].peer_fin_acked &&
	       f->half[SL_PACKET_BACKEND].peer_fin_acked;
}

static bool has_rst(const struct sl_kflow *f)
{
	return f->half[SL_PACKET_CLIENT].rst || f->half[SL_PACKET_BACKEND].rst;
}

static bool is_broken(const struct sl_kflow *f)
{
	return f->half[SL_PACKET_CLIENT].is_broken || f->half[SL_PACKET_BACKEND].is_broken;
}

static enum sl_broker_end rst_end(const struct sl_kflow *f)
{
	return f->rst_from == SL_PACKET_CLIENT ? SL_BROKER_END_RST_CLIENT
					       : SL_BROKER_END_RST_BACKEND;
}

static void on_rst_timer(struct sl_timer *timer)
{
	struct sl_kflow *f = SL_CONTAINER_OF(timer, struct sl_kflow, timer);

	if (read_entries(f) == 1 && !has_rst(f)) {
		f->stage = SL_KFLOW_LIVE;
		sl_life_judge(f);
		return;
	}
	end(f, is_closed(f) ? SL_BROKER_END_CLOSED : rst_end(f));
}

#define ASK_AGAIN_MS 200 /* blind RSTs draw no more than that */
#define ANSWER_MS 1000

void sl_life_ask(struct sl_kflow *f, enum sl_packet_side from)
{
	uint64_t now_ms = sl_loop_now_ms(f->broker->loop);

	if (f->stage != SL_KFLOW_LIVE || (f->asked_ms && now_ms - f->asked_ms < ASK_AGAIN_MS))
		return;
	f->asked_ms = now_ms;
	f->asked_for = from;
	(void)order(f, SL_PACKET_OP_PROBE);
}

static bool was_asked(const struct sl_kflow *f)
{
	return f->asked_ms && sl_loop_now_ms(f->broker->loop) - f->asked_ms < ANSWER_MS;
}

/*
 * A blind RST is taken back by the data that follows. A true one may not have been taken: its
 * number must be the next one its receiver expects (RFC 5961 section 3), which it is not when
 * data before it was lost or did not fit the window, and the receiver's question may fall under
 * Linux's limit for such. So each side is asked: who has no connection any more answers with a
 * RST whose number is right.
 */
static void await_revival(struct sl_kflow *f)
{
	const struct sl_kflow_half *c = &f->half[SL_PACKET_CLIENT];
	const struct sl_kflow_half *b = &f->half[SL_PACKET_BACKEND];

	/* One RST may draw another; the one that came first is the reason. */
	if (was_asked(f))
		f->rst_from = f->asked_for;
	else
		f->rst_from = c->rst && (!b->rst || c->last_ns <= b->last_ns) ? SL_PACKET_CLIENT
									      : SL_PACKET_BACKEND;
	f->stage = SL_KFLOW_RESETTING;
	(void)order(f, SL_PACKET_OP_PROBE);
	sl_timer_start(f->broker->loop, &f->timer,
		       sl_loop_now_ms(f->broker->loop) + f->broker->times.revival_ms, on_rst_timer);
}

static bool has_passed(uint64_t since_ns, uint32_t ms)
{
	uint64_t now_ns = sl_clock_us() * 1000;

	return now_ns > since_ns && now_ns - since_ns >= (uint64_t)ms * 1000000;
}

static void judge_live(struct sl_kflow *f)
{
	uint8_t marks = fin_marks(f);

	if (f->killed_ns) {
		end(f, SL_BROKER_END_KILLED);
		return;
	}
	if (is_closed(f)) {
		end(f, SL_BROKER_END_CLOSED);
		return;
	}
	if (is_broken(f)) {
		if (sl_broker_may_warn(f->broker))
			sl_log_conn(SL_LOG_WARN, f->conn_id,
				    "packet: packets could not be forwarded for %" PRIu32
				    " s, both sides are reset",
				    f->broker->times.broken_ms / 1000);
		sl_life_kill(f, SL_BROKER_END_BROKEN);
		return;
	}
	if (marks != f->told_marks) {
		f->told_marks = marks;
		sl_peer_tell(f, SL_TELL_CHANGED);
	}
	if (f->stage == SL_KFLOW_RESETTING)
		return;
	if (has_rst(f))
		await_revival(f);
	else if (!f->owner && !f->is_orphan)
		sl_flow_orphan(f); /* its end was reported, and yet it lives */
}

/* Perhaps reported as reset, and yet it lives: it gets a new record then. */
static void revive(struct sl_kflow *f)
{
	f->stage = SL_KFLOW_LIVE;
	f->broker->table.n_over--;
	f->tell &= (uint8_t)~SL_TELL_ENDED;
	sl_broker_touch(f->broker);
	judge_live(f);
}

static void judge_over(struct sl_kflow *f)
{
	const struct sl_broker_times *t = &f->broker->times;
	uint64_t c = f->half[SL_PACKET_CLIENT].last_ns;
	uint64_t b = f->half[SL_PACKET_BACKEND].last_ns;
	bool was_reset = f->how == SL_BROKER_END_RST_CLIENT || f->how == SL_BROKER_END_RST_BACKEND;

	if (f->killed_ns) {
		if (has_passed(f->killed_ns, t->killed_ms))
			sl_life_remove(f);
	} else if (was_reset && !has_rst(f)) {
		revive(f);
	} else if (has_passed(c > b ? c : b, was_reset ? t->rst_ms : t->closed_ms)) {
		sl_life_remove(f);
	}
}

void sl_life_judge(struct sl_kflow *f)
{
	if (f->stage == SL_KFLOW_OVER)
		judge_over(f);
	else
		judge_live(f);
}

static void restore(struct sl_kflow *f)
{
	struct sl_broker *b = f->broker;
	/* The entry that is there comes first. */
	bool is_client = f->half[SL_PACKET_CLIENT].is_here;
	const struct sl_packet_key key[2] = { f->key[!is_client], f->key[is_client] };
	int r = sl_broker_order(b, SL_PACKET_OP_RESTORE, f->conn_id, key);
	char text[SL_DRIFT_TEXT];

	(void)sl_drift_entry_text(&key[1], f->conn_id, !is_client, text);
	if (r != SL_PACKET_DONE) {
		sl_drift_note(&b->drift, SL_DRIFT_PACKET_HALF, SL_DRIFT_WAITS, text, NULL, "%s",
			      r == SL_PACKET_TAKEN      ? "another entry has its key"
			      : r == SL_PACKET_MAP_FULL ? "`flows` is full"
							: "it cannot be made again yet");
		return;
	}
	f->was_missing = false;
	b->n_repaired++;
	sl_drift_note(&b->drift, SL_DRIFT_PACKET_HALF, SL_DRIFT_REPAIRED, text, NULL,
		      "made again from the other direction");
	if (sl_broker_may_warn(b))
		sl_log_conn(SL_LOG_WARN, f->conn_id,
			    "packet: one entry of the flow had been deleted, it is made again");
	sl_broker_touch(b);
}

static enum sl_broker_end how_gone(const struct sl_kflow *f)
{
	if (is_closed(f))
		return SL_BROKER_END_CLOSED;
	if (has_rst(f))
		return f->stage == SL_KFLOW_RESETTING  ? rst_end(f)
		       : f->half[SL_PACKET_CLIENT].rst ? SL_BROKER_END_RST_CLIENT
						       : SL_BROKER_END_RST_BACKEND;
	return SL_BROKER_END_LOST;
}

/* Deltas and devices went with them, so nobody can make them again. */
static void lose(struct sl_kflow *f)
{
	enum sl_broker_end how = how_gone(f);
	struct sl_broker *b = f->broker;

	if (how == SL_BROKER_END_LOST && f->stage != SL_KFLOW_OVER) {
		for (int i = 0; i < 2; i++) {
			char text[SL_DRIFT_TEXT];

			(void)sl_drift_entry_text(&f->key[i], f->conn_id, i == SL_PACKET_CLIENT,
						  text);
			sl_drift_note(&b->drift, SL_DRIFT_PACKET_LOST, SL_DRIFT_ENDED, text, NULL,
				      "both are gone, so the connection is over");
		}
		if (sl_broker_may_warn(b))
			sl_log_conn(SL_LOG_WARN, f->conn_id,
				    "packet: both entries of the flow had been deleted, it is "
				    "over");
	}
	sl_life_gone(f, how);
}

void sl_life_reused(struct sl_kflow *f)
{
	enum sl_broker_end how = how_gone(f);

	sl_life_gone(f, how == SL_BROKER_END_LOST ? SL_BROKER_END_CLOSED : how);
}

/* The owner may have seen the last acknowledgement first; that is no case for a reset. */
static void end_if_closed(struct sl_kflow *f)
{
	if (f->stage != SL_KFLOW_OVER && f->broker->packet && read_entries(f) == 1 && is_closed(f))
		end(f, SL_BROKER_END_CLOSED);
}

void sl_life_end(struct sl_kflow *f)
{
	end_if_closed(f);
	if (f->stage != SL_KFLOW_OVER)
		sl_life_kill(f, SL_BROKER_END_KILLED);
}

void sl_life_disown(struct sl_kflow *f)
{
	sl_flow_disown(f);
	end_if_closed(f);
	if (f->stage != SL_KFLOW_OVER)
		sl_life_kill(f, SL_BROKER_END_KILLED);
	else
		sl_life_told(f);
}

/*
 * A new connection that takes the tuple removes one entry, then the other, and then it is told: a
 * look may come between.
 */
static bool is_to_be_seen_again(struct sl_kflow *f)
{
	bool is_half = f->half[SL_PACKET_CLIENT].is_here || f->half[SL_PACKET_BACKEND].is_here;

	if (f->was_missing || (!is_half && how_gone(f) != SL_BROKER_END_LOST))
		return false;
	f->was_missing = true;
	sl_sweep_look_soon(f);
	return true;
}

void sl_life_look(struct sl_kflow *f)
{
	int r = f->is_gone ? -ENOENT : read_entries(f);

	if (r == 1) {
		f->was_missing = false;
		sl_life_judge(f);
		return;
	}
	if (r < 0 || is_to_be_seen_again(f))
		return;
	if (f->half[SL_PACKET_CLIENT].is_here || f->half[SL_PACKET_BACKEND].is_here)
		restore(f);
	else
		lose(f);
}
