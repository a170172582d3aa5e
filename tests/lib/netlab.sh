# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2034,SC2120
# Source this first: a laboratory of three namespaces, client - proxy - backend,
# gone again when the script ends, however it ends.
#
#   O=DIR            where sluiced, sluice and testlib/ are (default build)
#   SLUICE_SINGLE=1  all roles in one process
#   SLUICE_SLOW=N    times are N times as long (sanitizers)
#   KEEP=1           the temporary directory stays
set -eu -o pipefail

lab_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$lab_root"
O=$(cd "${O:-build}" && pwd)
PEERS=$O/testlib
SLUICED=${SLUICED:-$O/sluiced}
SLOW=${SLUICE_SLOW:-1}
lab_story=$(basename "$0" .sh)
LAB=sl$$-$(cksum <<<"$lab_story" | cut -c1-4)
LAB_DIR=$(mktemp -d "/tmp/$LAB.XXXXXX")
chmod 755 "$LAB_DIR"

CLIENT_IP=10.91.0.2 PROXY_IP=10.91.0.1 PROXY_BACK_IP=10.92.0.1 BACKEND_IP=10.92.0.2
CLIENT6=fd91::2 PROXY6=fd91::1 PROXY_BACK6=fd92::1 BACKEND6=fd92::2
# Many client addresses: any of 10.91.128.0/17 is the client's.
CLIENT_NET=10.91.128.0/17

# Connections leave from these; what listens has a port below them, because nobody can bind to a port
# that a connection of its own host has got.
LAB_PORTS="25001 65535"

POOLED_PIPES=64 # of a worker, two descriptors each

lab_pids=()
declare -A SLUICE_PIDS=() PEER_PIDS=() HTTP_ADDRS=()
INST=main
LAB_NS="c p b" # of which lab_down removes what is left

# ---- reporting ----

say() { echo "== $*"; }

fail() {
	echo "FAILED: $*" >&2
	local i
	for ((i = 1; i < ${#FUNCNAME[@]}; i++)); do
		echo "  at ${BASH_SOURCE[i]##*/}:${BASH_LINENO[i - 1]}" >&2
	done
	exit 1
}

skip() {
	echo "SKIP: $*"
	exit 77
}

need() { command -v "$1" >/dev/null || skip "$1 is not installed"; }

need_split() { if [ -n "${SLUICE_SINGLE:-}" ]; then skip "needs the separate proxy process"; fi; }

assert_eq() { # WHAT GOT WANT
	if [ "$2" != "$3" ]; then fail "$1: got '$2', want '$3'"; fi
}

assert_match() { # WHAT GOT REGEX
	if ! [[ $2 =~ $3 ]]; then fail "$1: '$2' does not match '$3'"; fi
}

assert_between() { # WHAT GOT MIN MAX (numbers, decimals allowed)
	if ! awk -v v="$2" -v a="$3" -v b="$4" 'BEGIN { exit !(v != "" && v + 0 >= a && v + 0 <= b) }'; then
		fail "$1: got '$2', want $3 to $4"
	fi
}

# ---- waiting: always for a condition, never for a time alone ----

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

# wait_until MS COMMAND...: polls every 20 ms.
wait_until() {
	local end=$(($(now_ms) + $1 * SLOW))
	shift
	while ! "$@" >/dev/null 2>&1; do
		if [ "$(now_ms)" -ge "$end" ]; then return 1; fi
		sleep 0.02
	done
}

wait_for() { # COMMAND...: up to 5 s
	wait_until 5000 "$@" || fail "timed out waiting for: $*"
}

gone() { ! kill -0 "$1" 2>/dev/null; }

# stretch: how many times as long as it works something takes here and now; 1: nobody else wants the processors.
stretch() {
	local TIMEFORMAT='%R %U %S'
	{ time /usr/bin/python3 -c 'for i in range(500000): pass'; } 2>&1 | awk '{ s = $1 / ($2 + $3); print (s > 1 ? s : 1) }'
}

# ---- namespaces and processes ----

in_ns() { # client|proxy|backend|w COMMAND...
	local ns=$LAB-${1:0:1}
	shift
	ip netns exec "$ns" "$@"
}

# spawn client|proxy|backend|w COMMAND...: $! and LAST are the command itself. Output: OUT or ours.
spawn() {
	local ns=$LAB-${1:0:1}
	shift
	if [ -n "${OUT:-}" ]; then
		ip netns exec "$ns" "$@" >>"$OUT" 2>>"$OUT.err" </dev/null &
	else
		ip netns exec "$ns" "$@" </dev/null &
	fi
	LAST=$!
	lab_pids+=("$LAST")
}

lab_up() {
	local ns
	for ns in c p b; do
		ip netns add "$LAB-$ns"
		ip -n "$LAB-$ns" link set lo up
		ip netns exec "$LAB-$ns" sysctl -qw net.ipv4.ip_local_port_range="$LAB_PORTS" \
			net.ipv4.tcp_tw_reuse=1 net.ipv4.tcp_max_syn_backlog=65535 \
			net.core.somaxconn=65535 net.ipv6.conf.all.accept_dad=0 \
			net.ipv6.conf.default.accept_dad=0
	done
	ip link add eth0 netns "$LAB-c" type veth peer name cli netns "$LAB-p"
	ip link add eth0 netns "$LAB-b" type veth peer name srv netns "$LAB-p"
	lab_addr c eth0 $CLIENT_IP $CLIENT6
	lab_addr p cli $PROXY_IP $PROXY6
	lab_addr p srv $PROXY_BACK_IP $PROXY_BACK6
	lab_addr b eth0 $BACKEND_IP $BACKEND6
	ip -n "$LAB-c" route add local $CLIENT_NET dev lo
	# by way of one neighbour: the table of neighbours is small
	ip -n "$LAB-p" route add $CLIENT_NET via $CLIENT_IP
}

lab_addr() { # NS LINK V4 V6
	ip -n "$LAB-$1" link set "$2" up
	ip -n "$LAB-$1" addr add "$3/16" dev "$2"
	ip -n "$LAB-$1" addr add "$4/64" dev "$2" nodad
}

# lossy PERCENT: every namespace loses so many of the packets it receives.
lossy() {
	local ns
	for ns in c p b; do
		ip netns exec "$LAB-$ns" nft -f - <<-RULES || return 1
			table inet loss {
				chain in {
					type filter hook prerouting priority -300;
					iifname != "lo" numgen random mod 1000 < $(($1 * 10)) counter drop
				}
			}
		RULES
	done
}

lab_stop_all() {
	local i pid
	for i in "${!SLUICE_PIDS[@]}"; do
		pid=${SLUICE_PIDS[$i]}
		kill -TERM "$pid" 2>/dev/null && kill -TERM "$pid" 2>/dev/null || true
	done
	for pid in "${lab_pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
	for pid in "${lab_pids[@]}"; do
		wait_until 3000 gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	# what a killed supervisor may have left in namespaces that are ours alone
	for i in $LAB_NS; do
		for pid in $(ip netns pids "$LAB-$i" 2>/dev/null); do
			kill -KILL "$pid" 2>/dev/null || true
		done
	done
}

lab_sanitizer_clean() {
	! grep -sqE 'ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:' \
		"$LAB_DIR"/*/log "$LAB_DIR"/*.err
}

lab_down() {
	local rc=$? f
	trap - EXIT INT TERM
	set +e
	lab_stop_all
	if ! lab_sanitizer_clean; then
		echo "FAILED: a sanitizer reported" >&2
		if [ $rc = 0 ] || [ $rc = 77 ]; then rc=1; fi
	fi
	if grep -sqa 'impossible event' "$LAB_DIR"/*/log; then
		echo "FAILED: an impossible event was logged" >&2
		if [ $rc = 0 ]; then rc=1; fi
	fi
	if [ $rc != 0 ] && [ $rc != 77 ]; then
		for f in "$LAB_DIR"/*.err "$LAB_DIR"/*/log; do
			if [ -s "$f" ]; then
				echo "---- ${f#"$LAB_DIR"/}"
				tail -n "${LOG_LINES:-25}" "$f" | cut -c1-400
			fi
		done
	fi
	for f in $LAB_NS; do
		ip netns del "$LAB-$f" 2>/dev/null
		rm -rf "/etc/netns/$LAB-$f"
	done
	for f in $(awk -v d="$LAB_DIR/" 'index($2, d) == 1 { print $2 }' /proc/mounts); do
		umount "$f" || rc=1 # a file system of kernel objects: they go with it
	done
	if [ -z "${KEEP:-}" ]; then rm -rf "$LAB_DIR"; else echo "kept: $LAB_DIR"; fi
	exit $rc
}

# ---- the daemon ----

# Every instance has a directory of its own; INST names it (default main).
# GLOBAL holds further lines for the section `global`, indented by two.
instance() { INST=$1; }

write_conf() { # TEXT: everything but version and global
	local dir=$LAB_DIR/$INST
	mkdir -p "$dir/run" "$dir/state" "$dir/bpf"
	if [ -z "${HTTP_ADDRS[$INST]:-}" ]; then
		HTTP_ADDRS[$INST]=127.0.0.1:$((9180 + ${#HTTP_ADDRS[@]}))
	fi
	{
		printf 'version: 1\nglobal:\n  runtime_dir: %s/run\n  state_dir: %s/state\n' "$dir" "$dir"
		printf '  bpf_dir: %s/bpf\n  http: %s\n' "$dir" "${HTTP_ADDRS[$INST]}"
		if [ -n "${GLOBAL:-}" ]; then printf '%s\n' "$GLOBAL"; fi
		printf '%s\n' "$1"
	} >"$dir/sluice.yaml.new"
	mv "$dir/sluice.yaml.new" "$dir/sluice.yaml"
}

# route NAME PORTS FORWARD [MORE]: one line of the list of routes.
route() { echo "  - { name: $1, match: { ports: $2 }, forward: $3${4:+, $4} }"; }

# start_sluice TEXT [ARGUMENT...]: WRAP is a command to start it with.
start_sluice() {
	local dir=$LAB_DIR/$INST
	write_conf "$1"
	shift
	# shellcheck disable=SC2086
	ip netns exec "$LAB-p" ${WRAP:-} "$SLUICED" -c "$dir/sluice.yaml" \
		${SLUICE_SINGLE:+--single} "$@" >>"$dir/log" 2>&1 </dev/null &
	SLUICE_PID=$!
	lab_pids+=("$SLUICE_PID")
	SLUICE_PIDS[$INST]=$SLUICE_PID
	wait_until 8000 sluice_runs_or_died || fail "sluiced is not ready"
	if gone "$SLUICE_PID"; then fail "sluiced ended while starting"; fi
}

is_running() { [ "$(jqs .state 2>/dev/null)" = running ]; }
sluice_runs_or_died() { gone "${SLUICE_PIDS[$INST]}" || is_running; }

# SIGTERM; the exit code is in RC.
stop_sluice() {
	kill -TERM "${SLUICE_PIDS[$INST]}"
	join_sluice
}

join_sluice() {
	RC=0
	wait_until "${1:-10000}" gone_or_zombie "${SLUICE_PIDS[$INST]}" || fail "sluiced does not end"
	wait "${SLUICE_PIDS[$INST]}" || RC=$?
}

gone_or_zombie() {
	local state
	state=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1) || true
	[ -z "$state" ] || [ "$state" = Z ]
}

sl() { "$O/sluice" --socket "$LAB_DIR/$INST/run/control.sock" "$@"; }
# Exit code 4, degraded, comes with an answer.
jqs() { { sl status --json || [ $? = 4 ]; } | jq -r "$1"; }
http_get() { in_ns proxy curl -sS --max-time 5 "http://${HTTP_ADDRS[$INST]}$1"; }
# n_rejected REASON: by the metrics.
n_rejected() {
	http_get /metrics | awk -v r="reason=\"$1\"" '/^sluice_connections_rejected_total/ && index($0, r) { n += $NF } END { print n + 0 }'
}

# reload [TEXT]: writes the new text, if any, and reloads; fails when the daemon refuses.
reload() {
	if [ $# -gt 0 ]; then write_conf "$1"; fi
	sl reload >"$LAB_DIR/reload.out" 2>&1 || fail "reload: $(cat "$LAB_DIR/reload.out")"
}

# The process that carries connections.
proxy_pid() {
	local pid children
	if [ -n "${SLUICE_SINGLE:-}" ]; then
		echo "${SLUICE_PIDS[$INST]}"
		return
	fi
	children=$(cat "/proc/${SLUICE_PIDS[$INST]}/task/${SLUICE_PIDS[$INST]}/children" 2>/dev/null) || return 0
	for pid in $children; do
		if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q proxy; then
			echo "$pid"
			return
		fi
	done
}

cpu_ms() { awk '{ sub(/.*\) /, ""); print ($12 + $13) * 10 }' "/proc/$1/stat"; }
rss_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
# What each descriptor is; one that is closed meanwhile is none.
fds() { find "/proc/$1/fd" -mindepth 1 -maxdepth 1 -printf '%l\n' 2>/dev/null || true; }
n_fds() { fds "$1" | wc -l; }
# Without pipes, of which each worker keeps a bounded number for the next connections.
n_own_fds() { fds "$1" | grep -vc '^pipe:'; }
n_pipes() { fds "$1" | grep -c '^pipe:' || true; }
n_sockets() { in_ns proxy ss -Htan | grep -vc '^TIME-WAIT' || true; }
# inodes PORT...: of the sockets that listen there; a socket that was kept has the same.
inodes() {
	local ports="sport = :$1" port
	for port in "${@:2}"; do ports+=" or sport = :$port"; done
	in_ns proxy ss -Hltne "( $ports )" 2>/dev/null | grep -o 'ino:[0-9]*' | sort | xargs
}

# ---- its log ----

log_file() { echo "$LAB_DIR/$INST/log"; }
access_lines() { grep -aE " access: .* route=$1 " "$(log_file)" || true; } # ROUTE
n_access() { access_lines "$1" | wc -l; }
has_access() { [ "$(n_access "$1")" -ge "$2" ]; }

# wait_access ROUTE [N]: until the route has N access lines (default 1).
wait_access() { wait_for has_access "$1" "${2:-1}"; }

# access ROUTE FIELD: of the last access line of that route.
access() { access_lines "$1" | tail -n 1 | sed -n "s/.* $2=\([^ ]*\).*/\1/p"; }

has_log() { grep -aqE -- "$1" "$(log_file)"; }
wait_log() { wait_for has_log "$1"; }

# assert_ended ROUTE N CLIENT_REASON BACKEND_REASON: of the N-th connection of that route.
assert_ended() {
	local line
	wait_access "$1" "$2"
	line=$(access_lines "$1" | sed -n "$2p")
	assert_eq "reasons of connection $2 of $1" \
		"$(sed 's/.*client_reason=\([^ ]*\).*/\1/' <<<"$line") $(sed 's/.*backend_reason=\([^ ]*\).*/\1/' <<<"$line")" \
		"$3 $4"
}

# ---- leaving nothing behind ----

baseline() {
	BASE_PID=$(proxy_pid)
	BASE_FDS=$(n_own_fds "$BASE_PID")
	BASE_SOCKETS=$(n_sockets)
}

at_baseline() {
	seen_fds=$(n_own_fds "$BASE_PID")
	seen_sockets=$(n_sockets)
	seen_active=$(jqs .connections.active)
	[ "$seen_fds" -le "$BASE_FDS" ] && [ "$seen_sockets" -le "$BASE_SOCKETS" ] &&
		[ "$seen_active" = 0 ]
}

# Within half a second; how long a look takes says how much longer that is on a busy machine.
assert_back_to_baseline() {
	local start end=0 now
	start=$(now_ms)
	until at_baseline; do
		now=$(now_ms)
		if [ $end = 0 ]; then end=$((start + ((now - start) * 8 > 500 * SLOW ? (now - start) * 8 : 500 * SLOW))); fi
		if [ "$now" -ge "$end" ]; then
			in_ns proxy ss -tanp | grep -v TIME-WAIT | head -n 20 >&2 || true
			find "/proc/$BASE_PID/fd" -mindepth 1 -maxdepth 1 -printf '%l\n' | sort | uniq -c >&2
			fail "not back at the baseline: active $seen_active, fds $seen_fds ($BASE_FDS)," \
				"sockets $seen_sockets ($BASE_SOCKETS)"
		fi
		sleep 0.02
	done
	assert_between "pipes kept" "$(n_pipes "$BASE_PID")" 0 $((2 * POOLED_PIPES * $(nproc)))
}

# ---- peers ----

client() { in_ns client "$PEERS/peer_client" "$@"; }

# client_bg NAME ARGUMENT...: in the background; output in NAME.out; pid in LAST. It lives as long as its
# timeout=SECONDS says, which is a time of the lab: SLOW times as long.
client_bg() {
	local name=$1 word words=()
	shift
	for word; do
		if [[ $word == timeout=* ]]; then word=timeout=$((${word#*=} * SLOW)); fi
		words+=("$word")
	done
	OUT=$LAB_DIR/$name.out spawn client "$PEERS/peer_client" "${words[@]}"
	PEER_PIDS[$name]=$LAST
}

# server NAME MODE PORT[,PORT...] [ARGUMENT...]: on the backend, IPv4 and IPv6.
server() {
	local name=$1 mode=$2 ports=${3//,/ } port listens=()
	shift 3
	for port in $ports; do listens+=("listen=$BACKEND_IP:$port" "listen=[$BACKEND6]:$port"); done
	OUT=$LAB_DIR/$name.out spawn backend "$PEERS/peer_server" "$mode" "${listens[@]}" \
		timeout=$((300 * SLOW)) name="$name" "$@"
	PEER_PIDS[$name]=$LAST
	for port in $ports; do wait_for listening backend "$port"; done
}

listening() { # NS PORT
	in_ns "$1" ss -Hltn "sport = :$2" | grep -q .
}

# stop_peer NAME: SIGTERM, then RC and its last line in RESULT.
stop_peer() {
	kill -TERM "${PEER_PIDS[$1]}" 2>/dev/null || true
	join_peer "$1"
}

join_peer() {
	RC=0
	wait "${PEER_PIDS[$1]}" || RC=$?
	RESULT=$(tail -n 1 "$LAB_DIR/$1.out")
}

join_shot() { # NAME: of a shot in the background, for `of`
	join_peer "$1"
	SHOT=$RESULT
}

has_output() { [ -s "$LAB_DIR/$1.out" ]; }

# How many connections a server has open now.
server_field() { # NAME FIELD
	local before
	before=$(wc -l <"$LAB_DIR/$1.out" 2>/dev/null || echo 0)
	kill -USR1 "${PEER_PIDS[$1]}"
	wait_for more_lines "$LAB_DIR/$1.out" "$before"
	tail -n 1 "$LAB_DIR/$1.out" | jq -r ".$2"
}
more_lines() { [ "$(wc -l <"$1")" -gt "$2" ]; }

# shot ARGUMENT...: one connection; SHOT holds the result, `of FIELD` reads it.
shot() { SHOT=$(client shot timeout=$((15 * SLOW)) "$@" || true); }
of() { jq -r ".$1" <<<"$SHOT"; }

# timely MIN MAX ARGUMENT...: a shot that ends between MIN and MAX ms after its connect has returned. One may be held
# up by others on this machine, before that or after, but not all of five. SHOTS: how many it took.
timely() {
	local min=$1 max=$2
	shift 2
	for ((SHOTS = 1; SHOTS <= 5; SHOTS++)); do
		shot "$@"
		if awk -v v="$(of end_ms)" -v a="$min" -v b="$((max * SLOW))" 'BEGIN { exit !(v >= a && v <= b) }'; then return; fi
	done
	fail "none of five ended after $min to $max ms, the last one after $(of end_ms)"
}

# names_of PORT N: who of several `identify` servers served each of N connections, in order.
names_of() {
	in_ns client bash -c 'for ((i = 0; i < $3; i++)); do
		"$1" shot timeout=15 to="$2"; done' _ "$PEERS/peer_client" "$PROXY_IP:$1" "$2" |
		jq -r '.text | split(" ")[0]'
}
counts() { sort "$1" | uniq -c | awk '{ print $2 "=" $1 }' | xargs; } # FILE: "s1=5 s2=3"

# A scripted peer for sequences that matter in detail: see dialog.py.
dialog() { # client|backend ARGUMENT...
	local ns=$1
	shift
	in_ns "$ns" /usr/bin/python3 "$lab_root/tests/lib/dialog.py" "$@"
}

# dialog_server NAME PORT STEP...: one connection on the backend (LISTEN_IP=, else its IPv4 address);
# join_peer NAME for its verdict.
dialog_server() {
	local name=$1 port=$2
	shift 2
	OUT=$LAB_DIR/$name.out spawn backend /usr/bin/python3 "$lab_root/tests/lib/dialog.py" \
		"listen=${LISTEN_IP:-$BACKEND_IP}:$port" "$@"
	PEER_PIDS[$name]=$LAST
	wait_for listening backend "$port"
}

if [ "$(id -u)" != 0 ]; then skip "needs root"; fi
if ! [ -x "$SLUICED" ] || ! [ -x "$PEERS/peer_client" ]; then fail "not built: $SLUICED, $PEERS"; fi
trap lab_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
lab_up
