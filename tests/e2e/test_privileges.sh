#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What parses the network has no capability, cannot gain any, and is confined to its system calls.
. "$(dirname "$0")/../lib/netlab.sh"
need_split

server e echo 8000
start_sluice "routes:
$(route main 80 "\"$BACKEND_IP:8000\"")
$(route range '"20000-21999"' "\"$BACKEND_IP:8000\"")"
field() { awk -v f="$2:" '$1 == f { print $2 }' "/proc/$1/status"; }
pid=$(proxy_pid)
for cap in CapInh CapPrm CapEff CapBnd CapAmb; do
	assert_eq "$cap of the proxy" "$(field "$pid" $cap)" 0000000000000000
done
assert_eq "NoNewPrivs" "$(field "$pid" NoNewPrivs)" 1
if has_log 'built with a sanitizer'; then
	echo "sanitized: no system call filter"
else
	assert_eq "Seccomp" "$(field "$pid" Seccomp)" 2
	for task in /proc/"$pid"/task/*; do
		assert_eq "Seccomp of thread ${task##*/}" "$(awk '$1 == "Seccomp:" { print $2 }' "$task/status")" 2
	done
fi
shot to=$PROXY_IP:80 send=x fin=1
assert_eq "a port below 1024" "$(of end) $(of text)" "eof x"
say "and after a restart of the proxy"
kill -KILL "$pid"
new_proxy() { new=$(proxy_pid) && [ -n "$new" ] && [ "$new" != "$pid" ] && is_running; }
wait_for new_proxy
assert_eq "CapEff" "$(field "$new" CapEff)" 0000000000000000
assert_eq "NoNewPrivs" "$(field "$new" NoNewPrivs)" 1
