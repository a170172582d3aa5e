#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A connection in the kernel that is ended from outside amid traffic: its access line has every byte that was
# passed on, those of the last moment, too; and it says of a side whose FIN has just been acknowledged that it
# had ended by itself.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_packet
N=20

cat >"$LAB_DIR/source.py" <<'PY'
# port 8001: 100 bytes at a time, often; 8002: after the client's FIN ten bytes
import socket, threading, time
held = []
def answer(c):
    while c.recv(4096):
        pass
    c.sendall(bytes(10))
    held.append(c)
def listen(port, take):
    s = socket.create_server(("10.92.0.2", port), backlog=64)
    while True:
        c = s.accept()[0]
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        take(c)
fed = []
threading.Thread(target=listen, args=(8001, fed.append), daemon=True).start()
threading.Thread(target=listen, args=(8002, lambda c: threading.Thread(target=answer, args=(c,), daemon=True).start()),
                 daemon=True).start()
print("ready", flush=True)
while True:
    for c in list(fed):
        try:
            c.sendall(bytes(100))
        except OSError:
            fed.remove(c)
            c.close()
    if not fed:
        time.sleep(0.001)
PY
cat >"$LAB_DIR/sink.py" <<'PY'
# reads N connections to their ends; "PORT BYTES" of each
import selectors, socket, sys
poll = selectors.DefaultSelector()
seen = {}
for i in range(int(sys.argv[2])):
    s = socket.create_connection(("10.91.0.1", int(sys.argv[1])), 10)
    seen[s] = [s.getsockname()[1], 0]
    poll.register(s, selectors.EVENT_READ)
open_ones = len(seen)
while open_ones:
    for key, _ in poll.select(30) or sys.exit("nothing happens"):
        try:
            got = len(key.fileobj.recv(1 << 20))
        except ConnectionResetError:
            got = 0
        seen[key.fileobj][1] += got
        if got == 0:
            poll.unregister(key.fileobj)
            open_ones -= 1
for port, n in seen.values():
    print(port, n)
PY
cat >"$LAB_DIR/half.py" <<'PY'
# FIN, ten bytes, which acknowledge it, and at once a kill; each of N connections
import http.client, os, socket, sys
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("control.sock")
os.chdir(sys.argv[3])
ones = [socket.create_connection(("10.91.0.1", int(sys.argv[1])), 10) for i in range(int(sys.argv[2]))]
print("ready", flush=True)
ids = sys.stdin.readline().split()
ids = dict(x.split("=") for x in ids)
for s in ones:
    control = Unix("x", timeout=10)
    control.connect()
    s.shutdown(socket.SHUT_WR)
    n = 0
    while n < 10:
        n += len(s.recv(10 - n)) or sys.exit("ended")
    control.request("POST", f"/v1/kill?id={ids[str(s.getsockname()[1])]}")
    assert control.getresponse().status == 200
PY
OUT=$LAB_DIR/source.out spawn backend /usr/bin/python3 "$LAB_DIR/source.py"
wait_for grep -q ready "$LAB_DIR/source.out"
start_packet "" "
routes:
$(proute busy 8081 "\"$BACKEND_IP:8001\"")
$(proute half 8082 "\"$BACKEND_IP:8002\"")
$(proute stop 8083 "\"$BACKEND_IP:8001\"" 'timeouts: { drain: 1s }')"
packet_baseline
n_active() { sl conns --route "$1" --json | jq length; }
is_open() { [ "$(n_active "$1")" = "$2" ] && [ "$(engine_of "$1")" = packet ]; }

sink() { # NAME PORT
	OUT=$LAB_DIR/$1.sink spawn client /usr/bin/python3 "$LAB_DIR/sink.py" "$2" $N
	PEER_PIDS[$1]=$LAST
	wait_until 8000 is_open "$1" $N || fail "$1: $(n_active "$1") on '$(engine_of "$1")'"
	wait_until 8000 eval "[ \$(sl conns --route $1 --json | jq 'map(.bytes_down) | min') -gt 1000 ]" || fail "$1: nothing moves"
}
# all_there ROUTE REASON: what was read is in the lines. A little more may be on its way when it is reset.
all_there() {
	local port n down bad=0
	wait "${PEER_PIDS[$1]}" || fail "$1: $(cat "$LAB_DIR/$1.sink.err")"
	wait_until 5000 has_access "$1" $N || fail "$1: $(n_access "$1") access lines"
	assert_eq "$1: reasons" "$(access_lines "$1" | grep -o 'client_reason=.*' | sort | uniq -c | xargs)" \
		"$N client_reason=$2 backend_reason=$2"
	while read -r port n; do
		down=$(access_lines "$1" | grep " client=$CLIENT_IP:$port " | sed -n 's/.* down=\([0-9]*\) .*/\1/p')
		if [ "$down" -lt "$n" ] || [ "$down" -gt $((n + 20000)) ]; then
			echo "$1: port $port: $n bytes were read, the line has $down"
			bad=$((bad + 1))
		fi
	done <"$LAB_DIR/$1.sink"
	assert_eq "$1: lines that are wrong" $bad 0
}

say "killed amid a stream"
sink busy 8081
sl kill --route busy >/dev/null
all_there busy killed

say "killed right behind a FIN that is acknowledged"
mkfifo "$LAB_DIR/go"
in_ns client /usr/bin/python3 "$LAB_DIR/half.py" 8082 $N "$LAB_DIR/$INST/run" <"$LAB_DIR/go" >"$LAB_DIR/half.out" 2>&1 &
half=$!
exec 5>"$LAB_DIR/go"
wait_for grep -q ready "$LAB_DIR/half.out"
wait_until 8000 is_open half $N || fail "half: $(n_active half) on '$(engine_of half)'"
sl conns --route half --json | jq -r '[.[] | (.client | sub(".*:"; "")) + "=" + (.id | tostring)] | join(" ")' >&5
rc=0
wait $half || rc=$?
assert_eq "half: $(cat "$LAB_DIR/half.out")" $rc 0
wait_until 5000 has_access half $N || fail "half: $(n_access half) access lines"
assert_eq "half: reasons" "$(access_lines half | grep -o 'client_reason=.*' | sort | uniq -c | xargs)" \
	"$N client_reason=normal backend_reason=killed"

say "a drain"
sink stop 8083
stop_sluice
assert_eq "exit code" "$RC" 0
all_there stop shutdown
