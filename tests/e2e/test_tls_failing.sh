#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Targets whose TLS fails are left out like those that refuse; another server_name counts at once; what was
# sent before an end that was cut short reaches a reader that is slow.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
need curl

make_cert other other.example
site() { # NAME PORT
	OUT=$LAB_DIR/$1.out spawn backend openssl s_server -quiet -www -accept "$BACKEND_IP:$2" \
		-cert "$CERTS/$1.pem" -key "$CERTS/$1.key"
	wait_for listening backend "$2"
}
site one 8001
site other 8002
T=$BACKEND_IP
config() { # NAME
	cat <<-YAML
		routes:
		$(route some 8080 "{ targets: [\"$T:8002\", \"$T:8001\"], retries: 0, tls: { verify: $CA, server_name: one.example } }")
		$(route named 8081 "$(to_tls "$T:8001" "verify: $CA, server_name: $1")")
		$(ends slow 8443 "\"$T:8004\"" '' 'timeouts: { close_grace: 1500ms }')
	YAML
}
start_sluice "$(config one.example)"
baseline

say "a target whose certificate is for another name is left out after three failures in a row"
served_of() { # N PORT
	local n=0 i
	for ((i = 0; i < $1; i++)); do
		if in_ns client curl -sS --max-time $((15 * SLOW)) -o /dev/null "http://$PROXY_IP:$2/" 2>/dev/null; then n=$((n + 1)); fi
	done
	echo $n
}
failing() { jqs '.routes[] | select(.name == "some").targets[] | select(.state == "failing").address'; }
is_left_out() { [ "$(served_of 6 8080) $(failing)" = "6 $T:8002" ]; }
wait_until 10000 is_left_out || fail "not left out: $(served_of 6 8080) of 6 served; failing: $(failing)"

say "a reload with another server_name"
assert_eq "served" "$(served_of 2 8081)" 2
reload "$(config other.example)"
assert_eq "served under the name of another" "$(served_of 2 8081)" 0
reload "$(config one.example)"
assert_eq "served again" "$(served_of 1 8081)" 1

say "a slow reader gets all that was sent before a FIN without close_notify, and then a reset"
steps=()
for ((i = 0; i < 64; i++)); do steps+=(sleep:100 flow:16384:$((2000 * SLOW))); done
dialog_server b 8004 "${steps[@]}" rst
tls_dialog client to=$PROXY_IP:8443 tls:one.example bulk:$((64 * 16384)) fin ends || fail "the client"
served b
assert_ended slow 1 tls_error normal
assert_back_to_baseline
