#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The daemon is killed in the middle of transfers of gigabytes, both ways: they go on without it, the next
# one adopts them under their names, every hash is right, and nothing is left at the end. Also when only
# the process that carries connections dies, or only the broker.
#   ROUNDS= kills of the whole daemon, MB= each way and flow, FLOWS= at once, RATE= bytes/s of each (0: as fast
#   as it goes), KILLS= of each process alone
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_packet
need_split
ROUNDS=${ROUNDS:-2} MB=${MB:-400} FLOWS=${FLOWS:-2} KILLS=${KILLS:-1} GAP=${GAP:-2000} RATE=${RATE:-120000000}
step=$((MB / 6))

server l long 8000 stall=$((5000 * SLOW)) timeout=3600
server e echo 8001 timeout=3600
text="routes:
$(proute long 8080 "\"$BACKEND_IP:8000\"")
$(proute long6 8081 "\"[$BACKEND6]:8000\"")
$(proute idle 8082 "\"$BACKEND_IP:8001\"")
$(proute proxied 8083 "\"$BACKEND_IP:8001\"")"
start_packet "" "$text"
ours="$(echo "$text")"
mark_rst
start_again() {
	instance main
	start_packet "" "$ours"
}
nothing_runs() { [ -z "$(ip netns pids "$LAB-p")" ]; }
pid_of_role() { # proxy|broker
	local pid
	for pid in $(cat "/proc/$SLUICE_PID/task/$SLUICE_PID/children"); do
		if tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$1"; then
			echo "$pid"
			return
		fi
	done
}
moved_on() { # MB: until so much more has passed each way
	local now
	now=$(moved)
	wait_until 30000 eval "[ \$(moved) -ge $((now + $1)) ]" || fail "the transfer does not go on: $(moved) MB"
}
moved() {
	kill -USR1 "${PEER_PIDS[long]}"
	sleep 0.05
	tail -n 1 "$LAB_DIR/long.out" | jq -r '[.up, .down] | min / 1000000 | floor'
}
transfer() { # starts it; until it is in the kernel and has moved a part
	: >"$LAB_DIR/long.out"
	client_bg long long to=$PROXY_IP:8080 to="[$PROXY6]:8081" c="$FLOWS" n=$((MB * 1000000)) stall=$((5000 * SLOW)) \
		timeout=300 rate="$RATE"
	wait_for eval '[ "$(n_on packet)" -ge '$((FLOWS + HELD))' ]'
	moved_on "$step"
}
finish() { # WHAT: verdict and longest gap
	join_peer long
	echo "$1: $RESULT"
	assert_eq "$1: $(tail -n 3 "$LAB_DIR/long.out.err" "$LAB_DIR/l.out.err")" "$RC" 0
	assert_between "$1: longest gap, ms" "$(jq .max_gap_ms <<<"$RESULT")" 0 $((GAP * SLOW))
	assert_no_rst "$1: resets"
}

HELD=10
client_bg held hold to=$PROXY_IP:8082 n=$HELD ping=1 timeout=3000
wait_for has_output held
wait_engine idle
ids=$(sl conns --route idle --json | jq -c '[.[].id] | sort')
clients=$(sl conns --route idle --json | jq -c '[.[].client] | sort')

for ((i = 1; i <= ROUNDS; i++)); do
	say "round $i: the whole daemon"
	transfer
	kill -KILL "$SLUICE_PID"
	join_sluice
	wait_until 2000 nothing_runs || fail "left: $(ip netns pids "$LAB-p" | xargs ps -o pid,args -p)"
	assert_eq "entries without a daemon" "$(n_live_flows)" $((2 * (FLOWS + HELD)))
	moved_on "$step"
	start_again
	assert_eq "adopted" "$(jqs .kernel.adopted)" $((FLOWS + HELD))
	wait_log "adopted"
	wait_until $((2000 * SLOW)) eval '[ "$(sl conns --route idle --json | jq -c "[.[].client] | sort")" = "$clients" ]' ||
		fail "held ones by name: $(sl conns --route idle --json | jq -c '[.[].client] | sort'), want $clients"
	assert_eq "their ids" "$(sl conns --route idle --json | jq -c '[.[].id] | sort')" "$ids"
	# each worker takes its share as it is told of it
	wait_until $((2000 * SLOW)) eval '[ $(($(n_on packet long) + $(n_on packet long6))) = "$FLOWS" ]' ||
		fail "long ones by name: $(n_on packet long) and $(n_on packet long6), want $FLOWS"
	shot to=$PROXY_IP:8083 send=x fin=1
	assert_eq "new ones are served" "$(of end) $(of text)" "eof x"
	finish "round $i"
	wait_until 2000 eval '[ "$(jqs .connections.active)" = '$HELD' ]' || fail "round $i: active $(jqs .connections.active)"
	assert_eq "access lines of this round" "$(access_lines 'long6?' | wc -l)" $((i * FLOWS))
	assert_match "their engine" "$(access_lines 'long6?' | tail -n 1)" " engine=packet/[a-z_]+ .*client_reason=normal backend_reason=normal"
done

for role in proxy broker; do
	for ((i = 1; i <= KILLS; i++)); do
		say "only the $role, $i"
		transfer
		old=$(pid_of_role $role)
		if [ -z "$old" ]; then fail "no process is the $role"; fi
		kill -KILL "$old"
		wait_until 5000 eval '[ -n "$(pid_of_role '$role')" ] && [ "$(pid_of_role '$role')" != '"$old"' ]' || fail "no new $role"
		wait_for is_running
		moved_on "$step"
		wait_until 3000 eval '[ "$(n_on packet idle)" = '$HELD' ]' || fail "held ones in conns: $(n_on packet idle)"
		client_bg fresh hold to=$PROXY_IP:8083 n=1 ping=1 timeout=30
		wait_for has_output fresh
		wait_engine proxied
		assert_eq "the supervisor" "$(jqs .pid)" "$SLUICE_PID"
		sl kill --route proxied
		wait_until 1000 eval '[ -z "$(engine_of proxied)" ]' || fail "kill does not work"
		stop_peer fresh || true
		finish "only the $role"
	done
done

say "the held ones lived through all of it, and can be killed"
assert_eq "held" "$(sl conns --route idle --json | jq -c '[.[].client] | sort')" "$clients"
sl kill --route idle
wait_until 1000 eval '[ "$(jqs .connections.active)" = 0 ]' || fail "left: $(jqs .connections.active)"
stop_peer held || true
assert_eq "held ones saw a reset" "$(jq -c '[.lost, .reset]' <<<"$RESULT")" "[$HELD,$HELD]"
assert_eq "their reasons" "$(access_lines idle | grep -c 'client_reason=killed backend_reason=killed')" $HELD
wait_until 2000 no_live_flows || fail "live entries left"
if [ -n "${SETTLE:-}" ]; then wait_until 90000 no_flows || fail "entries left: $(n_flows)"; fi

say "flows that end while no daemon runs"
client_bg last hold to=$PROXY_IP:8083 n=5 ping=1 timeout=60
wait_for has_output last
wait_engine proxied
client_bg stays hold to=$PROXY_IP:8082 n=3 ping=1 timeout=60
wait_for has_output stays
wait_engine idle
before=$(n_access proxied)
kill -KILL "$SLUICE_PID"
join_sluice
stop_peer last
assert_eq "ended well" "$RC" 0
start_again
assert_eq "adopted" "$(sl conns --route idle --json | jq length)" 3
wait_until 3000 eval '[ -z "$(engine_of proxied)" ]' || fail "ended ones are in conns"
assert_eq "access lines of those that ended meanwhile" $(($(n_access proxied) - before)) 5
stop_peer stays
assert_eq "those that stayed" "$RC" 0
say "flows whose route is gone at the next start"
client_bg orphaned hold to=$PROXY_IP:8083 n=2 ping=1 timeout=60
wait_for has_output orphaned
wait_engine proxied
kill -KILL "$SLUICE_PID"
join_sluice
theirs=$ours
ours=${ours/name: proxied/name: renamed}
assert_match "the new text" "$ours" 'name: renamed'
start_again
wait_for eval '[ "$(access_lines proxied | grep -c "client_reason=crash_recovered backend_reason=crash_recovered")" = 2 ]'
assert_match "with its bytes" "$(access_lines proxied | tail -n 1)" ' up=[1-9][0-9]* down=[1-9][0-9]* '
assert_eq "dropped" "$(jqs .kernel.dropped)" 2
assert_match "in words" "$(sl status)" ', 2 dropped'
http_get /metrics >"$LAB_DIR/metrics"
assert_eq "drift" "$(grep -F 'sluice_drift_total{kind="packet_dropped"}' "$LAB_DIR/metrics" | awk '{ print $NF }')" 2
wait_log "no route 'proxied' any more"
stop_peer orphaned || true
assert_eq "they saw a reset" "$(jq -c '[.lost, .reset]' <<<"$RESULT")" "[2,2]"
ours=$theirs
stop_peer l
assert_eq "the server's verdict" "$RC" 0
wait_until 2000 eval '[ "$(jqs .connections.active)" = 0 ]' || fail "active at the end"
stop_sluice
assert_eq "exit code" "$RC" 0
