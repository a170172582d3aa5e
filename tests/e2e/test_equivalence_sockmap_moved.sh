#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The same of connections whose sockets are joined in the middle of a transfer, of those that by command go
# back to the relay in the middle of the next, and of those that are then joined again.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/equivalence.sh"

equivalence sockmap_moved sockmap_back sockmap_again
