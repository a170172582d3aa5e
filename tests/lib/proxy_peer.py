#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers that speak the PROXY protocol, before and behind the daemon.

  proxy_peer.py serve listen=ADDR:PORT[,...] [expect=1]
      Greets each connection with one line, then returns what it gets until the end. With expect=1 it
      waits for a PROXY header first; the line says "peer=A:P RESULT" as proxyproto.py has it, RESULT
      is "plain" without expect. A bad or missing header is answered and closed.

  proxy_peer.py ask to=ADDR:PORT [src=IP] [header=WHAT | raw=BYTES] [hello=NAME[,PROTOCOL...]]
                   [send=TEXT] [bytes=1] [fin=0] [hold=FILE] [bulk=N]
                   [tls=NAME[,PROTOCOL...]]
      One connection: a header ("v2 src=... dst=..." or escaped bytes), a ClientHello, text; with
      bytes=1 each byte alone. Prints JSON: the own address, the greeting's line, what came after it
      (text, or with bulk=N whether N bytes came back unchanged), the end, the time it took. hold:
      prints {"local": ..., "line": ..., "ms": ...} first and stays until FILE is there. tls:
      all that in TLS, whoever the server is; only with hold, and over after the first line.

  proxy_peer.py cases to=ADDR:PORT src=IP mode=MODE log=FILE [bytes=1] [jobs=N]
      Every "in" case of proxy_cases.txt, followed by a payload, against a daemon before `serve`;
      checks what comes back and the access line of each connection. MODE is what the port does with
      us: required, optional, payload (it never reads a header from us), refused.
"""
import concurrent.futures
import hashlib
import json
import os
import random
import re
import socket
import ssl
import sys
import threading
import time

import hello
import proxyproto

LIMIT = 15


def split_addr(text):
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


def join_addr(name):
    host = name[0]
    if host.startswith("::ffff:"):
        host = host[7:]
    return f"[{host}]:{name[1]}" if ":" in host else f"{host}:{name[1]}"


# ---- serve ----


def read_header(s):
    """The header's description and the bytes after it."""
    got = b""
    while True:
        result, h = proxyproto.parse(got)
        if result == "ok":
            return proxyproto.describe(result, h), got[h["len"] :]
        if result != "more":
            return result, b""
        piece = s.recv(65536)
        if not piece:
            return "cut after " + proxyproto.escape(got[:200]), b""
        got += piece


def serve_one(s, peer, expect):
    try:
        s.settimeout(60)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        text, rest = read_header(s) if expect else ("plain", b"")
        s.sendall(f"peer={join_addr(peer)} {text}\n".encode() + rest)
        if text.startswith(("ok", "plain")):
            while piece := s.recv(65536):
                s.sendall(piece)
        s.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    finally:
        s.close()


def accept_all(listener, expect):
    while True:
        s, peer = listener.accept()
        threading.Thread(target=serve_one, args=(s, peer, expect), daemon=True).start()


def serve(args):
    threads = []
    for address in args["listen"].split(","):
        host, port = split_addr(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=1024)
        threads.append(threading.Thread(target=accept_all, args=(listener, args.get("expect") == "1")))
        threads[-1].start()
    for t in threads:
        t.join()
    return 0


# ---- ask ----


def connect(args):
    """The socket and its own address; the socket is None when the peer refused meanwhile."""
    host, port = split_addr(args["to"])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(family)
    s.settimeout(LIMIT)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if "src" in args:
        s.bind((args["src"], 0))
    own = s.getsockname()
    try:
        s.connect((host, port))
    except ConnectionResetError:
        return None, join_addr(own)
    return s, join_addr(s.getsockname())


def send(s, data, single):
    """False when the peer resets meanwhile; the socket tells that once only."""
    try:
        if not single:
            s.sendall(data)
            return True
        for i in range(len(data)):
            s.sendall(data[i : i + 1])
            time.sleep(0.0005)  # each byte a segment and, mostly, a read of its own
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def finish(s):
    try:
        s.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def read_all(s):
    got = bytearray()
    try:
        while piece := s.recv(65536):
            got += piece
        return bytes(got), "eof"
    except ConnectionResetError:
        return bytes(got), "reset"
    except TimeoutError:
        return bytes(got), "timeout"


def read_line(s):
    line = b""
    while not line.endswith(b"\n"):
        piece = s.recv(1)
        if not piece:
            break
        line += piece
    return line.decode().strip()


def in_tls(s, text):
    name, *protocols = text.split(",")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    return context.wrap_socket(s, server_hostname=name)


def client_hello(text):
    name, *protocols = text.split(",")
    return hello.build(sni=name, alpn=protocols)


def ask(args):
    data = proxyproto.build(args["header"]) if "header" in args else b""
    data += proxyproto.unescape(args.get("raw", ""))
    data += client_hello(args["hello"]) if "hello" in args else b""
    data += proxyproto.unescape(args.get("send", ""))
    bulk = random.Random(1).randbytes(int(args.get("bulk", 0)))
    began = time.monotonic()
    s, local = connect(args)
    s = in_tls(s, args["tls"]) if s and "tls" in args else s
    if not s or not send(s, data, args.get("bytes") == "1"):
        ms = int((time.monotonic() - began) * 1000)
        print(json.dumps({"local": local, "line": "", "data": "", "end": "reset", "ms": ms}))
        return 0
    if "hold" in args:
        line = read_line(s)
        ms = int((time.monotonic() - began) * 1000)
        print(json.dumps({"local": local, "line": line, "ms": ms}), flush=True)
        if "tls" in args:
            return 0
        while not os.path.exists(args["hold"]) and time.monotonic() < began + 60:
            time.sleep(0.02)
    cut = []  # the socket tells of a reset once only, to the writer or to us

    def write_rest():
        if bulk and not send(s, bulk, False):
            cut.append(True)
        elif args.get("fin") != "0":
            finish(s)

    writer = threading.Thread(target=write_rest)
    writer.start()
    got, end = read_all(s)
    ms = int((time.monotonic() - began) * 1000)
    writer.join()
    end = "reset" if cut else end
    line, _, rest = ("", "", got) if "hold" in args else got.partition(b"\n")
    answer = {"local": local, "line": (line or b"").decode("latin-1"), "end": end, "ms": ms}
    if bulk:
        want = proxyproto.unescape(args.get("send", "")) + bulk
        answer["bulk"] = hashlib.sha256(rest).digest() == hashlib.sha256(want).digest()
    else:
        answer["data"] = proxyproto.escape(rest)
    print(json.dumps(answer))
    return 0


# ---- cases ----


class Fault(Exception):
    pass


def wanted(mode, name, result, fields, left, payload):
    """What one case should come to: the echo (None: a reset), the client and via, the reason."""
    own = {"client": None, "via": "-"}
    if mode == "refused":
        return None, own, "proxy_protocol_untrusted"
    if mode == "payload":
        return left + payload, own, "normal"
    if result == "ok":
        if "src" in fields:
            own = {"client": fields["src"], "via": None}
        return payload, own, "normal"
    if mode == "optional" and result == "none":
        return left + payload, own, "normal"
    if result == "more":  # sent without the payload, and cut by the FIN: payload before the signature is whole
        is_begun = len(left) >= (6 if left[:1] == b"P" else 12)
        if mode == "optional" and not is_begun:
            return left, own, "normal"
    return None, own, "proxy_protocol_error"


def run_case(args, name, data):
    result, fields = proxyproto.parse(data)
    payload = b"" if result == "more" else f"payload of {name}\r\n".encode()
    echo, addrs, reason = wanted(args["mode"], name, result, fields, data, payload)
    s, local = connect(args)
    got, end = b"", "reset"
    if s and send(s, data + payload, args.get("bytes") == "1"):
        finish(s)
        got, end = read_all(s)
    if s:
        s.close()
    line, _, rest = got.partition(b"\n")
    if echo is None and (got or end != "reset"):
        raise Fault(f"{name}: got {got[:100]!r} and {end}, want a reset")
    if echo is not None and (not line.endswith(b" plain") or rest != echo or end != "eof"):
        raise Fault(f"{name}: got {line!r} {rest[:200]!r} and {end}, want {echo[:200]!r}")
    client = addrs["client"] or local
    via = local if addrs["via"] is None else addrs["via"]
    return name, f" client={client} via={via} ", f" client_reason={reason} "


def find_lines(log, wants):
    """Those whose access line is not there."""
    with open(log, encoding="utf-8", errors="replace") as f:
        lines = [line for line in f if " access: " in line]
    by_addrs = {}
    for line in lines:
        m = re.search(r" client=\S+ via=\S+ ", line)
        by_addrs.setdefault(m.group(0) if m else "", []).append(line)
    return [w for w in wants if not any(w[2] in line for line in by_addrs.get(w[1], []))]


def cases(args):
    faults, wants = [], []
    todo = [(n, proxyproto.unescape(left)) for kind, n, left, _ in proxyproto.load_cases() if kind == "in"]
    with concurrent.futures.ThreadPoolExecutor(int(args.get("jobs", 16))) as pool:
        for future in [pool.submit(run_case, args, *one) for one in todo]:
            try:
                wants.append(future.result())
            except (Fault, OSError) as e:
                faults.append(str(e))
    end = time.monotonic() + 5
    missing = wants
    while missing and time.monotonic() < end:
        missing = find_lines(args["log"], missing)
        time.sleep(0.05 if missing else 0)
    faults += [f"{name}: no access line with{addrs}and{reason}" for name, addrs, reason in missing]
    print("\n".join(faults + [f"{len(todo)} cases, {len(faults)} faults"]))
    return 1 if faults or not todo else 0


def main(argv):
    verbs = {"serve": serve, "ask": ask, "cases": cases}
    if len(argv) < 2 or argv[0] not in verbs:
        print(__doc__, file=sys.stderr)
        return 2
    return verbs[argv[0]](dict(a.split("=", 1) for a in argv[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
