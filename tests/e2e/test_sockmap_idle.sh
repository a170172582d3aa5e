#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A reader that is slower than `idle` is not taken for silent: what the kernel holds for it in front of its socket
# gets less, while its socket's own queue stays full.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/sockmaplab.sh"
SIZE=1000000 # no more than may wait
for ns in proxy backend; do buffers $ns "4096 65536 131072" "4096 65536 131072"; done

server s sink 8001 rate=60000
start_sockmap backlog=1MiB "routes:
$(proute slow 8081 "\"$BACKEND_IP:8001\"" "timeouts: { idle: $((2 * SLOW))s }")"
client_bg up shot to=$PROXY_IP:8081 up=$SIZE hold=1 timeout=120
has_ended() { access_lines slow | grep -q "reason=inactivity"; }
wait_until 60000 has_ended || fail "it has not ended: $(sl conns --json)"
# Its last bytes are with the reader by now.
has_all() {
	kill -USR1 "${PEER_PIDS[s]}"
	sleep 0.1
	[ "$(tail -n 1 "$LAB_DIR/s.out" | jq '.bytes // .got // 0')" = $SIZE ]
}
wait_until 10000 has_all || fail "what the reader has got: $(tail -n 1 "$LAB_DIR/s.out")"
stop_peer up
stop_sluice
