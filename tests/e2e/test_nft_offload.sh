#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# flow_offload: established flows pass between the interfaces by the kernel's flow table, and are counted,
# cut and drained as the others. A kernel without flow tables says so, and serves the routes all the same.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

nat_up
server e echo 8001
udp_server u backend 8002
conf() {
	echo "defaults: { timeouts: { drain: 2s } }
routes:
$(nroute tcp 8080 "{ targets: \"$BACKEND_IP:8001\", preserve_source: true }")
$(uroute udp 8081 "{ targets: \"$BACKEND_IP:8002\", preserve_source: true }")"
}
# shellcheck disable=SC2120 # by eval, below
short() { in_ns proxy conntrack -L "$@" 2>/dev/null | grep -c OFFLOAD || true; }

GLOBAL='  nftables: { flow_offload: [cli, srv, later] }' start_nat "$(conf)"
client_bg held trickle to=$PROXY_IP:8080 c=3 ms=20 timeout=120
udp_flow busy $PROXY_IP:8081 ms=20
wait_records tcp 3
wait_records udp 1
text=$(nat_text)
if grep -q 'no flow tables' <<<"$text"; then
	say "a kernel without flow tables: it is said, and flows go on all the same"
	not_in_table flowtable || fail "a flow table, though there can be none"
	before=$(sl conns --route tcp --json | jq '[.[].bytes_up] | add')
	wait_until 10000 eval '[ "$(sl conns --route tcp --json | jq "[.[].bytes_up] | add")" -gt $((before + 2000)) ]' ||
		fail "stands still at $before"
	stop_peer held
	stop_sluice
	assert_eq "exit code" "$RC" 0
	exit 0
fi

say "established flows pass by it"
in_table 'flow add @ft' || fail "no flow table"
assert_match "what is missing" "$(nat_text)" 'later not there yet'
wait_until 5000 eval '[ "$(short -p tcp --orig-port-dst 8080)" = 3 ]' || fail "not by it: $(in_ns proxy conntrack -L 2>/dev/null)"
wait_until 5000 eval '[ "$(short -p udp --orig-port-dst 8081)" = 1 ]' || fail "datagrams not by it"

say "their records count on"
bytes() { sl conns --route tcp --json | jq '[.[].bytes_up] | add'; }
before=$(bytes)
wait_until 10000 eval '[ "$(bytes)" -gt $((before + 2000)) ]' || fail "stands still at $before: $(sl conns --route tcp --json)"
assert_eq "states" "$(records tcp state)" "established established established"

say "what ends there has its bytes, each once; the rules of others have not seen them"
in_ns proxy nft "table inet seen { chain c { type filter hook forward priority 10; tcp dport 8001 counter; }; }"
shot to=$PROXY_IP:8080 up=2000000 fin=1
assert_eq "there and back" "$(of end) $(of got)" "eof 2000000"
assert_between "bytes on the long way" "$(in_ns proxy nft -j list chain inet seen c | jq '[.. | .counter? // empty | .bytes] | add')" 1 500000
in_ns proxy nft delete table inet seen
wait_until 15000 has_access tcp 1 || fail "no access line"
# and the headers, 40 to 60 bytes of every packet
assert_between "bytes up" "$(access tcp up)" 2000000 2200000
assert_between "bytes down" "$(access tcp down)" 2000000 2200000
assert_eq "reasons" "$(access tcp client_reason) $(access tcp backend_reason)" "normal normal"
udp_bytes() { sl conns --route udp --json | jq '.[0] | .bytes_up + .bytes_down'; }
before=$(udp_bytes)
wait_until 10000 eval '[ "$(udp_bytes)" -gt $((before + 500)) ]' || fail "those of datagrams stand still at $before"
assert_match "status" "$(sl status || [ $? = 4 ])" $'nftables +2 routes in table inet sluice'

say "an interface that comes later"
in_ns proxy ip link add later type dummy
wait_until 5000 in_table 'devices = \{ cli, later, srv \}' || fail "not taken: $(nat_text)"
in_ns proxy ip link del dev later
wait_until 5000 in_table 'devices = \{ cli, srv \}' || fail "not let go: $(nat_text)"

say "one that is killed ends at once"
id=$(records tcp | cut -d' ' -f1)
sl kill "$id" >/dev/null || fail "kill $id"
wait_records tcp 2

say "no flow table any more, and again: nobody notices"
GLOBAL='  nftables: { flow_offload: [] }' reload "$(conf)"
not_in_table flowtable || fail "it is still there"
flow_is busy u || fail "datagrams: $(flow_of busy)"
GLOBAL='  nftables: { flow_offload: [cli, srv] }' reload "$(conf)"
wait_until 5000 eval '[ "$(short -p tcp --orig-port-dst 8080)" = 2 ]' || fail "not by it again"
wait_records tcp 2

say "a stop drains them and takes all away"
kill -TERM "$SLUICE_PID"
wait_until 2000 refused $PROXY_IP:8080 || fail "new flows while it drains: $SHOT"
assert_eq "datagrams while it drains" "$(flow_of busy)" u
join_sluice 15000
assert_eq "exit code" "$RC" 0
no_table || fail "a table is left"
assert_eq "flows of it" "$(short)" 0
wait_for flow_is busy refused
stop_peer held || true
