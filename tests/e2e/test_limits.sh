#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Limits: for all, per route, per address, rate per address, and the circuit breaker.
. "$(dirname "$0")/../lib/netlab.sh"

server e echo 8000
active_is() { [ "$(jqs .connections.active)" = "$1" ]; }

# held PORT N WANT [ARGUMENT...]: N connections at once, WANT of them get through, the rest a reset.
held() {
	local port=$1 n=$2 want=$3
	shift 3
	client_bg h hold to=$PROXY_IP:"$port" n="$n" ping=1 timeout=20 "$@"
	wait_for has_output h
	assert_eq "held on $port" "$(head -n 1 "$LAB_DIR/h.out" | jq .held)" "$want"
	assert_eq "reset on $port" "$(head -n 1 "$LAB_DIR/h.out" | jq .reset)" $((n - want))
	assert_eq "active" "$(jqs .connections.active)" "$want"
}
release() {
	kill -TERM "${PEER_PIDS[h]}"
	wait "${PEER_PIDS[h]}" || true
	rm -f "$LAB_DIR/h.out"
	assert_back_to_baseline
}

GLOBAL="  max_connections: 40
  overload: { refuse_above: 100%, resume_below: 90% }" start_sluice "routes:
$(route all 8080 "\"$BACKEND_IP:8000\"")
$(route route 8081 "\"$BACKEND_IP:8000\"" 'security: { max_connections: 10 }')
$(route ip 8082 "\"$BACKEND_IP:8000\"" 'security: { max_connections_per_ip: 3 }')
$(route rate 8083 "\"$BACKEND_IP:8000\"" 'security: { new_connections_per_ip: 5/s }')"
baseline

say "per route"
held 8081 25 10
assert_eq "rejected" "$(n_rejected limit_route)" 15
assert_match "access line" "$(grep -a 'route=route .*client_reason=limit_route' "$(log_file)" | head -n 1)" \
	' backend=- .* client_reason=limit_route backend_reason=-$'
release
say "and again after they have gone"
held 8081 12 10
release

say "per address: three each"
held 8082 10 3
release
held 8082 12 12 src=10.91.128.1,10.91.128.2,10.91.128.3,10.91.128.4
release
assert_eq "rejected" "$(n_rejected limit_ip)" 7

say "rate per address"
held 8083 20 5 c=20
release
assert_eq "rejected" "$(n_rejected rate_ip)" 15
say "another address has its own"
held 8083 5 5 src=10.91.128.9
release

say "for all"
held 8080 60 40
release
assert_eq "limit for all" "$(n_rejected limit_global)" 20
assert_eq "status counts them" "$(jqs .connections.rejected)" $((17 + 7 + 15 + 20))

say "circuit breaker: refuses from 80 %, serves again only below 50 %"
GLOBAL="  max_connections: 20
  overload: { refuse_above: 80%, resume_below: 50% }" reload "routes:
$(route all 8080 "\"$BACKEND_IP:8000\"")"
client_bg b1 hold to=$PROXY_IP:8080 n=8 ping=1 timeout=20
wait_for has_output b1
client_bg b2 hold to=$PROXY_IP:8080 n=4 ping=1 timeout=20
wait_for has_output b2
client_bg b3 hold to=$PROXY_IP:8080 n=8 ping=1 timeout=20
wait_for has_output b3
open=$(jqs .connections.active)
assert_between "open when the breaker opened" "$open" 16 17
rc=0
sl status >/dev/null || rc=$?
assert_eq "status says degraded" $rc 4
kill -TERM "${PEER_PIDS[b2]}"
wait_for active_is $((open - 4))
shot to=$PROXY_IP:8080 send=x stop=1
assert_eq "between the marks: refused" "$(of end)" reset
kill -TERM "${PEER_PIDS[b3]}"
wait_for active_is 8
shot to=$PROXY_IP:8080 send=x stop=1
assert_eq "below both marks: served" "$(of end)" stopped
assert_between "overload rejections" "$(n_rejected overload)" 4 30
