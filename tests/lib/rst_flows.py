#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the connections that a host's stack has reset are, or were, flows of the engine.

rst_flows.py FLOWS SET...: FLOWS is a dump of the map by bpftool, each SET one of nft that holds "local address .
port . remote address . port" with a timeout of a day, renewed by each RST. One line for each that was reset after the flow's connection had been accepted.
"""
import ipaddress
import json
import sys
import time

DAY = 86400


def address(octets):
    ip = ipaddress.IPv6Address(bytes(octets))
    return str(ip.ipv4_mapped or ip)


def resets(names, now):
    found = {}
    for name in names:
        with open(name, encoding="ascii") as f:
            for part in json.load(f)["nftables"]:
                for e in part.get("set", {}).get("elem", []):
                    local, port, remote, rport = e["elem"]["val"]["concat"]
                    found[local, port, remote, rport] = now - (DAY - e["elem"]["expires"])
    return found


def main():
    found = resets(sys.argv[2:], time.monotonic())
    with open(sys.argv[1], encoding="ascii") as f:
        flows = json.load(f)
    for flow in flows:
        key, value = flow["formatted"]["key"], flow["formatted"]["value"]
        name = address(key["daddr"]), key["dport"], address(key["saddr"]), key["sport"]
        # "expires" is in whole seconds; a tuple of relay that was reset may be used again
        if name in found and found[name] + 1 >= value["accepted_ns"] / 1e9:
            print(*name, value["state"], value["from"], "rst", value["rst"], "fins acked", value["peer_fin_acked"])


main()
