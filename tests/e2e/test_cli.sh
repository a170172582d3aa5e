#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Exit codes and output of the command line.
. "$(dirname "$0")/../lib/netlab.sh"

server e echo 8000
start_sluice "routes:
$(route main 8080 "\"$BACKEND_IP:8000\"")
$(route lost 8081 '"10.255.255.1:80"')"

code() { # WANT COMMAND...
	local want=$1 rc=0
	shift
	timeout 10 "$@" >"$LAB_DIR/out" 2>&1 || rc=$?
	if [ $rc != "$want" ]; then fail "'$*' ended with $rc, want $want: $(head -c 500 "$LAB_DIR/out")"; fi
}
S=("$O/sluice" --socket "$LAB_DIR/main/run/control.sock")
conf=$LAB_DIR/main/sluice.yaml

say "0: good"
for verb in status routes conns cert reasons version; do
	code 0 "${S[@]}" $verb
	[ -s "$LAB_DIR/out" ] || fail "$verb prints nothing"
	code 0 "${S[@]}" $verb --json
	jq -e . "$LAB_DIR/out" >/dev/null || fail "$verb --json is not JSON: $(head -c 300 "$LAB_DIR/out")"
done
code 0 "${S[@]}" reload
code 0 "$O/sluice" check -c "$conf"
code 0 "$O/sluice" schema
jq -e '."$schema"' "$LAB_DIR/out" >/dev/null || fail "schema is not a JSON schema"
code 0 "$O/sluice" version
code 0 "$SLUICED" -t -c "$conf"
code 0 "${S[@]}" explain 8080
grep -q main "$LAB_DIR/out" || fail "explain does not name the route"
code 0 "${S[@]}" explain 8080 --json
jq -e . "$LAB_DIR/out" >/dev/null || fail "explain --json is not JSON"
code 0 "${S[@]}" routes --json
assert_eq "routes" "$(jq -r '[.[].name] | join(" ")' "$LAB_DIR/out")" "main lost"
code 0 "${S[@]}" reasons --json
for reason in normal econnreset econnrefused connection_timeout inactivity max_lifetime parity_check \
	close_grace closed_during_connect limit_global limit_route limit_ip rate_ip overload killed \
	drained backend_down shutdown; do
	grep -q "\"$reason\"" "$LAB_DIR/out" || fail "reasons lacks $reason"
done

say "1: failure"
code 1 "${S[@]}" kill 999999
say "2: usage"
code 2 "${S[@]}" nosuch
code 2 "${S[@]}"
code 2 "${S[@]}" kill
code 2 "${S[@]}" status --nosuch
code 2 "$SLUICED" --nosuch
say "3: no daemon"
code 3 "$O/sluice" --socket "$LAB_DIR/nosuch.sock" status
code 3 "$O/sluice" --socket "$LAB_DIR/nosuch.sock" reload
code 3 "$O/sluice" --socket "$LAB_DIR/nosuch.sock" cert list
say "78: configuration"
echo "nonsense: 1" >"$LAB_DIR/bad.yaml"
code 78 "$O/sluice" check -c "$LAB_DIR/bad.yaml"
code 78 "$SLUICED" -t -c "$LAB_DIR/bad.yaml"
cp "$conf" "$LAB_DIR/good.yaml"
cp "$LAB_DIR/bad.yaml" "$conf"
code 78 "${S[@]}" reload
grep -q 'nonsense' "$LAB_DIR/out" || fail "reload does not say what is wrong"
cp "$LAB_DIR/good.yaml" "$conf"
code 0 "${S[@]}" reload

say "curl does what the CLI does"
curl -sS --max-time 5 --unix-socket "$LAB_DIR/main/run/control.sock" http://x/v1/status | jq -e '.state == "running"' >/dev/null || fail "curl /v1/status"
assert_eq "socket mode" "$(stat -c %a "$LAB_DIR/main/run/control.sock")" 660
