#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""dialog.py over TLS: the same arguments and steps, and these.

  tls:NAME[:VERSION]   handshake as a client that asks for NAME (verifies nothing)
  glued:NAME:TEXT      the same; TEXT is in one segment with the client's Finished
  serve:CERT:KEY[:VERSION]   handshake as a server
  refused:WORDS        handshake as a client that fails; the error has WORDS
  notify               sends close_notify, and no FIN
  end                  close_notify, then FIN
  fin                  FIN without close_notify
  eof                  close_notify arrives       cut      a FIN arrives without it
  wire_eof             after it, the FIN          rst      a reset arrives
  half:N               sends the first N bytes of a client's handshake, nothing else
Before the handshake all of dialog.py's steps are about plain bytes.
"""
import socket
import ssl
import threading

import dialog


class Secure:
    """A socket with TLS in memory, so that every byte and both kinds of ends are in our hands."""

    def __init__(self, raw, context, **more):
        self.raw = raw
        self.inward = ssl.MemoryBIO()
        self.outward = ssl.MemoryBIO()
        self.lock = threading.Lock()
        self.ssl = context.wrap_bio(self.inward, self.outward, **more)

    def flush(self):
        with self.lock:
            data = self.outward.read()
        if data:
            self.raw.sendall(data)

    def fill(self):
        data = self.raw.recv(65536)
        if data:
            self.inward.write(data)
        else:
            self.inward.write_eof()

    def handshake(self, last=b""):
        while True:
            try:
                self.ssl.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                self.fill()
            except ssl.SSLError:
                self.flush()  # the alert
                raise
        if last:
            self.ssl.write(last)
        self.flush()

    def recv(self, n):
        while True:
            try:
                with self.lock:
                    data = self.ssl.read(n)
                self.flush()
                return data
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                self.flush()
                self.fill()
            except ssl.SSLEOFError as e:
                raise ValueError("FIN without close_notify") from e

    def sendall(self, data):
        view = memoryview(data)
        while view:
            with self.lock:
                n = self.ssl.write(view[:16384])
            view = view[n:]
            self.flush()

    def notify(self):
        try:
            self.ssl.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.flush()

    def __getattr__(self, name):
        return getattr(self.raw, name)


def context(kind, version=None):
    made = ssl.SSLContext(kind)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if version:
        one = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
        made.minimum_version = made.maximum_version = one
    return made


class SecureDialog(dialog.Dialog):
    TEXTS = dialog.Dialog.TEXTS + ("refused",)

    def client(self, name, version=None):
        self.s = Secure(self.s, context(ssl.PROTOCOL_TLS_CLIENT, version), server_hostname=name)

    def tls(self, name, version=None):
        self.client(name, version)
        self.s.handshake()

    def glued(self, name, text):
        self.client(name)
        self.s.handshake(text.encode())

    def serve(self, cert, key, version=None):
        made = context(ssl.PROTOCOL_TLS_SERVER, version)
        made.load_cert_chain(cert, key)
        self.s = Secure(self.s, made, server_side=True)
        self.s.handshake()

    def refused(self, words):
        self.client("one.example")
        try:
            self.s.handshake()
            self.s.recv(1)  # a server of TLS 1.3 refuses after the client is done
        except (OSError, ValueError) as e:
            if words not in str(e):
                raise ValueError(f"refused, but by: {e}") from e
            return
        raise ValueError("not refused")

    def half(self, n):
        made = Secure(self.s, context(ssl.PROTOCOL_TLS_CLIENT), server_hostname="one.example")
        try:
            made.ssl.do_handshake()
        except ssl.SSLWantReadError:
            self.s.sendall(made.outward.read()[:int(n)])

    def notify(self):
        self.s.notify()

    def end(self):
        self.s.notify()
        self.s.shutdown(socket.SHUT_WR)

    def cut(self):
        try:
            got = self.read(65536)
        except ValueError:
            return
        raise ValueError(f"got {got[:200]!r}, want a FIN without close_notify")

    def wire_eof(self):
        got = self.s.raw.recv(65536)
        if got:
            raise ValueError(f"{len(got)} bytes behind close_notify, want FIN")


if __name__ == "__main__":
    dialog.main(SecureDialog)
