/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/views.h"

#include <stdio.h>

#include "base/json.h"

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

/* "1.2.3.4:80", or null for none. */
static void add_addr(struct sl_json *j, const char *key, const struct sl_addr *a)
{
	char text[SL_ADDR_TEXT];

	sl_json_str(j, key, sl_addr_family(a) ? sl_addr_format(a, text) : NULL);
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

/* What kernel engines hold; this build has none. */
static void add_kernel(struct sl_json *j)
{
	static const char *const counts[] = { "packet_flows", "sockmap_sockets", "nft_flows",
					      "orphans",      "missing",         "adopted" };

	sl_json_obj(j, "kernel");
	for (size_t i = 0; i < SL_ARRAY_LEN(counts); i++)
		sl_json_u64(j, counts[i], 0);
	sl_json_obj_end(j);
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
	add_kernel(&j);
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
	sl_json_arr(j, "resolved");
	for (size_t i = 0; i < t->n_addrs; i++)
		add_addr(j, NULL, &t->addrs[i]);
	sl_json_arr_end(j);
	sl_json_obj_end(j);
}

static void add_ports(struct sl_json *j, const struct sl_conf_route *r)
{
	sl_json_arr(j, "ports");
	for (size_t i = 0; i < r->n_ports; i++) {
		const struct sl_port_spec *p = &r->ports[i];
		char ip[SL_ADDR_TEXT];
		char text[SL_ADDR_TEXT + 32];
		int n = 0;

		if (sl_addr_family(&p->ip))
			n = snprintf(text, sizeof(text),
				     sl_addr_family(&p->ip) == AF_INET6 ? "[%s]:" : "%s:",
				     sl_addr_format_ip(&p->ip, ip));
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%u", p->from);
		if (p->to != p->from)
			(void)snprintf(text + n, sizeof(text) - (size_t)n, "-%u", p->to);
		sl_json_str(j, NULL, text);
	}
	sl_json_arr_end(j);
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
	add_ports(j, r->conf);
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

/* ---- connections ---- */

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
	add_addr(j, "client", &c->client);
	add_addr(j, "client_via", &c->client_via);
	add_addr(j, "backend", &c->backend);
	sl_json_null(j, "sni");
	sl_json_null(j, "alpn");
	sl_json_null(j, "tls");
	sl_json_f64(j, "age_s", seconds(c->age_ms));
	sl_json_f64(j, "idle_s", seconds(c->idle_ms));
	sl_json_u64(j, "bytes_up", c->bytes_up);
	sl_json_u64(j, "bytes_down", c->bytes_down);
	if (c->connect_us)
		sl_json_f64(j, "connect_ms", (double)c->connect_us / 1000);
	else
		sl_json_null(j, "connect_ms");
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

#define NOT_IN_BUILD "not in this build"

void sl_view_flows(struct sl_str *out)
{
	struct sl_json j = sl_json_on(out);

	sl_json_obj(&j, NULL);
	sl_json_arr(&j, "flows");
	sl_json_arr_end(&j);
	sl_json_str(&j, "reason", "kernel engines are " NOT_IN_BUILD ": the daemon relays all");
	finish(&j);
}

void sl_view_engines(struct sl_str *out, const struct sl_proxy *proxy)
{
	struct sl_json j = sl_json_on(out);
	struct sl_proxy_totals totals = { 0 };

	sl_proxy_totals(proxy, &totals);
	sl_json_obj(&j, NULL);
	sl_json_obj(&j, "engines");
	for (int i = 0; i < SL_ENGINE_COUNT_; i++) {
		bool available = i == SL_ENGINE_RELAY;

		sl_json_obj(&j, sl_engine_name((enum sl_engine_id)i));
		sl_json_str(&j, "name", sl_engine_name((enum sl_engine_id)i));
		sl_json_bool(&j, "available", available);
		sl_json_str(&j, "reason", available ? "always available" : NOT_IN_BUILD);
		sl_json_u64(&j, "active", totals.engine_active[i]);
		sl_json_u64(&j, "total", totals.engine_total[i]);
		sl_json_obj_end(&j);
	}
	sl_json_obj_end(&j);
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

static void add_decision(struct sl_json *j, const struct sl_explanation *e)
{
	bool accepted = e->verdict == SL_REASON_NONE;

	sl_json_bool(j, "listening", e->is_listening);
	sl_json_str(j, "route", e->route ? e->route->name : NULL);
	sl_json_str(j, "verdict", accepted ? "accepted" : sl_reason_name(e->verdict));
	sl_json_str(j, "verdict_text",
		    accepted ? "the connection would be accepted" : sl_reason_text(e->verdict));
	if (e->route && e->engine != SL_ENGINE_NONE) {
		sl_json_str(j, "engine", sl_engine_name(e->engine));
		sl_json_str(j, "engine_reason", sl_engine_reason_name(e->engine_reason));
		sl_json_str(j, "engine_text", sl_engine_reason_text(e->engine_reason));
	} else {
		sl_json_null(j, "engine");
		sl_json_null(j, "engine_reason");
		sl_json_null(j, "engine_text");
	}
	sl_json_str(j, "target", e->route ? e->target : NULL);
}

void sl_view_explain(struct sl_str *out, struct sl_proxy *proxy,
		     const struct sl_view_question *question)
{
	struct sl_json j = sl_json_on(out);
	const struct sl_question q = { .local = question->address,
				       .port = question->port,
				       .client = question->client };
	struct sl_explanation e = { 0 };
	char ip[SL_ADDR_TEXT];

	if (sl_proxy_explain(proxy, &q, &e) < 0)
		e.verdict = SL_REASON_ERROR;

	sl_json_obj(&j, NULL);
	sl_json_u64(&j, "port", question->port);
	sl_json_str(&j, "address",
		    sl_addr_family(&question->address) ? sl_addr_format_ip(&question->address, ip)
						       : NULL);
	sl_json_str(&j, "name", question->name);
	sl_json_str(&j, "path", question->path);
	sl_json_str(&j, "client",
		    sl_addr_family(&question->client) ? sl_addr_format_ip(&question->client, ip)
						      : NULL);
	add_decision(&j, &e);
	sl_json_str(&j, "note",
		    question->name || question->path
			    ? "routes of this build match by address and port only; name and "
			      "path do not matter"
			    : NULL);
	finish(&j);
}
