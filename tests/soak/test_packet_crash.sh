#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The daemon is killed 20 times in transfers of gigabytes both ways, its processes 5 times each; then flows
# of more than 4 GiB, so that every sequence number has wrapped, and all entries gone at the end.
set -eu
cd "$(dirname "$0")/../.."
ROUNDS=20 MB=3000 RATE=0 KILLS=5 tests/e2e/test_packet_crash.sh
ROUNDS=1 MB=4600 RATE=0 KILLS=1 SETTLE=1 tests/e2e/test_packet_crash.sh
