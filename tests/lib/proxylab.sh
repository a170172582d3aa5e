# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# Sourced after netlab.sh: peers that speak the PROXY protocol.

# Trusted by what the tests configure, and not.
TRUSTED=10.91.128.1 TRUSTED2=10.91.128.2 TRUSTED_NET=10.91.128.0/28 STRANGER=10.91.128.99

# proxy_server NAME PORT[,PORT...] [expect=1]: on the backend, IPv4 and IPv6; see proxy_peer.py.
proxy_server() {
	local name=$1 port listens=()
	for port in ${2//,/ }; do listens+=("$BACKEND_IP:$port" "[$BACKEND6]:$port"); done
	OUT=$LAB_DIR/$name.out spawn backend /usr/bin/python3 "$lab_root/tests/lib/proxy_peer.py" serve \
		listen="$(IFS=, && echo "${listens[*]}")" "${@:3}"
	PEER_PIDS[$name]=$LAST
	for port in ${2//,/ }; do wait_for listening backend "$port"; done
}

# ask ARGUMENT...: one connection from the client; ANSWER holds the result, `told FIELD` reads it.
ask() {
	ANSWER=$(in_ns client /usr/bin/python3 "$lab_root/tests/lib/proxy_peer.py" ask "$@") ||
		fail "ask $*"
}
told() { jq -r ".$1" <<<"$ANSWER"; }

# ask_bg NAME ARGUMENT...: in the background; output in NAME.out, pid in LAST.
ask_bg() {
	OUT=$LAB_DIR/$1.out spawn client /usr/bin/python3 "$lab_root/tests/lib/proxy_peer.py" ask "${@:2}"
	PEER_PIDS[$1]=$LAST
}

# first_answer NAME: what a connection with hold= told before it was let go.
first_answer() { ANSWER=$(head -n 1 "$LAB_DIR/$1.out"); }

# assert_line ROUTE TEXT: the last access line of that route holds the text.
assert_line() {
	assert_match "access line of $1" " $(access_lines "$1" | tail -n 1) " " $2 "
}

# wait_own ADDR TEXT: an access line whose client or via is that address, and which holds the text.
has_own() { grep -aE " access: .* (client|via)=$1 " "$(log_file)" | grep -qE -- "$2"; }
wait_own() {
	local own=${1//./\\.}
	own=${own//[/\\[}
	wait_for has_own "${own//]/\\]}" "$2"
}
