#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The JSON Schema is one, and it agrees with the reader on good and bad files.
. "$(dirname "$0")/../lib/netlab.sh"

need openssl
if ! /usr/bin/python3 -c 'import jsonschema, yaml' 2>/dev/null; then
	echo "SKIP: python3-jsonschema or python3-yaml is not installed"
	exit 77
fi
"$O/sluice" schema >"$LAB_DIR/schema.json" || fail "no schema"

# What the reader says is asked at once, what the schema says of all files together, at the end.
n=0
good() { # FILE: both accept it
	"$O/sluice" check -c "$1" >"$LAB_DIR/out" 2>&1 || fail "check refuses $1: $(cat "$LAB_DIR/out")"
	echo "good $1" >>"$LAB_DIR/asked"
}
put() { # TEXT: a file of its own, in FILE
	n=$((n + 1))
	FILE=$LAB_DIR/$n.yaml
	printf 'version: 1\n%s\n' "$1" >"$FILE"
}
good_text() { # TEXT: both accept it
	put "$1"
	good "$FILE"
}
bad() { # TEXT: both refuse it
	put "$1"
	if "$O/sluice" check -c "$FILE" >"$LAB_DIR/out" 2>&1; then fail "check accepts: $1"; fi
	echo "bad $FILE" >>"$LAB_DIR/asked"
}
validate() { # all that was asked; the number of files
	/usr/bin/python3 - "$LAB_DIR/schema.json" "$LAB_DIR/asked" <<'PY'
import json, sys, jsonschema, yaml

schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
wrong = n = 0
for line in open(sys.argv[2]):
    want, path = line.split()
    text = open(path).read()
    errors = [f"  {list(e.path)}: {e.message}" for e in validator.iter_errors(yaml.safe_load(text))]
    if bool(errors) != (want == "bad"):
        wrong += 1
        print("the schema", "accepts:\n" + text if want == "bad" else "refuses:\n" + text, *errors, sep="\n")
    n += 1
print(n)
sys.exit(wrong > 0)
PY
}

# Checking reads the files of certificates, which have to be there.
mkdir "$LAB_DIR/tls"
for name in shop shop-rsa wild api customers backends proxy; do
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$name" \
		-addext "subjectAltName=DNS:$name.example.com" -addext "keyUsage=digitalSignature,keyCertSign" \
		-keyout "$LAB_DIR/tls/$name.key" -out "$LAB_DIR/tls/$name.pem" 2>"$LAB_DIR/out" ||
		fail "openssl: $(cat "$LAB_DIR/out")"
done
cat "$LAB_DIR/tls/wild.key" >>"$LAB_DIR/tls/wild.pem"
chmod o= "$LAB_DIR"/tls/*
grep -q /etc/sluice/tls docs/examples/tls.yaml || fail "docs/examples/tls.yaml has its files elsewhere"
for f in docs/sluice.yaml docs/examples/*.yaml; do
	sed "s,/etc/sluice/tls,$LAB_DIR/tls,g" "$f" >"$LAB_DIR/${f##*/}"
	good "$LAB_DIR/${f##*/}"
done
# Checking reads the deny_file, which has to be there.
: >"$LAB_DIR/deny"
sed "s,/etc/deny,$LAB_DIR/deny," tests/fuzz/corpus/conf/full.yaml >"$LAB_DIR/full.yaml"
grep -q "$LAB_DIR/deny" "$LAB_DIR/full.yaml" || fail "full.yaml has no deny_file"
good "$LAB_DIR/full.yaml"
good_text 'routes: [ { name: a, match: { ports: 1, domains: "*.a.example", clients: [10.*, "::1"], tls: { versions: [1.2, "1.3"] } }, forward: "h:1" } ]'
good_text 'routes: [ { name: a, priority: 2, match: { ports: 1 }, forward: { targets: [ { address: "h:1", weight: 0 }, "i:1" ], health: { path: /x }, send_proxy: { version: v2, alpn: true } } } ]'
good_text 'global: { packet: { hook: xdp, interfaces: [eth0, lo], ports: 2000-2063, max_flows: 64, after_bytes: 0, after_age: 0 } }'
good_text 'global: { packet: { hook: off, interfaces: auto, after_bytes: 1MiB, after_age: 5s } }'
good_text 'defaults: { engine: packet }'
good_text 'defaults: { forward: { health: none, send_proxy: v1, balance: maglev }, security: { allow: 10.0.0.1, deny: null } }'
good_text 'listeners: [ { ports: 80, accept_proxy: { from: 10.0.0.1-10.0.0.9, required: false } } ]'
# A file with all of it, and each key by itself: the files are there.
pem=$LAB_DIR/tls/api.pem key=$LAB_DIR/tls/api.key
tls_good() { good_text "routes: [ { name: a, match: { ports: 1 }, forward: { targets: 'h:1'${2:-} }, tls: $1 } ]"; }
tls_good "{ cert: $pem, key: $key }"
tls_good "{ cert: [$pem, $LAB_DIR/tls/wild.pem], key: [$key, null], ocsp: [null, ~] }"
tls_good "{ cert: $pem, key: $key, client_ca: $pem, client_auth: optional, min_version: 1.3, alpn: [h2, http/1.1] }"
tls_good "{ cert: $pem, key: $key, ciphers: 'ECDHE+AESGCM:TLS_AES_128_GCM_SHA256' }"
tls_good passthrough ', tls: {}'
tls_good passthrough ', tls: none'
tls_good passthrough ", tls: { verify: $pem, server_name: backend.example, cert: $pem, key: $key }"
tls_good "{ cert: $pem, key: $key }" ', tls: { verify: none, server_name: "::1" }, send_proxy: { version: v2, ssl: true }'
good_text 'defaults: { tls: { min_version: 1.3 } }'
tls_bad() { bad "routes: [ { name: a, match: { ports: 1 }, forward: { targets: 'h:1'${2:-} }, tls: $1 } ]"; }
tls_bad terminate
tls_bad '{ cert: api.pem }'
tls_bad "{ cert: $pem, key: $key, min_version: 1.1 }"
tls_bad "{ cert: $pem, key: $key, client_auth: always }"
tls_bad "{ cert: $pem, key: $key, alpn: [h2 c] }"
tls_bad "{ cert: $pem, key: $key, ciphers: 'A B' }"
tls_bad "{ cert: $pem, key: $key, acme: { email: a@b } }"
tls_bad "{ cert: $pem, keys: $key }"
tls_bad passthrough ', tls: true'
tls_bad passthrough ', tls: { verify: maybe }'
tls_bad passthrough ', tls: { server_name: "*.x" }'
tls_bad passthrough ', tls: { cert: c.pem }'
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

validate >"$LAB_DIR/out" || fail "$(cat "$LAB_DIR/out")"
assert_eq "files the schema was asked about" "$(tail -n 1 "$LAB_DIR/out")" "$(wc -l <"$LAB_DIR/asked")"
