#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# More handshakes than may be open at a time: the others wait, each gets its turn, a target that nobody
# could speak to meanwhile has not failed, and clients that say hello and no more keep nobody out.
# shellcheck disable=SC2034,SC2154
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
OPEN=1024                    # SL_TLS_HANDSHAKES_MAX
short=$((3500 + 500 * SLOW)) # ms; a client waits for 15 s
long=$((60 * SLOW))          # s
MORE=1100

server e echo 8000
server deaf hold 8001
tls_server t 8002 cert="$CERTS/one.pem" key="$CERTS/one.key"
GLOBAL='  workers: 1' start_sluice "routes:
$(ends silent 8443 "\"$BACKEND_IP:8000\"" '' "timeouts: { handshake: ${long}s }")
$(ends patient 8444 "\"$BACKEND_IP:8000\"" '' "timeouts: { handshake: ${long}s }")
$(route deaf 8081 "$(to_tls "$BACKEND_IP:8001")" "timeouts: { handshake: ${short}ms }")
$(route out 8080 "$(to_tls "$BACKEND_IP:8002")" "timeouts: { handshake: $((short / 4))ms }")"
baseline

has_handshakes() { [ "$(tls_metric handshakes_active) $(tls_metric handshakes_waiting)" = "$1 $2" ]; }
expect_handshakes() { # OPEN WAITING
	wait_until 20000 has_handshakes "$1" "$2" ||
		fail "open, waiting: $(tls_metric handshakes_active) $(tls_metric handshakes_waiting), not $1 $2"
}
crowd() { # NAME PORT ARGUMENT...
	OUT=$LAB_DIR/$1.out spawn client /usr/bin/python3 tests/lib/tls_crowd.py to="$PROXY_IP:$2" "${@:3}" timeout=$long
	PEER_PIDS[$1]=$LAST
}
late() { # NAME
	OUT=$LAB_DIR/$1.out spawn client /usr/bin/python3 tests/lib/tls_dialog.py to=$PROXY_IP:8444 tls:one.example \
		send:hello expect:hello end eof
	PEER_PIDS[$1]=$LAST
}

say "targets hold every place: a client that came after them all is served once they have gone, all at once"
crowd all 8081 n=$((OPEN + MORE))
expect_handshakes $OPEN $MORE
late first
expect_handshakes $OPEN $((MORE + 1))
say "meanwhile no place for a handshake with a target"
assert_eq "unserved" "$(in_ns client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:8080 send:x ends >/dev/null && echo ended)" ended
assert_ended out 1 handshake_timeout handshake_timeout
expect_handshakes $OPEN $((MORE + 1))
kill -STOP "$BASE_PID"
sleep $((short / 1000 + 1)) # their deadlines pass in one turn
kill -CONT "$BASE_PID"
join_peer first
assert_eq "the late one" "$RC" 0
join_peer all
assert_eq "all are ended" "$(cat "$LAB_DIR/all.out")" $((OPEN + MORE))
expect_handshakes 0 0
stop_peer deaf # which never answers a FIN
assert_back_to_baseline

say "clients that say hello and then nothing, or a byte at times, make room for those who wait, and only for those"
crowd silent 8443 n=$OPEN drip=0.3 n=$MORE
wait_access silent $MORE
expect_handshakes $OPEN 0
late second
join_peer second
assert_eq "the late one" "$RC" 0
expect_handshakes $((OPEN - 1)) 0
wait_access silent $((MORE + 1))
assert_eq "why they ended" "$(access_lines silent | sed 's/.*client_reason=\([^ ]*\).*/\1/' | sort | uniq -c | xargs)" \
	"$((MORE + 1)) handshake_timeout"
sleep 2 # longer than anybody's patience
expect_handshakes $((OPEN - 1)) 0
stop_peer silent
expect_handshakes 0 0
assert_back_to_baseline
