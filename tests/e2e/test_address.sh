#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Listeners on one address: two routes share a port, other addresses are refused.
. "$(dirname "$0")/../lib/netlab.sh"

SECOND=10.91.0.9 THIRD=10.91.0.10
ip -n "$LAB-p" addr add $SECOND/16 dev cli
ip -n "$LAB-p" addr add $THIRD/16 dev cli
server one identify 8001
server two identify 8002
server any identify 8003
start_sluice "routes:
$(route a "\"$PROXY_IP:8080\"" "\"$BACKEND_IP:8001\"")
$(route b "\"$SECOND:8080\"" "\"$BACKEND_IP:8002\"")
$(route wide 8081 "\"$BACKEND_IP:8003\"")
$(route narrow "\"$SECOND:8081\"" "\"$BACKEND_IP:8001\"")
$(route six "\"[$PROXY6]:8082\"" "\"$BACKEND_IP:8002\"")"

reaches() { # TO NAME
	shot to="$1"
	assert_eq "$1 reaches" "$(of text | cut -d' ' -f1)" "$2"
}
say "one port, two addresses"
reaches $PROXY_IP:8080 one
reaches $SECOND:8080 two
shot to=$THIRD:8080
assert_eq "third address" "$(of connect)" refused

say "an address of its own wins over every address"
reaches $PROXY_IP:8081 any
reaches $THIRD:8081 any
reaches $SECOND:8081 one
reaches "[$PROXY6]:8081" any

say "an IPv6 address alone"
reaches "[$PROXY6]:8082" two
shot to=$PROXY_IP:8082
assert_eq "IPv4 on it" "$(of connect)" refused
