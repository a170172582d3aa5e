#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck disable=SC2034
# The way of a connection through the kernel's NAT: both families, masqueraded or with the client's own
# address, ports one to one or to one, from the host itself, to the host itself, and back to the target.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

nat_up
ip -n "$LAB-p" addr add 10.91.0.9/16 dev cli
server one identify 8001
server range identify 9000,9001,9007,9100
server v verify 8002 stall=$((2000 * SLOW))
server e echo 8003
local_server here identify 8011
for place in 127.0.0.2:8012 "$PROXY_IP:8013" "[$PROXY6]:8014"; do
	OUT=$LAB_DIR/own.out spawn proxy "$PEERS/peer_server" identify "listen=$place" timeout=300 name="own-${place##*:}"
done
for port in 8012 8013 8014; do wait_for listening proxy $port; done

start_nat "routes:
$(nroute web 8080 "\"$BACKEND_IP:8001\"")
$(nroute own 8081 "{ targets: \"$BACKEND_IP:8001\", preserve_source: true }")
$(nroute six 8082 "\"[$BACKEND6]:8001\"")
$(nroute six-own 8083 "{ targets: \"[$BACKEND6]:8001\", preserve_source: true }")
$(nroute both 8084 "[ \"$BACKEND_IP:8001\", \"[$BACKEND6]:8001\" ]")
$(nroute same '[9000-9099, 9100]' "{ targets: $BACKEND_IP, port: preserve }")
$(nroute many 9200-9299 "\"$BACKEND_IP:8001\"")
$(nroute addr '"10.91.0.9:80"' "\"$BACKEND_IP:8001\"")
$(nroute loop 8085 '"127.0.0.1:8011"')
$(nroute hair 8001 "{ targets: [ \"$BACKEND_IP:8001\", \"[$BACKEND6]:8001\" ], preserve_source: true }")
$(nroute loop2 8090 '"127.0.0.2:8012"')
$(nroute own-address 8091 "\"$PROXY_IP:8013\"")
$(nroute own-address6 8092 "\"[$PROXY6]:8014\"")
$(nroute inside '"127.0.0.1:8093"' "\"$BACKEND_IP:8001\"")
$(nroute loop-lb 8094 "[ \"127.0.0.1:8011\", \"$BACKEND_IP:8001\" ]" )
$(nroute verify 8086 "\"$BACKEND_IP:8002\"")
$(nroute echo 8087 "\"$BACKEND_IP:8003\"")
$(route relay 8088 "\"$BACKEND_IP:8001\"")"
nat_baseline

# Each: NAME, from, to; who answered, from which address, on which.
assert_way() { # WHAT SERVER FROM TO
	local text
	text=$(of text)
	assert_eq "$1: end" "$(of end)" eof
	assert_eq "$1: server" "$(cut -d' ' -f1 <<<"$text")" "$2"
	assert_match "$1: its client" "$(cut -d' ' -f2 <<<"$text")" "$3"
	assert_eq "$1: its address" "$(cut -d' ' -f3 <<<"$text")" "$4"
}

say "one target"
shot to=$PROXY_IP:8080
assert_way masqueraded one "^$PROXY_BACK_IP:" $BACKEND_IP:8001
shot to=$PROXY_IP:8081 src=10.91.130.7
assert_way "its own address" one '^10\.91\.130\.7:' $BACKEND_IP:8001
shot "to=[$PROXY6]:8082"
assert_way masqueraded one "^\\[$PROXY_BACK6\\]:" "[$BACKEND6]:8001"
shot "to=[$PROXY6]:8083"
assert_way "its own address" one "^\\[$CLIENT6\\]:" "[$BACKEND6]:8001"
shot to=$PROXY_IP:8084
assert_way "both families, IPv4" one "^$PROXY_BACK_IP:" $BACKEND_IP:8001
shot "to=[$PROXY6]:8084"
assert_way "both families, IPv6" one "^\\[$PROXY_BACK6\\]:" "[$BACKEND6]:8001"

say "a family without a target is not listened on"
shot "to=[$PROXY6]:8080"
assert_eq end "$(of connect)" refused

say "ports"
for port in 9000 9001 9007 9100; do
	shot to=$PROXY_IP:$port
	assert_way "the same port" range "^$PROXY_BACK_IP:" $BACKEND_IP:$port
done
for port in 9200 9250 9299; do
	shot to=$PROXY_IP:$port
	assert_way "all to one" one "^$PROXY_BACK_IP:" $BACKEND_IP:8001
done
shot to=$PROXY_IP:9300
assert_eq "behind the range" "$(of connect)" refused

say "one address"
shot to=10.91.0.9:80
assert_way "its address" one "^$PROXY_BACK_IP:" $BACKEND_IP:8001
shot to=$PROXY_IP:80
assert_eq "another address" "$(of connect)" refused

say "what passes through this host to others is not taken"
shot to=$BACKEND_IP:8080
assert_eq "the backend's own port" "$(of connect)" refused
shot to=$BACKEND_IP:8001 src=$CLIENT_IP
assert_way "forwarded, not translated" one "^$CLIENT_IP:" $BACKEND_IP:8001

say "from the host itself"
local_shot to=$PROXY_IP:8080
assert_way "to its address" one "^$PROXY_BACK_IP:" $BACKEND_IP:8001
local_shot to=127.0.0.1:8080
assert_way "to 127.0.0.1" one "^$PROXY_BACK_IP:" $BACKEND_IP:8001
local_shot "to=[$PROXY6]:8082"
assert_way "to its IPv6 address" one "^\\[$PROXY_BACK6\\]:" "[$BACKEND6]:8001"

say "to the host itself"
shot to=$PROXY_IP:8085
assert_way "a target on 127.0.0.1" here "^$CLIENT_IP:" 127.0.0.1:8011
local_shot to=127.0.0.1:8085
assert_way "from there, too" here "^$PROXY_IP:" 127.0.0.1:8011

shot to=$PROXY_IP:8090
assert_way "another address of loopback" own-8012 "^$CLIENT_IP:" 127.0.0.2:8012
for to in "$PROXY_IP" 127.0.0.1; do
	local_shot to=$to:8091
	assert_way "its own address, from itself to $to" own-8013 . $PROXY_IP:8013
done
shot to=$PROXY_IP:8091
assert_way "its own address" own-8013 "^($CLIENT_IP|$PROXY_IP):" $PROXY_IP:8013
shot "to=[$PROXY6]:8092"
assert_way "its own IPv6 address" own-8014 . "[$PROXY6]:8014"
local_shot "to=[$PROXY6]:8092"
assert_way "its own IPv6 address, from itself" own-8014 . "[$PROXY6]:8014"
local_shot to=127.0.0.1:8093
assert_way "a listener for this host alone" one "^$PROXY_BACK_IP:" $BACKEND_IP:8001
refused $PROXY_IP:8093 || fail "which others reach: $SHOT"
SHOT=$(for i in 1 2 3 4; do client shot timeout=15 to=$PROXY_IP:8094 | jq -r '.text | split(" ")[0]'; done | sort | uniq -c | xargs)
assert_eq "here and elsewhere in turn" "$SHOT" "2 here 2 one"

say "which does not open loopback to the network"
in_ns proxy nft "table inet seen { chain in { type filter hook prerouting priority -400; iifname cli ip daddr 127.0.0.1 counter; }; }"
in_ns client sysctl -qw net.ipv4.conf.all.route_localnet=1
for net in 127.0.0.0/8 127.0.0.1; do ip -n "$LAB-c" route del local $net table local; done
ip -n "$LAB-c" route add 127.0.0.1 via $PROXY_IP src $CLIENT_IP
SHOT=$(client shot timeout=2 to=127.0.0.1:8011 || true)
assert_eq connect "$(of connect)" timeout
assert_between "packets that asked for it" \
	"$(in_ns proxy nft -j list chain inet seen in | jq '[.. | .counter? // empty | .packets] | add')" 1 9
in_ns proxy nft delete table inet seen

say "back to the target that is its own client"
SHOT=$(in_ns backend "$PEERS/peer_client" shot timeout=15 to=$PROXY_BACK_IP:8001 || true)
assert_way hairpin one "^$PROXY_BACK_IP:" $BACKEND_IP:8001
SHOT=$(in_ns backend "$PEERS/peer_client" shot timeout=15 "to=[$PROXY_BACK6]:8001" || true)
assert_way "hairpin, IPv6" one "^\\[$PROXY_BACK6\\]:" "[$BACKEND6]:8001"

say "other engines beside it"
shot to=$PROXY_IP:8088
assert_way relay one "^$PROXY_BACK_IP:" $BACKEND_IP:8001

say "every byte, every order of closing"
client verify to=$PROXY_IP:8086 n=60 c=6 max=400000 shapes=all stall=$((2000 * SLOW)) timeout=$((60 * SLOW)) >"$LAB_DIR/verify.out" ||
	fail "$(cat "$LAB_DIR/verify.out")"
stop_peer v
assert_eq "the server's verdict: $(tail -n 3 "$LAB_DIR/v.out.err")" "$RC" 0
shot to=$PROXY_IP:8087 up=3000000 fin=1
assert_eq "3 MB and back" "$(of end) $(of got)" "eof 3000000"

say "each has a record and an access line"
wait_until 15000 has_access echo 1 || fail "no access line of echo"
assert_eq engine "$(access echo engine)" nftables/configured
assert_eq reasons "$(access echo client_reason) $(access echo backend_reason)" "normal normal"
assert_match client "$(access echo client)" "^$CLIENT_IP:"
assert_eq backend "$(access echo backend)" $BACKEND_IP:8003
# conntrack counts the headers, too: 40 to 60 bytes of every packet, of which offload makes few
assert_between "bytes up" "$(access echo up)" 3000000 3300000
assert_between "bytes down" "$(access echo down)" 3000000 3300000
wait_until 15000 eval '[ "$(n_access verify)" -ge 60 ]' || fail "access lines of verify: $(n_access verify)"
assert_eq "and no more" "$(n_access verify)" 60
assert_nat_baseline
assert_eq "flows of echo, as the kernel counted" "$(n_counted echo)" 1
assert_eq "flows of verify" "$(n_counted verify)" 60
assert_eq "flows of loop, from here and from outside" "$(n_counted loop)" 2

say "nft can read what it shows"
# its owner aside, which nft would become, and take the table along
plain_form() { sed -e 's/packets [0-9]* bytes [0-9]*//' -e 's/ # progname.*//' -e '/flags owner/d' -e '/^[ \t]*$/d'; }
# nft before 1.1.0 writes questions for ranges of protocol and port in a way that kernels of 2026 refuse
# (6.12.117 does; those the broker writes are taken everywhere)
can_write() {
	ip netns exec "$LAB-b" nft 'add table inet probe; add chain inet probe c;
		add map inet probe m { type inet_proto . inet_service : mark; flags interval; };
		add rule inet probe c ct mark set meta l4proto . th dport map @m; delete table inet probe' 2>/dev/null
}
unwritable='^$'
if ! can_write; then
	unwritable='meta l4proto \. th dport map @[a-z0-9]*_range'
	echo "this nft cannot write to this kernel: $(nat_table | grep -c "$unwritable") rules"
fi
nat_table | sed '/flags owner/d' | grep -v "$unwritable" >"$LAB_DIR/table.nft"
ip netns exec "$LAB-b" nft -f "$LAB_DIR/table.nft" || fail "nft -f of the table"
assert_eq "the same" "$(diff <(nat_table | grep -v "$unwritable" | plain_form) <(ip netns exec "$LAB-b" nft list table inet "$NAT_TABLE" | plain_form))" ""
