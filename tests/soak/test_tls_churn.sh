#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 20 000 handshakes given up after each of their bytes.
set -eu
cd "$(dirname "$0")/../.."
N=20000 exec tests/e2e/test_tls_churn.sh
