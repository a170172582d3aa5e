# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# Sourced after netlab.sh: routes of the kernel's NAT. The proxy's host forwards; the backend finds its
# way back to clients whose address it sees.
need nft
need jq
need conntrack

NAT_TABLE=${NAT_TABLE:-sluice}

nat_up() {
	in_ns proxy sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.route_localnet=1
	ip -n "$LAB-b" route add default via $PROXY_BACK_IP
	ip -n "$LAB-b" -6 route add default via $PROXY_BACK6
	ip -n "$LAB-c" route add default via $PROXY_IP
	ip -n "$LAB-c" -6 route add default via $PROXY6
	# makes the kernel load connection tracking, whose settings there are only then
	in_ns proxy nft 'add table inet load; add chain inet load c; add rule inet load c ct state new; delete table inet load'
	# duplicate ACKs and the like must not end in "invalid" drops of this lab's own making
	in_ns proxy sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=1
}

# nroute NAME PORTS FORWARD [MORE], uroute for UDP.
nroute() { route "$1" "$2" "$3" "engine: nftables${4:+, $4}"; }
uroute() { echo "  - { name: $1, match: { ports: $2, protocol: udp }, forward: $3, engine: nftables${4:+, $4} }"; }

start_nat() { # TEXT [ARGUMENT...]
	local bpf=$LAB_DIR/$INST/bpf
	# as on every host; a broker whose packet engine is off ends at each reload, to try again
	mkdir -p "$bpf"
	mountpoint -q "$bpf" || mount -t bpf bpf "$bpf"
	start_sluice "$@"
	wait_until 8000 nat_is_on || fail "the engine is off: $(nat_text)"
}

# ---- what the daemon says ----

nat_field() { jqs ".nftables.$1"; }
nat_text() { jqs '.nftables.reason'; }
nat_is_on() { [ "$(jqs .nftables.available)" = true ]; }
nat_is_off() { ! nat_is_on; }
n_nat_active() { jqs .engines.nftables.active; }
nat_active_is() { [ "$(n_nat_active)" = "$1" ]; }
repairs() { nat_field repairs; }

# records ROUTE [FIELD]: of the open ones
records() { sl conns --route "$1" --json | jq -r "[.[].${2:-id}] | map(tostring) | sort | join(\" \")"; }
n_records() { sl conns --route "$1" --json | jq length; }
has_records() { [ "$(n_records "$1")" = "$2" ]; }
wait_records() { wait_until "${3:-5000}" has_records "$1" "$2" || fail "open records of $1: $(n_records "$1"), want $2"; }

# ---- what the kernel holds ----

nat_table() { in_ns proxy nft list table inet "$NAT_TABLE" 2>/dev/null; }
has_table() { nat_table >/dev/null; }
no_table() { ! has_table; }
in_table() { nat_table | grep -E -- "$1" >/dev/null; } # REGEX
not_in_table() { ! in_table "$1"; }
# mark_of ROUTE: the number of a route, as the table has it.
mark_of() { in_ns proxy nft list map inet "$NAT_TABLE" route_counter | grep -oE "0x[0-9a-f]+ comment \"$1\"" | sed 's/ .*//'; }
# How many flows the kernel gave to a route.
n_counted() {
	in_ns proxy nft -j list counter inet "$NAT_TABLE" "route_$(($(mark_of "$1")))" | jq '.nftables[1].counter.packets'
}
# Everything but what counts: the same before and after what changes nothing.
table_form() { nat_table | sed 's/packets [0-9]* bytes [0-9]*//'; }
generation() { # of all tables: each transaction of anybody makes it one more
	in_ns proxy nft -j list ruleset >/dev/null
	in_ns proxy /usr/bin/python3 - <<-'PY'
		import socket, struct
		s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
		s.send(struct.pack("=IHHII", 20, 10 << 8 | 16, 1, 1, 0) + b"\0\0\0\0")
		data = s.recv(4096)
		at = 20
		while at < len(data):
		    size, kind = struct.unpack_from("=HH", data, at)
		    if kind == 1:
		        print(struct.unpack_from(">I", data, at + 4)[0])
		        break
		    at += (size + 3) & ~3
	PY
}

# n_entries [ARGUMENT...]: of conntrack, as `conntrack -L` selects them.
n_entries() { in_ns proxy conntrack -L "$@" 2>/dev/null | grep -c . || true; }
# Those of routes: with a mark, which those of a port that is nobody's do not have.
no_entries() { ! in_ns proxy conntrack -L "$@" 2>/dev/null | grep ' mark=[1-9]' >/dev/null; }
ct_setting() { in_ns proxy sysctl -n "net.netfilter.nf_conntrack_$1"; }

# ---- datagrams ----

# udp_server NAME NS PORT [ADDR...]: on the backend's addresses by default.
udp_server() {
	local name=$1 ns=$2 port=$3 places=() a
	shift 3
	if [ $# = 0 ]; then set -- $BACKEND_IP "[$BACKEND6]"; fi
	for a in "$@"; do places+=("$a:$port"); done
	OUT=$LAB_DIR/$name.out spawn "$ns" /usr/bin/python3 tests/lib/udp.py serve "$name" "${places[@]}"
	PEER_PIDS[$name]=$LAST
	wait_for grep -q ready "$LAB_DIR/$name.out"
}
udp_ask() { in_ns client /usr/bin/python3 tests/lib/udp.py ask "$@"; }
# udp_flow NAME ADDR:PORT [ARGUMENT...]: in the background; flow_of NAME is its last answer.
udp_flow() {
	local name=$1
	shift
	rm -f "$LAB_DIR/$name.flow"
	OUT=$LAB_DIR/$name.out spawn client /usr/bin/python3 tests/lib/udp.py flow "$1" "$LAB_DIR/$name.flow" "${@:2}"
	PEER_PIDS[$name]=$LAST
	wait_for test -s "$LAB_DIR/$name.flow"
}
flow_of() { awk '{ print $1 }' "$LAB_DIR/$1.flow"; }
flow_is() { [ "$(flow_of "$1")" = "$2" ]; }

# ---- who is served by whom ----

# reaches TO NAME: a connection there ends at the `identify` server of that name.
reaches() {
	shot to="$1"
	[ "$(of text | cut -d' ' -f1)" = "$2" ]
}
refused() { # TO
	shot to="$1"
	[ "$(of connect)" = refused ]
}
wait_reaches() { wait_for reaches "$1" "$2"; }

# a client and servers on the proxy's own host
local_client() { in_ns proxy "$PEERS/peer_client" "$@"; }
local_shot() { SHOT=$(local_client shot timeout=$((15 * SLOW)) "$@" || true); }
local_server() { # NAME MODE PORT [ARGUMENT...]
	local name=$1 mode=$2 port=$3
	shift 3
	OUT=$LAB_DIR/$name.out spawn proxy "$PEERS/peer_server" "$mode" "listen=127.0.0.1:$port" timeout=$((300 * SLOW)) \
		name="$name" "$@"
	PEER_PIDS[$name]=$LAST
	wait_for listening proxy "$port"
}

# long_moved NAME MB: a `long` client has sent and received so much, each way.
long_moved() {
	local row
	kill -USR1 "${PEER_PIDS[$1]}" 2>/dev/null || return 1
	row=$(tail -n 1 "$LAB_DIR/$1.out" | jq -r "[.up, .down] | min / 1000000 | floor" 2>/dev/null) || return 1
	[ "${row:-0}" -ge "$2" ]
}
moved_now() { # NAME: MB so far, the lesser way
	kill -USR1 "${PEER_PIDS[$1]}"
	sleep 0.1
	tail -n 1 "$LAB_DIR/$1.out" | jq -r "[.up, .down] | min / 1000000 | floor"
}
# goes_on NAME WHAT: the transfer moves another 20 MB.
goes_on() {
	local now
	now=$(moved_now "$1")
	wait_until 15000 long_moved "$1" $((now + 20)) || fail "$2: the transfer stands still at $now MB"
}

# ---- nothing remains ----

nat_baseline() {
	baseline
	wait_for nat_active_is 0
}
assert_nat_baseline() {
	wait_until 15000 nat_active_is 0 || fail "records left: $(n_nat_active), one: $(sl conns --json | jq -c '[.[] | select(.engine == "nftables")][0]')"
	assert_back_to_baseline
}
