#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# No descriptors left: established flows go on, nothing spins, and it recovers by itself.
. "$(dirname "$0")/../lib/netlab.sh"
need prlimit

server e echo 8000
start_sluice "routes:
$(route main 8080 "\"$BACKEND_IP:8000\"" 'timeouts: { connect: 5s }')"
baseline
pid=$(proxy_pid)
limits=$(prlimit --pid "$pid" --nofile --noheadings --output SOFT,HARD | xargs | tr ' ' :)
client_bg long trickle to=$PROXY_IP:8080 ms=20 c=5 timeout=60
wait_for eval '[ "$(jqs .connections.active)" = 5 ]'

prlimit --pid "$pid" --nofile=$(($(n_fds "$pid") + 20)):
say "60 clients want to come"
client_bg many hold to=$PROXY_IP:8080 n=60 c=60 ping=1 timeout=60
out_of_fds() { [ "$(n_fds "$pid")" -ge $((BASE_FDS + 20)) ]; }
wait_for out_of_fds
cpu=$(cpu_ms "$pid")
sleep 2 # the time over which a full table must not spin
assert_between "CPU ms in 2 s without descriptors" $(($(cpu_ms "$pid") - cpu)) 0 $((400 * SLOW))
wait_log 'EMFILE|descriptors|Too many open files'

say "descriptors are back: everyone is served"
prlimit --pid "$pid" --nofile="$limits"
wait_for has_output many
RESULT=$(head -n 1 "$LAB_DIR/many.out")
echo "$RESULT"
shot to=$PROXY_IP:8080 send=x fin=1
assert_eq "a new one" "$(of end) $(of text)" "eof x"
stop_peer long
assert_eq "established flows: $RESULT" "$RC" 0
stop_peer many || true
assert_back_to_baseline
