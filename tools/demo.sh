#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Shows Sluice at work: a real server, a real client and the daemon between them, in network
# namespaces of their own. Leaves nothing behind. Run by `make demo`; O is the build directory.
set -u
cd "$(dirname "$0")/.." || exit 1
O=$(realpath "${O:-build}")
[ "$(id -u)" = 0 ] || {
	echo "tools/demo.sh: needs root (network namespaces)" >&2
	exit 1
}
for tool in ip curl jq column openssl "$O/sluiced" "$O/sluice"; do
	command -v "$tool" >/dev/null || {
		echo "tools/demo.sh: $tool is missing" >&2
		exit 1
	}
done

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
id=$$
client=sluice-demo-$id-client proxy=sluice-demo-$id-proxy server=sluice-demo-$id-server
tmp=$(mktemp -d /tmp/sluice-demo.XXXXXX) || exit 1
web=$tmp/www
config=$tmp/sluice.yaml
url=http://10.98.1.1:8080
daemon=
downloads=8

# Everything we start lives in our namespaces, so what is in them is ours to end.
cleanup() {
	local ns i
	trap - EXIT
	trap '' INT TERM HUP
	exec 2>/dev/null
	for i in TERM TERM KILL KILL; do
		for ns in $client $proxy $server; do
			ip netns pids $ns | while read -r pid; do kill -$i "$pid"; done
		done
		wait_for 10 namespaces_empty && break
	done
	for ns in $client $proxy $server; do ip netns del $ns; done
	umount "$tmp/bpf"
	rm -rf "$tmp"
}
namespaces_empty() {
	local ns
	for ns in $client $proxy $server; do
		[ -z "$(ip netns pids $ns)" ] || return 1
	done
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

wait_for() { # TENTHS_OF_A_SECOND COMMAND...: until the command succeeds
	local i n=$1
	shift
	for ((i = 0; i < n; i++)); do
		! "$@" || return 0
		sleep 0.1
	done
	return 1
}

step=0
heading() {
	step=$((step + 1))
	printf '\n%s%d. %s%s\n\n' "$bold" $step "$1" "$plain"
}
say() { printf '%s\n' "$@"; }
indent() { sed 's/^/    /'; }
shown() { printf '  %s$ %s%s\n' "$bold" "$*" "$plain"; }
fail() {
	printf '\nThe demo failed: %s\n' "$*" >&2
	[ ! -s "$tmp/daemon.log" ] || tail -n 15 "$tmp/daemon.log" | indent >&2
	exit 1
}
on() { # NAMESPACE COMMAND...
	local ns=$1
	shift
	ip netns exec "$ns" "$@"
}
sluice() { "$O/sluice" --socket "$tmp/run/control.sock" "$@"; }

network() {
	local ns
	for ns in $client $proxy $server; do
		ip netns add $ns && ip -n $ns link set lo up || return 1
	done
	ip -n $client link add eth0 type veth peer name client netns $proxy &&
		ip -n $server link add eth0 type veth peer name server netns $proxy &&
		ip -n $client addr add 10.98.1.2/24 dev eth0 && ip -n $client link set eth0 up &&
		ip -n $proxy addr add 10.98.1.1/24 dev client && ip -n $proxy link set client up &&
		ip -n $proxy addr add 10.98.2.1/24 dev server && ip -n $proxy link set server up &&
		ip -n $server addr add 10.98.2.2/24 dev eth0 && ip -n $server link set eth0 up
}

start_servers() {
	local nginx port
	mkdir "$web" && echo "Hello from the server behind Sluice." >"$web/hello.txt" || return 1
	head -c 60000000 /dev/urandom >"$web/download" || return 1
	nginx=$(PATH=$PATH:/usr/sbin command -v nginx)
	if [ -n "$nginx" ]; then
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
			-subj /CN=demo -addext subjectAltName=DNS:shop.example.com,DNS:blog.example.com \
			-keyout "$tmp/key.pem" -out "$tmp/cert.pem" 2>/dev/null || return 1
		cat >"$tmp/nginx.conf" <<-END
			daemon off;
			user root;
			worker_processes 1;
			pid $tmp/nginx.pid;
			error_log $tmp/nginx.log;
			events { }
			http {
			  access_log off;
			  client_body_temp_path $tmp/nginx-body;
			  proxy_temp_path $tmp/nginx-proxy;
			  fastcgi_temp_path $tmp/nginx-fastcgi;
			  uwsgi_temp_path $tmp/nginx-uwsgi;
			  scgi_temp_path $tmp/nginx-scgi;
			  server {
			    listen 8081;
			    listen 8082;
			    root $web;
			    location /paced { alias $web/download; limit_rate 6m; }
			  }
			  ssl_certificate $tmp/cert.pem;
			  ssl_certificate_key $tmp/key.pem;
			  server { listen 8443 ssl; return 200 "This is the shop.\n"; }
			  server { listen 8444 ssl; return 200 "This is the blog.\n"; }
			}
		END
		on $server "$nginx" -p "$tmp" -c "$tmp/nginx.conf" -e "$tmp/nginx.log" >/dev/null 2>&1 &
		server_name="nginx" paced=paced
	else
		for port in 8081 8082; do
			on $server /usr/bin/python3 -m http.server -d "$web" $port >/dev/null 2>&1 &
		done
		server_name="python3's http.server" paced=download
	fi
	for port in 8081 8082; do
		wait_for 50 on $server curl -sf -o /dev/null "http://127.0.0.1:$port/hello.txt" || return 1
	done
}

# The second form has one more route, so that every other reload changes something.
write_config() { # [more]
	cat >"$config.new" <<-END
		version: 1
		global:
		  runtime_dir: $tmp/run
		  state_dir: $tmp/state
		  bpf_dir: $tmp/bpf/sluice
		  http: 127.0.0.1:9180
		  log: { access: $tmp/access.log }
		routes:
		  - name: web
		    match: { ports: 8080 }
		    forward: ["10.98.2.2:8081", "10.98.2.2:8082"]
		    timeouts: { connect: 3s }
	END
	if [ "${1:-}" = more ]; then
		cat >>"$config.new" <<-END
			  - name: second
			    match: { ports: 8090 }
			    forward: "10.98.2.2:8082"
		END
	fi
	mv "$config.new" "$config"
}

# ---- the show ---------------------------------------------------------------

# A place for pinned kernel objects that goes with the demo; without one the kernel carries nothing.
mkdir "$tmp/bpf" && mount -t bpf bpf "$tmp/bpf" 2>/dev/null
network || fail "could not make the network namespaces"
start_servers || fail "the server did not start"
write_config

say "Three network namespaces: client (curl), proxy (Sluice), server ($server_name)." \
	"The client cannot reach the server but through the proxy."

heading "A configuration"
say "Port 8080 goes to two targets in turn; everything else is default." ""
indent <"$config"

# Not through on(): the shell's child must be the daemon itself.
start_daemon() {
	ip netns exec $proxy "$O/sluiced" -c "$config" >>"$tmp/daemon.log" 2>&1 &
	daemon=$!
}
start_daemon
wait_for 50 on $client curl -sf -m 2 -o "$tmp/hello" $url/hello.txt || fail "no answer through the proxy"

heading "A request through it"
shown curl $url/hello.txt
on $client curl -sf -m 5 $url/hello.txt | indent
say "" "One line per connection tells what became of it (log: access):"
has_line() { [ -s "$tmp/access.log" ]; }
wait_for 20 has_line || fail "no access line was written"
tail -n 1 "$tmp/access.log" | fold -s -w 92 | indent

heading "Connections moving"
say "The client starts $downloads downloads of 60 MB, each limited to 10 MB/s." ""
pids=()
for ((i = 0; i < downloads; i++)); do
	on $client curl -sf -m 30 --limit-rate 10M -o "$tmp/download.$i" $url/download &
	pids+=($!)
done
# The columns that fit an ordinary terminal; drawn in place on one, thrice otherwise.
table() {
	sluice conns --json >"$tmp/conns" || fail "sluice conns"
	{
		echo "ROUTE STATE ENGINE CLIENT BACKEND AGE UP DOWN"
		jq -r 'if type == "array" then . else .connections end | sort_by(.client)[] |
			"\(.route) \(.state) \(.engine)/\(.engine_reason) \(.client) \(.backend) \(.age_s * 10 | round / 10)s \(.bytes_up)B \(.bytes_down / 1e5 | round / 10)MB"' "$tmp/conns"
	} | column -t | indent
}
shown "sluice conns        (some of its columns)"
if [ -t 1 ]; then
	table >"$tmp/table"
	cat "$tmp/table"
	for ((i = 0; i < 8; i++)); do
		sleep 0.4
		printf '\e[%dA\e[J' "$(wc -l <"$tmp/table")"
		table >"$tmp/table"
		cat "$tmp/table"
	done
else
	for i in 1 2 3; do
		sleep 1
		table
		[ $i = 3 ] || say "    a second later:"
	done
fi

heading "The daemon at a glance"
shown sluice status
sluice status >"$tmp/status" || fail "sluice status"
fold -s -w 96 "$tmp/status" | indent
say ""
shown "curl http://127.0.0.1:9180/metrics | grep bytes_total"
on $proxy curl -sf -m 5 http://127.0.0.1:9180/metrics | grep '^sluice_bytes_total' | indent
bad=0
for pid in "${pids[@]}"; do wait "$pid" || bad=$((bad + 1)); done
for ((i = 0; i < downloads; i++)); do
	cmp -s "$web/download" "$tmp/download.$i" || bad=$((bad + 1))
	rm -f "$tmp/download.$i"
done
[ $bad = 0 ] || fail "$bad downloads are damaged"
say "" "Meanwhile all $downloads downloads arrived; each is equal to the original, byte for byte."

# What the kernel carries needs no daemon.
carried() { sluice conns --json | jq '[.[] | select(.engine == "packet")] | length'; }
all_carried() { [ "$(carried)" = 3 ]; }
received() { stat -c %s "$tmp"/survivor.* 2>/dev/null | awk '{ n += $1 } END { printf "%.1f MB\n", n / 1e6 }'; }
adopted() { [ "$(sluice status --json 2>/dev/null | jq '.kernel.adopted > 0 and .connections.active > 0 and .kernel.orphans == 0')" = true ]; }
survive() {
	local pid before bad=0 i n
	pids=()
	for i in 1 2 3; do
		on $client curl -sf -m 60 --limit-rate 6M -o "$tmp/survivor.$i" $url/$paced &
		pids+=($!)
	done
	wait_for 60 all_carried || {
		say "Only $(carried) of 3 downloads have moved, the others were never quiet: no kill then."
		for pid in "${pids[@]}"; do wait "$pid"; done
		return
	}
	say "Three more downloads. After 64 KiB or a second each moves into the kernel, as those before did:" \
		"a program at the network interfaces rewrites its packets, no process touches a byte." ""
	shown sluice flows
	sluice flows --json | jq -r '"CLIENT FRONT SOURCE BACKEND STATE PACKETS", (.flows[] | select(.state == "active") |
		"\(.client) \(.front) \(.source) \(.backend) \(.state) \(.up.packets + .down.packets)")' | column -t | indent
	say "" "Now every process of the daemon is killed."
	kill_daemon
	before=$(received)
	sleep 1
	say "    processes in the proxy's namespace   $(ip netns pids $proxy | wc -l)" \
		"    received so far                      $before" \
		"    a second later                       $(received)" ""
	say "A new daemon finds them, with their ids, clients, routes and counters:"
	start_daemon
	wait_for 50 adopted || fail "the new daemon found no flow"
	shown sluice status
	sluice status | grep -E '^(sluiced|connections|packet)' | fold -s -w 96 | indent
	table
	for pid in "${pids[@]}"; do wait "$pid" || bad=$((bad + 1)); done
	for i in 1 2 3; do cmp -s "$web/download" "$tmp/survivor.$i" || bad=$((bad + 1)); done
	[ $bad = 0 ] || fail "$bad downloads did not survive"
	say "" "All three arrived, byte for byte, and have an access line like any other:"
	has_lines() { [ "$(grep -c engine=packet "$tmp/access.log")" -ge 3 ]; }
	wait_for 20 has_lines || fail "no access lines of the survivors"
	n=$(tail -n 1 "$tmp/access.log")
	fold -s -w 92 <<<"$n" | indent
}
namespace_is_empty() { [ -z "$(ip netns pids $proxy)" ]; }
kill_daemon() {
	shown kill -9 "\$(all of them)"
	{ # without the shell's own words about it
		ip netns pids $proxy | while read -r pid; do kill -9 "$pid"; done
		wait $daemon
	} 2>/dev/null
	wait_for 20 namespace_is_empty || fail "something is left in the proxy's namespace"
}
heading "kill -9 of the daemon in the middle"
if sluice status --json | jq -e .packet.available >/dev/null; then
	survive
else
	say "This needs the packet engine, and here it is $(sluice status --json | jq -r .packet.reason)."
fi
rm -f "$tmp"/survivor.*

joined_is_on() { [ "$(sluice status --json | jq .sockmap.available)" = true ]; }
joined_state() { sluice flows --json | jq -r '.flows[] | select(.engine == "sockmap").state'; }
is_joined() { [[ "$(joined_state)" =~ ^(active|spilled)$ ]]; }
is_given_back() { [ "$(joined_state)" = given_back ]; }
show_joined() {
	local id pid
	wait_for 80 joined_is_on || {
		say "" "The engine is $(sluice status --json | jq -r .sockmap.reason)."
		return
	}
	on $client curl -sf -m 60 --limit-rate 12M -o "$tmp/joined" http://10.98.1.1:8089/download &
	pid=$!
	wait_for 50 is_joined || fail "the download was not handed over"
	sleep 0.5 # so that there is something to be seen
	say "" "A download, which is not what this engine is for. What waits in the kernel has a bound (1 MiB)," \
		"above which the bytes go to the daemon (TO DAEMON) until the receiver has caught up:" ""
	shown "sluice flows"
	sluice flows --json | jq -r '"ROUTE STATE CLIENT BACKEND DOWN TO_DAEMON SPILLS MOST_WAITING", (.flows[] | select(.engine == "sockmap") |
		"\(.route) \(.state) \(.client) \(.backend) \(.down.bytes / 1e5 | round / 10)MB \(.down.passed_bytes / 1e5 | round / 10)MB \(.down.spills) \(.down.max_waiting / 1e3 | round)kB")' |
		column -t | indent
	id=$(sluice flows --json | jq '.flows[] | select(.engine == "sockmap").id')
	say "" "In the middle of it the relay takes over:"
	shown "sluice move $id relay"
	sluice move "$id" relay | fold -s -w 96 | indent
	wait_for 20 is_given_back || fail "the move did not come about"
	shown "sluice conns $id"
	sluice conns "$id" | grep '^moved' | indent
	wait $pid && cmp -s "$web/download" "$tmp/joined" || fail "the download is damaged"
	rm -f "$tmp/joined"
	say "" "It arrived, byte for byte."
}
heading "Two sockets joined in the kernel, and a move by hand"
say "With engine: sockmap the kernel queues what one socket receives to the other." ""
route='{engine: sockmap, match: {ports: 8089}, forward: "10.98.2.2:8081"}'
printf "  %s\$ echo '%s' | sluice routes set chat%s\n" "$bold" "$route" "$plain"
echo "$route" | sluice routes set chat - | indent
show_joined

heading "What the kernel holds is looked after"
pin=
for name in routes sockmap_slots; do
	[ ! -e "$tmp/bpf/sluice/$name" ] || pin=$name
done
if [ -n "$pin" ]; then
	say "Somebody removes a pinned map of the daemon. Asked to compare the kernel with its records, it finds" \
		"that and puts it back; nobody asked, it would have done so within a second:" ""
	shown rm "/sys/fs/bpf/sluice/$pin"
	rm "$tmp/bpf/sluice/$pin"
	shown sluice diff
	sluice diff >"$tmp/diff" || fail "sluice diff ended with $?"
	fold -s -w 96 "$tmp/diff" | indent
	grep -q "^-pin $pin" "$tmp/diff" && [ -e "$tmp/bpf/sluice/$pin" ] || fail "the pin is not there again"
else
	shown sluice diff
	sluice diff | fold -s -w 96 | indent
fi

heading "A mistake in the configuration"
say "A port that does not exist and a misspelt key, found before anything is touched:" ""
sed 's/ports: 8080/ports: 80800/; s/connect: 3s/conect: 3s/' "$config" >"$tmp/broken.yaml"
shown sluice check broken.yaml
(cd "$tmp" && "$O/sluice" check broken.yaml) >"$tmp/check" 2>&1
rc=$?
fold -s -w 96 "$tmp/check" | indent
[ $rc = 78 ] || fail "sluice check ended with $rc instead of 78"
say "" "Exit code $rc: a service manager knows not to restart on that."

if [ "$server_name" = nginx ]; then
	heading "Two names on one port, added while it runs"
	say "The shop and the blog speak TLS; Sluice reads the name in the client's first message and" \
		"hands the bytes on unchanged. It has no certificate." ""
	for site in shop:8443 blog:8444; do
		route="{match: {ports: 443, domains: ${site%:*}.example.com}, forward: \"10.98.2.2:${site#*:}\"}"
		printf "  %s\$ echo '%s' | sluice routes set %s%s\n" "$bold" "$route" "${site%:*}" "$plain"
		echo "$route" | sluice routes set "${site%:*}" - | indent
	done
	for site in shop blog; do
		shown curl https://$site.example.com/
		on $client curl -skf -m 5 --resolve $site.example.com:443:10.98.1.1 https://$site.example.com/ |
			indent || fail "no answer from the $site"
	done
	say ""
	shown sluice explain 443 blog.example.com
	sluice explain 443 blog.example.com | fold -s -w 96 | indent
fi

make_cert() { # DAYS
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$1" \
		-subj /CN=pay.example.com -addext subjectAltName=DNS:pay.example.com \
		-keyout "$tmp/pay.new" -out "$tmp/pay.pem.new" 2>/dev/null &&
		cat "$tmp/pay.pem.new" >>"$tmp/pay.new" && mv "$tmp/pay.new" "$tmp/pay.pem"
}
is_renewed() { sluice cert show pay --json | jq -e '.certificates[0].expires_in_s > 60 * 86400' >/dev/null; }
has_tls_line() { grep -q ' route=pay ' "$tmp/access.log"; }
show_certs() {
	shown "sluice cert"
	sluice cert | sed "s#$tmp/#.../#" | indent
}
end_tls() {
	local route
	make_cert 30 || fail "openssl made no certificate"
	route="{match: {ports: 443, domains: pay.example.com}, tls: {cert: $tmp/pay.pem},
      forward: {targets: \"10.98.2.2:8443\", tls: {verify: $tmp/cert.pem, server_name: shop.example.com}}}"
	printf "  %s\$ echo '%s' | sluice routes set pay%s\n" "$bold" "${route//$tmp/...}" "$plain"
	echo "$route" | sluice routes set pay - | indent
	cp "$tmp/pay.pem" "$tmp/trusted.pem"
	shown curl --cacert pay.pem https://pay.example.com/
	on $client curl -sf -m 5 --cacert "$tmp/trusted.pem" --resolve pay.example.com:443:10.98.1.1 \
		https://pay.example.com/ | indent || fail "no answer through TLS that ends here"
	wait_for 20 has_tls_line || fail "no access line of TLS"
	say ""
	grep ' route=pay ' "$tmp/access.log" | tail -n 1 | fold -s -w 92 | indent
	say ""
	show_certs
	say "" "The file is replaced by a certificate that lasts longer, as a renewal does; nothing else is done:"
	make_cert 90 || fail "openssl made no second certificate"
	wait_for 50 is_renewed || fail "the new certificate is not in use"
	show_certs
}
if [ "$server_name" = nginx ]; then
	heading "TLS that ends here, and begins anew"
	say "A third name on that port, with a certificate of Sluice's own, made just now. What clients send is" \
		"encrypted again towards the server, whose certificate is verified." ""
	end_tls
fi

# Kept, so that the next daemon has them, too.
set_route() { # NAME ROUTE
	printf "  %s\$ echo '%s' | sluice routes set --keep %s%s\n" "$bold" "$2" "$1" "$plain"
	echo "$2" | sluice routes set --keep "$1" - | indent
}
ask_name() { on "$1" dig +short +tries=1 +time=2 "@$2" sluice.demo; }
is_answered() { [ "$(ask_name "$1" "$2")" = 192.0.2.53 ]; }
nat_is_on() { [ "$(sluice status --json | jq .nftables.available)" = true ]; }
nat_downloads() { sluice conns --route nat --json 2>/dev/null | jq '[.[] | select(.bytes_down > 1000000)] | length'; }
has_nat_download() { [ "$(nat_downloads)" = 1 ]; }
ask_both() {
	local answer
	shown dig +short @10.98.1.1 sluice.demo
	answer=$(ask_name $client 10.98.1.1)
	[ "$answer" = 192.0.2.53 ] || fail "no answer to the question for a name"
	indent <<<"$answer"
	shown curl "$nat_url/hello.txt"
	on $client curl -sf -m 5 "$nat_url/hello.txt" | indent || fail "no answer through the kernel's NAT"
}
show_nat() {
	local dnsmasq=$1 long
	on $server "$dnsmasq" -k -C /dev/null --pid-file= -R -h --listen-address=10.98.2.2 --bind-interfaces \
		--address=/sluice.demo/192.0.2.53 >/dev/null 2>&1 &
	wait_for 50 is_answered $server 10.98.2.2 || fail "dnsmasq does not answer"
	shown sysctl -w net.ipv4.ip_forward=1
	on $proxy sysctl -w net.ipv4.ip_forward=1 | indent
	set_route dns '{engine: nftables, match: {ports: 53, protocol: udp}, forward: "10.98.2.2:53"}'
	set_route nat '{engine: nftables, match: {ports: 8088}, forward: ["10.98.2.2:8081", "10.98.2.2:8082"]}'
	wait_for 50 nat_is_on || {
		say "" "The engine is $(sluice status --json | jq -r .nftables.reason)."
		return
	}
	ask_both
	on $client curl -sf -m 60 --limit-rate 5M -o "$tmp/nat" "$nat_url/download" &
	long=$!
	say "" "The rules, and what the kernel's connection tracking says of a download that has begun:" ""
	shown nft list map inet sluice any4
	on $proxy nft list map inet sluice any4 | grep -A 9 elements | grep comment | sed 's/^[[:space:]]*/    /'
	wait_for 100 has_nat_download || fail "the download is not among the connections"
	shown sluice conns
	table
	say "" "Every process of the daemon is killed. New connections are served all the same:"
	kill_daemon
	say "    processes in the proxy's namespace   $(ip netns pids $proxy | wc -l)"
	ask_both
	say "" "A new daemon reads the rules and finds the download:"
	start_daemon
	wait_for 50 has_nat_download || fail "the new daemon did not find the download"
	shown sluice status
	sluice status | grep -E '^(sluiced|connections|nftables)' | fold -s -w 96 | indent
	wait $long && cmp -s "$web/download" "$tmp/nat" || fail "the download did not survive"
	say "" "It arrived, byte for byte. Its access line counts packets as the kernel does, with their headers:"
	nat_line() { grep -E 'route=nat .* down=[0-9]{8} ' "$tmp/access.log"; }
	has_nat_line() { nat_line >/dev/null; }
	wait_for 150 has_nat_line || fail "no access line of the download"
	nat_line | fold -s -w 92 | indent
	rm -f "$tmp/nat"
}
heading "Routes of the kernel's NAT: UDP, and nobody is needed"
say "With engine: nftables the kernel forwards from the first packet on, by rules that Sluice writes." ""
nat_url=http://10.98.1.1:8088
dnsmasq=$(PATH=$PATH:/usr/sbin command -v dnsmasq)
if [ -n "$dnsmasq" ] && command -v dig nft >/dev/null; then
	show_nat "$dnsmasq"
else
	say "To show it, dnsmasq, dig and nft are needed: ./install-deps.sh"
fi

heading "Ten reloads under load"
say "Four clients ask without a pause, one long download runs, the configuration changes ten times." ""
touch "$tmp/load"
requests() { # NUMBER: one curl per request, until the file `load` is gone
	local ok=0 bad=0
	while [ -e "$tmp/load" ]; do
		if [ "$(curl -sf -m 5 $url/hello.txt)" = "Hello from the server behind Sluice." ]; then
			ok=$((ok + 1))
		else
			bad=$((bad + 1))
		fi
	done
	echo $ok $bad >"$tmp/requests.$1"
}
export -f requests
export tmp url
on $client curl -sf -m 30 --limit-rate 15M -o "$tmp/long" $url/download &
long=$!
pids=()
for i in 1 2 3 4; do
	on $client bash -c "requests $i" &
	pids+=($!)
done
for ((i = 1; i <= 10; i++)); do
	if [ $((i % 2)) = 1 ]; then write_config more; else write_config; fi
	sluice reload >"$tmp/reload" 2>&1 || {
		cat "$tmp/reload" >&2
		fail "reload $i"
	}
	sleep 0.2
done
rm "$tmp/load"
for pid in "${pids[@]}"; do wait "$pid"; done
wait $long && cmp -s "$web/download" "$tmp/long" || fail "the long download did not survive the reloads"
read -r ok bad < <(cat "$tmp"/requests.* | awk '{ ok += $1; bad += $2 } END { print ok, bad }')
say "    reloads            10" "    requests answered  $ok" "    requests failed    $bad" \
	"    long download      complete and unchanged"
[ "$bad" = 0 ] && [ "$ok" -gt 0 ] || fail "$bad requests failed during the reloads"

heading "The end"
say "SIGTERM lets connections finish and ends with exit code 0."
kill -TERM $daemon
wait $daemon
rc=$?
daemon=
[ $rc = 0 ] || fail "sluiced ended with $rc"

say "" "${bold}Where to look next${plain}" \
	"  README.md                  a first configuration for your own host" \
	"  docs/operations.md         signals, reload, upgrade, engines, logs, metrics, reasons" \
	"  docs/bpftool.md            the kernel's side of it" \
	"  docs/nftables.md           routes of the kernel's NAT: when, how, what if not" \
	"  $(realpath --relative-to=. "$O")/sluice help          what can be asked of a running daemon" \
	"  make check                 all tests;  make bench: figures against other proxies"
