#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What is in the kernel goes on when the engine is turned off, or an interface is no longer named,
# also under a broker that has never known it otherwise.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_split

routes() { echo "routes:
$(proute long 8080 "\"$BACKEND_IP:8000\"")"; }

server l long 8000 stall=$((4000 * SLOW))
start_packet "" "$(routes)"
client_bg long long to=$PROXY_IP:8080 c=2 t=$((8 * SLOW)) rate=20000000 stall=$((4000 * SLOW)) timeout=300
wait_engine long
sed -i 's/hook: auto/hook: off/; s/engine: packet, *//; s/, engine: packet//' "$LAB_DIR/main/sluice.yaml"
sl reload
sl upgrade
wait_for is_running
wait_until 5000 eval '[ "$(n_on packet)" = 2 ]' || fail "on packet after the upgrade: $(n_on packet)"
attached cli || fail "no program on cli"
attached srv || fail "no program on srv"
join_peer long
echo "$RESULT"
assert_eq "the long transfer: $(cat "$LAB_DIR/long.out.err")" "$RC" 0
stop_sluice
assert_eq "exit code" "$RC" 0
