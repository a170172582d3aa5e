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
        self.source = None  # whose bytes ought to come

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

    def send_some(self, n=262144):
        """What of it the socket takes now."""
        try:
            self.sent += self.s.send(self.stream.at(self.sent, n), socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass

    def urgent(self):
        self.sent += self.s.send(self.stream.at(self.sent, 1), socket.MSG_OOB)

    def noted(self, data):
        if self.source and data != (want := self.source.at(self.got, len(data))):
            at = next((i for i, (a, b) in enumerate(zip(data, want)) if a != b), len(want))
            place = self.source.block.find(data[at : at + 32])
            ought = (self.source.begin + self.got + at - len(self.source.head)) % Stream.PERIOD
            raise Wrong(f"{self.name}: wrong bytes at {self.got + at}, which belong {ought - place} before it")
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


class Pump:
    """A transfer. pairs: (sender, receiver, how many). All send as fast as they can, so many at least; then, while
    until() does not hold, as fast as before or (`gently`) 1000 bytes each 10 ms; then `more` as fast as they can.
    Everything arrives."""

    PACE = 0.01

    def __init__(self, pairs, until=lambda: True, more=0, most=1 << 40, gently=False):
        self.pairs, self.until, self.more, self.most, self.gently = pairs, until, more, most, gently
        self.goal = {tx: tx.sent + n for tx, _, n in pairs}
        self.next_at = dict.fromkeys(self.goal, 0.0)
        self.is_enough = False

    def may_send(self, tx):
        """How many bytes, now."""
        if tx.sent < self.goal[tx]:
            return 262144
        if self.is_enough or (self.gently and time.monotonic() < self.next_at[tx]):
            return 0
        return 1000 if self.gently else 262144

    def wants(self):
        wants = {}
        for tx, rx, _ in self.pairs:
            if self.may_send(tx):
                wants[tx] = wants.get(tx, 0) | select.POLLOUT
            if rx.got < tx.sent:
                wants[rx] = wants.get(rx, 0) | select.POLLIN
            if tx.sent > self.most:
                raise Wrong(f"{tx.name}: {tx.sent} bytes sent, and it is not there yet")
        return wants

    def look(self):
        if not self.is_enough and self.until():
            self.is_enough = True
            self.goal = {tx: max(n, tx.sent + self.more) for tx, n in self.goal.items()}

    def turn(self, p, bits, wanted):
        if bits & (select.POLLIN | select.POLLHUP | select.POLLERR) and wanted & select.POLLIN:
            p.take_some()
        if bits & (select.POLLOUT | select.POLLERR) and wanted & select.POLLOUT:
            p.send_some(self.may_send(p))
            self.next_at[p] = time.monotonic() + self.PACE

    def run(self):
        end = time.monotonic() + 2 * LIMIT
        peers = {p for pair in self.pairs for p in pair[:2]}
        while True:
            self.look()
            wants = self.wants()
            if not wants and self.is_enough:
                return
            poll = select.poll()
            for p, events in wants.items():
                poll.register(p.s, events)
            by_fd = {p.s.fileno(): p for p in wants}
            for fd, bits in poll.poll(self.PACE * 1000):
                self.turn(by_fd[fd], bits, wants[by_fd[fd]])
            if time.monotonic() > end:
                raise Wrong(f"stands still: {[(p.name, p.sent, p.got) for p in peers]}")
