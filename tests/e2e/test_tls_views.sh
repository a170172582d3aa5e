#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What is shown of certificates and of TLS is what openssl says of the files and of the connections.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
need jq

make_cert one-rsa one.example rsa
make_cert two one.example,two.example
make_cert wild '*.wild.example'
make_cert soon soon.example ec ca 5
make_cert late late.example ec ca -1
make_cert alice alice
server e echo 8000
tls_server t 9443 echo=1 cert="$CERTS/one.pem" key="$CERTS/one.key"
several="cert: [$CERTS/one.pem, $CERTS/one-rsa.pem, $CERTS/wild.pem], key: [$CERTS/one.key, $CERTS/one-rsa.key, $CERTS/wild.key]"
routes="routes:
$(ends front 8443 "\"$BACKEND_IP:8000\"" "$several, client_ca: $CA, client_auth: optional, alpn: [http/1.1]")
$(ends inner 8444 "$(to_tls "$BACKEND_IP:9443")" "$(pair soon)")
$(route passed 8445 "\"$BACKEND_IP:9443\"")"
start_sluice "$routes"

says() { # WANT COMMAND...: exit code; what it says in SAID
	local want=$1 rc=0
	shift
	SAID=$(timeout $((20 * SLOW)) "$O/sluice" --socket "$LAB_DIR/$INST/run/control.sock" "$@" 2>&1) || rc=$?
	assert_eq "exit code of $* ($SAID)" $rc "$want"
}
cert_json() { sl cert list --json | jq -c --arg f "$CERTS/$1.pem" '.certificates[] | select(.file == $f)'; } # FILE
print_of() { plain "$(openssl x509 -in "$CERTS/$1.pem" -noout -fingerprint -sha256 | sed 's/.*=//')"; } # FILE

same_as_openssl() { # FILE ROUTE STATUS KEY NAMES
	local want
	want=$(openssl x509 -in "$CERTS/$1.pem" -noout -nameopt RFC2253 -subject -issuer -startdate -enddate \
		-fingerprint -sha256 | sed 's/^[^=]*=//')
	{ read -r subject && read -r issuer && read -r start && read -r end && read -r print; } <<<"$want"
	assert_eq "$1" "$(jq -r --arg f "$CERTS/$1.pem" '.certificates[] | select(.file == $f) |
		"\(.route) \(.side) \(.status) \(.key) \(.names | join(",")) \(.subject) \(.issuer) \(.not_before) \(.not_after_unix) \(.fingerprint)"' \
		<<<"$LIST")" "$2 client $3 $4 $5 $subject $issuer $(date -u -d "$start" +%Y-%m-%dT%H:%M:%SZ) $(date -d "$end" +%s) $(plain "$print")"
}
plain() { tr -d : <<<"$1" | tr A-F a-f; } # FINGERPRINT

say "cert list"
LIST=$(sl cert list --json)
same_as_openssl one front ok ec-256 one.example
same_as_openssl one-rsa front ok rsa-2048 one.example
same_as_openssl wild front ok ec-256 '*.wild.example'
same_as_openssl soon inner expires_soon ec-256 soon.example
assert_eq "how many" "$(jq '.certificates | length' <<<"$LIST")" 4
says 0 cert list
has "the table" "$SAID" "one.example"
assert_match "the table" "$SAID" $'\n'"inner +soon\.example +ec-256 +20[0-9-]+ in [45] days +expires soon +$CERTS/soon.pem"
if grep -qE 'PRIVATE|BEGIN' <<<"$SAID$LIST$(sl routes --json)"; then fail "a key is shown"; fi

say "cert show tells what a client is given"
given() { # NAME ARGUMENT...: the serial that openssl is shown
	in_ns client openssl s_client -connect "$PROXY_IP:8443" -servername "$1" "${@:2}" </dev/null 2>/dev/null |
		openssl x509 -noout -serial | cut -d= -f2
}
told() { # NAME: "BY SERIAL..." of the front's port
	local words
	words=$(sl cert show "$1" --json | jq -r '.served[] | select(.port == "8443") | .by, .certificates[].file' | xargs)
	echo "${words%% *} $(for file in ${words#* }; do serial_of "$file"; done | xargs)"
}
ec=(-sigalgs ECDSA+SHA256) rsa=(-sigalgs RSA-PSS+SHA256:RSA+SHA256)
assert_eq "one" "$(told one.example)" "name $(given one.example "${ec[@]}") $(given one.example "${rsa[@]}")"
assert_eq "wild" "$(told a.wild.example)" "wildcard $(given a.wild.example "${ec[@]}")"
assert_eq "other" "$(told other.example)" "default $(given other.example "${ec[@]}") $(given other.example "${rsa[@]}")"
assert_eq "other" "$(given other.example "${ec[@]}")" "$(serial_of "$CERTS/one.pem")"
says 0 cert show "$CERTS/wild.pem"
has "show" "$SAID" "  SHA-256        $(jq -r .fingerprint <<<"$(cert_json wild)")"
says 0 cert show front
has "show a route" "$SAID" "$CERTS/one-rsa.pem"
says 1 cert show nothing
says 2 cert show
says 0 explain 8443 b.wild.example
has "explain" "$SAID" "  certificate    $CERTS/wild.pem (ec-256), by its wildcard"
has "explain" "$SAID" "relay, needs_tls"
says 0 routes show inner
has "a route" "$SAID" "  TLS ends here  1.2 and later"
has "a route" "$SAID" "  TLS to target  verified by $CA as one.example"

say "a connection, and its access line"
declare -A HELD=()
hold() { # NAME PORT SNI ARGUMENT...: openssl with an open standard input; its end is close_notify
	local name=$1 port=$2 sni=$3 fd
	mkfifo "$LAB_DIR/$name.fifo"
	(
		for fd in "${HELD[@]}"; do exec {fd}>&-; done # or the others would never end
		exec ip netns exec "$LAB-c" openssl s_client -connect "$PROXY_IP:$port" -servername "$sni" \
			-CAfile "$CA" -quiet -no_ign_eof "${@:4}" <"$LAB_DIR/$name.fifo" >"$LAB_DIR/$name.out" 2>&1
	) &
	LAST=$!
	lab_pids+=("$LAST")
	PEER_PIDS[$name]=$LAST
	exec {fd}>"$LAB_DIR/$name.fifo"
	HELD[$name]=$fd
	echo hello >&"$fd"
	wait_for grep -q hello "$LAB_DIR/$name.out"
}
let_go() { # NAME
	local fd=${HELD[$1]}
	exec {fd}>&-
	wait "${PEER_PIDS[$1]}" || true
}
conn() { sl conns --route "$1" --json | jq -r ".[0] | $2"; } # ROUTE WHAT
hold first 8443 one.example -tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256 -alpn http/1.1 \
	-cert "$CERTS/alice.pem" -key "$CERTS/alice.key"
hold second 8444 soon.example -tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384
hold third 8445 one.example -tls1_3
assert_eq "front" "$(conn front '"\(.engine) \(.engine_reason) \(.sni) \(.tls) \(.tls_cipher) \(.alpn) \(.client_cert) \(.backend_tls)"')" \
	"relay needs_tls one.example TLSv1.3 TLS_AES_128_GCM_SHA256 http/1.1 CN=alice null"
assert_eq "inner" "$(conn inner '"\(.tls) \(.tls_cipher) \(.tls_resumed) \(.client_cert) \(.backend_tls) \(.backend_verified) \(.backend_cert)"')" \
	"TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384 false null TLSv1.3 true CN=one.example"
assert_eq "passed" "$(conn passed '"\(.tls_cipher) \(.backend_tls) \(.tls_resumed)"')" "null null null"
says 0 conns "$(conn front .id)"
why=$(sl engines --json | jq -r '.ktls.reason // "a key update would break it"')
has "conns ID" "$SAID" "TLS with the client: TLSv1.3 TLS_AES_128_GCM_SHA256, ALPN http/1.1, ktls: unavailable ($why), certificate CN=alice"
assert_eq "status" "$(jqs '.tls | "\(.certificates) \(.expired) \(.expires_soon) \(.problems) \(.handshakes.backend.ok)"')" "4 0 1 0 1"
let_go first
let_go second
let_go third
wait_access front && wait_access inner && wait_access passed
assert_eq "the front's line" "$(access_lines front | grep -c ' tls=TLSv1\.3/TLS_AES_128_GCM_SHA256 client_cert="CN=alice" duration=')" 1
assert_eq "the inner line" "$(access_lines inner | grep -c ' tls=TLSv1\.2/ECDHE-ECDSA-AES256-GCM-SHA384 backend_tls=TLSv1\.3 duration=')" 1
hasnt "the line of a connection that is passed on" "$(access_lines passed)" "tls="

say "metrics"
http_get /metrics >"$LAB_DIR/metrics"
if command -v promtool >/dev/null; then
	promtool check metrics <"$LAB_DIR/metrics" >"$LAB_DIR/promtool" 2>&1 || fail "promtool: $(cat "$LAB_DIR/promtool")"
	assert_eq "promtool's words" "$(cat "$LAB_DIR/promtool")" ""
fi
has "the end of a certificate" "$(cat "$LAB_DIR/metrics")" \
	"sluice_certificate_not_after_seconds{domain=\"soon.example\"} $(jq .not_after_unix <<<"$(cert_json soon)")"
assert_eq "names" "$(grep -c '^sluice_certificate_not_after_seconds{' "$LAB_DIR/metrics")" 3
has "handshakes" "$(cat "$LAB_DIR/metrics")" \
	'sluice_tls_handshakes_total{version="TLSv1.2",resumed="false",result="ok"} 1'
has "handshakes" "$(cat "$LAB_DIR/metrics")" \
	'sluice_tls_backend_handshakes_total{version="TLSv1.3",resumed="false",result="ok"} 1'
assert_eq "handshakes now" "$(grep -cE '^sluice_tls_handshakes_(active|waiting) 0$' "$LAB_DIR/metrics")" 2

say "ktls"
says 0 engines
assert_match "engines" "$SAID" $'\nktls: (available|unavailable \(.+\).*)$'
assert_eq "engines --json" "$(sl engines --json | jq -r '.ktls.available | type')" boolean

say "files that cannot be used, and files that can"
says 0 status
has "status" "$SAID" "certificates     4 in use, 1 expires soon; the next one ends in "
cp "$CERTS/one.pem" "$CERTS/kept.pem"
cp "$CERTS/alice.pem" "$CERTS/one.pem.new" && mv "$CERTS/one.pem.new" "$CERTS/one.pem" # not of that key
says 1 cert reload
has "reload" "$SAID" "$CERTS/one.pem"
has_problem() { [ "$(jqs .tls.problems)" = 1 ]; }
wait_for has_problem
says 4 status
has "status" "$SAID" "route front: newer files are not in use: "
assert_eq "what is in use" "$(jq -r '"\(.status) \(.fingerprint)"' <<<"$(cert_json one)")" \
	"problem $(print_of kept)"
has "cert list" "$(sl cert list)" "front: newer files are not in use: "
cp "$CERTS/two.key" "$CERTS/one.key.new" && mv "$CERTS/one.key.new" "$CERTS/one.key"
cp "$CERTS/two.pem" "$CERTS/one.pem.new" && mv "$CERTS/one.pem.new" "$CERTS/one.pem"
says 0 cert reload
in_use() { [ "$(jq -r '"\(.status) \(.fingerprint)"' <<<"$(cert_json one)")" = "ok $(print_of one)" ]; }
wait_for in_use
says 0 status
stop_sluice
says 3 cert list
says 3 cert reload

say "an expired certificate, and the access line in JSON"
instance late
GLOBAL="  log: { format: json }" start_sluice "routes:
$(ends late 8443 "\"$BACKEND_IP:8000\"" "$(pair late)")"
says 4 status
has "status" "$SAID" "route late: $CERTS/late.pem has expired"
assert_eq "status --json" "$(jqs .tls.expired)" 1
assert_match "cert list" "$(sl cert list)" "expired +$CERTS/late.pem"
given late.example -tls1_2 >/dev/null
is_logged() { grep -q client_reason "$(log_file)"; }
wait_for is_logged
assert_eq "the line" "$(grep client_reason "$(log_file)" | jq -r '"\(.route) \(.sni) \(.tls) \(.tls_resumed) \(.alpn) \(has("client_cert")) \(has("backend_tls"))"')" \
	"late late.example TLSv1.2 false null false false"
