#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Connections in the kernel are ended from outside: by `kill`, by their deadlines, by a target or a daemon
# that drains. Both peers see it within a second, idle or busy; the access line says why.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
MANY=${MANY:-100}

server e echo 8001
server e2 echo 8002
conf() {
	cat <<-TEXT
		defaults: { timeouts: { drain: ${1:-5s} } }
		routes:
		$(proute one 8081 "\"$BACKEND_IP:8010\"")
		$(proute six 8082 "\"[$BACKEND6]:8001\"")
		$(proute many 8083 "\"$BACKEND_IP:8001\"")
		$(proute idle 8084 "\"$BACKEND_IP:8001\"" 'timeouts: { idle: 1s }')
		$(proute life 8085 "\"$BACKEND_IP:8001\"" 'timeouts: { max_lifetime: 1500ms }')
		$(proute drained 8086 "\"$BACKEND_IP:8002\"")
		$(proute bystander 8087 "\"$BACKEND_IP:8001\"")
		$(proute local 8088 '"127.0.0.1:8003"')
		$(proute stop 8089 "\"$BACKEND_IP:8001\"")
	TEXT
}
local_server l echo 8003
start_packet "" "$(conf)"
packet_baseline
client_bg by trickle to=$PROXY_IP:8087 c=3 ms=20 timeout=120
wait_engine bystander
lines() { grep -c . "$LAB_DIR/$1"; }
errors_of() { server_field "$1" errors; }
n_active() { sl conns --route "$1" --json | jq length; }
none_active() { [ "$(n_active "$1")" = 0 ]; }
reasons() { access_lines "$1" | grep -o 'client_reason=.*' | sort | uniq -c | xargs; }

say "an idle one, by id: both peers see a reset"
GO=$LAB_DIR/go
dialog_server s 8010 expect:x send:x wait:"$GO" rst took:0:$((1000 * SLOW))
OUT=$LAB_DIR/one.out spawn client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:8081 send:x expect:x wait:"$GO" rst took:0:$((1000 * SLOW))
one=$LAST
wait_engine one
mark_rst
id=$(sl conns --route one --json | jq '.[0].id')
sl kill "$id"
touch "$GO"
RC=0
wait "$one" || RC=$?
assert_eq "client: $(cat "$LAB_DIR/one.out.err")" "$RC" 0
join_peer s
assert_eq "backend: $(cat "$LAB_DIR/s.out.err")" "$RC" 0
assert_ended one 1 killed killed
assert_eq "its engine" "$(access one engine)" "$ENGINE/configured"
assert_eq "its bytes" "$(access one up) $(access one down)" "1 1"
assert_no_rst
rc=0
sl kill "$id" >/dev/null 2>&1 || rc=$?
assert_eq "killed again" $rc 1

# killed NAME ROUTE PORT N MODE...: all N of a client are lost, here and there, within a second.
killed() {
	local name=$1 route=$2 n=$3 before start took
	shift 3
	before=$(errors_of e)
	mark_rst
	start=$(now_ms)
	"$@"
	wait_until 1000 none_active "$route" || fail "$name: left in conns: $(n_active "$route")"
	wait_until 1000 eval "[ \$(errors_of e) -ge $((before + n)) ]" || fail "$name: resets the backend saw: $(($(errors_of e) - before)) of $n"
	took=$(($(now_ms) - start))
	echo "$name: $n, all over on the backend's side after $took ms"
	assert_no_rst "$name: resets"
}
say "many idle ones, by route"
client_bg idle hold to=$PROXY_IP:8083 n="$MANY" ping=1 timeout=60
wait_for has_output idle
wait_engine many
killed "idle" many "$MANY" sl kill --route many
stop_peer idle || true
assert_eq "the clients saw" "$(jq -c '[.lost, .reset]' <<<"$RESULT")" "[$MANY,$MANY]"
assert_eq "reasons" "$(reasons many)" "$MANY client_reason=killed backend_reason=killed"

say "many busy ones, and IPv6"
client_bg busy trickle to=$PROXY_IP:8083 to="[$PROXY6]:8082" c=40 ms=5 timeout=60
wait_engine many
wait_engine six
killed "busy" many 20 sl kill --route many
killed "busy, IPv6" six 20 sl kill --route six
wait_until 1000 gone_or_zombie "${PEER_PIDS[busy]}" || fail "busy clients go on"
join_peer busy
assert_eq "busy clients reset" "$(grep -c 'Connection reset' "$LAB_DIR/busy.out.err")" 40

say "a backend on this host"
client_bg lo hold to=$PROXY_IP:8088 n=10 ping=1 timeout=60
wait_for has_output lo
wait_engine local
sl kill --route local
wait_until 1000 eval '[ "$(errors_of l)" = 10 ]' || fail "resets the local backend saw: $(errors_of l)"
stop_peer lo || true
assert_eq "the clients saw" "$(jq -c '[.lost, .reset]' <<<"$RESULT")" "[10,10]"

say "idle for timeouts.idle: over; a byte every 200 ms: not"
client_bg quiet hold to=$PROXY_IP:8084 n=5 ping=1 timeout=60
wait_for has_output quiet
client_bg rare trickle to=$PROXY_IP:8084 c=2 ms=200 timeout=60
wait_engine idle
before=$(now_ms)
wait_until 4000 eval '[ "$(n_active idle)" = 2 ]' || fail "idle ones left: $(n_active idle)"
assert_between "ended after ms" $(($(now_ms) - before)) 0 $((2500 * SLOW))
stop_peer quiet || true
assert_eq "the quiet ones" "$(jq .lost <<<"$RESULT")" 5
assert_eq "reasons" "$(reasons idle)" "5 client_reason=inactivity backend_reason=inactivity"
rounds=$(wc -l <"$LAB_DIR/rare.out.err")
assert_eq "the rare ones" "$rounds" 0
stop_peer rare
assert_eq "rare: $RESULT" "$RC" 0

say "max_lifetime ends a busy one"
rc=0
client trickle to=$PROXY_IP:8085 ms=20 t=10 timeout=20 >/dev/null 2>"$LAB_DIR/life" || rc=$?
assert_eq "exit code" $rc 1
assert_between "lived ms" "$(sed -n 's/.*rounds, \([0-9]*\) ms.*/\1/p' "$LAB_DIR/life")" 1490 $((2500 * SLOW))
assert_ended life 1 max_lifetime max_lifetime
assert_match "engine" "$(access life engine)" "^$ENGINE/"

say "a target drained: its connections go on, and are killed by target"
client_bg dr trickle to=$PROXY_IP:8086 c=4 ms=20 timeout=60
wait_engine drained
sl drain "$BACKEND_IP:8002" >/dev/null
assert_eq "go on" "$(n_active drained) $(engine_of drained)" "4 $ENGINE"
shot to=$PROXY_IP:8086 send=x
assert_eq "a new one" "$(of end)" reset
sl kill --target "$BACKEND_IP:8002"
wait_until 1000 none_active drained || fail "left: $(n_active drained)"
join_peer dr || true
assert_eq "reset" "$(grep -c 'Connection reset' "$LAB_DIR/dr.out.err")" 4
sl undrain "$BACKEND_IP:8002" >/dev/null

say "a route that goes: its connections are not touched, and can be killed"
client_bg gone trickle to=$PROXY_IP:8089 c=2 ms=20 timeout=60
wait_engine stop
reload_packet "$(conf | grep -v 'name: stop')"
wait_for eval '[ "$(n_active stop)" = 2 ]'
sl kill --client $CLIENT_IP --route stop
wait_until 1000 none_active stop || fail "left: $(n_active stop)"
join_peer gone || true

say "the bystander saw nothing"
assert_eq "bystanders" "$(n_active bystander) $(engine_of bystander)" "3 $ENGINE"
stop_peer by
assert_eq "bystander: $RESULT" "$RC" 0
assert_packet_baseline

say "a daemon that stops"
reload_packet "$(conf 600ms)"
client_bg stop hold to=$PROXY_IP:8083 n=3 ping=1 timeout=30
wait_for has_output stop
client_bg stop2 trickle to=$PROXY_IP:8083 c=2 ms=20 timeout=30
wait_for eval '[ "$(n_active many)" = 5 ]'
wait_engine many
before=$(n_access many)
stop_sluice
assert_eq "exit code" "$RC" 0
assert_eq "access lines" $(($(n_access many) - before)) 5
wait_until 2000 gone_or_zombie "${PEER_PIDS[stop2]}" || fail "busy clients go on after the stop"
stop_peer stop || true
assert_eq "held ones ended" "$(jq .lost <<<"$RESULT")" 3
access_lines many | tail -n 5 | grep -o 'client_reason=.*' | sort | uniq -c
