#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Real clients against termination: OpenSSL, curl, GnuTLS, Python. Versions, certificates by name and by kind
# of key, ALPN, client certificates, OCSP stapling; what is refused, and the words the log has for it.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
. "$(dirname "$0")/../lib/proxylab.sh"
need curl
need gnutls-cli

make_cert two two.example,www.two.example
make_cert two-rsa two.example,www.two.example rsa
make_cert wild '*.wild.example'
make_ca other
make_ca clients
make_cert alice alice ec clients
make_cert mallory mallory ec other
make_cert gone gone ec clients -1

make_sub mid
make_cert one one.example ec mid
cat "$CERTS/mid.pem" >>"$CERTS/one.pem"

# staple FILE: FILE.ocsp, a response of its authority that says it is good.
staple() {
	local serial
	serial=$(serial_of "$CERTS/$1.pem")
	printf 'V\t%s\t\t%s\tunknown\t/CN=%s\n' "$(date -u -d '+30 days' +%y%m%d%H%M%SZ)" "$serial" "$1" >"$CERTS/index"
	openssl ocsp -issuer "$CERTS/mid.pem" -cert "$CERTS/$1.pem" -reqout "$CERTS/$1.req" >/dev/null
	openssl ocsp -index "$CERTS/index" -CA "$CERTS/mid.pem" -rsigner "$CERTS/mid.pem" -rkey "$CERTS/mid.key" -ndays 7 \
		-reqin "$CERTS/$1.req" -respout "$CERTS/$1.ocsp" >/dev/null 2>&1
}
staple one

list() { # PEM|KEY of all certificates of the route `names`
	local f out=''
	for f in one two two-rsa wild; do out+=", $CERTS/$f.$1"; done
	echo "[${out#, }]"
}
server http http 8000
to="\"$BACKEND_IP:8000\""
config="routes:
$(ends names 8443 "$to" "cert: $(list pem), key: $(list key), ocsp: [$CERTS/one.ocsp, ~, ~, ~]")
$(ends new 8444 "$to" "$(pair one), min_version: '1.3'")
$(ends alpn 8445 "$to" "$(pair one), alpn: [h2, http/1.1]")
$(ends must 8446 "$to" "$(pair one), client_ca: $CERTS/clients.pem")
$(ends may 8447 "$to" "$(pair one), client_ca: $CERTS/clients.pem, client_auth: optional")
$(ends few 8448 "$to" "$(pair one), ciphers: 'ECDHE-ECDSA-CHACHA20-POLY1305:TLS_CHACHA20_POLY1305_SHA256'")"
start_sluice "$config"
baseline

# The daemon anew: it warns of a few failures of TLS in 10 s, and no more.
fresh() {
	assert_back_to_baseline
	stop_sluice
	assert_eq "exit code" "$RC" 0
	start_sluice "$config"
	baseline
}
said() { wait_log "TLS with client .*: .*$1"; } # a warning that says why

say "versions"
has "1.3" "$(s_client 8443 one.example -tls1_3)" "HTTP/1.1 200 OK"
has "1.2" "$(s_client 8443 one.example -tls1_2)" "HTTP/1.1 200 OK"
for old in -tls1 -tls1_1; do
	refused "$old" "$(s_client 8443 one.example $old -cipher DEFAULT@SECLEVEL=0)" "alert protocol version"
done
said "no TLS version in common"
assert_ended names 3 tls_error -
refused "min_version 1.3" "$(s_client 8444 one.example -tls1_2)" "alert protocol version"
has "min_version 1.3" "$(s_client 8444 one.example)" "TLSv1.3"
has "X25519" "$(s_client 8443 one.example -tls1_3 -groups X25519)" "Server Temp Key: X25519"

fresh
say "certificates by name"
subject() { sed -n 's/^subject=CN = //p' <<<"$1"; }
for pair in one.example=one.example two.example=two.example www.two.example=two.example TWO.example=two.example \
	a.wild.example='*.wild.example' other.example=one.example a.b.wild.example=one.example; do
	assert_eq "for ${pair%%=*}" "$(subject "$(s_client 8443 "${pair%%=*}")")" "${pair#*=}"
done
assert_eq "without a name" "$(subject "$(in_ns client openssl s_client -connect $PROXY_IP:8443 -noservername </dev/null 2>&1)")" one.example
assert_eq "the name in the log" "$(access names sni)" -

say "ECDSA and RSA side by side"
has "RSA, 1.2" "$(s_client 8443 two.example -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256)" "ECDHE-RSA-AES128-GCM-SHA256"
has "ECDSA, 1.2" "$(s_client 8443 two.example -tls1_2)" "ECDHE-ECDSA-"
has "RSA, 1.3" "$(s_client 8443 two.example -tls1_3 -sigalgs rsa_pss_rsae_sha256:ecdsa_secp384r1_sha384)" \
	"Peer signature type: RSA-PSS"
has "ECDSA, 1.3" "$(s_client 8443 two.example -tls1_3)" "Peer signature type: ECDSA"
refused "a certificate there is not" "$(s_client 8443 one.example -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256)" \
	"alert handshake failure"
said "no cipher in common"
has "ciphers" "$(s_client 8448 one.example -tls1_2)" "Cipher is ECDHE-ECDSA-CHACHA20-POLY1305"
has "suites" "$(s_client 8448 one.example)" "Cipher is TLS_CHACHA20_POLY1305_SHA256"
for old in AES128-SHA ECDHE-ECDSA-AES128-SHA ECDHE-RSA-AES256-SHA384 DHE-RSA-AES128-GCM-SHA256; do
	refused "$old" "$(s_client 8443 two.example -tls1_2 -cipher $old@SECLEVEL=0)" "alert handshake failure"
done

fresh
say "ALPN"
has "the server's order" "$(s_client 8445 one.example -alpn http/1.1,h2)" "ALPN protocol: h2"
has "what is left" "$(s_client 8445 one.example -alpn spdy,http/1.1)" "ALPN protocol: http/1.1"
has "none offered" "$(s_client 8445 one.example)" "No ALPN negotiated"
refused "none in common" "$(s_client 8445 one.example -alpn spdy)" "alert no application protocol"
said "no ALPN protocol in common"
has "a route without" "$(s_client 8443 one.example -alpn h2)" "No ALPN negotiated"

say "client certificates"
with() { echo "-cert $CERTS/$1.pem -key $CERTS/$1.key"; }
for v in -tls1_3 -tls1_2; do
	# shellcheck disable=SC2046
	{
		has "required: shown" "$(s_client 8446 one.example $v $(with alice))" "HTTP/1.1 200 OK"
		refused "required: none" "$(s_client 8446 one.example $v)" "alert"
		refused "required: of another authority" "$(s_client 8446 one.example $v $(with mallory))" "alert unknown ca"
		refused "required: expired" "$(s_client 8446 one.example $v $(with gone))" "alert certificate expired"
		if [ $v = -tls1_3 ]; then
			for word in "no client certificate" "client certificate: unknown issuer" "client certificate: expired"; do
				said "$word"
			done
		fi
		has "optional: none" "$(s_client 8447 one.example $v)" "HTTP/1.1 200 OK"
		has "optional: shown" "$(s_client 8447 one.example $v $(with alice))" "HTTP/1.1 200 OK"
		refused "optional: of another authority" "$(s_client 8447 one.example $v $(with mallory))" "alert unknown ca"
	}
done
has "names of its authorities" "$(s_client 8446 one.example)" "CN = clients"

say "OCSP"
has "stapled" "$(s_client 8443 one.example -status)" "Cert Status: good"
has "none" "$(s_client 8443 two.example -status)" "OCSP response: no response sent"

say "renegotiation is refused, early data is not taken"
out=$({
	printf 'R\n'
	sleep 1
} | in_ns client timeout 15 openssl s_client -connect $PROXY_IP:8443 -servername one.example -tls1_2 2>&1) || true
has "renegotiation" "$out" "no renegotiation"
hasnt "early data" "$(s_client 8443 one.example -tls1_3)" "Max Early Data: [1-9]"
has "early data" "$(s_client 8443 one.example -tls1_3)" "Early data was not sent"

say "curl"
for v in 1.2 1.3; do
	has "curl, TLS $v" "$(fetch 8443 one.example -v --http1.1 --tlsv$v --tls-max $v / 2>&1)" "SSL connection using TLSv$v"
done
has "curl with a certificate" \
	"$(fetch 8446 one.example --cert "$CERTS/alice.pem" --key "$CERTS/alice.key" /)" "http "
if fetch 8446 one.example / >/dev/null 2>&1; then fail "curl without a certificate was served"; fi
has "curl, the status checked" "$(fetch 8443 one.example --cert-status -v / 2>&1)" "SSL certificate status: good"

say "gnutls-cli"
mkfifo "$LAB_DIR/fifo"
exec 9<>"$LAB_DIR/fifo"
gnutls() { # PORT NAME ARGUMENT...: through a pipe that stays open, so that the server's end is the end
	local port=$1 name=$2
	shift 2
	printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$name" >&9
	in_ns client timeout 15 gnutls-cli --x509cafile="$CA" --sni-hostname="$name" --verify-hostname="$name" \
		-p "$port" "$@" $PROXY_IP <&9 2>&1 || true
}
has "gnutls 1.3" "$(gnutls 8443 one.example)" "(TLS1.3-X.509)"
for out in "$(gnutls 8443 one.example --priority=NORMAL:-VERS-TLS1.3)" \
	"$(gnutls 8446 one.example --x509certfile="$CERTS/alice.pem" --x509keyfile="$CERTS/alice.key")"; do
	has "gnutls" "$out" "HTTP/1.1 200 OK"
	hasnt "an end without close_notify" "$out" "error"
done
has "gnutls 1.2" "$(gnutls 8443 one.example --priority=NORMAL:-VERS-TLS1.3)" "(TLS1.2-X.509)"

say "python"
assert_eq "python" "$(in_ns client /usr/bin/python3 -c '
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
raw = socket.create_connection((sys.argv[2], 8443), 15)
s = context.wrap_socket(raw, server_hostname="a.wild.example", suppress_ragged_eofs=False)
s.sendall(b"GET / HTTP/1.0\r\n\r\n")
got = b""
while piece := s.recv(4096):
    got += piece
print(got.decode().split("\r\n")[0], s.version())' "$CA" $PROXY_IP)" "HTTP/1.1 200 OK TLSv1.3"

say "plain HTTP on a port of TLS"
if in_ns client curl -s --max-time 15 http://$PROXY_IP:8443/ >/dev/null; then fail "plain HTTP was served"; fi
wait_log "ClientHello of .* refused: this is not TLS"
assert_eq "its reason" "$(access names client_reason)" tls_error
assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
if grep -aq "PRIVATE KEY" "$(log_file)"; then fail "a key is in the log"; fi
