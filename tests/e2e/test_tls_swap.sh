#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Certificates replaced by rename, again and again, while handshakes go on: none fails, and the new one is
# what new clients meet. Files that are wrong change nothing but what the log says.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
SWAPS=${SWAPS:-10} PAUSE=${PAUSE:-0.1} MET=${MET:-2} # MET: so many certificates are met at least

server e echo 8000
for ((i = 0; i <= SWAPS; i++)); do make_cert "new$i" one.example; done
make_cert mismatch one.example
make_cert expired one.example ec ca -1

# One file with key and certificate, so that one rename replaces both.
combined() { cat "$CERTS/$1.key" "$CERTS/$1.pem"; }
swap() { # NAME
	(umask 077 && combined "$1" >"$CERTS/live.tmp")
	mv "$CERTS/live.tmp" "$CERTS/live.pem"
}
swap new0
GLOBAL='  log: { access: none }' start_sluice "routes:
$(ends web 8443 "\"$BACKEND_IP:8000\"" "cert: $CERTS/live.pem")
$(ends pair 8444 "\"$BACKEND_IP:8000\"" "$(pair one)")"
baseline

knock() { tls_client knock to=$PROXY_IP:"$1" ca="$CA" sni=one.example timeout=$((60 * SLOW)) limit=$((10000 * SLOW)) "${@:2}"; }
# shows PORT NAME: who knocks now is shown that certificate.
shows() { [ "$(knock "$1" n=4 c=4 | jq -r '.serials | keys | join(" ")')" = "$(serial_of "$CERTS/$2.pem")" ]; }

say "$SWAPS swaps, $PAUSE s apart, under load"
wait_for shows 8443 new0
tls_client_bg load knock to=$PROXY_IP:8443 to="[$PROXY6]:8443" ca="$CA" sni=one.example c=16 t=600 \
	timeout=$((700 * SLOW)) limit=$((10000 * SLOW))
for ((i = 1; i <= SWAPS; i++)); do
	swap "new$i"
	sleep "$PAUSE"
done
wait_for shows 8443 "new$SWAPS"

say "wrong files: the last good one stays, and the log names the file"
# wrong WHAT WORDS: after the file was replaced by something wrong
wrong() {
	wait_log "live\.pem: .*$2"
	shows 8443 "new$SWAPS" || fail "$1: not the last good one"
	jqs . >/dev/null || fail "$1: no status"
}
echo "not a certificate" >"$CERTS/live.tmp"
chmod 600 "$CERTS/live.tmp"
mv "$CERTS/live.tmp" "$CERTS/live.pem"
wrong "no certificate" "there is no certificate in it; the last good one stays in use"
(umask 077 && cat "$CERTS/mismatch.key" "$CERTS/new1.pem" >"$CERTS/live.tmp")
mv "$CERTS/live.tmp" "$CERTS/live.pem"
wrong "another key" "the key does not belong to the certificate"
swap expired
wrong expired "the certificate expired at"
combined new1 >"$CERTS/live.tmp"
chmod 644 "$CERTS/live.tmp"
mv "$CERTS/live.tmp" "$CERTS/live.pem"
wrong "a key that others may read" "holds a private key, and others may read it"
rm "$CERTS/live.pem"
wrong "no file" "there is no such file"
assert_match "sluice cert list" "$(sl cert list 2>&1 || true)" "live\.pem"

say "and a good one again"
swap new1
wait_for shows 8443 new1
kill -TERM "${PEER_PIDS[load]}"
join_peer load
echo "$RESULT" | cut -c1-600
assert_eq "handshakes that failed: $(cat "$LAB_DIR/load.out.err")" "$RC $(jq '.bad' <<<"$RESULT")" "0 0"
assert_between "handshakes" "$(jq .ok <<<"$RESULT")" $((SWAPS * 5)) 10000000
assert_between "certificates met" "$(jq '.serials | length' <<<"$RESULT")" "$MET" $((SWAPS + 1))

say "a pair of files, replaced one after the other"
for f in key pem; do
	cp -p "$CERTS/new2.$f" "$CERTS/one.tmp"
	mv "$CERTS/one.tmp" "$CERTS/one.$f"
done
wait_for shows 8444 new2
assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
if grep -aq "PRIVATE KEY" "$(log_file)"; then fail "a key is in the log"; fi
