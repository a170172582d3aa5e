#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# More handshakes than may be open at a time: the others wait, each gets its turn, and a target that nobody
# could speak to meanwhile has not failed.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
OPEN=1024 # SL_TLS_HANDSHAKES_MAX
short=$((4000 * SLOW)) # ms

server e echo 8000
tls_server t 8001 cert="$CERTS/one.pem" key="$CERTS/one.key"
GLOBAL='  workers: 1' start_sluice "routes:
$(ends crowd 8443 "\"$BACKEND_IP:8000\"" '' "timeouts: { handshake: ${short}ms }")
$(ends patient 8444 "\"$BACKEND_IP:8000\"" '' "timeouts: { handshake: $((60 * SLOW))s }")
$(route out 8080 "$(to_tls "$BACKEND_IP:8001")" "timeouts: { handshake: $((short / 4))ms }")"
baseline

has_handshakes() { [ "$(tls_metric handshakes_active) $(tls_metric handshakes_waiting)" = "$1 $2" ]; }
crowd() { # NAME N
	OUT=$LAB_DIR/$1.out spawn client /usr/bin/python3 tests/lib/tls_crowd.py to=$PROXY_IP:8443 n="$2" \
		tell="$LAB_DIR/$1.told" timeout=$((60 * SLOW))
	PEER_PIDS[$1]=$LAST
}
in_time() { has_handshakes 0 0; }

say "a client that came after them all is served once they have gone, all at once"
crowd all $((OPEN + 1100))
wait_until $((20000)) has_handshakes $OPEN 1100 || fail "open, waiting: $(tls_metric handshakes_active) $(tls_metric handshakes_waiting)"
OUT=$LAB_DIR/late.out spawn client /usr/bin/python3 tests/lib/tls_dialog.py to=$PROXY_IP:8444 tls:one.example \
	send:hello expect:hello end eof
PEER_PIDS[late]=$LAST
say "meanwhile no place for a handshake with a target"
assert_eq "unserved" "$(in_ns client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:8080 send:x ends >/dev/null && echo ended)" ended
assert_ended out 1 handshake_timeout handshake_timeout
has_handshakes $OPEN 1101 || fail "open, waiting: $(tls_metric handshakes_active) $(tls_metric handshakes_waiting)"
kill -STOP "$BASE_PID"
sleep $((short / 1000 + 1)) # their deadlines pass in one turn
kill -CONT "$BASE_PID"
join_peer late
assert_eq "the late one" "$RC" 0
join_peer all
assert_eq "all are ended" "$(cat "$LAB_DIR/all.out")" $((OPEN + 1100))
wait_until 5000 in_time || fail "open, waiting: $(tls_metric handshakes_active) $(tls_metric handshakes_waiting)"
assert_back_to_baseline
