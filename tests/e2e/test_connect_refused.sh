#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Targets that refuse or cannot be reached: the client is reset at once, with the target's reason.
. "$(dirname "$0")/../lib/netlab.sh"

ip -n "$LAB-p" route add unreachable 10.99.0.0/16
start_sluice "routes:
$(route refused 8080 "\"$BACKEND_IP:1\"")
$(route nonet 8081 '"10.255.255.1:80"')
$(route nohost 8082 '"10.99.0.1:80"')"
baseline

for r in refused:8080:econnrefused nonet:8081:enetunreach nohost:8082:ehostunreach; do
	IFS=: read -r name port reason <<<"$r"
	n=0
	for _ in 1 2; do
		timely 0 100 to=$PROXY_IP:"$port"
		assert_eq "$name: the client's end" "$(of end)" reset
		n=$((n + SHOTS))
		assert_ended "$name" $n normal "$reason"
	done
done
assert_back_to_baseline


say "20 retries, 50 ms apart: the count stays at 0"
nobody() { [ "$(jqs .connections.active)" = 0 ]; }
for i in {1..20}; do
	shot to=$PROXY_IP:8080
	assert_eq "end $i" "$(of end)" reset
	sleep 0.05
	wait_until 500 nobody || fail "active after retry $i: $(jqs .connections.active)"
done

say "no source port is left, which the log says by its name"
stop_sluice
server e echo 8001
in_ns proxy sysctl -qw net.ipv4.ip_local_port_range="61000 61001"
start_sluice "routes:
$(route few 8083 "\"$BACKEND_IP:8001\"" "engine: relay")"
client_bg held hold to=$PROXY_IP:8083 n=2 ping=1 timeout=$((60 * SLOW))
wait_for has_output held
shot to=$PROXY_IP:8083
assert_eq "the client's end" "$(of end)" reset
has_log "route few: cannot connect to $BACKEND_IP:8001: error .no source port is free towards it: net.ipv4.ip_local_port_range" ||
	fail "the log does not say why"
stop_peer held
