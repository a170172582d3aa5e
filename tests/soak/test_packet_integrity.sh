#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# More than 20 000 randomised transfers handed over on their way: every option of TCP on and off, 32 and 256
# at a time, every pair of window scales.
set -eu
cd "$(dirname "$0")/../.."
N=1000 CONC=32 MAX=1000000 SCALE_N=3000 SECONDS_MAX=600 STALL=${STALL:-2000} tests/e2e/test_packet_integrity.sh
N=1500 CONC=256 MAX=300000 SECONDS_MAX=600 STALL=${STALL:-2000} \
	VARIANTS="plain offloads_off wrap loopback local_client resets" tests/e2e/test_packet_integrity.sh
