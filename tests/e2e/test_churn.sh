#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Connects and aborts at every phase: descriptors, connections, sockets and memory come back.
. "$(dirname "$0")/../lib/netlab.sh"
N=${N:-2000}

server http http 8000 size=20000
server silent silent 8001
start_sluice "routes:
$(route web 8080 "\"$BACKEND_IP:8000\"")
$(route silent 8081 "\"$BACKEND_IP:8001\"")
$(route refused 8082 "\"$BACKEND_IP:1\"")"
churn() { # PORT N PHASES [ARGUMENT...]
	local port=$1 n=$2 phase=$3
	shift 3
	client churn to=$PROXY_IP:"$port" to="[$PROXY6]:$port" n="$n" c=64 phase="$phase" timeout=$((120 * SLOW)) "$@"
}

say "warm-up"
churn 8080 500 0,1,2,3,4,5,6,7,8 expect=20000
churn 8081 200 9,0,1,2 ms=100
baseline
rss=$(rss_kib "$BASE_PID")

say "aborts before data, mid-connect, after half an answer, by reset, by FIN then reset"
churn 8080 $((N * 7 / 10)) 0,1,2,3,4,5,6,7,8 expect=20000
assert_back_to_baseline
say "clients that leave while the backend is silent"
churn 8081 $((N * 2 / 10)) 9,0,1,2 ms=100
assert_back_to_baseline
say "targets that refuse"
churn 8082 $((N / 10)) 1,2 reset_ok=1
assert_back_to_baseline
say "the same source address and port, again and again, left by reset"
in_ns client /usr/bin/python3 - "$PROXY_IP" 8080 <<'PY'
import socket, struct, sys
for i in range(200):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("10.91.0.2", 1025))
    s.settimeout(5)
    s.connect((sys.argv[1], int(sys.argv[2])))
    s.sendall(b"GET / HTTP/1.0\r\n\r\n")
    if not s.recv(100).startswith(b"HTTP/1.1 200"):
        sys.exit(f"round {i}: no answer")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
PY
assert_back_to_baseline
growth=$(($(rss_kib "$BASE_PID") - rss))
echo "RSS grew by $growth KiB"
assert_between "RSS growth, KiB" $growth -100000 $((4096 * SLOW))
