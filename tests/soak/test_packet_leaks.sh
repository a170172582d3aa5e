#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 20 000 churned connections with the engine on, until the last entry is gone.
N=20000 SETTLE=1 exec "$(dirname "$0")/../e2e/test_packet_leaks.sh"
