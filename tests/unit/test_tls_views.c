/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is shown of TLS: the documents, and what people are shown of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>

#include "ctl/render_tls.h"
#include "ctl/view_tls.h"
#include "fake_proxy.h"

#define DAY 86400

static struct sl_proxy *setup_proxy(void)
{
	struct sl_proxy *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	fake_init(p, NULL);
	fake_tls_on(p);
	return p;
}

static json_t *parse(struct sl_str *out)
{
	json_error_t error;
	json_t *doc;

	assert_false(out->oom);
	doc = json_loads(sl_str_text(out), 0, &error);
	if (!doc)
		fail_msg("not JSON (%s): %s", error.text, sl_str_text(out));
	sl_str_done(out);
	return doc;
}

static json_t *certs_of(struct sl_proxy *p)
{
	struct sl_str out = { 0 };

	sl_view_certs(&out, p);
	return parse(&out);
}

/* NULL: there is none. */
static json_t *cert_of(struct sl_proxy *p, const char *name)
{
	struct sl_str out = { 0 };

	if (!sl_view_cert(&out, p, name)) {
		assert_int_equal(out.len, 0);
		return NULL;
	}
	return parse(&out);
}

static const char *text_at(const json_t *j, const char *key)
{
	const char *text = json_string_value(json_object_get(j, key));

	return text ? text : "(none)";
}

static json_int_t number_at(const json_t *j, const char *key)
{
	assert_true(json_is_integer(json_object_get(j, key)));
	return json_integer_value(json_object_get(j, key));
}

typedef void (*render_fn)(const struct sl_render *r, const json_t *doc);

/* Takes `doc`. */
static char *rendered(render_fn render, json_t *doc, bool colour)
{
	char *text = NULL;
	size_t n = 0;
	FILE *to = open_memstream(&text, &n);
	const struct sl_render r = { .to = to, .colour = colour };

	assert_non_null(to);
	render(&r, doc);
	assert_int_equal(fclose(to), 0);
	json_decref(doc);
	return text;
}

static void has(const char *text, const char *piece)
{
	if (!strstr(text, piece))
		fail_msg("no '%s' in:\n%s", piece, text);
}

static void lacks(const char *text, const char *piece)
{
	if (strstr(text, piece))
		fail_msg("'%s' in:\n%s", piece, text);
}

static void fits_the_screen(const char *text)
{
	for (const char *p = text; *p; p += strcspn(p, "\n") + 1)
		if (strcspn(p, "\n") > 100)
			fail_msg("a line of %zu: %.200s", strcspn(p, "\n"), p);
}

/* ---- certificates ---- */

static void a_certificate_has_the_promised_fields(void **state)
{
	static const char *const fields[] = {
		"route",          "side",         "file",
		"status",         "problem",      "subject",
		"issuer",         "names",        "key",
		"not_before",     "not_after",    "not_before_unix",
		"not_after_unix", "expires_in_s", "ocsp_until",
		"fingerprint",    "chain",        "default",
	};
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	json_t *doc, *c;

	(void)state;
	p->cert[0].not_before_s = 1000000000;
	p->cert[0].not_after_s = 4102444799;
	p->cert[0].staple_until_s = 1234567890;
	doc = certs_of(p);
	assert_int_equal(json_array_size(json_object_get(doc, "certificates")), 4);
	c = json_array_get(json_object_get(doc, "certificates"), 0);
	assert_int_equal(json_object_size(c), SL_ARRAY_LEN(fields));
	for (size_t i = 0; i < SL_ARRAY_LEN(fields); i++)
		assert_non_null(json_object_get(c, fields[i]));
	assert_string_equal(text_at(c, "side"), "client");
	assert_string_equal(text_at(c, "file"), "/etc/sluice/shop.pem");
	assert_string_equal(text_at(c, "status"), "ok");
	assert_true(json_is_null(json_object_get(c, "problem")));
	assert_string_equal(text_at(c, "not_before"), "2001-09-09T01:46:40Z");
	assert_string_equal(text_at(c, "not_after"), "2099-12-31T23:59:59Z");
	assert_int_equal(number_at(c, "not_after_unix"), 4102444799);
	assert_string_equal(text_at(c, "ocsp_until"), "2009-02-13T23:31:30Z");
	assert_int_equal(json_array_size(json_object_get(c, "names")), 2);
	assert_true(json_is_true(json_object_get(c, "default")));
	c = json_array_get(json_object_get(doc, "certificates"), 3);
	assert_string_equal(text_at(c, "side"), "backend");
	assert_true(json_is_null(json_object_get(c, "ocsp_until")));
	json_decref(doc);
}

static const char *status_after(struct sl_proxy *p, char buf[32])
{
	json_t *doc = certs_of(p);

	(void)snprintf(buf, 32, "%s",
		       text_at(json_array_get(json_object_get(doc, "certificates"), 0), "status"));
	json_decref(doc);
	return buf;
}

static void the_status_is_the_worst_there_is(void **state)
{
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	struct sl_cert_view *c = &p->cert[0];
	char buf[32];

	(void)state;
	assert_string_equal(status_after(p, buf), "ok");
	c->not_after_s = time(NULL) + 14 * DAY - 60;
	assert_string_equal(status_after(p, buf), "expires_soon");
	c->not_after_s = time(NULL) + 14 * DAY + 60;
	assert_string_equal(status_after(p, buf), "ok");
	c->not_before_s = time(NULL) + 3600;
	assert_string_equal(status_after(p, buf), "not_yet_valid");
	c->problem = "/etc/sluice/shop.pem: the key does not belong to the certificate";
	assert_string_equal(status_after(p, buf), "problem");
	c->not_after_s = time(NULL) - 60;
	assert_string_equal(status_after(p, buf), "expired");
	c->label = ""; /* nothing there that could expire */
	assert_string_equal(status_after(p, buf), "problem");
}

static void certificates_are_a_table(void **state)
{
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	_cleanup_free_ char *text = NULL;
	_cleanup_free_ char *colour = NULL;
	char date[32];
	time_t end;

	(void)state;
	p->cert[1].not_after_s = time(NULL) + 3 * DAY + 60;
	p->cert[2].not_after_s = time(NULL) - 5 * DAY - 60;
	p->cert[4] = (struct sl_cert_view){ .route = "mail",
					    .problem = "/etc/mail.pem: No such file",
					    .label = "",
					    .names = NULL };
	p->n_certs = 5;
	text = rendered(sl_render_certs, certs_of(p), false);
	end = (time_t)p->cert[0].not_after_s;
	(void)strftime(date, sizeof(date), "%Y-%m-%d in 43 days", gmtime(&end));
	has(text, date);
	has(text, "ROUTE  NAMES                 KEY       EXPIRES                STATUS        "
		  "FILE\n"
		  "shop   shop.example.com +1   ec-256    ");
	has(text, "shop   shop.example.com      rsa-2048  ");
	has(text, "in 3 days   expires soon  /etc/sluice/shop-rsa.pem\n");
	has(text, " 5 days ago  expired       /etc/sluice/wild.pem\n");
	has(text, "shop   targets: CN=Sluice 7  ec-256 ");
	has(text, "mail   -                     -         -                      problem       "
		  "-\n"
		  "mail: newer files are not in use: /etc/mail.pem: No such file\n");
	fits_the_screen(text);
	lacks(text, "\033");
	colour = rendered(sl_render_certs, certs_of(p), true);
	has(colour, "\033[32mok          \033[0m  /etc/sluice/shop.pem\n");
	has(colour, "\033[33mexpires soon\033[0m");
	has(colour, "\033[31mexpired     \033[0m");
}

static void a_problem_of_a_route_is_said_once(void **state)
{
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	_cleanup_free_ char *text = NULL;
	const char *first;

	(void)state;
	for (size_t i = 0; i < p->n_certs; i++)
		p->cert[i].problem = "/etc/sluice/shop.pem: has expired";
	text = rendered(sl_render_certs, certs_of(p), false);
	first = strstr(text, "shop: newer files are not in use: ");
	assert_non_null(first);
	lacks(first + 1, "shop: newer");
}

static void without_certificates_it_is_said(void **state)
{
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	_cleanup_free_ char *text = NULL;

	(void)state;
	p->n_certs = 0;
	text = rendered(sl_render_certs, certs_of(p), false);
	has(text, "no certificates: ");
	assert_null(cert_of(p, "/etc/sluice/shop.pem"));
}

/* ---- which one a name is given ---- */

static size_t n_of(struct sl_proxy *p, const char *name)
{
	json_t *doc = cert_of(p, name);
	size_t n = json_array_size(json_object_get(doc, "certificates"));

	json_decref(doc);
	return n;
}

static void certificates_are_found_by_route_file_and_name(void **state)
{
	_cleanup_free_ struct sl_proxy *p = setup_proxy();

	(void)state;
	assert_int_equal(n_of(p, "shop"), 4);
	assert_int_equal(n_of(p, "/etc/sluice/wild.pem"), 1);
	assert_int_equal(n_of(p, "shop.example.com"), 2);
	assert_int_equal(n_of(p, "Shop.Example.COM."), 2);
	assert_int_equal(n_of(p, "api.example.com"), 1);
	assert_int_equal(n_of(p, "a.shop.example.com"), 1);
	assert_int_equal(n_of(p, "*.shop.example.com"), 1);
	assert_null(cert_of(p, "mail"));
	assert_null(cert_of(p, "/etc/sluice/nothing.pem"));
	assert_null(cert_of(p, "shpo"));
}

/* "BY FILE FILE" of the first place. */
static const char *served(struct sl_proxy *p, const char *name, char buf[200])
{
	json_t *doc = cert_of(p, name);
	json_t *s = json_array_get(json_object_get(doc, "served"), 0);
	json_t *certs = json_object_get(s, "certificates");
	size_t n;

	n = (size_t)snprintf(buf, 200, "%s", text_at(s, "by"));
	for (size_t i = 0; i < json_array_size(certs); i++)
		n += (size_t)snprintf(buf + n, 200 - n, " %s",
				      text_at(json_array_get(certs, i), "file"));
	json_decref(doc);
	return buf;
}

static void what_a_client_is_given_is_told(void **state)
{
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	_cleanup_free_ char *text = NULL;
	char buf[200];
	json_t *doc;

	(void)state;
	assert_string_equal(served(p, "shop.example.com", buf),
			    "name /etc/sluice/shop.pem /etc/sluice/shop-rsa.pem");
	assert_string_equal(served(p, "api.example.com", buf), "name /etc/sluice/shop.pem");
	assert_string_equal(served(p, "a.shop.example.com", buf), "wildcard /etc/sluice/wild.pem");
	/* a wildcard is one label */
	assert_string_equal(served(p, "a.b.shop.example.com", buf),
			    "default /etc/sluice/shop.pem /etc/sluice/shop-rsa.pem");
	/* of two with one kind of key the first one counts */
	p->cert[1].key = "ec-384";
	assert_string_equal(served(p, "shop.example.com", buf), "name /etc/sluice/shop.pem");
	p->cert[1].key = "rsa-2048";

	doc = cert_of(p, "shop.example.com");
	assert_int_equal(json_array_size(json_object_get(doc, "served")), 2); /* two ports */
	text = rendered(sl_render_cert, doc, false);
	has(text, "\nwho asks for shop.example.com is given\n"
		  "                 port 443, route shop: /etc/sluice/shop.pem (ec-256), "
		  "/etc/sluice/shop-rsa.pem (rsa-2048), by its name\n"
		  "                 port [::1]:8000-8100, route shop: ");
	/* a port of two routes is one place */
	p->route[1].tls = &p->tls;
	p->route[1].ports = &p->port[0];
	doc = cert_of(p, "shop.example.com");
	assert_int_equal(json_array_size(json_object_get(doc, "served")), 2);
	json_decref(doc);
	p->route[1].tls = NULL;
	/* where another route would take it, this one's certificates are none of its business */
	p->explanation.route = &p->route[1];
	doc = cert_of(p, "shop.example.com");
	assert_int_equal(json_array_size(json_object_get(doc, "served")), 0);
	json_decref(doc);
	assert_null(cert_of(p, "other.example.org"));
}

static void the_name_of_a_route_is_no_domain(void **state)
{
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	json_t *doc;

	(void)state;
	p->route[0].name = (char *)"shop.example.com";
	p->explanation.route = &p->route[0];
	doc = cert_of(p, "shop.example.com");
	assert_int_equal(json_array_size(json_object_get(doc, "served")), 0);
	json_decref(doc);
}

static void everything_about_one_is_shown(void **state)
{
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	_cleanup_free_ char *text = NULL;
	static char name[40][40];
	static const char *names[40];

	(void)state;
	for (int i = 0; i < 40; i++) {
		(void)snprintf(name[i], sizeof(name[i]), "host-number-%02d.example.com", i);
		names[i] = name[i];
	}
	p->cert[0].names = names;
	p->cert[0].n_names = 40;
	p->cert[0].staple_until_s = 1234567890;
	p->cert[0].not_before_s = 1000000000;
	p->cert[0].not_after_s = 4102444799;
	p->cert[0].problem = "/etc/sluice/shop.pem: no key";
	text = rendered(sl_render_cert, cert_of(p, "/etc/sluice/shop.pem"), false);
	has(text, "/etc/sluice/shop.pem\n"
		  "  route          shop, shown to clients, the default\n"
		  "  status         problem\n"
		  "  problem        newer files are not in use: /etc/sluice/shop.pem: no key\n"
		  "  names          host-number-00.example.com, host-number-01.example.com,\n");
	has(text, "host-number-39.example.com\n"
		  "  subject        CN=shop.example.com\n"
		  "  issuer         CN=Example CA\n"
		  "  valid          2001-09-09 01:46:40Z to 2099-12-31 23:59:59Z, ends in ");
	has(text, "  key            ec-256\n"
		  "  SHA-256        00ff\n"
		  "  chain          1 certificate sent after it\n"
		  "  OCSP response  good until 2009-02-13 23:31:30Z\n");
	fits_the_screen(text);
}

/* ---- status ---- */

static json_t *status_of(struct sl_proxy *p, const struct sl_ctl_facts *facts)
{
	struct sl_str out = { 0 };
	struct sl_json j = sl_json_on(&out);
	struct sl_proxy_totals totals;

	sl_proxy_totals(p, &totals);
	sl_json_obj(&j, NULL);
	sl_view_tls_status(&j, p, &totals, facts);
	sl_json_obj_end(&j);
	return parse(&out);
}

static void status_sums_up(void **state)
{
	const struct sl_ctl_facts facts = { .no_ktls = "the kernel has no TLS" };
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	json_t *doc, *tls, *n;

	(void)state;
	doc = status_of(p, &facts);
	tls = json_object_get(doc, "tls");
	assert_false(sl_render_tls_is_degraded(doc));
	assert_int_equal(number_at(tls, "certificates"), 4);
	assert_int_equal(number_at(tls, "expired"), 0);
	assert_int_equal(number_at(tls, "problems"), 0);
	assert_int_equal(number_at(tls, "expires_soon"), 0);
	assert_string_equal(text_at(json_object_get(tls, "next_expiry"), "file"),
			    "/etc/sluice/shop.pem");
	n = json_object_get(json_object_get(tls, "handshakes"), "client");
	assert_int_equal(number_at(n, "ok"), 25);
	assert_int_equal(number_at(n, "resumed"), 5);
	assert_int_equal(number_at(n, "failed"), 21);
	assert_int_equal(number_at(n, "timeout"), 22);
	n = json_object_get(json_object_get(tls, "handshakes"), "backend");
	assert_int_equal(number_at(n, "timeout"), 7);
	assert_int_equal(number_at(json_object_get(tls, "handshakes"), "active"), 2);
	assert_int_equal(number_at(json_object_get(tls, "handshakes"), "waiting"), 1);
	assert_true(json_is_false(json_object_get(json_object_get(tls, "ktls"), "available")));
	json_decref(doc);
}

static bool is_degraded(struct sl_proxy *p)
{
	const struct sl_ctl_facts facts = { 0 };
	json_t *doc = status_of(p, &facts);
	bool degraded = sl_render_tls_is_degraded(doc);

	json_decref(doc);
	return degraded;
}

static void status_warns(void **state)
{
	const struct sl_ctl_facts facts = { 0 };
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	_cleanup_free_ char *good = rendered(sl_render_tls_status, status_of(p, &facts), false);
	_cleanup_free_ char *soon = NULL;
	_cleanup_free_ char *bad = NULL;

	(void)state;
	has(good, "certificates     4 in use; the next one ends in 43 days: /etc/sluice/shop.pem\n"
		  "handshakes       clients 25 good (5 resumed), 21 failed, 22 too late; targets 0 "
		  "good, 7 too late; 2 now, 1 wait for their turn\n");
	p->cert[1].not_after_s = time(NULL) + 5 * 3600 + 60;
	soon = rendered(sl_render_tls_status, status_of(p, &facts), false);
	has(soon, "certificates     4 in use, 1 expires soon; the next one ends in 5 hours: "
		  "/etc/sluice/shop-rsa.pem\n");
	assert_false(is_degraded(p)); /* there is time left */
	p->cert[1].not_after_s = time(NULL) - 60;
	assert_true(is_degraded(p));
	p->cert[2].problem = p->cert[3].problem = "/etc/sluice/wild.pem: no key";
	bad = rendered(sl_render_tls_status, status_of(p, &facts), false);
	has(bad, "certificates     4 in use, 1 expired; the next one ends in 43 days: ");
	has(bad,
	    "\n                 route shop: /etc/sluice/shop-rsa.pem has expired\n"
	    "                 route shop: newer files are not in use: /etc/sluice/wild.pem: no "
	    "key\nhandshakes ");
	p->cert[1].not_after_s += 100 * DAY;
	assert_true(is_degraded(p)); /* for the problem alone */
	p->cert[2].problem = p->cert[3].problem = "";
	assert_false(is_degraded(p));
}

static void a_host_without_tls_has_no_lines(void **state)
{
	const struct sl_ctl_facts facts = { 0 };
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	_cleanup_free_ char *text = NULL;

	(void)state;
	fake_init(p, NULL);
	text = rendered(sl_render_tls_status, status_of(p, &facts), false);
	assert_string_equal(text, "");
	assert_false(is_degraded(p));
}

/* ---- routes ---- */

static json_t *route_of(const struct sl_conf_route *route)
{
	struct sl_str out = { 0 };
	struct sl_json j = sl_json_on(&out);

	sl_json_obj(&j, NULL);
	sl_view_tls_route(&j, route);
	sl_json_obj_end(&j);
	return parse(&out);
}

static void a_route_shows_its_tls(void **state)
{
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	_cleanup_free_ char *text = NULL;
	_cleanup_free_ char *strict = NULL;
	char *alpn[] = { (char *)"h2", (char *)"http/1.1" };
	json_t *doc = route_of(&p->route[1]);

	(void)state;
	assert_true(json_is_null(json_object_get(doc, "tls")));
	assert_true(json_is_null(json_object_get(doc, "backend_tls")));
	json_decref(doc);
	text = rendered(sl_render_tls_route, route_of(&p->route[0]), false);
	assert_string_equal(
		text, "  TLS ends here  1.2 and later\n"
		      "  certificates   /etc/sluice/shop.pem, OCSP /etc/sluice/shop.ocsp\n"
		      "                 /etc/sluice/shop-rsa.pem, key /etc/sluice/shop-rsa.key\n"
		      "  TLS to target  verified by the authorities of the system, shows "
		      "/etc/sluice/client.pem\n");
	p->tls.only_1_3 = true;
	p->tls.alpn = alpn;
	p->tls.n_alpn = 2;
	p->tls.client_ca = (char *)"/etc/ca.pem";
	p->tls.client_auth = SL_CLIENT_AUTH_CHOICE_OPTIONAL;
	p->tls.suites = (char *)"TLS_AES_256_GCM_SHA384";
	p->backend_tls = (struct sl_conf_backend_tls){ .verify = SL_VERIFY_CHOICE_FILE,
						       .ca = (char *)"/etc/backend.pem",
						       .server_name = (char *)"a.internal" };
	strict = rendered(sl_render_tls_route, route_of(&p->route[0]), false);
	has(strict, "  TLS ends here  1.3 alone, ALPN h2 http/1.1, client certificates optional\n");
	has(strict, "  client CA      /etc/ca.pem\n"
		    "  suites of 1.3  TLS_AES_256_GCM_SHA384\n"
		    "  TLS to target  verified by /etc/backend.pem as a.internal\n");
}

static json_t *explained(struct sl_proxy *p, const char *name)
{
	struct sl_str out = { 0 };
	struct sl_json j = sl_json_on(&out);

	sl_json_obj(&j, NULL);
	sl_view_tls_explain(&j, p, &p->explanation, name);
	sl_json_obj_end(&j);
	return parse(&out);
}

static void explain_names_the_certificate(void **state)
{
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	_cleanup_free_ char *text = NULL;
	_cleanup_free_ char *nameless = NULL;
	json_t *doc;

	(void)state;
	p->cert[2].not_after_s = time(NULL) - 60;
	p->backend_tls.verify = SL_VERIFY_CHOICE_NONE;
	text = rendered(sl_render_tls_explain, explained(p, "b.shop.example.com"), false);
	assert_string_equal(text, "TLS ends here    1.2 and later\n"
				  "  certificate    /etc/sluice/wild.pem (ec-256, expired), by its "
				  "wildcard\n"
				  "TLS to target    not verified, shows /etc/sluice/client.pem\n");
	nameless = rendered(sl_render_tls_explain, explained(p, NULL), false);
	has(nameless, "/etc/sluice/shop-rsa.pem (rsa-2048), the default\n");
	p->explanation.route = NULL;
	doc = explained(p, "shop.example.com");
	assert_true(json_is_null(json_object_get(doc, "terminates")));
	assert_true(json_is_null(json_object_get(doc, "backend_tls")));
	json_decref(doc);
}

/* ---- connections ---- */

static json_t *conn_of(const struct sl_conn_row *row)
{
	struct sl_str out = { 0 };
	struct sl_json j = sl_json_on(&out);

	sl_json_obj(&j, NULL);
	sl_view_tls_conn(&j, row);
	sl_json_obj_end(&j);
	return parse(&out);
}

static void a_connection_tells_what_was_agreed(void **state)
{
	_cleanup_free_ struct sl_proxy *p = setup_proxy();
	_cleanup_free_ char *text = NULL;
	_cleanup_free_ char *passed = NULL;
	json_t *c;

	(void)state;
	/* passed on: what the ClientHello offers, and nothing else is known */
	c = conn_of(&p->row[1]);
	assert_string_equal(text_at(c, "tls"), "1.3,1.2");
	assert_string_equal(text_at(c, "alpn"), "h2");
	assert_true(json_is_null(json_object_get(c, "tls_cipher")));
	assert_true(json_is_null(json_object_get(c, "tls_resumed")));
	assert_true(json_is_null(json_object_get(c, "client_cert")));
	assert_true(json_is_null(json_object_get(c, "backend_tls")));
	assert_true(json_is_null(json_object_get(c, "backend_verified")));
	passed = rendered(sl_render_tls_conn, c, false);
	assert_string_equal(passed, "");

	fake_tls_row(&p->row[1]);
	c = conn_of(&p->row[1]);
	assert_string_equal(text_at(c, "tls"), "TLSv1.3");
	assert_string_equal(text_at(c, "alpn"), "http/1.1");
	assert_string_equal(text_at(c, "tls_cipher"), "TLS_AES_128_GCM_SHA256");
	assert_true(json_is_true(json_object_get(c, "tls_resumed")));
	assert_string_equal(text_at(c, "client_cert"), "CN=somebody");
	assert_string_equal(text_at(c, "backend_tls"), "TLSv1.2");
	text = rendered(sl_render_tls_conn, c, false);
	assert_string_equal(text, "TLS with the client: TLSv1.3 TLS_AES_128_GCM_SHA256, resumed, "
				  "ALPN http/1.1, ktls: unavailable (a key update "
				  "would break it), certificate CN=somebody\n"
				  "TLS with the target: TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256, "
				  "ktls: tx+rx, certificate CN=target, verified\n");

	/* what was offered is not what was agreed */
	p->row[1].tls[SL_CLIENT].alpn[0] = '\0';
	p->row[1].tls[SL_BACKEND].is_verified = false;
	c = conn_of(&p->row[1]);
	assert_true(json_is_null(json_object_get(c, "alpn")));
	assert_true(json_is_false(json_object_get(c, "backend_verified")));
	json_decref(c);
}

static void ktls_says_why_not(void **state)
{
	static const struct {
		const char *missing;
		const char *text;
	} cases[] = {
		{ "the kernel has no TLS", "ktls: unavailable (the kernel has no TLS): modprobe "
					   "tls, and 'sluice upgrade'\n" },
		{ NULL, "ktls: available\n" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		const struct sl_ctl_facts facts = { .no_ktls = cases[i].missing };
		_cleanup_free_ char *text = NULL;
		struct sl_str out = { 0 };
		struct sl_json j = sl_json_on(&out);

		sl_json_obj(&j, NULL);
		sl_view_ktls(&j, &facts);
		sl_json_obj_end(&j);
		text = rendered(sl_render_ktls, parse(&out), false);
		assert_string_equal(text, cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_certificate_has_the_promised_fields),
		cmocka_unit_test(the_status_is_the_worst_there_is),
		cmocka_unit_test(certificates_are_a_table),
		cmocka_unit_test(a_problem_of_a_route_is_said_once),
		cmocka_unit_test(without_certificates_it_is_said),
		cmocka_unit_test(certificates_are_found_by_route_file_and_name),
		cmocka_unit_test(what_a_client_is_given_is_told),
		cmocka_unit_test(the_name_of_a_route_is_no_domain),
		cmocka_unit_test(everything_about_one_is_shown),
		cmocka_unit_test(status_sums_up),
		cmocka_unit_test(status_warns),
		cmocka_unit_test(a_host_without_tls_has_no_lines),
		cmocka_unit_test(a_route_shows_its_tls),
		cmocka_unit_test(explain_names_the_certificate),
		cmocka_unit_test(a_connection_tells_what_was_agreed),
		cmocka_unit_test(ktls_says_why_not),
	};

	return cmocka_run_group_tests_name("tls_views", tests, NULL, NULL);
}
