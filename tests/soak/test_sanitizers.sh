#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Every end-to-end story under ASan+UBSan and under TSan, and the ones about the data path again
# with all roles in one process. Times are stretched, counts are smaller. A report fails the story.
#   SANITIZERS="asan tsan"   which
set -eu
cd "$(dirname "$0")/../.."
failed=()

run() { # BUILD STORY SINGLE
	local log=$1/soak-$2${3:+-single}.log rc=0
	O=$1 SLUICE_SLOW=4 SLUICE_SINGLE=$3 N=400 MAX=1000000 timeout 300 \
		"tests/e2e/test_$2.sh" >"$log" 2>&1 </dev/null || rc=$?
	if [ $rc = 0 ] || [ $rc = 77 ]; then return; fi
	failed+=("$log")
	echo "FAILED ($rc): $log"
	tail -n 40 "$log" | sed 's/^/    | /'
}

for kind in ${SANITIZERS:-asan tsan}; do
	case $kind in
	asan) san=address,undefined ;;
	tsan) san=thread ;;
	*) exit 2 ;;
	esac
	make -s O="build/$kind" SAN=$san all testtools
	for story in tests/e2e/test_*.sh; do
		story=${story##*/test_}
		run "build/$kind" "${story%.sh}" ""
	done
	for story in integrity churn connect_refused silent_backend reload_storm sigterm_drain chain half_close; do
		run "build/$kind" "$story" 1
	done
done
if [ ${#failed[@]} != 0 ]; then
	echo "failed: ${failed[*]}"
	exit 1
fi
