#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The same of connections that the kernel's NAT carries; what has to differ there is in the script's table.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/natlab.sh"
. "$(dirname "$0")/../lib/equivalence.sh"

nat_up
equivalence nftables
