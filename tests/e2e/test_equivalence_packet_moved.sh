#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The same of connections that move into the kernel in the middle of a transfer.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/equivalence.sh"

equivalence packet_moved
