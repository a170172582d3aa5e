#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Randomised transfers that are handed over somewhere on their way: every byte checked by both ends, no
# reset by the proxy's stack, no stall; with each option of TCP there or missing, on one side or both.
#   N= transfers of each variant, CONC= at a time, MAX= bytes each way, SCALE_N= for window scales
#   VARIANTS="plain wrap ..." only those; SHARE= per cent to be handed over where a variant wants more
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
N=${N:-80} CONC=${CONC:-32} MAX=${MAX:-400000} SCALE_N=${SCALE_N:-$N} SECONDS_MAX=${SECONDS_MAX:-60}
STALL=${STALL:-2000} RST=${RST:-0}
all="plain offloads_off wrap loopback local_client both_local resets timestamps_off sack_off scaling_one_sided ecn_one_sided scales timestamps_one_sided sack_one_sided"
VARIANTS=${VARIANTS:-$all}

# What XDP needs to forward: forwarding, finished checksums, and a veth that takes redirected frames.
for_xdp() {
	in_ns proxy sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	for ns in client backend; do in_ns $ns ethtool -K eth0 tx off tso off gso off gro on >/dev/null 2>&1; done
}

stall=$((STALL * SLOW))
server v verify 8000 stall=$stall
local_server lv verify 8001 stall=$stall
server s verify "$(echo {8100..8114} | tr ' ' ,)" stall=$stall scales=1
server e echo 8002
case "${PACKET:-}" in *hook=xdp*) for_xdp ;; esac
start_packet "${PACKET:-}" "defaults: { timeouts: { close_grace: $((5 * SLOW))s } }
routes:
$(proute main 8080 "\"$BACKEND_IP:8000\"")
$(proute main6 8081 "\"[$BACKEND6]:8000\"")
$(proute lo 8082 '"127.0.0.1:8001"')
$(proute lo6 8083 '"[::1]:8001"')
$(proute scales 8084 "[$(printf "\"$BACKEND_IP:%d\", " {8100..8114})]")
$(proute echo 8085 "\"$BACKEND_IP:8002\"")"
packet_baseline
sum=0 sum_local=0 sum_scales=0
to="to=$PROXY_IP:8080 to=[$PROXY6]:8081"
worst=0

# transfers WHAT NS N SHARE ARGUMENT...: in up to three batches, of which one must have its share on packet, for a
# processor that is late finds few of so short transfers with nothing under way. All are checked alike.
transfers() {
	local what=$1 share=$4 handed=0
	if [ "$share" -gt "${SHARE:-100}" ]; then share=$SHARE; fi
	for ((batches = 1; batches <= 3; batches++)); do
		batch "$1" "$2" "$3" "${@:5}"
		if ! on_packet || [ "$handed" -ge $(($3 * share / 100)) ]; then return; fi
	done
	fail "$what: handed over: $handed of $3, want $share %: $(handovers)"
}
batch() { # WHAT NS N ARGUMENT...: handed
	local what=$1 ns=$2 n=$3 before total=0
	shift 3
	if on_packet; then before=$(n_packet_total); fi
	mark_rst
	in_ns "$ns" "$PEERS/peer_client" verify n="$n" c="$CONC" max="$MAX" shapes=all rest=300 \
		timeout="$SECONDS_MAX" stall=$stall "$@" >"$LAB_DIR/verify.out" ||
		fail "$what: $(tail -n 1 "$LAB_DIR/verify.out") $(tail -n 3 "$LAB_DIR"/*v.out.err)"
	if on_packet; then total=$(($(n_packet_total) - before)); fi
	printf '%-24s %s handed=%d rst=%d\n' "$what" "$(jq -c '[.ok, .resets, .max_gap_ms, .max_round_ms, .s]' "$LAB_DIR/verify.out")" $total "$(n_rst)"
	if [ "$(jq .max_gap_ms "$LAB_DIR/verify.out")" -gt $worst ]; then worst=$(jq .max_gap_ms "$LAB_DIR/verify.out"); fi
	if on_packet; then assert_between "$what: handed over: $(handovers)" $total 0 "$n"; fi
	handed=$total
	case "$SLOW $* " in
	*" rst="*) assert_no_flow_rst "$what" ;; # and the relay's, of those that were reset before their hand-over
	1\ *) assert_no_rst "$what: resets" ;;
	*) assert_no_flow_rst "$what" ;; # and the relay's, for what is sent again after a close
	esac
}
main() { # WHAT SHARE ARGUMENT...
	# shellcheck disable=SC2086
	transfers "$1" client "$N" "$2" $to "${@:3}"
	sum=$((sum + batches * N))
}
both_ends() { for ns in client backend; do tcp_option $ns "$1" "$2"; done; }

plain() { main plain 50; }
offloads_off() {
	offloads off
	main offloads_off 30
	offloads on
}
wrap() { main wrap 50 wrap=1; }
loopback() {
	transfers "backend on loopback" client "$N" 30 to=$PROXY_IP:8082 to="[$PROXY6]:8083"
	sum_local=$((sum_local + batches * N))
}
local_client() {
	transfers "client on this host" proxy "$N" 30 to=$PROXY_IP:8080 to="[$PROXY6]:8081"
	sum=$((sum + batches * N))
}
both_local() {
	transfers "both on this host" proxy "$N" 30 to=127.0.0.1:8082 to="[::1]:8083"
	sum_local=$((sum_local + batches * N))
}
resets() { main resets 5 rst=50; }
timestamps_off() {
	both_ends timestamps 0
	main timestamps_off 30
	both_ends timestamps 1
}
sack_off() {
	both_ends sack 0
	main sack_off 30
	both_ends sack 1
}
scaling_one_sided() {
	tcp_option client window_scaling 0
	main scaling_off_client 30
	tcp_option client window_scaling 1
	tcp_option backend window_scaling 0
	main scaling_off_backend 30
	tcp_option backend window_scaling 1
}
ecn_one_sided() {
	tcp_option client ecn 1
	tcp_option proxy ecn 2
	main ecn_client 0
	both_ends ecn 1
	tcp_option proxy ecn 1
	main ecn_all 30
	both_ends ecn 2
	tcp_option proxy ecn 2
}
scales() {
	wide_windows
	transfers scales client "$SCALE_N" 30 to=$PROXY_IP:8084 scales=1
	sum_scales=$((sum_scales + batches * SCALE_N))
	for ns in client backend; do in_ns $ns sysctl -qw net.ipv4.tcp_rmem="4096 131072 6291456"; done
}

# one_sided OPTION REASON: it stays on relay, visibly.
one_sided() {
	local before=0 n=0
	if on_packet; then before=$(n_packet_total); fi
	tcp_option "$1" "$2" 0
	main "$2 off at the $1" 0
	client_bg held hold to=$PROXY_IP:8085 n=3 ping=1 timeout=20
	wait_for has_output held
	if on_packet; then
		wait_until 3000 eval '[ "$(engine_reason_of echo)" = "$want_reason" ]' ||
			fail "engine of one-sided: $(engine_of echo) $(engine_reason_of echo), want relay $want_reason"
		assert_eq "engine" "$(engine_of echo)" relay
		assert_eq "handed over" $(($(n_packet_total) - before)) 0
		n=$(http_get /metrics | awk -v r="reason=\"$want_reason\"" '/^sluice_engine_choice_total/ && index($0, r) { n += $NF } END { print n + 0 }')
		assert_between "counted" "$n" 3 1000000
	fi
	stop_peer held
	tcp_option "$1" "$2" 1
}
timestamps_one_sided() {
	want_reason=timestamps_one_sided
	one_sided client timestamps
	one_sided backend timestamps
}
sack_one_sided() {
	want_reason=sack_one_sided
	one_sided client sack
	one_sided backend sack
}

for variant in $VARIANTS; do $variant; done
echo "longest gap: $worst ms; packets by TC $(if on_packet; then counter forwarded_tc; fi), by XDP $(if on_packet; then counter forwarded_xdp; fi)"
case "${PACKET:-}" in *hook=xdp*) assert_between "packets in XDP, $(counter xdp_passed) left to TC" "$(counter forwarded_xdp)" 1 10000000000 ;; esac
assert_packet_baseline
verified v $sum
verified lv $sum_local
verified s $sum_scales
stop_peer e
stop_sluice
assert_eq "exit code" "$RC" 0
