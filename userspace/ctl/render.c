/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/render.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "ctl/render_tls.h"
#include "ctl/table.h"

#define MAX_CANDIDATES 40 /* of an explanation, for people */

/* ---- reading ---- */

static const char *text_at(const json_t *j, const char *key)
{
	const char *text = json_string_value(json_object_get(j, key));

	return text ? text : "-";
}

static uint64_t count_at(const json_t *j, const char *key)
{
	json_int_t v = (json_int_t)json_number_value(json_object_get(j, key));

	return v > 0 ? (uint64_t)v : 0;
}

static double number_at(const json_t *j, const char *key)
{
	return json_number_value(json_object_get(j, key));
}

static bool is_true_at(const json_t *j, const char *key)
{
	return json_is_true(json_object_get(j, key));
}

/* By name: with auto, relay is what it may come down to. */
static bool asks_for(const json_t *route, const char *engine)
{
	return strcmp(text_at(route, "engine"), engine) == 0 &&
	       !json_is_false(json_object_get(route, "enabled"));
}

static size_t n_routes_of(const json_t *status, const char *engine)
{
	const json_t *routes = json_object_get(status, "routes");
	size_t n = 0;

	for (size_t i = 0; i < json_array_size(routes); i++)
		n += asks_for(json_array_get(routes, i), engine);
	return n;
}

/* Routes that have named an engine which is off. */
static size_t n_without(const json_t *status, const char *engine)
{
	if (is_true_at(json_object_get(status, engine), "available"))
		return 0;
	return n_routes_of(status, engine);
}

bool sl_render_is_degraded(const json_t *status)
{
	const json_t *reload = json_object_get(status, "last_reload");

	return n_without(status, "packet") > 0 || n_without(status, "sockmap") > 0 ||
	       n_without(status, "nftables") > 0 ||
	       strcmp(text_at(status, "state"), "running") != 0 ||
	       is_true_at(status, "overloaded") || sl_render_tls_is_degraded(status) ||
	       json_is_false(json_object_get(reload, "ok"));
}

/* ---- pieces ---- */

#define LABEL "%-17s"

static void line(const struct sl_render *r, const char *label, const char *fmt, ...)
	SL_PRINTF(3, 4);
static void line(const struct sl_render *r, const char *label, const char *fmt, ...)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	va_list ap;

	va_start(ap, fmt);
	sl_str_addv(&text, fmt, ap);
	va_end(ap);
	(void)fprintf(r->to, LABEL "%s\n", label, sl_str_text(&text));
}

enum colour {
	RED = 31,
	GREEN = 32,
	YELLOW = 33,
};

static const char *coloured(const struct sl_render *r, enum colour colour, const char *text,
			    char buf[64])
{
	if (r->colour)
		(void)snprintf(buf, 64, "\033[%dm%.40s\033[0m", (int)colour, text);
	else
		(void)snprintf(buf, 64, "%.60s", text);
	return buf;
}

/* "normal 4, econnreset 1" */
static void add_counts(struct sl_str *s, json_t *counts)
{
	const char *name;
	json_t *v;

	json_object_foreach(counts, name, v) if (json_integer_value(v) > 0) sl_str_addf(
		s, "%s%s %" PRIu64, s->len ? ", " : "", name, (uint64_t)json_integer_value(v));
	if (s->len == 0)
		sl_str_adds(s, "none yet");
}

static void add_targets(struct sl_str *s, const json_t *targets)
{
	size_t n = json_array_size(targets);

	for (size_t i = 0; i < n && i < 4; i++) {
		const json_t *t = json_array_get(targets, i);

		sl_str_addf(s, "%s%s %s", i ? ", " : "", text_at(t, "address"),
			    text_at(t, "state"));
		if (count_at(t, "active"))
			sl_str_addf(s, " (%" PRIu64 ")", count_at(t, "active"));
	}
	if (n > 4)
		sl_str_addf(s, " and %zu more", n - 4);
}

static void print_route_table(const struct sl_render *r, const json_t *routes)
{
	static const struct sl_table_column columns[] = {
		{ "ROUTE", false }, { "ENGINE", false }, { "ACTIVE", true },   { "TOTAL", true },
		{ "UP", true },     { "DOWN", true },    { "TARGETS", false },
	};
	_cleanup_(sl_table_done) struct sl_table t = { 0 };

	sl_table_init(&t, columns, SL_ARRAY_LEN(columns));
	for (size_t i = 0; i < json_array_size(routes); i++) {
		_cleanup_(sl_str_done) struct sl_str targets = { 0 };
		const json_t *route = json_array_get(routes, i);
		char up[32];
		char down[32];

		add_targets(&targets, json_object_get(route, "targets"));
		sl_table_add(&t, text_at(route, "name"));
		sl_table_addf(&t, "%s%s", text_at(route, "engine"),
			      json_is_false(json_object_get(route, "enabled")) ? ", disabled" : "");
		sl_table_addf(&t, "%" PRIu64, count_at(route, "active"));
		sl_table_addf(&t, "%" PRIu64, count_at(route, "total"));
		sl_table_add(&t, sl_table_bytes(count_at(route, "bytes_up"), up));
		sl_table_add(&t, sl_table_bytes(count_at(route, "bytes_down"), down));
		sl_table_add(&t, sl_str_text(&targets));
	}
	sl_table_print(&t, r->to, r->colour);
}

/* ---- documents ---- */

static void print_state(const struct sl_render *r, const json_t *doc)
{
	const json_t *processes = json_object_get(doc, "processes");
	const char *state = text_at(doc, "state");
	bool running = strcmp(state, "running") == 0;
	char broker[32] = "";
	char word[64];
	char up[32];

	if (count_at(processes, "broker"))
		(void)snprintf(broker, sizeof(broker), ", broker %" PRIu64,
			       count_at(processes, "broker"));
	line(r, "sluiced", "%s, %s, pid %" PRIu64 " (proxy %" PRIu64 "%s), up %s",
	     text_at(doc, "version"), coloured(r, running ? GREEN : YELLOW, state, word),
	     count_at(doc, "pid"), count_at(processes, "proxy"), broker,
	     sl_table_seconds(number_at(doc, "uptime_s"), up));
}

static void print_configuration(const struct sl_render *r, const json_t *doc)
{
	const json_t *reload = json_object_get(doc, "last_reload");
	char word[64];

	line(r, "configuration", "%s, generation %" PRIu64 "%s", text_at(doc, "config"),
	     count_at(doc, "generation"),
	     json_is_false(json_object_get(reload, "ok"))
		     ? coloured(r, RED, ", the last reload was refused", word)
		     : "");
}

#define ALL_ON_RELAY "the kernel carries no new connections here: all go by relay"

/* `engines`: an object that has the kernel's engines, among others. */
static bool is_relay_alone(const json_t *engines)
{
	return !is_true_at(json_object_get(engines, "packet"), "available") &&
	       !is_true_at(json_object_get(engines, "sockmap"), "available") &&
	       !is_true_at(json_object_get(engines, "nftables"), "available");
}

static void print_engines(const struct sl_render *r, const json_t *doc)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	json_t *engines = json_object_get(doc, "engines");
	const char *name;
	json_t *e;

	json_object_foreach(engines, name, e)
		sl_str_addf(&text, "%s%s %" PRIu64 " of %" PRIu64, text.len ? ", " : "", name,
			    count_at(e, "active"), count_at(e, "total"));
	line(r, "engines", "%s (active of total)", sl_str_text(&text));
	if (is_relay_alone(doc))
		line(r, "", ALL_ON_RELAY);
}

static void add_count(struct sl_str *s, const json_t *doc, const char *key, const char *words)
{
	if (count_at(doc, key))
		sl_str_addf(s, ", %" PRIu64 " %s", count_at(doc, key), words);
}

/* " (eth0, eth1 and 3 more)" */
static void add_interfaces(struct sl_str *s, const json_t *packet)
{
	const json_t *names = json_object_get(packet, "interface_names");
	size_t n = json_array_size(names);

	if (n == 0 || !is_true_at(packet, "available"))
		return;
	sl_str_adds(s, " (");
	for (size_t i = 0; i < n; i++)
		sl_str_addf(s, "%s%s", i ? ", " : "", json_string_value(json_array_get(names, i)));
	if (count_at(packet, "interfaces") > n)
		sl_str_addf(s, " and %" PRIu64 " more", count_at(packet, "interfaces") - n);
	sl_str_addc(s, ')');
}

/* What the kernel carries, and what became of the flows found at the start. */
static void print_packet(const struct sl_render *r, const json_t *doc)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	const json_t *p = json_object_get(doc, "packet");
	const json_t *k = json_object_get(doc, "kernel");
	size_t n = n_without(doc, "packet");
	char word[64];

	sl_str_adds(&text, text_at(p, "reason"));
	add_interfaces(&text, p);
	if (is_true_at(p, "available"))
		sl_str_addf(&text, "; %" PRIu64 " of %" PRIu64 " flows", count_at(p, "flows"),
			    count_at(p, "max_flows"));
	else
		add_count(&text, p, "flows", "still in the kernel");
	add_count(&text, p, "held", "just over");
	add_count(&text, p, "interfaces_failed", "interfaces not attached");
	add_count(&text, k, "orphans", "without a record");
	add_count(&text, k, "adopted", "adopted");
	add_count(&text, k, "dropped", "dropped");
	add_count(&text, k, "repaired", "repaired");
	line(r, "packet", "%s", sl_str_text(&text));
	if (n)
		line(r, "", "%s: %zu route%s named this engine",
		     coloured(r, RED, "relayed instead", word), n, n == 1 ? " has" : "s have");
}

/* Nothing where no route is of this engine. */
static void print_sockmap(const struct sl_render *r, const json_t *doc)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	const json_t *s = json_object_get(doc, "sockmap");
	size_t n = n_without(doc, "sockmap");
	char word[64];

	if (n_routes_of(doc, "sockmap") == 0)
		return;
	sl_str_adds(&text, text_at(s, "reason"));
	if (is_true_at(s, "available"))
		sl_str_addf(&text, "; %" PRIu64 " joined", count_at(s, "sockets"));
	else
		add_count(&text, s, "sockets", "still joined");
	add_count(&text, s, "orphans", "without a record");
	add_count(&text, s, "repaired", "repaired");
	add_count(&text, s, "dropped", "dropped");
	line(r, "sockmap", "%s", sl_str_text(&text));
	if (n)
		line(r, "", "%s: %zu route%s named this engine",
		     coloured(r, RED, "relayed instead", word), n, n == 1 ? " has" : "s have");
}

/* Why flows may not arrive, each with what to do about it. */
static void print_worries(const struct sl_render *r, const json_t *worries)
{
	const json_t *w;
	size_t i;

	json_array_foreach(worries, i, w)
	{
		char word[64];

		if (json_is_string(w))
			line(r, "", "%s: %s", coloured(r, RED, "in the way", word),
			     json_string_value(w));
	}
}

/* Nothing where no route is of this engine and no rule is in the kernel. */
static void print_nftables(const struct sl_render *r, const json_t *doc)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	const json_t *n = json_object_get(doc, "nftables");
	size_t n_off = n_without(doc, "nftables");
	char word[64];

	if (!is_true_at(n, "available") && n_routes_of(doc, "nftables") == 0)
		return;
	sl_str_adds(&text, text_at(n, "reason"));
	if (is_true_at(n, "available"))
		sl_str_addf(&text, "; %" PRIu64 " flow%s", count_at(n, "flows"),
			    count_at(n, "flows") == 1 ? "" : "s");
	add_count(&text, n, "adopted", "adopted");
	add_count(&text, n, "repairs", "times repaired");
	add_count(&text, n, "resyncs", "times resynced");
	if (count_at(n, "conntrack_limit"))
		sl_str_addf(&text, "; conntrack %" PRIu64 " of %" PRIu64,
			    count_at(n, "conntrack_entries"), count_at(n, "conntrack_limit"));
	line(r, "nftables", "%s", sl_str_text(&text));
	if (n_off && !is_true_at(n, "forwarding"))
		line(r, "", "%s: %zu route%s this engine", coloured(r, RED, "not forwarded", word),
		     n_off, n_off == 1 ? " needs" : "s need");
	print_worries(r, json_object_get(n, "worries"));
}

static void print_protection(const struct sl_render *r, const json_t *doc)
{
	line(r, "protection", "system call filter %s, runs as %s; port ranges: %s",
	     is_true_at(doc, "sandboxed") ? "on" : "off",
	     is_true_at(doc, "privileged_uid") ? "root" : "a user of its own",
	     text_at(doc, "steering"));
}

/* Nothing where nobody is kept out. */
static void print_lists(const struct sl_render *r, const json_t *doc)
{
	const json_t *lists = json_object_get(doc, "security");
	const json_t *kernel = json_object_get(lists, "kernel");
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	if (count_at(lists, "allow"))
		sl_str_addf(&text, "%" PRIu64 " allow", count_at(lists, "allow"));
	if (count_at(lists, "deny"))
		sl_str_addf(&text, "%s%" PRIu64 " deny", text.len ? ", " : "",
			    count_at(lists, "deny"));
	if (json_is_string(json_object_get(lists, "deny_file")))
		sl_str_addf(&text, "%s%" PRIu64 " in %s", text.len ? ", " : "",
			    count_at(lists, "deny_file_entries"), text_at(lists, "deny_file"));
	if (!text.len)
		return;
	line(r, "access lists", "%s (entries)", sl_str_text(&text));
	if (json_is_string(json_object_get(kernel, "state")))
		line(r, "  in the kernel", "%s; %" PRIu64 " attempts dropped",
		     text_at(kernel, "state"), count_at(kernel, "dropped"));
}

void sl_render_status(const struct sl_render *r, const json_t *doc)
{
	_cleanup_(sl_str_done) struct sl_str client = { 0 };
	_cleanup_(sl_str_done) struct sl_str backend = { 0 };
	const json_t *conns = json_object_get(doc, "connections");
	const json_t *ends = json_object_get(doc, "terminations");
	char word[64];

	print_state(r, doc);
	print_configuration(r, doc);
	line(r, "connections", "%" PRIu64 " active, %" PRIu64 " accepted, %" PRIu64 " rejected%s",
	     count_at(conns, "active"), count_at(conns, "total"), count_at(conns, "rejected"),
	     is_true_at(doc, "overloaded") ? coloured(r, RED, ", overloaded: refusing new", word)
					   : "");
	print_engines(r, doc);
	print_packet(r, doc);
	print_sockmap(r, doc);
	print_nftables(r, doc);
	sl_render_tls_status(r, doc);
	print_protection(r, doc);
	print_lists(r, doc);
	if (count_at(doc, "runtime_changes"))
		line(r, "runtime changes", "%" PRIu64 "; 'sluice routes changes' lists them",
		     count_at(doc, "runtime_changes"));
	add_counts(&client, json_object_get(ends, "client"));
	add_counts(&backend, json_object_get(ends, "backend"));
	line(r, "ends, client", "%s", sl_str_text(&client));
	line(r, "ends, backend", "%s", sl_str_text(&backend));
	if (json_array_size(json_object_get(doc, "routes")) == 0)
		return;
	(void)fputc('\n', r->to);
	print_route_table(r, json_object_get(doc, "routes"));
}

/* "a, b, c", or "a, b and 7 more". */
static void add_list(struct sl_str *s, const json_t *list)
{
	size_t n = json_array_size(list);
	size_t shown = n > 8 ? 6 : n;

	for (size_t i = 0; i < shown; i++)
		sl_str_addf(s, "%s%s", i ? ", " : "", json_string_value(json_array_get(list, i)));
	if (n > shown)
		sl_str_addf(s, " and %zu more", n - shown);
}

/* Nothing at all for an empty list. */
static void line_of_list(const struct sl_render *r, const char *label, const json_t *list)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	add_list(&text, list);
	if (text.len)
		line(r, label, "%s", sl_str_text(&text));
}

static void line_of_text(const struct sl_render *r, const char *label, const json_t *doc,
			 const char *key)
{
	if (json_is_string(json_object_get(doc, key)))
		line(r, label, "%s", text_at(doc, key));
}

static void print_match(const struct sl_render *r, const json_t *route)
{
	const json_t *health = json_object_get(route, "health");
	const json_t *security = json_object_get(route, "security");

	line_of_list(r, strcmp(text_at(route, "protocol"), "udp") == 0 ? "  UDP ports" : "  ports",
		     json_object_get(route, "ports"));
	if (count_at(route, "priority"))
		line(r, "  priority", "%" PRIu64, count_at(route, "priority"));
	line_of_list(r, "  domains", json_object_get(route, "domains"));
	line_of_text(r, "  path", route, "path");
	line_of_list(r, "  clients", json_object_get(route, "clients"));
	line_of_text(r, "  TLS versions", route, "tls_versions");
	line_of_list(r, "  ALPN", json_object_get(route, "alpn"));
	line(r, "  engine", "%s", text_at(route, "engine"));
	if (json_array_size(json_object_get(route, "targets")) > 1)
		line_of_text(r, "  balance", route, "balance");
	if (strcmp(text_at(route, "send_proxy"), "none") != 0)
		line_of_text(r, "  PROXY header", route, "send_proxy");
	if (json_is_object(health))
		line(r, "  health", "every %s, down after %" PRIu64 ", up after %" PRIu64,
		     text_at(health, "every"), count_at(health, "fall"), count_at(health, "rise"));
	sl_render_tls_route(r, route);
	if (count_at(security, "allow"))
		line(r, "  allow", "%" PRIu64 " entr%s, nobody else", count_at(security, "allow"),
		     count_at(security, "allow") == 1 ? "y" : "ies");
	if (count_at(security, "deny"))
		line(r, "  deny", "%" PRIu64 " entr%s", count_at(security, "deny"),
		     count_at(security, "deny") == 1 ? "y" : "ies");
}

static void print_target(const struct sl_render *r, const char *label, const json_t *t)
{
	const json_t *checks = json_object_get(t, "checks");
	_cleanup_(sl_str_done) struct sl_str more = { 0 };
	const char *state = text_at(t, "state");
	char word[64];

	if (json_is_integer(json_object_get(t, "weight")) && count_at(t, "weight") != 1)
		sl_str_addf(&more, ", weight %" PRIu64, count_at(t, "weight"));
	if (is_true_at(t, "backup"))
		sl_str_adds(&more, ", backup");
	if (count_at(checks, "ok") || count_at(checks, "failed"))
		sl_str_addf(&more, ", checks %" PRIu64 " good %" PRIu64 " failed",
			    count_at(checks, "ok"), count_at(checks, "failed"));
	if (json_is_string(json_object_get(t, "last_error")))
		sl_str_addf(&more, " (%s)", text_at(t, "last_error"));
	line(r, label, "%s %s, %" PRIu64 " active, %" PRIu64 " total, %" PRIu64 " failed%s",
	     text_at(t, "address"),
	     coloured(r, strcmp(state, "up") == 0 ? GREEN : YELLOW, state, word),
	     count_at(t, "active"), count_at(t, "total"), count_at(t, "failed"),
	     sl_str_text(&more));
}

void sl_render_route(const struct sl_render *r, const json_t *route)
{
	_cleanup_(sl_str_done) struct sl_str client = { 0 };
	_cleanup_(sl_str_done) struct sl_str backend = { 0 };
	_cleanup_(sl_str_done) struct sl_str rejected = { 0 };
	const json_t *targets = json_object_get(route, "targets");
	const json_t *by_side = json_object_get(route, "terminations");
	char up[32];
	char down[32];

	(void)fprintf(r->to, "%s%s%s%s\n", r->colour ? "\033[1m" : "", text_at(route, "name"),
		      r->colour ? "\033[0m" : "",
		      json_is_false(json_object_get(route, "enabled")) ? " (disabled)" : "");
	print_match(r, route);
	line(r, "  connections", "%" PRIu64 " active, %" PRIu64 " total, %s up, %s down",
	     count_at(route, "active"), count_at(route, "total"),
	     sl_table_bytes(count_at(route, "bytes_up"), up),
	     sl_table_bytes(count_at(route, "bytes_down"), down));
	for (size_t i = 0; i < json_array_size(targets); i++)
		print_target(r, i ? "" : "  targets", json_array_get(targets, i));
	add_counts(&client, json_object_get(by_side, "client"));
	add_counts(&backend, json_object_get(by_side, "backend"));
	add_counts(&rejected, json_object_get(route, "rejected"));
	line(r, "  ends, client", "%s", sl_str_text(&client));
	line(r, "  ends, backend", "%s", sl_str_text(&backend));
	line(r, "  rejected", "%s", sl_str_text(&rejected));
}

/* What a change says in one line: a target, or the beginning of a route. */
static void add_change(struct sl_table *t, const json_t *c)
{
	const char *text = json_string_value(json_object_get(c, "text"));

	sl_table_add(t, text_at(c, "change"));
	sl_table_add(t,
		     json_is_string(json_object_get(c, "route")) ? text_at(c, "route") : "(all)");
	sl_table_add(t, is_true_at(c, "keep") ? "yes" : "no");
	if (text)
		sl_table_addf(t, "%zu bytes", strlen(text));
	else
		sl_table_add(t, text_at(c, "target"));
}

void sl_render_changes(const struct sl_render *r, const json_t *doc)
{
	static const struct sl_table_column columns[] = {
		{ "CHANGE", false }, { "ROUTE", false }, { "KEPT", false }, { "WHAT", false }
	};
	const json_t *changes = json_object_get(doc, "changes");
	_cleanup_(sl_table_done) struct sl_table t = { 0 };

	if (json_array_size(changes) == 0) {
		(void)fputs("nothing was changed at run time\n", r->to);
		return;
	}
	sl_table_init(&t, columns, SL_ARRAY_LEN(columns));
	for (size_t i = 0; i < json_array_size(changes); i++)
		add_change(&t, json_array_get(changes, i));
	sl_table_print(&t, r->to, r->colour);
}

void sl_render_routes(const struct sl_render *r, const json_t *doc)
{
	for (size_t i = 0; i < json_array_size(doc); i++) {
		if (i)
			(void)fputc('\n', r->to);
		sl_render_route(r, json_array_get(doc, i));
	}
	if (json_array_size(doc) == 0)
		(void)fputs("no routes\n", r->to);
}

static void add_conn(struct sl_table *t, const json_t *c)
{
	char text[32];

	sl_table_addf(t, "%" PRIu64, count_at(c, "id"));
	sl_table_add(t, text_at(c, "route"));
	sl_table_add(t, text_at(c, "state"));
	sl_table_add(t, text_at(c, "engine"));
	sl_table_add(t, text_at(c, "engine_reason"));
	sl_table_add(t, text_at(c, "client"));
	sl_table_add(t, text_at(c, "client_via"));
	sl_table_add(t, text_at(c, "backend"));
	sl_table_add(t, text_at(c, "sni"));
	sl_table_add(t, sl_table_seconds(number_at(c, "age_s"), text));
	sl_table_add(t, sl_table_seconds(number_at(c, "idle_s"), text));
	sl_table_add(t, sl_table_bytes(count_at(c, "bytes_up"), text));
	sl_table_add(t, sl_table_bytes(count_at(c, "bytes_down"), text));
}

void sl_render_conns(const struct sl_render *r, const json_t *doc)
{
	static const struct sl_table_column columns[] = {
		{ "ID", true },   { "ROUTE", false },  { "STATE", false }, { "ENGINE", false },
		{ "WHY", false }, { "CLIENT", false }, { "VIA", false },   { "BACKEND", false },
		{ "SNI", false }, { "AGE", true },     { "IDLE", true },   { "UP", true },
		{ "DOWN", true },
	};
	_cleanup_(sl_table_done) struct sl_table t = { 0 };
	size_t n = json_array_size(doc);

	if (n == 0) {
		(void)fputs("no open connections\n", r->to);
		return;
	}
	sl_table_init(&t, columns, SL_ARRAY_LEN(columns));
	for (size_t i = 0; i < n && i < r->max_rows; i++)
		add_conn(&t, json_array_get(doc, i));
	sl_table_print(&t, r->to, r->colour);
	if (n > r->max_rows)
		(void)fprintf(r->to, "only the first %zu; --limit N shows N of them, 0 all\n",
			      r->max_rows);
}

/* "moved from relay to packet 3.1 s ago: eligible" */
static void print_moves(const struct sl_render *r, const json_t *c)
{
	const json_t *moves = json_object_get(c, "moves");
	size_t n = json_array_size(moves);
	char age[32];

	for (size_t i = 0; i < n; i++) {
		const json_t *m = json_array_get(moves, i);

		(void)fprintf(r->to, "moved from %s to %s %s ago: %s\n", text_at(m, "from"),
			      text_at(m, "to"), sl_table_seconds(number_at(m, "age_s"), age),
			      text_at(m, "reason"));
	}
	if (count_at(c, "moves_total") > n)
		(void)fprintf(r->to, "these are the last of %" PRIu64 " moves\n",
			      count_at(c, "moves_total"));
}

void sl_render_conn(const struct sl_render *r, const json_t *doc)
{
	if (json_array_size(doc) == 0)
		return;
	sl_render_conns(r, doc);
	for (size_t i = 0; i < json_array_size(doc); i++) {
		sl_render_tls_conn(r, json_array_get(doc, i));
		print_moves(r, json_array_get(doc, i));
	}
}

static const struct sl_table_column packet_columns[] = {
	{ "ID", true },        { "ROUTE", false },  { "STATE", false },   { "CLIENT", false },
	{ "FRONT", false },    { "SOURCE", false }, { "BACKEND", false }, { "AGE", true },
	{ "IDLE", true },      { "UP", true },      { "DOWN", true },     { "PKTS UP", true },
	{ "PKTS DOWN", true }, { "DROPS", true },
};

static void add_seconds(struct sl_table *t, const json_t *j, const char *key)
{
	char text[64];

	sl_table_add(t, json_is_number(json_object_get(j, key))
				? sl_table_seconds(number_at(j, key), text)
				: "-");
}

static void add_packet_flow(struct sl_table *t, const json_t *f)
{
	const json_t *up = json_object_get(f, "up");
	const json_t *down = json_object_get(f, "down");
	char text[64];

	sl_table_addf(t, "%" PRIu64, count_at(f, "id"));
	sl_table_add(t, text_at(f, "route"));
	sl_table_addf(t, "%s%s", text_at(f, "state"), is_true_at(f, "complete") ? "" : " (half)");
	sl_table_add(t, text_at(f, "client"));
	sl_table_add(t, text_at(f, "front"));
	sl_table_add(t, text_at(f, "source"));
	sl_table_add(t, text_at(f, "backend"));
	add_seconds(t, f, "age_s");
	add_seconds(t, f, "idle_s");
	sl_table_add(t, sl_table_bytes(count_at(up, "bytes"), text));
	sl_table_add(t, sl_table_bytes(count_at(down, "bytes"), text));
	sl_table_addf(t, "%" PRIu64, count_at(up, "packets"));
	sl_table_addf(t, "%" PRIu64, count_at(down, "packets"));
	sl_table_addf(t, "%" PRIu64, count_at(up, "drops") + count_at(down, "drops"));
}

static const struct sl_table_column joined_columns[] = {
	{ "ID", true },       { "ROUTE", false },    { "STATE", false }, { "CLIENT", false },
	{ "BACKEND", false }, { "AGE", true },       { "IDLE", true },   { "UP", true },
	{ "DOWN", true },     { "TO DAEMON", true }, { "SPILLS", true }, { "MOST WAITING", true },
};

/* "spilled up", "spilled both ways"; "active (half)" */
static void add_joined_state(struct sl_table *t, const json_t *f, bool up, bool down)
{
	const char *state = text_at(f, "state");
	const char *which = up && down ? " both ways" : up ? " up" : " down";

	sl_table_addf(t, "%s%s%s", state, strcmp(state, "spilled") == 0 ? which : "",
		      is_true_at(f, "complete") ? "" : " (half)");
}

static void add_joined_flow(struct sl_table *t, const json_t *f)
{
	const json_t *up = json_object_get(f, "up");
	const json_t *down = json_object_get(f, "down");
	uint64_t waited[2] = { count_at(up, "max_waiting"), count_at(down, "max_waiting") };
	char text[64];

	sl_table_addf(t, "%" PRIu64, count_at(f, "id"));
	sl_table_add(t, text_at(f, "route"));
	add_joined_state(t, f, is_true_at(up, "spilled"), is_true_at(down, "spilled"));
	sl_table_add(t, text_at(f, "client"));
	sl_table_add(t, text_at(f, "backend"));
	add_seconds(t, f, "age_s");
	add_seconds(t, f, "idle_s");
	sl_table_add(t, sl_table_bytes(count_at(up, "bytes"), text));
	sl_table_add(t, sl_table_bytes(count_at(down, "bytes"), text));
	sl_table_add(t,
		     sl_table_bytes(count_at(up, "passed_bytes") + count_at(down, "passed_bytes"),
				    text));
	sl_table_addf(t, "%" PRIu64, count_at(up, "spills") + count_at(down, "spills"));
	sl_table_add(t, sl_table_bytes(waited[waited[1] > waited[0]], text));
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = count_at(*(json_t *const *)a, "id");
	uint64_t y = count_at(*(json_t *const *)b, "id");

	return x < y ? -1 : x > y;
}

static bool is_joined(const json_t *flow)
{
	return strcmp(text_at(flow, "engine"), "sockmap") == 0;
}

/* Those of one kind. The kernel's tables have no order; without memory for one none is shown. */
static void print_flow_table(const struct sl_render *r, const json_t *flows, bool joined)
{
	_cleanup_free_ json_t **row = calloc(json_array_size(flows) + 1, sizeof(*row));
	_cleanup_(sl_table_done) struct sl_table t = { 0 };
	size_t n = 0;

	sl_table_init(&t, joined ? joined_columns : packet_columns,
		      joined ? SL_ARRAY_LEN(joined_columns) : SL_ARRAY_LEN(packet_columns));
	for (size_t i = 0; row && i < json_array_size(flows); i++)
		if (is_joined(json_array_get(flows, i)) == joined)
			row[n++] = json_array_get(flows, i);
	if (n == 0)
		return;
	qsort(row, n, sizeof(*row), by_id);
	for (size_t i = 0; i < n; i++) {
		if (joined)
			add_joined_flow(&t, row[i]);
		else
			add_packet_flow(&t, row[i]);
	}
	sl_table_print(&t, r->to, r->colour);
}

/* Those whose entries only wait for late packets. */
static size_t n_over(const json_t *flows)
{
	size_t n = 0;

	for (size_t i = 0; i < json_array_size(flows); i++) {
		const char *state = text_at(json_array_get(flows, i), "state");

		n += strcmp(state, "closed") == 0 || strcmp(state, "reset") == 0 ||
		     strcmp(state, "killed") == 0;
	}
	return n;
}

/* What the programs did, as far as it happened at all. */
static void print_outcomes(const struct sl_render *r, const char *title, json_t *outcomes)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	const char *name;
	json_t *n;

	json_object_foreach(outcomes, name, n) if (json_integer_value(n) != 0)
		sl_str_addf(&text, "%s%s %" PRIu64, text.len ? ", " : "", name,
			    (uint64_t)json_integer_value(n));
	if (text.len)
		(void)fprintf(r->to, "%s: %s\n", title, sl_str_text(&text));
}

static size_t n_joined(const json_t *flows)
{
	size_t n = 0;

	for (size_t i = 0; i < json_array_size(flows); i++)
		n += is_joined(json_array_get(flows, i));
	return n;
}

/* "3 flows in the kernel, 1 of them just over; off: packet.hook is off" */
static void print_flow_count(const struct sl_render *r, const json_t *doc, const json_t *flows)
{
	size_t n = json_array_size(flows);
	size_t joined = n_joined(flows);

	if (is_true_at(doc, "more"))
		(void)fprintf(r->to, "only %zu of the flows in the kernel", n);
	else
		(void)fprintf(r->to, "%zu flow%s in the kernel", n, n == 1 ? "" : "s");
	if (n_over(flows))
		(void)fprintf(r->to, ", %zu of them just over", n_over(flows));
	if (joined)
		(void)fprintf(r->to, ", %zu of them of the engine sockmap", joined);
	if (is_true_at(doc, "more"))
		(void)fputs("; --limit N shows N of them, 0 all", r->to);
	if (json_is_string(json_object_get(doc, "reason")))
		(void)fprintf(r->to, "; %s%s", joined ? "the engine packet is " : "",
			      text_at(doc, "reason"));
	(void)fputc('\n', r->to);
}

void sl_render_flows(const struct sl_render *r, const json_t *doc)
{
	const json_t *flows = json_object_get(doc, "flows");

	print_flow_table(r, flows, false);
	if (n_joined(flows) && n_joined(flows) < json_array_size(flows))
		(void)fputc('\n', r->to);
	print_flow_table(r, flows, true);
	print_flow_count(r, doc, flows);
	if (count_at(doc, "nft_flows"))
		(void)fprintf(r->to, "and %" PRIu64 " by its NAT, which 'sluice conns' lists\n",
			      count_at(doc, "nft_flows"));
	print_outcomes(r, "outcomes", json_object_get(doc, "outcomes"));
	print_outcomes(r, "outcomes of the engine sockmap",
		       json_object_get(doc, "sockmap_outcomes"));
}

void sl_render_engines(const struct sl_render *r, const json_t *doc)
{
	static const struct sl_table_column columns[] = {
		{ "ENGINE", false }, { "AVAILABLE", false }, { "ACTIVE", true },
		{ "TOTAL", true },   { "REASON", false },
	};
	json_t *engines = json_object_get(doc, "engines");
	_cleanup_(sl_table_done) struct sl_table t = { 0 };
	const char *name;
	json_t *e;

	sl_table_init(&t, columns, SL_ARRAY_LEN(columns));
	json_object_foreach(engines, name, e)
	{
		_cleanup_(sl_str_done) struct sl_str reason = { 0 };

		sl_table_add(&t, name);
		sl_table_add(&t, is_true_at(e, "available") ? "yes" : "no");
		sl_table_addf(&t, "%" PRIu64, count_at(e, "active"));
		sl_table_addf(&t, "%" PRIu64, count_at(e, "total"));
		sl_str_adds(&reason, text_at(e, "reason"));
		add_interfaces(&reason, e);
		sl_table_add(&t, sl_str_text(&reason));
	}
	sl_table_print(&t, r->to, r->colour);
	if (is_relay_alone(engines))
		(void)fputs(ALL_ON_RELAY "\n", r->to);
	json_object_foreach(engines, name, e) if (json_is_string(json_object_get(e, "hint")))(void)
		fprintf(r->to, "%s: %s\n", name, text_at(e, "hint"));
	sl_render_ktls(r, doc);
}

static void print_words(const struct sl_render *r, const char *title, const json_t *words)
{
	const struct sl_table_column columns[] = { { title, false }, { "MEANING", false } };
	_cleanup_(sl_table_done) struct sl_table t = { 0 };

	sl_table_init(&t, columns, SL_ARRAY_LEN(columns));
	for (size_t i = 0; i < json_array_size(words); i++) {
		sl_table_add(&t, text_at(json_array_get(words, i), "name"));
		sl_table_add(&t, text_at(json_array_get(words, i), "text"));
	}
	sl_table_print(&t, r->to, r->colour);
}

void sl_render_reasons(const struct sl_render *r, const json_t *doc)
{
	print_words(r, "WHY A SIDE ENDED", json_object_get(doc, "terminations"));
	(void)fputc('\n', r->to);
	print_words(r, "WHY THIS ENGINE", json_object_get(doc, "engines"));
}

/* Nobody would take that connection. */
static const char *why_silent(const json_t *doc, bool is_udp)
{
	if (strcmp(text_at(doc, "engine"), "nftables") == 0)
		return " (the rules are not in the kernel: 'sluice engines')";
	return is_udp ? " (nothing listens there)"
		      : " (nothing listens there; UDP: --protocol udp)";
}

/* "port 443, name shop.example.com, from 192.0.2.7" */
static void print_question(const struct sl_render *r, const json_t *doc)
{
	static const struct {
		const char *key;
		const char *words;
	} parts[] = { { "address", " of " },   { "name", ", name " }, { "path", ", path " },
		      { "client", ", from " }, { "alpn", ", ALPN " }, { "tls", ", TLS " } };
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	bool is_udp = strcmp(text_at(doc, "protocol"), "udp") == 0;

	sl_str_addf(&text, "port %" PRIu64 "%s", count_at(doc, "port"), is_udp ? " (UDP)" : "");
	for (size_t i = 0; i < SL_ARRAY_LEN(parts); i++)
		if (json_is_string(json_object_get(doc, parts[i].key)))
			sl_str_addf(&text, "%s%s", parts[i].words, text_at(doc, parts[i].key));
	if (!is_true_at(doc, "listening"))
		sl_str_adds(&text, why_silent(doc, is_udp));
	line(r, "connection to", "%s", sl_str_text(&text));
}

/* "denied by the route's security.deny", "allowed: no list refuses it" */
static void print_security(const struct sl_render *r, const json_t *security)
{
	const char *verdict = text_at(security, "verdict");
	const char *text = text_at(security, "text");
	size_t n = strlen(verdict);
	bool begins = strncmp(text, verdict, n) == 0;
	char word[64];

	line(r, "security", "%s%s%s",
	     coloured(r, strcmp(verdict, "denied") == 0 ? RED : GREEN, verdict, word),
	     begins ? "" : ": ", begins ? text + n : text);
}

/* "one of 10.0.0.11:80, 10.0.0.12:80 (the kernel chooses: by turns)" */
static void print_usable(const struct sl_render *r, const json_t *usable, const char *why)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	add_list(&text, usable);
	line(r, "target", "one of %s (%s)", sl_str_text(&text), why);
}

/* "packet no (no_privilege), relay yes (no_privilege)"; nothing where there is but one. */
static void print_choice(const struct sl_render *r, const json_t *engines)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	bool is_carried = false;

	if (json_array_size(engines) < 2)
		return;
	for (size_t i = 0; i < json_array_size(engines); i++) {
		const json_t *e = json_array_get(engines, i);

		sl_str_addf(&text, "%s%s ", i ? ", " : "", text_at(e, "engine"));
		if (is_carried)
			sl_str_adds(&text, "until then");
		else
			sl_str_addf(&text, "%s (%s)", is_true_at(e, "can_carry") ? "yes" : "no",
				    text_at(e, "reason"));
		is_carried |= is_true_at(e, "can_carry");
	}
	line(r, "  in this order", "%s", sl_str_text(&text));
}

static void print_decision(const struct sl_render *r, const json_t *doc)
{
	const json_t *security = json_object_get(doc, "security");
	const json_t *usable = json_object_get(doc, "usable_targets");
	bool accepted = strcmp(text_at(doc, "verdict"), "accepted") == 0;
	char word[64];

	line(r, "verdict", "%s: %s",
	     coloured(r, accepted ? GREEN : RED, text_at(doc, "verdict"), word),
	     text_at(doc, "verdict_text"));
	line(r, "route", "%s", text_at(doc, "route"));
	if (json_is_object(security))
		print_security(r, security);
	if (json_is_string(json_object_get(doc, "target")))
		line(r, "target", "%s (%s)", text_at(doc, "target"), text_at(doc, "target_why"));
	else if (json_array_size(usable))
		print_usable(r, usable, text_at(doc, "target_why"));
	else if (json_is_string(json_object_get(doc, "route")))
		/* accepted without a target: a choice of the kernel's */
		line(r, "target", "%s%s", accepted ? "" : "none: ", text_at(doc, "target_why"));
	if (json_is_string(json_object_get(doc, "engine")))
		line(r, "engine", "%s, %s: %s", text_at(doc, "engine"),
		     text_at(doc, "engine_reason"), text_at(doc, "engine_text"));
	print_choice(r, json_object_get(doc, "engines"));
	sl_render_tls_explain(r, doc);
}

static void print_candidates(const struct sl_render *r, const json_t *candidates)
{
	static const struct sl_table_column columns[] = { { "ROUTE", false },
							  { "RESULT", false },
							  { "WHY", false } };
	_cleanup_(sl_table_done) struct sl_table t = { 0 };
	size_t n = json_array_size(candidates);

	if (n == 0)
		return;
	(void)fputc('\n', r->to);
	sl_table_init(&t, columns, SL_ARRAY_LEN(columns));
	for (size_t i = 0; i < n && i < MAX_CANDIDATES; i++) {
		const json_t *c = json_array_get(candidates, i);

		sl_table_add(&t, text_at(c, "route"));
		sl_table_add(&t, text_at(c, "result"));
		sl_table_add(&t, text_at(c, "text"));
	}
	sl_table_print(&t, r->to, r->colour);
	if (n > MAX_CANDIDATES)
		(void)fprintf(r->to, "and %zu more of this port; --json has them all\n",
			      n - MAX_CANDIDATES);
}

/* Whether another client's answer might be another one. */
static bool depends_on_client(const json_t *doc)
{
	const json_t *candidates = json_object_get(doc, "candidates"), *c;
	size_t i;

	json_array_foreach(candidates, i,
			   c) if (strcmp(text_at(c, "why"), "client") == 0) return true;
	return strcmp(text_at(json_object_get(doc, "security"), "verdict"), "denied") == 0;
}

void sl_render_explain(const struct sl_render *r, const json_t *doc)
{
	print_question(r, doc);
	print_decision(r, doc);
	if (is_true_at(doc, "needs_hello"))
		line(r, "first bytes", "the decision waits for the TLS ClientHello");
	if (is_true_at(doc, "accept_proxy"))
		line(r, "PROXY header",
		     "the port has accept_proxy; --client is the address that "
		     "the header names");
	if (json_is_string(json_object_get(doc, "note")))
		line(r, "note", "%s", text_at(doc, "note"));
	if (!json_is_string(json_object_get(doc, "client")) && depends_on_client(doc))
		line(r, "client",
		     "none was asked about: what decides by address took it for a "
		     "stranger; --client ADDRESS");
	print_candidates(r, json_object_get(doc, "candidates"));
}
