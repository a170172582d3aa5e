#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""ClientHellos, built and read: what the C reader is compared with, and what tests send.

  hello.py build [KEY=VALUE ...]   the bytes on stdout; keys are those of build()
  hello.py parse                   a stream on stdin, what it says as JSON
  hello.py capture ADDR:PORT       what one client sends first, up to its hello's end, on stdout
  hello.py random SEED N           N lines for the unit test: a stream in hex and what parse() says

Written from RFC 8446, 6066 and 7301 alone, without a look at the reader in C.
"""
import json
import random
import socket
import struct
import sys

MAX = 65536
VERSIONS = {"1.0": 0x0301, "1.1": 0x0302, "1.2": 0x0303, "1.3": 0x0304}
GREASE = [0x0A0A + 0x1010 * i for i in range(16)]
SERVER_NAME, GROUPS, SIGNATURES, ALPN, PADDING = 0, 10, 13, 16, 21
SUPPORTED_VERSIONS, KEY_SHARE, ECH = 43, 51, 0xFE0D
X25519MLKEM768, X25519 = 0x11EC, 0x1D


class More(Exception):
    pass


class NotTls(Exception):
    pass


class Bad(Exception):
    pass


# ---- writing ----


def vec(width, body):
    return len(body).to_bytes(width, "big") + body


def u16(v):
    return struct.pack(">H", v)


def extension(kind, body):
    return u16(kind) + vec(2, body)


def sni_extension(names):
    """`names`: texts or bytes, or pairs (type, bytes)."""
    entries = b""
    for name in names:
        kind, name = name if isinstance(name, tuple) else (0, name)
        name = name.encode() if isinstance(name, str) else name
        entries += bytes([kind]) + vec(2, name)
    return extension(SERVER_NAME, vec(2, entries))


def alpn_extension(protocols):
    return extension(ALPN, vec(2, b"".join(vec(1, p.encode()) for p in protocols)))


def versions_extension(versions):
    return extension(SUPPORTED_VERSIONS, vec(1, b"".join(map(u16, versions))))


def post_quantum_key_share(rng, grease):
    """1216 bytes of X25519MLKEM768 and 32 of X25519, as browsers send both."""
    shares = u16(grease) + vec(2, b"\0")
    shares += u16(X25519MLKEM768) + vec(2, rng.randbytes(1216))
    shares += u16(X25519) + vec(2, rng.randbytes(32))
    return extension(KEY_SHARE, vec(2, shares))


def message(extensions, legacy=0x0303, session=b"", suites=(0x1301, 0xC02F), compression=b"\0", rng=None):
    """`extensions`: bytes after their outer length; None: no extensions at all."""
    body = u16(legacy) + (rng or random.Random(1)).randbytes(32) + vec(1, session)
    body += vec(2, b"".join(map(u16, suites))) + vec(1, compression)
    if extensions is not None:
        body += vec(2, extensions)
    return b"\x01" + vec(3, body)


def records(msg, size=16384, version=0x0301):
    """`size`: a number, or a list of sizes of which the last is repeated."""
    sizes = list(size) if isinstance(size, (list, tuple)) else [size]
    out, at = b"", 0
    while at < len(msg):
        n = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        out += b"\x16" + u16(version) + vec(2, msg[at : at + n])
        at += n
    return out


def build(sni=None, alpn=(), versions=("1.2", "1.3"), ech=False, size=0, record=16384, grease=True,
          pq=False, seed=1):
    """A stream with one hello. `size`: pads the message to that many bytes (not less than it needs)."""
    rng = random.Random(seed)
    modern = "1.3" in versions
    legacy = min(max((VERSIONS[v] for v in versions), default=0x0303), 0x0303)
    ext = extension(rng.choice(GREASE), b"") if grease else b""
    if sni is not None:
        ext += sni_extension([sni] if isinstance(sni, (str, bytes)) else sni)
    first = rng.choice(GREASE)
    groups = [first, X25519MLKEM768, X25519] if pq else [X25519]
    ext += extension(GROUPS, vec(2, b"".join(map(u16, groups))))
    ext += extension(SIGNATURES, vec(2, b"".join(map(u16, (0x0403, 0x0804, 0x0401)))))
    if alpn:
        ext += alpn_extension(alpn)
    if modern:
        ext += versions_extension(([rng.choice(GREASE)] if grease else []) + [VERSIONS[v] for v in versions])
        ext += post_quantum_key_share(rng, first) if pq else extension(KEY_SHARE, vec(2, u16(X25519) + vec(2, rng.randbytes(32))))
    if ech:
        ext += extension(ECH, b"\0" + u16(1) + u16(1) + b"\x07" + vec(2, rng.randbytes(32)) + vec(2, rng.randbytes(128)))
    session = rng.randbytes(32) if modern else b""
    missing = size - len(message(ext, legacy, session))
    if missing >= 4:
        ext += extension(PADDING, bytes(missing - 4))
    return records(message(ext, legacy, session, rng=rng), record)


# ---- reading ----


class Stream:
    """The handshake message's bytes, one by one, out of the records they come in."""

    def __init__(self, raw):
        self.raw, self.at, self.left = raw, 0, 0
        self.done, self.length, self.first = 0, None, True

    def wire(self):
        if self.at == len(self.raw):
            raise More
        self.at += 1
        return self.raw[self.at - 1]

    def check(self, holds, why):
        if not holds:
            raise NotTls if self.first else Bad(why)

    def open_record(self):
        self.check(self.wire() == 0x16, "record type")
        self.check(self.wire() == 3, "record version")
        self.wire()
        high = self.wire()
        self.check(high <= 0x40, "record length")
        self.left = high * 256 + self.wire()
        self.check(1 <= self.left <= 16384, "record length")
        self.first = False

    def overrun(self):
        if self.length is not None and self.done + self.left > self.length:
            raise Bad("record longer than the hello")

    def byte(self):
        if self.left == 0:
            self.open_record()
            self.overrun()
        b = self.wire()
        self.left -= 1
        self.done += 1
        return b

    def message(self):
        if self.byte() != 1:
            raise NotTls
        if self.byte():
            raise Bad("too large")
        self.length = 4 + self.byte() * 256 + self.byte()
        if not 45 <= self.length <= MAX:
            raise Bad("length")
        self.overrun()
        return bytes(self.byte() for _ in range(self.length - 4))


def pull(buf, width):
    """(what a vector holds, what follows)"""
    if len(buf) < width:
        raise Bad("short")
    n = int.from_bytes(buf[:width], "big")
    if len(buf) < width + n:
        raise Bad("short vector")
    return buf[width : width + n], buf[width + n :]


def whole(buf, width):
    inner, rest = pull(buf, width)
    if rest or not inner:
        raise Bad("empty or followed by something")
    return inner


def name_of(raw):
    name = raw.decode("latin-1").lower() if raw.isascii() else ""
    name = name[:-1] if name.endswith(".") else name
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-_")
    labels = name.split(".")
    if len(name) > 253 or not all(0 < len(x) <= 63 and set(x) <= allowed for x in labels):
        raise Bad("name")
    return name


def read_names(body):
    entries, name = whole(body, 2), None
    while entries:
        value, rest = pull(entries[1:], 2)
        if entries[0] == 0 and name is None:
            name = value
        entries = rest
    return name


def read_body(body):
    out = {"name": None, "alpn": None, "versions": set(), "ech": False}
    if len(body) < 34:
        raise Bad("short")
    legacy = struct.unpack(">H", body[:2])[0]
    session, rest = pull(body[34:], 1)
    suites, rest = pull(rest, 2)
    compression, rest = pull(rest, 1)
    if legacy // 256 != 3 or len(session) > 32 or not suites or len(suites) % 2 or not compression:
        raise Bad("fixed part")
    out["versions"] = {v for v, code in VERSIONS.items() if code <= min(legacy, 0x0303)}
    if not rest:
        return out
    rest, after = pull(rest, 2)
    if after:
        raise Bad("after the extensions")
    found, raw_name = {}, None
    while rest:
        kind = rest[:2]
        value, rest = pull(rest[2:], 2)
        if len(kind) < 2 or kind in found:
            raise Bad("extension twice")
        found[kind] = value
    if u16(SERVER_NAME) in found:
        raw_name = read_names(found[u16(SERVER_NAME)])
    if u16(ALPN) in found:
        out["alpn"] = entries = whole(found[u16(ALPN)], 2)
        while entries:
            protocol, entries = pull(entries, 1)
            if not protocol:
                raise Bad("empty protocol")
    if u16(SUPPORTED_VERSIONS) in found:
        offered = whole(found[u16(SUPPORTED_VERSIONS)], 1)
        if len(offered) % 2:
            raise Bad("half a version")
        codes = {offered[i] * 256 + offered[i + 1] for i in range(0, len(offered), 2)}
        out["versions"] = {v for v, code in VERSIONS.items() if code in codes}
    out["ech"] = u16(ECH) in found
    if raw_name is not None:
        out["name"] = name_of(raw_name)
    return out


def parse(raw):
    """("ok", dict), or ("more" | "not_tls" | "bad", None)"""
    stream = Stream(raw)
    try:
        out = read_body(stream.message())
    except More:
        return "more", None
    except NotTls:
        return "not_tls", None
    except Bad:
        return "bad", None
    out["len"] = stream.at
    return "ok", out


def protocols(entries):
    out = []
    while entries:
        one, entries = pull(entries, 1)
        out.append(one.decode("latin-1"))
    return out


# ---- random ones ----


def random_name(rng):
    kind = rng.randrange(12)
    label = lambda: "".join(rng.choices("abcXYZ019-_", k=rng.randint(1, 12)))
    name = ".".join(label() for _ in range(rng.randint(1, 5)))
    if kind == 0:
        return rng.choice(["", ".", "a..b", ".a", "a b", "a:1", "[::1]", "é.example", "a\0b", "a" * 64, "*.x", "x" * 63 + ".y"])
    if kind == 1:
        return ".".join("n" * 49 for _ in range(5)) + "." + "z" * rng.randint(1, 5)
    return name + ("." if kind == 2 else "")


def random_extensions(rng):
    parts = [extension(k, rng.randbytes(rng.randint(0, 9))) for k in rng.sample(GREASE, rng.randint(0, 2))]
    if rng.random() < 0.8:
        names = [random_name(rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        parts.append(sni_extension([(rng.choice([0, 0, 0, 7]), n.encode()) if rng.random() < 0.2 else n for n in names]))
    if rng.random() < 0.6:
        parts.append(alpn_extension(rng.sample(["h2", "http/1.1", "x" * 255, "spdy/3"] + [""] * (rng.random() < 0.1), rng.randint(1, 3))))
    if rng.random() < 0.7:
        parts.append(versions_extension(rng.choices(GREASE + [0x300, 0x301, 0x302, 0x303, 0x304, 0x7F1C], k=rng.randint(1, 6))))
    if rng.random() < 0.3:
        parts.append(post_quantum_key_share(rng, rng.choice(GREASE)))
    if rng.random() < 0.2:
        parts.append(extension(ECH, rng.randbytes(rng.randint(0, 200))))
    if rng.random() < 0.05:
        parts.append(rng.choice(parts or [extension(1, b"")]))
    if rng.random() < 0.1:
        parts.append(extension(PADDING, bytes(rng.choice([200, 20000, 60000]))))
    rng.shuffle(parts)
    return b"".join(parts)


def damage(rng, raw):
    """Something of it changed, most often a length near the start."""
    raw = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 3])):
        if not raw:
            break
        at = rng.randrange(min(len(raw), rng.choice([10, 60, 120, len(raw)])))
        raw[at] = rng.choice([rng.randrange(256), (raw[at] + 1) % 256, (raw[at] - 1) % 256, 0])
    if raw and rng.random() < 0.2:
        del raw[rng.randrange(len(raw)) :]
    return bytes(raw)


def random_stream(rng):
    ext = None if rng.random() < 0.05 else random_extensions(rng)
    msg = message(
        ext,
        legacy=rng.choice([0x303] * 8 + [0x300, 0x301, 0x302, 0x304, 0x203, 0x403]),
        session=rng.randbytes(rng.choice([0, 32, 32, rng.randint(0, 34)])),
        suites=rng.choices(GREASE + [0x1301, 0xC02F], k=rng.choice([1, 5, 40, 0 if rng.random() < 0.2 else 2])),
        compression=b"" if rng.random() < 0.03 else rng.randbytes(rng.choice([1, 1, 2])),
        rng=rng)
    if rng.random() < 0.3:
        msg = damage(rng, msg)
    sizes = rng.choice([[16384], [rng.randint(1, 300)], [rng.randint(1, 5) for _ in range(4)] + [4000]])
    raw = records(msg, sizes, rng.choice([0x300, 0x301, 0x303, 0x3FF]))
    if rng.random() < 0.2:
        raw = damage(rng, raw)
    return raw + rng.randbytes(rng.choice([0, 0, 20]))


def print_random(seed, n):
    rng = random.Random(seed)
    for _ in range(n):
        raw = random_stream(rng)
        result, hello = parse(raw)
        line = [raw.hex() or "-", result]
        if hello:
            bits = sum(1 << i for i, v in enumerate(VERSIONS) if v in hello["versions"])
            line += [hello["name"] or "-", (hello["alpn"] or b"").hex() or "-", str(bits), str(int(hello["ech"])), str(hello["len"])]
        print(*line)


# ---- command line ----


def capture(address):
    host, port = address.rsplit(":", 1)
    with socket.create_server((host, int(port))) as listener:
        listener.settimeout(30)
        client, _ = listener.accept()
    client.settimeout(10)
    raw = b""
    while parse(raw)[0] == "more":
        piece = client.recv(65536)
        if not piece:
            break
        raw += piece
    client.close()
    return raw


def arguments(words):
    """KEY=VALUE of a command line as arguments of build()."""
    kw = {}
    for key, value in (w.split("=", 1) for w in words):
        kw[key] = value.split(",") if key in ("alpn", "versions") else value if key == "sni" else int(value)
    return kw


def main():
    verb, args = sys.argv[1], sys.argv[2:]
    if verb == "build":
        sys.stdout.buffer.write(build(**arguments(args)))
    elif verb == "parse":
        result, hello = parse(sys.stdin.buffer.read())
        if hello:
            hello.update(versions=sorted(hello["versions"]), alpn=protocols(hello["alpn"] or b""))
        print(json.dumps({"result": result, **(hello or {})}))
    elif verb == "capture":
        sys.stdout.buffer.write(capture(args[0]))
    elif verb == "random":
        print_random(int(args[0]), int(args[1]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
