/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/nat_state.h"
#include "nft/ct_sysctl.h"

/* Packets of flows that are cut meet the rule that resets them. */
#define KILL_WAIT_US 50000

/* ---- from the first look at the kernel to the last ---- */

static void off_because(struct sl_nat *n, int err)
{
	char text[128];

	n->is_barred = err == -EPERM;
	n->is_busy = err == -EAGAIN || err == -EINTR || err == -ENOBUFS || err == -ETIMEDOUT;
	if (err == -EPERM)
		sl_nat_say_off(n, "no right to change the kernel's rules (CAP_NET_ADMIN)");
	else if (err == -EOPNOTSUPP)
		sl_nat_say_off(n, "this kernel has no nf_tables");
	else {
		(void)snprintf(text, sizeof(text), "cannot read the kernel's rules: %s",
			       strerror(-err));
		sl_nat_say_off(n, text);
	}
}

static void look_at_conntrack(struct sl_nat *n)
{
	sl_nat_load_conntrack(n);
	sl_ct_timeouts_read(&n->timeouts);
}

/* What is somebody else's now may be left to us later, with its numbers. */
static int adopt(struct sl_nat *n, const struct sl_nft_ruleset *rs)
{
	int r = sl_nat_routes_adopt(&n->routes, rs);

	if (r < 0)
		return r;
	n->is_installed = rs->owner == 0;
	sl_nat_read_kept(rs, &n->was);
	return 0;
}

int sl_nat_open_table(struct sl_nat *n, bool is_wanted)
{
	_cleanup_(sl_nft_table_closep) struct sl_nft_table *t = NULL;
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	int r = sl_nft_table_open(n->name, &t);

	if (r == 0)
		r = sl_nft_table_read(t, &rs);
	if (r < 0 && r != -ENOENT) {
		if (is_wanted)
			off_because(n, r);
		if (is_wanted && n->is_busy)
			look_at_conntrack(n); /* later it is too late */
		return 0;
	}
	n->is_busy = false;
	if (rs && sl_nft_ruleset_is_ours(rs) && (is_wanted || rs->owner == 0)) {
		r = adopt(n, rs);
		if (r < 0)
			return r;
	} else if (!is_wanted) {
		return 0;
	}
	r = sl_io_start(n->loop, &n->watch_io, sl_nft_table_watch_fd(t), SL_IO_IN, sl_nat_on_watch);
	if (r < 0)
		return r;
	n->table = SL_TAKE_PTR(t);
	look_at_conntrack(n);
	return 0;
}

int sl_nat_new(const struct sl_nat_options *options, const struct sl_nat_plan *plan,
	       struct sl_nat **ret)
{
	struct sl_nat *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return -ENOMEM;
	n->options = *options;
	n->loop = options->loop;
	n->mark_base = plan->mark_base;
	n->started_ns = sl_clock_real_ns();
	sl_nat_settings_init(&n->was);
	n->offload = (struct sl_nat_offload){ .loop = n->loop,
					      .changed = sl_nat_on_interfaces,
					      .arg = n };
	sl_ct_timeouts_default(&n->timeouts);
	sl_nat_probe_open(&n->probe);
	memcpy(n->name, plan->table, sizeof(n->name));
	r = sl_nat_open_table(n, plan->n_routes > 0);
	if (r < 0) {
		sl_nat_free(n);
		return r;
	}
	*ret = n;
	return 0;
}

static void close_all(struct sl_nat *n)
{
	sl_nat_offload_done(&n->offload);
	sl_nat_stop_stream(n);
	sl_nat_stop_applying(n);
	sl_io_stop(&n->watch_io);
	sl_nft_table_close(SL_TAKE_PTR(n->table));
	sl_nat_probe_close(&n->probe);
}

void sl_nat_free(struct sl_nat *n)
{
	if (!n)
		return;
	close_all(n);
	sl_nat_routes_done(&n->routes);
	sl_nat_plan_free(n->plan);
	sl_nat_plan_free(n->waiting);
	free(n->is_down);
	free(n->settled);
	free(n);
}

/* New ones are refused already; how many were cut. */
static size_t end_flows(struct sl_nat *n)
{
	if (!n->stream || sl_nat_n_flows(n) == 0)
		return 0;
	(void)usleep(KILL_WAIT_US);
	return sl_nat_delete_flows(n);
}

static int remove_all(struct sl_nat *n, size_t *ret_cut, struct sl_nft_report *report)
{
	int r = sl_nat_install(n, SL_NFT_KILLED, report);

	if (sl_nat_is_of_others(r))
		return r; /* and so are the flows and settings */
	*ret_cut = end_flows(n);
	sl_nat_restore_settings(&n->was);
	return sl_nft_table_remove(n->table, report);
}

void sl_nat_leave(struct sl_nat *n)
{
	struct sl_nft_report report;
	size_t cut = 0;
	int r;

	if (!n->table || !n->plan || !n->is_installed)
		return;
	r = remove_all(n, &cut, &report);
	if (sl_nat_is_of_others(r))
		(void)sl_warn(r, "nftables: table inet %s is not ours to remove, it stays: %s",
			      n->name, report.text);
	else if (r < 0)
		(void)sl_warn(r, "nftables: cannot remove table inet %s; try sluiced --purge: %s",
			      n->name, report.text);
	else
		sl_info("nftables: table inet %s is removed, %zu flow%s cut", n->name, cut,
			cut == 1 ? "" : "s");
	close_all(n);
	sl_nat_routes_done(&n->routes);
	n->is_installed = n->is_applied = false;
	(void)snprintf(n->why_off, sizeof(n->why_off), "stopped");
	sl_nat_refresh(n);
}

void sl_nat_stop(struct sl_nat *n)
{
	if (n->plan && !n->plan->keep_on_exit)
		sl_nat_leave(n);
}

/* ---- without a broker ---- */

bool sl_nat_is_there(const char *table)
{
	_cleanup_(sl_nft_table_closep) struct sl_nft_table *t = NULL;
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;

	return sl_nft_table_open(table, &t) == 0 && sl_nft_table_read(t, &rs) == 0 &&
	       sl_nft_ruleset_is_ours(rs);
}

/* `is_free`: nobody has it. */
static int purge(struct sl_nat *n, bool is_free, struct sl_str *report)
{
	struct sl_nft_report removed;
	size_t n_routes = n->routes.n, cut = 0;
	int r;

	if (is_free)
		sl_nat_restore_settings(&n->was);
	r = sl_nft_table_remove(n->table, &removed);
	if (r < 0) {
		sl_str_addf(report, "%s\n", removed.text[0] ? removed.text : strerror(-r));
		return r;
	}
	if (n_routes)
		cut = sl_nat_find_and_delete(n);
	sl_str_addf(report, "removed table inet %s with %zu route%s, cut %zu flow%s\n", n->name,
		    n_routes, n_routes == 1 ? "" : "s", cut, cut == 1 ? "" : "s");
	return 0;
}

int sl_nat_purge(const char *table, struct sl_str *report)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	struct sl_nat n = { 0 };
	int r = sl_nft_table_open(table, &n.table);

	sl_nat_settings_init(&n.was);
	sl_nat_probe_open(&n.probe);
	if (r == -EOPNOTSUPP)
		r = -ENOENT;
	if (r == 0)
		r = sl_nft_table_read(n.table, &rs);
	if (r == 0 && !sl_nft_ruleset_is_ours(rs)) {
		sl_str_addf(report, "table inet %s is not of this program, it stays\n", table);
	} else if (r == 0) {
		(void)snprintf(n.name, sizeof(n.name), "%s", table);
		r = sl_nat_routes_adopt(&n.routes, rs);
		if (r == 0) {
			sl_nat_read_kept(rs, &n.was);
			r = purge(&n, rs->owner == 0, report);
		}
	} else if (r == -ENOENT) {
		r = 0;
	}
	sl_nft_table_close(n.table);
	sl_nat_probe_close(&n.probe);
	sl_nat_routes_done(&n.routes);
	return r;
}
