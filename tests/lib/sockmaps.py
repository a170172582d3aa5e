#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the maps of the sockmap engine hold, fast enough to be asked fifty times a second.

  sockmaps.py DIR counts       {"flows": N, "targets": N, "sources": N, "slots": N, "wishes": N}
  sockmaps.py DIR slots        the slots in use, with their fields, as of bpf/abi.h
  sockmaps.py DIR keys MAP     its keys, one a line, as bpftool wants them: "hex 01 02 ..."
  sockmaps.py DIR lose SLOT    says in that slot that the program has lost a packet
"""
import ctypes
import json
import mmap
import os
import platform
import struct
import sys

NR_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
GET_NEXT_KEY, OBJ_GET, INFO_BY_FD = 4, 7, 15
SLOT = struct.Struct("=6Q10I")
SLOT_FIELDS = (
    "conn_id cookie redirected passed packets last_ns "
    "state why limit base is_based spills max_waiting next_seq has_next pad"
).split()
ORDER = struct.Struct("=Q2I")
WHY_AT, LOST = 6 * 8 + 4, 7  # SL_SOCKMAP_LOST
libc = ctypes.CDLL(None, use_errno=True)


def bpf(cmd, attr):
    buf = ctypes.create_string_buffer(attr, 128)
    r = libc.syscall(NR_BPF, cmd, buf, 128)
    if r < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return r


def open_map(directory, name):
    path = ctypes.create_string_buffer(os.path.join(directory, name).encode())
    return bpf(OBJ_GET, struct.pack("=QII", ctypes.addressof(path), 0, 0))


def sizes(fd):  # of a key, of a value, entries
    info = ctypes.create_string_buffer(64)
    bpf(INFO_BY_FD, struct.pack("=IIQ", fd, 64, ctypes.addressof(info)))
    _, _, key, value, entries = struct.unpack_from("=5I", info.raw)
    return key, value, entries


def keys(fd):
    size, _, most = sizes(fd)
    here, after = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
    at, seen = 0, set()
    while len(seen) <= most:
        try:
            bpf(GET_NEXT_KEY, struct.pack("=IIQQ", fd, 0, at, ctypes.addressof(after)))
        except FileNotFoundError:
            break
        seen.add(after.raw)  # a walk begins anew where its key has gone meanwhile
        here.raw = after.raw
        at = ctypes.addressof(here)
    return seen


def rows(fd, layout):
    _, value, entries = sizes(fd)
    if value != layout.size:
        sys.exit(f"sockmaps: a value has {value} bytes, not {layout.size}")
    with mmap.mmap(fd, value * entries, mmap.MAP_SHARED, mmap.PROT_READ) as m:
        return list(layout.iter_unpack(m[:]))


def slots(directory):
    found = []
    for number, row in enumerate(rows(open_map(directory, "sockmap_slots"), SLOT)):
        slot = dict(zip(SLOT_FIELDS, row))
        if slot["conn_id"] or slot["state"]:
            found.append({"slot": number, **slot})
    return found


def lose(directory, number):
    fd = open_map(directory, "sockmap_slots")
    _, value, entries = sizes(fd)
    with mmap.mmap(fd, value * entries, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as m:
        struct.pack_into("=I", m, number * value + WHY_AT, LOST)


def counts(directory):
    ret = {name: len(keys(open_map(directory, "sockmap_" + name))) for name in ("flows", "targets", "sources")}
    ret["slots"] = len(slots(directory))
    ret["wishes"] = sum(1 for row in rows(open_map(directory, "sockmap_orders"), ORDER) if row[1])
    return ret


def main():
    directory, verb = sys.argv[1:3]
    if verb == "counts":
        print(json.dumps(counts(directory)))
    elif verb == "slots":
        print(json.dumps(slots(directory)))
    elif verb == "lose":
        lose(directory, int(sys.argv[3]))
    elif verb == "keys":
        for key in sorted(keys(open_map(directory, sys.argv[3]))):
            print("hex", *(f"{b:02x}" for b in key))
    else:
        sys.exit(2)


main()
