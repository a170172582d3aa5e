#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Routing by the ClientHello: which route wins, that no split of the hello changes it, that every byte
# arrives once, and what becomes of those that are none, broken or late.
. "$(dirname "$0")/../lib/netlab.sh"

GO=$LAB_DIR/go
names=(exact wild longer suffix glob h2 noh2 tls13 tls12 plain)
port=8001
declare -A backend=()
for name in "${names[@]}"; do
	server "$name" banner $port text="$name|"
	backend[$name]=$BACKEND_IP:$port
	port=$((port + 1))
done

sni() { # VERB ARGUMENT...
	in_ns client /usr/bin/python3 tests/lib/sni.py "$@"
}

sni_bg() { # NAME VERB ARGUMENT...
	OUT=$LAB_DIR/$1.out spawn client /usr/bin/python3 tests/lib/sni.py "${@:2}"
}

# goes PORT WHO [KEY=VALUE...]: a hello is answered by that backend.
goes() { sni one "$PROXY_IP:$1" "${@:2}" || fail "port $1: $* does not go to $2"; }

# by NAME MATCH
by() { echo "  - { name: $1, match: $2, forward: \"${backend[$1]}\" }"; }

conf() { # FIRST_DATA
	cat <<-TEXT
		defaults: { timeouts: { first_data: $1 } }
		routes:
		$(by plain "{ ports: [443] }")
		$(by suffix "{ ports: [443, 444], domains: ['shop.*'] }")
		$(by glob "{ ports: [443], domains: ['api-*.example.*'] }")
		$(by wild "{ ports: [443], domains: ['*.shop.example.com'] }")
		$(by longer "{ ports: [443], domains: ['*.eu.shop.example.com'] }")
		$(by exact "{ ports: [443, 444], domains: [shop.example.com, xn--bcher-kva.example] }")
		$(by noh2 "{ ports: [443], domains: [alpn.example] }")
		$(by h2 "{ ports: [443], domains: [alpn.example], tls: { alpn: [h2] } }")
		$(by tls12 "{ ports: [443], domains: [version.example] }")
		$(by tls13 "{ ports: [443], domains: [version.example], tls: { versions: ['1.3'] } }")
	TEXT
}
start_sluice "$(conf 5s)"
baseline

say "names"
goes 443 exact sni=shop.example.com
goes 443 exact sni=SHOP.Example.Com
goes 443 exact sni=shop.example.com.
goes 443 exact sni=XN--bcher-kva.example
goes 443 exact sni=shop.example.com ech=1
goes 443 wild sni=a.shop.example.com
goes 443 wild sni=b.a.shop.example.com
goes 443 longer sni=a.eu.shop.example.com
goes 443 suffix sni=shop.example.org
goes 443 glob sni=api-1.example.net
goes 443 plain sni=other.example.com
goes 443 plain
goes 443 plain sni=192.0.2.1

say "protocols and versions"
goes 443 h2 sni=alpn.example alpn=http/1.1,h2
goes 443 noh2 sni=alpn.example alpn=http/1.1
goes 443 noh2 sni=alpn.example
goes 443 tls13 sni=version.example versions=1.2,1.3
goes 443 tls12 sni=version.example versions=1.2
goes 443 tls12 sni=version.example versions=1.0

say "sizes"
goes 443 exact sni=shop.example.com pq=1
goes 443 exact sni=shop.example.com pq=1 size=2400
goes 443 exact sni=shop.example.com size=30000
goes 443 exact sni=shop.example.com size=65536
goes 443 exact sni=shop.example.com size=65536 record=1

say "no bytes of TLS"
sni raw $PROXY_IP:443 plain 474554202f20485454502f312e310d0a0d0a || fail "HTTP"
sni raw $PROXY_IP:443 plain 47 || fail "one byte"
sni raw $PROXY_IP:443 plain 802e010301001500000010 || fail "a hello of SSL 2.0"
sni raw $PROXY_IP:443 plain 1603010000 || fail "an empty record"

say "a hello split at any byte, in any size of records, byte by byte"
echo "$(sni splits $PROXY_IP:443 exact sni=shop.example.com alpn=h2) splits"
echo "$(sni records $PROXY_IP:443 exact sni=shop.example.com alpn=h2) sizes of records"
echo "$(sni records $PROXY_IP:443 wild sni=a.shop.example.com pq=1 step=37) sizes of a larger one"
sni drip $PROXY_IP:443 exact sni=shop.example.com
sni drip $PROXY_IP:443 exact sni=shop.example.com record=3

say "nothing is decided before the last byte, and nothing waits after it"
before=$(server_field exact accepted)
sni_bg early held $PROXY_IP:443 exact at=-1 go="$GO" sni=shop.example.com pq=1
wait_for grep -q held "$LAB_DIR/early.out"
conn_is() { [ "$(sl conns --json | jq -r 'length == 1 and .[0].state == "'"$1"'"')" = true ]; }
wait_for conn_is classifying
assert_eq "a connection that waits" \
	"$(sl conns --json | jq -c '.[0] | [.route, .backend, .sni, .bytes_up]')" '[null,null,null,0]'
assert_eq "connections of the backend" "$(server_field exact accepted)" "$before"
touch "$GO"
wait "$LAST" || fail "the hello completed: $(cat "$LAB_DIR/early.out.err")"
rm "$GO"
sni_bg now held $PROXY_IP:443 h2 at=0 go="$GO" sni=Alpn.Example. alpn=h2,http/1.1
wait_for grep -q held "$LAB_DIR/now.out"
wait_for conn_is established
row=$(sl conns --json | jq -c '.[0]')
assert_eq "its fields" "$(jq -r '[.route, .sni, .alpn] | join(" ")' <<<"$row")" "h2 alpn.example h2"
assert_match "its versions" "$(jq -r .tls <<<"$row")" '^1\.3,1\.2$'
touch "$GO"
wait "$LAST" || fail "the hello alone: $(cat "$LAB_DIR/now.out.err")"
wait_access h2 2
assert_eq "the name in the access line" "$(access h2 sni)" alpn.example
assert_ended h2 2 normal normal

say "no route: no name, another name, no TLS"
before=$(jqs ".terminations.client.no_route // 0")
sni one $PROXY_IP:444 -
sni one $PROXY_IP:444 - sni=other.example
sni raw $PROXY_IP:444 - 474554202f20485454502f312e310d0a0d0a
goes 444 suffix sni=shop.example
refused() { grep -a ' access: ' "$(log_file)" | grep -c "client_reason=$1 backend_reason=-"; }
assert_eq "no_route" "$(($(jqs ".terminations.client.no_route // 0") - before))" 3
assert_eq "lines with no_route" "$(refused no_route)" 3
assert_eq "the name of one" "$(grep -a 'client_reason=no_route' "$(log_file)" | grep -c ' sni=other.example ')" 1

say "broken hellos"
counted() { # REASON: by either metric
	http_get /metrics | awk -v r="reason=\"$1\"" \
		'/^sluice_(connections_rejected|terminations)_total/ && index($0, r) { n[$1 ~ /rejected/] += $NF }
		END { print (n[0] > n[1] ? n[0] : n[1]) + 0 }'
}
n=0
broken() { # HEX: tls_error
	n=$((n + 1))
	sni raw $PROXY_IP:443 - "$1" || fail "$1 is not refused"
}
hex() { /usr/bin/python3 tests/lib/hello.py build "$@" | od -An -tx1 -v | tr -d ' \n'; }
good=$(hex sni=shop.example.com)
broken "${good/2e6578616d706c652e/2e2e78616d706c652e}" # an empty label
broken "${good/2e6578616d706c652e/3a6578616d706c652e}" # a colon
broken "${good:0:18}04${good:20}"                      # a version that is none of TLS
broken 160301000101150301000201                        # an alert in the middle
broken 16030100400101                                  # 64 KiB and more
broken 160301004001000020                              # too short to be one
broken 16030100500100003c                              # more in the record than the hello
sni cut $PROXY_IP:443 at=100 sni=shop.example.com      # the end in the middle
n=$((n + 1))
wait_for eval '[ "$(refused tls_error)" = '$n' ]'
assert_eq "tls_error in status" "$(jqs ".terminations.client.tls_error // 0")" $n
assert_eq "tls_error in metrics" "$(counted tls_error)" $n
assert_back_to_baseline

say "late hellos: bytes in between earn no time"
reload "$(conf 500ms)"
assert_between "a byte each 100 ms" "$(sni slow $PROXY_IP:443 ms=100 sni=shop.example.com)" 450 $((1500 * SLOW))
shot to=$PROXY_IP:444
is_late() { [ "$(jqs ".terminations.client.first_data_timeout // 0")" = 2 ]; }
wait_for is_late
assert_eq "first_data_timeout in metrics" "$(counted first_data_timeout)" 2
assert_back_to_baseline

say "a rate counts connections when they are routed, in whatever order their hellos come"
reload "$(conf 10s)
  - { name: rate, match: { ports: [445], domains: [x.example] }, forward: \"${backend[exact]}\",
      security: { new_connections_per_ip: 1/s } }"
rm "$GO"
sni_bg first held $PROXY_IP:445 exact at=50 go="$GO" sni=x.example
wait_for grep -q held "$LAB_DIR/first.out"
sni one $PROXY_IP:445 exact sni=x.example || fail "the second"
second_ms=$(now_ms)
sni one $PROXY_IP:445 - sni=x.example || fail "a third within the second is not refused"
wait_for eval '[ "$(now_ms)" -ge '$((second_ms + 1000))' ]'
touch "$GO"
wait "$LAST" || fail "the first, a second after the second: $(cat "$LAB_DIR/first.out.err")"
assert_eq "refused" "$(counted rate_ip)" 1
reload "$(conf 500ms)"
assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
