#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Targets that refuse, are unreachable or silent; the connect deadline; clients that leave.
. "$(dirname "$0")/../lib/netlab.sh"

ip -n "$LAB-p" route add unreachable 10.99.0.0/16
server silent silent 8001
start_sluice "defaults: { timeouts: { connect: 500ms } }
routes:
$(route refused 8080 "\"$BACKEND_IP:1\"")
$(route nonet 8081 '"10.255.255.1:80"')
$(route nohost 8082 '"10.99.0.1:80"')
$(route silent 8083 "\"$BACKEND_IP:8001\"")
$(route patient 8084 "\"$BACKEND_IP:8001\"" 'timeouts: { connect: 20s }')
$(route open 8085 "\"$BACKEND_IP:8001\"" 'timeouts: { connect: 1s }, half_open: true')"
baseline

say "refused and unreachable: the client is reset at once"
for r in refused:8080:econnrefused nonet:8081:enetunreach nohost:8082:ehostunreach; do
	IFS=: read -r name port reason <<<"$r"
	for i in 1 2; do
		shot to=$PROXY_IP:"$port"
		assert_eq "$name: the client's end" "$(of end)" reset
		assert_between "$name: time" "$(of end_ms)" 0 $((100 * SLOW))
		assert_ended "$name" $i normal "$reason"
	done
done
assert_back_to_baseline

say "a silent backend: the connect deadline holds within 50 ms"
for i in 1 2 3; do
	shot to=$PROXY_IP:8083 send=hello
	assert_eq "the client's end" "$(of end)" reset
	assert_between "connect deadline" "$(of end_ms)" 499 $((550 * SLOW))
	assert_ended silent $i normal connection_timeout
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
	assert_eq "state" "$(sl conns --json | jq -r '(.connections? // .)[0].state')" connecting
	join_peer leaver$n
	assert_back_to_baseline
	wait_access patient $n
	assert_match "reasons after $how" "$(access patient client_reason) $(access patient backend_reason)" \
		'^(closed_during_connect|normal|econnreset) closed_during_connect$'
done

say "100 clients that leave at different times"
client churn to=$PROXY_IP:8084 n=100 c=100 phase=9,9,0,1,2 ms=300 timeout=10
assert_back_to_baseline

say "half_open: a FIN alone does not cancel"
shot to=$PROXY_IP:8085 fin=1
assert_between "end" "$(of end_ms)" 999 $((1050 * SLOW))
wait_access open
assert_eq "backend reason" "$(access open backend_reason)" connection_timeout
assert_eq "fsm defects" "$(grep -ac 'impossible event' "$(log_file)" || true)" 0
