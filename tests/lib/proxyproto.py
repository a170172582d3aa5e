#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PROXY protocol a second time, for the tests: shares nothing with userspace/core.

As a program:
  proxyproto.py cases                 checks the lines of proxy_cases.txt
  proxyproto.py random COUNT SEED     writes COUNT lines "HEX<tab>RESULT": headers, whole, cut, with
                                      payload behind them, and damaged
  proxyproto.py verify                reads lines "HEX<tab>RESULT" and says which it reads otherwise
  proxyproto.py build WHAT            writes the bytes of "v2 src=... dst=... alpn=h2 crc32c"

RESULT is "ok v1 src=A:P dst=A:P" and so on as in proxy_cases.txt, or more, none, bad.
"""
import os
import random
import re
import socket
import struct
import sys

SIG = b"\r\n\r\n\0\r\nQUIT\n"
CASES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "proxy_cases.txt")
TLV = {"alpn": 1, "authority": 2, "crc32c": 3, "noop": 4, "unique_id": 5, "ssl": 0x20, "netns": 0x30}
SSL = {"ssl_version": 0x21, "ssl_cn": 0x22, "ssl_cipher": 0x23, "ssl_sig_alg": 0x24, "ssl_key_alg": 0x25}
TEXTS = ("alpn", "authority", "unique_id", "netns")


def crc32c(data):
    """Bit by bit, as the polynomial says."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# ---- text ----


def escape(data):
    return "".join(
        chr(b) if 0x20 < b < 0x7F and chr(b) not in "\\|{" else f"\\x{b:02x}" for b in data
    )


def unescape(text):
    """\\r \\n \\xHH, {sig} for the signature of version 2, {HH*N} for N times a byte."""

    def one(m):
        word = m.group(0)
        if word == "{sig}":
            return SIG.decode("latin-1")
        if word[0] == "{":
            return chr(int(m.group(2), 16)) * int(m.group(3))
        if word[1] == "x":
            return chr(int(m.group(1), 16))
        return {"\\r": "\r", "\\n": "\n", "\\\\": "\\"}[word]

    pattern = r"\\x([0-9a-f]{2})|\\[rn\\]|\{sig\}|\{([0-9a-f]{2})\*(\d+)\}"
    return re.sub(pattern, one, text).encode("latin-1")


def ip_and_port(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def family_of(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def format_addr(packed, port):
    """Mapped addresses are told as IPv4."""
    if len(packed) == 16 and packed.startswith(bytes(10) + b"\xff\xff"):
        packed = packed[12:]
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{port}"


def describe(result, h=None):
    if result != "ok":
        return result
    words = ["ok", f"v{h['version']}"]
    words += ["local"] if h.get("local") else []
    words += [f"{k}={h[k]}" for k in ("src", "dst") if k in h]
    words += [f"{k}={escape(h[k])}" for k in TEXTS if k in h]
    words += ["crc32c"] if h.get("crc32c") else []
    words += ["ssl=%02x/%08x" % h["ssl"]] if "ssl" in h else []
    words += [f"{k}={escape(h[k])}" for k in SSL if k in h]
    return " ".join(words)


# ---- version 1 ----


def whole_line(line):
    """The fields of a complete line, or None."""
    if len(line) > 107 or not line.endswith(b"\r\n"):
        return None
    body = line[:-2]
    if b"\r" in body or b"\n" in body:
        return None
    if body == b"PROXY UNKNOWN" or body.startswith(b"PROXY UNKNOWN "):
        return {"version": 1, "len": len(line)}
    number = rb"(0|[1-9][0-9]{0,4})"
    m = re.fullmatch(rb"PROXY TCP([46]) ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) " + number + b" " + number, body)
    if not m or max(int(m.group(4)), int(m.group(5))) > 65535:
        return None
    family = socket.AF_INET if m.group(1) == b"4" else socket.AF_INET6
    try:
        src, dst = (socket.inet_pton(family, m.group(i).decode()) for i in (2, 3))
    except OSError:
        return None
    return {
        "version": 1,
        "src": format_addr(src, int(m.group(4))),
        "dst": format_addr(dst, int(m.group(5))),
        "len": len(line),
    }


ENDS4 = [b"0.0.0.0"[i:] for i in range(7)] + [b""]
ENDS6 = [b"", b"::", b":", b"0", b":0"] + ENDS4
LINES = (b"PROXY UNKNOWN\r\n", b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", b"PROXY TCP6 :: :: 0 0\r\n")


def line_is_possible(prefix):
    """Whether some continuation is valid, by trying the shortest ends of every field."""
    if any(line.startswith(prefix) for line in LINES):
        return True
    if prefix.startswith(b"PROXY UNKNOWN"):
        return any(whole_line(prefix + end) for end in (b"\r\n", b"\n"))
    m = re.match(rb"PROXY TCP([46]) ", prefix)
    if not m:
        return False
    ip, ends = (b" 0.0.0.0", ENDS4) if m.group(1) == b"4" else (b" ::", ENDS6)
    field = prefix.count(b" ") - 2  # 0: source, 3: destination's port
    if field > 3:
        return False
    after = b"".join([ip, ip, b" 0", b" 0"][field + 1 :]) + b"\r\n"
    if prefix.endswith(b"\r"):
        return whole_line(prefix + b"\n") is not None
    return any(whole_line(prefix + end + after) for end in (ends if field < 2 else [b"", b"0"]))


def parse_v1(data):
    end = data.find(b"\n")
    if end >= 0:
        h = whole_line(data[: end + 1])
        if h:
            return "ok", h
        return "bad", None
    return ("more" if line_is_possible(data) else "bad"), None


# ---- version 2 ----


class Bad(Exception):
    pass


def split_tlvs(data):
    at = 0
    while at < len(data):
        if len(data) - at < 3:
            raise Bad("a TLV without its head")
        kind, n = struct.unpack_from("!BH", data, at)
        if at + 3 + n > len(data):
            raise Bad("a TLV over the end")
        yield kind, at + 3, data[at + 3 : at + 3 + n]
        at += 3 + n


def once(h, key, value):
    if key in h:
        raise Bad(f"{key} twice")
    h[key] = value


def read_ssl(value, h):
    if len(value) < 5:
        raise Bad("a short SSL TLV")
    once(h, "ssl", struct.unpack("!BI", value[:5]))
    names = {number: name for name, number in SSL.items()}
    for kind, _, text in split_tlvs(value[5:]):
        if kind in names:
            once(h, names[kind], text)


def read_tlvs(header, start, h):
    names = {TLV[name]: name for name in TEXTS}
    for kind, at, value in split_tlvs(header[start:]):
        if kind in names:
            once(h, names[kind], value)
        if kind == TLV["unique_id"] and len(value) > 128:
            raise Bad("a long unique id")
        if kind == TLV["ssl"]:
            read_ssl(value, h)
        if kind == TLV["crc32c"]:
            if len(value) != 4:
                raise Bad("a checksum of another size")
            once(h, "crc32c", start + at)
    if "crc32c" in h:
        at = h["crc32c"]
        if crc32c(header[:at] + bytes(4) + header[at + 4 :]) != int.from_bytes(header[at : at + 4], "big"):
            raise Bad("a wrong checksum")


def parse_v2(data):
    sizes = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}
    local = data[12:13] == b"\x20"
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        return "bad", None
    if len(data) > 13 and not local and data[13] not in sizes:
        return "bad", None
    if len(data) < 16:
        return "more", None
    family, n = struct.unpack_from("!BH", data, 13)
    if not local and n < sizes[family]:
        return "bad", None
    if len(data) < 16 + n:
        return "more", None
    header = data[: 16 + n]
    h = {"version": 2, "len": len(header)}
    if local:
        h["local"] = True
    elif family in (0x11, 0x21):
        size = 4 if family == 0x11 else 16
        src, dst, sport, dport = struct.unpack_from(f"!{size}s{size}sHH", header, 16)
        h["src"], h["dst"] = format_addr(src, sport), format_addr(dst, dport)
    try:
        if not local and family:
            read_tlvs(header, 16 + sizes[family], h)
    except Bad:
        return "bad", None
    return "ok", h


def parse(data):
    """("ok", fields), ("more", None), ("none", None) or ("bad", None)."""
    if b"PROXY ".startswith(data[:6]):
        return ("more", None) if len(data) < 6 else parse_v1(data)
    if SIG.startswith(data[:12]):
        return ("more", None) if len(data) < 12 else parse_v2(data)
    return "none", None


# ---- building ----


def packed_pair(src, dst):
    """Both addresses in one family: IPv6 as soon as one is."""
    pair = [ip_and_port(src), ip_and_port(dst)]
    family = socket.AF_INET6 if any(family_of(host) == socket.AF_INET6 for host, _ in pair) else socket.AF_INET
    packed = []
    for host, _ in pair:
        if family == socket.AF_INET6 and family_of(host) == socket.AF_INET:
            host = f"::ffff:{host}"
        packed.append(socket.inet_pton(family, host))
    return family, packed, [port for _, port in pair]


def build_v1(src=None, dst=None):
    if not src:
        return b"PROXY UNKNOWN\r\n"
    family, packed, ports = packed_pair(src, dst)
    name = "TCP4" if family == socket.AF_INET else "TCP6"
    ips = [socket.inet_ntop(family, p) for p in packed]
    return f"PROXY {name} {ips[0]} {ips[1]} {ports[0]} {ports[1]}\r\n".encode()


def tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def build_v2(src=None, dst=None, tlvs=(), crc=False, command=None, family=None, block=None):
    """`tlvs`: pairs of type and value, in this order; the checksum comes last."""
    addrs, kind, verb = b"", 0, 0x20
    if src:
        af, packed, ports = packed_pair(src, dst)
        addrs = b"".join(packed) + struct.pack("!HH", *ports)
        kind, verb = (0x11 if af == socket.AF_INET else 0x21), 0x21
    addrs = addrs if block is None else block
    rest = addrs + b"".join(tlv(k, v) for k, v in tlvs) + (tlv(3, bytes(4)) if crc else b"")
    header = SIG + struct.pack(
        "!BBH", verb if command is None else command, kind if family is None else family, len(rest)
    )
    header += rest
    return header[:-4] + struct.pack("!I", crc32c(header)) if crc else header


def build_ssl(client, verify, subs=()):
    return struct.pack("!BI", client, verify) + b"".join(tlv(SSL.get(k, k), v) for k, v in subs)


def build(text):
    """From "v2 src=A:P dst=A:P alpn=h2 authority=x unique_id=x netns=x ssl=07/00000000 ssl_cn=x crc32c"."""
    words = text.split()
    h = dict((w.split("=", 1) + [""])[:2] for w in words[1:])
    if words[0] == "v1":
        return build_v1(h.get("src"), h.get("dst"))
    tlvs = [(TLV[k], unescape(h[k])) for k in TEXTS if k in h]
    if "ssl" in h:
        client, verify = (int(x, 16) for x in h["ssl"].split("/"))
        tlvs.append((TLV["ssl"], build_ssl(client, verify, [(k, unescape(h[k])) for k in SSL if k in h])))
    return build_v2(h.get("src"), h.get("dst"), tlvs, "crc32c" in h)


# ---- cases ----


def load_cases():
    """Tuples of kind, name, left, right as in the file."""
    with open(CASES, encoding="ascii") as f:
        for line in f:
            line = line.strip()
            if line and not line.startswith("#"):
                head, left, right = (part.strip() for part in line.split(" | "))
                kind, name = head.split()
                yield kind, name, left, right


def check_in(name, data, want):
    """At every length; "at=N" is the first length at which the answer stands."""
    word, _, at = want.partition(" at=")
    at = int(at) if at else len(data)
    for n in range(len(data) + 1):
        got = describe(*parse(data[:n]))
        expect = word if n >= at or word == "more" else "more"
        if got != expect:
            return f"{name}: after {n} bytes: '{got}', want '{expect}'"
    return None


def check_cases():
    faults, names = [], set()
    for kind, name, left, right in load_cases():
        fault = None
        if name in names:
            fault = f"{name}: twice"
        elif kind == "in":
            fault = check_in(name, unescape(left), right)
        elif build(left) != unescape(right):
            fault = f"{name}: builds {escape(build(left))}"
        names.add(name)
        faults += [fault] if fault else []
    print("\n".join(faults + [f"{len(names)} cases, {len(faults)} faults"]))
    return 1 if faults or not names else 0


# ---- random headers ----


def random_host(r):
    if r.random() < 0.5:
        return ".".join(str(r.choice([0, 1, 9, 10, 99, 127, 200, 255])) for _ in range(4))
    if r.random() < 0.2:
        return "::ffff:192.0.2." + str(r.randrange(256))
    groups = [r.choice(["0", "0", "1", "ab", "ffff", "FfFf", "0001"]) for _ in range(8)]
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, ":".join(groups)))


def random_addr(r):
    host = random_host(r)
    port = r.choice([0, 1, 80, 443, 1024, 65535, r.randrange(65536)])
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def random_text(r, most):
    return bytes(r.randrange(256) for _ in range(r.choice([0, 1, 2, 8, most, r.randrange(most + 1)])))


def random_tlvs(r):
    tlvs = [(TLV[k], random_text(r, 100)) for k in TEXTS if r.random() < 0.4]
    if r.random() < 0.3:
        subs = [(k, random_text(r, 40)) for k in (*SSL, 0x26, 0x28) if r.random() < 0.5]
        tlvs.append((TLV["ssl"], build_ssl(r.randrange(256), r.choice([0, 1, 2**32 - 1]), subs)))
    tlvs += [(r.choice([4, 0xE0, 0xEA, 0xFF]), random_text(r, 30)) for _ in range(r.choice([0, 0, 1, 3]))]
    if tlvs and r.random() < 0.08:
        tlvs.append(r.choice(tlvs))
    r.shuffle(tlvs)
    return tlvs


def random_header(r):
    src, dst = (random_addr(r), random_addr(r)) if r.random() < 0.93 else (None, None)
    if r.random() < 0.45:
        line = build_v1(src, dst)
        if not src and r.random() < 0.5:
            line = b"PROXY UNKNOWN " + bytes(r.choice(b" :.09afZ\0\xff") for _ in range(r.randrange(100))) + b"\r\n"
        return line
    if r.random() < 0.1:
        return build_v2(tlvs=random_tlvs(r), crc=r.random() < 0.5, command=0x21, family=0x31, block=random_text(r, 50).ljust(216, b"\0"))
    if r.random() < 0.1:
        return build_v2(tlvs=random_tlvs(r), command=r.choice([0x20, 0x21]), family=r.choice([0, 0x12]), block=random_text(r, 50))
    return build_v2(src, dst, random_tlvs(r), r.random() < 0.5)


def damage(r, data):
    """One small change, the kind a strict reader has to notice."""
    at = r.randrange(len(data))
    kind = r.randrange(4)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ 1 << r.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[at + 1 :]
    if kind == 2:
        return data[:at] + bytes([r.choice(b"0 .:f\r\n\0" + data)]) + data[at:]
    return data[:at] + bytes([r.choice(b"0129 .:f\r\n\0\xff")]) + data[at + 1 :]


def random_bytes(r):
    data = random_header(r)
    kind = r.randrange(10)
    if kind < 2:
        return data[: r.randrange(len(data))]
    if kind < 4:
        return data + random_text(r, 20)
    for _ in range(0 if kind < 6 else r.choice([1, 1, 2])):
        data = damage(r, data)
    return data


def verify(lines):
    faults = n = 0
    for line in lines:
        data, want = line.rstrip("\n").split("\t")
        got = describe(*parse(bytes.fromhex(data)))
        n += 1
        if got != want:
            faults += 1
            print(f"{data}\n  read here:  {got}\n  read there: {want}")
    print(f"{n} headers, {faults} read otherwise")
    return 1 if faults or not n else 0


def main(argv):
    if argv[:1] == ["cases"]:
        return check_cases()
    if argv[:1] == ["verify"]:
        return verify(sys.stdin)
    if argv[:1] == ["build"] and len(argv) == 2:
        sys.stdout.buffer.write(build(argv[1]))
        return 0
    if argv[:1] == ["random"] and len(argv) == 3:
        r = random.Random(int(argv[2]))
        for _ in range(int(argv[1])):
            data = random_bytes(r)
            print(f"{data.hex()}\t{describe(*parse(data))}")
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
