#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# `sluice kill` by id and by route: both peers see a reset.
. "$(dirname "$0")/../lib/netlab.sh"

server e echo 8001
start_sluice "routes:
$(route a 8081 "\"$BACKEND_IP:8001\"")
$(route b 8082 "\"$BACKEND_IP:8002\"")"
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
assert_eq "killed per side" "$(jqs '"\(.terminations.client.killed) \(.terminations.backend.killed)"')" "2 2"
assert_back_to_baseline
