#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Who is let in, and how many: lists of a route and of all, the file, limits, and what a refused client
# meets. The kernel decides; established flows do not notice.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

nat_up
in_ns proxy sysctl -qw net.netfilter.nf_conntrack_udp_timeout=3 net.netfilter.nf_conntrack_udp_timeout_stream=3
ip -n "$LAB-c" addr add 10.91.0.3/16 dev eth0
ip -n "$LAB-c" addr add fd91::3/64 dev eth0 nodad
server one identify 8001
server e echo 8002
udp_server u backend 8003

conf() { # MORE of the route `changes`
	cat <<-TEXT
		routes:
		$(nroute allow 8080 "[ \"$BACKEND_IP:8001\", \"[$BACKEND6]:8001\" ]" 'security: { allow: [10.91.0.2, "fd91::2", 10.91.130.0-10.91.130.9] }')
		$(nroute deny 8081 "[ \"$BACKEND_IP:8001\", \"[$BACKEND6]:8001\" ]" 'security: { deny: [10.91.0.3, "fd91::3/128", 10.91.130.0/24], allow: 10.91.0.0/16 }')
		$(nroute limit 8082 "\"$BACKEND_IP:8002\"" 'security: { max_connections: 3 }')
		$(nroute changes 8083 "\"$BACKEND_IP:8002\"" "$1")
		$(uroute udp 8084 "\"$BACKEND_IP:8003\"" 'security: { allow: 10.91.0.2 }')
		$(nroute open 8085 "\"$BACKEND_IP:8001\"")
		$(nroute nobody 8086 "{ targets: [ { address: \"$BACKEND_IP:8001\", weight: 0 } ] }")
		$(nroute each 8088 "\"$BACKEND_IP:8002\"" 'security: { max_connections_per_ip: 2 }')
		$(nroute slow 8089 "[ \"$BACKEND_IP:8001\", \"[$BACKEND6]:8001\" ]" 'security: { new_connections_per_ip: 2/m }')
		$(nroute off 8087 "\"$BACKEND_IP:8001\"" 'enabled: false')
	TEXT
}
start_nat "$(conf 'priority: 0')"
nat_baseline
served() { shot "$@" && [ "$(of end)" = eof ]; }
turned_away() { shot "$@" && [ "$(of connect)" = refused ]; }

say "lists of a route"
served to=$PROXY_IP:8080 src=10.91.0.2 || fail "allowed: $SHOT"
served to=$PROXY_IP:8080 src=10.91.130.9 || fail "end of an allowed range: $SHOT"
turned_away to=$PROXY_IP:8080 src=10.91.130.10 || fail "behind it: $SHOT"
turned_away to=$PROXY_IP:8080 src=10.91.0.3 || fail "not allowed: $SHOT"
assert_between "refused at once, ms" "$(of connect_ms)" 0 $((500 * SLOW))
served "to=[$PROXY6]:8080" src="[fd91::2]" || fail "allowed, IPv6: $SHOT"
turned_away "to=[$PROXY6]:8080" src="[fd91::3]" || fail "not allowed, IPv6: $SHOT"
served to=$PROXY_IP:8081 src=10.91.0.2 || fail "not denied: $SHOT"
turned_away to=$PROXY_IP:8081 src=10.91.0.3 || fail "denied: $SHOT"
turned_away to=$PROXY_IP:8081 src=10.91.130.77 || fail "denied and allowed: $SHOT"
turned_away "to=[$PROXY6]:8081" src="[fd91::3]" || fail "denied, IPv6: $SHOT"

say "datagrams are refused by ICMP"
assert_match "allowed" "$(udp_ask $PROXY_IP:8084 src=10.91.0.2)" '^u '
assert_eq "not allowed" "$(udp_ask $PROXY_IP:8084 src=10.91.0.3)" refused

say "no target, no route"
turned_away to=$PROXY_IP:8086 || fail "all weights 0: $SHOT"
turned_away to=$PROXY_IP:8087 || fail "disabled: $SHOT"

say "so many connections and no more; one that ends makes room"
client_bg held hold to=$PROXY_IP:8082 n=3 ping=1 timeout=60
wait_for has_output held
wait_records limit 3
turned_away to=$PROXY_IP:8082 || fail "the fourth: $SHOT"
turned_away to=$PROXY_IP:8082 || fail "nor later: $SHOT"
reload "$(conf 'security: { max_connections: 2 }')"
turned_away to=$PROXY_IP:8082 || fail "a reload elsewhere forgets nobody: $SHOT"
stop_peer held
assert_eq "held to the end" "$(jq -c '[.held, .lost]' <<<"$RESULT")" "[3,0]"
wait_until 5000 served to=$PROXY_IP:8082 send=x fin=1 || fail "no room after the end: $SHOT"

say "so many of each client, and so fast"
client_bg mine hold to=$PROXY_IP:8088 src=10.91.0.2 n=2 ping=1 timeout=60
wait_for has_output mine
wait_records each 2
turned_away to=$PROXY_IP:8088 src=10.91.0.2 || fail "the third of one client: $SHOT"
client_bg theirs hold to=$PROXY_IP:8088 src=10.91.0.3 n=2 ping=1 timeout=60
wait_for has_output theirs
turned_away to=$PROXY_IP:8088 src=10.91.0.3 || fail "the third of another: $SHOT"
stop_peer mine
stop_peer theirs
wait_until 5000 served to=$PROXY_IP:8088 src=10.91.0.2 send=x fin=1 || fail "no room after the end: $SHOT"
for to in "$PROXY_IP:8089 10.91.0.2" "$PROXY_IP:8089 10.91.0.3" "[$PROXY6]:8089 [fd91::2]"; do
	served to="${to% *}" src="${to#* }" || fail "the first, $to: $SHOT"
	served to="${to% *}" src="${to#* }" || fail "the second, $to: $SHOT"
	turned_away to="${to% *}" src="${to#* }" || fail "the third, $to: $SHOT"
done

say "a list that comes by reload: new flows meet it, old ones do not"
client_bg old trickle to=$PROXY_IP:8083 c=2 ms=20 timeout=60
wait_records changes 2
reload "$(conf 'security: { deny: 10.91.0.0/16 }')"
turned_away to=$PROXY_IP:8083 || fail "denied by now: $SHOT"
kill -0 "${PEER_PIDS[old]}" || fail "the old ones have ended"
stop_peer old
assert_eq "old ones" "$RC" 0

say "lists of all, and the file"
echo "10.91.130.0/25 # some" >"$LAB_DIR/deny.txt"
all="  security: { deny: [\"fd91::3\", 10.91.0.3], deny_file: $LAB_DIR/deny.txt }"
GLOBAL=$all reload "$(conf 'priority: 0')"
turned_away to=$PROXY_IP:8085 src=10.91.0.3 || fail "denied everywhere: $SHOT"
turned_away to=$PROXY_IP:8085 src=10.91.130.1 || fail "in the file: $SHOT"
served to=$PROXY_IP:8085 src=10.91.130.200 || fail "not in the file: $SHOT"
echo "10.91.130.128/25" >"$LAB_DIR/deny.txt"
sl reload --deny-file >/dev/null || fail "reload --deny-file"
turned_away to=$PROXY_IP:8085 src=10.91.130.200 || fail "in the file by now: $SHOT"
served to=$PROXY_IP:8085 src=10.91.130.1 || fail "not any more: $SHOT"
say "a pattern that is no range is as many as it takes"
echo '10.9?.130.20?' >"$LAB_DIR/deny.txt"
sl reload --deny-file >/dev/null || fail "reload --deny-file"
turned_away to=$PROXY_IP:8085 src=10.91.130.200 || fail "meant by the pattern: $SHOT"
served to=$PROXY_IP:8085 src=10.91.130.210 || fail "not meant: $SHOT"
assert_nat_baseline
