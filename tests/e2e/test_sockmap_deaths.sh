#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Processes of the daemon are killed while flows go from socket to socket. With the proxy they end, which both
# sides see at once, and nothing stays in a pinned map; without the broker they go on, whole, also in the
# middle of a hand-over, and are spilled and freed as with one. Upgrades and reloads cost none of them.
#   DEATHS= of the broker while N= transfers come and go, C= at once
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/sockmaplab.sh"
need_split
DEATHS=${DEATHS:-3} N=${N:-600} C=${C:-32} SEED=${SEED:-$RANDOM} UPGRADES=${UPGRADES:-2} RELOADS=${RELOADS:-6}
RANDOM=$SEED
echo "SEED=$SEED"
stall=$((15000 * SLOW))

server v verify 8000 stall=$stall timeout=600
server l long 8001 stall=$((10000 * SLOW)) timeout=600
server e echo 8002
server s verify 8003 stall=$stall rcvbuf=8192 timeout=600
text="defaults: { timeouts: { drain: 300s, close_grace: $((10 * SLOW))s } }
routes:
$(proute v 8080 "\"$BACKEND_IP:8000\"")
$(proute long 8081 "\"$BACKEND_IP:8001\"")
$(proute held 8082 "\"$BACKEND_IP:8002\"")
$(proute slow 8083 "\"$BACKEND_IP:8003\"")"

pid_of_role() { # proxy|broker
	local pid
	for pid in $(cat "/proc/$SLUICE_PID/task/$SLUICE_PID/children"); do
		if tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$1"; then echo "$pid"; fi
	done | tail -n 1
}
n_ready() { grep -c "ready: $1 process" "$(log_file)"; }
is_ready() { [ "$(n_ready "$1")" -gt "$2" ]; }
n_established() { # client|backend PORT
	in_ns "$1" ss -Htn state established "( dport = :$2 or sport = :$2 )" | wc -l
}
all_ended() { [ "$(n_established client 8082) $(n_established client 8081) $(n_established backend 8002) $(n_established backend 8001)" = "0 0 0 0" ]; }
maps_are_empty() { ! on_sockmap || [ "$(sockmaps counts | jq -c '.wishes = 0')" = "$NOTHING" ]; }

engine_is_back() {
	if on_sockmap; then wait_until 15000 sockmap_is_on || fail "the engine is not on: $(sl engines --json | jq -c .engines.sockmap)"; fi
}

# flows_up ROUND: idle ones and busy ones, all on the engine.
flows_up() {
	client_bg "held$1" hold to=$PROXY_IP:8082 n=50 ping=1 timeout=60
	client_bg "long$1" long to=$PROXY_IP:8081 c=3 n=1 t=100000 rate=20000000 stall=$((10000 * SLOW)) timeout=60
	# The kernel's workers share a busy machine with everybody else.
	wait_until 15000 has_output "held$1" || fail "no answer for all that are held"
	wait_engine held
	wait_engine long
	wait_until 5000 long_moved "long$1" 1 || fail "nothing moves"
	if on_sockmap; then assert_between "slots in use" "$(sockmaps counts | jq .slots)" 106 106; fi
}
# dies WHAT ROUND PID...: the peers of all flows see their end within a second.
dies() {
	local what=$1 round=$2 start
	shift 2
	start=$(now_ms)
	kill -KILL "$@"
	wait_until 1000 all_ended || fail "$what: established: client $(n_established client 8082) + $(n_established client 8081)," \
		"backend $(n_established backend 8002) + $(n_established backend 8001)"
	echo "$what: over at both ends after $(($(now_ms) - start)) ms"
	stop_peer "held$round" || true
	assert_eq "$what: held ones ended" "$(jq .lost <<<"$RESULT")" 50
	# Whose window was closed goes on writing after the FIN, until a probe of his is answered by a RST.
	wait_until 2000 gone_or_zombie "${PEER_PIDS[long$round]}" || kill -TERM "${PEER_PIDS[long$round]}"
	join_peer "long$round"
	assert_eq "$what: long ones" "$(jq -c '[.ok, .bad]' <<<"$RESULT")" "[0,3]"
}
turn=0
# starts_anew WHAT: nothing of the earlier flows is in the maps, and new ones go into them.
starts_anew() {
	wait_until 2000 maps_are_empty || fail "$1: left in the maps: $(sockmaps counts) $(sockmaps slots | jq -c '.[:3]')"
	wait_until 2000 eval '[ "$(n_sockmap_sockets) $(jqs .connections.active)" = "0 0" ]' ||
		fail "$1: sockets in the kernel $(n_sockmap_sockets), connections $(jqs .connections.active)"
	client_bg "anew$((++turn))" hold to=$PROXY_IP:8082 n=5 ping=1 timeout=30
	wait_for has_output "anew$turn"
	wait_engine held
	stop_peer "anew$turn"
	assert_eq "$1: new ones: $RESULT" "$RC" 0
	wait_until 2000 maps_are_empty || fail "$1: left of new ones: $(sockmaps counts)"
}

say "the whole daemon"
start_sockmap "" "$text"
flows_up 1
# shellcheck disable=SC2046
dies "all" 1 $(ip netns pids "$LAB-p")
join_sluice
if on_sockmap; then
	assert_eq "sockets in the pinned maps" "$(sockmaps counts | jq -c '[.targets, .sources]')" "[0,0]"
	echo "left until the restart: $(sockmaps counts)"
fi
start_sockmap "" "$text"
starts_anew "all"

say "the supervisor"
flows_up 2
dies "supervisor" 2 "$SLUICE_PID"
join_sluice
wait_until 2000 eval '[ -z "$(ip netns pids "$LAB-p")" ]' || fail "processes left: $(ip netns pids "$LAB-p" | xargs ps -o pid,args -p)"
start_sockmap "" "$text"
starts_anew "supervisor"

say "the proxy"
flows_up 3
before=$(n_ready proxy)
dies "proxy" 3 "$(pid_of_role proxy)"
wait_until 12000 is_ready proxy "$before" || fail "no new proxy"
wait_for is_running
engine_is_back
starts_anew "proxy"

say "the broker: flows go on, and their ends leave nothing"
flows_up 4
sockmap_baseline_pid=$(proxy_pid)
before=$(n_ready broker)
kill -KILL "$(pid_of_role broker)"
wait_until 12000 is_ready broker "$before" || fail "no new broker"
engine_is_back
assert_eq "the proxy" "$(proxy_pid)" "$sockmap_baseline_pid"
moved=$(long_moved long4 0 && tail -n 1 "$LAB_DIR/long4.out" | jq -r '[.up, .down] | min / 1000000 | floor')
wait_until 5000 long_moved long4 $((moved + 10)) || fail "the long ones do not go on"
assert_eq "engines" "$(engine_of held) $(engine_of long)" "$ENGINE $ENGINE"
wait_until 3000 eval '! on_sockmap || [ "$(n_sockmap_sockets)" = 106 ]' || fail "sockets the new broker knows: $(n_sockmap_sockets)"
stop_peer held4
assert_eq "held ones: $RESULT" "$RC" 0
stop_peer long4
assert_eq "long ones: $(cat "$LAB_DIR/long4.out.err") $RESULT" "$RC" 0
assert_between "longest gap, ms" "$(jq .max_gap_ms <<<"$RESULT")" 0 $((4000 * SLOW))
starts_anew "broker"

say "spilled while no broker answers"
reload_sockmap backlog=20KiB "$text"
client_bg spill verify to=$PROXY_IP:8083 n=20 c=20 burst=2 slow=100 rcvbuf=8192 max=400000 shapes=duplex \
	stall=$stall timeout=$((60 * SLOW))
wait_until 5000 eval 'grep -q ready "$LAB_DIR/spill.out"' || fail "the transfers are not connected"
wait_engine slow
wait_until 5000 eval '[ "$(n_on "$ENGINE" slow)" = 20 ]' || fail "on the engine: $(n_on "$ENGINE" slow)"
broker=$(pid_of_role broker) before=$(n_ready broker)
if on_sockmap; then spills=$(n_spills); fi
kill -STOP "$broker"
kill -USR1 "${PEER_PIDS[spill]}"
if on_sockmap; then wait_until 5000 eval '[ "$(n_spills)" -gt '"$spills"' ]' || fail "nothing was spilled"; fi
if [ $((RANDOM % 2)) = 0 ]; then wait "${PEER_PIDS[spill]}" || true; fi # all of it without
kill -KILL "$broker"
join_peer spill
echo "$RESULT"
assert_eq "spilled ones: $(tail -n 3 "$LAB_DIR/spill.out.err" "$LAB_DIR/s.out.err")" "$RC" 0
wait_until 12000 is_ready broker "$before" || fail "no new broker"
engine_is_back
wait_until 5000 eval '[ "$(server_field s open)" = 0 ]' || fail "the server has open ones"
starts_anew "spilled"

say "the broker dies in the middle of hand-overs"
for ((i = 1; i <= DEATHS; i++)); do
	reload_sockmap "backlog=$((RANDOM % 2 ? 20480 : 1048576)) after_bytes=$((RANDOM % 2 * RANDOM))" "$text"
	before=$(n_ready broker)
	client_bg many verify to=$PROXY_IP:8080 n="$N" c="$C" shapes=all max=200000 rest=200 seed=$((SEED + i)) \
		stall=$stall timeout=$((120 * SLOW))
	sleep "0.$((RANDOM % 900 + 100))" # any moment
	kill -KILL "$(pid_of_role broker)"
	wait_until 12000 is_ready broker "$before" || fail "no new broker"
	join_peer many
	echo "round $i: $(jq -c '[.ok, .bad, .max_gap_ms, .s]' <<<"$RESULT"); $(moves)"
	assert_eq "round $i: $(tail -n 3 "$LAB_DIR/many.out.err")" "$RC" 0
	wait_until 5000 eval '[ "$(server_field v open)" = 0 ]' || fail "round $i: the server has open ones"
	engine_is_back
	starts_anew "round $i"
done
twice=$(access_lines '[^ ]*' | grep -oE ' id=[0-9]+' | sort | uniq -d)
assert_eq "connections with two access lines" "$twice" ""
assert_eq "ends with an error of ours" "$(access_lines v | grep -cE '_reason=(error|force_cleanup)')" 0

say "upgrades and reloads under load"
client_bg long5 long to=$PROXY_IP:8081 c=3 n=1 t=100000 rate=20000000 stall=$((10000 * SLOW)) timeout=120
wait_engine long
client_bg many verify to=$PROXY_IP:8080 n=$((N * 4)) c="$C" shapes=all max=200000 rest=200 stall=$stall timeout=$((120 * SLOW))
for ((i = 1; i <= RELOADS; i++)); do
	reload_sockmap "backlog=$((RANDOM * 32 + 20480)) after_bytes=$((RANDOM % 2 * RANDOM))" "$text"
	if [ "$i" -le "$UPGRADES" ]; then
		sl upgrade >"$LAB_DIR/upgrade.out" 2>&1 || fail "upgrade $i: $(cat "$LAB_DIR/upgrade.out")"
		wait_for is_running
		engine_is_back
		client_bg "up$i" hold to=$PROXY_IP:8082 n=5 ping=1 timeout=30
		wait_until 15000 has_output "up$i" || fail "upgrade $i: no answer" # asked of a broker that was just being replaced: answered by the next
		wait_until 15000 eval '[ "$(n_on "$ENGINE" held)" = 5 ]' || fail "upgrade $i: on the engine: $(sl conns --json --route held | jq -c ".[0]") $(sl conns --json | jq length)"
		stop_peer "up$i"
	fi
done
join_peer many
echo "$RESULT; $(moves)"
assert_eq "transfers: $(tail -n 3 "$LAB_DIR/many.out.err" "$LAB_DIR/v.out.err")" "$RC" 0
stop_peer long5
echo "$RESULT"
assert_eq "long ones: $(cat "$LAB_DIR/long5.out.err")" "$RC" 0
assert_between "longest gap, ms" "$(jq .max_gap_ms <<<"$RESULT")" 0 $((5000 * SLOW))
wait_until 5000 eval '[ "$(server_field v open) $(server_field l open)" = "0 0" ]' || fail "servers with open ones"
starts_anew "upgrades"
stop_peer v
assert_eq "the server's verdict: $(tail -n 3 "$LAB_DIR/v.out.err")" "$RC" 0
kill -TERM "$(jqs .pid)"
wait_until 5000 eval '[ -z "$(ip netns pids "$LAB-p")" ]' || fail "left: $(ip netns pids "$LAB-p" | xargs ps -o pid,args -p)"
wait_until 3000 eval '[ "$(n_sockets)" = 0 ]' || fail "sockets left: $(in_ns proxy ss -Htan)"
