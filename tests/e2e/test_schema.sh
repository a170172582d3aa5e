#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The JSON Schema is one, and it agrees with the reader on good and bad files.
. "$(dirname "$0")/../lib/netlab.sh"

if ! /usr/bin/python3 -c 'import jsonschema, yaml' 2>/dev/null; then
	echo "SKIP: python3-jsonschema or python3-yaml is not installed"
	exit 77
fi
"$O/sluice" schema >"$LAB_DIR/schema.json" || fail "no schema"

good() { # FILE: both accept it
	"$O/sluice" check -c "$1" >"$LAB_DIR/out" 2>&1 || fail "check refuses $1: $(cat "$LAB_DIR/out")"
	validate "$1" || fail "the schema refuses $1: $(cat "$LAB_DIR/out")"
}
bad() { # TEXT: both refuse it
	printf 'version: 1\n%s\n' "$1" >"$LAB_DIR/bad.yaml"
	if "$O/sluice" check -c "$LAB_DIR/bad.yaml" >"$LAB_DIR/out" 2>&1; then fail "check accepts: $1"; fi
	if validate "$LAB_DIR/bad.yaml"; then fail "the schema accepts: $1"; fi
}
validate() {
	/usr/bin/python3 - "$LAB_DIR/schema.json" "$1" >"$LAB_DIR/out" 2>&1 <<'PY'
import json, sys, jsonschema, yaml
schema = json.load(open(sys.argv[1]))
validator = jsonschema.Draft202012Validator
validator.check_schema(schema)
errors = list(validator(schema).iter_errors(yaml.safe_load(open(sys.argv[2]))))
for e in errors:
    print(list(e.path), e.message)
sys.exit(bool(errors))
PY
}

for f in docs/sluice.yaml docs/examples/*.yaml tests/fuzz/corpus/conf/full.yaml; do good "$f"; done
bad 'routes: 7'
bad 'rotues: []'
bad 'global: { workers: many }'
bad 'global: { workers: 0 }'
bad 'global: { log: { level: loud } }'
bad 'global: { packet: { hook: tc } }'
bad 'global: { runtime_dir: run }'
bad 'global: { overload: { refuse_above: 95 } }'
bad 'routes: [ { name: a, forward: "h:1" } ]'
bad 'routes: [ { name: a b, match: { ports: 1 }, forward: "h:1" } ]'
bad 'routes: [ { name: a, match: { ports: 65536 }, forward: "h:1" } ]'
bad 'routes: [ { name: a, match: { ports: [] }, forward: "h:1" } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "http://h:1" } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: { targets: "h:1", retries: 11 } } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: { targets: "h:1", balance: fastest } } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "h:1", engine: packet } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "h:1", tls: acme } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "h:1", half_open: 1 } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "h:1", timeouts: { idle: 30 } } ]'
bad 'routes: [ { name: a, match: { ports: 1, domains: [a b] }, forward: "h:1" } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "h:1", security: { new_connections_per_ip: 5 } } ]'
