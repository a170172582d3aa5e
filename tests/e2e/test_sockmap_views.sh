#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What the command line, the control API and the metrics say about connections that go from socket to socket,
# against what bpftool says; an engine that is off says why, and its routes are served by the relay.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/sockmaplab.sh"
need_sockmap

server e echo 8001
text="routes:
$(proute web 8081 "\"$BACKEND_IP:8001\"")
$(proute mixed 8082 "\"$BACKEND_IP:8001\"")
$(route auto 8083 "\"$BACKEND_IP:8001\"")
$(route plain 8084 "\"$BACKEND_IP:8001\"" 'engine: relay')"
start_sockmap backlog=100KiB "$text"
sockmap_baseline
of_engine() { sl engines --json | jq -r ".engines.sockmap | $1"; }
explained() { sl explain "$@" --json | jq -r '"\(.engine) \(.engine_reason)"'; }

say "an engine that is on"
assert_eq "engines" "$(of_engine '[.available, .reason_name, .active, .total] | map(tostring) | join(" ")')" "true null 0 0"
assert_match "as text" "$(sl engines)" $'\nsockmap +yes +0 +0 '
assert_match "status" "$(sl status)" $'\nsockmap +[^\n]+\n'
assert_eq "status, JSON" "$(jqs '"\(.engines.sockmap.active) \(.kernel.sockmap_sockets)"')" "0 0"
assert_eq "the pins" "$(pinned | tr ' ' '\n' | grep -c '^sockmap_')" 9
for map in $SOCKMAP_PINS; do test -e "$(bpf_of)/sockmap_$map" || fail "sockmap_$map is not pinned"; done

say "explain knows before"
assert_eq "named" "$(explained 8081)" "sockmap configured"
assert_eq "two families" "$(explained 8082 --client 2001:db8::1)" "sockmap configured"
assert_match "auto never means it" "$(explained 8083)" '^(packet|relay) '
assert_eq "nor does relay" "$(explained 8084)" "relay configured"

say "connections are told as the maps have them"
client_bg held hold to=$PROXY_IP:8081 n=3 ping=1 timeout=60
client_bg mixed hold to="[$PROXY6]:8082" n=1 ping=1 timeout=60
client_bg plain hold to=$PROXY_IP:8084 n=1 ping=1 timeout=60
wait_until 5000 at_least_on sockmap 4 || fail "on the engine: $(n_on sockmap): $(sl conns)"
conns=$(sl conns --json)
assert_eq "engine and reason" "$(jq -r '[.[] | select(.route != "plain") | "\(.engine) \(.engine_reason)"] | unique | join(",")' <<<"$conns")" \
	"sockmap configured"
assert_eq "relay stays" "$(engine_of plain)" relay
slots=$(sockmaps slots)
assert_eq "ids" "$(jq -c '[.[].conn_id] | unique' <<<"$slots")" "$(jq -c '[.[] | select(.engine == "sockmap").id] | sort' <<<"$conns")"
assert_eq "two slots each, of one pair" "$(jq -c 'group_by(.conn_id) | map([.[].slot] | (.[0] % 2 == 0 and .[1] == .[0] + 1)) | unique' <<<"$slots")" "[true]"
assert_eq "limits" "$(jq -c '[.[].limit] | unique' <<<"$slots")" "[102400]"
in_status() { [ "$(jqs '"\(.kernel.sockmap_sockets) \(.engines.sockmap.active) \(.engines.sockmap.total)"')" = "$1" ]; }
wait_until 3000 in_status "8 4 4" || fail "status: $(jqs '[.kernel, .engines.sockmap]')"
assert_match "status, text" "$(sl status)" $'\nsockmap +on, room for [0-9]+ sockets; 8 joined\n'
assert_match "conns, text" "$(sl conns)" $'\n *[0-9]+ +web +established +sockmap +configured '

say "the maps are readable"
flow=$(dump sockmap_flows | jq -c '[.[] | .formatted // .] | map({ key: .key, value: .value })')
assert_eq "entries" "$(jq length <<<"$flow")" 8
assert_eq "sides" "$(jq -r '[.[].value.side] | unique | join(" ")' <<<"$flow")" "SL_SOCKMAP_BACKEND SL_SOCKMAP_CLIENT"
assert_eq "each one's peer is there, and points back" \
	"$(jq -c '(map({ (.key | tostring): .value.peer }) | add) as $peer | [.[] | $peer[.value.peer | tostring] == .key] | unique' <<<"$flow")" "[true]"
number=$(jq '.[0].slot' <<<"$slots")
text_of_slot=$(bpftool map lookup pinned "$(bpf_of)/sockmap_slots" key $((number % 256)) $((number / 256)) 0 0)
assert_match "a slot" "$text_of_slot" '"state": "SL_SOCKMAP_FAST"'
assert_match "its spill" "$text_of_slot" '"why": "SL_SOCKMAP_[A-Z_]+"'
assert_eq "sockets" "$(dump sockmap_targets | jq length) $(dump sockmap_sources | jq length)" "8 8"
assert_eq "outcomes" "$(dump sockmap_counters | jq -c '.[0] | .formatted // . | .values[0].value | keys')" \
	'["events_lost","fins","passed","redirected","returned","spilled_asked","spilled_limit","spilled_no_target","spilled_refused","trim_failed","trimmed","unknown"]'
assert_eq "owner" "$(dump sockmap_meta | jq '.[0] | .formatted // . | .value.owner_pid')" "$(jqs .processes.broker)"

say "bytes are those of the slots, and of the peers"
go=$LAB_DIR/go
OUT=$LAB_DIR/pump.out spawn client /usr/bin/python3 tests/lib/dialog.py to=$PROXY_IP:8081 send:hello expect:hello pump:300000 wait:"$go" fin eof
pump=$LAST
bytes_are() { [ "$(sl conns --route web --json | jq -c --argjson n "$1" '[.[] | select(.bytes_up == $n) | [.bytes_up, .bytes_down]]')" = "[[$1,$1]]" ]; }
wait_until 5000 bytes_are 300005 || fail "bytes: $(sl conns --route web --json | jq -c '.[] | [.bytes_up, .bytes_down]')"
id=$(sl conns --route web --json | jq '.[] | select(.bytes_up == 300005) | .id')
assert_between "what the kernel moved" "$(slots_of "$id" | jq '[.[] | .redirected + .passed] | add')" 300000 600010
touch "$go"
wait "$pump" || fail "pump: $(cat "$LAB_DIR/pump.out.err")"
wait_access web
assert_eq "access line" "$(access web engine) $(access web up) $(access web down)" "sockmap/configured 300005 300005"
moves=$(sl conns --json | jq -c '[.[] | select(.engine == "sockmap").moves[-1] | [.from, .to]] | unique')
assert_eq "the move is on record" "$moves" '[["relay","sockmap"]]'

say "metrics"
http_get /metrics >"$LAB_DIR/metrics"
if command -v promtool >/dev/null; then
	promtool check metrics <"$LAB_DIR/metrics" >"$LAB_DIR/promtool" 2>&1 || fail "promtool: $(cat "$LAB_DIR/promtool")"
	assert_eq "promtool's words" "$(cat "$LAB_DIR/promtool")" ""
fi
sample() { grep -F "$1 " "$LAB_DIR/metrics" | awk '{ print $NF }'; }
assert_eq "available" "$(sample 'sluice_engine_available{engine="sockmap"}')" 1
assert_eq "flows" "$(sample 'sluice_kernel_flows{engine="sockmap"}')" 4
assert_eq "hand-overs" "$(sample 'sluice_handover_total{engine="sockmap",result="done"}')" 5
assert_eq "moves" "$(sample 'sluice_engine_moves_total{from="relay",to="sockmap",reason="configured"}')" 5
assert_eq "drift" "$(awk '/^sluice_drift_total/ && /sockmap/ { n += $NF } END { print n + 0 }' "$LAB_DIR/metrics")" 0
stop_peer held
stop_peer mixed
stop_peer plain
assert_sockmap_baseline
assert_maps_empty
stop_sluice
assert_eq "exit code" "$RC" 0
assert_eq "what is pinned after a clean end" "$(pinned)" ""

# off INSTANCE REASON TEXT: the engine is off for that reason, which is said wherever it is asked for.
off() {
	local rc=0 word
	wait_until 8000 sockmap_is_known || fail "$1: nothing is known of the engine"
	assert_eq "$1: available" "$(of_engine .available)" false
	assert_match "$1: reason" "$(of_engine .reason_name)" "^($2)\$"
	assert_match "$1: in words" "$(of_engine .reason)" "$3"
	word=$(of_engine .reason_name)
	assert_match "$1: engines" "$(sl engines)" $'\nsockmap +no '
	sl status >"$LAB_DIR/status" || rc=$?
	assert_eq "$1: exit code of the status" $rc 4
	assert_match "$1: status" "$(cat "$LAB_DIR/status")" $'\nsockmap +off'
	assert_eq "$1: explain" "$(explained 8081)" "relay $word"
	client_bg "off.$1" hold to=$PROXY_IP:8081 n=2 ping=1 timeout=20
	wait_for has_output "off.$1"
	assert_eq "$1: carried by" "$(engine_of web) $(engine_reason_of web)" "relay $word"
	stop_peer "off.$1"
	assert_eq "$1: served" "$RC" 0
}

say "no file system for the kernel's objects"
instance nobpf
GLOBAL=$(sockmap_global) start_sluice "$text"
off nobpf 'not_linux_supported' 'mount -t bpf|bpffs|bpf file system'
stop_sluice

say "no privilege"
instance nobody
mount_bpf
mkdir -p "$LAB_DIR/nobody/run" "$LAB_DIR/nobody/state"
chown nobody "$LAB_DIR/nobody" "$LAB_DIR/nobody/run" "$LAB_DIR/nobody/state"
cp "$SLUICED" "$LAB_DIR/sluiced"
chmod 755 "$LAB_DIR/sluiced"
GLOBAL=$(sockmap_global) SLUICED=$LAB_DIR/sluiced \
	WRAP="setpriv --reuid=nobody --regid=nogroup --clear-groups --bounding-set=-all --inh-caps=-all" start_sluice "$text"
off nobody no_privilege 'root|privilege|CAP_'
stop_sluice

say "the self-test fails: the loopback interface is down"
instance notest
mount_bpf
# shellcheck disable=SC2034,SC2154
HTTP_ADDRS[notest]=none
ip -n "$LAB-p" link set lo down
GLOBAL=$(sockmap_global) start_sluice "$text"
off notest self_test_failed '.{10,}'
echo "it says: $(of_engine .reason)"
ip -n "$LAB-p" link set lo up
stop_sluice
assert_eq "exit code" "$RC" 0
