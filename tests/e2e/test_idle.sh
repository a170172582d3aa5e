#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The idle timer sees traffic in either direction; max_lifetime ends even busy connections.
. "$(dirname "$0")/../lib/netlab.sh"

start_sluice "defaults: { timeouts: { idle: 800ms } }
routes:
$(route down 8081 "\"$BACKEND_IP:8001\"")
$(route up 8082 "\"$BACKEND_IP:8002\"")
$(route life 8083 "\"$BACKEND_IP:8003\"" 'timeouts: { max_lifetime: 700ms }')
$(route immortal 8084 "\"$BACKEND_IP:8003\"" 'keep_alive: immortal, timeouts: { max_lifetime: 700ms }')"
baseline

say "only the backend talks, for two idle times"
dialog_server s 8001 stream:16:100 sleep:2500
dialog client to=$PROXY_IP:8081 flow:16:$((750 * SLOW)) eof took:700:$((2000 * SLOW))
assert_ended down 1 inactivity inactivity

say "only the client talks"
dialog_server s 8002 flow:16:$((750 * SLOW)) eof took:700:$((2000 * SLOW))
dialog client to=$PROXY_IP:8082 stream:16:100 sleep:2500
join_peer s
assert_eq "server" "$RC" 0
assert_ended up 1 inactivity inactivity

say "max_lifetime ends a busy connection, and an immortal one"
server e echo 8003
n=0
for route in life:8083 immortal:8084; do
	n=$((n + 1))
	client trickle to=$PROXY_IP:"${route#*:}" ms=20 t=3 timeout=10 2>"$LAB_DIR/trickle$n" && fail "not ended"
	ms=$(sed -n 's/.*rounds, \([0-9]*\) ms/\1/p' "$LAB_DIR/trickle$n")
	assert_between "${route%:*}: lived ms" "$ms" 695 $((1500 * SLOW))
	assert_match "how" "$(cat "$LAB_DIR/trickle$n")" EOF
	assert_ended "${route%:*}" 1 max_lifetime max_lifetime
done
assert_back_to_baseline
