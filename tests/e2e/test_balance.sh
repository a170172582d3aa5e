#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Which target a connection gets: every algorithm, with weights, backups and targets that leave.
. "$(dirname "$0")/../lib/netlab.sh"

T=$BACKEND_IP
for i in 1 2 3 4; do server "s$i" identify 800$i; done
server h1 echo 8011
server h2 echo 8012
server h3 echo 8013

targets() { # WEIGHT of 8001, of 8002 ...
	local port=8001 w text=
	for w in "$@"; do
		text+="{ address: \"$T:$port\", weight: $w }, "
		port=$((port + 1))
	done
	echo "[ ${text%, } ]"
}
held() { echo "[ { address: \"$T:8011\" }, { address: \"$T:8012\", weight: $1 }, { address: \"$T:8013\" } ]"; }
config() { # TARGETS of the routes by client
	echo "routes:
$(route rr 8080 "{ targets: $(targets 5 2 1 0) }")
$(route least 8081 "{ targets: $(held 2), balance: least_conn }")
$(route random 8082 "{ targets: $(held 1), balance: random }")
$(route hash 8083 "{ targets: $1, balance: source_hash }")
$(route maglev 8084 "{ targets: $1, balance: maglev }")
$(route backup 8085 "{ targets: [ { address: \"$T:1\" }, { address: \"$T:8003\", backup: true }, { address: \"$T:8004\", backup: true } ], retries: 2 }")"
}
start_sluice "$(config "$(targets 1 1 1 1)")"
baseline

# owners PORT FILE: "ADDRESS NAME" for 60 clients, each with an address of its own.
owners() {
	in_ns client bash -c 'for ((i = 1; i <= 60; i++)); do
		"$1" shot timeout=15 to="$2" src=10.91.130.$i | jq -r --arg i "$i" "\$i + \" \" + (.text | split(\" \")[0])"
		done' _ "$PEERS/peer_client" "$PROXY_IP:$1" >"$LAB_DIR/$2"
	assert_eq "clients served" "$(awk '$2 ~ /^s[1-4]$/' "$LAB_DIR/$2" | wc -l)" 60
}
moved() { # FILE FILE: the owners that lost clients, each once
	diff "$LAB_DIR/$1" "$LAB_DIR/$2" | awk '/^</ { print $3 }' | sort -u | xargs
}

say "round robin: exact weights in each cycle, spread over it, none for weight 0"
names_of 8080 32 >"$LAB_DIR/rr"
assert_eq "cycles of 8" "$(counts "$LAB_DIR/rr")" "s1=20 s2=8 s3=4"
for start in 1 9 17 25; do
	sed -n "$start,$((start + 7))p" "$LAB_DIR/rr" >"$LAB_DIR/cycle"
	assert_eq "cycle from $start" "$(counts "$LAB_DIR/cycle")" "s1=5 s2=2 s3=1"
done
assert_eq "no three in a row but at the heaviest" "$(uniq -c "$LAB_DIR/rr" | awk '$2 != "s1" && $1 > 1' | wc -l)" 0

active() { jqs "[.routes[] | select(.name == \"$1\").targets[].active] | join(\" \")"; }
has_active() { [ "$(jqs "[.routes[] | select(.name == \"$1\").targets[].active] | add")" = "$2" ]; }

say "least_conn: 40 connections that stay are shared by weight"
for i in {1..4}; do
	client_bg "least$i" hold to=$PROXY_IP:8081 n=10 ping=1 timeout=60
	wait_for has_active least $((i * 10))
done
assert_eq "by weight 1, 2, 1" "$(active least)" "10 20 10"
say "least_conn: what is closed is filled again"
kill -KILL "${PEER_PIDS[h1]}"
wait_for has_active least 30
server h1 echo 8011
for i in {5..14}; do
	client_bg "least$i" hold to=$PROXY_IP:8081 n=1 ping=1 timeout=60
	wait_for has_active least $((26 + i))
done
assert_eq "the emptied one got them all" "$(active least)" "10 20 10"

say "random: the less loaded of two keeps 60 connections even"
client_bg random hold to=$PROXY_IP:8082 n=60 ping=1 timeout=60
wait_for has_active random 60
for n in $(active random); do assert_between "connections of one" "$n" 15 25; done
for i in {1..14}; do stop_peer "least$i"; done
stop_peer random

for route in hash:8083 maglev:8084; do
	name=${route%:*} port=${route#*:}
	say "$name: a client has its target"
	owners "$port" "$name.1"
	owners "$port" "$name.2"
	assert_eq "moved between two rounds" "$(moved "$name.1" "$name.2")" ""
	assert_eq "targets in use" "$(cut -d' ' -f2 "$LAB_DIR/$name.1" | sort -u | xargs)" "s1 s2 s3 s4"
done

say "a target that cannot be reached: only its clients move, and come back"
stop_peer s2
for route in hash:8083 maglev:8084; do
	owners "${route#*:}" "${route%:*}.3"
	assert_eq "${route%:*}: lost clients" "$(moved "${route%:*}.1" "${route%:*}.3")" s2
	# together they inherit, not one of them
	assert_between "heirs" "$(diff "$LAB_DIR/${route%:*}.1" "$LAB_DIR/${route%:*}.3" |
		awk '/^>/ { print $3 }' | sort -u | wc -l)" 2 3
done
server s2 identify 8002
is_up_again() { [ "$(jqs '[.routes[].targets[] | select(.address == "'$T':8002" and .state != "up")] | length')" = 0 ]; }
wait_until 35000 is_up_again || fail "the target is left out for ever"
for route in hash:8083 maglev:8084; do
	owners "${route#*:}" "${route%:*}.4"
	assert_eq "${route%:*}: as before" "$(moved "${route%:*}.1" "${route%:*}.4")" ""
done

say "a target that leaves the configuration: the same, whatever its place"
reload "$(config "[ { address: \"$T:8004\" }, { address: \"$T:8003\" }, { address: \"$T:8002\" } ]")"
owners 8083 hash.5
assert_eq "hash: lost clients" "$(moved hash.1 hash.5)" s1
owners 8084 maglev.5
# a quarter are its own, and at most 2/N move in all
assert_between "maglev: clients that moved" "$(diff "$LAB_DIR/maglev.1" "$LAB_DIR/maglev.5" | grep -c '^<')" 5 30

say "backups serve in turn when nothing else does"
names_of 8085 8 >"$LAB_DIR/backup"
assert_eq "backups" "$(counts "$LAB_DIR/backup")" "s3=4 s4=4"

say "explain names the target and how it was chosen"
sl explain 8083 --client 10.91.130.1 --json >"$LAB_DIR/why"
assert_eq "why" "$(jq -r .target_why "$LAB_DIR/why")" "the hash of the client's address"
owner=$(sed -n 's/^1 s//p' "$LAB_DIR/hash.5")
assert_eq "its target" "$(jq -r .target "$LAB_DIR/why")" "$T:800$owner"

assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
