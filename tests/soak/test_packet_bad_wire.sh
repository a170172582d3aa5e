#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 8 000 transfers over cables that lose 1 and 2 %, reorder and duplicate; large frames and small ones.
set -eu
cd "$(dirname "$0")/../.."
export N=2000 SECONDS_MAX=900
LOSS=10 REORDER=0 DUP=0 tests/e2e/test_packet_bad_wire.sh
LOSS=20 REORDER=20 DUP=5 OFFLOADS=off tests/e2e/test_packet_bad_wire.sh
LOSS=0 REORDER=100 BY=5 tests/e2e/test_packet_bad_wire.sh
LOSS=15 REORDER=30 DUP=10 WRAPPED=1 tests/e2e/test_packet_bad_wire.sh
