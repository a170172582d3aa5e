#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# 1000 connections and a table of 64 flows.
N=1000 exec "$(dirname "$0")/../e2e/test_packet_full.sh"
