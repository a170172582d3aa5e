#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# `sluice kill` by id and by route: both peers see a reset.
. "$(dirname "$0")/../lib/netlab.sh"

server e echo 8001
start_sluice "routes:
$(route a 8081 "\"$BACKEND_IP:8001\"")
$(route b 8082 "\"$BACKEND_IP:8002\"")
$(route c 8083 "[\"$BACKEND_IP:8003\", \"$BACKEND_IP:8004\"]")
$(route d 8084 "\"$BACKEND_IP:8003\"")"
baseline

say "by id: that one alone"
client_bg one hold to=$PROXY_IP:8081 n=1 ping=1 timeout=20
wait_for has_output one
client_bg two hold to=$PROXY_IP:8081 n=1 ping=1 timeout=20
wait_for has_output two
id=$(sl conns --json | jq -r '[.[].id] | min')
sl kill "$id"
ended() { [ "$(grep -c lost "$LAB_DIR/$1.out")" != 0 ]; }
wait_for eval '[ "$(jqs .connections.active)" = 1 ]'
stop_peer one || true
assert_eq "the killed one saw" "$(jq -c '[.lost, .reset]' <<<"$RESULT")" "[1,1]"
assert_ended a 1 killed killed
assert_eq "the server saw one reset" "$(server_field e errors)" 1

say "by route"
dialog_server s 8002 expect:hello send:world rst
client_bg three hold to=$PROXY_IP:8081 n=5 ping=1 timeout=20
wait_for has_output three
dialog client to=$PROXY_IP:8082 send:hello expect:world rst &
dialog_pid=$!
wait_for eval '[ "$(sl conns --json | jq "[.[] | select(.route == \"b\" and .bytes_down == 5)] | length")" = 1 ]'
sl kill --route b
wait $dialog_pid || fail "the client did not see a reset"
join_peer s
assert_eq "the backend saw a reset" "$RC" 0
assert_ended b 1 killed killed
assert_eq "the other route goes on" "$(jqs .connections.active)" 6
rc=0
sl kill 999999999 >/dev/null 2>&1 || rc=$?
assert_eq "an id that does not exist" $rc 1
stop_peer two
assert_eq "second" "$RC" 0
stop_peer three
assert_eq "third" "$RC" 0

say "a route that does not exist"
rc=0
sl kill --route bb >"$LAB_DIR/typo" 2>&1 || rc=$?
assert_eq "exit code" $rc 1
assert_match "what is said" "$(cat "$LAB_DIR/typo")" "no route 'bb'"

say "filters: what is given must all be true of a connection"
server m echo 8003,8004
held() { # NAME PORT COUNT SOURCE
	client_bg "$1" hold to="${5:-$PROXY_IP}:$2" n="$3" ping=1 timeout=30 src="$4"
	wait_for has_output "$1" # one after the other, so that turns are known
}
held v1 8083 4 10.91.128.10
held v2 8083 4 10.91.129.20
held v3 8084 2 10.91.128.10
held v4 8084 2 "[$CLIENT6]" "[$PROXY6]"
active() { sl conns --json "$@" | jq length; }
wait_for eval '[ "$(jqs .connections.active)" = 12 ]'
assert_eq "listed by client" "$(active --client 10.91.128.0/24) $(active --client 10.91.128.1-10.91.129.255) $(active --client "10.91.12?.20") $(active --client fd91::/16) $(active --client 10.91.128.11)" "6 10 4 2 0"
assert_eq "by target" "$(active --target "$BACKEND_IP:8003") $(active --target "$BACKEND_IP:8004") $(active --target "$BACKEND_IP:1")" "8 4 0"
assert_eq "by several" "$(active --target "$BACKEND_IP:8003" --route c --client 10.91.129.20)" 2
id=$(sl conns --route d --client "$CLIENT6" --json | jq '.[0].id')
rc=0
sl kill --id "$id" --client 10.91.0.0/16 >/dev/null 2>&1 || rc=$?
assert_eq "an id outside the filter" "$rc $(jqs .connections.active)" "1 12"
sl kill --id "$id" --client "$CLIENT6"
wait_for eval '[ "$(jqs .connections.active)" = 11 ]'
sl kill --route c --client 10.91.129.0/24 --target "$BACKEND_IP:8004"
wait_for eval '[ "$(jqs .connections.active)" = 9 ]'
assert_eq "left" "$(active --client 10.91.129.20) $(active --route c) $(active --route d)" "2 6 3"
sl kill --client "10.91.128.*"
wait_for eval '[ "$(jqs .connections.active)" = 3 ]'
assert_eq "left" "$(active --client 10.91.129.20) $(active --client fd91::/16)" "2 1"
for bad in "--client 10.0.0.0/33" "--client host" "--id x" "--all --route c" "--target="; do
	rc=0
	# shellcheck disable=SC2086
	sl kill $bad >/dev/null 2>&1 || rc=$?
	if [ $rc = 0 ]; then fail "kill $bad was accepted"; fi
done
assert_eq "left" "$(jqs .connections.active)" 3
sl kill --all
wait_for eval '[ "$(jqs .connections.active)" = 0 ]'
for name in v1 v2 v3 v4; do stop_peer $name || true; done
assert_eq "killed per side" "$(jqs '"\(.terminations.client.killed) \(.terminations.backend.killed)"')" "14 14"
assert_back_to_baseline
