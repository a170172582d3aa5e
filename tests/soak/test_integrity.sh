#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 10 000 checked transfers, 1000 of them over links that lose 2 % of the packets.
set -eu
cd "$(dirname "$0")/../e2e"
N=9000 CONC=64 SECONDS_MAX=300 ./test_integrity.sh
LOSS=2 N=1000 CONC=64 SECONDS_MAX=300 MAX=500000 ./test_integrity.sh
