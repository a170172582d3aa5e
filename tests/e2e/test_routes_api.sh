#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Routes are added, replaced, removed, enabled and disabled at run time: all or nothing, over
# reloads, deaths of the proxy and upgrades, and over restarts where asked.
. "$(dirname "$0")/../lib/netlab.sh"

server one banner 8001 text=one
server two banner 8002 text=two
server e echo 8003
base="defaults: { timeouts: { drain: 60s } }
routes:
$(route main 8080 "\"$BACKEND_IP:8001\"")
$(route long 8081 "\"$BACKEND_IP:8003\"")"
start_sluice "$base"

socket=$LAB_DIR/main/run/control.sock
# api METHOD PATH [BODY]: the status is in STATUS, the document in DOC.
api() {
	local body=()
	if [ $# -gt 2 ]; then body=(--data-binary "$3"); fi
	STATUS=$(curl -sS --max-time 15 -X "$1" "${body[@]}" -o "$LAB_DIR/doc" -w '%{http_code}' \
		--unix-socket "$socket" "http://x$2") || fail "curl $1 $2"
	DOC=$(cat "$LAB_DIR/doc")
}
field() { jq -r "$1" <<<"$DOC"; }
serves() { # PORT TEXT
	shot to=$PROXY_IP:"$1" send=x fin=1
	[ "$(of text)" = "$2x" ] # the banner, and the echo
}
assert_serves() { serves "$1" "$2" || fail "port $1: $(of connect) '$(of text)', want '$2'"; }
assert_refused() {
	shot to=$PROXY_IP:"$1"
	assert_eq "port $1" "$(of connect)" refused
}
ino=$(inodes 8080)
to_one="{\"match\": {\"ports\": 9000}, \"forward\": \"$BACKEND_IP:8001\"}"

client_bg long trickle to=$PROXY_IP:8081 ms=20 c=2 timeout=200
wait_for eval '[ "$(jqs .connections.active)" = 2 ]'

say "added, on a new port"
assert_refused 9000
api PUT /v1/routes/new "$to_one"
assert_eq "created" "$STATUS $(field .ok) $(field .generation)" "201 true 2"
assert_serves 9000 one
api GET /v1/routes/new
assert_eq "its view" "$STATUS $(field .name) $(field '.ports[0]') $(field '.targets[0].total')" \
	"200 new 9000 1"

say "replaced, as YAML, with another target and one port more"
api PUT /v1/routes/new "match:
  ports: [9000, 9001]
forward: $BACKEND_IP:8002
"
assert_eq "replaced" "$STATUS" 200
assert_serves 9000 two
assert_serves 9001 two
assert_eq "routes" "$(sl routes --json | jq -r '[.[].name] | join(" ")')" "main long new"

say "a route of the file is replaced in its place"
api PUT /v1/routes/main "{\"name\": \"main\", \"match\": {\"ports\": 8080}, \"forward\": \"$BACKEND_IP:8002\"}"
assert_eq "replaced" "$STATUS" 200
assert_serves 8080 two
assert_eq "order" "$(sl routes --json | jq -r '[.[].name] | join(" ")')" "main long new"

say "what is wrong is refused as a whole, with the place"
generation=$(jqs .generation)
refuse() { # WHAT NAME BODY REGEX
	api PUT "/v1/routes/$2" "$3"
	assert_eq "$1" "$STATUS $(field .reason)" "422 config"
	assert_match "$1" "$(field .text)" "$4"
	assert_eq "$1: generation" "$(jqs .generation)" "$generation"
}
refuse "two mistakes" bad "match:
  ports: 99999
forwad: x" 'runtime:bad:2:10: error: .*99999'
assert_match "both are reported" "$(field .text)" 'runtime:bad:3:1: error: .*forwad.*forward'
assert_match "a caret" "$(field .text)" $'2 \\|   ports: 99999\n +\\|          \\^'
refuse "not YAML" bad "{match: [" 'runtime:bad:'
refuse "another name inside" bad "{name: other, match: {ports: 9002}, forward: \"$BACKEND_IP:8001\"}" \
	"runtime:bad:1:8: error: .*other"
refuse "no list" bad "[1, 2]" 'runtime:bad:1:1: error'
refuse "a port that is taken" bad "{match: {ports: 9180}, forward: \"$BACKEND_IP:8001\"}" \
	'runtime:bad:1:.*error: .*9180'
assert_eq "no such route" "$(sl routes --json | jq 'any(.[]; .name == "bad")')" false
api PUT /v1/routes/b%20ad "$to_one"
assert_eq "a name that is none" "$STATUS" 400
api PUT /v1/routes/bad ""
assert_eq "no body" "$STATUS" 400
head -c 1100000 /dev/zero | tr '\0' '#' >"$LAB_DIR/large"
api PUT /v1/routes/bad @"$LAB_DIR/large"
assert_eq "too large" "$STATUS" 413
assert_serves 8080 two
assert_serves 9000 two

say "not found"
for request in "DELETE /v1/routes/nosuch" "POST /v1/routes/nosuch/enable" "GET /v1/routes/nosuch" \
	"POST /v1/drain?target=1.2.3.4:5" "POST /v1/drain?target=$BACKEND_IP:8001&route=long" \
	"POST /v1/undrain?target=$BACKEND_IP:8001" "DELETE /v1/changes?route=long"; do
	api $request
	assert_eq "$request" "$STATUS" 404
done
assert_eq "generation" "$(jqs .generation)" "$generation"

say "disabled and enabled"
api POST /v1/routes/new/disable
assert_eq "disabled" "$STATUS" 200
assert_refused 9001
assert_eq "view" "$(sl routes --json | jq '.[] | select(.name == "new") | .enabled')" false
sl routes enable new >/dev/null
assert_serves 9001 two
api POST /v1/routes/long/disable
assert_refused 8081
assert_eq "its connections go on" "$(jqs '.routes[] | select(.name == "long") | .active')" 2
api POST /v1/routes/long/enable
shot to=$PROXY_IP:8081 send=x fin=1
assert_eq "enabled again" "$(of text)" x

say "the changes in force"
api GET /v1/changes
assert_eq "list" "$(field '[.changes[] | "\(.change):\(.route)"] | join(" ")')" "route:new route:main"
assert_eq "count" "$(jqs .runtime_changes)" 2

say "they survive a reload"
reload "$base
$(route extra 8090 "\"$BACKEND_IP:8001\"")"
assert_serves 8090 one
assert_serves 8080 two
assert_serves 9001 two

if [ -z "${SLUICE_SINGLE:-}" ]; then
	say "the death of the proxy"
	old=$(proxy_pid)
	before=$(jqs .generation)
	stop_peer long || true
	kill -KILL "$old"
	new_proxy() { pid=$(proxy_pid) && [ -n "$pid" ] && [ "$pid" != "$old" ] && is_running; }
	wait_for new_proxy
	assert_serves 8080 two
	assert_serves 9001 two
	assert_eq "generation" "$(jqs .generation)" "$before"
	assert_eq "changes" "$(sl routes changes --json | jq '.changes | length')" 2
	client_bg long trickle to=$PROXY_IP:8081 ms=20 c=2 timeout=200

	say "and an upgrade, and can be made afterwards"
	sl upgrade >"$LAB_DIR/upgrade.out" 2>&1 || fail "upgrade: $(cat "$LAB_DIR/upgrade.out")"
	wait_for is_running
	assert_serves 8080 two
	api PUT /v1/routes/later "{match: {ports: 9003}, forward: \"$BACKEND_IP:8001\"}"
	assert_eq "after the upgrade" "$STATUS" 201
	assert_serves 9003 one
	api DELETE /v1/routes/later
	assert_eq "removed" "$STATUS" 200
	assert_refused 9003

	say "and while one is under way: each is answered, none is lost"
	burst() { # WHO
		local i
		for i in {1..25}; do
			curl -sS --max-time 15 -X PUT --data-binary "{match: {ports: $((9010 + $1))}, forward: \"$BACKEND_IP:8001\"}" \
				-o /dev/null -w '%{http_code}\n' --unix-socket "$socket" "http://x/v1/routes/burst$1-$i" || echo "curl $?"
			curl -sS --max-time 15 -X DELETE -o /dev/null -w '%{http_code}\n' --unix-socket "$socket" \
				"http://x/v1/routes/burst$1-$i" || echo "curl $?"
		done
	}
	bursts=()
	for i in {1..6}; do
		burst "$i" >"$LAB_DIR/burst.$i" 2>&1 &
		bursts+=($!)
	done
	for _ in 1 2 3; do
		sl upgrade >"$LAB_DIR/upgrade.out" 2>&1 || fail "upgrade: $(cat "$LAB_DIR/upgrade.out")"
		wait_for is_running
	done
	for pid in "${bursts[@]}"; do wait "$pid"; done
	assert_eq "answers" "$(sort "$LAB_DIR"/burst.* | uniq -c | awk '{ print $1, $2 }' | xargs)" "150 200 150 201"
	assert_eq "changes" "$(sl routes changes --json | jq '.changes | length')" 2
	stop_peer long
	assert_eq "long connections: $RESULT" "$RC" 0
	client_bg long trickle to=$PROXY_IP:8081 ms=20 c=2 timeout=200
	wait_for eval '[ "$(jqs .connections.active)" = 2 ]'
fi

say "back to the file"
api DELETE "/v1/changes?route=main"
assert_eq "forgotten" "$STATUS" 200
assert_serves 8080 one
api DELETE /v1/routes/extra
assert_refused 8090
reload
assert_refused 8090
sl routes forget >/dev/null
assert_serves 8090 one
assert_refused 9000
assert_eq "nothing left" "$(sl routes changes --json | jq -c .changes)" "[]"
assert_eq "the listener of the unchanged port" "$(inodes 8080)" "$ino"
assert_eq "no file" "$(ls "$LAB_DIR/main/state")" ""

say "a removed route's connections go on until they end"
api DELETE /v1/routes/long
assert_refused 8081
kill -0 "${PEER_PIDS[long]}" || fail "the long connections ended"
sl routes forget long >/dev/null
stop_peer long
assert_eq "long connections: $RESULT" "$RC" 0

say "kept over a restart"
file=$LAB_DIR/main/state/changes
sl routes set kept --keep >/dev/null <<<"$to_one"
sl routes set lost >/dev/null <<<"{match: {ports: 9004}, forward: \"$BACKEND_IP:8001\"}"
sl routes disable extra --keep >/dev/null
sl drain "$BACKEND_IP:8001" --route main --keep >/dev/null
assert_eq "file" "$(jq -r '[.changes[].change] | join(" ")' "$file")" "route disable drain"
assert_eq "its mode" "$(stat -c %a "$file")" 600
restart() { start_sluice "$base
$(route extra 8090 "\"$BACKEND_IP:8001\"")"; }
stop_sluice
restart
assert_serves 9000 one
assert_refused 9004
assert_refused 8090
assert_eq "changes" "$(sl routes changes --json | jq -r '[.changes[] | "\(.change):\(.route):\(.keep)"] | join(" ")')" \
	"route:kept:true disable:extra:true drain:main:true"
# a change without keep that replaces a kept one is all that is left of it
sl routes enable extra >/dev/null
assert_eq "file" "$(jq -r '[.changes[].change] | join(" ")' "$file")" "route drain"
assert_serves 8090 one

say "what cannot be kept is not done"
mkdir "$file.new"
rc=0
sl routes set unkept --keep >"$LAB_DIR/out" 2>&1 <<<"{match: {ports: 9005}, forward: \"$BACKEND_IP:8001\"}" || rc=$?
assert_eq "exit code" $rc 1
assert_match "message" "$(cat "$LAB_DIR/out")" "cannot be kept in $file"
assert_refused 9005
rmdir "$file.new"

say "kept changes that do not fit, or a broken file: no start, and why"
stop_sluice
cp "$file" "$LAB_DIR/changes"
refuse_start() { # CONFIGURATION REGEX
	write_conf "$1"
	rc=0
	timeout 20 ip netns exec "$LAB-p" "$SLUICED" -c "$LAB_DIR/main/sluice.yaml" \
		${SLUICE_SINGLE:+--single} >"$LAB_DIR/out" 2>&1 || rc=$?
	assert_eq "exit code: $(cat "$LAB_DIR/out")" $rc 78
	assert_match "message" "$(cat "$LAB_DIR/out")" "$2"
	assert_match "what to do" "$(cat "$LAB_DIR/out")" "$file"
}
sed -i 's/9000/99000/' "$file"
refuse_start "$base" "runtime:kept:1:[0-9]+: error: .*99000"
echo '{"version": 1, "changes": [' >"$file"
refuse_start "$base" "line [0-9]+, column [0-9]+"
cp "$LAB_DIR/changes" "$file"

say "what the file no longer has is no reason to stay down"
start_sluice "routes:
$(route other 8080 "\"$BACKEND_IP:8001\"")"
has_log 'there is no target .*to drain' || fail "no warning of the drain"
assert_serves 9000 one
stop_sluice
assert_eq "exit code" "$RC" 0
