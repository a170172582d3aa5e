# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154
# Sourced by tests/bench/run: the lanes, and what carries the connections of each.
#
# A lane is a way from the client's namespace to the backend's through a namespace of its own, so
# that programs at its interfaces, rules and conntrack touch nothing but it:
#
#   client 10.77.N.2 - 10.77.N.1 lane N 10.78.N.1 - 10.78.N.2 backend
#
# Lanes whose name begins with "plain-" carry plain packets of one MTU: checksum and segmentation
# offload are off at the endpoints, as XDP in driver mode needs it, and GRO is on there, which
# makes a veth take the packets an XDP program redirects to it.

LANES=(direct packet dnat nft nft10k relay haproxy nginx
	plain-direct plain-packet plain-xdp plain-relay handover scale-nft scale-nft10k sockmap
	tls-relay tls-haproxy tls-nginx)
SLOTS=4 # ports of a lane, so that no test inherits the TIME_WAIT sockets of another kind
BASE_PORT=9000
tw_limit=1048576

bench_id=$$
cl=slbench-cl-$bench_id be=slbench-be-$bench_id
backend_pids=() load_pid='' spinners=()
lanes_up=()
declare -A main_pid

number_of() { # LANE
	local i
	for i in "${!LANES[@]}"; do [ "${LANES[i]}" != "$1" ] || echo $((i + 1)); done
}
ns_of() { echo "slbench-$(number_of "$1")-$bench_id"; }
front_of() { echo "10.77.$(number_of "$1").1"; }
target_of() { echo "10.78.$(number_of "$1").2"; }
kind_of() { # of contender
	local kind=${1#plain-}
	kind=${kind#tls-}
	echo "${kind#scale-}"
}
is_sluice() { case $(kind_of "$1") in packet | xdp | relay | sockmap | handover | nft | nft10k) true ;; *) false ;; esac }
# What the client connects to.
entry_of() { case $(kind_of "$1") in direct) target_of "$1" ;; *) front_of "$1" ;; esac }

# ---- processes -------------------------------------------------------------

# SIGTERM, again after 2 s (drains no longer), SIGKILL after 5 s.
stop_pid() { # PID
	local i
	kill "$1" 2>/dev/null || return 0
	for ((i = 0; i < 50; i++)); do
		kill -0 "$1" 2>/dev/null || break
		[ $i != 20 ] || kill "$1" 2>/dev/null
		sleep 0.1
	done
	kill -9 "$1" 2>/dev/null
	wait "$1" 2>/dev/null
	return 0
}

lanes_down() {
	local p lane ns
	trap - EXIT INT TERM
	exec 2>/dev/null
	for p in $load_pid "${spinners[@]}" "${main_pid[@]}" "${backend_pids[@]}"; do stop_pid "$p"; done
	for ns in $cl $be $(for lane in "${lanes_up[@]}"; do ns_of "$lane"; done); do
		# what a killed supervisor may have left in a namespace that is ours alone
		for p in $(ip netns pids "$ns"); do kill -9 "$p"; done
		ip netns del "$ns"
	done
	for lane in "${lanes_up[@]}"; do umount "$tmp/$lane/bpf"; done
	rm -rf "$tmp"
}

descendants() { # PID: itself and everything below it
	local child
	echo "$1"
	for child in $(pgrep -P "$1"); do descendants "$child"; done
}
pids_of() { [ -z "${main_pid[$1]:-}" ] || descendants "${main_pid[$1]}"; } # LANE

port_of() { # LANE SLOT
	if is_tls "$1"; then echo $((TLS_PORT + $2)); else echo $((BASE_PORT + $2)); fi
}

# Who is there: a socket, or the rules of the kernel's NAT.
is_served() { # LANE
	case $(kind_of "$1") in
	nft*) ip netns exec "$(ns_of "$1")" nft list map inet sluice listen4 2>/dev/null |
		grep " $((BASE_PORT + SLOTS - 1)) " >/dev/null ;;
	*) [ -n "$(ip netns exec "$(ns_of "$1")" ss -Hltn "sport = :$(port_of "$1" $((SLOTS - 1)))")" ] ;;
	esac
}
wait_listening() { # LANE PID
	local i
	for ((i = 0; i < 100; i++)); do
		! is_served "$1" || return 0
		kill -0 "$2" 2>/dev/null || break
		sleep 0.1
	done
	return 1
}

# ---- the network -----------------------------------------------------------

# A namespace may choose only what the host allows to everybody.
allow_cubic() {
	local all
	all=$(sysctl -n net.ipv4.tcp_allowed_congestion_control)
	[[ " $all " = *' cubic '* ]] || sysctl -qw net.ipv4.tcp_allowed_congestion_control="$all cubic"
}

space() { # NS: never changed again while something runs
	allow_cubic && ip netns add "$1" && ip -n "$1" link set lo up &&
		# Linux's default, whatever this host's is: BBR on cables without length measures round
		# trips of microseconds and is held back by them, more so on a flow that it first met
		# on its way to a proxy.
		ip netns exec "$1" sysctl -qw net.ipv4.tcp_congestion_control=cubic \
			net.ipv4.tcp_tw_reuse=1 \
			net.ipv4.ip_local_port_range='1024 65000' \
			net.ipv4.ip_local_reserved_ports=9000-9099 \
			net.ipv4.tcp_max_tw_buckets=$tw_limit
}

link() { # NS_A DEV_A ADDRESS_A NS_B DEV_B ADDRESS_B
	ip -n "$1" link add "$2" type veth peer name "$5" netns "$4" &&
		ip -n "$1" addr add "$3" dev "$2" && ip -n "$4" addr add "$6" dev "$5" &&
		ip -n "$1" link set "$2" up && ip -n "$4" link set "$5" up
}

plain_packets() { # NS DEV
	ip netns exec "$1" ethtool -K "$2" tx off tso off gro on >/dev/null
}

lane_up() { # LANE
	local n ns
	n=$(number_of "$1")
	ns=$(ns_of "$1")
	lanes_up+=("$1")
	mkdir -p "$tmp/$1/bpf"
	space "$ns" && link $cl "c$n" "10.77.$n.2/24" "$ns" p0 "10.77.$n.1/24" &&
		link "$ns" p1 "10.78.$n.1/24" $be "b$n" "10.78.$n.2/24" &&
		ip -n $cl route add "10.78.$n.0/24" via "10.77.$n.1" &&
		ip -n $be route add "10.77.$n.0/24" via "10.78.$n.1" || return 1
	case $1 in plain-*) plain_packets $cl "c$n" && plain_packets $be "b$n" || return 1 ;; esac
	case $(kind_of "$1") in
	direct | dnat | nft*) ip netns exec "$ns" sysctl -qw net.ipv4.ip_forward=1 ;;
	# what bpf_fib_lookup() asks for; nothing is forwarded by the stack
	xdp) ip netns exec "$ns" sysctl -qw net.ipv4.conf.p0.forwarding=1 net.ipv4.conf.p1.forwarding=1 ;;
	esac
}

# ---- contenders ------------------------------------------------------------

# Of the packet engine: all flows early where the hand-over itself is measured, else the defaults.
packet_keys() { # LANE
	case $(kind_of "$1") in
	packet) echo "hook: tc" ;;
	xdp) echo "hook: xdp, max_flows: 65536" ;;
	handover) echo "hook: tc, after_bytes: 0, after_age: 0" ;;
	esac
}
engine_of() { # LANE SLOT
	case $(kind_of "$1")/$2 in
	relay/* | handover/1) echo relay ;;
	sockmap/*) echo sockmap ;;
	nft*) echo nftables ;;
	*) echo packet ;;
	esac
}

# What a transaction took is said at level info.
level_of() { case $1 in scale-*) echo info ;; *) echo error ;; esac } # LANE

config_sluice() { # LANE
	local slot keys
	keys=$(packet_keys "$1")
	cat <<-END
		version: 1
		global:
		  workers: 2
		  runtime_dir: $tmp/$1/run
		  state_dir: $tmp/$1/state
		  bpf_dir: $tmp/$1/bpf
		  http: none
		  log: { level: $(level_of "$1"), access: none }
	END
	[ -z "$keys" ] || echo "  packet: { $keys }"
	echo "routes:"
	for ((slot = 0; slot < SLOTS; slot++)); do
		echo "  - { name: p$slot, match: { ports: \"$(front_of "$1"):$(port_of "$1" $slot)\" }," \
			"$(! is_tls "$1" || tls_route_sluice $slot)" \
			"engine: $(engine_of "$1" $slot), forward: $(forward_of "$1" $slot) }"
	done
	# others that nobody connects to: 10, or 10 000 in all
	case $(kind_of "$1") in
	nft) filler_routes "$1" 6 ;;
	nft10k) filler_routes "$1" 9996 ;;
	esac
}

# As the rule of dnat has it: the backend sees the client.
forward_of() { # LANE SLOT
	case $(kind_of "$1") in
	nft*) echo "{ targets: \"$(target_of "$1"):$((BASE_PORT + $2))\", preserve_source: true }" ;;
	*) echo "\"$(target_of "$1"):$(port_of "$1" "$2")\"" ;;
	esac
}
filler_routes() { # LANE N
	awk -v n="$2" -v front="$(front_of "$1")" -v target="$(target_of "$1")" 'BEGIN {
		for (i = 0; i < n; i++)
			printf "  - { name: f%d, match: { ports: \"%s:%d\" }, engine: nftables, forward: \"%s:%d\" }\n",
				i, front, 20000 + i, target, 20000 + i }'
}

config_haproxy() { # LANE
	local slot port
	cat <<-END
		global
		  nbthread 2
		  maxconn $((idle_count + 50))
		  maxpipes 40
		  tune.ssl.cachesize 0
		defaults
		  mode tcp
		  option splice-auto
		  timeout connect 5s
		  timeout client 1h
		  timeout server 1h
	END
	for ((slot = 0; slot < SLOTS; slot++)); do
		port=$(port_of "$1" $slot)
		printf 'listen p%s\n  bind %s:%s %s\n  server b %s:%s\n' $slot "$(front_of "$1")" "$port" \
			"$(! is_tls "$1" || tls_bind_haproxy $slot)" "$(target_of "$1")" "$port"
	done
}

config_nginx() { # LANE
	local slot port
	cat <<-END
		load_module $stream_module;
		daemon off;
		worker_processes 2;
		worker_rlimit_nofile $fds;
		pid $tmp/$1/pid;
		error_log stderr error;
		events { worker_connections $fds; }
		stream {
		  proxy_timeout 1h;
		  tcp_nodelay on;
		  ssl_protocols TLSv1.2 TLSv1.3;
	END
	for ((slot = 0; slot < SLOTS; slot++)); do
		port=$(port_of "$1" $slot)
		printf '  server { listen %s:%s %s; %s proxy_pass %s:%s; }\n' "$(front_of "$1")" "$port" \
			"$(! is_tls "$1" || tls_listen_nginx $slot)" "$(! is_tls "$1" || tls_server_nginx $slot)" \
			"$(target_of "$1")" "$port"
	done
	echo "}"
}

# The fewest rules that do it.
rules_dnat() { # LANE
	cat <<-END
		table ip bench
		delete table ip bench
		table ip bench {
			chain prerouting {
				type nat hook prerouting priority dstnat;
				ip daddr $(front_of "$1") tcp dport $BASE_PORT-$((BASE_PORT + SLOTS - 1)) dnat to $(target_of "$1")
			}
		}
	END
}

# Does this build know the engine? Whether it runs here, the first test of it tells.
supports() { # packet|sockmap
	mkdir -p "$tmp/$1"
	config_sluice "$1" >"$tmp/$1/try.yaml"
	"$O/sluiced" -t -c "$tmp/$1/try.yaml" >"$tmp/$1/try.log" 2>&1
}

start() { # LANE
	local command kind conf=$tmp/$1/conf
	kind=$(kind_of "$1")
	case $kind in
	direct) return 0 ;;
	dnat)
		rules_dnat "$1" | ip netns exec "$(ns_of "$1")" nft -f -
		return
		;;
	haproxy)
		config_haproxy "$1" >"$conf"
		command=("$haproxy" -db -f "$conf")
		;;
	nginx)
		config_nginx "$1" >"$conf"
		command=("$nginx" -p "$tmp" -c "$conf")
		;;
	*)
		# `ip netns exec` hides /sys/fs/bpf
		mountpoint -q "$tmp/$1/bpf" || mount -t bpf bpf "$tmp/$1/bpf" || return 1
		config_sluice "$1" >"$conf"
		command=("$O/sluiced" -c "$conf")
		;;
	esac
	ip netns exec "$(ns_of "$1")" "${command[@]}" >"$tmp/$1/log" 2>&1 </dev/null &
	main_pid[$1]=$!
	wait_listening "$1" $! || {
		echo "tests/bench/run: $1 did not start:" >&2
		tail -n 5 "$tmp/$1/log" >&2
		return 1
	}
}
stop() { # LANE
	[ -n "${main_pid[$1]:-}" ] || return 0
	stop_pid "${main_pid[$1]}"
	unset "main_pid[$1]"
}

# ---- what the daemon says --------------------------------------------------

sluice() { "$O/sluice" --socket "$tmp/$1/run/control.sock" "${@:2}"; } # LANE ARGUMENT...

# The engines of the open connections of a route, and why where it is another one: "packet",
# "packet relay:not_quiescent"
engines_now() { # LANE ROUTE ENGINE
	sluice "$1" conns --route "$2" --json | jq -r --arg e "$3" \
		'[.[] | if .engine == $e then .engine else "\(.engine):\(.engine_reason)" end] | unique | join(" ")'
}

# Until the engine carries every connection of the route; else 1, and what they are on instead.
wait_engine() { # LANE ROUTE ENGINE
	local i now
	for ((i = 0; i < 100; i++)); do
		now=$(engines_now "$@")
		[ "$now" != "$3" ] || return 0
		sleep 0.05
	done
	echo "${now:-none}"
	return 1
}

# The share of the open connections of a route that an engine carries.
share_on() { # LANE ROUTE ENGINE
	sluice "$1" conns --route "$2" --json | jq -r --arg e "$3" \
		'if length == 0 then 0 else ([.[] | select(.engine == $e)] | length) / length end * 1000 | round / 1000'
}

# The same for an engine that takes no stream that never rests: half of them are enough, the share
# is told.
wait_most() { # LANE ROUTE ENGINE
	local all
	all=$(wait_engine "$@") || awk -v s="$(share_on "$@")" -v t="$all" 'BEGIN { if (s < 0.5) print t }'
}

# Exit code 4, degraded, comes with an answer.
n_active() { { sluice "$1" status --json || [ $? = 4 ]; } | jq -r ".engines.$2.active // 0"; } # LANE ENGINE

# Packets the programs have forwarded: by XDP, by TC.
forwarded() { # LANE
	bpftool -j map dump pinned "$tmp/$1/bpf/counters" 2>/dev/null |
		jq -r '[.. | objects | .forwarded_xdp? // empty | numbers] as $x |
			[.. | objects | .forwarded_tc? // empty | numbers] as $t | "\($x | add // 0) \($t | add // 0)"'
}
