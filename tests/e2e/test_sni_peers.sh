#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Real TLS clients through passthrough to real servers, whose certificates prove who answered: OpenSSL
# (also with X25519MLKEM768, where it has that), curl, GnuTLS, Python; nginx and s_server behind.
. "$(dirname "$0")/../lib/netlab.sh"
need openssl
need curl
need gnutls-cli
need nginx

CA=$LAB_DIR/ca.pem
www=$LAB_DIR/www
mkdir "$www"
head -c 3000000 /dev/urandom >"$www/blob"

make_cert() { # NAME: NAME.pem and NAME.key by our authority
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
		-keyout "$LAB_DIR/$1.key" -out "$LAB_DIR/$1.csr" 2>/dev/null
	openssl x509 -req -in "$LAB_DIR/$1.csr" -CA "$CA" -CAkey "$LAB_DIR/ca.key" -days 2 \
		-CAcreateserial -extfile <(echo "subjectAltName=DNS:$1") -out "$LAB_DIR/$1.pem" 2>/dev/null
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=ca -days 2 \
	-keyout "$LAB_DIR/ca.key" -out "$CA" 2>/dev/null
for name in one.example two.example three.example; do make_cert $name; done

site() { # NAME PORT
	cat <<-NGINX
		server {
			listen $2 ssl http2;
			ssl_certificate $LAB_DIR/$1.pem;
			ssl_certificate_key $LAB_DIR/$1.key;
			ssl_protocols TLSv1.2 TLSv1.3;
			location = / { return 200 "$1 \$ssl_server_name \$ssl_protocol \$server_protocol\n"; }
			location = /blob { root $www; }
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
		access_log off;
		client_body_temp_path $LAB_DIR/body;
		proxy_temp_path $LAB_DIR/proxy;
		fastcgi_temp_path $LAB_DIR/fastcgi;
		uwsgi_temp_path $LAB_DIR/uwsgi;
		scgi_temp_path $LAB_DIR/scgi;
		$(site one.example 8001)
		$(site two.example 8002)
	}
NGINX
OUT=$LAB_DIR/nginx.out spawn backend nginx -c "$LAB_DIR/nginx.conf"
OUT=$LAB_DIR/s_server.out spawn backend openssl s_server -quiet -www -accept $BACKEND_IP:8003 \
	-cert "$LAB_DIR/three.example.pem" -key "$LAB_DIR/three.example.key"
for port in 8001 8002 8003; do wait_for listening backend $port; done

start_sluice "routes:
  - { name: one, match: { ports: 443, domains: [one.example] }, tls: passthrough, forward: \"$BACKEND_IP:8001\" }
  - { name: two, match: { ports: 443, domains: ['two.*'] }, tls: passthrough, forward: \"$BACKEND_IP:8002\" }
  - { name: three, match: { ports: 443, domains: ['three.example'] }, tls: passthrough, forward: \"$BACKEND_IP:8003\" }"
baseline

s_client() { # NAME ARGUMENT...: the page as the server sees the connection
	local name=$1
	shift
	printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$name" |
		in_ns client timeout 15 openssl s_client -connect $PROXY_IP:443 -servername "$name" \
			-CAfile "$CA" -verify_hostname "$name" -verify_return_error -ign_eof "$@" 2>&1
}

gnutls() { # NAME ARGUMENT...
	local name=$1
	shift
	# through a pipe that stays open: it leaves when the server does, not at the end of its input
	printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$name" >&9
	in_ns client timeout 15 gnutls-cli --x509cafile="$CA" --sni-hostname="$name" \
		--verify-hostname="$name" -p 443 "$@" $PROXY_IP <&9 2>&1 || true
}
mkfifo "$LAB_DIR/fifo"
exec 9<>"$LAB_DIR/fifo"

has() { # WHAT TEXT WANT
	grep -qaF -- "$3" <<<"$2" || fail "$1: no '$3' in: $(head -c 2000 <<<"$2")"
}

fetch() { # NAME ARGUMENT...
	local name=$1
	shift
	in_ns client curl -sS --max-time 15 --cacert "$CA" --resolve "$name:443:$PROXY_IP" "$@"
}

say "openssl s_client"
for name in one.example two.example; do
	has "$name 1.3" "$(s_client $name -tls1_3)" "$name $name TLSv1.3 HTTP/1.0"
	has "$name 1.2" "$(s_client $name -tls1_2)" "$name $name TLSv1.2 HTTP/1.0"
done
has "s_server 1.3" "$(s_client three.example -tls1_3)" "TLSv1.3"
has "s_server 1.2" "$(s_client three.example -tls1_2)" "TLSv1.2"
has "another case, a dot" "$(s_client one.example -servername ONE.Example)" "one.example"
if openssl list -kem-algorithms 2>/dev/null | grep -q X25519MLKEM768; then
	has "post-quantum" "$(s_client three.example -groups X25519MLKEM768)" "X25519MLKEM768"
	has "post-quantum to nginx" "$(s_client one.example -groups X25519MLKEM768:X25519)" "one.example"
else
	echo "no X25519MLKEM768 in $(openssl version): s_client without it"
fi

say "a hello with a post-quantum key share, answered by a real server"
server_hello() { # KEY=VALUE...: the first bytes of the answer, in hex
	in_ns client /usr/bin/python3 tests/lib/sni.py head $PROXY_IP:443 6 "$@"
}
for record in 16384 700 1; do
	assert_match "records of $record" "$(server_hello sni=one.example pq=1 record=$record)" '^160303....02$'
done

say "curl"
assert_eq "HTTP/2" "$(fetch one.example https://one.example/)" "one.example one.example TLSv1.3 HTTP/2.0"
assert_eq "HTTP/1.1" "$(fetch two.example --http1.1 --tls-max 1.2 https://two.example/)" \
	"two.example two.example TLSv1.2 HTTP/1.1"
for http in --http1.1 --http2; do
	fetch one.example $http -o "$LAB_DIR/got" https://one.example/blob
	cmp "$www/blob" "$LAB_DIR/got" || fail "a download with $http differs"
done

say "gnutls-cli"
has "gnutls 1.3" "$(gnutls one.example)" "one.example one.example TLSv1.3 HTTP/1.0"
has "gnutls 1.2" "$(gnutls two.example --priority=NORMAL:-VERS-TLS1.3)" "two.example two.example TLSv1.2 HTTP/1.0"

say "python"
assert_eq "python" "$(in_ns client /usr/bin/python3 -c '
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
raw = socket.create_connection((sys.argv[2], 443), 15)
s = context.wrap_socket(raw, server_hostname="two.example")
s.sendall(b"GET / HTTP/1.0\r\nHost: two.example\r\n\r\n")
got = b""
while piece := s.recv(4096):
    got += piece
print(got.decode().splitlines()[-1])' "$CA" $PROXY_IP)" "two.example two.example TLSv1.3 HTTP/1.0"

say "a name nobody serves is refused, and the log names what was asked for"
if fetch other.example https://other.example/ 2>/dev/null; then fail "other.example was answered"; fi
wait_log 'sni=other\.example .*client_reason=no_route'
assert_eq "the name of a routed one" "$(access one sni)" one.example
assert_back_to_baseline
stop_sluice
assert_eq "exit code" "$RC" 0
