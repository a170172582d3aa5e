#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The third process: what it may, what its death costs (nothing), when there is none, and that the
# kernel is clean when the daemon has ended.
# shellcheck disable=SC2034
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_packet
need_split

server e echo 8000
text="routes:
$(route kernel 8080 "\"$BACKEND_IP:8000\"")
$(route user 8081 "\"$BACKEND_IP:8000\"" "engine: relay")"

children() { cat "/proc/$SLUICE_PID/task/$SLUICE_PID/children"; }
role_of() { tr '\0' '\n' <"/proc/$1/cmdline" 2>/dev/null | head -n 1; }
roles() { for pid in $(children); do role_of "$pid"; done | sort | paste -sd,; }
has_roles() { [ "$(roles)" = "$1" ]; }
broker_pid() {
	local pid
	for pid in $(children); do
		if [ "$(role_of "$pid")" = "sluiced: broker" ]; then echo "$pid"; fi
	done
}
new_broker() { new=$(broker_pid) && [ -n "$new" ] && [ "$new" != "$old" ]; }
is_available() { [ "$(jqs .packet.available)" = "$1" ]; }
pins() { find "$(bpf_of)" -mindepth 1 ! -name '*.debug' -printf '%P\n' | sort | xargs; }
field() { awk -v f="$2:" '$1 == f { print $2 }' "/proc/$1/status"; }

say "three roles, and what the broker may"
start_packet "" "$text"
wait_for is_available true
assert_eq "processes" "$(roles)" "sluiced: broker,sluiced: proxy"
pid=$(broker_pid)
for cap in CapPrm CapEff; do
	assert_eq "$cap: NET_ADMIN alone, once it has loaded" "$(field "$pid" $cap)" 0000000000001000
done
for cap in CapInh CapBnd CapAmb; do assert_eq "$cap" "$(field "$pid" $cap)" 0000000000000000; done
assert_eq "NoNewPrivs" "$(field "$pid" NoNewPrivs)" 1
assert_eq "uid" "$(field "$pid" Uid)" 0
if ! has_log 'built with a sanitizer'; then
	assert_eq "Seccomp" "$(field "$pid" Seccomp)" 2
	assert_eq "threads" "$(field "$pid" Threads)" 1
fi
assert_eq "core files" "$(awk '/^Max core file size/ { print $5, $6 }' "/proc/$pid/limits")" "0 0"

say "it is killed: another within a second, connections do not notice"
client_bg kernel trickle to=$PROXY_IP:8080 ms=10 timeout=120
client_bg user trickle to=$PROXY_IP:8081 ms=10 timeout=120
wait_engine kernel
wait_engine user relay
for round in 1 2 3; do
	old=$(broker_pid)
	proxy=$(proxy_pid)
	kill -KILL "$old"
	wait_until 1000 new_broker || fail "round $round: no other broker after a second"
	wait_for is_available true
	assert_eq "round $round: same proxy" "$(proxy_pid)" "$proxy"
	assert_eq "round $round: its pid in status" "$(jqs .processes.broker)" "$(broker_pid)"
	assert_eq "round $round: engine" "$(engine_of kernel)" packet
	shot to=$PROXY_IP:8081 send=x fin=1
	assert_eq "round $round: served" "$(of end) $(of text)" "eof x"
done
assert_eq "adopted" "$(jqs .kernel.adopted)" 1
has_log 'broker process [0-9]+ was killed by signal 9 .*; what it has handed to the kernel goes on' ||
	fail "its death is not in the log"
client_bg later hold to=$PROXY_IP:8080 n=2 ping=1 timeout=120
wait_for has_output later
wait_until 8000 eval '[ "$(n_on packet kernel)" = 3 ]' || fail "handed over later: $(n_on packet kernel)"

say "it dies again and again: held back, said, served; and then it is there again"
wait_restart() { has_log 'the broker process keeps failing, next start in 1 s'; }
for _ in 1 2 3 4 5 6; do
	if wait_restart; then break; fi
	wait_until 5000 eval '[ -n "$(broker_pid)" ]' || fail "no broker"
	kill -KILL "$(broker_pid)"
	wait_until 5000 eval 'wait_restart || [ -n "$(broker_pid)" ]' || fail "neither started nor held back"
done
wait_log 'the broker process keeps failing'
assert_match "status" "$(jqs .packet.reason)" "^off: the broker process keeps failing"
shot to=$PROXY_IP:8081 send=x fin=1
assert_eq "served" "$(of end) $(of text)" "eof x"
wait_until 5000 is_available true || fail "no broker after the wait"

say "another size of the table: it waits for the flows"
PACKET_GLOBAL=$(packet_global max_flows=4096)
reload_packet "$text"
wait_log 'max_flows stays 65536 until no flow is left, then it is 4096'
assert_eq "max_flows" "$(jqs .packet.max_flows)" 65536

say "off and on again by reloads"
old=$(broker_pid)
PACKET_GLOBAL=$(packet_global max_flows=4096 hook=off)
reload_packet "$text"
wait_for is_available false
assert_eq "flows go on" "$(engine_of kernel)" packet
PACKET_GLOBAL=$(packet_global max_flows=4096)
reload_packet "$text"
wait_for is_available true
for name in kernel user; do
	stop_peer $name
	assert_eq "$name: $RESULT" "$RC" 0
done
stop_peer later || true
assert_eq "later: $RESULT" "$(jq -c '[.held, .lost]' <<<"$RESULT")" "[2,0]"

say "no flow is left: another broker makes the table anew, the proxy stays"
old=$(broker_pid)
sl flows --flush >/dev/null || fail "flush"
wait_for new_broker
wait_log 'max_flows is 4096 now, it was 65536'
wait_for is_available true
assert_eq "max_flows" "$(jqs .packet.max_flows)" 4096
assert_eq "same proxy" "$(proxy_pid)" "$proxy"

say "the end: nothing is left"
stop_sluice
assert_eq "exit code" "$RC" 0
assert_eq "pins" "$(pins)" ""
assert_eq "reserved ports" "$(in_ns proxy sysctl -n net.ipv4.ip_local_reserved_ports)" ""

say "configured off: no broker"
start_packet "hook=off" "$text"
assert_eq "processes" "$(roles)" "sluiced: proxy"
assert_match "status" "$(jqs .packet.reason)" "off"
PACKET_GLOBAL=$(packet_global "interfaces=[lo, nonsuch]")
reload_packet "$text"
wait_for has_roles "sluiced: broker,sluiced: proxy"
wait_for is_available true
wait_log "packet.interfaces: there is no interface 'nonsuch' \(yet\)"
if has_log "no interface 'lo'"; then fail "lo is not there?"; fi
PACKET_GLOBAL=$(packet_global)
reload_packet "$text"
stop_sluice

say "a directory that is not ours: off, and why; put right, and a reload later: on"
chown nobody "$(bpf_of)"
GLOBAL=$PACKET_GLOBAL start_sluice "$text"
wait_for eval 'jqs .packet.reason | grep -q "belongs to another user"'
shot to=$PROXY_IP:8080 send=x fin=1
assert_eq "served" "$(of end) $(of text)" "eof x"
chown root "$(bpf_of)"
reload_packet "$text"
wait_for is_available true

say "purge is refused while the daemon runs; after a SIGKILL it finds what the broker left"
purge() { in_ns proxy "$SLUICED" -c "$LAB_DIR/$INST/sluice.yaml" --purge >"$LAB_DIR/purge.out" 2>&1; }
rc=0
purge || rc=$?
assert_eq "exit code of purge" "$rc" 1
assert_match "its text" "$(cat "$LAB_DIR/purge.out")" "another sluiced .pid $SLUICE_PID. uses"
assert_match "still there" "$(pins)" "flows"
kill -KILL "$SLUICE_PID"
join_sluice
wait_until 2000 eval '[ -z "$(ip netns pids "$LAB-p")" ]' || fail "left: $(ip netns pids "$LAB-p" | xargs ps -o pid,args -p)"
assert_match "still there" "$(pins)" "flows"
purge || fail "purge: $(cat "$LAB_DIR/purge.out")"
assert_match "its text" "$(cat "$LAB_DIR/purge.out")" "removed $(bpf_of)/flows"
assert_eq "pins" "$(pins)" ""
purge || fail "a second purge: $(cat "$LAB_DIR/purge.out")"
assert_match "its text" "$(cat "$LAB_DIR/purge.out")" "nothing to remove"
