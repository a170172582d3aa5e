#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Every way a connection can go and end: with its sockets joined in the kernel it is the same as on the relay.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/equivalence.sh"

equivalence sockmap
