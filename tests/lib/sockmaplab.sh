# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# Sourced after netlab.sh: the sockmap engine and what the kernel holds of it.
#
#   ENGINE=relay     the same stories over the relay: proves the story, and tells a fault of the
#                    engine from one of the test
ENGINE=${ENGINE:-sockmap}
. "$lab_root/tests/lib/packetlab.sh"

SOCKMAP_PINS="flows slots orders targets sources events counters meta"

on_sockmap() { [ "$ENGINE" = sockmap ]; }
need_sockmap() { if ! on_sockmap; then skip "about the sockmap engine"; fi; }

# sockmap_global [KEY=VALUE...]: the section; by default all flows are handed over at once.
sockmap_global() {
	local pair
	local -A keys=([backlog]=1MiB [after_bytes]=0 [after_age]=0)
	if ! on_sockmap; then return; fi
	for pair in "$@"; do keys[${pair%%=*}]=${pair#*=}; done
	printf '  sockmap: {'
	for pair in "${!keys[@]}"; do printf ' %s: %s,' "$pair" "${keys[$pair]}"; done
	printf ' }\n'
}

sockmap_is_known() {
	local reason
	reason=$(sl engines --json | jq -r '.engines.sockmap.reason // ""') && [[ $reason != *"being started" ]]
}
sockmap_is_on() { [ "$(sl engines --json | jq -r .engines.sockmap.available)" = true ]; }

# start_sockmap "KEY=VALUE ..." TEXT [ARGUMENT...]: GLOBAL may hold further lines.
start_sockmap() {
	local keys=$1
	shift
	mount_bpf
	# shellcheck disable=SC2086
	SOCKMAP_GLOBAL=$(sockmap_global $keys)${GLOBAL:+$'\n'$GLOBAL}
	GLOBAL=$SOCKMAP_GLOBAL start_sluice "$@"
	if on_sockmap; then wait_until 8000 sockmap_is_on || fail "the engine is not on: $(sl engines --json | jq -c .engines.sockmap)"; fi
}
# reload_sockmap "KEY=VALUE ..." [TEXT]
reload_sockmap() {
	local keys=$1
	shift
	# shellcheck disable=SC2086
	GLOBAL=$(sockmap_global $keys) reload "$@"
}

# ---- who was handed over ----

# n_ended_on ENGINE [ROUTE_REGEX]: access lines of connections that have ended on it.
n_ended_on() { access_lines "${2:-[^ ]*}" | grep -cE " engine=$1/" || true; }
# n_moves [RESULT_REGEX]: hand-overs by the metric, of one result (default: the successful ones).
n_moves() {
	http_get /metrics | awk -v r="result=\"(${1:-done})\"" \
		'/^sluice_handover_total/ && /engine="sockmap"/ && $0 ~ r { n += $NF } END { print n + 0 }'
}
moves() { # all results: "done=5 half_closed=2"
	http_get /metrics | awk '/^sluice_handover_total/ && /engine="sockmap"/ && $NF > 0 {
		r = $0; sub(/.*result="/, "", r); sub(/".*/, "", r); printf "%s=%d ", r, $NF }'
}
drifts() { # all kinds: "kind=5 other=2"
	http_get /metrics | awk '/^sluice_drift_total/ && $NF > 0 {
		r = $0; sub(/.*kind="/, "", r); sub(/".*/, "", r); printf "%s=%d ", r, $NF }'
}
n_drift() { http_get /metrics | awk '/^sluice_drift_total/ { n += $NF } END { print n + 0 }'; }

# ---- what the kernel holds ----

sockmaps() { /usr/bin/python3 tests/lib/sockmaps.py "$(bpf_of)" "$@"; }
slots_of() { sockmaps slots | jq -c --argjson id "$1" '[.[] | select(.conn_id == $id)]'; } # CONN_ID
n_sockmap_sockets() { jqs .kernel.sockmap_sockets; }
# spills: of the slots in use; of the programs' counters for those that are over, too
n_spills() { sockmap_counter spilled_limit; }
sockmap_counter() { dump sockmap_counters | jq "[.. | objects | .$1? // empty | numbers] | add // 0"; }

# The program at sockmap_sources, by its pin; else 1.
is_attached() {
	bpftool -j prog show 2>/dev/null | jq -e --argjson id "$(bpftool -j map show pinned "$(bpf_of)/sockmap_sources" | jq .id)" \
		'any(.[]; .type == "sk_skb" and ((.map_ids // []) | index($id) | not | not))' >/dev/null
}

# ---- nothing remains ----

NOTHING='{"flows":0,"targets":0,"sources":0,"slots":0,"wishes":0}'
sockmap_baseline() {
	baseline
	if on_sockmap; then
		BASE_PINS=$(pinned)
		assert_eq "the maps before" "$(sockmaps counts | jq -c .)" "$NOTHING"
	fi
}
at_sockmap_baseline() {
	at_baseline || return 1
	if ! on_sockmap; then return 0; fi
	seen_maps=$(sockmaps counts | jq -c '.wishes = 0')
	seen_sockmap=$(jqs '"\(.kernel.sockmap_sockets) \(.engines.sockmap.active)"')
	[ "$seen_maps" = "$NOTHING" ] && [ "$seen_sockmap" = "0 0" ]
}
# Everything within half a second of the last connection's end. A look, which takes 70 ms of work, says how much
# longer that is on a busy machine.
assert_sockmap_baseline() {
	local start end=0 now
	start=$(now_ms)
	until at_sockmap_baseline; do
		now=$(now_ms)
		if [ $end = 0 ]; then end=$((start + ((now - start) * 8 > 500 * SLOW ? (now - start) * 8 : 500 * SLOW))); fi
		if [ "$now" -ge "$end" ]; then
			in_ns proxy ss -tanp | grep -v TIME-WAIT | head -n 20 >&2 || true
			if on_sockmap; then sockmaps slots | jq -c '.[:6][]' >&2; fi
			sl conns 2>/dev/null | head -n 5 >&2
			fail "${1:-baseline}: active $seen_active, fds $seen_fds ($BASE_FDS), sockets $seen_sockets ($BASE_SOCKETS)," \
				"maps ${seen_maps:-} sockets in status, active: ${seen_sockmap:-}"
		fi
		sleep 0.02
	done
	echo "${1:-baseline}: back after $(($(now_ms) - start)) ms"
	assert_between "pipes kept" "$(n_pipes "$BASE_PID")" 0 $((2 * POOLED_PIPES * $(nproc)))
	if on_sockmap; then assert_eq "pins" "$(pinned)" "$BASE_PINS"; fi
}
# The same by bpftool, which takes its time for 65536 slots.
assert_maps_empty() {
	local map
	if ! on_sockmap; then return 0; fi
	for map in flows targets sources; do
		assert_eq "entries of sockmap_$map" "$(dump "sockmap_$map" | jq length)" 0
	done
	assert_eq "slots in use" "$(dump sockmap_slots | jq '[.[] | (.formatted.value // .value) |
		select(.conn_id != 0 or .state != "SL_SOCKMAP_FREE")] | length')" 0
}

# ---- small buffers ----

# buffers NS RMEM WMEM: the three numbers of each
buffers() { in_ns "$1" sysctl -qw net.ipv4.tcp_rmem="$2" net.ipv4.tcp_wmem="$3"; }
