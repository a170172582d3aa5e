#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# PROXY headers received: whom they are believed from, what they change (limits, lists, matching, views,
# logs), and how each connection ends that should not be.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/proxylab.sh"

proxy_server p 8000
server e echo 8001
server b banner 8002 text=$'hello\n'
GO=$LAB_DIR/go
H="v2 src=192.0.2.1:1000 dst=198.51.100.1:443"

conf() { # PROXY_HEADER_TIMEOUT
	cat <<-TEXT
		defaults: { timeouts: { proxy_header: $1 } }
		listeners:
		  - { ports: [8001, "8010-8029"], accept_proxy: { from: [$TRUSTED_NET, "fd91::/64"], required: true } }
		  - { ports: [8002, 8003], accept_proxy: { from: [$TRUSTED_NET], required: false } }
		routes:
		$(route required 8001 "\"$BACKEND_IP:8000\"")
		$(route optional 8002 "\"$BACKEND_IP:8000\"")
		$(route greets 8003 "\"$BACKEND_IP:8002\"")
		$(route plain 8004 "\"$BACKEND_IP:8000\"")
		$(route ip 8010 "\"$BACKEND_IP:8001\"" 'security: { max_connections_per_ip: 3 }')
		$(route rate 8011 "\"$BACKEND_IP:8001\"" 'security: { new_connections_per_ip: 5/m }')
		$(route denied 8012 "\"$BACKEND_IP:8000\"" 'security: { deny: [192.0.2.0/24] }')
		$(route allowed 8013 "\"$BACKEND_IP:8000\"" 'security: { allow: [192.0.2.0/24, "2001:db8::/32"] }')
		$(route peer_denied 8014 "\"$BACKEND_IP:8000\"" "security: { deny: [$TRUSTED_NET] }")
		  - { name: near, match: { ports: 8015, clients: ["192.0.2.*"] }, forward: "$BACKEND_IP:8000" }
		  - { name: far, match: { ports: 8015 }, forward: "$BACKEND_IP:8000" }
		  - { name: named, match: { ports: 8016, domains: [a.example] }, forward: "$BACKEND_IP:8000" }
		  - { name: unnamed, match: { ports: 8016 }, forward: "$BACKEND_IP:8000" }
	TEXT
}
start_sluice "$(conf 10s)"
baseline

say "the header's address is the client, the sender is via"
ask to=$PROXY_IP:8001 src=$TRUSTED header="$H" send=payload
assert_eq "payload" "$(told data) $(told end)" "payload eof"
assert_match "the sender's own address at the backend" "$(told line)" "^peer=$PROXY_BACK_IP:[0-9]+ plain$"
wait_access required
assert_line required "client=192.0.2.1:1000 via=$(told local)"
assert_eq "bytes, the header not counted" "$(access required up)" 7
ask to=$PROXY_IP:8001 src=$TRUSTED header="v1 src=192.0.2.7:65535 dst=198.51.100.1:1" send=x
wait_access required 2
assert_line required "client=192.0.2.7:65535 via=$(told local)"
ask to=$PROXY_IP:8001 src=$TRUSTED header="v1 src=[2001:db8::1]:5 dst=[2001:db8::2]:6" send=x bytes=1
wait_access required 3
assert_line required "client=\\[2001:db8::1]:5 via=$(told local)"
ask to="[$PROXY6]:8001" header="v2 src=192.0.2.9:5 dst=192.0.2.10:6 crc32c" send=x
wait_access required 4
assert_line required "client=192.0.2.9:5 via=$(sed 's/^\[/\\[/' <<<"$(told local)")"
ask to=$PROXY_IP:8001 src=$TRUSTED header="v2 src=[::ffff:192.0.2.3]:5 dst=[2001:db8::2]:6" send=x
wait_access required 5
assert_line required "client=192.0.2.3:5 via=$(told local)"

say "in the views, while it is open"
ask_bg held to=$PROXY_IP:8001 src=$TRUSTED header="$H" hold="$GO"
wait_for has_output held
assert_eq "conns" "$(sl conns --json | jq -r '.[] | "\(.route) \(.client) \(.client_via)"')" \
	"required 192.0.2.1:1000 $(head -n 1 "$LAB_DIR/held.out" | jq -r .local)"
sl kill --route required --client 10.91.128.0/17 >"$LAB_DIR/kill.out" || true
assert_eq "kill by the sender's address closes nothing" "$(jqs .connections.active)" 1
sl kill --route required --client 192.0.2.0/28 >"$LAB_DIR/kill.out"
touch "$GO"
join_peer held
rm "$GO"
assert_eq "killed by the client's" "$(jq -r .end <<<"$RESULT")" reset
wait_access required 6
assert_ended required 6 killed killed

say "LOCAL and UNKNOWN leave the sender as the client"
for header in v1 v2 "v2 crc32c"; do
	ask to=$PROXY_IP:8001 src=$TRUSTED header="$header" send=x
	assert_eq "payload after $header" "$(told data) $(told end)" "x eof"
	wait_own "$(told local)" " client=$(told local) via=- route=required "
done

say "not trusted: refused at accept, before a byte"
ask to=$PROXY_IP:8001 src=$STRANGER fin=0
assert_eq "end" "$(told end)" reset
wait_own "$(told local)" " client=$(told local) via=- .* client_reason=proxy_protocol_untrusted backend_reason=-"
ask to=$PROXY_IP:8001 src=$STRANGER header="$H" send=x
assert_eq "with a header" "$(told end)" reset
wait_own "$(told local)" " client=$(told local) via=- .* client_reason=proxy_protocol_untrusted backend_reason=-"
assert_eq "counted" "$(n_rejected proxy_protocol_untrusted)" 2
assert_eq "in status" "$(jqs .terminations.client.proxy_protocol_untrusted)" 2

say "required: missing, malformed"
refused() { # WHY ARGUMENT...
	local why=$1
	shift
	ask to=$PROXY_IP:8001 src=$TRUSTED "$@"
	assert_eq "$why" "$(told end)$(told data)" reset
	wait_own "$(told local)" " client=$(told local) via=- .* client_reason=proxy_protocol_error backend_reason=-"
}
refused "no header" send='GET / HTTP/1.1\r\nHost: a\r\n\r\n'
refused "one byte of none" send=x fin=0
refused "a bad line" raw='PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n' send=x fin=0
refused "a bad command" raw='{sig}\x22' fin=0
refused "half a header and FIN" raw='PROXY TCP4 1.1.1'
assert_eq "counted" "$(n_rejected proxy_protocol_error)" 5
wait_log 'PROXY header of .* refused: a bad port'
shot to=$PROXY_IP:8001 src=$TRUSTED fin=1
assert_eq "a client that sends nothing at all" "$(of end)" eof
wait_log 'client_reason=closed_before_data'

say "optional: a header is believed, payload is payload, strangers are themselves"
ask to=$PROXY_IP:8002 src=$TRUSTED header="$H" send=x
wait_access optional
assert_line optional "client=192.0.2.1:1000 via=$(told local)"
ask to=$PROXY_IP:8002 src=$TRUSTED send='GET / HTTP/1.1\r\n'
assert_eq "no header" "$(told data)" 'GET\x20/\x20HTTP/1.1\x0d\x0a'
wait_access optional 2
assert_line optional "client=$(told local) via=-"
ask to=$PROXY_IP:8002 src=$STRANGER header="v1 src=192.0.2.1:1 dst=192.0.2.2:2" send=x
assert_eq "spoofed" "$(told data)" 'PROXY\x20TCP4\x20192.0.2.1\x20192.0.2.2\x201\x202\x0d\x0ax'
wait_access optional 3
assert_line optional "client=$(told local) via=-"
ask to=$PROXY_IP:8002 src=$TRUSTED raw='PROXY TCP9' fin=0
assert_eq "trusted and malformed" "$(told end)" reset
wait_own "$(told local)" "client_reason=proxy_protocol_error"
ask to=$PROXY_IP:8004 src=$TRUSTED header=v1
assert_eq "a port without accept_proxy" "$(told data)" 'PROXY\x20UNKNOWN\x0d\x0a'

say "two headers: the second is payload"
ask to=$PROXY_IP:8001 src=$TRUSTED header="$H" send='PROXY UNKNOWN\r\nx'
assert_eq "payload" "$(told data)" 'PROXY\x20UNKNOWN\x0d\x0ax'

say "the longest header, 64 KiB - 1 after the fixed part"
ask to=$PROXY_IP:8001 src=$TRUSTED send=after \
	raw='{sig}\x21\x11\xff\xff\xc0\x00\x02\x08\xc6\x33\x64\x02\x00\x01\x00\x02\xe0\xff\xf0{78*65520}'
assert_eq "payload" "$(told data)" after
wait_own "$(told local)" " client=192.0.2.8:1 via=$(told local) "
ask to=$PROXY_IP:8001 src=$TRUSTED header="$H" bulk=3000000
assert_eq "3 MB after a header" "$(told bulk) $(told end)" "true eof"

say "limits count the client, whoever sends it"
asks=()
held() { # NAME PORT SRC CLIENT
	ask_bg "$1" to=$PROXY_IP:"$2" src="$3" header="v2 src=$4:1 dst=198.51.100.1:1" send='ok\n' hold="$GO"
	asks+=("$1")
}
is_open() { [ "$(jqs .connections.active)" = "$1" ]; }
held l1 8010 $TRUSTED 192.0.2.1
held l2 8010 $TRUSTED2 192.0.2.1
held l3 8010 $TRUSTED 192.0.2.1
wait_for is_open 3
ask to=$PROXY_IP:8010 src=$TRUSTED2 header="v1 src=192.0.2.1:2 dst=198.51.100.1:1" send=x
assert_eq "the fourth of one client" "$(told end)" reset
wait_own "$(told local)" " client=192.0.2.1:2 via=$(told local) route=ip .* client_reason=limit_ip "
held l4 8010 $TRUSTED 192.0.2.2
held l5 8010 $TRUSTED 192.0.2.3
wait_for is_open 5
touch "$GO"
for name in "${asks[@]}"; do
	join_peer "$name"
	assert_eq "connection $name" "$(jq -r .end <<<"$RESULT")" eof
done
rm "$GO"
for i in {1..5}; do
	ask to=$PROXY_IP:8011 src=$TRUSTED header="v2 src=192.0.2.1:1 dst=192.0.2.2:1" send=x
	assert_eq "connection $i within the rate" "$(told end)" eof
done
ask to=$PROXY_IP:8011 src=$TRUSTED2 header="v2 src=192.0.2.1:1 dst=192.0.2.2:1" send=x
assert_eq "one too many" "$(told end)" reset
wait_own "$(told local)" "client_reason=rate_ip "
ask to=$PROXY_IP:8011 src=$TRUSTED header="v2 src=192.0.2.4:1 dst=192.0.2.2:1" send=x
assert_eq "another client, the same sender" "$(told end)" eof

say "lists and criteria mean the client"
verdict() { # PORT CLIENT END
	ask to=$PROXY_IP:"$1" src=$TRUSTED header="v2 src=$2:1 dst=$2:2" send=x
	assert_eq "$2 at $1" "$(told end)" "$3"
}
verdict 8012 192.0.2.1 reset
wait_own "$(told local)" " client=192.0.2.1:1 via=$(told local) route=denied .* client_reason=route_ip_blocked "
verdict 8012 192.0.3.1 eof
verdict 8013 192.0.2.1 eof
verdict 8013 '[2001:db8::1]' eof
verdict 8013 192.0.3.1 reset
verdict 8014 192.0.2.1 eof
verdict 8015 192.0.2.1 eof
verdict 8015 192.0.3.1 eof
wait_access near
wait_access far
assert_line near "client=192.0.2.1:1 via=$TRUSTED:[0-9]+"
assert_line far "client=192.0.3.1:1 via=$TRUSTED:[0-9]+"
ask to=$PROXY_IP:8014 src=$TRUSTED header=v2 send=x
assert_eq "LOCAL: the sender is the client" "$(told end)" reset

say "names after the header"
for bytes in 0 1; do
	ask to=$PROXY_IP:8016 src=$TRUSTED header="$H" hello=a.example bytes=$bytes send=x
	ask to=$PROXY_IP:8016 src=$TRUSTED header="$H" hello=b.example bytes=$bytes send=x
done
wait_access named 2
wait_access unnamed 2
assert_line named "client=192.0.2.1:1000 .* sni=a.example"
assert_line unnamed "client=192.0.2.1:1000 .* sni=b.example"
assert_back_to_baseline

say "in time"
reload "$(conf 1s)"
late() { # WHY PORT ARGUMENT...
	local why=$1 port=$2
	shift 2
	ask to=$PROXY_IP:"$port" src=$TRUSTED fin=0 "$@"
	assert_eq "$why" "$(told end)$(told data)" reset
	assert_between "$why: ms" "$(told ms)" 950 $((3000 * SLOW))
	wait_own "$(told local)" " client=$(told local) via=- .* client_reason=proxy_header_timeout backend_reason=-"
}
late "required, nothing" 8001
late "required, half of v1" 8001 raw='PROXY TCP4 192.0.2.1 '
late "required, half of v2" 8001 raw='{sig}\x21\x11\xff\xff{00*3000}'
late "optional, half of v1" 8002 raw='PROXY '
late "optional, half of v2" 8002 raw='{sig}'
assert_eq "counted" "$(jqs .terminations.client.proxy_header_timeout)" 5

say "optional, for protocols where the server speaks first"
touch "$GO"
greeted() { # SRC MIN MAX: the server's line comes after so many ms
	ask_bg first to=$PROXY_IP:8003 src="$1" send="$4" hold="$GO"
	join_peer first
	first_answer first
	assert_eq "greeting" "$(told line)" hello
	assert_between "ms until it came" "$(told ms)" "$2" "$3"
	wait_own "$(told local)" " client=$(told local) via=- route=greets .* client_reason=normal "
	rm "$LAB_DIR/first.out"
}
greeted $STRANGER 0 $((900 * SLOW)) ""
greeted $TRUSTED 950 $((3000 * SLOW)) ""
greeted $TRUSTED 0 $((900 * SLOW)) "no header"
assert_back_to_baseline
