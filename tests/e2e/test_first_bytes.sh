#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Thousands of connections that stop at any byte of PROXY header and hello, or go on, while routes change,
# targets refuse, configurations are reloaded and connections killed: every whole one gets every byte
# back once, every other one an end in time, and all counts are those of before.
#   N=1500 connections, SEED=1
. "$(dirname "$0")/../lib/netlab.sh"
N=${N:-1500}
SEED=${SEED:-1}
LIMIT=$((2 * SLOW))

server a banner 8001 text="a|"
server b banner 8002,8003 text="b|"
server r banner 8004 text="r|"
server s banner 8005 text="s|"
server k banner 8006 text="k|"
server plain banner 8007 text="plain|"
server t banner 8008 text="t|"
server rst rst 8009
server close close 8010
server silent silent 8011

targets() { # [PORT...]: in YAML
	local port all=
	for port in "$@"; do all+="${all:+, }\"$BACKEND_IP:$port\""; done
	echo "[$all]"
}
conf() { # MORE
	cat <<-TEXT
		defaults: { timeouts: { proxy_header: ${LIMIT}s, first_data: ${LIMIT}s, idle: $((2 * LIMIT))s } }
		listeners:
		  - { ports: [444, 446], accept_proxy: { from: ["10.91.0.0/16"], required: true } }
		  - { ports: [445], accept_proxy: { from: ["10.91.0.0/16"], required: false } }
		routes:
		$(route a "[443, 444, 445], domains: [a.example]" "$(targets 8001)")
		$(route b "[443, 444, 445], domains: ['*.b.example']" "{ targets: $(targets 8002 8003) }")
		$(route r "[443, 444, 445], domains: [r.example]" "{ targets: $(targets 7001 7002 8004), send_proxy: v1 }")
		$(route s "[443, 444, 445], domains: ['s.*']" "{ targets: $(targets 8005), send_proxy: v2 }")
		$(route k "[443, 444, 445], domains: [k.example]" "$(targets 8006)")
		$(route t "[443, 444, 445], domains: [t.example]" "{ targets: $(targets 8011 8008) }" "timeouts: { connect: $((300 * SLOW))ms }")
		$(route x "[443, 444, 445], domains: [x.example]" "{ targets: $(targets 8009 8010 7005), send_proxy: v2 }")
		$(route plain "[443, 445]" "$(targets 8007)")
		$(route direct 446 "$(targets 8001)")
		$(route dead 447 "{ targets: $(targets 7003 7004 8004), balance: random, send_proxy: v1 }")
		$1
	TEXT
}
start_sluice "$(conf "")"
baseline
cp "$LAB_DIR/main/sluice.yaml" "$LAB_DIR/one.yaml"
write_conf "$(conf "$(route more 450-480 "$(targets 8001)")")"
cp "$LAB_DIR/main/sluice.yaml" "$LAB_DIR/two.yaml"

storm() { /usr/bin/python3 tests/lib/storm.py "$@"; }

say "$N connections, seed $SEED"
storm operator "$LAB_DIR/main/run/control.sock" "$BACKEND_IP" conf="$LAB_DIR/one.yaml,$LAB_DIR/two.yaml" \
	stop="$LAB_DIR/stop" seed="$SEED" >"$LAB_DIR/operator.out" 2>"$LAB_DIR/operator.err" &
operator=$!
lab_pids+=("$operator")
in_ns client /usr/bin/python3 tests/lib/storm.py clients $PROXY_IP n="$N" jobs=200 seed="$SEED" \
	limit=$LIMIT >"$LAB_DIR/clients.out" || fail "clients: $(cat "$LAB_DIR/clients.out")"
touch "$LAB_DIR/stop"
wait "$operator" || fail "operator: $(tail -n 3 "$LAB_DIR/operator.err")"
cat "$LAB_DIR/clients.out" "$LAB_DIR/operator.out"
assert_eq "changes that fail" "$(jq -r '[to_entries[] | select(.key | test(" (5..|lost)$"))] | length' "$LAB_DIR/operator.out")" 0

say "afterwards"
reload "$(conf "")"
assert_back_to_baseline
status=$(sl status --json)
of_status() { jq "$1" <<<"$status"; }
assert_eq "connections" "$(of_status .connections.total)" "$N"
assert_eq "ends of clients" "$(of_status '[.terminations.client[]] | add')" "$N"
assert_eq "open by route" "$(of_status '[.routes[].active] | add')" 0
assert_eq "open by target" "$(of_status '[.routes[].targets[].active] | add')" 0
assert_eq "open by engine" "$(of_status '[.engines[].active] | add')" 0
