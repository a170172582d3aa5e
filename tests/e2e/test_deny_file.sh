#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# global.security.deny_file: a million addresses, bad lines, reloading it alone, memory after many.
. "$(dirname "$0")/../lib/netlab.sh"

LIST=$LAB_DIR/denied.txt
server e echo 8000
text="routes:
$(route open 8080 "\"$BACKEND_IP:8000\"")"
conf() { GLOBAL="  security: { deny_file: $LIST, enforce: ${1:-userspace} }" write_conf "$text"; }

served() { # SOURCE
	shot to="$PROXY_IP:8080" src="$1" send=x stop=1
	assert_eq "$1" "$(of end)" stopped
}
refused() { # SOURCE
	local n
	n=$(n_access open)
	shot to="$PROXY_IP:8080" src="$1" send=x stop=1
	assert_eq "$1" "$(of end)" reset
	assert_ended open $((n + 1)) route_ip_blocked -
}
# million SEED: different addresses of 11.0.0.0/8 and up, none of which is the client's.
million() {
	/usr/bin/python3 - "$1" "$LIST" <<-'PY'
		import random, sys
		random.seed(int(sys.argv[1]))
		with open(sys.argv[2] + ".new", "w") as f:
		    for x in random.sample(range(11 << 24, 224 << 24), 1000000):
		        f.write("%d.%d.%d.%d\n" % (x >> 24, x >> 16 & 255, x >> 8 & 255, x & 255))
	PY
	mv "$LIST.new" "$LIST"
}
reload_list() { sl reload --deny-file >"$LAB_DIR/reload.out" 2>&1; }
said() { cat "$LAB_DIR/reload.out"; }
seconds() { sed -n 's/.* \([0-9.]*\) s.*/\1/p' "$LAB_DIR/reload.out"; }

say "a file that is missing or bad is an error of the start"
conf
RC=0
ip netns exec "$LAB-p" "$SLUICED" -c "$LAB_DIR/$INST/sluice.yaml" 2>"$LAB_DIR/err" || RC=$?
assert_eq "exit code" $RC 78
assert_match "why" "$(cat "$LAB_DIR/err")" "$LIST: error: .*No such file"
printf '10.91.128.1\n\n10.0.0.256 # too much\nfoo\n' >"$LIST"
RC=0
ip netns exec "$LAB-p" "$SLUICED" -c "$LAB_DIR/$INST/sluice.yaml" 2>"$LAB_DIR/err" || RC=$?
assert_eq "exit code" $RC 78
assert_match "first" "$(cat "$LAB_DIR/err")" "$LIST:3: error: '10.0.0.256': "
assert_match "second" "$(cat "$LAB_DIR/err")" "$LIST:4: error: 'foo': "

say "and one that checking the configuration finds"
for check in "$SLUICED -t -c" "$O/sluice check"; do
	RC=0
	$check "$LAB_DIR/$INST/sluice.yaml" >"$LAB_DIR/out" 2>"$LAB_DIR/err" || RC=$?
	assert_eq "exit code of $check" $RC 78
	assert_match "$check" "$(cat "$LAB_DIR/err")" "$LIST:3: error: '10.0.0.256': "
	assert_eq "praise" "$(cat "$LAB_DIR/out")" ""
done

say "in force when it is ready"
cat >"$LIST" <<'LIST'
# comments, blank lines, and every form
10.91.128.66

  10.91.129.0/30	# four
10.91.130.10-10.91.130.12
10.91.131.?
2001:db8::/32
fd91::66
LIST
GLOBAL="  security: { deny_file: $LIST, enforce: userspace }" start_sluice "$text"
for ip in 10.91.128.66 10.91.129.3 10.91.130.11 10.91.131.7; do refused $ip; done
for ip in 10.91.128.65 10.91.129.4 10.91.130.13 10.91.131.17; do served $ip; done
served $CLIENT_IP

say "that file alone"
pid=$(proxy_pid)
generation=$(jqs .generation)
echo 10.91.128.70 >"$LIST"
reload_list || fail "$(said)"
assert_match "the answer" "$(said)" 'deny_file: 1 patterns in force \(1 ranges\), [0-9.]+ s'
refused 10.91.128.70
served 10.91.128.66
assert_eq "the same proxy" "$(proxy_pid)" "$pid"
assert_eq "the same generation" "$(jqs .generation)" "$generation"
assert_eq "through the interface for programs" \
	"$(curl -sS -o /dev/null -w '%{http_code}' -X POST --unix-socket "$LAB_DIR/$INST/run/control.sock" \
		'http://x/v1/reload?what=deny_file')" 200

say "bad lines: all are named, nothing changes"
{ echo 10.91.128.71; for i in $(seq 2 31); do echo "bad line $i"; done; } >"$LIST"
if reload_list; then fail "a bad list was taken"; fi
assert_match "first" "$(said)" "denied.txt:2: error: 'bad line 2'"
assert_match "20th" "$(said)" "denied.txt:21: error: "
if [[ $(said) == *denied.txt:22:* ]]; then fail "more than 20 lines are shown"; fi
assert_match "rest" "$(said)" "10 more bad lines"
refused 10.91.128.70
served 10.91.128.71
# With the whole configuration, too; nothing of it is taken then.
GLOBAL="  security: { deny_file: $LIST, deny: [10.91.128.99], enforce: userspace }" write_conf "$text"
if sl reload >"$LAB_DIR/reload.out" 2>&1; then fail "a bad list was taken with the rest"; fi
assert_match "why" "$(said)" "denied.txt:2: error: "
refused 10.91.128.70
served 10.91.128.99
rm "$LIST"
if reload_list; then fail "a missing list was taken"; fi
assert_match "why" "$(said)" "No such file"
mkdir "$LIST"
if reload_list; then fail "a directory was taken"; fi
rmdir "$LIST"
truncate -s 64M "$LIST"
echo >>"$LIST"
if reload_list; then fail "more than 64 MiB was taken"; fi
assert_match "why" "$(said)" "64 MiB"
refused 10.91.128.70

say "without a file"
write_conf "$text"
reload
served 10.91.128.70
if reload_list; then fail "there is no list to reload"; fi
assert_match "why" "$(said)" "no global.security.deny_file"
echo 10.91.128.70 >"$LIST"
conf
reload
refused 10.91.128.70

say "a proxy that dies"
if [ -z "${SLUICE_SINGLE:-}" ]; then
	kill -KILL "$(proxy_pid)"
	is_another() { [ -n "$(proxy_pid)" ] && [ "$(proxy_pid)" != "$pid" ] && is_running; }
	wait_for is_another
	refused 10.91.128.70
	served 10.91.128.71
fi

if [ -z "${SLUICE_SINGLE:-}" ]; then
	say "an upgrade"
	sl upgrade >/dev/null
	wait_log 'the supervisor is version'
	refused 10.91.128.70
	served 10.91.128.71
	echo 10.91.128.72 >"$LIST"
	reload_list || fail "$(said)"
	refused 10.91.128.72
	served 10.91.128.70
fi

say "a million"
million 1
echo 10.91.128.66 >>"$LIST"
reload_list || fail "$(said)"
said
assert_match "the answer" "$(said)" 'deny_file: 1000001 patterns in force'
most_s=$(awk -v s="$(stretch)" -v slow="$SLOW" 'BEGIN { print 2 * slow * s }')
assert_between "seconds" "$(seconds)" 0.001 "$most_s"
refused 10.91.128.66
served 10.91.128.67
conf kernel
began=$(now_ms)
reload
echo "with the whole configuration, and into the kernel where it can: $(($(now_ms) - began)) ms"
assert_between "milliseconds" $(($(now_ms) - began)) 1 "$(awk -v s="$most_s" 'BEGIN { print 1000 * s }')"
if has_log 'denied sources: tcx on'; then
	reload_list || fail "$(said)"
	echo "into proxy and kernel: $(said)"
	assert_between "seconds" "$(seconds)" 0.001 "$most_s"
fi

say "memory after 20 more is that after 5"
for i in $(seq 5); do reload_list || fail "$(said)"; done
proxy=$(rss_kib "$(proxy_pid)")
supervisor=$(rss_kib "${SLUICE_PIDS[$INST]}")
million 2
for i in $(seq 20); do reload_list || fail "$(said)"; done
echo "proxy: $proxy KiB, then $(rss_kib "$(proxy_pid)")"
echo "supervisor: $supervisor KiB, then $(rss_kib "${SLUICE_PIDS[$INST]}")"
# Half of what one list of a million takes.
if [ "$SLOW" = 1 ]; then
	assert_between "proxy" "$(rss_kib "$(proxy_pid)")" 1 $((proxy + 4000))
	assert_between "supervisor" "$(rss_kib "${SLUICE_PIDS[$INST]}")" 1 $((supervisor + 4000))
fi
served 10.91.128.66
stop_sluice
assert_eq "exit code" $RC 0
