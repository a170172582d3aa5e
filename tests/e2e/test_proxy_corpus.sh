#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Every case of the PROXY protocol against the daemon: whole and byte by byte, from who is trusted and
# from who is not, where a header is required and where it is not. Each ends as its line says.
. "$(dirname "$0")/../lib/netlab.sh"

TRUSTED=10.91.128.1 OTHER=10.91.128.99
OUT=$LAB_DIR/backend.out spawn backend /usr/bin/python3 tests/lib/proxy_peer.py serve listen=$BACKEND_IP:8000
wait_for listening backend 8000

start_sluice "defaults: { timeouts: { proxy_header: 60s } }
listeners:
  - { ports: [8001], accept_proxy: { from: [$TRUSTED], required: true } }
  - { ports: [8002], accept_proxy: { from: [$TRUSTED], required: false } }
routes:
$(route required 8001 "\"$BACKEND_IP:8000\"")
$(route optional 8002 "\"$BACKEND_IP:8000\"")
$(route plain 8003 "\"$BACKEND_IP:8000\"")"
baseline

cases() { # PORT SRC MODE [ARGUMENT...]
	local to=$PROXY_IP:$1 src=$2 mode=$3
	shift 3
	in_ns client /usr/bin/python3 tests/lib/proxy_peer.py cases to="$to" src="$src" mode="$mode" \
		log="$(log_file)" "$@" || fail "cases: port ${to##*:}, mode $mode, $*"
}

say "required, trusted"
cases 8001 $TRUSTED required
say "required, trusted, byte by byte"
cases 8001 $TRUSTED required bytes=1 jobs=48
say "optional, trusted"
cases 8002 $TRUSTED optional
say "optional, trusted, byte by byte"
cases 8002 $TRUSTED optional bytes=1 jobs=48
say "optional, spoofed: all of it is payload"
cases 8002 $OTHER payload
cases 8002 $OTHER payload bytes=1 jobs=48
say "no accept_proxy: payload, too"
cases 8003 $TRUSTED payload
say "required, spoofed: refused at accept"
cases 8001 $OTHER refused
assert_back_to_baseline
