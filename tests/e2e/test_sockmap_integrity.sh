#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Randomised transfers that are queued from socket to socket from somewhere on their way: every byte checked
# by both ends, both ways, every order of closing, with small buffers, slow readers and small limits;
# nothing stalls, and within half a second of the last one nothing of them is left.
#   N= transfers of each variant, CONC= at a time, MAX= bytes each way, SEED=
#   VARIANTS="at_once random ..." only those; SHARE= per cent to be handed over where a variant wants more
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/sockmaplab.sh"
N=${N:-100} CONC=${CONC:-32} MAX=${MAX:-300000} SECONDS_MAX=${SECONDS_MAX:-60} SEED=${SEED:-$RANDOM}
VARIANTS=${VARIANTS:-at_once random in_time small_buffers slow_20k slow_20k_random slow_1m half_close pauses resets loopback}
RANDOM=$SEED
echo "SEED=$SEED"
# A flow that is stuck is stuck for good. Shorter silence is TCP's own: receivers drop tiny segments
# beyond their buffer, and the sender's timers back off; it happens without a proxy, too.
stall=$((${STALL:-5000} * SLOW))
sum=0 sum_slow=0 sum_local=0 worst=0 handed_all=0
to="to=$PROXY_IP:8080 to=[$PROXY6]:8081 to=[$PROXY6]:8082"
text="defaults: { timeouts: { close_grace: $((10 * SLOW))s } }
routes:
$(proute main 8080 "\"$BACKEND_IP:8000\"")
$(proute main6 8081 "\"[$BACKEND6]:8000\"")
$(proute mixed 8082 "\"$BACKEND_IP:8000\"")
$(proute slow 8083 "\"$BACKEND_IP:8002\"")
$(proute lo 8084 '"127.0.0.1:8001"')"
server v verify 8000 stall=$stall
server s verify 8002 stall=$stall rcvbuf=8192
local_server lv verify 8001 stall=$stall
start_sockmap "" "$text"
sockmap_baseline

# A client is done once it has written its last byte, which may be on its way for a while.
servers_are_done() { [ "$(server_field v open) $(server_field s open) $(server_field lv open)" = "0 0 0" ]; }

# transfers WHAT N SHARE ARGUMENT...
transfers() {
	local what=$1 n=$2 share=$3 lines handed spills=0
	shift 3
	if [ "$share" -gt "${SHARE:-100}" ]; then share=$SHARE; fi
	lines=$(n_access '[^ ]*') handed=$(n_ended_on "$ENGINE")
	if on_sockmap; then spills=$(n_spills); fi
	client verify n="$n" c="$CONC" max="$MAX" shapes=all rest=100 seed="$RANDOM" \
		timeout="$SECONDS_MAX" stall=$stall "$@" >"$LAB_DIR/verify.out" ||
		fail "$what: $(tail -n 1 "$LAB_DIR/verify.out") $(tail -n 3 "$LAB_DIR"/{v,s,lv}.out.err)"
	sed -i '$!d' "$LAB_DIR/verify.out" # the result
	wait_until $((SECONDS_MAX * 1000)) servers_are_done || fail "$what: servers with open connections"
	assert_sockmap_baseline "$what"
	wait_for has_access '[^ ]*' $((lines + n))
	handed=$(($(n_ended_on "$ENGINE") - handed))
	handed_all=$((handed_all + handed))
	if on_sockmap; then spills=$(($(n_spills) - spills)); fi
	printf '%-16s %s handed=%d spills=%d\n' "$what" \
		"$(jq -c '[.ok, .resets, .max_gap_ms, .max_round_ms, .s]' "$LAB_DIR/verify.out")" "$handed" "$spills"
	if [ "$(jq .max_gap_ms "$LAB_DIR/verify.out")" -gt $worst ]; then worst=$(jq .max_gap_ms "$LAB_DIR/verify.out"); fi
	assert_between "$what: ended on $ENGINE: $(moves)" "$handed" $((n * share / 100)) "$n"
	if on_sockmap && [ -n "${SPILLS:-}" ]; then assert_between "$what: spills" "$spills" 1 10000000; fi
}
main() { # WHAT SHARE ARGUMENT...
	# shellcheck disable=SC2086
	transfers "$1" "$N" "$2" $to "${@:3}"
	sum=$((sum + N))
}
slow() { # WHAT SHARE ARGUMENT...: small windows at both ends
	transfers "$1" "$N" "$2" to=$PROXY_IP:8083 rcvbuf=8192 slow=60 "${@:3}"
	sum_slow=$((sum_slow + N))
}
keys() { reload_sockmap "$*" "$text"; }
# some_bytes MAX: anywhere on the way of most transfers, small ones more often
some_bytes() { echo $((RANDOM % 2 ? RANDOM % 4096 + 1 : (RANDOM * 32768 + RANDOM) % $1 + 1)); }

at_once() {
	keys after_bytes=0
	main "at once" 40
}
random() {
	local i n=$N
	N=$(((n + 3) / 4))
	for i in 1 2 3 4; do
		keys after_bytes="$(some_bytes $((MAX / 2)))"
		main "random $i" 10
	done
	N=$n
}
in_time() { # by age: whoever is slow, or rests
	keys after_bytes=1GiB after_age=$((RANDOM % 30 + 10))ms
	main "by age" 10 shapes=mixed,rest,half,ping
}
small_buffers() {
	keys after_bytes="$(some_bytes 20000)" backlog=64KiB
	buffers proxy "4096 8192 16384" "4096 8192 30720"
	main "small buffers" 20
	buffers proxy "4096 131072 6291456" "4096 16384 4194304"
}
slow_20k() {
	keys backlog=20KiB
	buffers proxy "4096 131072 6291456" "4096 16384 30720"
	SPILLS=1 slow "slow, 20 KiB" 20 max=150000
	buffers proxy "4096 131072 6291456" "4096 16384 4194304"
}
slow_20k_random() {
	keys backlog=20KiB after_bytes="$(some_bytes 60000)"
	SPILLS=1 slow "slow, 20 KiB, random" 10 max=400000
}
slow_1m() { # more than sockets and limit take
	local n=$N c=$CONC
	N=$(((n + 9) / 10))
	keys backlog=1MiB
	buffers proxy "4096 131072 6291456" "4096 16384 65536"
	# connected first: a stream that begins with its connection may never rest, and is not taken over then
	SPILLS=1 slow "slow, 1 MiB" 40 max=3000000 shapes=up,down,duplex,rest burst=1 wait=300
	buffers proxy "4096 131072 6291456" "4096 16384 4194304"
	N=$n CONC=$c
}
half_close() {
	keys after_bytes="$(some_bytes 500)" backlog=20KiB
	main "half-close" 10 shapes=half,mixed
}
pauses() {
	keys after_bytes="$(some_bytes 1000)"
	main "pauses" 20 shapes=rest,ping,mixed rest=300
}
resets() {
	keys after_bytes=0
	main "resets" 5 rst=50
}
loopback() {
	keys after_bytes="$(some_bytes 2000)" backlog=100KiB
	transfers "loopback" "$N" 10 to=$PROXY_IP:8084
	sum_local=$((sum_local + N))
}

for variant in $VARIANTS; do $variant; done
total=$((sum + sum_slow + sum_local))
echo "$total transfers, $handed_all on $ENGINE, longest gap $worst ms"
assert_maps_empty
verified v $sum
verified s $sum_slow
verified lv $sum_local
assert_eq "ends by force" "$(access_lines '[^ ]*' | grep -cE '_reason=(error|force_cleanup|close_grace)')" 0
stop_sluice
assert_eq "exit code" "$RC" 0
