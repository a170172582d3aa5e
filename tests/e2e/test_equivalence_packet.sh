#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Every way a connection can go and end: in the kernel from its first byte on it is the same as on the relay.
. "$(dirname "$0")/../lib/netlab.sh"
. "$(dirname "$0")/../lib/equivalence.sh"

equivalence packet
