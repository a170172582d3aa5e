#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Bulk over TLS 1.2 is left to the kernel where it has TLS (tests/vm has kernels that do), and goes on
# as ever where it has none. Either way every byte arrives, every end is told as what it is, bytes are
# counted, and nothing stays behind.
#   MB=N   so many MiB a transfer
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
stall=$((10000 * SLOW))
PAUSE=$((SLOW > 1 ? 10 : 2)) # ms every 64 KiB: a second for all
AES128=ECDHE-ECDSA-AES128-GCM-SHA256 AES256=ECDHE-ECDSA-AES256-GCM-SHA384 CHACHA=ECDHE-ECDSA-CHACHA20-POLY1305

in_ns proxy sysctl -qw net.ipv4.tcp_rmem="4096 2097152 6291456" # enough for bulk from the start

# The host is asked past the daemon.
modprobe -q tls 2>/dev/null || true
KTLS=tx+rx REASON=''
if ! grep -qsw tls /proc/sys/net/ipv4/tcp_available_ulp; then KTLS=off REASON="the kernel has no TLS"; fi
N=$((${MB:-$([ $KTLS = off ] || [ "$SLOW" -gt 1 ] && echo 4 || echo 32)} << 20))

server v verify 8020 stall=$stall
tls_server vt 8021 cert="$CERTS/one.pem" key="$CERTS/one.key" stall=$stall
tls_server vn 8022 v=1.3 cert="$CERTS/one.pem" key="$CERTS/one.key" stall=$stall updates=3
start_sluice "routes:
$(ends plain 8443 "\"$BACKEND_IP:8000\"")
$(ends both 8444 "$(to_tls "$BACKEND_IP:8000")")
$(route out 8080 "$(to_tls "$BACKEND_IP:8000")")
$(ends v 8450 "\"$BACKEND_IP:8020\"")
$(ends vt 8451 "$(to_tls "$BACKEND_IP:8021")")
$(ends vn 8452 "$(to_tls "$BACKEND_IP:8022")")
$(route vout 8081 "$(to_tls "$BACKEND_IP:8021")")"
baseline

say "the host: kTLS $KTLS"
has "engines" "$(sl engines)" "ktls: ${REASON:+un}available${REASON:+ ($REASON)}"
assert_eq "engines" "$(sl engines --json | jq -c .ktls)" \
	"$(if [ $KTLS = off ]; then echo "{\"available\":false,\"reason\":\"$REASON\"}"; else echo '{"available":true,"reason":null}'; fi)"

bulk_dialog() { # client|backend ARGUMENT...
	in_ns "$1" /usr/bin/python3 tests/lib/ktls_dialog.py "$2" slow:$((15 * SLOW)) "${@:3}"
}
bulk_bg() { # NAME client|backend ARGUMENT...
	rm -f "$LAB_DIR/$1.out"*
	OUT=$LAB_DIR/$1.out spawn "$2" /usr/bin/python3 tests/lib/ktls_dialog.py "$3" slow:$((15 * SLOW)) "${@:4}"
	PEER_PIDS[$1]=$LAST
}
# target ROUTE STEP...: the backend of that route
target() {
	local route=$1 first=()
	shift
	if [ "$route" != plain ]; then first=("serve12:$CERTS/one.pem:$CERTS/one.key:$CIPHER"); fi
	bulk_bg b backend "listen=$BACKEND_IP:8000" "${first[@]}" "$@"
	wait_for listening backend 8000
}
declare -A port=([plain]=8443 [both]=8444 [out]=8080)
# source ROUTE STEP...: its client
source_bg() {
	local route=$1 first=()
	shift
	if [ "$route" != out ]; then first=("tls12:one.example:$CIPHER"); fi
	bulk_bg c client "to=$PROXY_IP:${port[$route]}" "${first[@]}" "$@"
}
joined() { # both are done, as they should
	join_peer c
	assert_eq "the client: $(cat "$LAB_DIR/c.out.err")" "$RC" 0
	served b
}
# meets FILE: it has appeared; one of the two may have failed instead.
meets() {
	met() { [ -e "$1" ] || gone_or_zombie "${PEER_PIDS[c]}" || gone_or_zombie "${PEER_PIDS[b]}"; }
	wait_until 30000 met "$1" || fail "no $1"
	if ! [ -e "$1" ]; then joined; fi
}
conn() { sl conns --json | jq -c --arg r "$1" '[.. | objects | select(.route? == $r and .id?)][0]'; }
# shows ROUTE: what is shown of its connection
shows() {
	local row front=$KTLS back=$KTLS
	case $1 in
	plain) back=null ;;
	out) front=null ;;
	esac
	row=$(conn "$1")
	assert_eq "$1, $CIPHER: kTLS" "$(jq -r '"\(.tls_ktls) \(.backend_tls_ktls)"' <<<"$row")" "$front $back"
	if [ "$1" != out ]; then assert_eq "$1: cipher" "$(jq -r .tls_cipher <<<"$row")" "$CIPHER"; fi
}
declare -A ended=()
# over ROUTE CLIENT_REASON BACKEND_REASON [UP DOWN]: of its next connection
over() {
	ended[$1]=$((${ended[$1]:-0} + 1))
	assert_ended "$1" "${ended[$1]}" "$2" "$3"
	if [ $# = 5 ]; then assert_eq "bytes of $1" "$(access "$1" up) $(access "$1" down)" "$4 $5"; fi
}
M=$LAB_DIR/mark
marks() { rm -f "$M".*; }

# rest ROUTE: nobody sends, so the proxy has nothing to do
rest() {
	local cpu
	cpu=$(cpu_ms "$BASE_PID")
	sleep 0.3
	assert_between "CPU of a silent connection of $1, ms" $(($(cpu_ms "$BASE_PID") - cpu)) 0 $((40 * SLOW / 2 + 20))
}

# Much more than two large reads take; half of it waits, which any window lets in.
HEAP=420000
heaped() { in_ns proxy ss -Htn state established | awk -v want=$((HEAP / 2)) '$1 > n { n = $1 } END { exit n < want }'; }
# heap: what waits for "bulk" is sent while the proxy stands still, so that it is bulk that comes.
heap() {
	meets "$M.c"
	meets "$M.b"
	kill -STOP "$BASE_PID"
	touch "$M.bulk"
	wait_for heaped
	kill -CONT "$BASE_PID"
}

# one WHAT ROUTE UP DOWN CLIENT_STEPS -- TARGET_STEPS: one connection, looked at while it is open
one() {
	local what=$1 route=$2 up=$3 down=$4 steps=() cpu
	shift 4
	while [ "$1" != -- ]; do
		steps+=("$1")
		shift
	done
	shift
	marks
	target "$route" tell:"$M.b" wait:"$M.bulk" "$@" tell:"$M.bb" eof end
	source_bg "$route" tell:"$M.c" wait:"$M.bulk" "${steps[@]}" tell:"$M.cc" wait:"$M.end" end eof wire_eof
	cpu=$(cpu_ms "$BASE_PID")
	heap
	meets "$M.cc"
	meets "$M.bb"
	echo "$what, $route, $CIPHER: $(($(cpu_ms "$BASE_PID") - cpu)) ms of the proxy"
	shows "$route"
	rest "$route"
	touch "$M.end"
	joined
	over "$route" normal normal "$up" "$down"
}

for CIPHER in ${CIPHERS:-$AES128 $AES256 $CHACHA}; do
	routes="plain both out"
	if [ $N -lt $((32 << 20)) ] && [ "$CIPHER" != $AES128 ]; then routes=both; fi
	for route in $routes; do
		say "$route, $CIPHER: down, up, both at once"
		one down "$route" 0 $N check:1:$N -- much:1:$N
		one up "$route" $N 0 much:2:$N -- check:2:$N
		one duplex "$route" $N $N both:3:4:$N -- both:4:3:$N
	done
	assert_back_to_baseline
done

CIPHER=$AES128
for route in plain both out; do
	say "$route: half-close, and the target ends first"
	marks
	target $route much:1:$N end check:2:$N eof
	source_bg $route check:1:$N eof wire_eof tell:"$M.c" wait:"$M.go" much:2:$N end
	meets "$M.c"
	touch "$M.go"
	joined
	over $route normal normal $N $N
	target $route check:1:$N eof much:2:$N end
	source_bg $route much:1:$N end check:2:$N eof wire_eof
	joined
	over $route normal normal $N $N

	say "$route: the other side reads slowly"
	target $route much:1:$N check:2:$N eof end
	source_bg $route sip:1:$N:$PAUSE much:2:$N end eof wire_eof
	joined
	over $route normal normal $N $N
	target $route sip:1:$N:$PAUSE much:2:$N eof end
	source_bg $route much:1:$N check:2:$N end eof wire_eof
	joined
	over $route normal normal $N $N

	# The flow is spliced, and all of it has arrived.
	say "$route: resets"
	marks
	target $route tell:"$M.b" wait:"$M.bulk" much:1:$HEAP wait:"$M.cc" abort
	source_bg $route tell:"$M.c" check:1:$HEAP tell:"$M.cc" rst
	heap
	joined
	over $route normal econnreset 0 $HEAP
	marks
	target $route tell:"$M.b" check:1:$HEAP tell:"$M.bb" rst
	source_bg $route tell:"$M.c" wait:"$M.bulk" much:1:$HEAP wait:"$M.bb" abort
	heap
	joined
	over $route econnreset normal $HEAP 0

	say "$route: in the middle of bulk, whoever reads leaves"
	marks
	target $route check:zero:$((N / 2)) abort
	source_bg $route flood
	joined
	over $route normal econnreset
	target $route flood
	source_bg $route check:zero:$((N / 2)) abort
	joined
	over $route econnreset normal
done
assert_back_to_baseline

say "a record that was changed, met by whoever reads or writes"
marks
target plain tell:"$M.b" wait:"$M.bulk" flood
source_bg plain tell:"$M.c" check:zero:$N spoil gone
heap
joined
over plain tls_error normal
marks
target both tell:"$M.b" wait:"$M.bulk" much:1:$HEAP wait:"$M.cc" spoil gone
source_bg both tell:"$M.c" check:1:$HEAP tell:"$M.cc" rst
heap
joined
over both normal tls_error
wait_log "TLS with target .*: .*(record was changed|bad record mac)"
assert_back_to_baseline

say "an end without close_notify is none"
target plain check:1:$N rst
source_bg plain much:1:$N fin ends
joined
over plain tls_error normal
for route in both out; do
	target $route much:1:$N fin
	source_bg $route check:1:$N rst
	joined
	over $route normal tls_error
done
assert_back_to_baseline

# transfers WHAT PORT ARGUMENT...
transfers() {
	local out n=$((SLOW > 1 ? 12 : 60))
	out=$(tls_client verify to="$PROXY_IP:$2" to="[$PROXY6]:$2" n=$n c=6 max=$((N / 4)) stall=$stall ca="$CA" \
		timeout=$((60 * SLOW)) sni=one.example shapes=all "${@:3}") || fail "$1: $out"
	echo "$1: $out"
	BYTES=$(jq .bytes <<<"$out")
	assert_eq "$1: truncated" "$(jq .truncated <<<"$out")" 0
}
say "all together: TLS 1.2 and 1.3, key updates, resets, small records, slow readers, resumption"
mixed=(v=both updates=3 small=20 slow=20 resume=30)
transfers "plain targets" 8450 "${mixed[@]}"
assert_eq "bytes" "$(jqs '.routes[] | select(.name == "v") | .bytes_up + .bytes_down')" \
	$((BYTES + $(n_access v) * 40))
transfers "TLS to the target, too" 8451 "${mixed[@]}" rst=20
transfers "TLS 1.3 to the target" 8452 v=1.2
assert_back_to_baseline

say "TLS 1.3 stays here"
marks
CIPHER=-
bulk_bg b backend "listen=$BACKEND_IP:8000" much:1:$N check:2:$N eof fin
wait_for listening backend 8000
bulk_bg c client "to=$PROXY_IP:8443" tls:one.example:1.3 slow:$((15 * SLOW)) check:1:$N much:2:$N tell:"$M.c" wait:"$M.go" end eof
meets "$M.c"
why=$(sl engines --json | jq -r '.ktls.reason // "a key update would break it"')
assert_eq "TLS 1.3" "$(conn plain | jq -r '"\(.tls) \(.tls_ktls) \(.tls_ktls_why)"')" "TLSv1.3 off $why"
touch "$M.go"
joined
over plain normal normal $N $N
assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
