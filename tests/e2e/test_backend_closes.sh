#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A backend that accepts and closes: the client sees an end, not a reset, and nothing stays.
. "$(dirname "$0")/../lib/netlab.sh"

server shut close 8001
server later close 8002 ms=150
start_sluice "routes:
$(route shut 8081 "\"$BACKEND_IP:8001\"")
$(route later 8082 "\"$BACKEND_IP:8002\"")"
baseline

shot to=$PROXY_IP:8081
assert_eq "the client's end" "$(of end)" eof
assert_ended shut 1 normal normal
timely 0 250 to=$PROXY_IP:8082
assert_eq "the client's end" "$(of end)" eof
assert_ended later $SHOTS normal normal
# by the daemon's clock: the client's starts when its connect returns
assert_between "s" "$(access later duration | tr -d s)" 0.15 "$(awk -v s="$SLOW" 'BEGIN { print 0.25 * s }')"

say "200 times, 20 at once"
client churn to=$PROXY_IP:8081 n=200 c=20 phase=0 timeout=10
assert_back_to_baseline
wait_access shut 201

say "20 retries, 50 ms apart: the count stays at 0"
nobody() { [ "$(jqs .connections.active)" = 0 ]; }
for i in {1..20}; do
	shot to=$PROXY_IP:8081
	assert_eq "end $i" "$(of end)" eof
	sleep 0.05
	wait_until 500 nobody || fail "active after retry $i: $(jqs .connections.active)"
done
