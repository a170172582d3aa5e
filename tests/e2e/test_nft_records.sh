#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Every flow of the kernel's NAT has a record, however short and many they are: right route, right bytes,
# within 5 s of its end; also when events are lost, and when the broker or the proxy begins anew amid them.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"
need_split
FLOWS=${FLOWS:-20000}

nat_up
for ns in client proxy backend; do in_ns $ns sysctl -qw net.ipv4.tcp_max_tw_buckets=200000; done
server h http 8001 size=1000
server h2 http 8002 size=5000
server v verify 8003 stall=$((2000 * SLOW))
udp_server u backend 8004
config() {
	echo "routes:
$(nroute small 8080 "\"$BACKEND_IP:8001\"")
$(nroute large 8081 "\"$BACKEND_IP:8002\"")
$(nroute verify 8082 "\"$BACKEND_IP:8003\"")
$(uroute udp 8083 "\"$BACKEND_IP:8004\"")"
}
GLOBAL="  log: { level: info, access: $LAB_DIR/access.log, format: json }" start_nat "$(config)"
nat_baseline
lines() { # ROUTE [FILTER]
	grep -a "\"route\":\"$1\"" "$LAB_DIR/access.log" 2>/dev/null | grep -c "${2:-.}" || true
}
has_lines() { [ "$(lines "$1")" -ge "$2" ]; }

# bytes of a file of access lines: smallest and largest of the route
bytes_of() { # ROUTE FIELD
	grep -a "\"route\":\"$1\"" "$LAB_DIR/access.log" | jq -s -c "[(map(.$2) | min), (map(.$2) | max)]"
}

say "$FLOWS short ones at full speed, of two routes"
half=$((FLOWS / 2))
rate() { # TO N: connect, request, read to the end, close
	in_ns client /usr/bin/python3 - "$1" "$2" <<-'PY'
		import socket, sys, threading
		host, port = sys.argv[1].rsplit(":", 1)
		left = [int(sys.argv[2])]
		lock = threading.Lock()
		bad = []
		def work():
		    while True:
		        with lock:
		            if left[0] == 0:
		                return
		            left[0] -= 1
		        try:
		            s = socket.create_connection((host, int(port)), 10)
		            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
		            while s.recv(65536):
		                pass
		            s.close()
		        except OSError as e:
		            bad.append(str(e))
		threads = [threading.Thread(target=work) for _ in range(16)]
		for t in threads: t.start()
		for t in threads: t.join()
		print(len(bad), *bad[:3])
	PY
}
start=$(now_ms)
rate $PROXY_IP:8081 $half >"$LAB_DIR/large.bad" &
other=$!
rate $PROXY_IP:8080 $half >"$LAB_DIR/small.bad"
wait $other
ended=$(now_ms)
assert_eq "failed clients" "$(cut -d' ' -f1 "$LAB_DIR/small.bad") $(cut -d' ' -f1 "$LAB_DIR/large.bad")" "0 0"
echo "$((FLOWS * 1000 / (ended - start))) flows/s"
wait_until $((ended + 5000 * SLOW - $(now_ms))) has_lines small $half || fail "lines of small within 5 s: $(lines small) of $half; $(nat_text)"
wait_until $((ended + 5000 * SLOW - $(now_ms))) has_lines large $half || fail "lines of large within 5 s: $(lines large) of $half"
echo "all $FLOWS lines $(($(now_ms) - ended)) ms after the last one's end"
assert_eq "odd ones" "$(jq -c 'select(.route == "small" or .route == "large") | select(.bytes_down == 0 or .client_reason != "normal")' "$LAB_DIR/access.log" | head -n 3)" ""
assert_eq "and no more" "$(lines small) $(lines large)" "$half $half"
assert_eq "engine" "$(lines small '"engine":"nftables"')" "$half"
assert_eq "reasons" "$(grep -a '"route":"small"' "$LAB_DIR/access.log" | jq -r '"\(.client_reason) \(.backend_reason)"' | sort -u)" "normal normal"
assert_eq "targets" "$(grep -a '"route":"large"' "$LAB_DIR/access.log" | jq -r .backend | sort -u)" "$BACKEND_IP:8002"
assert_eq "ids are each used once" "$(jq -r .id "$LAB_DIR/access.log" | sort | uniq -d | wc -l)" 0
# request 18 bytes, the answer 1000 or 5000 and its head; 3 to 12 packets of 40 to 60 bytes of headers
small=$(bytes_of small bytes_down) large=$(bytes_of large bytes_down)
echo "down: $small and $large; up: $(bytes_of small bytes_up)"
assert_between "smallest of small" "$(jq '.[0]' <<<"$small")" 1100 2200
assert_between "largest of small" "$(jq '.[1]' <<<"$small")" 1100 2200
assert_between "smallest of large" "$(jq '.[0]' <<<"$large")" 5100 6800
assert_between "largest of large" "$(jq '.[1]' <<<"$large")" 5100 6800
assert_eq "as the kernel counted" "$(n_counted small) $(n_counted large)" "$half $half"
assert_eq "by the metrics" "$(http_get /metrics | awk '/^sluice_connections_total\{.*route="small"/ && /engine="nftables"/ { print $NF }')" "$half"
wait_until 5000 nat_active_is 0 || fail "ghosts: $(n_nat_active)"

say "transfers of every kind: bytes as the two ends know them"
client verify to=$PROXY_IP:8082 n=100 c=8 max=200000 shapes=all stall=$((2000 * SLOW)) timeout=$((60 * SLOW)) >"$LAB_DIR/verify.out" || fail "$(cat "$LAB_DIR/verify.out")"
wait_until 15000 has_lines verify 100 || fail "lines of verify: $(lines verify)"
stop_peer v

say "a broker that stands still while 5000 flows pass, then sees what it missed"
before=$(lines small) resyncs=$(nat_field resyncs)
broker=$(jqs .processes.broker)
kill -STOP "$broker"
rate $PROXY_IP:8080 5000 >"$LAB_DIR/stop.bad"
kill -CONT "$broker"
assert_eq "failed clients" "$(cut -d' ' -f1 "$LAB_DIR/stop.bad")" 0
settled() { nat_active_is 0 && [ "$(lines small)" -ge $((before + 4500)) ]; }
wait_until 20000 settled || fail "lines: $(($(lines small) - before)), open: $(n_nat_active), resyncs $(nat_field resyncs)"
echo "$(($(lines small) - before)) of 5000 lines, resyncs $resyncs, then $(nat_field resyncs)"
assert_between "lines" "$(($(lines small) - before))" 4500 5000

say "the proxy dies amid 5000 flows: nobody's connection notices, no ghost is left"
before=$(lines small)
proxy=$(proxy_pid)
rate $PROXY_IP:8080 5000 >"$LAB_DIR/proxy.bad" &
other=$!
wait_until 10000 eval '[ "$(lines small)" -gt $((before + 200)) ]' || fail "no lines"
kill -KILL "$proxy"
wait $other
assert_eq "failed clients" "$(cut -d' ' -f1 "$LAB_DIR/proxy.bad")" 0
wait_until 10000 is_running || fail "no new proxy"
wait_until 20000 nat_active_is 0 || fail "ghosts: $(n_nat_active)"
echo "$(($(lines small) - before)) of 5000 lines"

say "the broker dies amid 5000 flows"
broker=$(jqs .processes.broker)
before=$(lines small)
rate $PROXY_IP:8080 5000 >"$LAB_DIR/broker.bad" &
other=$!
wait_until 10000 eval '[ "$(lines small)" -gt $((before + 200)) ]' || fail "no lines"
kill -KILL "$broker"
wait $other
assert_eq "failed clients" "$(cut -d' ' -f1 "$LAB_DIR/broker.bad")" 0
wait_until 10000 nat_is_on || fail "off: $(nat_text)"
wait_until 20000 nat_active_is 0 || fail "ghosts: $(n_nat_active): $(sl conns --json | jq -c '.[0]')"
echo "$(($(lines small) - before)) of 5000 lines"
assert_between "lines, those of an instant without a reader aside" "$(($(lines small) - before))" 2500 5000

say "an entry goes while there is no broker: nobody waits for long to be told of its end"
udp_ask $PROXY_IP:8083 >"$LAB_DIR/udp.out"
wait_records udp 1
kill -STOP "$SLUICE_PID"
kill -KILL "$(jqs .processes.broker)"
in_ns proxy conntrack -D -p udp --orig-port-dst 8083 >"$LAB_DIR/deleted" 2>&1 || fail "no entry: $(cat "$LAB_DIR/deleted")"
assert_eq "records meanwhile" "$(n_records udp)" 1
kill -CONT "$SLUICE_PID"
wait_until 20000 has_records udp 0 || fail "still there: $(sl conns --route udp --json | jq -c .)"
wait_until 5000 has_lines udp 1 || fail "no line"
assert_eq "its line" "$(grep -a '"route":"udp"' "$LAB_DIR/access.log" | jq -r .client_reason)" crash_recovered
assert_eq "impossible events" "$(jqs '.fsm_bugs // 0')" 0
