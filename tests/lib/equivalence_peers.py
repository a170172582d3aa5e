# SPDX-License-Identifier: GPL-3.0-or-later
"""The two peers of a connection, in one thread: each in a network namespace of its own, each with a list of
what it saw. Used by equivalence.py."""
import contextlib
import ctypes
import errno
import hashlib
import os
import select
import socket
import struct
import time

LIMIT = 20 * int(os.environ.get("SLUICE_SLOW", "1"))  # seconds for each step
SLOW = int(os.environ.get("SLUICE_SLOW", "1"))
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


class Wrong(Exception):
    """What no engine may do: the case is over."""


def setns(fd):
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def inside(namespace):
    """A socket stays in the namespace in which its thread made it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        setns(there)
        yield
    finally:
        setns(home)
        os.close(home)
        os.close(there)


def make_block(n):
    return b"".join(hashlib.blake2s(i.to_bytes(4, "big")).digest() for i in range(n // 32 + 1))[:n]


class Stream:
    """Bytes that tell where they belong: none fits in the place of another. `head` comes before them."""

    PERIOD = 1048573  # a prime: no buffer's size divides it
    block = make_block(PERIOD) * 2

    def __init__(self, seed, head=b""):
        self.head, self.begin = head, seed * 7919

    def at(self, offset, n):
        piece = self.head[offset : offset + n]
        start = (self.begin + offset + len(piece) - len(self.head)) % self.PERIOD
        return piece + self.block[start : start + min(n - len(piece), self.PERIOD)]

    def digest(self, n):
        h, at = hashlib.sha256(), 0
        while at < n:
            piece = self.at(at, min(n - at, 262144))
            h.update(piece)
            at += len(piece)
        return h.hexdigest()


class Peer:
    """One end. `events`: what it did and saw that ends the connection, in its order."""

    def __init__(self, name, stream):
        self.name, self.stream = name, stream
        self.s, self.sent, self.got = None, 0, 0
        self.hash, self.events = hashlib.sha256(), []
        self.is_over = False

    def open(self, s):
        s.settimeout(LIMIT)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.s = s
        self.local = "%s:%d" % s.getsockname()[:2]

    def event(self, text):
        self.events.append(text)

    def send(self, n):
        while n:
            piece = self.stream.at(self.sent, min(n, 262144))
            done = self.s.send(piece)
            self.sent += done
            n -= done

    def send_some(self):
        """What the socket takes now."""
        try:
            self.sent += self.s.send(self.stream.at(self.sent, 262144), socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass

    def urgent(self):
        self.sent += self.s.send(self.stream.at(self.sent, 1), socket.MSG_OOB)

    def noted(self, data):
        self.hash.update(data)
        self.got += len(data)

    def take(self, n):
        """Exactly so many bytes arrive."""
        while n:
            data = self.s.recv(min(n, 262144))
            if not data:
                raise Wrong(f"{self.name}: FIN with {n} bytes missing")
            self.noted(data)
            n -= len(data)

    def take_some(self):
        try:
            data = self.s.recv(262144, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not data:
            raise Wrong(f"{self.name}: FIN after {self.got} bytes, in the middle")
        self.noted(data)

    def alive(self):
        """Neither bytes nor an end are there."""
        if not self.is_silent(0):
            data = self.s.recv(1)
            raise Wrong(f"{self.name}: {'bytes' if data else 'FIN'}, want silence")

    def fin(self):
        self.s.shutdown(socket.SHUT_WR)
        self.event("sends FIN")

    def rst(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()
        self.event("sends RST")
        self.is_over = True

    def end(self):
        """What comes, comes; then FIN, RST, or nothing."""
        try:
            while data := self.s.recv(262144):
                self.noted(data)
            self.event("FIN")
        except ConnectionResetError:
            self.event("RST")
        except OSError as e:
            self.event("silence" if isinstance(e, TimeoutError) else errno.errorcode.get(e.errno, str(e)))

    def reset_after_fin(self):
        """read() goes on to say "FIN" after a RST; poll() knows."""
        p = select.poll()
        p.register(self.s, 0)
        ready = p.poll(LIMIT * 1000)
        self.event("RST" if ready and ready[0][1] & select.POLLERR else "no RST")

    def is_silent(self, ms):
        p = select.poll()
        p.register(self.s, select.POLLIN)
        return not p.poll(ms)

    def lost(self):
        """Whoever ended the connection took this side's socket away, too: a byte is not taken any more."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            try:
                self.s.send(b"?", socket.MSG_NOSIGNAL)
            except OSError:
                self.event("is gone")
                return
            time.sleep(0.02)
        self.event("is still there")

    def close(self):
        if self.s:
            self.s.close()

    def outcome(self):
        return {"sent": self.sent, "sent_hash": self.stream.digest(self.sent), "got": self.got,
                "got_hash": self.hash.hexdigest(), "events": self.events}


def pump(pairs, until=lambda: True, more=0, most=1 << 40):
    """pairs: (sender, receiver, how many). Everybody sends as fast as it can, at least so much, and until
    until() says so and so many more; then everything arrives."""
    end = time.monotonic() + 2 * LIMIT
    goal = {tx: tx.sent + n for tx, _, n in pairs}
    poll = select.poll()
    for tx, rx, _ in pairs:
        poll.register(tx.s, 0)
        poll.register(rx.s, 0)
    is_enough = False
    while True:
        if not is_enough and until():
            is_enough = True
            goal = {tx: max(n, tx.sent + more) for tx, n in goal.items()}
        wants = {}
        for tx, rx, _ in pairs:
            if tx.sent < goal[tx] or not is_enough:
                wants[tx] = wants.get(tx, 0) | select.POLLOUT
            if rx.got < tx.sent:
                wants[rx] = wants.get(rx, 0) | select.POLLIN
            if tx.sent > most:
                raise Wrong(f"{tx.name}: {tx.sent} bytes sent, and it is not there yet")
        if not wants:
            return
        for p in {p for pair in pairs for p in pair[:2]}:
            poll.modify(p.s, wants.get(p, 0))
        by_fd = {p.s.fileno(): p for p in wants}
        for fd, bits in poll.poll(20):
            p = by_fd.get(fd)
            if p and bits & (select.POLLIN | select.POLLHUP | select.POLLERR) and wants[p] & select.POLLIN:
                p.take_some()
            if p and bits & (select.POLLOUT | select.POLLERR) and wants[p] & select.POLLOUT:
                p.send_some()
        if time.monotonic() > end:
            raise Wrong(f"stands still: {[(p.name, p.sent, p.got) for pair in pairs for p in pair[:2]]}")
