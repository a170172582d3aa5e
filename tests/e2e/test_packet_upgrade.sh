#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# `sluice upgrade` while the kernel carries gigabytes: nothing stops, nothing is lost, the programs are
# replaced without a gap, and everything has its name afterwards.
# shellcheck disable=SC2034
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_packet
need_split
UPGRADES=${UPGRADES:-3}

mkdir "$LAB_DIR/bin"
cp "$SLUICED" "$LAB_DIR/bin/sluiced"
chmod 755 "$LAB_DIR/bin"
server l long 8000 stall=$((4000 * SLOW))
server e echo 8001
server v verify 8002 stall=$((4000 * SLOW))
SLUICED=$LAB_DIR/bin/sluiced start_packet "" "defaults: { timeouts: { drain: 60s } }
routes:
$(proute long 8080 "\"$BACKEND_IP:8000\"")
$(proute held 8081 "\"$BACKEND_IP:8001\"")
$(proute v 8082 "\"$BACKEND_IP:8002\"")"
mark_rst
client_bg long long to=$PROXY_IP:8080 c=2 t=600 rate=${RATE:-100000000} stall=$((4000 * SLOW)) timeout=120
client_bg held hold to=$PROXY_IP:8081 n=20 ping=1 timeout=120
wait_for has_output held
wait_engine held
wait_engine long
clients=$(sl conns --route held --json | jq -c '[.[].client] | sort')
client_bg load verify to=$PROXY_IP:8082 n=${LOAD:-400} c=8 max=300000 shapes=all rest=50 timeout=120 stall=$((4000 * SLOW))

for ((i = 1; i <= UPGRADES; i++)); do
	programs=$(in_ns proxy /usr/bin/python3 tests/lib/hooks.py cli)
	sl upgrade >"$LAB_DIR/upgrade.out" 2>&1 || fail "upgrade $i: $(cat "$LAB_DIR/upgrade.out")"
	wait_for is_running
	wait_until 5000 eval '[ "$(sl conns --route held --json | jq -c "[.[].client] | sort")" = "$clients" ]' ||
		fail "upgrade $i: held ones: $(sl conns --route held --json | jq length) $(engine_of held)"
	assert_eq "engine after upgrade $i" "$(engine_of held)" packet
	wait_until 10000 long_moved long $((i * 20)) || fail "upgrade $i: the transfer does not go on"
	attached cli || fail "upgrade $i: no program on cli"
	if [ "$(in_ns proxy /usr/bin/python3 tests/lib/hooks.py cli)" = "$programs" ]; then fail "upgrade $i: the programs were not replaced"; fi
	echo "upgrade $i: $(jqs .kernel.adopted) adopted; programs: $(in_ns proxy /usr/bin/python3 tests/lib/hooks.py cli)"
done
join_peer load
echo "$RESULT"
assert_eq "transfers during the upgrades: $(cat "$LAB_DIR/load.out.err" "$LAB_DIR/v.out.err")" "$RC" 0
stop_peer long
echo "$RESULT"
assert_eq "the long transfer: $(cat "$LAB_DIR/long.out.err")" "$RC" 0
assert_between "longest gap, ms" "$(jq .max_gap_ms <<<"$RESULT")" 0 $((1000 * SLOW))

say "after all that, a kill still works"
id=$(sl conns --route held --json | jq '.[0].id')
sl kill "$id"
wait_until 1000 eval '[ "$(server_field e errors)" = 1 ]' || fail "the backend saw no reset"
stop_peer held || true
assert_eq "held: lost, reset" "$(jq -c '[.held, .lost, .reset]' <<<"$RESULT")" "[20,1,1]"
assert_no_flow_rst "upgrades" # and the relay's, for what is sent again after a close
wait_until 3000 no_live_flows || fail "live entries left"
verified v "${LOAD:-400}"
kill -TERM "$(jqs .pid)"
wait_until 10000 eval '[ -z "$(ip netns pids "$LAB-p")" ]' || fail "left: $(ip netns pids "$LAB-p" | xargs ps -o pid,args -p)"
