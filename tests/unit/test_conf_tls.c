/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf_text.h"

/* `tls` and `forward.tls`: what is made of them, and what is said of them. */

#define V "version: 1\n"
/* 6: tls */
#define R V "routes:\n  - name: a\n    match: { ports: 443 }\n    forward: h:1\n"
#define T(tls) R "    tls: { " tls " }\n"
/* 5: forward.tls, from column 42 on */
#define F(tls)                                                \
	V "routes:\n  - name: a\n    match: { ports: 443 }\n" \
	  "    forward: { targets: [h:1, i:2], tls: " tls " }\n"

static const struct sl_conf_route *only(const struct sl_conf *conf)
{
	assert_int_equal(conf->n_routes, 1);
	return &conf->routes[0];
}

static void same(const char *got, const char *want)
{
	if (!want)
		assert_null(got);
	else if (!got || strcmp(got, want) != 0)
		fail_msg("%s instead of %s", got ? got : "nothing", want);
}

static void is_cert(const struct sl_conf_cert *c, const char *chain, const char *key,
		    const char *staple)
{
	same(c->chain, chain);
	same(c->key, key);
	same(c->staple, staple);
}

static void none(void **state)
{
	static const char *const texts[] = {
		R,
		R "    tls: passthrough\n",
		R "    tls: null\n",
		F("null"),
		F("none"),
		R "defaults: { tls: passthrough, forward: { tls: none } }\n",
		R "defaults: { tls: { alpn: h2, client_auth: optional } }\n",
		R "    tls: passthrough\ndefaults: { tls: { cert: /c } }\n",
		F("none") "defaults: { forward: { tls: {} } }\n",
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(texts); i++) {
		good_conf(c, texts[i]);

		assert_int_equal(c_b.diags.n_warnings, 0);
		assert_null(only(c)->tls);
		assert_null(only(c)->backend_tls);
	}
}

static void one_certificate(void **state)
{
	good_conf(c, T("cert: /c, key: /k"));
	const struct sl_conf_tls *tls = only(c)->tls;

	(void)state;
	assert_int_equal(c_b.diags.n_warnings, 0);
	assert_int_equal(tls->n_certs, 1);
	is_cert(&tls->certs[0], "/c", "/k", NULL);
	assert_int_equal(tls->certs[0].mark.line, 6);
	assert_int_equal(tls->certs[0].mark.column, 18);
	assert_int_equal(tls->mark.line, 6);
	assert_int_equal(tls->mark.column, 5);
	assert_null(tls->client_ca);
	assert_int_equal(tls->client_auth, SL_CLIENT_AUTH_CHOICE_NONE);
	assert_false(tls->only_1_3);
	assert_int_equal(tls->n_alpn, 0);
	assert_null(tls->ciphers);
	assert_null(tls->suites);
	assert_null(only(c)->backend_tls);
}

static void a_certificate_with_its_key_inside(void **state)
{
	good_conf(c, T("cert: [/c]"));

	(void)state;
	assert_int_equal(only(c)->tls->n_certs, 1);
	is_cert(&only(c)->tls->certs[0], "/c", NULL, NULL);
}

static void several_certificates(void **state)
{
	good_conf(c, T("cert: [/c, /d, /e], key: [/k, null, /l], ocsp: [~, /o, null]"));
	const struct sl_conf_tls *tls;

	(void)state;
	tls = only(c)->tls;
	assert_int_equal(tls->n_certs, 3);
	is_cert(&tls->certs[0], "/c", "/k", NULL);
	is_cert(&tls->certs[1], "/d", NULL, "/o");
	is_cert(&tls->certs[2], "/e", "/l", NULL);
	assert_int_equal(tls->certs[2].mark.column, 27);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(none),
		cmocka_unit_test(one_certificate),
		cmocka_unit_test(a_certificate_with_its_key_inside),
		cmocka_unit_test(several_certificates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
