#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 20 upgrades under load.
UPGRADES=20 exec "$(dirname "$0")/../e2e/test_upgrade.sh"
