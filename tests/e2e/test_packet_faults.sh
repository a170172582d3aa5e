#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What others do to the engine's objects and to the network under it: the flow, or at least the service,
# goes on, the reason is to be seen, nothing crashes.
#   FAULTS="no_bpffs pins ..." only those
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
network="late_interface link_down mtu route neighbour"
if on_packet; then all="no_bpffs unprivileged pins links $network"; else all=$network; fi
FAULTS=${FAULTS:-$all}

server e echo 8001
server l long 8002 stall=$((8000 * SLOW))
server v verify 8003 stall=$((8000 * SLOW))
text="routes:
$(proute e 8081 "\"$BACKEND_IP:8001\"")
$(proute l 8082 "\"$BACKEND_IP:8002\"")
$(proute v 8083 "\"$BACKEND_IP:8003\"")
$(proute far_e 8084 '"10.94.0.1:8001"')
$(proute far_l 8085 '"10.94.0.1:8002"')
$(route auto 8086 "\"$BACKEND_IP:8001\"")"
alive() { assert_eq "the supervisor" "$(jqs .pid)" "$SLUICE_PID"; }
served() { # [PORT]
	shot to=$PROXY_IP:"${1:-8081}" send=x fin=1
	assert_eq "served" "$(of end) $(of text)" "eof x"
}
relay_because() { # REGEX: a held connection is on relay for that reason
	client_bg held hold to=$PROXY_IP:8081 to=$PROXY_IP:8086 n=2 ping=1 timeout=20
	wait_for has_output held
	wait_until 2000 eval '[ "$(sl conns --json | jq "[.[] | select(.engine == \"relay\")] | length")" = 2 ]' || fail "not on relay"
	assert_match "reasons" "$(engine_reason_of e) $(engine_reason_of auto)" "^$1 $1\$"
	stop_peer held
	assert_eq "held: $RESULT" "$RC" 0
}
# transfer NAME PORT...: gigabytes both ways until stop_transfer, on the engine before we go on.
transfer() {
	client_bg long long to=$PROXY_IP:"$2" c=2 t=600 rate=${RATE:-40000000} stall=$((8000 * SLOW)) timeout=60
	wait_engine "$1"
	wait_for eval '[ "$(n_on $ENGINE '"$1"')" = 2 ]'
	wait_until 5000 long_moved long 5 || fail "nothing moves"
}
moves_on() { # WHAT
	local now
	long_moved long 0 || true
	now=$(tail -n 1 "$LAB_DIR/long.out" | jq -r '[.up, .down] | min / 1000000 | floor')
	wait_until 10000 long_moved long $((now + 20)) || fail "$1: the transfer does not go on"
}
stop_transfer() { # WHAT MAX_GAP
	stop_peer long
	echo "$1: $RESULT"
	assert_eq "$1: $(cat "$LAB_DIR/long.out.err")" "$RC" 0
	assert_between "$1: longest gap, ms" "$(jq .max_gap_ms <<<"$RESULT")" 0 $(($2 * SLOW))
}
wait_attached() { ! on_packet || wait_until 2500 attached "$1"; }
drift() { http_get /metrics | awk '/^sluice_drift_total/ { n += $NF } END { print n + 0 }'; }

no_bpffs() {
	mkdir -p "$(bpf_of)"
	mountpoint -q "$(bpf_of)" && umount "$(bpf_of)"
	GLOBAL=$(packet_global) start_sluice "$text"
	baseline
	served
	relay_because '(not_linux_supported|no_privilege|self_test_failed|interface_not_attached)'
	assert_match "the log names the directory" "$(grep -aE 'packet|bpf' "$(log_file)" | head -n 5 | xargs -0)" "$(bpf_of)"
	alive
	assert_back_to_baseline
	stop_sluice
	assert_eq "exit code" "$RC" 0
}

unprivileged() {
	instance nobody
	mount_bpf
	mkdir -p "$LAB_DIR/nobody/run" "$LAB_DIR/nobody/state"
	chown nobody "$LAB_DIR/nobody" "$LAB_DIR/nobody/run" "$LAB_DIR/nobody/state"
	cp "$SLUICED" "$LAB_DIR/sluiced"
	chmod 755 "$LAB_DIR/sluiced"
	GLOBAL=$(packet_global) SLUICED=$LAB_DIR/sluiced \
		WRAP="setpriv --reuid=nobody --regid=nogroup --clear-groups --bounding-set=-all --inh-caps=-all" start_sluice "$text"
	served
	relay_because no_privilege
	stop_sluice
	assert_eq "exit code" "$RC" 0
	instance main
}

started=
running() {
	if [ -z "$started" ]; then
		start_packet "" "$text"
		packet_baseline
		started=1
	fi
	mark_rst
}

pins() {
	running
	transfer l 8082
	rm "$(bpf_of)/flows"
	wait_until 3000 test -e "$(bpf_of)/flows" || fail "flows is not pinned again: $(pinned)"
	assert_eq "and is the same map" "$(n_live_flows)" 4
	moves_on "flows unpinned"
	local before
	before=$(pinned)
	find "$(bpf_of)" -mindepth 1 ! -name '*.debug' -delete
	wait_until 3000 eval '[ "$(pinned)" = "$before" ]' || fail "pinned again: $(pinned), before: $before"
	assert_between "repairs counted" "$(drift)" 1 1000
	moves_on "all unpinned"
	served
	stop_transfer "pins removed" 2000
	assert_no_rst "pins removed: resets"
	alive
}

# detach LINK: as another tool would.
detach() {
	local index pin
	index=$(in_ns proxy cat "/sys/class/net/$1/ifindex")
	pin=$(bpf_of)/link_tcx_$index
	if [ -e "$pin" ]; then
		bpftool link detach pinned "$pin"
	else
		in_ns proxy tc qdisc del dev "$1" clsact
	fi
}
# While no program is there our stack answers for what it knows nothing of: a flow that is busy then is
# reset, which both ends must see and the records must tell; whoever is quiet sees nothing of it.
outlived() { # WHAT
	stop_peer long
	echo "$1: $RESULT"
	if [ "$RC" != 0 ]; then
		assert_eq "$1: how the clients ended" "$(sed 's/.*: \(.*\): sent.*/\1/' "$LAB_DIR/long.out.err" | sort | uniq -c | xargs)" "2 Connection reset by peer"
		wait_until 5000 eval '[ -z "$(engine_of l)" ]' || fail "$1: ended ones in conns: $(sl conns --route l)"
		assert_match "$1: reasons" "$(access l client_reason) $(access l backend_reason)" 'econnreset'
		rm "$LAB_DIR/long.out.err"
		grep -v 'Connection reset by peer' "$LAB_DIR/l.out.err" >"$LAB_DIR/l.other" && fail "$1: the server: $(cat "$LAB_DIR/l.other")"
		l_resets=1
	fi
	assert_eq "$1: the quiet ones" "$(sl conns --route e --json | jq length) $(engine_of e)" "5 $ENGINE"
}
l_resets=
links() {
	local link start
	running
	client_bg quiet hold to=$PROXY_IP:8081 n=5 ping=1 timeout=60
	wait_for has_output quiet
	wait_engine e
	for link in cli srv; do
		wait_for attached $link
		transfer l 8082
		start=$(now_ms)
		detach $link
		if attached $link; then echo "attached again before anybody could look"; fi
		wait_until 2500 attached $link || fail "$link: not attached again: $(programs_on proxy $link)"
		echo "$link: attached again after $(($(now_ms) - start)) ms"
		outlived "$link detached"
		served
	done
	assert_between "repairs counted" "$(drift)" 1 1000
	stop_peer quiet
	assert_eq "the quiet ones: $RESULT" "$RC" 0
	alive
}

late_interface() {
	running
	ip link add eth1 netns "$LAB-c" type veth peer name late netns "$LAB-p"
	ip -n "$LAB-c" link set eth1 up
	ip -n "$LAB-p" link set late up
	ip -n "$LAB-c" addr add 10.95.0.2/24 dev eth1
	ip -n "$LAB-p" addr add 10.95.0.1/24 dev late
	wait_attached late || fail "not attached: $(programs_on proxy late)"
	client_bg late hold to=10.95.0.1:8081 n=3 ping=1 timeout=20
	wait_for has_output late
	wait_engine e
	stop_peer late
	assert_eq "over the late interface: $RESULT" "$RC" 0
	ip -n "$LAB-p" link del late
	served
	assert_no_rst "late interface: resets"
	alive
}

link_down() {
	running
	transfer l 8082
	ip -n "$LAB-p" link set srv down
	sleep 0.5
	ip -n "$LAB-p" link set srv up
	ip -n "$LAB-p" addr replace $PROXY_BACK6/64 dev srv nodad
	moves_on "interface down and up"
	stop_transfer "interface down and up" 4000
	served
	assert_no_rst "interface down: resets"
	alive
}

# mtu_one WAY LINK: one-way bulk; the MTU of the proxy's own way out is lowered.
mtu_one() {
	local moved
	client_bg long long to=$PROXY_IP:8082 c=2 t=600 way="$1" rate=${RATE:-40000000} stall=$((8000 * SLOW)) timeout=60
	wait_engine l
	wait_for eval '[ "$(n_on $ENGINE l)" = 2 ]'
	wait_until 5000 long_moved long 5 max || fail "nothing moves"
	set_mtu 1300 proxy "$2"
	moved=$(tail -n 1 "$LAB_DIR/long.out" | jq -r '[.up, .down] | max / 1000000 | floor')
	wait_until 10000 long_moved long $((moved + 20)) max || fail "MTU of $2 lowered: the transfer does not go on"
	stop_transfer "MTU of $2 lowered, $1" 3000
	set_mtu 1500 proxy "$2"
	in_ns client ip route flush cache
	in_ns backend ip route flush cache
}
mtu() {
	running
	mtu_one up srv
	mtu_one down cli
	if on_packet; then assert_between "answered or translated" $(($(counter mtu_answered) + $(counter icmp_translated))) 1 100000000; fi
	assert_no_rst "MTU lowered: resets"
	alive
}

# The backend's other address, behind two next hops on two interfaces.
far_ready=
far() {
	if [ -n "$far_ready" ]; then return; fi
	far_ready=1
	ip -n "$LAB-b" addr add 10.94.0.1/32 dev lo
	ip -n "$LAB-b" addr add 10.92.0.3/16 dev eth0
	ip link add eth1 netns "$LAB-b" type veth peer name srv2 netns "$LAB-p"
	ip -n "$LAB-b" link set eth1 up
	ip -n "$LAB-p" link set srv2 up
	ip -n "$LAB-b" addr add 10.96.0.2/24 dev eth1
	ip -n "$LAB-p" addr add 10.96.0.1/24 dev srv2
	in_ns backend sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0
	in_ns proxy sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.srv.rp_filter=0 net.ipv4.conf.srv2.rp_filter=0
	ip -n "$LAB-p" route add 10.94.0.1 via $BACKEND_IP
	OUT=$LAB_DIR/far.out spawn backend "$PEERS/peer_server" long listen=10.94.0.1:8002 timeout=300 stall=$((8000 * SLOW))
	OUT=$LAB_DIR/fare.out spawn backend "$PEERS/peer_server" echo listen=10.94.0.1:8001 timeout=300
	wait_for eval '[ "$(in_ns backend ss -Hltn src 10.94.0.1 | wc -l)" = 2 ]'
	wait_attached srv2 || fail "srv2 is not attached"
}
traffic() { in_ns proxy cat "/sys/class/net/$1/statistics/$2_bytes"; }
route_() {
	running
	far
	transfer far_l 8085
	ip -n "$LAB-p" route replace 10.94.0.1 via 10.92.0.3
	moves_on "another next hop"
	local tx rx
	tx=$(traffic srv2 tx)
	rx=$(traffic srv2 rx)
	ip -n "$LAB-p" route replace 10.94.0.1 via 10.96.0.2
	ip -n "$LAB-b" route add $PROXY_BACK_IP/32 via 10.96.0.1
	wait_until 5000 eval "[ \$(traffic srv2 tx) -ge $((tx + 20000000)) ] && [ \$(traffic srv2 rx) -ge $((rx + 20000000)) ]" ||
		fail "the other interface sent $(($(traffic srv2 tx) - tx)) and received $(($(traffic srv2 rx) - rx)) bytes"
	moves_on "another interface"
	ip -n "$LAB-b" route del $PROXY_BACK_IP/32
	ip -n "$LAB-p" route replace 10.94.0.1 via $BACKEND_IP
	ip -n "$LAB-p" link del srv2
	moves_on "the old interface is back, the other one gone"
	stop_transfer "route changed" 5000
	served 8084
	assert_no_rst "route changed: resets"
	alive
}

neighbour() {
	running
	transfer l 8082
	in_ns backend ip link set eth0 address 02:00:00:00:77:01
	in_ns proxy ip neigh replace $BACKEND_IP lladdr 02:00:00:00:77:01 dev srv nud reachable
	moves_on "the backend has another address of its interface"
	stop_transfer "neighbour changed" 3000
	served
	assert_no_rst "neighbour changed: resets"
	alive
}

for fault in $FAULTS; do
	say "$fault"
	case $fault in
	route) route_ ;;
	*) $fault ;;
	esac
done
if [ -n "$started" ]; then
	stop_peer v
	assert_eq "verified transfers: $(cat "$LAB_DIR/v.out.err")" "$RC" 0
	stop_peer l
	if [ -z "$l_resets" ]; then assert_eq "long transfers: $(cat "$LAB_DIR/l.out.err")" "$RC" 0; fi
	wait_until 3000 eval '! on_packet || no_live_flows' || fail "live entries left"
	stop_sluice
	assert_eq "exit code" "$RC" 0
fi
