#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection, step by step; ends with 1 at the first step that does not hold.

  dialog.py to=ADDR:PORT|listen=ADDR:PORT|unix=PATH STEP...

  send:TEXT       sends it whole         bulk:N         sends N bytes of zeros
  expect:TEXT     exactly this arrives   head:TEXT      something arrives that starts so
  eof             the end arrives        rst            a reset arrives, not an end
  silent:MS       nothing arrives for MS
  stream:N:MS     sends N single bytes, MS apart
  flow:N:MS       N bytes arrive, never MS without one
  flood           sends until a reset arrives
  fin             closes for sending     abort          resets       sleep:MS
  wait:FILE       until the file exists  pump:N         sends N bytes while it gets them back
  tell:FILE       makes the file         ends           the end arrives, or a reset
  took:MIN:MAX    the last step took between MIN and MAX ms
  alive           neither end nor reset has arrived (bytes may have)
The limit for every step is 15 s (SLUICE_SLOW times as long, as all times of the lab).
"""
import os
import random
import socket
import struct
import sys
import threading
import time

LIMIT = 15 * int(os.environ.get("SLUICE_SLOW", "1"))


def die(text):
    print(f"dialog: {text}", file=sys.stderr)
    sys.exit(1)


def parse(address):
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def open_socket(where):
    kind, _, address = where.partition("=")
    if kind == "unix":
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(LIMIT)
        s.connect(address)
        return s
    host, port = parse(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(family)
    s.settimeout(LIMIT)
    if kind == "to":
        s.connect((host, port))
    else:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, port))
        s.listen(16)
        s.settimeout(2 * LIMIT)
        listener = s
        s, _ = listener.accept()
        listener.close()
        s.settimeout(LIMIT)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


class Dialog:
    TEXTS = ("send", "expect", "head")  # what follows the colon is one text

    def __init__(self, sock):
        self.s = sock
        self.took_ms = 0.0

    def read(self, n):
        return self.s.recv(n)

    def send(self, text):
        self.s.sendall(text.encode().decode("unicode_escape").encode())

    def bulk(self, n):
        self.s.sendall(bytes(int(n)))

    def expect(self, text):
        want = text.encode().decode("unicode_escape").encode()
        got = b""
        while len(got) < len(want):
            piece = self.read(len(want) - len(got))
            if not piece:
                raise ValueError(f"EOF after {got!r}, want {want!r}")
            got += piece
        if got != want:
            raise ValueError(f"got {got!r}, want {want!r}")

    def head(self, text):
        got = self.read(65536)
        if not got.startswith(text.encode()):
            raise ValueError(f"got {got[:200]!r}, want {text!r} first")

    def eof(self):
        got = self.read(65536)
        if got:
            raise ValueError(f"got {got[:200]!r}, want EOF")

    def rst(self):
        try:
            got = self.read(65536)
        except ConnectionResetError:
            return
        raise ValueError(f"got {got[:200]!r}, want a reset")

    def silent(self, ms):
        self.s.settimeout(float(ms) / 1000)
        try:
            got = self.read(65536)
        except (TimeoutError, socket.timeout):
            self.s.settimeout(LIMIT)
            return
        raise ValueError(f"got {got[:200]!r}, want silence")

    def stream(self, n, ms):
        for _ in range(int(n)):
            self.s.sendall(b".")
            time.sleep(float(ms) / 1000)

    def flow(self, n, ms):
        left = int(n)
        self.s.settimeout(float(ms) / 1000)
        while left:
            piece = self.read(left)
            if not piece:
                raise ValueError(f"EOF with {left} bytes missing")
            left -= len(piece)
        self.s.settimeout(LIMIT)

    def flood(self):
        try:
            while True:
                self.s.sendall(bytes(65536))
        except (ConnectionResetError, BrokenPipeError):
            return

    def fin(self):
        self.s.shutdown(socket.SHUT_WR)

    def abort(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()

    def wait(self, path):
        end = time.monotonic() + 30
        while not os.path.exists(path):
            if time.monotonic() > end:
                raise ValueError(f"{path} does not appear")
            time.sleep(0.01)

    def tell(self, path):
        open(path, "w", encoding="ascii").close()

    def pump(self, n):
        data = random.Random(int(n)).randbytes(int(n))
        sender = threading.Thread(target=self.s.sendall, args=(data,))
        sender.start()
        got = bytearray()
        while len(got) < len(data):
            piece = self.read(65536)
            if not piece:
                raise ValueError(f"EOF after {len(got)} bytes of {n}")
            got += piece
        sender.join()
        if got != data:
            raise ValueError("other bytes come back")

    def ends(self):
        try:
            got = self.read(65536)
        except ConnectionResetError:
            return
        if got:
            raise ValueError(f"got {got[:200]!r}, want an end")

    def sleep(self, ms):
        time.sleep(float(ms) / 1000)

    def alive(self):
        self.s.setblocking(False)
        try:
            while True:
                if not self.read(65536):
                    raise ValueError("EOF, want it open")
        except BlockingIOError:
            self.s.settimeout(LIMIT)

    def took(self, low, high):
        if not float(low) <= self.took_ms <= float(high):
            raise ValueError(f"took {self.took_ms:.0f} ms, want {low} to {high}")


def main(kind=Dialog):
    try:
        dialog = kind(open_socket(sys.argv[1]))
    except OSError as e:
        die(f"{sys.argv[1]}: {e}")
    for step in sys.argv[2:]:
        name, _, rest = step.partition(":")
        args = [rest] if name in kind.TEXTS else rest.split(":") if rest else []
        began = time.monotonic()
        try:
            getattr(dialog, name)(*args)
        except (OSError, ValueError) as e:
            die(f"step '{step}': {e}")
        if name != "took":
            dialog.took_ms = (time.monotonic() - began) * 1000
    print("ok")


if __name__ == "__main__":
    main()
