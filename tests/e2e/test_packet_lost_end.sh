#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The backend's last bytes are lost, and its reset comes behind them to a client that is gone (in
# FIN_WAIT2, whose kernel takes the reset without a word): over all the same, long before a deadline.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_packet

bad_wire backend from=8001 over=200
start_packet "" "routes:
$(proute a 8081 "\"$BACKEND_IP:8001\"" "timeouts: { close_grace: $((20 * SLOW))s }")"
packet_baseline
go=$LAB_DIR/go
dialog_server s 8001 expect:hi send:ho wait:"$go" expect:question eof sleep:100 bulk:200 abort
OUT=$LAB_DIR/c.out spawn client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:8081 send:hi expect:ho wait:"$go" send:question
wait_engine a
touch "$go"
wait "$LAST"
join_peer s
assert_eq "server: $(cat "$LAB_DIR/s.out.err")" "$RC" 0
assert_between "lost by the wire" "$(wire_field backend lost)" 1 10
wait_until $((5000 * SLOW)) eval '[ "$(n_access a)" = 1 ]' || fail "not over: $(flows_json)"
assert_ended a 1 normal econnreset
assert_packet_baseline
