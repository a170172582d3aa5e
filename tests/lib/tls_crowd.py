#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""So many clients that say hello and then nothing.

  to=HOST:PORT n=N     as often as it is given
  tell=FILE            made once all have said it
  timeout=SECONDS
Prints how many were ended by the other side, once all are.
"""
import resource
import select
import socket
import ssl
import sys
import time


def hello():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="one.example")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def main():
    end = time.monotonic() + 60
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    said = hello()
    to = None
    crowd = {}
    tell = None
    for word in sys.argv[1:]:
        key, value = word.split("=", 1)
        if key == "to":
            to = value.rsplit(":", 1)
        elif key == "timeout":
            end = time.monotonic() + int(value)
        elif key == "tell":
            tell = value
        else:
            for _ in range(int(value)):
                s = socket.create_connection((to[0], int(to[1])))
                s.sendall(said)
                crowd[s.fileno()] = s
    if tell:
        open(tell, "x").close()
    poll = select.poll()
    for fd in crowd:
        poll.register(fd, select.POLLIN)
    n = 0
    while crowd and time.monotonic() < end:
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
