#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Datagrams, for what the kernel's NAT does with them. Ends by itself, at the latest after 300 s
(SLUICE_SLOW times as long, as all times of the lab).

  udp.py serve NAME ADDR:PORT...   answers each datagram with "NAME FROM TO TEXT"; "ready" when it does
  udp.py ask ADDR:PORT [n=N] [src=ADDR] [wait=MS] [keep=1]
        N questions, each from a socket of its own (keep=1: all from one); a line for each: the
        answer, "refused" (ICMP) or "silence"
  udp.py flow ADDR:PORT FILE [ms=MS]
        one socket that asks every MS (20) until SIGTERM; FILE holds the last answer, "refused" or
        "silence", and how many of each there were
"""
import os
import select
import signal
import socket
import sys
import time

LIMIT = time.monotonic() + 300 * int(os.environ.get("SLUICE_SLOW", "1"))


def split(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def make(text):
    host, port = split(text)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM), (host, port)


def shown(addr):
    return f"[{addr[0]}]:{addr[1]}" if ":" in addr[0] else f"{addr[0]}:{addr[1]}"


def serve(name, places):
    socks = []
    for text in places:
        s, addr = make(text)
        s.bind(addr)
        socks.append(s)
    print("ready", flush=True)
    while time.monotonic() < LIMIT:
        for s in select.select(socks, [], [], 1)[0]:
            data, peer = s.recvfrom(65536)
            here = shown(s.getsockname())
            s.sendto(f"{name} {shown(peer)} {here} ".encode() + data, peer)


def question(s, text, wait):
    """The answer to exactly this question: late ones to earlier questions are passed over."""
    try:
        s.send(text)
        end = time.monotonic() + wait
        while True:
            s.settimeout(max(end - time.monotonic(), 0.001))
            got = s.recv(65536)
            if got.split(b" ", 3)[-1] == text:
                return got.decode()
    except ConnectionRefusedError:
        return "refused"
    except OSError as e:
        return "silence" if isinstance(e, TimeoutError) else f"error {e.errno}"


def connected(to, options):
    s, addr = make(to)
    if "src" in options:
        s.bind((options["src"], 0))
    s.connect(addr)
    return s


def ask(to, options):
    wait = int(options.get("wait", 1000)) / 1000
    s = None
    for i in range(int(options.get("n", 1))):
        if s is None or options.get("keep") != "1":
            s = connected(to, options)
        print(question(s, b"q%d" % i, wait), flush=True)


def flow(to, path, options):
    s = connected(to, options)
    pause = int(options.get("ms", 20)) / 1000
    seen = {}
    i = 0
    while time.monotonic() < LIMIT:
        answer = question(s, b"f%d" % i, 0.3)
        word = answer.split(" ")[0]
        seen[word] = seen.get(word, 0) + 1
        with open(path + ".new", "w", encoding="ascii") as f:
            f.write(word + " " + " ".join(f"{k}={v}" for k, v in sorted(seen.items())) + "\n")
        os.rename(path + ".new", path)
        time.sleep(pause)
        i += 1


def main():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    mode, rest = sys.argv[1], sys.argv[2:]
    options = dict(a.split("=", 1) for a in rest if "=" in a)
    plain = [a for a in rest if "=" not in a]
    if mode == "serve":
        serve(plain[0], plain[1:])
    elif mode == "ask":
        ask(plain[0], options)
    else:
        flow(plain[0], plain[1], options)


main()
