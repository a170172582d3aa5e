/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf_text.h"

#define V "version: 1\n"
#define R V "routes:\n  - name: a\n    match: { ports: 80 }\n    forward: h:1\n"

static const struct row syntax[] = {
	{ "", { "1:1: error: the file is empty" } },
	{ "# only a comment\n", { "1:1: error: the file is empty" } },
	{ "hello\n", { "1:1: error: a mapping" } },
	{ "[1]\n", { "1:1: error: a mapping" } },
	{ "routes: []\n", { "1:1: error: required key 'version' is missing" } },
	{ "verson: 1\nroutes: []\n",
	  { "1:1: error: unknown key 'verson', did you mean 'version'?" } },
	{ "version: 2\n", { "1:10: error: version: '2' is not supported" } },
	{ "version: \"1\"\n", { "1:10: error: version: write 1 without quotes" } },
	{ V "---\nversion: 1\n", { "2:1: error: a second document" } },
	{ V "version: 1\n", { "2:1: error: duplicate key 'version', first given at a.yaml:1:1" } },
	{ V "global: { user: &x me }\n", { "2:17: error: anchors ('x') are not read" } },
	{ V "global: { user: *x }\n", { "2:17: error: aliases ('x') are not read" } },
	{ V "global:\n  <<: *x\n", { "3:3: error: merge keys" } },
	{ V "global: { user: !!str me }\n", { "2:17: error: tags" } },
	{ V "global:\n\tuser: x\n", { "3:1: error: a tab cannot indent" } },
	{ V "global: { user: \"me }\n", { "2:17: error: the closing quote is missing" } },
	{ V "global: { user: me\n", { "2:9: error: the end of this mapping (}) is missing" } },
	{ V "a: b: c\n",
	  { "2:1: error: unknown key 'a'; known here: version, global",
	    "2:5: error: a ':' cannot" } },
	{ V "routes:\n  - name: x\n   match: 1\n", { "4:4: error: this does not fit the list" } },
	{ V "routes:\n  - name: \"\\q\"\n", { "3:12: error: unknown escape" } },
	{ V "routes:\n  - {{ x }}\n", { "3:6: error: this looks like a template" } },
	{ V "? [a]\n: 1\n", { "2:3: error: a key must be plain text" } },
	{ V "global: { user: \"a\\0b\" }\n", { "2:17: error: a NUL byte" } },
	{ R "    tls: *.x\n", { "6:10: error: '*.x' must be in quotes" } },
	{ R "    tls: @x\n", { "6:10: error: '@x' must be in quotes" } },
	{ V "global: { http: [::1]:80, user: \"\" }\n",
	  { "2:17: error: an address in brackets must be in quotes, because [ begins a list: write "
	    "\"[::1]:80\"",
	    "2:33: error: global.user: '' is not an account" } },
	{ V "global:\n  http: [fe80::1]:80\n", { "3:9: error: an address in brackets" } },
	{ V "global: { user: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
	  { "2:17: error: global.user: a single value expected, not a list",
	    "2:47: error: more than 32 levels" } },
};

static const struct row values[] = {
	{ V "global: { workers: many }\n",
	  { "2:20: error: global.workers: 'many' is not a whole number from 1 to 1024, or auto" } },
	{ V "global: { workers: 0 }\n", { "2:20: error: global.workers: '0' is not" } },
	{ V "global: { workers: [1] }\n",
	  { "2:20: error: global.workers: a single value expected" } },
	{ V "global: []\n", { "2:9: error: global: a mapping" } },
	{ V "routes: {}\n", { "2:9: error: routes: a list" } },
	{ V "routes: [1]\n", { "2:10: error: routes: a mapping" } },
	{ V "routes: [null]\n", { "2:10: error: routes: a value is missing" } },
	{ V "global: { user: }\n",
	  { "2:17: error: global.user: a value is missing (the default is "
	    "auto)" } },
	{ V "global: { user: \"0 0\" }\n",
	  { "2:17: error: global.user: '0 0' is not an account" } },
	{ V "global: { runtime_dir: run }\n",
	  { "2:24: error: global.runtime_dir: 'run' is not an absolute path, like /run/sluice" } },
	{ V "global: { http: localhost }\n",
	  { "2:17: error: global.http: 'localhost' is not an address with a port" } },
	{ V "global: { http: \"[::1]\" }\n", { "2:17: error: global.http: '[::1]' is not" } },
	{ V "global: { log: { level: dbug } }\n",
	  { "2:25: error: global.log.level: 'dbug' is not one of: error, warn, info, debug; did "
	    "you "
	    "mean 'debug'?" } },
	{ V "global: { log: { access: x.log } }\n",
	  { "2:26: error: global.log.access: 'x.log' is" } },
	{ V "global: { overload: { refuse_above: 95 } }\n",
	  { "2:37: error: global.overload.refuse_above: '95' is not a percentage" } },
	{ V "global: { overload: { refuse_above: 101% } }\n", { "2:37: error: " } },
	{ V "global: { overload: { refuse_above: 50%, resume_below: 60% } }\n",
	  { "2:56: error: global.overload.resume_below (60%) must not be above refuse_above "
	    "(50%)" } },
	{ V "global: { nft_table: \"a;b\" }\n", { "2:22: error: global.nft_table: 'a;b' is not" } },
	{ V "global: { max_conections: 1 }\n",
	  { "2:11: error: global: unknown key 'max_conections', did you mean "
	    "'max_connections'?" } },
	{ V "timeouts: { idle: 1s }\n",
	  { "2:1: error: unknown key 'timeouts'; it belongs further in: defaults.timeouts" } },
	{ R "    ports: 80\n",
	  { "6:5: error: routes[0]: unknown key 'ports'; it belongs further in: match.ports" } },
	{ R "    workers: 1\n",
	  { "6:5: error: routes[0]: unknown key 'workers'; is global.workers" } },
	{ R "    timeout: 1\n",
	  { "6:5: error: routes[0]: unknown key 'timeout', did you mean 'timeouts'?" } },
	{ R "    acme: 1\n",
	  { "6:5: error: routes[0]: unknown key 'acme'; it belongs further in: tls.acme" } },
	{ R "    zzzzzzzz: 1\n",
	  { "6:5: error: routes[0]: unknown key 'zzzzzzzz'; known here: name," } },
	{ R "    enabled: yes\n", { "6:14: error: routes[0].enabled: 'yes' is neither true nor" } },
	{ R "    half_open: \"true\"\n",
	  { "6:16: error: routes[0].half_open: write true without" } },
	{ R "    keep_alive: forever\n",
	  { "6:17: error: routes[0].keep_alive: 'forever' is not one of: standard, extended, "
	    "immortal" } },
	{ R "    timeouts: { idle: 30 }\n",
	  { "6:23: error: routes[0].timeouts.idle: '30' has no unit: write 30s" } },
	{ R "    timeouts: { idle: 1.5s }\n",
	  { "6:23: error: routes[0].timeouts.idle: '1.5s' is not a "
	    "duration" } },
	{ R "    timeouts: { connect: 0 }\n",
	  { "6:26: error: routes[0].timeouts.connect: '0' is out of range: 1ms to 1d" } },
	{ R "    timeouts: { connect: 25h }\n",
	  { "6:26: error: routes[0].timeouts.connect: '25h'" } },
	{ R "    timeouts: { idle: 99999999999999999999d }\n", { "6:23: error: " } },
	{ R "    security: { max_connections: -1 }\n", { "6:34: error: " } },
	{ R "    security: { max_connections: 1e3 }\n", { "6:34: error: " } },
	{ R "    security: { new_connections_per_ip: 5 }\n",
	  { "6:41: error: routes[0].security.new_connections_per_ip: '5' is not a rate: write "
	    "50/s" } },
	{ R "    security: { new_connections: 5, packets: 5/h, refuse: close }\n",
	  { "6:34: error: routes[0].security.new_connections: '5' is not a rate: write 50/s",
	    "6:46: error: routes[0].security.packets: '5/h' is not a rate",
	    "6:59: error: routes[0].security.refuse: 'close' is not one of: reset, icmp, drop" } },
	{ R "    security: { new_connections_per_ip: 99999999999/s }\n",
	  { "6:41: error: routes[0].security.new_connections_per_ip: '99999999999/s' is out of" } },
	{ V "listeners:\n  - backlog: 1\n", { "3:5: error: listeners[0]: required key 'ports'" } },
	{ V "listeners:\n  - { ports: 80, backlog: 0 }\n",
	  { "3:27: error: listeners[0].backlog: '0'" } },
	{ R "defaults: { name: x }\n", { "6:13: error: defaults: unknown key 'name'" } },
	{ R "defaults: { forward: h:1 }\n", { "6:22: error: defaults.forward: a mapping" } },
};

#define M(ports) V "routes:\n  - name: a\n    forward: h:1\n    match: { ports: " ports " }\n"
#define F(forward) V "routes:\n  - name: a\n    match: { ports: 80 }\n    forward: " forward "\n"

static const struct row routes[] = {
	{ V "routes:\n  - match: { ports: 80 }\n",
	  { "3:5: error: routes[0]: required key 'name' is missing",
	    "3:5: error: routes[0]: required key 'forward' is missing" } },
	{ V "routes:\n  - { name: a, forward: h:1 }\n",
	  { "3:5: error: routes[0]: required key 'match' is missing" } },
	{ V "routes:\n  - { name: a, forward: h:1, match: { } }\n",
	  { "3:37: error: routes[0].match: required key 'ports' is missing, as in" } },
	{ V "routes:\n  - { name: a b, forward: h:1, match: { ports: 1 } }\n",
	  { "3:13: error: routes[0].name: 'a b' is not a name of 1 to 64" } },
	{ V "routes:\n  - { name: a, forward: h:1, match: { ports: 1 }, redirect: { to: x } }\n",
	  { "3:51: error: routes[0]: 'redirect' is not supported by this build",
	    "3:51: error: routes[0]: 'redirect' and 'forward' (at a.yaml:3:16) exclude each "
	    "other" } },
	{ V "routes:\n  - { name: a, forwrad: h:1, match: { ports: 1 } }\n",
	  { "3:16: error: routes[0]: unknown key 'forwrad', did you mean 'forward'?" } },
	{ R "  - { name: a, match: { ports: 81 }, forward: h:1 }\n",
	  { "6:13: error: the name 'a' is already used by the route at a.yaml:3:11" } },
	{ M("[]"), { "5:21: error: routes[0].match.ports: at least one" } },
	{ M("0"), { "5:21: error: routes[0].match.ports: '0' is not a port" } },
	{ M("53/udp"),
	  { "5:21: error: routes[0].match.ports: '53/udp': ports stand alone; 'protocol: udp'" } },
	{ M("65536"), { "5:21: error: routes[0].match.ports: '65536' is not a port" } },
	{ M("[80, 80-, -80]"), { "5:26: error: routes[0].match.ports: '80-'", "5:31: error: " } },
	{ M("81-80"),
	  { "5:21: error: routes[0].match.ports: '81-80' is the wrong way round: write "
	    "80-81" } },
	{ M("localhost:80"),
	  { "5:21: error: routes[0].match.ports: 'localhost:80' does not begin" } },
	{ M("\"*:80\""),
	  { "5:21: error: routes[0].match.ports: '*:80': for every address write the "
	    "port alone, like 80" } },
	{ M("\"::1:80\""),
	  { "5:21: error: routes[0].match.ports: '::1:80': put the IPv6 address" } },
	{ M("\"[10.0.0.1]:80\""),
	  { "5:21: error: routes[0].match.ports: '[10.0.0.1]:80': only an" } },
	{ M("{ a: 1 }"), { "5:21: error: routes[0].match.ports: a single value expected" } },
	{ F("10.0.0.1"),
	  { "5:14: error: routes[0].forward: '10.0.0.1' has no port: write "
	    "10.0.0.1:PORT" } },
	{ F("\"::1\""),
	  { "5:14: error: routes[0].forward: '::1' has no port: write \"[::1]:PORT\"" } },
	{ F("h:0"), { "5:14: error: routes[0].forward: 'h:0' does not end in a port" } },
	{ F("h:65536"), { "5:14: error: " } },
	{ F("999.1.1.1:80"), { "5:14: error: routes[0].forward: '999.1.1.1' is not an IPv4" } },
	{ F("10.0.1:80"), { "5:14: error: routes[0].forward: '10.0.1' is not an IPv4" } },
	{ F("0.0.0.0:80"), { "5:14: error: routes[0].forward: '0.0.0.0:80' is no address" } },
	{ F("224.0.0.1:80"), { "5:14: error: routes[0].forward: '224.0.0.1:80' is no address" } },
	{ F("255.255.255.255:80"),
	  { "5:14: error: routes[0].forward: '255.255.255.255:80' is no address" } },
	{ F("\"[ff02::1]:80\""),
	  { "5:14: error: routes[0].forward: '[ff02::1]:80' is no address" } },
	{ F("\"::1:z\""), { "5:14: error: routes[0].forward: '::1:z' is not a target" } },
	{ F("\"[::1:80\""), { "5:14: error: routes[0].forward: '[::1:80': the closing bracket" } },
	{ F("\"[h]:80\""), { "5:14: error: routes[0].forward: '[h]:80' is not an IPv6 address" } },
	{ F("-h:80"), { "5:14: error: " } },
	{ F("h-:80"), { "5:14: error: " } },
	{ F("a..b:80"), { "5:14: error: " } },
	{ F("\":80\""), { "5:14: error: " } },
	{ F("http://h:80"), { "5:14: error: " } },
	{ F("\"h\\u00e9:80\""), { "5:14: error: " } },
	{ F("[]"), { "5:14: error: routes[0].forward: at least one" } },
	{ F("{ targets: [] }"), { "5:25: error: routes[0].forward.targets: at least one" } },
	{ F("{ retries: 1 }"), { "5:14: error: routes[0].forward: required key 'targets'" } },
	{ F("{ targets: h:1, retries: 11 }"), { "5:39: error: routes[0].forward.retries: '11'" } },
	{ F("[h:1, i:1, h:1]"),
	  { "5:25: error: the target 'h:1' is already in this route, at "
	    "a.yaml:5:15" } },
	{ F("{ targets: [{ adress: h:1 }] }"),
	  { "5:28: error: routes[0].forward.targets[0]: unknown key 'adress', did you mean "
	    "'address'?" } },
	{ V "global: { http: \"127.0.0.1:80\" }\nroutes:\n"
	    "  - { name: a, match: { ports: 80 }, forward: h:1 }\n",
	  { "4:32: error: this port is taken by global.http (at a.yaml:2:17)" } },
	{ M("80, domains: [a.example, \"b.example:443\"]"),
	  { "5:46: error: routes[0].match.domains: 'b.example:443': a domain has no port: write "
	    "'b.example' here and the port in match.ports" } },
	{ M("80, domains: \"b\xc3\xbc"
	    "cher.example\""),
	  { "5:34: error: routes[0].match.domains: 'b\xc3\xbc"
	    "cher.example' is not ASCII: write the "
	    "name's A-label, which begins with xn--" } },
	{ M("80, domains: [a..b, a b, .a, \"\", a_b]"),
	  { "5:35: error: routes[0].match.domains: 'a..b' is not a domain like",
	    "5:41: error: routes[0].match.domains: 'a b' is not a domain",
	    "5:46: error: routes[0].match.domains: '.a' is not", "5:50: error: " } },
	{ M("80, domains: \"https://a.example/\""),
	  { "5:34: error: routes[0].match.domains: 'https://a.example/' is more than a domain" } },
	{ M("80, domains: *.a.example"), { "5:34: error: '*.a.example' must be in quotes" } },
	{ M("80, domians: a.example"),
	  { "5:25: error: routes[0].match: unknown key 'domians', did you mean 'domains'?" } },
	{ M("80, clients: [10.0.0.0/33, 10.0.0.256, a.example, 10.0.0.9-10.0.0.1]"),
	  { "5:35: error: routes[0].match.clients: '10.0.0.0/33' is not an address or a network",
	    "5:48: error: routes[0].match.clients: '10.0.0.256' is not an address",
	    "5:60: error: routes[0].match.clients: 'a.example' is not an address",
	    "5:71: error: routes[0].match.clients: '10.0.0.9-10.0.0.1' is not an address" } },
	{ M("80, path: api"),
	  { "5:31: error: routes[0].match.path: 'api' is not a path like /api/:version/*: it must "
	    "begin with '/'" } },
	{ M("80, tls: { versions: [\"1.4\"], alpn: [\"h 2\"] }"),
	  { "5:43: error: routes[0].match.tls.versions: '1.4' is not one of: 1.0, 1.1, 1.2, 1.3",
	    "5:58: error: routes[0].match.tls.alpn: 'h 2' is not a protocol's name" } },
	{ M("80, tls: { version: \"1.2\" }"),
	  { "5:32: error: routes[0].match.tls: unknown key 'version', did you mean 'versions'?" } },
	{ R "    priority: -1\n",
	  { "6:15: error: routes[0].priority: '-1' is not a whole number from 0 to 1000000" } },
	{ F("{ targets: h:1, balance: least_con }"),
	  { "5:39: error: routes[0].forward.balance: 'least_con' is not one of: round_robin, "
	    "least_conn, random, source_hash, maglev; did you mean 'least_conn'?" } },
	{ F("{ targets: [ { address: h:1, weight: 1001, backup: 1 } ] }"),
	  { "5:51: error: routes[0].forward.targets[0].weight: '1001' is not a whole number from 0 "
	    "to 1000",
	    "5:65: error: routes[0].forward.targets[0].backup: '1' is neither true nor false" } },
	{ F("{ targets: h:1, health: { path: health, every: 0, fal: 3 } }"),
	  { "5:46: error: routes[0].forward.health.path: 'health' is not a path that begins with",
	    "5:61: error: routes[0].forward.health.every: '0' is out of range: 10ms to 1d",
	    "5:64: error: routes[0].forward.health: unknown key 'fal', did you mean 'fall'?" } },
	{ F("{ targets: h:1, health: true }"),
	  { "5:38: error: routes[0].forward.health: 'true' is not one of: none; or a mapping of: "
	    "every, timeout, " } },
	{ F("{ targets: h:1, send_proxy: v3 }"),
	  { "5:42: error: routes[0].forward.send_proxy: 'v3' is not one of: none, v1, v2" } },
	{ F("{ targets: h:1, send_proxy: { crc32c: true } }"),
	  { "5:42: error: routes[0].forward.send_proxy: required key 'version' is missing" } },
	{ F("{ targets: h:1, send_proxy: { version: none } }"),
	  { "5:53: error: routes[0].forward.send_proxy.version: 'none' is not one of: v1, v2" } },
	{ F("{ targets: h:1, send_proxy: { version: v1, crc32c: true, alpn: false } }"),
	  { "5:57: error: routes[0].forward.send_proxy: 'crc32c' needs version v2: v1 (at "
	    "a.yaml:5:53) has no room for it" } },
	{ R "    security: { alow: [10.0.0.1], deny: 10.0.0.0/99 }\n",
	  { "6:17: error: routes[0].security: unknown key 'alow', did you mean 'allow'?",
	    "6:41: error: routes[0].security.deny: '10.0.0.0/99' is not an address" } },
	{ R "global: { security: { allow: x, deny_file: y, enforce: z } }\n",
	  { "6:30: error: global.security.allow: 'x' is not an address",
	    "6:44: error: global.security.deny_file: 'y' is not an absolute path",
	    "6:56: error: global.security.enforce: 'z' is not one of: kernel, userspace" } },
	{ R "listeners: [ { ports: 80, accept_proxy: { required: false } } ]\n",
	  { "6:41: error: listeners[0].accept_proxy: required key 'from' is missing" } },
	{ R "listeners: [ { ports: 80, accept_proxy: { from: [] } } ]\n",
	  { "6:49: error: listeners[0].accept_proxy.from: at least one" } },
	{ R "listeners: [ { ports: 80, accept_proxy: { from: a, requird: true } } ]\n",
	  { "6:49: error: listeners[0].accept_proxy.from: 'a' is not an address",
	    "6:52: error: listeners[0].accept_proxy: unknown key 'requird', did you mean" } },
	{ R "listeners:\n  - { ports: 80, accept_proxy: { from: 10.0.0.1 } }\n"
	    "  - { ports: \"10.0.0.1:70-90\" }\n",
	  { "8:14: error: accept_proxy differs for port 80 from that of the listener at "
	    "a.yaml:7:18" } },
	{ R "listeners:\n  - { ports: [70-75, 76-90], accept_proxy: { from: 10.0.0.1 } }\n"
	    "  - { ports: \"0.0.0.0:74-80\", accept_proxy: { from: 10.0.0.1, required: false } }\n",
	  { "8:31: error: accept_proxy differs for port 74 from that of the listener at "
	    "a.yaml:7:30" } },
	{ R "listeners:\n  - { ports: \"10.0.0.1:80\", accept_proxy: { from: 10.0.0.1 } }\n"
	    "  - { ports: \"0.0.0.0:80\", accept_proxy: { from: [10.0.0.1, 10.0.0.2] } }\n"
	    "  - { ports: [1-79], accept_proxy: { from: [10.0.0.1, 10.0.0.2] } }\n",
	  { "8:28: error: accept_proxy differs for port 80 from that of the listener at "
	    "a.yaml:7:29" } },
	{ R "listeners:\n  - { ports: [80, 80-90], accept_proxy: { from: 10.0.0.1 } }\n"
	    "  - ports: 85\n",
	  { "7:19: error: a port of this listener is already described at a.yaml:7:15",
	    "8:12: error: a port of this listener is already described at a.yaml:7:19, where "
	    "accept_proxy differs" } },
	{ R "listeners:\n  - ports: [80, 80-90]\n",
	  { "7:17: error: a port of this listener is already described at a.yaml:7:13" } },
};

#define X64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define PACKET(what) R "global: { packet: { " what " } }\n"

static const struct row packet[] = {
	{ PACKET("hook: tcx"),
	  { "6:27: error: global.packet.hook: 'tcx' is not one of: auto, tc, xdp, off" } },
	{ PACKET("interfaces: eth0/1"),
	  { "6:33: error: global.packet.interfaces: 'eth0/1' is not a name of an interface" } },
	{ PACKET("interfaces: [eth0, abcdefghijklmnop]"), { "6:40: error: " } },
	{ PACKET("interfaces: [.., \"a:1\", \"a b\", \"\"]"),
	  { "6:34: error: ", "6:38: error: ", "6:45: error: ", "6:52: error: " } },
	{ PACKET("interfaces: [eth0, auto]"),
	  { "6:40: error: global.packet.interfaces: 'auto' stands alone" } },
	{ PACKET("interfaces: [auto]"),
	  { "6:34: error: global.packet.interfaces: 'auto' stands alone" } },
	{ PACKET("interfaces: []"),
	  { "6:33: error: global.packet.interfaces: an empty list; 'auto' means all" } },
	{ PACKET("ports: 40000-40062"),
	  { "6:28: error: global.packet.ports: '40000-40062' has too few ports: at least 64" } },
	{ PACKET("ports: 40000"), { "6:28: error: global.packet.ports: '40000' has too few" } },
	{ PACKET("ports: 1023-2000"), { "6:28: error: global.packet.ports: '1023-2000' begins" } },
	{ PACKET("ports: 2000-1500"),
	  { "6:28: error: global.packet.ports: '2000-1500' is the wrong way round" } },
	{ PACKET("ports: \"10.0.0.1:2000-3000\""),
	  { "6:28: error: global.packet.ports: '10.0.0.1:2000-3000' is not a range" } },
	{ PACKET("ports: 40000-70000"), { "6:28: error: global.packet.ports: '40000-70000'" } },
	{ PACKET("ports: [40000-59999]"), { "6:28: error: global.packet.ports: a single value" } },
	{ PACKET("max_flows: 0"), { "6:32: error: global.packet.max_flows: '0' is not" } },
	{ PACKET("max_flows: 16777217"), { "6:32: error: global.packet.max_flows: " } },
	{ PACKET("after_bytes: 2TiB"), { "6:34: error: global.packet.after_bytes: '2TiB'" } },
	{ PACKET("after_age: 2d"), { "6:32: error: global.packet.after_age: '2d' is out" } },
	{ PACKET("after_age: 5"), { "6:32: error: global.packet.after_age: '5' has no unit" } },
	/* what cannot be done */
	{ R "    engine: packet\nglobal: { packet: { hook: off } }\n",
	  { "6:13: error: routes[0]: 'engine: packet' cannot be had with 'hook: off' of "
	    "global.packet (at a.yaml:7:27)" } },
	{ R "defaults: { engine: packet }\nglobal: { packet: { hook: off } }\n",
	  { "6:21: error: defaults: 'engine: packet' cannot be had with 'hook: off' of "
	    "global.packet (at a.yaml:7:27)" } },
	{ M("80, path: /a") "    engine: packet\n",
	  { "5:25: error: routes[0]: 'match.path' cannot be had with 'engine: packet' (at "
	    "a.yaml:6:13)",
	    "5:31: warning: routes[0].match.path: this build reads no HTTP requests" } },
	{ M("80, path: /a") "defaults: { engine: packet }\n",
	  { "5:25: error: routes[0]: 'match.path' cannot be had with 'engine: packet' (at "
	    "a.yaml:6:21)",
	    "5:31: warning: routes[0].match.path: this build reads no HTTP requests" } },
	{ R "global: { bpf_dir: /" X64 X64 X64 X64 " }\n", { "6:20: error: global.bpf_dir: '/x" } },
};

#define LATER(path, key)                                                    \
	{                                                                   \
		"6:" path ": error: " key " is not supported by this build" \
	}

static const struct row later[] = {
	{ R "global: { security: { deny: [10.0.0.0/33] } }\n", { "6:30: error: " } },
	{ R "acme: { email: a@b }\n", LATER("9", "acme: 'email'") },
	{ R "    tls: acme\n", LATER("10", "routes[0].tls: 'acme'") },
	{ R "    tls: { acme: { email: a@b } }\n", LATER("12", "routes[0].tls: 'acme'") },
	{ R "    tls: { acme: {} }\n", LATER("12", "routes[0].tls: 'acme'") },
	{ R "    tls: { cert: /c, acme: {} }\n", LATER("22", "routes[0].tls: 'acme'") },
	{ R "    tls: { cert: c }\n",
	  { "6:18: error: routes[0].tls.cert: 'c' is not an absolute" } },
	{ R "    http: { paths: [ { path: /, forward: h:1 } ] }\n",
	  { "6:5: error: routes[0]: 'http' is not supported",
	    "6:5: error: routes[0]: 'http' and 'forward'" } },
	{ R "    timeouts: { request_body: 1s }\n",
	  LATER("17", "routes[0].timeouts: 'request_body'") },
	{ R "    security: { basic_auth: { users_file: /u } }\n",
	  LATER("17", "routes[0].security: 'basic_auth'") },
	{ M("80, headers: { a: b }"), { "5:25: error: routes[0].match: 'headers' is not" } },
};

static const struct row warnings[] = {
	{ M("59999"),
	  { "5:21: warning: a port of these is in global.packet.ports (40000-59999)" } },
	{ M("[80, 30000-40000]"),
	  { "5:26: warning: a port of these is in global.packet.ports (40000-59999), from" } },
	{ M("[80, 450-550]") "global: { packet: { ports: 1024-2000 } }\n", { NULL } },
	{ M("[80, 2000-2001]") "global: { packet: { ports: 1024-2000 } }\n",
	  { "5:26: warning: a port of these is in global.packet.ports (1024-2000, at "
	    "a.yaml:6:28), from" } },
	{ M("50000") "global: { packet: { hook: off } }\n", { NULL } },
	{ M("[50000, 50010]"), { "5:22: warning: a port of these" } }, /* said once */
	{ V, { "1:1: warning: there is no route" } },
	{ V "routes:\n  - { name: a, enabled: false, match: { ports: 80 }, forward: h:1 }\n",
	  { "1:1: warning: every route is disabled" } },
	{ R "  - { name: b, match: { ports: 80 }, forward: h:1 }\n",
	  { "6:32: warning: the route 'b' can never match: the route 'a' at a.yaml:3:11 has its "
	    "ports "
	    "already" } },
	{ R "  - { name: b, match: { ports: [80, 81] }, forward: h:1 }\n", { NULL } },
	{ R "  - { name: b, match: { ports: \"10.0.0.1:80\" }, forward: h:1 }\n", { NULL } },
	{ R "  - { name: b, enabled: false, match: { ports: 80 }, forward: h:1 }\n", { NULL } },
	{ R "  - { name: b, match: { ports: 81-90 }, forward: h:1 }\n"
	    "  - { name: c, match: { ports: [80-85, 90] }, forward: h:1 }\n",
	  { "7:33: warning: the route 'c' can never match" } },
	/* who has criteria hides nobody, and is hidden by nobody of its own priority */
	{ R "  - { name: b, match: { ports: 80, domains: a.example }, forward: h:1 }\n", { NULL } },
	{ R "  - { name: b, match: { ports: 80, clients: 10.0.0.0/8 }, forward: h:1 }\n",
	  { NULL } },
	{ R "  - { name: b, match: { ports: 80, tls: { alpn: h2 } }, forward: h:1 }\n", { NULL } },
	{ R "  - { name: b, match: { ports: 80, tls: { versions: 1.3 } }, forward: h:1 }\n",
	  { NULL } },
	{ M("80, clients: 10.0.0.0/8") "  - { name: b, match: { ports: 80 }, forward: h:1 }\n",
	  { NULL } },
	{ R "  - { name: b, priority: 1, match: { ports: 80 }, forward: h:1 }\n",
	  { "4:21: warning: the route 'a' can never match: the route 'b' at a.yaml:6:13 has its "
	    "ports already" } },
	{ R "  - { name: b, priority: 2, match: { ports: 70-90 }, forward: h:1 }\n"
	    "  - { name: c, priority: 1, match: { ports: [\"10.0.0.1:80-81\", \"[::1]:80\"], "
	    "domains: x.example, clients: 10.* }, forward: h:1 }\n"
	    "  - { name: d, priority: 2, match: { ports: \"10.0.0.1:80\" }, forward: h:1 }\n"
	    "  - { name: e, priority: 1, match: { ports: \"10.0.0.1:90-91\" }, forward: h:1 }\n",
	  { "4:21: warning: the route 'a' can never match: the route 'b' at a.yaml:6:13",
	    "7:46: warning: the route 'c' can never match: the route " } },
	{ R "  - { name: b, priority: 2, match: { ports: \"0.0.0.0:80\" }, forward: h:1 }\n"
	    "  - { name: c, match: { ports: \"10.0.0.1:80\" }, forward: h:1 }\n"
	    "  - { name: d, match: { ports: \"[::1]:80\" }, forward: h:1 }\n",
	  { "7:32: warning: the route 'c' can never match: the route 'b' at a.yaml:6:13" } },
	{ M("80, domains: [A.example, b.example]") "  - { name: b, match: { ports: 80, domains: "
						   "b.example. }, forward: h:1 }\n"
						   "  - { name: c, match: { ports: 80, domains: "
						   "\"*.example\" }, forward: h:1 }\n"
						   "  - { name: d, match: { ports: 80-81, domains: "
						   "b.example }, forward: h:1 }\n"
						   "  - { name: e, match: { ports: 80, domains: "
						   "[b.example, c.example] }, "
						   "forward: h:1 }\n",
	  { "6:32: warning: the route 'b' can never match: the route 'a' at a.yaml:3:11 has its "
	    "ports and domains already" } },
	{ M("80, domains: b.example") "  - { name: b, match: { ports: 80, domains: b.example, "
				      "clients: 10.* }, "
				      "forward: h:1 }\n"
				      "  - { name: c, match: { ports: \"10.0.0.1:80\", domains: "
				      "b.example }, "
				      "forward: h:1 }\n",
	  { NULL } },
	{ M("80, domains: b.example, clients: 10.*") "  - { name: b, match: { ports: 80, domains: "
						     "b.example }, forward: h:1 }\n",
	  { NULL } },
	{ M("80, domains: \"*.b.example\"") "  - { name: b, priority: 1, match: { ports: [80, 81], "
					    "domains: [x.example, "
					    "\"*.b.example\"] }, forward: h:1 }\n",
	  { "5:21: warning: the route 'a' can never match: the route 'b' at a.yaml:6:13 has its "
	    "ports and domains already" } },
	{ M("80, path: /x/*"),
	  { "5:31: warning: routes[0].match.path: this build reads no HTTP requests" } },
	{ M("80, clients: [10.0.0.1/8, \"2001:db8::1/32\", 10.0.0.0/8, 10.0.0.1/32]"),
	  { "5:35: warning: routes[0].match.clients: '10.0.0.1/8' has bits beyond its prefix: it "
	    "means 10.0.0.0/8",
	    "5:47: warning: routes[0].match.clients: '2001:db8::1/32' has bits beyond its prefix: "
	    "it means 2001:db8::/32" } },
	{ R "global: { security: { deny: \"::ffff:10.0.0.1/104\" } }\n",
	  { "6:29: warning: global.security.deny: '::ffff:10.0.0.1/104' has bits beyond its "
	    "prefix: it means 10.0.0.0/8" } },
	{ F("{ targets: [ { address: h:1, weight: 0 }, { address: h:2, weight: 0 } ] }"),
	  { "5:38: warning: every target of this route has the weight 0: no connection" } },
	{ F("{ targets: [ { address: h:1, backup: true } ] }"),
	  { "5:38: warning: every target of this route is a backup: the backups get all" } },
	{ F("[ { address: h:1, backup: true }, { address: h:2, weight: 0 } ]"),
	  { "5:27: warning: every target but the backups has the weight 0: the backups get" } },
	{ F("[ { address: h:1, weight: 0 }, h:2 ]"), { NULL } },
	{ F("{ targets: h:1, health: { every: 1s, timeout: 2s } }"),
	  { "5:60: warning: routes[0].forward.health: the timeout of a check (2s) is longer than "
	    "the time between two (1s, at a.yaml:5:47)" } },
	{ F("{ targets: h:1, health: { every: 500ms } }"), { NULL } },
	{ R "defaults: { forward: { health: { every: 500ms } } }\n", { NULL } },
	{ "version: 1\ndefaults: { forward: { health: { timeout: 1s } } }\nroutes:\n"
	  "  - { name: a, match: { ports: 1 }, forward: { targets: h:1, health: { every: 500ms } } "
	  "}\n",
	  { "4:79: warning: routes[0].forward.health: the timeout of a check (1s, not given "
	    "here) is longer than the time between two (500ms)" } },
	{ R "defaults: { forward: { health: { timeout: 3s } } }\n",
	  { "6:43: warning: defaults.forward.health: the timeout of a check (3s) is longer" } },
	{ F("{ targets: h:1, health: { every: 1s, timeout: 1s } }"), { NULL } },
	{ R "listeners: [ { ports: 81 } ]\n", { "6:23: warning: no enabled route listens here" } },
	{ M("9180"), { "5:21: warning: this port is the default of global.http" } },
	{ F("{ targets: \"10.0.0.1:80\", port: preserve }"),
	  { "5:25: warning: routes[0].forward.targets: the port of '10.0.0.1:80' is not used" } },
};

static void syntax_is_explained(void **state)
{
	(void)state;
	check_rows(build_text, syntax, SL_ARRAY_LEN(syntax));
}

static void values_are_checked(void **state)
{
	(void)state;
	check_rows(build_text, values, SL_ARRAY_LEN(values));
}

static void routes_are_checked(void **state)
{
	(void)state;
	check_rows(build_text, routes, SL_ARRAY_LEN(routes));
}

static void the_packet_engine_is_checked(void **state)
{
	(void)state;
	check_rows(build_text, packet, SL_ARRAY_LEN(packet));
}

static void later_keys_are_refused(void **state)
{
	(void)state;
	check_rows(build_text, later, SL_ARRAY_LEN(later));
}

static void suspicious_things_are_warned_of(void **state)
{
	(void)state;
	check_rows(build_text, warnings, SL_ARRAY_LEN(warnings));
}

/* The whole form, once for each way a line can be shown. */
static void messages_look_right(void **state)
{
	static const struct {
		const char *text;
		size_t len; /* 0: of the text */
		const char *want;
	} rows[] = {
		{ V "global:\n  workers: x\n", 0,
		  "a.yaml:3:12: error: global.workers: 'x' is not a whole number from 1 to 1024, "
		  "or "
		  "auto\n"
		  "    3 |   workers: x\n"
		  "      |            ^\n" },
		{ "{\n\t\"version\":\t7 }\n", 0,
		  "a.yaml:2:13: error: version: '7' is not supported: the only value is 1\n"
		  "    2 |         \"version\":      7 }\n"
		  "      |                         ^\n" },
		{ V "global: { user: \"\xe6\x97\xa5\xc3\xa9\", workers: x }\n", 0,
		  "a.yaml:2:17: error: global.user: '\xe6\x97\xa5\xc3\xa9' is not an account, like "
		  "sluice\n"
		  "    2 | global: { user: \"\xe6\x97\xa5\xc3\xa9\", workers: x }\n"
		  "      |                 ^\n"
		  "a.yaml:2:32: error: global.workers: 'x' is not a whole number from 1 to 1024, "
		  "or "
		  "auto\n"
		  "    2 | global: { user: \"\xe6\x97\xa5\xc3\xa9\", workers: x }\n"
		  "      |                                 ^\n" },
		{ V "global: { # \xff \x1b[31m\n", 0,
		  "a.yaml:2:9: error: the end of this mapping (}) is missing\n"
		  "    2 | global: { # \\xff \\x1b[31m\n"
		  "      |         ^\n"
		  "a.yaml:2:13: error: byte 0xff is not valid UTF-8\n"
		  "    2 | global: { # \\xff \\x1b[31m\n"
		  "      |             ^\n"
		  "a.yaml:2:15: error: control character U+001B in the text\n"
		  "    2 | global: { # \\xff \\x1b[31m\n"
		  "      |                  ^\n" },
		{ "version: 1\n\0", 12,
		  "a.yaml:2:1: error: a NUL byte in the text\n"
		  "    2 | \\x00\n"
		  "      | ^\n" },
		{ "\xef\xbb\xbfversion: 7\r\n", 0,
		  "a.yaml:1:10: error: version: '7' is not supported: the only value is 1\n"
		  "    1 | version: 7\n"
		  "      |          ^\n" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		size_t len = rows[i].len ? rows[i].len : strlen(rows[i].text);
		_cleanup_(built_done) struct built b = build_two(rows[i].text, len, NULL);
		const char *got = sl_str_text(&b.diags.text);

		/* after a stray byte alone there may be more to say */
		if (strncmp(got, rows[i].want, strlen(rows[i].want)) != 0)
			fail_msg("row %zu, want:\n%sgot:\n%s", i, rows[i].want, got);
	}
}

static void long_lines_are_cut(void **state)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	const char *line, *caret;

	(void)state;
	sl_str_adds(&text, V "global: { ");
	for (int i = 0; i < 20000; i++)
		sl_str_adds(&text, "          ");
	sl_str_adds(&text, "workers: here,");
	for (int i = 0; i < 1000; i++)
		sl_str_adds(&text, "          ");
	sl_str_adds(&text, "}\n");
	_cleanup_(built_done) struct built b = build_text(text.p);
	assert_int_equal(b.diags.n_errors, 1);
	assert_true(b.diags.text.len < 400);
	line = strstr(b.diags.text.p, "    2 | ...");
	caret = strstr(b.diags.text.p, "\n      | ");
	assert_non_null(line);
	assert_non_null(caret);
	assert_int_equal(strstr(line, "here") - line, strchr(caret, '^') - (caret + 1));
}

/* A file full of errors says so without printing all of them. */
static void output_is_bounded(void **state)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	(void)state;
	sl_str_adds(&text, V "routes:\n");
	for (int i = 0; i < 50000; i++)
		sl_str_adds(&text, "  - nome: x\n");
	_cleanup_(built_done) struct built b = build_text(text.p);
	assert_true(b.diags.n_errors >= 50000);
	assert_true(b.diags.text.len < 100 * 400);
	assert_non_null(strstr(b.diags.text.p, " more errors\n"));
}

static void two_files_are_one(void **state)
{
	static const struct {
		const char *second;
		const char *want; /* NULL: good */
	} rows[] = {
		{ "routes:\n  - { name: b, match: { ports: 81 }, forward: h:1 }\n", NULL },
		{ "version: 1\nlisteners: [ { ports: 80, backlog: 5 } ]\n", NULL },
		{ "", NULL },
		{ "# nothing\n", NULL },
		{ "null\n", NULL },
		{ "version: 3\n", "conf.d/b.yaml:1:10: error: version: '3' is not supported" },
		{ "global: { workers: 1 }\n",
		  "conf.d/b.yaml:1:1: error: 'global' is already given at "
		  "a.yaml:6:1: it belongs in one file" },
		{ "routes:\n  - { name: a, match: { ports: 81 }, forward: h:1 }\n",
		  "conf.d/b.yaml:2:13: error: the name 'a' is already used by the route at "
		  "a.yaml:3:11" },
		{ "routes:\n  - { name: b, match: { ports: 81 }, forward: h }\n",
		  "conf.d/b.yaml:2:47: error: routes[0].forward: 'h' has no port" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		const char *first = R "global: { workers: 2 }\n";
		_cleanup_(built_done) struct built b =
			build_two(first, strlen(first), rows[i].second);
		const char *got = sl_str_text(&b.diags.text);

		if (!rows[i].want && b.r < 0)
			fail_msg("%s", got);
		if (rows[i].want && (b.diags.n_errors != 1 || !strstr(got, rows[i].want)))
			fail_msg("want %s, got:\n%s", rows[i].want, got);
	}
}

/* Whatever is cut off or replaced, there is an answer and no crash (see also fuzz_conf). */
static void every_prefix_and_change_ends(void **state)
{
	static const char text[] =
		V "global: { http: none, log: { access: \"/a\" } }\nroutes:\n  - name: a\n"
		  "    match: { ports: [80, \"[::1]:81-82\"] }\n    forward:\n      targets:\n"
		  "        - h:1\n        - { address: i:2 }\n";
	static const char changes[] = { 0,   '\t', '\n', '"', '&', '*',
					':', '[',  '{',  '}', '-', (char)0xff };
	size_t n = sizeof(text) - 1;
	char copy[sizeof(text)];

	(void)state;
	for (size_t i = 0; i <= n; i++) {
		_cleanup_(built_done) struct built b = build_two(text, i, NULL);

		assert_true(b.r == 0 || b.r == -EINVAL);
	}
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < sizeof(changes); k++) {
			memcpy(copy, text, sizeof(text));
			copy[i] = changes[k];
			_cleanup_(built_done) struct built b = build_two(copy, n, NULL);

			assert_true(b.r == 0 || b.r == -EINVAL);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(syntax_is_explained),
		cmocka_unit_test(values_are_checked),
		cmocka_unit_test(routes_are_checked),
		cmocka_unit_test(the_packet_engine_is_checked),
		cmocka_unit_test(later_keys_are_refused),
		cmocka_unit_test(suspicious_things_are_warned_of),
		cmocka_unit_test(messages_look_right),
		cmocka_unit_test(long_lines_are_cut),
		cmocka_unit_test(output_is_bounded),
		cmocka_unit_test(two_files_are_one),
		cmocka_unit_test(every_prefix_and_change_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
