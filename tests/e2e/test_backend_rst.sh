#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A reset of one side resets the other at once and is that side's reason.
. "$(dirname "$0")/../lib/netlab.sh"

server at_once rst 8001
server later rst 8002 ms=200
server after reset 8003 n=100000
start_sluice "routes:
$(route at_once 8081 "\"$BACKEND_IP:8001\"")
$(route later 8082 "\"$BACKEND_IP:8002\"")
$(route after 8083 "\"$BACKEND_IP:8003\"")
$(route client 8084 "\"$BACKEND_IP:8004\"")
$(route early 8085 "\"$BACKEND_IP:8005\"")"
baseline

say "the backend resets: at once, later, in the middle of an upload"
shot to=$PROXY_IP:8081
assert_eq "the client's end" "$(of end)" reset
assert_ended at_once 1 normal econnreset
timely 200 300 to=$PROXY_IP:8082
assert_eq "the client's end" "$(of end)" reset
assert_ended later $SHOTS normal econnreset
shot to=$PROXY_IP:8083 up=50000000
assert_eq "the client's end" "$(of end)" reset
assert_ended after 1 normal econnreset

say "the client resets: the backend sees a reset, not an end"
dialog_server b1 8004 expect:hello send:world rst
dialog client to=$PROXY_IP:8084 send:hello expect:world abort
join_peer b1
assert_eq "backend" "$RC" 0
assert_ended client 1 econnreset normal

say "the client resets with bytes on their way to it"
dialog_server b2 8005 expect:go bulk:2000000 rst
dialog client to=$PROXY_IP:8085 send:go flow:1000:2000 abort
join_peer b2
wait_access early
assert_eq "client reason" "$(access early client_reason)" econnreset
assert_back_to_baseline
