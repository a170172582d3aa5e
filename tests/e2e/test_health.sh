#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Active checks: targets that die and come back, flap, start slowly, are backups; over TCP, HTTP and
# TLS against nginx; and what a reload keeps.
. "$(dirname "$0")/../lib/netlab.sh"
need nginx
need nft
need openssl
need curl

T=$BACKEND_IP
FAST='every: 100ms, timeout: 1s, fall: 3, rise: 2'

mkdir -p "$LAB_DIR/ngx/www" "$LAB_DIR/ngx/tmp"
chmod 777 "$LAB_DIR/ngx/tmp"
echo fine >"$LAB_DIR/ngx/www/healthy"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=backend \
	-keyout "$LAB_DIR/ngx/key" -out "$LAB_DIR/ngx/cert" 2>/dev/null
cat >"$LAB_DIR/ngx/nginx.conf" <<CONF
daemon off;
worker_processes 1;
pid $LAB_DIR/ngx/pid;
error_log $LAB_DIR/ngx/error.log info;
events { worker_connections 512; }
http {
	log_format checks '\$server_port "\$request" \$status "\$http_host" "\$http_user_agent" \$ssl_protocol';
	access_log $LAB_DIR/ngx/access.log checks;
	client_body_temp_path $LAB_DIR/ngx/tmp; proxy_temp_path $LAB_DIR/ngx/tmp;
	fastcgi_temp_path $LAB_DIR/ngx/tmp; uwsgi_temp_path $LAB_DIR/ngx/tmp;
	scgi_temp_path $LAB_DIR/ngx/tmp;
	server { listen $T:8101; root $LAB_DIR/ngx/www; }
	server { listen $T:8103 proxy_protocol; root $LAB_DIR/ngx/www; }
	server {
		listen $T:8102 ssl;
		ssl_certificate $LAB_DIR/ngx/cert; ssl_certificate_key $LAB_DIR/ngx/key;
		root $LAB_DIR/ngx/www;
	}
}
CONF
OUT=$LAB_DIR/nginx.out spawn backend nginx -c "$LAB_DIR/ngx/nginx.conf" -e "$LAB_DIR/ngx/error.log"
wait_for listening backend 8101
wait_for listening backend 8102
wait_for listening backend 8103

# Resets that meet a socket: one whose end both sides have acknowledged draws a reset, too, when the
# last acknowledgement comes twice, and only TIME_WAIT sees it.
in_ns backend nft -f - <<-RULES
	table inet watch {
		counter syns { }
		counter resets { }
		chain in {
			type filter hook prerouting priority -300;
			tcp dport 8009 tcp flags & (syn | ack) == syn counter name syns
			ip saddr $PROXY_BACK_IP tcp flags & rst == rst socket mark 0 counter name resets
		}
	}
RULES
counted() { in_ns backend nft list counter inet watch "$1" | grep -o 'packets [0-9]*' | cut -d' ' -f2; }

for i in 1 2 3 4; do server "s$i" identify 800$i; done

# two NAME LISTEN PORT PORT [MORE]: a route with two targets and fast checks.
two() {
	echo "  - { name: $1, match: { ports: $2 }, forward: { targets: [ { address: \"$T:$3\" }, { address: \"$T:$4\" } ], retries: 0, health: { $FAST${5:+, $5} } } }"
}
config() { # MORE lines
	echo "routes:
$(two dies 8080 8001 8002)
$(two slow 8081 8001 8003 'slow_start: 4s')
  - { name: spare, match: { ports: 8082 }, forward: { targets: [ { address: \"$T:8001\" }, { address: \"$T:8004\", backup: true } ], health: { $FAST } } }
$(two flaps 8083 8001 8009)
  - { name: http, match: { ports: 8084 }, forward: { targets: [ { address: \"$T:8101\" } ], health: { $FAST, path: /healthy } } }
  - { name: https, match: { ports: 8085 }, forward: { targets: [ { address: \"$T:8102\" } ], health: { $FAST, path: /healthy, tls: true } } }
  - { name: announced1, match: { ports: 8087 }, forward: { targets: [ { address: \"$T:8103\" } ], send_proxy: v1, health: { $FAST, path: /healthy } } }
  - { name: announced2, match: { ports: 8088 }, forward: { targets: [ { address: \"$T:8103\" } ], send_proxy: v2, health: { $FAST, path: /healthy } } }
  - { name: unannounced, match: { ports: 8089 }, forward: { targets: [ { address: \"$T:8103\" } ], health: { $FAST, path: /healthy } } }
  - { name: tls, match: { ports: 8086 }, forward: { targets: [ { address: \"$T:8102\" }, { address: \"$T:8101\" } ], health: { $FAST, tls: true } } }
${1:-}"
}
start_sluice "$(config)"

state() { # ROUTE PORT
	jqs ".routes[] | select(.name == \"$1\").targets[] | select(.address == \"$T:$2\").state"
}
is_state() { [ "$(state "$1" "$2")" = "$3" ]; }
detail() { # ROUTE PORT FIELD
	sl routes --json | jq -r ".. | objects | select(.name? == \"$1\") | .targets[] | select(.address == \"$T:$2\")$3"
}
up_metric() { http_get /metrics | grep -F "sluice_target_up{route=\"$1\",target=\"$T:$2\"}" | cut -d' ' -f2; }
checked() { [ "$(detail "$1" "$2" .checks.ok)" -ge "${3:-1}" ]; }
say "targets that answer are up"
for target in dies:8001 dies:8002 spare:8004 http:8101 https:8102 tls:8102; do
	wait_for checked "${target%:*}" "${target#*:}" 2
	assert_eq "$target" "$(state "${target%:*}" "${target#*:}")" up
done
assert_eq "metric" "$(up_metric dies 8002)" 1
names_of 8080 10 >"$LAB_DIR/names"
assert_eq "both serve" "$(counts "$LAB_DIR/names")" "s1=5 s2=5"

say "a target that expects PROXY headers gets them from checks"
for route in announced1 announced2; do wait_for eval '[ "$(detail '$route' 8103 .checks.ok)" -ge 3 ]'; done
wait_for is_state unannounced 8103 down
assert_eq "state" "$(state announced1 8103) $(state announced2 8103)" "up up"

say "HTTP and TLS as nginx sees them"
grep -F '"GET /healthy HTTP/1.1"' "$LAB_DIR/ngx/access.log" >"$LAB_DIR/checks"
assert_match "check over HTTP" "$(grep ^8101 "$LAB_DIR/checks" | tail -n 1)" \
	"^8101 \"GET /healthy HTTP/1.1\" 200 \"$T\" \"sluice-check\" -\$"
assert_match "check over TLS" "$(grep ^8102 "$LAB_DIR/checks" | tail -n 1)" \
	"^8102 \"GET /healthy HTTP/1.1\" 200 \"$T\" \"sluice-check\" TLSv1\.[23]\$"

say "a target dies: down after 3 checks, no connection from then on"
failed=$(detail dies 8002 .checks.failed)
began=$(now_ms)
stop_peer s2
wait_for is_state dies 8002 down
failed=$(($(detail dies 8002 .checks.failed) - failed))
# every 100 ms, give or take a tenth, until we have looked; the log says that the third decided
assert_between "checks that failed" $failed 3 $((($(now_ms) - began) / 90 + 2))
assert_eq "why" "$(detail dies 8002 .last_error)" "connect: Connection refused"
assert_eq "logged once" "$(grep -ac "target $T:8002 of route dies is down: connect: Connection refused, after 3 checks" "$(log_file)")" 1
assert_eq "metric" "$(up_metric dies 8002)" 0
connects=$(detail dies 8002 .failed)
names_of 8080 20 >"$LAB_DIR/names"
assert_eq "the other one serves all" "$(counts "$LAB_DIR/names")" "s1=20"
assert_eq "attempts to connect to the dead one" "$(detail dies 8002 .failed)" "$connects"

say "a reload keeps the state"
ok=$(detail dies 8001 .checks.ok)
reload "$(config "$(route more 8090 "\"$T:8001\"")")"
assert_eq "right after" "$(state dies 8002)" down
assert_between "counts go on" "$(detail dies 8001 .checks.ok)" "$ok" $((ok + 100))
names_of 8080 6 >"$LAB_DIR/names"
assert_eq "still not used" "$(counts "$LAB_DIR/names")" "s1=6"

say "it comes back: up after 2 checks, used again"
ok=$(detail dies 8002 .checks.ok)
server s2 identify 8002
wait_for is_state dies 8002 up
assert_between "checks that were good" "$(($(detail dies 8002 .checks.ok) - ok))" 2 5
assert_eq "logged once" "$(grep -ac "target $T:8002 of route dies is up again" "$(log_file)")" 1
assert_eq "metric" "$(up_metric dies 8002)" 1
names_of 8080 10 >"$LAB_DIR/names"
assert_eq "both serve" "$(counts "$LAB_DIR/names")" "s1=5 s2=5"

say "slow start: few connections at first, its share in the end"
stop_peer s3
wait_for is_state slow 8003 down
server s3 identify 8003
wait_for is_state slow 8003 up
began=$(now_ms)
names_of 8081 20 >"$LAB_DIR/names"
early=$(grep -c s3 "$LAB_DIR/names" || true)
if [ $(($(now_ms) - began)) -le 1500 ]; then
	# at most 0.44 of 1.44
	assert_between "of 20 in the first moments" "$early" 0 9
fi
has_full_share() { # for twice 10 cycles, not by chance
	names_of 8081 20 >"$LAB_DIR/names"
	[ "$(counts "$LAB_DIR/names")" = "s1=10 s3=10" ] || return 1
	names_of 8081 20 >"$LAB_DIR/names"
	[ "$(counts "$LAB_DIR/names")" = "s1=10 s3=10" ]
}
wait_until 15000 has_full_share || fail "no full share after slow start: $(counts "$LAB_DIR/names")"

say "backups, and nothing left"
names_of 8082 5 >"$LAB_DIR/names"
assert_eq "the backup waits" "$(counts "$LAB_DIR/names")" "s1=5"
stop_peer s1
wait_for is_state spare 8001 down
names_of 8082 5 >"$LAB_DIR/names"
assert_eq "the backup serves" "$(counts "$LAB_DIR/names")" "s4=5"
stop_peer s4
wait_for is_state spare 8004 down
n=$(n_access spare)
shot to=$PROXY_IP:8082
assert_eq "all down: the client's end" "$(of end)" reset
wait_access spare $((n + 1))
assert_eq "reason" "$(access spare client_reason)" backend_down
server s4 identify 8004
wait_for is_state spare 8004 up
server s1 identify 8001
wait_for is_state spare 8001 up
names_of 8082 5 >"$LAB_DIR/names"
assert_eq "the first choice again" "$(counts "$LAB_DIR/names")" "s1=5"

say "a drained target is checked all the same"
sl drain "$T:8002" --route dies >/dev/null
wait_for is_state dies 8002 drained
ok=$(detail dies 8002 .checks.ok)
wait_for checked dies 8002 $((ok + 3))

say "HTTP: the status decides"
mv "$LAB_DIR/ngx/www/healthy" "$LAB_DIR/ngx/www/sick"
wait_for is_state http 8101 down
wait_for is_state https 8102 down
assert_eq "why" "$(detail http 8101 .last_error)" "HTTP: status 404"
assert_eq "why, over TLS" "$(detail https 8102 .last_error)" "HTTP: status 404"
mv "$LAB_DIR/ngx/www/sick" "$LAB_DIR/ngx/www/healthy"
wait_for is_state http 8101 up
wait_for is_state https 8102 up

say "TLS: a plain port is none"
assert_eq "the TLS port" "$(state tls 8102)" up
wait_for is_state tls 8101 down
assert_match "why" "$(detail tls 8101 .last_error)" '^TLS handshake: '

# Before servers are killed with bytes of theirs on the way.
say "no backend has seen a reset of ours, neither of checks nor of connections"
assert_eq "resets" "$(counted resets)" 0
# Its answer read, there is a socket at the other end: a reset right behind the handshake can meet
# the hook before the handshake's last acknowledgement has made one.
in_ns proxy /usr/bin/python3 - "$T" 8001 <<-'RESET'
	import socket, struct, sys
	with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s:
	    assert s.recv(1)
	    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
RESET
is_counted() { [ "$(counted resets)" = 1 ]; }
wait_until 5000 is_counted || fail "resets counted: $(counted resets), want 1" # so the count can tell

say "a flapping target costs one connect per check"
began=$(now_ms)
first=$(counted syns)
while [ $(($(now_ms) - began)) -lt 4000 ]; do
	server flap identify 8009
	stop_peer flap
done
took=$(($(now_ms) - began))
# every 100 ms, give or take a tenth
assert_between "connects in $took ms" $(($(counted syns) - first)) 10 $((took / 90 + 2))

say "checks leave nothing behind"
no_sockets() { [ "$(in_ns proxy ss -Htan state established state fin-wait-1 state fin-wait-2 state close-wait "dst $T" | wc -l)" = 0 ]; }
reload "routes:
$(route dies 8080 "\"$T:8001\"")"
wait_for no_sockets
stop_sluice
assert_eq "exit code" "$RC" 0
