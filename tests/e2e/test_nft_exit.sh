#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The end of the daemon: rules, flows and settings go with it, unless keep_on_exit; what a killed one
# leaves is adopted by the next or removed by --purge. Entries of others in conntrack stay.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

nat_up
server e echo 8001
server one identify 8002
udp_server u backend 8003
conf() { # DRAIN
	echo "defaults: { timeouts: { drain: ${1:-1s} } }
routes:
$(nroute held 8080 "\"$BACKEND_IP:8001\"")
$(nroute web 8081 "\"$BACKEND_IP:8002\"")
$(uroute udp 8082 "\"$BACKEND_IP:8003\"")"
}
purge() { ip netns exec "$LAB-p" "$SLUICED" -c "$LAB_DIR/main/sluice.yaml" --purge >"$LAB_DIR/purge.out" 2>&1; }
settings() { echo "$(ct_setting acct) $(ct_setting timestamp) $(ct_setting events)"; }
lost() {
	kill -USR1 "${PEER_PIDS[$1]}" 2>/dev/null || true
	[ "$(tail -n 1 "$LAB_DIR/$1.out" | jq -r .breaks)" = "$2" ]
}
# a connection of others through this host, tracked by their rules
in_ns proxy nft -f - <<-'RULES'
	table inet theirs { chain c { type filter hook forward priority 0; ct state established,new counter accept; }; }
RULES
client_bg other trickle to=$BACKEND_IP:8001 c=3 ms=20 timeout=200
wait_for eval '[ "$(n_entries -p tcp --state ESTABLISHED)" = 3 ]'
in_ns proxy sysctl -qw net.netfilter.nf_conntrack_acct=0 net.netfilter.nf_conntrack_timestamp=0
was=$(settings)

say "a stop: flows are given their time, then all of ours goes"
start_nat "$(conf $((6 * SLOW))s)"
assert_eq "settings while it runs" "$(settings)" "1 1 1"
in_ns proxy sysctl -qw net.netfilter.nf_conntrack_acct=0 net.netfilter.nf_conntrack_events=2
are() { [ "$(settings)" = "$1" ]; }
wait_until 4000 are "1 1 1" || fail "settings that somebody has changed: $(settings)"
wait_log 'somebody has changed net.netfilter.nf_conntrack_acct'
client_bg held trickle to=$PROXY_IP:8080 c=10 ms=20 timeout=60
udp_flow busy $PROXY_IP:8082 ms=20
wait_records held 10
kill -TERM "$SLUICE_PID"
wait_until 2000 refused $PROXY_IP:8081 || fail "new flows while it drains: $SHOT"
sleep 1 # of the six that flows have
assert_eq "connections while it drains" "$(n_entries -p tcp --orig-port-dst 8080 --state ESTABLISHED)" 10
assert_eq "datagrams while it drains" "$(flow_of busy)" u
join_sluice 15000
assert_eq "exit code" "$RC" 0
no_table || fail "a table is left"
wait_until 3000 lost held 10 || fail "held: $(tail -n 1 "$LAB_DIR/held.out")"
assert_eq "access lines" "$(n_access held)" 10
assert_match "reasons" "$(access held client_reason)" '^(drained|shutdown)$'
no_entries -p tcp --orig-port-dst 8080 --state ESTABLISHED || fail "entries of connections are left"
no_entries -p udp --orig-port-dst 8082 || fail "entries of datagrams are left"
assert_eq "settings" "$(settings)" "$was"
assert_eq "others' entries" "$(n_entries -p tcp --state ESTABLISHED)" 3
wait_for flow_is busy refused
kill -TERM "${PEER_PIDS[busy]}"
stop_peer held || true

say "keep_on_exit: rules and flows stay, and the next one takes them over"
GLOBAL='  nftables: { keep_on_exit: true }' start_nat "$(conf 2s)"
client_bg kept trickle to=$PROXY_IP:8080 c=10 ms=20 timeout=120
wait_records held 10
stop_sluice
assert_eq "exit code" "$RC" 0
has_table || fail "the table is gone"
shot to=$PROXY_IP:8081
assert_eq "new flows without a daemon" "$(of end)" eof
kill -0 "${PEER_PIDS[kept]}" || fail "the old ones have ended"
start_nat "$(conf 2s)"
wait_records held 10
wait_for eval '[ "$(nat_field adopted)" -ge 10 ]'
assert_between adopted "$(nat_field adopted)" 10 12

say "purge while it runs is refused"
rc=0
purge || rc=$?
assert_eq "exit code: $(cat "$LAB_DIR/purge.out")" $rc 1
has_table || fail "it has removed the table"

say "purge after a kill"
kill -KILL "$SLUICE_PID"
join_sluice
wait_until 5000 eval '[ -z "$(ip netns pids "$LAB-p")" ]' || fail "left: $(ip netns pids "$LAB-p")"
has_table || fail "the table went with the daemon"
kill -0 "${PEER_PIDS[kept]}" || fail "the flows went with the daemon"
rc=0
purge || rc=$?
cat "$LAB_DIR/purge.out"
assert_eq "exit code" $rc 0
assert_match "a line about it" "$(cat "$LAB_DIR/purge.out")" 'inet sluice'
no_table || fail "a table is left"
wait_until 3000 lost kept 10 || fail "kept: $(tail -n 1 "$LAB_DIR/kept.out")"
no_entries -p tcp --orig-port-dst 8080 --state ESTABLISHED || fail "entries are left"
rc=0
purge || rc=$?
assert_eq "once more" $rc 0
stop_peer kept || true

say "a table of that name that is not ours is left alone"
in_ns proxy nft add table inet sluice
purge || fail "purge beside it: $(cat "$LAB_DIR/purge.out")"
has_table || fail "purge has removed somebody else's table"
in_ns proxy nft delete table inet sluice

say "nobody else has noticed"
stop_peer other
assert_eq "connections of others: $RESULT" "$RC" 0
