#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Whoever has an answer has the rules: changes at run time, of the list of denied addresses, of the name of
# the table; with a broker that is slow to follow, one that does not, and one that dies over it.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"
need_split

nat_up
server s1 identify 8001
server s2 identify 8002
echo 192.0.2.77 >"$LAB_DIR/deny.txt"
conf() {
	echo "routes:
$(nroute web 8080 "\"$BACKEND_IP:8001\"")
$(nroute two 8082 "\"$BACKEND_IP:8002\"")"
}
# shellcheck disable=SC2034 # the libraries ask for both
with() { # TABLE
	GLOBAL="  nft_table: $1
  nftables: { keep_on_exit: true }
  security: { deny_file: $LAB_DIR/deny.txt }"
	NAT_TABLE=$1
}
broker() { jqs .processes.broker; }
later() { # SECONDS COMMAND...
	(
		sleep "$1"
		shift
		"$@"
	) >>"$LAB_DIR/later.log" 2>&1 &
	LATER=$!
}
timed() { # COMMAND...: its milliseconds in TOOK
	local since
	since=$(date +%s%3N)
	"$@" >"$LAB_DIR/timed.out" 2>&1 || fail "$*: $(cat "$LAB_DIR/timed.out")"
	TOOK=$(($(date +%s%3N) - since))
}

with sluice
start_nat "$(conf)"

say "each answer comes after the rules"
for ((i = 1; i <= ${CHANGES:-20}; i++)); do
	sl routes disable web >/dev/null || fail "disable $i"
	refused $PROXY_IP:8080 || fail "disabled $i: $SHOT"
	sl routes enable web >/dev/null || fail "enable $i"
	reaches $PROXY_IP:8080 s1 || fail "enabled $i: $SHOT"
done

say "also those about the denied addresses"
for ((i = 1; i <= ${CHANGES:-20}; i++)); do
	echo "$CLIENT_IP" >"$LAB_DIR/deny.txt"
	sl reload --deny-file >/dev/null || fail "deny $i"
	refused $PROXY_IP:8080 || fail "denied $i: $SHOT"
	echo 192.0.2.77 >"$LAB_DIR/deny.txt"
	sl reload --deny-file >/dev/null || fail "deny nobody $i"
	reaches $PROXY_IP:8080 s1 || fail "denied no more $i: $SHOT"
done

say "a broker that is slow is waited for"
kill -STOP "$(broker)"
later 3 kill -CONT "$(broker)"
timed sl routes disable web
wait "$LATER" || fail "$(cat "$LAB_DIR/later.log")"
assert_between "milliseconds" "$TOOK" 2500 9000
refused $PROXY_IP:8080 || fail "disabled: $SHOT"
if grep warning "$LAB_DIR/timed.out"; then fail "a warning"; fi

say "for ten seconds, and then the answer says that it is not known"
stopped=$(broker)
kill -STOP "$stopped"
timed sl routes enable web
assert_between "milliseconds" "$TOOK" 9500 14000
assert_match "the answer" "$(cat "$LAB_DIR/timed.out")" 'warning: nftables: the broker process has not said within 10 s'
kill -CONT "$stopped"
wait_until 8000 reaches $PROXY_IP:8080 s1 || fail "enabled: $SHOT"

say "another table: the old one goes, whatever is to stay at the end"
with other
reload "$(conf)"
reaches $PROXY_IP:8082 s2 || fail "$SHOT"
has_table || fail "no table inet other"
NAT_TABLE=sluice no_table || fail "the old table is left"

say "also when the broker dies over it"
stopped=$(broker)
kill -STOP "$stopped"
later 2 kill -KILL "$stopped"
with third
reload "$(conf)"
wait "$LATER" || fail "$(cat "$LAB_DIR/later.log")"
reaches $PROXY_IP:8082 s2 || fail "$SHOT"
has_table || fail "no table inet third"
NAT_TABLE=other no_table || fail "the old table is left"
wait_until 8000 nat_is_on || fail "off: $(nat_text)"
