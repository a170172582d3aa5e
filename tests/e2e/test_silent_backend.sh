#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A backend that never answers: the connect deadline, and clients that leave before it.
. "$(dirname "$0")/../lib/netlab.sh"

server silent silent 8001
start_sluice "defaults: { timeouts: { connect: 500ms } }
routes:
$(route silent 8083 "\"$BACKEND_IP:8001\"")
$(route patient 8084 "\"$BACKEND_IP:8001\"" 'timeouts: { connect: 20s }')
$(route open 8085 "\"$BACKEND_IP:8001\"" 'timeouts: { connect: 1s }, half_open: true')
$(route grace 8086 "\"$BACKEND_IP:8001\"" 'timeouts: { connect: 20s, close_grace: 400ms }')"
baseline

say "the connect deadline holds within 50 ms"
n=0
for _ in 1 2 3; do
	timely 499 550 to=$PROXY_IP:8083 send=hello
	assert_eq "the client's end" "$(of end)" reset
	n=$((n + SHOTS))
	assert_ended silent $n normal connection_timeout
done
assert_back_to_baseline

connecting_ones() { in_ns proxy ss -Htn state syn-sent | wc -l; }
is_connecting() { [ "$(connecting_ones)" = "$1" ]; }

say "a client that leaves while connecting cancels the connect"
n=0
for how in close_ms rst_ms; do
	n=$((n + 1))
	client_bg leaver$n shot to=$PROXY_IP:8084 $how=400 timeout=10
	wait_for is_connecting 1
	assert_eq "state" "$(sl conns --json | jq -r '.[0].state')" connecting
	join_peer leaver$n
	assert_back_to_baseline
	assert_ended patient $n closed_during_connect closed_during_connect
done

say "100 clients that leave at different times"
client churn to=$PROXY_IP:8084 n=100 c=100 phase=9,9,0,1,2 ms=300 timeout=10
assert_back_to_baseline

say "half_open: a FIN alone does not cancel"
timely 999 1050 to=$PROXY_IP:8085 fin=1
wait_access open
assert_eq "backend reason" "$(access open backend_reason)" connection_timeout

say "a request and FIN: the connect goes on for close_grace"
timely 399 500 to=$PROXY_IP:8086 send=question fin=1
assert_ended grace $SHOTS closed_during_connect closed_during_connect
assert_back_to_baseline
