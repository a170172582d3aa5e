/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/nat_apply.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/drift.h"
#include "broker/nat_state.h"
#include "broker/nft_routes.h"

#define TICK_MS 1000
/* What others do to the table comes in many messages; and they may do it again and again. */
#define REPAIR_MS 50
#define REPAIR_AGAIN_MS 500
/* A proxy may tell of its targets as often as it likes. */
#define TARGETS_MS 100
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 5000

/* ---- what the kernel is to hold ---- */

static void fill_route(const struct sl_nat *n, const struct sl_nat_route *from,
		       enum sl_nft_state state, struct sl_nft_route *to)
{
	*to = (struct sl_nft_route){ .protocols = SL_NFT_TCP };
	if (from->plan) {
		*to = *from->plan;
		to->targets = n->settled + from->first_target;
	}
	to->name = from->name;
	to->mark = from->mark;
	to->state = state;
	if (state == SL_NFT_ON && (!from->plan || n->plan->is_draining))
		to->state = SL_NFT_DRAINING;
}

static void settle(struct sl_nat *n)
{
	for (size_t i = 0; i < n->routes.n; i++) {
		const struct sl_nat_route *r = &n->routes.item[i];

		if (r->plan)
			sl_nft_settle_targets(r->plan, n->plan->is_backup + r->first_target,
					      n->is_down + r->first_target,
					      n->settled + r->first_target);
	}
}

/* `state`: of those of the plan. */
static int build(struct sl_nat *n, enum sl_nft_state state, struct sl_nft_ruleset **ret,
		 struct sl_str *why)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	_cleanup_free_ struct sl_nft_route *routes = calloc(n->routes.n + 1, sizeof(*routes));
	int r;

	if (!routes)
		return -ENOMEM;
	settle(n);
	for (size_t i = 0; i < n->routes.n; i++)
		fill_route(n, &n->routes.item[i], state, &routes[i]);
	r = sl_nft_build(routes, n->routes.n, &n->plan->common, &rs, why);
	if (r == 0 && n->offload.n)
		r = sl_nft_put_offload(rs, routes, n->routes.n, n->offload.device, n->offload.n);
	if (r == 0)
		r = sl_nat_put_kept(n, rs);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(rs);
	return 0;
}

static int try_install(struct sl_nat *n, enum sl_nft_state state, struct sl_nft_report *report)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	int r = build(n, state, &rs, &why);

	*report = (struct sl_nft_report){ 0 };
	if (r < 0) {
		(void)snprintf(report->text, sizeof(report->text), "%s",
			       why.len ? sl_str_text(&why) : strerror(-r));
		return r;
	}
	r = sl_nft_table_apply(n->table, &rs, report);
	n->is_installed |= r == 0;
	return r;
}

/* What the short way costs must not cost the routes. */
int sl_nat_install(struct sl_nat *n, enum sl_nft_state state, struct sl_nft_report *report)
{
	int r;

	sl_nat_offload_look(&n->offload, n->table);
	r = try_install(n, state, report);
	if (r == 0 || !report->is_offload)
		return r;
	sl_nat_offload_refused(&n->offload, report->text);
	return try_install(n, state, report);
}

/* No route is left, nor a flow of one. */
static int uninstall(struct sl_nat *n, struct sl_nft_report *report)
{
	int r;

	*report = (struct sl_nft_report){ 0 };
	if (!n->is_installed)
		return 0;
	/* an empty one, so it is ours and nobody needs the settings any more */
	r = sl_nat_install(n, SL_NFT_ON, report);
	if (r < 0)
		return r;
	sl_nat_restore_settings(&n->was);
	n->is_set = false;
	r = sl_nft_table_remove(n->table, report);
	if (r < 0)
		return r;
	n->is_installed = false;
	sl_info("nftables: table inet %s is removed, no route has this engine", n->name);
	return 0;
}

/* ---- applying ---- */

static void on_retry(struct sl_timer *timer);

static void say_applied(const struct sl_nat *n, const struct sl_nft_report *report)
{
	if (report->n_added + report->n_removed == 0 && !report->is_adopted)
		return;
	sl_info("nftables: %zu route%s in table inet %s%s, %zu added, %zu removed, "
		"%" PRIu64 " us in the kernel",
		n->routes.n, n->routes.n == 1 ? "" : "s", n->name,
		report->is_replaced  ? " (replaced)"
		: report->is_adopted ? " (adopted)"
				     : "",
		report->n_added, report->n_removed, report->kernel_us);
}

bool sl_nat_is_of_others(int err)
{
	return err == -EBUSY || err == -EEXIST || err == -EPERM;
}

static int apply(struct sl_nat *n, struct sl_nft_report *report)
{
	bool is_followed = n->stream;
	int r;

	if (n->routes.n == 0) {
		r = uninstall(n, report);
		if (r == 0)
			sl_nat_stop_stream(n);
		return r;
	}
	*report = (struct sl_nft_report){ 0 };
	r = sl_nat_start_stream(n);
	if (r < 0)
		return r;
	sl_nat_look_at_settings(n);
	r = sl_nat_install(n, SL_NFT_ON, report);
	if (r == 0) {
		sl_nat_change_settings(n);
		say_applied(n, report);
	} else if (sl_nat_is_of_others(r) && !is_followed) {
		sl_nat_stop_stream(n); /* whose flows are not ours either */
	}
	return r;
}

/* Until it works: what is in the way may go away. */
static int attempt(struct sl_nat *n, struct sl_nft_report *report)
{
	int r = apply(n, report);

	sl_timer_stop(&n->targets);
	if (r < 0) {
		n->is_applied = false;
		if (report->text[0])
			sl_nat_say_off(n, report->text);
		/* -EAGAIN: others change tables all the time, and must not hold up a repair */
		n->retry_ms = n->retry_ms && r != -EAGAIN ? n->retry_ms * 2 : RETRY_MIN_MS;
		if (n->retry_ms > RETRY_MAX_MS)
			n->retry_ms = RETRY_MAX_MS;
		sl_timer_start(n->loop, &n->retry, sl_loop_now_ms(n->loop) + n->retry_ms, on_retry);
	} else {
		n->is_applied = true;
		n->is_repairing = false;
		n->why_off[0] = '\0';
		n->retry_ms = 0;
		sl_timer_stop(&n->retry);
		/* the one under way may have passed by what another one shows */
		n->udp_until = sl_nat_dumps(n) + 2;
		sl_nat_clean_udp(n);
	}
	sl_nat_refresh(n);
	return r;
}

void sl_nat_apply(struct sl_nat *n)
{
	struct sl_nft_report report;

	(void)attempt(n, &report);
}

static void on_targets(struct sl_timer *timer)
{
	struct sl_nat *n = SL_CONTAINER_OF(timer, struct sl_nat, targets);

	sl_nat_apply(n);
	/* since its end: what takes long must leave time for others */
	n->targets_ms = sl_clock_ms() + TARGETS_MS;
}

void sl_nat_apply_soon(struct sl_nat *n)
{
	if (!sl_timer_is_armed(&n->targets))
		sl_timer_start(n->loop, &n->targets, n->targets_ms, on_targets);
}

/* ---- what others do ---- */

static void note_changes(struct sl_nat *n, const struct sl_nft_changes *changes)
{
	size_t n_said = changes->n < SL_NFT_CHANGES ? changes->n : SL_NFT_CHANGES;

	for (size_t i = 0; i < n_said; i++) {
		const struct sl_nft_change *c = &changes->item[i];

		sl_drift_note(n->options.drift, SL_DRIFT_NFT_TABLE,
			      *c->wanted ? SL_DRIFT_REPAIRED : SL_DRIFT_REMOVED, c->wanted,
			      c->found, "somebody had changed table inet %s", n->name);
	}
	sl_drift_more(n->options.drift, SL_DRIFT_NFT_TABLE, changes->n - n_said);
}

/* It is one as soon as it works. */
static void try_repair(struct sl_nat *n)
{
	bool is_repair = n->is_repairing;
	struct sl_nft_changes changes = { 0 };
	struct sl_nft_report report;
	int r;

	sl_nft_table_tell_changes(n->table, is_repair ? &changes : NULL);
	r = attempt(n, &report);
	sl_nft_table_tell_changes(n->table, NULL);
	if (r < 0 || !is_repair || report.n_added + report.n_removed == 0)
		return;
	note_changes(n, &changes);
	n->n_repairs++;
	n->repaired_ms = sl_loop_now_ms(n->loop);
	sl_log(SL_LOG_WARN,
	       "nftables: somebody has changed table inet %s: %zu put back, %zu taken out", n->name,
	       report.n_added, report.n_removed);
	sl_nat_refresh(n);
}

static void on_retry(struct sl_timer *timer)
{
	try_repair(SL_CONTAINER_OF(timer, struct sl_nat, retry));
}

static void on_repair(struct sl_timer *timer)
{
	struct sl_nat *n = SL_CONTAINER_OF(timer, struct sl_nat, repair);

	n->is_repairing |= n->is_applied && !sl_timer_is_armed(&n->targets);
	try_repair(n);
}

uint64_t sl_nat_look(struct sl_nat *n)
{
	if (!n->table || !n->plan || !n->stream)
		return 0;
	sl_nft_table_forget(n->table);
	n->is_repairing |= n->is_applied && !sl_timer_is_armed(&n->targets);
	try_repair(n);
	if (!n->stream)
		return 0;
	sl_ct_stream_dump_soon(n->stream);
	/* one may be under way that began before */
	return sl_nat_dumps(n) + 2;
}

/* What it has shown is taken, too. */
bool sl_nat_has_dumped(const struct sl_nat *n, uint64_t dumps)
{
	if (!n->stream || dumps == 0)
		return true;
	if (sl_nat_dumps(n) < dumps) {
		sl_ct_stream_dump_soon(n->stream);
		return false;
	}
	return n->is_blocked || sl_nat_is_all_told(n);
}

/* Which of them the kernel's table has still, only it knows. */
void sl_nat_on_interfaces(void *arg)
{
	struct sl_nat *n = arg;

	if (!n->table || !n->is_applied)
		return;
	sl_nft_table_forget(n->table);
	sl_nat_apply(n);
}

void sl_nat_on_watch(struct sl_io *io, uint32_t events)
{
	struct sl_nat *n = SL_CONTAINER_OF(io, struct sl_nat, watch_io);
	uint64_t at_ms = sl_loop_now_ms(n->loop) + REPAIR_MS;
	int r = sl_nft_table_watch_read(n->table);

	(void)events;
	if (r < 0)
		(void)sl_warn(r, "nftables: cannot watch table inet %s", n->name);
	if (r == 0 || !n->plan || sl_timer_is_armed(&n->repair))
		return;
	if (n->repaired_ms && at_ms < n->repaired_ms + REPAIR_AGAIN_MS)
		at_ms = n->repaired_ms + REPAIR_AGAIN_MS;
	sl_timer_start(n->loop, &n->repair, at_ms, on_repair);
}

/* ---- once a second ---- */

static void keep_settings(struct sl_nat *n)
{
	if (sl_nat_must_set_again(n) && n->is_applied)
		sl_nat_apply(n);
}

static void drop_gone(struct sl_nat *n, uint64_t dumps)
{
	if (sl_nat_routes_n_gone(&n->routes) && sl_nat_is_all_told(n) &&
	    sl_nat_routes_drop(&n->routes, dumps))
		sl_nat_apply(n);
}

/* What that dump has shown, too. */
static void clean_late_udp(struct sl_nat *n, uint64_t dumps)
{
	if (n->udp_until == 0)
		return;
	if (dumps >= n->udp_until)
		n->udp_until = 0;
	sl_nat_clean_udp(n);
}

static void on_tick(struct sl_timer *timer)
{
	struct sl_nat *n = SL_CONTAINER_OF(timer, struct sl_nat, tick);
	uint64_t dumps = sl_nat_dumps(n);

	sl_timer_start(n->loop, timer, sl_loop_now_ms(n->loop) + TICK_MS, on_tick);
	if (!n->plan || !n->stream)
		return;
	sl_nat_look_at_room(n);
	keep_settings(n);
	sl_nat_say_told(n);
	clean_late_udp(n, dumps);
	drop_gone(n, dumps);
	sl_nat_refresh(n);
}

void sl_nat_start_tick(struct sl_nat *n)
{
	if (!sl_timer_is_armed(&n->tick))
		sl_timer_start(n->loop, &n->tick, sl_loop_now_ms(n->loop) + TICK_MS, on_tick);
}

void sl_nat_stop_applying(struct sl_nat *n)
{
	sl_timer_stop(&n->targets);
	sl_timer_stop(&n->retry);
	sl_timer_stop(&n->repair);
	sl_timer_stop(&n->tick);
}
