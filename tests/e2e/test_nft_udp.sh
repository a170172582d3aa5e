#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Datagrams through the kernel's NAT: a real DNS server and client, both families, ranges, a sender that
# never pauses while its target goes away, and records with their ends.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"
need dnsmasq

nat_up
in_ns proxy sysctl -qw net.netfilter.nf_conntrack_udp_timeout=3 net.netfilter.nf_conntrack_udp_timeout_stream=3
OUT=$LAB_DIR/dns.out spawn backend dnsmasq --keep-in-foreground --no-resolv --no-hosts --listen-address=$BACKEND_IP \
	--listen-address=$BACKEND6 --bind-interfaces --user=root --pid-file= --conf-file=/dev/null --port=5353 \
	--address=/web.test/192.0.2.80 --address=/web.test/2001:db8::80 --txt-record=big.test,"$(printf 'x%.0s' {1..200})"
wait_for eval "in_ns backend ss -Hlun 'sport = :5353' | grep -q ."
udp_server a backend 8001
udp_server b backend 8002
udp_server r backend 9005
udp_server here proxy 8011 127.0.0.1

conf() { # TARGET of moves
	cat <<-TEXT
		defaults: { timeouts: { idle: 10m } }
		routes:
		$(uroute dns "53" "[ \"$BACKEND_IP:5353\", \"[$BACKEND6]:5353\" ]")
		$(nroute dns-tcp "53" "[ \"$BACKEND_IP:5353\", \"[$BACKEND6]:5353\" ]")
		$(uroute own 8081 "{ targets: \"$BACKEND_IP:8001\", preserve_source: true }")
		$(uroute moves 8082 "$1")
		$(uroute same 9000-9099 "{ targets: $BACKEND_IP, port: preserve }")
		$(uroute loop 8083 '"127.0.0.1:8011"')
		$(uroute lb 8084 "[ \"$BACKEND_IP:8001\", \"$BACKEND_IP:8002\" ]")
		$(uroute closed 8085 "\"$BACKEND_IP:8009\"")
		$(uroute hair 8001 "{ targets: [ \"$BACKEND_IP:8001\", \"[$BACKEND6]:8001\" ], preserve_source: true }")
		$(uroute stays 8086 "{ targets: [ \"$BACKEND_IP:8001\", \"$BACKEND_IP:8002\" ], balance: source_hash }")
		$(uroute each 8087 "\"$BACKEND_IP:8001\"" 'security: { max_connections_per_ip: 2 }')
	TEXT
}
start_nat "$(conf "\"$BACKEND_IP:8001\"")"
nat_baseline

say "a resolver and a client of Debian's"
mkdir -p "/etc/netns/$LAB-c"
printf 'nameserver %s\noptions timeout:2 attempts:1\n' $PROXY_IP >"/etc/netns/$LAB-c/resolv.conf"
assert_eq "IPv4 name over IPv4" "$(in_ns client getent ahostsv4 web.test | awk 'NR == 1 { print $1 }')" 192.0.2.80
assert_eq "IPv6 name over IPv4" "$(in_ns client getent ahostsv6 web.test | awk 'NR == 1 { print $1 }')" 2001:db8::80
printf 'nameserver %s\noptions timeout:2 attempts:1\n' $PROXY6 >"/etc/netns/$LAB-c/resolv.conf"
assert_eq "over IPv6" "$(in_ns client getent ahostsv4 web.test | awk 'NR == 1 { print $1 }')" 192.0.2.80
printf 'nameserver %s\noptions timeout:2 attempts:1 use-vc\n' $PROXY_IP >"/etc/netns/$LAB-c/resolv.conf"
assert_eq "over TCP" "$(in_ns client getent ahostsv4 web.test | awk 'NR == 1 { print $1 }')" 192.0.2.80
if command -v dig >/dev/null; then
	assert_eq "dig" "$(in_ns client dig +short +tries=1 @$PROXY_IP web.test A)" 192.0.2.80
	assert_eq "dig, 20 at once" "$(yes web.test A | head -n 20 | in_ns client dig +short +tries=1 @$PROXY_IP -f - | sort | uniq -c | xargs)" "20 192.0.2.80"
fi
in_ns client bash -c 'for i in {1..50}; do getent ahostsv4 web.test >/dev/null || exit 1; done' || fail "50 names one after the other"

say "addresses and ports"
assert_match "its own address" "$(udp_ask $PROXY_IP:8081 src=10.91.130.9)" "^a 10\.91\.130\.9:[0-9]+ $BACKEND_IP:8001 q0\$"
assert_match masqueraded "$(udp_ask $PROXY_IP:8082)" "^a $PROXY_BACK_IP:"
assert_match "the same port" "$(udp_ask $PROXY_IP:9005)" "^r $PROXY_BACK_IP:[0-9]+ $BACKEND_IP:9005 "
assert_match "on this host" "$(udp_ask $PROXY_IP:8083)" "^here "
assert_match "from this host" "$(in_ns proxy /usr/bin/python3 tests/lib/udp.py ask $PROXY_IP:8082)" '^a '
assert_match "from this host's loopback" "$(in_ns proxy /usr/bin/python3 tests/lib/udp.py ask 127.0.0.1:8082)" '^a '
assert_eq "taken in turn" "$(udp_ask $PROXY_IP:8084 n=8 | awk '{ print $1 }' | sort | uniq -c | xargs)" "4 a 4 b"
stays() { udp_ask $PROXY_IP:8086 n=8 src=10.91.130.$1 | awk '{ print $1 }' | sort | uniq -c | xargs; }
of=$(for ((i = 1; i <= 12; i++)); do stays $i; done | sort -u | xargs)
assert_eq "source_hash: all of a client to one, both have some" "$of" "8 a 8 b"
assert_eq "so many flows of a client" "$(udp_ask $PROXY_IP:8087 n=4 | cut -d' ' -f1 | xargs)" "a a refused refused"
from_backend() { in_ns backend /usr/bin/python3 tests/lib/udp.py ask "$@"; }
assert_match "back to the target that asks" "$(from_backend $PROXY_BACK_IP:8001)" "^a $PROXY_BACK_IP:[0-9]+ $BACKEND_IP:8001 "
assert_match "likewise, IPv6" "$(from_backend "[$PROXY_BACK6]:8001")" "^a \\[$PROXY_BACK6\\]:[0-9]+ \\[$BACKEND6\\]:8001 "
assert_match "from this host, IPv6" "$(in_ns proxy /usr/bin/python3 tests/lib/udp.py ask "[$PROXY6]:8001")" '^a '
assert_eq "one socket stays where it is" "$(udp_ask $PROXY_IP:8084 n=8 keep=1 | awk '{ print $1 }' | sort -u | wc -l)" 1
assert_eq "the target's refusal comes back" "$(udp_ask $PROXY_IP:8085)" refused
assert_eq "no route there" "$(udp_ask $PROXY_IP:8099)" refused

say "records"
udp_flow busy $PROXY_IP:8082 ms=50
wait_records moves 1
row=$(sl conns --route moves --json | jq -c '.[0] | [.engine, .backend, .route]')
assert_eq "of one that goes on" "$row" "[\"nftables\",\"$BACKEND_IP:8001\",\"moves\"]"
assert_match "its client" "$(records moves client)" "^$CLIENT_IP:"
wait_until 20000 has_access same 1 || fail "no end of the silent one"
assert_eq "its reasons" "$(access same client_reason) $(access same backend_reason)" "inactivity inactivity"
assert_eq "its engine" "$(access same engine)" nftables/configured
assert_between "its bytes" "$(access same up)" 30 31 # 20 + 8 of headers, 2 of text
stop_peer busy || true

say "a sender that never pauses, and its target goes"
udp_flow still $PROXY_IP:8082 ms=20
wait_for flow_is still a
reload "$(conf "\"$BACKEND_IP:8002\"")"
wait_until 3000 flow_is still b || fail "still answered by $(cat "$LAB_DIR/still.flow")"
kill -TERM "${PEER_PIDS[still]}"

say "the route goes: nobody answers, and conntrack has forgotten it"
udp_flow last $PROXY_IP:8082 ms=20
wait_for flow_is last b
reload "routes:
$(uroute dns "53" "\"$BACKEND_IP:5353\"")"
wait_until 3000 flow_is last refused || fail "still answered by $(cat "$LAB_DIR/last.flow")"
wait_until 3000 no_entries -p udp --orig-port-dst 8082 || fail "entries left: $(in_ns proxy conntrack -L -p udp 2>/dev/null)"
kill -TERM "${PEER_PIDS[last]}"
assert_nat_baseline
