#!/bin/sh
# Fails when a file includes a header from a layer above its own, or a
# third-party header outside its home. The layers are those of ARCHITECTURE.md.
set -eu
cd "$(dirname "$0")/../.."

allowed() {
	case $1 in
	base) echo 'base' ;;
	core) echo 'base core' ;;
	conf) echo 'base core conf' ;;
	io) echo 'base core io' ;;
	tls) echo 'base core tls' ;;
	accel) echo 'base core accel' ;;
	nft) echo 'base core nft' ;;
	broker) echo 'base core conf io accel broker' ;;
	proxy) echo 'base core conf io tls broker proxy' ;;
	ctl) echo 'base core conf io broker proxy ctl' ;;
	daemon) echo 'base core conf io tls accel broker proxy ctl daemon' ;;
	*) echo '' ;;
	esac
}

# header pattern -> the only places that may include it
home() {
	case $1 in
	sys/epoll.h) echo 'userspace/io/loop.c' ;;
	ares.h) echo 'userspace/io/dns.c' ;;
	yaml.h) echo 'userspace/conf/' ;;
	seccomp.h) echo 'userspace/daemon/' ;;
	cap-ng.h) echo 'userspace/daemon/' ;;
	jansson.h) echo 'userspace/ctl/' ;;
	bpf/*) echo 'userspace/accel/' ;;
	abi.h) echo 'userspace/accel/ userspace/broker/ userspace/daemon/proxy_role.c' ;;
	*.skel.h) echo 'userspace/accel/' ;;
	libnftnl/* | libmnl/*) echo 'nft/' ;;
	openssl/*) echo 'userspace/tls/' ;;
	*) echo '' ;;
	esac
}

bad=0
for f in userspace/*/*.[ch] nft/*.[ch]; do
	layer=$(basename "$(dirname "$f")")
	for inc in $(sed -n 's,^#include "\([a-z]*\)/.*,\1,p' "$f"); do
		case " $(allowed "$layer") " in
		*" $inc "*) ;;
		*)
			echo "$f: layer '$layer' must not include '$inc/'" >&2
			bad=1
			;;
		esac
	done
	for inc in $(sed -n 's,^#include [<"]\([^>"]*\)[>"].*,\1,p' "$f"); do
		places=$(home "$inc")
		ok=${places:+no}
		for place in $places; do
			case $f in
			"$place"*) ok= ;;
			esac
		done
		if [ -n "$ok" ]; then
			echo "$f: <$inc> belongs to $places" >&2
			bad=1
		fi
	done
done
exit $bad
