#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""tls_dialog.py for bulk: the same arguments and steps, and these.

  tls12:NAME:CIPHER         handshake as a client of TLS 1.2
  serve12:CERT:KEY:CIPHER   handshake as a server of it
  much:SEED:N               sends N bytes that SEED makes; those of `zero` are zeros
  check:SEED:N              the same N bytes arrive
  sip:SEED:N:MS             likewise, with a pause of MS every 64 KiB
  both:OURS:THEIRS:N        both at once
  spoil                     sends a record that nobody can open
  gone                      whatever arrives ends by a reset or an alert, not by an end
  slow:SECONDS              the limit of all steps that follow
Without TLS `end` is FIN, and `wire_eof` nothing.
"""
import random
import socket
import ssl
import threading
import time

import dialog
import tls_dialog


def made(seed, n):
    if seed == "zero":
        return bytes(int(n))
    return random.Random(int(seed)).randbytes(int(n))


class Secure(tls_dialog.Secure):
    """One thread may read while another writes: reading sends nothing, so TLS 1.2 alone."""

    def recv(self, n):
        while True:
            try:
                with self.lock:
                    return self.ssl.read(n)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                data = self.raw.recv(65536)
                with self.lock:
                    if data:
                        self.inward.write(data)
                    else:
                        self.inward.write_eof()
            except ssl.SSLEOFError as e:
                raise ValueError("FIN without close_notify") from e


class BulkDialog(tls_dialog.SecureDialog):
    def context(self, kind, cipher):
        made_context = tls_dialog.context(kind, "1.2")
        made_context.set_ciphers(cipher)
        return made_context

    def tls12(self, name, cipher):
        context = self.context(ssl.PROTOCOL_TLS_CLIENT, cipher)
        self.s = Secure(self.s, context, server_hostname=name)
        self.s.handshake()

    def serve12(self, cert, key, cipher):
        context = self.context(ssl.PROTOCOL_TLS_SERVER, cipher)
        context.load_cert_chain(cert, key)
        self.s = Secure(self.s, context, server_side=True)
        self.s.handshake()

    def end(self):
        if isinstance(self.s, tls_dialog.Secure):
            super().end()
        else:
            self.fin()

    def wire_eof(self):
        if isinstance(self.s, tls_dialog.Secure):
            super().wire_eof()

    def spoil(self):
        self.s.raw.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))

    def gone(self):
        try:
            while self.read(65536):
                pass
        except (ConnectionResetError, ssl.SSLError):
            return
        raise ValueError("the end, want a reset or an alert")

    def slow(self, seconds):
        self.s.settimeout(float(seconds))

    def much(self, seed, n):
        self.s.sendall(made(seed, n))

    def check(self, seed, n, pause=0):
        want = memoryview(made(seed, n))
        at = 0
        rest = 0
        while at < len(want):
            got = self.read(min(65536, len(want) - at))
            if not got:
                raise ValueError(f"the end after {at} bytes")
            if got != want[at:at + len(got)]:
                raise ValueError(f"other bytes behind the first {at}")
            at += len(got)
            rest += len(got)
            if pause and rest >= 65536:
                time.sleep(float(pause) / 1000)
                rest = 0

    def sip(self, seed, n, pause):
        self.check(seed, n, pause)

    def both(self, ours, theirs, n):
        failed = []

        def send():
            try:
                self.much(ours, n)
            except OSError as e:
                failed.append(e)

        sender = threading.Thread(target=send)
        sender.start()
        self.check(theirs, n)
        sender.join()
        if failed:
            raise failed[0]


if __name__ == "__main__":
    dialog.main(BulkDialog)
