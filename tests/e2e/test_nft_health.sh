#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Checks from userspace, slots in the kernel: a target that dies loses its share, the last one leaves a
# refusal, and what comes back is served again. Also without any process that carries connections.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

nat_up
T=$BACKEND_IP
FAST='every: 100ms, timeout: 500ms, fall: 2, rise: 2'
for i in 1 2 3; do server "s$i" identify 800$i; done
udp_server u backend 8004
conf() { # HEALTH
	local health=${1:+, health: { $1 \}}
	echo "routes:
$(nroute lb 8080 "{ targets: [ \"$T:8001\", \"$T:8002\" ]$health }")
$(nroute hash 8081 "{ targets: [ \"$T:8001\", \"$T:8002\", \"$T:8003\" ], balance: maglev$health }")
$(nroute backup 8082 "{ targets: [ \"$T:8001\", { address: \"$T:8003\", backup: true } ]$health }")
$(nroute alone 8083 "{ targets: \"$T:8002\"$health }")
$(nroute unchecked 8084 "\"$T:8001\"")"
}
# without checks, whose sockets come and go
start_nat "$(conf)"
nat_baseline
reload "$(conf "$FAST")"
up() { # ROUTE: states of its targets
	jqs "[.routes[] | select(.name == \"$1\").targets[].state] | join(\" \")"
}
wait_states() { # ROUTE STATES
	wait_until 5000 eval "[ \"\$(up $1)\" = '$2' ]" || fail "targets of $1: $(up "$1"), want $2"
}
wait_states lb "up up"
ok=$(up lb | cut -d' ' -f1)
served_by() { names_of "$1" "$2" | sort | uniq -c | xargs; }

say "both serve"
assert_eq "in turn" "$(served_by 8080 6)" "3 s1 3 s2"
in_ns client bash -c 'for ((i = 1; i <= 40; i++)); do "$1" shot timeout=15 to="$2" src=10.91.130.$i |
	jq -r --arg i "$i" "\$i + \" \" + (.text | split(\" \")[0])"; done' _ "$PEERS/peer_client" "$PROXY_IP:8081" >"$LAB_DIR/hash.1"

say "one dies"
stop_peer s1
start=$(now_ms)
wait_states lb "down $ok"
slots_without() { [ "$(served_by 8080 4)" = "4 s2" ]; }
wait_until 1000 slots_without || fail "served by $(served_by 8080 4)"
echo "out of the slots $(($(now_ms) - start)) ms after its death"
wait_reaches $PROXY_IP:8082 s3
assert_eq "an unchecked route: its refusal comes through" "$(shot to=$PROXY_IP:8084 && of connect)" refused
in_ns client bash -c 'for ((i = 1; i <= 40; i++)); do "$1" shot timeout=15 to="$2" src=10.91.130.$i |
	jq -r --arg i "$i" "\$i + \" \" + (.text | split(\" \")[0])"; done' _ "$PEERS/peer_client" "$PROXY_IP:8081" >"$LAB_DIR/hash.2"
assert_eq "maglev: who lost clients" "$(diff "$LAB_DIR/hash.1" "$LAB_DIR/hash.2" | awk '/^</ { print $3 }' | sort -u | xargs)" s1

say "all die: refused at once"
stop_peer s2
wait_states lb "down down"
wait_until 1000 refused $PROXY_IP:8080 || fail "lb: $SHOT"
wait_until 1000 refused $PROXY_IP:8083 || fail "alone: $SHOT"
assert_between "ms" "$(of connect_ms)" 0 $((500 * SLOW))

say "a broker that begins now knows it"
broker=$(jqs .processes.broker)
kill -KILL "$broker"
wait_until 10000 eval '[ "$(jqs .processes.broker)" != null ] && [ "$(jqs .processes.broker)" != "$broker" ]' || fail "no new broker"
wait_until 8000 nat_is_on || fail "off: $(nat_text)"
for ((i = 0; i < 10; i++)); do refused $PROXY_IP:8080 || fail "a dead target has slots again: $SHOT"; done

say "they come back"
server s1 identify 8001
wait_states lb "$ok down"
wait_reaches $PROXY_IP:8080 s1
wait_reaches $PROXY_IP:8082 s1
server s2 identify 8002
wait_states lb "$ok $ok"
both() { [ "$(served_by 8080 4)" = "2 s1 2 s2" ]; }
wait_until 1000 both || fail "served by $(served_by 8080 4)"
wait_reaches $PROXY_IP:8083 s2
assert_match "counted" "$(http_get /metrics)" 'sluice_health_checks_total\{[^}]*route="lb"'
reload "$(conf)"
assert_nat_baseline
