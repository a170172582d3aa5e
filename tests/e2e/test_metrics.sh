#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# /metrics passes promtool and has what DESIGN.md lists; /healthz and /readyz.
. "$(dirname "$0")/../lib/netlab.sh"
need curl

server http http 8000 size=1000
start_sluice "routes:
$(route web 8080 "\"$BACKEND_IP:8000\"")
$(route dead 8081 "\"$BACKEND_IP:1\"")
$(route limited 8082 "\"$BACKEND_IP:8000\"" 'security: { new_connections_per_ip: 1/m }')"
broker_has_spoken() { [[ $(jqs .packet.reason) != *"being started" ]]; }
wait_for broker_has_spoken
client rate to=$PROXY_IP:8080 t=1 c=2 pause=10 expect=1000 timeout=10
shot to=$PROXY_IP:8081
for _ in 1 2 3; do shot to=$PROXY_IP:8082 send=$'GET / HTTP/1.0\r\n\r\n'; done
client_bg held hold to=$PROXY_IP:8080 n=3 timeout=20
wait_for eval '[ "$(jqs .connections.active)" = 3 ]'

http_get /metrics >"$LAB_DIR/metrics"
if command -v promtool >/dev/null; then
	promtool check metrics <"$LAB_DIR/metrics" >"$LAB_DIR/promtool" 2>&1 || fail "promtool: $(cat "$LAB_DIR/promtool")"
	assert_eq "promtool's words" "$(cat "$LAB_DIR/promtool")" ""
else
	echo "promtool is not installed: syntax not checked"
fi

value() { # NAME LABEL...: sum of the samples that have them all
	local name=$1 expr='/^#/ { next }' label
	shift
	for label in "$@"; do expr+=" !index(\$0, \"${label//\"/\\\"}\") { next }"; done
	awk "$expr { n = \$1; sub(/{.*/, \"\", n) } n == \"$name\" { s += \$NF; c++ } END { print c ? s : \"none\" }" "$LAB_DIR/metrics"
}
assert_eq active "$(value sluice_connections_active 'route="web"' 'engine="relay"')" 3
assert_between total "$(value sluice_connections_total 'route="web"')" 20 100000
assert_eq rejected "$(value sluice_connections_rejected_total 'route="limited"' 'reason="rate_ip"')" 2
assert_eq refused "$(value sluice_terminations_total 'route="dead"' 'side="backend"' 'reason="econnrefused"')" 1
assert_between "bytes down" "$(value sluice_bytes_total 'route="web"' 'direction="down"')" 20000 1000000000
assert_between "connect times" "$(value sluice_connect_duration_seconds_count)" 20 100000
assert_between "durations" "$(value sluice_connection_duration_seconds_count)" 20 100000
assert_between "time in states" "$(value sluice_state_duration_seconds_count 'state="established"')" 20 100000
assert_between "choices" "$(value sluice_engine_choice_total 'engine="relay"' "reason=\"$(jqs .packet.reason_name)\"")" 20 100000
assert_eq "the engine that is off" "$(value sluice_engine_available 'engine="packet"')" 0
assert_eq "flows in the kernel" "$(value sluice_kernel_flows 'engine="packet"')" 0
assert_eq "hand-overs" "$(value sluice_handover_total 'engine="packet"' 'result="done"')" 0
assert_eq "drift" "$(value sluice_drift_total)" 0
assert_eq "target" "$(value sluice_target_up 'route="web"')" 1
assert_eq "build" "$(value sluice_build_info)" 1
assert_eq "reload" "$(value sluice_config_last_reload_successful)" 1
grep -q '^sluice_connection_age_seconds' "$LAB_DIR/metrics" || fail "no sluice_connection_age_seconds"
if grep -v '^#' "$LAB_DIR/metrics" | grep -q "$CLIENT_IP"; then fail "a client's address in a label"; fi

assert_eq healthz "$(in_ns proxy curl -s -o /dev/null -w '%{http_code}' "http://${HTTP_ADDRS[main]}/healthz")" 200
assert_eq readyz "$(in_ns proxy curl -s -o /dev/null -w '%{http_code}' "http://${HTTP_ADDRS[main]}/readyz")" 200
assert_eq "content type" "$(in_ns proxy curl -s -o /dev/null -w '%{content_type}' "http://${HTTP_ADDRS[main]}/metrics" | cut -d';' -f1)" text/plain
stop_peer held
