#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A server that speaks first is heard before the client has sent a byte.
. "$(dirname "$0")/../lib/netlab.sh"

server smtp banner 8001 text="220 ready"
start_sluice "routes:
$(route smtp 2525 "\"$BACKEND_IP:8001\"")"
baseline

dialog client to=$PROXY_IP:2525 "expect:220 ready" took:0:$((1000 * SLOW)) send:QUIT expect:QUIT fin eof
assert_ended smtp 1 normal normal
assert_eq "bytes" "$(access smtp up) $(access smtp down)" "4 13"

say "a client that never speaks and leaves"
dialog client to=$PROXY_IP:2525 "expect:220 ready" fin eof
assert_ended smtp 2 normal normal
assert_back_to_baseline
