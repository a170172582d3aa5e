#!/bin/sh
# Fails when an object of core/ needs anything but core/, pure parts of base/,
# and memory and string primitives. Arguments: the objects, built without
# sanitizers or coverage.
set -eu
libc='mem(cpy|cmp|move|set|chr|mem)|bcmp|str(len|n?cmp|n?casecmp|chr|rchr|nlen|spn|cspn)'
compiler='__popcountdi2|__stack_chk_fail|__assert_fail|__mem(cpy|set|move)_chk|_GLOBAL_OFFSET_TABLE_'
base='sl_siphash|sl_num_parsen?|sl_addr_[a-z_]*'
own=$(nm -g --defined-only "$@" | awk 'NF == 3 { print $3 }' | sort -u)
bad=$(nm -u "$@" | awk '$1 == "U" { print $2 }' | sort -u |
	grep -Ev "^($libc|$compiler|$base)$" | grep -Fxv "$own" || true)
[ -z "$bad" ] && exit 0
echo "core/ is not pure, it needs:" $bad >&2
exit 1
