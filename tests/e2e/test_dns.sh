#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Names: changes are followed by TTL, the last good answer outlives the server, /etc/hosts counts.
. "$(dirname "$0")/../lib/netlab.sh"
need dnsmasq

mkdir -p "/etc/netns/$LAB-p"
echo "nameserver 127.0.0.1
options timeout:1 attempts:1" >"/etc/netns/$LAB-p/resolv.conf"
echo "127.0.0.1 localhost
$BACKEND_IP fixed.test" >"/etc/netns/$LAB-p/hosts"
ip -n "$LAB-b" addr add 10.92.0.3/16 dev eth0
server one identify 8001
OUT=$LAB_DIR/two.out spawn backend "$PEERS/peer_server" identify listen=10.92.0.3:8001 timeout=300 name=two

names() { # ADDRESS
	echo "$1 web.test" >"$LAB_DIR/names"
}
start_dns() {
	OUT=$LAB_DIR/dns.out spawn proxy dnsmasq --keep-in-foreground --no-resolv --no-hosts \
		--addn-hosts="$LAB_DIR/names" --local-ttl=1 --listen-address=127.0.0.1 \
		--bind-interfaces --user=root --pid-file= --conf-file=/dev/null --local=/test/
	DNS=$LAST
	wait_for dns_up
}
dns_up() { in_ns proxy ss -Hlun 'sport = :53' | grep -q .; }
reaches() { # PORT NAME
	shot to=$PROXY_IP:"$1"
	[ "$(of text | cut -d' ' -f1)" = "$2" ]
}

names $BACKEND_IP
start_dns
start_sluice "defaults: { timeouts: { connect: 2s } }
routes:
$(route web 8080 '"web.test:8001"')
$(route hosts 8081 '"fixed.test:8001"')
$(route never 8082 '"nosuch.test:8001"')"

say "by DNS and by /etc/hosts"
wait_for reaches 8080 one
wait_for reaches 8081 one

say "a name that was never known: backend_down"
shot to=$PROXY_IP:8082
assert_eq "the client's end" "$(of end)" reset
wait_access never
assert_eq "reasons" "$(access never client_reason) $(access never backend_reason)" "backend_down -"
assert_eq "target state" "$(jqs '.routes[] | select(.name == "never").targets[0].state')" unresolved

say "the name moves: followed within its TTL of 1 s"
names 10.92.0.3
kill -HUP "$DNS"
wait_until 4000 reaches 8080 two || fail "the change is not followed"

say "DNS is dead: the last good answer stays"
kill -KILL "$DNS"
wait_for eval '! dns_up'
client rate to=$PROXY_IP:8080 t=4 c=1 pause=50 expect=3 timeout=20
wait_for reaches 8080 two
shot to=$PROXY_IP:8082
assert_eq "unknown name" "$(of end)" reset

say "DNS is back, with another address"
names $BACKEND_IP
start_dns
wait_until 15000 reaches 8080 one || fail "not followed after DNS came back"
