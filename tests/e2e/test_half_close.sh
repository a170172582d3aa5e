#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A FIN is passed on after its bytes; the other direction goes on while it is not silent.
. "$(dirname "$0")/../lib/netlab.sh"

start_sluice "defaults: { timeouts: { close_grace: 1s } }
routes:
$(route a 8081 "\"$BACKEND_IP:8001\"")
$(route b 8082 "\"$BACKEND_IP:8002\"")
$(route c 8083 "\"$BACKEND_IP:8003\"")
$(route d 8084 "\"$BACKEND_IP:8004\"")
$(route e 8085 "\"$BACKEND_IP:8005\"")
$(route f 8086 "\"$BACKEND_IP:8006\"")"
baseline

say "client first: request, FIN, then an answer that streams for longer than close_grace"
dialog_server s 8001 expect:question eof stream:15:100 send:done
dialog client to=$PROXY_IP:8081 send:question fin flow:15:$((950 * SLOW)) expect:done eof
join_peer s
assert_eq "server" "$RC" 0
assert_ended a 1 normal normal

say "server first: FIN, then an upload that streams for longer than close_grace"
dialog_server s 8002 send:hello fin flow:15:$((950 * SLOW)) expect:done eof
dialog client to=$PROXY_IP:8082 expect:hello eof stream:15:100 send:done
join_peer s
assert_eq "server" "$RC" 0
assert_ended b 1 normal normal

say "client first, then silence: both are closed after close_grace, by FIN"
dialog_server s 8003 expect:question eof sleep:2500
dialog client to=$PROXY_IP:8083 send:question fin eof took:980:$((2000 * SLOW))
assert_ended c 1 normal close_grace
join_peer s

say "server first, then silence"
dialog_server s 8004 expect:question send:answer fin eof took:980:$((2000 * SLOW))
dialog client to=$PROXY_IP:8084 send:question expect:answer eof sleep:2500
join_peer s
assert_eq "server" "$RC" 0
assert_ended d 1 close_grace normal

say "both at once"
dialog_server s 8005 send:x fin expect:y eof
dialog client to=$PROXY_IP:8085 send:y fin expect:x eof
join_peer s
assert_eq "server" "$RC" 0
assert_ended e 1 normal normal

say "a FIN behind 20 MB comes after the last byte"
dialog_server s 8006 flow:20000000:5000 eof send:ok
dialog client to=$PROXY_IP:8086 bulk:20000000 fin expect:ok eof
join_peer s
assert_eq "server" "$RC" 0
assert_ended f 1 normal normal
assert_back_to_baseline
