#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Flows of the kernel's NAT are ended from outside: by id, by route, by target, by their deadlines, by a
# route or a target that is taken away with its flows. Both peers see it; others do not notice.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

nat_up
server e echo 8001
server e2 echo 8002
server b echo 8003
udp_server u backend 8005
conf() { # LINES left out, as a regular expression
	local text
	text="defaults: { timeouts: { drain: 30s } }
routes:
$(nroute one 8081 "\"$BACKEND_IP:8010\"")
$(nroute own 8090 "{ targets: \"$BACKEND_IP:8010\", preserve_source: true }")
$(nroute six 8091 "\"[$BACKEND6]:8010\"")
$(nroute many 8083 "\"$BACKEND_IP:8001\"")
$(nroute idle 8084 "\"$BACKEND_IP:8001\"" 'timeouts: { idle: 2s }')
$(nroute life 8085 "\"$BACKEND_IP:8001\"" 'timeouts: { max_lifetime: 3s }')
$(nroute two 8086 "[ \"$BACKEND_IP:8001\", \"$BACKEND_IP:8002\" ]")
$(nroute bystander 8087 "\"$BACKEND_IP:8003\"")
$(nroute gone 8088 "\"$BACKEND_IP:8001\"")
$(uroute udp 8089 "\"$BACKEND_IP:8005\"")"
	if [ -n "${1:-}" ]; then grep -vE "name: ($1)," <<<"$text"; else echo "$text"; fi
}
start_nat "$(conf)"
nat_baseline
OUT=$LAB_DIR/ends.out spawn proxy /usr/bin/python3 tests/lib/ct_ends.py
ends=$LAST
wait_for has_output ends
client_bg by trickle to=$PROXY_IP:8087 c=5 ms=20 timeout=120
wait_records bystander 5

# lost NAME N: of the connections a busy client holds so many have been reset.
lost() {
	kill -USR1 "${PEER_PIDS[$1]}" 2>/dev/null || true
	[ "$(tail -n 1 "$LAB_DIR/$1.out" | jq -r .breaks)" = "$2" ]
}
reasons() { access_lines "$1" | grep -o 'client_reason=.*' | sort | uniq -c | xargs; }
errors_are() { [ "$(server_field "$1" errors)" -ge "$2" ]; }

say "by id: both peers see a reset, though both are silent"
# kill_silent ROUTE CLIENT'S_ADDRESS
kill_silent() {
	local client
	dialog_server s 8010 expect:x send:x rst
	OUT=$LAB_DIR/$1.out spawn client /usr/bin/python3 tests/lib/dialog.py to="$2" send:x expect:x rst
	client=$LAST
	wait_records "$1" 1
	sl kill "$(records "$1")" >/dev/null || fail "kill"
	RC=0
	wait "$client" || RC=$?
	assert_eq "$1: client: $(cat "$LAB_DIR/$1.out.err")" "$RC" 0
	join_peer s
	assert_eq "$1: backend: $(cat "$LAB_DIR/s.out.err")" "$RC" 0
	wait_until 5000 has_access "$1" 1 || fail "no access line of $1"
	assert_ended "$1" 1 killed killed
}
kill_silent one $PROXY_IP:8081
kill_silent own $PROXY_IP:8090
LISTEN_IP="[$BACKEND6]" kill_silent six "[$PROXY6]:8091"

say "a hundred busy ones, by route"
client_bg many trickle to=$PROXY_IP:8083 c=100 ms=20 timeout=60
wait_records many 100
before=$(server_field e errors)
sl kill --route many >/dev/null || fail "kill --route"
wait_records many 0 3000
wait_until 5000 lost many 100 || fail "lost: $(tail -n 1 "$LAB_DIR/many.out")"
wait_until 5000 errors_are e $((before + 100)) || fail "resets the backend saw: $(server_field e errors), $before before"
assert_eq "reasons" "$(reasons many)" "100 client_reason=killed backend_reason=killed"
stop_peer many || true
no_entries -p tcp --orig-port-dst 8083 --state ESTABLISHED || fail "entries are left"
shot to=$PROXY_IP:8083 send=x fin=1
assert_eq "new ones are served" "$(of end) $(of text)" "eof x"

say "by target: the other one's go on"
client_bg two trickle to=$PROXY_IP:8086 c=20 ms=20 timeout=60
wait_records two 20
sl kill --route two --target "$BACKEND_IP:8002" >/dev/null || fail "kill --target"
wait_records two 10 3000
wait_until 5000 errors_are e2 10 || fail "resets its backend saw: $(server_field e2 errors)"
kill -0 "${PEER_PIDS[two]}" || fail "the others have ended, too"
assert_eq "those left" "$(records two backend | tr ' ' '\n' | sort -u | xargs)" "$BACKEND_IP:8001"

say "a target that is drained keeps its flows, and gets no more"
sl drain two "$BACKEND_IP:8001" >/dev/null || fail drain
shot to=$PROXY_IP:8086 send=x fin=1
wait_until 15000 has_access two 11 || fail "no access line"
assert_eq "the new one" "$(access two backend)" "$BACKEND_IP:8002"
has_records two 10 || fail "left of the old ones: $(n_records two)"
sl undrain two "$BACKEND_IP:8001" >/dev/null || fail undrain
kill -TERM "${PEER_PIDS[two]}"

say "deadlines"
client_bg idle hold to=$PROXY_IP:8084 n=5 ping=1 timeout=60
client_bg life trickle to=$PROXY_IP:8085 c=5 ms=50 timeout=60
wait_until 20000 eval '[ "$(n_access idle)" = 5 ]' || fail "silent ones ended: $(n_access idle)"
assert_eq "reasons" "$(reasons idle)" "5 client_reason=inactivity backend_reason=inactivity"
wait_until 20000 eval '[ "$(n_access life)" = 5 ]' || fail "old ones ended: $(n_access life)"
assert_eq "reasons" "$(reasons life)" "5 client_reason=max_lifetime backend_reason=max_lifetime"
stop_peer idle || true
stop_peer life || true

say "a route that is removed keeps its flows; then it is killed all the same"
client_bg gone trickle to=$PROXY_IP:8088 c=10 ms=20 timeout=60
wait_records gone 10
reload "$(conf gone)"
refused $PROXY_IP:8088 || fail "new flows: $SHOT"
kill -USR1 "${PEER_PIDS[gone]}"
goes_on_for() { [ "$(sl conns --route gone --json | jq length)" = 10 ]; }
goes_on_for || fail "records of the removed route: $(n_records gone)"
kill -0 "${PEER_PIDS[gone]}" || fail "they have ended"
sl kill --route gone >/dev/null || fail "kill --route of a removed one"
wait_until 5000 lost gone 10 || fail "lost: $(tail -n 1 "$LAB_DIR/gone.out")"
assert_eq "reasons" "$(reasons gone)" "10 client_reason=killed backend_reason=killed"
stop_peer gone || true
wait_until 5000 not_in_table '"gone"' || fail "it is in the table still"

say "datagrams: the entry goes, and the next datagram begins another flow"
udp_flow busy $PROXY_IP:8089
wait_records udp 1
id=$(records udp)
sl kill "$id" >/dev/null || fail "kill of a flow of datagrams"
wait_until 5000 has_access udp 1 || fail "no access line"
assert_ended udp 1 killed killed
another() { [ -n "$(records udp)" ] && [ "$(records udp)" != "$id" ]; }
wait_for another
kill -TERM "${PEER_PIDS[busy]}"

say "what they carried, to the last byte: as conntrack said when it forgot them"
# by client: "ADDRESS:PORT up down"
as_logged() { grep -aE "route=($1) .*client_reason=($2) " "$(log_file)" | sed -E 's/.* client=([^ ]*) .* up=([0-9]*) down=([0-9]*) .*/\1 \2 \3/' | sort; }
as_forgotten() { sort "$LAB_DIR/ends.out"; }
! gone_or_zombie "$ends" || fail "events were lost: $(cat "$LAB_DIR/ends.out.err")"
for of in "many killed 100" "two killed 10" "idle inactivity 5" "life max_lifetime 5" "gone killed 10" "udp killed 1"; do
	read -r name why n <<<"$of"
	assert_eq "lines of $name" "$(as_logged "$name" "$why" | wc -l)" "$n"
	assert_eq "other bytes of $name" "$(comm -23 <(as_logged "$name" "$why") <(as_forgotten) | xargs)" ""
done

say "nobody else has noticed"
stop_peer by
assert_eq "bystanders: $RESULT" "$RC" 0
for name in e e2 b; do kill -0 "${PEER_PIDS[$name]}" || fail "$name has ended"; done
stop_sluice
assert_eq "exit code" "$RC" 0
no_table || fail "a table is left"
