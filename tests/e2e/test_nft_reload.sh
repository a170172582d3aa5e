#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# When a reload has answered the kernel's rules are those of the configuration, or the answer says why
# not; also where the packet engine cannot be on. The broker is another one only if that helps.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"
need_split

nat_up
bpf=$LAB_DIR/$INST/bpf
mkdir -p "$bpf"
if mountpoint -q "$bpf"; then umount "$bpf"; fi
server s1 identify 8001
server s2 identify 8002
conf() { # NUMBER of the target, MORE
	echo "routes:
$(nroute web 8080 "\"$BACKEND_IP:800$1\"")
${2:-}"
}
broker() { jqs .processes.broker; }
packet_is_off() { [ "$(jqs .packet.available)" = false ] && [[ $(jqs .packet.reason) == *'bpf file system'* ]]; }
packet_is_on() { [ "$(jqs .packet.available)" = true ]; }
start_sluice "routes:
$(route relay 8081 "\"$BACKEND_IP:8001\"")"
wait_for packet_is_off
first=$(broker)

say "the first route needs another broker, and the reload waits for it"
reload "$(conf 1)"
reaches $PROXY_IP:8080 s1 || fail "$SHOT"
wait_until 8000 nat_is_on || fail "off: $(nat_text)"
if [ "$(broker)" = "$first" ]; then fail "no other broker"; fi
first=$(broker)

say "the rules are there when a reload is over, of the same broker"
for ((i = 1; i <= ${RELOADS:-20}; i++)); do
	reload "$(conf $((1 + i % 2)))"
	reaches $PROXY_IP:8080 "s$((1 + i % 2))" || fail "reload $i: $SHOT"
done
assert_eq "the broker" "$(broker)" "$first"

say "the last route goes and comes back"
reload "routes:
$(route relay 8081 "\"$BACKEND_IP:8001\"")"
no_table || wait_until 8000 no_table || fail "a table is left"
refused $PROXY_IP:8080 || fail "$SHOT"
reload "$(conf 2)"
reaches $PROXY_IP:8080 s2 || fail "$SHOT"

say "a reload that the kernel cannot follow says so, and what it wanted comes when it can"
reload "routes:
$(route relay 8081 "\"$BACKEND_IP:8001\"")"
wait_until 8000 no_table || fail "a table is left"
in_ns proxy nft add table inet sluice
reload "$(conf 1)"
assert_match "the answer" "$(cat "$LAB_DIR/reload.out")" 'warning: nftables: .*table inet sluice is there and not of this program'
assert_match "and what else it says" "$(cat "$LAB_DIR/reload.out")" 'generation [0-9]+ is in force'
first=$(broker)
reload
assert_match "the next one" "$(cat "$LAB_DIR/reload.out")" 'warning: nftables: .*not of this program'
assert_eq "the broker" "$(broker)" "$first"
in_ns proxy nft delete table inet sluice
wait_until 8000 nat_is_on || fail "off: $(nat_text)"
reload
if grep warning "$LAB_DIR/reload.out"; then fail "still a warning"; fi
reaches $PROXY_IP:8080 s1 || fail "$SHOT"

say "the broker dies; a reload right behind that waits for the next one"
kill -KILL "$(broker)"
reload "$(conf 1)"
reaches $PROXY_IP:8080 s1 || fail "$SHOT"


say "what the packet engine lacked is there: a reload is enough"
first=$(broker)
mkdir -p "$bpf"
nsenter -t "$SLUICE_PID" -m -r mount -t bpf bpf "$bpf" # its mounts are its own since `ip netns exec`
reload "$(conf 2)"
reaches $PROXY_IP:8080 s2 || fail "$SHOT"
wait_until 8000 packet_is_on || fail "packet: $(jqs .packet.reason)"
if [ "$(broker)" = "$first" ]; then fail "no other broker"; fi
first=$(broker)
for ((i = 1; i <= 5; i++)); do
	reload "$(conf $((1 + i % 2)))"
	reaches $PROXY_IP:8080 "s$((1 + i % 2))" || fail "reload $i: $SHOT"
done
assert_eq "the broker" "$(broker)" "$first"
stop_sluice
assert_eq "exit code" "$RC" 0
no_table || fail "a table is left"

say "without the right to change rules a reload says so, of the same broker"
instance barred
WRAP="setpriv --bounding-set=-net_admin --inh-caps=-net_admin" start_sluice "$(conf 1)"
wait_for nat_is_off
wait_until 8000 eval '[[ $(nat_text) == *CAP_NET_ADMIN* ]]' || fail "$(nat_text)"
first=$(broker)
reload "$(conf 2)"
assert_match "the answer" "$(cat "$LAB_DIR/reload.out")" 'warning: nftables: .*CAP_NET_ADMIN'
assert_eq "the broker" "$(broker)" "$first"
reload "routes:
$(route relay 8081 "\"$BACKEND_IP:8001\"")"
if grep warning "$LAB_DIR/reload.out"; then fail "a warning of nothing"; fi
stop_sluice
