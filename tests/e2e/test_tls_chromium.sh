#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Chromium through termination: a page and what its script loads from two names behind one port, over HTTP/1.1
# and HTTP/2, each with its own certificate; and a name whose certificate it does not know.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/tlslab.sh"
need chromium

www=$LAB_DIR/www
mkdir "$www" "$LAB_DIR/home"
head -c 2000000 /dev/urandom >"$www/blob"
cat >"$www/index.html" <<'HTML'
<!doctype html><body><pre id=out>not done</pre><script>
const text = async (url) => (await fetch(url)).text();
async function hash(url) {
  const bytes = await (await fetch(url)).arrayBuffer();
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...sum].map((b) => b.toString(16).padStart(2, "0")).join("");
}
Promise.all([text("/who"), text("https://api.example/who"),
             text("https://stranger.example/who").catch(() => "stranger refused"),
             ...[1, 2, 3, 4].map((i) => hash("https://api.example/blob?" + i))])
  .then((all) => { out.textContent = "DONE\n" + all.join("\n"); })
  .catch((e) => { out.textContent = "ERROR " + e; });
</script>
HTML
site() { # NAME LISTEN
	cat <<-NGINX
		server {
			listen $2;
			ssl_certificate $CERTS/one.pem;
			ssl_certificate_key $CERTS/one.key;
			add_header Access-Control-Allow-Origin *;
			location = /who { return 200 "$1 \$http_host \$server_protocol \$ssl_server_name"; }
			location / { root $www; }
		}
	NGINX
}
nginx_up "$(site page 8001)
$(site api '8002 ssl http2')"
for port in 8001 8002; do wait_for listening backend $port; done

make_ca other
make_cert page page.example
make_cert api api.example rsa
make_cert stranger stranger.example ec other
api="$(pair api), alpn: [h2, http/1.1]"
start_sluice "routes:
  - { name: page, match: { ports: 443, domains: [page.example] }, tls: { $(pair page) }, forward: \"$BACKEND_IP:8001\" }
  - { name: api, match: { ports: 443, domains: [api.example] }, tls: { $api }, forward: $(to_tls "$BACKEND_IP:8002") }
  - { name: stranger, match: { ports: 443, domains: [stranger.example] }, tls: { $(pair stranger) }, forward: \"$BACKEND_IP:8001\" }"
baseline

# It trusts these two keys; nothing else is let pass.
pin() { openssl pkey -in "$CERTS/$1.key" -pubout -outform der | openssl dgst -sha256 -binary | base64; }
dom=$(in_ns client env HOME="$LAB_DIR/home" timeout $((90 * SLOW)) chromium --headless --no-sandbox --disable-gpu \
	--disable-dev-shm-usage --no-first-run --disable-background-networking --disable-component-update \
	--ignore-certificate-errors-spki-list="$(pin page),$(pin api)" --user-data-dir="$LAB_DIR/home/profile" \
	--host-resolver-rules="MAP *.example $PROXY_IP" --virtual-time-budget=60000 \
	--dump-dom https://page.example/ 2>"$LAB_DIR/chromium.err") || fail "chromium: $(tail -n 3 "$LAB_DIR/chromium.err")"
out=$(sed -n '/<pre id="out">/,/<\/pre>/p' <<<"$dom" | sed 's/<[^>]*>//g')
assert_match "the page" "$out" 'DONE'
has "the page's target" "$out" "page page.example HTTP/1.1"
has "the other name's, HTTP/2 from end to end" "$out" "api api.example HTTP/2.0 one.example"
has "a certificate it does not trust" "$out" "stranger refused"
assert_eq "blobs with the right hash" "$(grep -c "$(sha256sum <"$www/blob" | cut -d' ' -f1)" <<<"$out")" 4
nothing_active() { [ "$(jqs .connections.active)" = 0 ]; }
wait_for nothing_active
assert_match "what was agreed" "$(access page tls)" "^TLSv1.3/"
assert_between "handshakes refused by it" "$(tls_metric handshakes_total 'result="failed"')" 1 20
assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
