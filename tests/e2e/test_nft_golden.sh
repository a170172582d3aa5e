#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What the daemon makes of whole configurations, to the letter: tests/nft/golden/NAME.yaml and the table
# that it gives, NAME.nft, as nft 1.0.6 shows it. Nothing changes it but a change: no reload, no other order
# of the routes, no death and start, no other table. UPDATE=1 writes the tables anew: read the difference.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

GOLDEN=$PWD/tests/nft/golden
in_ns proxy sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
nft_version=$(nft --version | sed 's/.* v\([0-9.]*\).*/\1/')

# Without what counts and who owns it; of long maps of slots the sum, which tells as well what moved.
plain() {
	sed -e 's/ # progname.*//' -e '/^\tflags/d' -e '/^$/d' -e 's/packets [0-9]* bytes [0-9]*/packets 0 bytes 0/' |
		/usr/bin/python3 -c '
import re, sys, zlib
def short(m):
    slots = re.sub(r"\s+", " ", m.group(1))
    n = slots.count(",") + 1
    return m.group(0) if n < 20 else "elements = { # %d slots, %08x\n" % (n, zlib.crc32(slots.encode()))
print(re.sub(r"elements = (\{ 0 : [^}]*\})\n", short, sys.stdin.read()), end="")'
}
shown() { nat_table | plain; }
as_golden() { diff -u "$GOLDEN/$1.nft" <(shown) >"$LAB_DIR/diff"; }
assert_golden() { # NAME WHEN
	as_golden "$1" || fail "$1, $2: $(cat "$LAB_DIR/diff")"
}
objects() { awk '$2 ~ /^[a-z0-9_]+$/ && $3 == "{" { print $1, $2 }' | sort; }
# Settings as a fresh host has them: what they were stands in the table.
fresh_settings() {
	in_ns proxy sysctl -qw net.netfilter.nf_conntrack_acct=0 net.netfilter.nf_conntrack_timestamp=0 \
		net.netfilter.nf_conntrack_events=2 net.ipv4.conf.all.route_localnet=0
}
# The table of a namespace of its own, which has loaded the text.
reloaded() {
	ip netns exec "$LAB-b" nft flush ruleset
	nat_table | sed '/^\tflags/d' | ip netns exec "$LAB-b" nft -f - || fail "nft -f"
	ip netns exec "$LAB-b" nft list table inet "$NAT_TABLE" | plain
}

one() { # NAME TEXT
	local before now others
	say "$1"
	fresh_settings
	start_nat "$2"
	if [ -n "${UPDATE:-}" ]; then shown >"$GOLDEN/$1.nft"; fi
	if [ "$nft_version" != 1.0.6 ]; then
		# which has words of its own
		assert_eq "$1, by nft $nft_version: objects" "$(shown | objects)" "$(objects <"$GOLDEN/$1.nft")"
	else
		assert_golden "$1" "loaded"
	fi
	assert_eq "$1: nft -f of it" "$(diff <(shown) <(reloaded))" ""

	before=$(generation)
	reload "$2"
	reload "$2"
	sl reload >/dev/null || fail "reload"
	now=$(generation)
	assert_eq "$1: transactions of reloads without a change" $((now - before)) 0

	shown >"$LAB_DIR/before"
	others=$(jqs '.processes | .broker, .proxy')
	kill -KILL "$SLUICE_PID" && wait "$SLUICE_PID" 2>/dev/null || true
	wait_for others_gone
	start_nat "$2"
	assert_eq "$1: after death and start" "$(diff "$LAB_DIR/before" <(shown))" ""
	stop_sluice
	assert_eq "exit code" "$RC" 0
	no_table || fail "$1: a table is left"
	assert_eq "$1: settings" "$(ct_setting acct) $(ct_setting timestamp) $(ct_setting events) $(in_ns proxy sysctl -n net.ipv4.conf.all.route_localnet)" "0 0 2 0"
}
others_gone() {
	local pid
	for pid in $others; do gone "$pid" || return 1; done
}

for name in listeners balance policy; do one $name "$(cat "$GOLDEN/$name.yaml")"; done
export GLOBAL="  packet: { ports: 20000-39999 }"
one ports "$(cat "$GOLDEN/ports.yaml")"
unset GLOBAL
# its targets with health checks are there
for ip in 10.0.0.11 10.0.0.12; do ip -n "$LAB-p" addr add $ip/32 dev lo; done
OUT=$LAB_DIR/web.out spawn proxy "$PEERS/peer_server" identify listen=10.0.0.11:80 listen=10.0.0.12:80 timeout=300 name=web
wait_for listening proxy 80
one example "$(sed -n '/^defaults:/,$p' docs/examples/nftables.yaml)"

say "lists of all, another table, numbers from another base"
printf '198.51.100.0/24\n2001:db8:bad::/48\n' >"$LAB_DIR/deny.txt"
NAT_TABLE=other
export GLOBAL="  nft_table: other
  nftables: { mark_base: 16777216 }
  security: { allow: [192.0.2.0/24, 10.0.0.0/8, \"2001:db8::/32\"], deny: [10.0.0.66], deny_file: $LAB_DIR/deny.txt }"
one global "$(cat "$GOLDEN/policy.yaml")"
unset GLOBAL
NAT_TABLE=sluice

say "another order of routes, one more and one less: numbers stay"
fresh_settings
policy=$(cat "$GOLDEN/policy.yaml")
start_nat "$policy"
shown >"$LAB_DIR/before"
before=$(generation)
reordered=$({
	echo "defaults: { engine: nftables }"
	echo "routes:"
	grep -E '^  - \{' "$GOLDEN/policy.yaml" | tac
	sed -n '/- name: limits/,/security/p;' "$GOLDEN/policy.yaml"
	sed -n '/- name: lists/,/security/p' "$GOLDEN/policy.yaml"
})
reload "$reordered"
assert_eq "order" "$(diff "$LAB_DIR/before" <(shown))" ""
assert_eq "transactions" $(($(generation) - before)) 0
reload "$policy
$(nroute more 90 '"10.0.0.5:90"')"
assert_eq "number of one more" "$(($(mark_of more)))" 8
reload "$(grep -v 'name: open' <<<"$policy")
$(nroute more 90 '"10.0.0.5:90"')"
assert_eq "numbers" "$(($(mark_of lists))) $(($(mark_of nobody))) $(($(mark_of more)))" "2 7 8"
wait_until 10000 not_in_table '"open"' || fail "the removed one is there"
reload "$policy"
as_before() { diff <(sort "$LAB_DIR/before") <(shown | sort) >"$LAB_DIR/diff"; }
wait_until 10000 as_before || fail "not as it was, but for the order of objects: $(cat "$LAB_DIR/diff")"
assert_eq "nobody had to repair anything" "$(repairs)" 0
