#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that says hello and checks who answers; ends with 1 when that is not as wanted.

  sni.py one     ADDR:PORT WHO [KEY=VALUE ...]   one hello, 5000 bytes after it
  sni.py splits  ADDR:PORT WHO [KEY=VALUE ...]   as two segments, at every byte of the hello
  sni.py drip    ADDR:PORT WHO [KEY=VALUE ...]   each byte of the hello a segment of its own
  sni.py records ADDR:PORT WHO [KEY=VALUE ...]   in records of every size (step=N: of every Nth)
  sni.py raw     ADDR:PORT WHO HEX               these bytes
  sni.py held    ADDR:PORT WHO at=N go=FILE [KEY=VALUE ...]
                 N bytes (negative: from the hello's end), prints "held", the rest when FILE is there;
                 at=0: the whole hello, and the greeting before FILE
  sni.py slow    ADDR:PORT ms=MS [KEY=VALUE ...] a byte each MS; prints after how many ms it was over
  sni.py head    ADDR:PORT N [KEY=VALUE ...]     the first N bytes of the answer to a hello, in hex
  sni.py cut     ADDR:PORT at=N [KEY=VALUE ...]  so many bytes, then FIN; waits for the end

WHO greets with its name and "|", then returns what it gets, so that every byte is compared; "-" is
an end without a byte. KEY=VALUE are those of hello.py build.
"""
import array
import fcntl
import os
import socket
import sys
import termios
import threading
import time

import hello

LIMIT = 15


def die(text):
    print(f"sni: {text}", file=sys.stderr)
    sys.exit(1)


def connect(address):
    host, port = address.rsplit(":", 1)
    s = socket.create_connection((host.strip("[]"), int(port)), LIMIT)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def acknowledged(s):
    """Until all is, so that the next bytes are a segment of their own."""
    left = array.array("i", [0])
    end = time.monotonic() + LIMIT
    while True:
        fcntl.ioctl(s.fileno(), termios.TIOCOUTQ, left)
        if left[0] == 0:
            return
        if time.monotonic() > end:
            die(f"{left[0]} bytes stay without an acknowledgement")
        time.sleep(0.0002)


class Reader(threading.Thread):
    """All that arrives until the end or a reset; what is sent must not wait for it."""

    def __init__(self, s):
        super().__init__(daemon=True)
        self.s, self.got = s, b""
        self.start()

    def run(self):
        try:
            while piece := self.s.recv(65536):
                self.got += piece
        except OSError:
            pass

    def all(self):
        self.join(LIMIT)
        if self.is_alive():
            die(f"no end after {LIMIT} s; got {self.got[:60]!r}")
        return self.got


def check(who, parts, got, what):
    want = b"" if who == "-" else who.encode() + b"|" + b"".join(parts)
    if got == want:
        return
    at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
    die(f"{what}: got {len(got)} bytes {got[:40]!r}, want {len(want)} {want[:40]!r}; they differ at {at}")


def talk(address, who, parts, what):
    """One connection; each part is a segment, if it fits into one."""
    with connect(address) as s:
        reader = Reader(s)
        try:
            for i, part in enumerate(parts):
                if i > 0:
                    acknowledged(s)
                s.sendall(part)
            s.shutdown(socket.SHUT_WR)
        except OSError as e:
            if who != "-":
                die(f"{what}: {e}")
        check(who, parts, reader.all(), what)


TRAILER = bytes(i * 7 % 251 for i in range(5000))


def one(address, who, raw):
    talk(address, who, [raw + TRAILER], "one")


def splits(address, who, raw):
    for at in range(1, len(raw)):
        talk(address, who, [raw[:at], raw[at:] + TRAILER], f"split at {at}")
    print(len(raw) - 1)


def drip(address, who, raw):
    talk(address, who, [raw[i : i + 1] for i in range(len(raw))] + [TRAILER], "drip")


def records(address, who, step, kw):
    message = len(hello.build(**kw)) - 5
    sizes = range(1, message + 1, step)
    for size in sizes:
        talk(address, who, [hello.build(**kw, record=size) + TRAILER], f"records of {size}")
    print(len(sizes))


def held(address, who, at, go, raw):
    first, rest = (raw[:at], raw[at:]) if at else (raw, b"")
    with connect(address) as s:
        s.sendall(first)
        greeting = b""
        while at == 0 and not greeting.endswith(b"|"):
            piece = s.recv(1)
            if not piece:
                die(f"the end after {greeting!r}")
            greeting += piece
        acknowledged(s)
        print("held", flush=True)
        end = time.monotonic() + LIMIT
        while not os.path.exists(go):
            if time.monotonic() > end:
                die(f"no {go}")
            time.sleep(0.02)
        reader = Reader(s)
        s.sendall(rest + TRAILER)
        s.shutdown(socket.SHUT_WR)
        check(who, [raw, TRAILER], greeting + reader.all(), "held")


def slow(address, ms, raw):
    began = time.monotonic()
    with connect(address) as s:
        reader = Reader(s)
        for i in range(len(raw)):
            reader.join(ms / 1000)
            if not reader.is_alive():
                break
            try:
                s.sendall(raw[i : i + 1])
            except OSError:
                break
        if reader.all():
            die(f"got {reader.got[:60]!r}")
    print(round((time.monotonic() - began) * 1000))


def cut(address, at, raw):
    with connect(address) as s:
        reader = Reader(s)
        s.sendall(raw[:at])
        s.shutdown(socket.SHUT_WR)
        if reader.all():
            die(f"got {reader.got[:60]!r}")


def head(address, n, raw):
    with connect(address) as s:
        s.sendall(raw)
        got = b""
        while len(got) < n:
            piece = s.recv(n - len(got))
            if not piece:
                die(f"the end after {got!r}")
            got += piece
    print(got.hex())


def main():
    verb, address, args = sys.argv[1], sys.argv[2], sys.argv[3:]
    who = args.pop(0) if verb not in ("slow", "cut") else "-"
    if verb == "raw":
        talk(address, who, [bytes.fromhex(args[0])], "raw")
        return
    mine = {k: v for k, v in (a.split("=", 1) for a in args) if k in ("at", "go", "ms", "step")}
    kw = hello.arguments(a for a in args if a.split("=")[0] not in mine)
    raw = hello.build(**kw)
    if verb == "records":
        records(address, who, int(mine.get("step", 1)), kw)
    elif verb == "held":
        held(address, who, int(mine["at"]), mine["go"], raw)
    elif verb == "slow":
        slow(address, float(mine["ms"]), raw)
    elif verb == "head":
        head(address, int(who), raw)
    elif verb == "cut":
        cut(address, int(mine["at"]), raw)
    else:
        {"one": one, "splits": splits, "drip": drip}[verb](address, who, raw)


main()
