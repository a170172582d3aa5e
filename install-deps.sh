#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs what building, testing and the demo need: Debian 12 and 13, Ubuntu 24.04.
#   install-deps.sh [--dev] [--vm] [--list]
# --dev adds the tools behind `make coverage` and `make tidy`.
# --vm adds what `make vmtest` needs to run other kernels in virtual machines.
# --list only prints the package names.
# When nothing is missing it says so and touches neither network nor package manager.
# Services of installed packages are neither started nor enabled.
set -eu

die() {
	echo "install-deps.sh: $*" >&2
	exit 1
}

dev=no vm=no list=no
for arg in "$@"; do
	case $arg in
	--dev) dev=yes ;;
	--vm) vm=yes ;;
	--list) list=yes ;;
	*)
		echo "usage: install-deps.sh [--dev] [--vm] [--list]" >&2
		exit 2
		;;
	esac
done

command -v apt-get >/dev/null && command -v dpkg-query >/dev/null ||
	die "this system has no apt; install what is listed under 'Building' in CONTRIBUTING.md by hand"

# shellcheck source=/dev/null
release=$(. /etc/os-release 2>/dev/null && echo "${ID:-}:${VERSION_ID:-}") || release=unknown

# libFuzzer and the sanitizers of clang are a package of their own, named after its version.
# Ubuntu's browser is a snap; the stories that want one are skipped there.
bpftool=bpftool wish='' browser=chromium
case $release in
debian:12) clang=14 wish=clang-format-14 ;;
debian:13) clang=19 ;;
ubuntu:24.04) clang=18 wish=clang-format-14 bpftool='linux-tools-common linux-tools-generic' browser='' ;;
*)
	clang=19
	echo "install-deps.sh: not tested on '$release'; using the package names of Debian 13" >&2
	;;
esac

need="gcc libc6-dev make pkgconf clang llvm libclang-rt-$clang-dev $bpftool
	libbpf-dev libelf-dev zlib1g-dev libyaml-dev libjansson-dev libc-ares-dev libcap-ng-dev
	libseccomp-dev libssl-dev libnftnl-dev libmnl-dev libcmocka-dev
	iproute2 procps util-linux bsdextrautils libcap2-bin ethtool nftables netbase ca-certificates curl jq
	socat python3 python3-jsonschema python3-yaml nginx
	dnsmasq-base bind9-dnsutils conntrack iptables prometheus shellcheck git openssl gnutls-bin haproxy libnginx-mod-stream
	testssl.sh $browser"
if [ "$dev" = yes ]; then need="$need gcovr clang-tidy"; fi
if [ "$vm" = yes ]; then need="$need qemu-system-x86 cpio kmod xz-utils debian-archive-keyring"; fi
if [ "$list" = yes ]; then
	printf '%s\n' $need $wish
	exit 0
fi

# The names among the arguments that are not installed.
missing_of() {
	have=" $(dpkg-query -W -f '${Package}/${db:Status-Status} ' "$@" 2>/dev/null) " || :
	for p in "$@"; do
		case $have in
		*" $p/installed "*) ;;
		*) printf '%s ' "$p" ;;
		esac
	done
}

missing=$(missing_of $need)
if [ -z "$missing" ]; then
	echo "install-deps.sh: everything needed is installed"
	exit 0
fi
[ "$(id -u)" = 0 ] || die "must run as root to install: $missing"

# invoke-rc.d asks this file whether it may start a service: no, for as long as we install.
policy=/usr/sbin/policy-rc.d
mark='installed for a moment by install-deps.sh of sluice'
restore() {
	if grep -qs "$mark" $policy; then rm -f $policy; fi
	if [ -e $policy.sluice-saved ]; then mv -f $policy.sluice-saved $policy; fi
}
log=$(mktemp)
trap 'restore; rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
restore # what a run that was killed left behind
if [ -e $policy ]; then mv $policy $policy.sluice-saved; fi
printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" >$policy
chmod 755 $policy

export DEBIAN_FRONTEND=noninteractive
echo "install-deps.sh: refreshing the package lists"
apt-get update -qq -o APT::Update::Error-Mode=any ||
	echo "install-deps.sh: not every package list could be refreshed; going on with what there is" >&2

for p in $(missing_of $wish); do
	if apt-cache show "$p" >/dev/null 2>&1; then
		missing="$missing$p "
	else
		echo "install-deps.sh: $p is not available here; the check that wants it will be skipped" >&2
	fi
done

echo "install-deps.sh: installing ${missing}(no service is started or enabled)"
apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 $missing >"$log" 2>&1 || {
	grep '^[EW]:' "$log" | head -n 5 >&2 || :
	why='see the messages above'
	if [ -z "$(apt-cache show gcc 2>/dev/null | head -n 1)" ]; then
		why='there are no package lists: is this machine offline?'
	elif [ "${release%%:*}" = ubuntu ]; then
		why="$why; is the component 'universe' enabled and the machine online?"
	else
		why="$why; is the machine online?"
	fi
	die "apt-get could not install everything: $why"
}

# Packages enable their units at installation; undo that for those that were not there before.
for service in nginx haproxy prometheus; do
	case " $missing " in
	*" $service "*)
		if command -v systemctl >/dev/null; then
			systemctl disable --quiet "$service" 2>/dev/null || :
		elif command -v update-rc.d >/dev/null; then
			update-rc.d "$service" disable >/dev/null 2>&1 || :
		fi
		;;
	esac
done

# Ubuntu's bpftool is a wrapper that refuses to run under any kernel but the one it was built for.
if ! bpftool version >/dev/null 2>&1; then
	real=$(find /usr/lib/linux-tools* -name bpftool -type f 2>/dev/null | sort -V | tail -n 1)
	[ -n "$real" ] || die "bpftool does not run and no other one was found in /usr/lib/linux-tools*"
	ln -sf "$real" /usr/local/sbin/bpftool
	echo "install-deps.sh: linked /usr/local/sbin/bpftool to $real"
fi

left=$(missing_of $need)
[ -z "$left" ] || die "still missing after installation: $left"
echo "install-deps.sh: done"
