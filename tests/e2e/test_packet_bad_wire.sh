#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Cables that lose, reorder and duplicate, on both sides of the proxy: the same checks as on good ones.
#   LOSS= REORDER= DUP= per mille, BY= ms late, N= transfers, OFFLOADS=on|off
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
N=${N:-240} CONC=${CONC:-32} MAX=${MAX:-300000} SECONDS_MAX=${SECONDS_MAX:-120} OFFLOADS=${OFFLOADS:-on}
LOSS=${LOSS:-10} REORDER=${REORDER:-20} DUP=${DUP:-5} BY=${BY:-3}
stall=$((15000 * SLOW)) # lost SYNs and retransmissions take seconds

bad_wire client loss="$LOSS" reorder="$REORDER" dup="$DUP" by="$BY"
bad_wire backend loss="$LOSS" reorder="$REORDER" dup="$DUP" by="$BY"
offloads "$OFFLOADS"
server v verify 8000 stall=$stall
server s verify 8001 stall=$stall rcvbuf=30000
start_packet "" "routes:
$(proute main 8080 "\"$BACKEND_IP:8000\"")
$(proute main6 8081 "\"[$BACKEND6]:8000\"")
$(proute small 8082 "\"$BACKEND_IP:8001\"")
$(proute small6 8083 "\"[$BACKEND6]:8001\"")"
packet_baseline
mark_rst
client verify to=$PROXY_IP:8080 to="[$PROXY6]:8081" n="$N" c="$CONC" max="$MAX" shapes=all rest=100 \
	timeout="$SECONDS_MAX" stall=$stall ${WRAPPED:+wrap=1} || fail "the client saw bad transfers: $(tail -n 5 "$LAB_DIR/v.out.err")"
if on_packet; then assert_share "bad wires" "$N" "${SHARE:-20}"; fi
# Windows much smaller than those that the proxy had opened in their place, so that both ends are
# past the other's when the flow becomes theirs.
client verify to=$PROXY_IP:8082 to="[$PROXY6]:8083" n="$N" c="$CONC" max="$MAX" shapes=all rest=100 \
	timeout="$SECONDS_MAX" stall=$stall rcvbuf=30000 || fail "small windows: $(tail -n 5 "$LAB_DIR/s.out.err")"
assert_no_flow_rst "bad wires"
for end in client backend; do
	for f in lost reordered duplicated; do
		echo "$end $f: $(wire_field $end $f)"
	done
	if [ "$LOSS" != 0 ]; then assert_between "lost by the wire of the $end" "$(wire_field $end lost)" 5 10000000; fi
	if [ "$REORDER" != 0 ]; then assert_between "reordered by the wire of the $end" "$(wire_field $end reordered)" 5 10000000; fi
done
verified v "$N"
verified s "$N"
wait_until $((30000 * SLOW)) eval '[ "$(jqs .connections.active)" = 0 ]' || fail "connections left"
if on_packet; then wait_until 10000 no_live_flows || fail "live entries left: $(n_live_flows)"; fi
stop_sluice
assert_eq "exit code" "$RC" 0
