# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# Sourced after netlab.sh: the traffic script of equivalence.py under one daemon.
need jq
EQUIVALENCE=tests/lib/equivalence.py

# equivalence ROW...: the row `relay` beside them is what they are compared with.
equivalence() {
	local dir=$LAB_DIR/$INST row rc=0
	set -- relay "$@"
	mkdir -p "$dir/bpf"
	mountpoint -q "$dir/bpf" || mount -t bpf bpf "$dir/bpf"
	GLOBAL="  log: { level: info, access: $dir/access.log, format: json }
$(/usr/bin/python3 $EQUIVALENCE global "$@")" start_sluice "$(/usr/bin/python3 $EQUIVALENCE routes "$@")"
	baseline
	for row; do engine_is_there "${row%%_*}"; done
	ln -sf "$dir/run/control.sock" "$dir/control.sock"
	/usr/bin/python3 $EQUIVALENCE run "$dir" "$LAB-c" "$LAB-b" "$SLUICE_PID" "$@" || rc=$?
	join_sluice 20000
	assert_eq "exit code of the daemon" "$RC" 0
	assert_eq "the script" "$rc" 0
}

engine_is_there() {
	if [ "$1" = relay ]; then return; fi
	wait_until 8000 eval "[ \"\$(sl engines --json | jq .engines.$1.available)\" = true ]" ||
		fail "engine $1: $(sl engines --json | jq -c ".engines.$1")"
}

# need_engine NAME: skips where this build or kernel has it not.
need_engine() {
	local there
	instance probe
	mkdir -p "$LAB_DIR/probe/bpf"
	mountpoint -q "$LAB_DIR/probe/bpf" || mount -t bpf bpf "$LAB_DIR/probe/bpf"
	start_sluice "routes:
$(route probe 9999 "\"$BACKEND_IP:1\"")"
	there=$(sl engines --json | jq -c ".engines.$1")
	stop_sluice
	instance main
	if [ "$(jq -r '.available // false' <<<"$there")" != true ]; then skip "engine $1: $there"; fi
}
