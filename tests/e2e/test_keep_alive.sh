#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# keep_alive: standard ends after idle, extended after six times idle, immortal never.
. "$(dirname "$0")/../lib/netlab.sh"

server h echo 8001
server e echo 8002
start_sluice "defaults: { timeouts: { idle: 300ms } }
routes:
$(route standard 8081 "\"$BACKEND_IP:8001\"" 'keep_alive: standard')
$(route extended 8082 "\"$BACKEND_IP:8001\"" 'keep_alive: extended')
$(route immortal 8083 "\"$BACKEND_IP:8002\"" 'keep_alive: immortal')
$(route default 8084 "\"$BACKEND_IP:8001\"")"
baseline

client_bg extended shot to=$PROXY_IP:8082 timeout=20
client_bg immortal hold to=$PROXY_IP:8083 n=3 ping=1 timeout=20
for name in standard:8081 default:8084; do
	timely 0 400 to=$PROXY_IP:"${name#*:}"
	assert_eq "$name: the client's end" "$(of end)" eof
	assert_ended "${name%:*}" $SHOTS inactivity inactivity
	# by the daemon's clock: the client's starts when its connect returns
	assert_between "$name: s" "$(access "${name%:*}" duration | tr -d s)" 0.299 "$(awk -v s="$SLOW" 'BEGIN { print 0.6 * s }')"
done
join_shot extended
wait_log "route extended: .* is silent, closing it in"
assert_eq "extended: the client's end" "$(of end)" eof
assert_between "extended: after ms" "$(of end_ms)" 0 $((3000 * SLOW))
assert_ended extended 1 inactivity inactivity
assert_between "extended: s" "$(access extended duration | tr -d s)" 1.799 "$(awk -v s="$SLOW" 'BEGIN { print 3 * s }')"
assert_eq "immortal: still open after six times idle" "$(jqs .connections.active)" 3
sleep 0.6 # two more idle times, in which immortal must not end
assert_eq "immortal: still open" "$(jqs .connections.active)" 3
stop_peer immortal
assert_eq "immortal: client" "$RC" 0
assert_back_to_baseline
