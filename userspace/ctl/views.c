/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/views.h"

#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "ctl/view_kernel.h"
#include "ctl/view_match.h"
#include "ctl/view_tls.h"

static const char *choice_name(enum sl_engine_choice choice)
{
	switch (choice) {
	case SL_CHOICE_AUTO:
		return "auto";
	case SL_CHOICE_RELAY:
		return sl_engine_name(SL_ENGINE_RELAY);
	case SL_CHOICE_PACKET:
		return sl_engine_name(SL_ENGINE_PACKET);
	case SL_CHOICE_SOCKMAP:
		return sl_engine_name(SL_ENGINE_SOCKMAP);
	case SL_CHOICE_NFTABLES:
		return sl_engine_name(SL_ENGINE_NFTABLES);
	}
	return "-";
}

static const char *keep_alive_name(enum sl_keep_alive keep_alive)
{
	switch (keep_alive) {
	case SL_KEEP_ALIVE_STANDARD:
		return "standard";
	case SL_KEEP_ALIVE_EXTENDED:
		return "extended";
	case SL_KEEP_ALIVE_IMMORTAL:
		return "immortal";
	}
	return "-";
}

static double seconds(uint64_t ms)
{
	return (double)ms / 1000;
}

static void finish(struct sl_json *j)
{
	sl_json_obj_end(j);
	sl_str_addc(j->out, '\n');
}

static void add_ends(struct sl_json *j, const char *key,
		     const uint64_t ends[SL_SIDE_COUNT_][SL_REASON_COUNT_])
{
	sl_json_obj(j, key);
	for (int side = 0; side < SL_SIDE_COUNT_; side++) {
		sl_json_obj(j, sl_side_name((enum sl_side)side));
		for (int i = SL_REASON_NONE + 1; i < SL_REASON_COUNT_; i++)
			if (ends[side][i] || i == SL_REASON_NORMAL)
				sl_json_u64(j, sl_reason_name((enum sl_reason)i), ends[side][i]);
		sl_json_obj_end(j);
	}
	sl_json_obj_end(j);
}

/* ---- status ---- */

const char *sl_view_state(const struct sl_proxy *proxy, const struct sl_ctl_facts *facts)
{
	if (sl_proxy_is_draining(proxy))
		return "draining";
	return facts->ready ? "running" : "starting";
}

static void add_target(struct sl_json *j, const struct sl_target_view *t)
{
	sl_json_obj(j, NULL);
	sl_json_str(j, "address", t->address);
	sl_json_str(j, "state", sl_target_state_name(t->state));
	sl_json_u64(j, "active", t->active);
	sl_json_obj_end(j);
}

static void add_route_summary(void *arg, const struct sl_route_view *r)
{
	struct sl_json *j = arg;

	sl_json_obj(j, NULL);
	sl_json_str(j, "name", r->conf->name);
	sl_json_bool(j, "enabled", r->conf->enabled);
	sl_json_str(j, "engine", choice_name(r->conf->engine));
	sl_json_u64(j, "active", r->active);
	sl_json_u64(j, "total", r->total);
	sl_json_u64(j, "bytes_up", r->bytes_up);
	sl_json_u64(j, "bytes_down", r->bytes_down);
	sl_json_arr(j, "targets");
	for (size_t i = 0; i < r->n_targets; i++)
		add_target(j, &r->targets[i]);
	sl_json_arr_end(j);
	sl_json_obj_end(j);
}

static void add_facts(struct sl_json *j, const struct sl_ctl_facts *facts)
{
	sl_json_obj(j, "processes");
	sl_json_i64(j, "supervisor", facts->pid);
	sl_json_i64(j, "proxy", getpid());
	if (facts->broker_pid)
		sl_json_i64(j, "broker", facts->broker_pid);
	else
		sl_json_null(j, "broker");
	sl_json_obj_end(j);
	sl_json_str(j, "config", facts->config_path);
	sl_json_obj(j, "last_reload");
	sl_json_bool(j, "ok", facts->last_reload_unix <= 0 || facts->last_reload_ok);
	if (facts->last_reload_unix > 0)
		sl_json_f64(j, "unix", (double)(uint64_t)facts->last_reload_unix);
	else
		sl_json_null(j, "unix");
	sl_json_obj_end(j);
	sl_json_bool(j, "sandboxed", facts->sandboxed);
	sl_json_bool(j, "privileged_uid", facts->privileged_uid);
	sl_json_str(j, "steering", facts->steering);
}

static void add_totals(struct sl_json *j, const struct sl_proxy_totals *t)
{
	sl_json_obj(j, "connections");
	sl_json_u64(j, "active", t->active);
	sl_json_u64(j, "total", t->accepted);
	sl_json_u64(j, "rejected", t->rejected);
	sl_json_obj_end(j);
	sl_json_obj(j, "engines");
	for (int i = 0; i < SL_ENGINE_COUNT_; i++) {
		sl_json_obj(j, sl_engine_name((enum sl_engine_id)i));
		sl_json_u64(j, "active", t->engine_active[i]);
		sl_json_u64(j, "total", t->engine_total[i]);
		sl_json_obj_end(j);
	}
	sl_json_obj_end(j);
	sl_json_bool(j, "overloaded", t->overloaded);
	sl_json_obj(j, "dns");
	sl_json_u64(j, "queries", t->dns.queries);
	sl_json_u64(j, "failures", t->dns.failures);
	sl_json_obj_end(j);
	add_ends(j, "terminations", t->ended);
}

/* The kernel's part of the lists everybody is held against. */
static void add_guard(struct sl_json *j, const struct sl_ctl_facts *facts)
{
	struct sl_ctl_guarded n = { 0 };

	if (facts->read_guarded)
		facts->read_guarded(facts->read_guarded_arg, &n);
	sl_json_obj(j, "kernel");
	sl_json_str(j, "state", facts->guard);
	sl_json_u64(j, "interfaces", facts->guard_interfaces);
	sl_json_u64(j, "ranges", facts->guard_ranges);
	sl_json_u64(j, "dropped", n.dropped4 + n.dropped6);
	sl_json_u64(j, "passed", n.passed4 + n.passed6);
	sl_json_obj_end(j);
}

static void add_security(struct sl_json *j, const struct sl_proxy *proxy,
			 const struct sl_ctl_facts *facts)
{
	const struct sl_conf *conf = sl_proxy_conf(proxy);
	const struct sl_conf_global *g = conf ? &conf->global : NULL;

	sl_json_obj(j, "security");
	sl_json_u64(j, "allow", g ? sl_view_set_size(&g->access.allow) : 0);
	sl_json_u64(j, "deny", g ? sl_view_set_size(&g->access.deny) : 0);
	sl_json_str(j, "deny_file", g ? g->deny_file : NULL);
	sl_json_u64(j, "deny_file_entries", facts->deny_patterns);
	add_guard(j, facts);
	sl_json_obj_end(j);
}

/* What lies over the files: "sluice routes changes" has the details. */
static void add_changes(struct sl_json *j, const struct sl_conf_sources *changes)
{
	sl_json_u64(j, "runtime_changes", changes ? changes->n : 0);
}

void sl_view_status(struct sl_str *out, struct sl_proxy *proxy, const struct sl_ctl_facts *facts,
		    uint64_t now_ms)
{
	struct sl_json j = sl_json_on(out);
	struct sl_proxy_totals totals = { 0 };

	sl_proxy_totals(proxy, &totals);
	sl_json_obj(&j, NULL);
	sl_json_str(&j, "version", SL_VERSION);
	sl_json_i64(&j, "pid", facts->pid);
	sl_json_str(&j, "state", sl_view_state(proxy, facts));
	sl_json_f64(&j, "uptime_s",
		    seconds(now_ms > facts->started_ms ? now_ms - facts->started_ms : 0));
	sl_json_u64(&j, "generation", sl_proxy_generation(proxy));
	add_facts(&j, facts);
	add_totals(&j, &totals);
	sl_view_kernel(&j, proxy, facts);
	add_security(&j, proxy, facts);
	add_changes(&j, facts->changes);
	sl_view_tls_status(&j, proxy, &totals, facts);
	sl_json_arr(&j, "routes");
	sl_proxy_each_route(proxy, add_route_summary, &j);
	sl_json_arr_end(&j);
	finish(&j);
}

/* ---- routes ---- */

static void add_target_details(struct sl_json *j, const struct sl_target_view *t)
{
	sl_json_obj(j, NULL);
	sl_json_str(j, "address", t->address);
	sl_json_str(j, "state", sl_target_state_name(t->state));
	sl_json_u64(j, "active", t->active);
	sl_json_u64(j, "total", t->total);
	sl_json_u64(j, "failed", t->failed);
	sl_json_u64(j, "weight", t->weight);
	sl_json_bool(j, "backup", t->is_backup);
	sl_json_obj(j, "checks");
	sl_json_u64(j, "ok", t->checks_ok);
	sl_json_u64(j, "failed", t->checks_failed);
	sl_json_obj_end(j);
	sl_json_str(j, "last_error", t->check_error[0] ? t->check_error : NULL);
	sl_json_arr(j, "resolved");
	for (size_t i = 0; i < t->n_addrs; i++)
		sl_json_addr(j, NULL, &t->addrs[i]);
	sl_json_arr_end(j);
	sl_json_obj_end(j);
}

static void add_route_engines(struct sl_json *j, const struct sl_route_view *r)
{
	sl_json_obj(j, "engines");
	for (int i = 0; i < SL_ENGINE_COUNT_; i++) {
		sl_json_obj(j, sl_engine_name((enum sl_engine_id)i));
		sl_json_u64(j, "active", r->engine_active[i]);
		sl_json_u64(j, "total", r->engine_total[i]);
		sl_json_u64(j, "bytes_up", r->engine_bytes_up[i]);
		sl_json_u64(j, "bytes_down", r->engine_bytes_down[i]);
		sl_json_obj_end(j);
	}
	sl_json_obj_end(j);
}

static void add_route_ends(struct sl_json *j, const struct sl_route_view *r)
{
	uint64_t ends[SL_SIDE_COUNT_][SL_REASON_COUNT_] = { 0 };

	for (int e = 0; e < SL_ENGINE_COUNT_; e++)
		for (int s = 0; s < SL_SIDE_COUNT_; s++)
			for (int i = 0; i < SL_REASON_COUNT_; i++)
				ends[s][i] += r->ended[e][s][i];
	add_ends(j, "terminations", ends);
	sl_json_obj(j, "rejected");
	for (int i = SL_REASON_NONE + 1; i < SL_REASON_COUNT_; i++)
		if (r->rejected[i])
			sl_json_u64(j, sl_reason_name((enum sl_reason)i), r->rejected[i]);
	sl_json_obj_end(j);
}

static void add_route(void *arg, const struct sl_route_view *r)
{
	struct sl_json *j = arg;

	sl_json_obj(j, NULL);
	sl_json_str(j, "name", r->conf->name);
	sl_json_bool(j, "enabled", r->conf->enabled);
	sl_view_match(j, r->conf);
	sl_view_tls_route(j, r->conf);
	sl_json_str(j, "engine", choice_name(r->conf->engine));
	sl_json_str(j, "keep_alive", keep_alive_name(r->conf->keep_alive));
	sl_json_bool(j, "half_open", r->conf->half_open);
	sl_json_u64(j, "active", r->active);
	sl_json_u64(j, "total", r->total);
	sl_json_u64(j, "bytes_up", r->bytes_up);
	sl_json_u64(j, "bytes_down", r->bytes_down);
	add_route_engines(j, r);
	sl_json_arr(j, "targets");
	for (size_t i = 0; i < r->n_targets; i++)
		add_target_details(j, &r->targets[i]);
	sl_json_arr_end(j);
	add_route_ends(j, r);
	sl_json_obj_end(j);
}

void sl_view_routes(struct sl_str *out, struct sl_proxy *proxy)
{
	struct sl_json j = sl_json_on(out);

	sl_json_arr(&j, NULL);
	sl_proxy_each_route(proxy, add_route, &j);
	sl_json_arr_end(&j);
	sl_str_addc(out, '\n');
}

struct one_route {
	struct sl_json j;
	const char *name;
	bool found;
};

static void add_route_of_name(void *arg, const struct sl_route_view *r)
{
	struct one_route *one = arg;

	if (one->found || strcmp(r->conf->name, one->name) != 0)
		return;
	one->found = true;
	add_route(&one->j, r);
}

bool sl_view_route(struct sl_str *out, struct sl_proxy *proxy, const char *name)
{
	struct one_route one = { .j = sl_json_on(out), .name = name };

	sl_proxy_each_route(proxy, add_route_of_name, &one);
	if (one.found)
		sl_str_addc(out, '\n');
	return one.found;
}

/* ---- connections ---- */

/* The last ones, the oldest first. */
static void add_moves(struct sl_json *j, const struct sl_conn_row *c)
{
	sl_json_arr(j, "moves");
	for (unsigned i = 0; i < sl_moves_n_kept(&c->moves); i++) {
		const struct sl_move *m = sl_moves_at(&c->moves, i);

		sl_json_obj(j, NULL);
		sl_json_str(j, "from", sl_engine_name((enum sl_engine_id)m->from));
		sl_json_str(j, "to", sl_engine_name((enum sl_engine_id)m->to));
		sl_json_str(j, "reason", sl_engine_reason_name((enum sl_engine_reason)m->why));
		sl_json_f64(j, "age_s", seconds((c->now_us - m->at_us) / 1000));
		sl_json_obj_end(j);
	}
	sl_json_arr_end(j);
	sl_json_u64(j, "moves_total", c->moves.n);
}

static void add_conn(struct sl_json *j, const struct sl_conn_row *c)
{
	sl_json_obj(j, NULL);
	sl_json_u64(j, "id", c->id);
	sl_json_str(j, "route", c->route[0] ? c->route : NULL);
	sl_json_str(j, "state", sl_conn_state_name(c->state));
	sl_json_str(j, "engine", c->engine == SL_ENGINE_NONE ? NULL : sl_engine_name(c->engine));
	sl_json_str(j, "engine_reason",
		    c->engine_reason == SL_WHY_NONE ? NULL
						    : sl_engine_reason_name(c->engine_reason));
	sl_json_addr(j, "client", &c->client);
	sl_json_addr(j, "client_via", &c->client_via);
	sl_json_addr(j, "backend", &c->backend);
	sl_json_str(j, "sni", c->sni[0] ? c->sni : NULL);
	sl_view_tls_conn(j, c);
	sl_json_f64(j, "age_s", seconds(c->age_ms));
	sl_json_f64(j, "idle_s", seconds(c->idle_ms));
	sl_json_u64(j, "bytes_up", c->bytes_up);
	sl_json_u64(j, "bytes_down", c->bytes_down);
	if (c->connect_us)
		sl_json_f64(j, "connect_ms", (double)c->connect_us / 1000);
	else
		sl_json_null(j, "connect_ms");
	add_moves(j, c);
	sl_json_obj_end(j);
}

void sl_view_conns(struct sl_str *out, const struct sl_conn_survey *survey)
{
	struct sl_json j = sl_json_on(out);

	sl_json_arr(&j, NULL);
	for (size_t i = 0; i < survey->n_rows; i++)
		add_conn(&j, &survey->rows[i]);
	sl_json_arr_end(&j);
	sl_str_addc(out, '\n');
}

/* ---- what this build can do ---- */

static void add_availability(struct sl_json *j, enum sl_engine_id engine,
			     const struct sl_proxy *proxy, const struct sl_ctl_facts *facts)
{
	switch (engine) {
	case SL_ENGINE_PACKET:
		sl_view_packet_engine(j, proxy, facts);
		break;
	case SL_ENGINE_SOCKMAP:
		sl_view_sockmap_engine(j, proxy, facts);
		break;
	case SL_ENGINE_NFTABLES:
		sl_view_nft_engine(j, proxy, facts);
		break;
	case SL_ENGINE_RELAY:
	case SL_ENGINE_COUNT_:
		sl_json_bool(j, "available", true);
		sl_json_str(j, "reason", "always: it needs no privilege and nothing of the kernel");
		break;
	}
}

void sl_view_engines(struct sl_str *out, const struct sl_proxy *proxy,
		     const struct sl_ctl_facts *facts)
{
	struct sl_json j = sl_json_on(out);
	struct sl_proxy_totals totals = { 0 };

	sl_proxy_totals(proxy, &totals);
	sl_json_obj(&j, NULL);
	sl_json_obj(&j, "engines");
	for (int i = 0; i < SL_ENGINE_COUNT_; i++) {
		sl_json_obj(&j, sl_engine_name((enum sl_engine_id)i));
		sl_json_str(&j, "name", sl_engine_name((enum sl_engine_id)i));
		add_availability(&j, (enum sl_engine_id)i, proxy, facts);
		sl_json_u64(&j, "active", totals.engine_active[i]);
		sl_json_u64(&j, "total", totals.engine_total[i]);
		sl_json_obj_end(&j);
	}
	sl_json_obj_end(&j);
	sl_view_ktls(&j, facts);
	finish(&j);
}

void sl_view_version(struct sl_str *out, const struct sl_ctl_facts *facts)
{
	struct sl_json j = sl_json_on(out);

	sl_json_obj(&j, NULL);
	sl_json_str(&j, "version", SL_VERSION);
	sl_json_i64(&j, "pid", facts->pid);
	sl_json_u64(&j, "api", 1);
	finish(&j);
}

/* ---- explain ---- */

static void add_question(struct sl_json *j, const struct sl_question *q)
{
	char tls[SL_TLS_TEXT];
	char ip[SL_ADDR_TEXT];

	sl_json_u64(j, "port", q->port);
	sl_json_str(j, "protocol", q->is_udp ? "udp" : "tcp");
	sl_json_str(j, "address",
		    sl_addr_family(&q->local) ? sl_addr_format_ip(&q->local, ip) : NULL);
	sl_json_str(j, "name", q->name);
	sl_json_str(j, "path", q->path);
	sl_json_str(j, "client",
		    sl_addr_family(&q->client) ? sl_addr_format_ip(&q->client, ip) : NULL);
	sl_json_str(j, "alpn", q->alpn);
	sl_json_str(j, "tls", sl_view_tls(q->tls_versions, tls));
}

/* No connection begins in the kernel. */
static void add_when(struct sl_str *s, const struct sl_conf_packet *conf)
{
	sl_str_adds(s, "; it begins on relay and moves ");
	if (conf->after_bytes == 0 || conf->after_age_ms == 0)
		sl_str_adds(s, "at the first quiet moment");
	else
		sl_str_addf(s, "after %" PRIu64 " bytes (packet.after_bytes) or %g s (after_age)",
			    conf->after_bytes, seconds(conf->after_age_ms));
}

/* Whose word `configured` is. */
static void add_decider(struct sl_str *s, const struct sl_conf_route *route,
			const struct sl_conf *conf)
{
	if (route->engine != SL_CHOICE_AUTO)
		sl_str_addf(s, "the route has 'engine: %s'", choice_name(route->engine));
	else if (conf && conf->global.packet.hook == SL_HOOK_CHOICE_OFF)
		sl_str_adds(s, "the route has 'engine: auto', and global.packet.hook is off");
	else
		sl_str_adds(s, sl_engine_reason_text(SL_WHY_CONFIGURED));
}

static void add_engine(struct sl_json *j, const struct sl_explanation *e,
		       const struct sl_conf *conf)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	bool known = e->route && e->engine != SL_ENGINE_NONE;

	if (known && e->engine_reason == SL_WHY_CONFIGURED)
		add_decider(&text, e->route, conf);
	else if (known)
		sl_str_adds(&text, sl_engine_reason_text(e->engine_reason));
	if (known && e->engine == SL_ENGINE_PACKET && conf)
		add_when(&text, &conf->global.packet);
	if (known && e->engine == SL_ENGINE_SOCKMAP)
		sl_str_adds(&text, "; it begins on relay");
	sl_json_str(j, "engine", known ? sl_engine_name(e->engine) : NULL);
	sl_json_str(j, "engine_reason", known ? sl_engine_reason_name(e->engine_reason) : NULL);
	sl_json_str(j, "engine_text", known ? sl_str_text(&text) : NULL);
}

/* In the order of preference. */
static void add_choice(struct sl_json *j, const struct sl_choice *choice)
{
	sl_json_arr(j, "engines");
	for (size_t i = 0; i < choice->n; i++) {
		const struct sl_choice_item *item = &choice->item[i];

		sl_json_obj(j, NULL);
		sl_json_str(j, "engine", sl_engine_name(item->engine));
		sl_json_bool(j, "can_carry", item->can_carry);
		sl_json_str(j, "reason", sl_engine_reason_name(item->why));
		sl_json_obj_end(j);
	}
	sl_json_arr_end(j);
}

static void add_access(struct sl_json *j, const struct sl_explanation *e)
{
	bool denied = sl_access_is_denied(e->access);

	sl_json_obj(j, "security");
	sl_json_str(j, "verdict", denied ? "denied" : "allowed");
	sl_json_str(j, "rule", sl_access_rule_name(e->access));
	sl_json_str(j, "text", sl_access_rule_text(e->access));
	sl_json_obj_end(j);
}

static void add_candidates(struct sl_json *j, const struct sl_explanation *e)
{
	sl_json_arr(j, "candidates");
	for (size_t i = 0; i < e->n_candidates; i++) {
		const struct sl_explained_route *c = &e->candidates[i];

		sl_json_obj(j, NULL);
		sl_json_str(j, "route", c->conf->name);
		sl_json_str(j, "result", c->verdict == SL_MATCH_WON ? "won" : "lost");
		sl_json_str(j, "why", sl_match_verdict_name(c->verdict));
		sl_json_str(j, "text", sl_match_verdict_text(c->verdict));
		sl_json_obj_end(j);
	}
	sl_json_arr_end(j);
}

/* What the route says; whether anybody asks it is another matter. */
static const char *verdict_text(const struct sl_explanation *e)
{
	if (e->verdict != SL_REASON_NONE)
		return sl_reason_text(e->verdict);
	return e->is_listening ? "the connection would be accepted"
			       : "the route would have the connection, but now nobody takes it";
}

static void add_decision(struct sl_json *j, struct sl_proxy *proxy, const struct sl_explanation *e,
			 const char *name)
{
	bool accepted = e->verdict == SL_REASON_NONE;

	sl_json_bool(j, "listening", e->is_listening);
	sl_json_bool(j, "needs_hello", e->needs_hello);
	sl_json_bool(j, "accept_proxy", e->wants_proxy);
	sl_json_str(j, "route", e->route ? e->route->name : NULL);
	sl_json_str(j, "verdict", accepted ? "accepted" : sl_reason_name(e->verdict));
	sl_json_str(j, "verdict_text", verdict_text(e));
	add_access(j, e);
	add_engine(j, e, sl_proxy_conf(proxy));
	add_choice(j, &e->choice);
	sl_json_str(j, "target", e->route ? e->target : NULL);
	sl_json_str(j, "target_why", e->route ? e->target_why : NULL);
	sl_json_arr(j, "usable_targets");
	for (size_t i = 0; i < e->n_usable; i++)
		sl_json_str(j, NULL, e->usable[i]);
	sl_json_arr_end(j);
	sl_view_tls_explain(j, proxy, e, name);
	add_candidates(j, e);
	sl_json_str(j, "note", e->name_error ? e->name_error : e->hint);
}

void sl_view_explain(struct sl_str *out, struct sl_proxy *proxy, const struct sl_question *question)
{
	_cleanup_(sl_explanation_done) struct sl_explanation e = { 0 };
	struct sl_json j = sl_json_on(out);

	if (sl_proxy_explain(proxy, question, &e) < 0) {
		out->oom = true;
		return;
	}
	sl_json_obj(&j, NULL);
	add_question(&j, question);
	add_decision(&j, proxy, &e, question->name);
	finish(&j);
}
