#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Bad configurations: each is refused with its place, by `sluiced -t`, `sluice check` and a start.
. "$(dirname "$0")/../lib/netlab.sh"

mkdir "$LAB_DIR/bad"
file=$LAB_DIR/bad/sluice.yaml
good="version: 1
routes:
  - name: web
    match: { ports: 8080 }
    forward: \"10.0.0.1:80\"
"
run() { # COMMAND...: output in $LAB_DIR/out, exit code in CODE
	CODE=0
	timeout 10 "$@" >"$LAB_DIR/out" 2>&1 || CODE=$?
}

# bad LINE:COLUMN PATTERN TEXT
bad() {
	printf '%s' "$3" >"$file"
	run "$SLUICED" -t -c "$file"
	assert_eq "exit code of -t for: $2" "$CODE" 78
	grep -qE "sluice.yaml:$1: error: .*$2" "$LAB_DIR/out" ||
		fail "want '$1: error: ...$2', got: $(cat "$LAB_DIR/out")"
	grep -qE '^ *\| *\^' "$LAB_DIR/out" || fail "no caret: $(cat "$LAB_DIR/out")"
	run "$O/sluice" check -c "$file"
	assert_eq "exit code of check for: $2" "$CODE" 78
	grep -qE "sluice.yaml:$1: error: .*$2" "$LAB_DIR/out" || fail "check differs: $(cat "$LAB_DIR/out")"
}

printf '%s' "$good" >"$file"
run "$SLUICED" -t -c "$file"
assert_eq "a good file: $(cat "$LAB_DIR/out")" "$CODE" 0
run "$O/sluice" check -c "$file"
assert_eq "a good file, check" "$CODE" 0

say "one error each"
bad '3:[0-9]+' '.' "version: 1
routes:
  - { name: web, match: { ports: 8080 ]
"
bad '2:1' 'rotues.*' "version: 1
rotues: []
"
bad '4:23' '70000' "version: 1
routes:
  - name: web
    match: { ports: [ 70000 ] }
    forward: \"10.0.0.1:80\"
"
bad '5:[0-9]+' 'forward|address|target' "version: 1
routes:
  - name: web
    match: { ports: 8080 }
    forward: \"10.0.0.1\"
"
bad '6:[0-9]+' 'timeouts|duration' "version: 1
routes:
  - name: web
    match: { ports: 8080 }
    forward: \"10.0.0.1:80\"
    timeouts: { connect: fast }
"
bad '6:[0-9]+' 'web' "version: 1
routes:
  - name: web
    match: { ports: 8080 }
    forward: \"10.0.0.1:80\"
  - name: web
    match: { ports: 8081 }
    forward: \"10.0.0.1:80\"
"
bad '4:[0-9]+' 'name' "version: 1
routes:
  - name: web
    name: wob
    match: { ports: 8080 }
    forward: \"10.0.0.1:80\"
"
bad '3:[0-9]+' 'anchor' "version: 1
routes:
  - &a
    name: web
    match: { ports: 8080 }
    forward: \"10.0.0.1:80\"
"
bad '6:[0-9]+' 'not supported by this build' "version: 1
routes:
  - name: web
    match: { ports: 8080 }
    forward: \"10.0.0.1:80\"
    tls: acme
"
bad '3:[0-9]+' 'log|level' "version: 1
global:
  log: { level: loud }
routes:
  - { name: web, match: { ports: 8080 }, forward: \"10.0.0.1:80\" }
"
bad '1:[0-9]+' 'version' "version: 2
routes:
  - { name: web, match: { ports: 8080 }, forward: \"10.0.0.1:80\" }
"

say "all errors in one pass, sorted, with a suggestion"
printf 'version: 1\nroutes:\n  - name: a\n    match: { prots: 80 }\n    forward: "10.0.0.1:80"\n  - name: b\n    match: { ports: 99999 }\n    forward: 7\n' >"$file"
run "$SLUICED" -t -c "$file"
assert_eq "exit code" "$CODE" 78
assert_between "errors" "$(grep -c ': error: ' "$LAB_DIR/out")" 3 10
assert_eq "sorted" "$(grep -o 'yaml:[0-9]*' "$LAB_DIR/out")" "$(grep -o 'yaml:[0-9]*' "$LAB_DIR/out" | sort -t: -k2n)"
grep -qi 'did you mean.*ports' "$LAB_DIR/out" || fail "no suggestion: $(cat "$LAB_DIR/out")"

say "files that cannot be read"
run "$SLUICED" -t -c "$LAB_DIR/bad/nosuch.yaml"
assert_eq "missing file" "$CODE" 78
grep -q 'nosuch.yaml' "$LAB_DIR/out" || fail "no name in: $(cat "$LAB_DIR/out")"
run "$SLUICED" -t -c "$LAB_DIR/bad"
assert_eq "a directory" "$CODE" 78
printf 'version: 1\n\0\nroutes: []\n' >"$file"
run "$SLUICED" -t -c "$file"
assert_eq "NUL bytes" "$CODE" 78
head -c 100000 /dev/urandom >"$file"
run "$SLUICED" -t -c "$file"
assert_eq "noise" "$CODE" 78
: >"$file"
run "$SLUICED" -t -c "$file"
assert_eq "empty" "$CODE" 78

say "conf.d is merged, and its errors have its name"
printf '%s' "$good" >"$file"
mkdir "$LAB_DIR/bad/conf.d"
printf 'routes:\n  - { name: second, match: { ports: x }, forward: "10.0.0.1:81" }\n' >"$LAB_DIR/bad/conf.d/10.yaml"
run "$SLUICED" -t -c "$file"
assert_eq "exit code" "$CODE" 78
grep -qE '10.yaml:2:[0-9]+: error: ' "$LAB_DIR/out" || fail "got: $(cat "$LAB_DIR/out")"
rm -r "$LAB_DIR/bad/conf.d"

say "10 000 routes are checked in less than 1 s"
/usr/bin/python3 - "$file" <<'PY'
import sys
with open(sys.argv[1], "w") as f:
    f.write("version: 1\nroutes:\n")
    for i in range(10000):
        f.write(f'  - {{ name: r{i}, match: {{ ports: "10.{i // 250}.{i % 250}.1:8080" }}, forward: "10.0.0.1:80" }}\n')
PY
began=$(now_ms)
run "$SLUICED" -t -c "$file"
took=$(($(now_ms) - began))
assert_eq "exit code: $(head -c 300 "$LAB_DIR/out")" "$CODE" 0
assert_between "ms" $took 0 $((1000 * SLOW))

say "the daemon does not start on a bad file"
printf 'version: 1\nroutes: 7\n' >"$file"
run ip netns exec "$LAB-p" "$SLUICED" -c "$file"
assert_eq "exit code" "$CODE" 78
say "or on an address it does not have"
printf 'version: 1\nglobal: { runtime_dir: %s, state_dir: %s, bpf_dir: %s, http: none }\n%s' "$LAB_DIR" "$LAB_DIR" "$LAB_DIR" "${good#version: 1
}" | sed 's/ports: 8080/ports: "10.1.2.3:8080"/' >"$file"
run ip netns exec "$LAB-p" "$SLUICED" -c "$file"
if [ "$CODE" = 0 ] || [ "$CODE" = 124 ]; then fail "started: $(cat "$LAB_DIR/out")"; fi
grep -q '10.1.2.3' "$LAB_DIR/out" || fail "no address in: $(cat "$LAB_DIR/out")"
