#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# bpf_dir changes while sockets are in the sockmap engine's maps: connections on which nothing happens at that
# moment go on with the relay, no one stands still, and those that come later are joined in the new place.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/sockmaplab.sh"
need_sockmap

server e echo 8001
routes="routes:
$(proute web 8081 "\"$BACKEND_IP:8001\"")"
old=$(bpf_of)
mkdir -p "$old.new"
mount -t bpf bpf "$old.new" # before there is a daemon, which has mounts of its own
start_sockmap "" "$routes"
client_bg quiet trickle to=$PROXY_IP:8081 c=4 ms=300 timeout=300
held() { client_bg "$1" hold to=$PROXY_IP:8081 n=5 ping=1 timeout=300; }
held before
wait_for has_output before
joined() { [ "$(sl conns --json | jq '[.[] | select(.engine == "sockmap")] | length')" -ge "$1" ]; }
wait_for joined 9
pins_of() { find "$1" -name 'sockmap_*' | wc -l; }
assert_eq "what is pinned" "$(pins_of "$old")" 9

say "another directory"
sed "s|bpf_dir: $old|bpf_dir: $old.new|" "$LAB_DIR/$INST/sluice.yaml" >"$LAB_DIR/$INST/sluice.yaml.new"
mv "$LAB_DIR/$INST/sluice.yaml.new" "$LAB_DIR/$INST/sluice.yaml"
sl reload
is_there() { [ "$(pins_of "$old.new")" = 9 ]; }
wait_until 8000 is_there || fail "nothing is pinned in the new place"
assert_eq "what is left in the old one" "$(pins_of "$old")" 0
moved() { [ "$(sl conns --json | jq '[.[] | select(.engine == "relay" and .engine_reason == "taken_out")] | length')" = 9 ]; }
wait_until 3000 moved || fail "who carries them: $(sl conns --json | jq -c '[.[] | [.engine, .engine_reason]]')"

say "the old ones go on, new ones are joined"
wait_until 8000 sockmap_is_on || fail "the engine is not on"
held after
wait_for has_output after
wait_for joined 5
stop_peer quiet
assert_eq "those that talk: $RESULT" "$RC" 0
for who in before after; do
	stop_peer $who
	assert_eq "$who: $RESULT" "$RC" 0
done
stop_sluice
assert_eq "exit code" "$RC" 0
assert_eq "what is pinned after a clean end" "$(pins_of "$old.new")" 0
umount "$old.new"
