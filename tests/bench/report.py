#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the raw figures of tests/bench/run into tables: report.py [--write PAGE] MACHINE RAW

Ratios are medians of the ratios within each round, because rounds differ more than contenders do.
Where nothing but TLS was measured, only that part of the page is written.
"""
import argparse
import os
import statistics
import textwrap
from collections import namedtuple

# key, test, value in the raw line, what the reader sees, decimals
Row = namedtuple("Row", "key test value title decimals")
# title of a table, contenders, pairs whose ratios are shown, rows
Table = namedtuple("Table", "title contenders ratios rows")
# key of a row, contender, the other one ("": an absolute limit), sense, factor, what is expected
Expectation = namedtuple("Expectation", "key of other sense limit text")

STREAMS = [("down1", "1 stream down"), ("up1", "1 stream up"), ("down8", "8 streams down")]


def stream_rows(prefix, values):
    return [
        Row(f"{prefix}{test}{suffix}", prefix + test, value, f"{unit}, {title}", decimals)
        for suffix, value, unit, decimals in values
        for test, title in STREAMS
    ]


GBIT = ("", "gbit_s", "Gbit/s", 2)
MACHINE_CPU = (".cpu", "system_s_gb", "CPU s/GB of the machine", 3)
PROXY_CPU = (".proxy", "proxy_s_gb", "CPU s/GB of the proxy", 3)

MAIN = Table(
    "Everything at its defaults",
    ["direct", "packet", "dnat", "nft", "nft10k", "relay", "haproxy", "nginx"],
    [
        ("packet", "direct"),
        ("packet", "relay"),
        ("packet", "haproxy"),
        ("nft", "direct"),
        ("nft", "dnat"),
        ("nft", "haproxy"),
        ("nft10k", "nft"),
        ("relay", "haproxy"),
    ],
    stream_rows("", [GBIT, MACHINE_CPU, PROXY_CPU])
    + [
        Row("ping50", "ping1", "p50_us", "ping-pong p50, us", 1),
        Row("ping99", "ping1", "p99_us", "ping-pong p99, us", 1),
        Row("conn1", "conn1", "rate", "short connections/s, 1 client", 0),
        Row("conn8", "conn8", "rate", "short connections/s, 8 clients", 0),
        Row("conn64", "conn64", "rate", "short connections/s, 64 clients", 0),
        Row("conncpu8", "conn8", "proxy_us", "CPU us/connection of the proxy, 8 clients", 1),
        Row("conn1p50", "conn1", "p50_us", "connect + reply p50, 1 client, us", 0),
        Row("conn1p99", "conn1", "p99_us", "connect + reply p99, 1 client, us", 0),
        Row("conn8p99", "conn8", "p99_us", "connect + reply p99, 8 clients, us", 0),
        Row("rss", "idle", "rss_kb_conn", "resident KiB per idle connection", 2),
        Row("slab", "idle", "slab_kb_conn", "kernel slab KiB per idle connection, whole system", 2),
    ],
)
PLAIN = Table(
    "Plain packets: no checksum and segmentation offload at the endpoints",
    ["direct", "packet", "xdp", "relay"],
    [("packet", "direct"), ("xdp", "direct"), ("xdp", "packet"), ("packet", "relay")],
    stream_rows("plain-", [GBIT, MACHINE_CPU])
    + [
        Row("plain-ping50", "plain-ping1", "p50_us", "ping-pong p50, us", 1),
        Row("plain-ping99", "plain-ping1", "p99_us", "ping-pong p99, us", 1),
        Row("plain-share", "plain-down1", "xdp_share", "share of the packets XDP forwarded itself", 3),
    ],
)

# of MAIN, and what only this comparison has
SOCKMAP_ROWS = (
    [row for row in MAIN.rows if row.test in ("down1", "up1", "down8")]
    + [
        Row("up8", "up8", "gbit_s", "Gbit/s, 8 streams up", 2),
        Row("up8.cpu", "up8", "system_s_gb", "CPU s/GB of the machine, 8 streams up", 3),
        Row("up8.proxy", "up8", "proxy_s_gb", "CPU s/GB of the proxy, 8 streams up", 3),
        Row("byte50", "byte1", "p50_us", "ping-pong of 1 B p50, us", 1),
        Row("byte99", "byte1", "p99_us", "ping-pong of 1 B p99, us", 1),
        Row("kib50", "kib1", "p50_us", "ping-pong of 1 KiB p50, us", 1),
        Row("kib99", "kib1", "p99_us", "ping-pong of 1 KiB p99, us", 1),
        Row("pings", "ping32", "rate", "32 ping-pongs at once, round trips/s", 0),
        Row("pings50", "ping32", "p50_us", "32 ping-pongs at once p50, us", 1),
        Row("pings99", "ping32", "p99_us", "32 ping-pongs at once p99, us", 1),
    ]
    + [row for row in MAIN.rows if row.test in ("conn1", "conn8") and row.key != "conncpu8"]
)
SHARE_ROWS = [
    Row(f"{test}.share", test, "on_share", f"share of the connections on the engine, {title}", 2)
    for test, title in (*STREAMS, ("up8", "8 streams up"), ("ping32", "32 ping-pongs"))
]
BUSY_ROWS = [
    Row("busy50", "busy1", "p50_us", "ping-pong of 100 B p50, us", 1),
    Row("busy99", "busy1", "p99_us", "ping-pong of 100 B p99, us", 1),
]
BESIDE = ["direct", "packet", "sockmap", "nft", "relay", "haproxy", "nginx"]
AGAINST = [("sockmap", "relay"), ("sockmap", "haproxy"), ("sockmap", "direct")]
SOCKMAP = Table("The sockmap engine beside the others", BESIDE, AGAINST, SOCKMAP_ROWS + SHARE_ROWS)
BUSY = Table(
    "Busy cores: a process on every processor that never rests",
    BESIDE,
    [*AGAINST, ("packet", "direct"), ("relay", "haproxy")],
    BUSY_ROWS,
)
HANDOVER = Table(
    "The hand-over",
    ["packet"],
    [],
    [
        Row("handover", "handover", "handover_us", "CPU us per hand-over: the difference", 1),
        Row("handover.with", "handover", "with_us", "CPU us per connection, handed over", 1),
        Row("handover.standing", "handover", "standing_us_s", "CPU us per second of a connection in the kernel", 1),
        Row("handover.without", "handover", "without_us", "CPU us per connection, on the relay", 1),
    ],
)
SCALE = Table(
    "10 and 10 000 routes of the kernel's NAT",
    ["nft", "nft10k"],
    [("nft10k", "nft")],
    [
        Row("load", "scale", "load_ms", "the daemon's first load, ms in the kernel", 2),
        Row("change", "scale", "change_us", "a reload that changes one route, us in the kernel", 0),
        Row("start", "scale", "start_ms", "from the start of the daemon until its rules are there, ms", 0),
        Row("reload", "scale", "reload_ms", "from the command until the changed rule is there, ms", 0),
        Row("load.alone", "scale", "load_kernel_ms", "first load without a daemon, ms in the kernel", 2),
        Row("load.all", "scale", "load_all_ms", "the same, with building the rules and messages", 2),
        Row("change.alone", "scale", "change_kernel_us", "one route changed without a daemon, us in the kernel", 0),
        Row("change.apply", "scale", "change_apply_us", "the same, with the difference and its messages", 0),
        Row("change.all", "scale", "change_all_us", "the same, with building the rules", 0),
        Row("grown.rss", "scale", "rss_grown_kb", "resident KiB grown over 9000 changes", 0),
        Row("grown.slab", "scale", "slab_grown_kb", "kernel slab KiB grown over them, whole system", 0),
    ],
)
# Not a contender: HAProxy or nginx, whichever a ratio flatters less.
BETTER = "better"
SHAKES = [
    ("full-ec", "full, ECDSA P-256"),
    ("full-rsa", "full, RSA 2048"),
    ("full12-ec", "full, ECDSA P-256, TLS 1.2"),
    ("resumed-ec", "resumed, ECDSA P-256"),
    ("resumed-rsa", "resumed, RSA 2048"),
    ("resumed12-ec", "resumed, ECDSA P-256, TLS 1.2"),
]
TLS_STREAMS = [*STREAMS, ("up8", "8 streams up")]
FLOODS = [
    ("flood", "round trip over TLS"),
    ("flood-plain", "round trip without TLS"),
    ("flood-half", "round trip over TLS, half handshakes"),
]
AGAINST_BOTH = [("relay", "haproxy"), ("relay", "nginx"), ("relay", BETTER)]
TLS_PROXIES = ["relay", "haproxy", "nginx"]
TLS_SHAKES = Table(
    "TLS: handshakes",
    TLS_PROXIES,
    AGAINST_BOTH,
    [Row(f"tls-{t}", f"tls-{t}", "rate", f"handshakes/s, {n}", 0) for t, n in SHAKES]
    + [Row(f"tls-{t}.cpu", f"tls-{t}", "proxy_us", f"CPU us/handshake of the proxy, {n}", 0) for t, n in SHAKES],
)
TLS_BULK = Table(
    "TLS: streams and memory",
    TLS_PROXIES,
    AGAINST_BOTH,
    [Row(f"tls-{t}", f"tls-{t}", "gbit_s", f"Gbit/s, {n}", 2) for t, n in TLS_STREAMS]
    + [Row(f"tls-{t}.proxy", f"tls-{t}", "proxy_s_gb", f"CPU s/GB of the proxy, {n}", 3) for t, n in TLS_STREAMS]
    + [Row(f"tls-{t}.cpu", f"tls-{t}", "system_s_gb", f"CPU s/GB of the machine, {n}", 3) for t, n in TLS_STREAMS]
    + [
        Row("tls-idle", "tls-idle", "private_kb_conn", "private KiB per idle connection", 2),
        Row("tls-idle.rss", "tls-idle", "rss_kb_conn", "resident KiB per idle connection", 2),
    ],
)
TLS_FLOOD = Table(
    "TLS: established flows while others make handshakes (RSA 2048)",
    TLS_PROXIES,
    AGAINST_BOTH,
    [
        row
        for t, n in FLOODS
        for row in (
            Row(f"tls-{t}.quiet50", f"tls-{t}", "quiet_p50_us", f"{n} p50, us, before", 0),
            Row(f"tls-{t}.quiet99", f"tls-{t}", "quiet_p99_us", f"{n} p99, us, before", 0),
            Row(f"tls-{t}.50", f"tls-{t}", "p50_us", f"{n} p50, us", 0),
            Row(f"tls-{t}.99", f"tls-{t}", "p99_us", f"{n} p99, us", 0),
            Row(f"tls-{t}.max", f"tls-{t}", "max_us", f"{n} maximum, us", 0),
            Row(f"tls-{t}.rate", f"tls-{t}", "rate", "handshakes/s beside it", 0),
        )
    ],
)
TLS_TABLES = [TLS_SHAKES, TLS_BULK, TLS_FLOOD]
TABLES = [MAIN, SOCKMAP, BUSY, PLAIN, HANDOVER, SCALE, *TLS_TABLES]

EXPECTED = (
    [Expectation(t, "packet", "direct", ">=", 0.95, f"{n}: at least 0.95x direct") for t, n in STREAMS]
    + [Expectation(t, "packet", "haproxy", ">=", 2.3, f"{n}: at least 2.3x HAProxy") for t, n in STREAMS]
    + [
        Expectation(f"{t}.cpu", "packet", "haproxy", "<=", 0.4, f"CPU per GB, {n}: at most 0.4x HAProxy")
        for t, n in STREAMS
    ]
    + [Expectation(t, "nft", "direct", ">=", 0.97, f"{n}: at least 0.97x direct") for t, n in STREAMS]
    + [
        Expectation(t, "nft10k", "nft", ">=", 0.95, f"short connections, {n}: 10 000 routes at least 0.95x 10")
        for t, n in (("conn1", "1 client"), ("conn8", "8 clients"), ("conn64", "64 clients"))
    ]
    + [
        Expectation("load", "nft10k", "", "<=", 300, "first load of 10 000 routes: at most 300 ms in the kernel"),
        Expectation("change", "nft10k", "", "<=", 1000, "one of 10 000 routes changed: at most 1000 us in the kernel"),
        # less than one lost element, or one lost structure of the process, for each change
        Expectation("grown.rss", "nft10k", "", "<=", 256, "9000 changes: at most 256 KiB resident more"),
        Expectation("grown.slab", "nft10k", "", "<=", 512, "9000 changes: at most 512 KiB of kernel slab more"),
    ]
    + [
        Expectation("ping50", "packet", "direct", "<=", 1.05, "ping-pong p50: at most 1.05x direct"),
        Expectation("conn1", "packet", "relay", ">=", 0.95, "short connections, 1 client: at least 0.95x relay"),
        Expectation("conn8", "packet", "relay", ">=", 0.95, "short connections, 8 clients: at least 0.95x relay"),
        Expectation("conn64", "packet", "relay", ">=", 0.95, "short connections, 64 clients: at least 0.95x relay"),
        Expectation("handover", "packet", "", "<=", 30, "CPU per hand-over: at most 30 us"),
        Expectation("down1", "relay", "haproxy", ">=", 1.5, "1 stream down: at least 1.5x HAProxy"),
        Expectation("down1.proxy", "relay", "haproxy", "<=", 0.75, "the proxy's CPU per GB, 1 stream down: at most 0.75x HAProxy"),
        Expectation("conn8", "relay", "haproxy", ">=", 1.1, "short connections, 8 clients: at least 1.1x HAProxy"),
        Expectation("conn64", "relay", "haproxy", ">=", 1.1, "short connections, 64 clients: at least 1.1x HAProxy"),
        Expectation("ping50", "relay", "haproxy", "<=", 1.0, "ping-pong p50: no worse than HAProxy"),
        Expectation("ping99", "relay", "haproxy", "<=", 1.0, "ping-pong p99: no worse than HAProxy"),
        Expectation("rss", "relay", "haproxy", "<=", 1 / 3, "memory per idle connection: at most a third of HAProxy"),
    ]
)
TLS_EXPECTED = (
    [
        Expectation(f"tls-{t}", "relay", BETTER, ">=", 1.0, f"handshakes, {n}: at least 1.0x the better one")
        for t, n in SHAKES
    ]
    + [
        Expectation(f"tls-{t}", "relay", BETTER, ">=", 1.1, f"TLS, {n}: at least 1.1x the better one")
        for t, n in TLS_STREAMS
    ]
    + [
        Expectation("tls-idle", "relay", "", "<=", 20, "private KiB per idle TLS connection: at most 20"),
        Expectation("tls-idle", "relay", BETTER, "<=", 0.6, "memory per idle TLS connection: at most 0.6x the better one"),
    ]
    + [
        Expectation(f"tls-{t}.99", "relay", BETTER, "<=", 1.0, f"{n} p99 in a flood: less than both")
        for t, n in FLOODS
    ]
)
EXPECTED += TLS_EXPECTED
ROW_OF = {row.key: row for table in TABLES for row in table.rows}
# Nothing of their own that could have such a figure.
NO_PROCESS = {"direct", "dnat"}
OF_PROCESS = {"proxy_s_gb", "proxy_us", "rss_kb_conn", "private_kb_conn"}
# Where more is better; of all others less is.
MORE_IS_BETTER = {"gbit_s", "rate"}
# Rounds on one machine differ by that much without any reason in the contenders.
ALIKE = 1.15


def read_pairs(path):
    with open(path, encoding="utf-8") as f:
        return dict(line.rstrip("\n").split("=", 1) for line in f if "=" in line)


def read_raw(path):
    """{(test, value): {contender: {round: number}}} and the lines that report errors."""
    figures, troubles = {}, []
    with open(path, encoding="utf-8") as f:
        for line in f:
            rnd, test, contender, text = line.rstrip("\n").split("\t")
            if text.startswith("failed"):
                troubles.append(f"round {rnd} {test} {contender}: {text}")
                continue
            pairs = dict(w.split("=", 1) for w in text.split() if "=" in w)
            if pairs.get("errors", "0") != "0":
                troubles.append(f"round {rnd} {test} {contender}: {text}")
            for value, number in pairs.items():
                if contender in NO_PROCESS and value in OF_PROCESS:
                    continue
                figures.setdefault((test, value), {}).setdefault(contender, {})[rnd] = float(number)
    return figures, troubles


def values_of(figures, key):
    return figures.get((ROW_OF[key].test, ROW_OF[key].value), {})


def ratio(key, values, contender, other):
    """Median over the rounds that have both, or None; without another one, the median itself."""
    if other == BETTER:
        got = [ratio(key, values, contender, o) for o in ("haproxy", "nginx")]
        worst = min if ROW_OF[key].value in MORE_IS_BETTER else max
        return None if None in got else worst(got)
    a, b = values.get(contender, {}), values.get(other, {})
    pairs = [a[r] / b[r] for r in a if b.get(r)] if other else list(a.values())
    return statistics.median(pairs) if pairs else None


def is_met(expectation, got):
    return got >= expectation.limit if expectation.sense == ">=" else got <= expectation.limit


def verdict(key, contender, other, got):
    """" >= 0.95 ok" beside a ratio of which something is expected."""
    for e in EXPECTED:
        if (e.key, e.of, e.other) == (key, contender, other):
            limit = f"{e.limit:.3g}" if e.limit < 100 else f"{e.limit:.0f}"
            return f" ({e.sense} {limit} {'ok' if is_met(e, got) else 'short'})"
    return ""


def show_ratio(key, values, contender, other):
    got = ratio(key, values, contender, other)
    return "-" if got is None else f"{got:.2f}" + verdict(key, contender, other, got)


def show_cell(row, contender, samples, spread):
    if not samples:
        return "-"
    v = sorted(samples.values())
    text = f"{statistics.median(v):.{row.decimals}f}"
    if spread:
        text += f" ({v[0]:.{row.decimals}f} - {v[-1]:.{row.decimals}f})"
    return text + verdict(row.key, contender, "", statistics.median(v))


def figure_rows(table, figures, spread):
    """Head and lines, or None: nothing of it was measured."""
    lines, seen = [], set()
    for row in table.rows:
        seen.update(values_of(figures, row.key))
    contenders = [c for c in table.contenders if c in seen]
    seen.update([BETTER] if seen.issuperset(("haproxy", "nginx")) else [])
    ratios = [p for p in table.ratios if seen.issuperset(p)]
    for row in table.rows:
        values = values_of(figures, row.key)
        if values:
            cells = [show_cell(row, c, values.get(c), spread) for c in contenders]
            cells += [show_ratio(row.key, values, *p) for p in ratios]
            lines.append([row.title, *cells])
    if not lines:
        return None
    return ["", *contenders, *("/".join(p) for p in ratios)], lines


def expectation_rows(figures, remarks, expected):
    rows = []
    for e in expected:
        got = ratio(e.key, values_of(figures, e.key), e.of, e.other)
        if got is None:
            continue
        met = is_met(e, got)
        remark = "" if met else remarks.get(f"{e.of} {e.key} {e.other}".strip(), "no reason is known yet")
        shown = f"{got:.2f}x" if e.other else f"{got:.1f}"
        rows.append([f"{e.of}: {e.text}", shown, "ok" if met else "short", remark])
    return ["expected", "measured", "verdict", "reason"], rows


def comparison(figures, contender, other):
    """What is better, alike and worse with one contender than with another: three lines, or none."""
    kinds = {"better": [], "alike": [], "worse": []}
    for row in SOCKMAP_ROWS + BUSY_ROWS:
        # the work of sockets is the kernel's, in threads of its own: of no process
        got = None if row.value in OF_PROCESS else ratio(row.key, values_of(figures, row.key), contender, other)
        if got is None:
            continue
        gain = got if row.value in MORE_IS_BETTER else 1 / got
        kind = "better" if gain > ALIKE else "worse" if gain < 1 / ALIKE else "alike"
        busy = " on busy cores" if row in BUSY_ROWS else ""
        kinds[kind].append(f"{row.title}{busy} {got:.2f}x")
    if not any(kinds.values()):
        return []
    words = {"better": "better with", "alike": f"alike (within {ALIKE - 1:.0%})", "worse": "worse with"}
    return [
        f"{words[k]}{' ' + contender if k != 'alike' else ''}: {'; '.join(kinds[k]) or 'nothing'}"
        for k in ("better", "alike", "worse")
    ]


def comparisons(figures):
    """(title, lines) of each pair that was measured."""
    pairs = [(o, comparison(figures, "sockmap", o)) for o in ("relay", "haproxy")]
    return [(f"sockmap against {o}", lines) for o, lines in pairs if lines]


def read_remarks():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "remarks")
    remarks = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            if not line.startswith("#") and ":" in line:
                key, text = line.split(":", 1)
                remarks[key.strip()] = text.strip()
    return remarks


def plain_expectations(head, rows):
    """The reason on lines of its own; it is as long as it needs to be."""
    text = plain(head[:3], [r[:3] for r in rows])
    for r in rows:
        if r[3]:
            text += f"\n\n{r[0]}:\n" + textwrap.fill(r[3], 96, initial_indent="  ", subsequent_indent="  ")
    return text


def plain(head, rows):
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    lines = []
    for r in [head, *rows]:
        cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(r) + " |" for r in rows]
    return "\n".join(lines)


def print_all(figures, remarks, troubles):
    print("\nMedians; ratios are medians of the ratios within each round.")
    for table in TABLES:
        shown = figure_rows(table, figures, False)
        if shown:
            print(f"\n{table.title}\n\n{plain(*shown)}")
    for title, lines in comparisons(figures):
        print(f"\n{title}")
        for line in lines:
            print(textwrap.fill(line, 96, initial_indent="  ", subsequent_indent="    "))
    head, rows = expectation_rows(figures, remarks, EXPECTED)
    if rows:
        print("\n" + plain_expectations(head, rows))
    for t in troubles:
        print("errors in", t)


PAGE = """# Benchmarks

Written by `make bench ONLY=--write`; change `tests/bench/`, not this page.

| | |
| --- | --- |
{machine}

Client, proxy and backend are network namespaces of one machine, joined by veth, so all three share
its processors: a proxy that needs less CPU leaves more to the other two. Each contender has a
namespace and interfaces of its own between client and backend, so that programs, rules and conntrack
of one do not touch another.

- direct: the kernel forwards (`ip_forward`); no proxy
- packet: Sluice, `engine: packet`, `hook: tc`, else defaults (`after_bytes: 64KiB`, `after_age: 1s`)
- xdp: the same with `hook: xdp`
- dnat: one nftables rule (`dnat to`), conntrack
- nft, nft10k: Sluice, `engine: nftables`, with 10 and with 10 000 routes, `preserve_source: true`; the CPU
  time of the proxy is that of the records: each connection becomes one, with its metrics
- sockmap: Sluice, `engine: sockmap`, else defaults (`backlog: 1MiB`, at once)
- relay: Sluice, `engine: relay`
- haproxy: `mode tcp`, `option splice-auto`, `nbthread 2`
- nginx: `stream`, `worker_processes 2`

Sluice runs with `workers: 2`; otherwise all run with their defaults. {rounds} rounds of {seconds} s per
test (plain packets: {plain_rounds}); within a test all contenders run one after the other, and the
order rotates. A window begins after 0.3 s of warm-up and, with packet and sockmap, after `sluice conns` has said
that the connections are in the kernel (short connections are not waited for: with packet they end before). The
receiver of a stream discards the bytes inside the kernel. Requests and replies have 64 bytes where nothing else
is said; a ping-pong is one long connection; of short connections the client closes first. CPU of the machine: busy time
of `/proc/stat`, both endpoints included; of the proxy: run time of its threads. `tcp_congestion_control=cubic`,
`tcp_tw_reuse=1` and ports 1024-65000 everywhere. (BBR paces by the shortest round trip it has seen, which on cables
without length is some microseconds, and shorter still to a proxy: all are slower with it, and streams by packet had
0.69 to 0.93x direct in three runs.)

Hand-over: {handovers} connections on which nothing is ever sent, with `after_bytes: 0` and `after_age: 0`,
and as many over a relay route of the same daemon; the difference of the CPU time of all processes of the
daemon over the whole life of the connections, from source port to closed sockets, without 3 s in which nothing
happens. Idle: {idle_count} connections that
carried one request and reply, through a fresh instance{short}; with packet, once they are in the kernel.

Busy cores: a shell loop that is pinned to each processor, started before the connection, in the session of client,
backend and proxies, so that the scheduler counts it as one of them (with `sched_autogroup_enabled`; threads of the
kernel belong to no session).

10 and 10 000 routes: a daemon that starts with so many, then a file with another target in one of them and `sluice reload`;
the time in the kernel is what its log says, that of the transactions (nothing else happens in it). Without a daemon: the part of it that writes the table, alone
(`tests/bench/nat_scale.c`); medians of 5 loads and 51 changes; memory is watched over the last 9000 of 10 000 changes of a table of 1000 routes.

## Results: median (minimum - maximum)

Ratios are medians of the ratios within each round; where something is expected, it stands beside.

{figures}

## What the sockmap engine is good for

It is no faster relay. The kernel queues each packet to a worker thread of its own, which competes with whatever
else runs and has no priority that anybody could set; beyond the limit the daemon carries the bytes itself. So
streams and the longest waits on busy processors are expected to be worse than with relay, round trips on quiet
processors alike or a little better, and CPU time moves from the daemon to the machine. `engine: auto` never chooses
it. What this run has measured, as ratios:

{comparisons}

{tls}
## Expected and measured

{expected}
{troubles}"""


# The part of the page that a run of the tests of TLS alone can write.
TLS_HEAD = "## TLS"
TLS_PART = """## TLS

{machine}; {rounds} rounds of {seconds} s.

Sluice, HAProxy and nginx end the TLS of clients and speak plain TCP with the backend, in one interleaved run, two
workers or threads each, with the same library and the same certificates. What is negotiated is the same because the clients offer
nothing else: AES-128-GCM (TLS_AES_128_GCM_SHA256, with TLS 1.2 ECDHE) and X25519, TLS 1.3 where nothing else is
said. Sessions are resumed from tickets, with (EC)DHE in TLS 1.3; no proxy has a cache of sessions (HAProxy
`tune.ssl.cachesize 0`, nginx `ssl_session_cache` at its default, none). Otherwise all run with their defaults, to which the number
of tickets after a full handshake of TLS 1.3 belongs: Sluice sends one, HAProxy and nginx the two of the library.
This part alone is written by `make bench ONLY='tls --write'`.

- handshakes: 32 clients connect, shake hands, ask for 64 bytes, get them, send close_notify and close. The clients are two threads
  (`tests/bench/tls_load.c`) and take as much of the two processors as the proxies do: the rate is that of the
  pair, the CPU time beside it (run time of the proxy's threads) that of the proxy alone.
- streams: what goes down is decrypted at the start and then thrown away inside the kernel, so the client costs little; what goes
  up the client must encrypt.
- memory: {tls_idle_count} connections that carried one request and reply, through a fresh instance that has made some
  handshakes; Private_Dirty and Rss of all processes of the proxy, less what they were before.
- flood: 8 connections that ask for 64 bytes every 5 ms, before and while 64 clients make full handshakes with an RSA key as fast
  as they can. Both ends of these 8 run with real-time priority, as if they were on other machines: what is measured is the
  proxy. "Without TLS": another listener of the same daemon. "Half handshakes": the clients send the same ClientHello each time and
  leave when the signature has come, so that they cost next to nothing and the proxies all the more.

{figures}

### TLS: expected and measured

The better one is HAProxy or nginx, whichever the ratio flatters less.

{expected}
{troubles}
"""


def tables_text(figures, tables):
    shown = [(t.title, figure_rows(t, figures, True)) for t in tables]
    return "\n\n".join(f"### {title}\n\n{markdown(*rows)}" for title, rows in shown if rows)


def troubles_text(troubles):
    return "\nRuns with errors:\n" + "".join(f"\n- {t}" for t in troubles) + "\n" if troubles else ""


def tls_part(machine, figures, remarks, troubles):
    names = ["date", "kernel", "cpu", "sluice", "haproxy", "nginx", "openssl"]
    return TLS_PART.format(
        machine=", ".join(machine[n] for n in names if n in machine) + f", load before {machine['load_before']}",
        figures=tables_text(figures, TLS_TABLES),
        expected=markdown(*expectation_rows(figures, remarks, TLS_EXPECTED)),
        troubles=troubles_text(troubles),
        **{k: machine[k] for k in ("rounds", "seconds", "tls_idle_count")},
    )


def old_tls_part(text):
    """The whole of it, or "": up to the next heading of its level."""
    at = f"\n{text}".find(f"\n{TLS_HEAD}\n")
    if at < 0:
        return ""
    end = text.find("\n## ", at + len(TLS_HEAD))
    return text[at : end + 1] if end >= 0 else text[at:]


def replace_tls_part(text, part):
    old = old_tls_part(text)
    if old:
        return text.replace(old, part)
    before, head, after = text.partition("## Expected and measured\n")
    return before + part + head + after if head else f"{text}\n{part}"


def page(machine, figures, remarks, troubles, tls):
    names = ["date", "system", "kernel", "cpu", "memory", "load_before", "sluice", "haproxy", "nginx", "openssl"]
    listed = "".join(f"\n- {t}" for t in troubles)
    short = ""
    if int(machine["idle_count"]) < 10000:
        short = " (not 10 000: this machine's limit of open files allows no more, two each)"
    return PAGE.format(
        **{k: machine[k] for k in ("rounds", "plain_rounds", "seconds", "idle_count", "handovers")},
        machine="\n".join(f"| {n.replace('_', ' ')} | {machine[n]} |" for n in names if n in machine),
        short=short,
        figures=tables_text(figures, [t for t in TABLES if t not in TLS_TABLES]),
        tls=tls,
        comparisons="\n".join(
            f"{title}:\n\n" + "\n".join(f"- {line}" for line in lines) + "\n" for title, lines in comparisons(figures)
        )
        or "nothing: the engine did not take part.",
        expected=markdown(*expectation_rows(figures, remarks, [e for e in EXPECTED if e not in TLS_EXPECTED])),
        troubles=f"\n## Runs with errors\n{listed}\n" if troubles else "",
    )


def is_tls(text):
    return text.startswith("tls-")


def new_page(machine, figures, remarks, troubles, old):
    """What was not measured stays as it is in the old one, as far as TLS and the rest go."""
    tested = {test for test, _ in figures}
    own = [t for t in troubles if is_tls(t.split()[2])]
    part = tls_part(machine, figures, remarks, own) if any(map(is_tls, tested)) else old_tls_part(old)
    if all(map(is_tls, tested)):
        return replace_tls_part(old, part)
    return page(machine, figures, remarks, [t for t in troubles if t not in own], part)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--write", metavar="PAGE")
    args.add_argument("machine")
    args.add_argument("raw")
    args = args.parse_args()
    figures, troubles = read_raw(args.raw)
    remarks = read_remarks()
    print_all(figures, remarks, troubles)
    if args.write:
        old = ""
        if os.path.exists(args.write):
            with open(args.write, encoding="utf-8") as f:
                old = f.read()
        text = new_page(read_pairs(args.machine), figures, remarks, troubles, old)
        os.makedirs(os.path.dirname(args.write) or ".", exist_ok=True)
        with open(args.write, "w", encoding="utf-8") as f:
            f.write(text)
        print("\nwritten:", args.write)


if __name__ == "__main__":
    main()
