#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A drained target gets no new connection, its open ones are counted down, and it comes back; for
# one route or all, over reloads, and what is left can be killed.
. "$(dirname "$0")/../lib/netlab.sh"

server one echo 8001
server two echo 8002
t1=$BACKEND_IP:8001 t2=$BACKEND_IP:8002
base="routes:
$(route a 8080 "[\"$t1\", \"$t2\"]")
$(route b 8081 "[\"$t1\", \"$t2\"]")"
start_sluice "$base"

# of_target ROUTE TARGET FIELD
of_target() { sl routes --json | jq ".[] | select(.name == \"$1\") | .targets[] | select(.address == \"$2\") | .$3"; }
state_of() { of_target "$1" "$2" state | tr -d '"'; }
ten_shots() { # PORT
	local i
	for i in {1..10}; do
		shot to=$PROXY_IP:"$1" send=x fin=1
		assert_eq "shot $i" "$(of text)" x
	done
}

say "open connections go on, new ones go elsewhere"
client_bg held hold to=$PROXY_IP:8080 n=6 ping=1 timeout=60
wait_for eval '[ "$(jqs .connections.active)" = 6 ]'
assert_eq "spread" "$(of_target a "$t1" active) $(of_target a "$t2" active)" "3 3"
sl drain a "$t1"
assert_eq "states" "$(state_of a "$t1") $(state_of a "$t2") $(state_of b "$t1")" "drained up up"
before=$(of_target a "$t1" total)
ten_shots 8080
assert_eq "new connections" "$(of_target a "$t1" total)" "$before"
assert_eq "its open ones" "$(of_target a "$t1" active)" 3
assert_match "metric" "$(http_get /metrics | grep "^sluice_target_up{route=\"a\",target=\"$t1\"}")" ' 0$'
before=$(of_target b "$t1" total)
ten_shots 8081
assert_eq "the other route's" "$(of_target b "$t1" total)" $((before + 5))

say "over a reload"
reload "$base
$(route c 8082 "\"$t2\"")"
assert_eq "still drained" "$(state_of a "$t1")" drained
before=$(of_target a "$t1" total)
ten_shots 8080
assert_eq "new connections" "$(of_target a "$t1" total)" "$before"

say "waited for: a time limit, then the end"
rc=0
sl drain "$t1" --route a --wait --timeout 300ms >"$LAB_DIR/wait" 2>&1 || rc=$?
assert_eq "exit code while connections are open" $rc 1
assert_match "count" "$(cat "$LAB_DIR/wait")" $'\n3 connections\n.*3 still open'
sl drain "$t1" --route a --wait --timeout 20s >"$LAB_DIR/wait" 2>&1 &
waiting=$!
wait_for grep -q '^3 connections' "$LAB_DIR/wait"
id=$(sl conns --target "$t1" --json | jq '.[0].id')
sl kill "$id"
wait_for grep -q '^2 connections' "$LAB_DIR/wait"
sl kill --target "$t1" --route b
assert_eq "none of another route" "$(of_target a "$t1" active)" 2
sl kill --target "$t1" --route a
rc=0
wait $waiting || rc=$?
assert_eq "exit code" $rc 0
assert_eq "last line" "$(tail -n 1 "$LAB_DIR/wait")" "0 connections"
assert_eq "the other target's go on" "$(of_target a "$t2" active)" 3

say "every target of a route drained"
sl drain "$t2" >/dev/null
shot to=$PROXY_IP:8082 send=x
assert_ended c 1 backend_down -
assert_match "explained" "$(sl explain 8082 --json | jq -r '"\(.verdict) \(.target)"')" '^backend_down null$'

say "undrained"
rc=0
sl undrain "$t2" --route a >"$LAB_DIR/out" 2>&1 || rc=$?
assert_eq "not drained for that route alone" $rc 1
sl undrain "$t2"
sl undrain "$t1"
assert_eq "states" "$(state_of a "$t1") $(state_of a "$t2") $(state_of c "$t2")" "up up up"
before=$(of_target a "$t1" total)
ten_shots 8080
assert_eq "new connections" "$(of_target a "$t1" total)" $((before + 5))
assert_eq "changes" "$(jqs .runtime_changes)" 0
rc=0
sl drain 1.2.3.4:5 >"$LAB_DIR/out" 2>&1 || rc=$?
assert_eq "a target nobody has" $rc 1
stop_peer held || true
