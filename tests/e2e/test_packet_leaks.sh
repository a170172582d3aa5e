#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Churn with the engine on: finished, aborted, reset in every phase, before, during and after the
# hand-over. Descriptors, sockets, ports, conntrack and live entries come back; SETTLE=1 waits until the
# entries that answer late packets are gone, too.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
N=${N:-600} CONC=${CONC:-64}

with_conntrack
server http http 8000 size=20000
server v verify 8001 stall=$((5000 * SLOW))
start_packet "${PACKET:-}" "routes:
$(proute web 8080 "\"$BACKEND_IP:8000\"")
$(proute v 8081 "\"$BACKEND_IP:8001\"")"
churn() { # N PHASES
	client churn to=$PROXY_IP:8080 to="[$PROXY6]:8080" n="$1" c="$CONC" phase="$2" expect=20000 timeout=$((200 * SLOW)) reset_ok=1
}

say "warm-up"
churn 200 0,1,2,3,4,5,6,7,8
client verify to=$PROXY_IP:8081 n=50 c=16 max=100000 shapes=all timeout=30 rest=50 >/dev/null
wait_until 5000 eval '[ "$(jqs .connections.active)" = 0 ]' || fail "active after the warm-up"
packet_baseline
rss=$(rss_kib "$BASE_PID")
handed=0
if on_packet; then handed=$(n_packet_total); fi

say "aborts in every phase"
churn $((N * 2 / 3)) 0,1,2,3,4,5,6,7,8
assert_packet_baseline_soon() {
	SETTLE='' assert_packet_baseline
	assert_no_flow_rst "churn"
}
assert_packet_baseline_soon
say "checked transfers, half of them reset somewhere"
client verify to=$PROXY_IP:8081 n=$((N / 3)) c="$CONC" max=200000 shapes=all rest=50 rst=50 timeout=$((200 * SLOW)) stall=$((5000 * SLOW)) ||
	fail "transfers: $(tail -n 3 "$LAB_DIR/v.out.err")"
assert_packet_baseline_soon
say "the same client port, again and again"
in_ns client /usr/bin/python3 - "$PROXY_IP" 8080 <<'PY'
import socket, struct, sys, time
for i in range(60):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("10.91.0.2", 1025))
    s.settimeout(5)
    s.connect((sys.argv[1], int(sys.argv[2])))
    for close in (False, i % 2 == 0):
        s.sendall(b"GET / HTTP/1.1\r\n" + (b"Connection: close\r\n" if close else b"") + b"\r\n")
        got = 0
        while got < 20000:
            piece = s.recv(65536)
            if not piece:
                sys.exit(f"round {i}: EOF after {got}")
            got += len(piece)
        # our sockets stay for 30 ms after a hand-over and take a SYN then: it comes again after 1 s
        time.sleep(0.02 if i < 4 else 0.04)
    if i % 2:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        while s.recv(65536):  # the server has closed first: no TIME_WAIT here
            pass
    s.close()
PY
assert_packet_baseline_soon
growth=$(($(rss_kib "$BASE_PID") - rss))
echo "RSS grew by $growth KiB"
assert_between "RSS growth, KiB" $growth -100000 $((6144 * SLOW))
if on_packet; then
	echo "handed over: $(($(n_packet_total) - handed)); $(handovers); entries $(n_flows)"
	assert_between "handed over" $(($(n_packet_total) - handed)) $((N / 10)) $((N + 100))
	assert_match "differences between kernel and records" "$(sl diff)" "no difference .*: none\$"
	assert_eq "access lines of flows on the engine" "$(grep -acE ' access: .* engine=packet/' "$(log_file)")" "$(n_packet_total)"
fi
if [ -n "${SETTLE:-}" ]; then assert_packet_baseline; fi
stop_sluice
assert_eq "exit code" "$RC" 0
