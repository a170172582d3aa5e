#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 20 000 handshakes given up after each of their bytes.
set -eu
cd "$(dirname "$0")/../e2e"
N=20000 exec ./test_tls_churn.sh
