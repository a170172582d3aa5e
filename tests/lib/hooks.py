#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which programs are at the ingress of an interface of this namespace, tcx links (bpftool 7.1 does not
know them) and classic filters: one line "tcx|tc|xdp NAME ID" each.

  hooks.py LINK
"""
import ctypes
import json
import os
import platform
import socket
import struct
import subprocess
import sys

SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD, PROG_QUERY = 13, 15, 16
TCX_INGRESS, XDP = 46, 37
libc = ctypes.CDLL(None, use_errno=True)


def bpf(cmd, attr):
    buf = ctypes.create_string_buffer(attr, 128)
    ret = libc.syscall(SYS_BPF, cmd, buf, 128)
    if ret < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return ret, buf.raw


def prog_name(prog_id):
    fd, _ = bpf(PROG_GET_FD_BY_ID, struct.pack("I", prog_id))
    info = ctypes.create_string_buffer(256)
    bpf(OBJ_GET_INFO_BY_FD, struct.pack("IIQ", fd, 256, ctypes.addressof(info)))
    os.close(fd)
    # type, id, tag, jited len, xlated len, two pointers, load time, uid, map ids
    at = 4 + 4 + 8 + 4 + 4 + 8 + 8 + 8 + 4 + 4 + 8
    return info.raw[at:at + 16].split(b"\0")[0].decode()


def tcx(link):
    ids = (ctypes.c_uint32 * 64)()
    try:
        _, out = bpf(PROG_QUERY, struct.pack("IIIIQI", socket.if_nametoindex(link), TCX_INGRESS, 0, 0,
                                             ctypes.addressof(ids), 64))
    except OSError:
        return []
    return list(ids)[:struct.unpack("I", out[24:28])[0]]


def main():
    link = sys.argv[1]
    for prog_id in tcx(link):
        print("tcx", prog_name(prog_id), prog_id)
    filters = subprocess.run(["tc", "-j", "filter", "show", "dev", link, "ingress"], capture_output=True,
                             check=False, text=True).stdout
    for row in json.loads(filters or "[]"):
        if "prog" in row.get("options", {}):
            print("tc", row["options"]["prog"].get("name", "?"), row["options"]["prog"]["id"])
    shown = subprocess.run(["ip", "-j", "link", "show", "dev", link], capture_output=True, check=True, text=True)
    for row in json.loads(shown.stdout):
        if "xdp" in row and row["xdp"].get("prog"):
            print("xdp", row["xdp"]["prog"].get("name", "?"), row["xdp"]["prog"]["id"])


main()
