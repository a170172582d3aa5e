#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Three instances in a row: client - 8001 - 8002 - 8003 - backend. Nothing accumulates.
. "$(dirname "$0")/../lib/netlab.sh"

server v verify 8000
server e echo 8100
more() { echo "
$(route echo $(($1 + 100)) "$2")
$(route dead $(($1 + 200)) "$3" 'timeouts: { connect: 1s }')"; }
INST=third start_sluice "routes:
$(route main 8003 "\"$BACKEND_IP:8000\"")$(more 8003 "\"$BACKEND_IP:8100\"" '"10.255.255.1:80"')"
INST=second start_sluice "routes:
$(route main 8002 '"127.0.0.1:8003"')$(more 8002 '"127.0.0.1:8103"' '"127.0.0.1:8203"')"
INST=first start_sluice "routes:
$(route main 8001 '"127.0.0.1:8002"')$(more 8001 '"127.0.0.1:8102"' '"127.0.0.1:8202"')"

all_idle() {
	local i
	for i in first second third; do
		[ "$(INST=$i jqs .connections.active)" = 0 ] || return 1
	done
}
before=$(n_sockets)
settled() { all_idle && [ "$(n_sockets)" -le "$before" ]; }

say "300 checked transfers through three proxies"
client verify to=$PROXY_IP:8001 n=300 c=20 max=1000000 timeout=30
wait_until 2000 settled || fail "not idle after the transfers"

say "clients that leave without a byte, or by reset"
client churn to=$PROXY_IP:8101 n=300 c=30 phase=0,1,2 timeout=20
wait_until 2000 settled || fail "not idle after the churn"

say "backend unreachable at the end of the chain: 20 retries, nothing stays"
for i in {1..20}; do
	shot to=$PROXY_IP:8201
	assert_eq "end $i" "$(of end)" reset
done
wait_until 2000 settled || fail "not idle after the retries"
assert_eq "last instance" "$(INST=third access dead backend_reason)" enetunreach
assert_eq "first instance" "$(INST=first access dead backend_reason)" econnreset

say "the middle one restarts"
client_bg held hold to=$PROXY_IP:8101 n=20 ping=1 timeout=30
wait_for has_output held
instance second
kill -KILL "${SLUICE_PIDS[second]}"
join_sluice
INST=second start_sluice "routes:
$(route main 8002 '"127.0.0.1:8003"')"
wait_until 2000 all_idle || fail "connections outlive the middle proxy"
client verify to=$PROXY_IP:8001 n=20 c=5 max=100000 timeout=20
