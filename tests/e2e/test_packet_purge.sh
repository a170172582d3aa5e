#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# `sluice flows` names what the kernel holds, `sluice flows --flush` ends and removes it all, and
# `sluiced --purge` removes everything that a daemon which is no more has left; nobody else's objects.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_packet

server e echo 8001
text="routes:
$(proute first 8081 "\"$BACKEND_IP:8001\"")
$(proute second 8082 "\"[$BACKEND6]:8001\"")"
reserved() { in_ns proxy sysctl -n net.ipv4.ip_local_reserved_ports; }
in_ns proxy sysctl -qw net.ipv4.ip_local_reserved_ports=8080,45000-45010
start_packet "" "$text"
packet_baseline
purge() { ip netns exec "$LAB-p" "$SLUICED" -c "$LAB_DIR/main/sluice.yaml" --purge >"$LAB_DIR/purge.out" 2>&1; }

say "flows, by name"
client_bg held hold to=$PROXY_IP:8081 to="[$PROXY6]:8082" n=6 ping=1 timeout=60
wait_for has_output held
wait_engine first
wait_engine second
sl flows >"$LAB_DIR/flows.txt" || fail "sluice flows"
sl flows --json >"$LAB_DIR/flows.json" || fail "sluice flows --json"
head -n 8 "$LAB_DIR/flows.txt"
assert_eq "both routes are named" "$(grep -oE 'first|second' "$LAB_DIR/flows.txt" | sort | uniq -c | awk '{ print $2 }' | xargs)" "first second"
assert_match "in JSON" "$(jq -c . "$LAB_DIR/flows.json")" '"first".*"second"|"second".*"first"'
assert_match "the client" "$(cat "$LAB_DIR/flows.txt")" "$CLIENT_IP"
assert_eq "status" "$(jqs .kernel.packet_flows)" 6
assert_eq "entries" "$(n_flows)" 12
assert_eq "no orphans, none missing" "$(jqs '"\(.kernel.orphans) \(.kernel.missing)"')" "0 0"

say "flush: both peers of every flow are reset, nothing is left, the daemon goes on"
sl flows --flush >"$LAB_DIR/flush.out" 2>&1 || fail "flush: $(cat "$LAB_DIR/flush.out")"
cat "$LAB_DIR/flush.out"
wait_until 1000 eval '[ "$(server_field e errors)" = 6 ]' || fail "resets the backend saw: $(server_field e errors)"
wait_until 2000 no_flows || fail "entries left: $(n_flows)"
wait_until 1000 eval '[ "$(jqs .connections.active)" = 0 ]' || fail "active: $(jqs .connections.active)"
stop_peer held || true
assert_eq "held: lost, reset" "$(jq -c '[.lost, .reset]' <<<"$RESULT")" "[6,6]"
client_bg again hold to=$PROXY_IP:8081 n=3 ping=1 timeout=60
wait_for has_output again
wait_engine first

say "purge while the daemon runs is refused, or harmless"
rc=0
purge || rc=$?
echo "exit code $rc: $(head -n 2 "$LAB_DIR/purge.out" | xargs -0)"
shot to=$PROXY_IP:8081 send=x fin=1
assert_eq "served" "$(of end) $(of text)" "eof x"

say "purge after a crash"
kill -KILL "$SLUICE_PID"
join_sluice
wait_until 2000 eval '[ -z "$(ip netns pids "$LAB-p")" ]' || fail "left: $(ip netns pids "$LAB-p")"
stop_peer again || true
assert_match "still there" "$(pinned)" flows
# another's objects, beside ours
in_ns proxy tc qdisc add dev cli clsact 2>/dev/null || true
bpftool map create "$(bpf_of)/foreign" type array key 4 value 4 entries 1 name foreign
maps=$(bpftool -j map list | jq '[.[] | select(.name == "flows" or .name == "sl_flows")] | length')
purge || fail "purge: $(cat "$LAB_DIR/purge.out")"
cat "$LAB_DIR/purge.out"
assert_eq "left is what is not ours" "$(pinned)" foreign
for link in cli srv lo; do
	if attached $link; then fail "a program is left on $link"; fi
done
assert_eq "reserved ports: those of others" "$(reserved)" "8080,45000-45010"
wait_until 2000 eval '[ "$(bpftool -j map list | jq "[.[] | select(.name == \"flows\" or .name == \"sl_flows\")] | length")" -lt '"$((maps > 0 ? maps : 1))"' ]' ||
	fail "the map itself is left"
rm "$(bpf_of)/foreign"
purge || fail "a second purge: $(cat "$LAB_DIR/purge.out")"

say "and a fresh start"
start_packet "" "$text"
assert_eq "adopted" "$(jqs .kernel.adopted)" 0
client_bg fresh hold to=$PROXY_IP:8081 n=3 ping=1 timeout=60
wait_for has_output fresh
wait_engine first

say "other ports: the old ones stay reserved as long as flows have them, also under the next broker"
assert_eq "reserved" "$(reserved)" "8080,40000-59999"
old_global=$PACKET_GLOBAL
PACKET_GLOBAL=$(packet_global ports=20000-29999)
reload_packet "$text"
wait_log '3 flows have a port of an earlier packet.ports'
assert_eq "both" "$(reserved)" "8080,20000-29999,40000-59999"
wait_for eval '[ "$(sl engines --json | jq -r .engines.packet.ports)" = 20000-29999 ]'
if [ -z "${SLUICE_SINGLE:-}" ]; then
	kill -KILL "$(pgrep -P "$SLUICE_PID" -f '^sluiced: broker')"
	wait_for eval '[ "$(grep -c "flows have a port of an earlier" "$(log_file)")" = 2 ]'
	assert_eq "both, with the next broker" "$(reserved)" "8080,20000-29999,40000-59999"
fi
sl flows --flush >/dev/null || fail "flush"
stop_peer fresh || true
wait_until 3000 eval '[ "$(reserved)" = 8080,20000-29999,45000-45010 ]' || fail "reserved: $(reserved)"
PACKET_GLOBAL=$old_global
reload_packet "$text"
wait_until 3000 eval '[ "$(reserved)" = 8080,40000-59999 ]' || fail "reserved: $(reserved)"

say "another bpf_dir: flows of the old one are reset, and accounted for at once"
client_bg moved hold to=$PROXY_IP:8081 n=3 ping=1 timeout=60
wait_for has_output moved
wait_engine first
sed -i "s,bpf_dir: .*,bpf_dir: $(bpf_of)/other," "$LAB_DIR/main/sluice.yaml"
sl reload >/dev/null || fail "reload"
wait_until 3000 eval '[ "$(jqs .connections.active)" = 0 ]' || fail "active: $(jqs .connections.active)"
if has_log force_cleanup; then fail "an end was not told of"; fi
wait_until 3000 eval '[ -e "$(bpf_of)/other/flows" ]' || fail "not there: $(pinned)"
assert_eq "pins in the old one" "$(pinned | tr " " "\n" | grep -v "^other")" ""
assert_eq "reasons" "$(access_lines first | tail -n 3 | grep -o 'client_reason=.*' | sort | uniq -c | xargs)" \
	"3 client_reason=killed backend_reason=killed"
stop_peer moved || true
assert_eq "moved: lost, reset" "$(jq -c '[.lost, .reset]' <<<"$RESULT")" "[3,3]"
stop_sluice
assert_eq "exit code" "$RC" 0
assert_eq "pins" "$(pinned)" ""
assert_eq "reserved ports: those of others" "$(reserved)" "8080,45000-45010"
