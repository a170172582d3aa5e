#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What tests/e2e/test_drift_sockmap.sh does to one side of a connection, done to either.
cd "$(dirname "$0")/../.." || exit 1
ALL=1 exec tests/e2e/test_drift_sockmap.sh
