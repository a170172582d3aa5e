#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Which target the kernel gives a flow: every way of choosing, weights, backups, targets that are drained
# or change.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"

nat_up
T=$BACKEND_IP
for i in 1 2 3 4; do server "s$i" identify 800$i; done

targets() { # WEIGHT of 8001, of 8002 ...
	local port=8001 w text=
	for w in "$@"; do
		text+="{ address: \"$T:$port\", weight: $w }, "
		port=$((port + 1))
	done
	echo "[ ${text%, } ]"
}
config() { # TARGETS of the routes by client
	echo "routes:
$(nroute rr 8080 "{ targets: $(targets 5 2 1 0) }")
$(nroute random 8082 "{ targets: $(targets 3 1), balance: random }")
$(nroute hash 8083 "{ targets: $1, balance: source_hash }")
$(nroute maglev 8084 "{ targets: $1, balance: maglev }")
$(nroute backup 8085 "{ targets: [ { address: \"$T:8001\" }, { address: \"$T:8003\", backup: true } ] }")
$(nroute drained 8086 "{ targets: $(targets 1 1) }")
$(nroute six 8087 "[ \"[$BACKEND6]:8001\", \"[$BACKEND6]:8002\" ]")"
}
start_nat "$(config "$(targets 1 1 1 1)")"
nat_baseline

# owners PORT FILE: "ADDRESS NAME" for 60 clients, each with an address of its own.
owners() {
	in_ns client bash -c 'for ((i = 1; i <= 60; i++)); do
		"$1" shot timeout=15 to="$2" src=10.91.130.$i; done' _ "$PEERS/peer_client" "$PROXY_IP:$1" |
		jq -r '.text | split(" ")[0]' | awk '{ print NR, $1 }' >"$LAB_DIR/$2"
	assert_eq "clients served" "$(awk '$2 ~ /^s[1-4]$/' "$LAB_DIR/$2" | wc -l)" 60
}
lost() { # FILE FILE: the owners that lost clients, each once
	diff "$LAB_DIR/$1" "$LAB_DIR/$2" | awk '/^</ { print $3 }' | sort -u | xargs
}

say "round robin: exact weights in each cycle, none for weight 0"
names_of 8080 32 >"$LAB_DIR/rr"
assert_eq "cycles of 8" "$(counts "$LAB_DIR/rr")" "s1=20 s2=8 s3=4"
for start in 1 9 17 25; do
	sed -n "$start,$((start + 7))p" "$LAB_DIR/rr" >"$LAB_DIR/cycle"
	assert_eq "cycle from $start" "$(counts "$LAB_DIR/cycle")" "s1=5 s2=2 s3=1"
done

say "another route's connections do not disturb it"
for i in 1 2 3 4 5 6 7 8; do
	names_of 8080 1
	shot to=$PROXY_IP:8086
done >"$LAB_DIR/rr2"
assert_eq "a cycle" "$(counts "$LAB_DIR/rr2")" "s1=5 s2=2 s3=1"

say "random: by weight, within what chance allows"
names_of 8082 200 >"$LAB_DIR/random"
# 3 of 4 with a standard deviation of 6.1: six of these
assert_between "of 200, the heavier one" "$(grep -c s1 "$LAB_DIR/random")" 113 187
assert_eq "nobody else" "$(grep -vc 's[12]' "$LAB_DIR/random" || true)" 0
assert_between "it changes within 20" "$(head -n 20 "$LAB_DIR/random" | uniq | wc -l)" 2 20

for how in hash:8083 maglev:8084; do
	say "$how: a client stays with its target"
	owners "${how#*:}" "${how%:*}.1"
	owners "${how#*:}" "${how%:*}.2"
	assert_eq "the same again" "$(lost "${how%:*}.1" "${how%:*}.2")" ""
	assert_eq "all four have some" "$(awk '{ print $2 }' "$LAB_DIR/${how%:*}.1" | sort -u | xargs)" "s1 s2 s3 s4"
done

say "a target goes: only its clients move, and come back with it"
reload "$(config "$(targets 1 1 1 0)")"
for how in hash:8083 maglev:8084; do
	owners "${how#*:}" "${how%:*}.3"
	assert_eq "${how%:*}: who lost clients" "$(lost "${how%:*}.1" "${how%:*}.3")" s4
done
reload "$(config "$(targets 1 1 1 1)")"
for how in hash:8083 maglev:8084; do
	owners "${how#*:}" "${how%:*}.4"
	assert_eq "${how%:*}: as before" "$(lost "${how%:*}.1" "${how%:*}.4")" ""
done

say "one is removed from the file, not the last: by source_hash nobody else moves, by maglev few"
reload "$(config "[ \"$T:8001\", \"$T:8002\", \"$T:8004\" ]")"
owners 8083 hash.5
assert_eq "source_hash: who lost clients" "$(lost hash.1 hash.5)" s3
owners 8084 maglev.5
assert_between "maglev: moved, of 60" "$(diff "$LAB_DIR/maglev.1" "$LAB_DIR/maglev.5" | grep -c '^<')" 1 30
assert_eq "maglev: the removed one has none" "$(grep -c s3 "$LAB_DIR/maglev.5" || true)" 0

say "in another order they are the same targets"
reload "$(config "[ \"$T:8004\", \"$T:8002\", \"$T:8003\", \"$T:8001\" ]")"
owners 8083 hash.6
assert_eq "source_hash" "$(lost hash.1 hash.6)" ""

say "a drained one is as one that is gone"
sl drain hash "$T:8002" >/dev/null || fail drain
owners 8083 hash.7
assert_eq "who lost clients" "$(lost hash.1 hash.7)" s2
sl undrain hash "$T:8002" >/dev/null || fail undrain

say "IPv6"
SHOT=$(for i in 1 2 3 4; do client shot timeout=15 "to=[$PROXY6]:8087" | jq -r '.text | split(" ")[0]'; done | sort | uniq -c | xargs)
assert_eq "in turn" "$SHOT" "2 s1 2 s2"

say "a backup is for when nobody else is left"
names_of 8085 6 >"$LAB_DIR/backup"
assert_eq "not asked" "$(counts "$LAB_DIR/backup")" "s1=6"

say "sluice drain takes its slots, undrain gives them back"
sl drain drained "$T:8001" >/dev/null || fail drain
names_of 8086 6 >"$LAB_DIR/drained"
assert_eq "drained" "$(counts "$LAB_DIR/drained")" "s2=6"
sl drain backup "$T:8001" >/dev/null || fail drain
wait_reaches $PROXY_IP:8085 s3
sl undrain drained "$T:8001" >/dev/null || fail undrain
sl undrain backup "$T:8001" >/dev/null || fail undrain
names_of 8086 6 >"$LAB_DIR/drained"
assert_eq "undrained" "$(counts "$LAB_DIR/drained")" "s1=3 s2=3"
wait_reaches $PROXY_IP:8085 s1
assert_nat_baseline
assert_eq "every connection of rr has an access line" "$(n_access rr)" 40
