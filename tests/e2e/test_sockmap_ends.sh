#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# How connections end that go from socket to socket: resets of either side in every phase, half-closes, kill,
# deadlines, drains; limits count them. Each end is seen by the other side at once, and has its reason.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/sockmaplab.sh"
MANY=${MANY:-60}

server e echo 8001
server e2 echo 8002
conf() { # DRAIN
	cat <<-TEXT
		defaults: { timeouts: { drain: ${1:-5s}, close_grace: 700ms, half_closed: 900ms, half_closed_idle: 400ms } }
		routes:
		$(proute one 8081 "\"$BACKEND_IP:8010\"")
		$(proute many 8083 "\"$BACKEND_IP:8001\"")
		$(proute six 8082 "\"[$BACKEND6]:8001\"")
		$(proute idle 8084 "\"$BACKEND_IP:8001\"" 'timeouts: { idle: 1s }')
		$(proute life 8085 "\"$BACKEND_IP:8001\"" 'timeouts: { max_lifetime: 1500ms }')
		$(proute drained 8086 "\"$BACKEND_IP:8002\"")
		$(proute bystander 8087 "\"$BACKEND_IP:8001\"")
		$(proute half 8088 "\"$BACKEND_IP:8010\"" 'half_open: true')
		$(proute limited 8089 "\"$BACKEND_IP:8001\"" 'security: { max_connections: 10 }')
		$(proute gone 8090 "\"$BACKEND_IP:8001\"")
	TEXT
}
start_sockmap backlog=20KiB "$(conf)"
sockmap_baseline
n_active() { sl conns --route "$1" --json | jq length; }
none_active() { [ "$(n_active "$1")" = 0 ]; }
reasons() { access_lines "$1" | grep -o 'client_reason=.*' | sort | uniq -c | xargs; }
errors_of() { server_field "$1" errors; }

# One connection, and what its ends do once it is on the engine.
turn=0
# ends WHAT ROUTE PORT CLIENT_REASON BACKEND_REASON (regexes) "CLIENT STEPS" "BACKEND STEPS" [HOOK]
ends() {
	local what=$1 route=$2 port=$3 go=$LAB_DIR/go.$((++turn)) client lines
	lines=$(n_access "$route")
	# shellcheck disable=SC2086
	dialog_server "b$turn" 8010 expect:hello send:world wait:"$go" ${7//@/$go}
	# shellcheck disable=SC2086
	OUT=$LAB_DIR/c$turn.out spawn client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:"$port" \
		send:hello expect:world wait:"$go" ${6//@/$go}
	client=$LAST
	wait_engine "$route"
	if [ -n "${8:-}" ]; then $8 "$route"; fi
	touch "$go"
	RC=0
	wait "$client" || RC=$?
	assert_eq "$what: client: $(cat "$LAB_DIR/c$turn.out.err")" "$RC" 0
	join_peer "b$turn"
	assert_eq "$what: backend: $(cat "$LAB_DIR/b$turn.out.err")" "$RC" 0
	wait_access "$route" $((lines + 1))
	assert_match "$what: reasons" "$(access "$route" client_reason) $(access "$route" backend_reason)" "^$4 $5\$"
	assert_eq "$what: engine" "$(access "$route" engine)" "$ENGINE/configured"
}
soon=took:0:$((1000 * SLOW))

say "the client resets: silent, after a request, in a download, with bytes that wait, half-closed"
ends "silent" one 8081 econnreset normal "abort" "rst $soon"
ends "after a request" one 8081 econnreset normal "send:a expect:b abort" "expect:a send:b rst $soon"
ends "in a download" one 8081 econnreset normal "flow:1000:2000 abort" "flood $soon"
ends "reading nothing" one 8081 econnreset normal "wait:@.b abort" "bulk:60000 tell:@.b rst $soon"
ends "after its own FIN" one 8081 "(econnreset|epipe)" normal "fin wait:@.b abort" "eof tell:@.b sleep:50 flood $soon"
ends "after the other's FIN" one 8081 econnreset normal "eof abort" "fin rst $soon"

say "the backend resets"
ends "silent" one 8081 normal econnreset "rst $soon" "abort"
ends "after a request" one 8081 normal econnreset "send:a expect:b rst $soon" "expect:a send:b abort"
ends "in an upload" one 8081 normal econnreset "flood $soon" "flow:1000:2000 abort"
ends "reading nothing of an upload without end" one 8081 normal econnreset "tell:@.c flood" "wait:@.c sleep:300 abort"
ends "after the client's FIN" one 8081 normal econnreset "fin rst $soon" "eof abort"

say "half-closes: an answer behind the FIN, a long one, either side first"
ends "client first" one 8081 normal normal "send:q fin expect:answer eof" "expect:q eof send:answer fin"
ends "backend first" one 8081 normal normal "expect:q eof send:answer fin" "send:q fin expect:answer eof"
ends "both at once" one 8081 normal normal "send:q fin expect:p eof" "send:p fin expect:q eof"
ends "bulk behind the FIN" one 8081 normal normal "fin flow:3000000:2000 eof" "eof bulk:3000000 fin"
ends "bulk, then the FIN, to a reader that rests" one 8081 normal normal "bulk:3000000 fin eof" \
	"sleep:300 flow:3000000:2000 eof fin"
ends "silent with half_open: false" one 8081 normal close_grace "fin eof took:650:$((1500 * SLOW))" "eof sleep:1300"
ends "silent with half_open" half 8088 normal parity_check "fin eof took:850:$((1600 * SLOW))" "eof sleep:1800"
ends "late with half_open" half 8088 normal normal "fin expect:late eof" "eof sleep:600 send:late fin"

say "kill"
kill_it() { sl kill "$(sl conns --route "$1" --json | jq '.[0].id')"; }
ends "killed" one 8081 killed killed "rst $soon" "rst $soon" kill_it
client_bg by trickle to=$PROXY_IP:8087 c=3 ms=20 timeout=120
wait_engine bystander
# killed NAME ROUTE N COMMAND...: all N are lost, here and there, within a second.
killed() {
	local name=$1 route=$2 n=$3 before start
	shift 3
	before=$(errors_of e)
	start=$(now_ms)
	"$@"
	wait_until 1000 none_active "$route" || fail "$name: left in conns: $(n_active "$route")"
	wait_until 1000 eval "[ \$(errors_of e) -ge $((before + n)) ]" || fail "$name: resets the backend saw: $(($(errors_of e) - before)) of $n"
	echo "$name: $n, all over on the backend's side after $(($(now_ms) - start)) ms"
}
client_bg many hold to=$PROXY_IP:8083 n="$MANY" ping=1 timeout=60
wait_for has_output many
wait_engine many
killed "idle" many "$MANY" sl kill --route many
stop_peer many || true
assert_eq "the clients saw" "$(jq -c '[.lost, .reset]' <<<"$RESULT")" "[$MANY,$MANY]"
assert_eq "reasons" "$(reasons many)" "$MANY client_reason=killed backend_reason=killed"
client_bg busy trickle to=$PROXY_IP:8083 to="[$PROXY6]:8082" c=40 ms=5 timeout=60
wait_engine many
wait_engine six
killed "busy" many 20 sl kill --route many
killed "busy, IPv6" six 20 sl kill --route six
wait_until 1000 gone_or_zombie "${PEER_PIDS[busy]}" || fail "busy clients go on"
join_peer busy

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
sleep 1.5 # longer than timeouts.idle
assert_eq "the rare ones go on" "$(n_active idle)" 2
stop_peer rare
assert_eq "rare: $RESULT" "$RC" 0

say "max_lifetime ends a busy one"
rc=0
client trickle to=$PROXY_IP:8085 ms=20 t=10 timeout=20 >/dev/null 2>"$LAB_DIR/life" || rc=$?
assert_eq "exit code" $rc 1
assert_between "lived ms" "$(sed -n 's/.*rounds, \([0-9]*\) ms.*/\1/p' "$LAB_DIR/life")" 1490 $((2500 * SLOW))
assert_ended life 1 max_lifetime max_lifetime
assert_match "engine" "$(access life engine)" "^$ENGINE/"

say "a limit counts those on the engine"
client_bg lim hold to=$PROXY_IP:8089 n=25 ping=1 timeout=20
wait_for has_output lim
assert_eq "held, reset" "$(head -n 1 "$LAB_DIR/lim.out" | jq -c '[.held, .reset]')" "[10,15]"
wait_engine limited
stop_peer lim || true
wait_for none_active limited
rm "$LAB_DIR/lim.out"
client_bg lim hold to=$PROXY_IP:8089 n=10 ping=1 timeout=20
wait_for has_output lim
assert_eq "after they have gone" "$(head -n 1 "$LAB_DIR/lim.out" | jq .held)" 10
stop_peer lim

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
client_bg gone trickle to=$PROXY_IP:8090 c=2 ms=20 timeout=60
wait_engine gone
reload_sockmap backlog=20KiB "$(conf | grep -v 'name: gone')"
wait_for eval '[ "$(n_active gone)" = 2 ]'
sl kill --client $CLIENT_IP --route gone
wait_until 1000 none_active gone || fail "left: $(n_active gone)"
join_peer gone || true

if on_sockmap; then
	say "a packet that the program could not take: both sides are told"
	lose() { # ROUTE
		local id
		id=$(sl conns --route "$1" --json | jq .[0].id)
		sockmaps lose "$(slots_of "$id" | jq '.[0].slot')"
	}
	ends "lost" one 8081 error error ends ends lose
	has_log "sockmap: bytes were lost when the kernel had no memory for a packet, ending the connection" || fail "no line in the log"
fi

say "the bystander saw nothing"
assert_eq "bystanders" "$(n_active bystander) $(engine_of bystander)" "3 $ENGINE"
stop_peer by
assert_eq "bystander: $RESULT" "$RC" 0
assert_sockmap_baseline
assert_maps_empty

say "a daemon that stops"
reload_sockmap "" "$(conf 600ms)"
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
assert_eq "reasons" "$(access_lines many | tail -n 5 | grep -cE 'client_reason=(drained|shutdown) backend_reason=(drained|shutdown)')" 5
