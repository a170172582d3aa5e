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

for f in docs/sluice.yaml docs/examples/*.yaml; do good "$f"; done
# Checking reads the deny_file, which has to be there.
: >"$LAB_DIR/deny"
sed "s,/etc/deny,$LAB_DIR/deny," tests/fuzz/corpus/conf/full.yaml >"$LAB_DIR/full.yaml"
grep -q "$LAB_DIR/deny" "$LAB_DIR/full.yaml" || fail "full.yaml has no deny_file"
good "$LAB_DIR/full.yaml"
good_text() { # TEXT: both accept it
	printf 'version: 1\n%s\n' "$1" >"$LAB_DIR/good.yaml"
	good "$LAB_DIR/good.yaml"
}
good_text 'routes: [ { name: a, match: { ports: 1, domains: "*.a.example", clients: [10.*, "::1"], tls: { versions: [1.2, "1.3"] } }, forward: "h:1" } ]'
good_text 'routes: [ { name: a, priority: 2, match: { ports: 1 }, forward: { targets: [ { address: "h:1", weight: 0 }, "i:1" ], health: { path: /x }, send_proxy: { version: v2, alpn: true } } } ]'
good_text 'global: { packet: { hook: xdp, interfaces: [eth0, lo], ports: 2000-2063, max_flows: 64, after_bytes: 0, after_age: 0 } }'
good_text 'global: { packet: { hook: off, interfaces: auto, after_bytes: 1MiB, after_age: 5s } }'
good_text 'defaults: { engine: packet }'
good_text 'defaults: { forward: { health: none, send_proxy: v1, balance: maglev }, security: { allow: 10.0.0.1, deny: null } }'
good_text 'listeners: [ { ports: 80, accept_proxy: { from: 10.0.0.1-10.0.0.9, required: false } } ]'
bad 'routes: 7'
bad 'rotues: []'
bad 'global: { workers: many }'
bad 'global: { workers: 0 }'
bad 'global: { log: { level: loud } }'
bad 'global: { packet: { hook: tcx } }'
bad 'global: { packet: { interfaces: [eth0/1] } }'
bad 'global: { packet: { interfaces: [] } }'
bad 'global: { packet: { ports: 40000 } }'
bad 'global: { packet: { max_flows: 0 } }'
bad 'global: { packet: { after_age: 5 } }'
bad 'global: { runtime_dir: run }'
bad 'global: { overload: { refuse_above: 95 } }'
bad 'routes: [ { name: a, forward: "h:1" } ]'
bad 'routes: [ { name: a b, match: { ports: 1 }, forward: "h:1" } ]'
bad 'routes: [ { name: a, match: { ports: 65536 }, forward: "h:1" } ]'
bad 'routes: [ { name: a, match: { ports: [] }, forward: "h:1" } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "http://h:1" } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: { targets: "h:1", retries: 11 } } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: { targets: "h:1", balance: fastest } } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "h:1", engine: sockmaps } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "h:1", tls: acme } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "h:1", half_open: 1 } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "h:1", timeouts: { idle: 30 } } ]'
bad 'routes: [ { name: a, match: { ports: 1, domains: [a b] }, forward: "h:1" } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "h:1", security: { new_connections_per_ip: 5 } } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, engine: nftables, forward: "10.0.0.1:1", security: { packets: 5/h } } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, engine: nftables, forward: "10.0.0.1:1", security: { refuse: close } } ]'
bad 'routes: [ { name: a, match: { ports: 1, clients: "10.0.0.0/8 " }, forward: "h:1" } ]'
bad 'routes: [ { name: a, match: { ports: 1, path: api }, forward: "h:1" } ]'
bad 'routes: [ { name: a, match: { ports: 1, tls: { versions: [1.4] } }, forward: "h:1" } ]'
bad 'routes: [ { name: a, match: { ports: 1, headers: { a: b } }, forward: "h:1" } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: { targets: { address: "h:1", weight: 1001 } } } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: { targets: "h:1", send_proxy: v3 } } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: { targets: "h:1", send_proxy: { crc32c: true } } } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: { targets: "h:1", health: true } } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: { targets: "h:1", health: { path: x } } } ]'
bad 'routes: [ { name: a, match: { ports: 1 }, forward: "h:1", priority: -1 } ]'
bad 'global: { security: { deny_file: list } }'
bad 'listeners: [ { ports: 80, accept_proxy: { required: true } } ]'
bad 'listeners: [ { ports: 80, accept_proxy: { from: [] } } ]'
