#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What others do that stops our connections although our table is right: each is named by status and log,
# with a line that cures it when it is pasted as it stands.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

nat_up
server one identify 8001
udp_server u backend 8002
local_server here identify 8011
start_nat "routes:
$(nroute four 8080 "\"$BACKEND_IP:8001\"")
$(nroute six 8081 "{ targets: \"[$BACKEND6]:8001\", preserve_source: true }")
$(uroute udp 8082 "[ \"$BACKEND_IP:8002\", \"[$BACKEND6]:8002\" ]")
$(nroute here 8083 '"127.0.0.1:8011"')"
ALL="four six udp here"

# served, or not within a moment
quick() { [ "$(client shot timeout=1 to="$1" | jq -r .end)" = eof ]; }
answered() { [[ $(udp_ask "$1" wait=500) == u\ * ]]; }
working() {
	local got=()
	quick "$PROXY_IP:8080" && got+=(four)
	quick "[$PROXY6]:8081" && got+=(six)
	if answered "$PROXY_IP:8082" && answered "[$PROXY6]:8082"; then got+=(udp); fi
	quick "$PROXY_IP:8083" && got+=(here)
	echo "${got[*]}"
}
only_work() { [ "$(working)" = "$1" ]; }
all_work() { wait_until 15000 only_work "$ALL" || fail "$1: working: $(working)"; }
worries() { jqs '.nftables.worries[]'; }
worried() { worries | grep -F -- "$1" >/dev/null; }
not_worried() { ! worried "$1"; }
paste_of() { sed 's/.*: \([a-z]\)/\1/' <<<"$1"; } # what stands behind the last ": "
no_worries() { [ -z "$(worries)" ]; }
by_nft() { in_ns proxy nft "$1" || fail "nft $1"; }

# Stopped and cured. The commands of iptables go to nft, where they are the same rules: what is pasted
# must be understood whether iptables is installed or not.
as_nft() {
	sed -E -e 's/^iptables (-t (\w+) )?-I (\S+) .*-j (ACCEPT|RETURN)$/nft insert rule ip \2 \3 ct status dnat \L\4/' \
		-e 's/^ip6tables (-t (\w+) )?-I (\S+) .*-j (ACCEPT|RETURN)$/nft insert rule ip6 \2 \3 ct status dnat \L\4/' \
		-e 's/^(nft insert rule ip6?)  /\1 filter /'
}
cured() { # WHAT STILL-WORKING NAMES SETUP...
	local what=$1 still=$2 names=$3 said
	shift 3
	say "$what"
	"$@"
	wait_until 15000 only_work "$still" || fail "working: $(working), want $still"
	wait_until 5000 worried "$names" || fail "not said: $(worries)"
	assert_match "status" "$(sl status)" 'in the way: '
	[ -z "$is_logged" ] || has_log "warn .*nftables: .*$names" || fail "no line in the log"
	for _ in 1 2 3; do
		said=$(worries | head -n 1)
		if [ -z "$said" ]; then break; fi
		echo "pasted: $(paste_of "$said")"
		in_ns proxy bash -c "$(paste_of "$said" | as_nft)" >/dev/null || fail "$said"
		wait_until 5000 not_worried "$said" || fail "said on and on: $said"
	done
	no_worries || fail "left: $(worries)"
	all_work "not cured"
	[ -z "$is_logged" ] || has_log "info .*nftables: no longer: .*$names" || fail "the log does not say that it is over"
}
without() { # FAMILY TABLE...
	while [ $# -gt 0 ]; do
		by_nft "delete table $1 $2"
		shift 2
	done
}

all_work "before"
is_logged=1
no_worries || fail "before: $(worries)"

cured "a policy" here 'table inet fw, chain pass: what it does not accept' by_nft \
	'table inet fw { chain pass { type filter hook forward priority 0; policy drop; }; }'
without inet fw

cured "a drop at the end" here 'table inet fw, chain pass: a rule drops, unless another of its rules accepts them, flows of route' by_nft \
	'table inet fw { chain pass { type filter hook forward priority 0; ct state established,related accept; iifname "lo" accept; counter drop; }; }'
without inet fw

cured "a refusal in a chain of its own, IPv4 alone" "six here" 'table ip fw, chain sub: a rule drops flows' by_nft \
	'table ip fw { chain sub { tcp dport 22 accept; reject with icmp type admin-prohibited; }
	chain pass { type filter hook forward priority 10; ct state vmap { established : accept, related : accept, invalid : drop }; jump sub; }; }'
without ip fw

cured "what comes in" "four six udp" 'table inet fw, chain in' by_nft \
	'table inet fw { chain in { type filter hook input priority 0; policy drop; ct state established,related accept; iif lo accept
	meta l4proto { icmp, ipv6-icmp } accept; tcp dport 22 accept; }; }'
without inet fw

cured "what leaves" here 'table inet fw, chain out' by_nft \
	'table inet fw { chain out { type filter hook postrouting priority 0; policy drop; ct state established accept; oifname "lo" accept
	icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }; }'
without inet fw

cured "as iptables -P FORWARD DROP" "six here" 'iptables -I FORWARD' by_nft \
	'table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; ct state related,established counter accept; }; }'
without ip filter
cured "as ip6tables -P FORWARD DROP" "four here" 'ip6tables -I FORWARD' by_nft \
	'table ip6 filter { chain FORWARD { type filter hook forward priority filter; policy drop; ct state related,established counter accept; }; }'
without ip6 filter

cured "as Docker" "six here" 'iptables -I DOCKER-USER' by_nft \
	'table ip filter { chain DOCKER-USER { }; chain DOCKER-FORWARD { ct state related,established counter accept; iifname "docker0" accept; }
	chain FORWARD { type filter hook forward priority filter; policy drop; counter jump DOCKER-USER; counter jump DOCKER-FORWARD; }; }'
without ip filter

is_logged= # the log has 30 such lines in ten minutes at most
cured "two at once" here 'table ip6 b, chain pass' by_nft \
	'table ip a { chain pass { type filter hook forward priority 0; policy drop; }; }
	table ip6 b { chain pass { type filter hook forward priority 0; policy drop; }; }'
without ip a ip6 b

cured "a mark for everybody" "$ALL" 'a rule sets the conntrack mark' by_nft \
	'table ip mangle { chain PREROUTING { type filter hook prerouting priority mangle; meta l4proto tcp ct mark set 7; }; }'
without ip mangle
cured "marks that routing reads" "$ALL" "a rule makes the conntrack mark the packet's" by_nft \
	'table inet vpn { chain pre { type filter hook prerouting priority mangle; meta mark set ct mark; }; }'
without inet vpn

say "a mark that somebody asks for: other numbers, by the configuration"
mark=$(($(mark_of four)))
by_nft "table inet qos { chain asks { type filter hook forward priority -150; ct mark $mark drop; }; }"
wait_until 5000 worried 'a rule takes the conntrack mark' || fail "not said: $(worries)"
assert_match "what to do" "$(worries)" 'mark_base: 16777216'
without inet qos
wait_until 5000 no_worries || fail "left: $(worries)"

say "firewalld's own word for it"
by_nft 'table inet firewalld { chain filter_FORWARD { type filter hook forward priority filter + 10; ct state { established, related } accept
	ct state invalid drop; reject with icmpx admin-prohibited; }; }'
wait_until 5000 worried firewalld || fail "not said: $(worries)"
line=$(worries | sed 's/.*let them through: //')
echo "StrictForwardPorts=yes" >"$LAB_DIR/firewalld.conf"
PATH=$LAB_DIR:$PATH bash -c "firewall-cmd() { cat '$LAB_DIR/firewalld.conf'; }
	${line//\/etc\/firewalld\//$LAB_DIR/}" >"$LAB_DIR/firewalld.out" || fail "$line"
assert_eq "its file, when it reads it again" "$(cat "$LAB_DIR/firewalld.out")" "StrictForwardPorts=no"
without inet firewalld
wait_until 5000 no_worries || fail "left: $(worries)"

off() { in_ns proxy sysctl -qw "$1=0"; }
cured "forwarding" "six here" 'this host does not forward: ' off net.ipv4.ip_forward
cured "forwarding of IPv6" "four here" 'this host does not forward IPv6: ' off net.ipv6.conf.all.forwarding

say "loopback: what is the daemon's to set it sets again"
off net.ipv4.conf.all.route_localnet
reaches_loopback() { [ "$(in_ns proxy sysctl -n net.ipv4.conf.all.route_localnet)" = 1 ]; }
wait_until 5000 reaches_loopback || fail "route_localnet is not put back"
all_work "loopback"

say "what others may well do is no trouble"
by_nft 'table inet fw { chain pass { type filter hook forward priority 0; policy drop; ct state established,related accept; ct status dnat accept; }
	chain in { type filter hook input priority 0; policy drop; ct state established,related accept; iif lo accept; ct status dnat accept
	meta l4proto ipv6-icmp accept; }
	chain pre { type filter hook prerouting priority -150; tcp dport 1 drop; ct state new ct mark set 9; }
	chain post { type nat hook postrouting priority 100; oifname "other" masquerade; }; }'
all_work "harmless rules"
# one that is said is found no earlier than this one
by_nft 'table ip last { chain pass { type filter hook forward priority 0; policy drop; }; }'
wait_until 5000 worried 'table ip last' || fail "not said: $(worries)"
assert_eq "and nothing else" "$(worries | wc -l)" 1
assert_eq "nobody had to repair anything" "$(repairs)" 0
