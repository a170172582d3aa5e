#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Connections routed by their ClientHello, and those that came with a PROXY header, end up in the kernel as
# well, under the real client's address, also after the daemon was killed.
# shellcheck disable=SC2034
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"
. "$(dirname "$0")/../lib/proxylab.sh"

GO=$LAB_DIR/go
server one banner 8001 text="one|"
server two banner 8002 text="two|"
proxy_server p 8003,8004
text="listeners:
  - { ports: [8080, 8081], accept_proxy: { from: [$TRUSTED_NET], required: true } }
routes:
  - { name: one, match: { ports: 443, domains: [one.example] }, forward: \"$BACKEND_IP:8001\", engine: $ENGINE }
  - { name: two, match: { ports: 443, domains: ['*.two.example'] }, forward: \"$BACKEND_IP:8002\", engine: $ENGINE }
  - { name: proxied, match: { ports: 8080 }, forward: \"$BACKEND_IP:8003\", engine: $ENGINE }
  - { name: both, match: { ports: 8081, domains: [one.example] }, forward: \"$BACKEND_IP:8003\", engine: $ENGINE }"
start_packet "" "$text"
packet_baseline
mark_rst
sni() { # NAME WHO SERVER_NAME
	OUT=$LAB_DIR/$1.out spawn client /usr/bin/python3 tests/lib/sni.py held $PROXY_IP:443 "$2" at=0 go="$GO" sni="$3"
	PEER_PIDS[$1]=$LAST
}
row() { sl conns --route "$1" --json | jq -r '.[0] | [.engine, .sni, .client, .client_via] | join(" ")'; }

say "both kinds, held open"
sni one one one.example
sni two two a.two.example
ask_bg proxied to=$PROXY_IP:8080 src=$TRUSTED header="v2 src=192.0.2.1:1000 dst=198.51.100.1:443" send=payload bulk=300000 hold="$GO"
ask_bg both to=$PROXY_IP:8081 src=$TRUSTED header="v1 src=[2001:db8::1]:5 dst=[2001:db8::2]:6" hello=one.example send=payload hold="$GO"
for r in one two proxied both; do wait_engine $r; done
assert_match one "$(row one)" "^$ENGINE one.example $CLIENT_IP:[0-9]+ -?\$"
assert_match two "$(row two)" "^$ENGINE a.two.example $CLIENT_IP:"
assert_match proxied "$(row proxied)" "^$ENGINE  ?192.0.2.1:1000 $TRUSTED:[0-9]+\$|^$ENGINE - 192.0.2.1:1000 $TRUSTED:"
assert_match both "$(row both)" "^$ENGINE one.example \[2001:db8::1\]:5 $TRUSTED:"

if on_packet && [ -z "${SLUICE_SINGLE:-}" ]; then
	say "the daemon dies and another adopts them: route, client and via stay"
	kill -KILL "$SLUICE_PID"
	join_sluice
	wait_until 2000 eval '[ -z "$(ip netns pids "$LAB-p")" ]' || fail "left"
	start_packet "" "$text"
	assert_eq adopted "$(jqs .kernel.adopted)" 4
	assert_match proxied "$(row proxied)" "192.0.2.1:1000 $TRUSTED:[0-9]+\$"
	assert_match both "$(row both)" "\[2001:db8::1\]:5 $TRUSTED:"
fi
touch "$GO"
for r in one two proxied both; do
	join_peer $r
	assert_eq "$r: $(cat "$LAB_DIR/$r.out.err")" "$RC" 0
done
for r in one two proxied both; do
	assert_ended $r 1 normal normal
	assert_match "engine of $r" "$(access $r engine)" "^$ENGINE/"
done
assert_match "bytes" "$(access proxied up) $(access proxied down)" '^30[0-9]{4} 30[0-9]{4}$'
assert_line proxied "client=192.0.2.1:1000 via=$TRUSTED:[0-9]+"
assert_no_rst

say "hellos in pieces, and many of them"
rm "$GO"
for ((i = 0; i < 40; i++)); do
	in_ns client /usr/bin/python3 tests/lib/sni.py held $PROXY_IP:443 one at=$((20 + i)) go=/ sni=one.example >/dev/null ||
		fail "hello split at $((20 + i))"
done
wait_until 3000 eval '[ "$(jqs .connections.active)" = 0 ]' || fail "active"
assert_no_rst
wait_until 2000 eval '! on_packet || no_live_flows' || fail "live entries left"
stop_sluice
assert_eq "exit code" "$RC" 0
