#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 8 000 transfers over cables that lose 1 and 2 %, reorder and duplicate; large frames and small ones.
set -eu
cd "$(dirname "$0")/../e2e"
export N=2000 SECONDS_MAX=900
LOSS=10 REORDER=0 DUP=0 ./test_packet_bad_wire.sh
LOSS=20 REORDER=20 DUP=5 OFFLOADS=off ./test_packet_bad_wire.sh
LOSS=0 REORDER=100 BY=5 ./test_packet_bad_wire.sh
LOSS=15 REORDER=30 DUP=10 WRAPPED=1 ./test_packet_bad_wire.sh
