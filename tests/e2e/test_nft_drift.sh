#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Others and our table: where the kernel knows owners it keeps them out; where not, what they do is
# repaired within 2 s, logged and counted. Their tables are theirs.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

nat_up
server s1 identify 8001
server s2 identify 8002
server e echo 8003
foreign() {
	in_ns proxy nft -f - <<-'RULES'
		table inet theirs {
			set s { type ipv4_addr; elements = { 192.0.2.1 }; }
			chain c { type filter hook forward priority 10; ip saddr @s counter drop; }
		}
		table ip other { chain c { type nat hook prerouting priority -50; tcp dport 9999 redirect to :9998; }; }
	RULES
}
theirs() { in_ns proxy nft list table inet theirs && in_ns proxy nft list table ip other; }
text="defaults: { timeouts: { drain: 1s } }
routes:
$(nroute web 8080 "[ \"$BACKEND_IP:8001\", \"$BACKEND_IP:8002\" ]" 'security: { deny: 192.0.2.0/24 }')
$(nroute echo 8081 "\"$BACKEND_IP:8003\"")
$(nroute one 8082 "\"$BACKEND_IP:8001\"")"

say "an owned table"
foreign
before=$(theirs)
start_nat "$text"
form=$(table_form)
if in_table 'flags owner'; then
	for command in "delete table inet sluice" "flush table inet sluice" "delete element inet sluice any4 { tcp . 8080 }" \
		"flush chain inet sluice dispatch" "add rule inet sluice dispatch drop"; do
		# shellcheck disable=SC2086
		if in_ns proxy nft $command 2>"$LAB_DIR/nft.err"; then fail "nft $command: done"; fi
	done
	in_ns proxy nft flush ruleset
	assert_eq "the table after a flush of everything" "$(table_form)" "$form"
	assert_eq "repairs" "$(repairs)" 0
	reaches $PROXY_IP:8082 s1 || fail "served: $SHOT"
	foreign
fi
stop_sluice
no_table || fail "a table is left"
assert_eq "other tables" "$(theirs)" "$before"

say "a table that nobody owns, as before Linux 6.9"
start_unowned() {
	in_ns proxy nft 'add table inet sluice { comment "sluice ruleset 1"; }'
	start_nat "$text"
	not_in_table 'flags owner' || fail "the table was made anew, with an owner"
}
plain_form() { table_form | sed -e 's/ # progname.*//' -e '/flags owner/d' -e '/^[ \t]*$/d'; }
start_unowned
form=$(plain_form)
client_bg held trickle to=$PROXY_IP:8081 c=10 ms=20 timeout=120
wait_records echo 10
is_whole() { [ "$(plain_form)" = "$form" ]; }
worst=0
# spoil COMMAND: within 2 s all is as it was, and it has been counted.
spoil() {
	local was took start
	was=$(repairs)
	in_ns proxy nft "$1" || fail "nft $1"
	start=$(now_ms)
	wait_until 2000 is_whole || fail "not repaired after: $1: $(diff <(plain_form) <(echo "$form"))"
	took=$(($(now_ms) - start))
	if [ $took -gt $worst ]; then worst=$took; fi
	wait_until 3000 eval "[ \$(repairs) -gt $was ]" || fail "not counted: $1"
	reaches $PROXY_IP:8082 s1 || fail "served after $1: $SHOT"
}
spoil 'delete element inet sluice any4 { tcp . 8080 }'
spoil 'delete element inet sluice to4 { 3 }'
spoil 'delete element inet sluice any4 { tcp . 8082 }; add element inet sluice any4 { tcp . 8082 : 2 }'
# a route's number is read back by its comment
spoil 'delete element inet sluice route_counter { 3 }; add element inet sluice route_counter { 3 : "route_3" }'
spoil 'flush map inet sluice any4'
spoil 'add element inet sluice masq { 77 }'
spoil 'add rule inet sluice dispatch tcp dport 8082 drop'
spoil 'insert rule inet sluice routed drop'
spoil 'flush chain inet sluice pre'
spoil 'flush chain inet sluice post'
spoil 'add element inet sluice kill { 2 }; delete element inet sluice kill { 2 }; add set inet sluice kill2 { type mark; }'
echo "slowest repair: $worst ms"
kill -0 "${PEER_PIDS[held]}" || fail "the established ones have ended"

say "one after the other, without a pause"
was=$(repairs)
in_ns proxy bash -c 'for i in {1..60}; do
	nft delete element inet sluice any4 "{ tcp . 8082 }" 2>/dev/null; nft add element inet theirs s "{ 192.0.2.$i }"; done' || true
wait_until 2000 is_whole || fail "not repaired"
wait_until 3000 eval "[ \$(repairs) -gt $was ]" || fail "not counted"
assert_between "repairs, each for one or several changes" "$(($(repairs) - was))" 1 60

say "what others do to their own is no business of ours"
foreign
was=$(repairs)
before=$(theirs)
in_ns proxy nft 'add element inet theirs s { 192.0.2.99 }; delete element inet theirs s { 192.0.2.99 }'
# whoever had heard of it would have repaired what came after it, too
spoil 'delete element inet sluice to4 { 3 }'
was=$((was + 1))
assert_eq "repairs" "$(repairs)" "$was"
assert_eq "their tables" "$(theirs)" "$before"

# wipe COMMAND: nothing of ours is left for a moment; where the kernel knows owners, the new table has one.
wipe() {
	local was
	was=$(repairs)
	in_ns proxy nft "$1"
	wait_until 2000 has_table || fail "no table after $1"
	wait_until 2000 is_whole || fail "after $1: $(diff <(plain_form) <(echo "$form"))"
	wait_until 2000 reaches $PROXY_IP:8082 s1 || fail "served after $1: $SHOT"
	wait_until 3000 eval "[ \$(repairs) -gt $was ]" || fail "not counted: $1"
}
say "the whole table, and everything"
wipe 'flush ruleset'
stop_peer held || true
stop_sluice
start_unowned
wipe 'delete table inet sluice'
has_log 'nftables: somebody has changed table inet sluice' || fail "not in the log"
assert_match "metrics" "$(http_get /metrics)" $'\nsluice_nftables_repairs_total [1-9]'
assert_match "status" "$(sl status)" 'nftables'
foreign
before=$(theirs)
stop_sluice
no_table || fail "a table is left"
assert_eq "their tables at the end" "$(theirs)" "$before"
