/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf_text.h"

#include <time.h>

#define R(more) \
	"version: 1\nroutes:\n  - name: a\n    match: { ports: 80 }\n    forward: h:1\n" more
#define HOUR UINT64_C(3600000)

static void defaults_are_the_documented_ones(void **state)
{
	good_conf(c, R(""));
	const struct sl_conf_global *g = &c->global;
	const struct sl_conf_route *r = &c->routes[0];
	const struct sl_timeouts *t = &r->timeouts;
	char addr[SL_ADDR_TEXT];

	(void)state;
	assert_int_equal(g->workers, 0);
	assert_null(g->user);
	assert_int_equal(g->max_connections, 100000);
	assert_int_equal(g->refuse_above_percent, 95);
	assert_int_equal(g->resume_below_percent, 85);
	assert_string_equal(g->runtime_dir, "/run/sluice");
	assert_string_equal(g->state_dir, "/var/lib/sluice");
	assert_string_equal(g->bpf_dir, "/sys/fs/bpf/sluice");
	assert_string_equal(g->nft_table, "sluice");
	assert_true(g->http_enabled && !g->http_is_explicit);
	assert_string_equal(sl_addr_format(&g->http, addr), "127.0.0.1:9180");
	assert_int_equal(g->log_level, SL_LOG_INFO);
	assert_false(g->log_json);
	assert_string_equal(g->access_log, "stderr");
	assert_int_equal(c->n_routes, 1);
	assert_string_equal(r->name, "a");
	assert_true(r->enabled && !r->half_open);
	assert_int_equal(r->engine, SL_CHOICE_AUTO);
	assert_int_equal(r->keep_alive, SL_KEEP_ALIVE_STANDARD);
	assert_int_equal(r->retries, 2);
	assert_int_equal(r->max_connections + r->max_connections_per_ip, 0);
	assert_int_equal(r->new_per_ip_per_minute + r->new_per_ip_burst, 0);
	assert_int_equal(t->proxy_header, 5000);
	assert_int_equal(t->first_data, 10000);
	assert_int_equal(t->handshake, 10000);
	assert_int_equal(t->connect, 30000);
	assert_int_equal(t->idle, 4 * HOUR);
	assert_int_equal(t->max_lifetime, 0);
	assert_int_equal(t->close_grace, 5000);
	assert_int_equal(t->half_closed, HOUR / 2);
	assert_int_equal(t->half_closed_idle, HOUR / 6);
	assert_int_equal(t->drain, 30000);
	assert_int_equal(t->request_header, 10000);
	assert_int_equal(t->request_body, 60000);
	assert_int_equal(t->http_keep_alive, 75000);
	assert_int_equal(r->mark.line, 3);
	assert_int_equal(r->mark.column, 11);
}

static void every_value_arrives(void **state)
{
	good_conf(c, "version: 1\nglobal:\n  workers: 3\n  user: nobody\n  max_connections: 7\n"
		     "  overload: { refuse_above: 50%, resume_below: 40% }\n"
		     "  runtime_dir: /r\n  state_dir: /s\n  bpf_dir: /b\n  nft_table: t_1\n"
		     "  http: \"[::1]:81\"\n  log: { level: debug, format: json, access: /a.log }\n"
		     "routes:\n  - name: a.b_c-1\n    enabled: false\n    engine: relay\n"
		     "    match: { ports: [80, \"81-82\", \"10.0.0.1:83\", \"[::1]:84-85\"] }\n"
		     "    forward: { targets: [h:1, { address: \"[::2]:2\" }], retries: 0 }\n"
		     "    security: { max_connections: 5, max_connections_per_ip: 6, "
		     "new_connections_per_ip: 7/s }\n"
		     "    keep_alive: immortal\n    half_open: true\n"
		     "    timeouts: { connect: 1ms, idle: 0, max_lifetime: 2d, drain: 1m }\n");
	const struct sl_conf_global *g = &c->global;
	const struct sl_conf_route *r = &c->routes[0];

	(void)state;
	assert_int_equal(g->workers, 3);
	assert_string_equal(g->user, "nobody");
	assert_int_equal(g->max_connections, 7);
	assert_int_equal(g->refuse_above_percent, 50);
	assert_int_equal(g->resume_below_percent, 40);
	assert_string_equal(g->runtime_dir, "/r");
	assert_string_equal(g->state_dir, "/s");
	assert_string_equal(g->bpf_dir, "/b");
	assert_string_equal(g->nft_table, "t_1");
	assert_true(g->http_enabled && g->http_is_explicit);
	assert_int_equal(sl_addr_port(&g->http), 81);
	assert_int_equal(g->log_level, SL_LOG_DEBUG);
	assert_true(g->log_json);
	assert_string_equal(g->access_log, "/a.log");
	assert_string_equal(r->name, "a.b_c-1");
	assert_false(r->enabled);
	assert_int_equal(r->engine, SL_CHOICE_RELAY);
	assert_int_equal(r->n_ports, 4);
	assert_int_equal(r->ports[1].from, 81);
	assert_int_equal(r->ports[1].to, 82);
	assert_int_equal(sl_addr_family(&r->ports[2].ip), AF_INET);
	assert_int_equal(r->ports[3].mark.line, 17);
	assert_int_equal(sl_addr_family(&r->ports[3].ip), AF_INET6);
	assert_int_equal(r->n_targets, 2);
	assert_string_equal(r->targets[0].host, "h");
	assert_int_equal(r->targets[0].port, 1);
	assert_null(r->targets[1].host);
	assert_string_equal(r->targets[1].address, "[::2]:2");
	assert_int_equal(sl_addr_port(&r->targets[1].addr), 2);
	assert_int_equal(r->retries, 0);
	assert_int_equal(r->max_connections, 5);
	assert_int_equal(r->max_connections_per_ip, 6);
	assert_int_equal(r->new_per_ip_per_minute, 420);
	assert_int_equal(r->new_per_ip_burst, 7);
	assert_int_equal(r->keep_alive, SL_KEEP_ALIVE_IMMORTAL);
	assert_true(r->half_open);
	assert_int_equal(r->timeouts.connect, 1);
	assert_int_equal(r->timeouts.idle, 0);
	assert_int_equal(r->timeouts.max_lifetime, 48 * HOUR);
	assert_int_equal(r->timeouts.drain, 60000);
	assert_int_equal(r->timeouts.close_grace, 5000);
	assert_int_equal(c->n_listens, 0);
}

static void off_is_off(void **state)
{
	good_conf(c,
		  R("global: { http: none, log: { access: none }, user: auto, workers: auto }\n"));

	(void)state;
	assert_false(c->global.http_enabled);
	assert_null(c->global.access_log);
	assert_null(c->global.user);
	assert_int_equal(c->global.workers, 0);
}

static void routes_inherit_and_override(void **state)
{
	good_conf(c,
		  "version: 1\ndefaults:\n  keep_alive: extended\n  half_open: true\n"
		  "  forward: { retries: 5, port: preserve }\n  timeouts: { idle: 1m, drain: 2m }\n"
		  "  security: { new_connections_per_ip: 9/m }\n"
		  "routes:\n  - { name: a, match: { ports: 1 }, forward: h }\n"
		  "  - name: b\n    match: { ports: 2 }\n"
		  "    forward: { targets: h:2, port: null, retries: 1 }\n    half_open: false\n"
		  "    timeouts: { idle: 3m }\n    security: { new_connections_per_ip: 0 }\n");
	const struct sl_conf_route *a = &c->routes[0], *b = &c->routes[1];

	(void)state;
	assert_int_equal(a->keep_alive, SL_KEEP_ALIVE_EXTENDED);
	assert_int_equal(b->keep_alive, SL_KEEP_ALIVE_EXTENDED);
	assert_true(a->half_open && !b->half_open);
	assert_int_equal(a->retries, 5);
	assert_int_equal(b->retries, 1);
	assert_int_equal(a->targets[0].port, 0);
	assert_int_equal(b->targets[0].port, 2);
	assert_int_equal(a->timeouts.idle, 60000);
	assert_int_equal(b->timeouts.idle, 180000);
	assert_int_equal(b->timeouts.drain, 120000);
	assert_int_equal(a->new_per_ip_per_minute, 9);
	assert_int_equal(a->new_per_ip_burst, 9);
	assert_int_equal(b->new_per_ip_per_minute + b->new_per_ip_burst, 0);
}

/* What later builds will know may be written down already, as long as it is what happens anyway. */
static void documented_defaults_are_accepted(void **state)
{
	good_conf(
		c,
		"version: 1\nglobal:\n  workers: auto\n  user: auto\n  max_connections: 100000\n"
		"  overload: { refuse_above: 95%, resume_below: 85% }\n"
		"  packet:  { hook: auto, interfaces: auto, ports: 40000-59999, max_flows: "
		"262144,\n"
		"             after_bytes: 64KiB, after_age: 1s }\n  sockmap: { backlog: 1024KiB "
		"}\n"
		"  nftables: { keep_on_exit: false, mark_base: 0, flow_offload: [] }\n"
		"  security: { allow: [], deny: [], deny_file: null, enforce: kernel }\n"
		"defaults:\n  timeouts: { request_header: 10s, request_body: 1m, http_keep_alive: "
		"75s "
		"}\n"
		"acme: { email: null, directory: https://acme-v02.api.letsencrypt.org/directory,\n"
		"        challenge: http-01, renew_before: 30d }\n"
		"routes:\n  - name: shop\n    enabled: true\n    priority: 0\n    match:\n"
		"      ports: [443]\n      protocol: tcp\n      domains: []\n      path:\n"
		"      clients: []\n      headers: {}\n      tls: null\n    engine: auto\n"
		"    tls: passthrough\n    redirect:\n    forward:\n      targets:\n"
		"        - { address: \"10.0.1.11:443\", weight: 1, backup: false }\n"
		"      port: null\n      balance: round_robin\n      health:\n      send_proxy: "
		"none\n"
		"      tls: null\n      preserve_source: false\n      retries: 2\n"
		"    security: { allow: [], deny: [], max_connections: 0, basic_auth: null,\n"
		"      new_connections: 0, packets: 0, refuse: reset }\n"
		"    keep_alive: standard\n    half_open: false\n");

	(void)state;
	assert_int_equal(c_b.diags.n_warnings, 0);
	assert_int_equal(c->routes[0].n_targets, 1);
}

static void the_packet_engine(void **state)
{
	const char *route =
		"routes: [ { name: a, match: { ports: 1 }, forward: h:1, engine: packet } ]\n";
	char text[512];

	(void)state;
	(void)snprintf(text, sizeof(text), "version: 1\n%s", route);
	good_conf(d, text);
	assert_int_equal(d->routes[0].engine, SL_CHOICE_PACKET);
	assert_int_equal(d->global.packet.hook, SL_HOOK_CHOICE_AUTO);
	assert_int_equal(d->global.packet.n_interfaces, 0);
	assert_int_equal(d->global.packet.port_from, 40000);
	assert_int_equal(d->global.packet.port_to, 59999);
	assert_int_equal(d->global.packet.max_flows, 262144);
	assert_int_equal(d->global.packet.after_bytes, 65536);
	assert_int_equal(d->global.packet.after_age_ms, 1000);

	(void)snprintf(text, sizeof(text),
		       "version: 1\nglobal: { packet: { hook: xdp, interfaces: [eth0, lo, eth0], "
		       "ports: 2000-2063,\n max_flows: 1, after_bytes: 0, after_age: 0 } }\n%s",
		       route);
	good_conf(c, text);
	assert_int_equal(c->global.packet.hook, SL_HOOK_CHOICE_XDP);
	assert_int_equal(c->global.packet.n_interfaces, 2);
	assert_string_equal(c->global.packet.interfaces[0], "eth0");
	assert_string_equal(c->global.packet.interfaces[1], "lo");
	assert_int_equal(c->global.packet.port_from, 2000);
	assert_int_equal(c->global.packet.port_to, 2063);
	assert_int_equal(c->global.packet.max_flows, 1);
	assert_int_equal(c->global.packet.after_bytes, 0);
	assert_int_equal(c->global.packet.after_age_ms, 0);

	good_conf(e, "version: 1\nglobal: { packet: { hook: tc, interfaces: abcdefghijklmno, "
		     "after_bytes: 1KiB, after_age: 1ms } }\n"
		     "routes: [ { name: a, match: { ports: 1 }, forward: h:1, engine: relay } ]\n");
	assert_int_equal(e->global.packet.hook, SL_HOOK_CHOICE_TC);
	assert_int_equal(e->global.packet.n_interfaces, 1);
	assert_string_equal(e->global.packet.interfaces[0], "abcdefghijklmno");
	assert_int_equal(e->global.packet.after_bytes, 1024);
	assert_int_equal(e->global.packet.after_age_ms, 1);

	good_conf(f, "version: 1\nglobal: { packet: { hook: off, interfaces: auto } }\n"
		     "routes: [ { name: a, match: { ports: 1 }, forward: h:1, engine: auto } ]\n");
	assert_int_equal(f->global.packet.hook, SL_HOOK_CHOICE_OFF);
	assert_int_equal(f->global.packet.n_interfaces, 0);
}

static void targets_have_many_forms(void **state)
{
	static const struct {
		const char *forward;
		const char *host; /* NULL: a literal address */
		unsigned port;
		size_t n;
	} rows[] = {
		{ "h:1", "h", 1, 1 },
		{ "10.0.0.1:65535", NULL, 65535, 1 },
		{ "\"[2001:db8::1]:80\"", NULL, 80, 1 },
		{ "[h:1, i:1]", "h", 1, 2 },
		{ "{ targets: h_1.example.com.:80 }", "h_1.example.com.", 80, 1 },
		{ "{ targets: [h:1, { address: i:1 }] }", "h", 1, 2 },
		{ "{ targets: h, port: preserve }", "h", 0, 1 },
		{ "{ targets: \"::1\", port: preserve }", NULL, 0, 1 },
		{ "{ targets: \"[::1]\", port: preserve }", NULL, 0, 1 },
		{ "{ targets: 10.0.0.1, port: preserve }", NULL, 0, 1 },
		{ "1a.2b:3", "1a.2b", 3, 1 },
		{ "xn--bcher-kva.example:3", "xn--bcher-kva.example", 3, 1 },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		char text[256];

		(void)snprintf(
			text, sizeof(text),
			"version: 1\nroutes: [ { name: a, match: { ports: 1 }, forward: %s } ]\n",
			rows[i].forward);
		good_conf(c, text);
		assert_int_equal(c->routes[0].n_targets, rows[i].n);
		assert_int_equal(c->routes[0].targets[0].port, rows[i].port);
		if (rows[i].host)
			assert_string_equal(c->routes[0].targets[0].host, rows[i].host);
		else
			assert_null(c->routes[0].targets[0].host);
	}
}

static void json_is_read_too(void **state)
{
	good_conf(c,
		  "{\n\t\"version\": 1,\n\t\"routes\": [\n\t\t{\n\t\t\t\"name\": \"a\",\n"
		  "\t\t\t\"match\": {\"ports\": [80, \"81-82\"]},\n\t\t\t\"forward\": \"h:1\",\n"
		  "\t\t\t\"half_open\": true, \"tls\": \"passthrough\", \"timeouts\": null\n\t\t}\n"
		  "\t]\n}\n");

	(void)state;
	assert_int_equal(c->routes[0].n_ports, 2);
	assert_true(c->routes[0].half_open);
}

static void conf_d_adds_routes(void **state)
{
	const char *first = R("listeners: [ { ports: 81, backlog: 9 } ]\n");
	_cleanup_(built_done) struct built b =
		build_two(first, strlen(first),
			  "routes: [ { name: b, match: { ports: 81 }, forward: h:2 } ]\n"
			  "defaults: { half_open: true }\n");

	(void)state;
	assert_int_equal(b.r, 0);
	assert_int_equal(b.conf->n_routes, 2);
	assert_string_equal(b.conf->routes[1].name, "b");
	assert_int_equal(b.conf->routes[1].mark.source, 1);
	assert_true(b.conf->routes[0].half_open);
	assert_int_equal(b.conf->n_listens, 2);
	assert_int_equal(b.conf->listens[1].backlog, 9);
}

static void ten_thousand_routes(void **state)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	struct timespec a, b;

	(void)state;
	sl_str_adds(&text, "version: 1\nroutes:\n");
	for (unsigned i = 0; i < 10000; i++)
		sl_str_addf(&text,
			    "  - name: r%u\n    match: { ports: [%u, \"10.%u.%u.1:443\"] }\n"
			    "    forward: { targets: [h%u.example.com:80, 10.0.0.1:81] }\n"
			    "    timeouts: { connect: 1s }\n",
			    i, 10000 + i, i / 250, i % 250, i);
	(void)clock_gettime(CLOCK_MONOTONIC, &a);
	good_conf(c, text.p);
	(void)clock_gettime(CLOCK_MONOTONIC, &b);
	print_message("10 000 routes: %ld ms\n",
		      (long)(b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000);
	assert_int_equal(c->n_routes, 10000);
	assert_int_equal(c->n_listens, 10001);
	assert_int_equal(c->listens[0].from, 10000);
	assert_int_equal(c->listens[0].to, 19999);
	for (unsigned i = 0; i < 10000; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "r%u", i);
		assert_string_equal(c->routes[i].name, name);
		assert_int_equal(c->routes[i].ports[0].from, 10000 + i);
		assert_int_equal(c->routes[i].mark.line, 3 + 4 * i);
	}
}

/* Sizes at which a quadratic check would take minutes. */
static void hostile_sizes_end(void **state)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	(void)state;
	sl_str_adds(&text, "version: 1\nroutes:\n");
	for (int i = 0; i < 20000; i++)
		sl_str_adds(&text, "  - { name: a, match: { ports: 1-65535 }, forward: h:1 }\n");
	_cleanup_(built_done) struct built same = build_text(text.p);
	assert_int_equal(same.diags.n_errors, 19999);
	sl_str_clear(&text);
	sl_str_adds(&text, "version: 1\nglobal:\n");
	for (int i = 0; i < 100000; i++)
		sl_str_addf(&text, "  k%d: *a.b\n", i);
	_cleanup_(built_done) struct built keys = build_text(text.p);
	assert_true(keys.diags.n_errors > 0);
	sl_str_clear(&text);
	sl_str_adds(&text, "version: 1\nroutes: [ { name: a, forward: h:1, match: { ports: [");
	for (int i = 0; i < 60000; i++)
		sl_str_addf(&text, "%d,", 1 + i);
	for (int i = 0; i < 60000; i++)
		sl_str_addf(&text, "\"10.0.%d.%d:1\",", i / 250, i % 250);
	sl_str_adds(&text, "] } } ]\n");
	good_conf(c, text.p);
	assert_int_equal(c->n_listens, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_the_documented_ones),
		cmocka_unit_test(every_value_arrives),
		cmocka_unit_test(off_is_off),
		cmocka_unit_test(routes_inherit_and_override),
		cmocka_unit_test(documented_defaults_are_accepted),
		cmocka_unit_test(the_packet_engine),
		cmocka_unit_test(targets_have_many_forms),
		cmocka_unit_test(json_is_read_too),
		cmocka_unit_test(conf_d_adds_routes),
		cmocka_unit_test(ten_thousand_routes),
		cmocka_unit_test(hostile_sizes_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
