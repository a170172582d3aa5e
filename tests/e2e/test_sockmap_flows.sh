#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# sluice flows and the metrics about joined sockets: what the kernel's slots say, with what only the records know;
# beside flows of the packet engine, moved to the relay and back, and with an entry deleted by hand.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/sockmaplab.sh"
need_sockmap

server e echo 8001
text="routes:
$(proute web 8081 "\"$BACKEND_IP:8001\"")
$(proute told 8082 "\"$BACKEND_IP:8001\"")
$(route auto 8083 "\"$BACKEND_IP:8001\"" 'engine: packet')"
GLOBAL="$(packet_global)" start_sockmap backlog=100KiB "$text"
sockmap_baseline
flows() { sl flows --json | jq -c "$@"; }
of_told() { flows ".flows[] | select(.route == \"told\") | $1"; }
told_is() { [ "$(of_told "$1")" = "$2" ]; }

say "none"
assert_match "as text" "$(sl flows)" '^0 flows in the kernel'
assert_eq "as JSON" "$(flows '[.flows, .more, .sockmap_reason]')" '[[],false,null]'

say "one row for each connection, beside those of the packet engine"
client_bg held hold to=$PROXY_IP:8081 n=3 ping=1 timeout=60
client_bg auto hold to=$PROXY_IP:8083 n=1 ping=1 timeout=60
all_there() { [ "$(flows '[.flows[].engine] | sort')" = '["packet","sockmap","sockmap","sockmap"]' ]; }
wait_until 8000 all_there || fail "not there: $(sl flows)"
conns=$(sl conns --json)
rows=$(flows '.flows | map(select(.engine == "sockmap"))')
assert_eq "ids, routes, peers as in conns" "$(jq -c '[.[] | [.id, .route, .client, .client_via, .backend]] | sort' <<<"$rows")" \
	"$(jq -c '[.[] | select(.engine == "sockmap") | [.id, .route, .client, .client_via, .backend]] | sort' <<<"$conns")"
assert_eq "complete, active" "$(jq -r '[.[] | "\(.complete) \(.state)"] | unique | join(",")' <<<"$rows")" "true active"
mine() { jq -c 'map([.id, ([.up, .down] | map([.bytes, .passed_bytes, .packets, .spills, .max_waiting, .limit]))]) | sort'; }
theirs() { jq -c 'group_by(.conn_id) | map([.[0].conn_id, (sort_by(.slot) | map([.redirected, .passed, .packets, .spills, .max_waiting, .limit]))]) | sort'; }
assert_eq "numbers as in the slots" "$(mine <<<"$rows")" "$(sockmaps slots | theirs)"
assert_between "silent for" "$(jq '[.[].idle_s] | max | floor' <<<"$rows")" 0 20
shown=$(sl flows)
assert_eq "rows of the text" "$(grep -c " web  *active  *$CLIENT_IP:.* 100.0 KiB\| web  *active  *$CLIENT_IP:" <<<"$shown")" 3
assert_match "both tables" "$shown" $'DROPS\n[^\n]+ auto +active [^\n]+\n\n +ID[^\n]+TO DAEMON +SPILLS +MOST WAITING\n'
assert_match "how many" "$shown" $'\n4 flows in the kernel, 3 of them of the engine sockmap\n'
assert_eq "limit" "$(sl flows --json --limit 2 | jq -c '[(.flows | length), .more]')" '[2,true]'
assert_match "limit, text" "$(sl flows --limit 2)" $'\nonly 2 of the flows in the kernel'
id=$(jq '.[1].id' <<<"$rows")
one() { in_ns proxy curl -sS --max-time 5 --unix-socket "$LAB_DIR/$INST/run/control.sock" "http://x/v1/flows?id=$1" | jq -c '[.flows[].id]'; }
assert_eq "by id" "$(one "$id")" "[$id]"
assert_eq "by an id that is none" "$(one 1)" "[]"

say "given back to the relay: it stays in the maps, and the daemon carries it"
a=$LAB_DIR/a b=$LAB_DIR/b c=$LAB_DIR/c
OUT=$LAB_DIR/told.out spawn client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:8082 send:hello expect:hello \
	wait:"$a" send:world expect:world wait:"$b" stream:20:20 flow:20:5000 wait:"$c" fin eof
told=$LAST
wait_until 5000 told_is .state '"active"' || fail "not handed over: $(sl flows)"
id=$(of_told .id)
sl move "$id" relay >/dev/null || fail "move"
wait_until 5000 told_is .state '"given_back"' || fail "not given back: $(sl flows)"
touch "$a"
wait_until 5000 told_is '[.up, .down] | map([.spilled, .spills, .spill_reason, .passed_bytes])' '[[true,1,"asked",5],[true,1,"asked",5]]' ||
	fail "spilled: $(of_told .)"
assert_match "as text" "$(sl flows)" " told  *given_back  *$CLIENT_IP:[^\n]* 10 B +2 "

say "and back: the next packets are the kernel's again"
before=$(of_told '.up.bytes')
sl move "$id" sockmap >/dev/null || fail "move"
touch "$b"
wait_until 8000 told_is .state '"active"' || fail "not active: $(sl flows)"
assert_eq "spills of the past" "$(of_told '[.up.spills, .down.spills, .up.spilled, .down.spilled]')" '[1,1,false,false]'
more_bytes() { [ "$(of_told '.up.bytes')" -gt "$before" ]; }
wait_until 5000 more_bytes || fail "bytes: $(of_told .)"

say "half of it, until the broker heals it"
broker=$(jqs .processes.broker)
kill -STOP "$broker"
key=$(dump sockmap_flows | jq --argjson id "$id" '[.[] | .formatted // . | select(.value.conn_id == $id)][0].key')
# shellcheck disable=SC2046
bpftool map delete pinned "$(bpf_of)/sockmap_flows" key hex $(printf '%016x\n' "$key" | fold -w 2 | tac | tr '\n' ' ') || fail "delete"
assert_eq "complete" "$(of_told .complete)" false
assert_match "as text" "$(sl flows)" ' told +[a-z_]+( up| down| both ways)? \(half\) '
kill -CONT "$broker"
wait_until 5000 told_is .complete true || fail "not healed: $(sl flows)"
touch "$c"
wait "$told" || fail "dialog: $(cat "$LAB_DIR/told.out.err")"

say "outcomes"
by_bpftool() { dump sockmap_counters | jq -cS '.[0] | .formatted // . | [.values[].value | to_entries[]] | group_by(.key) | map({ (.[0].key): map(.value) | add }) | add'; }
by_metrics() {
	http_get /metrics | sed -n 's/^sluice_sockmap_outcomes_total{outcome="\([a-z_]*\)"} \([0-9]*\)$/{"\1": \2}/p' | jq -cS -s add
}
same() { [ "$(by_bpftool)" = "$(sl flows --json | jq -cS .sockmap_outcomes)" ] && [ "$(by_bpftool)" = "$(by_metrics)" ]; }
wait_until 3000 same || fail "bpftool $(by_bpftool), flows $(sl flows --json | jq -cS .sockmap_outcomes), metrics $(by_metrics)"
assert_between "asked to spill" "$(by_bpftool | jq .spilled_asked)" 2 2
assert_match "as text" "$(sl flows)" $'\noutcomes of the engine sockmap: redirected [0-9]+'
if command -v promtool >/dev/null; then
	http_get /metrics >"$LAB_DIR/metrics"
	promtool check metrics <"$LAB_DIR/metrics" >"$LAB_DIR/promtool" 2>&1 || fail "promtool: $(cat "$LAB_DIR/promtool")"
fi

say "what ends is gone from it"
stop_peer held
stop_peer auto
sl flows --flush >/dev/null || fail "flush"
none() { [ "$(flows .flows)" = "[]" ]; }
wait_until 5000 none || fail "left: $(sl flows)"
assert_sockmap_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
