#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A FIN that the kernel passes on: the other direction goes on for as long as it is not silent, and what
# is silent is ended after close_grace.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"

start_packet "" "defaults: { timeouts: { close_grace: 1s } }
routes:
$(proute a 8081 "\"$BACKEND_IP:8001\"")
$(proute b 8082 "\"$BACKEND_IP:8002\"")
$(proute c 8083 "\"$BACKEND_IP:8003\"")
$(proute d 8084 "\"$BACKEND_IP:8004\"")
$(proute e 8085 "\"$BACKEND_IP:8005\"")
$(proute f 8086 "\"$BACKEND_IP:8006\"")
$(proute g 8087 "\"$BACKEND_IP:8007\"" 'half_open: true')
$(proute v 8088 "\"$BACKEND_IP:8008\"" "timeouts: { close_grace: $((3 * SLOW))s }")"
packet_baseline
mark_rst

# story ROUTE PORT SERVER_STEPS -- CLIENT_STEPS: both greet first, and GO appears once the kernel has it.
story() {
	local route=$1 port=$2 steps=() pid
	GO=$LAB_DIR/go.$1
	shift 2
	while [ "$1" != -- ]; do
		steps+=("${1//GO/$GO}")
		shift
	done
	shift
	dialog_server "s$route" $((port - 80)) expect:hi send:ho wait:"$GO" "${steps[@]}"
	OUT=$LAB_DIR/c$route.out spawn client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:$port send:hi expect:ho wait:"$GO" "$@"
	pid=$LAST
	wait_engine "$route"
	touch "$GO"
	RC=0
	wait "$pid" || RC=$?
	assert_eq "$route: client: $(cat "$LAB_DIR/c$route.out.err")" "$RC" 0
	join_peer "s$route"
	assert_eq "$route: server: $(cat "$LAB_DIR/s$route.out.err")" "$RC" 0
}

say "client first: request, FIN, then an answer that streams for longer than close_grace"
story a 8081 expect:question eof stream:15:100 send:done -- send:question fin flow:15:$((950 * SLOW)) expect:done eof
assert_ended a 1 normal normal

say "server first: FIN, then an upload that streams for longer than close_grace"
story b 8082 send:hello fin flow:15:$((950 * SLOW)) expect:done eof -- expect:hello eof stream:15:100 send:done
assert_ended b 1 normal normal

say "client first, then silence: ended after close_grace"
story c 8083 expect:question eof sleep:4000 -- send:question fin ends took:980:$((3000 * SLOW))
assert_ended c 1 normal close_grace

say "server first, then silence"
story d 8084 expect:question send:answer fin ends took:980:$((3000 * SLOW)) -- send:question expect:answer eof sleep:4000
assert_ended d 1 close_grace normal

say "both at once"
story e 8085 send:x fin expect:y eof -- send:y fin expect:x eof
assert_ended e 1 normal normal

say "a FIN behind 20 MB comes after the last byte"
story f 8086 flow:20000000:5000 eof send:ok -- bulk:20000000 fin expect:ok eof
assert_ended f 1 normal normal

say "half_open: silence after the FIN is no end"
story g 8087 expect:question eof sleep:2000 send:late -- send:question fin silent:1500 expect:late eof
assert_ended g 1 normal normal
for r in a b c d e f g; do assert_match "engine of $r" "$(access $r engine)" "^$ENGINE/"; done

say "many at once, with silence between the FIN and a long answer"
server v verify 8008 stall=$((2000 * SLOW))
client verify to=$PROXY_IP:8088 n=64 c=64 max=500000 shapes=half rest=300 timeout=30 stall=$((2000 * SLOW)) || fail "half-closed transfers"
verified v 64
assert_no_flow_rst "half-closed ones" # and the relay's, for what is sent again after a close
assert_packet_baseline
