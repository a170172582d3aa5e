#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Randomised transfers both ways over TLS, every byte checked by both ends: termination, encryption
# towards the target, and both; TLS 1.2 and 1.3, resumption, key updates, small records, slow readers.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
N=${N:-600} MAX=${MAX:-1048576} CONC=${CONC:-64} SECONDS_MAX=${SECONDS_MAX:-60}
# What is stuck is stuck for good; shorter silence is TCP's own, as in test_integrity.sh, and a busy machine's.
stall=$((10000 * SLOW))
third=$((N / 3))

make_cert target one.example rsa
server v verify 8000 stall=$stall
tls_server s 8001 cert="$CERTS/target.pem" key="$CERTS/target.key" updates=5 small=20 stall=$stall
start_sluice "defaults: { timeouts: { close_grace: 30s } } # silence is not what is looked at here
routes:
$(ends ends 8443 "\"$BACKEND_IP:8000\"")
$(ends both 8444 "$(to_tls "$BACKEND_IP:8001")")
$(route out 8080 "$(to_tls "[$BACKEND6]:8001")")"
baseline

# transfers WHAT PORT [ARGUMENT...]
transfers() {
	local out
	out=$(tls_client verify to="$PROXY_IP:$2" to="[$PROXY6]:$2" n=$third c="$CONC" max="$MAX" resume=50 \
		updates=5 small=20 stall=$stall timeout=$((SECONDS_MAX * SLOW)) ca="$CA" sni=one.example "${@:3}") ||
		fail "$1: $out; the target saw: $(tail -n 5 "$LAB_DIR"/[sv].out.err)"
	echo "$1: $out"
	assert_eq "$1: sessions resumed of those offered" "$(jq .resumed <<<"$out")" "$(jq .offered <<<"$out")"
	assert_between "$1: sessions offered" "$(jq .offered <<<"$out")" $((third / 5)) $third
	assert_between "$1: key updates" "$(jq .updates <<<"$out")" 10 $((third * 5))
	BYTES=$(jq .bytes <<<"$out")
}

# assert_counted ROUTE N: the bytes of the last transfers, and their headers.
assert_counted() {
	assert_eq "bytes counted for $1" \
		"$(jqs ".routes[] | select(.name == \"$1\") | .bytes_up + .bytes_down")" $((BYTES + $2 * 40))
}

say "termination"
transfers termination 8443
assert_back_to_baseline
assert_counted ends $third
say "termination and encryption"
transfers both 8444
assert_back_to_baseline
assert_counted both $third
say "encryption"
client verify to=$PROXY_IP:8080 to="[$PROXY6]:8080" n=$third c="$CONC" max="$MAX" stall=$stall \
	timeout=$((SECONDS_MAX * SLOW)) || fail "encryption: $(tail -n 5 "$LAB_DIR/s.out.err")"
assert_back_to_baseline

say "resets by either side, readers that are slow, handshakes in drops"
for port in 8443 8444; do
	tls_client verify to="$PROXY_IP:$port" n=$((third / 4)) c="$CONC" max=200000 rst=40 slow=20 drip=90 small=50 \
		stall=$stall timeout=$((SECONDS_MAX * SLOW)) ca="$CA" sni=one.example || fail "resets by way of $port"
done
assert_back_to_baseline

stop_peer v
assert_eq "what the plain target saw: $(cat "$LAB_DIR/v.out.err")" "$RC $(jq .bad <<<"$RESULT")" "0 0"
assert_eq "transfers of the plain target" "$(jq '.ok + .resets' <<<"$RESULT")" $((third + third / 4))
stop_peer s
assert_eq "what the other target saw: $(cat "$LAB_DIR/s.out.err")" "$RC $(jq .truncated <<<"$RESULT")" "0 0"
assert_between "handshakes with targets that were resumed" "$(jq .resumed <<<"$RESULT")" $((third / 2)) $((3 * N))
assert_eq "engine" "$(access ends engine)" relay/needs_tls

say "the checkers see an end that was cut short"
tls_server s2 8002 cert="$CERTS/one.pem" key="$CERTS/one.key"
cat >"$LAB_DIR/broken.py" <<'PY'
import socket, sys, threading
def pump(a, b, most):
    while most > 0:
        d = a.recv(min(65536, most))
        if not d:
            break
        most -= len(d)
        b.sendall(d)
    b.shutdown(socket.SHUT_WR)
l = socket.create_server(("10.91.0.1", 8090))
while True:
    a, _ = l.accept()
    b = socket.create_connection((sys.argv[1], 8002))
    threading.Thread(target=pump, args=(a, b, 1 << 40), daemon=True).start()
    threading.Thread(target=pump, args=(b, a, 20000), daemon=True).start()
PY
OUT=$LAB_DIR/broken.out spawn proxy /usr/bin/python3 "$LAB_DIR/broken.py" "$BACKEND_IP"
wait_for listening proxy 8090
out=$(tls_client verify to=$PROXY_IP:8090 n=10 c=2 max=1000000 timeout=20 seed=1) && fail "it was not seen"
assert_between "counted as cut" "$(jq .truncated <<<"$out")" 1 10
