#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 20 000 randomised transfers queued from socket to socket: handed over at once, at random points and by age,
# with small buffers, slow readers, limits of 20 KiB and 1 MiB, half-closes, pauses and resets.
set -eu
cd "$(dirname "$0")/../.."
ROUNDS=${ROUNDS:-5} # of 4090 transfers
for ((i = 1; i <= ROUNDS; i++)); do
	N=400 CONC=64 SECONDS_MAX=300 tests/e2e/test_sockmap_integrity.sh
done
