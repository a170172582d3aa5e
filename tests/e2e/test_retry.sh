#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Several targets: round robin, and the next one when a connect fails before any byte was sent.
. "$(dirname "$0")/../lib/netlab.sh"

for i in 1 2 3; do server "s$i" identify 800$i; done
server silent silent 8009
T=$BACKEND_IP
start_sluice "routes:
$(route rr 8080 "[\"$T:8001\", \"$T:8002\", \"$T:8003\"]")
$(route skip 8081 "[\"$T:1\", \"$T:8002\", \"$T:2\"]")
$(route few 8082 "{ targets: [ { address: \"$T:1\" }, { address: \"$T:2\" }, { address: \"$T:3\" }, { address: \"$T:8001\" } ], retries: 1 }")
$(route none 8083 "{ targets: [ { address: \"$T:1\" }, { address: \"$T:8001\" } ], retries: 0 }")
$(route dead 8084 "[\"$T:1\", \"$T:2\"]")
$(route slow 8085 "[\"$T:8009\", \"$T:8003\"]" 'timeouts: { connect: 300ms }')"
baseline

say "round robin: 30 connections, 10 each"
for _ in {1..30}; do
	shot to=$PROXY_IP:8080
	of text | head -n 1 | cut -d' ' -f1
done | sort | uniq -c | awk '{ print $2 "=" $1 }' >"$LAB_DIR/spread"
assert_eq "spread" "$(xargs <"$LAB_DIR/spread")" "s1=10 s2=10 s3=10"
assert_eq "targets counted" "$(jqs '[.routes[0].targets[].active] | add')" 0

say "two of three refuse: every connection is served"
for i in {1..12}; do
	shot to=$PROXY_IP:8081
	assert_match "connection $i" "$(of text)" "^s2 "
done
wait_access skip 12
assert_eq "the access line names the target that served" "$(access skip backend) $(access skip backend_reason)" "$T:8002 normal"

served_of() { # N PORT
	local n=0 i
	for ((i = 0; i < $1; i++)); do
		shot to=$PROXY_IP:"$2"
		if [ "$(of end)" = eof ]; then n=$((n + 1)); fi
	done
	echo $n
}

say "retries: 1 is two attempts: one good target of four is found by some"
assert_between "served of 4" "$(served_of 4 8082)" 1 3
say "retries: 0 is one attempt, until three failures in a row have marked the target"
assert_eq "served of 6, three of them to the dead target" "$(served_of 6 8083)" 3
# for 1 s, then 2, 4, ..., of which a busy machine may take the first
failing() { jqs '.routes[] | select(.name == "none").targets[] | select(.state == "failing").address'; }
is_left_out() { [ "$(served_of 6 8083) $(failing)" = "6 $T:1" ]; }
wait_until 10000 is_left_out || fail "not left out: $(served_of 6 8083) of 6 served; failing: $(failing)"

say "all refuse"
shot to=$PROXY_IP:8084
assert_eq "the client's end" "$(of end)" reset
assert_ended dead 1 normal econnrefused

say "a silent target: the next one after the connect deadline"
for _ in 1 2; do
	timely 0 400 to=$PROXY_IP:8085 send=x
	assert_match "served" "$(of text)" "^s3 "
done

say "bytes that came before the backend was there are not lost over a retry"
server e echo 8010
reload "routes:
$(route echo 8086 "[\"$T:1\", \"$T:8010\"]")"
for _ in 1 2 3 4; do
	shot to=$PROXY_IP:8086 up=100000 fin=1
	assert_eq "echoed" "$(of got) $(of hash_in)" "100000 $(of hash_out)"
done
assert_back_to_baseline
