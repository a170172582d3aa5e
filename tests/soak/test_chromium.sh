#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Chromium, whose hello carries a post-quantum key share and comes in two segments, through passthrough:
# a page and what its script loads from two names behind one port, as nginx sees both connections.
. "$(dirname "$0")/../lib/netlab.sh"
need chromium
need openssl
need nginx
LOADS=${LOADS:-3}

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
             ...[1, 2, 3, 4].map((i) => hash("https://api.example/blob?" + i))])
  .then((all) => { out.textContent = "DONE\n" + all.join("\n"); })
  .catch((e) => { out.textContent = "ERROR " + e; });
</script>
HTML
site() { # NAME PORT
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -days 2 \
		-addext "subjectAltName=DNS:$1" -keyout "$LAB_DIR/$1.key" -out "$LAB_DIR/$1.pem" 2>/dev/null
	cat <<-NGINX
		server {
			listen $2 ssl http2;
			ssl_certificate $LAB_DIR/$1.pem;
			ssl_certificate_key $LAB_DIR/$1.key;
			ssl_protocols TLSv1.2 TLSv1.3;
			add_header Access-Control-Allow-Origin *;
			location = /who { return 200 "$1 \$ssl_server_name \$ssl_protocol \$server_protocol \$ssl_curves"; }
			location / { root $www; }
		}
	NGINX
}
cat >"$LAB_DIR/nginx.conf" <<-NGINX
	user root;
	daemon off;
	master_process off;
	pid $LAB_DIR/nginx.pid;
	error_log $LAB_DIR/nginx.err;
	events { worker_connections 256; }
	http {
		types { text/html html; }
		access_log off;
		client_body_temp_path $LAB_DIR/body;
		proxy_temp_path $LAB_DIR/proxy;
		fastcgi_temp_path $LAB_DIR/fastcgi;
		uwsgi_temp_path $LAB_DIR/uwsgi;
		scgi_temp_path $LAB_DIR/scgi;
		$(site page.example 8001)
		$(site api.example 8002)
	}
NGINX
OUT=$LAB_DIR/nginx.out spawn backend nginx -c "$LAB_DIR/nginx.conf"
for port in 8001 8002; do wait_for listening backend $port; done

start_sluice "routes:
  - { name: page, match: { ports: 443, domains: [page.example] }, forward: \"$BACKEND_IP:8001\" }
  - { name: api, match: { ports: 443, domains: ['api.*'], tls: { versions: ['1.3'] } }, forward: \"$BACKEND_IP:8002\" }"
baseline

load() { # the page's text when its script has run
	in_ns client env HOME="$LAB_DIR/home" timeout 90 chromium --headless --no-sandbox --disable-gpu \
		--disable-dev-shm-usage --no-first-run --disable-background-networking \
		--disable-component-update --ignore-certificate-errors --user-data-dir="$LAB_DIR/home/$1" \
		--host-resolver-rules="MAP *.example $PROXY_IP" --virtual-time-budget=60000 \
		--dump-dom https://page.example/ 2>"$LAB_DIR/chromium.err"
}

sum=$(sha256sum <"$www/blob" | cut -d' ' -f1)
for ((i = 1; i <= LOADS; i++)); do
	say "load $i"
	dom=$(load "$i") || fail "chromium: $(tail -n 3 "$LAB_DIR/chromium.err")"
	out=$(sed -n '/<pre id="out">/,/<\/pre>/p' <<<"$dom" | sed 's/<[^>]*>//g')
	assert_match "the page" "$out" '^ *DONE'
	assert_eq "blobs with the right hash" "$(grep -c "$sum" <<<"$out")" 4
	for name in page api; do
		line=$(grep "^$name.example " <<<"$out") || fail "$name.example did not answer: $out"
		echo "$line"
		assert_match "$name" "$line" "^$name\.example $name\.example TLSv1\.3 HTTP/2\.0 .*(0x11ec|X25519MLKEM768)"
	done
done
nothing_active() { [ "$(jqs .connections.active)" = 0 ]; }
wait_for nothing_active
assert_eq "the names in the log" "$(access page sni) $(access api sni)" "page.example api.example"
assert_between "bytes of the page's requests" "$(access page up)" 1500 100000
assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
