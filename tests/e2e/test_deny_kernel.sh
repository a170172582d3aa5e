#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Denied sources end in the kernel, before accept; nothing else does.
. "$(dirname "$0")/../lib/netlab.sh"
need bpftool

LIST=$LAB_DIR/denied.txt
BAD=10.91.128.66 BAD6='[fd91::66]' GOOD=10.91.128.65
ip -n "$LAB-c" addr add fd91::66/64 dev eth0 nodad
server e echo 8000
echo 10.91.128.70 >"$LIST"
text="listeners:
  - { ports: 8082, accept_proxy: { from: [10.91.0.0/16], required: true } }
routes:
$(route open 8080 "\"$BACKEND_IP:8000\"")
$(route single "\"$PROXY_IP:8081\"" "\"$BACKEND_IP:8000\"")
$(route header 8082 "\"$BACKEND_IP:8000\"")"
security() { echo "  security: { deny: [$1], deny_file: $LIST${2:+, enforce: $2} }"; }
conf() { GLOBAL=$(security "$@") write_conf "$text"; }

supervisor() { echo "${SLUICE_PIDS[$INST]}"; }
# Kernel objects of this daemon alone: by its descriptors.
map_ids() { # NAME
	local id
	for id in $(sed -n 's/^map_id:[[:space:]]*//p' "/proc/$(supervisor)/fdinfo/"* 2>/dev/null | sort -u); do
		if [[ $(bpftool map show id "$id" 2>/dev/null) == *" name $1 "* ]]; then echo "$id"; fi
	done
}
counter() { # NAME
	bpftool map dump id "$(map_ids guard_count)" -j | jq ".[0].formatted.value.$1"
}
n_links() { cat "/proc/$(supervisor)/fdinfo/"* 2>/dev/null | grep -c '^link_type:[[:space:]]*tcx' || true; }
has_links() { [ "$(n_links)" = "$1" ]; }
programs() { sed -n 's/^prog_id:[[:space:]]*//p' "/proc/$(supervisor)/fdinfo/"* 2>/dev/null | sort -u; }
accepted() { jqs .connections.total; }
is_above() { [ "$(counter "$1")" -gt "$2" ]; }
state() { grep -aoE 'denied sources: .*' "$(log_file)" | tail -n 1; }

# knock NAME SOURCE TO: a connection that is not to come about; its SYN is repeated after a second.
knock() { client_bg "$1" shot "to=$3" "src=$2" timeout=2 send=x; }
silent() { # NAME
	join_peer "$1"
	assert_eq "$1" "$(jq -r .connect <<<"$RESULT")" timeout
}
served() { # SOURCE TO
	shot to="$2" src="$1" send=x stop=1
	assert_eq "$1 to $2" "$(of end)" stopped
}
denied() { # SOURCE TO COUNTER
	local before accepts
	before=$(counter "$3") accepts=$(accepted)
	knock denied "$1" "$2"
	wait_for is_above "$3" "$before"
	silent denied
	assert_eq "accepted of $1" "$(accepted)" "$accepts"
}

GLOBAL=$(security "$BAD, \"fd91::66\"") start_sluice "$text"
if ! has_log 'denied sources: tcx on'; then
	if has_log 'denied sources: userspace: no tcx'; then skip "$(state)"; fi
	fail "not in the kernel: $(state)"
fi
say "$(state)"
baseline

say "denied: dropped before accept, counted"
assert_eq "interfaces" "$(n_links)" 3
denied $BAD $PROXY_IP:8080 dropped4
denied 10.91.128.70 $PROXY_IP:8080 dropped4
denied $BAD $PROXY_IP:8081 dropped4
denied "$BAD6" "[$PROXY6]:8080" dropped6
assert_eq "what bpftool prints" \
	"$(bpftool map dump id "$(map_ids guard_count)" -j | jq -r '.[0].formatted.value | keys_unsorted | join(" ")')" \
	"passed4 passed6 dropped4 dropped6 forwarded unread"

# What the proxy shows in metrics: the same page, for reading.
assert_match "mapping of the proxy" "$(grep bpf-map "/proc/$(proxy_pid)/maps")" ' r--s '
say "others: served, counted"
before=$(counter passed4)
served $GOOD $PROXY_IP:8080
served $GOOD $PROXY_IP:8081
assert_eq "passed" "$(counter passed4)" $((before + 2))
before=$(counter passed6)
served "[$CLIENT6]" "[$PROXY6]:8080"
assert_eq "passed, IPv6" "$(counter passed6)" $((before + 1))

say "ports that are not ours, or only behind a PROXY header"
OUT=$LAB_DIR/other.out spawn proxy "$PEERS/peer_server" echo "listen=$PROXY_IP:7000" \
	"listen=$PROXY_BACK_IP:8081" timeout=300 name=other
other=$LAST
wait_for listening proxy 7000
ip -n "$LAB-c" route add 10.92.0.0/16 via $PROXY_IP
ip -n "$LAB-c" -6 route add fd92::/64 via $PROXY6
before=$(counter dropped4)
served $BAD $PROXY_IP:7000
served $BAD $PROXY_BACK_IP:8081
shot to=$PROXY_IP:8082 src=$BAD $'send=PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nx' stop=1
assert_eq "the client is another one" "$(of end)" stopped
assert_eq "dropped" "$(counter dropped4)" "$before"
kill -TERM "$other"

say "what goes through this host to another one"
ip netns exec "$LAB-p" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip -n "$LAB-b" route add 10.91.0.0/16 via $PROXY_BACK_IP
ip -n "$LAB-b" -6 route add fd91::/64 via $PROXY_BACK6
server far echo 8080
before=$(counter forwarded)
served $BAD $BACKEND_IP:8080
served "$BAD6" "[$BACKEND6]:8080"
assert_eq "forwarded" "$(counter forwarded)" $((before + 2))
denied $BAD $PROXY_IP:8080 dropped4
denied $BAD $PROXY_BACK_IP:8080 dropped4
denied "$BAD6" "[$PROXY_BACK6]:8080" dropped6
ip netns exec "$LAB-p" sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
stop_peer far

say "a connection that was there before goes on"
client_bg old trickle to=$PROXY_IP:8080 c=1 ms=20 timeout=60 src=10.91.128.80
one_open() { [ "$(jqs .connections.active)" = 1 ]; }
wait_for one_open
echo 10.91.128.80 >"$LIST"
sl reload --deny-file >/dev/null
denied 10.91.128.80 $PROXY_IP:8080 dropped4
served 10.91.128.70 $PROXY_IP:8080
bytes() { sl conns --json | jq '[.. | .bytes_up? // empty] | add'; }
before=$(bytes)
more_bytes() { [ "$(bytes)" -gt "$before" ]; }
wait_for more_bytes
stop_peer old
assert_eq "the old connection" "$RC" 0

say "the tables of a list are freed when another takes its place"
for n in 1 2 3 4 5 6; do
	for ((i = 0; i < n * 10; i++)); do echo "10.93.$n.$((2 * i))"; done >"$LIST"
	sl reload --deny-file >/dev/null
done
inner_of() { # NAME: the table behind an outer one; older bpftools print its number as bytes
	bpftool map dump id "$(map_ids "$1")" -j |
		jq -r '.[0] | .inner_map_id // .value | if type == "array" then reverse | map(ltrimstr("0x")) | "0x" + add else . end'
}
table=$(($(inner_of guard_deny4)))
dump() { bpftool map dump id "$table" -j; }
assert_eq "ranges in the kernel" "$(dump | jq length)" 61
assert_eq "the last" "$(dump | jq -c '.[60].formatted.value.from')" "[10,93,6,118]"

echo 10.93.0.1 >"$LIST"
sl reload --deny-file >/dev/null
is_freed() { ! dump; }
wait_for is_freed

say "interfaces that come and go"
new_link() {
	ip link add eth1 netns "$LAB-c" type veth peer name ext netns "$LAB-p"
	ip -n "$LAB-c" link set eth1 up
	ip -n "$LAB-p" link set ext up
	ip -n "$LAB-c" addr add 10.94.0.2/24 dev eth1
	ip -n "$LAB-c" addr add 10.94.0.66/24 dev eth1
	ip -n "$LAB-p" addr add 10.94.0.1/24 dev ext
}
echo 10.94.0.66 >"$LIST"
sl reload --deny-file >/dev/null
new_link
wait_for has_links 4
denied 10.94.0.66 10.94.0.1:8080 dropped4
served 10.94.0.2 10.94.0.1:8080
ip -n "$LAB-p" link del ext
wait_for has_links 3
new_link
wait_for has_links 4
denied 10.94.0.66 10.94.0.1:8080 dropped4
# To another namespace: there it is none of ours.
ip -n "$LAB-p" link set ext netns "$LAB-b"
wait_for has_links 3
ip -n "$LAB-b" link del ext
# More news than the supervisor has room for while it does not read them.
kill -STOP "$(supervisor)"
for ((i = 0; i < 600; i++)); do echo "link set dev lo mtu $((65000 + i))"; done | ip -n "$LAB-p" -batch -
new_link
drops() { in_ns proxy awk '$2 == 0 { n += $9 } END { print n + 0 }' /proc/net/netlink; }
assert_between "messages lost" "$(drops)" 1 100000
kill -CONT "$(supervisor)"
wait_for has_links 4
denied 10.94.0.66 10.94.0.1:8080 dropped4
kill -STOP "$(supervisor)"
for ((i = 0; i < 600; i++)); do echo "link set dev lo mtu $((65000 + i))"; done | ip -n "$LAB-p" -batch -
ip -n "$LAB-p" link del ext
kill -CONT "$(supervisor)"
wait_for has_links 3
assert_match "what the log says" "$(state)" '^denied sources: tcx on 3 interfaces, 3 ranges$'

if [ -z "${SLUICE_SINGLE:-}" ]; then
	say "the proxy dies, the program is replaced: nobody gets in"
	before=$(counter dropped4)
	for i in 1 2 3 4; do knock "death$i" $BAD $PROXY_IP:8080; done
	kill -KILL "$(proxy_pid)"
	for i in 1 2 3 4; do silent "death$i"; done
	wait_for is_running
	denied $BAD $PROXY_IP:8080 dropped4
	old=$(programs)
	dropped=$(counter dropped4)
	for i in 1 2 3 4; do knock "upgrade$i" $BAD $PROXY_IP:8080; done
	sl upgrade >/dev/null
	wait_log 'the supervisor is version'
	wait_for has_links 3
	for i in 1 2 3 4; do silent "upgrade$i"; done
	new_program() { [ -n "$(programs)" ] && [ "$(programs)" != "$old" ]; }
	wait_for new_program
	assert_between "the counters go on" "$(counter dropped4)" $((dropped + 4)) 1000000
	denied $BAD $PROXY_IP:8080 dropped4
	served $GOOD $PROXY_IP:8080
	echo $GOOD >"$LIST"
	sl reload --deny-file >/dev/null
	denied $GOOD $PROXY_IP:8080 dropped4
	new_link
	wait_for has_links 4
	ip -n "$LAB-p" link del ext
	wait_for has_links 3
	baseline
fi

say "enforce: userspace: the same result, after accept"
echo 10.91.128.70 >"$LIST"
conf $BAD userspace
reload
assert_eq "links" "$(n_links)" 0
assert_eq "$(state)" "$(state)" "denied sources: userspace: configured"
for ip in $BAD 10.91.128.70; do
	n=$(n_access open)
	shot to=$PROXY_IP:8080 src=$ip send=x stop=1
	assert_eq "$ip" "$(of end)" reset
	assert_ended open $((n + 1)) route_ip_blocked -
done
served $GOOD $PROXY_IP:8080

say "nothing to deny: nothing is attached"
: >"$LIST"
conf ""
reload
assert_eq "links" "$(n_links)" 0
assert_eq "$(state)" "$(state)" "denied sources: none"
served $BAD $PROXY_IP:8080
conf $BAD
reload
assert_eq "links" "$(n_links)" 3
denied $BAD $PROXY_IP:8080 dropped4
assert_back_to_baseline

say "nothing is left"
is_unloaded() {
	local id
	for id in $ids; do if bpftool prog show id "$id"; then return 1; fi; done
}
ids=$(programs)
stop_sluice
assert_eq "exit code" "$RC" 0
wait_for is_unloaded
GLOBAL=$(security "$BAD") start_sluice "$text"
denied $BAD $PROXY_IP:8080 dropped4
ids=$(programs)
child=$(proxy_pid)
kill -KILL "$(supervisor)"
wait_for is_unloaded
if [ -n "$child" ]; then wait_for gone_or_zombie "$child"; fi # it has the port
RC=0
wait "$(supervisor)" || RC=$?
assert_eq "killed" "$RC" 137

if command -v capsh >/dev/null; then
	say "without the right to load it"
	: >"$(log_file)"
	WRAP="capsh --drop=cap_bpf,cap_sys_admin --shell=$LAB_DIR/exec --" GLOBAL=$(security "$BAD")
	printf '#!/bin/sh\nexec "$@"\n' >"$LAB_DIR/exec"
	chmod 755 "$LAB_DIR/exec"
	export WRAP GLOBAL
	start_sluice "$text"
	assert_match "what it says" "$(state)" 'denied sources: userspace: cannot load the program \('
	shot to=$PROXY_IP:8080 src=$BAD send=x stop=1
	assert_eq "$BAD" "$(of end)" reset
	stop_sluice
fi
