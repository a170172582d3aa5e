#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A client that never reads: what ends its connection also ends what the kernel holds for it.
# (A socket closed with bytes in its queue goes on probing a closed window, for ever if the peer
# answers the probes.)
. "$(dirname "$0")/../lib/netlab.sh"

server much source 8001 n=200000000
server little source 8002 n=500000
start_sluice "defaults: { timeouts: { close_grace: 500ms, drain: 1s } }
routes:
$(route idle 8081 "\"$BACKEND_IP:8001\"" 'timeouts: { idle: 500ms }')
$(route normal 8082 "\"$BACKEND_IP:8002\"")
$(route killed 8083 "\"$BACKEND_IP:8001\"")
$(route drain 8084 "\"$BACKEND_IP:8001\"")"
baseline
no_orphans() { [ "$(n_sockets)" -le "$1" ]; }

say "killed: gone at once"
client_bg k shot to=$PROXY_IP:8083 hold=1 timeout=60
wait_for eval '[ "$(jqs .connections.active)" = 1 ]'
sl kill --route killed
assert_back_to_baseline

say "ended by the idle limit"
client_bg i shot to=$PROXY_IP:8081 hold=1 timeout=60
wait_access idle
assert_eq "reasons" "$(access idle client_reason) $(access idle backend_reason)" "inactivity inactivity"
wait_until 3000 no_orphans "$BASE_SOCKETS" || fail "left: $(in_ns proxy ss -Htano state fin-wait-1)"

say "both sides closed, the client reads nothing of the last 500 kB"
client_bg n shot to=$PROXY_IP:8082 hold=1 fin=1 timeout=60
wait_access normal
wait_until 3000 no_orphans "$BASE_SOCKETS" || fail "left: $(in_ns proxy ss -Htano state fin-wait-1)"

say "ended by a drain"
client_bg d shot to=$PROXY_IP:8084 hold=1 timeout=60
wait_for eval '[ "$(jqs .connections.active)" = 1 ]'
stop_sluice
assert_eq "exit code" "$RC" 0
wait_until 3000 no_orphans 0 || fail "left: $(in_ns proxy ss -Htano state fin-wait-1)"
