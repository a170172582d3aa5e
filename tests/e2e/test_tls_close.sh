#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Every way a connection over TLS ends: close_notify and FIN, an end cut short, half-close, resets, kill,
# idle, drain; and what surrounds it: first bytes with the handshake's last, a lot of bytes, slow readers.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
grace=$((400 * SLOW))

server source source 8020 n=$((1 << 30))
server sink sink 8021 paused=1
server v verify 8022 stall=$((5000 * SLOW))
tls_server vt 8023 cert="$CERTS/one.pem" key="$CERTS/one.key" stall=$((5000 * SLOW))
config() { # DRAIN
	cat <<-YAML
		defaults: { timeouts: { drain: $1 } }
		routes:
		$(ends plain 8443 "\"$BACKEND_IP:8000\"")
		$(ends both 8444 "$(to_tls "$BACKEND_IP:8000")")
		$(route out 8080 "$(to_tls "$BACKEND_IP:8000")")
		$(ends open 8445 "\"$BACKEND_IP:8000\"" '' "half_open: true, timeouts: { close_grace: ${grace}ms }")
		$(ends short 8451 "\"$BACKEND_IP:8000\"" '' "timeouts: { close_grace: ${grace}ms }")
		$(ends idle 8446 "\"$BACKEND_IP:8000\"" '' "timeouts: { idle: ${grace}ms }")
		$(ends source 8447 "\"$BACKEND_IP:8020\"")
		$(ends sink 8448 "\"$BACKEND_IP:8021\"")
		$(ends much 8449 "\"$BACKEND_IP:8022\"")
		$(ends muchtls 8450 "$(to_tls "$BACKEND_IP:8023")")
	YAML
}
start_sluice "$(config 2s)"
baseline

declare -A ended=()
# over ROUTE CLIENT_REASON BACKEND_REASON: of the next connection of that route.
over() {
	ended[$1]=$((${ended[$1]:-0} + 1))
	assert_ended "$1" "${ended[$1]}" "$2" "$3"
}
plain_target() { dialog_server b 8000 "$@"; }
tls_target() { tls_dialog_server b 8000 "serve:$CERTS/one.pem:$CERTS/one.key:$V" "$@"; }
# c PORT STEP...: a client of TLS.
c() {
	local port=$1
	shift
	tls_dialog client to=$PROXY_IP:"$port" "tls:one.example:$V" "$@" || fail "client by way of $port: $*"
}
p() { # PORT STEP...: a client without
	dialog client to=$PROXY_IP:"$1" "${@:2}" || fail "plain client by way of $1: ${*:2}"
}

for V in 1.2 1.3; do
	say "TLS $V: the client ends first, with FIN and without"
	for end in end notify; do
		plain_target expect:hello eof send:bye fin
		c 8443 send:hello $end expect:bye eof wire_eof
		served b
		over plain normal normal
		tls_target expect:hello eof send:bye end wire_eof
		c 8444 send:hello $end expect:bye eof wire_eof
		served b
		over both normal normal
	done
	tls_target expect:hello eof send:bye end wire_eof
	p 8080 send:hello fin expect:bye eof
	served b
	over out normal normal

	say "TLS $V: the target ends first, the other direction goes on"
	plain_target send:bye fin expect:more eof
	c 8443 expect:bye eof wire_eof send:more end
	served b
	over plain normal normal
	tls_target send:bye notify expect:more eof end
	c 8444 expect:bye eof wire_eof send:more end
	served b
	over both normal normal
	tls_target send:bye end expect:more eof
	p 8080 expect:bye eof send:more fin
	served b
	over out normal normal

	say "TLS $V: a FIN of the client without close_notify is no end"
	plain_target expect:hello send:late rst took:0:$((700 * SLOW))
	c 8443 send:hello fin expect:late ends
	served b
	over plain tls_error normal
	tls_target expect:hello send:late rst
	c 8444 send:hello fin expect:late ends
	served b
	over both tls_error normal

	say "TLS $V: nor is one of the target"
	tls_target send:part fin
	p 8080 expect:part rst
	served b
	over out normal tls_error
	tls_target send:part fin
	c 8444 expect:part rst
	served b
	over both normal tls_error

	say "TLS $V: resets"
	GOT=$LAB_DIR/got # the target has the client's bytes
	rm -f "$GOT"
	plain_target expect:hello tell:"$GOT" rst
	c 8443 send:hello wait:"$GOT" abort
	served b
	over plain econnreset normal
	plain_target expect:hello abort
	c 8443 send:hello rst
	served b
	over plain normal econnreset
	rm -f "$GOT"
	tls_target expect:hello tell:"$GOT" rst
	c 8444 send:hello wait:"$GOT" abort
	served b
	over both econnreset normal
	tls_target expect:hello abort
	c 8444 send:hello rst
	served b
	over both normal econnreset

	say "TLS $V: half_open"
	plain_target expect:x send:y eof sleep:$((grace * 2)) send:late fin
	c 8445 send:x expect:y end expect:late eof
	served b
	over open normal normal
	plain_target expect:x send:y eof sleep:$((grace * 2))
	c 8451 send:x expect:y end eof took:$((grace * 8 / 10)):$((grace + 500 * SLOW)) wire_eof
	served b
	over short normal close_grace

	say "TLS $V: the first bytes in one segment with the client's last of the handshake"
	if [ $V = 1.3 ]; then
		plain_target expect:early send:back fin
		tls_dialog client to=$PROXY_IP:8443 glued:one.example:early expect:back eof end || fail "glued"
		served b
		over plain normal normal
		tls_target expect:early send:back eof end
		tls_dialog client to=$PROXY_IP:8444 glued:one.example:early expect:back end eof || fail "glued"
		served b
		over both normal normal
	fi
	plain_target expect:x send:y eof
	c 8443 send:x expect:y end eof
	served b
	over plain normal normal

	say "TLS $V: silence"
	plain_target expect:x ends
	c 8446 send:x eof took:$((grace * 8 / 10)):$((grace + 700 * SLOW)) wire_eof
	served b
	over idle inactivity inactivity

	say "TLS $V: kill"
	plain_target expect:x rst
	tls_dialog_bg k to=$PROXY_IP:8443 \
		"tls:one.example:$V" send:x rst
	one_id() { ID=$(sl conns --json | jq -r '[.. | objects | select(.route? == "plain" and .state == "established") | .id][0] // empty') && [ -n "$ID" ]; }
	wait_for one_id
	sl kill "$ID" >/dev/null
	served k
	served b
	over plain killed killed
	assert_back_to_baseline
done

say "a lot, both ways at once"
tls_client verify to=$PROXY_IP:8449 to=$PROXY_IP:8450 n=4 c=2 shapes=duplex max=$((64 << 20)) timeout=$((60 * SLOW)) ca="$CA" \
	sni=one.example stall=$((5000 * SLOW)) || fail "bulk"
assert_back_to_baseline

say "readers that do not read: memory stays bounded"
down() { jqs "[.routes[] | select(.name == \"$1\") | .bytes_$2] | add"; }
# settled ROUTE WAY: bytes have come, and no more are coming.
settled() {
	local before now
	before=$(down "$1" "$2")
	sleep 0.2
	now=$(down "$1" "$2")
	[ "$now" -gt 100000 ] && [ "$now" = "$before" ]
}
rss=$(rss_kib "$BASE_PID")
for i in 1 2 3 4 5 6 7 8; do
	tls_dialog_bg "r$i" to=$PROXY_IP:8447 \
		tls:one.example wait:"$LAB_DIR/go" abort
	tls_dialog_bg "w$i" to=$PROXY_IP:8448 \
		tls:one.example flood
done
wait_until 10000 settled source down || fail "the source does not settle"
wait_until 10000 settled sink up || fail "the sink does not settle"
assert_eq "connections" "$(jqs .connections.active)" 16
growth=$(($(rss_kib "$BASE_PID") - rss))
echo "RSS grew by $growth KiB"
assert_between "RSS growth with 16 of them, KiB" $growth -100000 $((16 * 512 + 1024 * SLOW))
touch "$LAB_DIR/go"
for id in $(sl conns --json | jq -r '.. | objects | select(.route? == "sink") | .id'); do sl kill "$id" >/dev/null; done
for i in 1 2 3 4 5 6 7 8; do
	served r$i
	served w$i
done
assert_back_to_baseline

say "drain: what is left at its end is closed, and says so"
reload "$(config 300ms)"
plain_target expect:x ends
tls_dialog_bg d to=$PROXY_IP:8443 tls:one.example \
	send:x eof wire_eof
active() { [ "$(jqs '[.routes[] | select(.name == "plain") | .active] | add')" = 1 ]; }
wait_for active
stop_sluice
assert_eq "exit code" "$RC" 0
served d
served b
over plain drained drained
