#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The control socket and the metrics port under abuse: a clear error each, the daemon unharmed.
. "$(dirname "$0")/../lib/netlab.sh"

server e echo 8000
start_sluice "routes:
$(route main 8080 "\"$BACKEND_IP:8000\"")"
baseline
rss=$(rss_kib "$(proxy_pid)")
client_bg long trickle to=$PROXY_IP:8080 ms=20 timeout=60

cat >"$LAB_DIR/abuse.py" <<'PY'
import os, random, socket, sys, time

where = sys.argv[1]

def connect():
    if where.startswith("/"):
        s = socket.socket(socket.AF_UNIX)
        s.connect(where)  # blocking: waits while the queue is full
        s.settimeout(5)
    else:
        host, port = where.split(":")
        s = socket.create_connection((host, int(port)), timeout=5)
    return s

def answer(request):
    s = connect()
    try:
        s.sendall(request)
    except OSError:
        pass  # refused before the end of a too long request
    got = b""
    try:
        while True:
            piece = s.recv(65536)
            if not piece:
                break
            got += piece
    except OSError:
        pass
    s.close()
    return got

def expect(what, request, codes):
    got = answer(request)
    code = got.split(b" ")[1].decode() if got.startswith(b"HTTP/1.1 ") else got[:60]
    if code not in codes:
        print(f"{what}: got {code}, want {codes}")
        sys.exit(1)
    print(f"{what}: {code}")

end = b"Host: x\r\nConnection: close\r\n\r\n"
expect("1 MB request line", b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\n" + end, ["400", "414", "431"])
expect("1 MB header", b"GET /healthz HTTP/1.1\r\nX: " + b"a" * (1 << 20) + b"\r\n" + end, ["400", "431"])
expect("10 000 headers", b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 10000 + end, ["400", "431"])
expect("unknown path", b"GET /nosuch HTTP/1.1\r\n" + end, ["404"])
expect("unknown method", b"BREW / HTTP/1.1\r\n" + end, ["400", "404", "405", "501"])
expect("huge length", b"POST /v1/reload HTTP/1.1\r\nContent-Length: 99999999999\r\n" + end, ["400", "404", "413"])
expect("bad length", b"POST /v1/reload HTTP/1.1\r\nContent-Length: -1\r\n" + end, ["400", "404"])
expect("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", ["400"])
random.seed(1)
for _ in range(200):
    s = connect()
    s.sendall(random.randbytes(random.randrange(1, 4000)) + b"\r\n\r\n")
    s.close()
for _ in range(50):  # half requests, left alone and given up
    s = connect()
    s.sendall(b"GET /healthz HT")
    s.close()
try:
    idle = []
    for i in range(200):
        s = connect()
        if i % 2:
            s.sendall(b"GET /heal")
        idle.append(s)
except OSError as e:
    print("connecting idle clients:", e)
print("idle clients:", len(idle))
open(sys.argv[2], "w").close()
while not os.path.exists(sys.argv[2] + ".go"):
    time.sleep(0.02)
PY

for where in "$LAB_DIR/main/run/control.sock" "${HTTP_ADDRS[main]}"; do
	say "abuse of $where"
	mark=$LAB_DIR/mark$RANDOM
	OUT=$LAB_DIR/abuse.out spawn proxy /usr/bin/python3 -u "$LAB_DIR/abuse.py" "$where" "$mark"
	pid=$LAST
	wait_until 20000 eval '[ -e "$mark" ] || gone_or_zombie "$pid"' || fail "abuse hangs: $(cat "$LAB_DIR/abuse.out")"
	[ -e "$mark" ] || fail "$(cat "$LAB_DIR/abuse.out" "$LAB_DIR/abuse.out.err")"
	say "with 200 idle clients the daemon serves traffic"
	shot to=$PROXY_IP:8080 send=x fin=1
	assert_eq "traffic" "$(of end) $(of text)" "eof x"
	touch "$mark.go"
	wait "$pid" || fail "$(cat "$LAB_DIR/abuse.out")"
	wait_for is_running
	cat "$LAB_DIR/abuse.out"
done
assert_eq "the proxy is the same process" "$(proxy_pid)" "$BASE_PID"
assert_between "RSS growth, KiB" $(($(rss_kib "$BASE_PID") - rss)) -100000 $((6144 * SLOW))
stop_peer long
assert_eq "the long connection: $RESULT" "$RC" 0
assert_back_to_baseline
