#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Differences between the table and what the configuration wants, made by hand with nft under live traffic:
# each is found within 2 s without being asked for, healed, counted, and reads in `sluice diff` as what it
# was. Established connections notice nothing, tables of others stay as they are. What is repaired, and how
# soon, is test_nft_drift's business; here it is what is said of it.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"
. "$(dirname "$0")/../lib/driftlab.sh"

nat_up
server s1 identify 8001
server s2 identify 8002
server e echo 8004
server l long 8003 stall=$((8000 * SLOW))
text="routes:
$(nroute web 8080 "[ \"$BACKEND_IP:8001\", \"$BACKEND_IP:8002\" ]" 'security: { deny: 192.0.2.0/24 }')
$(nroute one 8082 "\"$BACKEND_IP:8004\"")
$(nroute bulk 8083 "\"$BACKEND_IP:8003\"")"

say "a table that nobody owns, as before Linux 6.9"
in_ns proxy nft 'add table inet sluice { comment "sluice ruleset 1"; }'
in_ns proxy nft -f - <<-'RULES'
	table inet theirs {
		set s { type ipv4_addr; elements = { 192.0.2.1 }; }
		chain c { type filter hook forward priority 10; ip saddr @s counter drop; }
	}
RULES
theirs() { in_ns proxy nft list table inet theirs; }
start_nat "$text"
not_in_table 'flags owner' || fail "the table was made anew, with an owner"
plain_form() { table_form | sed -e 's/ # progname.*//' -e '/flags owner/d' -e '/^[ \t]*$/d'; }
form=$(plain_form)
is_whole() { [ "$(plain_form)" = "$form" ]; }
before=$(theirs)

client_bg quiet hold to=$PROXY_IP:8082 n=3 ping=1 timeout=$((600 * SLOW))
wait_for has_output quiet
client_bg long long to=$PROXY_IP:8083 c=2 t=600 rate=${RATE:-40000000} stall=$((8000 * SLOW)) timeout=600
wait_records one 3
wait_records bulk 2
wait_until 5000 long_moved long 5 || fail "nothing moves"

say "nothing differs"
looks
echo "$DIFF"
assert_match "the diff" "$DIFF" $'(^|\n)nftables: 5 connections in the records, 5 known to the broker; compared: 3 routes in table inet sluice'
assert_match "the diff" "$DIFF" $'\nno difference in the last 10 minutes; totals since start: none$'
is_whole || fail "a look has changed the table: $(diff <(plain_form) <(echo "$form"))"

# spoil N COMMAND: so many objects differ, and are as they were within a period.
HOW="somebody had changed table inet sluice"
spoil() {
	in_ns proxy nft "$2" || fail "nft $2"
	wait_until $PERIOD is_whole || fail "not repaired after: $2: $(diff <(plain_form) <(echo "$form"))"
	drill nft_table "$1"
	goes_on long "after: $2"
}
mark=$(mark_of one)

say "an element, and one with another value"
spoil 1 'delete element inet sluice any4 { tcp . 8082 }'
hunk "--- records" "+++ kernel" "@@ nftables: table @@" "-element tcp . 8082 : $mark of map any4 (one)" "+missing" " repaired: $HOW %"
spoil 1 "delete element inet sluice to4 { $mark }; add element inet sluice to4 { $mark : 10.9.9.9 . 99 }"
hunk "-element $mark : $BACKEND_IP . 8004 of map to4 (one)" "+element $mark : 10.9.9.9 . 99 of map to4" " repaired: $HOW %"
spoil 1 'add element inet sluice masq { 77 }'
hunk "-nothing" "+element 0x0000004d of set masq" " removed: $HOW %"

say "a set is flushed"
spoil 3 'flush map inet sluice any4'
hunk "-element tcp . 8080 : $(mark_of web) of map any4 (web)" "+missing" " repaired: $HOW %"
assert_eq "of one that was deleted before, too" "$(sl diff --json | jq '[.differences[] | select(.wanted != null and (.wanted | startswith("element tcp . 8082 "))) | .times]' -c)" '[2]'

say "rules"
rules=$(in_ns proxy nft -j list chain inet sluice pre | jq '[.nftables[] | select(.rule)] | length')
spoil "$rules" 'flush chain inet sluice pre'
hunk "-rule 1 of chain pre" "+missing" " repaired: $HOW %"
foreign=$(($(in_ns proxy nft -j list chain inet sluice dispatch | jq '[.nftables[] | select(.rule)] | length') + 1))
spoil 1 'add rule inet sluice dispatch tcp dport 8082 drop'
hunk "-nothing" "+rule $foreign of chain dispatch" " removed: $HOW %"

assert_eq "their table" "$(theirs)" "$before"
stop_peer long
assert_eq "the transfer: $RESULT $(cat "$LAB_DIR/long.out.err")" "$RC" 0

say "the whole table"
in_ns proxy nft delete table inet sluice
wait_until $PERIOD is_whole || fail "not made again: $(diff <(plain_form) <(echo "$form"))"
drill nft_table 1
hunk "-table inet sluice" "+missing" " repaired: $HOW %"
shot to=$PROXY_IP:8082 send=x fin=1
assert_eq "served" "$(of end) $(of text)" "eof x"
stop_peer quiet
assert_eq "the quiet ones: $RESULT $(cat "$LAB_DIR/quiet.out.err")" "$RC" 0

say "settings of the host"
in_ns proxy sysctl -qw net.netfilter.nf_conntrack_acct=0
drill nft_setting 1
hunk "@@ nftables: settings @@" "-net.netfilter.nf_conntrack_acct, _timestamp, _events: 1" "+another value" " repaired: set again %"
assert_eq "the setting" "$(ct_setting acct)" 1

say "what is not ours stays, and is no difference"
before=$(theirs)
in_ns proxy nft 'add element inet theirs s { 192.0.2.99 }'
looks
assert_eq "counted" "$(drift_sum)" "$SUM"
assert_match "their table" "$(theirs)" '192.0.2.99'
stop_sluice
assert_eq "exit code" "$RC" 0

say "what cannot be healed"
in_ns proxy nft add table inet sluice
start_sluice "$text"
wait_for eval '[[ "$(nat_text)" == *"not of this program"* ]]'
looks 4
echo "$DIFF"
hunk "@@ nftables: table @@" "-the table as the configuration wants it" "+missing" " left as it is: off: table inet sluice is there and not of this program %"
assert_eq "as JSON" "$(sl diff --json | jq -c '[.left, .waiting]')" "[1,0]"
in_ns proxy nft delete table inet sluice
wait_until 8000 nat_is_on || fail "still off: $(nat_text)"
looks
stop_sluice
