#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# --single: all roles in one process, for debuggers and sanitizers, behaves the same.
. "$(dirname "$0")/../lib/netlab.sh"

export SLUICE_SINGLE=1
server e echo 8000
server v verify 8001
text="routes:
$(route main 8080 "\"$BACKEND_IP:8000\"")
$(route v 8081 "\"$BACKEND_IP:8001\"")
$(route range '"20000-20999"' "\"$BACKEND_IP:8000\"")"
start_sluice "$text"
baseline
assert_eq "children" "$(cat "/proc/$SLUICE_PID/task/$SLUICE_PID/children")" ""
client verify to=$PROXY_IP:8081 n=200 c=20 max=1000000 timeout=20
shot to=$PROXY_IP:20500 send=y fin=1
assert_eq "a port of a range" "$(of end) $(of text)" "eof y"
client_bg long trickle to=$PROXY_IP:8080 ms=10 timeout=20
for _ in 1 2 3; do
	reload "$text
$(route extra 8090 "\"$BACKEND_IP:8000\"")"
	reload "$text"
done
stop_peer long
assert_eq "the long connection: $RESULT" "$RC" 0
client churn to=$PROXY_IP:8080 n=300 c=20 phase=0,1,2 timeout=20
assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
