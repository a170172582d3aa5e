/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/render_tls.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "ctl/table.h"

#define LABEL "%-17s"
#define WIDTH 100

enum colour {
	NONE = 0,
	RED = 31,
	GREEN = 32,
	YELLOW = 33,
};

/* ---- reading ---- */

static const char *text_at(const json_t *j, const char *key)
{
	const char *text = json_string_value(json_object_get(j, key));

	return text ? text : "-";
}

static bool has_text(const json_t *j, const char *key)
{
	return json_is_string(json_object_get(j, key));
}

static bool is_text(const json_t *j, const char *key, const char *text)
{
	return strcmp(text_at(j, key), text) == 0;
}

static json_int_t number_at(const json_t *j, const char *key)
{
	return (json_int_t)json_number_value(json_object_get(j, key));
}

static uint64_t count_at(const json_t *j, const char *key)
{
	json_int_t n = number_at(j, key);

	return n > 0 ? (uint64_t)n : 0;
}

/* ---- pieces ---- */

static void line(const struct sl_render *r, enum colour colour, const char *label, const char *fmt,
		 ...) SL_PRINTF(4, 5);
static void line(const struct sl_render *r, enum colour colour, const char *label, const char *fmt,
		 ...)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	va_list ap;

	va_start(ap, fmt);
	sl_str_addv(&text, fmt, ap);
	va_end(ap);
	if (r->colour && colour)
		(void)fprintf(r->to, LABEL "\033[%dm%s\033[0m\n", label, (int)colour,
			      sl_str_text(&text));
	else
		(void)fprintf(r->to, LABEL "%s\n", label, sl_str_text(&text));
}

static void line_of_text(const struct sl_render *r, const char *label, const json_t *doc,
			 const char *key)
{
	if (has_text(doc, key))
		line(r, NONE, label, "%s", text_at(doc, key));
}

/* "a, b, c" in as many lines as that takes. */
static void line_of_list(const struct sl_render *r, const char *label, const json_t *list)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	size_t n = json_array_size(list);

	for (size_t i = 0; i < n; i++) {
		const char *item = json_string_value(json_array_get(list, i));

		if (!item)
			continue;
		if (text.len && text.len + strlen(item) + 20 > WIDTH) {
			line(r, NONE, label, "%s", sl_str_text(&text));
			sl_str_clear(&text);
			label = "";
		}
		sl_str_addf(&text, "%s%s%s", text.len ? " " : "", item, i + 1 < n ? "," : "");
	}
	if (text.len)
		line(r, NONE, label, "%s", sl_str_text(&text));
}

/* "in 43 days", "5 hours ago" */
static const char *when(json_int_t seconds, char buf[48])
{
	json_int_t s = seconds < 0 ? -seconds : seconds;
	json_int_t n = s >= 2 * 86400 ? s / 86400 : s >= 7200 ? s / 3600 : s / 60;
	const char *unit = s >= 2 * 86400 ? "day" : s >= 7200 ? "hour" : "minute";

	(void)snprintf(buf, 48, "%s%" JSON_INTEGER_FORMAT " %s%s%s", seconds < 0 ? "" : "in ", n,
		       unit, n == 1 ? "" : "s", seconds < 0 ? " ago" : "");
	return buf;
}

/* "2026-01-31 12:00:00Z" of "2026-01-31T12:00:00Z". */
static const char *moment(const json_t *doc, const char *key, char buf[32])
{
	char *t;

	(void)snprintf(buf, 32, "%s", text_at(doc, key));
	t = strchr(buf, 'T');
	if (t)
		*t = ' ';
	return buf;
}

static const char *status_words(const char *status)
{
	if (strcmp(status, "expires_soon") == 0)
		return "expires soon";
	return strcmp(status, "not_yet_valid") == 0 ? "not yet valid" : status;
}

static enum colour status_colour(const char *status)
{
	if (strcmp(status, "ok") == 0)
		return GREEN;
	return strcmp(status, "expires_soon") == 0 ? YELLOW : RED;
}

static bool is_for_targets(const json_t *cert)
{
	return is_text(cert, "side", "backend");
}

/* ---- certificates ---- */

/* "shop.example.com +3" */
static void add_names(struct sl_table *t, const json_t *cert)
{
	const json_t *names = json_object_get(cert, "names");
	const char *first = json_string_value(json_array_get(names, 0));
	size_t n = json_array_size(names);
	const char *whom = is_for_targets(cert) ? "targets: " : "";

	if (n > 1)
		sl_table_addf(t, "%s%s +%zu", whom, first ? first : "-", n - 1);
	else
		sl_table_addf(t, "%s%s", whom, first ? first : text_at(cert, "subject"));
}

static void add_row(struct sl_table *t, const json_t *cert)
{
	const char *status = text_at(cert, "status");
	bool is_there = has_text(cert, "file");
	char in[48];

	sl_table_add(t, text_at(cert, "route"));
	add_names(t, cert);
	sl_table_add(t, text_at(cert, "key"));
	if (is_there)
		sl_table_addf(t, "%.10s %s", text_at(cert, "not_after"),
			      when(number_at(cert, "expires_in_s"), in));
	else
		sl_table_add(t, "-");
	sl_table_add(t, status_words(status));
	sl_table_colour(t, (int)status_colour(status));
	sl_table_add(t, text_at(cert, "file"));
}

/* Each problem is a route's, and said once. */
static void print_problems(const struct sl_render *r, const json_t *certs)
{
	const char *last = "";

	for (size_t i = 0; i < json_array_size(certs); i++) {
		const json_t *c = json_array_get(certs, i);

		if (!has_text(c, "problem") || is_text(c, "route", last))
			continue;
		last = text_at(c, "route");
		(void)fprintf(r->to, "%s: newer files are not in use: %s\n", last,
			      text_at(c, "problem"));
	}
}

void sl_render_certs(const struct sl_render *r, const json_t *doc)
{
	static const struct sl_table_column columns[] = {
		{ "ROUTE", false },   { "NAMES", false },  { "KEY", false },
		{ "EXPIRES", false }, { "STATUS", false }, { "FILE", false },
	};
	const json_t *certs = json_object_get(doc, "certificates");
	_cleanup_(sl_table_done) struct sl_table t = { 0 };

	if (json_array_size(certs) == 0) {
		(void)fputs("no certificates: no route terminates TLS, or shows one to its "
			    "targets\n",
			    r->to);
		return;
	}
	sl_table_init(&t, columns, SL_ARRAY_LEN(columns));
	for (size_t i = 0; i < json_array_size(certs); i++)
		add_row(&t, json_array_get(certs, i));
	sl_table_print(&t, r->to, r->colour);
	print_problems(r, certs);
}

static void print_validity(const struct sl_render *r, const json_t *cert)
{
	char from[32];
	char to[32];
	char in[48];

	line(r, NONE, "  valid", "%s to %s, ends %s", moment(cert, "not_before", from),
	     moment(cert, "not_after", to), when(number_at(cert, "expires_in_s"), in));
}

static void print_facts(const struct sl_render *r, const json_t *cert)
{
	const json_t *names = json_object_get(cert, "names");
	uint64_t chain = count_at(cert, "chain");
	char until[32];

	if (json_array_size(names))
		line_of_list(r, "  names", names);
	else
		line(r, NONE, "  names", "none");
	line_of_text(r, "  subject", cert, "subject");
	line_of_text(r, "  issuer", cert, "issuer");
	print_validity(r, cert);
	line_of_text(r, "  key", cert, "key");
	line(r, NONE, "  SHA-256", "%s", text_at(cert, "fingerprint"));
	if (chain)
		line(r, NONE, "  chain", "%" PRIu64 " certificate%s sent after it", chain,
		     chain == 1 ? "" : "s");
	else
		line(r, NONE, "  chain", "none: it is sent alone");
	if (has_text(cert, "ocsp_until"))
		line(r, NONE, "  OCSP response", "good until %s",
		     moment(cert, "ocsp_until", until));
	else
		line(r, NONE, "  OCSP response", "none");
}

static void print_cert(const struct sl_render *r, const json_t *cert)
{
	const char *status = text_at(cert, "status");

	(void)fprintf(r->to, "%s%s%s\n", r->colour ? "\033[1m" : "",
		      has_text(cert, "file") ? text_at(cert, "file") : "no certificate",
		      r->colour ? "\033[0m" : "");
	line(r, NONE, "  route", "%s, shown to %s%s", text_at(cert, "route"),
	     is_for_targets(cert) ? "targets" : "clients",
	     json_is_true(json_object_get(cert, "default")) ? ", the default" : "");
	line(r, status_colour(status), "  status", "%s", status_words(status));
	if (has_text(cert, "problem"))
		line(r, NONE, "  problem", "newer files are not in use: %s",
		     text_at(cert, "problem"));
	if (has_text(cert, "file"))
		print_facts(r, cert);
}

/* "/etc/a.pem (ec-256), /etc/b.pem (rsa-2048): by its name" */
static void add_picks(struct sl_str *s, const json_t *doc)
{
	const json_t *certs = json_object_get(doc, "certificates");
	const char *by = text_at(doc, "by");

	for (size_t i = 0; i < json_array_size(certs); i++) {
		const json_t *c = json_array_get(certs, i);

		sl_str_addf(s, "%s%s (%s%s%s)", i ? ", " : "", text_at(c, "file"),
			    text_at(c, "key"), is_text(c, "status", "ok") ? "" : ", ",
			    is_text(c, "status", "ok") ? "" : status_words(text_at(c, "status")));
	}
	if (strcmp(by, "none") == 0)
		sl_str_adds(s, "no certificate");
	else
		sl_str_adds(s, strcmp(by, "name") == 0       ? ", by its name"
			       : strcmp(by, "wildcard") == 0 ? ", by its wildcard"
							     : ", the default");
}

void sl_render_cert(const struct sl_render *r, const json_t *doc)
{
	const json_t *certs = json_object_get(doc, "certificates");
	const json_t *served = json_object_get(doc, "served");

	for (size_t i = 0; i < json_array_size(certs); i++) {
		if (i)
			(void)fputc('\n', r->to);
		print_cert(r, json_array_get(certs, i));
	}
	if (json_array_size(served) == 0)
		return;
	(void)fprintf(r->to, "%swho asks for %s is given\n", json_array_size(certs) ? "\n" : "",
		      text_at(doc, "name"));
	for (size_t i = 0; i < json_array_size(served); i++) {
		const json_t *s = json_array_get(served, i);
		_cleanup_(sl_str_done) struct sl_str text = { 0 };

		add_picks(&text, s);
		line(r, NONE, "", "port %s, route %s: %s", text_at(s, "port"), text_at(s, "route"),
		     sl_str_text(&text));
	}
}

/* ---- status ---- */

bool sl_render_tls_is_degraded(const json_t *status)
{
	const json_t *tls = json_object_get(status, "tls");

	return count_at(tls, "expired") || count_at(tls, "not_yet_valid") ||
	       count_at(tls, "problems");
}

static void print_certificates(const struct sl_render *r, const json_t *tls)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	const json_t *next = json_object_get(tls, "next_expiry");
	const json_t *worries = json_object_get(tls, "worries");
	uint64_t soon = count_at(tls, "expires_soon");
	char in[48];

	sl_str_addf(&text, "%" PRIu64 " in use", count_at(tls, "certificates"));
	if (count_at(tls, "expired"))
		sl_str_addf(&text, ", %" PRIu64 " expired", count_at(tls, "expired"));
	if (soon)
		sl_str_addf(&text, ", %" PRIu64 " expire%s soon", soon, soon == 1 ? "s" : "");
	if (json_is_object(next))
		sl_str_addf(&text, "; the next one ends %s: %s",
			    when(number_at(next, "expires_in_s"), in), text_at(next, "file"));
	line(r, soon && !json_array_size(worries) ? YELLOW : NONE, "certificates", "%s",
	     sl_str_text(&text));
	for (size_t i = 0; i < json_array_size(worries); i++)
		line(r, RED, "", "%s", json_string_value(json_array_get(worries, i)));
}

/* "3 good (1 resumed), 1 failed, 1 too late" */
static void add_results(struct sl_str *s, const json_t *side, const char *whom)
{
	sl_str_addf(s, "%s%s %" PRIu64 " good", s->len ? "; " : "", whom, count_at(side, "ok"));
	if (count_at(side, "resumed"))
		sl_str_addf(s, " (%" PRIu64 " resumed)", count_at(side, "resumed"));
	if (count_at(side, "failed"))
		sl_str_addf(s, ", %" PRIu64 " failed", count_at(side, "failed"));
	if (count_at(side, "timeout"))
		sl_str_addf(s, ", %" PRIu64 " too late", count_at(side, "timeout"));
}

static bool has_results(const json_t *side)
{
	return count_at(side, "ok") || count_at(side, "failed") || count_at(side, "timeout");
}

static void print_handshakes(const struct sl_render *r, const json_t *handshakes)
{
	const json_t *client = json_object_get(handshakes, "client");
	const json_t *backend = json_object_get(handshakes, "backend");
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	if (has_results(client))
		add_results(&text, client, "clients");
	if (has_results(backend))
		add_results(&text, backend, "targets");
	if (count_at(handshakes, "active") || count_at(handshakes, "waiting"))
		sl_str_addf(&text, "%s%" PRIu64 " now, %" PRIu64 " wait for their turn",
			    text.len ? "; " : "", count_at(handshakes, "active"),
			    count_at(handshakes, "waiting"));
	if (text.len)
		line(r, NONE, "handshakes", "%s", sl_str_text(&text));
}

void sl_render_tls_status(const struct sl_render *r, const json_t *status)
{
	const json_t *tls = json_object_get(status, "tls");

	if (count_at(tls, "certificates") || json_array_size(json_object_get(tls, "worries")))
		print_certificates(r, tls);
	print_handshakes(r, json_object_get(tls, "handshakes"));
}

void sl_render_ktls(const struct sl_render *r, const json_t *doc)
{
	const json_t *ktls = json_object_get(doc, "ktls");
	const char *reason = text_at(ktls, "reason");

	if (json_is_true(json_object_get(ktls, "available")))
		(void)fputs("ktls: available\n", r->to);
	else if (json_is_object(ktls)) /* the process asks once, when it starts */
		(void)fprintf(r->to, "ktls: unavailable (%s)%s\n", reason,
			      strcmp(reason, "the kernel has no TLS") == 0
				      ? ": modprobe tls, and 'sluice upgrade'"
				      : "");
}

/* ---- routes ---- */

/* "1.2 and later, ALPN h2 http/1.1, client certificates required" */
static void add_terms(struct sl_str *s, const json_t *tls)
{
	const json_t *alpn = json_object_get(tls, "alpn");

	sl_str_addf(s, is_text(tls, "min_version", "1.3") ? "1.3 alone" : "1.2 and later");
	for (size_t i = 0; i < json_array_size(alpn); i++)
		sl_str_addf(s, "%s%s", i ? " " : ", ALPN ",
			    json_string_value(json_array_get(alpn, i)));
	if (has_text(tls, "client_ca"))
		sl_str_addf(s, ", client certificates %s", text_at(tls, "client_auth"));
}

/* "verified by the authorities of the system as a.example.com" */
static void add_verification(struct sl_str *s, const json_t *tls)
{
	if (is_text(tls, "verify", "none"))
		sl_str_adds(s, "not verified");
	else if (is_text(tls, "verify", "file"))
		sl_str_addf(s, "verified by %s", text_at(tls, "ca"));
	else
		sl_str_adds(s, "verified by the authorities of the system");
	if (has_text(tls, "server_name"))
		sl_str_addf(s, "%s%s", is_text(tls, "verify", "none") ? ", asked for " : " as ",
			    text_at(tls, "server_name"));
	if (has_text(tls, "cert"))
		sl_str_addf(s, ", shows %s", text_at(tls, "cert"));
}

static void print_backend(const struct sl_render *r, const char *label, const json_t *tls)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	if (!json_is_object(tls))
		return;
	add_verification(&text, tls);
	line(r, NONE, label, "%s", sl_str_text(&text));
}

static void print_files(const struct sl_render *r, const json_t *certs)
{
	for (size_t i = 0; i < json_array_size(certs); i++) {
		const json_t *c = json_array_get(certs, i);
		_cleanup_(sl_str_done) struct sl_str text = { 0 };

		sl_str_adds(&text, text_at(c, "cert"));
		if (has_text(c, "key"))
			sl_str_addf(&text, ", key %s", text_at(c, "key"));
		if (has_text(c, "ocsp"))
			sl_str_addf(&text, ", OCSP %s", text_at(c, "ocsp"));
		line(r, NONE, i ? "" : "  certificates", "%s", sl_str_text(&text));
	}
}

void sl_render_tls_route(const struct sl_render *r, const json_t *route)
{
	const json_t *tls = json_object_get(route, "tls");

	if (json_is_object(tls)) {
		_cleanup_(sl_str_done) struct sl_str text = { 0 };

		add_terms(&text, tls);
		line(r, NONE, "  TLS ends here", "%s", sl_str_text(&text));
		print_files(r, json_object_get(tls, "certificates"));
		line_of_text(r, "  client CA", tls, "client_ca");
		line_of_text(r, "  ciphers of 1.2", tls, "ciphers");
		line_of_text(r, "  suites of 1.3", tls, "suites");
	}
	print_backend(r, "  TLS to target", json_object_get(route, "backend_tls"));
}

void sl_render_tls_explain(const struct sl_render *r, const json_t *doc)
{
	const json_t *tls = json_object_get(doc, "terminates");

	if (json_is_object(tls)) {
		_cleanup_(sl_str_done) struct sl_str terms = { 0 };
		_cleanup_(sl_str_done) struct sl_str picks = { 0 };

		add_terms(&terms, tls);
		add_picks(&picks, tls);
		line(r, NONE, "TLS ends here", "%s", sl_str_text(&terms));
		line(r, NONE, "  certificate", "%s", sl_str_text(&picks));
	}
	print_backend(r, "TLS to target", json_object_get(doc, "backend_tls"));
}

/* ---- connections ---- */

static void print_side(const struct sl_render *r, const char *whom, const char *version,
		       const json_t *c, const char *const keys[6])
{
	(void)fprintf(r->to, "TLS with the %s: %s %s", whom, version, text_at(c, keys[0]));
	if (json_is_true(json_object_get(c, keys[1])))
		(void)fputs(", resumed", r->to);
	if (has_text(c, keys[2]))
		(void)fprintf(r->to, ", ALPN %s", text_at(c, keys[2]));
	if (has_text(c, keys[4]))
		(void)fprintf(r->to, ", ktls: unavailable (%s)", text_at(c, keys[4]));
	else if (has_text(c, keys[3]))
		(void)fprintf(r->to, ", ktls: %s", text_at(c, keys[3]));
	if (has_text(c, keys[5]))
		(void)fprintf(r->to, ", certificate %s", text_at(c, keys[5]));
}

void sl_render_tls_conn(const struct sl_render *r, const json_t *c)
{
	static const char *const front[] = { "tls_cipher", "tls_resumed",  "alpn",
					     "tls_ktls",   "tls_ktls_why", "client_cert" };
	static const char *const back[] = { "backend_tls_cipher",   "backend_tls_resumed",
					    "backend_alpn",         "backend_tls_ktls",
					    "backend_tls_ktls_why", "backend_cert" };

	if (has_text(c, "tls_cipher")) {
		print_side(r, "client", text_at(c, "tls"), c, front);
		(void)fputc('\n', r->to);
	}
	if (!has_text(c, "backend_tls"))
		return;
	print_side(r, "target", text_at(c, "backend_tls"), c, back);
	(void)fputs(json_is_true(json_object_get(c, "backend_verified")) ? ", verified\n"
									 : ", not verified\n",
		    r->to);
}
