#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Started without any right: what is missing is said, high ports are served.
. "$(dirname "$0")/../lib/netlab.sh"
need setpriv

server e echo 8000
server v verify 8001
mkdir -p "$LAB_DIR/main"
chown nobody "$LAB_DIR" "$LAB_DIR/main"
mkdir -p "$LAB_DIR/main/run" "$LAB_DIR/main/state" "$LAB_DIR/main/bpf"
chown nobody "$LAB_DIR"/main/*
cp "$SLUICED" "$LAB_DIR/sluiced" # where the account may read it
chmod 755 "$LAB_DIR/sluiced"
SLUICED=$LAB_DIR/sluiced WRAP="setpriv --reuid=nobody --regid=nogroup --clear-groups --bounding-set=-all --inh-caps=-all" \
	start_sluice "routes:
$(route main 8080 "\"$BACKEND_IP:8000\"")
$(route v 8081 "\"$BACKEND_IP:8001\"")
$(route range '"20000-20099"' "\"$BACKEND_IP:8000\"")"
baseline
assert_eq "user" "$(stat -c %U "/proc/$SLUICE_PID")" nobody
shot to=$PROXY_IP:8080 send=x fin=1
assert_eq "served" "$(of end) $(of text)" "eof x"
shot to=$PROXY_IP:20050 send=y fin=1
assert_eq "a port of a range, by plain sockets" "$(of end) $(of text)" "eof y"
client verify to=$PROXY_IP:8081 n=50 c=5 timeout=20
reload
assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
