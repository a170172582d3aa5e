#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Connections that the kernel carries: what conns, status, the maps and the access line say, with exact
# bytes, over IPv4, IPv6, to a backend on this host, from a client on this host; closed by either side.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/packetlab.sh"

server e echo 8001
local_server l echo 8002
server v verify 8003
start_packet "" "routes:
$(proute four 8081 "\"$BACKEND_IP:8001\"")
$(proute six 8082 "\"[$BACKEND6]:8001\"")
$(proute lo_backend 8083 '"127.0.0.1:8002"')
$(proute lo_client 8084 "\"$BACKEND_IP:8001\"")
$(proute both_lo 8085 '"127.0.0.1:8002"')
$(proute lo_six 8086 '"[::1]:8002"')
$(proute server_first 8087 "\"$BACKEND_IP:8010\"")
$(route by_itself 8088 "\"$BACKEND_IP:8001\"")
$(route stays 8089 "\"$BACKEND_IP:8001\"" "engine: relay")
$(proute verify 8090 "\"$BACKEND_IP:8003\"")"
packet_baseline
mark_rst
KB=1000000

# carried ROUTE NS TO [REASON]: some bytes before and after the hand-over, then FIN.
carried() {
	local route=$1 row why=${4:-configured} go=$LAB_DIR/go.$1 first=$LAB_DIR/first.$1 rest=$LAB_DIR/rest.$1
	OUT=$LAB_DIR/$route.dialog spawn "$2" /usr/bin/python3 tests/lib/dialog.py to="$3" send:hello expect:hello \
		tell:"$first" wait:"$go" pump:$KB tell:"$rest" wait:"$go.end" fin eof
	PEER_PIDS[$route]=$LAST
	wait_for test -e "$first"
	wait_engine "$route"
	if on_packet; then
		assert_eq "$route: entries" "$(flows_json | jq --argjson id "$(sl conns --route "$route" --json | jq '.[0].id')" '[.[] | select(.conn_id == $id)] | length')" 2
	fi
	touch "$go"
	wait_for test -e "$rest"
	row=$(sl conns --route "$route" --json | jq -c '.[0]')
	assert_eq "$route: its row" "$(jq -r '[.route, .state, .engine, .engine_reason, .bytes_up, .bytes_down] | join(" ")' <<<"$row")" \
		"$route established $ENGINE $why $((KB + 5)) $((KB + 5))"
	touch "$go.end"
	RC=0
	wait "${PEER_PIDS[$route]}" || RC=$?
	assert_eq "$route: the dialog: $(cat "$LAB_DIR/$route.dialog.err")" "$RC" 0
	assert_ended "$route" 1 normal normal
	assert_eq "$route: access line" "$(access "$route" engine) $(access "$route" up) $(access "$route" down)" \
		"$ENGINE/$why $((KB + 5)) $((KB + 5))"
}

say "IPv4 and IPv6, through and to and from this host"
carried four client $PROXY_IP:8081
assert_match "client and backend" "$(access_lines four)" " client=$CLIENT_IP:[0-9]+ via=- .* backend=$BACKEND_IP:8001 "
carried six client "[$PROXY6]:8082"
carried lo_backend client $PROXY_IP:8083
carried lo_client proxy $PROXY_IP:8084
carried both_lo proxy 127.0.0.1:8085
carried lo_six client "[$PROXY6]:8086"
if on_packet; then
	carried by_itself client $PROXY_IP:8088 eligible
	say "engine: relay stays there"
	assert_no_rst
	client_bg stays trickle to=$PROXY_IP:8089 ms=20 timeout=30
	wait_engine stays relay
	stop_peer stays
	wait_access stays
	assert_eq "stays" "$(access stays engine)" relay/configured
	mark_rst # its client may have ended with an echo unread: that is a reset, and relay passes it on
fi

say "the backend's FIN first"
GO=$LAB_DIR/go
dialog_server s 8010 send:hello wait:"$GO" send:more fin expect:last eof
OUT=$LAB_DIR/sf.out spawn client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:8087 expect:hello expect:more eof send:last fin
sf=$LAST
wait_engine server_first
touch "$GO"
RC=0
wait "$sf" || RC=$?
assert_eq "client: $(cat "$LAB_DIR/sf.out.err")" "$RC" 0
join_peer s
assert_eq "server" "$RC" 0
assert_ended server_first 1 normal normal
assert_eq "bytes" "$(access server_first up) $(access server_first down)" "4 9"

say "bytes are counted exactly"
client verify to=$PROXY_IP:8090 n=40 c=8 max=300000 shapes=all timeout=30 rest=100 || fail "transfers"
wait_access verify 40
verified v 40
assert_eq "bytes of the route" "$(jqs '.routes[] | select(.name == "verify") | .bytes_up + .bytes_down')" $(($(jq .bytes <<<"$RESULT") + 40 * 40))
assert_eq "bytes of the access lines" "$(access_lines verify | sed 's/.* up=\([0-9]*\) down=\([0-9]*\) .*/\1 \2/' | awk '{ n += $1 + $2 } END { print n }')" \
	$(($(jq .bytes <<<"$RESULT") + 40 * 40))

say "status and metrics"
if on_packet; then
	assert_between "total of the engine" "$(n_packet_total)" 8 60
	assert_eq "metric" "$(http_get /metrics | awk '/^sluice_connections_total/ && /engine="packet"/ { n += $NF } END { print n + 0 }')" "$(n_packet_total)"
	assert_match "hand-overs" "$(handovers)" '[a-z]+=[0-9]+'
	assert_eq "by the metric" "$(n_handed)" "$(n_packet_total)"
	assert_match "programs" "$(programs_on proxy cli) $(programs_on proxy srv)" '^[a-z]+:.* [a-z]+:'
	assert_eq "pinned" "$(for m in flows events counters routes meta; do [ -e "$(bpf_of)/$m" ] && echo $m; done | xargs)" "flows events counters routes meta"
	assert_match "routes by name" "$(dump routes | jq -c '[.[].formatted.value.name]')" four
	assert_between "packets by the counters" "$(($(counter forwarded_tc) + $(counter forwarded_xdp)))" 500 10000000
fi
assert_no_rst
assert_packet_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
