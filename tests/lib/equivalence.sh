# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# Sourced after netlab.sh: the traffic script of equivalence.py under one daemon.
need jq
EQUIVALENCE=tests/lib/equivalence.py

# equivalence ROW...: the row `relay` beside them is what they are compared with.
equivalence() {
	local dir=$LAB_DIR/$INST row ns rc=0 global routes
	set -- relay "$@"
	# small buffers: whoever sends to one that does not read has to wait soon
	for ns in client proxy backend; do
		in_ns $ns sysctl -qw net.ipv4.tcp_rmem="4096 131072 1048576" net.ipv4.tcp_wmem="4096 65536 1048576"
	done
	mkdir -p "$dir/bpf"
	mountpoint -q "$dir/bpf" || mount -t bpf bpf "$dir/bpf"
	global=$(/usr/bin/python3 $EQUIVALENCE global "$@") || fail "no settings"
	routes=$(/usr/bin/python3 $EQUIVALENCE routes "$@") || fail "no routes"
	GLOBAL="  log: { level: info, access: $dir/access.log, format: json }
$global" start_sluice "$routes"
	for row; do engine_is_there "${row%%_*}"; done
	ln -sf "$dir/run/control.sock" "$dir/control.sock"
	/usr/bin/python3 $EQUIVALENCE run "$dir" "$LAB-c" "$LAB-b" "$SLUICE_PID" "$@" || rc=$?
	join_sluice 20000
	assert_eq "exit code of the daemon" "$RC" 0
	assert_eq "the script" "$rc" 0
}

# Where the kernel is without sockmap the story is skipped; the others have their own tests for that.
engine_is_there() {
	local says
	if [ "$1" = relay ]; then return; fi
	if wait_until 8000 eval "[ \"\$(sl engines --json | jq .engines.$1.available)\" = true ]"; then return; fi
	says=$(sl engines --json | jq -c ".engines.$1")
	if [ "$1" = sockmap ]; then skip "engine $1: $says"; fi
	fail "engine $1: $says"
}
