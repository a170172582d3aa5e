#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A backend that stops reading: the daemon's memory stays bounded, and nothing is lost.
. "$(dirname "$0")/../lib/netlab.sh"

server s sink 8001 paused=1 reply=1
server src source 8002 n=200000000
start_sluice "routes:
$(route up 8081 "\"$BACKEND_IP:8001\"")
$(route down 8082 "\"$BACKEND_IP:8002\"")"
baseline
pid=$(proxy_pid)

up_bytes() { jqs '.routes[] | select(.name == "up").bytes_up'; }
stuck() { # no byte between two looks
	local a
	a=$(up_bytes)
	sleep 0.15
	[ "$a" != 0 ] && [ "$a" = "$(up_bytes)" ]
}

client shot to=$PROXY_IP:8081 up=1000 close_ms=100 timeout=5 >/dev/null || true # warmed up
rss=$(rss_kib "$pid")
say "200 MB against a stopped reader"
client_bg up shot to=$PROXY_IP:8081 up=200000000 fin=1 timeout=60
wait_for stuck
assert_between "bytes taken while the reader stands" "$(up_bytes)" 1 150000000
cpu=$(cpu_ms "$pid")
sleep 1 # the time over which a stuck flow must cost nothing
assert_between "CPU ms in 1 s of standstill" $(($(cpu_ms "$pid") - cpu)) 0 100
assert_between "RSS growth, KiB" $(($(rss_kib "$pid") - rss)) -100000 $((4096 * SLOW))

say "the reader goes on: everything arrives"
kill -USR2 "${PEER_PIDS[s]}"
join_shot up
assert_eq "the client's end" "$(of end)" eof
assert_eq "the sink's answer" "$(of text)" "200000000 $(of hash_out)"
assert_between "RSS growth, KiB" $(($(rss_kib "$pid") - rss)) -100000 $((4096 * SLOW))

say "a client that stops reading a download of 200 MB"
client_bg down shot to=$PROXY_IP:8082 hold=1 close_ms=1500 timeout=20
join_peer down
assert_between "RSS growth, KiB" $(($(rss_kib "$pid") - rss)) -100000 $((4096 * SLOW))
assert_back_to_baseline
