/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/diff.h"

#include <inttypes.h>

#include "broker/state.h"

/* For one look at everything, whatever happens meanwhile. */
#define LOOK_MS 8000
/* Connection tracking is dumped by a thread of its own. */
#define POLL_MS 20
/* Between two looks: a proxy may ask as often as it likes. */
#define REST_MS 100

static void begin_soon(struct sl_broker *b);

const char *sl_diff_text(const struct sl_broker *b)
{
	return sl_str_text(&b->diff.text);
}

/* ---- the answer ---- */

static void write_packet(const struct sl_broker *b, struct sl_str *to)
{
	unsigned attached, failed, missing;

	if (!b->packet) {
		sl_str_addf(to, "x packet %s\n", b->status.text);
		return;
	}
	sl_watch_count(b, &attached, &failed, &missing);
	sl_str_addf(to, "l packet %zu %zu flow%s with their entries, %u interface%s, pins\n",
		    b->table.n - b->table.n_over - b->table.n_orphans, b->table.n,
		    b->table.n == 1 ? "" : "s", attached, attached == 1 ? "" : "s");
}

static void write_sockmap(const struct sl_broker *b, struct sl_str *to)
{
	size_t n;

	if (!b->sockmap.maps) {
		sl_str_addf(to, "x sockmap %s\n",
			    b->sockmap.status.text[0] ? b->sockmap.status.text : "off");
		return;
	}
	n = sl_sockmap_n_pairs(b->sockmap.maps);
	sl_str_addf(to, "l sockmap %zu %zu pair%s of sockets with their entries, program, pins\n",
		    n, n, n == 1 ? "" : "s");
}

static void write_nat(const struct sl_broker *b, struct sl_str *to)
{
	struct sl_broker_nat_status s;

	if (!b->nat) {
		sl_str_adds(to, "x nftables off\n");
		return;
	}
	sl_nat_get_status(b->nat, &s);
	if (s.is_on)
		sl_str_addf(to, "l nftables %" PRIu32 " %s, connection tracking\n", s.n_flows,
			    s.text);
	else
		sl_str_addf(to, "x nftables %s\n", s.text);
}

/* What nobody can say when it began: it is so now, or not. */
static void write_standing(const struct sl_broker *b, struct sl_str *to)
{
	struct sl_drift_line line = { .kind = SL_DRIFT_NFT_TABLE,
				      .done = SL_DRIFT_LEFT,
				      .is_new = true,
				      .times = 1,
				      .wanted = "the table as the configuration wants it" };
	struct sl_broker_nat_status s;

	if (!b->nat || sl_nat_is_in_force(b->nat))
		return;
	sl_nat_get_status(b->nat, &s);
	line.how = s.text;
	sl_drift_write_line(to, &line);
}

static void write_answer(struct sl_broker *b)
{
	struct sl_diff *d = &b->diff;

	sl_str_done(&d->text);
	write_packet(b, &d->text);
	write_sockmap(b, &d->text);
	write_nat(b, &d->text);
	sl_drift_write(&b->drift, d->since_ms, &d->text);
	write_standing(b, &d->text);
	if (d->text.oom || d->text.len > SL_BROKER_DIFF_MAX)
		sl_str_done(&d->text); /* SL_DRIFT_ENTRIES of them fit */
}

static void finish(struct sl_broker *b)
{
	struct sl_diff *d = &b->diff;
	struct sl_list *i;

	sl_timer_stop(&d->timer);
	write_answer(b);
	d->stage = SL_DIFF_IDLE;
	d->not_before_ms = sl_loop_now_ms(b->loop) + REST_MS;
	sl_list_for_each (i, &b->peers) {
		struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		p->wants_diff |= p->awaits_diff;
		p->wants_drift |= p->awaits_diff; /* which goes first */
		p->awaits_diff = false;
		p->diff_at = 0; /* of one that was being told of the last look, too */
		if (p->wants_diff)
			sl_peer_flush_later(p);
	}
	if (d->is_again)
		begin_soon(b);
}

/* ---- looking ---- */

static void on_late(struct sl_timer *timer)
{
	finish(SL_CONTAINER_OF(timer, struct sl_broker, diff.timer));
}

static void on_poll(struct sl_timer *timer)
{
	struct sl_broker *b = SL_CONTAINER_OF(timer, struct sl_broker, diff.timer);
	uint64_t now_ms = sl_loop_now_ms(b->loop);

	if (now_ms - b->diff.since_ms >= LOOK_MS || sl_nat_has_dumped(b->nat, b->diff.dumps_until))
		finish(b);
	else
		sl_timer_start(b->loop, timer, now_ms + POLL_MS, on_poll);
}

void sl_diff_walked(struct sl_broker *b)
{
	if (b->diff.stage != SL_DIFF_WALKING)
		return;
	b->diff.stage = SL_DIFF_DUMPING;
	if (!b->nat) {
		finish(b);
		return;
	}
	on_poll(&b->diff.timer);
}

static void begin(struct sl_broker *b)
{
	struct sl_diff *d = &b->diff;
	struct sl_list *i;

	d->is_again = false;
	d->stage = SL_DIFF_WALKING;
	d->since_ms = sl_loop_now_ms(b->loop);
	sl_list_for_each (i, &b->peers) {
		struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		p->awaits_diff |= p->asks_diff;
		p->asks_diff = false;
	}
	sl_timer_start(b->loop, &d->timer, d->since_ms + LOOK_MS, on_late);
	if (b->nat)
		d->dumps_until = sl_nat_look(b->nat);
	sl_sockmap_reconcile_now(b);
	if (!b->packet) {
		sl_diff_walked(b);
		return;
	}
	sl_watch_look(b);
	sl_sweep_now(b);
}

static void on_rested(struct sl_timer *timer)
{
	begin(SL_CONTAINER_OF(timer, struct sl_broker, diff.timer));
}

static void begin_soon(struct sl_broker *b)
{
	struct sl_diff *d = &b->diff;

	if (sl_loop_now_ms(b->loop) >= d->not_before_ms) {
		begin(b);
		return;
	}
	d->stage = SL_DIFF_RESTING;
	sl_timer_start(b->loop, &d->timer, d->not_before_ms, on_rested);
}

void sl_diff_ask(struct sl_peer *p)
{
	struct sl_broker *b = p->broker;

	p->asks_diff = true;
	if (b->diff.stage == SL_DIFF_IDLE)
		begin_soon(b);
	else if (b->diff.stage != SL_DIFF_RESTING)
		b->diff.is_again = true;
}

void sl_diff_stop(struct sl_broker *b)
{
	sl_timer_stop(&b->diff.timer);
	sl_str_done(&b->diff.text);
}
