#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 10 000 checked transfers over TLS, of up to 8 MiB each way.
set -eu
cd "$(dirname "$0")/../.."
N=10002 MAX=8388608 SECONDS_MAX=900 exec tests/e2e/test_tls_peers.sh
