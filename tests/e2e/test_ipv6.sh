#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# IPv6 and IPv4 on either side of the daemon.
. "$(dirname "$0")/../lib/netlab.sh"

server id identify 8000
server v verify 8001
start_sluice "routes:
$(route six 8080 "\"[$BACKEND6]:8000\"")
$(route four 8081 "\"$BACKEND_IP:8000\"")
$(route load 8082 "\"[$BACKEND6]:8001\"")"

try() { # WHERE BACKEND-LOCAL-PATTERN
	shot to="$1"
	assert_eq "$1 ends" "$(of end)" eof
	assert_match "$1 reaches" "$(of text)" "$2"
}
say "every pair of families"
try "[$PROXY6]:8080" "^id \[$PROXY_BACK6\]:[0-9]+ \[$BACKEND6\]:8000"
try "[$PROXY6]:8081" "^id $PROXY_BACK_IP:[0-9]+ $BACKEND_IP:8000"
try "$PROXY_IP:8080" "^id \[$PROXY_BACK6\]:[0-9]+ \[$BACKEND6\]:8000"
try "$PROXY_IP:8081" "^id $PROXY_BACK_IP:[0-9]+ $BACKEND_IP:8000"

say "clients are shown as what they are"
wait_access six 2
assert_match "v6 client" "$(access_lines six | sed -n 1p)" " client=\[$CLIENT6\]:[0-9]+ .* backend=\[$BACKEND6\]:8000 "
assert_match "v4 client" "$(access_lines six | sed -n 2p)" " client=$CLIENT_IP:[0-9]+ "

say "checked transfers over IPv6"
client verify to="[$PROXY6]:8082" n=100 c=10 timeout=20
