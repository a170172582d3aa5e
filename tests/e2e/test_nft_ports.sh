#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A connection that the kernel masquerades never has the source port of one that the packet engine carries
# to the same target: conntrack does not know that one, and whoever has its port would speak into it.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
need_packet

nat_up
server e echo 8001
server one identify 8002
routes="routes:
$(nroute nat 8082 "[ \"$BACKEND_IP:8001\", \"[$BACKEND6]:8001\" ]")
$(nroute who 8083 "\"$BACKEND_IP:8002\"")
$(uroute udp 8083 "\"$BACKEND_IP:8002\"")"
moved=$(proute moved 8081 "[ \"$BACKEND_IP:8001\", \"[$BACKEND6]:8001\" ]")
start_packet "" "$routes
$moved"
wait_until 8000 nat_is_on || fail "the engine is off: $(nat_text)"
udp_server d backend 8002 $BACKEND_IP

# from PORT ADDR TO: a connection from that port, which asks and is answered; no address at once again.
from() {
	in_ns client /usr/bin/python3 - "$@" $((4 * SLOW)) <<-'CLIENT'
		import socket, sys
		port, ip, to = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
		s = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
		s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
		s.settimeout(int(sys.argv[4]))
		s.bind(("", port))
		try:
		    s.connect((ip, to))
		    s.sendall(b"x")
		    print("answered", s.recv(200).decode().strip())
		except OSError as e:
		    print("failed", e)
	CLIENT
}
port_of() { sed -n 's/^answered [a-z]* [^ ]*:\([0-9]*\) .*/\1/p' <<<"$1"; }
masquerades() { in_ns proxy nft list chain inet "$NAT_TABLE" post | grep masquerade | sed 's/.* masquerade/masquerade/' | sort | uniq -c | xargs; }
masquerades_are() { [ "$(masquerades)" = "$1" ]; }

say "the port of a living flow"
n=0
for ip in $PROXY_IP "[$PROXY6]"; do
	n=$((n + 1))
	client_bg c$n hold n=1 ping=1 to="$ip:8081" timeout=120
	wait_until 8000 eval '[ "$(n_on packet moved)" = '$n' ]' || fail "not on packet: $(engine_of moved)"
	port=$(sl flows --json | jq -r '.flows[].source' | grep -F "$([ $n = 1 ] && echo "$PROXY_BACK_IP:" || echo "[$PROXY_BACK6]:")" | sed 's/.*://')
	assert_between "source port of the flow" "$port" 40000 59999
	assert_eq "from $ip and port $port" "$(from "$port" "$(tr -d '[]' <<<"$ip")" 8082)" "answered x"
done
assert_eq "the flows are there" "$(n_on packet moved)" 2

say "other ports of the client"
assert_eq "one outside of packet.ports is kept" "$(port_of "$(from 23456 $PROXY_IP 8083)")" 23456
for port in 40000 50001 59999; do
	assert_between "instead of $port" "$(port_of "$(from $port $PROXY_IP 8083)")" 1024 39999
done

say "the rules"
both="4 masquerade 4 masquerade to :1024-39999"
assert_eq "with the packet engine" "$(masquerades)" "$both"
before=$(generation)
reload_packet "$routes
$moved"
assert_eq "transactions of a reload without a change" $(($(generation) - before)) 0
reload_packet "$routes
$(route moved 8081 "\"$BACKEND_IP:8001\"" "engine: relay")"
wait_until 5000 masquerades_are "4 masquerade" || fail "nothing for packet: $(masquerades)"
assert_eq "then it is kept" "$(port_of "$(from 50002 $PROXY_IP 8083)")" 50002
reload_packet "$routes
$(route auto 8081 "\"$BACKEND_IP:8001\"")"
wait_until 5000 masquerades_are "$both" || fail "auto: $(masquerades)"
assert_eq "nobody had to repair anything" "$(repairs)" 0
assert_match "datagrams" "$(udp_ask $PROXY_IP:8083)" "^d $PROXY_BACK_IP:"
