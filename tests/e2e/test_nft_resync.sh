#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A broker that stands still while more flows come and go than the kernel keeps events of: it notices, reads
# all anew and counts that. No flow is left that is over, none is without its end, and none is told twice.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"
need_split
ROUNDS=${ROUNDS:-1} SOCKETS=${SOCKETS:-3} # each of these makes 40,000 flows

nat_up
in_ns proxy sysctl -qw net.netfilter.nf_conntrack_udp_timeout=2 net.netfilter.nf_conntrack_udp_timeout_stream=2
in_ns backend nft 'add table inet deaf; add chain inet deaf in { type filter hook input priority 0; }; add rule inet deaf in udp dport 20000-59999 drop'
server e echo 8001
server h http 8002 size=1000
start_nat "routes:
$(nroute held 8080 "\"$BACKEND_IP:8001\"")
$(nroute short 8081 "\"$BACKEND_IP:8002\"")
$(uroute storm 20000-59999 "{ targets: $BACKEND_IP, port: preserve }")"
nat_baseline
storm() {
	in_ns client /usr/bin/python3 - "$CLIENT_IP" "$PROXY_IP" "$SOCKETS" <<-'PY'
		import socket, sys
		for i in range(int(sys.argv[3])):
		    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		    s.bind((sys.argv[1], 0))
		    for port in range(20000, 60000):
		        try: s.sendto(b"x", (sys.argv[2], port))
		        except OSError: pass
	PY
}
resynced() { [ "$(nat_field resyncs)" -gt "$1" ]; }
closed() { http_get /metrics | awk '/^sluice_terminations_total\{route="storm",.*side="client",reason="'"$1"'"/ { print $NF }'; }
total() { http_get /metrics | awk '/^sluice_connections_total\{route="storm",engine="nftables"/ { print $NF }'; }
client_bg held trickle to=$PROXY_IP:8080 c=30 ms=50 timeout=120 stall=20000
wait_records held 30
ids=$(records held)

for ((i = 1; i <= ROUNDS; i++)); do
	say "round $i: $((40000 * SOCKETS)) flows nobody looks at"
	was=$(nat_field resyncs)
	broker=$(jqs .processes.broker)
	kill -STOP "$broker"
	storm
	client_bg new trickle to=$PROXY_IP:8080 c=20 ms=50 timeout=120 stall=20000
	wait_until 15000 eval '[ "$(n_entries -p udp)" = 0 ]' || fail "entries of datagrams do not end"
	# an address each: an entry that is over makes room for the next of its names
	client rate to=$PROXY_IP:8081 src=$CLIENT_NET c=8 t=1 timeout=30 >"$LAB_DIR/rate.out" || fail "the kernel goes on: $(cat "$LAB_DIR/rate.out")"
	made=$(jq .ok "$LAB_DIR/rate.out")
	kill -CONT "$broker"
	wait_until 15000 resynced "$was" || fail "it has not noticed: $(nat_field resyncs)"
	wait_records held 50 15000
	wait_until 15000 has_records storm 0 || fail "ghosts: $(n_records storm)"
	wait_until 15000 eval "[ \"\$(n_access short)\" -ge $made ]" || fail "lines of those in TIME_WAIT: $(n_access short) of $made"
	wait_until 15000 nat_active_is 50 || fail "open: $(n_nat_active)"
	assert_eq "ids lost" "$(comm -23 <(tr ' ' '\n' <<<"$ids") <(records held | tr ' ' '\n' | sort) | wc -l)" 0
	stop_peer new
	wait_records held 30 15000
done

say "each that was told of has an end, and nobody has cut it"
http_get /metrics | grep storm | grep -v " 0$"; echo "$(total) of $((40000 * SOCKETS * ROUNDS)) flows of the storm were told of, resyncs $(nat_field resyncs)"
assert_between "told of" "$(total)" 1 $((40000 * SOCKETS * ROUNDS))
assert_eq "ends" "$(closed connection_timeout)" "$(total)"
assert_eq "cut by somebody" "$(closed nftables_closed)" ""
assert_eq "by the metrics" "$(http_get /metrics | awk '/^sluice_nftables_resyncs_total / { print $NF }')" "$(nat_field resyncs)"
diff=$(sl diff) # with it 256 of them
assert_match "the diff" "$diff" $'\n@@ nftables: connection tracking @@\n'
assert_match "the diff" "$diff" 'flow 10\.91\.[0-9.]*:[0-9]+ > 10\.91\.0\.1:[0-9]+ of '
assert_match "the sum" "$diff" 'not listed\), all healed; totals since start: nft_flow [0-9]{3,}$'
stop_peer held
assert_eq "held: $RESULT" "$RC" 0
wait_until 15000 has_access held $((30 + 20 * ROUNDS)) || fail "lines of held: $(n_access held)"
assert_eq "one line each" "$(access_lines '(held|short)' | grep -o ' id=[0-9]*' | sort | uniq -d | wc -l)" 0
assert_eq "and no more" "$(n_access held)" $((30 + 20 * ROUNDS))
assert_nat_baseline
