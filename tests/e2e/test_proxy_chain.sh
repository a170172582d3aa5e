#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Three instances in a row, PROXY headers of both versions between them: client - first - second - third -
# backend. The backend and every instance see the true client, and limits per address count it.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/proxylab.sh"

proxy_server p 8000 expect=1
server v verify 8009
GO=$LAB_DIR/go
ACCEPT="accept_proxy: { from: [127.0.0.1], required: true }"

# to PORT VERSION [TARGET]: the next instance, or the backend.
to() { echo "{ targets: \"${3:-127.0.0.1:$1}\", send_proxy: $2 }"; }
# What each instance sends to its next: FIRST SECOND THIRD, for the ports 8N01, 8N02, ... of instance N.
first_sends=(v1 v2 v1 '{ version: v2, crc32c: true, unique_id: true }' none)
second_sends=(v1 v2 '{ version: v2, crc32c: true }' v1 none)
third_sends=(v1 v2 '{ version: v2, crc32c: true, unique_id: true }' v1 none)
BACK="$BACKEND_IP:8000"

chain_routes() { # N SENDS...
	local n=$1 i=1 target='' limits=$LIMITS
	shift
	for send in "$@"; do
		if [ "$n" = 3 ]; then target=$BACK; fi
		if [ "$n$send" = 3none ]; then target=$BACKEND_IP:8009 limits=; fi
		route "way$i" "8${n}0$i" "$(to "8$((n + 1))0$i" "$send" $target)" "$limits"
		i=$((i + 1))
	done
}
LIMITS='security: { max_connections_per_ip: 3 }'
INST=third start_sluice "listeners: [ { ports: [\"8301-8304\"], $ACCEPT } ]
routes:
$(chain_routes 3 "${third_sends[@]}")"
LIMITS=
INST=second start_sluice "listeners: [ { ports: [\"8201-8204\"], $ACCEPT } ]
routes:
$(chain_routes 2 "${second_sends[@]}")"
INST=first start_sluice "routes:
$(chain_routes 1 "${first_sends[@]}")"

all_idle() {
	local i
	for i in first second third; do
		[ "$(INST=$i jqs .connections.active)" = 0 ] || return 1
	done
}

say "the backend sees the client, through both versions in any order"
for i in 1 2 3 4; do
	case $i in
	1 | 4) want="ok v1 src=CLIENT dst=$PROXY_IP:810$i" ;;
	2) want="ok v2 src=CLIENT dst=$PROXY_IP:810$i" ;;
	3) want="ok v2 src=CLIENT dst=$PROXY_IP:810$i unique_id=[0-9]+ crc32c" ;;
	esac
	for src in 10.91.130.1 10.91.130.2; do
		ask to=$PROXY_IP:810$i src=$src bulk=300000 send=start
		C=$(told local)
		assert_match "way $i" "$(told line)" "^peer=$PROXY_BACK_IP:[0-9]+ ${want//CLIENT/$C}\$"
		assert_eq "way $i: payload" "$(told bulk) $(told end)" "true eof"
		instance first && wait_own "$C" " client=$C via=- route=way$i "
		instance second && wait_own "$C" " client=$C via=127\.0\.0\.1:[0-9]+ route=way$i "
		instance third && wait_own "$C" " client=$C via=127\.0\.0\.1:[0-9]+ route=way$i "
	done
done
ask to="[$PROXY6]:8102" send=x
assert_match "a client with IPv6" "$(told line)" "ok v2 src=\[fd91::2\]:[0-9]+ dst=\[fd91::1\]:8102\$"

say "a limit of 3 per address at the third counts clients, not the second instance"
n_open() { [ "$(INST=third jqs .connections.active)" = "$1" ]; }
for i in 1 2 3; do
	ask_bg "a$i" to=$PROXY_IP:8102 src=10.91.130.1 hold="$GO"
	ask_bg "b$i" to=$PROXY_IP:8102 src=10.91.130.2 hold="$GO"
done
wait_for n_open 6
for src in 10.91.130.1 10.91.130.2; do
	ask to=$PROXY_IP:8102 src=$src send=x
	assert_eq "the fourth of $src" "$(told end)" reset
	instance third && wait_own "$(told local)" " client_reason=limit_ip backend_reason=-"
done
ask to=$PROXY_IP:8102 src=10.91.130.3 send=x
assert_eq "of a third client" "$(told end)" eof
assert_eq "conns of the third" \
	"$(INST=third sl conns --json | jq -r '[.[].client | split(":")[0]] | group_by(.) | map("\(.[0])*\(length)") | join(" ")')" \
	"10.91.130.1*3 10.91.130.2*3"
touch "$GO"
for i in a1 a2 a3 b1 b2 b3; do
	join_peer $i
	assert_eq "connection $i" "$(jq -r .end <<<"$RESULT")" eof
done
rm "$GO"
wait_until 2000 all_idle || fail "not idle after the limits"

say "killed by the client's address in the middle: all of it ends"
ask_bg held to=$PROXY_IP:8103 src=10.91.130.4 hold="$GO"
wait_for has_output held
instance second
sl kill --client 10.91.130.4/32 >"$LAB_DIR/kill.out"
wait_until 2000 all_idle || fail "not idle after the kill"
touch "$GO"
join_peer held
assert_eq "its end" "$(jq -r .end <<<"$RESULT")" reset

say "without headers, beside them: 60 checked transfers"
client verify to=$PROXY_IP:8105 n=60 c=10 max=1000000 timeout=30
wait_until 2000 all_idle || fail "not idle after the transfers"

say "who goes to the second directly is not believed"
ask to=$PROXY_IP:8202 src=$STRANGER header="v2 src=192.0.2.1:1 dst=192.0.2.2:2" send=x
assert_eq "refused" "$(told end)" reset
instance second && wait_own "$(told local)" " client=$(told local) via=- .* client_reason=proxy_protocol_untrusted "
