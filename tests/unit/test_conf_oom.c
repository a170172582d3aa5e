/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: malloc calloc realloc reallocarray strdup */
#include "conf_text.h"

/* The n-th allocation from now on fails, once; 0: none does. */
static size_t fail_at;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_reallocarray(void *p, size_t n, size_t size);
char *__real_strdup(const char *s);

static bool is_failing(void)
{
	return fail_at && --fail_at == 0;
}

void *__wrap_malloc(size_t n)
{
	return is_failing() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return is_failing() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return is_failing() ? NULL : __real_realloc(p, n);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	return is_failing() ? NULL : __real_reallocarray(p, n, size);
}

char *__wrap_strdup(const char *s)
{
	return is_failing() ? NULL : __real_strdup(s);
}

static const char good[] =
	"version: 1\nglobal: { user: me, http: none, log: { access: /a },\n"
	"  security: { allow: [10.*, 10.?.1.1], deny: \"::1\", deny_file: /d } }\n"
	"listeners: [ { ports: [80, 81], backlog: 3, accept_proxy: { from: [10.0.0.1, \"::1\"] } "
	"},\n"
	"  { ports: \"10.0.0.1:79-82\", accept_proxy: { from: [10.0.0.1, \"::1\"] } } ]\n"
	"defaults: { half_open: true, security: { allow: 10.0.0.0/9, deny: 10.1.1.1/31 },\n"
	"  forward: { health: { path: /h }, send_proxy: { version: v2, alpn: true } } }\nroutes:\n"
	"  - { name: a, match: { ports: [80, 90-95, \"10.0.0.1:92-99\"], domains: [a.b, c.d],\n"
	"        clients: [10.*, 10.*.1.*], tls: { alpn: [h2, h3] }, path: /x }, forward: [h:1, "
	"i:1],\n"
	"      security: { allow: 10.1.1.1, deny: [10.2.*, \"::2\"] } }\n"
	"  - { name: b, match: { ports: 81, domains: a.b }, forward: { targets: [10.0.0.1:1] } }\n"
	"  - { name: c, priority: 1, match: { ports: [81, 82] }, forward: { targets: [ { address: "
	"h:1, "
	"weight: 0 } ], health: { path: /i } } }\n";
static const char nat[] =
	"version: 1\nglobal: { nftables: { flow_offload: [a, b, a] } }\n"
	"routes:\n  - { name: b, match: { ports: 83 }, forward: 10.0.0.1:1 }\n"
	"  - { name: c, engine: nftables, match: { ports: [81, 82-90, \"10.0.0.1:9\"], protocol: "
	"udp "
	"},\n      forward: [10.0.0.5:80, \"[2001:db8::1]:80\"], security: { allow: 10.1.1.1 } }\n";
static const char bad_nat[] =
	"version: 1\nglobal: { security: { deny: 10.?.?.1 } }\nroutes:\n"
	"  - { name: c, engine: nftables, match: { ports: 9, domains: x }, forward: [h:1, i:2] }\n";
static const char tls[] =
	"version: 1\ndefaults: { tls: { cert: /c, key: /k, alpn: [h2, x] }, forward: { tls: { "
	"verify: "
	"/ca, server_name: x } } }\nroutes:\n"
	"  - { name: b, match: { ports: 83 }, forward: 10.0.0.1:1 }\n"
	"  - { name: c, match: { ports: 84 }, forward: { targets: h:1, tls: { cert: /c, key: /k } "
	"},\n      tls: { cert: [/c, /d], key: [/k, null], ocsp: [null, /o], client_ca: /ca,\n"
	"        alpn: [h2, http/1.1], ciphers: \"A:TLS_AES_128_GCM_SHA256:B\" } }\n";
static const char bad_tls[] =
	"version: 1\nroutes:\n  - { name: c, match: { ports: 9 }, engine: packet, tls: { key: /x, "
	"ciphers: \"A,\" },\n      forward: { targets: h:1, tls: { verify: none } } }\n";
static const char bad[] =
	"version: 1\nglobal: { usr: me, htp: none, workers: x, security: { allow: x } }\n"
	"listeners: [ { ports: 80, accept_proxy: { from: 10.0.0.1 } }, { ports: \"10.0.0.1:80\" } "
	"]\n"
	"routes:\n  - { name: a, name: b, ports: 1, forward: *.x }\n"
	"  - { name: a, match: { ports: 80, domains: [a.b, \"a:1\"], clients: x }, forward: h }\n"
	"  - { nam: \"\xff\" }\n  - { name: d, match: { ports: 1 }, forward: { targets: h:1, "
	"send_proxy: { version: v1, alpn: true } } }\n";
static const char changed[] = "match: { ports: 9, domains: \"*.x\" }\nforward: [x:1, y:1]\n";

static void check(const char *text, const char *change, int want)
{
	struct sl_conf_source item[] = {
		{ .name = (char *)"a.yaml", .text = (char *)(uintptr_t)text, .len = strlen(text) },
		{ .name = (char *)"runtime:a", .kind = SL_SOURCE_ROUTE, .subject = (char *)"a" },
		{ .name = (char *)"runtime:z", .kind = SL_SOURCE_ROUTE, .subject = (char *)"z" },
		{ .name = (char *)"runtime:b", .kind = SL_SOURCE_REMOVE, .subject = (char *)"b" },
		{ .name = (char *)"runtime:y", .kind = SL_SOURCE_DISABLE, .subject = (char *)"y" },
		{ .name = (char *)"runtime:",
		  .kind = SL_SOURCE_DRAIN,
		  .subject = (char *)"",
		  .text = (char *)"y:1",
		  .len = 3 },
	};
	struct sl_conf_sources sources = { item, SL_ARRAY_LEN(item) };
	bool failed = true;
	size_t n;

	for (n = 1; n < 3; n++) {
		item[n].text = (char *)(uintptr_t)change;
		item[n].len = strlen(change);
	}
	for (n = 1; failed && n < 100000; n++) {
		struct sl_diags diags = { 0 };
		struct sl_conf *conf = NULL;
		int r;

		fail_at = n;
		r = sl_conf_build(&sources, &conf, &diags);
		failed = fail_at == 0;
		fail_at = 0;
		assert_int_equal(r, failed ? -ENOMEM : want);
		assert_int_equal(r == 0, conf != NULL);
		sl_conf_free(conf);
		sl_diags_done(&diags);
	}
	assert_false(failed);
	assert_true(n > 50);
}

static void a_good_file(void **state)
{
	(void)state;
	check(good, changed, 0);
}

static void a_bad_file(void **state)
{
	(void)state;
	check(bad, changed, -EINVAL);
}

static void routes_of_nat(void **state)
{
	(void)state;
	check(nat, changed, 0);
	check(bad_nat, changed, -EINVAL);
}

static void routes_with_tls(void **state)
{
	(void)state;
	check(tls, changed, 0);
	check(bad_tls, changed, -EINVAL);
	check(bad_tls, "tls: { alpn: [h2, h2] }\n", -EINVAL);
}

static void a_bad_change(void **state)
{
	(void)state;
	check(good, "name: q\nmatch: { prots: 1 }\nforward: *x\n", -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_file),     cmocka_unit_test(a_bad_file),
		cmocka_unit_test(a_bad_change),    cmocka_unit_test(routes_of_nat),
		cmocka_unit_test(routes_with_tls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
