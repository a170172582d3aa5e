#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A transfer through the kernel's NAT while everything around it changes: reloads, a target that is
# replaced, the deaths of each process, a restart, upgrades. Not a byte is lost, its record stays one.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"
need_split

nat_up
mkdir "$LAB_DIR/bin"
cp "$SLUICED" "$LAB_DIR/bin/sluiced"
chmod 755 "$LAB_DIR/bin"
SLUICED=$LAB_DIR/bin/sluiced
server l long 8000 stall=$((8000 * SLOW))
server e echo 8001
server s1 identify 8002
server s2 identify 8003
conf() { # TARGET of web, MORE routes
	echo "defaults: { timeouts: { drain: 60s } }
routes:
$(nroute long 8080 "\"$BACKEND_IP:8000\"")
$(nroute held 8081 "\"$BACKEND_IP:8001\"")
$(nroute web 8082 "\"$BACKEND_IP:$1\"")
${2:-}"
}
start_nat "$(conf 8002)"
client_bg long long to=$PROXY_IP:8080 c=2 t=600 rate=${RATE:-60000000} stall=$((8000 * SLOW)) timeout=300
# what a machine that is busy elsewhere does to transfers that no rule of ours meets
client_bg direct long to=$BACKEND_IP:8000 c=2 t=600 rate=5000000 stall=$((8000 * SLOW)) timeout=300
client_bg held trickle to=$PROXY_IP:8081 c=20 ms=50 stall=$((8000 * SLOW)) timeout=300
wait_records long 2
wait_records held 20
clients=$(records held client)
mark=$(mark_of long)
# still NAME: the same open connections have records, once each, of the engine.
same_clients() { [ "$(records held client)" = "$clients" ] && has_records long 2; }
still() {
	wait_until 10000 same_clients || fail "$1: held: $(n_records held), long: $(n_records long)"
	assert_eq "$1: engine" "$(records held engine | tr ' ' '\n' | sort -u | xargs)" nftables
	assert_eq "$1: number of the route" "$(mark_of long)" "$mark"
	kill -0 "${PEER_PIDS[held]}" || fail "$1: the held ones have ended: $(tail -n 1 "$LAB_DIR/held.out")"
	goes_on long "$1"
	if [ "$(n_access held)" != 0 ] || [ "$(n_access long)" != 0 ]; then fail "$1: access lines: $(access_lines held)"; fi
}

say "a reload that changes nothing sends nothing"
before=$(generation)
form=$(table_form)
reload "$(conf 8002)"
reload
assert_eq "transactions" "$(generation)" "$before"
assert_eq "the table" "$(table_form)" "$form"
still "the same again"

say "a target is replaced: new flows go there"
wait_reaches $PROXY_IP:8082 s1
reload "$(conf 8003)"
reaches $PROXY_IP:8082 s2 || fail "right after the reload: $SHOT"
still "another target"

say "routes come and go"
for ((i = 0; i < 10; i++)); do
	reload "$(conf 8003 "$(nroute "extra$i" $((8100 + i)) "\"$BACKEND_IP:8002\"")")"
	reaches $PROXY_IP:$((8100 + i)) s1 || fail "route extra$i: $SHOT"
done
reload "$(conf 8003)"
wait_for refused $PROXY_IP:8109
still "ten others"

say "the broker dies"
broker=$(jqs .processes.broker)
kill -KILL "$broker"
other_broker() { now=$(jqs .processes.broker) && [ "$now" != null ] && [ "$now" != "$broker" ]; }
wait_until 10000 other_broker || fail "no new broker"
wait_until 8000 nat_is_on || fail "off: $(nat_text)"
reaches $PROXY_IP:8082 s2 || fail "served: $SHOT"
still "after the broker's death"

say "a flow that ends while there is no broker has its line all the same"
shot to=$PROXY_IP:8082
wait_for eval '[ "$(n_access web)" -ge 2 ]'

say "the proxy dies"
proxy=$(proxy_pid)
kill -KILL "$proxy"
other_proxy() { now=$(proxy_pid) && [ -n "$now" ] && [ "$now" != "$proxy" ] && is_running; }
wait_until 10000 other_proxy || fail "no new proxy"
reaches $PROXY_IP:8082 s2 || fail "served: $SHOT"
still "after the proxy's death"

say "everything dies; nothing of ours runs, and the transfer goes on"
kill -KILL "$SLUICE_PID"
join_sluice
wait_until 5000 eval '[ -z "$(ip netns pids "$LAB-p")" ]' || fail "left: $(ip netns pids "$LAB-p")"
goes_on long "without any process"
reaches $PROXY_IP:8082 s2 || fail "new flows without any process: $SHOT"
start_nat "$(conf 8003)"
wait_for eval '[ "$(nat_field adopted)" -ge 22 ]'
still "after the restart"

for ((i = 1; i <= ${UPGRADES:-2}; i++)); do
	say "upgrade $i"
	sl upgrade >"$LAB_DIR/upgrade.out" 2>&1 || fail "upgrade: $(cat "$LAB_DIR/upgrade.out")"
	wait_for is_running
	wait_until 10000 nat_is_on || fail "off: $(nat_text)"
	reaches $PROXY_IP:8082 s2 || fail "served: $SHOT"
	still "after upgrade $i"
	reload "$(conf $((8002 + i % 2)))"
	wait_until 10000 reaches $PROXY_IP:8082 "s$((1 + i % 2))" || fail "a reload after it: $SHOT $(nat_text)"
done

say "what they say at the end"
stop_peer held
assert_eq "held: $RESULT" "$RC" 0
stop_peer long
echo "$RESULT"
assert_eq "the transfers: $(cat "$LAB_DIR/long.out.err")" "$RC" 0
gap=$(jq .max_gap_ms <<<"$RESULT")
stop_peer direct
assert_eq "the transfers beside: $(cat "$LAB_DIR/direct.out.err")" "$RC" 0
assert_between "longest gap, ms" "$gap" 0 $((1000 * SLOW + 2 * $(jq .max_gap_ms <<<"$RESULT")))
wait_until 15000 nat_active_is 0 || fail "records left: $(sl conns --json | jq -c .)"
assert_between "access lines of the held ones" "$(n_access held)" 20 20
kill -TERM "$(jqs .pid)"
wait_until 10000 eval '[ -z "$(ip netns pids "$LAB-p")" ]' || fail "left: $(ip netns pids "$LAB-p" | xargs ps -o pid,args -p)"
no_table || fail "a table is left"
