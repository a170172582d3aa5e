#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""So many clients that say hello and then nothing.

  to=HOST:PORT n=N     as often as it is given
  drip=SECONDS         those of the next n= send a byte of one long record so often
  timeout=SECONDS
Prints how many were ended by the other side, once all are.
"""
import resource
import select
import socket
import ssl
import sys
import time


# What TLS 1.3 looks like in the middle of a handshake: 16 KiB that never come whole.
RECORD = b"\x17\x03\x03\x40\x00" + bytes(1000)


def hello():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="one.example")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def let_drip(crowd, dripping):
    for fd, n in dripping.items():
        if fd not in crowd:
            continue
        try:
            crowd[fd].send(RECORD[n : n + 1])
            dripping[fd] = n + 1
        except OSError:
            pass  # it has ended


def main():
    end = time.monotonic() + 60
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    said = hello()
    to = None
    crowd = {}
    drip = None
    dripping = {}
    for word in sys.argv[1:]:
        key, value = word.split("=", 1)
        if key == "to":
            to = value.rsplit(":", 1)
        elif key == "timeout":
            end = time.monotonic() + int(value)
        elif key == "drip":
            drip = float(value)
        else:
            for _ in range(int(value)):
                s = socket.create_connection((to[0], int(to[1])))
                s.sendall(said)
                crowd[s.fileno()] = s
                if drip:
                    dripping[s.fileno()] = 0
    poll = select.poll()
    for fd in crowd:
        poll.register(fd, select.POLLIN)
    n = 0
    dripped = time.monotonic()
    while crowd and time.monotonic() < end:
        if drip and time.monotonic() >= dripped + drip:
            dripped = time.monotonic()
            let_drip(crowd, dripping)
        for fd, _ in poll.poll(100):
            try:
                if crowd[fd].recv(65536):
                    continue
            except OSError:
                pass
            poll.unregister(fd)
            crowd.pop(fd).close()
            n += 1
    print(n)
    return 0 if not crowd else 1


sys.exit(main())
