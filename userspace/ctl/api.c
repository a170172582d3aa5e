/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "core/url.h"
#include "ctl/api.h"
#include "ctl/changes.h"
#include "ctl/metrics.h"
#include "ctl/params.h"
#include "ctl/view_diff.h"
#include "ctl/view_kernel.h"
#include "ctl/view_tls.h"
#include "ctl/views.h"
#include "ctl/words.h"

#define DEFAULT_ROWS 10000

typedef void (*handler_fn)(struct sl_ctl *ctl, struct sl_call *call);

struct endpoint {
	const char *method; /* GET stands for HEAD, too */
	const char *path;
	handler_fn handle;
	bool is_public;     /* served on the TCP port */
	const char *params; /* names, each followed by a blank */
	const char *help;
};

/* ---- waiting ---- */

struct sl_wait *sl_wait_start(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_wait *w = calloc(1, sizeof(*w));

	if (!w) {
		sl_call_fail(call, 500, NULL, "out of memory");
		return NULL;
	}
	w->ctl = ctl;
	w->call = call;
	sl_list_add(&ctl->waiting, &w->node);
	return w;
}

void sl_wait_end(struct sl_wait *w)
{
	sl_list_remove(&w->node);
	free(w);
}

static void ask_survey(struct sl_wait *w, const struct sl_conn_filter *filter, sl_survey_fn fn)
{
	int r = sl_proxy_survey(w->ctl->options.proxy, filter, fn, w);

	if (r == 0)
		return;
	sl_call_fail(w->call, 500, NULL, "the connections cannot be listed: %s", strerror(-r));
	sl_wait_end(w);
}

/* ---- handlers ---- */

static void reply_json(struct sl_call *call, struct sl_str *body)
{
	sl_call_reply(call, 200, SL_TYPE_JSON, body);
}

static void reply_text(struct sl_call *call, unsigned status, const char *text)
{
	struct sl_str body = { 0 };

	sl_str_adds(&body, text);
	sl_call_reply(call, status, SL_TYPE_TEXT, &body);
}

static void get_status(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_str body = { 0 };

	sl_view_status(&body, ctl->options.proxy, ctl->options.facts,
		       sl_loop_now_ms(ctl->options.loop));
	reply_json(call, &body);
}

static void get_routes(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_str body = { 0 };

	sl_view_routes(&body, ctl->options.proxy);
	reply_json(call, &body);
}

static void get_route(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_str body = { 0 };
	char name[SL_PARAM_MAX];

	if (!sl_param_path_name(call, name))
		return;
	if (sl_view_route(&body, ctl->options.proxy, name))
		reply_json(call, &body);
	else
		sl_call_fail(call, 404, "'sluice routes' or GET /v1/routes lists them",
			     "there is no route '%s'", name);
}

static void get_changes(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_str body = { 0 };

	sl_changes_write(&body, ctl->options.facts->changes, false);
	reply_json(call, &body);
}

/* A table that is walked between other work. */
struct listing {
	struct sl_task task;
	struct sl_wait *wait;
	struct sl_loop *loop;
	struct sl_flows_view view;
};

static void end_listing(struct listing *l)
{
	sl_view_flows_done(&l->view);
	sl_str_done(&l->view.out);
	sl_wait_end(l->wait);
	free(l);
}

static void finish_listing(struct listing *l, const struct sl_conn_survey *records)
{
	struct sl_wait *w = l->wait;

	if (w->ctl && sl_call_is_wanted(w->call))
		sl_view_flows_end(&l->view, w->ctl->options.proxy, w->ctl->options.facts, records);
	reply_json(w->call, &l->view.out);
	end_listing(l);
}

static void on_records(void *arg, const struct sl_conn_survey *survey)
{
	finish_listing(arg, survey);
}

static void fail_listing(struct listing *l, int err)
{
	sl_call_fail(l->wait->call, 500, NULL, "the kernel's table of flows cannot be read: %s",
		     strerror(-err));
	end_listing(l);
}

static void list_flows(struct sl_task *task)
{
	struct listing *l = SL_CONTAINER_OF(task, struct listing, task);
	const struct sl_conn_filter filter = { .id = l->view.id, .is_joined = true };
	struct sl_wait *w = l->wait;
	int r = 1;

	if (w->ctl && sl_call_is_wanted(w->call)) {
		r = sl_view_flows_step(&l->view, w->ctl->options.proxy);
		if (r == 0) {
			sl_loop_again(l->loop, &l->task, list_flows);
			return;
		}
		if (r > 0 && sl_view_flows_wants_records(&l->view)) {
			r = sl_proxy_survey(w->ctl->options.proxy, &filter, on_records, l);
			if (r == 0)
				return;
		}
	}
	if (r < 0)
		fail_listing(l, r);
	else
		finish_listing(l, NULL);
}

static void get_flows(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_wait *w;
	struct listing *l;
	uint64_t rows;
	uint64_t id;

	if (!sl_param_number(call, "id", 1, UINT64_MAX, 0, &id) ||
	    !sl_param_number(call, "limit", 0, SIZE_MAX, DEFAULT_ROWS, &rows))
		return;
	w = sl_wait_start(ctl, call);
	if (!w)
		return;
	l = calloc(1, sizeof(*l));
	if (!l) {
		sl_call_fail(call, 500, NULL, "out of memory");
		sl_wait_end(w);
		return;
	}
	l->wait = w;
	l->loop = ctl->options.loop;
	sl_view_flows_start(&l->view, rows && !id ? (size_t)rows : SIZE_MAX);
	l->view.id = id;
	list_flows(&l->task);
}

static void on_flushed(void *arg)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	struct sl_wait *w = arg;
	struct sl_str body = { 0 };
	struct sl_json j = sl_json_on(&body);

	sl_json_obj(&j, NULL);
	sl_str_addf(&text, "%" PRIu64 " flow%s in the kernel %s reset and all entries removed",
		    w->n_flows, w->n_flows == 1 ? "" : "s", w->n_flows == 1 ? "was" : "were");
	sl_json_bool(&j, "ok", true);
	sl_json_u64(&j, "flows", w->n_flows);
	sl_json_str(&j, "text", sl_str_text(&text));
	sl_json_obj_end(&j);
	sl_str_addc(&body, '\n');
	reply_json(w->call, &body);
	sl_wait_end(w);
}

static void delete_flows(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_wait *w = sl_wait_start(ctl, call);
	struct sl_proxy_totals totals;
	struct sl_kernel_view k;

	if (!w)
		return;
	sl_proxy_totals(ctl->options.proxy, &totals);
	sl_proxy_kernel(ctl->options.proxy, &k);
	w->n_flows = sl_view_packet_flows(&totals, &k);
	if (sl_proxy_flush(ctl->options.proxy, on_flushed, w) == 0)
		return;
	if (k.has_broker)
		sl_call_fail(call, 503, "try again in a moment",
			     "the table is being emptied already");
	else if (k.is_linked)
		sl_call_fail(call, 503, "'sluice engines' says why",
			     "the packet engine is off, and has no table");
	else
		sl_call_fail(call, 503,
			     "'sluice engines' says why; 'sluiced --purge' needs no daemon",
			     "there is no broker process that could do it");
	sl_wait_end(w);
}

static void on_diff(void *arg, const char *lines)
{
	struct sl_wait *w = arg;
	struct sl_str body = { 0 };
	struct sl_kernel_view k = { 0 };

	if (w->ctl)
		sl_proxy_kernel(w->ctl->options.proxy, &k);
	if (!lines && k.is_linked) {
		sl_call_fail(w->call, 503, "its log may say why",
			     "the broker process does not answer");
		sl_wait_end(w);
		return;
	}
	if (w->ctl && sl_call_is_wanted(w->call))
		sl_view_diff(&body, w->ctl->options.proxy, w->ctl->options.facts, lines);
	reply_json(w->call, &body);
	sl_wait_end(w);
}

static void get_diff(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_wait *w = sl_wait_start(ctl, call);

	if (!w || sl_proxy_diff(ctl->options.proxy, on_diff, w) == 0)
		return;
	sl_call_fail(call, 500, NULL, "out of memory");
	sl_wait_end(w);
}

static void get_engines(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_str body = { 0 };

	sl_view_engines(&body, ctl->options.proxy, ctl->options.facts);
	reply_json(call, &body);
}

static void get_certs(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_proxy *proxy = ctl->options.proxy;
	struct sl_str body = { 0 };
	char name[SL_PARAM_MAX];

	if (!sl_param(call, "name", name))
		return;
	if (!name[0])
		sl_view_certs(&body, proxy);
	if (!name[0] || sl_view_cert(&body, proxy, name))
		reply_json(call, &body);
	else
		sl_call_fail(call, 404,
			     "'sluice cert list' or GET /v1/certs lists them; give a route, a file "
			     "or a domain",
			     "there is no certificate of '%s'", name);
}

static void get_reasons(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_str body = { 0 };

	(void)ctl;
	sl_words_reasons(&body);
	reply_json(call, &body);
}

static void get_version(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_str body = { 0 };

	sl_view_version(&body, ctl->options.facts);
	reply_json(call, &body);
}

static void on_conns(void *arg, const struct sl_conn_survey *survey)
{
	struct sl_wait *w = arg;
	struct sl_str body = { 0 };

	if (sl_call_is_wanted(w->call))
		sl_view_conns(&body, survey);
	reply_json(w->call, &body);
	sl_wait_end(w);
}

/* Which connections: what is given must all be true of one. */
struct which {
	struct sl_conn_filter filter;
	char route[SL_PARAM_MAX];
	char target[SL_PARAM_MAX];
	struct sl_ip_pattern client;
};

static bool params_which(struct sl_call *call, struct which *ret)
{
	bool has_client;

	if (!sl_param_number(call, "id", 1, UINT64_MAX, 0, &ret->filter.id) ||
	    !sl_param(call, "route", ret->route) || !sl_param(call, "target", ret->target) ||
	    !sl_param_client(call, "client", &ret->client, &has_client))
		return false;
	ret->filter.route = ret->route[0] ? ret->route : NULL;
	ret->filter.target = ret->target[0] ? ret->target : NULL;
	ret->filter.client = has_client ? &ret->client : NULL;
	return true;
}

static bool says_which(const struct which *w)
{
	return w->filter.id || w->filter.route || w->filter.target || w->filter.client;
}

static void get_conns(struct sl_ctl *ctl, struct sl_call *call)
{
	struct which which = { 0 };
	struct sl_wait *w;
	uint64_t rows;

	if (!params_which(call, &which) ||
	    !sl_param_number(call, "limit", 0, SIZE_MAX, DEFAULT_ROWS, &rows))
		return;
	which.filter.max_rows = (size_t)rows;
	w = sl_wait_start(ctl, call);
	if (w)
		ask_survey(w, &which.filter, on_conns);
}

static bool has_route(const struct sl_ctl *ctl, const char *name)
{
	const struct sl_conf *conf = ctl ? sl_proxy_conf(ctl->options.proxy) : NULL;

	for (size_t i = 0; conf && i < conf->n_routes; i++)
		if (strcmp(conf->routes[i].name, name) == 0)
			return true;
	return !conf;
}

static void on_killed(void *arg, const struct sl_conn_survey *survey)
{
	struct sl_wait *w = arg;
	struct sl_str body = { 0 };
	struct sl_json j = sl_json_on(&body);

	/* A removed route may have connections still; one that never was is a slip of the pen. */
	if (survey->n_matching == 0 && w->route[0] && !has_route(w->ctl, w->route)) {
		sl_call_fail(w->call, 404, "'sluice routes' lists them",
			     "there is no route '%s', and no connection of one", w->route);
		sl_wait_end(w);
		return;
	}
	sl_json_obj(&j, NULL);
	sl_json_u64(&j, "killed", survey->n_matching);
	sl_json_obj_end(&j);
	sl_str_addc(&body, '\n');
	reply_json(w->call, &body);
	sl_wait_end(w);
}

static void post_kill(struct sl_ctl *ctl, struct sl_call *call)
{
	struct which which = { .filter = { .kill = true, .max_rows = 1 } };
	struct sl_wait *w;
	uint64_t all;

	if (!params_which(call, &which) || !sl_param_number(call, "all", 0, 1, 0, &all))
		return;
	if (says_which(&which) == (bool)all) {
		sl_call_fail(call, 400,
			     "give some of id=N, route=NAME, client=PATTERN and target=ADDRESS, "
			     "or all=1",
			     all ? "all=1 and a filter contradict each other"
				 : "nothing says which connections to close");
		return;
	}
	w = sl_wait_start(ctl, call);
	if (!w)
		return;
	memcpy(w->route, which.route, sizeof(w->route));
	ask_survey(w, &which.filter, on_killed);
}

/* ---- moves ---- */

static void fail_move(struct sl_call *call, const struct sl_conn_row *row, const char *to)
{
	const char *now = sl_engine_name(row->engine);

	if (row->move == SL_MOVE_NO_WAY_OUT)
		sl_call_fail(call, 409,
			     "connections come back from sockmap alone: the others have no socket",
			     "connection %" PRIu64 " is on %s, which it cannot leave", row->id,
			     now);
	else if (row->move == SL_MOVE_NOT_OPEN)
		sl_call_fail(call, 409, "only connections that are open on both sides are moved",
			     "connection %" PRIu64 " is not established, or one side has closed",
			     row->id);
	else
		sl_call_fail(call, 409, "'sluice explain' says which engines a connection may have",
			     "connection %" PRIu64 " of route '%s' cannot be had by %s", row->id,
			     row->route, to);
}

static void on_moved(void *arg, const struct sl_conn_survey *survey)
{
	const struct sl_conn_row *row = survey->rows;
	struct sl_wait *w = arg;
	struct sl_str body = { 0 };
	struct sl_json j = sl_json_on(&body);

	if (survey->n_rows == 0) {
		sl_call_fail(w->call, 404, "'sluice conns' lists them",
			     "there is no such connection");
	} else if (row->move != SL_MOVE_BEGUN && row->move != SL_MOVE_IS_THERE) {
		fail_move(w->call, row, w->engine);
	} else {
		sl_json_obj(&j, NULL);
		sl_json_u64(&j, "id", row->id);
		sl_json_str(&j, "from", sl_engine_name(row->engine));
		sl_json_str(&j, "to", w->engine);
		sl_json_bool(&j, "begun", row->move == SL_MOVE_BEGUN);
		sl_json_obj_end(&j);
		sl_str_addc(&body, '\n');
		reply_json(w->call, &body);
	}
	sl_wait_end(w);
}

static bool param_engine(struct sl_call *call, enum sl_engine_id *ret)
{
	static const enum sl_engine_id any[] = { SL_ENGINE_RELAY, SL_ENGINE_PACKET,
						 SL_ENGINE_SOCKMAP };
	char text[SL_PARAM_MAX];

	if (!sl_param(call, "engine", text))
		return false;
	for (size_t i = 0; i < SL_ARRAY_LEN(any); i++) {
		*ret = any[i];
		if (strcmp(text, sl_engine_name(any[i])) == 0)
			return true;
	}
	sl_call_fail(call, 400, "relay, packet or sockmap",
		     "the parameter 'engine' is none that a connection can be moved to: '%s'",
		     text);
	return false;
}

static void post_move(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_conn_filter filter = { .move = true, .max_rows = 1 };
	struct sl_wait *w;

	if (!sl_param_number(call, "id", 1, UINT64_MAX, 0, &filter.id) ||
	    !param_engine(call, &filter.to))
		return;
	if (filter.id == 0) {
		sl_call_fail(call, 400, "id=N, as 'sluice conns' shows it",
			     "nothing says which connection to move");
		return;
	}
	w = sl_wait_start(ctl, call);
	if (!w)
		return;
	w->engine = sl_engine_name(filter.to);
	ask_survey(w, &filter, on_moved);
}

static void get_explain(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_question q = { 0 };
	struct sl_str body = { 0 };
	char name[SL_PARAM_MAX];
	char path[SL_PARAM_MAX];
	char alpn[SL_PARAM_MAX];
	uint64_t port;

	if (!sl_param_number(call, "port", 1, 65535, 0, &port) ||
	    !sl_param_protocol(call, "protocol", &q.is_udp) ||
	    !sl_param_addr(call, "address", &q.local) ||
	    !sl_param_addr(call, "client", &q.client) ||
	    !sl_param_tls(call, "tls", &q.tls_versions) || !sl_param(call, "name", name) ||
	    !sl_param(call, "path", path) || !sl_param(call, "alpn", alpn))
		return;
	if (!port) {
		sl_call_fail(call, 400, "for example /v1/explain?port=443",
			     "the parameter 'port' is missing");
		return;
	}
	if (!sl_proxy_conf(ctl->options.proxy)) {
		sl_call_fail(call, 503, "try again in a moment", "no configuration is in use yet");
		return;
	}
	q.port = (uint16_t)port;
	q.name = name[0] ? name : NULL;
	q.path = path[0] ? path : NULL;
	q.alpn = alpn[0] ? alpn : NULL;
	sl_view_explain(&body, ctl->options.proxy, &q);
	reply_json(call, &body);
}

static void on_metrics(void *arg, const struct sl_conn_survey *survey)
{
	struct sl_wait *w = arg;
	struct sl_str body = { 0 };

	if (w->ctl && sl_call_is_wanted(w->call))
		sl_metrics_render(&body, w->ctl->options.proxy, w->ctl->options.facts, &survey->age,
				  sl_loop_now_ms(w->ctl->options.loop));
	sl_call_reply(w->call, 200, SL_TYPE_METRICS, &body);
	sl_wait_end(w);
}

static void get_metrics(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_conn_filter only_ages = { .max_rows = 1 };
	struct sl_wait *w = sl_wait_start(ctl, call);

	if (w)
		ask_survey(w, &only_ages, on_metrics);
}

static void get_health(struct sl_ctl *ctl, struct sl_call *call)
{
	(void)ctl;
	reply_text(call, 200, "ok\n");
}

static void get_ready(struct sl_ctl *ctl, struct sl_call *call)
{
	if (sl_proxy_is_draining(ctl->options.proxy))
		reply_text(call, 503, "draining: no new connections are accepted\n");
	else if (!ctl->options.facts->ready)
		reply_text(call, 503, "starting: the first configuration is not applied yet\n");
	else
		reply_text(call, 200, "ready\n");
}

static void get_front(struct sl_ctl *ctl, struct sl_call *call)
{
	(void)ctl;
	reply_text(call, 200,
		   "sluice " SL_VERSION "\n\n"
		   "/metrics  counters for Prometheus\n"
		   "/healthz  200 while the process answers\n"
		   "/readyz   200 while new connections are served\n");
}

static void get_index(struct sl_ctl *ctl, struct sl_call *call);

static const struct endpoint endpoints[] = {
	{ "GET", "/v1/status", get_status, false, "", "overview of daemon, routes and ends" },
	{ "GET", "/v1/routes", get_routes, false, "", "routes with targets and counters" },
	{ "GET", "/v1/routes/{name}", get_route, false, "", "one route" },
	{ "PUT", "/v1/routes/{name}", sl_api_put_route, false, "keep ",
	  "adds or replaces a route; body: the route as JSON or YAML" },
	{ "DELETE", "/v1/routes/{name}", sl_api_delete_route, false, "keep ", "removes a route" },
	{ "POST", "/v1/routes/{name}/enable", sl_api_enable_route, false, "keep ",
	  "enables a route" },
	{ "POST", "/v1/routes/{name}/disable", sl_api_disable_route, false, "keep ",
	  "disables a route; its connections go on" },
	{ "GET", "/v1/changes", get_changes, false, "", "what was changed at run time" },
	{ "DELETE", "/v1/changes", sl_api_forget, false, "route ",
	  "forgets changes made at run time: back to the files" },
	{ "POST", "/v1/drain", sl_api_drain, false, "target route keep ",
	  "no new connections for a target" },
	{ "POST", "/v1/undrain", sl_api_undrain, false, "target route ", "ends a drain" },
	{ "GET", "/v1/conns", get_conns, false, "id route client target limit ",
	  "open connections" },
	{ "GET", "/v1/flows", get_flows, false, "id limit ", "flows the kernel carries" },
	{ "DELETE", "/v1/flows", delete_flows, false, "",
	  "resets every flow the kernel carries and empties its table" },
	{ "GET", "/v1/diff", get_diff, false, "",
	  "compares the kernel with the records, and heals what differs" },
	{ "GET", "/v1/engines", get_engines, false, "", "what may carry connections here" },
	{ "GET", "/v1/certs", get_certs, false, "name ",
	  "certificates in use, or those of a route, a file or a domain" },
	{ "POST", "/v1/certs/reload", sl_api_reload_certs, false, "",
	  "reads the files of certificates again, now" },
	{ "GET", "/v1/reasons", get_reasons, false, "", "meaning of all reason names" },
	{ "GET", "/v1/version", get_version, false, "", "version of the daemon" },
	{ "GET", "/v1/explain", get_explain, false,
	  "port protocol address name path client alpn tls ", "what would happen to a connection" },
	{ "POST", "/v1/kill", post_kill, false, "id route client target all ",
	  "closes connections" },
	{ "POST", "/v1/move", post_move, false, "id engine ",
	  "moves a connection to another engine" },
	{ "POST", "/v1/reload", sl_api_reload, false, "what ",
	  "applies the configuration file, or what=deny_file alone" },
	{ "POST", "/v1/upgrade", sl_api_upgrade, false, "", "replaces the running program" },
	{ "GET", "/v1", get_index, false, "", "this list" },
	{ "GET", "/", get_front, true, "", "what is served on the TCP port" },
	{ "GET", "/metrics", get_metrics, true, "", "counters for Prometheus" },
	{ "GET", "/healthz", get_health, true, "", "200 while the process answers" },
	{ "GET", "/readyz", get_ready, true, "", "200 while new connections are served" },
};

static void add_endpoints(struct sl_json *j, bool only_public)
{
	sl_json_arr(j, "endpoints");
	for (size_t i = 0; i < SL_ARRAY_LEN(endpoints); i++) {
		const struct endpoint *e = &endpoints[i];
		char line[128];

		if (only_public && !e->is_public)
			continue;
		(void)snprintf(line, sizeof(line), "%s %s", e->method, e->path);
		sl_json_str(j, NULL, line);
	}
	sl_json_arr_end(j);
}

static void get_index(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_str body = { 0 };
	struct sl_json j = sl_json_on(&body);

	(void)ctl;
	sl_json_obj(&j, NULL);
	sl_json_arr(&j, "endpoints");
	for (size_t i = 0; i < SL_ARRAY_LEN(endpoints); i++) {
		const struct endpoint *e = &endpoints[i];

		sl_json_obj(&j, NULL);
		sl_json_str(&j, "method", e->method);
		sl_json_str(&j, "path", e->path);
		sl_json_strn(&j, "parameters", e->params, e->params[0] ? strlen(e->params) - 1 : 0);
		sl_json_str(&j, "help", e->help);
		sl_json_obj_end(&j);
	}
	sl_json_arr_end(&j);
	sl_json_obj_end(&j);
	sl_str_addc(&body, '\n');
	reply_json(call, &body);
}

/* ---- dispatch ---- */

static void fail_not_found(struct sl_call *call, bool only_public)
{
	const struct sl_http_head *head = sl_call_head(call);
	_cleanup_(sl_str_done) struct sl_str error = { 0 };
	struct sl_str body = { 0 };
	struct sl_json j = sl_json_on(&body);

	sl_str_adds(&error, "no such endpoint: ");
	sl_str_add_escaped(&error, head->path.p, head->path.n, 200);
	sl_json_obj(&j, NULL);
	sl_json_str(&j, "error", sl_str_text(&error));
	sl_json_str(&j, "hint",
		    only_public ? "the control socket serves more than this port"
				: "GET /v1 tells what each endpoint does");
	add_endpoints(&j, only_public);
	sl_json_obj_end(&j);
	sl_str_addc(&body, '\n');
	sl_call_reply(call, 404, SL_TYPE_JSON, &body);
}

/* A misspelt parameter must not be ignored: it may have been the filter of a kill. */
static bool params_are_known(struct sl_call *call, const struct endpoint *e)
{
	struct sl_slice rest = sl_call_head(call)->query;
	struct sl_slice name;
	struct sl_slice value;
	_cleanup_(sl_str_done) struct sl_str bad = { 0 };
	_cleanup_(sl_str_done) struct sl_str hint = { 0 };

	while (sl_url_next_pair(&rest, &name, &value)) {
		const char *known = e->params;
		size_t n = strcspn(known, " ");

		while (*known && !(n == name.n && memcmp(known, name.p, n) == 0)) {
			known += n + 1;
			n = strcspn(known, " ");
		}
		if (*known)
			continue;
		sl_str_add_escaped(&bad, name.p, name.n, 100);
		if (e->params[0])
			sl_str_addf(&hint, "%s takes: %s", e->path, e->params);
		else
			sl_str_addf(&hint, "%s takes no parameters", e->path);
		sl_call_fail(call, 400, sl_str_text(&hint), "unknown parameter '%s'",
			     sl_str_text(&bad));
		return false;
	}
	return true;
}

/* "{name}" stands for a part of the path that is not empty and has no slash. */
static bool is_path(const char *pattern, struct sl_slice path)
{
	const char *brace = strchr(pattern, '{');
	size_t n = brace ? (size_t)(brace - pattern) : 0;
	const char *slash;

	if (!brace)
		return sl_slice_is(path, pattern);
	if (path.n <= n || memcmp(path.p, pattern, n) != 0)
		return false;
	path = (struct sl_slice){ path.p + n, path.n - n };
	slash = memchr(path.p, '/', path.n);
	n = slash ? (size_t)(slash - path.p) : path.n;
	return n > 0 &&
	       sl_slice_is((struct sl_slice){ path.p + n, path.n - n }, strchr(brace, '}') + 1);
}

static void fail_method(struct sl_call *call, const char *path, const char *methods,
			const char *help)
{
	sl_call_add_header(call, "Allow", methods);
	sl_call_fail(call, 405, help, "%s is for %s requests", path, methods);
}

static void serve(struct sl_ctl *ctl, struct sl_call *call, bool only_public)
{
	const struct sl_http_head *head = sl_call_head(call);
	const struct endpoint *same_path = NULL;
	char methods[64] = "";

	for (size_t i = 0; i < SL_ARRAY_LEN(endpoints); i++) {
		const struct endpoint *e = &endpoints[i];
		bool is_get = strcmp(e->method, "GET") == 0;
		size_t n = strlen(methods);

		if ((only_public && !e->is_public) || !is_path(e->path, head->path))
			continue;
		if (sl_slice_is(head->method, e->method) ||
		    (is_get && sl_slice_is(head->method, "HEAD"))) {
			if (params_are_known(call, e))
				e->handle(ctl, call);
			return;
		}
		same_path = e;
		(void)snprintf(methods + n, sizeof(methods) - n, "%s%s%s", n ? ", " : "", e->method,
			       is_get ? ", HEAD" : "");
	}
	if (same_path)
		fail_method(call, same_path->path, methods, same_path->help);
	else
		fail_not_found(call, only_public);
}

static void on_control(void *arg, struct sl_call *call)
{
	serve(arg, call, false);
}

static void on_http(void *arg, struct sl_call *call)
{
	serve(arg, call, true);
}

/* ---- life ---- */

static int start_server(struct sl_ctl *ctl, int fd, void (*handle)(void *, struct sl_call *),
			struct sl_server **ret)
{
	const struct sl_server_options options = {
		.loop = ctl->options.loop,
		.fd = fd,
		.handle = handle,
		.arg = ctl,
	};

	return sl_server_new(&options, ret);
}

int sl_ctl_new(const struct sl_ctl_options *options, struct sl_ctl **ret)
{
	_cleanup_fd_ int control_fd = options->control_fd;
	_cleanup_fd_ int http_fd = options->http_fd;
	struct sl_ctl *ctl = calloc(1, sizeof(*ctl));
	int r;

	if (!ctl)
		return -ENOMEM;
	ctl->options = *options;
	sl_list_init(&ctl->waiting);
	r = start_server(ctl, SL_TAKE_FD(control_fd), on_control, &ctl->control);
	if (r == 0 && http_fd >= 0)
		r = start_server(ctl, SL_TAKE_FD(http_fd), on_http, &ctl->http);
	if (r < 0) {
		sl_ctl_free(ctl);
		return r;
	}
	*ret = ctl;
	return 0;
}

void sl_ctl_free(struct sl_ctl *ctl)
{
	if (!ctl)
		return;
	while (!sl_list_is_empty(&ctl->waiting)) {
		struct sl_wait *w = SL_CONTAINER_OF(ctl->waiting.next, struct sl_wait, node);

		sl_list_remove(&w->node);
		w->ctl = NULL;
	}
	sl_server_free(ctl->control);
	sl_server_free(ctl->http);
	free(ctl);
}

void sl_ctl_set_http_fd(struct sl_ctl *ctl, int fd)
{
	sl_server_free(ctl->http);
	ctl->http = NULL;
	if (fd >= 0 && start_server(ctl, fd, on_http, &ctl->http) < 0)
		sl_log(SL_LOG_ERROR, "control: cannot serve the new global.http address");
}

void sl_ctl_stop_accepting(struct sl_ctl *ctl)
{
	sl_server_stop_accepting(ctl->control);
	if (ctl->http)
		sl_server_stop_accepting(ctl->http);
}
