# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# Sourced after netlab.sh: certificates, and peers that speak TLS.
need openssl

CERTS=$LAB_DIR/certs
mkdir "$CERTS"
CA=$CERTS/ca.pem

new_key() { # ec|rsa FILE
	local how=(-algorithm EC -pkeyopt ec_paramgen_curve:P-256)
	if [ "$1" = rsa ]; then how=(-algorithm RSA -pkeyopt rsa_keygen_bits:2048); fi
	(umask 077 && openssl genpkey "${how[@]}" -out "$2" 2>/dev/null)
}

# make_ca NAME: NAME.pem and NAME.key, an authority of its own.
make_ca() {
	new_key ec "$CERTS/$1.key"
	openssl req -x509 -new -key "$CERTS/$1.key" -subj "/CN=$1" -days 30 -out "$CERTS/$1.pem" \
		-addext keyUsage=critical,keyCertSign,cRLSign
}

# make_sub NAME: an authority below ours.
make_sub() {
	new_key ec "$CERTS/$1.key"
	openssl req -new -key "$CERTS/$1.key" -subj "/CN=$1" |
		openssl x509 -req -CA "$CA" -CAkey "$CERTS/ca.key" -days 30 -set_serial "0x$(openssl rand -hex 8)" \
			-extfile <(printf 'basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\n') \
			-out "$CERTS/$1.pem" 2>/dev/null
}

# make_cert FILE NAME[,NAME...] [KIND [CA [DAYS]]]: FILE.pem and FILE.key; the first name is the common one.
# A name with "IP:" before it is an address.
make_cert() {
	local file=$CERTS/$1 ca=$CERTS/${4:-ca} names='' name
	for name in ${2//,/ }; do
		case $name in
		IP:*) names+=",$name" ;;
		*) names+=",DNS:$name" ;;
		esac
	done
	new_key "${3:-ec}" "$file.key"
	openssl req -new -key "$file.key" -subj "/CN=${2%%,*}" |
		openssl x509 -req -CA "$ca.pem" -CAkey "$ca.key" -days "${5:-30}" \
			-set_serial "0x$(openssl rand -hex 8)" \
			-extfile <(echo "subjectAltName=${names#,}") -out "$file.pem.new" 2>/dev/null
	mv "$file.pem.new" "$file.pem"
}

# make_self FILE NAME: signed by itself.
make_self() {
	new_key ec "$CERTS/$1.key"
	openssl req -x509 -new -key "$CERTS/$1.key" -subj "/CN=$2" -days 30 -addext "subjectAltName=DNS:$2" \
		-out "$CERTS/$1.pem"
}

serial_of() { openssl x509 -in "$1" -noout -serial | cut -d= -f2; } # FILE, as tls_peer prints it

# pair FILE: what a route says of it.
pair() { echo "cert: $CERTS/$1.pem, key: $CERTS/$1.key"; }

# ends NAME PORT FORWARD [TLS [MORE]]: a route that terminates, with one.pem unless TLS says other things.
ends() { route "$1" "$2" "$3" "tls: { ${4:-$(pair one)} }${5:+, $5}"; }

# to_tls TARGET [KEYS]: a `forward` that encrypts; verified by our authority unless KEYS say other things.
to_tls() { echo "{ targets: [\"$1\"], tls: { ${2:-verify: $CA, server_name: one.example} } }"; }

tls_client() { in_ns client "$PEERS/tls_peer" "$@"; }

tls_client_bg() { # NAME ARGUMENT...
	OUT=$LAB_DIR/$1.out spawn client "$PEERS/tls_peer" "${@:2}"
	PEER_PIDS[$1]=$LAST
}

# tls_server NAME PORT [ARGUMENT...]: tls_peer serve on the backend.
tls_server() {
	OUT=$LAB_DIR/$1.out spawn backend "$PEERS/tls_peer" serve listen="$BACKEND_IP:$2" \
		listen="[$BACKEND6]:$2" timeout=$((300 * SLOW)) "${@:3}"
	PEER_PIDS[$1]=$LAST
	wait_for listening backend "$2"
}

tls_dialog() { # client|backend ARGUMENT...
	in_ns "$1" /usr/bin/python3 "$lab_root/tests/lib/tls_dialog.py" "${@:2}"
}

# tls_dialog_bg NAME STEP...: of the client, in the background; `served NAME` for its verdict.
tls_dialog_bg() {
	OUT=$LAB_DIR/$1.out spawn client /usr/bin/python3 "$lab_root/tests/lib/tls_dialog.py" "${@:2}"
	PEER_PIDS[$1]=$LAST
}

# tls_dialog_server NAME PORT STEP...: one connection on the backend; join_peer NAME for its verdict.
tls_dialog_server() {
	OUT=$LAB_DIR/$1.out spawn backend /usr/bin/python3 "$lab_root/tests/lib/tls_dialog.py" \
		"listen=$BACKEND_IP:$2" "${@:3}"
	PEER_PIDS[$1]=$LAST
	wait_for listening backend "$2"
}

# served NAME: the verdict of a dialog in the background.
served() {
	join_peer "$1"
	assert_eq "dialog $1: $(cat "$LAB_DIR/$1.out.err")" "$RC" 0
}

# s_client PORT NAME ARGUMENT...: what it prints of one HTTP request, and its exit code.
s_client() {
	local port=$1 name=$2
	shift 2
	printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$name" |
		in_ns client timeout $((15 * SLOW)) openssl s_client -connect "$PROXY_IP:$port" \
			-servername "$name" -CAfile "$CA" -verify_return_error -ign_eof "$@" 2>&1
}

has() { # WHAT TEXT WANT
	grep -qaF -- "$3" <<<"$2" || fail "$1: no '$3' in: $(head -c 3000 <<<"$2")"
}

hasnt() { # WHAT TEXT WORDS
	if grep -qaF -- "$3" <<<"$2"; then fail "$1: '$3' in: $(head -c 3000 <<<"$2")"; fi
}

# refused WHAT TEXT WORDS: no handshake, and the words of the reason.
refused() {
	hasnt "$1" "$2" "HTTP/1"
	has "$1" "$2" "$3"
}

# fetch PORT NAME ARGUMENT... PATH: by curl, which has the name resolved to the proxy.
fetch() {
	local port=$1 name=$2
	shift 2
	in_ns client curl -sS --max-time $((15 * SLOW)) --cacert "$CA" \
		--resolve "$name:$port:$PROXY_IP" "${@:1:$#-1}" "https://$name:$port${*: -1}"
}

# tls_metric NAME WORDS...: sum of sluice_tls_NAME, of the series whose labels have all the words.
tls_metric() {
	local word text
	text=$(http_get /metrics | grep -E "^sluice_tls_$1[ {]")
	for word in "${@:2}"; do text=$(grep -F -- "$word" <<<"$text" || true); done
	awk '{ n += $NF } END { print n + 0 }' <<<"$text"
}

# nginx_up SERVERS [OUTSIDE]: on the backend, with what stands inside `http`, and outside it.
nginx_up() {
	need nginx
	cat >"$LAB_DIR/nginx.conf" <<-NGINX
		user root;
		daemon off;
		master_process off;
		pid $LAB_DIR/nginx.pid;
		error_log $LAB_DIR/nginx.err info;
		events { worker_connections 512; }
		${2:-}
		http {
			types { text/html html; }
			access_log off;
			client_body_temp_path $LAB_DIR/body;
			proxy_temp_path $LAB_DIR/proxy;
			fastcgi_temp_path $LAB_DIR/fastcgi;
			uwsgi_temp_path $LAB_DIR/uwsgi;
			scgi_temp_path $LAB_DIR/scgi;
			$1
		}
	NGINX
	OUT=$LAB_DIR/nginx.out spawn backend nginx -c "$LAB_DIR/nginx.conf"
}

make_ca ca
make_cert one one.example
