#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# allow and deny, global and per route, as CIDR, ranges and globs; enforced after the match.
. "$(dirname "$0")/../lib/netlab.sh"

server e echo 8000
target="\"$BACKEND_IP:8000\""

served() { # PORT SOURCE
	shot to=$PROXY_IP:"$1" src="$2" send=x stop=1
	assert_eq "$2 on $1" "$(of end)" stopped
}
refused() { # PORT SOURCE ROUTE
	local n
	n=$(n_access "$3")
	shot to=$PROXY_IP:"$1" src="$2" send=x stop=1
	assert_eq "$2 on $1" "$(of end)" reset
	assert_ended "$3" $((n + 1)) route_ip_blocked -
}

GLOBAL='  security: { deny: ["10.91.128.66", "10.91.129.?"], enforce: userspace }' start_sluice "routes:
$(route open 8080 "$target")
$(route deny 8081 "$target" 'security: { deny: [10.91.130.0/24, 10.91.131.10-10.91.131.20, "10.91.132.*"] }')
$(route allow 8082 "$target" 'security: { allow: ["10.91.13?.*"] }')
$(route both 8083 "$target" 'security: { allow: [10.91.128.0/17], deny: [10.91.140.7] }')"
baseline

say "a list of the whole daemon"
served 8080 10.91.128.65
refused 8080 10.91.128.66 open
refused 8080 10.91.129.7 open
served 8080 10.91.129.17

say "CIDR, range and glob of a route"
for ip in 10.91.130.1 10.91.131.10 10.91.131.20 10.91.132.255; do refused 8081 $ip deny; done
for ip in 10.91.131.9 10.91.131.21 10.91.133.1; do served 8081 $ip; done

say "allow alone: nobody else"
served 8082 10.91.130.1
served 8082 10.91.139.1
refused 8082 10.91.140.1 allow
refused 8082 10.91.128.1 allow

say "deny wins"
served 8083 10.91.140.6
refused 8083 10.91.140.7 both
refused 8083 10.91.128.66 both
assert_eq "counted" "$(n_rejected route_ip_blocked)" 10
assert_back_to_baseline

say "a change of lists closes nothing"
client_bg long trickle to=$PROXY_IP:8080 c=1 ms=20 timeout=60 src=10.91.128.50
one_open() { [ "$(jqs .connections.active)" = 1 ]; }
wait_for one_open
GLOBAL='  security: { deny: [10.91.128.0/24], enforce: userspace }' reload "routes:
$(route open 8080 "$target")"
refused 8080 10.91.128.50 open
assert_eq "the one before goes on" "$(jqs .connections.active)" 1

say "unless asked"
sl kill --route open --client 10.91.128.0/24 >/dev/null
none_open() { [ "$(jqs .connections.active)" = 0 ]; }
wait_for none_open
assert_match "its reason" "$(access_lines open | tail -n 1)" 'client_reason=killed backend_reason=killed'
join_peer long
