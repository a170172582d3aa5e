#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Many connections that are to be handed over in the same moment, again and again: none stalls, every byte
# is right, the kernel can load programs afterwards, memory comes back.
#   N= connections at once, ROUNDS=
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
N=${N:-256} ROUNDS=${ROUNDS:-2} MAX=${MAX:-400000} STALL=${STALL:-2000}
stall=$((STALL * SLOW))

server v verify 8000 stall=$stall
start_packet "after_bytes=65536 ${PACKET:-}" "routes:
$(proute v 8080 "\"$BACKEND_IP:8000\"")
$(proute v6 8081 "\"[$BACKEND6]:8000\"")"
packet_baseline
warnings=$(kernel_warnings)
sound_kernel() {
	assert_eq "warnings of the kernel" "$(kernel_warnings)" "$warnings"
	if on_packet; then
		# a program that is there is loaded anew, from its file
		timeout 20 bpftool prog load "$O/bpf/guard.bpf.o" "$(bpf_of)/loadtest" type classifier >"$LAB_DIR/load.out" 2>&1 ||
			fail "the kernel loads no program any more: $(cat "$LAB_DIR/load.out")"
		rm -f "$(bpf_of)/loadtest"
	fi
}
sound_kernel

for ((i = 1; i <= ROUNDS; i++)); do
	before=0
	if on_packet; then before=$(n_packet_total); fi
	mark_rst
	shapes=rest
	if [ $((i % 3)) = 2 ]; then shapes=duplex; fi
	client verify to=$PROXY_IP:8080 to="[$PROXY6]:8081" n="$N" burst=1 wait=200 shapes=$shapes max="$MAX" rest=500 \
		timeout=$((90 * SLOW)) stall=$stall >"$LAB_DIR/burst.out" ||
		fail "round $i: $(tail -n 1 "$LAB_DIR/burst.out"): $(tail -n 3 "$LAB_DIR/v.out.err"); $(handovers)"
	echo "round $i, $shapes: $(tail -n 1 "$LAB_DIR/burst.out" | jq -c '[.ok, .max_gap_ms, .s]') handed=$(($(on_packet && n_packet_total || echo 0) - before))"
	assert_eq "connected at the same time" "$(head -n 1 "$LAB_DIR/burst.out" | jq .ready)" "$N"
	assert_no_flow_rst "round $i" # and the relay's, for what is sent again after a close
	if on_packet && [ $shapes = rest ]; then
		assert_between "round $i: handed over; $(handovers)" $(($(n_packet_total) - before)) $((N / 2)) "$N"
	fi
	wait_until 3000 eval '[ "$(jqs .connections.active)" = 0 ]' || fail "active after round $i: $(jqs .connections.active)"
	if [ "$i" = 1 ]; then
		rss=$(rss_kib "$BASE_PID")
		memory=$(kernel_memory)
	fi
done
sound_kernel
echo "RSS grew by $(($(rss_kib "$BASE_PID") - rss)) KiB, kernel memory by $(($(kernel_memory) - memory)) KiB since the first round"
assert_between "RSS growth since round 1, KiB" $(($(rss_kib "$BASE_PID") - rss)) -1000000 $((8192 * SLOW))
assert_packet_baseline
if [ -n "${SETTLE:-}" ]; then echo "kernel memory once the entries are gone: $(($(kernel_memory) - memory)) KiB more than after the first round"; fi
verified v $((N * ROUNDS))
stop_sluice
assert_eq "exit code" "$RC" 0
