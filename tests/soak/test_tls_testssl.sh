#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# testssl.sh against termination, with ECDSA and RSA side by side: no vulnerability, no protocol before TLS 1.2,
# and nothing it rates worse than "INFO" or "OK", but that our authority tells nobody what it has revoked.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
# engine_problem: this machine's OpenSSL has no GOST.
KNOWN='^(WARN engine_problem|HIGH cert_revocation)'
TESTS=${TESTS:---protocols --server-defaults --server-preference --fs --vulnerable --std --each-cipher}
tool=$(command -v testssl || command -v testssl.sh) || skip "testssl.sh is not installed"
command -v hexdump >/dev/null || skip "hexdump is not installed"

make_sub mid
for kind in ec rsa; do
	make_cert $kind one.example $kind mid 200
	cat "$CERTS/mid.pem" >>"$CERTS/$kind.pem"
done
server http http 8000
start_sluice "routes:
$(ends web 8443 "\"$BACKEND_IP:8000\"" "cert: [$CERTS/ec.pem, $CERTS/rsa.pem], key: [$CERTS/ec.key, $CERTS/rsa.key]")"
baseline

report=$LAB_DIR/report.json
# shellcheck disable=SC2086
in_ns client timeout $((${LIMIT:-900} * SLOW)) "$tool" --quiet --color 0 --warnings off --nodns none --ip $PROXY_IP \
	--add-ca "$CA" --jsonfile "$report" $TESTS "one.example:8443" >"$LAB_DIR/testssl.out" 2>&1 || true
[ -s "$report" ] || fail "no report: $(tail -n 20 "$LAB_DIR/testssl.out")"
jq -r '.[] | "\(.severity)"' "$report" | sort | uniq -c
echo "findings: $(jq length "$report")"
verdict() { jq -r --arg id "$1" '[.[] | select(.id == $id) | .finding] | join(" | ")' "$report"; }
for old in SSLv2 SSLv3 TLS1 TLS1_1; do assert_match "$old" "$(verdict $old)" "^not offered"; done
for new in TLS1_2 TLS1_3; do assert_match "$new" "$(verdict $new)" "^offered"; done
bad=$(jq -r '.[] | select(.severity | IN("LOW", "MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL")) | "\(.severity) \(.id): \(.finding)"' "$report" |
	grep -vE "$KNOWN" || true)
if [ -n "$bad" ]; then fail "testssl.sh found: $bad"; fi
if [ -z "${SHORT:-}" ]; then assert_between "findings" "$(jq length "$report")" 60 1000; fi
assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
