#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 1000 connections handed over in the same moment, ten times.
set -eu
cd "$(dirname "$0")/../.."
N=256 ROUNDS=3 tests/e2e/test_packet_storm.sh
SETTLE=1 N=1000 ROUNDS=10 MAX=300000 tests/e2e/test_packet_storm.sh
