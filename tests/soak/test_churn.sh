#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 20 000 connects and aborts at every phase.
N=20000 exec "$(dirname "$0")/../e2e/test_churn.sh"
