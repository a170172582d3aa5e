/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The command line: asks the daemon over its control socket, or checks files without it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/num.h"
#include "conf/conf.h"
#include "ctl/client.h"
#include "ctl/render.h"
#include "ctl/words.h"
#include "daemon/cert_store.h"
#include "daemon/deny.h"

#define DEFAULT_CONFIG "/etc/sluice/sluice.yaml"
#define DEFAULT_RUNTIME_DIR "/run/sluice"
#define SOCKET_NAME "control.sock"
#define QUICK_S 30
#define PATIENT_S 300 /* a reload resolves names, an upgrade starts a process */
#define MAX_OPERANDS 256
#define MAX_ROUTE_TEXT ((size_t)1 << 20) /* what the daemon takes */
#define WAIT_MS UINT64_C(300000)         /* of drain --wait, at most */
#define WAIT_STEP_MS 200

enum exit_code {
	EXIT_GOOD = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_UNREACHABLE = 3,
	EXIT_DEGRADED = 4,
	EXIT_BAD_CONFIG = 78,
};

struct cli {
	const struct verb *verb;
	const char *config;
	const char *socket; /* NULL: found through the configuration */
	const char *route;
	const char *client;
	const char *address;
	const char *engine;
	const char *limit;
	const char *target;
	const char *id;
	const char *alpn;
	const char *tls;
	const char *protocol;
	const char *timeout;
	bool json;
	bool all;
	bool keep;
	bool wait;
	bool deny_file;
	bool flush;
	bool help;
	const char *operand[MAX_OPERANDS];
	int n_operands;
	struct sl_render render;
};

struct verb {
	const char *name;
	int (*run)(struct cli *cli); /* returns an exit code */
	int min_operands;
	int max_operands;
	const char *options; /* names of the options it knows beside the general ones */
	const char *usage;
	const char *help;
};

SL_PRINTF(1, 2)
static void complain(const char *fmt, ...)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	va_list ap;

	va_start(ap, fmt);
	sl_str_addv(&text, fmt, ap);
	va_end(ap);
	(void)fprintf(stderr, "sluice: %s\n", sl_str_text(&text));
}

/* ---- the daemon's socket ---- */

/*
 * Through the configuration, whether it is good or not: a daemon may run on an older one. A file
 * that was named and does not tell is refused, since another daemon may be at the usual place.
 */
static int find_socket(const struct cli *cli, struct sl_str *ret)
{
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources sources = { 0 };
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	_cleanup_(sl_conf_freep) struct sl_conf *conf = NULL;
	int r;

	if (cli->socket) {
		sl_str_adds(ret, cli->socket);
		return EXIT_GOOD;
	}
	r = sl_conf_sources_load(cli->config, &sources, &diags);
	if (r == 0)
		r = sl_conf_runtime_dir(&sources, ret);
	if (r == -EINVAL && sl_conf_build(&sources, &conf, &diags) == 0)
		r = -EIO; /* a good one always tells */
	if (r < 0 && strcmp(cli->config, DEFAULT_CONFIG) != 0) {
		(void)fputs(sl_str_text(&diags.text), stderr);
		complain("%s does not tell where the daemon's socket is; mend it, or name the "
			 "socket with --socket PATH",
			 cli->config);
		return EXIT_BAD_CONFIG;
	}
	if (r < 0)
		sl_str_adds(ret, DEFAULT_RUNTIME_DIR);
	sl_str_adds(ret, "/" SOCKET_NAME);
	return EXIT_GOOD;
}

static int unreachable(const struct cli *cli, const char *path, int err)
{
	complain("cannot talk to the daemon at %s: %s", path, strerror(-err));
	if (err == -EACCES || err == -EPERM)
		complain("the socket is for root and the group 'sluice'");
	else if (err == -ENOENT || err == -ECONNREFUSED)
		complain("is sluiced running? start it with 'sluiced -c %s', or name its socket "
			 "with --socket PATH",
			 cli->config);
	else if (err == -ENAMETOOLONG)
		complain("the path of a Unix socket has at most 107 characters");
	else
		complain("it accepted, but gave no proper answer; its log may say why");
	return EXIT_UNREACHABLE;
}

static int ask_with(const struct cli *cli, const char *method, const char *target,
		    const struct sl_str *body, unsigned timeout_s, struct sl_client_reply *ret)
{
	_cleanup_(sl_str_done) struct sl_str path = { 0 };
	int r = find_socket(cli, &path);

	if (r != EXIT_GOOD)
		return r;
	r = sl_client_send(sl_str_text(&path), method, target, body, timeout_s, ret);
	return r < 0 ? unreachable(cli, sl_str_text(&path), r) : EXIT_GOOD;
}

/* Asks; on EXIT_GOOD there is an answer, whatever its status. */
static int ask(const struct cli *cli, const char *method, const char *target, unsigned timeout_s,
	       struct sl_client_reply *ret)
{
	return ask_with(cli, method, target, NULL, timeout_s, ret);
}

static json_t *parse_body(const struct sl_client_reply *reply)
{
	json_error_t error;
	json_t *doc = json_loadb(sl_str_text(&reply->body), reply->body.len, 0, &error);

	if (!doc)
		complain("the daemon's answer is not JSON: %s", error.text);
	return doc;
}

static void json_decrefp_(json_t **j)
{
	json_decref(*j);
}
#define _cleanup_json_ _cleanup_(json_decrefp_)

/* The daemon refused: says so, in its words. */
static int refused(const struct cli *cli, const struct sl_client_reply *reply)
{
	_cleanup_json_ json_t *doc = parse_body(reply);
	const char *error = json_string_value(json_object_get(doc, "error"));
	const char *hint = json_string_value(json_object_get(doc, "hint"));
	const char *text = json_string_value(json_object_get(doc, "text"));
	const char *reason = json_string_value(json_object_get(doc, "reason"));

	if (cli->json)
		(void)fputs(sl_str_text(&reply->body), stdout);
	if (text && text[0])
		(void)fprintf(stderr, "%s%s", text, text[strlen(text) - 1] == '\n' ? "" : "\n");
	if (error && hint)
		complain("%s (%s)", error, hint);
	else
		complain("%s", error ? error : "the daemon refused");
	return reason && strcmp(reason, "config") == 0 ? EXIT_BAD_CONFIG : EXIT_FAILED;
}

typedef void (*render_fn)(const struct sl_render *r, const json_t *doc);

/* GET, then the document as it is or made readable. `ret_doc` may be NULL. */
static int show(struct cli *cli, const char *target, render_fn render, json_t **ret_doc)
{
	_cleanup_(sl_client_reply_done) struct sl_client_reply reply = { 0 };
	_cleanup_json_ json_t *doc = NULL;
	int r = ask(cli, "GET", target, QUICK_S, &reply);

	if (r != EXIT_GOOD)
		return r;
	if (reply.status != 200)
		return refused(cli, &reply);
	doc = parse_body(&reply);
	if (!doc)
		return EXIT_FAILED;
	if (cli->json)
		(void)fputs(sl_str_text(&reply.body), stdout);
	else
		render(&cli->render, doc);
	if (ret_doc)
		*ret_doc = SL_TAKE_PTR(doc);
	return EXIT_GOOD;
}

/* ---- verbs that look ---- */

static int run_status(struct cli *cli)
{
	_cleanup_json_ json_t *doc = NULL;
	int r = show(cli, "/v1/status", sl_render_status, &doc);

	return r == EXIT_GOOD && sl_render_is_degraded(doc) ? EXIT_DEGRADED : r;
}

/* The filters of conns and kill; all that are given must be true of a connection. */
static void add_filters(const struct cli *cli, struct sl_str *target)
{
	if (cli->id)
		sl_client_add_param(target, "id", cli->id);
	if (cli->route)
		sl_client_add_param(target, "route", cli->route);
	if (cli->client)
		sl_client_add_param(target, "client", cli->client);
	if (cli->target)
		sl_client_add_param(target, "target", cli->target);
}

/* Whether its entries only wait for late packets: the state they are in. */
static bool is_just_over(struct cli *cli, const char *id, char state[16])
{
	static const char *const over[] = { "closed", "reset", "killed" };
	_cleanup_(sl_client_reply_done) struct sl_client_reply reply = { 0 };
	_cleanup_(sl_str_done) struct sl_str target = { 0 };
	_cleanup_json_ json_t *doc = NULL;
	const char *text;

	sl_str_adds(&target, "/v1/flows");
	sl_client_add_param(&target, "id", id);
	if (ask(cli, "GET", sl_str_text(&target), QUICK_S, &reply) != EXIT_GOOD ||
	    reply.status != 200)
		return false;
	doc = parse_body(&reply);
	text = json_string_value(
		json_object_get(json_array_get(json_object_get(doc, "flows"), 0), "state"));
	for (size_t i = 0; text && i < SL_ARRAY_LEN(over); i++)
		if (strcmp(text, over[i]) == 0) {
			(void)snprintf(state, 16, "%s", text);
			return true;
		}
	return false;
}

/* There is no connection of that id, or none that fits. */
static void complain_of_id(struct cli *cli, const char *id)
{
	bool has_filter = cli->route || cli->client || cli->target;
	char state[16];

	if (!has_filter && is_just_over(cli, id, state))
		complain("connection %s is over already (%s); the kernel keeps its entries for a "
			 "while, for late packets",
			 id, state);
	else
		complain("no connection has the id %s%s", id,
			 has_filter ? " and fits the filters" : "");
}

static int run_conns(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };
	_cleanup_json_ json_t *doc = NULL;
	int r;
	uint64_t n = cli->json ? 0 : 1000; /* a script wants all, a person does not */
	char limit[32];

	if (cli->limit && sl_num_parse(cli->limit, 0, UINT32_MAX, &n) < 0) {
		complain("'%s' is no limit: write a number, 0 for all", cli->limit);
		return EXIT_USAGE;
	}
	cli->render.max_rows = n ? n : SIZE_MAX;
	/* One more than is shown tells whether there are more. */
	(void)snprintf(limit, sizeof(limit), "%" PRIu64, cli->json || n == 0 ? n : n + 1);
	sl_str_adds(&target, "/v1/conns");
	sl_client_add_param(&target, "limit", limit);
	if (cli->n_operands && cli->id) {
		complain("give one id");
		return EXIT_USAGE;
	}
	if (cli->n_operands)
		cli->id = cli->operand[0];
	add_filters(cli, &target);
	r = show(cli, sl_str_text(&target), cli->id ? sl_render_conn : sl_render_conns, &doc);
	if (r != EXIT_GOOD || !cli->id || json_array_size(doc))
		return r;
	complain_of_id(cli, cli->id);
	return EXIT_FAILED;
}

static int run_diff(struct cli *cli)
{
	_cleanup_json_ json_t *doc = NULL;
	int r = show(cli, "/v1/diff", sl_render_diff, &doc);

	return r == EXIT_GOOD && sl_render_is_drifting(doc) ? EXIT_DEGRADED : r;
}

static int run_engines(struct cli *cli)
{
	return show(cli, "/v1/engines", sl_render_engines, NULL);
}

static int run_explain(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };

	sl_str_adds(&target, "/v1/explain");
	sl_client_add_param(&target, "port", cli->operand[0]);
	if (cli->n_operands > 1 && cli->operand[1][0]) /* "" when only the path is meant */
		sl_client_add_param(&target, "name", cli->operand[1]);
	if (cli->n_operands > 2)
		sl_client_add_param(&target, "path", cli->operand[2]);
	if (cli->client)
		sl_client_add_param(&target, "client", cli->client);
	if (cli->address)
		sl_client_add_param(&target, "address", cli->address);
	if (cli->alpn)
		sl_client_add_param(&target, "alpn", cli->alpn);
	if (cli->tls)
		sl_client_add_param(&target, "tls", cli->tls);
	if (cli->protocol)
		sl_client_add_param(&target, "protocol", cli->protocol);
	return show(cli, sl_str_text(&target), sl_render_explain, NULL);
}

static int run_reasons(struct cli *cli)
{
	_cleanup_(sl_client_reply_done) struct sl_client_reply words = { 0 };
	_cleanup_json_ json_t *doc = NULL;

	sl_words_reasons(&words.body);
	if (cli->json) {
		(void)fputs(sl_str_text(&words.body), stdout);
		return EXIT_GOOD;
	}
	doc = parse_body(&words);
	if (!doc)
		return EXIT_FAILED;
	sl_render_reasons(&cli->render, doc);
	return EXIT_GOOD;
}

static int run_version(struct cli *cli)
{
	if (cli->json)
		(void)printf("{\"version\":\"%s\"}\n", SL_VERSION);
	else
		(void)printf("sluice %s\n", SL_VERSION);
	return EXIT_GOOD;
}

/* ---- verbs that act ---- */

/* The document of an answer that must be 200; anything else is complained about. */
static int ask_doc(struct cli *cli, const char *method, const char *target, json_t **ret)
{
	_cleanup_(sl_client_reply_done) struct sl_client_reply reply = { 0 };
	int r = ask(cli, method, target, QUICK_S, &reply);

	if (r != EXIT_GOOD)
		return r;
	if (reply.status != 200)
		return refused(cli, &reply);
	*ret = parse_body(&reply);
	return *ret ? EXIT_GOOD : EXIT_FAILED;
}

static int post_kill(struct cli *cli, uint64_t *killed)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };
	_cleanup_json_ json_t *doc = NULL;
	int r;

	sl_str_adds(&target, "/v1/kill");
	add_filters(cli, &target);
	if (cli->all)
		sl_client_add_param(&target, "all", "1");
	r = ask_doc(cli, "POST", sl_str_text(&target), &doc);
	if (r != EXIT_GOOD)
		return r;
	*killed += (uint64_t)json_integer_value(json_object_get(doc, "killed"));
	return EXIT_GOOD;
}

/* An id that is given is meant: that there is no such connection is a failure. */
static int kill_one(struct cli *cli, const char *id, uint64_t *killed, bool *missed)
{
	uint64_t before = *killed;
	int r;

	cli->id = id;
	r = post_kill(cli, killed);
	if (r != EXIT_GOOD || *killed != before)
		return r;
	*missed = true;
	complain_of_id(cli, id);
	return r;
}

static int run_kill(struct cli *cli)
{
	bool has_filter = cli->route || cli->client || cli->target;
	bool has_id = cli->n_operands || cli->id;
	bool missed = false;
	uint64_t killed = 0;
	int r = EXIT_GOOD;

	if ((has_id || has_filter) == cli->all) {
		complain("usage: sluice %s", cli->verb->usage);
		return EXIT_USAGE;
	}
	if (cli->id)
		r = kill_one(cli, cli->id, &killed, &missed);
	for (int i = 0; r == EXIT_GOOD && i < cli->n_operands; i++)
		r = kill_one(cli, cli->operand[i], &killed, &missed);
	if (!has_id)
		r = post_kill(cli, &killed);
	if (r != EXIT_GOOD)
		return r;
	if (cli->json)
		(void)printf("{\"killed\":%" PRIu64 "}\n", killed);
	else
		(void)printf("%" PRIu64 " connection%s closed\n", killed, killed == 1 ? "" : "s");
	return missed ? EXIT_FAILED : EXIT_GOOD;
}

static int run_move(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };
	_cleanup_json_ json_t *doc = NULL;
	const char *from;
	int r;

	sl_str_adds(&target, "/v1/move");
	sl_client_add_param(&target, "id", cli->operand[0]);
	sl_client_add_param(&target, "engine", cli->operand[1]);
	r = ask_doc(cli, "POST", sl_str_text(&target), &doc);
	if (r != EXIT_GOOD)
		return r;
	from = json_string_value(json_object_get(doc, "from"));
	if (cli->json)
		(void)(json_dumpf(doc, stdout, JSON_COMPACT) == 0 && putchar('\n'));
	else if (json_is_true(json_object_get(doc, "begun")))
		(void)printf("connection %s: from %s to %s, under way ('sluice conns %s')\n",
			     cli->operand[0], from ? from : "-", cli->operand[1], cli->operand[0]);
	else
		(void)printf("connection %s is on %s, and stays there\n", cli->operand[0],
			     cli->operand[1]);
	return EXIT_GOOD;
}

/* Asks for something to be done and prints what the daemon says about it. */
static int act(struct cli *cli, const char *method, const char *target, const struct sl_str *body)
{
	_cleanup_(sl_client_reply_done) struct sl_client_reply reply = { 0 };
	_cleanup_json_ json_t *doc = NULL;
	const char *text;
	int r = ask_with(cli, method, target, body, PATIENT_S, &reply);

	if (r != EXIT_GOOD)
		return r;
	if (reply.status != 200 && reply.status != 201)
		return refused(cli, &reply);
	if (cli->json) {
		(void)fputs(sl_str_text(&reply.body), stdout);
		return EXIT_GOOD;
	}
	doc = parse_body(&reply);
	if (!doc)
		return EXIT_FAILED;
	text = json_string_value(json_object_get(doc, "text"));
	if (text && text[0])
		(void)printf("%s%s", text, text[strlen(text) - 1] == '\n' ? "" : "\n");
	else
		(void)printf("done, generation %" PRIu64 "\n",
			     (uint64_t)json_integer_value(json_object_get(doc, "generation")));
	return EXIT_GOOD;
}

/* What the kernel carries, or, with --flush, none of it any more. */
static int run_flows(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };
	uint64_t n = cli->json ? 0 : 1000;
	char limit[32];

	if (cli->flush && cli->limit) {
		complain("usage: sluice %s", cli->verb->usage);
		return EXIT_USAGE;
	}
	if (cli->flush)
		return act(cli, "DELETE", "/v1/flows", NULL);
	if (cli->limit && sl_num_parse(cli->limit, 0, UINT32_MAX, &n) < 0) {
		complain("'%s' is no limit: write a number, 0 for all", cli->limit);
		return EXIT_USAGE;
	}
	(void)snprintf(limit, sizeof(limit), "%" PRIu64, n);
	sl_str_adds(&target, "/v1/flows");
	sl_client_add_param(&target, "limit", limit);
	return show(cli, sl_str_text(&target), sl_render_flows, NULL);
}

static int run_reload(struct cli *cli)
{
	return act(cli, "POST", cli->deny_file ? "/v1/reload?what=deny_file" : "/v1/reload", NULL);
}

static int run_upgrade(struct cli *cli)
{
	return act(cli, "POST", "/v1/upgrade", NULL);
}

/* ---- routes ---- */

/* A file, or "-" for standard input. */
static int read_text(const char *path, struct sl_str *ret)
{
	bool is_stdin = strcmp(path, "-") == 0;
	_cleanup_fd_ int own = is_stdin ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	int fd = is_stdin ? STDIN_FILENO : own;
	char chunk[65536];
	ssize_t n;

	if (fd < 0)
		return -errno;
	while ((n = read(fd, chunk, sizeof(chunk))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		sl_str_add(ret, chunk, (size_t)n);
		if (ret->len > MAX_ROUTE_TEXT)
			return -EFBIG;
	}
	return ret->oom ? -ENOMEM : 0;
}

static void add_keep(const struct cli *cli, struct sl_str *target)
{
	if (cli->keep)
		sl_client_add_param(target, "keep", "1");
}

/* "/v1/routes/NAME", whatever was typed as its name. */
static void add_route_path(const struct cli *cli, struct sl_str *target)
{
	sl_str_adds(target, "/v1/routes/");
	sl_client_add_escaped(target, cli->operand[1]);
}

static int routes_list(struct cli *cli)
{
	return show(cli, "/v1/routes", sl_render_routes, NULL);
}

static int routes_show(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };

	add_route_path(cli, &target);
	return show(cli, sl_str_text(&target), sl_render_route, NULL);
}

static int routes_set(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };
	_cleanup_(sl_str_done) struct sl_str body = { 0 };
	const char *path = cli->n_operands > 2 ? cli->operand[2] : "-";
	int r = read_text(path, &body);

	if (r < 0) {
		complain("cannot read %s: %s", strcmp(path, "-") == 0 ? "standard input" : path,
			 r == -EFBIG ? "a route has at most 1 MiB" : strerror(-r));
		return EXIT_FAILED;
	}
	add_route_path(cli, &target);
	add_keep(cli, &target);
	return act(cli, "PUT", sl_str_text(&target), &body);
}

static int routes_remove(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };

	add_route_path(cli, &target);
	add_keep(cli, &target);
	return act(cli, "DELETE", sl_str_text(&target), NULL);
}

static int routes_switch(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };

	add_route_path(cli, &target);
	sl_str_addf(&target, "/%s", cli->operand[0]);
	add_keep(cli, &target);
	return act(cli, "POST", sl_str_text(&target), NULL);
}

static int routes_changes(struct cli *cli)
{
	return show(cli, "/v1/changes", sl_render_changes, NULL);
}

static int routes_forget(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };

	sl_str_adds(&target, "/v1/changes");
	if (cli->n_operands > 1)
		sl_client_add_param(&target, "route", cli->operand[1]);
	return act(cli, "DELETE", sl_str_text(&target), NULL);
}

static int run_routes(struct cli *cli)
{
	static const struct {
		const char *name;
		int (*run)(struct cli *cli);
		int min_operands; /* itself included */
		int max_operands;
		bool keeps;
	} parts[] = {
		{ "list", routes_list, 1, 1, false },
		{ "show", routes_show, 2, 2, false },
		{ "set", routes_set, 2, 3, true },
		{ "remove", routes_remove, 2, 2, true },
		{ "enable", routes_switch, 2, 2, true },
		{ "disable", routes_switch, 2, 2, true },
		{ "changes", routes_changes, 1, 1, false },
		{ "forget", routes_forget, 1, 2, false },
	};

	if (cli->n_operands == 0 && !cli->keep)
		return routes_list(cli);
	for (size_t i = 0; cli->n_operands && i < SL_ARRAY_LEN(parts); i++)
		if (strcmp(parts[i].name, cli->operand[0]) == 0 &&
		    cli->n_operands >= parts[i].min_operands &&
		    cli->n_operands <= parts[i].max_operands && (parts[i].keeps || !cli->keep))
			return parts[i].run(cli);
	complain("usage: sluice %s", cli->verb->usage);
	return EXIT_USAGE;
}

/* ---- cert ---- */

static int cert_list(struct cli *cli)
{
	return show(cli, "/v1/certs", sl_render_certs, NULL);
}

static int cert_show(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };

	sl_str_adds(&target, "/v1/certs");
	sl_client_add_param(&target, "name", cli->operand[1]);
	return show(cli, sl_str_text(&target), sl_render_cert, NULL);
}

static int cert_reload(struct cli *cli)
{
	return act(cli, "POST", "/v1/certs/reload", NULL);
}

static int run_cert(struct cli *cli)
{
	static const struct {
		const char *name;
		int (*run)(struct cli *cli);
		int n_operands; /* itself included */
	} parts[] = {
		{ "list", cert_list, 1 },
		{ "show", cert_show, 2 },
		{ "reload", cert_reload, 1 },
	};

	if (cli->n_operands == 0)
		return cert_list(cli);
	for (size_t i = 0; i < SL_ARRAY_LEN(parts); i++)
		if (strcmp(parts[i].name, cli->operand[0]) == 0 &&
		    cli->n_operands == parts[i].n_operands)
			return parts[i].run(cli);
	complain("usage: sluice %s", cli->verb->usage);
	return EXIT_USAGE;
}

/* ---- drain ---- */

/* Open connections of a target; of one route where one is named. */
static uint64_t count_active(const struct cli *cli, const json_t *routes)
{
	uint64_t n = 0;

	for (size_t i = 0; i < json_array_size(routes); i++) {
		const json_t *route = json_array_get(routes, i);
		const json_t *targets = json_object_get(route, "targets");
		const char *name = json_string_value(json_object_get(route, "name"));

		if (cli->route && !(name && strcmp(name, cli->route) == 0))
			continue;
		for (size_t t = 0; t < json_array_size(targets); t++) {
			const json_t *target = json_array_get(targets, t);
			const char *address = json_string_value(json_object_get(target, "address"));

			if (address && strcmp(address, cli->operand[0]) == 0)
				n += (uint64_t)json_integer_value(
					json_object_get(target, "active"));
		}
	}
	return n;
}

static int look_active(struct cli *cli, uint64_t *ret)
{
	_cleanup_json_ json_t *doc = NULL;
	int r = ask_doc(cli, "GET", "/v1/routes", &doc);

	if (r != EXIT_GOOD)
		return r;
	*ret = count_active(cli, doc);
	return EXIT_GOOD;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static int wait_empty(struct cli *cli, uint64_t wait_ms)
{
	static const struct timespec step = { .tv_nsec = WAIT_STEP_MS * 1000000 };
	uint64_t until = now_ms() + wait_ms;
	uint64_t shown = UINT64_MAX;

	for (;;) {
		uint64_t active = 0;
		int r = look_active(cli, &active);

		if (r != EXIT_GOOD)
			return r;
		if (active != shown && cli->json)
			(void)printf("{\"active\":%" PRIu64 "}\n", active);
		else if (active != shown)
			(void)printf("%" PRIu64 " connection%s\n", active, active == 1 ? "" : "s");
		(void)fflush(stdout);
		shown = active;
		if (active == 0)
			return EXIT_GOOD;
		if (now_ms() >= until)
			break;
		(void)nanosleep(&step, NULL);
	}
	complain("%" PRIu64 " still open; the drain goes on, 'sluice kill --target %s' ends them",
		 shown, cli->operand[0]);
	return EXIT_FAILED;
}

/* "drain ROUTE TARGET" is "drain TARGET --route ROUTE". */
static bool take_route(struct cli *cli)
{
	if (cli->n_operands < 2)
		return true;
	if (cli->route) {
		complain("the route is given twice: '%s' and --route %s", cli->operand[0],
			 cli->route);
		return false;
	}
	cli->route = cli->operand[0];
	cli->operand[0] = cli->operand[1];
	cli->n_operands = 1;
	return true;
}

static int run_drain(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };
	uint64_t wait_ms = WAIT_MS;
	int r;

	if (!take_route(cli))
		return EXIT_USAGE;
	if (cli->timeout && (!cli->wait || sl_num_parse_duration(cli->timeout, &wait_ms) < 0)) {
		complain(cli->wait ? "'%s' is no duration: write for example 30s"
				   : "--timeout %s needs --wait",
			 cli->timeout);
		return EXIT_USAGE;
	}
	sl_str_adds(&target, "/v1/drain");
	sl_client_add_param(&target, "target", cli->operand[0]);
	if (cli->route)
		sl_client_add_param(&target, "route", cli->route);
	add_keep(cli, &target);
	r = act(cli, "POST", sl_str_text(&target), NULL);
	return r == EXIT_GOOD && cli->wait ? wait_empty(cli, wait_ms) : r;
}

static int run_undrain(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str target = { 0 };

	if (!take_route(cli))
		return EXIT_USAGE;
	sl_str_adds(&target, "/v1/undrain");
	sl_client_add_param(&target, "target", cli->operand[0]);
	if (cli->route)
		sl_client_add_param(&target, "route", cli->route);
	return act(cli, "POST", sl_str_text(&target), NULL);
}

/* ---- verbs without a daemon ---- */

static void print_check(const struct cli *cli, const char *path, const struct sl_conf *conf,
			const struct sl_diags *diags)
{
	_cleanup_(sl_str_done) struct sl_str out = { 0 };
	struct sl_json j = sl_json_on(&out);

	if (!cli->json) {
		(void)fputs(sl_str_text(&diags->text), stderr);
		if (conf)
			(void)printf("%s: ok (%zu route%s, %zu listener%s)\n", path, conf->n_routes,
				     conf->n_routes == 1 ? "" : "s", conf->n_listens,
				     conf->n_listens == 1 ? "" : "s");
		return;
	}
	sl_json_obj(&j, NULL);
	sl_json_str(&j, "file", path);
	sl_json_bool(&j, "ok", conf != NULL);
	sl_json_u64(&j, "errors", diags->n_errors);
	sl_json_u64(&j, "warnings", diags->n_warnings);
	if (conf) {
		sl_json_u64(&j, "routes", conf->n_routes);
		sl_json_u64(&j, "listeners", conf->n_listens);
	}
	sl_json_strn(&j, "text", sl_str_text(&diags->text), diags->text.len);
	sl_json_obj_end(&j);
	(void)printf("%s\n", sl_str_text(&out));
}

/* They may come later, so it is no error. */
static void check_interfaces(const char *path, const struct sl_conf_packet *conf,
			     struct sl_diags *diags)
{
	for (size_t i = 0; conf->hook != SL_HOOK_CHOICE_OFF && i < conf->n_interfaces; i++) {
		if (if_nametoindex(conf->interfaces[i]) != 0)
			continue;
		sl_str_addf(&diags->text,
			    "%s: warning: global.packet.interfaces: this host has no interface "
			    "'%s' (yet)\n",
			    path, conf->interfaces[i]);
		diags->n_warnings++;
	}
}

static int run_check(struct cli *cli)
{
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources sources = { 0 };
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	_cleanup_(sl_conf_freep) struct sl_conf *conf = NULL;
	const char *path = cli->n_operands ? cli->operand[0] : cli->config;
	int r = sl_conf_sources_load(path, &sources, &diags);

	if (r == 0)
		r = sl_conf_build(&sources, &conf, &diags);
	if (r == 0)
		r = sl_deny_list_check(conf->global.deny_file, &diags);
	if (r == 0)
		r = sl_cert_store_check(conf, &sources, &diags);
	if (r == 0)
		check_interfaces(path, &conf->global.packet, &diags);
	print_check(cli, path, r == 0 ? conf : NULL, &diags);
	return r < 0 ? EXIT_BAD_CONFIG : EXIT_GOOD;
}

static int run_schema(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str out = { 0 };

	(void)cli;
	sl_conf_schema(&out);
	(void)printf("%s%s", sl_str_text(&out), out.len && out.p[out.len - 1] == '\n' ? "" : "\n");
	return EXIT_GOOD;
}

static int run_not_here(struct cli *cli)
{
	if (strcmp(cli->verb->name, "demo") == 0 || strcmp(cli->verb->name, "bench") == 0)
		complain("'%s' needs the source tree: make %s", cli->verb->name, cli->verb->name);
	else
		complain("'%s' is not supported by this build", cli->verb->name);
	return EXIT_FAILED;
}

/* ---- forward ---- */

/* A JSON string is a YAML string, too. */
static void add_setting(struct sl_str *out, const char *key, const char *value)
{
	struct sl_json j = sl_json_on(out);

	sl_str_addf(out, "%s: ", key);
	sl_json_str(&j, NULL, value);
	sl_str_addc(out, '\n');
}

static void compose_config(const struct cli *cli, const char *dir, struct sl_str *out)
{
	sl_str_adds(out, "version: 1\nglobal:\n");
	add_setting(out, "  runtime_dir", dir);
	add_setting(out, "  state_dir", dir);
	sl_str_adds(out, "  http: none\nroutes:\n  - name: forward\n    match:\n");
	add_setting(out, "      ports", cli->operand[0]);
	add_setting(out, "    engine", cli->engine ? cli->engine : "auto");
	add_setting(out, "    forward", cli->operand[1]);
}

/* Reports what is wrong with the arguments in the words of the configuration reader. */
static bool is_good_config(const struct sl_str *text)
{
	struct sl_conf_source source = { .name = (char *)"(command line)",
					 .text = text->p,
					 .len = text->len };
	const struct sl_conf_sources sources = { .item = &source, .n = 1 };
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	_cleanup_(sl_conf_freep) struct sl_conf *conf = NULL;
	int r = sl_conf_build(&sources, &conf, &diags);

	if (diags.n_errors || r < 0)
		(void)fputs(sl_str_text(&diags.text), stderr);
	return r == 0;
}

/* The usual directory when it is ours to use, else a private one. */
static int choose_runtime_dir(char *buf, size_t size)
{
	_cleanup_(sl_client_reply_done) struct sl_client_reply reply = { 0 };
	const char *base = getenv("XDG_RUNTIME_DIR");

	if (geteuid() == 0 &&
	    sl_client_ask(DEFAULT_RUNTIME_DIR "/" SOCKET_NAME, "GET", "/healthz", 2, &reply) < 0) {
		(void)snprintf(buf, size, "%s", DEFAULT_RUNTIME_DIR);
		return 0;
	}
	if (!base || base[0] != '/' || access(base, W_OK) < 0)
		base = "/tmp";
	(void)snprintf(buf, size, "%.200s/sluice-XXXXXX", base);
	return mkdtemp(buf) ? 0 : -errno;
}

/* The text in a file without a name, open for the program that is started next. */
static int write_memfd(const struct sl_str *text)
{
	_cleanup_fd_ int fd = memfd_create("sluice.yaml", 0);

	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < text->len;) {
		ssize_t n = write(fd, text->p + done, text->len - done);

		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return SL_TAKE_FD(fd);
}

/* Beside this program, in ../sbin, else wherever PATH leads. Returns only on failure. */
static int exec_daemon(const char *config)
{
	static const char *const places[] = { "sluiced", "../sbin/sluiced" };
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 32);

	if (n > 0) {
		char *slash;

		self[n] = '\0';
		slash = strrchr(self, '/');
		for (size_t i = 0; slash && i < SL_ARRAY_LEN(places); i++) {
			(void)snprintf(slash + 1, sizeof(self) - (size_t)(slash + 1 - self), "%s",
				       places[i]);
			(void)execl(self, "sluiced", "-c", config, (char *)NULL);
		}
	}
	(void)execlp("sluiced", "sluiced", "-c", config, (char *)NULL);
	return -errno;
}

static int run_forward(struct cli *cli)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	char dir[256] = DEFAULT_RUNTIME_DIR;
	char path[64];
	int fd;
	int r;

	compose_config(cli, dir, &text);
	if (!is_good_config(&text))
		return EXIT_BAD_CONFIG;
	r = choose_runtime_dir(dir, sizeof(dir));
	if (r < 0) {
		complain("cannot make a directory for the control socket: %s", strerror(-r));
		return EXIT_FAILED;
	}
	sl_str_clear(&text);
	compose_config(cli, dir, &text);
	fd = write_memfd(&text);
	if (fd < 0) {
		complain("cannot write the configuration to memory: %s", strerror(-fd));
		return EXIT_FAILED;
	}
	(void)snprintf(path, sizeof(path), "/dev/fd/%d", fd);
	(void)fprintf(stderr, "sluice: control socket %s/" SOCKET_NAME "\n", dir);
	r = exec_daemon(path);
	complain("cannot start sluiced: %s (it belongs beside sluice, in ../sbin or in PATH)",
		 strerror(-r));
	return EXIT_FAILED;
}

/* ---- arguments ---- */

static int run_help(struct cli *cli);

static const struct verb verbs[] = {
	{ "status", run_status, 0, 0, "", "status", "what the daemon is doing" },
	{ "routes", run_routes, 0, 3, "keep ",
	  "routes [list | show NAME | set NAME [FILE|-] | remove NAME | enable NAME | "
	  "disable NAME | changes | forget [NAME]] [--keep]",
	  "list routes with how connections ended, or change them until the next start (--keep: "
	  "beyond it)" },
	{ "conns", run_conns, 0, 1, "route client target id limit ",
	  "conns [ID] [--route NAME] [--client PATTERN] [--target ADDRESS] [--limit N]",
	  "open connections; with ID also its TLS, and how it moved from engine to engine" },
	{ "flows", run_flows, 0, 0, "limit flush ", "flows [--limit N] | --flush",
	  "flows the kernel carries; --flush: reset those of the engine packet, empty its table" },
	{ "diff", run_diff, 0, 0, "", "diff",
	  "compare what the kernel holds with the records; heals what differs" },
	{ "engines", run_engines, 0, 0, "", "engines",
	  "what may carry connections here, what may not, and what to do about it" },
	{ "explain", run_explain, 1, 3, "client address alpn tls protocol ",
	  "explain PORT [NAME] [PATH] [--client ADDR] [--alpn A,B] [--tls 1.2,1.3] "
	  "[--address IP] [--protocol udp]",
	  "what would happen to a connection: route, target, engines in their order, and why" },
	{ "reasons", run_reasons, 0, 0, "", "reasons", "the meaning of all reason names" },
	{ "kill", run_kill, 0, MAX_OPERANDS, "route client target id all ",
	  "kill [ID...] [--route NAME] [--client PATTERN] [--target ADDRESS] | --all",
	  "close connections that fit all of it" },
	{ "move", run_move, 2, 2, "", "move ID ENGINE",
	  "move an open connection to relay, packet or sockmap" },
	{ "drain", run_drain, 1, 2, "route keep wait timeout ",
	  "drain [ROUTE] TARGET [--keep] [--wait [--timeout 5m]]",
	  "no new connections for a target; --wait: until the last one has ended" },
	{ "undrain", run_undrain, 1, 2, "route ", "undrain [ROUTE] TARGET",
	  "new connections for a target again" },
	{ "cert", run_cert, 0, 2, "", "cert [list | show NAME | reload]",
	  "certificates in use; show NAME: those of a route, a file or a domain; reload: read the "
	  "files now" },
	{ "reload", run_reload, 0, 0, "deny-file ", "reload [--deny-file]",
	  "apply the configuration file, or global.security.deny_file alone" },
	{ "upgrade", run_upgrade, 0, 0, "", "upgrade", "replace the running program" },
	{ "check", run_check, 0, 1, "", "check [FILE]", "check the configuration" },
	{ "schema", run_schema, 0, 0, "", "schema", "JSON Schema of the configuration" },
	{ "forward", run_forward, 2, 2, "engine ", "forward LISTEN TARGET [--engine ENGINE]",
	  "run a daemon for one port, without a file" },
	{ "version", run_version, 0, 0, "", "version", "the version of this command" },
	{ "help", run_help, 0, 1, "", "help [VERB]", "this text" },
	{ "top", run_not_here, 0, MAX_OPERANDS, "", "top", NULL },
	{ "demo", run_not_here, 0, MAX_OPERANDS, "", "demo", NULL },
	{ "bench", run_not_here, 0, MAX_OPERANDS, "", "bench", NULL },
};

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < SL_ARRAY_LEN(verbs); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

static void print_help(FILE *to)
{
	(void)fputs("usage: sluice [OPTIONS] VERB [ARGUMENTS]\n\n", to);
	for (size_t i = 0; i < SL_ARRAY_LEN(verbs); i++)
		if (verbs[i].help)
			(void)fprintf(to, "  %-9s %s\n", verbs[i].name, verbs[i].help);
	(void)fputs("\n  -c FILE        configuration (" DEFAULT_CONFIG ")\n"
		    "  --socket PATH  control socket (in the configuration's runtime_dir)\n"
		    "  --json         JSON instead of text\n"
		    "  -h, --help     this text, or that of the verb\n\n"
		    "exit codes: 0 good, 1 failed, 2 usage, 3 daemon not reachable, 4 degraded,\n"
		    "78 bad configuration\n",
		    to);
}

static int run_help(struct cli *cli)
{
	const struct verb *verb = cli->n_operands ? find_verb(cli->operand[0]) : NULL;

	if (cli->n_operands && !verb) {
		complain("there is no verb '%s'", cli->operand[0]);
		return EXIT_USAGE;
	}
	if (verb)
		(void)printf("usage: sluice %s\n%s\n", verb->usage,
			     verb->help ? verb->help : "not supported by this build");
	else
		print_help(stdout);
	return EXIT_GOOD;
}

/* Where the value of an option goes; NULL for options without a value or unknown ones. */
static const char **value_of(struct cli *cli, const char *name)
{
	const struct {
		const char *name;
		const char **value;
	} options[] = {
		{ "config", &cli->config },
		{ "socket", &cli->socket },
		{ "route", &cli->route },
		{ "client", &cli->client },
		{ "address", &cli->address },
		{ "engine", &cli->engine },
		{ "limit", &cli->limit },
		{ "target", &cli->target },
		{ "id", &cli->id },
		{ "alpn", &cli->alpn },
		{ "tls", &cli->tls },
		{ "timeout", &cli->timeout },
		{ "protocol", &cli->protocol },
	};

	for (size_t i = 0; i < SL_ARRAY_LEN(options); i++)
		if (strcmp(options[i].name, name) == 0)
			return options[i].value;
	return NULL;
}

static bool set_flag(struct cli *cli, const char *name)
{
	if (strcmp(name, "json") == 0)
		cli->json = true;
	else if (strcmp(name, "all") == 0)
		cli->all = true;
	else if (strcmp(name, "keep") == 0)
		cli->keep = true;
	else if (strcmp(name, "wait") == 0)
		cli->wait = true;
	else if (strcmp(name, "deny-file") == 0)
		cli->deny_file = true;
	else if (strcmp(name, "flush") == 0)
		cli->flush = true;
	else if (strcmp(name, "help") == 0)
		cli->help = true;
	else
		return false;
	return true;
}

/* One option at argv[*i], its value perhaps in the next argument. */
static bool take_option(struct cli *cli, char **argv, int *i)
{
	const char *arg = argv[*i];
	const char *equals = strchr(arg, '=');
	char name[32];
	const char **value;

	if (strcmp(arg, "-h") == 0)
		return set_flag(cli, "help");
	if (arg[1] == 'c') { /* -c FILE or -cFILE */
		value = &cli->config;
		equals = arg[2] ? arg + 1 : NULL;
		(void)snprintf(name, sizeof(name), "c");
	} else if (arg[1] == '-') {
		(void)snprintf(name, sizeof(name), "%.*s", equals ? (int)(equals - arg - 2) : 30,
			       arg + 2);
		if (!equals && set_flag(cli, name))
			return true;
		value = value_of(cli, name);
	} else {
		value = NULL;
	}
	if (!value) {
		complain("unknown option '%s'", arg);
		return false;
	}
	*value = equals ? equals + 1 : argv[++*i];
	if (!*value || !**value) {
		complain("the option '%s' needs a value", arg);
		return false;
	}
	return true;
}

static bool take_arguments(struct cli *cli, char **argv)
{
	bool only_operands = false;

	for (int i = 1; argv[i]; i++) {
		if (!only_operands && strcmp(argv[i], "--") == 0) {
			only_operands = true;
		} else if (!only_operands && argv[i][0] == '-' && argv[i][1]) {
			if (!take_option(cli, argv, &i))
				return false;
		} else if (!cli->verb) {
			cli->verb = find_verb(argv[i]);
			if (!cli->verb) {
				complain("there is no verb '%s'; 'sluice help' lists them",
					 argv[i]);
				return false;
			}
		} else if (cli->n_operands < MAX_OPERANDS) {
			cli->operand[cli->n_operands++] = argv[i];
		} else {
			complain("too many arguments");
			return false;
		}
	}
	return true;
}

static bool allows(const struct verb *verb, const char *option)
{
	size_t n = strlen(option);

	for (const char *p = verb->options; (p = strstr(p, option)) != NULL; p++)
		if ((p == verb->options || p[-1] == ' ') && p[n] == ' ')
			return true;
	return false;
}

/* Options that would be ignored are refused: they may have been meant as a filter. */
static bool fits_verb(const struct cli *cli)
{
	const struct {
		const char *name;
		bool given;
	} special[] = {
		{ "route", cli->route },     { "client", cli->client },
		{ "address", cli->address }, { "engine", cli->engine },
		{ "limit", cli->limit },     { "all", cli->all },
		{ "target", cli->target },   { "id", cli->id },
		{ "alpn", cli->alpn },       { "tls", cli->tls },
		{ "keep", cli->keep },       { "wait", cli->wait },
		{ "timeout", cli->timeout }, { "deny-file", cli->deny_file },
		{ "flush", cli->flush },     { "protocol", cli->protocol },
	};

	for (size_t i = 0; i < SL_ARRAY_LEN(special); i++) {
		if (special[i].given && !allows(cli->verb, special[i].name)) {
			complain("'%s' takes no --%s", cli->verb->name, special[i].name);
			return false;
		}
	}
	if (cli->n_operands >= cli->verb->min_operands &&
	    cli->n_operands <= cli->verb->max_operands)
		return true;
	complain("usage: sluice %s", cli->verb->usage);
	return false;
}

int main(int argc, char **argv)
{
	struct cli cli = { .config = DEFAULT_CONFIG };
	int r;

	(void)argc;
	cli.render = (struct sl_render){ .to = stdout,
					 .colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR") };
	if (!take_arguments(&cli, argv))
		return EXIT_USAGE;
	if (!cli.verb) {
		print_help(cli.help ? stdout : stderr);
		return cli.help ? EXIT_GOOD : EXIT_USAGE;
	}
	if (cli.help) {
		cli.operand[0] = cli.verb->name;
		cli.n_operands = 1;
		return run_help(&cli);
	}
	if (!fits_verb(&cli))
		return EXIT_USAGE;
	r = cli.verb->run(&cli);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		complain("cannot write the output: %s", strerror(errno));
		return r == EXIT_GOOD ? EXIT_FAILED : r;
	}
	return r;
}
