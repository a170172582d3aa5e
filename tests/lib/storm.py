#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many clients that stop anywhere in what they have to say first, and an operator who never rests.

  storm.py clients HOST n=N [jobs=N] [seed=N] [limit=SECONDS] [strict=0]
      N connections to the ports of test_first_bytes.sh. Each has a PROXY header or not, a hello or
      not, bytes behind it or not; it stops at any byte with FIN, RST or in silence, or says
      everything and compares what comes back. strict=0: the daemon may be killed meanwhile. `limit`
      is the daemon's for headers and hellos. Prints what became of them as JSON; 1: something wrong.
  storm.py operator SOCKET BACKEND conf=FILE,FILE stop=FILE [seed=N]
      changes routes, reloads each FILE in turn, kills, drains and asks, until there is a file `stop`
"""
import asyncio
import collections
import http.client
import json
import os
import random
import shutil
import socket
import struct
import sys
import time

import hello
from proxyproto import SIG

DEAD = range(7001, 7400)  # ports of the backend where nobody listens


class Wrong(Exception):
    pass


# ---- what a connection says ----


def v1(src, dst, ports):
    return b"PROXY TCP4 %s %s %d %d\r\n" % (src.encode(), dst.encode(), *ports)


def v2(src, dst, ports, tlvs=b""):
    body = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack(">HH", *ports) + tlvs
    return SIG + b"\x21\x11" + struct.pack(">H", len(body)) + body


class Plan:
    """One connection: bytes, where they are cut, how it ends, and what must come back."""

    PORTS = {443: "none", 444: "required", 445: "optional", 446: "required", 447: "none"}
    # who answers; None: whoever does, it may be killed or reset
    NAMES = {"a.example": "a", "x.b.example": "b", "k.example": None, "r.example": "r", "s.example": "s",
             "t.example": "t", "x.example": None}

    def __init__(self, rng):
        self.port = rng.choice(list(self.PORTS))
        asks = self.PORTS[self.port]
        self.src, self.ports = f"192.0.2.{rng.randrange(1, 255)}", (rng.randrange(1, 65536), rng.randrange(1, 65536))
        self.has_header = asks == "required" or (asks == "optional" and rng.random() < 0.7)
        self.version = rng.choice([1, 2, 2])
        pad = rng.choice([0, 0, 0, 1, 300, 40000])
        tlvs = b"\x04" + struct.pack(">H", pad) + bytes(pad) if pad else b""
        make = (lambda *a: v2(*a, tlvs)) if self.version == 2 else v1
        self.header = make(self.src, "198.51.100.1", self.ports) if self.has_header else b""
        self.hello = self.choose_hello(rng)
        self.payload = rng.randbytes(rng.choice([0, 1, 900, 5000, 70000, 300000]))
        self.first = len(self.header) + len(self.hello)
        self.raw = self.header + self.hello + self.payload
        self.choose_end(rng)

    def choose_hello(self, rng):
        self.name = None
        if self.port in (446, 447):
            self.who = "r" if self.port == 447 else "a"
            return b""
        kind = rng.random()
        if kind < 0.1:  # not TLS
            self.who = None if self.port == 444 else "plain"
            return b"GET / HTTP/1.1\r\n\r\n"
        self.name = rng.choice(list(self.NAMES))
        self.who = self.NAMES[self.name]
        return hello.build(sni=self.name, pq=rng.random() < 0.3, seed=rng.randrange(1 << 30),
                           size=rng.choice([0, 0, 0, 2400, 60000]), record=rng.choice([16384] * 4 + [300, 7]))

    def choose_end(self, rng):
        self.end = rng.choice(["fin", "fin", "rst", "silence", "whole", "whole", "whole", "slow"])
        if self.end in ("fin", "rst", "silence"):
            near = self.first + (1 if self.payload else 0)
            cuts = {0, len(self.header), self.first, rng.randrange(near + 1), rng.randrange(near + 1)}
            cuts = {c for c in cuts if c <= len(self.raw)}
            self.raw = self.raw[: rng.choice(sorted(cuts))]
        pieces = rng.choice([0, 0, 1, 2, 6])
        self.splits = sorted(rng.randrange(len(self.raw)) for _ in range(pieces) if self.raw)
        self.pause = rng.choice([0, 0, 0.001, 0.02])

    def parts(self):
        at = [0, *self.splits, len(self.raw)]
        return [self.raw[a:b] for a, b in zip(at, at[1:]) if b > a]

    def is_answered(self):
        """Whether every byte after the header has to come back before the end."""
        enough = len(self.raw) >= self.first and len(self.raw) > len(self.header)
        return self.who is not None and enough and self.end in ("fin", "whole", "slow")

    def answer(self, here, there):
        """What a backend says that greets with its name and returns everything."""
        src, sport = (self.src, self.ports[0]) if self.has_header else here
        dst, dport = ("198.51.100.1", self.ports[1]) if self.has_header else there
        out = self.who.encode() + b"|"
        if self.who == "r":
            out += v1(src, dst, (sport, dport))
        elif self.who == "s":
            out += v2(src, dst, (sport, dport))
        return out + self.raw[len(self.header) :]

    def __str__(self):
        return (f"port {self.port} header {len(self.header)} (v{self.version}) hello {len(self.hello)} "
                f"({self.name}) says {len(self.raw)} in {len(self.splits) + 1}, then {self.end}")


# ---- clients ----


class Client:
    def __init__(self, host, plan, limit, strict):
        self.host, self.plan, self.limit, self.strict = host, plan, limit, strict
        self.got = bytearray()
        self.early = None  # how long the first bytes took

    async def talk(self, s):
        loop, plan = asyncio.get_running_loop(), self.plan
        sent = 0
        for part in plan.parts():
            await loop.sock_sendall(s, part)
            sent += len(part)
            if sent >= plan.first and self.early is None:
                self.early = time.monotonic() - self.began
            if plan.pause:
                await asyncio.sleep(plan.pause)
        if plan.end in ("fin", "whole", "slow"):
            s.shutdown(socket.SHUT_WR)

    async def listen(self, s):
        loop = asyncio.get_running_loop()
        if self.plan.end == "slow":
            await asyncio.sleep(0.3)
        while piece := await loop.sock_recv(s, 4096 if self.plan.end == "slow" else 65536):
            self.got += piece
            if self.plan.end == "slow":
                await asyncio.sleep(0.001)

    async def run(self):
        loop, plan = asyncio.get_running_loop(), self.plan
        s = socket.socket()
        s.setblocking(False)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if plan.end == "slow":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with s:
            self.began = time.monotonic()
            end = "eof"
            await asyncio.wait_for(loop.sock_connect(s, (self.host, plan.port)), 60)
            here, there = s.getsockname(), (self.host, plan.port)
            try:
                reader = asyncio.ensure_future(self.listen(s))
                try:
                    await asyncio.wait_for(self.talk(s), 60)
                except OSError:
                    pass
                if plan.end == "rst":
                    reader.cancel()
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return "rst"
                # silence with all that is needed lasts as long as it likes
                lasts = plan.end == "silence" and len(plan.raw) >= plan.first
                await asyncio.wait_for(reader, 1 if lasts else 60)
            except asyncio.TimeoutError:
                end = "open"
            except OSError as e:
                end = type(e).__name__
            return self.judge(end, here, there)

    def judge(self, end, here, there):
        plan = self.plan
        took = time.monotonic() - self.began
        if end == "open":
            if plan.end == "silence" and len(plan.raw) >= plan.first:
                return "silent"
            raise Wrong(f"no end after {took:.1f} s")
        if not plan.is_answered():
            return plan.end + " unanswered"
        want = plan.answer(here, there)
        if self.early is not None and self.early > self.limit * 0.8:
            return "late"
        if end == "eof" and self.got == want:
            return plan.end + " answered"
        if not self.strict:
            return "lost"
        at = next((i for i, (a, b) in enumerate(zip(self.got, want)) if a != b), min(len(self.got), len(want)))
        raise Wrong(f"{end} after {took:.2f} s: got {len(self.got)} {bytes(self.got[:60])!r}, want {len(want)} {want[:60]!r}; "
                    f"they differ at {at}")


async def clients(host, n, jobs, seed, limit, strict):
    todo = iter(range(n))
    seen, wrong = collections.Counter(), []

    async def work():
        for i in todo:
            plan = Plan(random.Random(seed * 1000003 + i))
            try:
                seen[await Client(host, plan, limit, strict).run()] += 1
            except Wrong as e:
                wrong.append(f"{i}: {plan}: {e}")
            except OSError as e:
                if strict:
                    wrong.append(f"{i}: {plan}: {e}")
                seen["refused " + type(e).__name__] += 1

    await asyncio.gather(*(work() for _ in range(jobs)))
    for line in wrong[:10]:
        print(line, file=sys.stderr)
    print(json.dumps({"wrong": len(wrong), **dict(sorted(seen.items()))}))
    return 1 if wrong else 0


# ---- the operator ----


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("x")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


class Operator:
    def __init__(self, path, backend, confs, seed):
        self.path, self.backend, self.confs = path, backend, confs
        self.rng = random.Random(seed)
        self.done, self.turn = collections.Counter(), 0

    def ask(self, what, method, target, body=None):
        c = Unix(self.path)
        try:
            c.request(method, target, body=body)
            status = c.getresponse().status
            self.done[f"{what} {status}"] += 1
        except (OSError, http.client.HTTPException):
            self.done[what + " lost"] += 1
            time.sleep(0.05)
        finally:
            c.close()

    def put(self, name, match, targets, send):
        forward = {"targets": targets, "retries": 5, "send_proxy": send}
        self.ask("put", "PUT", "/v1/routes/" + name, json.dumps({"match": match, "forward": forward}))

    def retry_route(self):
        dead = [f"{self.backend}:{self.rng.choice(DEAD)}" for _ in range(self.rng.randrange(1, 4))]
        targets = list(dict.fromkeys(dead)) + [f"{self.backend}:8004"]
        self.rng.shuffle(targets)
        self.put("r", {"ports": [443, 444, 445], "domains": ["r.example"]}, targets, "v1")

    def step(self):
        rng = self.rng
        kind = rng.randrange(12)
        if kind < 2:
            self.retry_route()
        elif kind < 4:
            i = rng.randrange(30)
            self.put(f"extra{i}", {"ports": [443, 445], "domains": [f"e{i}.example", f"e{i}-*.example"]},
                     [f"{self.backend}:8001"], "none")
        elif kind == 4:
            self.ask("delete", "DELETE", f"/v1/routes/extra{rng.randrange(30)}")
        elif kind == 5:
            self.ask("switch", "POST", f"/v1/routes/k/{rng.choice(['enable', 'disable'])}")
        elif kind == 6:
            self.ask("kill", "POST", "/v1/kill?route=k")
        elif kind == 7:
            self.ask("drain", "POST", f"/v1/{rng.choice(['drain', 'undrain'])}?route=b&target={self.backend}:8002")
        elif kind == 8:
            self.turn += 1
            shutil.copy(self.confs[self.turn % len(self.confs)], self.confs[0] + ".new")
            os.rename(self.confs[0] + ".new", os.path.join(os.path.dirname(self.path), "..", "sluice.yaml"))
            self.ask("reload", "POST", "/v1/reload")
        elif kind == 9:
            self.ask("explain", "GET", "/v1/explain?port=443&name=" + rng.choice(["a.example", "r.example", "no"]))
        elif kind == 10:
            self.ask("conns", "GET", "/v1/conns?limit=50")
        else:
            self.ask("routes", "GET", "/v1/routes")

    def run(self, stop):
        while not os.path.exists(stop):
            self.step()
            time.sleep(self.rng.choice([0, 0.005, 0.02]))
        print(json.dumps(dict(sorted(self.done.items()))))


def main():
    verb, where, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
    kw = dict(a.split("=", 1) for a in rest if "=" in a)
    seed = int(kw.get("seed", 1))
    if verb == "clients":
        sys.exit(asyncio.run(clients(where, int(kw["n"]), int(kw.get("jobs", 100)), seed,
                                     float(kw.get("limit", 2)), kw.get("strict", "1") == "1")))
    Operator(where, rest[0], kw["conf"].split(","), seed).run(kw["stop"])


main()
