#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What the command line, the control API and the metrics say about routes of the kernel's NAT, against what
# nft and conntrack say; what NAT cannot do is refused by the check, at its place.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

nat_up
server e echo 8001
udp_server u backend 8002
text="routes:
$(nroute web 8080 "\"$BACKEND_IP:8001\"" 'security: { deny: 192.0.2.0/24 }')
$(nroute six 8081 "\"[$BACKEND6]:8001\"")
$(uroute udp 8082 "\"$BACKEND_IP:8002\"")
$(route relay 8083 "\"$BACKEND_IP:8001\"")"
start_nat "$text"
nat_baseline

say "an engine that is on"
assert_eq "exit code and state" "$(sl status --json >/dev/null; echo $?)" 0
assert_match "status" "$(sl status)" $'nftables +[^\n]*3 routes[^\n]*inet sluice'
assert_match "engines" "$(sl engines)" $'nftables +'
assert_eq "in JSON" "$(sl engines --json | jq -r '.engines.nftables.available')" true
assert_eq "routes" "$(nat_field routes)" 3
assert_eq "repairs, resyncs" "$(nat_field repairs) $(nat_field resyncs)" "0 0"

say "a flow is told as conntrack has it"
client_bg held hold to=$PROXY_IP:8080 n=3 ping=1 timeout=60
client_bg six hold "to=[$PROXY6]:8081" n=2 ping=1 timeout=60
wait_records web 3
wait_records six 2
rows=$(sl conns --route web --json)
assert_eq "engine" "$(jq -r '[.[] | "\(.engine) \(.engine_reason) \(.state)"] | unique | join(",")' <<<"$rows")" "nftables configured established"
assert_eq "backend" "$(jq -r '[.[].backend] | unique | join(" ")' <<<"$rows")" "$BACKEND_IP:8001"
assert_eq "clients as in conntrack" "$(jq -r '.[].client' <<<"$rows" | sort | xargs)" \
	"$(in_ns proxy conntrack -L -p tcp --orig-port-dst 8080 2>/dev/null | sed -n "s/.* src=$CLIENT_IP dst=$PROXY_IP sport=\([0-9]*\).*/$CLIENT_IP:\1/p" | sort | xargs)"
assert_eq "IPv6" "$(sl conns --route six --json | jq -r '[.[].backend] | unique | join(" ")')" "[$BACKEND6]:8001"
in_status() { [ "$(n_nat_active) $(jqs .kernel.nft_flows)" = "$1 $1" ]; }
wait_for in_status 5
assert_eq "of the route" "$(jqs '.routes[] | select(.name == "web") | .active')" 3
assert_eq "of its target" "$(jqs '.routes[] | select(.name == "web") | .targets[0].active')" 3
moves() { client shot timeout=10 to=$PROXY_IP:8080 up=100000 fin=1 >/dev/null && [ "$(n_access web)" -ge 1 ]; }
wait_until 15000 moves || fail "no access line"
assert_between "its bytes" "$(access web up)" 100000 110000

say "explain"
assert_match "whose port it is" "$(sl explain 8080 --client $CLIENT_IP)" 'web'
assert_match "the engine" "$(sl explain 8080 --client $CLIENT_IP)" 'nftables'
assert_match "who is denied" "$(sl explain 8080 --client 192.0.2.7)" 'deny|denied'

say "metrics"
wait_until 15000 in_status 5 || fail "records: $(n_nat_active)"
http_get /metrics >"$LAB_DIR/metrics"
if command -v promtool >/dev/null; then
	promtool check metrics <"$LAB_DIR/metrics" >"$LAB_DIR/promtool" 2>&1 || fail "promtool: $(cat "$LAB_DIR/promtool")"
	assert_eq "promtool's words" "$(cat "$LAB_DIR/promtool")" ""
fi
sample() { grep -v '^#' "$LAB_DIR/metrics" | grep -F "$1 " | awk '{ print $NF }'; }
assert_eq "available" "$(sample 'sluice_engine_available{engine="nftables"}')" 1
assert_eq "flows" "$(sample 'sluice_kernel_flows{engine="nftables"}')" 5
assert_eq "repairs" "$(sample sluice_nftables_repairs_total)" 0
assert_eq "resyncs" "$(sample sluice_nftables_resyncs_total)" 0
assert_between "entries" "$(sample sluice_conntrack_entries)" 5 100
assert_eq "limit" "$(sample sluice_conntrack_limit)" "$(ct_setting max)"

say "names in the table"
for name in web six udp; do in_table "comment \"$name\"" || fail "$name is not in the table"; done
not_in_table '"relay"' || fail "a route of another engine is in the table"

say "ports of its own: the daemon listens on none of them"
assert_eq "listening" "$(in_ns proxy ss -Hltn '( sport = :8080 or sport = :8081 )' | wc -l)" 0
assert_eq "the other's" "$(in_ns proxy ss -Hltn 'sport = :8083' | wc -l)" 1

say "what NAT cannot do is refused, with the place"
check() { # ROUTE REGEX
	printf 'version: 1\nroutes:\n%s\n' "$1" >"$LAB_DIR/check.yaml"
	RC=0
	"$SLUICED" -t -c "$LAB_DIR/check.yaml" >"$LAB_DIR/check.out" 2>&1 || RC=$?
	assert_eq "exit code of $1" "$RC" 78
	assert_match "words" "$(grep -E 'check.yaml:[0-9]+:[0-9]+: error: ' "$LAB_DIR/check.out")" "$2"
	assert_match "caret" "$(cat "$LAB_DIR/check.out")" $'\n *\\| *\\^'
}
check "$(nroute a 80 '{ targets: "10.0.0.5:80", send_proxy: v2 }')" 'send_proxy.*put nothing before'
check "$(nroute a 80 '"web.example:80"')" 'web.example'
check "$(nroute a 80 '"[::1]:80"')" '::1'
check "$(nroute a '"10.0.0.1:80"' '"[2001:db8::1]:80"')" '2001:db8|IPv6|famil'
check "$(route a 80 '"10.0.0.5:80"' 'engine: relay, security: { packets: 5/s }')" "packets.*needs 'engine: nftables'"
check "  - { name: a, engine: nftables, match: { ports: 80, domains: a.example }, forward: \"10.0.0.5:80\" }" 'domains.*reads nothing'
check "  - { name: a, match: { ports: 80, protocol: udp }, forward: \"10.0.0.5:80\" }" 'udp.*nftables'
with() { echo "  - { name: a, engine: nftables, match: { $1 }, $2 }"; }
T='forward: "10.0.0.5:80"'
check "$(with 'ports: 80, path: /a' "$T")" 'match.path.*reads nothing'
check "$(with 'ports: 80, tls: { alpn: [h2] }' "$T")" 'match.tls.*reads nothing'
check "$(with 'ports: 80, clients: 10.0.0.0/8' "$T")" 'match.clients.*by port and address alone'
check "$(with 'ports: 80' 'http: { paths: [] }')" 'http.*reads nothing'
check "$(with 'ports: 80' "tls: { cert: /a, key: /b }, $T")" "'tls'"
check "$(with 'ports: "[2001:db8::1]:80"' "$T")" "'10.0.0.5:80' is an IPv4 address.*from one family to the other"
check "$(with 'ports: "0.0.0.0:80"' 'forward: "[2001:db8::1]:80"')" 'IPv6 address.*from one family to the other'
check "$(with 'ports: "[::1]:80"' 'forward: "[2001:db8::1]:80"')" 'clients of ::1'
check "$(with 'ports: 9000-9099' 'forward: { targets: ["10.0.0.5", "::1"], port: preserve }')" "'::1'.*clients of other hosts"
check "$(with 'ports: 80' 'forward: "[fe80::1]:80"')" 'link-local'
check "$(with 'ports: 80' 'forward: { targets: "10.0.0.5:80", health: { tls: true } }')" 'health.tls.*by connecting only'
check "$(with 'ports: 80' 'forward: { targets: "10.0.0.5:80", health: { path: / } }')" 'health.path.*by connecting only'
check "$(with 'ports: 80' "$T, security: { deny: \"10.?.?.1\" }")" 'not a range of addresses'
check "$(with 'ports: 80-90' "$T")
$(route b 85 '"10.0.0.6:80"')" 'port 85 cannot be shared'
check "$(with 'ports: 80' "$T")
$(route b '"10.0.0.1:80"' '"10.0.0.6:80"')" 'port 80 cannot be shared'
check "$(with 'ports: 80-90' "$T")
$(nroute b 90-99 '"10.0.0.6:80"')" 'port 90 belongs to another route'
check "$(with 'ports: 80' "$T")
listeners:
  - { ports: 80, accept_proxy: { from: 10.0.0.0/8, required: true } }" 'accept_proxy'
check "$(route a 80 '{ targets: "10.0.0.5:80", preserve_source: true }')" "preserve_source.*needs 'engine: nftables'"

say "a reload that is refused changes nothing"
form=$(table_form)
write_conf "routes:
$(nroute web 8080 '{ targets: "10.0.0.5:80", send_proxy: v2 }')"
rc=0
sl reload >/dev/null 2>&1 || rc=$?
assert_eq "exit code" $rc 78
assert_eq "the table" "$(table_form)" "$form"

say "changes at run time"
echo "{ match: { ports: 8090 }, engine: nftables, forward: \"$BACKEND_IP:8001\" }" | sl routes set added >/dev/null || fail "routes set"
shot to=$PROXY_IP:8090 send=x fin=1
assert_eq "added" "$(of end) $(of text)" "eof x"
sl routes disable added >/dev/null || fail "routes disable"
refused $PROXY_IP:8090 || fail "disabled: $SHOT"
sl routes enable added >/dev/null || fail "routes enable"
shot to=$PROXY_IP:8090 send=x fin=1
assert_eq "enabled" "$(of end) $(of text)" "eof x"
sl routes remove added >/dev/null || fail "routes remove"
refused $PROXY_IP:8090 || fail "removed: $SHOT"
stop_peer held
stop_peer six
assert_nat_baseline
