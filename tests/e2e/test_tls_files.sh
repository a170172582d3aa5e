#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Files of certificates and keys: which are refused at the start, by check and by a reload, and with which words;
# new ones that come by rename, by writing and by links; and bad ones, of which the last good one
# stays, also for a proxy that comes anew and over an upgrade. Tickets outlive the proxy that made them.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"

server e echo 8000
D=$CERTS/web
mkdir "$D"
ROUTES="routes:
$(ends web 8443 "\"$BACKEND_IP:8000\"" "cert: $D/cert.pem, key: $D/cert.key")
$(ends other 8444 "\"$BACKEND_IP:8000\"")"

# renamed FROM TO [FROM TO]: one after the other, with nothing in between.
renamed() {
	/usr/bin/python3 -c 'import os, sys
a = sys.argv[1:]
while a: os.rename(a.pop(0), a.pop(0))' "$@"
}
# as NEW: NEW.pem and NEW.key are the route's now, by two renames.
as() {
	cp "$CERTS/$1.pem" "$D/new.pem"
	cp "$CERTS/$1.key" "$D/new.key"
	renamed "$D/new.key" "$D/cert.key" "$D/new.pem" "$D/cert.pem"
}
# shown PORT: the serial number of the certificate clients are shown.
shown() {
	in_ns client timeout $((15 * SLOW)) openssl s_client -connect "$PROXY_IP:$1" \
		-servername one.example </dev/null 2>/dev/null | openssl x509 -noout -serial | cut -d= -f2
}
shows() { [ "$(shown 8443)" = "$(serial_of "$CERTS/$1.pem")" ]; } # NAME
assert_shown() { assert_eq "$1" "$(shown 8443)" "$(serial_of "$CERTS/$2.pem")"; }
errors() { grep -ac ' error supervisor: route ' "$(log_file)" || true; }
has_errors() { [ "$(errors)" -ge "$1" ]; }
# problem WORDS...: one more error of the route is in the log, with the words and what it comes to.
N_ERRORS=0
problem() {
	local word line
	wait_for has_errors $((N_ERRORS + 1))
	line=$(grep -a ' error supervisor: route ' "$(log_file)" | tail -n 1)
	N_ERRORS=$((N_ERRORS + 1))
	assert_eq "errors so far" "$(errors)" $N_ERRORS
	for word in "route 'web': " "$@" "; the last good one stays in use"; do has "the log" "$line" "$word"; done
}
refused_everywhere() { # WORDS...: of the configuration as it is
	local word check
	for check in "$SLUICED -t -c" "$O/sluice check" "ip netns exec $LAB-p $SLUICED -c"; do
		RC=0
		$check "$LAB_DIR/$INST/sluice.yaml" >"$LAB_DIR/out" 2>"$LAB_DIR/err" || RC=$?
		assert_eq "exit code of $check" $RC 78
		for word; do has "$check" "$(cat "$LAB_DIR/err")" "$word"; done
	done
}
# What a sanitizer does to core files is its own business.
if grep -aqE '__(asan|tsan)_init' "$SLUICED"; then SANITIZED=1; fi
core_limit_is() { # WHAT PID WANT
	[ -n "${SANITIZED:-}" ] ||
		assert_eq "$1" "$(awk '/^Max core file size/ { print $5 }' "/proc/$2/limits")" "$3"
}

make_cert first one.example
make_cert second one.example rsa
make_cert third one.example
make_cert expired one.example ec ca -1

say "what is wrong with files refuses a start, and checking finds the same"
as first
write_conf "$ROUTES"
chmod 644 "$D/cert.key"
refused_everywhere "sluice.yaml:" "error: route 'web': $D/cert.key: " "others may read it (mode 0644)"
cp "$CERTS/second.key" "$D/cert.key"
chmod 600 "$D/cert.key"
refused_everywhere "error: route 'web': $D/cert.pem: the key does not belong to the certificate" "$D/cert.key"
rm "$D/cert.pem"
refused_everywhere "error: route 'web': $D/cert.pem: there is no such file"
as first
truncate -s 2M "$D/cert.pem"
refused_everywhere "error: route 'web': $D/cert.pem: is larger than 1 MiB"
as expired
sl_check() { "$O/sluice" check "$LAB_DIR/$INST/sluice.yaml" 2>&1; }
has "an expired one is a warning" "$(sl_check)" "warning: route 'web': $D/cert.pem: the certificate expired at "

say "core files, before there are keys and after"
write_conf "routes:
$(route web 8443 "\"$BACKEND_IP:8000\"")"
WRAP="prlimit --core=unlimited" start_sluice "routes:
$(route web 8443 "\"$BACKEND_IP:8000\"")"
core_limit_is "supervisor without keys" "$SLUICE_PID" unlimited
as first
reload "$ROUTES"
assert_shown "after the reload" first
core_limit_is "supervisor with keys" "$SLUICE_PID" 0
if [ -z "${SLUICE_SINGLE:-}" ]; then core_limit_is "proxy" "$(proxy_pid)" 0; fi

say "new files: by rename, by writing, by a link, by a link to their directory"
OUT=$LAB_DIR/held.out
mkfifo "$LAB_DIR/held"
sleep 600 >"$LAB_DIR/held" &
lab_pids+=("$!")
in_ns client openssl s_client -connect "$PROXY_IP:8443" -servername one.example -quiet -no_ign_eof \
	<"$LAB_DIR/held" >"$OUT" 2>/dev/null &
lab_pids+=("$!")
held() { # WORD: comes back by the connection that was there before
	echo "$1" >"$LAB_DIR/held"
	wait_for grep -qx "$1" "$LAB_DIR/held.out"
}
held before
other=$(shown 8444)
as second
wait_for shows second
pem=$(cat "$CERTS/third.pem") key=$(cat "$CERTS/third.key")
echo "$key" >"$D/cert.key"
echo "$pem" >"$D/cert.pem"
wait_for shows third
mkdir "$D/v1" "$D/v2"
for f in pem key; do
	cp "$CERTS/first.$f" "$D/v1/cert.$f"
	cp "$CERTS/second.$f" "$D/v2/cert.$f"
done
ln -s v1 "$D/now"
for f in key pem; do ln -s "now/cert.$f" "$D/new.$f"; done
renamed "$D/new.key" "$D/cert.key" "$D/new.pem" "$D/cert.pem"
wait_for shows first
ln -s v2 "$D/new"
renamed "$D/new" "$D/now"
wait_for shows second
held after
assert_eq "the other route's" "$(shown 8444)" "$other"
assert_eq "errors" "$(errors)" 0

say "bad files: the last good one stays, and the log says why, once"
pid=$(proxy_pid)
echo nothing >"$D/cert.pem" # by the link
problem "$D/cert.pem: there is no certificate in it"
assert_shown "garbage" second
assert_eq "by the interface" "$(sl cert list --json | jq -r '[.certificates[] | select(.route == "web") | .problem][0]')" \
	"$D/cert.pem: there is no certificate in it"
cp "$CERTS/first.pem" "$D/v2/cert.pem"
problem "$D/cert.pem: the key does not belong to the certificate" "$D/cert.key"
assert_shown "half of a replacement" second
cp "$CERTS/second.pem" "$D/v2/cert.pem"
wait_for has_log "route 'web': its files are those in use again"
chmod 604 "$D/v2/cert.key"
problem "$D/cert.key: holds a private key, and others may read it (mode 0604)"
rm "$D/cert.key"
problem "$D/cert.key: there is no such file"
as expired
problem "$D/cert.pem: the certificate expired at "
assert_shown "an expired one" second
if sl cert reload >"$LAB_DIR/out" 2>&1; then fail "an expired certificate was taken for a good one"; fi
has "asked for" "$(cat "$LAB_DIR/out")" "$D/cert.pem: the certificate expired at "
if sl reload >"$LAB_DIR/out" 2>&1; then fail "a reload has taken an expired certificate"; fi
has "reload" "$(cat "$LAB_DIR/out")" "error: route 'web': $D/cert.pem: the certificate expired at "
assert_shown "after all of that" second
assert_eq "the same proxy" "$(proxy_pid)" "$pid"
held still
assert_eq "the other route's" "$(shown 8444)" "$other"

if [ -z "${SLUICE_SINGLE:-}" ]; then
	say "for a proxy that comes anew, and over an upgrade; tickets, too"
	ticket() { # -sess_out|-sess_in FILE
		in_ns client timeout $((15 * SLOW)) openssl s_client -connect "$PROXY_IP:8443" -tls1_2 \
			-servername one.example "$@" </dev/null 2>/dev/null
	}
	has "a session" "$(ticket -sess_out "$LAB_DIR/session")" "New, TLSv1.2"
	is_new() { [ -n "$(proxy_pid)" ] && [ "$(proxy_pid)" != "$pid" ] && is_running; }
	kill -KILL "$pid"
	wait_for is_new
	assert_shown "after a death" second
	has "resumed" "$(ticket -sess_in "$LAB_DIR/session")" "Reused, TLSv1.2"
	pid=$(proxy_pid)
	sl upgrade >"$LAB_DIR/out" 2>&1 || fail "upgrade: $(cat "$LAB_DIR/out")"
	wait_for has_log "upgrade: the supervisor is version"
	assert_shown "after an upgrade" second
	has "resumed" "$(ticket -sess_in "$LAB_DIR/session")" "Reused, TLSv1.2"
	core_limit_is "the new supervisor" "$SLUICE_PID" 0
	# the files are looked at again, and are as bad as before
	problem "$D/cert.pem: the certificate expired at "
	as third
	wait_for shows third
fi

say "asked for, before anybody has noticed"
as first
sl cert reload >"$LAB_DIR/out" 2>&1 || fail "cert reload: $(cat "$LAB_DIR/out")"
assert_shown "right after the answer" first
assert_eq "problems" "$(sl cert list --json | jq -c '[.certificates[].problem | select(. != "" and . != null)]')" '[]'

say "no more keys"
reload "routes:
$(route web 8443 "\"$BACKEND_IP:8000\"")"
if fds "$SLUICE_PID" | grep -E 'memfd:sluice-(certs|tickets)'; then fail "the supervisor keeps keys"; fi
if grep -a 'cannot be set up' "$(log_file)"; then fail "the proxy has said what is no error"; fi
stop_sluice
assert_eq "exit code" "$RC" 0
if grep -a 'PRIVATE KEY' "$(log_file)"; then fail "a key is in the log"; fi
