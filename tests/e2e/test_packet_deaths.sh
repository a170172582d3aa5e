#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Broker and proxy are killed at any moment, also in the middle of hand-overs. A dead broker costs no
# connection; a dead proxy none that is in the kernel. Each has one access line, and nothing is left.
#   DEATHS= of the broker while N= transfers come and go, C= at once; ANY= of either beside long ones
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_packet
need_split
DEATHS=${DEATHS:-6} ANY=${ANY:-4} N=${N:-1500} C=${C:-32} FLOWS=${FLOWS:-2} SEED=${SEED:-$RANDOM}
RANDOM=$SEED
echo "SEED=$SEED"

server v verify 8000 stall=$((15000 * SLOW)) timeout=600
server l long 8001 stall=$((10000 * SLOW)) timeout=600
server e echo 8002
start_packet "${PACKET:-}" "routes:
$(proute v 8080 "\"$BACKEND_IP:8000\"")
$(proute long 8081 "\"$BACKEND_IP:8001\"")
$(proute churn 8082 "\"$BACKEND_IP:8002\"")"
packet_baseline

pid_of_role() { # proxy|broker
	local pid
	for pid in $(cat "/proc/$SLUICE_PID/task/$SLUICE_PID/children"); do
		if tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$1"; then echo "$pid"; fi
	done | tail -n 1
}
n_ready() { grep -c "ready: $1 process" "$(log_file)"; }
is_ready() { [ "$(n_ready "$1")" -gt "$2" ]; }
# At a random moment; until there is another one. Not so often that the daemon takes a rest.
kill_role() { # proxy|broker [SECONDS]: at least
	local pid before
	pid=$(pid_of_role "$1")
	if [ -z "$pid" ]; then fail "no process is the $1"; fi
	before=$(n_ready "$1")
	sleep "$((RANDOM % 2 + ${2:-0})).$((RANDOM % 900 + 100))"
	kill -KILL "$pid"
	wait_until 12000 is_ready "$1" "$before" || fail "no new $1"
}
one_line_each() { # ROUTE
	local twice
	twice=$(access_lines "$1" | grep -oE ' id=[0-9]+' | sort | uniq -d)
	if [ -n "$twice" ]; then
		access_lines "$1" | grep -F "$(head -n 3 <<<"$twice")" >&2
		fail "$(wc -l <<<"$twice") connections of $1 have two access lines"
	fi
}

say "the broker dies while transfers come and go"
for ((i = 1; i <= DEATHS; i++)); do
	client_bg many verify to=$PROXY_IP:8080 n="$N" c="$C" shapes=all max=300000 rest=300 seed=$((SEED + i)) \
		stall=$((15000 * SLOW)) timeout=$((120 * SLOW))
	kill_role broker
	join_peer many
	echo "round $i: $(jq -c '[.ok, .bad, .max_gap_ms, .s]' <<<"$RESULT"); $(handovers)"
	assert_eq "round $i: $(tail -n 3 "$LAB_DIR/many.out.err")" "$RC" 0
done
wait_until 5000 eval '[ "$(jqs .connections.active)" = 0 ]' || fail "active: $(sl conns | head -n 5)"
one_line_each v
assert_eq "ends with an error of ours" "$(access_lines v | grep -cE '_reason=(error|force_cleanup)')" 0
# The log's writer is a thread of its own.
wait_until 5000 eval '[ "$(n_access v)" -ge $((N * DEATHS)) ]' || fail "access lines: $(n_access v), want $((N * DEATHS))"
assert_eq "access lines" "$(n_access v)" $((N * DEATHS))

say "either dies beside long transfers"
client_bg long long to=$PROXY_IP:8081 c="$FLOWS" n=1 t=100000 stall=$((10000 * SLOW)) timeout=600 rate=20000000
wait_engine long
client_bg churn verify to=$PROXY_IP:8080 n=1000000 c=8 max=100000 timeout=60 stall=$((15000 * SLOW))
for ((i = 1; i <= ANY; i++)); do
	if [ $((RANDOM % 2)) = 0 ]; then kill_role broker 2; else kill_role proxy 2; fi
	wait_for is_running
	wait_until 8000 eval '[ "$(n_on packet long)" = '"$FLOWS"' ]' || fail "round $i: long ones on packet: $(n_on packet long)"
done
stop_peer churn || true
stop_peer long
echo "long: $RESULT"
assert_eq "long ones: $(tail -n 3 "$LAB_DIR/long.out.err" "$LAB_DIR/l.out.err")" "$RC" 0
wait_until 5000 eval '[ "$(jqs .connections.active)" = 0 ]' || fail "active: $(sl conns | head -n 5)"
one_line_each '(v|long)'
assert_eq "long ones in the log" "$(n_access long)" "$FLOWS"
# What has ended 60 s ago goes away while it is looked at: the half of a pair says enough.
live() {
	flows_json | jq -c '[group_by(.conn_id)[] |
		select(all(.[]; .rst == 0 and .state != "SL_PACKET_KILLED") and any(.[]; .peer_fin_acked == 0))]'
}
wait_until 3000 eval '[ "$(live)" = "[]" ]' || fail "entries of live flows: $(live | cut -c1-3000)"
stop_sluice
assert_eq "exit code" "$RC" 0
