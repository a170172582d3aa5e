#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The main job: HTTP through the daemon with a real server and a real client, and what status,
# conns and the access line say about it.
. "$(dirname "$0")/../lib/netlab.sh"
need curl

mkdir "$LAB_DIR/www"
head -c 3000000 /dev/urandom >"$LAB_DIR/www/blob"
echo hello >"$LAB_DIR/www/index.html"
OUT=$LAB_DIR/www.out spawn backend /usr/bin/python3 -u -m http.server -d "$LAB_DIR/www" 8000
wait_for listening backend 8000

start_sluice "routes:
$(route web 8080 "\"$BACKEND_IP:8000\"")
$(route raw 8081 "\"$BACKEND_IP:8001\"" "engine: relay")"
baseline

say "where no kernel objects can be kept, status says so and what to do"
broker_has_spoken() { [[ $(jqs .packet.reason) != *"being started" ]]; }
wait_for broker_has_spoken
why=$(jqs .packet.reason_name)
assert_match "why not packet" "$why" '^(not_linux_supported|no_privilege)$'
assert_match "in words" "$(sl status)" 'packet +off: .* is not on a bpf file system \(mount -t bpf '
sl status >/dev/null
assert_eq "exit code of a status where no route asks for packet" "$?" 0

say "two downloads are byte for byte the same"
for i in 1 2; do
	in_ns client curl -sS --max-time 10 -o "$LAB_DIR/got$i" "http://$PROXY_IP:8080/blob"
	cmp "$LAB_DIR/www/blob" "$LAB_DIR/got$i" || fail "download $i differs"
done
assert_eq page "$(in_ns client curl -sS --max-time 5 "http://$PROXY_IP:8080/")" hello

say "status counts them"
wait_access web 3
assert_eq state "$(jqs .state)" running
assert_eq total "$(jqs .connections.total)" 3
assert_eq active "$(jqs .connections.active)" 0
assert_eq rejected "$(jqs .connections.rejected)" 0
assert_eq "relay total" "$(jqs .engines.relay.total)" 3
assert_eq "other engines" "$(jqs '.engines | has("packet") and has("sockmap") and has("nftables")')" true
assert_eq "route total" "$(jqs '.routes[] | select(.name == "web").total')" 3
assert_between "bytes down" "$(jqs '.routes[] | select(.name == "web").bytes_down')" 6000006 6003000
assert_between "bytes up" "$(jqs '.routes[] | select(.name == "web").bytes_up')" 100 2000
assert_eq target "$(jqs '.routes[0].targets[0] | .address + " " + .state')" "$BACKEND_IP:8000 up"
assert_eq "terminations" "$(jqs '.terminations | "\(.client.normal) \(.backend.normal)"')" "3 3"
assert_eq kernel "$(jqs '.kernel | [.packet_flows, .sockmap_sockets, .nft_flows, .orphans] | add')" 0

say "the access line has every field"
line=$(access_lines web | sed -n 1p)
assert_match "access line" "$line" \
	" access: id=[0-9]+ client=$CLIENT_IP:[0-9]+ via=- route=web engine=relay/$why backend=$BACKEND_IP:8000 sni=- duration=[0-9]+\.[0-9]{3}s connect=[0-9]+\.[0-9]+ms up=[0-9]+ down=3000[0-9]{3} client_reason=normal backend_reason=normal\$"

say "a connection shows while it is open"
server raw echo 8001
client_bg open hold to=$PROXY_IP:8081 n=1 ping=1 timeout=20
wait_for has_output open
row=$(sl conns --json | jq -c '.[0]')
assert_eq "fields of a connection" \
	"$(jq -c keys <<<"$row")" \
	'["age_s","alpn","backend","backend_alpn","backend_cert","backend_tls","backend_tls_cipher","backend_tls_ktls","backend_tls_ktls_why","backend_tls_resumed","backend_verified","bytes_down","bytes_up","client","client_cert","client_via","connect_ms","engine","engine_reason","id","idle_s","moves","moves_total","route","sni","state","tls","tls_cipher","tls_ktls","tls_ktls_why","tls_resumed"]'
assert_eq "its values" "$(jq -r '[.route, .state, .engine, .engine_reason, .backend, .bytes_up, .bytes_down] | join(" ")' <<<"$row")" \
	"raw established relay configured $BACKEND_IP:8001 1 1"
assert_eq active "$(jqs .connections.active)" 1
stop_peer open
assert_eq "the held connection" "$RC" 0
assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
