#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What can stand in the way of the kernel's NAT: somebody else's table of that name, an owner, missing
# rights, rules of others that drop, a full conntrack. It is said with what to do; other engines go on.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"
need setpriv

nat_up
server one identify 8001
server e echo 8002
text="routes:
$(nroute web 8080 "\"$BACKEND_IP:8001\"")
$(nroute echo 8082 "\"$BACKEND_IP:8002\"")
$(route relay 8081 "\"$BACKEND_IP:8001\"")"
# assert_off REGEX: the engine says so, and the others work.
says_off() { nat_is_off && [[ $(nat_text) =~ $1 ]]; }
assert_off() {
	wait_until 8000 says_off "$1" || fail "on or other words: $(nat_text)"
	shot to=$PROXY_IP:8081
	assert_eq "the relay beside it" "$(of end)" eof
	refused $PROXY_IP:8080 || fail "a route that is off: $SHOT"
	RC=0
	sl status >"$LAB_DIR/status" || RC=$?
	assert_eq "exit code of status" "$RC" 4
	assert_match "in words" "$(cat "$LAB_DIR/status")" "$1"
}

say "a table of that name that is not ours"
in_ns proxy nft 'add table inet sluice; add chain inet sluice mine'
start_sluice "$text"
assert_off 'inet sluice'
assert_eq "the table" "$(nat_table | xargs)" "table inet sluice { chain mine { } }"
say "it goes, and the engine comes without being asked"
in_ns proxy nft delete table inet sluice
wait_until 15000 nat_is_on || fail "still off: $(nat_text)"
wait_reaches $PROXY_IP:8080 one
stop_sluice

say "a table that another process owns"
mkfifo "$LAB_DIR/nft.in"
ip netns exec "$LAB-p" nft -i <"$LAB_DIR/nft.in" >/dev/null 2>&1 &
owner=$!
lab_pids+=("$owner")
exec 7>"$LAB_DIR/nft.in"
echo 'add table inet sluice { flags owner; comment "sluice ruleset 1"; }' >&7
if wait_until 3000 in_table 'flags owner'; then
	start_sluice "$text" 7>&-
	assert_off 'own|busy|another'
	exec 7>&-
	wait_until 5000 gone_or_zombie $owner || fail "nft does not end"
	wait_until 15000 nat_is_on || fail "still off: $(nat_text)"
	wait_reaches $PROXY_IP:8080 one
	stop_sluice
else
	exec 7>&-
fi

say "without the right"
WRAP="setpriv --bounding-set=-net_admin --inh-caps=-net_admin" start_sluice "$text"
assert_off '[Pp]rivilege|CAP_NET_ADMIN|not permitted|root'
stop_sluice
no_table || fail "a table without the right"

say "rules of others that drop: said with the rule that helps"
in_ns proxy nft -f - <<-'RULES'
	table inet fw {
		chain forward { type filter hook forward priority 0; policy drop; ct state vmap { established : accept, related : accept, invalid : drop }; }
		chain marks { type filter hook postrouting priority 0; ct mark set 0x100; }
	}
RULES
start_nat "$text"
trouble() { sl status || [ $? = 4 ]; }
says() { trouble | grep -F "$1" >/dev/null; }
wait_until 5000 says 'nft insert rule inet fw forward ct status dnat accept' || fail "status: $(trouble)"
says 'sets the conntrack mark' || fail "status: $(trouble)"
wait_log 'nft insert rule inet fw forward ct status dnat accept'
SHOT=$(client shot timeout=1 to=$PROXY_IP:8080 || true)
assert_eq "it is true" "$(of connect)" timeout
in_ns proxy nft insert rule inet fw forward ct status dnat accept
reaches $PROXY_IP:8080 one || fail "it does not help: $SHOT"
in_ns proxy nft insert rule inet fw marks ct status dnat return
silent() { ! says 'inet fw'; }
wait_until 70000 silent || fail "still said: $(trouble)"
in_ns proxy nft delete table inet fw

say "this host does not forward"
in_ns proxy sysctl -qw net.ipv4.ip_forward=0
reload
wait_until 5000 says 'sysctl -w net.ipv4.ip_forward=1' || fail "status: $(trouble)"
in_ns proxy sysctl -qw net.ipv4.ip_forward=1

say "a full conntrack: said, and over when there is room again"
if [ -n "${NAT_FULL:-}" ]; then # which is the whole host's
	limit=$(sysctl -n net.netfilter.nf_conntrack_max)
	restore_limit() { sysctl -qw "net.netfilter.nf_conntrack_max=$limit"; }
	trap 'restore_limit; lab_down' EXIT
	sysctl -qw net.netfilter.nf_conntrack_max=3000
	in_ns client /usr/bin/python3 -c "
import socket
for i in range(3000):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b'x', ('$BACKEND_IP', 20000 + i)); s.close()"
	wait_until 5000 says 'nf_conntrack_max' || fail "status: $(trouble)"
	refuses() { SHOT=$(client shot timeout=1 to=$PROXY_IP:8080 || true) && [ "$(of connect)" = timeout ]; }
	refuses || echo "the kernel made room: $SHOT"
	restore_limit
	wait_reaches $PROXY_IP:8080 one
fi
stop_sluice
assert_eq "exit code" "$RC" 0
