#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 20 reloads under load: no failed connection, long ones alive, listeners untouched.
. "$(dirname "$0")/../lib/netlab.sh"

server http http 8000 size=2000
server e echo 8001
base="routes:
$(route web 8080 "\"$BACKEND_IP:8000\"")
$(route long 8081 "\"$BACKEND_IP:8001\"")"
start_sluice "$base"
ino=$(inodes 8080)

client_bg long trickle to=$PROXY_IP:8081 ms=10 c=3 timeout=60
client_bg load rate to=$PROXY_IP:8080 t=30 c=8 pause=10 expect=2000 timeout=60 v=1
generation=$(jqs .generation)
supervisor_fds=$(n_fds "$SLUICE_PID")
for i in {1..10}; do
	reload "$base
$(route extra 8090 "\"$BACKEND_IP:8001\"")"
	shot to=$PROXY_IP:8090 send=x fin=1
	assert_eq "added route, round $i" "$(of end) $(of text)" "eof x"
	reload "$base"
	shot to=$PROXY_IP:8090
	assert_eq "removed route, round $i" "$(of connect)" refused
done
assert_eq "generation" "$(jqs .generation)" $((generation + 20))
if [ -z "${SLUICE_SINGLE:-}" ]; then # whose descriptors are connections, too
	assert_eq "descriptors of the supervisor" "$(n_fds "$SLUICE_PID")" "$supervisor_fds"
fi
assert_eq "the unchanged listeners" "$(inodes 8080)" "$ino"

say "by SIGHUP too"
write_conf "$base
$(route extra 8090 "\"$BACKEND_IP:8001\"")"
kill -HUP "$SLUICE_PID"
serves() { shot to=$PROXY_IP:8090 send=x fin=1 && [ "$(of text)" = x ]; }
wait_for serves

say "a bad file keeps the old configuration"
generation=$(jqs .generation)
write_conf "routes:
  - { name: web, match: { ports: 99999 }, forward: \"x\" }"
rc=0
sl reload >"$LAB_DIR/bad" 2>&1 || rc=$?
if [ $rc = 0 ]; then fail "a bad file was accepted"; fi
assert_match "message" "$(cat "$LAB_DIR/bad")" "sluice.yaml:[0-9]+:[0-9]+: "
assert_eq "generation" "$(jqs .generation)" "$generation"
kill -HUP "$SLUICE_PID"
wait_for has_log 'sluice.yaml:[0-9]+:[0-9]+: error'
wait_for serves
assert_match "metric" "$(http_get /metrics | grep ^sluice_config_last_reload_successful)" ' 0$'

say "a target changes: new connections go there, old ones stay"
server other banner 8002 text=other
write_conf "$base"
reload "routes:
$(route web 8080 "\"$BACKEND_IP:8000\"")
$(route long 8081 "\"$BACKEND_IP:8002\"")"
dialog client to=$PROXY_IP:8081 expect:other fin eof

stop_peer load
echo "$RESULT"
assert_eq "failed connections: $RESULT" "$RC" 0
assert_between "connections made" "$(jq .ok <<<"$RESULT")" 100 1000000
stop_peer long
assert_eq "long connections: $RESULT" "$RC" 0
