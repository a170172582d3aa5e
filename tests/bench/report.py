#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the raw figures of tests/bench/run into tables: report.py [--write PAGE] MACHINE RAW

Ratios are medians of the ratios within each round, because rounds differ more than contenders do.
"""
import argparse
import os
import statistics
import textwrap

CONTENDERS = ["direct", "sluice", "haproxy", "nginx"]
# key, test, value in the raw line, what the reader sees, decimals
ROWS = [
    ("bulk1", "bulk1", "gbit_s", "1 stream, Gbit/s", 2),
    ("bulk8", "bulk8", "gbit_s", "8 streams, Gbit/s", 2),
    ("cpu1", "bulk1", "proxy_s_gb", "CPU s/GB of the proxy, 1 stream", 3),
    ("cpu8", "bulk8", "proxy_s_gb", "CPU s/GB of the proxy, 8 streams", 3),
    ("sys1", "bulk1", "system_s_gb", "CPU s/GB, whole system, 1 stream", 3),
    ("sys8", "bulk8", "system_s_gb", "CPU s/GB, whole system, 8 streams", 3),
    ("ping50", "ping1", "p50_us", "ping-pong p50, us", 1),
    ("ping99", "ping1", "p99_us", "ping-pong p99, us", 1),
    ("conn1", "conn1", "rate", "short connections/s, 1 client", 0),
    ("conn8", "conn8", "rate", "short connections/s, 8 clients", 0),
    ("conn64", "conn64", "rate", "short connections/s, 64 clients", 0),
    ("conncpu8", "conn8", "proxy_us", "CPU us/connection of the proxy, 8 clients", 1),
    ("conn1p50", "conn1", "p50_us", "connect + reply p50, 1 client, us", 0),
    ("conn1p99", "conn1", "p99_us", "connect + reply p99, 1 client, us", 0),
    ("conn8p99", "conn8", "p99_us", "connect + reply p99, 8 clients, us", 0),
    ("rss", "idle", "rss_kb_conn", "resident KiB per idle connection", 2),
    ("slab", "idle", "slab_kb_conn", "kernel slab KiB per idle connection, whole system", 2),
]
# key of a row, "at least" or "at most", factor of HAProxy's value, what is expected
EXPECTED = [
    ("bulk1", ">=", 1.5, "1 stream: at least 1.5x HAProxy"),
    ("cpu1", "<=", 0.75, "CPU per GB, 1 stream: at most 0.75x HAProxy"),
    ("conn8", ">=", 1.1, "short connections, 8 clients: at least 1.1x HAProxy"),
    ("conn64", ">=", 1.1, "short connections, 64 clients: at least 1.1x HAProxy"),
    ("ping50", "<=", 1.0, "ping-pong p50: no worse than HAProxy"),
    ("ping99", "<=", 1.0, "ping-pong p99: no worse than HAProxy"),
    ("rss", "<=", 1 / 3, "memory per idle connection: at most a third of HAProxy"),
]


def read_pairs(path):
    with open(path, encoding="utf-8") as f:
        return dict(line.rstrip("\n").split("=", 1) for line in f if "=" in line)


def read_raw(path):
    """{(test, key): {contender: {round: value}}} and the lines that report errors."""
    figures, troubles = {}, []
    with open(path, encoding="utf-8") as f:
        for line in f:
            rnd, test, contender, text = line.rstrip("\n").split("\t")
            pairs = dict(w.split("=", 1) for w in text.split() if "=" in w)
            if text.startswith("failed") or pairs.get("errors", "0") != "0":
                troubles.append(f"round {rnd} {test} {contender}: {text}")
            for key, value in pairs.items():
                figures.setdefault((test, key), {}).setdefault(contender, {})[rnd] = float(value)
    return figures, troubles


def ratio(values, contender, other):
    """Median over the rounds that have both, or None."""
    a, b = values.get(contender, {}), values.get(other, {})
    pairs = [a[r] / b[r] for r in a if b.get(r)]
    return statistics.median(pairs) if pairs else None


def show_ratio(value):
    return "-" if value is None else f"{value:.2f}"


def show_cell(samples, decimals, spread):
    if not samples:
        return "-"
    v = sorted(samples.values())
    text = f"{statistics.median(v):.{decimals}f}"
    if spread:
        text += f" ({v[0]:.{decimals}f} - {v[-1]:.{decimals}f})"
    return text


def figure_rows(figures, spread):
    head = ["", *CONTENDERS, "sluice/haproxy", "sluice/direct", "sluice/nginx"]
    rows = []
    for _, test, key, title, decimals in ROWS:
        values = figures.get((test, key))
        if values is None:
            continue
        if key in ("proxy_s_gb", "proxy_us"):
            values = {c: v for c, v in values.items() if c != "direct"}
        cells = [show_cell(values.get(c), decimals, spread) for c in CONTENDERS]
        ratios = [show_ratio(ratio(values, "sluice", o)) for o in ("haproxy", "direct", "nginx")]
        rows.append([title, *cells, *ratios])
    return head, rows


def expectation_rows(figures, remarks):
    where = {key: (test, value) for key, test, value, _, _ in ROWS}
    rows = []
    for key, sense, factor, text in EXPECTED:
        got = ratio(figures.get(where[key], {}), "sluice", "haproxy")
        if got is None:
            rows.append([text, "-", "not measured", ""])
            continue
        met = got >= factor if sense == ">=" else got <= factor
        remark = "" if met else remarks.get(key, "no reason is known yet")
        rows.append([text, f"{got:.2f}x", "met" if met else "NOT met", remark])
    return ["expected", "measured", "verdict", "reason"], rows


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


PAGE = """# Benchmarks

Written by `make bench ONLY=--write`; change `tests/bench/`, not this page.

| | |
| --- | --- |
{machine}

Client, proxy and backend are network namespaces of one machine, joined by veth, so all three share
its processors: a proxy that needs less CPU leaves more to the other two. "direct" is the same path
routed, without a proxy. {rounds} rounds of {seconds} s per test (after 0.3 s of warm-up); within a
test all contenders run one after the other, and the order rotates. HAProxy: `mode tcp`, `option splice-auto`,
`nbthread 2`. nginx: `stream`, `worker_processes 2`. Sluice: `engine: relay`, `workers: 2`.
Otherwise all run with their defaults. Streams are downloads; the client discards the bytes inside
the kernel. Requests and replies have 100 bytes; of short connections the client closes first.
`tcp_tw_reuse=1` and ports 1024-65000 everywhere. Idle: {idle_count} connections that carried one
request and reply, through a fresh instance{short}.

## Results: median (minimum - maximum)

Ratios are medians of the ratios within each round.

{figures}

## Expected and measured

{expected}
{troubles}"""


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--write", metavar="PAGE")
    args.add_argument("machine")
    args.add_argument("raw")
    args = args.parse_args()
    machine = read_pairs(args.machine)
    figures, troubles = read_raw(args.raw)
    remarks = read_remarks()
    print("\nMedians; ratios are medians of the ratios within each round.\n")
    print(plain(*figure_rows(figures, False)))
    if "sluice" in {c for v in figures.values() for c in v}:
        print("\n" + plain_expectations(*expectation_rows(figures, remarks)))
    for t in troubles:
        print("errors in", t)
    if args.write:
        names = ["date", "system", "kernel", "cpu", "memory", "load_before", "sluice", "haproxy", "nginx"]
        rows = [f"| {n.replace('_', ' ')} | {machine[n]} |" for n in names if n in machine]
        listed = "".join(f"\n- {t}" for t in troubles)
        short = ""
        if int(machine["idle_count"]) < 10000:
            short = " (not 10 000: this machine's limit of open files allows no more, two each)"
        page = PAGE.format(
            machine="\n".join(rows),
            rounds=machine["rounds"],
            seconds=machine["seconds"],
            idle_count=machine["idle_count"],
            short=short,
            figures=markdown(*figure_rows(figures, True)),
            expected=markdown(*expectation_rows(figures, remarks)),
            troubles=f"\n## Runs with errors\n{listed}\n" if troubles else "",
        )
        os.makedirs(os.path.dirname(args.write) or ".", exist_ok=True)
        with open(args.write, "w", encoding="utf-8") as f:
            f.write(page)
        print("\nwritten:", args.write)


if __name__ == "__main__":
    main()
