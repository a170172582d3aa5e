#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# HAProxy and nginx as PROXY peers on both sides:
#   client - (HAProxy | nginx) - Sluice - (HAProxy | nginx | test server) - test server
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/proxylab.sh"
need haproxy
need nginx
need openssl

FRONT=10.91.128.50 # of HAProxy and nginx before Sluice; they connect from CLIENT_IP
proxy_server p 8000 expect=1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=a.example \
	-keyout "$LAB_DIR/key" -out "$LAB_DIR/cert" 2>"$LAB_DIR/openssl.err" || fail "openssl req"
cat "$LAB_DIR/key" "$LAB_DIR/cert" >"$LAB_DIR/pem"

# ---- behind: each reads our header and passes on what it read, to the test server ----

# Route N, at port 8000 + N: its name, what it sends, to whom.
names=([1]=ha-v1 ha-v2 ha-all ngx-v1 ngx-v2 own-v2)
sends_on=([1]=v1 v2 "{ version: v2, crc32c: true, authority: true, alpn: true, unique_id: true }"
	v1 "{ version: v2, crc32c: true }" "{ version: v2, crc32c: true, unique_id: true }")
targets=([1]="$BACKEND_IP:8101" "$BACKEND_IP:8101" "$BACKEND_IP:8101" "$BACKEND_IP:8201" "$BACKEND_IP:8201"
	"$BACKEND_IP:8000")

cat >"$LAB_DIR/back.cfg" <<-CFG
	global
	    maxconn 200
	defaults
	    mode tcp
	    timeout connect 5s
	    timeout client 20s
	    timeout server 20s
	listen back
	    bind $BACKEND_IP:8101 accept-proxy
	    unique-id-format %[fc_pp_unique_id]
	    server s $BACKEND_IP:8000 send-proxy-v2 proxy-v2-options crc32c,unique-id,authority
CFG
STREAM=/usr/lib/nginx/modules/ngx_stream_module.so
nginx_conf() { # NAME SERVERS: of the stream context, in a folder of its own
	mkdir -p "$LAB_DIR/$1"
	if [ -e $STREAM ]; then echo "load_module $STREAM;" >"$LAB_DIR/$1.conf"; fi
	cat >>"$LAB_DIR/$1.conf" <<-CFG
		daemon off;
		master_process off;
		pid $LAB_DIR/$1/pid;
		error_log $LAB_DIR/$1/error.log;
		events { worker_connections 512; }
		stream {
			$2
		}
	CFG
}
nginx_conf ngx-back "server {
	listen $BACKEND_IP:8201 proxy_protocol;
	set_real_ip_from 10.92.0.0/16;
	proxy_protocol on;
	proxy_half_close on;
	proxy_pass $BACKEND_IP:8000;
}
server {
	listen $BACKEND_IP:8202 proxy_protocol;
	return '\$proxy_protocol_addr:\$proxy_protocol_port \$proxy_protocol_server_addr:\$proxy_protocol_server_port';
}"

# ---- before: each way to send, one listener for each port of Sluice ----

declare -A sends=([1]="send-proxy" [2]="send-proxy-v2"
	[3]="send-proxy-v2 proxy-v2-options crc32c,unique-id")
{
	cat <<-CFG
		global
		    maxconn 500
		defaults
		    mode tcp
		    timeout connect 5s
		    timeout client 20s
		    timeout server 20s
	CFG
	for way in 1 2 3; do
		for i in "${!names[@]}"; do
			printf 'listen f%s%s\n  bind %s:9%s0%s\n  unique-id-format %%ci-%%cp\n' $way "$i" $FRONT $way "$i"
			printf '  server s %s:800%s source %s %s\n' $PROXY_IP "$i" $CLIENT_IP "${sends[$way]}"
		done
	done
	# ends TLS: name, protocol, certificate's and session's TLVs
	cat <<-CFG
		listen tls
		    bind $FRONT:9443 ssl crt $LAB_DIR/pem alpn h2,http/1.1
		    unique-id-format tls-%cp
		    server s $PROXY_IP:8006 source $CLIENT_IP send-proxy-v2-ssl-cn proxy-v2-options crc32c,unique-id,authority,ssl,cert-cn,ssl-cipher
		listen checked
		    bind $FRONT:9500
		    server one $PROXY_IP:8001 source $CLIENT_IP check inter 100ms send-proxy
		    server two $PROXY_IP:8002 source $CLIENT_IP check inter 100ms send-proxy-v2
		listen stats
		    bind $FRONT:9600
		    mode http
		    stats enable
		    stats uri /stats
	CFG
} >"$LAB_DIR/front.cfg"
nginx_conf ngx-front "$(for i in "${!names[@]}"; do
	echo "server { listen $FRONT:940$i; proxy_protocol on; proxy_half_close on; proxy_bind $CLIENT_IP; proxy_pass $PROXY_IP:800$i; }"
done)"

# ---- start all ----

conf_routes() {
	local i
	for i in "${!names[@]}"; do
		route "${names[$i]}" "800$i" "{ targets: \"${targets[$i]}\", send_proxy: ${sends_on[$i]} }"
	done
	echo "  - { name: named, match: { ports: 8009, domains: [a.example] }, forward: { targets: \"$BACKEND_IP:8101\",
	      send_proxy: { version: v2, crc32c: true, authority: true, alpn: true, unique_id: true } } }"
	route return 8007 "{ targets: \"$BACKEND_IP:8202\", send_proxy: v1 }"
	route return2 8008 "{ targets: \"$BACKEND_IP:8202\", send_proxy: v2 }"
}
start_sluice "listeners:
  - { ports: [\"8001-8006\"], accept_proxy: { from: [$CLIENT_IP], required: true } }
routes:
$(conf_routes)"

peer_up() { # NAME NS PORT COMMAND...
	local name=$1 ns=$2 port=$3
	shift 3
	OUT=$LAB_DIR/$name.out spawn "$ns" "$@"
	wait_for listening "$ns" "$port"
}
peer_up ha-back backend 8101 haproxy -db -f "$LAB_DIR/back.cfg"
peer_up ngx-back backend 8201 nginx -c "$LAB_DIR/ngx-back.conf" -e "$LAB_DIR/ngx-back/error.log"
peer_up ha-front client 9101 haproxy -db -f "$LAB_DIR/front.cfg"
peer_up ngx-front client 9401 nginx -c "$LAB_DIR/ngx-front.conf" -e "$LAB_DIR/ngx-front/error.log"

# What the test server reads at the end of each way, behind way N of Sluice.
end_of() { # N DESTINATION
	case $1 in
	1 | 2) echo "ok v2 src=CLIENT dst=$2 unique_id= crc32c" ;; # HAProxy's way to have none
	3) echo "ok v2 src=CLIENT dst=$2 unique_id=[0-9]+ crc32c" ;;
	4 | 5) echo "ok v1 src=CLIENT dst=$BACKEND_IP:8201" ;;
	6) echo "ok v2 src=CLIENT dst=$2 unique_id=[0-9]+ crc32c" ;;
	esac
}
through() { # FRONT-PORT-PREFIX
	local i name want
	for i in "${!names[@]}"; do
		name=${names[$i]}
		ask to="$FRONT:$1$i" src=10.91.130.$i bulk=200000 send=start
		C=$(told local)
		want=$(end_of "$i" "$FRONT:$1$i")
		assert_match "$name" "$(told line)" "^peer=[^ ]+ ${want//CLIENT/$C}\$"
		assert_eq "$name: payload" "$(told bulk) $(told end)" "true eof"
		wait_own "$C" " client=$C via=$CLIENT_IP:[0-9]+ route=$name .* client_reason=normal backend_reason=normal"
	done
}

say "HAProxy, send-proxy"
through 910
say "HAProxy, send-proxy-v2"
through 920
say "HAProxy, send-proxy-v2 with crc32c and unique-id"
through 930
say "nginx, proxy_protocol on"
through 940

say "HAProxy ends TLS and tells of it"
ask to=$FRONT:9443 src=10.91.130.9 tls=a.example,h2 hold="$LAB_DIR"
C=$(told local)
assert_match "header" "$(told line)" "ok v2 src=$C dst=$FRONT:9443 unique_id=[0-9]+ crc32c$"
wait_own "$C" " client=$C via=$CLIENT_IP:[0-9]+ route=own-v2 "

say "HAProxy's health checks are let in"
up() { [ "$(in_ns client curl -sS --max-time 5 "http://$FRONT:9600/stats;csv" | awk -F, '$1 == "checked" && $2 ~ /one|two/ && $18 == "UP"' | wc -l)" = 2 ]; }
wait_for up
checks() { grep -ac " access: .* client=$CLIENT_IP:[0-9]* via=[^ ]* route=$1 " "$(log_file)"; }
some() { [ "$(checks ha-v1)" -ge 3 ] && [ "$(checks ha-v2)" -ge 3 ]; }
wait_for some
wait_for up
assert_eq "none of them is refused" "$(jqs '.terminations.client.proxy_protocol_error // 0')" 0

say "Sluice before nginx: addresses of both families"
for port in 8007 8008; do
	ask to=$PROXY_IP:$port src=10.91.130.20 fin=0
	assert_eq "$port" "$(told line)" "$(told local) $PROXY_IP:$port"
	ask to="[$PROXY6]:$port" fin=0
	C=$(told local)
	assert_eq "$port, IPv6" "$(told line)" "$(tr -d '[]' <<<"$C") $PROXY6:$port"
done

say "Sluice before HAProxy: a name, a protocol, and clients not behind a proxy"
ask to=$PROXY_IP:8001 src=$STRANGER send=x
assert_eq "strangers stay out" "$(told end)" reset
ask to=$PROXY_IP:8003 src=$CLIENT_IP send=x \
	header="v2 src=[2001:db8::7]:7 dst=[2001:db8::8]:8 authority=a.example netns=blue crc32c"
assert_match "IPv6 through HAProxy" "$(told line)" \
	'ok v2 src=\[2001:db8::7\]:7 dst=\[2001:db8::8\]:8 unique_id=[0-9]+ crc32c$'
ask to=$PROXY_IP:8009 src=10.91.130.21 hello=a.example,h2 send=x
assert_match "name and id through HAProxy" "$(told line)" \
	"ok v2 src=$(told local) dst=$PROXY_IP:8009 authority=a\.example unique_id=[0-9]+ crc32c\$"
wait_access named
assert_eq "the id" "$(told line | sed 's/.*unique_id=\([0-9]*\).*/\1/')" "$(access named id)"
