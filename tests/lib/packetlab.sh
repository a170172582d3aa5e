# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# Sourced after netlab.sh: the packet engine, what the kernel holds of it, and bad networks.
#
#   ENGINE=relay     the same stories over the other engine (what is particular to packet is skipped):
#                    proves the story, and tells a fault of the engine from one of the test
ENGINE=${ENGINE:-packet}
need bpftool
need jq

on_packet() { [ "$ENGINE" = packet ]; }
need_packet() { if ! on_packet; then skip "about the packet engine"; fi; }

# ---- the daemon with the engine ----

bpf_of() { echo "$LAB_DIR/$INST/bpf"; }
mount_bpf() {
	mkdir -p "$(bpf_of)"
	mountpoint -q "$(bpf_of)" || mount -t bpf bpf "$(bpf_of)"
}

# packet_global [KEY=VALUE...]: the section; by default all flows are handed over at once.
packet_global() {
	local pair
	local -A keys=([hook]=auto [interfaces]=auto [ports]=40000-59999 [max_flows]=65536 [after_bytes]=0)
	if ! on_packet; then return; fi
	for pair in "$@"; do keys[${pair%%=*}]=${pair#*=}; done
	printf '  packet: {'
	for pair in "${!keys[@]}"; do printf ' %s: %s,' "$pair" "${keys[$pair]}"; done
	printf ' }\n'
}

# The broker comes after the proxy, which serves without it; connections of then stay on relay.
broker_is_known() {
	local reason
	reason=$(jqs .packet.reason) && [ -n "$reason" ] && [[ $reason != *"being started" ]]
}

# start_packet "KEY=VALUE ..." TEXT [ARGUMENT...]: GLOBAL may hold further lines.
start_packet() {
	local keys=$1
	shift
	mount_bpf
	if on_packet && ! in_ns proxy nft list table inet rst_watch >/dev/null 2>&1; then watch_rst; fi
	# shellcheck disable=SC2086
	PACKET_GLOBAL=$(packet_global $keys)${GLOBAL:+$'\n'$GLOBAL}
	GLOBAL=$PACKET_GLOBAL start_sluice "$@"
	if on_packet; then wait_until 8000 broker_is_known || fail "the broker says nothing"; fi
}

reload_packet() { GLOBAL=$PACKET_GLOBAL reload "$@"; }

# proute NAME PORTS FORWARD [MORE]: a route of the engine under test.
proute() { route "$1" "$2" "$3" "engine: $ENGINE${4:+, $4}"; }

# engine_of ROUTE: the engines its open connections are on: "packet", "packet relay", ...
engine_of() { sl conns --route "$1" --json | jq -r '[.[].engine] | unique | join(" ")'; }
engine_reason_of() { sl conns --route "$1" --json | jq -r '[.[].engine_reason] | unique | join(" ")'; }
# n_on ENGINE [ROUTE]
n_on() { sl conns ${2:+--route "$2"} --json | jq --arg e "$1" '[.[] | select(.engine == $e)] | length'; }
at_least_on() { [ "$(n_on "$1" "${3:-}")" -ge "$2" ]; }
all_on() { [ "$(engine_of "$1")" = "${2:-$ENGINE}" ]; }
# wait_engine ROUTE [ENGINE]: until every open connection of the route is there, and at least one is.
wait_engine() {
	wait_until "${3:-8000}" all_on "$1" "${2:-$ENGINE}" ||
		fail "engine of $1: '$(engine_of "$1")' ($(engine_reason_of "$1")), want '${2:-$ENGINE}'"
}

# n_handed [RESULT_REGEX]: hand-overs by the metric, of one result (default: the successful ones).
n_handed() {
	http_get /metrics | awk -v r="result=\"(${1:-ok|done|success|handed_over|eligible})\"" \
		'/^sluice_handover_total/ && /engine="packet"/ && $0 ~ r { n += $NF } END { print n + 0 }'
}
handovers() { # all results: "ok=5 not_quiescent=2"
	http_get /metrics | awk '/^sluice_handover_total/ && /engine="packet"/ && $NF > 0 {
		r = $0; sub(/.*result="/, "", r); sub(/".*/, "", r); printf "%s=%d ", r, $NF }'
}
n_packet_total() { jqs .engines.packet.total; }
n_packet_active() { jqs .engines.packet.active; }

# assert_share WHAT N PERCENT: so many of N connections ended up on the engine.
assert_share() {
	if ! on_packet; then return 0; fi
	echo "$1: $(n_packet_total) handed over of $2; $(handovers)"
	assert_between "$1: handed over" "$(n_packet_total)" $(($2 * $3 / 100)) "$2"
}

# ---- what the kernel holds ----

dump() { bpftool -j map dump pinned "$(bpf_of)/$1" 2>/dev/null; } # MAP
flows_json() { dump flows | jq -c '[.[] | .formatted // . | .key + .value]'; }
n_flows() { { dump flows || echo '[]'; } | jq length; }
# Entries of connections that are neither finished by both, nor reset, nor killed, by connection. A dump
# is none of one moment: of a pair that is just being removed one entry may be met, or one twice.
live_flows() {
	flows_json | jq -c '[group_by(.conn_id)[] |
		select((any(.[]; .rst == 1 or .state == "SL_PACKET_KILLED") or all(.[]; .peer_fin_acked == 1) or
			all(.[]; .told == 1)) | not)]'
}
n_live_flows() { live_flows | jq '[.[] | length] | add // 0'; }
no_live_flows() { [ "$(n_live_flows)" = 0 ]; }
no_flows() { [ "$(n_flows)" = 0 ]; }
# of which progs.debug and maps.debug are the file system's own
pinned() { find "$(bpf_of)" -mindepth 1 ! -name '*.debug' -printf '%P\n' 2>/dev/null | sort | xargs; }
# counter NAME: of the programs, summed over the processors.
counter() { dump counters | jq "[.. | objects | .$1? // empty | numbers] | add // 0"; }
# programs_on NS LINK: those at its ingress: "tcx:NAME", "tc:NAME", "xdp:NAME".
programs_on() {
	in_ns "$1" /usr/bin/python3 tests/lib/hooks.py "$2" | awk '{ print $1 ":" $2 }' | xargs
}
attached() { programs_on proxy "$1" | grep -qE "${2:-packet}"; } # LINK [NAME]

# ---- RSTs of the proxy's own stack ----

tcp_stat() { # NS FIELD: of the group Tcp or TcpExt
	in_ns "$1" cat /proc/net/snmp /proc/net/netstat |
		awk -v f="$2" '/^Tcp/ { if ($1 == head) { for (i = 2; i <= NF; i++) if (name[i] == f) print $i; head = "" }
			else { head = $1; for (i = 2; i <= NF; i++) name[i] = $i } }'
}
rst_base=0
mark_rst() { rst_base=$(tcp_stat proxy OutRsts); }
n_rst() { echo $(($(tcp_stat proxy OutRsts) - rst_base)); } # since mark_rst
# The engine never lets the stack answer for a flow that is not its own any more.
assert_no_rst() {
	local n
	if ! on_packet; then return 0; fi
	n=$(n_rst)
	if [ "$n" != 0 ]; then fail "${1:-resets}: $n sent by the proxy's stack; of flows held: $(flows_reset); all: $(all_reset)"; fi
}
# Where connections on relay are reset by the rules of TCP (aborted by a peer, a segment that came twice
# after the close), those of the engine are told from them by their tuples, which it holds for a minute.
# A SYN or SYN-ACK begins a new connection of the tuple.
watch_rst() {
	local v4='{ ip saddr . tcp sport . ip daddr . tcp dport }' v6='{ ip6 saddr . tcp sport . ip6 daddr . tcp dport }'
	in_ns proxy nft -f - <<-RULES
		table inet rst_watch {
			set v4 {
				type ipv4_addr . inet_service . ipv4_addr . inet_service
				size 1000000; flags dynamic,timeout; timeout 1d
			}
			set v6 {
				type ipv6_addr . inet_service . ipv6_addr . inet_service
				size 1000000; flags dynamic,timeout; timeout 1d
			}
			chain out {
				type filter hook output priority 0
				tcp flags & rst == rst meta nfproto ipv4 update @v4 $v4
				tcp flags & rst == rst meta nfproto ipv6 update @v6 $v6
				tcp flags & syn == syn meta nfproto ipv4 delete @v4 $v4
				tcp flags & syn == syn meta nfproto ipv6 delete @v6 $v6
			}
		}
	RULES
}
flows_reset() { # those of the flows held that the stack has reset since watch_rst
	local set
	for set in v4 v6; do in_ns proxy nft -j list set inet rst_watch $set >"$LAB_DIR/rst.$set" || return 1; done
	dump flows >"$LAB_DIR/rst.flows" || return 1
	/usr/bin/python3 tests/lib/rst_flows.py "$LAB_DIR"/rst.{flows,v4,v6}
}
all_reset() { # since watch_rst, not since mark_rst: "local port remote port"
	for set in v4 v6; do in_ns proxy nft -j list set inet rst_watch $set; done |
		jq -c '.nftables[].set.elem[]? | .elem.val.concat' | tail -n 20
}
assert_no_flow_rst() { # WHAT
	local which
	if ! on_packet; then return 0; fi
	which=$(flows_reset) || fail "cannot tell which flows were reset"
	if [ -n "$which" ]; then fail "${1:-flows} reset by the proxy's stack, $(wc -l <<<"$which"): $(head -n 5 <<<"$which")"; fi
	echo "${1:-resets}: $(n_rst) by the proxy's stack, all of connections on relay; flows held: $(n_live_flows) live of $(n_flows) entries"
}

# ---- conntrack ----

# Makes the proxy's namespace track connections, as a firewall does.
with_conntrack() {
	in_ns proxy nft -f - <<-RULES
		table inet track {
			chain in { type filter hook input priority 0; ct state new,established counter accept; }
			chain out { type filter hook output priority 0; ct state new,established counter accept; }
		}
	RULES
}
# Entries that say "established", of the daemon's front ports and its connections to the backend.
n_conntrack() {
	in_ns proxy conntrack -L -p tcp --state ESTABLISHED 2>/dev/null | grep -c . || true
}
no_conntrack() { [ "$(n_conntrack)" = 0 ]; }

# ---- nothing remains ----

packet_baseline() {
	baseline
	BASE_CONNTRACK=$(n_conntrack)
}

# After the last flow: no connection, socket or descriptor; entries only of finished flows, which
# answer what is still on its way (60 s); SETTLE=1 waits for these, too.
assert_packet_baseline() {
	assert_back_to_baseline
	if ! on_packet; then return 0; fi
	wait_until 2000 no_live_flows || fail "entries of live flows left: $(live_flows)"
	assert_eq "active on the engine" "$(n_packet_active)" 0
	# Those of a flow that ends at once go with its sockets, up to 30 ms later.
	wait_until 1000 eval '[ "$(n_conntrack)" -le "$BASE_CONNTRACK" ]' ||
		fail "established in conntrack: $(n_conntrack), $BASE_CONNTRACK before"
	if [ -n "${SETTLE:-}" ]; then
		wait_until 90000 no_flows || fail "entries left: $(n_flows)"
		assert_eq "kernel.packet_flows" "$(jqs .kernel.packet_flows)" 0
	fi
}

# What a storm may have broken for good: can the kernel still load programs?
assert_kernel_loads() {
	timeout 20 bpftool prog load "$1" "$(bpf_of)/loadtest" || fail "the kernel does not load programs any more"
	rm -f "$(bpf_of)/loadtest"
}
kernel_memory() { # kB in slabs, vmalloc and per-CPU areas
	awk '/^(SUnreclaim|Percpu|VmallocUsed)/ { n += $2 } END { print n }' /proc/meminfo
}
kernel_warnings() { dmesg 2>/dev/null | grep -cE 'WARNING:|BUG:|Oops|general protection|hung task' || true; }

# ---- networks that are not veth at its best ----

# offloads on|off [NS...]: of every veth of these namespaces.
offloads() {
	local ns link
	for ns in ${2:-client proxy backend}; do
		for link in $(in_ns "$ns" ls /sys/class/net); do
			if [ "$link" = lo ]; then continue; fi
			in_ns "$ns" ethtool -K "$link" tx "$1" rx "$1" sg "$1" tso "$1" gso "$1" gro "$1" >/dev/null 2>&1 || true
		done
	done
	assert_eq "tx checksums of the client" \
		"$(in_ns client ethtool -k eth0 | awk '/^tx-checksumming/ { print $2 }')" "$1"
}

# bad_wire client|backend ARGUMENT...: its cable to the proxy goes through a program that loses,
# delays, reorders: see wire.c. Before start_packet.
bad_wire() {
	local end=$1 ns=$LAB-${1:0:1} link=cli w=$LAB-w
	shift
	if [ "$end" = backend ]; then link=srv; fi
	if ! ip netns list | grep -q "^$w"; then
		ip netns add "$w"
		LAB_NS+=" w"
		in_ns w sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
	fi
	ip -n "$ns" link del eth0
	ip link add eth0 netns "$ns" type veth peer name "$link-a" netns "$w"
	ip link add "$link" netns "$LAB-p" type veth peer name "$link-b" netns "$w"
	ip -n "$w" link set "$link-a" up
	ip -n "$w" link set "$link-b" up
	if [ "$end" = client ]; then
		lab_addr c eth0 $CLIENT_IP $CLIENT6
		lab_addr p cli $PROXY_IP $PROXY6
		ip -n "$LAB-p" route replace $CLIENT_NET via $CLIENT_IP
	else
		lab_addr b eth0 $BACKEND_IP $BACKEND6
		lab_addr p srv $PROXY_BACK_IP $PROXY_BACK6
	fi
	OUT=$LAB_DIR/wire-$end.out spawn w "$PEERS/wire" a="$link-a" b="$link-b" timeout=3000 "$@"
	PEER_PIDS[wire-$end]=$LAST
	wait_for grep -q ready "$LAB_DIR/wire-$end.out"
}
wire_field() { server_field "wire-$1" "$2"; } # client|backend FIELD

set_mtu() { # MTU NS LINK [NS LINK...]
	local mtu=$1
	shift
	while [ $# -gt 0 ]; do
		in_ns "$1" ip link set "$2" mtu "$mtu"
		shift 2
	done
}

# tcp_option client|proxy|backend timestamps|sack|window_scaling|ecn VALUE
tcp_option() { in_ns "$1" sysctl -qw "net.ipv4.tcp_$2=$3"; }
# Large receive buffers, so that peers may announce any window scale.
wide_windows() {
	local ns
	for ns in client backend; do in_ns $ns sysctl -qw net.ipv4.tcp_rmem="4096 131072 1073741824"; done
}

# ---- peers elsewhere ----

# local_server NAME MODE PORT [ARGUMENT...]: on the proxy's loopback.
local_server() {
	local name=$1 mode=$2 port=$3
	shift 3
	OUT=$LAB_DIR/$name.out spawn proxy "$PEERS/peer_server" "$mode" "listen=127.0.0.1:$port" \
		"listen=[::1]:$port" timeout=300 name="$name" "$@"
	PEER_PIDS[$name]=$LAST
	wait_for listening proxy "$port"
}
# A client on the proxy's own host.
local_client() { in_ns proxy "$PEERS/peer_client" "$@"; }
local_client_bg() {
	local name=$1
	shift
	OUT=$LAB_DIR/$name.out spawn proxy "$PEERS/peer_client" "$@"
	PEER_PIDS[$name]=$LAST
}

# long_moved NAME MB [max]: a `long` client has sent and received so much, each way; max: one way.
long_moved() {
	local row
	kill -USR1 "${PEER_PIDS[$1]}" 2>/dev/null || return 1
	row=$(tail -n 1 "$LAB_DIR/$1.out" | jq -r "[.up, .down] | ${3:-min} / 1000000 | floor" 2>/dev/null) || return 1
	[ "${row:-0}" -ge "$2" ]
}

# verified NAME_OF_SERVER N: both ends agree that all N transfers were good; VERDICT and RESULT are theirs.
verified() {
	stop_peer "$1"
	echo "server: $RESULT"
	assert_eq "the server's verdict: $(tail -n 5 "$LAB_DIR/$1.out.err")" "$RC" 0
	assert_eq "transfers the server saw" "$(jq '.ok + .resets' <<<"$RESULT")" "$2"
}
