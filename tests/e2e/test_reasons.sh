#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Every reason of this build, provoked: the access line and the counters of each side agree.
. "$(dirname "$0")/../lib/netlab.sh"

T=$BACKEND_IP
ip -n "$LAB-p" route add unreachable 10.99.0.0/16
server e echo 8001
server rst rst 8002
server silent silent 8003
server hold hold 8004
GLOBAL="  max_connections: 50
  overload: { refuse_above: 100%, resume_below: 90% }" start_sluice "defaults: { timeouts: { connect: 300ms, close_grace: 200ms, drain: 600ms } }
routes:
$(route normal 8080 "\"$T:8001\"")
$(route econnrefused 8081 "\"$T:1\"")
$(route ehostunreach 8082 '"10.99.0.1:80"')
$(route enetunreach 8083 '"10.255.255.1:80"')
$(route econnreset 8084 "\"$T:8002\"")
$(route connection_timeout 8085 "\"$T:8003\"")
$(route closed_during_connect 8086 "\"$T:8003\"" 'timeouts: { connect: 5s }')
$(route inactivity 8087 "\"$T:8004\"" 'timeouts: { idle: 200ms }')
$(route max_lifetime 8088 "\"$T:8004\"" 'timeouts: { max_lifetime: 200ms }')
$(route parity_check 8089 "\"$T:8004\"" 'half_open: true, timeouts: { half_closed: 300ms, half_closed_idle: 100ms }')
$(route close_grace 8090 "\"$T:8004\"")
$(route limit_route 8091 "\"$T:8001\"" 'security: { max_connections: 1 }')
$(route limit_ip 8092 "\"$T:8001\"" 'security: { max_connections_per_ip: 1 }')
$(route rate_ip 8093 "\"$T:8001\"" 'security: { new_connections_per_ip: 1/m }')
$(route backend_down 8094 '"nosuch.invalid:80"')
$(route killed 8095 "\"$T:8001\"")
$(route client_rst 8096 "\"$T:8001\"")
$(route drained 8097 "\"$T:8001\"")"

say "ends of one side"
shot to=$PROXY_IP:8080 send=x fin=1
shot to=$PROXY_IP:8081
shot to=$PROXY_IP:8082
shot to=$PROXY_IP:8083
shot to=$PROXY_IP:8084
shot to=$PROXY_IP:8085
shot to=$PROXY_IP:8094
shot to=$PROXY_IP:8096 send=x stop=1
assert_ended normal 1 normal normal
assert_ended econnrefused 1 normal econnrefused
assert_ended ehostunreach 1 normal ehostunreach
assert_ended enetunreach 1 normal enetunreach
assert_ended econnreset 1 normal econnreset
assert_ended connection_timeout 1 normal connection_timeout
assert_ended backend_down 1 backend_down -
assert_ended client_rst 1 econnreset normal

say "ends of the whole connection"
shot to=$PROXY_IP:8087
shot to=$PROXY_IP:8088
shot to=$PROXY_IP:8089 fin=1
shot to=$PROXY_IP:8090 send=x fin=1
shot to=$PROXY_IP:8086 rst_ms=100
client_bg killed hold to=$PROXY_IP:8095 n=1 ping=1 timeout=20
wait_for has_output killed
sl kill --route killed
assert_ended inactivity 1 inactivity inactivity
assert_ended max_lifetime 1 max_lifetime max_lifetime
assert_ended parity_check 1 normal parity_check
assert_ended close_grace 1 normal close_grace
assert_ended killed 1 killed killed
wait_access closed_during_connect
assert_eq "backend of closed_during_connect" "$(access closed_during_connect backend_reason)" closed_during_connect

say "refusals: there is no backend side"
for r in limit_route:8091 limit_ip:8092 rate_ip:8093; do
	name=${r%:*}
	client_bg "$name" hold to=$PROXY_IP:"${r#*:}" n=2 c=1 ping=1 timeout=20
	wait_for has_output "$name"
	assert_ended "$name" 1 "$name" -
	stop_peer "$name" || true
done
client_bg full hold to=$PROXY_IP:8080 n=52 ping=1 timeout=20
wait_for has_output full
is_refused() { grep -aq 'client_reason=limit_global backend_reason=-' "$(log_file)"; }
wait_for is_refused
stop_peer full || true

say "the counters agree with the access lines"
no_active() { [ "$(jqs .connections.active)" = 0 ]; }
wait_for no_active
sl status --json >"$LAB_DIR/status"
for side in client backend; do
	grep -a ' access: ' "$(log_file)" | sed "s/.*${side}_reason=\([^ ]*\).*/\1/" | grep -v '^-$' |
		sort | uniq -c | awk '{ print $2, $1 }' >"$LAB_DIR/lines.$side"
	jq -r ".terminations.$side | to_entries[] | select(.value != 0) | \"\(.key) \(.value)\"" "$LAB_DIR/status" |
		sort >"$LAB_DIR/counted.$side"
	diff "$LAB_DIR/lines.$side" "$LAB_DIR/counted.$side" || fail "$side: access lines (left) and counters (right) differ"
	http_get /metrics | awk -v s="side=\"$side\"" '/^sluice_terminations_total/ && index($0, s) && $NF > 0 {
		r = $0; sub(/.*reason="/, "", r); sub(/".*/, "", r); n[r] += $NF }
		END { for (r in n) print r, n[r] }' | sort >"$LAB_DIR/metric.$side"
	diff "$LAB_DIR/lines.$side" "$LAB_DIR/metric.$side" || fail "$side: access lines (left) and metrics (right) differ"
	cat "$LAB_DIR/lines.$side"
done

say "drained and shutdown"
client_bg drained hold to=$PROXY_IP:8097 n=3 ping=1 timeout=20
client_bg busy trickle to=$PROXY_IP:8097 ms=10 timeout=20
wait_for has_output drained
wait_for eval '[ "$(jqs .connections.active)" = 4 ]'
stop_sluice
assert_eq "exit code" "$RC" 0
assert_eq "reasons" "$(access_lines drained | grep -o 'client_reason=.*' | sort | uniq -c | xargs)" \
	"3 client_reason=drained backend_reason=drained 1 client_reason=shutdown backend_reason=shutdown"
