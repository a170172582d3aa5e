#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Clients that give up their handshake after every single byte of it, by FIN, close and reset: nothing
# is left of them. Those that fall silent in it are ended by handshake_timeout.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
N=${N:-1500}

make_cert rsa one.example rsa
server http http 8000
start_sluice "defaults: { timeouts: { handshake: $((1000 * SLOW))ms, first_data: $((1000 * SLOW))ms } }
routes:
$(ends web 8443 "\"$BACKEND_IP:8000\"" "cert: [$CERTS/one.pem, $CERTS/rsa.pem], key: [$CERTS/one.key, $CERTS/rsa.key]")"

# cut ARGUMENT...: CUT holds the result.
cut_at() {
	CUT=$(tls_client cut to=$PROXY_IP:8443 to="[$PROXY6]:8443" sni=one.example c=64 \
		timeout=$((120 * SLOW)) "$@") || fail "cut $*: $CUT"
	echo "$CUT"
}
nobody_shakes() { [ "$(tls_metric handshakes_active) $(tls_metric handshakes_waiting)" = "0 0" ]; }
of_cut() { jq -r ".$1" <<<"$CUT"; }

say "warm-up"
cut_at n=400 v=1.3 how=mix
cut_at n=400 v=1.2 how=mix
wait_for nobody_shakes
baseline
rss=$(rss_kib "$BASE_PID")
ended=$(n_access web)

for v in 1.2 1.3; do
	say "TLS $v, every byte"
	cut_at n=$((N / 2)) v=$v how=mix
	assert_between "cuts, for the bytes of a handshake" "$(of_cut n)" "$(of_cut whole)" 1000000
	assert_back_to_baseline
	nobody_shakes || fail "handshakes under way: $(tls_metric handshakes_active), waiting: $(tls_metric handshakes_waiting)"
done
growth=$(($(rss_kib "$BASE_PID") - rss))
echo "RSS grew by $growth KiB"
assert_between "RSS growth, KiB" $growth -100000 $((4096 * SLOW))

say "each has its line, with a reason that fits"
wait_access web $((ended + N / 2 * 2 + 2))
reasons=$(access_lines web | tail -n +$((ended + 1)) | sed 's/.*client_reason=\([^ ]*\).*/\1/' | sort | uniq -c |
	awk '{ print $2 "=" $1 }' | xargs)
echo "$reasons"
for reason in closed_before_data tls_error econnreset; do assert_match "reasons" "$reasons" "(^| )$reason=[0-9]"; done
for reason in $reasons; do
	assert_match "reason" "$reason" '^(closed_before_data|tls_error|econnreset|epipe|normal|closed_during_connect)='
done

say "silent in the middle: handshake_timeout, in time"
for v in 1.2 1.3; do
	cut_at n=64 v=$v how=stall only=1,5,6,60,200,-1 limit=$((4000 * SLOW))
	assert_eq "all are ended" "$(($(of_cut ended) + $(of_cut reset)))" 64
	assert_between "after" "$(of_cut min_ms)" 950 $((1400 * SLOW))
	assert_between "after" "$(of_cut max_ms)" 950 $((1600 * SLOW))
done
assert_back_to_baseline
