#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A gigabyte for a reader that has stopped.
set -eu
cd "$(dirname "$0")/../.."
SIZE=1073741824 tests/e2e/test_sockmap_slow_reader.sh
