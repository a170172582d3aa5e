# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154,SC2120
# Sourced after netlab.sh: differences between kernel and records, as metrics and `sluice diff` tell them.

PERIOD=2000 # ms, of the reconciler
kind_count() { http_get /metrics | awk -v k="kind=\"$1\"" '/^sluice_drift_total/ && index($0, k) { print $NF }'; }
counted() { [ "$(kind_count "$1")" -ge "$2" ]; } # KIND N
drift_sum() { http_get /metrics | awk '/^sluice_drift_total/ { n += $NF } END { print n + 0 }'; }
# looks [RC]: DIFF is what `sluice diff` prints.
looks() {
	local rc=0
	DIFF=$(sl diff) || rc=$?
	assert_eq "exit code of: $DIFF" "$rc" "${1:-0}"
}
# hunk TEXT...: these lines follow on each other; in the last one, % stands for when.
hunk() {
	local want
	printf -v want '%s\n' "$@"
	/usr/bin/python3 - "$want" "$DIFF" <<-'PY' || fail "no such hunk in the diff: $want"$'\n'"in: $DIFF"
		import re, sys
		want = "\n".join(r"\([^()]*ago\)".join(map(re.escape, line.split("%"))) for line in sys.argv[1].splitlines())
		sys.exit(re.search("^" + want + "$", sys.argv[2], re.M) is None)
	PY
}

# drill KIND N: so many more within a period, of that kind alone; DIFF is printed then.
SUM=0
drill() {
	local was
	was=$(kind_count "$1")
	SUM=$((SUM + $2))
	wait_until $PERIOD eval "[ \$(drift_sum) -ge $SUM ]" ||
		fail "$1: not found within $PERIOD ms: $(http_get /metrics | grep -E '^sluice_drift.*[1-9]$')"
	looks
	assert_eq "$1: all that was counted" "$(drift_sum)" $SUM
	assert_between "$1: counted" "$(kind_count "$1")" 1 $SUM
	echo "$DIFF"
}
