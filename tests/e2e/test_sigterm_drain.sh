#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# SIGTERM: transfers in flight complete, silent connections are closed one by one, exit 0.
. "$(dirname "$0")/../lib/netlab.sh"

server answer answer 8001 ms=800 text=late
server e echo 8002
text="defaults: { timeouts: { drain: 2s } }
routes:
$(route answer 8081 "\"$BACKEND_IP:8001\"")
$(route idle 8082 "\"$BACKEND_IP:8002\"")"
start_sluice "$text"

say "a drain with an answer on its way and 20 silent connections"
client_bg slow shot to=$PROXY_IP:8081 send=x timeout=20
client_bg idle hold to=$PROXY_IP:8082 n=20 ping=1 timeout=20
client_bg busy trickle to=$PROXY_IP:8082 ms=20 timeout=20
wait_for has_output idle
wait_for eval '[ "$(jqs .connections.active)" = 22 ]'
kill -TERM "$SLUICE_PID"
began=$(now_ms)
refused() {
	shot to=$PROXY_IP:8082 close_ms=20
	[ "$(of connect)" = refused ]
}
wait_until 1000 refused || fail "still accepts after SIGTERM"
join_shot slow
assert_eq "the answer in flight" "$(of end) $(of text)" "eof late"
join_sluice
assert_eq "exit code" "$RC" 0
assert_between "drain ms" $(($(now_ms) - began)) 1500 $((4000 * SLOW))
wait_access answer
assert_eq "answer" "$(access answer client_reason) $(access answer backend_reason)" "normal normal"

say "silent ones were closed early and apart from each other, the busy one at the end"
assert_eq "reasons" "$(access_lines idle | grep -o 'client_reason=.*' | sort | uniq -c | xargs)" \
	"20 client_reason=drained backend_reason=drained 1 client_reason=shutdown backend_reason=shutdown"
different=$(access_lines idle | grep -o 'duration=[0-9.]*' | cut -c1-12 | sort -u | wc -l)
assert_between "different moments" "$different" 5 21
stop_peer idle || true
stop_peer busy || true

say "a drain that a reload has made shorter, also of a route that is gone"
start_sluice "defaults: { timeouts: { drain: 30s } }
routes:
$(route idle 8082 "\"$BACKEND_IP:8002\"")
$(route gone 8083 "\"$BACKEND_IP:8002\"")"
idle=$(n_access idle)
client_bg busy trickle to=$PROXY_IP:8082 c=3 ms=20 timeout=60
client_bg gone trickle to=$PROXY_IP:8083 c=3 ms=20 timeout=60
wait_for eval '[ "$(jqs .connections.active)" = 6 ]'
reload "$text"
began=$(now_ms)
stop_sluice
assert_eq "exit code" "$RC" 0
assert_between "drain ms" $(($(now_ms) - began)) 1500 $((4000 * SLOW))
assert_eq "access lines" "$(($(n_access idle) - idle)) $(n_access gone)" "3 3"
stop_peer busy || true
stop_peer gone || true

say "nothing to wait for: ends at once"
start_sluice "$text"
began=$(now_ms)
stop_sluice
assert_eq "exit code" "$RC" 0
assert_between "ms" $(($(now_ms) - began)) 0 $((1400 * SLOW))

say "a second SIGTERM ends at once"
start_sluice "${text/drain: 2s/drain: 30s}"
client_bg idle2 hold to=$PROXY_IP:8082 n=5 ping=1 timeout=20
wait_for has_output idle2
kill -TERM "$SLUICE_PID"
wait_until 1000 refused || fail "still accepts after SIGTERM"
began=$(now_ms)
kill -TERM "$SLUICE_PID"
join_sluice
assert_between "ms" $(($(now_ms) - began)) 0 $((5000 * SLOW))
