/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/num.h"
#include "core/url.h"
#include "ctl/metrics.h"
#include "ctl/server.h"
#include "ctl/views.h"
#include "ctl/words.h"

#define DEFAULT_ROWS 10000
#define PARAM_MAX 256

struct sl_ctl {
	struct sl_ctl_options options;
	struct sl_server *control;
	struct sl_server *http; /* NULL: none */
	struct sl_list waiting; /* answers that come later */
};

/* A call whose answer somebody else owes; outlives the client and the control interface. */
struct wait {
	struct sl_list node; /* in ctl->waiting */
	struct sl_ctl *ctl;  /* NULL: freed */
	struct sl_call *call;
	char route[PARAM_MAX]; /* what the survey's filter points to */
};

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

/* NULL when out of memory; the call has been failed then. */
static struct wait *start_wait(struct sl_ctl *ctl, struct sl_call *call)
{
	struct wait *w = calloc(1, sizeof(*w));

	if (!w) {
		sl_call_fail(call, 500, NULL, "out of memory");
		return NULL;
	}
	w->ctl = ctl;
	w->call = call;
	sl_list_add(&ctl->waiting, &w->node);
	return w;
}

static void end_wait(struct wait *w)
{
	sl_list_remove(&w->node);
	free(w);
}

static void ask_survey(struct wait *w, const struct sl_conn_filter *filter, sl_survey_fn fn)
{
	int r = sl_proxy_survey(w->ctl->options.proxy, filter, fn, w);

	if (r == 0)
		return;
	sl_call_fail(w->call, 500, NULL, "the connections cannot be listed: %s", strerror(-r));
	end_wait(w);
}

/* ---- parameters ---- */

/*
 * Reads a parameter into `buf` ("" when absent). False after the call was
 * failed because the parameter is broken.
 */
static bool param(struct sl_call *call, const char *name, char buf[PARAM_MAX])
{
	int r = sl_url_query(sl_call_head(call)->query, name, buf, PARAM_MAX);

	if (r >= 0)
		return true;
	sl_call_fail(call, 400, NULL, "the parameter '%s' %s", name,
		     r == -EEXIST   ? "is given twice"
		     : r == -ENOSPC ? "is too long"
				    : "is not properly encoded");
	return false;
}

static bool param_number(struct sl_call *call, const char *name, uint64_t min, uint64_t max,
			 uint64_t absent, uint64_t *ret)
{
	char text[PARAM_MAX];
	uint64_t v = absent;

	if (!param(call, name, text))
		return false;
	if (text[0] && sl_num_parse(text, min, max, &v) < 0) {
		sl_call_fail(call, 400, NULL,
			     "the parameter '%s' is not a number from %llu to %llu", name,
			     (unsigned long long)min, (unsigned long long)max);
		return false;
	}
	*ret = v;
	return true;
}

/* An address, with or without a port; AF_UNSPEC when absent. */
static bool param_addr(struct sl_call *call, const char *name, struct sl_addr *ret)
{
	char text[PARAM_MAX];
	struct sl_addr a = { 0 };

	if (!param(call, name, text))
		return false;
	if (text[0] && sl_addr_parse_ip(text, &a) < 0 && sl_addr_parse(text, &a) < 0) {
		sl_call_fail(call, 400, "give an IPv4 or IPv6 address, with or without a port",
			     "the parameter '%s' is not an address", name);
		return false;
	}
	*ret = a;
	return true;
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

static void get_flows(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_str body = { 0 };

	(void)ctl;
	sl_view_flows(&body);
	reply_json(call, &body);
}

static void get_engines(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_str body = { 0 };

	sl_view_engines(&body, ctl->options.proxy);
	reply_json(call, &body);
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
	struct wait *w = arg;
	struct sl_str body = { 0 };

	if (sl_call_is_wanted(w->call))
		sl_view_conns(&body, survey);
	reply_json(w->call, &body);
	end_wait(w);
}

static void get_conns(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_conn_filter filter = { 0 };
	char route[PARAM_MAX];
	struct wait *w;
	uint64_t rows;

	if (!param_number(call, "id", 1, UINT64_MAX, 0, &filter.id) ||
	    !param_number(call, "limit", 0, SIZE_MAX, DEFAULT_ROWS, &rows) ||
	    !param(call, "route", route))
		return;
	filter.max_rows = (size_t)rows;
	w = start_wait(ctl, call);
	if (!w)
		return;
	memcpy(w->route, route, sizeof(w->route));
	filter.route = w->route[0] ? w->route : NULL;
	ask_survey(w, &filter, on_conns);
}

static void on_killed(void *arg, const struct sl_conn_survey *survey)
{
	struct wait *w = arg;
	struct sl_str body = { 0 };
	struct sl_json j = sl_json_on(&body);

	sl_json_obj(&j, NULL);
	sl_json_u64(&j, "killed", survey->n_matching);
	sl_json_obj_end(&j);
	sl_str_addc(&body, '\n');
	reply_json(w->call, &body);
	end_wait(w);
}

static void post_kill(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_conn_filter filter = { .kill = true, .max_rows = 1 };
	char route[PARAM_MAX];
	struct wait *w;
	uint64_t all;

	if (!param_number(call, "id", 1, UINT64_MAX, 0, &filter.id) ||
	    !param_number(call, "all", 0, 1, 0, &all) || !param(call, "route", route))
		return;
	if (!filter.id && !route[0] && !all) {
		sl_call_fail(call, 400, "give id=N, route=NAME or all=1",
			     "nothing says which connections to close");
		return;
	}
	w = start_wait(ctl, call);
	if (!w)
		return;
	memcpy(w->route, route, sizeof(w->route));
	filter.route = w->route[0] ? w->route : NULL;
	ask_survey(w, &filter, on_killed);
}

static void answer_request(struct wait *w, bool ok, const char *text, const char *failed,
			   const char *hint)
{
	bool is_config = !ok && strstr(text, ": error: ") != NULL;
	struct sl_str body = { 0 };
	struct sl_json j = sl_json_on(&body);

	sl_json_obj(&j, NULL);
	sl_json_bool(&j, "ok", ok);
	if (!ok) {
		sl_json_str(&j, "error", failed);
		sl_json_str(&j, "hint", hint);
		sl_json_str(&j, "reason", is_config ? "config" : "failed");
	}
	sl_json_str(&j, "text", text);
	if (w->ctl)
		sl_json_u64(&j, "generation", sl_proxy_generation(w->ctl->options.proxy));
	sl_json_obj_end(&j);
	sl_str_addc(&body, '\n');
	sl_call_reply(w->call, ok ? 200 : is_config ? 422 : 500, SL_TYPE_JSON, &body);
	end_wait(w);
}

static void on_reloaded(void *arg, bool ok, const char *text)
{
	answer_request(arg, ok, text ? text : "",
		       "the configuration was not reloaded; the one in use stays",
		       "'sluice check' shows the same without a reload");
}

static void on_upgraded(void *arg, bool ok, const char *text)
{
	answer_request(arg, ok, text ? text : "",
		       "the new program did not take over; the running one goes on",
		       "the log of the new program says why");
}

static void ask_supervisor(struct sl_ctl *ctl, struct sl_call *call, enum sl_ctl_request what,
			   sl_ctl_reply_fn reply)
{
	struct wait *w = start_wait(ctl, call);

	if (w)
		ctl->options.request(ctl->options.request_arg, what, NULL, reply, w);
}

static void post_reload(struct sl_ctl *ctl, struct sl_call *call)
{
	ask_supervisor(ctl, call, SL_CTL_RELOAD, on_reloaded);
}

static void post_upgrade(struct sl_ctl *ctl, struct sl_call *call)
{
	ask_supervisor(ctl, call, SL_CTL_UPGRADE, on_upgraded);
}

static void get_explain(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_view_question q = { 0 };
	struct sl_str body = { 0 };
	char name[PARAM_MAX];
	char path[PARAM_MAX];
	uint64_t port;

	if (!param_number(call, "port", 1, 65535, 0, &port) ||
	    !param_addr(call, "address", &q.address) || !param_addr(call, "client", &q.client) ||
	    !param(call, "name", name) || !param(call, "path", path))
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
	sl_view_explain(&body, ctl->options.proxy, &q);
	reply_json(call, &body);
}

static void on_metrics(void *arg, const struct sl_conn_survey *survey)
{
	struct wait *w = arg;
	struct sl_str body = { 0 };

	if (w->ctl && sl_call_is_wanted(w->call))
		sl_metrics_render(&body, w->ctl->options.proxy, w->ctl->options.facts, &survey->age,
				  sl_loop_now_ms(w->ctl->options.loop));
	sl_call_reply(w->call, 200, SL_TYPE_METRICS, &body);
	end_wait(w);
}

static void get_metrics(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_conn_filter only_ages = { .max_rows = 1 };
	struct wait *w = start_wait(ctl, call);

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
	{ "GET", "/v1/conns", get_conns, false, "id route limit ", "open connections" },
	{ "GET", "/v1/flows", get_flows, false, "", "flows the kernel carries" },
	{ "GET", "/v1/engines", get_engines, false, "", "what may carry connections here" },
	{ "GET", "/v1/reasons", get_reasons, false, "", "meaning of all reason names" },
	{ "GET", "/v1/version", get_version, false, "", "version of the daemon" },
	{ "GET", "/v1/explain", get_explain, false, "port address name path client ",
	  "what would happen to a connection" },
	{ "POST", "/v1/kill", post_kill, false, "id route all ", "closes connections" },
	{ "POST", "/v1/reload", post_reload, false, "", "applies the configuration file" },
	{ "POST", "/v1/upgrade", post_upgrade, false, "", "replaces the running program" },
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

static void serve(struct sl_ctl *ctl, struct sl_call *call, bool only_public)
{
	const struct sl_http_head *head = sl_call_head(call);
	const struct endpoint *same_path = NULL;

	for (size_t i = 0; i < SL_ARRAY_LEN(endpoints); i++) {
		const struct endpoint *e = &endpoints[i];

		if ((only_public && !e->is_public) || !sl_slice_is(head->path, e->path))
			continue;
		same_path = e;
		if (sl_slice_is(head->method, e->method) ||
		    (sl_slice_is(head->method, "HEAD") && strcmp(e->method, "GET") == 0)) {
			if (params_are_known(call, e))
				e->handle(ctl, call);
			return;
		}
	}
	if (!same_path) {
		fail_not_found(call, only_public);
		return;
	}
	sl_call_add_header(call, "Allow",
			   strcmp(same_path->method, "GET") == 0 ? "GET, HEAD" : same_path->method);
	sl_call_fail(call, 405, same_path->help, "%s is for %s requests", same_path->path,
		     same_path->method);
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
		struct wait *w = SL_CONTAINER_OF(ctl->waiting.next, struct wait, node);

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
