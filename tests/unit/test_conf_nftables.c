/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf_text.h"

/* Configurations of routes that the kernel's NAT carries, in a build that has the engine. */

#define V "version: 1\n"
#define ROUTE(name, ports, forward, more)                                \
	"  - { name: " name ", engine: nftables, match: { ports: " ports \
	" }, forward: " forward more " }\n"
/* columns: ports at 50, the target at 50 + 12 + length of the ports */
#define N(ports, forward, more) V "routes:\n" ROUTE("a", ports, forward, more)
/* the pieces on lines of their own: 5 match, 6 forward, from 7 on the rest */
#define L(match, forward)                                                 \
	V "routes:\n  - name: a\n    engine: nftables\n    match: " match \
	  "\n    forward: " forward "\n"
#define P "{ ports: 80 }"
#define T "10.0.0.5:80"

static void what_nat_can_do_is_accepted(void **state)
{
	static const char *const rows[] = {
		L(P, T),
		L(P, "\"[2001:db8::1]:80\""),
		L(P, "[ 10.0.0.5:80, 10.0.0.6:81, \"[2001:db8::1]:80\" ]"),
		L("{ ports: 80, protocol: udp }", T),
		L("{ ports: [80, 8000-8100, \"10.0.0.1:90\"] }",
		  "{ targets: 10.0.0.5, port: preserve }"),
		L("{ ports: \"127.0.0.1:80\" }", T),
		L(P, "127.0.0.1:8080"),
		L("{ ports: \"[::1]:80\" }", "\"[::1]:8080\""),
		L("{ ports: [\"[2001:db8::9]:80\", \"10.0.0.1:80\"] }",
		  "[ 10.0.0.5:80, \"[2001:db8::1]:80\" ]"),
		L("{ ports: 80, domains: [], clients: [], tls: null }", T),
		L(P, "{ targets: 10.0.0.5:80, preserve_source: true, send_proxy: none,\n"
		     "      balance: maglev, health: { every: 1s, tls: false } }"),
		L(P, T) "    security: { allow: [10.0.0.0/8, 10.1.0.0-10.1.0.9, \"10.*\"],\n"
			"      deny: \"2001:db8::/32\", max_connections: 5, "
			"max_connections_per_ip: 5,\n      new_connections_per_ip: 50/s, "
			"new_connections: 100/m,\n      packets: 5000/s, refuse: icmp }\n"
			"    timeouts: { drain: 1s }\n    tls: passthrough\n",
		/* neighbours */
		L(P, T) "  - { name: b, match: { ports: 81 }, forward: h:1 }\n",
		N("\"10.0.0.1:80\"", T,
		  "") "  - { name: b, match: { ports: \"10.0.0.2:80\" }, forward: h:1 }\n",
		N("\"0.0.0.0:80\"", T,
		  "") "  - { name: b, match: { ports: \"[::]:80\" }, forward: h:1 }\n",
		N("80", T, "") ROUTE("b", "\"10.0.0.1:70-90\"", T, "")
			ROUTE("c", "\"[2001:db8::9]:80\"", "\"[2001:db8::1]:80\"", ""),
		N("\"0.0.0.0:80\"", T, "") ROUTE("b", "\"[::]:80\"", "\"[2001:db8::1]:80\"", ""),
		N("[80, 80-90, \"0.0.0.0:85\"]", T, ""),
		N("80, protocol: udp", T,
		  "") "  - { name: b, match: { ports: 80 }, forward: h:1 }\n"
		      "listeners: [ { ports: 80, accept_proxy: { from: "
		      "10.0.0.1 } } ]\n",
		N("80", T,
		  ", enabled: false") "  - { name: b, match: { ports: 80 }, forward: h:1 }\n",
		N("80, protocol: udp", T, "") "global: { http: \"127.0.0.1:80\" }\n",
		/* `defaults` are for all engines */
		"version: 1\ndefaults: { half_open: true, forward: { retries: 5, balance: "
		"least_conn } }\n"
		"routes:\n" ROUTE("a", "80", T, ""),
		"version: 1\ndefaults: { forward: { preserve_source: true } }\nroutes:\n" ROUTE(
			"a", "80", T, ""),
		"version: 1\ndefaults: { engine: nftables, security: { new_connections: 5/s, "
		"packets: "
		"5/s, refuse: drop } }\nroutes:\n"
		"  - { name: a, match: { ports: 80 }, forward: 10.0.0.5:80 }\n"
		"  - { name: b, engine: relay, match: { ports: 81 }, forward: h:80,\n"
		"      security: { new_connections: 0, packets: 0/s, refuse: reset } }\n",
		V "routes: [ { name: a, match: { ports: 80 }, forward: h:80, security: { "
		  "new_connections: 0, packets: 0/m, refuse: reset } } ]\n",
		"version: 1\ndefaults: { engine: nftables }\nroutes:\n"
		"  - { name: a, match: { ports: 80 }, forward: 10.0.0.5:80 }\n"
		"  - { name: b, engine: auto, match: { ports: 81, path: /x }, forward: h:80 }\n",
		"version: 1\ndefaults: { forward: { health: { path: /x } } }\nroutes:\n" ROUTE(
			"a", "80", "{ targets: 10.0.0.5:80, health: none }", ""),
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		_cleanup_(built_done) struct built b = build_text(rows[i]);
		const char *got = sl_str_text(&b.diags.text);

		if (b.r < 0 || (b.diags.n_warnings && !strstr(rows[i], "path: /x")))
			fail_msg("row %zu:\n%s\ngot:\n%s", i, rows[i], got);
	}
}

#define WITH(what) " cannot be had with 'engine: nftables' (at a.yaml:4:13)" what

static const struct row forbidden[] = {
	{ L("{ ports: 80, domains: a.example }", T),
	  { "5:25: error: routes[0]: 'match.domains'" WITH(": the kernel's NAT reads nothing") } },
	{ L("{ ports: 80, clients: 10.0.0.0/8 }", T),
	  { "5:25: error: routes[0]: 'match.clients'" WITH(": the kernel's NAT chooses") } },
	{ L("{ ports: 80, tls: { alpn: h2 } }", T),
	  { "5:25: error: routes[0]: 'match.tls'" WITH("") } },
	{ L("{ ports: 80, path: /a }", T),
	  { "5:25: error: routes[0]: 'match.path'" WITH(""), "5:31: warning: " } },
	{ L(P, "{ targets: 10.0.0.5:80, send_proxy: v2 }"),
	  { "6:38: error: routes[0]: 'forward.send_proxy'" WITH(": the kernel's NAT can put") } },
	{ L(P, "{ targets: 10.0.0.5:80, send_proxy: { version: v1 } }"),
	  { "6:38: error: routes[0]: 'forward.send_proxy'" WITH("") } },
	{ L(P, T) "defaults: { forward: { send_proxy: v1 } }\n",
	  { "4:13: error: routes[0]: 'engine: nftables' cannot be had with 'forward.send_proxy' "
	    "(at "
	    "a.yaml:7:24): the kernel" } },
	{ "version: 1\ndefaults: { engine: nftables, forward: { send_proxy: v1 } }\n",
	  { "2:42: error: defaults: 'forward.send_proxy' cannot be had with" } },
	{ L(P, "{ targets: 10.0.0.5:80, health: { path: /x, tls: true } }"),
	  { "6:48: error: routes[0]: 'forward.health.path'" WITH(": its targets are checked"),
	    "6:58: error: routes[0]: 'forward.health.tls'" WITH("") } },
	{ L(P, T) "    security: { allow: [10.0.0.0/8, \"10.?.?.1\"], deny: \"10.*.1.*\" }\n",
	  { "7:37: error: routes[0]: '10.?.?.1'" WITH(": it is not a range of addresses"),
	    "7:56: error: routes[0]: '10.*.1.*'" WITH("") } },
	{ L(P, T) "defaults: { security: { deny: \"10.?.?.1\" } }\n",
	  { "4:13: error: routes[0]: 'engine: nftables' cannot be had with '10.?.?.1' of "
	    "'security.deny' (at a.yaml:7:31): it is not a range" } },
	{ L(P, T) "global: { security: { deny: \"10.?.?.1\" } }\n",
	  { "7:29: error: global.security: '10.?.?.1' is not a range of addresses, which the "
	    "route at a.yaml:3:11 needs" } },
	/* other engines */
	{ V "routes: [ { name: a, match: { ports: 1, protocol: udp }, forward: h:1 } ]\n",
	  { "2:51: error: routes[0]: 'protocol: udp' needs 'engine: nftables'\n" } },
	{ V "defaults: { engine: relay }\n"
	    "routes: [ { name: a, match: { ports: 1, protocol: udp }, forward: h:1 } ]\n",
	  { "3:51: error: routes[0]: 'protocol: udp' needs 'engine: nftables', not 'relay' (at "
	    "a.yaml:2:21)" } },
	{ V "routes: [ { name: a, match: { ports: 1 }, forward: { targets: h:1, preserve_source: "
	    "true } } ]\n",
	  { "2:68: error: routes[0]: 'preserve_source' needs 'engine: nftables'" } },
	{ V "defaults: { forward: { preserve_source: true } }\n"
	    "routes: [ { name: a, match: { ports: 1 }, forward: h:1 } ]\n",
	  { "3:19: error: routes[0]: 'preserve_source' (at a.yaml:2:24) needs 'engine: "
	    "nftables'" } },
	{ V "routes:\n  - { name: a, match: { ports: 1 }, forward: h:1,\n"
	    "      security: { new_connections: 5/s, packets: 9/s, refuse: drop } }\n",
	  { "4:19: error: routes[0]: 'new_connections' needs 'engine: nftables'\n",
	    "4:41: error: routes[0]: 'packets' needs 'engine: nftables'\n",
	    "4:55: error: routes[0]: 'refuse' needs 'engine: nftables'\n" } },
	{ V "routes: [ { name: a, engine: packet, match: { ports: 1 }, forward: h:1, security: {\n"
	    "  refuse: icmp } } ]\n",
	  { "3:3: error: routes[0]: 'refuse' needs 'engine: nftables'\n" } },
	{ V "defaults: { security: { new_connections: 5/s, packets: 9/s, refuse: drop } }\n"
	    "routes: [ { name: a, match: { ports: 1 }, forward: h:1 } ]\n",
	  { "3:19: error: routes[0]: 'new_connections' (at a.yaml:2:25) needs 'engine: nftables'",
	    "3:19: error: routes[0]: 'packets' (at a.yaml:2:47) needs 'engine: nftables'",
	    "3:19: error: routes[0]: 'refuse' (at a.yaml:2:61) needs 'engine: nftables'" } },
	{ V "defaults: { engine: nftables, security: { packets: 9/s } }\n"
	    "routes: [ { name: a, match: { ports: 1 }, forward: h:1, engine: relay } ]\n",
	  { "3:65: error: routes[0]: 'packets' (at a.yaml:2:43) needs 'engine: nftables'" } },
	{ V "global: { nftables: { keep_on_exit: 1, mark_base: 4293918721, flow_offload: [a/b] } "
	    "}\n",
	  { "2:37: error: global.nftables.keep_on_exit: '1' is neither true nor false",
	    "2:51: error: global.nftables.mark_base: '4293918721' is not a whole number from 0 to "
	    "4293918720",
	    "2:78: error: global.nftables.flow_offload: 'a/b' is not a name of an interface" } },
	{ V "global: { nftables: { flow_offload: eth0 } }\n",
	  { "2:37: error: global.nftables.flow_offload: a list" } },
};

static void what_nat_cannot_do_is_refused(void **state)
{
	(void)state;
	check_rows(build_text, forbidden, SL_ARRAY_LEN(forbidden));
}

#define NO_EFFECT(what) \
	"warning: routes[0]: '" what "' has no effect with 'engine: nftables' (at a.yaml:4:13)"

static void what_has_no_effect_is_warned_of(void **state)
{
	static const struct row rows[] = {
		{ L(P, T) "    half_open: true\n    priority: 1\n    keep_alive: immortal\n",
		  { "7:5: " NO_EFFECT("half_open"), "8:5: " NO_EFFECT("priority") } },
		{ L(P, T) "    half_open: false\n    priority: 0\n", { NULL } },
		{ L(P, T) "    timeouts: { idle: 5m, drain: 1s, connect: 1s, max_lifetime: 1d }\n",
		  { "7:38: " NO_EFFECT("timeouts.connect") } },
		{ L(P, "{ targets: 10.0.0.5:80, retries: 3, balance: least_conn,\n"
		       "    health: { slow_start: 5s } }"),
		  { "6:38: " NO_EFFECT("forward.retries"),
		    "6:50: " NO_EFFECT("balance: least_conn"),
		    "7:15: " NO_EFFECT("forward.health.slow_start") } },
		{ L("{ ports: 53, protocol: udp }", "{ targets: 10.0.0.5:53, health: {} }"),
		  { "5:35: warning: routes[0]: targets are checked by connecting with TCP" } },
		{ L(P, T) "listeners: [ { ports: 80, backlog: 5 } ]\n",
		  { "7:23: warning: no enabled route listens here" } },
	};

	(void)state;
	check_rows(build_text, rows, SL_ARRAY_LEN(rows));
}

static void targets_must_be_reachable(void **state)
{
	static const struct row rows[] = {
		{ L(P, "[ h:1, 10.0.0.5:80, i.example:2 ]"),
		  { "6:16: error: 'h:1': 'engine: nftables' needs an address here",
		    "6:34: error: 'i.example:2': 'engine: nftables' needs" } },
		{ L("{ ports: \"10.0.0.1:80\" }", "\"[2001:db8::1]:80\""),
		  { "6:14: error: '[2001:db8::1]:80' is an IPv6 address and no port of this "
		    "route is: the kernel's NAT does not lead from one family to the other" } },
		{ L("{ ports: [\"[::]:80\", \"[2001:db8::9]:81\"] }", T),
		  { "6:14: error: '10.0.0.5:80' is an IPv4 address and no port" } },
		{ L("{ ports: [\"[2001:db8::9]:80\", \"10.0.0.1:80\"] }", T),
		  { "5:22: error: this is an IPv6 address and no target of this route is" } },
		{ L(P, "\"[::1]:80\""),
		  { "6:14: error: '[::1]:80' cannot be had with 'engine: nftables': the kernel "
		    "does not lead clients of other hosts (port at a.yaml:5:21) to ::1" } },
		{ L("{ ports: \"[2001:db8::9]:80\" }", "\"[::1]:80\""),
		  { "6:14: error: '[::1]:80' cannot be had" } },
		{ L("{ ports: \"[::1]:80\" }", "\"[2001:db8::1]:80\""),
		  { "6:14: error: '[2001:db8::1]:80' cannot be had with 'engine: nftables': the "
		    "kernel does not lead clients of ::1 (port at a.yaml:5:21)" } },
		{ L(P, "\"[fe80::1]:80\""),
		  { "6:14: error: '[fe80::1]:80' cannot be had with 'engine: nftables': a "
		    "link-local" } },
		/* to another range there is no way to write */
		{ L("{ ports: 8000-8009 }", "10.0.0.5:9000-9004"),
		  { "6:14: error: routes[0].forward: '10.0.0.5:9000-9004'" } },
		/* also of a route that is not enabled yet */
		{ L(P, "h:1") "    enabled: false\n", { "6:14: error: 'h:1'" } },
	};

	(void)state;
	check_rows(build_text, rows, SL_ARRAY_LEN(rows));
}

#define OTHER(ports) "  - { name: b, match: { ports: " ports " }, forward: h:1 }\n"
#define SHARED(port, who, with)                                                                \
	"error: port " port " cannot be shared by " who " and " with " (at a.yaml:3:50): the " \
	"kernel"
#define RELAYED "a route that the daemon accepts for"
#define BY_NAT "'engine: nftables'"
#define TWICE(port)                                                                          \
	"error: port " port " belongs to another route with 'engine: nftables' already (at " \
	"a.yaml:3:50)"

static void ports_have_one_owner(void **state)
{
	static const struct row rows[] = {
		{ N("80", T, "") OTHER("80"), { "4:32: " SHARED("80", RELAYED, BY_NAT) } },
		{ N("80", T, "") OTHER("[79, 70-90, \"10.0.0.1:80\"]"),
		  { "4:37: " SHARED("80", RELAYED, BY_NAT),
		    "4:44: " SHARED("80", RELAYED, BY_NAT) } },
		{ N("\"10.0.0.1:80-85\"", T, "") OTHER("85, domains: a.example"),
		  { "4:32: " SHARED("85", RELAYED, BY_NAT) } },
		{ N("\"10.0.0.1:80\"", T, "") OTHER("\"0.0.0.0:80\""),
		  { "4:32: " SHARED("80", RELAYED, BY_NAT) } },
		{ N("\"0.0.0.0:80\"", T, "") OTHER("80"),
		  { "4:32: " SHARED("80", RELAYED, BY_NAT) } },
		{ V "routes:\n  - { name: aaaaaaaaaaaaaaaaaaaaaaaaa, match: { ports: 80 }, "
		    "forward: h:1 }\n" ROUTE("b", "80", T, ""),
		  { "4:50: error: port 80 cannot be shared by " BY_NAT " and " RELAYED
		    " (at a.yaml:3:56)" } },
		{ N("80", T, "") ROUTE("b", "80", T, ""), { "4:50: " TWICE("80") } },
		{ N("80-90", T, "") ROUTE("b", "[79, 85, 90-100]", T, ""),
		  { "4:55: " TWICE("85"), "4:59: " TWICE("90") } },
		{ N("80", T, "") ROUTE("b", "\"0.0.0.0:80\"", T, ""), { "4:50: " TWICE("80") } },
		{ N("\"10.0.0.1:80\"", T, "") ROUTE("b", "\"10.0.0.1:1-100\"", T, ""),
		  { "4:50: " TWICE("80") } },
		{ N("80, protocol: udp", T, "") ROUTE("b", "80, protocol: udp", T, ""),
		  { "4:50: " TWICE("80") } },
		{ N("80", T,
		    "") "listeners: [ { ports: 70-90, accept_proxy: { from: 10.0.0.1 } } ]\n",
		  {
			  "4:30: " SHARED("80", "'accept_proxy'", BY_NAT),
		  } },
		{ N("80", T, "") "global: { http: \"127.0.0.1:80\" }\n",
		  { "3:50: error: this port is taken by global.http (at a.yaml:4:17)" } },
	};

	(void)state;
	check_rows(build_text, rows, SL_ARRAY_LEN(rows));
}

/* All of it takes one look at each port, whatever the number of routes. */
static void many_routes_are_checked_at_once(void **state)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	(void)state;
	sl_str_adds(&text, V "routes:\n");
	for (unsigned i = 0; i < 5000; i++) {
		sl_str_addf(&text,
			    "  - { name: n%u, engine: nftables, match: { ports: "
			    "\"10.1.%u.%u:80\" }, forward: 10.0.0.1:80 }\n",
			    i, i / 256, i % 256);
		sl_str_addf(&text,
			    "  - { name: w%u, engine: nftables, match: { ports: %u }, "
			    "forward: 10.0.0.1:80 }\n",
			    i, 10000 + i);
	}
	sl_str_adds(&text, "global: { packet: { hook: off } }\n");
	_cleanup_(built_done) struct built b = build_text(text.p);
	assert_int_equal(b.r, 0);
	assert_int_equal(b.conf->n_routes, 10000);
	assert_int_equal(b.conf->n_listens, 0);
}

static void values_are_stored(void **state)
{
	_cleanup_(built_done) struct built d = build_text(L(P, T));
	_cleanup_(built_done) struct built b = build_text(
		V
		"global: { nft_table: other, nftables: { keep_on_exit: true, mark_base: 4096,\n"
		"  flow_offload: [eth0, eth1, eth0] } }\nroutes:\n" ROUTE(
			"a", "53, protocol: udp", "{ targets: 10.0.0.5:53, preserve_source: true }",
			", security: { new_connections: 600/m, packets: 50/s, refuse: icmp }")
			OTHER("80"));
	const struct sl_conf_route *r;

	(void)state;
	assert_int_equal(d.r, 0);
	assert_false(d.conf->global.nftables.keep_on_exit);
	assert_int_equal(d.conf->global.nftables.mark_base, 0);
	assert_int_equal(d.conf->global.nftables.n_flow_offload, 0);
	assert_string_equal(d.conf->global.nft_table, "sluice");
	assert_int_equal(d.conf->routes[0].engine, SL_CHOICE_NFTABLES);
	assert_false(d.conf->routes[0].is_udp);
	assert_false(d.conf->routes[0].preserve_source);
	r = &d.conf->routes[0];
	assert_int_equal(r->new_connections.per_minute + r->new_connections.burst, 0);
	assert_int_equal(r->packets.per_minute + r->packets.burst, 0);
	assert_int_equal(r->refuse, SL_REFUSE_CHOICE_RESET);
	assert_int_equal(d.conf->n_listens, 0);

	assert_int_equal(b.r, 0);
	assert_true(b.conf->global.nftables.keep_on_exit);
	assert_int_equal(b.conf->global.nftables.mark_base, 4096);
	assert_int_equal(b.conf->global.nftables.n_flow_offload, 2);
	assert_string_equal(b.conf->global.nftables.flow_offload[0], "eth0");
	assert_string_equal(b.conf->global.nftables.flow_offload[1], "eth1");
	assert_string_equal(b.conf->global.nft_table, "other");
	assert_true(b.conf->routes[0].is_udp);
	assert_true(b.conf->routes[0].preserve_source);
	r = &b.conf->routes[0];
	assert_int_equal(r->new_connections.per_minute, 600);
	assert_int_equal(r->new_connections.burst, 600);
	assert_int_equal(r->packets.per_minute, 3000);
	assert_int_equal(r->packets.burst, 50);
	assert_int_equal(r->refuse, SL_REFUSE_CHOICE_ICMP);
	assert_false(b.conf->routes[1].is_udp);
	/* a socket only for what the daemon accepts */
	assert_int_equal(b.conf->n_listens, 1);
	assert_int_equal(b.conf->listens[0].from, 80);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_nat_can_do_is_accepted),
		cmocka_unit_test(what_nat_cannot_do_is_refused),
		cmocka_unit_test(what_has_no_effect_is_warned_of),
		cmocka_unit_test(targets_must_be_reachable),
		cmocka_unit_test(ports_have_one_owner),
		cmocka_unit_test(many_routes_are_checked_at_once),
		cmocka_unit_test(values_are_stored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
