# SPDX-License-Identifier: GPL-3.0-or-later
"""The traffic script of equivalence.py: what each connection does, and what the relay makes of it.

A case is a function of a Dialog `d`: its client is d.c, its backend d.b. d.start() connects and comes back
when the engine in question carries the connection (a row with moves: in the middle of a transfer).

want: of the relay: events of the client, of the backend, reasons "CLIENT BACKEND".
"""
import inspect
import time

import hello
import proxyproto
from equivalence_peers import SLOW, Wrong

CASES = {}
KIB, MIB = 1024, 1024 * 1024
SECOND = 1.0 * SLOW
CLEAN = (["sends FIN", "FIN"], ["FIN", "sends FIN"], "normal normal")
CLEAN_BACKEND_FIRST = (["FIN", "sends FIN"], ["sends FIN", "FIN"], "normal normal")


class Case:
    def __init__(self, run, want, options):
        self.run, self.name = run, run.__name__
        self.client, self.backend, self.reasons = want
        self.more = options.pop("more", "")  # keys of the route
        self.forward = options.pop("forward", '"{to}"')
        self.domains = options.pop("domains", None)
        self.accept_proxy = options.pop("accept_proxy", False)
        self.is_cut = options.pop("is_cut", False)  # bytes are lost on the way, nobody knows how many
        self.others = options.pop("others", [])  # reasons of the route's other connections
        self.refusals = options.pop("refusals", 0)  # connections that get a RST in place of an answer
        self.quiet = "quiet()" in inspect.getsource(run) or options.pop("quiet", False)
        self.at_rest = {"engine at rest": "relay", "conns up": "exact", "conns down": "exact",
                        "conns state": "closing" if options.pop("half_closed", False) else "established"}
        # does not become quieter while it waits to be moved, which then may take seconds
        self.flat_out = options.pop("flat_out", False)
        self.at_stop = options.pop("at_stop", False)
        self.least_s = options.pop("least_s", 0)  # no sooner, by the daemon's clock
        assert not options, options


def case(want=CLEAN, **options):
    def note(run):
        CASES[run.__name__] = Case(run, want, options)
        return run

    return note


def ms(seconds):
    return f"{int(seconds * SECOND * 1000)}ms"


def timeouts(**seconds):
    return "timeouts: { %s }" % ", ".join(f"{k}: {ms(v)}" for k, v in seconds.items())


def ping(d, n=1, size=100):
    for _ in range(n):
        d.c.send(size)
        d.b.take(size)
        d.b.send(size)
        d.c.take(size)


def finish(d):
    d.c.fin()
    d.b.end()
    d.b.fin()
    d.c.end()


# ---- bytes ----


@case(flat_out=True)
def echo(d):
    d.start()
    ping(d, 30)
    d.quiet()
    finish(d)


@case(flat_out=True)
def bulk_both(d):
    d.start()
    d.pump(up=3 * MIB, down=3 * MIB)
    d.quiet()
    finish(d)


@case(flat_out=True)
def bulk_up(d):
    d.start()
    d.pump(up=4 * MIB)
    d.quiet()
    finish(d)


@case(CLEAN_BACKEND_FIRST, flat_out=True)
def bulk_down(d):
    d.start()
    d.pump(down=4 * MIB)
    d.quiet()
    d.b.fin()
    d.c.end()
    d.c.fin()
    d.b.end()


@case()
def urgent(d):
    d.inline_urgent()
    d.start()
    for _ in range(5):
        d.c.send(1000)
        d.c.urgent()
        d.c.send(1)
        d.b.take(1002)
    d.b.send(10)
    d.b.urgent()
    d.c.take(11)
    d.quiet()
    finish(d)


def stopped_reader(d, tx, rx):
    """rx does not read: tx has to stop, bytes the other way do not; then everything arrives."""
    d.start()
    d.until_stuck(tx)
    if tx.sent - rx.got > 12 * MIB:  # four sockets of 1 MiB, some of it twice, a pipe or a backlog
        raise Wrong(f"{tx.sent - rx.got} bytes went somewhere while nobody read")
    rx.send(1000)
    tx.take(1000)
    d.pump_pairs([(tx, rx, MIB)])
    d.quiet()
    finish(d)


@case(quiet=True)
def slow_backend(d):
    stopped_reader(d, d.c, d.b)


@case(quiet=True)
def slow_client(d):
    stopped_reader(d, d.b, d.c)


@case()
def both_stuck(d):
    """Both have to stop, then the backend reads: it gets everything while the client goes on not reading."""
    d.start()
    d.until_stuck(d.b)
    d.until_stuck(d.c)
    d.pump_pairs([(d.c, d.b, MIB)])
    d.pump_pairs([(d.b, d.c, MIB)])
    d.quiet()
    finish(d)


# ---- half-close ----


@case(half_closed=True, more=timeouts(close_grace=2))
def half_close_client_first(d):
    d.start()
    d.c.send(500)
    d.c.fin()
    d.b.take(500)
    d.b.end()
    for _ in range(8):  # longer than close_grace, never silent for so long
        d.b.send(20000)
        d.c.take(20000)
        time.sleep(0.3 * SLOW)
    d.b.send(300 * KIB)
    d.c.take(300 * KIB)
    d.quiet()
    d.b.fin()
    d.c.end()


@case(CLEAN_BACKEND_FIRST, half_closed=True, more=timeouts(close_grace=2))
def half_close_backend_first(d):
    d.start()
    d.b.send(500)
    d.b.fin()
    d.c.take(500)
    d.c.end()
    for _ in range(8):
        d.c.send(20000)
        d.b.take(20000)
        time.sleep(0.3 * SLOW)
    d.c.send(300 * KIB)
    d.b.take(300 * KIB)
    d.quiet()
    d.c.fin()
    d.b.end()


@case((["sends FIN", "FIN"], ["sends FIN", "FIN"], "normal normal"))
def half_close_both_at_once(d):
    d.start()
    d.c.send(1000)
    d.b.send(2000)
    d.c.fin()
    d.b.fin()
    d.b.end()
    d.c.end()


@case()
def fin_behind_bulk(d):
    """The FIN waits behind bytes that nobody reads yet, and comes after the last of them."""
    d.start()
    d.until_stuck(d.c)
    d.c.fin()
    d.b.end()
    d.b.send(100)
    d.b.fin()
    d.c.end()


@case()
def silence_half_open(d):
    """half_open: silence longer than close_grace is no end."""
    d.start()
    d.c.fin()
    d.b.end()
    if not d.c.is_silent(1500 * SLOW):
        raise Wrong("no silence")
    d.b.send(100)
    d.c.take(100)
    d.b.fin()
    d.c.end()


CASES["silence_half_open"].more = "half_open: true, " + timeouts(close_grace=0.5)


# ---- RST, from either side, in each phase ----

CLIENT_RST = (["sends RST"], ["RST"], "econnreset normal")
BACKEND_RST = (["RST"], ["sends RST"], "normal econnreset")


@case(CLIENT_RST)
def rst_client_before_data(d):
    d.start()
    d.c.rst()
    d.b.end()


@case(BACKEND_RST)
def rst_backend_before_data(d):
    d.start()
    d.b.rst()
    d.c.end()


def rst_in_transfer(d, tx, who, other):
    """In the middle of a transfer that would not end by itself."""
    d.start()
    rx = d.b if tx is d.c else d.c
    d.pump_pairs([(tx, rx, 300 * KIB)])
    tx.send_some()
    tx.send_some()
    who.rst()
    other.end()


@case(CLIENT_RST, is_cut=True)
def rst_client_uploading(d):
    rst_in_transfer(d, d.c, d.c, d.b)


@case(CLIENT_RST, is_cut=True)
def rst_client_downloading(d):
    rst_in_transfer(d, d.b, d.c, d.b)


@case(BACKEND_RST, is_cut=True)
def rst_backend_uploading(d):
    rst_in_transfer(d, d.c, d.b, d.c)


@case(BACKEND_RST, is_cut=True)
def rst_backend_downloading(d):
    rst_in_transfer(d, d.b, d.b, d.c)


@case((["sends FIN", "RST"], ["FIN", "sends RST"], "normal econnreset"))
def rst_backend_after_client_fin(d):
    d.start()
    ping(d)
    d.c.fin()
    d.b.end()
    d.b.send(1000)
    d.c.take(1000)
    d.b.rst()
    d.c.end()


@case((["sends FIN", "sends RST"], ["FIN", "RST"], "epipe normal"), half_closed=True)
def rst_client_after_client_fin(d):
    """Behind a FIN it says that the side does not read what is on its way to it."""
    d.start()
    ping(d)
    d.c.fin()
    d.b.end()
    d.b.send(1000)
    d.c.take(1000)
    d.quiet()
    d.c.rst()
    d.b.reset_after_fin()


@case((["FIN", "sends RST"], ["sends FIN", "RST"], "econnreset normal"))
def rst_client_after_backend_fin(d):
    d.start()
    ping(d)
    d.b.fin()
    d.c.end()
    d.c.send(1000)
    d.b.take(1000)
    d.c.rst()
    d.b.end()


@case((["FIN", "RST"], ["sends FIN", "sends RST"], "normal epipe"), half_closed=True)
def rst_backend_after_backend_fin(d):
    d.start()
    ping(d)
    d.b.fin()
    d.c.end()
    d.c.send(1000)
    d.b.take(1000)
    d.quiet()
    d.b.rst()
    d.c.reset_after_fin()


@case(CLIENT_RST)
def rst_client_at_end(d):
    """In place of the FIN: nothing of what came before is lost."""
    d.start()
    d.pump(up=200 * KIB, down=200 * KIB)
    d.quiet()
    d.c.rst()
    d.b.end()


@case(BACKEND_RST)
def rst_backend_at_end(d):
    d.start()
    d.pump(up=200 * KIB, down=200 * KIB)
    d.quiet()
    d.b.rst()
    d.c.end()


# ---- ends by the daemon ----


@case((["FIN"], ["FIN"], "inactivity inactivity"), more=timeouts(idle=3), least_s=3)
def idle(d):
    d.start()
    ping(d)
    d.quiet()
    d.both_end()


@case((["FIN"], ["FIN"], "max_lifetime max_lifetime"), more=timeouts(max_lifetime=5), least_s=5)
def max_lifetime(d):
    d.start()
    ping(d, 10)
    d.quiet()
    d.both_end()


@case((["sends FIN", "FIN"], ["FIN", "is gone"], "normal close_grace"), more=timeouts(close_grace=1), least_s=1)
def close_grace_client_first(d):
    d.start()
    ping(d)
    d.c.fin()
    d.b.end()
    d.c.end()
    d.b.lost()


@case((["FIN", "is gone"], ["sends FIN", "FIN"], "close_grace normal"), more=timeouts(close_grace=1), least_s=1)
def close_grace_backend_first(d):
    d.start()
    ping(d)
    d.b.fin()
    d.c.end()
    d.b.end()
    d.c.lost()


KILLED = (["RST"], ["RST"], "killed killed")


@case(KILLED)
def kill_id(d):
    d.start()
    ping(d)
    d.quiet()
    d.control.post(f"/v1/kill?id={d.id}")
    d.both_end()


@case(KILLED)
def kill_route(d):
    d.start()
    d.pump(up=100 * KIB, down=100 * KIB)
    d.quiet()
    d.control.post(f"/v1/kill?route={d.route}")
    d.both_end()


@case(KILLED, is_cut=True)
def kill_stuck(d):
    """Bytes that nobody reads do not hold it up."""
    d.start()
    d.until_stuck(d.c)
    d.control.post(f"/v1/kill?id={d.id}")
    d.c.end()
    d.b.end()


@case((["sends FIN", "RST"], ["FIN", "is gone"], "normal killed"), half_closed=True)
def kill_half_closed(d):
    d.start()
    ping(d)
    d.c.fin()
    d.b.end()
    d.b.send(10)
    d.c.take(10)
    d.quiet()
    d.control.post(f"/v1/kill?id={d.id}")
    d.c.end()
    d.b.lost()


@case(others=["backend_down -"], refusals=1)
def drain_target(d):
    """The connection goes on, a new one is refused."""
    d.start()
    ping(d)
    d.control.post(f"/v1/drain?target={d.target}")
    d.refused()
    d.c.alive()
    ping(d, 5)
    d.quiet()
    finish(d)


# ---- limits ----


@case(more="security: { max_connections: 1 }", others=["limit_route -", "normal normal"], refusals=1)
def limit_route(d):
    d.start()
    ping(d)
    d.refused()
    ping(d)
    d.quiet()
    finish(d)
    d.again()


@case(more="security: { max_connections_per_ip: 1 }", refusals=1,
      others=["limit_ip -", "normal normal", "normal normal"])
def limit_address(d):
    d.start()
    ping(d)
    d.refused()
    d.again(source="10.91.128.7")
    ping(d)
    d.quiet()
    finish(d)
    d.again()


# ---- PROXY headers, names ----


def header_of(d, version):
    result, h = proxyproto.parse(d.read_header())
    if result != "ok" or h["version"] != version:
        raise Wrong(f"header: {result}, {h}")
    if (h["src"], h["dst"]) != (d.c.local, d.front):
        raise Wrong(f"header says {h['src']} to {h['dst']}, want {d.c.local} to {d.front}")
    d.c.event(f"named by version {version}")


@case((["named by version 1"] + CLEAN[0], CLEAN[1], CLEAN[2]), forward='{{ targets: "{to}", send_proxy: v1 }}')
def proxy_out_v1(d):
    d.start(first=lambda: header_of(d, 1))
    d.pump(up=300 * KIB, down=300 * KIB)
    d.quiet()
    finish(d)


@case((["named by version 2"] + CLEAN[0], CLEAN[1], CLEAN[2]), forward='{{ targets: "{to}", send_proxy: v2 }}')
def proxy_out_v2(d):
    d.start(first=lambda: header_of(d, 2))
    d.pump(up=300 * KIB, down=300 * KIB)
    d.quiet()
    finish(d)


@case(accept_proxy=True)
def proxy_in_v1(d):
    d.client_is("192.0.2.1:1000", proxyproto.build("v1 src=192.0.2.1:1000 dst=198.51.100.1:443"))
    d.start()
    ping(d, 5)
    d.quiet()
    finish(d)


@case(accept_proxy=True)
def proxy_in_v2(d):
    d.client_is("192.0.2.2:1001", proxyproto.build("v2 src=192.0.2.2:1001 dst=198.51.100.1:443"))
    d.start()
    d.pump(up=300 * KIB, down=300 * KIB)
    d.quiet()
    finish(d)


@case(domains=["a.example"])
def sni(d):
    d.says_first(hello.build(sni="a.example"))
    d.start()
    d.pump(up=300 * KIB, down=300 * KIB)
    d.quiet()
    finish(d)


# ---- the daemon stops: all of these are open when it is told to ----


@case((["FIN"], ["FIN"], "drained drained"), at_stop=True, more=timeouts(drain=1.5))
def stop_silent(d):
    d.start()
    ping(d)
    d.quiet()
    d.stopped()
    d.both_end()


@case(at_stop=True, more=timeouts(drain=5))
def stop_answer(d):
    """What is on its way arrives, and the connection ends by itself."""
    d.start()
    d.c.send(1000)
    d.b.take(1000)
    d.quiet()
    d.stopped()
    d.b.send(50000)
    d.b.fin()
    d.c.take(50000)
    d.c.end()
    d.c.fin()
    d.b.end()


CASES["stop_answer"].client, CASES["stop_answer"].backend = CLEAN_BACKEND_FIRST[:2]


@case((["FIN"], ["is gone"], "shutdown shutdown"), at_stop=True, is_cut=True, more=timeouts(drain=2))
def stop_busy(d):
    """Still busy at the end of the drain."""
    d.start()
    ping(d)
    d.quiet()
    d.stopped()
    d.stream_until_lost()
