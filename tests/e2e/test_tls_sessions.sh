#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A client that comes back resumes its session, whichever worker it meets, after a reload, a new certificate,
# the death of the proxy process and of the daemon's other parts; not with another route.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"

server http http 8000
config() { # MORE
	cat <<-YAML
		defaults: { timeouts: { close_grace: $1 } }
		routes:
		$(ends web 8443 "\"$BACKEND_IP:8000\"")
		$(ends other 8444 "\"$BACKEND_IP:8000\"")
	YAML
}
GLOBAL='  workers: 4' start_sluice "$(config 5s)"
baseline

# session VERSION: makes one, in a file.
session() {
	s_client 8443 one.example "-tls$1" -sess_out "$LAB_DIR/session$1" >/dev/null || fail "no session"
}
# again VERSION [PORT]: New or Reused
again() {
	s_client "${2:-8443}" one.example "-tls$1" -sess_in "$LAB_DIR/session$1" | grep -aoE '^(New|Reused),' | head -n 1
}

for v in 1_2 1_3; do
	say "TLS $v"
	session $v
	for i in 1 2 3 4 5 6 7 8; do assert_eq "again, $i" "$(again $v)" Reused,; done
	assert_eq "of another route" "$(again $v 8444)" New,
done
assert_between "resumed, in the metrics" "$(tls_metric handshakes_total 'resumed="true"')" 16 16

say "after a reload, and a new certificate"
reload "$(config 4s)"
for v in 1_2 1_3; do assert_eq "after a reload" "$(again $v)" Reused,; done
make_cert newer one.example
cp -p "$CERTS/newer.key" "$CERTS/one.key"
mv "$CERTS/newer.pem" "$CERTS/one.pem"
newest() { [ "$(openssl x509 -noout -serial <<<"$(in_ns client openssl s_client -connect $PROXY_IP:8443 -servername one.example </dev/null 2>/dev/null)")" = "$(openssl x509 -noout -serial -in "$CERTS/one.pem")" ]; }
wait_for newest
for v in 1_2 1_3; do assert_eq "after a new certificate" "$(again $v)" Reused,; done

if [ -z "${SLUICE_SINGLE:-}" ]; then
	say "after the death of the proxy process"
	old=$(proxy_pid)
	kill -KILL "$old"
	another() { [ -n "$(proxy_pid)" ] && [ "$(proxy_pid)" != "$old" ] && is_running; }
	wait_for another
	for v in 1_2 1_3; do assert_eq "after its death" "$(again $v)" Reused,; done
fi

say "64 at a time, all of whom come back"
out=$(tls_client knock to=$PROXY_IP:8443 ca="$CA" sni=one.example n=600 c=64 resume=100 timeout=$((30 * SLOW)) send=$'GET / HTTP/1.0\r\n\r\n') || fail "$out"
echo "$out"
assert_eq "resumed, of those offered" "$(jq .resumed <<<"$out")" "$(jq .offered <<<"$out")"
assert_between "offered" "$(jq .offered <<<"$out")" 300 600
stop_sluice
assert_eq "exit code" "$RC" 0
