#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The checkers of the packet tests see each fault of a proxy, and none in a proxy that has none; the
# bad cable loses and reorders, sequence numbers do wrap, window scales are what was asked for.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"

server v verify 8000 stall=2000
server l long 8001 stall=2000
server s verify 8100,8101,8102,8103,8104,8105,8106,8107 scales=1

port=8090
# proxy FAULT TARGET_PORT: on PORT
proxy() {
	port=$((port + 1))
	OUT=$LAB_DIR/broken-$1.out spawn proxy /usr/bin/python3 tests/lib/broken_proxy.py "$1" \
		"$PROXY_IP:$port" "$BACKEND_IP:$2"
	wait_for listening proxy $port
}

say "a sound proxy"
proxy none 8000
client verify to=$PROXY_IP:$port n=40 c=8 max=100000 shapes=all timeout=20 seed=1 || fail "transfers"
client verify to=$PROXY_IP:$port n=40 c=8 max=100000 shapes=all rst=60 timeout=20 seed=2 >"$LAB_DIR/rst" || fail "resets"
assert_between "planned resets" "$(jq .resets "$LAB_DIR/rst")" 10 35
proxy none 8001
client long to=$PROXY_IP:$port n=20000000 c=2 timeout=20 || fail "long"

say "each fault is seen"
# fault FAULT WHAT ARGUMENT...: WHAT is on stderr of a `verify`, and the exit code is 1
fault() {
	local rc=0 what=$2
	proxy "$1" 8000
	client verify to=$PROXY_IP:$port n=6 c=6 max=100000 timeout=8 seed=1 stall=1500 "${@:3}" \
		>"$LAB_DIR/fault.out" 2>"$LAB_DIR/fault.err" || rc=$?
	assert_eq "$1: exit code" $rc 1
	assert_match "$1" "$(cat "$LAB_DIR/fault.err")" "$what"
}
fault lose "wrong bytes|EOF before the last byte" shapes=down
fault dup "wrong bytes|more bytes" shapes=down
fault swap "wrong bytes" shapes=down
fault flip "wrong bytes" shapes=duplex
fault stall "stalled" shapes=down
fault rst "RST in place of EOF" shapes=duplex
fault cut "EOF before the last byte|RST in place|Broken pipe" shapes=half
fault nofin "stalled" shapes=half
fault quiet "EOF before the last byte|Broken pipe|stalled" shapes=duplex rst=100

say "and by the long transfer"
for f in lose flip stall rst; do
	proxy $f 8001
	if client long to=$PROXY_IP:$port n=1000000 timeout=8 stall=1500 >"$LAB_DIR/fault.out" 2>&1; then fail "$f was not seen"; fi
	assert_eq "$f: bad" "$(tail -n 1 "$LAB_DIR/fault.out" | jq .bad)" 1
done

say "a burst: all are connected before one moves"
proxy none 8000
client_bg burst verify to=$PROXY_IP:$port n=100 burst=2 shapes=duplex max=50000 timeout=20
wait_for grep -q '"ready":100' "$LAB_DIR/burst.out"
assert_eq "connections that wait" "$(server_field v open)" 100
assert_eq "finished" "$(wc -l <"$LAB_DIR/burst.out")" 1
kill -USR1 "${PEER_PIDS[burst]}"
join_peer burst
assert_eq "burst: $RESULT" "$RC" 0

say "sequence numbers wrap"
OUT=$LAB_DIR/sniff.out spawn backend timeout 20 /usr/bin/python3 -c '
import signal, socket, struct, sys
seen = {}
def tell(*_):
    print(sum(len(s) == 2 for s in seen.values()))
    sys.exit(0)
signal.signal(signal.SIGTERM, tell)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE: all of it, however late this is
s.bind(("eth0", 0x800))
print("ready", flush=True)
while True:
    ip = s.recv(200)[14:]
    tcp = ip[(ip[0] & 15) * 4:]
    port, to, seq = struct.unpack(">HHI", tcp[:8])
    if to == 8000:
        seen.setdefault(port, set()).add(seq >> 31)
'
PEER_PIDS["sniff"]=$LAST
wait_for grep -q ready "$LAB_DIR/sniff.out"
in_ns proxy sysctl -qw net.ipv4.ip_forward=1
ip -n "$LAB-c" route add 10.92.0.0/16 via $PROXY_IP
ip -n "$LAB-b" route add 10.91.0.0/16 via $PROXY_BACK_IP
client verify to=$BACKEND_IP:8000 n=10 c=10 wrap=1 shapes=up max=1000000 timeout=20 || fail "direct"
stop_peer sniff
assert_eq "connections whose numbers are on both sides of 2^32" "$RESULT" 10

say "window scales"
wide_windows
targets=()
for p in {8100..8107}; do targets+=("to=$BACKEND_IP:$p"); done
client_bg scales verify "${targets[@]}" n=64 burst=2 scales=1 max=50000 shapes=duplex timeout=20
wait_for grep -q ready "$LAB_DIR/scales.out"
in_ns client ss -Htino 'dport >= :8100 and dport <= :8107' | grep -o 'wscale:[0-9,]*' | sort | uniq -c >"$LAB_DIR/wscale"
kill -USR1 "${PEER_PIDS[scales]}"
join_peer scales
assert_eq "scales: $RESULT" "$RC" 0
assert_between "pairs" "$(wc -l <"$LAB_DIR/wscale")" 30 64
# the server's: of the n-th address, IPv4 being every second
assert_eq "of the servers" "$(sed 's/.*wscale:\([0-9]*\),.*/\1/' "$LAB_DIR/wscale" | sort -nu | xargs)" "0 2 4 6 8 10 12 14"
assert_between "of the client" "$(sed 's/.*,//' "$LAB_DIR/wscale" | sort -nu | wc -l)" 12 15

say "a bad cable"
bad_wire client loss=10 reorder=30 dup=5 by=3
ip -n "$LAB-c" route replace 10.92.0.0/16 via $PROXY_IP
offloads off "client proxy backend"
reordering=$(tcp_stat client TCPSACKReorder) again=$(tcp_stat client RetransSegs)
client verify to=$BACKEND_IP:8000 n=100 c=16 max=300000 shapes=all timeout=60 stall=15000 || fail "transfers over a bad cable"
for f in lost reordered duplicated; do assert_between "$f" "$(wire_field client $f)" 10 100000; done
assert_between "retransmitted" $(($(tcp_stat client RetransSegs) - again)) 10 1000000
assert_between "reordering seen" $(($(tcp_stat client TCPSACKReorder) - reordering)) 1 1000000
stop_peer wire-client
echo "$RESULT"
assert_eq "the cable" "$RC" 0
