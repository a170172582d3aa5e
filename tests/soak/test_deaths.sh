#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The process that carries connections is killed 20 times under load.
KILLS=20 APART=2 exec "$(dirname "$0")/../e2e/test_proxy_death.sh"
