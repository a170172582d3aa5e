#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The part of testssl.sh's verdict that takes seconds; `make soak` has all of it.
set -eu
cd "$(dirname "$0")/../.."
SHORT=1 TESTS="--protocols" exec tests/soak/test_tls_testssl.sh
