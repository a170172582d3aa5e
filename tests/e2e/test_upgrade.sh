#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# `sluice upgrade` under load: no failed connection; a new binary that does not become ready
# changes nothing.
. "$(dirname "$0")/../lib/netlab.sh"
need_split
UPGRADES=${UPGRADES:-4}

mkdir "$LAB_DIR/bin"
cp "$SLUICED" "$LAB_DIR/bin/sluiced"
chmod 755 "$LAB_DIR/bin"
server http http 8000 size=2000
server e echo 8001
SLUICED=$LAB_DIR/bin/sluiced start_sluice "defaults: { timeouts: { drain: 60s } }
routes:
$(route web 8080 "\"$BACKEND_IP:8000\"")
$(route long 8081 "\"$BACKEND_IP:8001\"")
$(route range '"20000-20999"' "\"$BACKEND_IP:8001\"")"
ino=$(inodes 8080)

client_bg load rate to=$PROXY_IP:8080 t=300 c=8 pause=10 expect=2000 timeout=400 v=1
client_bg long trickle to=$PROXY_IP:8081 ms=20 timeout=400
wait_for eval '[ "$(jqs .connections.active)" -ge 1 ]'
for ((i = 1; i <= UPGRADES; i++)); do
	sl upgrade >"$LAB_DIR/upgrade.out" 2>&1 || fail "upgrade $i: $(cat "$LAB_DIR/upgrade.out")"
	wait_for is_running
	shot to=$PROXY_IP:8081 send=x fin=1
	assert_eq "served after upgrade $i" "$(of end) $(of text)" "eof x"
	shot to=$PROXY_IP:20500 send=y fin=1
	assert_eq "a port of a range after upgrade $i" "$(of end) $(of text)" "eof y"
	assert_eq "listening sockets after upgrade $i" "$(inodes 8080)" "$ino"
done

say "a new binary that ends at once, one that is killed, and (slow) one that hangs"
pid=$(jqs .pid)
scripts=('exit 1' 'kill -KILL $$')
if [ "$UPGRADES" -gt 10 ]; then scripts+=('exec sleep 60'); fi
for script in "${scripts[@]}"; do
	printf '#!/bin/sh\n%s\n' "$script" >"$LAB_DIR/bin/new"
	chmod 755 "$LAB_DIR/bin/new"
	mv "$LAB_DIR/bin/new" "$LAB_DIR/bin/sluiced"
	rc=0
	sl upgrade >"$LAB_DIR/upgrade.out" 2>&1 || rc=$?
	if [ $rc = 0 ]; then fail "an upgrade to '$script' was reported good"; fi
	cat "$LAB_DIR/upgrade.out"
	assert_eq "same daemon" "$(jqs '"\(.pid) \(.state)"')" "$pid running"
	shot to=$PROXY_IP:8081 send=x fin=1
	assert_eq "served after the failed upgrade" "$(of end) $(of text)" "eof x"
done

stop_peer load
echo "$RESULT"
assert_eq "failed connections: $RESULT" "$RC" 0
assert_between "connections made" "$(jq .ok <<<"$RESULT")" 100 10000000
stop_peer long
assert_eq "the long connection: $RESULT" "$RC" 0
kill -TERM "$(jqs .pid)"
wait_until 5000 eval '[ -z "$(ip netns pids "$LAB-p")" ]' || fail "left: $(ip netns pids "$LAB-p" | xargs ps -o pid,args -p)"
assert_eq "sockets left" "$(n_sockets)" 0
