#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Differences between kernel and records of the packet engine, made by hand under live traffic: each is
# found within 2 s without being asked for, healed, counted once, and reads in `sluice diff` as what it was.
# Long transfers and quiet connections notice nothing.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
. "$(dirname "$0")/../lib/driftlab.sh"
need_packet

server e echo 8001
server l long 8002 stall=$((8000 * SLOW))
server x echo 8003
text="routes:
$(proute e 8081 "\"$BACKEND_IP:8001\"")
$(proute l 8082 "\"$BACKEND_IP:8002\"")
$(proute x 8083 "\"$BACKEND_IP:8003\"")"
start_packet "" "$text"

# entry_of CONN FROM key|value: as bpftool takes it.
entry_of() {
	dump flows | jq -r --argjson c "$1" --arg f "SL_PACKET_$2" --arg k "$3" \
		'.[] | select(.formatted.value.conn_id == $c and .formatted.value.from == $f) | .[$k] | map(sub("0x"; "")) | join(" ")'
}
delete_entry() { # CONN FROM
	# shellcheck disable=SC2046
	bpftool map delete pinned "$(bpf_of)/flows" key hex $(entry_of "$1" "$2" key)
}
# like_entry CONN FROM SPORT DPORT NEW_SPORT NEW_DPORT ID: the command that makes one like that of a connection, with
# other ports where they are not 0 (bpf/abi.h: behind two addresses in key and value), and of connection ID.
like_entry() {
	/usr/bin/python3 - "$(bpf_of)/flows" "$(entry_of "$1" "$2" key)" "$(entry_of "$1" "$2" value)" "$@" <<-'PY'
		import struct, sys
		key, value = (bytearray.fromhex(a) for a in sys.argv[2:4])
		conn, ports, new_id = int(sys.argv[4]), [int(a) for a in sys.argv[6:10]], int(sys.argv[10])
		for port, where, at in zip(ports, (key, key, value, value), (32, 34, 32, 34)):
		    if port:
		        struct.pack_into("=H", where, at, port)
		at = value.index(struct.pack("=Q", conn))
		struct.pack_into("=Q", value, at, new_id)
		print("map update pinned", sys.argv[1], "key hex", key.hex(" "), "value hex", value.hex(" "))
	PY
}
add_entry() { like_entry "$@" | bpftool batch file -; }
n_of() { flows_json | jq --argjson c "$1" '[.[] | select(.value.conn_id // .conn_id == $c)] | length'; } # CONN
has_entries() { [ "$(n_of "$1")" = "$2" ]; }
id_of() { sl conns --route "$1" --json | jq '.[0].id'; }
# tuple_of CONN FROM: "A:P > B:Q"
tuple_of() {
	dump flows | jq -r --argjson c "$1" --arg f "SL_PACKET_$2" '.[] | .formatted |
		select(.value.conn_id == $c and .value.from == $f) | .key |
		"\(.saddr[12:] | map(tostring) | join(".")):\(.sport) > \(.daddr[12:] | map(tostring) | join(".")):\(.dport)"'
}

# What must not notice anything.
client_bg quiet hold to=$PROXY_IP:8081 n=3 ping=1 timeout=$((600 * SLOW))
wait_for has_output quiet
client_bg long long to=$PROXY_IP:8082 c=2 t=600 rate=${RATE:-40000000} stall=$((8000 * SLOW)) timeout=600
wait_engine e
wait_engine l
wait_until 5000 long_moved long 5 || fail "nothing moves"
mark_rst
healthy() { # WHAT
	local now
	long_moved long 0 || true
	now=$(tail -n 1 "$LAB_DIR/long.out" | jq -r '[.up, .down] | min / 1000000 | floor')
	wait_until 10000 long_moved long $((now + 10)) || fail "$1: the transfer does not go on"
	assert_eq "$1: on the engine" "$(n_on packet e) $(n_on packet l)" "3 2"
	assert_no_rst "$1: resets"
}
say "nothing differs"
looks
echo "$DIFF"
assert_match "the diff" "$DIFF" '^packet: 5 connections in the records, 5 known to the broker; compared: '
assert_match "the diff" "$DIFF" $'\nno difference in the last 10 minutes; totals since start: none$'
assert_eq "as JSON" "$(sl diff --json | jq -c '[.compared, .differences, .found, .left]')" "[true,[],0,0]"

say "one entry of a connection is deleted"
quiet=$(id_of e)
for from in CLIENT BACKEND; do
	who=client
	if [ $from = BACKEND ]; then who=backend; fi
	tuple=$(tuple_of "$quiet" $from)
	delete_entry "$quiet" $from
	drill packet_half 1
	assert_eq "made again" "$(tuple_of "$quiet" $from)" "$tuple"
	hunk "-entry $tuple of connection $quiet, $who's direction" "+missing" " repaired: made again from the other direction %"
done
hunk "--- records" "+++ kernel" "@@ packet: flows @@"
assert_match "the sum" "$DIFF" $'\n2 differences in the last 10 minutes, all healed; totals since start: packet_half 2$'
healthy "halves"

say "both entries are deleted"
client_bg lost hold to=$PROXY_IP:8083 n=1 ping=1 timeout=$((60 * SLOW))
wait_for has_output lost
wait_engine x
lost=$(id_of x)
tuple=$(tuple_of "$lost" CLIENT)
other=$(tuple_of "$lost" BACKEND)
# at once, or one of them is made again from the other
delete_both() { # CONN
	local map
	map=$(bpf_of)/flows
	bpftool batch file - <<-COMMANDS
		map delete pinned $map key hex $(entry_of "$1" CLIENT key)
		map delete pinned $map key hex $(entry_of "$1" BACKEND key)
	COMMANDS
}
delete_both "$lost"
wait_until $PERIOD eval '[ $(($(kind_count packet_lost) + $(kind_count packet_half))) -gt 2 ]' || fail "not found: $(sl diff)"
while [ "$(kind_count packet_lost)" = 0 ]; do # the walk came between
	SUM=$((SUM + 1))
	delete_both "$lost"
	wait_until $PERIOD eval "[ \$((\$(kind_count packet_lost) + \$(kind_count packet_half))) -gt $SUM ]" || fail "not found: $(sl diff)"
done
drill packet_lost 2
hunk "-entry $tuple of connection $lost, client's direction" "+missing" " ended: both are gone, so the connection is over %" \
	"-entry $other of connection $lost, backend's direction" "+missing" " ended: both are gone, so the connection is over %"
wait_for eval '[ -z "$(id_of x | grep -v null)" ]'
assert_match "the access line" "$(access x client_reason) $(access x backend_reason)" 'force_cleanup'
stop_peer lost || true
mark_rst # what the client says to a connection that is over is answered
healthy "both entries"

say "entries that belong to no connection"
# the ports of the connection, but one: its record has another entry
sport=$(entry_of "$quiet" CLIENT key | /usr/bin/python3 -c 'import struct, sys; print(struct.unpack_from("=H", bytes.fromhex(sys.stdin.read()), 32)[0])')
add_entry "$quiet" CLIENT 9 0 0 0 "$quiet"
drill packet_stray 1
wait_until $PERIOD has_entries "$quiet" 2 || fail "not removed: $(sl diff)"
looks
tuple=$(tuple_of "$quiet" CLIENT)
hunk "-nothing" "+entry ${tuple/:$sport /:9 } of connection $quiet, client's direction" " removed: it belongs to no connection %"
# of a connection that nobody knows, without its other half
add_entry "$quiet" BACKEND 0 9 0 0 4242
drill packet_stray 1
wait_until $PERIOD has_entries 4242 0 || fail "not removed: $(sl diff)"
looks
hunk " removed: it belongs to no connection %"
# both entries: somebody's connection, which gets its record
both=$(like_entry "$quiet" BACKEND 0 10 0 9 4343 && like_entry "$quiet" CLIENT 9 0 10 0 4343)
bpftool batch file - <<<"$both"
wait_until $PERIOD counted packet_orphan 1 || fail "not adopted: $(sl diff)"
# between the two commands it may have been met as half
SUM=$(drift_sum)
assert_between "strays meanwhile" "$(kind_count packet_stray)" 2 3
looks
hunk " adopted: offered to the proxy with its other entry %"
wait_for eval '[ "$(sl conns 4343 --json | jq length)" = 1 ]'
sl kill 4343
wait_for eval '[ "$(sl conns --json | jq "[.[] | select(.id == 4343)] | length")" = 0 ]'
healthy "strays"

say "a link is detached"
index=$(in_ns proxy cat /sys/class/net/lo/ifindex)
if [ -e "$(bpf_of)/link_tcx_$index" ]; then
	bpftool link detach pinned "$(bpf_of)/link_tcx_$index"
else
	in_ns proxy tc qdisc del dev lo clsact
fi
drill packet_link 1
attached lo || fail "not attached: $(programs_on proxy lo)"
hunk "@@ packet: links @@" "-link of lo ($(jqs .packet.reason | sed 's/ .*//'))" "+missing" " repaired: attached again %"
healthy "a link"

say "pins are removed"
before=$(pinned)
rm "$(bpf_of)/flows"
drill packet_pin 1
hunk "@@ packet: pins @@" "-pin flows" "+missing" " repaired: pinned again %"
n_pins=$(wc -w <<<"$before")
find "$(bpf_of)" -mindepth 1 ! -name '*.debug' -delete
drill packet_pin "$n_pins"
assert_eq "pinned" "$(pinned)" "$before"
for name in $before; do hunk "-pin $name" "+missing"; done
hunk "-pin flows" "+missing" " repaired: pinned again %" # the second time
assert_eq "of the pin flows" "$(sl diff --json | jq -c '[.differences[] | select(.wanted == "pin flows") | .times, .new]')" "[2,false]"
healthy "pins"

say "another program writes the reserved ports as they should be without us"
reserved() { in_ns proxy cat /proc/sys/net/ipv4/ip_local_reserved_ports; }
before=$(reserved)
in_ns proxy sysctl -qw net.ipv4.ip_local_reserved_ports=80
drill packet_setting 1
assert_eq "reserved" "$(reserved)" "80,$before"
hunk "@@ packet: settings @@" "-ports $before of net.ipv4.ip_local_reserved_ports" "+missing" " repaired: reserved again %"
healthy "reserved ports"

say "totals outlive the broker"
broker=$(jqs .processes.broker)
if [ -z "${SLUICE_SINGLE:-}" ]; then
	kill -KILL "$broker"
	another_broker() { [[ "$(jqs .processes.broker)" =~ ^[1-9] ]] && [ "$(jqs .processes.broker)" != "$broker" ]; }
	wait_for another_broker
	wait_until 8000 eval 'sl diff --json | jq -e ".engines[0].known == 5"' || fail "no broker: $(sl diff)"
	assert_eq "counted" "$(drift_sum)" "$SUM"
	looks
	assert_match "the diff" "$DIFF" "no difference in the last 10 minutes; totals since start: packet_orphan 1, packet_half 2"
	healthy "another broker"
fi

say "records that the broker knows nothing of"
if [ -z "${SLUICE_SINGLE:-}" ]; then
	client_bg odd hold to=$PROXY_IP:8083 n=2 ping=1 timeout=$((60 * SLOW))
	wait_for has_output odd
	wait_engine x
	wait_for eval 'sl diff --json | jq -e ".engines[0].known == 7"'
	was=$(kind_count records)
	broker=$(jqs .processes.broker)
	kill -STOP "$broker" # so it does not learn of their end
	sl kill --route x
	wait_until 15000 counted records $((was + 1)) || fail "not found: $(http_get /metrics | grep ^sluice_drift)"
	has_log 'packet: there are records of 5 connections, and the broker knows of [67]' || fail "not in the log"
	kill -CONT "$broker"
	wait_until 5000 has_log 'packet: records and broker agree again on 5 connections' || fail "still off: $(sl diff)"
	stop_peer odd || true
	looks
	SUM=$(drift_sum)
	mark_rst
	healthy "records"
fi

for name in quiet long; do
	stop_peer $name
	assert_eq "$name: $RESULT $(cat "$LAB_DIR/$name.out.err")" "$RC" 0
done
wait_until 3000 no_live_flows || fail "live entries left"
looks
stop_sluice
assert_eq "exit code" "$RC" 0

say "without the kernel"
instance plain
GLOBAL=$(packet_global hook=off) start_sluice "routes:
$(route e 8081 "\"$BACKEND_IP:8001\"" "engine: relay")"
looks
assert_match "the diff" "$DIFF" '^there is no state of the kernel to compare: '
assert_eq "as JSON" "$(sl diff --json | jq -c '[.compared, .differences, .left]')" "[false,[],0]"
stop_sluice
