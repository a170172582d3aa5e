#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# PROXY headers sent: who the client is, where it connected to, TLVs; once, first, and before the client
# has sent anything.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/proxylab.sh"

proxy_server p 8000 expect=1
proxy_server plain 8001
GO=$LAB_DIR/go
TO="{ targets: \"$BACKEND_IP:8000\", send_proxy: "
start_sluice "listeners:
  - { ports: [8011, 8012], accept_proxy: { from: [$TRUSTED_NET], required: true } }
routes:
$(route none 8001 "{ targets: \"$BACKEND_IP:8001\", send_proxy: none }")
$(route v1 8002 "$TO v1 }")
$(route v2 8003 "$TO v2 }")
$(route crc 8004 "$TO { version: v2, crc32c: true } }")
$(route id 8005 "$TO { version: v2, unique_id: true } }")
  - { name: all, match: { ports: 8006, domains: [a.example, '*.example'] },
      forward: $TO { version: v2, crc32c: true, alpn: true, authority: true, unique_id: true } } }
$(route unnamed 8006 "$TO { version: v2, crc32c: true, alpn: true, authority: true } }")
$(route to6 8007 "{ targets: \"[$BACKEND6]:8000\", send_proxy: v2 }")
$(route retry 8008 "{ targets: [\"$BACKEND_IP:1\", \"$BACKEND_IP:2\", \"$BACKEND_IP:8000\"], send_proxy: v1 }" 'security: {}')
$(route on1 8011 "$TO v1 }")
$(route on2 8012 "$TO v2 }")"
baseline

# sees PORT REGEX ASK-ARGUMENT...: what the backend read; C is the client's address.
sees() {
	local port=$1 want=$2
	shift 2
	ask to=$PROXY_IP:"$port" "$@"
	C=$(told local)
	assert_match "header at $port" "$(told line)" "^peer=[^ ]+ ${want//CLIENT/$C}\$"
	assert_eq "end at $port" "$(told end)" eof
}

say "the client, and what it connected to"
sees 8001 plain send=x
assert_eq "nothing sent where none is configured" "$(told data)" x
sees 8002 "ok v1 src=CLIENT dst=$PROXY_IP:8002" send=payload
assert_eq "payload" "$(told data)" payload
wait_access v1
assert_line v1 "client=$C via=-"
assert_eq "bytes, the header not counted" "$(access v1 up)" 7
sees 8003 "ok v2 src=CLIENT dst=$PROXY_IP:8003" send=payload
assert_eq "payload" "$(told data)" payload
sees 8003 "ok v2 src=CLIENT dst=$PROXY_IP:8003" src=10.91.130.77 send=x bytes=1
assert_match "source" "$C" '^10\.91\.130\.77:'
sees 8004 "ok v2 src=CLIENT dst=$PROXY_IP:8004 crc32c" send=x

say "a connection's id"
sees 8005 "ok v2 src=CLIENT dst=$PROXY_IP:8005 unique_id=[0-9]+" send=x
wait_access id
assert_eq "the same in the access line" "$(told line | sed 's/.*unique_id=//')" "$(access id id)"

say "name and protocol of a hello, both addresses IPv6"
sees 8006 "ok v2 src=CLIENT dst=$PROXY_IP:8006 alpn=h2 authority=a\.example unique_id=[0-9]+ crc32c" \
	hello=A.Example,h2,http/1.1 send=x
sees 8006 "ok v2 src=CLIENT dst=$PROXY_IP:8006 authority=b\.example unique_id=[0-9]+ crc32c" \
	hello=b.example bytes=1 send=x
sees 8006 "ok v2 src=CLIENT dst=$PROXY_IP:8006 crc32c" send='GET / HTTP/1.1\r\n'
client6() { # PORT REGEX
	ask to="[$PROXY6]:$1" send=x
	C=$(told local)
	C=${C/[/\\[} && C=${C/]/\\]}
	assert_match "header at $1" "$(told line)" "^peer=[^ ]+ ${2//CLIENT/$C}\$"
}
client6 8002 "ok v1 src=CLIENT dst=\[$PROXY6\]:8002"
client6 8003 "ok v2 src=CLIENT dst=\[$PROXY6\]:8003"
sees 8007 "ok v2 src=CLIENT dst=$PROXY_IP:8007" send=x
assert_match "the backend is reached by IPv6" "$(told line)" '^peer=\[fd92::1\]'

say "before the client has sent anything"
for port in 8002 8003 8004; do
	touch "$GO"
	ask_bg first to=$PROXY_IP:$port hold="$GO"
	join_peer first
	first_answer first
	assert_match "header at $port" "$(told line)" "^peer=[^ ]+ ok v. src=$(told local) dst=$PROXY_IP:$port"
	assert_between "ms" "$(told ms)" 0 $((1000 * SLOW))
	rm "$LAB_DIR/first.out"
done
rm "$GO"

say "much data behind it, both ways"
for port in 8001 8002 8004; do
	ask to=$PROXY_IP:$port bulk=5000000
	assert_eq "5 MB at $port" "$(told bulk) $(told end)" "true eof"
done

say "after targets that refuse: one header, complete"
for i in 1 2 3; do
	sees 8008 "ok v1 src=CLIENT dst=$PROXY_IP:8008" send=x
	assert_eq "payload $i" "$(told data)" x
done

say "received and sent on"
sees 8011 "ok v1 src=192\.0\.2\.1:1000 dst=198\.51\.100\.1:443" src=$TRUSTED \
	header="v2 src=192.0.2.1:1000 dst=198.51.100.1:443 authority=a.example" send=x
sees 8012 "ok v2 src=\[2001:db8::1\]:1 dst=\[2001:db8::2\]:2" src=$TRUSTED \
	header="v1 src=[2001:db8::1]:1 dst=[2001:db8::2]:2" send=x
sees 8011 "ok v1 src=192\.0\.2\.1:1 dst=\[2001:db8::2\]:2" src=$TRUSTED \
	header="v1 src=192.0.2.1:1 dst=[2001:db8::2]:2" send=x
sees 8012 "ok v2 src=CLIENT dst=$PROXY_IP:8012" src=$TRUSTED header=v2 send=x
sees 8011 "ok v1 src=CLIENT dst=$PROXY_IP:8011" src=$TRUSTED header=v1 send=x
sees 8012 "ok v2 src=192\.0\.2\.1:0 dst=198\.51\.100\.1:0" src=$TRUSTED \
	header="v1 src=192.0.2.1:0 dst=198.51.100.1:0" bulk=100000 send=x
assert_eq "payload" "$(told bulk)" true

say "many at once, each with its own"
many() {
	local n=0 i answer
	for i in {1..40}; do ask_bg "m$i" to=$PROXY_IP:8003 src=10.91.131.$i bulk=20000; done
	for i in {1..40}; do
		join_peer "m$i"
		answer=$RESULT
		if [[ $(jq -r .line <<<"$answer") == *" ok v2 src=$(jq -r .local <<<"$answer") "* ]] &&
			[ "$(jq -r .bulk <<<"$answer")" = true ]; then n=$((n + 1)); fi
	done
	echo $n
}
assert_eq "with their address" "$(many)" 40
assert_back_to_baseline
