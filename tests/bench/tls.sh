# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154
# Sourced by tests/bench/run: the tests of TLS, tls_load being the clients.
#
# Their lanes have ports and daemons of their own. Who negotiates what follows from what the clients
# offer: one cipher, one group. Sessions live in tickets alone, so that no proxy keeps any.

TLS_TESTS=(tls-full-ec tls-full-rsa tls-full12-ec tls-resumed-ec tls-resumed-rsa tls-resumed12-ec
	tls-down1 tls-up1 tls-down8 tls-up8 tls-flood tls-flood-plain tls-flood-half tls-idle)
TLS_PORT=9010
# Slots, each a port of the lane and one of the backend. Those of round trips have a backend of
# their own, which is ahead of everything else on the machine, as if it were on another one.
TLS_EC=0 TLS_RSA=1 TLS_PLAIN=2 TLS_PING=3
tls_clients=32 tls_flooders=64
tls_idle_count=2000

is_tls() { case $1 in tls-*) true ;; *) false ;; esac } # LANE or TEST

make_certs() { # each kind: certificate, key, and both in one file
	local kind key
	for kind in ec rsa; do
		key=(-newkey rsa:2048)
		[ $kind != ec ] || key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256)
		(
			umask 077
			openssl req -x509 "${key[@]}" -nodes -days 2 -subj /CN=bench.example \
				-addext subjectAltName=DNS:bench.example \
				-keyout "$tmp/$kind.key" -out "$tmp/$kind.crt" 2>/dev/null &&
				cat "$tmp/$kind.crt" "$tmp/$kind.key" >"$tmp/$kind.pem"
		) || return 1
	done
}

kind_of_slot() { # SLOT: of its key; none: the slot is plain
	case $1 in
	"$TLS_RSA") echo rsa ;;
	"$TLS_PLAIN") ;;
	*) echo ec ;;
	esac
}

# ---- contenders: as without TLS, and certificates --------------------------

tls_route_sluice() { # SLOT
	local kind
	kind=$(kind_of_slot "$1")
	[ -z "$kind" ] || echo "tls: { cert: $tmp/$kind.crt, key: $tmp/$kind.key },"
}
tls_bind_haproxy() { # SLOT
	local kind
	kind=$(kind_of_slot "$1")
	[ -z "$kind" ] || echo "ssl crt $tmp/$kind.pem ssl-min-ver TLSv1.2"
}
tls_listen_nginx() { # SLOT
	[ -z "$(kind_of_slot "$1")" ] || echo ssl
}
tls_server_nginx() { # SLOT
	local kind
	kind=$(kind_of_slot "$1")
	[ -z "$kind" ] || echo "ssl_certificate $tmp/$kind.crt; ssl_certificate_key $tmp/$kind.key;"
}

# ---- tests -----------------------------------------------------------------

# "hands -2 0" of tls-full12-ec: mode, options, slot
tls_plan() { # TEST
	local mode slot=$TLS_EC options=
	case $1 in
	tls-full*) mode=hands ;;
	tls-resumed*) mode=resumed ;;
	tls-flood-plain) mode=flood slot=$TLS_RSA options="-c -p $((TLS_PORT + TLS_PLAIN))" ;;
	tls-flood-half) mode=flood slot=$TLS_RSA options="-h -p $((TLS_PORT + TLS_PING))" ;;
	tls-flood) mode=flood slot=$TLS_RSA options="-p $((TLS_PORT + TLS_PING))" ;;
	tls-down*) mode=down ;;
	tls-up*) mode=up ;;
	esac
	case $1 in
	*-rsa) slot=$TLS_RSA ;;
	*12-ec) options=-2 ;;
	esac
	echo "$mode $slot $options"
}

tls_clients_of() { # TEST
	case $1 in
	tls-flood*) echo $tls_flooders ;;
	*[a-z][18]) echo "${1##*[a-z]}" ;;
	*) echo $tls_clients ;;
	esac
}

# Full handshakes that were none, or resumed ones that were full.
tls_misses() { # TEST OUT
	local share
	share=$(grep -o 'resumed=[0-9.]*' <<<"$2" | cut -d= -f2)
	case $1/$share in
	tls-full*/0.0000 | tls-resumed*/1.0000 | tls-resumed*/0.99* | tls-[duf]*/) ;;
	*) echo "resumed: ${share:-nothing said}" ;;
	esac
}

tls_one() { # ROUND TEST CONTENDER
	local mode slot options out why=''
	read -r mode slot options < <(tls_plan "$2")
	# shellcheck disable=SC2046,SC2086 # words
	spawn_load load "$tls_load" $options "$mode" "$(front_of "tls-$3")" $((TLS_PORT + slot)) \
		"$(tls_clients_of "$2")" "$seconds" $(pids_of "tls-$3")
	join_load || why=$(tail -n 1 "$tmp/load.out")
	out=$(tail -n 1 "$tmp/load.out")
	[ -n "$why" ] || why=$(tls_misses "$2" "$out")
	if [ -n "$why" ]; then
		failed "$1" "$2" "$3" "$why, ${out//=/ } $(tail -n 1 "$tmp/tls-$3/log" 2>/dev/null)"
	else
		record "$1" "$2" "$3" "$out"
	fi
}

memory_kb() { # FIELD PID...: of /proc/PID/smaps_rollup
	local p field=$1
	shift
	for p in "$@"; do cat "/proc/$p/smaps_rollup"; done 2>/dev/null |
		awk -v f="$field:" '$1 == f { n += $2 } END { printf "%d", n }'
}

# A fresh instance each time; what the first handshakes need is there before.
tls_idle() { # ROUND TEST CONTENDER
	local lane=tls-$3 ours rss0 rss1 dirty0 dirty1
	start "$lane" || return 1
	# shellcheck disable=SC2207
	ours=($(pids_of "$lane"))
	ip netns exec $cl "$tls_load" hands "$(front_of "$lane")" $((TLS_PORT + TLS_EC)) 8 0.2 >/dev/null
	rss0=$(settled_rss "${ours[@]}")
	dirty0=$(memory_kb Private_Dirty "${ours[@]}")
	spawn_load idle "$tls_load" idle "$(front_of "$lane")" $((TLS_PORT + TLS_EC)) "$tls_idle_count"
	if await_word idle ready 600; then
		rss1=$(settled_rss "${ours[@]}")
		dirty1=$(memory_kb Private_Dirty "${ours[@]}")
		record "$1" "$2" "$3" "$(awk -v n="$tls_idle_count" -v a="$rss0" -v b="$rss1" -v c="$dirty0" -v d="$dirty1" \
			'BEGIN { printf "rss_kb_conn=%.3f private_kb_conn=%.3f rss_start_kb=%d", (b - a) / n, (d - c) / n, a }')"
	else
		stop_pid "$load_pid"
		load_pid=''
		failed "$1" "$2" "$3" "$(tr '\n' ' ' <"$tmp/idle.out")"
	fi
	[ -z "$load_pid" ] || join_load
	stop "$lane"
	return 0
}
