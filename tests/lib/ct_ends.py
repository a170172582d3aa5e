#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A line for each entry that connection tracking forgets: "CLIENT:PORT UP DOWN", bytes as it counted them.

Until SIGTERM, at most 300 s. conntrack -E loses events of a burst, for its buffer is small until it has lost some;
this one ends with 1 if that happens.
"""
import socket
import struct
import sys
import time

SOL_NETLINK, ADD_MEMBERSHIP, DESTROY_GROUP, RCVBUFFORCE = 270, 1, 3, 33
TUPLE_ORIG, COUNT_ORIG, COUNT_REPLY = 1, 9, 10


def attributes(data):
    """{type: payload} of a run of netlink attributes."""
    found, at = {}, 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    return found


def source(data):
    parts = attributes(data)
    ip, proto = attributes(parts[1]), attributes(parts[2])
    host = socket.inet_ntoa(ip[1]) if 1 in ip else "[" + socket.inet_ntop(socket.AF_INET6, ip[3]) + "]"
    return f"{host}:{struct.unpack('>H', proto[2])[0]}" if 2 in proto else None


def octets(data):
    return struct.unpack(">Q", attributes(data)[2])[0]


def lines(data):
    at = 0
    while at + 20 <= len(data):
        size = struct.unpack_from("=I", data, at)[0]
        entry = attributes(data[at + 20 : at + size])
        name = source(entry[TUPLE_ORIG])
        if name and COUNT_ORIG in entry:
            yield f"{name} {octets(entry[COUNT_ORIG])} {octets(entry[COUNT_REPLY])}"
        at += (size + 3) & ~3


def main():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    s.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, 16 << 20)
    s.bind((0, 0))
    s.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, DESTROY_GROUP)
    s.settimeout(1)
    print("ready", flush=True)
    end = time.monotonic() + 300
    while time.monotonic() < end:
        try:
            data = s.recv(1 << 16)
        except TimeoutError:
            continue
        except OSError as e:
            print(f"lost: {e}", file=sys.stderr)
            sys.exit(1)
        for line in lines(data):
            print(line, flush=True)


main()
