#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What the command line, the control API and the metrics say about flows in the kernel, against what
# bpftool says; flows --flush; a route that asks for an engine that is not there makes status exit 4.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_packet

server e echo 8001
start_packet "" "routes:
$(proute web 8081 "\"$BACKEND_IP:8001\"")
$(proute mixed 8082 "\"$BACKEND_IP:8001\"")"
packet_baseline

say "an engine that is on"
is_on() { [ "$(jqs .packet.available)" = true ]; }
wait_for is_on
assert_match "status" "$(sl status)" $'packet +tcx on 3 interfaces \\((lo|cli|srv), (lo|cli|srv), (lo|cli|srv)\\); 0 of 65536 flows\n'
assert_eq "which" "$(jqs '.packet.interface_names | sort | join(" ")')" "cli lo srv"
assert_match "engines" "$(sl engines)" 'tcx on 3 interfaces \(.*cli'
assert_eq "engines" "$(sl engines --json | jq -r '.engines.packet | [.available, .reason_name, .max_flows, .ports] | map(tostring) | join(" ")')" \
	"true null 65536 40000-59999"
broker=$(jqs .processes.broker)
assert_match "its process" "$(tr '\0' ' ' <"/proc/$broker/cmdline")" 'broker'
assert_match "in words" "$(sl status)" ", broker $broker\\), up "
assert_match "no flows" "$(sl flows)" '^0 flows in the kernel'

say "a flow is told as the map has it"
client_bg held hold to=$PROXY_IP:8081 n=3 ping=1 timeout=60
wait_for at_least_on packet 3
flows=$(sl flows --json)
assert_eq "number" "$(jq '.flows | length' <<<"$flows")" 3
assert_eq "all complete, active, of the route" \
	"$(jq -r '[.flows[] | "\(.complete) \(.state) \(.route) \(.engine)"] | unique | join(" ")' <<<"$flows")" "true active web packet"
assert_eq "ids as in the map" "$(jq -c '[.flows[].id] | sort' <<<"$flows")" "$(flows_json | jq -c '[.[].conn_id] | unique')"
assert_eq "ids as in conns" "$(jq -c '[.flows[].id] | sort' <<<"$flows")" "$(sl conns --json | jq -c '[.[].id] | sort')"
assert_eq "clients as in conns" "$(jq -c '[.flows[].client] | sort' <<<"$flows")" "$(sl conns --json | jq -c '[.[].client] | sort')"
assert_eq "tuple" "$(jq -r '.flows[0] | "\(.peer == .client) \(.front) \(.backend)"' <<<"$flows")" "true $PROXY_IP:8081 $BACKEND_IP:8001"
port=$(jq -r '.flows[0].source' <<<"$flows")
assert_between "source port" "${port##*:}" 40000 59999
assert_eq "limit" "$(sl flows --json --limit 2 | jq -c '[(.flows | length), .more]')" '[2,true]'
assert_match "as text" "$(sl flows)" $'\n3 flows in the kernel'
assert_eq "rows of the text" "$(sl flows | grep -c "web .* active .*$BACKEND_IP:8001")" 3
in_status() { [ "$(jqs .kernel.packet_flows)" = "$1" ]; }
wait_for in_status 3
assert_match "status" "$(sl status)" '; 3 of 65536 flows'

say "bytes and packets are those of the entries"
transfer() {
	in_ns client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:8081 send:hello expect:hello pump:200000 fin eof ||
		fail "a transfer"
}
sums() { # of both directions, from bpftool and from us, in one moment of silence
	flows_json | jq -c '[(map(.bytes) | add), (map(.packets) | add), (map(.drops) | add)]'
}
ours() { sl flows --json | jq -c '[.flows[] | .up, .down] | [(map(.bytes) | add), (map(.packets) | add), (map(.drops) | add)]'; }
same() { [ "$(sums)" = "$(ours)" ]; }
# One may be over before it is in the kernel.
some_packets() {
	transfer && [ "$(ours | jq '.[1]')" -ge 3 ]
}
wait_for some_packets
wait_for same
fwd() { sl flows --json | jq .outcomes.forwarded_tc; }
same_outcome() { [ "$(counter forwarded_tc)" = "$(fwd)" ]; }
wait_for same_outcome
assert_match "outcomes as text" "$(sl flows)" $'\noutcomes: forwarded_tc [0-9]+'
assert_between "outcome forwarded_tc" "$(fwd)" 3 100000

say "two families cannot be joined, which is said as it is"
client_bg mixed hold to="[$PROXY6]:8082" n=1 ping=1 timeout=60
wait_for has_output mixed
assert_eq "engine and reason" "$(engine_of mixed) $(engine_reason_of mixed)" "relay not_linux_supported"
assert_eq "explain knows before" "$(sl explain 8082 --client 2001:db8::1 --json | jq -r '"\(.engine) \(.engine_reason)"')" \
	"relay not_linux_supported"
assert_eq "explain of the other family" "$(sl explain 8082 --client 192.0.2.1 --json | jq -r .engine)" packet
stop_peer mixed
wait_for eval '[ "$(n_on relay)" = 0 ]'

say "metrics"
http_get /metrics >"$LAB_DIR/metrics"
if command -v promtool >/dev/null; then
	promtool check metrics <"$LAB_DIR/metrics" >"$LAB_DIR/promtool" 2>&1 || fail "promtool: $(cat "$LAB_DIR/promtool")"
	assert_eq "promtool's words" "$(cat "$LAB_DIR/promtool")" ""
fi
sample() { grep -F "$1 " "$LAB_DIR/metrics" | awk '{ print $NF }'; }
assert_eq "available" "$(sample 'sluice_engine_available{engine="packet"}')" 1
assert_eq "flows" "$(sample 'sluice_kernel_flows{engine="packet"}')" 3
assert_between "hand-overs" "$(sample 'sluice_handover_total{engine="packet",result="done"}')" 3 4
assert_eq "as many were timed" "$(sample sluice_handover_duration_seconds_count)" "$(grep '^sluice_handover_total' "$LAB_DIR/metrics" | awk '{ n += $NF } END { print n }')"
assert_between "outcomes" "$(sample 'sluice_packet_outcomes_total{outcome="forwarded_tc"}')" 3 100000

say "flush resets all of them and leaves nothing"
assert_eq "words" "$(sl flows --flush)" '3 flows in the kernel were reset and all entries removed'
RC=0
stop_peer held
assert_eq "entries" "$(n_flows)" 0
wait_for in_status 0
assert_match "reason" "$(access web client_reason)" '^(killed|normal)$'
assert_eq "killed" "$(access_lines web | grep -c client_reason=killed)" 3
stop_sluice

say "a route that names an engine that is not there: degraded, and served"
instance without
start_sluice "routes:
$(route asks 8082 "\"$BACKEND_IP:8001\"" "engine: packet")"
broker_has_spoken() { [[ $(jqs .packet.reason) != *"being started" ]]; }
wait_for broker_has_spoken
RC=0
text=$(sl status) || RC=$?
assert_eq "exit code" "$RC" 4
assert_match "words" "$text" $'packet +off: .*mount -t bpf.*\n +relayed instead: 1 route has named this engine\n'
shot to=$PROXY_IP:8082 send=hello fin=1
wait_access asks 1
assert_eq "engine" "$(access asks engine)" "relay/$(jqs .packet.reason_name)"
RC=0
sl flows --flush >"$LAB_DIR/flush" 2>&1 || RC=$?
assert_eq "flush without the engine" "$RC" 1
assert_match "its words" "$(cat "$LAB_DIR/flush")" 'the packet engine is off, and has no table'

say "what was missing is there: a reload is enough"
mkdir -p "$(bpf_of)"
nsenter -t "$SLUICE_PID" -m -r mount -t bpf bpf "$(bpf_of)" # its mounts are its own since `ip netns exec`
sl reload >/dev/null || fail "reload"
wait_for is_on
sl status >/dev/null || fail "exit code $? of the status"
client_bg asks hold to=$PROXY_IP:8082 n=1 ping=1 timeout=60
wait_engine asks packet
stop_peer asks
stop_sluice
assert_eq "exit code" "$RC" 0
