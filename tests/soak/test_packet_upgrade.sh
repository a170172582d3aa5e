#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 20 upgrades while the kernel carries gigabytes.
UPGRADES=20 LOAD=4000 exec "$(dirname "$0")/../e2e/test_packet_upgrade.sh"
