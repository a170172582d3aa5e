#!/bin/sh
# Fails when a header does not compile alone or has no include guard of its name.
set -eu
cd "$(dirname "$0")/../.."
bad=0
for h in userspace/*/*.h nft/*.h; do
	dir=$(basename "$(dirname "$h")")
	guard=$(printf 'SL_%s_%s_H' "$dir" "$(basename "$h" .h)" | tr 'a-z-' 'A-Z_')
	if ! grep -q "^#ifndef $guard\$" "$h"; then
		echo "$h: include guard is not $guard" >&2
		bad=1
	fi
	if ! ${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only -x c \
		-Iuserspace -I. -Ibpf -isystem "${O:-build}/gen" "$h"; then
		echo "$h: does not compile alone" >&2
		bad=1
	fi
done
exit $bad
