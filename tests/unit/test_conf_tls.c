/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf_text.h"

/* `tls` and `forward.tls`: what is made of them, and what is said of them. */

#define V "version: 1\n"
/* 6: tls */
#define R V "routes:\n  - name: a\n    match: { ports: 443 }\n    forward: h:1\n"
#define T(tls) R "    tls: { " tls " }\n"
/* 5: forward.tls, from column 37 on */
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

static void everything_with_clients(void **state)
{
	good_conf(c, T("cert: /c, client_ca: /ca, min_version: 1.3, alpn: [h2, http/1.1]"));
	const struct sl_conf_tls *tls = only(c)->tls;

	(void)state;
	assert_int_equal(c_b.diags.n_warnings, 0);
	same(tls->client_ca, "/ca");
	assert_int_equal(tls->client_auth, SL_CLIENT_AUTH_CHOICE_REQUIRED);
	assert_true(tls->only_1_3);
	assert_int_equal(tls->n_alpn, 2);
	same(tls->alpn[0], "h2");
	same(tls->alpn[1], "http/1.1");
}

static void client_certificates(void **state)
{
	static const struct {
		const char *text;
		enum sl_client_auth_choice want;
	} rows[] = {
		{ T("cert: /c, client_ca: /ca, client_auth: required"),
		  SL_CLIENT_AUTH_CHOICE_REQUIRED },
		{ T("cert: /c, client_ca: /ca, client_auth: optional"),
		  SL_CLIENT_AUTH_CHOICE_OPTIONAL },
		{ T("cert: /c, client_ca: /ca, client_auth: none"), SL_CLIENT_AUTH_CHOICE_NONE },
		{ T("cert: /c, client_auth: none"), SL_CLIENT_AUTH_CHOICE_NONE },
		{ T("cert: /c") "defaults: { tls: { client_ca: /ca, client_auth: optional } }\n",
		  SL_CLIENT_AUTH_CHOICE_OPTIONAL },
		{ T("cert: /c, client_ca: /ca") "defaults: { tls: { client_auth: optional } }\n",
		  SL_CLIENT_AUTH_CHOICE_OPTIONAL },
		{ T("cert: /c") "defaults: { tls: { client_auth: optional } }\n",
		  SL_CLIENT_AUTH_CHOICE_NONE },
		{ T("cert: /c, client_auth: none") "defaults: { tls: { client_ca: /ca } }\n",
		  SL_CLIENT_AUTH_CHOICE_NONE },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		good_conf(c, rows[i].text);

		if (only(c)->tls->client_auth != rows[i].want)
			fail_msg("%s: %d", rows[i].text, only(c)->tls->client_auth);
	}
}

static void ciphers(void **state)
{
	static const struct {
		const char *text;
		const char *ciphers;
		const char *suites;
	} rows[] = {
		{ "HIGH", "HIGH", NULL },
		{ "TLS_AES_128_GCM_SHA256", NULL, "TLS_AES_128_GCM_SHA256" },
		{ "ECDHE+AESGCM:TLS_AES_256_GCM_SHA384:!aNULL:@SECLEVEL=2:"
		  "TLS_CHACHA20_POLY1305_SHA256",
		  "ECDHE+AESGCM:!aNULL:@SECLEVEL=2",
		  "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		char text[512];

		(void)snprintf(text, sizeof(text), "%s    tls: { cert: /c, ciphers: \"%s\" }\n", R,
			       rows[i].text);
		good_conf(c, text);
		same(only(c)->tls->ciphers, rows[i].ciphers);
		same(only(c)->tls->suites, rows[i].suites);
	}
}

static void everything_with_targets(void **state)
{
	good_conf(c, F("{ verify: /ca, server_name: Backend.Example., cert: /c, key: /k }"));
	const struct sl_conf_backend_tls *tls = only(c)->backend_tls;

	(void)state;
	assert_int_equal(c_b.diags.n_warnings, 0);
	assert_null(only(c)->tls);
	assert_int_equal(tls->verify, SL_VERIFY_CHOICE_FILE);
	same(tls->ca, "/ca");
	same(tls->server_name, "Backend.Example");
	same(tls->cert, "/c");
	same(tls->key, "/k");
	assert_int_equal(tls->mark.line, 5);
	assert_int_equal(tls->mark.column, 37);
}

static void how_targets_are_verified(void **state)
{
	static const struct {
		const char *text;
		enum sl_verify_choice verify;
		const char *ca;
		const char *name;
	} rows[] = {
		{ F("{}"), SL_VERIFY_CHOICE_SYSTEM, NULL, NULL },
		{ F("{ verify: system }"), SL_VERIFY_CHOICE_SYSTEM, NULL, NULL },
		{ F("{ verify: /ca, server_name: 10.0.0.1 }"), SL_VERIFY_CHOICE_FILE, "/ca",
		  "10.0.0.1" },
		{ F("{ server_name: \"2001:db8::1\" }"), SL_VERIFY_CHOICE_SYSTEM, NULL,
		  "2001:db8::1" },
		{ R "defaults: { forward: { tls: {} } }\n", SL_VERIFY_CHOICE_SYSTEM, NULL, NULL },
		{ R "defaults: { forward: { tls: { verify: /ca, server_name: x } } }\n",
		  SL_VERIFY_CHOICE_FILE, "/ca", "x" },
		{ F("{ server_name: y }") "defaults: { forward: { tls: { verify: /ca, server_name: "
					  "x } } }\n",
		  SL_VERIFY_CHOICE_FILE, "/ca", "y" },
		{ F("{ verify: system }") "defaults: { forward: { tls: { verify: /ca } } }\n",
		  SL_VERIFY_CHOICE_SYSTEM, NULL, NULL },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		good_conf(c, rows[i].text);

		assert_int_equal(c_b.diags.n_warnings, 0);
		assert_int_equal(only(c)->backend_tls->verify, rows[i].verify);
		same(only(c)->backend_tls->ca, rows[i].ca);
		same(only(c)->backend_tls->server_name, rows[i].name);
	}
}

static void from_defaults(void **state)
{
	good_conf(c,
		  V "defaults: { forward: { tls: { cert: /c, key: /k } },\n"
		    "  tls: { cert: /c, key: /k, ocsp: /o, alpn: h2, ciphers: \"A:TLS_AES_128_GCM_"
		    "SHA256\" } }\nroutes:\n"
		    "  - { name: a, match: { ports: 1 }, forward: h:1 }\n"
		    "  - { name: b, match: { ports: 2 }, forward: { targets: h:1, tls: {} }, "
		    "tls: {} }\n"
		    "  - { name: c, match: { ports: 3 }, tls: { cert: /d, alpn: [], ciphers: B },\n"
		    "      forward: { targets: h:1, tls: { cert: /e } } }\n");

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		const struct sl_conf_route *r = &c->routes[i];

		is_cert(&r->tls->certs[0], "/c", "/k", "/o");
		assert_int_equal(r->tls->n_alpn, 1);
		same(r->tls->ciphers, "A");
		same(r->tls->suites, "TLS_AES_128_GCM_SHA256");
		same(r->backend_tls->cert, "/c");
		same(r->backend_tls->key, "/k");
	}
	assert_int_equal(c->routes[0].tls->mark.line, 3);
	assert_int_equal(c->routes[1].tls->mark.line, 6);
	assert_int_equal(c->routes[0].backend_tls->mark.line, 2);
	/* another certificate never has the key of these */
	is_cert(&c->routes[2].tls->certs[0], "/d", NULL, NULL);
	assert_int_equal(c->routes[2].tls->n_alpn, 0);
	same(c->routes[2].tls->ciphers, "B");
	assert_null(c->routes[2].tls->suites);
	same(c->routes[2].backend_tls->cert, "/e");
	assert_null(c->routes[2].backend_tls->key);
}

static void of_a_change(void **state)
{
	const struct change changes[] = {
		{ SL_SOURCE_ROUTE, "b",
		  "match: { ports: 2 }\ntls: { cert: /c }\nforward: { targets: h:1, tls: {} }\n" },
		{ SL_SOURCE_ROUTE, "a", "match: { ports: 3 }\nforward: h:1\ntls: {}\n" },
		{ 0 },
	};
	_cleanup_(built_done) struct built b =
		build_changed(R "defaults: { tls: { cert: /d, alpn: h2 } }\n", changes);

	(void)state;
	if (b.r < 0)
		fail_msg("%s", sl_str_text(&b.diags.text));
	same(b.conf->routes[0].tls->certs[0].chain, "/d");
	same(b.conf->routes[1].tls->certs[0].chain, "/c");
	assert_int_equal(b.conf->routes[1].tls->n_alpn, 1);
	assert_int_equal(b.conf->routes[1].tls->mark.source, 1);
	assert_non_null(b.conf->routes[1].backend_tls);
}

static void who_may_carry_them(void **state)
{
	static const char *const texts[] = { T("cert: /c"), F("{}") };
	static const char *const engines[] = { "auto", "relay" };

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(texts) * SL_ARRAY_LEN(engines); i++) {
		char text[512];

		(void)snprintf(text, sizeof(text), "%s    engine: %s\n", texts[i / 2],
			       engines[i % 2]);
		good_conf(c, text);
		assert_false(sl_conf_may_packet(&c->global, only(c)));
		assert_false(sl_conf_may_sockmap(only(c)));
	}
}

static const struct row certificates[] = {
	{ T("key: /k"), { "6:12: error: routes[0].tls: 'key' needs the 'cert'" } },
	{ T("ocsp: /o, alpn: h2"), { "6:12: error: routes[0].tls: 'ocsp' needs the 'cert'" } },
	{ T("key: /k") "defaults: { tls: { cert: /c } }\n",
	  { "6:12: error: routes[0].tls: 'key' needs the 'cert'" } },
	{ R "defaults: { tls: { key: /k } }\n",
	  { "6:20: error: defaults.tls: 'key' needs the 'cert'" } },
	{ T("min_version: 1.2"), { "6:5: error: routes[0]: 'tls' needs a certificate, as in" } },
	{ T(""), { "6:5: error: routes[0]: 'tls' needs a certificate" } },
	{ T("") "defaults: { tls: { alpn: h2 } }\n", { "6:5: error: routes[0]: 'tls' needs" } },
	{ T("cert: []"), { "6:18: error: routes[0].tls.cert: at least one is needed" } },
	{ T("crt: /c"), { "6:12: error: routes[0].tls: unknown key 'crt', did you mean 'cert'?" } },
	{ T("cert: /c, kee: /k"), { "6:22: error: routes[0].tls: unknown key 'kee', did you" } },
	{ T("cert: c"), { "6:18: error: routes[0].tls.cert: 'c' is not an absolute path, like" } },
	{ T("cert: [/c, d], key: k"),
	  { "6:23: error: routes[0].tls.cert: 'd' is not an absolute",
	    "6:32: error: routes[0].tls.key: 'k' is not an absolute" } },
	{ T("cert: [/c, /d], key: /k"),
	  { "6:33: error: routes[0].tls.key: 1 of 2 certificates (at a.yaml:6:18): each has one, "
	    "or null" } },
	{ T("cert: /c, key: [/k, /l], ocsp: [/a, /b, /c]"),
	  { "6:27: error: routes[0].tls.key: 2 of 1 certificates (at a.yaml:6:18)",
	    "6:43: error: routes[0].tls.ocsp: 3 of 1 certificates (at a.yaml:6:18)" } },
	{ T("cert: /c, key: [], ocsp: []"), { NULL } },
	{ T("cert: [/c, null]"), { "6:23: error: routes[0].tls.cert: a value is missing" } },
	{ T("cert: { a: b }"),
	  { "6:18: error: routes[0].tls.cert: a single value expected, not a mapping" } },
	{ T("cert: /c, cert: /d"), { "6:22: error: routes[0].tls: duplicate key 'cert', first" } },
	{ R "    tls: acme\n",
	  { "6:10: error: routes[0].tls: 'acme' is not supported by this "
	    "build; supported: passthrough" } },
	{ R "    tls: passtrough\n",
	  { "6:10: error: routes[0].tls: 'passtrough' is not one of: passthrough, acme; did you "
	    "mean 'passthrough'?; or a mapping of: cert, key, ocsp, client_ca, client_auth, "
	    "min_version, alpn, ciphers, acme" } },
	{ R "    tls: [ { cert: /c } ]\n",
	  { "6:10: error: routes[0].tls: a single value expected, not a list" } },
	{ T("cert: /c, acme: { challenge: http-01 }"),
	  { "6:22: error: routes[0].tls: 'acme' is not supported by this build" } },
	{ T("acme: { challenge: http-01 }"),
	  { "6:12: error: routes[0].tls: 'acme' is not supported by this build" } },
};

static const struct row ways[] = {
	{ T("cert: /c, client_auth: optional"),
	  { "6:22: error: routes[0].tls: 'client_auth' needs 'client_ca'" } },
	{ T("cert: /c, client_auth: maybe, client_ca: /a"),
	  { "6:35: error: routes[0].tls.client_auth: 'maybe' is not one of: none, optional, "
	    "required" } },
	{ T("cert: /c, client_auth: required, client_ca: a"),
	  { "6:56: error: routes[0].tls.client_ca: 'a' is not an absolute path" } },
	{ T("cert: /c, min_version: 1.1"),
	  { "6:35: error: routes[0].tls.min_version: '1.1' is not one of: 1.2, 1.3" } },
	{ T("cert: /c, alpn: [h2, http/1.1, h2]"),
	  { "6:43: error: routes[0].tls.alpn: 'h2' is in the list already (at a.yaml:6:29)" } },
	{ T("cert: /c, alpn: [h2, \"\", \"a b\"]"),
	  { "6:33: error: routes[0].tls.alpn: '' is not a protocol's name of at most 255",
	    "6:37: error: routes[0].tls.alpn: 'a b' is not a protocol's name" } },
	{ T("cert: /c, alpn: "
	    "[a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,0,1,2,3,4,5,6,7]"),
	  { "6:93: error: routes[0].tls.alpn: more than 32 protocols" } },
	{ T("cert: /c, ciphers: \"A::B\""),
	  { "6:31: error: routes[0].tls.ciphers: 'A::B': a name is missing beside a ':'" } },
	{ T("cert: /c, ciphers: \"A:\""), { "6:31: error: routes[0].tls.ciphers: 'A:': a name" } },
	{ T("cert: /c, ciphers: \"\""), { "6:31: error: routes[0].tls.ciphers: '': a name" } },
	{ T("cert: /c, ciphers: \"A, B\""),
	  { "6:31: error: routes[0].tls.ciphers: 'A, B' is not a list of names with ':'" } },
	{ T("cert: /c, ciphers: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
	  { "6:31: error: routes[0].tls.ciphers: 'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256' is none "
	    "of TLS 1.3" } },
	{ T("cert: /c, min_version: 1.3, ciphers: HIGH"),
	  { "6:40: warning: routes[0].tls: 'ciphers' (with min_version at a.yaml:6:35): those of "
	    "TLS 1.2 have no effect" } },
	{ T("cert: /c, min_version: 1.3") "defaults: { tls: { ciphers: HIGH } }\n",
	  { "6:22: warning: routes[0].tls: 'min_version' (with ciphers at a.yaml:7:29): those" } },
	{ T("cert: /c, alpn: h2") "defaults: { tls: { cert: /d, ciphers: A, min_version: 1.3 } }\n",
	  { "7:30: warning: defaults.tls: 'ciphers' (with min_version" } },
	{ T("cert: /c, min_version: 1.3, ciphers: TLS_AES_128_GCM_SHA256"), { NULL } },
};

static const struct row targets[] = {
	{ F("true"),
	  { "5:42: error: routes[0].forward.tls: 'true' is not one of: none; or a mapping of: "
	    "verify, server_name, cert, key" } },
	{ F("{ verify: sytem }"),
	  { "5:52: error: routes[0].forward.tls.verify: 'sytem' is not system, none or an absolute "
	    "path" } },
	{ F("{ verify: none }"),
	  { "5:52: warning: routes[0].forward.tls.verify: whoever answers at a target's "
	    "address" } },
	{ R "defaults: { forward: { tls: { verify: none } } }\n",
	  { "6:39: warning: defaults.forward.tls.verify: whoever" } },
	{ F("{ key: /k }"), { "5:44: error: routes[0].forward.tls: 'key' needs the 'cert'" } },
	{ F("{ key: /k }") "defaults: { forward: { tls: { cert: /c } } }\n",
	  { "5:44: error: routes[0].forward.tls: 'key' needs the 'cert'" } },
	{ F("{ cert: c, key: [/k] }"),
	  { "5:50: error: routes[0].forward.tls.cert: 'c' is not an absolute path",
	    "5:58: error: routes[0].forward.tls.key: a single value expected, not a list" } },
	{ F("{ server_name: \"*.x\" }"),
	  { "5:57: error: routes[0].forward.tls.server_name: '*.x' is a pattern: one name" } },
	{ F("{ server_name: \"x:443\" }"),
	  { "5:57: error: routes[0].forward.tls.server_name: 'x:443' is not a name like" } },
	{ F("{ server_name: \"[::1]\" }"), { "5:57: error: routes[0].forward.tls.server_name: " } },
	{ F("{ server_name: \"\" }"), { "5:57: error: routes[0].forward.tls.server_name: " } },
	{ F("{ server_names: x }"),
	  { "5:44: error: routes[0].forward.tls: unknown key 'server_names', did you mean" } },
};

#define E(engine) V "routes:\n  - name: a\n    engine: " engine "\n    match: { ports: 443 }\n"
#define AUTO ": only the daemon encrypts, so write 'engine: relay', or auto"

static const struct row conflicts[] = {
	{ E("packet") "    forward: h:1\n    tls: { cert: /c }\n",
	  { "7:5: error: routes[0]: 'tls' cannot be had with 'engine: packet' (at "
	    "a.yaml:4:13)" AUTO } },
	{ E("sockmap") "    forward: { targets: h:1, tls: {} }\n",
	  { "6:30: error: routes[0]: 'forward.tls' cannot be had with 'engine: sockmap' (at "
	    "a.yaml:4:13)" AUTO } },
	{ E("sockmap") "    forward: h:1\ndefaults: { forward: { tls: {} } }\n",
	  { "4:13: error: routes[0]: 'engine: sockmap' cannot be had with 'forward.tls' (at "
	    "a.yaml:7:24)" AUTO } },
	{ T("cert: /c") "defaults: { engine: packet }\n",
	  { "6:5: error: routes[0]: 'tls' cannot be had with 'engine: packet' (at a.yaml:7:21)" } },
	{ R "defaults: { engine: packet, tls: { cert: /c } }\n",
	  { "6:29: error: defaults: 'tls' cannot be had with 'engine: packet' (at a.yaml:6:21)" } },
	{ E("packet") "    forward: h:1\ndefaults: { tls: { alpn: h2 } }\n", { NULL } },
	{ E("packet") "    forward: { targets: h:1, tls: none }\n    tls: passthrough\n"
		      "defaults: { tls: { cert: /c }, forward: { tls: {} } }\n",
	  { NULL } },
	/* the kernel's NAT */
	{ E("nftables") "    forward: { targets: 10.0.0.1:1, tls: {} }\n    tls: { cert: /c }\n",
	  { "6:37: error: routes[0]: 'forward.tls' cannot be had with 'engine: nftables' (at "
	    "a.yaml:4:13): ",
	    "7:5: error: routes[0]: 'tls' cannot be had with 'engine: nftables' (at "
	    "a.yaml:4:13)" } },
	{ E("nftables") "    forward: 10.0.0.1:1\n    tls: {}\ndefaults: { tls: { cert: /c } }\n",
	  { "7:5: error: routes[0]: 'tls' cannot be had with 'engine: nftables'" } },
	{ E("nftables") "    forward: 10.0.0.1:1\ndefaults: { tls: { cert: /c } }\n",
	  { "4:13: error: routes[0]: 'engine: nftables' cannot be had with 'tls' (at "
	    "a.yaml:7:13)" } },
	{ E("nftables") "    forward: 10.0.0.1:1\ndefaults: { forward: { tls: {} } }\n",
	  { "4:13: error: routes[0]: 'engine: nftables' cannot be had with 'forward.tls' (at "
	    "a.yaml:7:24)" } },
	{ E("nftables") "    forward: { targets: 10.0.0.1:1, tls: none }\n"
			"    tls: passthrough\ndefaults: { tls: { cert: /c }, forward: { tls: {} } "
			"}\n",
	  { NULL } },
	{ E("nftables") "    forward: 10.0.0.1:1\ndefaults: { tls: { alpn: h2 } }\n", { NULL } },
	{ "version: 1\ndefaults: { engine: nftables, tls: { cert: /c } }\n",
	  { "2:31: error: defaults: 'tls' cannot be had with 'engine: nftables' (at "
	    "a.yaml:2:21)" } },
	/* UDP */
	{ V "routes:\n  - { name: a, match: { ports: 1, protocol: udp }, forward: h:1,\n"
	    "      tls: { cert: /c } }\n",
	  { "3:45: error: routes[0]: 'protocol: udp' needs 'engine: nftables'",
	    "4:7: error: routes[0]: 'tls' cannot be had with 'protocol: udp' (at a.yaml:3:45): TLS "
	    "needs TCP" } },
};

static const struct row doubts[] = {
	{ V "routes:\n  - name: a\n    match: { ports: 443 }\n"
	    "    forward: { targets: h:1, tls: {}, health: { path: /x } }\n",
	  { "5:49: warning: routes[0]: targets are asked for this path without TLS, which "
	    "connections to them have (at a.yaml:5:30)" } },
	{ V "routes:\n  - name: a\n    match: { ports: 443 }\n"
	    "    forward: { targets: h:1, tls: {}, health: { path: /x, tls: true } }\n",
	  { NULL } },
	{ V "routes:\n  - name: a\n    match: { ports: 443 }\n"
	    "    forward: { targets: h:1, tls: {}, health: {} }\n",
	  { NULL } },
	{ V "routes:\n  - name: a\n    match: { ports: 443, domains: a.b }\n"
	    "    forward: { targets: h:1, tls: {} }\n",
	  { "5:30: warning: routes[0]: 'forward.tls': the clients of this route speak TLS (match "
	    "at a.yaml:4:26), which is encrypted once more" } },
	{ V "routes:\n  - name: a\n    match: { ports: 443, domains: a.b }\n"
	    "    tls: { cert: /c }\n    forward: { targets: h:1, tls: {} }\n",
	  { NULL } },
	{ V "routes:\n  - name: a\n    match: { ports: 443 }\n"
	    "    forward: { targets: h:1, send_proxy: { version: v2, ssl: true } }\n",
	  { "5:57: warning: routes[0]: 'send_proxy.ssl' has no effect: the TLS" } },
	{ V "routes:\n  - name: a\n    match: { ports: 443 }\n    tls: { cert: /c }\n"
	    "    forward: { targets: h:1, send_proxy: { version: v2, ssl: true } }\n",
	  { NULL } },
	{ V "routes:\n  - name: a\n    match: { ports: 443 }\n    tls: { cert: /c }\n"
	    "    forward: { targets: h:1, send_proxy: { version: v1, ssl: true } }\n",
	  { "6:57: error: routes[0].forward.send_proxy: 'ssl' needs version v2: v1 (at" } },
	{ R "defaults: { forward: { send_proxy: { version: v2, ssl: true } } }\n", { NULL } },
	{ V "routes:\n  - name: a\n    match: { ports: 443, tls: { alpn: h2 } }\n"
	    "    tls: { cert: /c }\n    forward: h:1\n",
	  { NULL } },
};

static void what_is_refused(void **state)
{
	(void)state;
	check_rows(build_text, certificates, SL_ARRAY_LEN(certificates));
	check_rows(build_text, ways, SL_ARRAY_LEN(ways));
	check_rows(build_text, targets, SL_ARRAY_LEN(targets));
	check_rows(build_text, conflicts, SL_ARRAY_LEN(conflicts));
	check_rows(build_text, doubts, SL_ARRAY_LEN(doubts));
}

static void too_many_certificates(void **state)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	const char *want = "a.yaml:6:24595: error: routes[0].tls.cert: more than 4096 certificates";

	(void)state;
	sl_str_adds(&text, R "    tls: { cert: [");
	for (size_t i = 0; i < 4097; i++)
		sl_str_addf(&text, "%s/%zu", i ? "," : "", i % 1000 + 1000);
	sl_str_adds(&text, "] }\n");
	_cleanup_(built_done) struct built b = build_text(sl_str_text(&text));
	if (!strstr(sl_str_text(&b.diags.text), want))
		fail_msg("%.300s", sl_str_text(&b.diags.text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(none),
		cmocka_unit_test(one_certificate),
		cmocka_unit_test(a_certificate_with_its_key_inside),
		cmocka_unit_test(several_certificates),
		cmocka_unit_test(everything_with_clients),
		cmocka_unit_test(client_certificates),
		cmocka_unit_test(ciphers),
		cmocka_unit_test(everything_with_targets),
		cmocka_unit_test(how_targets_are_verified),
		cmocka_unit_test(from_defaults),
		cmocka_unit_test(of_a_change),
		cmocka_unit_test(who_may_carry_them),
		cmocka_unit_test(what_is_refused),
		cmocka_unit_test(too_many_certificates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
