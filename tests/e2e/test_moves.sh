#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A connection that changes its engine remembers it: conns and the access line show the move, the
# metric counts it, and totals of routes count the connection once. What stays has none.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_packet

server e echo 8001
ROUTES="routes:
$(route free 8081 "\"$BACKEND_IP:8001\"")
$(proute named 8082 "\"$BACKEND_IP:8001\"")
$(route stays 8083 "\"$BACKEND_IP:8001\"" "engine: relay")"
start_packet "" "$ROUTES"
packet_baseline

# talk ROUTE PORT: says hello, and goes on when $LAB_DIR/go is there.
talk() {
	OUT=$LAB_DIR/$1.dialog spawn client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:"$2" send:hello expect:hello \
		tell:"$LAB_DIR/begun.$1" wait:"$LAB_DIR/go" send:bye expect:bye fin eof
	PEER_PIDS[$1]=$LAST
	wait_for test -e "$LAB_DIR/begun.$1"
}
# end_talk ROUTE...
end_talk() {
	local name rc
	touch "$LAB_DIR/go"
	for name; do
		rc=0
		wait "${PEER_PIDS[$name]}" || rc=$?
		assert_eq "the dialog of $name: $(cat "$LAB_DIR/$name.dialog.err")" "$rc" 0
	done
	rm "$LAB_DIR/go" "$LAB_DIR"/begun.*
}
row() { sl conns --route "$1" --json | jq -c '.[0]'; }
moves() { jq -r '[.moves[] | "\(.from)>\(.to):\(.reason)"] | join(" ")' <<<"$1"; }
n_moves() { # REASON: of relay to packet, by the metric
	http_get /metrics | awk -v r="$1" '$1 == "sluice_engine_moves_total{from=\"relay\",to=\"packet\",reason=\"" r "\"}" { print $2 }'
}

say "recorded"
talk free 8081
talk named 8082
talk stays 8083
wait_engine free packet
wait_engine named packet
for name in free named; do
	r=$(row $name)
	assert_eq "$name: its moves" "$(moves "$r")" "relay>packet:$(jq -r .engine_reason <<<"$r")"
	assert_eq "$name: all of them" "$(jq .moves_total <<<"$r")" 1
	assert_eq "$name: the move is younger than the connection" \
		"$(jq '.moves[0].age_s >= 0 and .moves[0].age_s <= .age_s' <<<"$r")" true
done
assert_eq "why" "$(moves "$(row free)") $(moves "$(row named)")" "relay>packet:eligible relay>packet:configured"
assert_eq "stays" "$(row stays | jq -c '[.engine, .moves, .moves_total]')" '["relay",[],0]'

say "shown"
id=$(row free | jq .id)
sl conns "$id" | tee "$LAB_DIR/text"
grep -qE '^moved from relay to packet [0-9.]+s ago: eligible$' "$LAB_DIR/text" || fail "no move in the text"
sl conns >"$LAB_DIR/text"
if grep -q moved "$LAB_DIR/text"; then fail "moves in the list of all"; fi
sl conns "$(row stays | jq .id)" >"$LAB_DIR/text"
if grep -q moved "$LAB_DIR/text"; then fail "a move of a connection that stays"; fi

say "as explained"
# explained PORT: its engines, each with + where it can carry, - where not, and why
explained() { sl explain "$1" --json | jq -r '[.engines[] | "\(.engine)\(if .can_carry then "+" else "-" end)\(.reason)"] | join(" ")'; }
assert_eq "free" "$(explained 8081)" "packet+eligible relay+short_lived"
assert_eq "named" "$(explained 8082)" "packet+configured relay+short_lived"
assert_eq "stays" "$(explained 8083)" "relay+configured"
for port in 8081 8082 8083; do
	assert_eq "the engine of $port" "$(sl explain $port --json | jq -r '"\(.engine) \(.engine_reason)"')" \
		"$(sl conns --json | jq -r --arg r "$(sl explain $port --json | jq -r .route)" '.[] | select(.route == $r) | "\(.engine) \(.engine_reason)"')"
done
assert_eq "a client of the other family" "$(sl explain 8081 --client 2001:db8::1 --json | jq -r '"\(.engine) \(.engine_reason)"')" \
	"relay not_linux_supported"
sl explain 8081 | grep -E '^  in this order +packet yes \(eligible\), relay until then$' || fail "not in the text"

say "counted"
assert_eq "the metric" "$(n_moves eligible) $(n_moves configured)" "1 1"
assert_eq "no other" "$(http_get /metrics | grep -c '^sluice_engine_moves_total{')" 2
assert_eq "by engine, each that has carried it" "$(jqs '[.engines.relay.total, .engines.packet.total] | join(" ")')" "3 2"
assert_eq "by route, once" "$(jqs '[.routes[].total] | join(" ")')" "1 1 1"
assert_eq "open" "$(jqs '[.engines.relay.active, .engines.packet.active] | join(" ")')" "1 2"

say "told at the end"
end_talk free named stays
for name in free named stays; do wait_access $name; done
assert_eq "access lines" "$(access free moves) $(access named moves) $(access stays moves)" "1 1 "
assert_match "where it stands" "$(access_lines free)" ' connect=[0-9.]+ms moves=1 up=8 down=8 client_reason=normal '
assert_eq "nothing open" "$(jqs '[.engines[].active] | add')" 0

say "in JSON"
PACKET_GLOBAL+=$'\n  log: { format: json }'
reload_packet "$ROUTES"
talk free 8081
talk stays 8083
wait_engine free packet
end_talk free stays
json_line() { grep -a '"level": *"access"' "$(log_file)" | jq -c "select(.route == \"$1\")"; }
has_json_line() { [ -n "$(json_line "$1")" ]; }
for name in free stays; do wait_for has_json_line $name; done
assert_eq "moves" "$(json_line free | jq -c '[.engine, .moves]') $(json_line stays | jq -c '[.engine, .moves]')" '["packet",1] ["relay",0]'
assert_eq "the metric" "$(n_moves eligible) $(n_moves configured)" "2 1"
assert_packet_baseline
