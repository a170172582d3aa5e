#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Default timeouts leave long-lived connections alone: silent for 61 s, and a byte now and then.
. "$(dirname "$0")/../lib/netlab.sh"

server e echo 8000
start_sluice "routes:
$(route main 8080 "\"$BACKEND_IP:8000\"")"
baseline
client_bg rare trickle to=$PROXY_IP:8080 c=5 ms=20000 timeout=200
client_bg often trickle to=$PROXY_IP:8080 c=5 ms=500 timeout=200
dialog client to=$PROXY_IP:8080 send:hello expect:hello sleep:61000 alive send:again expect:again fin eof
stop_peer rare
assert_eq "rare: $RESULT" "$RC" 0
stop_peer often
assert_eq "often: $RESULT" "$RC" 0
assert_back_to_baseline
