#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Randomised transfers both ways, every byte checked by both ends, every order of closing.
. "$(dirname "$0")/../lib/netlab.sh"
N=${N:-1000} MAX=${MAX:-4194304} CONC=${CONC:-32} SECONDS_MAX=${SECONDS_MAX:-60} LOSS=${LOSS:-0}
# A flow that is stuck is stuck for good. Shorter silence is TCP's own: receivers drop tiny segments
# beyond their buffer, and the sender's timers back off; it happens without a proxy, too.
stall=$((5000 * SLOW))
if [ "$LOSS" != 0 ]; then
	need nft
	lossy "$LOSS" || skip "no way to lose packets"
	stall=$((15000 * SLOW)) # lost SYNs and retransmissions take seconds
fi

# broken FROM TO: a proxy that loses a byte, to know that the checkers see it.
cat >"$LAB_DIR/broken.py" <<'PY'
import socket, sys, threading
def pump(a, b, lose):
    n = 0
    while True:
        d = a.recv(65536)
        if not d:
            break
        if lose and n + len(d) > 5000:
            d, lose = d[:-1], False
        n += len(d)
        b.sendall(d)
    b.shutdown(socket.SHUT_WR)
l = socket.create_server(("10.91.0.1", 8090))
while True:
    a, _ = l.accept()
    b = socket.create_connection((sys.argv[1], 8000))
    threading.Thread(target=pump, args=(a, b, False), daemon=True).start()
    threading.Thread(target=pump, args=(b, a, True), daemon=True).start()
PY

server v verify 8000 stall=$stall
start_sluice "routes:
$(route main 8080 "\"$BACKEND_IP:8000\"")
$(route main6 8081 "\"[$BACKEND6]:8000\"")"
baseline
client verify to=$PROXY_IP:8080 to="[$PROXY6]:8081" n="$N" c="$CONC" max="$MAX" timeout="$SECONDS_MAX" stall=$stall ||
	fail "the client saw bad transfers: $(cat "$LAB_DIR/v.out.err")"
assert_back_to_baseline
stop_peer v
echo "$RESULT"
assert_eq "the server's verdict: $(cat "$LAB_DIR/v.out.err")" "$RC" 0
assert_eq "transfers the server saw" "$(jq .ok <<<"$RESULT")" "$N"
assert_eq "bytes counted" "$(jqs '[.routes[] | .bytes_up + .bytes_down] | add')" \
	$(($(jq .bytes <<<"$RESULT") + N * 40))

say "the checkers see a lost byte"
server v2 verify 8000
OUT=$LAB_DIR/broken.out spawn proxy /usr/bin/python3 "$LAB_DIR/broken.py" "$BACKEND_IP"
wait_for listening proxy 8090
if client verify to=$PROXY_IP:8090 n=10 c=2 max=100000 timeout=20 seed=1; then fail "a lost byte was not seen"; fi
