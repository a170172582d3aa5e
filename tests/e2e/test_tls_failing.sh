#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Targets whose TLS fails are left out like those that refuse; another server_name counts at once; what was
# sent before an end that was cut short reaches a reader that is slow; clients may leave, or only end, while
# a target is silent; and whoever fails often hides no target's failure from the log.
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
		$(route deaf 8082 "$(to_tls "$T:8005")" "timeouts: { handshake: $((60 * SLOW))s }")
		$(ends both 8444 "$(to_tls "$T:8005")" '' "timeouts: { handshake: $((60 * SLOW))s }")
		$(route late 8083 "$(to_tls "$T:8006")" "timeouts: { handshake: $((60 * SLOW))s }")
	YAML
}
server deaf hold 8005
# shellcheck disable=SC2034 # netlab.sh's
GLOBAL='  workers: 1'
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

say "a client that leaves while the target is silent is let go at once"
M=$LAB_DIR/mark
is_asked() { [ "$(tls_metric handshakes_active)" = 1 ]; }
leaves() { # ROUTE: the client of that name
	wait_until 5000 is_asked || fail "no handshake with the target of $1"
	touch "$M.$1"
	served "$1"
	assert_ended "$1" 1 closed_during_connect closed_during_connect
}
tls_dialog_bg deaf to=$PROXY_IP:8082 "wait:$M.deaf" fin ends
leaves deaf
tls_dialog_bg both to=$PROXY_IP:8444 tls:one.example "wait:$M.both" notify ends
leaves both

say "one that has sent a request and its end waits for the answer"
tls_dialog_server l 8006 "wait:$M.late" "serve:$CERTS/one.pem:$CERTS/one.key" expect:question eof send:answer end eof
in_ns client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:8083 send:question fin "tell:$M.late" expect:answer eof || fail "the client"
served l
assert_ended late 1 normal normal

say "clients that fail in their dozens: the log says how many, and what targets do"
n_lines() { grep -c "$1" "$(log_file)" || true; }
old_client() { ! in_ns client openssl s_client -connect "$PROXY_IP:8443" -tls1_1 -cipher ALL:@SECLEVEL=0 </dev/null &>/dev/null; }
n_old=0
old_clients() { # N
	local i
	for ((i = 0; i < $1; i++)); do old_client || fail "a client with TLS 1.1 was served"; done
	wait_access slow $((1 + (n_old += $1)))
}
old_clients 30
assert_eq "lines of clients" "$(n_lines 'route slow: TLS with client .* failed')" 20
reload "$(config other.example)"
assert_eq "served under the name of another" "$(served_of 1 8081)" 0
last() { grep 'TLS with target' "$(log_file)" | tail -1; }
has "what the target failed for" "$(last)" "route named: TLS with target $T:8001 failed: "
is_told() {
	old_clients 1
	[ "$(n_lines 'TLS with clients: [0-9]* more failures had no line of their own')" = 1 ]
}
wait_until 15000 is_told || fail "nothing is said of $((n_old - 20)) failures"
assert_eq "failures told and counted" "$(grep -Eo 'clients: [0-9]+ more' "$(log_file)" | grep -Eo '[0-9]+') more of $n_old" \
	"$((n_old - 21)) more of $n_old"
stop_peer deaf
assert_back_to_baseline
