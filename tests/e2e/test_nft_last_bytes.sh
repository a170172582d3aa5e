#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A flow of the kernel's NAT that is ended from outside amid a transfer: its access line and the counters have
# every byte that was sent, not those of the last dump; also of UDP, of a deadline, and of a drain.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

nat_up
udp_server u backend 8004
config() {
	echo "routes:
$(nroute bulk 8080 "\"$BACKEND_IP:8001\"")
$(nroute life 8081 "\"$BACKEND_IP:8001\"" 'timeouts: { max_lifetime: 2500ms }')
$(nroute last 8082 "\"$BACKEND_IP:8001\"" 'timeouts: { drain: 1s }')
$(uroute udp 8083 "\"$BACKEND_IP:8004\"")"
}
cat >"$LAB_DIR/source.py" <<'PY'
import socket, threading
def feed(c):
    try:
        while True:
            c.sendall(bytes(65536))
    except OSError:
        pass
s = socket.create_server(("10.92.0.2", 8001), backlog=64)
print("ready", flush=True)
while True:
    threading.Thread(target=feed, args=(s.accept()[0],), daemon=True).start()
PY
cat >"$LAB_DIR/sink.py" <<'PY'
# reads until the end at some 40 MB/s; prints how many bytes
import socket, sys, time
s = socket.create_connection(("10.91.0.1", int(sys.argv[1])), 10)
n = 0
try:
    while True:
        got = len(s.recv(1 << 20))
        if got == 0:
            break
        n += got
        time.sleep(got / 40e6)
except ConnectionResetError:
    pass
print(n)
PY
OUT=$LAB_DIR/source.out spawn backend /usr/bin/python3 "$LAB_DIR/source.py"
wait_for grep -q ready "$LAB_DIR/source.out"
start_nat "$(config)"
nat_baseline

sink() { # NAME PORT
	OUT=$LAB_DIR/$1.sink spawn client /usr/bin/python3 "$LAB_DIR/sink.py" "$2"
	PEER_PIDS[$1]=$LAST
}
# ended NAME ROUTE REASON: the line has at least what the client has read, which the kernel passed on.
ended() {
	wait "${PEER_PIDS[$1]}" || fail "$1: $(cat "$LAB_DIR/$1.sink.err")"
	wait_until 5000 has_access "$2" 1 || fail "no access line of $2"
	local got
	got=$(cat "$LAB_DIR/$1.sink")
	assert_between "$2: bytes of the line, $got were read" "$(access "$2" down)" "$got" "$((got + 30000000))"
	assert_ended "$2" 1 "$3" "$3"
}
has_moved() { [ "$(records "$1" bytes_down)" -gt 1000000 ]; }

say "killed amid a transfer"
sink killed 8080
wait_until 8000 has_moved bulk || fail "nothing moves"
first=$(records bulk bytes_down)
id=$(records bulk)
# right before the next dump most is unknown: one has just been, when a record has changed
another_dump() { [ "$(records bulk bytes_down)" != "$first" ]; }
wait_until 8000 another_dump || fail "no dump"
seen=$(records bulk bytes_down)
more() { [ "$(in_ns proxy conntrack -L -p tcp --orig-port-dst 8080 2>/dev/null | grep -o 'bytes=[0-9]*' | sed -n '2s/bytes=//p')" -gt $((seen + 20000000)) ]; }
wait_until 5000 more || fail "it stands still"
sl kill "$id" >/dev/null || fail "kill"
rc=0
sl kill "$id" >/dev/null 2>&1 || rc=$?
assert_eq "again" "$rc" 1
ended killed bulk killed
assert_between "more than was known" "$(access bulk down)" $((seen + 20000000)) 1e12
assert_eq "counted" "$(jqs '.routes[] | select(.name == "bulk") | .bytes_down')" "$(access bulk down)"
wait_for nat_active_is 0

say "UDP"
udp_flow flow $PROXY_IP:8083
wait_records udp 1
sl kill "$(records udp)" >/dev/null || fail "kill"
wait_until 5000 has_access udp 1 || fail "no access line of udp"
assert_eq "reason" "$(access udp client_reason)" killed
assert_between "bytes" "$(access udp up)" 25 1e9
stop_peer flow

say "its lifetime is over"
sink life 8081
ended life life max_lifetime

say "a drain"
sink last 8082
wait_until 8000 has_moved last || fail "nothing moves"
stop_sluice
ended last last shutdown
