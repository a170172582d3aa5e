#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Text and JSON logs, the access line in both, a file of its own and its reopening by SIGUSR1.
. "$(dirname "$0")/../lib/netlab.sh"

server e echo 8000
routes="routes:
$(route main 8080 "\"$BACKEND_IP:8000\"")"

say "JSON: each line is one object"
instance json
GLOBAL="  log: { format: json }" start_sluice "$routes"
broker_has_spoken() { [[ $(jqs .packet.reason) != *"being started" ]]; }
wait_for broker_has_spoken
shot to=$PROXY_IP:8080 send=hello fin=1
is_logged() { grep -q client_reason "$(log_file)"; }
wait_for is_logged
jq -es 'all(type == "object")' "$(log_file)" >/dev/null || fail "not JSON: $(head -n 5 "$(log_file)")"
line=$(grep client_reason "$(log_file)")
for field in id client client_via route engine engine_reason backend sni duration_s connect_ms \
	bytes_up bytes_down client_reason backend_reason; do
	assert_eq "has $field" "$(jq "has(\"$field\")" <<<"$line")" true
done
assert_eq "values" "$(jq -r '"\(.route) \(.engine) \(.engine_reason) \(.backend) \(.bytes_up) \(.bytes_down) \(.client_reason) \(.backend_reason)"' <<<"$line")" \
	"main relay $(jqs .packet.reason_name) $BACKEND_IP:8000 5 5 normal normal"
assert_eq "numbers" "$(jq -r '[.bytes_up, .duration_s, .connect_ms, .id] | map(type) | unique | join(" ")' <<<"$line")" number
stop_sluice

say "access log in a file; SIGUSR1 reopens it"
instance file
GLOBAL="  log: { access: $LAB_DIR/access.log }" start_sluice "$routes"
shot to=$PROXY_IP:8080 send=hello fin=1
lines() { [ "$(grep -c client_reason "$1" 2>/dev/null)" = "$2" ]; }
wait_for lines "$LAB_DIR/access.log" 1
mv "$LAB_DIR/access.log" "$LAB_DIR/access.log.1"
shot to=$PROXY_IP:8080 send=hello fin=1
wait_for lines "$LAB_DIR/access.log.1" 2
kill -USR1 "$SLUICE_PID"
wait_for test -e "$LAB_DIR/access.log"
served_into_new() {
	shot to=$PROXY_IP:8080 send=hello fin=1
	grep -q client_reason "$LAB_DIR/access.log"
}
wait_for served_into_new
assert_eq "access lines on stderr" "$(grep -c client_reason "$(log_file)" || true)" 0
stop_sluice

say "none"
instance none
GLOBAL="  log: { access: none }" start_sluice "$routes"
shot to=$PROXY_IP:8080 send=hello fin=1
wait_for eval '[ "$(jqs .connections.total)" = 1 ] && [ "$(jqs .connections.active)" = 0 ]'
stop_sluice
assert_eq "access lines on stderr" "$(grep -c client_reason "$(log_file)" || true)" 0
assert_eq "exit code" "$RC" 0
