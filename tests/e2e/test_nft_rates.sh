#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# How fast: new connections and packets of a route, all clients together. And what it is to be refused: by
# RST, by ICMP, or by nothing at all. Rates by the minute are exact for as long as a test takes.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

nat_up
in_ns proxy sysctl -qw net.netfilter.nf_conntrack_udp_timeout=3 net.netfilter.nf_conntrack_udp_timeout_stream=3
# each refusal by ICMP is to be seen, however many there are at once
in_ns proxy sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
ip -n "$LAB-c" addr add 10.91.0.3/16 dev eth0
server one identify 8001
udp_server u backend 8003

T="[ \"$BACKEND_IP:8001\", \"[$BACKEND6]:8001\" ]"
U="[ \"$BACKEND_IP:8003\", \"[$BACKEND6]:8003\" ]"
NOBODY="{ targets: [ { address: \"$BACKEND_IP:8001\", weight: 0 } ] }"
deny='deny: [10.91.0.2, "fd91::2"]'
conf() { # PACKETS of the route `datagrams`
	cat <<-TEXT
		routes:
		$(nroute minute 8080 "$T" 'security: { new_connections: 3/m }')
		$(nroute second 8081 "$T" 'security: { new_connections: 2/s, refuse: icmp }')
		$(uroute flows 8082 "$U" 'security: { new_connections: 3/m }')
		$(uroute datagrams 8083 "$U" "security: { packets: $1 }")
		$(nroute reset 8090 "$T" "security: { $deny, refuse: reset }")
		$(nroute icmp 8091 "$T" "security: { $deny, refuse: icmp }")
		$(nroute drop 8092 "$T" "security: { $deny, refuse: drop }")
		$(uroute ureset 8090 "$U" "security: { $deny, refuse: reset }")
		$(uroute uicmp 8091 "$U" "security: { $deny, refuse: icmp }")
		$(uroute udrop 8092 "$U" "security: { $deny, refuse: drop }")
		$(nroute none-reset 8093 "$NOBODY" 'security: { refuse: reset }')
		$(nroute none-icmp 8094 "$NOBODY" 'security: { refuse: icmp }')
		$(nroute none-drop 8095 "$NOBODY" 'security: { refuse: drop }')
		$(nroute limit-drop 8096 "$T" 'security: { new_connections: 1/m, refuse: drop }')
	TEXT
}
start_nat "$(conf 4/m)"
nat_baseline
served() { shot "$@" && [ "$(of end)" = eof ]; }
# meets ERRNO TO [ARGUMENT...]: refused with that: at once by RST; by ICMP, which in a lab without
# distances may come while connect() still holds the socket and then counts only as a hint, by the second
# or third SYN
meets() {
	local error=$1 to=$2 ms=500
	shift 2
	if [ "$error" != ECONNREFUSED ]; then ms=3500; fi
	shot to="$to" "$@"
	[ "$(of connect_errno)" = "$error" ] && [ "$(of end)" = none ] && [ "$(of end_ms | cut -d. -f1)" -lt $((ms * SLOW)) ]
}
meets_silence() { # TO [ARGUMENT...]
	local to=$1
	shift
	SHOT=$(client shot timeout=5 to="$to" "$@" || true)
	[ "$(of connect)" = timeout ] && [ -z "$(of connect_errno)" ]
}

say "the kernel has them"
in_table 'limit rate over 3/minute burst 3 packets goto refuse_reset comment "minute"' || fail "no limit: $(nat_table)"
in_table 'limit rate over 2/second burst 2 packets goto refuse_icmp comment "second"' || fail "no limit: $(nat_table)"
in_table 'limit rate over 4/minute burst 4 packets drop comment "datagrams"' || fail "no limit: $(nat_table)"

say "so many new connections of all clients together"
served to=$PROXY_IP:8080 src=10.91.0.2 || fail "the first: $SHOT"
served to=$PROXY_IP:8080 src=10.91.0.3 || fail "the second, of another: $SHOT"
served to="[$PROXY6]:8080" || fail "the third, by IPv6: $SHOT"
for src in 10.91.0.2 10.91.0.3; do
	meets ECONNREFUSED $PROXY_IP:8080 src=$src || fail "the fourth, of $src: $SHOT"
done
meets ECONNREFUSED "[$PROXY6]:8080" || fail "nor by IPv6: $SHOT"
assert_eq "counted are those that were let in" "$(n_counted minute)" 3
assert_eq "UDP: so many flows" "$(udp_ask $PROXY_IP:8082 n=5 | cut -d' ' -f1 | xargs)" "u u u refused refused"

say "and there is room again, by and by"
# eight at once: one after the other they may be no more than two in a second
too_many() {
	SHOT=$(in_ns client bash -c 'for _ in {1..8}; do "$0" shot timeout=15 to="$1" & done; wait' "$PEERS/peer_client" \
		$PROXY_IP:8081 | grep EHOSTUNREACH | head -n 1) && [ "$(of end)" = none ]
}
wait_until 10000 too_many || fail "never too many: $SHOT"
wait_until 5000 served to=$PROXY_IP:8081 || fail "never again: $SHOT"

say "so many packets: the first of a flow does not count, the flow outlives those that are dropped"
# five are answered: it and four more
answers() { udp_ask "$@" keep=1 wait=200 | cut -d' ' -f1 | xargs; }
assert_eq "one flow" "$(answers $PROXY_IP:8083 n=8)" "u u u u u silence silence silence"
assert_eq "the next has its first" "$(answers "[$PROXY6]:8083" n=3)" "u silence silence"
udp_flow busy $PROXY_IP:8083
wait_for flow_is busy silence
reload "$(conf 1000/s)"
wait_for flow_is busy u
in_table 'limit rate over 1000/second burst 1000 packets drop comment "datagrams"' || fail "no other limit: $(nat_table)"
assert_eq "more by now" "$(answers $PROXY_IP:8083 n=8)" "u u u u u u u u"
reload "$(conf 0)"
not_in_table 'limit rate over .* comment "datagrams"' || fail "a limit is left: $(nat_table)"
assert_eq "without a limit" "$(answers $PROXY_IP:8083 n=8)" "u u u u u u u u"
assert_eq "the same flow throughout" "$(flow_of busy)" u
stop_peer busy || true

say "who is not let in meets RST, ICMP, silence"
for p in 8090 8091 8092; do
	served to=$PROXY_IP:$p src=10.91.0.3 || fail "let in, $p: $SHOT"
	assert_match "let in, datagram, $p" "$(udp_ask $PROXY_IP:$p src=10.91.0.3)" '^u '
done
meets ECONNREFUSED $PROXY_IP:8090 src=10.91.0.2 || fail "reset: $SHOT"
meets EHOSTUNREACH $PROXY_IP:8091 src=10.91.0.2 || fail "icmp: $SHOT"
meets_silence $PROXY_IP:8092 src=10.91.0.2 || fail "drop: $SHOT"
meets ECONNREFUSED "[$PROXY6]:8090" src="[fd91::2]" || fail "reset, IPv6: $SHOT"
meets EACCES "[$PROXY6]:8091" src="[fd91::2]" || fail "icmp, IPv6: $SHOT"
meets_silence "[$PROXY6]:8092" src="[fd91::2]" || fail "drop, IPv6: $SHOT"
assert_eq "datagram, reset" "$(udp_ask $PROXY_IP:8090 src=10.91.0.2)" refused
assert_eq "datagram, icmp" "$(udp_ask $PROXY_IP:8091 src=10.91.0.2)" "error 113" # EHOSTUNREACH
assert_eq "datagram, drop" "$(udp_ask $PROXY_IP:8092 src=10.91.0.2)" silence

say "so do all where no target is left"
meets ECONNREFUSED $PROXY_IP:8093 || fail "reset: $SHOT"
meets EHOSTUNREACH $PROXY_IP:8094 || fail "icmp: $SHOT"
meets_silence $PROXY_IP:8095 || fail "drop: $SHOT"

say "and those that are too many"
served to=$PROXY_IP:8096 || fail "the first: $SHOT"
meets_silence $PROXY_IP:8096 || fail "the second: $SHOT"
assert_eq "nobody had to repair anything" "$(repairs)" 0
assert_nat_baseline
