/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/view_tls.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "ctl/view_match.h"

#define MAX_WORRIES 16
/* Which are asked about a name: each takes a look at all routes. */
#define MAX_PORTS 64

static int64_t now_s(void)
{
	return (int64_t)(sl_clock_real_ns() / 1000000000);
}

/* ---- one certificate ---- */

enum cert_status {
	CERT_OK = 0,
	CERT_EXPIRES_SOON,
	CERT_NOT_YET_VALID,
	CERT_PROBLEM, /* newer files are not in use */
	CERT_EXPIRED,
};

static const char *status_name(enum cert_status status)
{
	static const char *const names[] = { "ok", "expires_soon", "not_yet_valid", "problem",
					     "expired" };

	return names[status];
}

/* A route may have a problem and no certificate at all. */
static bool has_cert(const struct sl_cert_view *c)
{
	return c->label[0] != '\0';
}

/* The worst that can be said of it. */
static enum cert_status status_of(const struct sl_cert_view *c, int64_t now)
{
	if (has_cert(c) && c->not_after_s < now)
		return CERT_EXPIRED;
	if (c->problem[0])
		return CERT_PROBLEM;
	if (c->not_before_s > now)
		return CERT_NOT_YET_VALID;
	return c->not_after_s - now < SL_CERT_SOON_S ? CERT_EXPIRES_SOON : CERT_OK;
}

/* "2026-01-31T12:00:00Z" */
static void add_time(struct sl_json *j, const char *key, int64_t s)
{
	time_t t = (time_t)s;
	char text[40];
	struct tm tm;

	if (gmtime_r(&t, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm))
		sl_json_str(j, key, text);
	else
		sl_json_null(j, key);
}

static void add_facts(struct sl_json *j, const struct sl_cert_view *c, int64_t now)
{
	sl_json_str(j, "subject", c->subject);
	sl_json_str(j, "issuer", c->issuer);
	sl_json_arr(j, "names");
	for (size_t i = 0; i < c->n_names; i++)
		sl_json_str(j, NULL, c->names[i]);
	sl_json_arr_end(j);
	sl_json_str(j, "key", c->key);
	add_time(j, "not_before", c->not_before_s);
	add_time(j, "not_after", c->not_after_s);
	sl_json_i64(j, "not_before_unix", c->not_before_s);
	sl_json_i64(j, "not_after_unix", c->not_after_s);
	sl_json_i64(j, "expires_in_s", c->not_after_s - now);
	if (c->staple_until_s)
		add_time(j, "ocsp_until", c->staple_until_s);
	else
		sl_json_null(j, "ocsp_until");
	sl_json_str(j, "fingerprint", c->fingerprint);
	sl_json_u64(j, "chain", c->n_chain);
	sl_json_bool(j, "default", c->is_default);
}

static void add_cert(struct sl_json *j, const struct sl_cert_view *c, int64_t now)
{
	sl_json_obj(j, NULL);
	sl_json_str(j, "route", c->route);
	sl_json_str(j, "side", sl_side_name(c->is_backend ? SL_BACKEND : SL_CLIENT));
	sl_json_str(j, "file", has_cert(c) ? c->label : NULL);
	sl_json_str(j, "status", status_name(status_of(c, now)));
	sl_json_str(j, "problem", c->problem[0] ? c->problem : NULL);
	if (has_cert(c))
		add_facts(j, c, now);
	sl_json_obj_end(j);
}

struct listing {
	struct sl_json j;
	int64_t now;
};

static void list_cert(void *arg, const struct sl_cert_view *c)
{
	struct listing *l = arg;

	add_cert(&l->j, c, l->now);
}

void sl_view_certs(struct sl_str *out, struct sl_proxy *proxy)
{
	struct listing l = { .j = sl_json_on(out), .now = now_s() };

	sl_json_obj(&l.j, NULL);
	sl_json_arr(&l.j, "certificates");
	sl_proxy_each_cert(proxy, list_cert, &l);
	sl_json_arr_end(&l.j);
	sl_json_obj_end(&l.j);
	sl_str_addc(out, '\n');
}

/* ---- which certificate a name is given ---- */

/* As tls/cert_set.h says: those of the exact name, else of the wildcard, else the default. */
enum fit {
	FIT_NONE = 0,
	FIT_DEFAULT,
	FIT_WILDCARD,
	FIT_NAME,
};

static const char *fit_name(enum fit fit)
{
	static const char *const names[] = { "none", "default", "wildcard", "name" };

	return names[fit];
}

struct asked {
	char name[SL_NAME_MAX + 1]; /* "": none, or what is no name */
	char wild[SL_NAME_MAX + 3]; /* "": it has no wildcard */
};

static struct asked asked_for(const char *name)
{
	struct asked a = { 0 };
	const char *dot;
	size_t len;

	if (!name || sl_name_normalize(sl_slice_of(name), false, a.name, &len) < 0) {
		a.name[0] = '\0';
		return a;
	}
	dot = strchr(a.name, '.');
	if (dot)
		(void)snprintf(a.wild, sizeof(a.wild), "*%s", dot);
	return a;
}

static bool has_name(const struct sl_cert_view *c, const char *name)
{
	for (size_t i = 0; name[0] && i < c->n_names; i++)
		if (strcmp(c->names[i], name) == 0)
			return true;
	return false;
}

static enum fit fit_of(const struct sl_cert_view *c, const struct asked *a)
{
	if (!has_cert(c) || c->is_backend)
		return FIT_NONE;
	if (has_name(c, a->name))
		return FIT_NAME;
	if (has_name(c, a->wild))
		return FIT_WILDCARD;
	return c->is_default ? FIT_DEFAULT : FIT_NONE;
}

/* The certificates of one route for a name, one of each kind of key. */
struct pick {
	const char *route;
	struct asked asked;
	enum fit fit; /* the best there is */
	char kinds[4][16];
	size_t n_kinds;
	/* what is done with those chosen */
	struct sl_json *j;
	int64_t now;
};

static void judge_cert(void *arg, const struct sl_cert_view *c)
{
	struct pick *p = arg;
	enum fit fit = fit_of(c, &p->asked);

	if (strcmp(c->route, p->route) == 0 && fit > p->fit)
		p->fit = fit;
}

/* Of several with the same kind of key the first one counts: "ec" of "ec-256". */
static bool is_first_of_kind(struct pick *p, const char *key)
{
	size_t n = strcspn(key, "-");

	for (size_t i = 0; i < p->n_kinds; i++)
		if (strlen(p->kinds[i]) == n && memcmp(p->kinds[i], key, n) == 0)
			return false;
	if (p->n_kinds < SL_ARRAY_LEN(p->kinds))
		(void)snprintf(p->kinds[p->n_kinds++], sizeof(p->kinds[0]), "%.*s", (int)n, key);
	return true;
}

static void list_pick(void *arg, const struct sl_cert_view *c)
{
	struct pick *p = arg;

	if (strcmp(c->route, p->route) != 0 || fit_of(c, &p->asked) != p->fit ||
	    !is_first_of_kind(p, c->key))
		return;
	sl_json_obj(p->j, NULL);
	sl_json_str(p->j, "file", c->label);
	sl_json_str(p->j, "key", c->key);
	sl_json_str(p->j, "status", status_name(status_of(c, p->now)));
	sl_json_obj_end(p->j);
}

/* The members `by` and `certificates`. */
static void add_picks(struct sl_json *j, struct sl_proxy *proxy, const char *route,
		      const char *name)
{
	struct pick p = { .route = route, .asked = asked_for(name), .j = j, .now = now_s() };

	sl_proxy_each_cert(proxy, judge_cert, &p);
	sl_json_str(j, "by", fit_name(p.fit));
	sl_json_arr(j, "certificates");
	if (p.fit != FIT_NONE)
		sl_proxy_each_cert(proxy, list_pick, &p);
	sl_json_arr_end(j);
}

/* ---- the certificates of something ---- */

struct search {
	struct sl_json j;
	int64_t now;
	const char *text;
	struct asked asked;
	size_t n;
};

static bool is_found(const struct search *s, const struct sl_cert_view *c)
{
	return strcmp(c->route, s->text) == 0 || (has_cert(c) && strcmp(c->label, s->text) == 0) ||
	       has_name(c, s->asked.name) || has_name(c, s->asked.wild) || has_name(c, s->text);
}

static void find_cert(void *arg, const struct sl_cert_view *c)
{
	struct search *s = arg;

	s->n += is_found(s, c);
}

static void list_found(void *arg, const struct sl_cert_view *c)
{
	struct search *s = arg;

	if (is_found(s, c))
		add_cert(&s->j, c, s->now);
}

/* What could be a host's name, but is a route's, or a slip of the pen, is not taken for one. */
static bool is_domain(const struct search *s, const struct sl_conf *conf)
{
	for (size_t i = 0; conf && i < conf->n_routes; i++)
		if (strcmp(conf->routes[i].name, s->text) == 0)
			return false;
	return s->asked.name[0] && (s->n || strchr(s->asked.name, '.'));
}

/* The ports that a client may ask at, each once. */
struct asked_ports {
	const struct sl_port_spec *port[MAX_PORTS];
	size_t n;
};

static bool is_same_port(const struct sl_port_spec *a, const struct sl_port_spec *b)
{
	return a->from == b->from && a->to == b->to &&
	       sl_addr_family(&a->ip) == sl_addr_family(&b->ip) &&
	       (!sl_addr_family(&a->ip) || sl_addr_same_ip(&a->ip, &b->ip));
}

static void ask_at(struct asked_ports *a, const struct sl_port_spec *port)
{
	for (size_t i = 0; i < a->n; i++)
		if (is_same_port(a->port[i], port))
			return;
	if (a->n < MAX_PORTS)
		a->port[a->n++] = port;
}

static void ports_of_tls(const struct sl_conf *conf, struct asked_ports *ret)
{
	for (size_t i = 0; conf && i < conf->n_routes; i++) {
		const struct sl_conf_route *r = &conf->routes[i];

		for (size_t k = 0; r->enabled && r->tls && k < r->n_ports; k++)
			ask_at(ret, &r->ports[k]);
	}
}

/* Adds the place, if `j` is not NULL; false: there nobody is given a certificate of ours. */
static bool add_served(struct sl_json *j, struct sl_proxy *proxy, const struct sl_port_spec *port,
		       const char *name)
{
	const struct sl_question q = { .local = port->ip, .port = port->from, .name = name };
	_cleanup_(sl_explanation_done) struct sl_explanation e = { 0 };

	if (sl_proxy_explain(proxy, &q, &e) < 0 || !e.route || !e.route->tls)
		return false;
	if (!j)
		return true;
	sl_json_obj(j, NULL);
	sl_json_str(j, "route", e.route->name);
	sl_view_port(j, "port", port);
	add_picks(j, proxy, e.route->name, name);
	sl_json_obj_end(j);
	return true;
}

/* How many places there are; adds them, if `j` is not NULL. */
static size_t each_served(struct sl_json *j, struct sl_proxy *proxy, const char *name)
{
	struct asked_ports asked = { .n = 0 };
	size_t n = 0;

	ports_of_tls(sl_proxy_conf(proxy), &asked);
	for (size_t i = 0; i < asked.n; i++)
		n += add_served(j, proxy, asked.port[i], name);
	return n;
}

bool sl_view_cert(struct sl_str *out, struct sl_proxy *proxy, const char *name)
{
	struct search s = { .j = sl_json_on(out), .now = now_s(), .text = name };
	size_t n_served;

	s.asked = asked_for(name);
	sl_proxy_each_cert(proxy, find_cert, &s);
	n_served = is_domain(&s, sl_proxy_conf(proxy)) ? each_served(NULL, proxy, name) : 0;
	if (s.n + n_served == 0)
		return false;
	sl_json_obj(&s.j, NULL);
	sl_json_str(&s.j, "name", name);
	sl_json_arr(&s.j, "certificates");
	sl_proxy_each_cert(proxy, list_found, &s);
	sl_json_arr_end(&s.j);
	sl_json_arr(&s.j, "served");
	if (n_served)
		(void)each_served(&s.j, proxy, name);
	sl_json_arr_end(&s.j);
	sl_json_obj_end(&s.j);
	sl_str_addc(out, '\n');
	return true;
}

/* ---- status ---- */

struct summary {
	int64_t now;
	uint64_t n;
	uint64_t n_status[CERT_EXPIRED + 1];
	uint64_t problems; /* routes whose newer files are not in use */
	char route[80];    /* the last of them */
	int64_t next_s;    /* the earliest end that is yet to come */
	struct sl_str next_file;
	struct sl_str worry[MAX_WORRIES];
	size_t n_worries;
};

static void summary_done(struct summary *s)
{
	sl_str_done(&s->next_file);
	for (size_t i = 0; i < SL_ARRAY_LEN(s->worry); i++)
		sl_str_done(&s->worry[i]);
}

static void add_worry(struct summary *s, const struct sl_cert_view *c, const char *what)
{
	if (s->n_worries == MAX_WORRIES)
		return;
	sl_str_addf(&s->worry[s->n_worries++], "route %s: %s", c->route, what);
}

static void add_cert_worry(struct summary *s, const struct sl_cert_view *c, const char *what)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	sl_str_addf(&text, "%s %s", c->label, what);
	add_worry(s, c, sl_str_text(&text));
}

static void see_problem(struct summary *s, const struct sl_cert_view *c)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	if (!c->problem[0] || strcmp(s->route, c->route) == 0)
		return;
	(void)snprintf(s->route, sizeof(s->route), "%s", c->route);
	s->problems++;
	sl_str_addf(&text, "newer files are not in use: %s", c->problem);
	add_worry(s, c, sl_str_text(&text));
}

static void sum_cert(void *arg, const struct sl_cert_view *c)
{
	struct summary *s = arg;

	see_problem(s, c);
	if (!has_cert(c))
		return;
	s->n++;
	if (c->not_after_s < s->now) {
		s->n_status[CERT_EXPIRED]++;
		add_cert_worry(s, c, "has expired");
		return;
	}
	if (c->not_before_s > s->now) {
		s->n_status[CERT_NOT_YET_VALID]++;
		add_cert_worry(s, c, "is not valid yet");
	}
	if (c->not_after_s - s->now < SL_CERT_SOON_S)
		s->n_status[CERT_EXPIRES_SOON]++;
	if (s->next_file.len && c->not_after_s >= s->next_s)
		return;
	s->next_s = c->not_after_s;
	sl_str_clear(&s->next_file);
	sl_str_adds(&s->next_file, c->label);
}

static void add_handshakes(struct sl_json *j, const struct sl_tls_totals *t)
{
	sl_json_obj(j, "handshakes");
	for (int side = 0; side < SL_SIDE_COUNT_; side++) {
		uint64_t n[SL_TLS_COUNT_RESULTS_] = { 0 };
		uint64_t resumed = 0;

		for (int v = 0; v < SL_TLS_COUNT_VERSIONS_; v++) {
			for (int r = 0; r < SL_TLS_COUNT_RESULTS_; r++)
				n[r] += t->handshakes[side][v][0][r] + t->handshakes[side][v][1][r];
			resumed += t->handshakes[side][v][1][SL_TLS_COUNT_OK];
		}
		sl_json_obj(j, sl_side_name((enum sl_side)side));
		for (int r = 0; r < SL_TLS_COUNT_RESULTS_; r++)
			sl_json_u64(j, sl_tls_count_result_name((enum sl_tls_count_result)r), n[r]);
		sl_json_u64(j, "resumed", resumed);
		sl_json_obj_end(j);
	}
	sl_json_u64(j, "active", t->handshaking);
	sl_json_u64(j, "waiting", t->waiting);
	sl_json_obj_end(j);
}

void sl_view_ktls(struct sl_json *j, const struct sl_ctl_facts *facts)
{
	sl_json_obj(j, "ktls");
	sl_json_bool(j, "available", !facts->no_ktls);
	sl_json_str(j, "reason", facts->no_ktls);
	sl_json_obj_end(j);
}

void sl_view_tls_status(struct sl_json *j, struct sl_proxy *proxy,
			const struct sl_proxy_totals *totals, const struct sl_ctl_facts *facts)
{
	_cleanup_(summary_done) struct summary s = { .now = now_s() };

	sl_proxy_each_cert(proxy, sum_cert, &s);
	sl_json_obj(j, "tls");
	sl_json_u64(j, "certificates", s.n);
	sl_json_u64(j, "expired", s.n_status[CERT_EXPIRED]);
	sl_json_u64(j, "not_yet_valid", s.n_status[CERT_NOT_YET_VALID]);
	sl_json_u64(j, "expires_soon", s.n_status[CERT_EXPIRES_SOON]);
	sl_json_u64(j, "problems", s.problems);
	if (s.next_file.len) {
		sl_json_obj(j, "next_expiry");
		sl_json_str(j, "file", sl_str_text(&s.next_file));
		add_time(j, "not_after", s.next_s);
		sl_json_i64(j, "expires_in_s", s.next_s - s.now);
		sl_json_obj_end(j);
	} else {
		sl_json_null(j, "next_expiry");
	}
	sl_json_arr(j, "worries");
	for (size_t i = 0; i < s.n_worries; i++)
		sl_json_str(j, NULL, sl_str_text(&s.worry[i]));
	sl_json_arr_end(j);
	add_handshakes(j, &totals->tls);
	sl_view_ktls(j, facts);
	sl_json_obj_end(j);
}

/* ---- routes ---- */

static const char *client_auth_name(enum sl_client_auth_choice choice)
{
	switch (choice) {
	case SL_CLIENT_AUTH_CHOICE_NONE:
		return "none";
	case SL_CLIENT_AUTH_CHOICE_OPTIONAL:
		return "optional";
	case SL_CLIENT_AUTH_CHOICE_REQUIRED:
		return "required";
	}
	return "-";
}

static const char *verify_name(enum sl_verify_choice choice)
{
	switch (choice) {
	case SL_VERIFY_CHOICE_SYSTEM:
		return "system";
	case SL_VERIFY_CHOICE_FILE:
		return "file";
	case SL_VERIFY_CHOICE_NONE:
		return "none";
	}
	return "-";
}

/* What clients meet: an object that is still open, or null (false). */
static bool open_tls(struct sl_json *j, const char *key, const struct sl_conf_tls *tls)
{
	if (!tls) {
		sl_json_null(j, key);
		return false;
	}
	sl_json_obj(j, key);
	sl_json_str(j, "min_version", tls->only_1_3 ? "1.3" : "1.2");
	sl_json_arr(j, "alpn");
	for (size_t i = 0; i < tls->n_alpn; i++)
		sl_json_str(j, NULL, tls->alpn[i]);
	sl_json_arr_end(j);
	sl_json_str(j, "client_auth", client_auth_name(tls->client_auth));
	sl_json_str(j, "client_ca", tls->client_ca);
	sl_json_str(j, "ciphers", tls->ciphers);
	sl_json_str(j, "suites", tls->suites);
	return true;
}

static void add_backend_tls(struct sl_json *j, const struct sl_conf_backend_tls *tls)
{
	if (!tls) {
		sl_json_null(j, "backend_tls");
		return;
	}
	sl_json_obj(j, "backend_tls");
	sl_json_str(j, "verify", verify_name(tls->verify));
	sl_json_str(j, "ca", tls->ca);
	sl_json_str(j, "server_name", tls->server_name);
	sl_json_str(j, "cert", tls->cert);
	sl_json_str(j, "key", tls->key);
	sl_json_obj_end(j);
}

void sl_view_tls_route(struct sl_json *j, const struct sl_conf_route *route)
{
	if (open_tls(j, "tls", route->tls)) {
		sl_json_arr(j, "certificates");
		for (size_t i = 0; i < route->tls->n_certs; i++) {
			const struct sl_conf_cert *c = &route->tls->certs[i];

			sl_json_obj(j, NULL);
			sl_json_str(j, "cert", c->chain);
			sl_json_str(j, "key", c->key);
			sl_json_str(j, "ocsp", c->staple);
			sl_json_obj_end(j);
		}
		sl_json_arr_end(j);
		sl_json_obj_end(j);
	}
	add_backend_tls(j, route->backend_tls);
}

void sl_view_tls_explain(struct sl_json *j, struct sl_proxy *proxy, const struct sl_explanation *e,
			 const char *name)
{
	if (open_tls(j, "terminates", e->route ? e->route->tls : NULL)) {
		add_picks(j, proxy, e->route->name, name);
		sl_json_obj_end(j);
	}
	add_backend_tls(j, e->route ? e->route->backend_tls : NULL);
}

/* ---- connections ---- */

static const char *or_null(const char *text)
{
	return text[0] ? text : NULL;
}

static void add_bool(struct sl_json *j, const char *key, bool is_known, bool value)
{
	if (is_known)
		sl_json_bool(j, key, value);
	else
		sl_json_null(j, key);
}

void sl_view_tls_conn(struct sl_json *j, const struct sl_conn_row *c)
{
	const struct sl_tls_row *front = &c->tls[SL_CLIENT];
	const struct sl_tls_row *back = &c->tls[SL_BACKEND];
	bool ends = front->version[0] != '\0';
	bool begins = back->version[0] != '\0';
	char offered[SL_TLS_TEXT];

	sl_json_str(j, "alpn", or_null(ends ? front->alpn : c->alpn));
	sl_json_str(j, "tls", ends ? front->version : sl_view_tls(c->tls_versions, offered));
	sl_json_str(j, "tls_cipher", or_null(front->cipher));
	add_bool(j, "tls_resumed", ends, front->is_resumed);
	sl_json_str(j, "tls_ktls", or_null(front->ktls));
	sl_json_str(j, "tls_ktls_why", front->ktls_why);
	sl_json_str(j, "client_cert", or_null(front->peer));
	sl_json_str(j, "backend_tls", or_null(back->version));
	sl_json_str(j, "backend_tls_cipher", or_null(back->cipher));
	add_bool(j, "backend_tls_resumed", begins, back->is_resumed);
	sl_json_str(j, "backend_tls_ktls", or_null(back->ktls));
	sl_json_str(j, "backend_tls_ktls_why", back->ktls_why);
	sl_json_str(j, "backend_alpn", or_null(back->alpn));
	sl_json_str(j, "backend_cert", or_null(back->peer));
	add_bool(j, "backend_verified", begins, back->is_verified);
}
