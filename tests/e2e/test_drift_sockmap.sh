#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Others take entries out of the sockmap engine's maps, by hand and under traffic, detach its program, delete its
# pins: found within a period, mended or the connection moved to the relay; healthy connections see nothing of
# it, and no byte is lost without a word: a connection that has lost some is reset.
#   DRIFTS="flows targets ..." only those
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/sockmaplab.sh"
. "$(dirname "$0")/../lib/driftlab.sh"
need_sockmap
DRIFTS=${DRIFTS:-idle flows targets sources both waiting detach pins foreign said}
period=2500 # a walk is begun each second, and what is missing is looked at twice

server l long 8001 stall=$((8000 * SLOW)) timeout=600
server v long 8003 stall=$((8000 * SLOW)) timeout=600
server e echo 8002
server s sink 8004 paused=1 reply=1
start_sockmap backlog=256KiB "routes:
$(proute by 8081 "\"$BACKEND_IP:8001\"")
$(proute quiet 8082 "\"$BACKEND_IP:8002\"")
$(proute victim 8083 "\"$BACKEND_IP:8003\"")
$(proute one 8084 "\"$BACKEND_IP:8010\"")
$(proute stopped 8085 "\"$BACKEND_IP:8004\"")
$(proute new 8086 "\"$BACKEND_IP:8002\"")"
sockmap_baseline
warnings=$(kernel_warnings)

mended() { sl engines --json | jq '.engines.sockmap | .repaired + .dropped'; }
mark_drift() { mended_before=$(mended); }
found_since() { [ "$(mended)" -gt "$mended_before" ]; }
assert_found() { # WHAT
	local start
	start=$(now_ms)
	wait_until $period found_since || fail "$1: not found: $(sl engines --json | jq -c .engines.sockmap)"
	echo "$1: found after $(($(now_ms) - start)) ms; $(drifts)"
}
alive() {
	assert_eq "$1: the supervisor" "$(jqs .pid)" "$SLUICE_PID"
	assert_eq "$1: bystanders, the quiet ones" "$(n_on sockmap by) $(n_on sockmap quiet)" "3 5"
}

# key COOKIE: as bpftool wants it
key() { printf 'hex'; for i in 0 8 16 24 32 40 48 56; do printf ' %02x' $((($1 >> i) & 255)); done; }
take_out() { # MAP COOKIE
	# shellcheck disable=SC2046
	bpftool map delete pinned "$(bpf_of)/sockmap_$1" key $(key "$2") || fail "bpftool: $1 of $2"
}
cookie() { slots_of "$1" | jq ".[$2].cookie"; } # CONN_ID 0|1: the client's socket, the backend's
id_of() { sl conns --route "$1" --json | jq '.[0].id'; }
slots_live() { sockmaps slots | jq length; }

client_bg by long to=$PROXY_IP:8081 c=3 n=1 t=100000 rate=4000000 stall=$((8000 * SLOW)) timeout=300
client_bg quiet hold to=$PROXY_IP:8082 n=5 ping=1 timeout=300
wait_for has_output quiet
wait_engine by
wait_engine quiet

# A connection on which nothing happens meanwhile has nothing to lose.
turn=0
# The broker is held up until packets have met the gap, so that it is not mended before.
hold_broker() { kill -STOP "$(jqs .processes.broker)"; }
let_broker_go() { # UNKNOWN_BEFORE
	wait_until 3000 eval '[ "$(sockmap_counter unknown)" -gt '"$1"' ]' || fail "no packet has met the gap"
	kill -CONT "$(jqs .processes.broker)"
}
# An entry of sockmap_flows is back within the period; sockets that are taken out stay out.
idle_one() { # WHAT SIDE MAP...
	local what=$1 side=$2 go=$LAB_DIR/go.$((++turn)) client id map c n
	shift 2
	dialog_server "b$turn" 8010 expect:hello send:world wait:"$go" expect:more send:answer wait:"$go.2" \
		flow:200000:4000 eof send:done fin
	OUT=$LAB_DIR/c$turn.out spawn client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:8084 \
		send:hello expect:world tell:"$go.at" wait:"$go" send:more expect:answer wait:"$go.2" bulk:200000 fin expect:done eof
	client=$LAST
	wait_engine one
	wait_until 15000 test -e "$go.at" || fail "idle, $what: no answer" # nothing of it is on its way now
	id=$(id_of one) c=$(cookie "$(id_of one)" "$side")
	mark_drift
	if [ "$1 $side" = "flows 0" ]; then # the client speaks first
		n=$(sockmap_counter unknown)
		hold_broker
		take_out flows "$c"
		touch "$go"
		let_broker_go "$n"
		assert_found "idle, $what"
	else
		for map; do take_out "$map" "$c"; done
		if [ $((turn % 2)) = 0 ]; then assert_found "idle, $what"; fi
		touch "$go"
		if [ $((turn % 2)) = 1 ]; then assert_found "idle, $what"; fi
	fi
	echo "idle, $what: $(sl conns --route one --json | jq -c '.[0] | [.engine, .engine_reason, .moves[-1]]')"
	touch "$go.2"
	RC=0
	wait "$client" || RC=$?
	assert_eq "idle, $what: client: $(cat "$LAB_DIR/c$turn.out.err")" "$RC" 0
	join_peer "b$turn"
	assert_eq "idle, $what: backend: $(cat "$LAB_DIR/b$turn.out.err")" "$RC" 0
	assert_ended one "$turn" normal normal
	alive "idle, $what"
}
# sides DEFAULT: the sides a drill is made for; ALL=1 (the soak): both.
sides() { if [ -n "${ALL:-}" ]; then echo 0 1; else echo "$1"; fi; }
idle() {
	local side
	for side in $(sides 0); do idle_one "flows of side $side" "$side" flows; done
	for side in $(sides 1); do idle_one "targets of side $side" "$side" targets; done
	for side in $(sides 0); do idle_one "sources of side $side" "$side" sources; done
	for side in $(sides 1); do idle_one "targets and sources of side $side" "$side" targets sources; done
	for side in $(sides 0); do idle_one "all of side $side" "$side" flows targets sources; done
}

# busy_one WHAT SIDE MAP...: in the middle of bulk both ways; whole, or reset at both ends
busy_one() {
	local what=$1 side=$2 id c map how n
	shift 2
	rm -f "$LAB_DIR"/victim.out*
	client_bg victim long to=$PROXY_IP:8083 c=1 n=1 t=100000 rate=${RATE:-30000000} stall=$((8000 * SLOW)) timeout=60
	wait_engine victim
	wait_until 5000 long_moved victim 2 || fail "nothing moves"
	id=$(id_of victim) c=$(cookie "$(id_of victim)" "$side")
	mark_drift
	if [ "$1" = flows ]; then
		n=$(sockmap_counter unknown)
		hold_broker
		for map; do take_out "$map" "$c"; done
		let_broker_go "$n"
	else
		for map; do take_out "$map" "$c"; done
	fi
	assert_found "$what"
	how=$(sl conns --route victim --json | jq -c '.[0] | [.engine, .engine_reason, .moves[-1]]')
	if [ "$how" != '[null,null,null]' ] && ! gone "${PEER_PIDS[victim]}"; then
		long_moved victim 0 || true
		moved=$(tail -n 1 "$LAB_DIR/victim.out" | jq -r '[.up, .down] | min / 1000000 | floor' || echo 0)
		wait_until 5000 eval "gone_or_zombie ${PEER_PIDS[victim]} || long_moved victim $((moved + 5))" ||
			fail "$what: stands still: $how $(slots_of "$id")"
	fi
	stop_peer victim
	if [ "$RC" = 0 ]; then
		echo "$what: whole; $how"
	else
		assert_match "$what: how the client ended" "$(cat "$LAB_DIR/victim.out.err")" '(Connection reset by peer|Broken pipe): sent'
		wait_until 3000 eval '[ "$(sl conns --route victim --json | jq length)" = 0 ]' || fail "$what: still in conns"
		echo "$what: reset; $(access victim engine) $(access victim client_reason) $(access victim backend_reason)"
	fi
	wait_until 3000 eval '[ "$(server_field v open)" = 0 ]' || fail "$what: the backend's side is open"
	if grep -v 'Connection reset by peer\|Broken pipe' "$LAB_DIR/v.out.err"; then fail "$what: the server"; fi
	alive "$what"
}
flows() { for side in $(sides 1); do busy_one "busy, flows of side $side" "$side" flows; done; }
targets() { for side in $(sides 0); do busy_one "busy, targets of side $side" "$side" targets; done; }
sources() { for side in $(sides 1); do busy_one "busy, sources of side $side" "$side" sources; done; }
both() {
	local side
	for side in $(sides 0); do busy_one "busy, targets and sources of side $side" "$side" targets sources; done
	for side in $(sides 1); do busy_one "busy, all of side $side" "$side" flows targets sources; done
}

# The socket that bytes wait for leaves its last map: they are gone, and that is said.
waiting() {
	local id
	client_bg upload shot to=$PROXY_IP:8085 up=30000000 fin=1 burst=2 timeout=60
	wait_engine stopped
	kill -USR1 "${PEER_PIDS[upload]}"
	id=$(id_of stopped)
	wait_until 5000 eval '[ "$(slots_of '"$id"' | jq "map(.spills) | add")" -gt 0 ]' || fail "nothing waits"
	mark_drift
	take_out targets "$(cookie "$id" 1)"
	take_out sources "$(cookie "$id" 1)"
	assert_found "with bytes that wait"
	kill -USR2 "${PEER_PIDS[s]}"
	join_shot upload || true
	if [ "$(of end)" = eof ]; then
		assert_eq "the sink's answer" "$(of text)" "30000000 $(of hash_out)"
		echo "with bytes that wait: all arrived"
	else
		assert_eq "with bytes that wait: the client's end" "$(of end)" reset
		wait_access stopped
		echo "with bytes that wait: reset; $(access stopped client_reason) $(access stopped backend_reason)"
	fi
	wait_until 3000 eval '[ "$(server_field s open)" = 0 ]' || fail "the backend's side is open"
	alive "with bytes that wait"
}

# new_ones WHAT: connections made now are served, wherever they are carried.
new_ones() {
	client_bg "new$((++turn))" trickle to=$PROXY_IP:8086 c=5 ms=20 t=2 timeout=20
	join_peer "new$turn"
	assert_eq "$1: new ones: $(cat "$LAB_DIR/new$turn.out.err") $RESULT" "$RC" 0
	shot to=$PROXY_IP:8086 up=1000000 fin=1
	assert_eq "$1: a new one's megabyte" "$(of end) $(of got) $(of hash_in)" "eof 1000000 $(of hash_out)"
}
detach() {
	mark_drift
	bpftool prog detach pinned "$(bpf_of)/sockmap_prog" stream_verdict pinned "$(bpf_of)/sockmap_sources" || fail "bpftool"
	client_bg "detached" hold to=$PROXY_IP:8086 n=5 ping=1 timeout=60
	wait_for has_output detached
	assert_found "the program detached"
	new_ones "attached again"
	client_bg "after$turn" hold to=$PROXY_IP:8086 n=5 ping=1 timeout=20
	wait_for has_output "after$turn"
	wait_until 3000 eval '[ "$(n_on sockmap new)" -ge 5 ]' || fail "later ones on sockmap: $(n_on sockmap new)"
	stop_peer "after$turn"
	stop_peer "detached"
	assert_eq "those of meanwhile: $(cat "$LAB_DIR/detached.out.err")" "$RC" 0
	alive "the program detached"
}

map_ids() { # of what is pinned, by name
	local map
	for map in $SOCKMAP_PINS; do bpftool -j map show pinned "$(bpf_of)/sockmap_$map" 2>/dev/null | jq -r '"\(.name) \(.id)"'; done
}
are_pinned() { [ "$(map_ids)" = "$ids" ] && [ "$(pinned)" = "$all_pins" ]; }
pins() {
	local ids all_pins
	ids=$(map_ids) all_pins=$(pinned)
	mark_drift
	rm "$(bpf_of)/sockmap_flows" "$(bpf_of)/sockmap_prog"
	wait_until $period are_pinned || fail "not pinned again: $(pinned)"
	assert_found "two pins deleted"
	mark_drift
	find "$(bpf_of)" -mindepth 1 -name 'sockmap_*' -delete
	wait_until $period are_pinned || fail "not pinned again: $(pinned)"
	assert_found "all pins deleted"
	new_ones "pins"
	alive "pins deleted"
}

# Entries that nobody explains.
add_entry() {
	bpftool map update pinned "$(bpf_of)/sockmap_flows" key hex 11 22 33 44 55 66 77 00 \
		value hex 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 e8 03 00 00 00 00 00 00 || fail "bpftool"
}
foreign() {
	local n
	n=$(sockmaps counts | jq .flows)
	mark_drift
	add_entry
	wait_until $period eval '[ "$(sockmaps counts | jq .flows)" = '"$n"' ]' || fail "a foreign entry stays"
	assert_found "a foreign entry"
	alive "a foreign entry"
}

# What `sluice diff` and the metrics say of each, once, by its name.
said_of() { # KIND LINE...: the hunk
	local kind=$1 was
	was=$(kind_count "$kind") was=${was:-0}
	shift
	"${DO[@]}"
	wait_until $period counted "$kind" $((was + 1)) || fail "$kind: not counted: $(drifts)"
	looks
	hunk "$@"
	assert_match "$kind: the last line" "$(tail -n 1 <<<"$DIFF")" "^[0-9]+ differences? in the last 10 minutes, all healed; totals since start: .*$kind [0-9]+"
	assert_eq "$kind: as JSON" "$(sl diff --json | jq --arg k "$kind" 'any(.differences[]; .kind == $k)')" true
}
said() {
	local ids how
	client_bg "told" hold to=$PROXY_IP:8086 n=3 ping=1 timeout=60
	wait_for has_output told
	wait_until 5000 eval '[ "$(n_on sockmap new)" = 3 ]' || fail "on the engine: $(n_on sockmap new)"
	mapfile -t ids < <(sl conns --route new --json | jq '.[].id')
	how="missing"
	DO=(take_out flows "$(cookie "${ids[0]}" 0)")
	said_of sockmap_entry "-entry of sockmap_flows, connection ${ids[0]}, client's socket" "+$how" " repaired: made again %"
	DO=(take_out targets "$(cookie "${ids[1]}" 1)")
	said_of sockmap_entry "-entry of sockmap_targets, connection ${ids[1]}, backend's socket" "+$how" \
		" repaired: the relay goes on with the connection %"
	DO=(take_out sources "$(cookie "${ids[2]}" 0)")
	said_of sockmap_entry "-entry of sockmap_sources, connection ${ids[2]}, client's socket" "+$how" \
		" repaired: the relay goes on with the connection %"
	DO=(rm "$(bpf_of)/sockmap_slots")
	said_of sockmap_pin "-pin sockmap_slots" "+$how" " repaired: pinned again %"
	DO=(bpftool prog detach pinned "$(bpf_of)/sockmap_prog" stream_verdict pinned "$(bpf_of)/sockmap_sources")
	said_of sockmap_program "-program on sockmap_sources" "+$how" " repaired: attached again %"
	DO=(add_entry)
	said_of sockmap_orphan "+entries of sockmap_flows that no connection explains" " removed: removed %"
	assert_eq "those on sockmap" "$(n_on sockmap new)" 1
	stop_peer told
	assert_eq "told: $RESULT" "$RC" 0
}

for drift in $DRIFTS; do
	say "$drift"
	$drift
done

say "the others saw nothing"
stop_peer by
echo "$RESULT"
assert_eq "bystanders: $(cat "$LAB_DIR/by.out.err")" "$RC" 0
assert_between "their longest gap, ms" "$(jq .max_gap_ms <<<"$RESULT")" 0 $((4000 * SLOW)) # the kernel's workers wait for a processor, too
stop_peer quiet
assert_eq "the quiet ones: $RESULT" "$RC" 0
wait_until 3000 eval '[ "$(server_field l open) $(server_field e open)" = "0 0" ]' || fail "servers with open ones"
assert_sockmap_baseline "after all"
assert_maps_empty
echo "warnings of the kernel: $(($(kernel_warnings) - warnings))"
stop_sluice
assert_eq "exit code" "$RC" 0
