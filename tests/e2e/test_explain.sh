#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# `sluice explain` says before what happens then: each question is asked, then the connection is
# made, and its access line must have the same route, verdict, target and engine.
. "$(dirname "$0")/../lib/netlab.sh"

server e echo 8001,8002,8003,8004,8005
to() { echo "\"$BACKEND_IP:800$1\""; }
GLOBAL='  security: { deny: [10.91.140.0/24], enforce: userspace }' start_sluice "listeners:
  - { ports: 446, accept_proxy: { from: [10.91.150.0/24], required: true } }
routes:
  - { name: plain, match: { ports: 443 }, forward: $(to 1) }
  - { name: wild, match: { ports: 443, domains: '*.shop.example.com' }, forward: $(to 2) }
  - { name: exact, match: { ports: 443, domains: shop.example.com }, forward: [$(to 2), $(to 3)] }
  - name: vip
    priority: 1
    match: { ports: 443, domains: shop.example.com, clients: ['10.91.13?.*'] }
    forward: { targets: [$(to 3), $(to 4)], balance: source_hash }
    security: { deny: [10.91.131.7] }
  - { name: h2, match: { ports: 443, domains: alpn.example, tls: { alpn: h2, versions: '1.3' } }, forward: $(to 5) }
  - { name: off, enabled: false, match: { ports: 443, domains: off.example }, forward: $(to 5) }
  - { name: named, match: { ports: 444, domains: named.example }, forward: $(to 1) }
  - { name: here, match: { ports: '$PROXY_IP:445' }, forward: $(to 1) }
  - { name: proxied, match: { ports: 446 }, forward: $(to 1) }
  - { name: nobody, match: { ports: 447 }, forward: '10.255.255.1:1', security: { allow: [192.0.2.1] } }
  - { name: asks, match: { ports: 448 }, engine: packet, forward: $(to 1) }
  - { name: relayed, match: { ports: 449 }, engine: relay, forward: $(to 1) }
  - { name: encrypted, match: { ports: 450 }, forward: { targets: $(to 1), tls: { verify: none } } }"
knows_why() { [ "$(jqs .packet.reason_name)" = not_linux_supported ]; } # no bpf file system
wait_for knows_why
baseline

# One connection with the hello of KEY=VALUE (none: plain bytes) from SOURCE.
cat >"$LAB_DIR/ask.py" <<'PY'
import socket, subprocess, sys
source, port, keys = sys.argv[2], int(sys.argv[3]), sys.argv[4:]
raw = b"plain bytes"
if keys:
    raw = subprocess.run(["/usr/bin/python3", "tests/lib/hello.py", "build"] + keys, stdout=subprocess.PIPE, check=True).stdout
try:  # a refused one may be reset before connect() returns
    s = socket.create_connection((sys.argv[1], port), 15, (source, 0))
    s.sendall(raw)
    s.shutdown(socket.SHUT_WR)
    while s.recv(65536):
        pass
except OSError:
    pass
PY

n=0
lines() { grep -acE ' access: ' "$(log_file)" || true; }
more_lines_than() { [ "$(lines)" -gt "$1" ]; }
# same WHAT SOURCE PORT "EXPLAIN-ARGUMENTS" [HELLO-KEY=VALUE...]
same() {
	local what=$1 source=$2 port=$3 arguments=$4 before line said happened
	shift 4
	before=$(lines)
	# shellcheck disable=SC2086
	said=$(sl explain "$port" $arguments --client "$source" --address $PROXY_IP --json)
	in_ns client /usr/bin/python3 "$LAB_DIR/ask.py" $PROXY_IP "$source" "$port" "$@"
	wait_for more_lines_than "$before"
	line=$(grep -aE ' access: ' "$(log_file)" | tail -n 1)
	happened="$(sed 's/.* route=\([^ ]*\).*/\1/' <<<"$line") $(sed 's/.* backend=\([^ ]*\).*/\1/' <<<"$line")"
	happened+=" $(sed 's/.* client_reason=\([^ ]*\).*/\1/' <<<"$line")"
	assert_eq "$what" "$(jq -r '"\(.route // "-") \(if .verdict == "accepted" then .target else "-" end) \(if .verdict == "accepted" then "normal" else .verdict end)"' <<<"$said")" "$happened"
	assert_eq "$what: one winner" "$(jq '[.candidates[] | select(.result == "won")] | length' <<<"$said")" \
		"$(jq 'if .route then 1 else 0 end' <<<"$said")"
	assert_eq "$what: its engine" "$(jq -r 'if .verdict == "no_route" then "-" else "\(.engine)/\(.engine_reason)" end' <<<"$said")" \
		"$(sed 's/.* engine=\([^ ]*\).*/\1/; s/^-.*/-/' <<<"$line")"
	SAID=$said
	n=$((n + 1))
}
why() { jq -r ".candidates[] | select(.route == \"$1\") | .why" <<<"$SAID"; }

say "questions and what happens"
same "no name" 10.91.128.1 443 ""
assert_eq "the routes with names" "$(why exact) $(why vip) $(why off)" "no_name no_name disabled"
same "exact" 10.91.128.1 443 "shop.example.com" sni=shop.example.com
assert_eq "who lost, and why" "$(why plain) $(why wild) $(why vip) $(why h2) $(why off)" \
	"outranked domain client domain disabled"
same "its next target" 10.91.128.1 443 "Shop.Example.COM." sni=shop.example.com
same "wild" 10.91.128.1 443 "a.b.shop.example.com" sni=a.b.shop.example.com
same "vip" 10.91.130.9 443 "shop.example.com" sni=shop.example.com
assert_eq "vip" "$(jq -r '"\(.route) \(.security.verdict) \(.security.rule)"' <<<"$SAID")" "vip allowed open"
same "vip, another client" 10.91.133.77 443 "shop.example.com" sni=shop.example.com
same "denied by its route" 10.91.131.7 443 "shop.example.com" sni=shop.example.com
assert_eq "rule" "$(jq -r '"\(.route) \(.verdict) \(.security.rule)"' <<<"$SAID")" "vip route_ip_blocked route_deny"
same "denied by all" 10.91.140.7 443 ""
assert_eq "rule" "$(jq -r .security.rule <<<"$SAID")" global_deny
same "not allowed" 10.91.128.1 447 ""
same "h2" 10.91.128.1 443 "alpn.example --alpn http/1.1,h2" sni=alpn.example alpn=http/1.1,h2
assert_eq "h2" "$(jq -r .route <<<"$SAID")" h2
same "no h2" 10.91.128.1 443 "alpn.example --alpn http/1.1" sni=alpn.example alpn=http/1.1
assert_eq "why not h2" "$(why h2)" alpn
same "an old version" 10.91.128.1 443 "alpn.example --alpn h2 --tls 1.2" sni=alpn.example alpn=h2 versions=1.2
assert_eq "why not h2" "$(why h2)" tls_version
same "disabled" 10.91.128.1 443 "off.example" sni=off.example
same "no route for plain bytes" 10.91.128.1 444 ""
assert_eq "verdict" "$(jq -r '"\(.verdict) \(.route) \(.needs_hello)"' <<<"$SAID")" "no_route null true"
same "no route for the name" 10.91.128.1 444 "other.example" sni=other.example
same "one address" 10.91.128.1 445 ""
engines() { jq -r '[.engines[] | "\(.engine) \(.can_carry) \(.reason)"] | join(", ")' <<<"$SAID"; }
same "an engine that is not here" 10.91.128.1 448 ""
assert_eq "its engines" "$(engines)" "packet false not_linux_supported, relay true not_linux_supported"
same "the relay by name" 10.91.128.1 449 ""
assert_eq "its engines" "$(engines)" "relay true configured"
echo "$n questions"

say "what only the question can have"
assert_eq "another address" "$(sl explain 445 --address 127.0.0.1 --json | jq -r '"\(.verdict) \(.listening) \(.candidates[0].why)"')" "no_route false address"
assert_eq "nothing listens" "$(sl explain 9 --json | jq -c '[.listening, .verdict, .candidates]')" '[false,"no_route",[]]'
assert_eq "no engine" "$(sl explain 9 --json | jq -c '[.engine, .engines]')" '[null,[]]'
assert_eq "PROXY header" "$(sl explain 446 --json | jq -c '[.accept_proxy, .needs_hello, .route]')" '[true,false,"proxied"]'
assert_eq "no name" "$(sl explain 443 a..b --json | jq -r '"\(.route) \(.note)"')" \
	"plain not a host name: letters, digits, '-', '_' and single dots"
assert_eq "no bytes needed" "$(sl explain 447 --json | jq -c .needs_hello)" false
assert_eq "TLS" "$(sl explain 450 --json | jq -r '"\(.engine) \(.engine_reason)", (.engines[] | "\(.engine) \(.can_carry) \(.reason)")' |
	paste -sd,)" "relay needs_tls,packet false needs_tls,relay true needs_tls"
for bad in 0 65536 x "443 --client nobody" "443 --tls 2" "443 --address x"; do
	rc=0
	# shellcheck disable=SC2086
	sl explain $bad >"$LAB_DIR/out" 2>&1 || rc=$?
	assert_eq "explain $bad" $rc 1
done

say "for people"
sl explain 443 shop.example.com --client 10.91.131.7 | tee "$LAB_DIR/text"
for want in 'connection to +port 443, name shop.example.com, from 10.91.131.7' 'verdict +route_ip_blocked: ' \
	"security +denied by the route's security.deny" \
	'engine +relay, not_linux_supported: ' '  in this order +packet no \(not_linux_supported\), relay yes \(not_linux_supported\)$' 'first bytes ' 'vip +won ' 'exact +lost '; do
	grep -qE "^$want" "$LAB_DIR/text" || fail "no '$want'"
done

say "asking changes nothing"
before=$(sl routes --json | jq -c '[.[] | .total]')
for _ in 1 2 3; do sl explain 443 shop.example.com --json | jq -r .target; done | sort -u | wc -l | grep -qx 1 ||
	fail "the next target moves by asking"
assert_eq "totals" "$(sl routes --json | jq -c '[.[] | .total]')" "$before"
assert_back_to_baseline
