#!/bin/sh
# Fails on what shellcheck reports for the project's shell scripts.
set -eu
cd "$(dirname "$0")/../.."
if ! command -v shellcheck >/dev/null; then
	echo "SKIP: shellcheck is not installed"
	exit 77
fi
find . -path ./build -prune -o -path ./.git -prune -o -type f -print |
	while read -r f; do
		case $(head -c 64 "$f" | head -n 1 | tr -d '\0') in
		'#!/bin/sh' | '#!/bin/bash' | '#!/usr/bin/env bash') printf '%s\0' "$f" ;;
		esac
	done | xargs -0 -r shellcheck -S warning
