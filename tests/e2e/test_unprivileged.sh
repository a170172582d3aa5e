#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Started without any right, as an ordinary user and as root of a container that has no capability: what
# is missing is said, with what helps, every connection is on relay, and high ports are served.
. "$(dirname "$0")/../lib/netlab.sh"
need setpriv

server e echo 8000
server v verify 8001
server idle echo 8002
cp "$SLUICED" "$LAB_DIR/sluiced" # where the account may read it
chmod 755 "$LAB_DIR/sluiced"
ROUTES="routes:
$(route main 8080 "\"$BACKEND_IP:8000\"")
$(route v 8081 "\"$BACKEND_IP:8001\"")
$(route held 8082 "\"$BACKEND_IP:8002\"")
$(route range '"20000-20099"' "\"$BACKEND_IP:8000\"")"
ALONE='the kernel carries no new connections here: all go by relay'

# start_bare USER COMMAND: as that user, with neither capabilities nor ways to get some.
start_bare() {
	mkdir -p "$LAB_DIR/main/run" "$LAB_DIR/main/state" "$LAB_DIR/main/bpf"
	chown -R "$1" "$LAB_DIR/main"
	chown "$1" "$LAB_DIR"
	SLUICED=$LAB_DIR/sluiced WRAP="$2 --bounding-set=-all --inh-caps=-all" start_sluice "$ROUTES"
	assert_eq "user" "$(stat -c %U "/proc/$SLUICE_PID")" "$1"
	assert_eq "capabilities" "$(awk '/^Cap(Prm|Eff|Bnd)/ { print $2 }' "/proc/$SLUICE_PID/status" | sort -u)" 0000000000000000
	baseline
}

# With a broker that has no rights it takes a moment.
knows_why() { [ "$(jqs .packet.reason)" = "$1" ]; }

# says REASON HINT: of the engine packet; what relay alone means is said everywhere.
says() {
	wait_for knows_why "$1"
	sl engines >"$LAB_DIR/engines"
	sl status >"$LAB_DIR/status" || fail "status: exit $?"
	cat "$LAB_DIR/engines"
	assert_eq "available" "$(sl engines --json | jq -c '[.engines[] | select(.available) | .name]')" '["relay"]'
	grep -qE '^relay +yes +[0-9]+ +[0-9]+  always: ' "$LAB_DIR/engines" || fail "relay is not there"
	grep -qE "^packet +no +0 +0  $1\$" "$LAB_DIR/engines" || fail "packet: not why"
	grep -qxF "$ALONE" "$LAB_DIR/engines" || fail "engines: nothing of relay alone"
	grep -qE "^packet: $2" "$LAB_DIR/engines" || fail "packet: not what helps"
	grep -qE "^ +$ALONE\$" "$LAB_DIR/status" || fail "status: nothing of relay alone"
	grep -qE "^packet +$1\$" "$LAB_DIR/status" || fail "status: not why"
	assert_eq "why" "$(sl engines --json | jq -r '.engines | [.packet.reason_name, .sockmap.reason_name] | join(" ")')" \
		"no_privilege configured"
}

all_there() { [ "$(sl conns --route held --json | jq '[.[] | select(.state == "established")] | length')" = 3 ]; }

# What explain promises is what happens, and all of it by relay.
relayed() {
	local said row
	said=$(sl explain 8082 --json)
	assert_eq "explained" "$(jq -c '[.engines[] | "\(.engine) \(.can_carry) \(.reason)"]' <<<"$said")" \
		'["packet false no_privilege","relay true no_privilege"]'
	client_bg "held_$who" hold to=$PROXY_IP:8082 n=3 ping=1 timeout=60
	wait_for all_there
	row=$(sl conns --route held --json | jq -c 'map({ engine, engine_reason, moves }) | unique')
	assert_eq "its connections" "$row" "$(jq -c '[{ engine, engine_reason, moves: [] }]' <<<"$said")"
	stop_peer "held_$who"
	wait_access held 3
	assert_eq "access line" "$(access held engine)" relay/no_privilege
	assert_eq "carried by the kernel" "$(jqs '[.engines | to_entries[] | select(.key != "relay") | .value.total] | add')" 0
	assert_eq "engines that are there" "$(http_get /metrics | awk '/^sluice_engine_available/ { n += $NF } END { print n + 0 }')" 0
}

served() {
	shot to=$PROXY_IP:8080 send=x fin=1
	assert_eq "served" "$(of end) $(of text)" "eof x"
	shot to=$PROXY_IP:20050 send=y fin=1
	assert_eq "a port of a range, by plain sockets" "$(of end) $(of text)" "eof y"
	client verify to=$PROXY_IP:8081 n=50 c=5 timeout=20
}

# A route that asks for what is not there is served all the same, which is no good state.
asked_for() {
	local rc=0
	reload "${ROUTES/main,/main, engine: packet,}"
	sl status >"$LAB_DIR/status" || rc=$?
	assert_eq "exit code of status" $rc 4
	grep -q 'relayed instead: 1 route has named this engine' "$LAB_DIR/status" || fail "status is silent about it"
	shot to=$PROXY_IP:8080 send=z fin=1
	assert_eq "served" "$(of end) $(of text)" "eof z"
	if [ $who = user ]; then
		reload "${ROUTES/main,/main, engine: nftables,}"
		wait_for has_log 'not started as root: routes with engine: nftables are served by nobody'
		assert_eq "explained" "$(sl explain 8080 --json | jq -r '[.listening, .verdict_text] | join(" ")')" \
			"false the route would have the connection, but now nobody takes it"
	fi
	reload "$ROUTES"
}

for who in user container; do
	say "$who"
	if [ $who = user ]; then
		start_bare nobody "setpriv --reuid=nobody --regid=nogroup --clear-groups"
		has_log 'not started as root: the kernel carries no connections, all go by relay' || fail "the log is silent about it"
		says "off: not started as root" "started as root, "
	else
		start_bare root setpriv
		says "off: needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON" ".* a missing capability takes a new start .*--cap-add"
	fi
	relayed
	served
	asked_for
	assert_back_to_baseline
	stop_sluice
	assert_eq "exit code" "$RC" 0
	rm -rf "$LAB_DIR/main"
done
