#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 50 certificates in 5 s, and 50 that each have time to be met.
set -eu
cd "$(dirname "$0")/../.."
SWAPS=50 tests/e2e/test_tls_swap.sh
SWAPS=50 PAUSE=1 MET=45 tests/e2e/test_tls_swap.sh
