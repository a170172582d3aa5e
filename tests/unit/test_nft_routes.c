/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: calloc */
#include "conf_text.h"

#include "broker/nft_routes.h"
#include "conf/ip_list.h"

/* The n-th allocation from now on fails, once; 0: none does. */
static size_t fail_at;

void *__real_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size)
{
	return fail_at && --fail_at == 0 ? NULL : __real_calloc(n, size);
}

#define HEAD "version: 1\ndefaults: { engine: nftables }\n"
#define ROUTE(name, ports, forward, more) \
	"  - { name: " name ", match: { ports: " ports " }, forward: " forward more " }\n"

struct made {
	struct built b;
	struct sl_nft_routes routes;
	struct sl_nft_target *settled; /* in place of the routes' own */
	struct sl_nft_ruleset *rs;     /* what the lower half makes of them */
};

/* `down`: " ROUTE/TARGET  ROUTE/TARGET "; NULL: none. */
static bool is_in_list(const char *down, const char *route, const char *target)
{
	char both[80];

	(void)snprintf(both, sizeof(both), " %s/%s ", route, target);
	return down && strstr(down, both);
}

static void settle(struct made *m, const char *down)
{
	size_t at = 0;

	m->settled = calloc(m->routes.n_targets + 1, sizeof(*m->settled));
	for (size_t i = 0; i < m->routes.n; i++) {
		struct sl_nft_route *r = &m->routes.item[i];

		bool is_down[8] = { 0 };

		assert_ptr_equal(r->targets, m->routes.targets + at);
		for (size_t k = 0; k < r->n_targets; k++)
			is_down[k] = is_in_list(down, r->name, r->targets[k].name);
		sl_nft_settle_targets(r, m->routes.is_backup + at, is_down, m->settled + at);
		r->targets = m->settled + at;
		at += r->n_targets;
	}
	assert_int_equal(at, m->routes.n_targets);
}

static struct made make(const char *text, const struct sl_ip_set *deny_file, const char *down)
{
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	struct made m = { .b = build_text(text) };

	if (m.b.r < 0)
		fail_msg("%s", sl_str_text(&m.b.diags.text));
	assert_int_equal(sl_nft_routes_make(m.b.conf, deny_file, &m.routes, &why), 0);
	for (size_t i = 0; i < m.routes.n; i++)
		m.routes.item[i].mark = (uint32_t)i + 1;
	settle(&m, down);
	if (sl_nft_build(m.routes.item, m.routes.n, &m.routes.common, &m.rs, &why) < 0)
		fail_msg("%s", sl_str_text(&why));
	return m;
}

static void made_done(struct made *m)
{
	sl_nft_ruleset_free(m->rs);
	sl_nft_routes_done(&m->routes);
	free(m->settled);
	built_done(&m->b);
}

/* "80 10.0.0.1:90 [::]:5-9": as listeners are; every address has none. */
static void assert_listeners(const struct sl_nft_route *r, const char *want)
{
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	char ip[SL_ADDR_TEXT];

	for (size_t i = 0; i < r->n_listeners; i++) {
		const struct sl_nft_listener *l = &r->listeners[i];
		bool is_every = sl_addr_family(&l->ip) == AF_UNSPEC;

		assert_int_equal(sl_addr_port(&l->ip), 0);
		sl_str_addf(&got, "%s%s%s%u", i ? " " : "",
			    is_every ? "" : sl_addr_format_ip(&l->ip, ip), is_every ? "" : "|",
			    l->from);
		if (l->to != l->from)
			sl_str_addf(&got, "-%u", l->to);
	}
	assert_string_equal(sl_str_text(&got), want);
}

/* "10.0.0.1:80=1 [::1]:90=0!": weights; '!' is one that is down. */
static void assert_targets(const struct sl_nft_route *r, const char *want)
{
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	char addr[SL_ADDR_TEXT];

	for (size_t i = 0; i < r->n_targets; i++)
		sl_str_addf(&got, "%s%s=%u%s", i ? " " : "",
			    sl_addr_format(&r->targets[i].addr, addr), r->targets[i].weight,
			    r->targets[i].is_down ? "!" : "");
	assert_string_equal(sl_str_text(&got), want);
}

static void assert_has(const struct sl_ip_set *set, const char *ip, bool want)
{
	struct sl_addr a;

	assert_int_equal(sl_addr_parse_ip(ip, &a), 0);
	if (!set || sl_ip_set_has(set, &a) != want)
		fail_msg("%s: want %d", ip, want);
}

static size_t set_size(const struct made *m, const char *name)
{
	const struct sl_nft_set *set = sl_nft_find_set(m->rs, name);

	if (!set)
		fail_msg("no set %s", name);
	return set->n;
}

static void plain_routes(void **state)
{
	_cleanup_(made_done) struct made m =
		make(HEAD "global: { nftables: { mark_base: 5 } }\nroutes:\n" ROUTE(
			     "a", "80", "10.0.0.5:8080", "")
			     ROUTE("b", "53, protocol: udp",
				   "{ targets: \"[2001:db8::5]:5353\", preserve_source: true }", "")
				     ROUTE("off", "99", "10.0.0.5:99", ", enabled: false")
					     ROUTE("other", "98", "h:99", ", engine: relay"),
		     NULL, NULL);
	const struct sl_nft_route *r = m.routes.item;

	(void)state;
	assert_int_equal(m.routes.n, 2);
	assert_string_equal(r[0].name, "a");
	assert_int_equal(r[0].protocols, SL_NFT_TCP);
	assert_int_equal(r[0].state, SL_NFT_ON);
	assert_int_equal(r[0].refusal, SL_NFT_REFUSE_RESET);
	assert_true(r[0].masquerade);
	assert_null(r[0].allow);
	assert_null(r[0].deny);
	assert_int_equal(r[0].max_connections, 0);
	assert_int_equal(r[0].connections.rate, 0);
	assert_int_equal(r[0].packets.rate, 0);
	assert_listeners(&r[0], "80");
	assert_targets(&r[0], "10.0.0.5:8080=1");
	assert_string_equal(r[0].targets[0].name, "10.0.0.5:8080");

	assert_string_equal(r[1].name, "b");
	assert_int_equal(r[1].protocols, SL_NFT_UDP);
	assert_false(r[1].masquerade);
	assert_listeners(&r[1], "53");
	assert_targets(&r[1], "[2001:db8::5]:5353=1");

	assert_int_equal(set_size(&m, "any4"), 1);
	assert_int_equal(set_size(&m, "any6"), 1);
	assert_int_equal(set_size(&m, "masq"), 1);
}

static bool has_chain(const struct made *m, const char *name)
{
	for (size_t i = 0; i < m->rs->n_chains; i++)
		if (strcmp(m->rs->chains[i].name, name) == 0)
			return true;
	return false;
}

static void rates_and_refusals(void **state)
{
	_cleanup_(made_done) struct made m =
		make(HEAD "routes:\n" ROUTE("a", "80", "10.0.0.5:80", "")
			     ROUTE("b", "81", "10.0.0.5:80",
				   ", security: { new_connections: 50/s, refuse: icmp }")
				     ROUTE("c", "82, protocol: udp", "10.0.0.5:80",
					   ", security: { new_connections: 50/m, packets: 9/s, "
					   "refuse: drop }"),
		     NULL, NULL);
	const struct sl_nft_route *r = m.routes.item;
	char devices[1][SL_NFT_DEVICE] = { "eth0" };

	(void)state;
	assert_int_equal(r[1].connections.rate, 50);
	assert_int_equal(r[1].connections.seconds, 1);
	assert_int_equal(r[1].connections.burst, 50);
	assert_int_equal(r[1].packets.rate, 0);
	assert_int_equal(r[1].refusal, SL_NFT_REFUSE_ICMP);
	assert_int_equal(r[2].connections.rate, 50);
	assert_int_equal(r[2].connections.seconds, 60);
	assert_int_equal(r[2].connections.burst, 50);
	assert_int_equal(r[2].packets.rate, 9);
	assert_int_equal(r[2].packets.seconds, 1);
	assert_int_equal(r[2].packets.burst, 9);
	assert_int_equal(r[2].refusal, SL_NFT_REFUSE_DROP);

	assert_false(has_chain(&m, "policy_1"));
	assert_true(has_chain(&m, "policy_2"));
	assert_true(has_chain(&m, "policy_3"));
	assert_false(has_chain(&m, "packets_2"));
	assert_true(has_chain(&m, "packets_3"));
	assert_int_equal(set_size(&m, "route_refuse"), 2);
	/* the flow table would take packets past the limit */
	assert_int_equal(sl_nft_put_offload(m.rs, r, m.routes.n, devices, 1), 0);
	assert_int_equal(set_size(&m, "offloads"), 2);
}

static void ports_and_ranges(void **state)
{
	_cleanup_(made_done) struct made m =
		make(HEAD "routes:\n" ROUTE("kept", "[9000-9099, \"10.0.0.1:70\"]",
					    "{ targets: 10.0.0.5, port: preserve }",
					    "") ROUTE("one", "8000-8099", "10.0.0.5:80", "")
			     ROUTE("mixed",
				   "[85, 80-90, 80, 91, 88-95, \"10.0.0.1:81\", \"10.0.0.1:81\"]",
				   "10.0.0.5:80", "")
				     ROUTE("both", "[60, \"0.0.0.0:60-61\", \"10.0.0.1:60\"]",
					   "[ 10.0.0.5:80, \"[2001:db8::5]:80\" ]", ""),
		     NULL, NULL);
	const struct sl_nft_route *r = m.routes.item;

	(void)state;
	assert_listeners(&r[0], "9000-9099 10.0.0.1|70");
	assert_targets(&r[0], "10.0.0.5:0=1");
	assert_listeners(&r[1], "8000-8099");
	assert_targets(&r[1], "10.0.0.5:80=1");
	/* what overlaps is one, because the kernel takes it only so */
	assert_listeners(&r[2], "80-95 10.0.0.1|81");
	assert_listeners(&r[3], "0.0.0.0|60-61 10.0.0.1|60 ::|60");
	assert_int_equal(set_size(&m, "any4_range"), 4);
	assert_int_equal(set_size(&m, "any6"), 1);
	assert_int_equal(set_size(&m, "listen4"), 3);
	assert_int_equal(set_size(&m, "to4_address"), 1);
}

static void balancing(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(balance_words); i++) {
		char text[512];

		(void)snprintf(text, sizeof(text),
			       HEAD "routes:\n  - name: a\n    match: { ports: 80 }\n    forward:\n"
				    "      balance: %s\n      targets: [ { address: 10.0.0.5:80, "
				    "weight: 3 },\n        10.0.0.6:81, { address: 10.0.0.7:80, "
				    "weight: 0 } ]\n",
			       balance_words[i].word);
		_cleanup_(made_done) struct made m = make(text, NULL, NULL);
		assert_int_equal(m.routes.item[0].balance, balance_words[i].value);
		assert_targets(&m.routes.item[0], "10.0.0.5:80=3 10.0.0.6:81=1 10.0.0.7:80=0");
		if (balance_words[i].value < SL_BALANCE_SOURCE_HASH)
			assert_int_equal(set_size(&m, "slots4_1"), 4);
		assert_true(set_size(&m, "slots4_1") >= 4);
	}
}

#define SEVERAL                                                                      \
	HEAD "routes:\n" ROUTE(                                                      \
		"a", "80",                                                           \
		"[ 10.0.0.5:80, { address: 10.0.0.6:80, backup: true, weight: 2 }, " \
		"\"[2001:db8::5]:80\", { address: \"[2001:db8::6]:80\", "            \
		"backup: true } ]",                                                  \
		"")

static void backups_wait(void **state)
{
	static const struct {
		const char *down;
		const char *want;
	} rows[] = {
		{ NULL, "10.0.0.5:80=1 10.0.0.6:80=0 [2001:db8::5]:80=1 [2001:db8::6]:80=0" },
		{ " b/10.0.0.5:80 ",
		  "10.0.0.5:80=1 10.0.0.6:80=0 [2001:db8::5]:80=1 [2001:db8::6]:80=0" },
		/* for each family by itself */
		{ " a/10.0.0.5:80 ",
		  "10.0.0.5:80=1! 10.0.0.6:80=2 [2001:db8::5]:80=1 [2001:db8::6]:80=0" },
		{ " a/[2001:db8::5]:80 ",
		  "10.0.0.5:80=1 10.0.0.6:80=0 [2001:db8::5]:80=1! [2001:db8::6]:80=1" },
		{ " a/10.0.0.5:80  a/10.0.0.6:80 ",
		  "10.0.0.5:80=1! 10.0.0.6:80=2! [2001:db8::5]:80=1 [2001:db8::6]:80=0" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		_cleanup_(made_done) struct made m = make(SEVERAL, NULL, rows[i].down);

		assert_targets(&m.routes.item[0], rows[i].want);
	}
}

static void drained_targets_get_nothing(void **state)
{
	static const struct change drain[] = { { SL_SOURCE_DRAIN, "a", "10.0.0.5:80" },
					       { 0, NULL, NULL } };
	struct sl_conf_source item[2] = {
		{ .name = (char *)"a.yaml", .text = (char *)SEVERAL, .len = strlen(SEVERAL) },
		{ .name = (char *)"runtime:a",
		  .kind = drain[0].kind,
		  .subject = (char *)"a",
		  .text = (char *)(uintptr_t)drain[0].text,
		  .len = strlen(drain[0].text) },
	};
	struct sl_conf_sources sources = { item, 2 };
	_cleanup_(sl_nft_routes_done) struct sl_nft_routes routes = { 0 };
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	_cleanup_(built_done) struct built b = { 0 };
	struct sl_nft_target settled[4];

	(void)state;
	assert_int_equal(sl_conf_build(&sources, &b.conf, &b.diags), 0);
	assert_int_equal(sl_nft_routes_make(b.conf, NULL, &routes, &why), 0);
	assert_int_equal(routes.n_targets, SL_ARRAY_LEN(settled));
	sl_nft_settle_targets(&routes.item[0], routes.is_backup, NULL, settled);
	routes.item[0].targets = settled;
	assert_targets(&routes.item[0],
		       "10.0.0.5:80=0 10.0.0.6:80=2 [2001:db8::5]:80=1 [2001:db8::6]:80=0");
}

static void lists_and_limits(void **state)
{
	_cleanup_(made_done) struct made m = make(
		HEAD
		"routes:\n" ROUTE("a", "80", "10.0.0.5:80",
				  ", security: { allow: [10.0.0.0/8, \"2001:db8::/32\"], deny: "
				  "10.1.0.0/16, max_connections: 7 }"),
		NULL, NULL);
	const struct sl_nft_route *r = m.routes.item;

	(void)state;
	assert_has(r->allow, "10.2.0.1", true);
	assert_has(r->allow, "2001:db8::1", true);
	assert_has(r->allow, "11.0.0.1", false);
	assert_has(r->deny, "10.1.2.3", true);
	assert_has(r->deny, "10.2.0.1", false);
	assert_int_equal(r->max_connections, 7);
	assert_null(m.routes.denied); /* the configuration's own */
	assert_null(m.routes.common.lists.allow);
	assert_null(sl_nft_find_set(m.rs, "allow4"));
	assert_int_equal(set_size(&m, "allow4_1"), 2);
	assert_int_equal(set_size(&m, "deny4_1"), 2);
}

/* Of the file, of a denied set and of the routes: none is weaker for being in the kernel. */
static void global_lists_hold(void **state)
{
	struct sl_ip4_range range = { 0xc0000201, 0xc0000209 }; /* 192.0.2.1-192.0.2.9 */
	const struct sl_ip_set file = { .v4 = &range, .n4 = 1 };
	_cleanup_(made_done) struct made m = make(
		"version: 1\nglobal: { security: { allow: [10.0.0.0/8, 192.0.2.0/24, "
		"\"2001:db8::/32\"], deny: 10.9.0.0/16 } }\n"
		"defaults: { engine: nftables, security: { deny: 10.8.0.0/16 } }\nroutes:\n" ROUTE(
			"a", "80", "10.0.0.5:80", "") ROUTE("b", "81", "10.0.0.5:80", "")
			ROUTE("c", "82", "10.0.0.5:80",
			      ", security: { allow: [10.2.0.0-10.3.255.255, 10.255.0.0-11.0.0.9, "
			      "\"2001:db8:0:1::/64\"], deny: [] }")
				ROUTE("d", "83", "10.0.0.5:80",
				      ", security: { allow: 172.16.0.0/12, deny: 10.7.0.1 }"),
		&file, NULL);
	_cleanup_(made_done) struct made plain =
		make(HEAD "routes:\n" ROUTE("a", "80", "10.0.0.5:80", ""), NULL, NULL);
	const struct sl_nft_route *r = m.routes.item;

	(void)state;
	assert_has(m.routes.common.lists.deny, "10.9.1.1", true);
	assert_has(m.routes.common.lists.deny, "192.0.2.5", true);
	assert_has(m.routes.common.lists.deny, "192.0.2.10", false);
	assert_has(m.routes.common.lists.deny, "10.8.0.1", false);
	assert_has(m.routes.common.lists.allow, "10.2.0.1", true);
	assert_has(m.routes.common.lists.allow, "11.0.0.1", false);
	assert_has(r[0].deny, "10.8.0.1", true);
	assert_has(r[1].deny, "10.8.0.1", true);
	assert_null(r[0].allow);
	assert_has(r[2].allow, "10.3.255.255", true);
	assert_has(r[2].allow, "10.4.0.0", false);
	assert_null(r[2].deny);
	assert_has(r[3].deny, "10.7.0.1", true);
	/* in the table once, however many routes there are */
	assert_int_equal(set_size(&m, "deny4"), 4);
	assert_int_equal(set_size(&m, "deny6"), 0);
	assert_int_equal(set_size(&m, "allow4"), 4);
	assert_int_equal(set_size(&m, "allow6"), 2);
	assert_int_equal(set_size(&m, "deny4_1"), 2);
	assert_int_equal(set_size(&m, "allow4_3"), 4);
	assert_null(sl_nft_find_set(m.rs, "deny4_3"));
	/* asked before anything of the route is */
	assert_int_equal(sl_nft_find_chain(m.rs, "routed")->n,
			 sl_nft_find_chain(plain.rs, "routed")->n + 4);
}

/* TCP leaves beside the ports of the packet engine, if that may carry anything. */
static void masquerading_leaves_the_packet_engine_its_ports(void **state)
{
	static const struct {
		const char *global;
		const char *other; /* more of the other route */
		uint16_t from;
		uint16_t to;
	} rows[] = {
		{ "", ", engine: relay", 0, 0 },
		{ "", ", engine: sockmap", 0, 0 },
		{ "", ", enabled: false", 0, 0 },
		{ "packet: { hook: off }", "", 0, 0 },
		{ "", "", 1024, 39999 },
		{ "", ", engine: packet", 1024, 39999 },
		{ "packet: { ports: 1024-20000 }", "", 20001, 65535 },
		{ "packet: { ports: 2000-20000 }", "", 20001, 65535 },
		{ "packet: { ports: 40000-65535 }", "", 1024, 39999 },
		{ "packet: { ports: 2048-65535 }", "", 1024, 2047 },
		{ "packet: { ports: 2047-65535 }", "", 0, 0 },
		{ "packet: { ports: 1024-64511 }", "", 64512, 65535 },
		{ "packet: { ports: 1024-64512 }", "", 0, 0 },
		{ "packet: { ports: 1024-65535 }", "", 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		char text[512];

		(void)snprintf(text, sizeof(text),
			       "version: 1\nglobal: { %s }\nroutes:\n" ROUTE(
				       "a", "80", "10.0.0.5:80", ", engine: nftables")
				       ROUTE("b", "81", "10.0.0.5:80", "%s"),
			       rows[i].global, rows[i].other);
		_cleanup_(made_done) struct made m = make(text, NULL, NULL);
		assert_int_equal(m.routes.common.masquerade.from, rows[i].from);
		assert_int_equal(m.routes.common.masquerade.to, rows[i].to);
		assert_int_equal(sl_nft_find_chain(m.rs, "post")->n, rows[i].from ? 8 : 4);
	}
}

static void a_file_with_patterns_is_refused(void **state)
{
	struct sl_ip4_glob glob = { 0 };
	const struct sl_ip_set file = { .globs = &glob, .n_globs = 1 };
	_cleanup_(sl_nft_routes_done) struct sl_nft_routes routes = { 0 };
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	_cleanup_(built_done) struct built b =
		build_text(HEAD "routes:\n" ROUTE("a", "80", "10.0.0.5:80", ""));
	_cleanup_(built_done) struct built none =
		build_text("version: 1\nroutes:\n" ROUTE("a", "80", "10.0.0.5:80", ""));

	(void)state;
	assert_int_equal(sl_nft_routes_make(b.conf, &file, &routes, &why), -EINVAL);
	assert_non_null(strstr(sl_str_text(&why), "deny_file"));
	assert_null(routes.item);
	assert_int_equal(sl_nft_routes_make(none.conf, &file, &routes, &why), 0);
	assert_int_equal(routes.n, 0);
}

static void local_targets(void **state)
{
	_cleanup_(made_done) struct made m =
		make(HEAD "routes:\n" ROUTE("a", "80", "127.0.0.1:8080", "")
			     ROUTE("b", "\"[::1]:80\"", "\"[::1]:8080\"", "")
				     ROUTE("c", "\"127.0.0.1:81\"",
					   "{ targets: 10.0.0.5:80, preserve_source: true }", ""),
		     NULL, NULL);

	(void)state;
	assert_targets(&m.routes.item[0], "127.0.0.1:8080=1");
	assert_targets(&m.routes.item[1], "[::1]:8080=1");
	assert_listeners(&m.routes.item[1], "::1|80");
	assert_listeners(&m.routes.item[2], "127.0.0.1|81");
	assert_int_equal(set_size(&m, "listen6"), 1);
	assert_int_equal(set_size(&m, "hairpin4"), 1);
}

static void memory_may_run_out(void **state)
{
	struct sl_ip4_range range = { 1, 2 };
	const struct sl_ip_set file = { .v4 = &range, .n4 = 1 };
	_cleanup_(built_done) struct built b = build_text(
		"version: 1\nglobal: { security: { allow: 10.0.0.0/8, deny: \"2001:db8::/32\" } }\n"
		"defaults: { engine: nftables }\nroutes:\n" ROUTE(
			"a", "80", "10.0.0.5:80",
			", security: { allow: [10.1.1.1, \"2001:db8::1\"], deny: 10.1.1.1 }"));
	bool failed = true;
	size_t n;

	(void)state;
	assert_int_equal(b.r, 0);
	for (n = 1; failed && n < 100; n++) {
		_cleanup_(sl_nft_routes_done) struct sl_nft_routes routes = { 0 };
		_cleanup_(sl_str_done) struct sl_str why = { 0 };
		int r;

		fail_at = n;
		r = sl_nft_routes_make(b.conf, &file, &routes, &why);
		failed = fail_at == 0;
		fail_at = 0;
		assert_int_equal(r, failed ? -ENOMEM : 0);
	}
	assert_false(failed);
	assert_true(n > 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_routes),
		cmocka_unit_test(rates_and_refusals),
		cmocka_unit_test(ports_and_ranges),
		cmocka_unit_test(balancing),
		cmocka_unit_test(backups_wait),
		cmocka_unit_test(drained_targets_get_nothing),
		cmocka_unit_test(lists_and_limits),
		cmocka_unit_test(global_lists_hold),
		cmocka_unit_test(masquerading_leaves_the_packet_engine_its_ports),
		cmocka_unit_test(a_file_with_patterns_is_refused),
		cmocka_unit_test(local_targets),
		cmocka_unit_test(memory_may_run_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
