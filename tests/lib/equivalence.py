#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""One traffic script under every engine: bytes, order of closing, counts and reasons have to be the same.

  equivalence.py routes ROW...                            prints what the configuration says after `global`
  equivalence.py global ROW...                            lines of the section `global`
  equivalence.py run DIRECTORY CLIENT_NS BACKEND_NS PID ROW...
                                                          DIRECTORY has control.sock and access.log; PID is
                                                          the daemon's, which is stopped at the end

The cases are in equivalence_cases.py, all of which run at once. A row is an engine, or a way over several.
The row `relay` is compared with what its cases say, every other one with the row `relay` of the same run.
ONLY=NAME,... runs these cases alone; VERBOSE=1 prints every result.
"""
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback

import equivalence_peers as peers
from equivalence_cases import CASES, KIB
from equivalence_peers import LIMIT, SLOW, Peer, Stream, Wrong

PROXY, BACKEND = "10.91.0.1", "10.92.0.2"
CLIENT = "10.91.0.2"


class Row:
    """engine: of the route. moves: beginning on the relay, it gets there in the middle of a transfer.
    steps: and then, by command, on to these."""

    def __init__(self, engine, moves=False, steps=()):
        self.engine, self.moves, self.steps = engine, moves, steps
        self.last = steps[-1] if steps else engine


ROWS = {
    "relay": Row("relay"),
    "packet": Row("packet"),
    "packet_moved": Row("packet", moves=True),
    "nftables": Row("nftables"),
    "sockmap": Row("sockmap"),
    "sockmap_moved": Row("sockmap", moves=True),
    "sockmap_back": Row("sockmap", moves=True, steps=("relay",)),
    "sockmap_again": Row("sockmap", moves=True, steps=("relay", "sockmap")),
}
MOVES_AT = 256 * KIB

# ---- what may differ from the relay, and nothing else ----

NAT_UNSEEN = "NAT reads no byte of what clients send: docs/nftables.md, 'What it can do, and what not'"
HALF_CLOSE = "no effect on NAT: timeouts other than idle, max_lifetime and drain (docs/nftables.md)"
MOVED_FIRST = "the connection gets to the engine by carrying data"
NOT_RUN = {
    "nftables": {
        "proxy_out_v1": NAT_UNSEEN, "proxy_out_v2": NAT_UNSEEN, "proxy_in_v1": NAT_UNSEEN, "proxy_in_v2": NAT_UNSEEN,
        "sni": NAT_UNSEEN,
        "close_grace_client_first": HALF_CLOSE, "close_grace_backend_first": HALF_CLOSE,
    },
    "moved": {"rst_client_before_data": MOVED_FIRST, "rst_backend_before_data": MOVED_FIRST},
}

NO_FIN = "ARCHITECTURE.md: what the daemon ends of the kernel's flows is a RST to both, also at deadlines and drains"
NAT_BYTES = "docs/operations.md: bytes are of packets, IP headers included"
NAT_REASONS = "docs/operations.md: both sides have the same reason, from the last state the kernel saw"
NAT_STATE = "docs/operations.md: established from the first packet on"
NAT_REFUSES = "docs/operations.md: clients that the rules refuse are never seen: no access line; RST to their SYN"
NAT_LATE = "docs/operations.md: silence is known six seconds later, so what is busy looks silent in a short drain"
# (rows, case, field): (value or (value, another one), why). A line that does not hold any more is an error, too.
DECLARED = {}


def declare(rows, names, field, value, why):
    for row in rows.split():
        for name in names.split():
            DECLARED[row, name, field] = value, why


KERNEL = "packet packet_moved nftables"
HALF_CLOSED = " ".join(case.name for case in CASES.values() if case.at_rest["conns state"] == "closing")
RST_CASES = " ".join(name for name in CASES if name.startswith("rst_"))
declare(KERNEL, "idle max_lifetime stop_silent stop_busy", "client", ["RST"], NO_FIN)
declare(KERNEL, "idle max_lifetime stop_silent", "backend", ["RST"], NO_FIN)
declare("packet packet_moved", "close_grace_client_first", "client", ["sends FIN", "RST"], NO_FIN)
declare("packet packet_moved", "close_grace_backend_first", "backend", ["sends FIN", "RST"], NO_FIN)

declare("nftables", " ".join(CASES), "up", "with headers", NAT_BYTES)
declare("nftables", " ".join(CASES), "down", "with headers", NAT_BYTES)
declare("nftables", " ".join(CASES), "conns up", "with headers", NAT_BYTES)
declare("nftables", " ".join(CASES), "conns down", "with headers", NAT_BYTES)
declare("nftables", HALF_CLOSED, "conns state", "established", NAT_STATE)
declare("nftables", RST_CASES, "reasons", "econnreset econnreset", NAT_REASONS)
declare("nftables", "kill_half_closed", "reasons", "killed killed", NAT_REASONS)
declare("nftables", "stop_busy", "reasons", ("drained drained", "shutdown shutdown"), NAT_LATE)
declare("nftables", "drain_target limit_route limit_address", "refusals", ["refused"], NAT_REFUSES)
declare("nftables", "drain_target", "others", [], NAT_REFUSES)
declare("nftables", "limit_route", "others", ["normal normal"], NAT_REFUSES)
declare("nftables", "limit_address", "others", ["normal normal"] * 2, NAT_REFUSES)


# ---- the daemon ----


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("x", timeout=LIMIT)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT)
        self.sock.connect(self.path)


class Control:
    """The control socket, and the access log. Who looks often shares what others have just read."""

    FRESH = 0.02

    def __init__(self, directory, pid):
        self.directory, self.pid = directory, pid
        self.lock, self.read_at, self.rows = threading.Lock(), 0.0, []
        self.lines = None

    def ask(self, method, path):
        c = Unix(f"{self.directory}/control.sock")
        c.request(method, path)
        answer = c.getresponse()
        text = answer.read()
        c.close()
        if answer.status != 200:
            raise Wrong(f"{method} {path}: {answer.status} {text.decode().strip()}")
        return text

    def post(self, path):
        self.ask("POST", path)

    def conns(self, asked_at=None):
        """Not older than asked_at, where that is given."""
        with self.lock:
            now = time.monotonic()
            if now - self.read_at > self.FRESH or (asked_at or 0) > self.read_at:
                rows = json.loads(self.ask("GET", "/v1/conns"))
                self.read_at, self.rows = now, rows
            return self.rows

    def of_route(self, route, now=False):
        return [r for r in self.conns(time.monotonic() if now else None) if r["route"] == route]

    def wait_gone(self):
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            try:
                with open(f"/proc/{self.pid}/stat", encoding="ascii") as f:
                    if f.read().rsplit(") ", 1)[1].startswith("Z"):
                        return
            except (FileNotFoundError, ProcessLookupError):
                return
            time.sleep(0.02)
        print("DIFFERS: the daemon does not end")

    def access(self, route):
        if self.lines is None:
            with open(f"{self.directory}/access.log", encoding="utf-8") as f:
                self.lines = [json.loads(line) for line in f]
        return [x for x in self.lines if x["route"] == route]


# ---- one connection ----


class Dialog:
    def __init__(self, run, row_name, case, number):
        self.run, self.row_name, self.row, self.case = run, row_name, ROWS[row_name], case
        self.control, self.number = run.control, number
        self.route = route_name(row_name, case)
        self.front, self.target = f"{PROXY}:{10000 + number}", f"{BACKEND}:{20000 + number}"
        self.c, self.b = Peer("client", Stream(2 * number)), Peer("backend", Stream(2 * number + 1))
        self.c.source, self.b.source = self.b.stream, self.c.stream
        self.seen_client, self.says_client, self.prefix, self.is_inline = None, None, b"", False
        self.id, self.at_rest, self.refusals, self.error = None, {}, [], None
        self.numbers = []
        with peers.inside(run.backend_ns):
            self.listener = socket.create_server((BACKEND, 20000 + number), backlog=16)
        self.listener.settimeout(LIMIT)

    # what a case says before start()

    def client_is(self, address, header):
        self.seen_client, self.prefix = address, header

    def says_first(self, data):
        self.c.stream.head = data

    def inline_urgent(self):
        self.is_inline = True

    # begin

    def connect(self, source=None):
        with peers.inside(self.run.client_ns):
            s = socket.socket()
        s.settimeout(LIMIT)
        if source:
            s.bind((source, 0))
        s.connect((PROXY, 10000 + self.number))
        return s

    def start(self, first=None):
        with self.run.turn:
            self.begin(first)

    def begin(self, first):
        self.c.open(self.connect())
        if self.prefix:
            self.c.s.sendall(self.prefix)
        said = len(self.c.stream.head)
        self.c.send(said)
        self.b.open(self.listener.accept()[0])
        if self.is_inline:
            for p in (self.c, self.b):
                p.s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        if first:
            first()
        self.b.take(said)
        self.wait(lambda: self.control.of_route(self.route), "no record")
        self.id = self.control.of_route(self.route)[0]["id"]
        if self.row.moves:
            self.c.send(1)
            self.b.take(1)
            self.expect_engine("relay")
            self.pump_until(2 * MOVES_AT, 2 * MOVES_AT, until=self.row.engine)
        self.expect_engine(self.row.engine)
        for engine in self.row.steps:
            self.move(engine)
        way = [f"{m['from']} to {m['to']}" for m in self.record(now=True)["moves"]]
        if way != self.way():
            raise Wrong(f"moves in conns: {way}, want {self.way()}")

    def way(self):
        """Every connection that the daemon accepts begins on the relay."""
        stops = [] if self.is_nat() else ["relay"] * (self.row.engine != "relay") + [self.row.engine, *self.row.steps]
        return [f"{a} to {b}" for a, b in zip(stops, stops[1:])]

    def move(self, engine):
        """In the middle of a transfer."""
        asker = threading.Thread(target=self.order, args=(engine,))
        asker.start()
        self.pump_until(2 * MOVES_AT, 2 * MOVES_AT, until=engine)
        asker.join()
        self.expect_engine(engine)

    def order(self, engine):
        try:
            self.control.post(f"/v1/move?id={self.id}&engine={engine}")
        except Wrong as e:
            self.error = self.error or str(e)

    def record(self, now=False):
        found = [r for r in self.control.of_route(self.route, now) if self.id in (None, r["id"])]
        return found[0] if found else {}

    def is_on(self, engine):
        return self.record().get("engine") == engine

    def wait(self, holds, what, seconds=LIMIT):
        end = time.monotonic() + seconds
        while not (value := holds()):
            if time.monotonic() > end:
                raise Wrong(f"{what}; record {self.record()}, events {self.c.events} {self.b.events}")
            time.sleep(0.03)
        return value

    def expect_engine(self, engine):
        self.wait(lambda: self.is_on(engine), f"not on {engine}")

    # traffic

    def pump(self, up=0, down=0):
        """Of cases without deadlines, because it may have to wait for its turn."""
        with self.run.turn:
            self.pump_until(up, down)

    def pump_until(self, up, down, until=None):
        self.pump_pairs([(self.c, self.b, up)] * (up > 0) + [(self.b, self.c, down)] * (down > 0), until)

    def pump_pairs(self, pairs, until=None):
        if until:
            peers.Pump(pairs, lambda: self.is_on(until), MOVES_AT, 512 * KIB * KIB, not self.case.flat_out).run()
        else:
            peers.Pump(pairs).run()

    def until_stuck(self, tx):
        """Until the sender has to wait for who does not read."""
        poll = peers.select.poll()
        poll.register(tx.s, peers.select.POLLOUT)
        begin = tx.sent
        while poll.poll(250 * SLOW):
            tx.send_some()
            if tx.sent - begin > 64 * KIB * KIB:
                raise Wrong(f"{tx.sent} bytes sent, and nobody reads")

    def quiet(self):
        """Everything sent has arrived, a FIN, too: what does `conns` say?"""

        def says_all():
            r = self.record(now=True)
            up = self.counted(r.get("bytes_up"), self.c, self.b, False)
            down = self.counted(r.get("bytes_down"), self.b, self.c, False)
            self.at_rest = {"engine at rest": r.get("engine"), "conns up": up, "conns down": down,
                            "conns state": r.get("state")}
            self.says_client = r.get("client")
            return {up, down} <= {"exact", "with headers"} and (self.is_nat() or r["state"] == state)

        state = "closing" if "sends FIN" in self.c.events + self.b.events else "established"

        try:
            self.wait(says_all, "", 5 * SLOW)
        except Wrong:
            pass  # the result tells
        if self.seen_client and self.says_client != self.seen_client:
            raise Wrong(f"client in conns: {self.says_client}, want {self.seen_client}")

    def is_nat(self):
        return self.row.engine == "nftables"

    def read_header(self):
        """A PROXY header and not a byte more."""
        s = self.b.s
        got = s.recv(12, socket.MSG_WAITALL)
        if got.startswith(b"PROXY"):
            while not got.endswith(b"\r\n"):
                got += s.recv(1)
            return got
        got += s.recv(4, socket.MSG_WAITALL)
        return got + s.recv(int.from_bytes(got[14:16], "big"), socket.MSG_WAITALL)

    def both_end(self):
        self.c.end()
        self.b.end()

    def refused(self):
        try:
            p = Peer("another", Stream(0))
            p.open(self.connect())
            p.end()
            p.close()
            self.refusals += p.events
        except ConnectionResetError:  # so soon that it is connect() that hears of it
            self.refusals.append("RST")
        except ConnectionRefusedError:
            self.refusals.append("refused")

    def again(self, source=None):
        """Another connection, served and closed; the same client's comes when the first has gone."""
        if not source:
            self.wait(lambda: not self.control.of_route(self.route), "still in conns")
        c, b = Peer("another", Stream(0)), Peer("its backend", Stream(1))
        c.open(self.connect(source))
        b.open(self.listener.accept()[0])
        c.send(100)
        b.take(100)
        b.fin()
        c.end()
        c.fin()
        b.end()
        if c.events + b.events != ["FIN", "sends FIN", "sends FIN", "FIN"]:
            raise Wrong(f"another connection: {c.events} {b.events}")
        c.close()
        b.close()

    def stopped(self):
        self.run.stop.wait_ready()

    def stream_until_lost(self):
        """The backend sends until nobody takes it; the client reads."""
        over = threading.Event()

        def send():
            while not over.is_set():
                try:
                    self.b.send(100)
                except OSError:
                    break
                time.sleep(0.05)

        sender = threading.Thread(target=send)
        sender.start()
        self.c.end()
        over.set()
        sender.join()
        self.b.lost()

    # result

    def go(self):
        try:
            self.case.run(self)
        except (Wrong, OSError, KeyError) as e:
            where = traceback.extract_tb(e.__traceback__)
            line = [f.lineno for f in where if f.filename.endswith("cases.py")]
            self.error = self.error or f"{type(e).__name__}: {e} (line {line[-1] if line else '?'})"
        finally:
            if self.case.at_stop:
                self.run.stop.leave(self)
            self.c.close()
            self.b.close()
            self.listener.close()

    def line(self):
        """The access line of the connection, and the others of the route. The daemon has ended."""
        lines = self.control.access(self.route)
        mine = [x for x in lines if x["id"] == self.id]
        return (mine[0] if len(mine) == 1 else None), [x for x in lines if x["id"] != self.id]

    def result(self):
        mine, others = self.line()
        r = {"error": self.error, "numbers": self.numbers}
        for p, other in ((self.c, self.b), (self.b, self.c)):
            r[p.name] = p.events
            if p.hash.hexdigest() != other.stream.digest(p.got):
                r["error"] = r["error"] or f"{p.name}: other bytes than were sent, among the first {p.got}"
        r["arrived"] = [self.arrived(self.c, self.b), self.arrived(self.b, self.c)]
        r["refusals"] = self.refusals
        r["others"] = sorted(map(reasons, others))
        r.update(self.at_rest)
        self.numbers.clear()
        if not mine:
            r["error"] = r["error"] or f"no access line of connection {self.id}"
            return r
        r["engine"] = mine["engine"]
        r["reasons"] = reasons(mine)
        r["up"] = self.counted(mine["bytes_up"], self.c, self.b, self.case.is_cut)
        r["down"] = self.counted(mine["bytes_down"], self.b, self.c, self.case.is_cut)
        enough = self.case.least_s * SLOW - 0.01  # clocks of a loop are in whole milliseconds
        r["lived"] = "long enough" if mine["duration_s"] >= enough else f"{mine['duration_s']} s"
        if self.seen_client and mine["client"] != self.seen_client:
            r["error"] = r["error"] or f"client in the access line: {mine['client']}"
        return r

    def arrived(self, tx, rx):
        if self.case.is_cut:
            return "a part" if rx.got <= tx.sent else f"{rx.got} of {tx.sent}"
        return "all" if rx.got == tx.sent else f"{rx.got} of {tx.sent}"

    def counted(self, n, tx, rx, is_cut):
        """In words, because with moves it is not always the same number."""
        if n is None:
            return "unknown"
        low, high = rx.got, tx.sent
        if self.is_nat():  # each packet has 40 to 60 bytes of headers, and each answer is one or none
            low, high = low + 1, high + (tx.sent + tx.got) // 5 + 8000
        if low <= n <= high:
            return "with headers" if self.is_nat() else "sent or arrived" if is_cut else "exact" if low == high else "odd"
        self.numbers.append(f"{n}: sent {tx.sent}, arrived {rx.got}")
        return "too few" if n < low else "too many"


def reasons(line):
    return f"{line['client_reason'] or '-'} {line['backend_reason'] or '-'}"


class Stop:
    """The daemon is told to stop when every case that is about that is ready, and all others are over."""

    def __init__(self, control):
        self.control, self.lock = control, threading.Condition()
        self.ready, self.waits_for, self.is_told = set(), set(), False

    def expects(self, dialog):
        self.waits_for.add(dialog)

    def leave(self, dialog):
        with self.lock:
            self.waits_for.discard(dialog)
            self.lock.notify_all()

    def wait_ready(self):
        with self.lock:
            self.ready.add(threading.current_thread())
            self.lock.notify_all()
            if not self.lock.wait_for(lambda: self.is_told, 6 * LIMIT):
                raise Wrong("the daemon was not told to stop")

    def tell(self):
        with self.lock:
            self.lock.wait_for(lambda: len(self.ready) >= len(self.waits_for), 3 * LIMIT)
            os.kill(self.control.pid, signal.SIGTERM)
            self.is_told = True
            self.lock.notify_all()


class Run:
    def __init__(self, directory, client_ns, backend_ns, pid):
        self.client_ns, self.backend_ns = client_ns, backend_ns
        self.control = Control(directory, pid)
        self.stop = Stop(self.control)
        # whose transfers have begun: hundreds at a time would do nothing but wait for the processor
        self.turn = threading.Semaphore(12)


# ---- rows, cases, configuration ----


def route_name(row_name, case):
    return f"{row_name}.{case.name}"


def why_not(row_name, case):
    if ROWS[row_name].moves and case.name in NOT_RUN["moved"]:
        return NOT_RUN["moved"][case.name]
    return NOT_RUN.get(row_name, {}).get(case.name)


def chosen(row_names):
    """(number, row, case): the number makes the ports."""
    only = os.environ.get("ONLY")
    number = 0
    for row_name in row_names:
        for case in CASES.values():
            number += 1
            if (not only or case.name in only.split(",")) and not why_not(row_name, case):
                yield number, row_name, case


def print_routes(row_names):
    found = list(chosen(row_names))
    ports = [10000 + n for n, _, case in found if case.accept_proxy]
    if ports:
        print(f"listeners:\n  - {{ ports: {ports}, accept_proxy: {{ from: [{CLIENT}], required: true }} }}")
    print("routes:")
    for n, row_name, case in found:
        match = f"ports: {10000 + n}" + (f", domains: {case.domains}" if case.domains else "")
        forward = case.forward.format(to=f"{BACKEND}:{20000 + n}")
        print(f"  - {{ name: {route_name(row_name, case)}, match: {{ {match} }}, forward: {forward}, "
              f"engine: {ROWS[row_name].engine}{', ' + case.more if case.more else ''} }}")


def print_global(row_names):
    """When a connection moves: at once, or amid its transfer and not because of its age."""
    moves = any(ROWS[r].moves for r in row_names)
    keys = f"after_bytes: {MOVES_AT}, after_age: 1h" if moves else "after_bytes: 0, after_age: 0"
    engines = {ROWS[r].engine for r in row_names}
    if "packet" in engines:
        print(f"  packet: {{ {keys} }}")
    if "sockmap" in engines:
        print(f"  sockmap: {{ {keys} }}")


# ---- comparing ----


def expected(case):
    """Of the relay."""
    count = "sent or arrived" if case.is_cut else "exact"
    return {"error": None, "client": case.client, "backend": case.backend, "reasons": case.reasons,
            "others": sorted(case.others), "refusals": ["RST"] * case.refusals, "engine": "relay",
            "lived": "long enough", "up": count, "down": count, "arrived": ["a part" if case.is_cut else "all"] * 2,
            **(case.at_rest if case.quiet else {})}


def differences(row_name, case, got, want):
    for field in sorted(want.keys() | got.keys()):
        value = ROWS[row_name].last if field.startswith("engine") else want.get(field)
        declared, why = DECLARED.get((row_name, case.name, field), (value, None))
        if why and declared == value:  # whoever repairs it takes the line out
            yield f"{field}: declared to be otherwise than the relay's, and is not ({why})"
        if got.get(field) != declared and got.get(field) not in (declared if isinstance(declared, tuple) else ()):
            yield f"{field}: {got.get(field)!r}, want {declared!r}"


def compare(results):
    """Prints a line for each thing that is not as it should be; of how many connections."""
    bad = 0
    for (row_name, name), got in results.items():
        case = CASES[name]
        numbers = got.pop("numbers")
        want = expected(case) if row_name == "relay" else results["relay", name]
        found = list(differences(row_name, case, got, want))
        for text in found:
            print(f"DIFFERS {row_name:14} {name:28} {text}{' ' + str(numbers) if 'too' in text else ''}")
        bad += bool(found)
        if os.environ.get("VERBOSE"):
            print(f"{row_name:14} {name:28} {json.dumps(got)}")
    return bad


def run(directory, client_ns, backend_ns, pid, row_names):
    r = Run(directory, client_ns, backend_ns, int(pid))
    dialogs = [Dialog(r, row_name, case, n) for n, row_name, case in chosen(row_names)]
    threads = []
    for d in dialogs:
        if d.case.at_stop:
            r.stop.expects(d)
        threads.append((d, threading.Thread(target=d.go)))
        threads[-1][1].start()
    for d, t in threads:
        if not d.case.at_stop:
            t.join()
    r.stop.tell()
    for _, t in threads:
        t.join()
    r.control.wait_gone()
    results = {(d.row_name, d.case.name): d.result() for d in dialogs}
    bad = compare(results)
    for row_name in row_names:
        left_out = [f"{case.name} ({why})" for case in CASES.values() if (why := why_not(row_name, case))]
        n = sum(1 for row, _ in results if row == row_name)
        print(f"{row_name}: {n} connections" + (f"; not run: {'; '.join(left_out)}" if left_out else ""))
    if bad or not results:
        print(f"{bad} of {len(results)} connections differ")
        return 1
    return 0


def main(argv):
    if argv[1:2] == ["routes"]:
        print_routes(argv[2:])
    elif argv[1:2] == ["global"]:
        print_global(argv[2:])
    elif argv[1:2] == ["run"] and len(argv) > 6:
        return run(*argv[2:6], argv[6:])
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
