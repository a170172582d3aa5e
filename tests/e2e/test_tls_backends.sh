#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# TLS towards real servers: OpenSSL, nginx, HAProxy. Whom to trust and under which name, and what the log says
# of each that is refused; certificates shown to them, sessions, ALPN, PROXY headers before TLS.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
. "$(dirname "$0")/../lib/proxylab.sh"
need curl
need haproxy

make_ca other
make_cert name wrong.example
make_cert old one.example ec ca -1
make_self self one.example
make_cert stranger one.example ec other
make_cert addr "IP:$BACKEND_IP"
make_cert me sluice-of-tests
make_cert alice alice
cat "$CERTS/one.pem" "$CERTS/one.key" >"$CERTS/haproxy.pem"

site() { # CERT LISTEN [MORE [VERSIONS]]
	cat <<-NGINX
		server {
			listen $2;
			ssl_certificate $CERTS/$1.pem;
			ssl_certificate_key $CERTS/$1.key;
			ssl_protocols ${4:-TLSv1.2 TLSv1.3};
			ssl_session_tickets on;
			${3:-}
			location / { return 200 "nginx \$ssl_server_name \$ssl_protocol \$server_protocol reused=\$ssl_session_reused dn=\$ssl_client_s_dn from=\$proxy_protocol_addr\n"; }
		}
	NGINX
}
nginx_up "$(site one '8001 ssl http2')
$(site one '8002 ssl proxy_protocol')
$(site name '8003 ssl')
$(site old '8004 ssl')
$(site self '8005 ssl')
$(site stranger '8006 ssl')
$(site addr '8007 ssl')
$(site one '8008 ssl' "ssl_client_certificate $CA; ssl_verify_client on;")
$(site one '8009 ssl' '' TLSv1.2)"
cat >"$LAB_DIR/haproxy.cfg" <<-HAPROXY
	defaults
		mode http
		timeout client 20s
	frontend plain
		bind $BACKEND_IP:8011 ssl crt $CERTS/haproxy.pem
		http-request return status 200 content-type text/plain lf-string "haproxy %[ssl_fc_sni] %[ssl_fc_protocol] resumed=%[ssl_fc_is_resumed]\n"
	frontend proxied
		bind $BACKEND_IP:8012 accept-proxy ssl crt $CERTS/haproxy.pem
		http-request return status 200 content-type text/plain lf-string "haproxy %[ssl_fc_sni] from=%[src] authority=%[fc_pp_authority]\n"
HAPROXY
OUT=$LAB_DIR/haproxy.out spawn backend haproxy -db -f "$LAB_DIR/haproxy.cfg"
OUT=$LAB_DIR/s_server.out spawn backend openssl s_server -quiet -www -accept $BACKEND_IP:8013 \
	-cert "$CERTS/one.pem" -key "$CERTS/one.key"
proxy_server tlv 8014 expect=1
for port in 8001 8009 8011 8012 8013; do wait_for listening backend $port; done

none="verify: none, server_name: one.example"
over_proxy() { # TARGET: with a PROXY header that says what it can
	echo "{ targets: [\"$1\"], send_proxy: { version: v2, authority: true, alpn: true }, tls: { verify: $CA, server_name: one.example } }"
}
config="routes:
$(route nginx 8101 "$(to_tls "$BACKEND_IP:8001")")
$(route nginx-proxy 8102 "$(over_proxy "$BACKEND_IP:8002")")
$(route name 8103 "$(to_tls "$BACKEND_IP:8003")")
$(route old 8104 "$(to_tls "$BACKEND_IP:8004")")
$(route self 8105 "$(to_tls "$BACKEND_IP:8005")")
$(route stranger 8106 "$(to_tls "$BACKEND_IP:8006")")
$(route system 8107 "$(to_tls "$BACKEND_IP:8001" 'server_name: one.example')")
$(route addr 8108 "$(to_tls "$BACKEND_IP:8007" "verify: $CA")")
$(route noaddr 8109 "$(to_tls "$BACKEND_IP:8001" "verify: $CA")")
$(for i in 3 4 5 6; do route "none$i" "811$i" "$(to_tls "$BACKEND_IP:800$i" "$none")"; done)
$(route shows 8120 "$(to_tls "$BACKEND_IP:8008" "verify: $CA, server_name: one.example, $(pair me)")")
$(route hides 8121 "$(to_tls "$BACKEND_IP:8008")")
$(route tls12 8122 "$(to_tls "$BACKEND_IP:8009")")
$(route haproxy 8123 "$(to_tls "$BACKEND_IP:8011")")
$(ends haproxy-proxy 8124 "$(over_proxy "$BACKEND_IP:8012")")
$(route s_server 8125 "$(to_tls "$BACKEND_IP:8013")")
$(route next 8126 "{ targets: [\"$BACKEND_IP:8004\", \"$BACKEND_IP:8001\"], tls: { verify: $CA, server_name: one.example } }")
$(route plain 8127 "$(to_tls "$BACKEND_IP:8014")")
$(ends h2 8128 "$(to_tls "$BACKEND_IP:8001")" "$(pair one), alpn: [h2, http/1.1]")
$(ends tlv 8129 "{ targets: [\"$BACKEND_IP:8014\"], send_proxy: { version: v2, authority: true, alpn: true, ssl: true } }" \
	"$(pair one), alpn: [h2, http/1.1], client_ca: $CA, client_auth: optional")"
start_sluice "$config"
baseline
# With an end that nginx says in TLS, too.
get() { in_ns client curl -sS -H "Connection: close" --max-time $((15 * SLOW)) "http://$PROXY_IP:$1/" 2>&1; }
gets() { # PORT N: as many connections
	local i
	for ((i = 0; i < $2; i++)); do get "$1"; done
}

say "good ones"
assert_match "nginx" "$(get 8101)" "^nginx one.example TLSv1.3 HTTP/1.1 "
assert_match "nginx, TLS 1.2" "$(get 8122)" "^nginx one.example TLSv1.2 HTTP/1.1 "
assert_match "haproxy" "$(get 8123)" "^haproxy one.example TLSv1.3 "
has "s_server" "$(get 8125)" "TLSv1.3, Cipher is"
assert_match "by its address, and no SNI" "$(get 8108)" "^nginx +TLSv1.3"
for i in 3 4 5 6; do assert_match "verify: none" "$(get "811$i")" "^nginx one.example TLSv1.3"; done
assert_ended nginx 1 normal normal

say "refused, and why"
# refuses ROUTE PORT WORDS
refuses() {
	local out
	if out=$(get "$2"); then fail "$1 was served: $out"; fi
	assert_ended "$1" 1 normal tls_error
	assert_eq "bytes for $1" "$(access "$1" down)" 0
	wait_log "route $1: TLS with target $BACKEND_IP:[0-9]* failed: certificate: $3"
}
refuses name 8103 "wrong name, it is not for one.example"
refuses old 8104 "expired"
refuses self 8105 "self-signed"
refuses stranger 8106 "unknown issuer"
refuses system 8107 "unknown issuer"
refuses noaddr 8109 "wrong name, it is not for $BACKEND_IP"
assert_eq "handshakes that failed" "$(tls_metric backend_handshakes_total 'result="failed"')" 6
if out=$(get 8127); then fail "a server without TLS was served: $out"; fi
assert_ended plain 1 normal tls_error
wait_log "route plain: TLS with target $BACKEND_IP:8014 failed: "

say "the next target, after a handshake that failed"
[ "$(gets 8126 6 | grep -c '^nginx one.example')" = 6 ] || fail "the next target is not tried"
assert_ended next 1 normal normal
wait_log "route next: TLS with target $BACKEND_IP:8004 failed: certificate: expired"

say "a certificate for the target"
assert_match "shown" "$(get 8120)" "dn=CN=sluice-of-tests "
has "not shown" "$(get 8121)" "No required SSL certificate was sent"

say "sessions are resumed"
for port in 8101 8122 8123; do
	assert_between "resumed by way of $port" "$(gets $port 12 | grep -cE 'reused=r|resumed=1')" 8 12
done

say "ALPN: what the client agreed on is what the target speaks"
assert_match "h2" "$(fetch 8128 one.example --http2 /)" "^nginx one.example TLSv1.3 HTTP/2.0"
assert_match "http/1.1" "$(fetch 8128 one.example --http1.1 /)" "^nginx one.example TLSv1.3 HTTP/1.1"

say "PROXY headers stand before TLS"
assert_match "nginx" "$(get 8102)" "from=$CLIENT_IP\$"
assert_eq "haproxy" "$(fetch 8124 one.example /)" "haproxy one.example from=$CLIENT_IP authority=one.example"

say "and say what TLS with the client came to"
# tlv ARGUMENT...: the line of the target; the client leaves when it has that
tlv() {
	: >"$LAB_DIR/tlv"
	{
		printf x
		wait_until 10000 test -s "$LAB_DIR/tlv"
	} | in_ns client openssl s_client -quiet -no_ign_eof -connect $PROXY_IP:8129 -servername one.example "$@" \
		>"$LAB_DIR/tlv" 2>/dev/null || true
	head -n 1 "$LAB_DIR/tlv"
}
line=$(tlv -tls1_3 -alpn h2)
for word in "alpn=h2" "authority=one.example" "ssl=01/00000001" "ssl_version=TLSv1.3" "ssl_cipher=TLS_AES"; do has "TLVs" "$line" "$word"; done
line=$(tlv -tls1_2 -cert "$CERTS/alice.pem" -key "$CERTS/alice.key")
for word in "ssl=07/00000000" "ssl_version=TLSv1.2" "ssl_cn=alice" "ssl_cipher=ECDHE-ECDSA"; do has "TLVs" "$line" "$word"; done
assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
