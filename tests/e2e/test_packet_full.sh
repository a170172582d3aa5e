#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A flow table, and then a range of ports, too small for all: everyone is served, whoever does not fit by
# relay, and that is said and counted; and those that never move take free ports of that range before they fail.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_packet
N=${N:-300}

server v verify 8000 stall=$((2000 * SLOW))
server e echo 8001
text="routes:
$(proute v 8080 "\"$BACKEND_IP:8000\"")
$(proute e 8081 "\"$BACKEND_IP:8001\"")"
choices() { # REASON: connections whose engine was chosen for it
	http_get /metrics | awk -v r="reason=\"$1\"" '/^sluice_(engine_choice|handover)_total/ { if (index($0, r) || index($0, "result=\"'"$1"'\"")) n += $NF } END { print n + 0 }'
}

# crowd REASON MAX: N at once, of which at most MAX fit.
crowd() {
	mark_rst
	client_bg crowd hold to=$PROXY_IP:8081 n="$N" ping=1 timeout=60
	wait_for has_output crowd
	assert_eq "held" "$(head -n 1 "$LAB_DIR/crowd.out" | jq .held)" "$N"
	wait_until 8000 eval '[ "$(n_on packet e)" -ge 20 ]' || fail "on packet: $(n_on packet e); $(handovers)"
	wait_until 8000 eval '[ "$(sl conns --route e --json | jq "[.[] | select(.engine == \"relay\" and .engine_reason == \"'"$1"'\")] | length")" = $((N - $(n_on packet e))) ]' ||
		fail "relay because of: $(sl conns --route e --json | jq -r '.[] | .engine + " " + .engine_reason' | sort | uniq -c)"
	echo "on packet: $(n_on packet e) of $N; $(handovers)"
	assert_between "on packet" "$(n_on packet e)" 20 "$2"
	assert_between "counted as $1" "$(choices "$1")" $((N - $2)) 1000000
	say "transfers meanwhile"
	client verify to=$PROXY_IP:8080 n="$N" c=32 max=100000 shapes=all rest=50 timeout=60 stall=$((2000 * SLOW)) || fail "transfers"
	assert_eq "those held" "$(sl conns --route e --json | jq length)" "$N"
	stop_peer crowd
	assert_eq "held to the end: $RESULT" "$RC" 0
	assert_no_flow_rst "$1" # and the relay's, for what is sent again after a close
	assert_packet_baseline
}

say "max_flows: 64"
start_packet "max_flows=64" "$text"
packet_baseline
crowd map_full 64
assert_eq "the log says it once" "$(grep -c 'all 64 flows of packet.max_flows are in use' "$LAB_DIR/main/log")" 1
stop_sluice
assert_eq "exit code" "$RC" 0
purge_all() { ip netns exec "$LAB-p" "$SLUICED" -c "$LAB_DIR/main/sluice.yaml" --purge >"$LAB_DIR/purge.out" 2>&1; }
purge_all || fail "purge: $(cat "$LAB_DIR/purge.out")"

say "a range of 64 ports"
start_packet "ports=40000-40063" "$text"
packet_baseline
crowd port_range_full 64
stop_sluice
assert_eq "exit code" "$RC" 0
verified v $((2 * N))

say "two ports besides a range of 64, and 66 connections that never move"
purge_all || fail "purge: $(cat "$LAB_DIR/purge.out")"
in_ns proxy sysctl -qw net.ipv4.ip_local_port_range="61000 61001"
GLOBAL='  workers: 1' start_packet "ports=50000-50063" "routes:
$(route still 8082 "\"$BACKEND_IP:8001\"" "engine: relay")"
client_bg still hold to=$PROXY_IP:8082 n=66 ping=1 timeout=$((60 * SLOW))
wait_for has_output still
assert_eq "their ports" "$(in_ns proxy ss -Hnt state established "dst $BACKEND_IP:8001" |
	awk '{ sub(/.*:/, "", $3); print ($3 >= 61000 ? "other" : $3 >= 50000 && $3 <= 50063 ? "packet" : $3) }' | sort | uniq -c | xargs)" \
	"2 other 64 packet"
assert_eq "their engine" "$(sl conns --route still --json | jq -r '.[] | .engine + "/" + .engine_reason' | sort | uniq -c | xargs)" "66 relay/configured"
shot to=$PROXY_IP:8082
assert_eq "one more" "$(of end)" reset
has_log "cannot connect to $BACKEND_IP:8001: error .no source port is free towards it: net.ipv4.ip_local_port_range" ||
	fail "the log does not say why"
stop_peer still
