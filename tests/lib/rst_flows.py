#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the connections that a host's stack has reset are, or were, flows of the engine.

rst_flows.py FLOWS SET...: FLOWS is a dump of the map by bpftool, each SET one of nft that holds "local address .
port . remote address . port". One line for each flow.
"""
import ipaddress
import json
import sys


def address(octets):
    ip = ipaddress.IPv6Address(bytes(octets))
    return str(ip.ipv4_mapped or ip)


def resets(names):
    found = set()
    for name in names:
        with open(name, encoding="ascii") as f:
            for part in json.load(f)["nftables"]:
                for e in part.get("set", {}).get("elem", []):
                    found.add(tuple(e["elem"]["val"]["concat"]))
    return found


def main():
    found = resets(sys.argv[2:])
    with open(sys.argv[1], encoding="ascii") as f:
        flows = json.load(f)
    for flow in flows:
        key, value = flow["formatted"]["key"], flow["formatted"]["value"]
        name = address(key["daddr"]), key["dport"], address(key["saddr"]), key["sport"]
        if name in found:
            print(*name, value["state"], value["from"], "rst", value["rst"], "fins acked", value["peer_fin_acked"])


main()
