#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Each process, or all of them, killed at any moment of a reload: the next one makes of whatever it finds
# exactly the table of the configuration, and nobody's connection notices.
#   DEATHS=N SEED=N
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"
need_split
DEATHS=${DEATHS:-6} SEED=${SEED:-$RANDOM}
RANDOM=$SEED
echo "SEED=$SEED"

nat_up
in_ns proxy sysctl -qw net.ipv4.conf.all.route_localnet=0
settings() { in_ns proxy sysctl -n net.netfilter.nf_conntrack_{acct,timestamp,events} net.ipv4.conf.all.route_localnet | xargs; }
was=$(settings)
server l long 8000 stall=$((15000 * SLOW))
server e echo 8001
server s1 identify 8002
server s2 identify 8003
udp_server u backend 8004
conf() { # A|B
	local target=8002 limit=500
	if [ "$1" = B ]; then target=8003 limit=700; fi
	echo "defaults: { timeouts: { drain: 60s } }
routes:
$(nroute long 8080 "\"$BACKEND_IP:8000\"")
$(nroute held 8081 "\"$BACKEND_IP:8001\"")
$(nroute web 8082 "\"$BACKEND_IP:$target\"" "security: { max_connections: $limit, deny: [192.0.2.0/24] }")
$(nroute lb 8083 "[ \"$BACKEND_IP:8001\", \"$BACKEND_IP:$target\" ]")
$(uroute udp 8084 "\"$BACKEND_IP:8004\"")
$(nroute here 8085 '"127.0.0.1:8200"')"
	if [ "$1" = A ]; then return; fi
	for ((k = 0; k < 60; k++)); do nroute "more$k" $((10000 + k)) "\"$BACKEND_IP:8002\""; done
}
# The table by the routes' names: their numbers depend on who came first.
named() {
	nat_table | /usr/bin/python3 -c '
import re, sys
text = sys.stdin.read()
names = {int(m[1], 16): m[2] for m in re.finditer(r"0x([0-9a-f]{8}) comment \"([^\"]*)\" : \"route_", text)}
text = re.sub(r"packets \d+ bytes \d+| # progname.*|\bflags owner.*", "", text)
text = re.sub(r"0x([0-9a-f]{8})", lambda m: names.get(int(m[1], 16), m[0]), text)
text = re.sub(r"((?:route|policy|packets|slots|slots[46]|deny[46]|allow[46])_)(\d+)\b",
              lambda m: m[1] + names.get(int(m[2]), m[2]), text)
items = [p.replace("elements = {", "").rstrip("} ").strip() for l in text.splitlines() for p in re.split(r",\s+", l)]
print("\n".join(sorted(i for i in items if i)))'
}

say "what the tables are to be"
for v in A B; do
	start_nat "$(conf $v)"
	named >"$LAB_DIR/want.$v"
	stop_sluice
	no_table || fail "a table is left"
	assert_eq "settings" "$(settings)" "$was"
done
if cmp -s "$LAB_DIR/want.A" "$LAB_DIR/want.B"; then fail "the two are the same"; fi
start_nat "$(conf A)"
client_bg long long to=$PROXY_IP:8080 c=2 t=600 rate=20000000 stall=$((15000 * SLOW)) timeout=300
client_bg held trickle to=$PROXY_IP:8081 c=20 ms=50 stall=$((15000 * SLOW)) timeout=300
wait_records held 20
wait_records long 2

role_pid() { # broker|proxy
	local pid
	for pid in $(cat "/proc/$SLUICE_PID/task/$SLUICE_PID/children"); do
		if tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$1"; then echo "$pid"; fi
	done | tail -n 1
}
is_as_wanted() { named | cmp -s - "$LAB_DIR/want.$1"; }
nobody_left() { [ -z "$(ip netns pids "$LAB-p")" ]; }
# What came of the reload nobody asks; where the one who was to say it lives, another has to do.
kill_at_reload() { # WHO NEXT
	local pid reload
	case $1 in
	all) pid=$(ip netns pids "$LAB-p") ;;
	supervisor) pid=$SLUICE_PID ;;
	*) pid=$(role_pid "$1") ;;
	esac
	write_conf "$(conf "$2")"
	sl reload >"$LAB_DIR/reload.out" 2>&1 &
	reload=$!
	sleep "0.0$((RANDOM % 90 + 10))"
	# shellcheck disable=SC2086
	kill -KILL $pid
	wait $reload || true
}
next=A
for ((i = 1; i <= DEATHS; i++)); do
	if [ $next = A ]; then next=B; else next=A; fi
	who=$(shuf -n 1 -e broker proxy supervisor all --random-source=<(yes "$SEED $i"))
	say "$i: $who, on the way to $next"
	kill_at_reload "$who" $next
	case $who in
	all | supervisor)
		join_sluice
		wait_until 8000 nobody_left || fail "left: $(ip netns pids "$LAB-p")"
		start_nat "$(conf $next)"
		;;
	*)
		wait_until 10000 nat_is_on || fail "off: $(nat_text)"
		wait_until 10000 sl reload || fail "no reload"
		;;
	esac
	wait_until 5000 is_as_wanted $next || fail "the table: $(diff <(named) "$LAB_DIR/want.$next")"
	wait_reaches $PROXY_IP:8082 "$(if [ $next = A ]; then echo s1; else echo s2; fi)"
	assert_match "datagrams" "$(udp_ask $PROXY_IP:8084 wait=5000)" '^u '
	wait_records held 20 15000
	wait_records long 2 15000
	for name in held long; do
		kill -0 "${PEER_PIDS[$name]}" || fail "$name has ended: $(tail -n 1 "$LAB_DIR/$name.out")"
		assert_eq "access lines of $name" "$(n_access $name)" 0
	done
done

say "at the end"
for name in held long; do
	stop_peer $name
	assert_eq "$name: $RESULT" "$RC" 0
done
wait_until 15000 has_records held 0 || fail "records left: $(n_records held)"
wait_until 15000 has_records long 0 || fail "records left: $(n_records long)"
assert_eq "access lines" "$(n_access held) $(n_access long)" "20 2"
stop_sluice
assert_eq "exit code" "$RC" 0
no_table || fail "a table is left"
assert_eq "settings" "$(settings)" "$was"
nobody_left || fail "left: $(ip netns pids "$LAB-p")"
