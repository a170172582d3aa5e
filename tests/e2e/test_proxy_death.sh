#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The process that carries connections is killed under load: only what it carried is lost, no
# connection is refused or times out, new ones are served within 100 ms.
. "$(dirname "$0")/../lib/netlab.sh"
need_split
KILLS=${KILLS:-4}
APART=${APART:-0} # seconds; more than five deaths in ten seconds are held back by design

server http http 8000 size=2000 ms=20
server e echo 8001
start_sluice "routes:
$(route web 8080 "\"$BACKEND_IP:8000\"")
$(route echo 8081 "\"$BACKEND_IP:8001\"")
$(route range '"20000-20999"' "\"$BACKEND_IP:8001\"")"
new_proxy() { pid=$(proxy_pid) && [ -n "$pid" ] && [ "$pid" != "$old" ]; }

client_bg load rate to=$PROXY_IP:8080 t=300 c=8 expect=2000 timeout=400
for ((i = 1; i <= KILLS; i++)); do
	old=$(proxy_pid)
	began=$(now_ms)
	kill -KILL "$old"
	shot to=$PROXY_IP:8081 send=x fin=1
	# the one that reached the dying process's queue may be lost; the next may not
	if [ "$(of end)" != eof ]; then shot to=$PROXY_IP:8081 send=x fin=1; fi
	took=$(($(now_ms) - began))
	assert_eq "round $i" "$(of end) $(of text)" "eof x"
	echo "$took" >>"$LAB_DIR/took"
	stretch >>"$LAB_DIR/stretch"
	wait_for new_proxy
	shot to=$PROXY_IP:20500 send=y fin=1
	assert_eq "a port of a range, round $i" "$(of end) $(of text)" "eof y"
	wait_for is_running
	sleep "$APART"
done
middle() { sort -n "$1" | sed -n "$((($(wc -l <"$1") + 1) / 2))p"; }
echo "served again after ms: $(sort -n "$LAB_DIR/took" | xargs); stretched: $(xargs <"$LAB_DIR/stretch")"
most=$(awk -v s="$(middle "$LAB_DIR/stretch")" -v slow="$SLOW" 'BEGIN { print int(120 * slow * s) }') # client start included
assert_between "served again within ms, half of them" "$(middle "$LAB_DIR/took")" 0 "$most"
assert_between "served again within ms" "$(sort -n "$LAB_DIR/took" | tail -n 1)" 0 $((10 * most))
stop_peer load || true
echo "$RESULT"
assert_eq "refused, timed out" "$(jq -c '[.refused, .timeout, .error]' <<<"$RESULT")" "[0,0,0]"
# all eight are in flight at any moment: each death loses at most those
assert_between "lost connections" "$(jq '.reset + .short' <<<"$RESULT")" 1 $((8 * KILLS))
assert_between "slowest connection, us" "$(jq .max_us <<<"$RESULT")" 0 $((900000 * SLOW)) # a lost SYN comes again after a second
assert_between "connections made" "$(jq .ok <<<"$RESULT")" 100 10000000
assert_eq "supervisor" "$(jqs .pid)" "$SLUICE_PID"
wait_for eval '[ "$(jqs .connections.active)" = 0 ]'
stop_sluice
assert_eq "exit code" "$RC" 0
