/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf_text.h"

#include "core/tls_hello.h"

/* What routes by first bytes, and the lists, targets and headers beside it. */
#define M(match) \
	"version: 1\nroutes: [ { name: a, forward: h:1, match: { ports: 80" match " } } ]\n"
#define F(forward) \
	"version: 1\nroutes: [ { name: a, match: { ports: 80 }, forward: " forward " } ]\n"
#define BARE(name, port) "  - { name: " name ", match: { ports: " port " }, forward: h:1 }\n"

static bool set_has(const struct sl_ip_set *set, const char *ip)
{
	struct sl_addr a;

	assert_int_equal(sl_addr_parse_ip(ip, &a), 0);
	return sl_ip_set_has(set, &a);
}

static void nothing_is_asked_by_default(void **state)
{
	good_conf(c, M(""));
	const struct sl_conf_route *r = &c->routes[0];

	(void)state;
	assert_int_equal(r->priority, 0);
	assert_int_equal(r->n_domains + r->n_alpn + r->tls_versions, 0);
	assert_null(r->path);
	assert_false(r->has_clients);
	assert_true(sl_ip_set_is_empty(&r->clients));
	assert_true(sl_ip_set_is_empty(&r->access.allow) && sl_ip_set_is_empty(&r->access.deny));
	assert_int_equal(r->balance, SL_BALANCE_ROUND_ROBIN);
	assert_false(r->health.enabled || r->health.tls);
	assert_null(r->health.path);
	assert_int_equal(r->health.every, 2000);
	assert_int_equal(r->health.timeout, 1000);
	assert_int_equal(r->health.fall, 3);
	assert_int_equal(r->health.rise, 2);
	assert_int_equal(r->health.slow_start, 0);
	assert_int_equal(r->send_proxy.version, SL_PH_SEND_NONE);
	assert_int_equal(r->targets[0].weight, 1);
	assert_false(r->targets[0].backup || r->targets[0].drained);
	assert_true(sl_ip_set_is_empty(&c->global.access.allow));
	assert_true(sl_ip_set_is_empty(&c->global.access.deny));
	assert_null(c->global.deny_file);
	assert_true(c->global.enforce_in_kernel);
	assert_int_equal(c->n_accept_proxies, 0);
	assert_int_equal(c->timeouts.proxy_header, 5000);
	assert_int_equal(c->timeouts.first_data, 10000);
}

static void every_value_arrives(void **state)
{
	good_conf(
		c,
		"version: 1\nglobal: { security: { allow: 10.0.0.0/8, deny: [10.1.*, \"::1\"], "
		"deny_file: /d, enforce: userspace } }\n"
		"defaults: { timeouts: { first_data: 3s } }\nroutes:\n"
		"  - name: a\n    priority: 7\n    match:\n      ports: 443\n"
		"      domains: [Shop.Example.COM., \"*.shop.example.com\", \"api-*.x.*\", \"*\"]\n"
		"      path: /api/:version/*\n"
		"      clients: [10.0.0.0/8, 192.168.1.*, 10.9.0.1-10.9.0.3]\n"
		"      tls: { versions: [1.2, \"1.3\"], alpn: [h2, http/1.1] }\n"
		"    forward:\n      targets:\n        - { address: h:1, weight: 0 }\n"
		"        - { address: h:2, weight: 1000, backup: true }\n        - h:3\n"
		"      balance: maglev\n"
		"      health: { every: 5s, timeout: 100ms, fall: 4, rise: 6, path: \"/h?x=1\", "
		"tls: true, slow_start: 30s }\n"
		"      send_proxy: { version: v2, crc32c: true, authority: true }\n"
		"    security: { allow: 10.0.0.1, deny: [10.0.0.2, 10.?.?.3] }\n");
	const struct sl_conf_route *r = &c->routes[0];

	(void)state;
	assert_int_equal(r->priority, 7);
	assert_int_equal(r->n_domains, 4);
	assert_string_equal(r->domains[0], "shop.example.com");
	assert_string_equal(r->domains[1], "*.shop.example.com");
	assert_string_equal(r->domains[2], "api-*.x.*");
	assert_string_equal(r->domains[3], "*");
	assert_string_equal(r->path, "/api/:version/*");
	assert_true(r->has_clients);
	assert_true(set_has(&r->clients, "10.200.0.1") && set_has(&r->clients, "192.168.1.9"));
	assert_false(set_has(&r->clients, "192.168.2.9") || set_has(&r->clients, "::1"));
	assert_int_equal(r->tls_versions, SL_TLS_1_2 | SL_TLS_1_3);
	assert_int_equal(r->n_alpn, 2);
	assert_string_equal(r->alpn[1], "http/1.1");
	assert_int_equal(r->targets[0].weight, 0);
	assert_int_equal(r->targets[1].weight, 1000);
	assert_false(r->targets[0].backup || !r->targets[1].backup || r->targets[2].backup);
	assert_int_equal(r->targets[2].weight, 1);
	assert_int_equal(r->balance, SL_BALANCE_MAGLEV);
	assert_true(r->health.enabled && r->health.tls);
	assert_int_equal(r->health.every, 5000);
	assert_int_equal(r->health.timeout, 100);
	assert_int_equal(r->health.fall, 4);
	assert_int_equal(r->health.rise, 6);
	assert_string_equal(r->health.path, "/h?x=1");
	assert_int_equal(r->health.slow_start, 30000);
	assert_int_equal(r->send_proxy.version, SL_PH_SEND_V2);
	assert_true(r->send_proxy.crc32c && r->send_proxy.authority);
	assert_false(r->send_proxy.alpn || r->send_proxy.unique_id);
	assert_true(set_has(&r->access.allow, "10.0.0.1") && set_has(&r->access.deny, "10.0.0.2"));
	assert_true(set_has(&r->access.deny, "10.1.2.3"));
	assert_false(set_has(&r->access.allow, "10.0.0.2") || set_has(&r->access.deny, "10.0.0.1"));
	assert_true(set_has(&c->global.access.allow, "10.3.3.3"));
	assert_true(set_has(&c->global.access.deny, "10.1.3.3"));
	assert_true(set_has(&c->global.access.deny, "::1"));
	assert_string_equal(c->global.deny_file, "/d");
	assert_false(c->global.enforce_in_kernel);
	assert_int_equal(c->timeouts.first_data, 3000);
	assert_int_equal(c->timeouts.proxy_header, 5000);
	/* the path is what is warned of */
	assert_int_equal(c_b.diags.n_warnings, 1);
}

static void empty_lists_ask_for_nothing(void **state)
{
	good_conf(c, M(", domains: [], clients: [], path: null, tls: { versions: [], alpn: [] }"));
	const struct sl_conf_route *r = &c->routes[0];

	(void)state;
	assert_int_equal(r->n_domains + r->n_alpn + r->tls_versions, 0);
	assert_false(r->has_clients);
	assert_null(r->path);
}

static void balance_has_words(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(balance_words); i++) {
		char text[256];

		(void)snprintf(text, sizeof(text), F("{ targets: h:1, balance: %s }"),
			       balance_words[i].word);
		good_conf(c, text);
		assert_int_equal(c->routes[0].balance, balance_words[i].value);
	}
}

static void lists_of_routes_replace_those_of_defaults(void **state)
{
	good_conf(c, "version: 1\ndefaults: { security: { allow: 10.0.0.0/8, deny: 10.0.0.1 } }\n"
		     "routes:\n" BARE("a", "1")
			     BARE("b", "2") "  - { name: c, match: { ports: 3 }, forward: h:1, "
					    "security: { deny: 10.0.0.2 } }\n"
					    "  - { name: d, match: { ports: 4 }, forward: h:1, "
					    "security: { allow: [] } }\n"
					    "  - { name: e, match: { ports: 5 }, forward: h:1, "
					    "security: { allow: null } }\n");
	const struct sl_conf_route *r = c->routes;

	(void)state;
	assert_true(set_has(&r[0].access.allow, "10.0.0.5") &&
		    set_has(&r[0].access.deny, "10.0.0.1"));
	assert_ptr_equal(r[0].access.allow.v4, r[1].access.allow.v4);
	assert_ptr_equal(r[0].access.allow.v4, c->default_access.allow.v4);
	assert_true(set_has(&r[2].access.allow, "10.0.0.5") &&
		    set_has(&r[2].access.deny, "10.0.0.2"));
	assert_false(set_has(&r[2].access.deny, "10.0.0.1"));
	assert_true(sl_ip_set_is_empty(&r[3].access.allow));
	assert_true(set_has(&r[3].access.deny, "10.0.0.1"));
	assert_true(set_has(&r[4].access.allow, "10.0.0.5"));
}

static void forward_inherits(void **state)
{
	good_conf(c,
		  "version: 1\ndefaults: { priority: 5, forward: { balance: random, "
		  "health: { every: 9s, path: /x }, "
		  "send_proxy: { version: v2, crc32c: true, unique_id: true } } }\nroutes:\n" BARE(
			  "a", "1") "  - { name: b, priority: 0, match: { ports: 2 }, forward: { "
				    "targets: h:1, "
				    "send_proxy: v1, health: none, balance: round_robin } }\n"
				    "  - { name: c, match: { ports: 3 }, forward: { targets: h:1, "
				    "send_proxy: { version: v2, alpn: true }, health: { fall: 9, "
				    "path: /y } } }\n"
				    "  - { name: d, match: { ports: 4 }, forward: { targets: h:1, "
				    "send_proxy: none, health: {} } }\n");
	const struct sl_conf_route *a = &c->routes[0], *b = &c->routes[1], *d = &c->routes[3];
	const struct sl_conf_route *third = &c->routes[2];

	(void)state;
	assert_int_equal(a->priority, 5);
	assert_int_equal(b->priority, 0);
	assert_int_equal(a->balance, SL_BALANCE_RANDOM);
	assert_int_equal(b->balance, SL_BALANCE_ROUND_ROBIN);
	assert_true(a->health.enabled && !b->health.enabled);
	assert_true(third->health.enabled && d->health.enabled);
	assert_int_equal(a->health.every, 9000);
	assert_int_equal(third->health.every, 9000);
	assert_int_equal(third->health.fall, 9);
	assert_int_equal(d->health.fall, 3);
	assert_string_equal(a->health.path, "/x");
	assert_string_equal(third->health.path, "/y");
	assert_string_equal(d->health.path, "/x");
	assert_int_equal(a->send_proxy.version, SL_PH_SEND_V2);
	assert_true(a->send_proxy.crc32c && a->send_proxy.unique_id && !a->send_proxy.alpn);
	/* as a whole: nothing of the header of defaults is left */
	assert_int_equal(b->send_proxy.version, SL_PH_SEND_V1);
	assert_false(b->send_proxy.crc32c || b->send_proxy.unique_id);
	assert_int_equal(third->send_proxy.version, SL_PH_SEND_V2);
	assert_true(third->send_proxy.alpn);
	assert_false(third->send_proxy.crc32c || third->send_proxy.unique_id);
	assert_int_equal(d->send_proxy.version, SL_PH_SEND_NONE);
	assert_false(d->send_proxy.crc32c);
}

/* "ADDRESS from-to FROM..." of each entry; `from` is probed with two addresses. */
static void describe(const struct sl_conf *c, struct sl_str *out)
{
	char ip[SL_ADDR_TEXT];

	for (size_t i = 0; i < c->n_accept_proxies; i++) {
		const struct sl_conf_accept_proxy *a = &c->accept_proxies[i];

		sl_str_addf(out, "%s%s %u-%u %s%s%s@%u", i ? ", " : "",
			    sl_addr_format_ip(&a->ports.ip, ip), a->ports.from, a->ports.to,
			    set_has(&a->from, "10.0.0.1") ? "1" : "",
			    set_has(&a->from, "10.0.0.2") ? "2" : "", a->required ? "!" : "",
			    a->ports.mark.line);
	}
}

static void accept_proxy_by_port(void **state)
{
	static const struct {
		const char *listeners; /* from line 4 on */
		const char *want;
	} rows[] = {
		{ "  - { ports: 80, accept_proxy: { from: 10.0.0.1 } }\n", "- 80-80 1!@4" },
		{ "  - { ports: 80, accept_proxy: { from: [10.0.0.2, 10.0.0.1], required: false } "
		  "}\n",
		  "- 80-80 12@4" },
		{ "  - { ports: [90-99, \"10.9.9.9:80\"], accept_proxy: { from: 10.0.0.2 } }\n",
		  "- 90-99 2!@4, 10.9.9.9 80-80 2!@4" },
		{ "  - { ports: 80, accept_proxy: null }\n", "" },
		{ "  - { ports: 80, accept_proxy: { from: 10.0.0.1 } }\n"
		  "  - { ports: 81, accept_proxy: { from: 10.0.0.2 } }\n  - { ports: 82 }\n",
		  "- 80-80 1!@4, - 81-81 2!@5" },
		/* two addresses have nothing to do with each other */
		{ "  - { ports: \"10.9.9.9:80\", accept_proxy: { from: 10.0.0.1 } }\n"
		  "  - { ports: \"10.9.9.8:80\" }\n",
		  "10.9.9.9 80-80 1!@4" },
		{ "  - { ports: \"0.0.0.0:80\", accept_proxy: { from: 10.0.0.1 } }\n"
		  "  - { ports: \"[::]:80\" }\n  - { ports: \"[::1]:80\" }\n",
		  "0.0.0.0 80-80 1!@4" },
		/* what agrees is there once, at the widest */
		{ "  - { ports: 80-82, accept_proxy: { from: 10.0.0.1 } }\n"
		  "  - { ports: \"10.9.9.9:79-84\", accept_proxy: { from: [10.0.0.1, 10.0.0.1/32] "
		  "} }\n"
		  "  - { ports: \"0.0.0.0:84\", accept_proxy: { from: 10.0.0.1 } }\n"
		  "  - { ports: \"[::1]:84\", accept_proxy: { from: 10.0.0.1 } }\n",
		  "- 80-82 1!@4, 0.0.0.0 84-84 1!@6, 10.9.9.9 79-79 1!@5, 10.9.9.9 83-83 1!@5, "
		  "::1 84-84 1!@7" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		_cleanup_(sl_str_done) struct sl_str text = { 0 };
		_cleanup_(sl_str_done) struct sl_str got = { 0 };

		sl_str_addf(&text,
			    "version: 1\nroutes: [ { name: a, match: { ports: 80 }, forward: h:1 } "
			    "]\nlisteners:\n%s",
			    rows[i].listeners);
		good_conf(c, text.p);
		describe(c, &got);
		if (strcmp(sl_str_text(&got), rows[i].want) != 0)
			fail_msg("%s\nwant %s\ngot  %s", text.p, rows[i].want, sl_str_text(&got));
	}
}

static void targets_have_a_limit(void **state)
{
	(void)state;
	for (unsigned n = SL_TARGETS_MAX; n <= SL_TARGETS_MAX + 2; n++) {
		_cleanup_(sl_str_done) struct sl_str text = { 0 };

		sl_str_adds(&text, "version: 1\nroutes:\n  - name: a\n    match: { ports: 1 }\n"
				   "    forward:\n");
		for (unsigned i = 0; i < n; i++)
			sl_str_addf(&text, "      - h:%u\n", i + 1);
		_cleanup_(built_done) struct built b = build_text(text.p);
		assert_int_equal(b.diags.n_errors, n > SL_TARGETS_MAX);
		if (n == SL_TARGETS_MAX)
			assert_int_equal(b.conf->routes[0].n_targets, SL_TARGETS_MAX);
		else
			assert_non_null(strstr(b.diags.text.p,
					       "a.yaml:4102:9: error: "
					       "routes[0].forward: more than 4096"));
	}
}

/* What compares claims must not grow with their product. */
static void hostile_claims_end(void **state)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	(void)state;
	sl_str_adds(&text, "version: 1\nroutes:\n");
	for (int r = 0; r < 4; r++) {
		sl_str_addf(&text, "  - { name: r%d, priority: %d, forward: h:1, match: { ports: [",
			    r, r);
		for (int i = 0; i < 4000; i++)
			sl_str_addf(&text, "%d,", 1 + i);
		sl_str_adds(&text, "], domains: [");
		for (int i = 0; i < 4000; i++)
			sl_str_addf(&text, "d%d.example,", i);
		sl_str_adds(&text, "] } }\n");
	}
	for (int i = 0; i < 5000; i++)
		sl_str_addf(
			&text,
			"  - { name: p%d, priority: %d, forward: h:1, match: { ports: 1-65535, "
			"domains: [a.example, b%d.example] } }\n"
			"  - { name: q%d, priority: %d, forward: h:1, match: { ports: [1-65535, "
			"\"10.0.%d.%d:1-65535\"] } }\n",
			i, i % 7, i % 9, i, i % 5, i / 250, i % 250);
	sl_str_adds(&text, "listeners:\n");
	for (int i = 0; i < 1000; i++)
		sl_str_addf(&text,
			    "  - { ports: [%d, \"10.0.%d.%d:1-65535\"], accept_proxy: { from: "
			    "10.0.0.1 } }\n",
			    1 + i, i / 250, i % 250);
	good_conf(c, text.p);
	assert_int_equal(c->n_routes, 10004);
	assert_true(c_b.diags.n_warnings > 9000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_asked_by_default),
		cmocka_unit_test(every_value_arrives),
		cmocka_unit_test(empty_lists_ask_for_nothing),
		cmocka_unit_test(balance_has_words),
		cmocka_unit_test(lists_of_routes_replace_those_of_defaults),
		cmocka_unit_test(forward_inherits),
		cmocka_unit_test(accept_proxy_by_port),
		cmocka_unit_test(targets_have_a_limit),
		cmocka_unit_test(hostile_claims_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
