#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The supervisor is killed: its children end, nothing is left, and a new start works at once.
. "$(dirname "$0")/../lib/netlab.sh"

server e echo 8000
text="routes:
$(route main 8080 "\"$BACKEND_IP:8000\"")
$(route range '"20000-21999"' "\"$BACKEND_IP:8000\"")"
nothing_left() {
	[ -z "$(ip netns pids "$LAB-p")" ] && [ "$(n_sockets)" = 0 ]
}

for round in 1 2 3; do
	start_sluice "$text"
	client_bg "held$round" hold to=$PROXY_IP:8080 n=20 ping=1 timeout=20
	wait_for has_output "held$round"
	kill -KILL "$SLUICE_PID"
	join_sluice
	wait_until 2000 nothing_left || fail "left: $(ip netns pids "$LAB-p" | xargs ps -o pid,args -p) $(n_sockets) sockets"
	stop_peer "held$round" || true
	assert_eq "held connections ended" "$(jq .lost <<<"$RESULT")" 20
done
start_sluice "$text"
shot to=$PROXY_IP:8080 send=x fin=1
assert_eq "served after the restart" "$(of end) $(of text)" "eof x"
stop_sluice
assert_eq "exit code" "$RC" 0
assert_eq "control socket after a clean end" "$(find "$LAB_DIR/main/run" -name control.sock -o -name sluiced.pid)" ""
