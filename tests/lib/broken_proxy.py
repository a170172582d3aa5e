#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy with one fault, to know that the checkers of the tests see it.

broken_proxy.py FAULT LISTEN_IP:PORT TARGET_IP:PORT
  none     works
  lose dup swap flip   one byte of what the backend sends, after the first 5000
  stall    nothing passes for three seconds, once
  rst      a reset in place of the backend's FIN
  cut      the first FIN ends both directions
  nofin    no FIN is passed on
  quiet    a reset is passed on as a FIN
"""
import socket
import struct
import sys
import threading
import time

FAULT = sys.argv[1]
AFTER = 5000


def spoil(data, at):
    """One byte of `data`, at an offset that is inside."""
    if FAULT == "lose":
        return data[:at] + data[at + 1:]
    if FAULT == "dup":
        return data[:at + 1] + data[at:]
    if FAULT == "flip":
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
    if FAULT == "swap" and at + 1 < len(data):
        return data[:at] + data[at + 1:at + 2] + data[at:at + 1] + data[at + 2:]
    return data


def reset(sock):
    # a plain close() would leave the other thread's recv() holding the socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.shutdown(socket.SHUT_RD)
    sock.close()


def finish(src, dst, down):
    if FAULT == "nofin":
        time.sleep(60)
    elif FAULT == "rst" and down:
        reset(dst)
    elif FAULT == "cut":
        for sock in (src, dst):
            sock.shutdown(socket.SHUT_RDWR)
    else:
        dst.shutdown(socket.SHUT_WR)


class Pair:
    """Both sockets; whichever thread meets the reset, both directions end by one."""
    def __init__(self):
        self.broken = False


def pump(pair, src, dst, down):
    total, spoiled = 0, not down
    try:
        while True:
            data = src.recv(65536)
            if not data:
                break
            if not spoiled and total + len(data) > AFTER:
                spoiled = True
                if FAULT == "stall":
                    time.sleep(3)
                data = spoil(data, max(0, AFTER - total))
            total += len(data)
            dst.sendall(data)
        time.sleep(0.05)  # the other thread may have taken the error that explains this EOF
        if pair.broken:
            raise ConnectionResetError
        finish(src, dst, down)
    except OSError:
        pair.broken = True
        for sock in (src, dst):
            try:
                if FAULT == "quiet":
                    sock.shutdown(socket.SHUT_WR)
                else:
                    reset(sock)
            except OSError:
                pass


def main():
    host, port = sys.argv[2].rsplit(":", 1)
    listener = socket.create_server((host, int(port)), backlog=1024)
    host, port = sys.argv[3].rsplit(":", 1)
    while True:
        client, _ = listener.accept()
        backend = socket.create_connection((host, int(port)))
        pair = Pair()
        for way in ((pair, client, backend, False), (pair, backend, client, True)):
            threading.Thread(target=pump, args=way, daemon=True).start()


main()
