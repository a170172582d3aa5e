#!/bin/sh
# Fails when clang-format 14 would change a file; other versions differ in details.
set -eu
cd "$(dirname "$0")/../.."
tool=
for candidate in clang-format-14 clang-format; do
	if command -v "$candidate" >/dev/null && "$candidate" --version | grep -q 'version 14\.'; then
		tool=$candidate
		break
	fi
done
if [ -z "$tool" ]; then
	echo "SKIP: clang-format 14 is not installed"
	exit 77
fi
find userspace nft bpf tools tests -name '*.[ch]' -exec "$tool" --dry-run --Werror {} +
