#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# half_open: true keeps a half-closed connection until half_closed has passed and it has been
# silent for half_closed_idle (parity_check); with half_open: false close_grace ends it.
. "$(dirname "$0")/../lib/netlab.sh"

start_sluice "defaults: { timeouts: { close_grace: 200ms, half_closed: 1500ms, half_closed_idle: 1s } }
routes:
$(route silent 8081 "\"$BACKEND_IP:8001\"" 'half_open: true')
$(route busy 8082 "\"$BACKEND_IP:8002\"" 'half_open: true')
$(route late 8083 "\"$BACKEND_IP:8003\"" 'half_open: true')
$(route closed 8084 "\"$BACKEND_IP:8004\"")"
baseline

say "silent: ended by parity_check, half_closed after the FIN, not before"
dialog_server s 8001 eof sleep:3000
dialog client to=$PROXY_IP:8081 fin eof took:1480:$((2500 * SLOW))
assert_ended silent 1 normal parity_check

say "busy beyond half_closed: not cut until silent for half_closed_idle"
dialog_server s 8002 eof stream:10:200 sleep:2500
dialog client to=$PROXY_IP:8082 fin flow:10:$((950 * SLOW)) eof took:980:$((2000 * SLOW))
assert_ended busy 1 normal parity_check

say "an answer 600 ms after the FIN, three times close_grace: it arrives"
dialog_server s 8003 eof sleep:600 send:late
dialog client to=$PROXY_IP:8083 fin expect:late eof
assert_ended late 1 normal normal

say "the same with half_open: false ends after close_grace"
dialog_server s 8004 expect:x eof sleep:1500
dialog client to=$PROXY_IP:8084 send:x fin eof took:180:$((1200 * SLOW))
assert_ended closed 1 normal close_grace
join_peer s # until then its socket is not over
assert_back_to_baseline
