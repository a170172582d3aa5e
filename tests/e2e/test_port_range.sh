#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A small range of ports, and one of 5000 that must not cost 5000 sockets.
. "$(dirname "$0")/../lib/netlab.sh"

server small identify 8000
server big identify 20000,22500,24999,21000
start_sluice "routes:
$(route small '"9000-9004"' "\"$BACKEND_IP:8000\"")
  - name: big
    match: { ports: \"20000-24999\" }
    forward: { targets: [ { address: \"$BACKEND_IP:1\" } ], port: preserve }
$(route hole '[9100, "9110-9111"]' "\"$BACKEND_IP:8000\"")"
baseline

reaches() { # PORT PATTERN
	shot to="${2:-$PROXY_IP}:$1"
	assert_eq "port $1 ends" "$(of end)" eof
	of text
}
say "a small range"
for port in 9000 9002 9004 9100 9110 9111; do
	assert_match "port $port" "$(reaches $port)" "^small .* $BACKEND_IP:8000"
done
for port in 8999 9005 9101 9109 9112; do
	shot to=$PROXY_IP:$port
	assert_eq "port $port" "$(of connect)" refused
done

say "5000 ports, the port is kept"
for port in 20000 21000 22500 24999; do
	assert_match "port $port" "$(reaches $port)" "^big .* $BACKEND_IP:$port"
	assert_match "port $port over IPv6" "$(reaches $port "[$PROXY6]")" "^big .* $BACKEND_IP:$port"
done
for port in 19999 25000; do
	shot to=$PROXY_IP:$port
	assert_eq "port $port" "$(of connect)" refused
done
listeners=$(in_ns proxy ss -Hltn | wc -l)
echo "listening sockets: $listeners"
if has_log 'sk_lookup' || [ "$(jqs '.. | strings' | grep -c sk_lookup)" != 0 ]; then
	assert_between "listening sockets" "$listeners" 3 100
fi

say "load over the range"
to=()
for port in 20000 21000 22500 24999; do to+=("to=$PROXY_IP:$port"); done
client rate "${to[@]}" t=2 c=8 expect=10 timeout=10 pause=5
assert_back_to_baseline

say "a change that cannot be kept changes nothing, the steered range included"
mkdir "$LAB_DIR/main/state/changes.new" # where the file would be written
status=0
sl routes remove big --keep >/dev/null 2>&1 || status=$?
assert_eq "removing the range" "$status" 1
for port in 20000 22500; do
	assert_match "port $port" "$(reaches $port)" "^big .* $BACKEND_IP:$port"
done
rmdir "$LAB_DIR/main/state/changes.new"
sl routes remove big --keep >/dev/null
assert_eq "without ranges" "$(jqs .steering)" "not needed"
shot to=$PROXY_IP:22500
assert_eq "port 22500" "$(of connect)" refused
sl routes forget >/dev/null
assert_match "port 22500 again" "$(reaches 22500)" "^big .* $BACKEND_IP:22500"
assert_back_to_baseline
