#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A reader that stops: the kernel holds no more than the limit and what sockets hold anyway, the sender waits,
# and all of it arrives afterwards; the other direction is not held up meanwhile.
#   SIZE= bytes of the upload
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/sockmaplab.sh"
SIZE=${SIZE:-268435456}
limit=1048576
# Three queues between the two programs: what the proxy has received, what it has written, what the
# reader's side has received. (Of the sender's own, only what was acknowledged is counted.)
socket=2097152
bound=$((limit + 65536 + 3 * socket))
if ! on_sockmap; then bound=$((bound + 1048576)); fi # the pipe
for ns in client proxy backend; do buffers $ns "4096 131072 $socket" "4096 65536 $socket"; done
# Memory is that of the whole machine, and what holds a packet is larger than its bytes.
most_memory=$((67108864 < SIZE / 2 ? 67108864 : SIZE / 2))

server s sink 8001 paused=1 reply=1
server src source 8002 n="$SIZE" paused=1
server e echo 8003
start_sockmap backlog=$limit "routes:
$(proute up 8081 "\"$BACKEND_IP:8001\"")
$(proute down 8082 "\"$BACKEND_IP:8002\"")
$(proute warm 8083 "\"$BACKEND_IP:8003\"")
$(proute cross 8084 "\"$BACKEND_IP:8004\"")
$(proute alone 8085 "\"$BACKEND_IP:8005\"")"
shot to=$PROXY_IP:8083 send=x fin=1 # warmed up
sockmap_baseline
pid=$(proxy_pid)

acked() { # client|backend PORT: what the other side's kernel has taken from the socket there
	in_ns "$1" ss -Htin state established "( dport = :$2 or sport = :$2 )" | grep -o 'bytes_acked:[0-9]*' | cut -d: -f2 | head -n 1
}
stuck() { # client|backend PORT: no byte between looks, for a second
	local first now
	first=$(acked "$@")
	for _ in 1 2 3 4 5; do
		sleep 0.2
		now=$(acked "$@")
		[ -n "$now" ] && [ "$now" = "$first" ] || return 1
	done
	[ "$now" -gt 1000000 ]
}
available() { awk '/^MemAvailable/ { printf "%.0f", $2 * 1024 }' /proc/meminfo; }
tcp_memory() { awk '/^TCP:/ { printf "%.0f", $NF * 4096 }' /proc/net/sockstat; }
slabs() { awk '/^SUnreclaim/ { printf "%.0f", $2 * 1024 }' /proc/meminfo; }
mark_memory() { mem=$(available) tcp=$(tcp_memory) slab=$(slabs); }
# Others on this machine come and go; what the kernel holds for a reader that stands, stays.
memory_grown() { echo $((mem - $(available))); }
is_bounded() { [ "$(memory_grown)" -lt $most_memory ] && [ $(($(tcp_memory) - tcp)) -lt $most_memory ]; }
assert_bounded() { # WHAT BYTES
	echo "$1: held $2, bound $bound; memory taken $(memory_grown), of it slabs $(($(slabs) - slab)), by TCP's count $(($(tcp_memory) - tcp))"
	assert_between "$1: bytes held" "$2" 1000000 $bound
	wait_until 20000 is_bounded || fail "$1: memory taken: $(memory_grown), by TCP's count $(($(tcp_memory) - tcp))"
}
most_waiting() { slots_of "$1" | jq '[.[].max_waiting] | max'; }

say "$SIZE bytes against a stopped reader"
mark_memory
rss=$(rss_kib "$pid")
client_bg up shot to=$PROXY_IP:8081 up="$SIZE" fin=1 burst=2 timeout=120
wait_engine up
kill -USR1 "${PEER_PIDS[up]}"
wait_until 20000 stuck client 8081 || fail "the sender does not stop: $(acked client 8081)"
assert_bounded "upload" "$(acked client 8081)"
if on_sockmap; then
	id=$(sl conns --route up --json | jq '.[0].id')
	echo "slots: $(slots_of "$id")"
	assert_between "most bytes that waited" "$(most_waiting "$id")" 1 $((limit + 131072))
	assert_between "spills" "$(slots_of "$id" | jq 'map(.spills) | add')" 1 1000000
	assert_eq "its limit" "$(slots_of "$id" | jq -c 'map(.limit) | unique')" "[$limit]"
fi
cpu=$(cpu_ms "$pid") before=$(acked client 8081)
sleep 1 # the time over which a stuck flow must cost nothing
assert_between "CPU ms in 1 s of standstill" $(($(cpu_ms "$pid") - cpu)) 0 100
assert_eq "the sender waits" "$(acked client 8081)" "$before"
assert_between "RSS growth, KiB" $(($(rss_kib "$pid") - rss)) -100000 $((6144 * SLOW))

say "the reader goes on: everything arrives"
kill -USR2 "${PEER_PIDS[s]}"
join_shot up
assert_eq "the client's end" "$(of end)" eof
assert_eq "the sink's answer" "$(of text)" "$SIZE $(of hash_out)"
assert_ended up 1 normal normal
assert_eq "engine" "$(access up engine)" "$ENGINE/configured"
# the connection's other bytes are the sink's answer
assert_eq "bytes in the access line" "$(access up up)" "$SIZE"
assert_sockmap_baseline "after the upload"

say "a client that stops reading a download, and leaves"
mark_memory
client_bg down shot to=$PROXY_IP:8082 hold=1 timeout=60
wait_engine down
kill -USR2 "${PEER_PIDS[src]}"
wait_until 20000 stuck backend 8002 || fail "the sender does not stop: $(acked backend 8002)"
assert_bounded "download" "$(acked backend 8002)"
stop_peer down || true
wait_until 3000 eval '[ "$(server_field src open)" = 0 ]' || fail "the backend's side is still open"
assert_sockmap_baseline "after the download"

say "a stopped reader of one direction does not hold up the other"
cat >"$LAB_DIR/cross.py" <<'PY'
# server FILE: sends 48 MB once FILE.go is there, meanwhile writes what it reads to the file; client FILE N:
# then sends N lines without reading, each once the one before is in the file; then reads all.
import hashlib, os, socket, sys, threading, time

SIZE = 48 << 20
block = bytes(range(251)) * 4177
want = hashlib.sha256()
for _ in range(SIZE // len(block)):
    want.update(block)


def wait_for(path):
    end = time.monotonic() + 30
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.01)


def serve(path):
    l = socket.create_server((sys.argv[2], 8004))
    s, _ = l.accept()

    def send():
        wait_for(path + ".go")
        for _ in range(SIZE // len(block)):
            s.sendall(block)
        s.shutdown(socket.SHUT_WR)

    threading.Thread(target=send, daemon=True).start()
    with open(path, "wb", buffering=0) as f:
        while True:
            d = s.recv(65536)
            if not d:
                break
            f.write(d)


def client(path, n):
    s = socket.create_connection((sys.argv[2], 8084), timeout=30)
    worst = 0
    wait_for(path + ".go")
    for i in range(n):
        begin = time.monotonic()
        s.sendall(b"line %06d\n" % i)
        while open(path, "rb").read().count(b"\n") <= i:
            if time.monotonic() - begin > 10:
                sys.exit(f"line {i} has not arrived")
            time.sleep(0.005)
        worst = max(worst, time.monotonic() - begin)
        time.sleep(0.03)
    got = hashlib.sha256()
    while True:
        d = s.recv(1 << 20)
        if not d:
            break
        got.update(d)
    s.close()
    print(f"slowest line {worst * 1000:.0f} ms")
    sys.exit(0 if got.digest() == want.digest() else "other bytes")


if sys.argv[1] == "server":
    serve(sys.argv[3])
else:
    client(sys.argv[3], int(sys.argv[4]))
PY
touch "$LAB_DIR/lines"
OUT=$LAB_DIR/cross.out spawn backend /usr/bin/python3 "$LAB_DIR/cross.py" server $BACKEND_IP "$LAB_DIR/lines"
wait_for listening backend 8004
OUT=$LAB_DIR/lines.out spawn client /usr/bin/python3 "$LAB_DIR/cross.py" client $PROXY_IP "$LAB_DIR/lines" 60
lines=$LAST
wait_engine cross
touch "$LAB_DIR/lines.go"
wait "$lines" || fail "the other direction: $(cat "$LAB_DIR/lines.out.err" "$LAB_DIR/cross.out.err")"
cat "$LAB_DIR/lines.out"
wait_access cross
assert_eq "engine" "$(access cross engine)" "$ENGINE/configured"
assert_sockmap_baseline "after both directions"

# What is passed to the daemon waits behind what is queued to the same socket: a direction in the kernel may
# fill that queue for as long as its reader likes.
if on_sockmap; then
	say "while one direction is stuck with the daemon, the other one stays there, calm as it is"
	go=$LAB_DIR/alone
	bytes=16777216
	dialog_server alone 8005 expect:hello send:world wait:"$go.bulk" bulk:$bytes flow:21:5000 \
		expect:y eof fin
	OUT=$LAB_DIR/calm.out spawn client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:8085 send:hello \
		expect:world wait:"$go.line" send:x wait:"$go.lines" stream:20:30 wait:"$go.read" flow:$bytes:5000 \
		wait:"$go.both" send:y fin eof
	calm=$LAST
	wait_engine alone
	id=$(sl conns --route alone --json | jq '.[0].id')
	moved() { sl conns --route alone --json | jq ".[0].bytes_$1"; }
	has_moved() { [ "$(moved "$1")" = "$2" ]; }
	states() { slots_of "$id" | jq -c 'map(.state)'; } # of the client's and the backend's direction
	states_are() { [ "$(states)" = "$1" ]; }
	n_offers() { sockmaps counts | jq .wishes; }
	spilled=2
	# spilled, both, by what they send while the relay has them
	sl move "$id" relay >/dev/null || fail "move"
	wait_engine alone relay
	touch "$go.line" "$go.bulk"
	wait_for states_are "[$spilled,$spilled]"
	wait_until 20000 stuck backend 8005 || fail "the sender does not stop: $(acked backend 8005)"
	sl move "$id" sockmap >/dev/null || fail "move"
	wait_engine alone
	redirected() { slots_of "$id" | jq -c 'map(.redirected)'; }
	before=$(redirected)
	touch "$go.lines"
	wait_until 20000 has_moved up 26 || fail "bytes of the calm direction: $(moved up)"
	assert_eq "the states" "$(states)" "[$spilled,$spilled]"
	assert_eq "offers" "$(n_offers)" 0
	assert_eq "bytes that the kernel has moved" "$(redirected)" "$before"

	say "the reader goes on, and both go back"
	touch "$go.read"
	wait_until 20000 has_moved down $((bytes + 5)) || fail "bytes of the other direction: $(moved down)"
	wait_until 2000 eval '[ "$(n_offers)" = 2 ]' || fail "offers: $(n_offers), states $(states)"
	touch "$go.both"
	wait "$calm" || fail "the client: $(cat "$LAB_DIR/calm.out.err")"
	join_peer alone
	assert_eq "the backend: $(cat "$LAB_DIR/alone.out.err")" "$RC" 0
	assert_ended alone 1 normal normal
	assert_eq "bytes" "$(access alone up) $(access alone down)" "27 $((bytes + 5))"
	assert_sockmap_baseline "after neither alone"
fi
assert_maps_empty
stop_sluice
assert_eq "exit code" "$RC" 0
