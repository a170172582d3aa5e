/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What others' rules do to our flows, against the real kernel: each test in a network namespace of
 * its own, with the rules of firewalls as nft writes them. What is advised is carried out, and
 * must be enough.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nft/trouble.h"

#include "netns.h"

#define NEEDS_ROOT()                \
	do {                        \
		if (geteuid() != 0) \
			skip();     \
	} while (0)

static int run(const char *fmt, ...) SL_PRINTF(1, 2);
static int run(const char *fmt, ...)
{
	char command[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	return system(command);
}

/* nft wants a line of its own for what ends a block; these texts would not be read more easily. */
static void rules(const char *text)
{
	FILE *f = popen("nft -f -", "w");

	assert_non_null(f);
	for (const char *p = text; *p; p++) {
		if (strncmp(p, "; }", 3) == 0 || strncmp(p, "{ }", 3) == 0) {
			fprintf(f, "%c\n}\n", *p);
			p += 2;
		} else {
			fputc(*p, f);
		}
	}
	assert_int_equal(pclose(f), 0);
}

/* A host between 10.91/16 and 10.92/16 that forwards. */
static int set_up(void **state)
{
	(void)state;
	if (geteuid() != 0)
		return 0;
	if (enter_netns() < 0)
		return -1;
	return run("set -e; ip link add name cli type veth peer name cli2; ip link add name srv "
		   "type veth peer name srv2\n"
		   "ip addr add 10.91.0.1/16 dev cli; ip addr add 10.92.0.1/16 dev srv\n"
		   "ip addr add fd92::1/64 dev srv nodad; ip link set dev cli up; ip link set dev "
		   "srv up\n"
		   "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 "
		   "net.ipv4.conf.all.route_localnet=1")
		       ? -1
		       : 0;
}

static void target(struct sl_nft_trouble_flow *f, const char *route, uint32_t mark, const char *ip,
		   uint16_t port, uint8_t protocol)
{
	*f = (struct sl_nft_trouble_flow){ .route = route, .mark = mark, .protocol = protocol };
	assert_int_equal(sl_addr_parse_ip(ip, &f->target), 0);
	sl_addr_set_port(&f->target, port);
}

static char seen[8192];

/* What is said of one route to `ip`. */
static const char *look_at(const char *ip, uint16_t port, uint8_t protocol)
{
	_cleanup_(sl_nft_trouble_closep) struct sl_nft_trouble *t = NULL;
	_cleanup_(sl_str_done) struct sl_str lines = { 0 };
	struct sl_nft_trouble_flow f;

	target(&f, "web", 7, ip, port, protocol);
	assert_int_equal(sl_nft_trouble_open(&t), 0);
	assert_int_equal(sl_nft_trouble_look(t, "sluice", &f, 1, &lines), 0);
	snprintf(seen, sizeof(seen), "%s", sl_str_text(&lines));
	return seen;
}
static const char *look(void)
{
	return look_at("10.92.0.2", 8080, IPPROTO_TCP);
}

static void assert_says(const char *text, const char *what)
{
	if (!strstr(text, what))
		fail_msg("'%s' is not in:\n%s", what, text);
}

/* The last words of the line are a command. */
static void do_as_advised(const char *text)
{
	const char *at = strrchr(text, ':');
	const char *end = strchr(text, '\n');

	assert_non_null(at);
	assert_ptr_equal(end + 1, text + strlen(text)); /* one line */
	assert_int_equal(run("%s", at + 1), 0);
}

static void all_is_well(void **state)
{
	(void)state;
	NEEDS_ROOT();
	assert_string_equal(look(), "");
	assert_string_equal(look_at("127.0.0.1", 80, IPPROTO_UDP), "");
	assert_string_equal(look_at("fd92::2", 80, IPPROTO_TCP), "");
	/* ours may drop what it likes */
	rules("table inet sluice { chain f { type filter hook forward priority 0; policy drop; } "
	      "}");
	assert_string_equal(look(), "");
	/* of another family, or another hook, or asleep */
	rules("table ip6 a { chain f { type filter hook forward priority 0; policy drop; } }\n"
	      "table inet b { chain i { type filter hook input priority 0; policy drop; } }\n"
	      "table inet c { flags dormant; chain f { type filter hook forward priority 0; policy "
	      "drop; } }");
	assert_string_equal(look(), "");
}

/* Rules of others that stop our flow, each with what is said; what is advised then helps. */
static void drops_are_found(void **state)
{
	static const struct {
		const char *rules;
		const char *says;
	} rows[] = {
		{ "table inet fw { chain pass { type filter hook forward priority 0; policy drop; "
		  "} "
		  "}",
		  "table inet fw, chain pass: what it does not accept is dropped, drops flows of "
		  "route "
		  "'web' to 10.92.0.2:8080" },
		{ "table ip fw { chain pass { type filter hook forward priority 10; reject; } }",
		  "table ip fw, chain pass: a rule drops" },
		/* the one of nft's own examples, as Debian has it */
		{ "table inet fw { chain pass { type filter hook forward priority filter; policy "
		  "drop;\n"
		  "ct state vmap { established : accept, related : accept, invalid : drop }\n"
		  "iifname \"lan0\" oifname \"wan0\" accept; } }",
		  "unless another of its rules accepts them it drops" },
		{ "table inet fw { chain deny { counter log prefix \"no \" drop; }\n"
		  "chain web { tcp dport { 80, 443 } accept; }\n"
		  "chain pass { type filter hook forward priority 0; ct state established accept\n"
		  "jump web; goto deny; } }",
		  "table inet fw, chain deny: a rule drops" },
		{ "table inet fw { chain pass { type filter hook forward priority 0; policy drop;\n"
		  "ip daddr 10.92.0.3 accept; tcp dport != 8080 accept; meta l4proto udp accept\n"
		  "ip6 daddr ::/0 accept; ct state { established, related } accept\n"
		  "ip daddr { 10.92.0.4-10.92.0.9, 10.93.0.0/16 } accept; } }",
		  "drops flows" },
		{ "table inet fw { set open { type inet_service; flags interval; elements = { "
		  "8000-8079, "
		  "8081-9000 }; }\n"
		  "chain pass { type filter hook forward priority 0; tcp dport != @open drop; } }",
		  "a rule drops" },
		{ "table inet fw { map m { type inet_service : verdict; elements = { 8080 : jump "
		  "no }; }\n"
		  "chain no { drop; }\n"
		  "chain pass { type filter hook forward priority 0; tcp dport vmap @m; } }",
		  "table inet fw, chain no: a rule drops" },
		{ "table inet fw { chain pass { type filter hook forward priority 0; policy drop;\n"
		  "ct mark and 0xff == 8 accept; ct mark 8-20 accept; ct status snat,expected "
		  "accept; } }",
		  "unless another" },
	};

	(void)state;
	NEEDS_ROOT();
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		assert_int_equal(run("nft flush ruleset"), 0);
		rules(rows[i].rules);
		assert_says(look(), rows[i].says);
		do_as_advised(look());
		assert_string_equal(look(), "");
	}
}

/* Rules that let our flow through, or of which that cannot be told. */
static void what_passes_is_no_trouble(void **state)
{
	static const char *const rows[] = {
		"policy drop; ct status dnat accept;",
		"policy drop; ct mark 7 accept;",
		"policy drop; ct mark & 0xff == 7 accept;",
		"policy drop; ct mark 1-20 accept;",
		"policy drop; ct mark { 5, 7 } accept;",
		"policy drop; tcp dport 8080 accept;",
		"policy drop; ip daddr 10.92.0.0/16 tcp dport 8000-8999 accept;",
		"policy drop; ip daddr . tcp dport { 10.92.0.2 . 8080 } accept;",
		"policy drop; ip protocol tcp ct state new counter accept;",
		"policy drop; meta l4proto { tcp, udp } accept;",
		"ip saddr 192.0.2.1 drop; iifname \"wan0\" drop; ct state invalid drop;",
		"limit rate over 10/second drop; ct count over 5 drop; tcp flags & (fin|syn) == "
		"fin drop;",
		"ip daddr != 10.92.0.2 drop; tcp dport != { 22, 8080 } drop; meta nfproto ipv6 "
		"drop;",
		"policy drop; meta protocol ip jump ok;",
		"policy drop; ct direction original ct status dnat accept; accept;",
	};
	char text[512];

	(void)state;
	NEEDS_ROOT();
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		assert_int_equal(run("nft flush ruleset"), 0);
		snprintf(text, sizeof(text),
			 "table inet fw { chain ok { accept; }\n"
			 "chain pass { type filter hook forward priority 0; %s } }",
			 rows[i]);
		rules(text);
		if (*look())
			fail_msg("%s\n%s", rows[i], seen);
	}
}

/* Rules that come in by other hooks, for targets on this host. */
static void targets_here_meet_the_input_hook(void **state)
{
	(void)state;
	NEEDS_ROOT();
	rules("table inet fw { chain in { type filter hook input priority 0; policy drop;\n"
	      "iifname \"lo\" accept; ct state established accept; tcp dport 22 accept; } }");
	assert_string_equal(look(), "");
	assert_says(look_at("127.0.0.1", 8080, IPPROTO_TCP), "chain in: what it does not accept");
	assert_says(look_at("10.91.0.1", 8080, IPPROTO_TCP), "to 10.91.0.1:8080");
	assert_string_equal(look_at("127.0.0.1", 22, IPPROTO_TCP), "");
	do_as_advised(look_at("127.0.0.1", 8080, IPPROTO_TCP));
	assert_string_equal(look_at("127.0.0.1", 8080, IPPROTO_TCP), "");
}

/* As they stand in firewalld 1.3's table and in Docker's, in what concerns us. */
static void firewalld_and_docker(void **state)
{
	(void)state;
	NEEDS_ROOT();
	rules("table inet firewalld { chain filter_FORWARD {\n"
	      "type filter hook forward priority filter + 10; policy accept;\n"
	      "ct state { established, related } accept; ct status dnat accept; iifname \"lo\" "
	      "accept\n"
	      "ct state invalid drop; jump filter_FORWARD_POLICIES\n"
	      "reject with icmpx admin-prohibited; }\n"
	      "chain filter_FORWARD_POLICIES { iifname \"eth0\" jump filter_FWD_public; } chain "
	      "filter_FWD_public { tcp dport 22 accept; } }");
	assert_string_equal(look(), "");
	assert_int_equal(run("nft flush ruleset"), 0);
	rules("table inet firewalld { chain filter_FORWARD {\n"
	      "type filter hook forward priority filter + 10; policy accept;\n"
	      "ct state { established, related } accept\n"
	      "reject with icmpx admin-prohibited; } }");
	assert_says(look(), "StrictForwardPorts=no");
	assert_int_equal(run("nft flush ruleset"), 0);
	rules("table ip filter { chain DOCKER-USER { } chain DOCKER { oifname \"docker0\" drop; }\n"
	      "chain DOCKER-FORWARD { ct state related,established accept; oifname \"docker0\" "
	      "jump "
	      "DOCKER; }\n"
	      "chain FORWARD { type filter hook forward priority filter; policy drop;\n"
	      "jump DOCKER-USER; jump DOCKER-FORWARD; } }");
	assert_says(look(), "iptables -I DOCKER-USER -m conntrack --ctstate DNAT -j ACCEPT\n");
	assert_int_equal(run("nft insert rule ip filter DOCKER-USER ct status dnat accept"), 0);
	assert_string_equal(look(), "");
}

static void marks_of_others(void **state)
{
	static const struct {
		const char *hook;
		const char *rule;
		const char *says; /* NULL: nothing */
	} rows[] = {
		{ "prerouting priority mangle", "ct mark set 0x100", "sets the conntrack mark" },
		{ "prerouting priority mangle", "ct mark set ct mark or 0x100",
		  "sets the conntrack mark" },
		{ "prerouting priority mangle", "iifname wan0 ct mark set meta mark", "sets the" },
		{ "forward priority 0", "ct state new ct mark set 5", "sets the" },
		{ "prerouting priority mangle", "ct state new ct mark set 5", NULL },
		{ "prerouting priority mangle", "ct mark 0 ct mark set 5", NULL },
		{ "prerouting priority mangle", "meta mark set ct mark",
		  "makes the conntrack mark" },
		{ "postrouting priority mangle", "ip saddr 10.0.0.1 ct mark set 1", "sets the" },
		{ "forward priority 0", "ct mark 7 drop", "takes the conntrack mark" },
		{ "forward priority 0", "ct mark and 0xf == 7 meta priority set 5", "takes the" },
		{ "forward priority 0", "ct mark 8 drop", NULL },
		{ "forward priority 0", "ct mark 0x100-0x200 drop", NULL },
		{ "forward priority 0", "ct mark vmap { 7 : accept }", NULL },
		{ "forward priority 0", "meta mark set 7", NULL },
	};
	char text[512];

	(void)state;
	NEEDS_ROOT();
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		assert_int_equal(run("nft flush ruleset"), 0);
		snprintf(text, sizeof(text),
			 "table inet vpn { chain c { type filter hook %s; %s; } }", rows[i].hook,
			 rows[i].rule);
		rules(text);
		if (!rows[i].says) {
			if (*look())
				fail_msg("%s\n%s", rows[i].rule, seen);
			continue;
		}
		assert_says(look(), rows[i].says);
		if (strstr(seen, "leave them alone")) {
			do_as_advised(seen);
			assert_string_equal(look(), "");
		} else {
			assert_says(seen, "mark_base: 16777216");
		}
	}
}

static void settings_of_the_host(void **state)
{
	(void)state;
	NEEDS_ROOT();
	assert_int_equal(run("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 "
			     "net.ipv4.conf.all.route_localnet=0"),
			 0);
	assert_says(look(), "this host does not forward: route 'web' to 10.92.0.2:8080");
	do_as_advised(seen);
	assert_string_equal(look(), "");
	assert_says(look_at("fd92::2", 80, IPPROTO_UDP), "does not forward IPv6");
	do_as_advised(seen);
	assert_string_equal(look_at("fd92::2", 80, IPPROTO_UDP), "");
	assert_says(look_at("127.0.0.1", 80, IPPROTO_UDP), "nobody else to 127.0.0.0/8");
	do_as_advised(seen);
	assert_string_equal(look_at("127.0.0.1", 80, IPPROTO_UDP), "");
	assert_int_equal(run("sysctl -qw net.ipv4.conf.all.route_localnet=0 "
			     "net.ipv4.conf.cli.route_localnet=1"),
			 0);
	assert_string_equal(look_at("127.0.0.1", 80, IPPROTO_UDP), "");
	assert_says(look_at("192.0.2.7", 80, IPPROTO_TCP), "there is no route from this host");
}

static void a_target_without_a_port(void **state)
{
	(void)state;
	NEEDS_ROOT();
	rules("table inet fw { chain pass { type filter hook forward priority 0; policy drop;\n"
	      "tcp dport 9000-9099 accept; } }");
	assert_says(look_at("10.92.0.2", 0, IPPROTO_TCP),
		    "unless another of its rules accepts them");
	assert_says(seen, "to 10.92.0.2,");
}

/* Of iptables what the same rules look like there. */
static void extensions_of_iptables(void **state)
{
	(void)state;
	NEEDS_ROOT();
	if (run("command -v iptables-nft >/dev/null") != 0)
		skip();
	assert_int_equal(
		run("iptables-nft -P FORWARD DROP && "
		    "iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT"),
		0);
	assert_says(look(), "iptables -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT\n");
	assert_int_equal(run("iptables-nft -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT"), 0);
	assert_string_equal(look(), "");
	assert_int_equal(run("iptables-nft -t mangle -A PREROUTING -j CONNMARK --save-mark"), 0);
	assert_says(look(),
		    "iptables -t mangle -I PREROUTING -m conntrack --ctstate DNAT -j RETURN\n");
	assert_int_equal(
		run("iptables-nft -t mangle -I PREROUTING -m conntrack --ctstate DNAT -j RETURN"),
		0);
	assert_string_equal(look(), "");
	assert_int_equal(run("iptables-nft -t mangle -F && iptables-nft -t mangle -A PREROUTING -j "
			     "CONNMARK --restore-mark"),
			 0);
	assert_says(look(), "makes the conntrack mark the packet's");
	assert_int_equal(run("iptables-nft -t mangle -F && iptables-nft -t mangle -A PREROUTING -m "
			     "connmark --mark 7/15 -j DROP"),
			 0);
	assert_says(look(), "takes the conntrack mark");
}

/* A large table of another: kube-proxy's is of this kind. */
static void many_rules_of_others(void **state)
{
	FILE *f;

	(void)state;
	NEEDS_ROOT();
	f = popen("nft -f -", "w");
	assert_non_null(f);
	fputs("table inet big {\nchain pass {\ntype filter hook forward priority 0; policy "
	      "drop\n}\n",
	      f);
	for (int i = 0; i < 3000; i++)
		fprintf(f, "chain c%d {\ntcp dport %d accept\n}\n", i, 10000 + i);
	for (int i = 0; i < 3000; i++)
		fprintf(f, "chain pass {\njump c%d\n}\n", i);
	fputs("}\n", f);
	assert_int_equal(pclose(f), 0);
	assert_says(look(), "table inet big, chain pass");
	assert_string_equal(look_at("10.92.0.2", 12999, IPPROTO_TCP), "");
}

/* Names as long as the kernel takes them, which differ at their ends: kube-proxy's are of this
 * kind. */
static void long_names_of_others(void **state)
{
	char x[250], *text = NULL;

	(void)state;
	NEEDS_ROOT();
	memset(x, 'x', sizeof(x));
	x[sizeof(x) - 1] = '\0';
	assert_true(
		asprintf(&text,
			 "table inet t%s { set s%s { type ipv4_addr; elements = { 10.92.0.2 }; }\n"
			 "map m%s { type inet_service : verdict; elements = { 8080 : goto c%s2 }; "
			 "}\n"
			 "chain c%s1 { accept; }\n chain c%s2 { drop; }\n"
			 "chain b%s { type filter hook forward priority 0; ip daddr @s%s tcp dport "
			 "vmap @m%s; "
			 "} }",
			 x, x, x, x, x, x, x, x, x) > 0);
	rules(text);
	free(text);
	assert_says(look(), "drops flows of route 'web' to 10.92.0.2:8080");
	do_as_advised(seen);
	assert_string_equal(look(), "");
}

/* Some block lists have far more members than are read; what is asked next is answered all the
 * same. */
static void large_sets_of_others(void **state)
{
	FILE *f;

	(void)state;
	NEEDS_ROOT();
	f = popen("nft -f -", "w");
	assert_non_null(f);
	for (int table = 0; table < 2; table++) {
		fprintf(f, "table inet big%d {\nset bad {\ntype ipv4_addr\nelements = {\n", table);
		for (int i = 0; i < 20000; i++)
			fprintf(f, "10.7.%d.%d,\n", i / 250, i % 250);
		fputs("}\n}\nchain pass {\ntype filter hook forward priority 0\nip saddr @bad "
		      "drop\n}\n}\n",
		      f);
	}
	fputs("table inet last {\nchain pass {\ntype filter hook forward priority 0; policy "
	      "drop\n}\n}\n",
	      f);
	assert_int_equal(pclose(f), 0);
	assert_says(look(), "table inet last, chain pass");
}

static void without_the_right(void **state)
{
	struct sl_nft_trouble *t = NULL;

	(void)state;
	assert_true(sl_nft_trouble_open(&t) == 0);
	sl_nft_trouble_close(t);
	sl_nft_trouble_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(all_is_well, set_up),
		cmocka_unit_test_setup(drops_are_found, set_up),
		cmocka_unit_test_setup(what_passes_is_no_trouble, set_up),
		cmocka_unit_test_setup(targets_here_meet_the_input_hook, set_up),
		cmocka_unit_test_setup(firewalld_and_docker, set_up),
		cmocka_unit_test_setup(marks_of_others, set_up),
		cmocka_unit_test_setup(settings_of_the_host, set_up),
		cmocka_unit_test_setup(a_target_without_a_port, set_up),
		cmocka_unit_test_setup(extensions_of_iptables, set_up),
		cmocka_unit_test_setup(many_rules_of_others, set_up),
		cmocka_unit_test_setup(long_names_of_others, set_up),
		cmocka_unit_test_setup(large_sets_of_others, set_up),
		cmocka_unit_test(without_the_right),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
