"""Prints single structures as docs/FORMAT.md lays them out, as JSON: what the encoders must give, what must be refused.

Built from the byte tables, not by blkdelta, so that encoder and specification prove each other. `make` keeps the output as
pinned.json; tests/format_golden.rs has the same values as structs. Needs blake3 and xxhash from PyPI.
"""

import json
import re
import struct

import xxhash
from blake3 import blake3

MANIFEST, DELTA, TRAILER = b"\x89BKM\r\n\x1a\n", b"\x89BKD\r\n\x1a\n", b"\x89BKT\r\n\x1a\n"
IDENTITY = b"file:golden"


def b3(data):
    return blake3(data).digest()


def sealed(data, length):
    data = data + bytes(length - 32 - len(data))
    return data + b3(data)


def placed(offset, data):
    return b3(struct.pack("<Q", offset) + data)[:16]


def identity(text=IDENTITY):
    return struct.pack("<H", len(text)) + text + bytes(256 - len(text))


def manifest(flags=0, version=1, pages=3, digest=1, key=bytes(48), tail=b"", text=None):
    head = struct.pack("<8sHHB3xIIQIIII", MANIFEST, version, flags, digest, 4 << 20, 8192, 5 << 40, 7, 6, 5, pages)
    return sealed(head + b"\2" * 32 + b"\1" * 32 + key + (text or identity()) + tail, 4096)


def delta(flags=0, version=1, digest=2, parent=(20 << 20, 1, b"\x09" * 32), key=bytes(48), tail=b""):
    size, sequence, root = parent
    head = struct.pack("<8sHHB3xIIQQII", DELTA, version, flags, digest, 1 << 20, 4096, (40 << 20) + 5, size, 2, sequence)
    return sealed(head + root + key + identity() + tail, 512)


def trailer(version=1, tail=b""):
    head = struct.pack("<8sH6x6Q", TRAILER, version, 600, 1, 2, 3, 4, 16384)
    return sealed(head + b"\x08" * 32 + b"\x07" * 32 + tail, 256)


def frame(codec=0, reserved=0, payload=b"blkdelta"):
    head = struct.pack("<4sBBHII", b"FRAM", codec, reserved, 0, 8, len(payload))
    return head + placed(512, head + payload) + payload


def grains(kind=1, flags=0, stored=b"\x08\x80", zero=b"\x10\x00", pieces=((512, 4096, 2),)):
    head = struct.pack("<BBHIQ", kind, flags, len(pieces), 65536, 1)
    body = head + b"\1" * 32 + b"\2" * 32 + stored + zero
    return body + b"".join(struct.pack("<QII", *piece) for piece in pieces) + b"\5" * 16 + b"\6" * 16


def zero(pieces=0):
    return struct.pack("<BBHIQ", 2, 0, pieces, 65536, 2) + b"\3" * 32


def zero_range(length=0, count=6):
    return struct.pack("<BBHIQQ", 3, 0, 0, length, 4, count)


def segment(*entries, offset=1000):
    body = b"".join(entries)
    head = struct.pack("<4sIQQI4x", b"INDX", len(entries), 1, 9, len(body))
    return head + placed(offset, head + body) + body


def table():
    lines = struct.pack("<QIIQQ", 1000, 300, 3, 1, 9) + struct.pack("<QIIQQ", 2000, 72, 1, 10, 12)
    return lines + placed(5000, lines)


def envelope(document=b'{"a":1}', version=b"1"):
    return b'{"blkdelta":' + version + b',"blake3":"' + b3(document).hex().encode() + b'","record":' + document + b"}\n"


def run_check():
    return struct.pack("<Q", xxhash.xxh3_64_intdigest(b"\1" * 32 + b"\5" * 16 + b"\6" * 16))


PINNED = {
    "manifest stored": manifest(),
    "manifest stored full": manifest(flags=2),
    "manifest working": manifest(flags=1, pages=0),
    "manifest working unsettled": manifest(flags=5, pages=0),
    "delta": delta(),
    "delta full": delta(flags=1, parent=(0, 0, bytes(32))),
    "trailer": trailer(),
    "frame": frame(),
    "segment": segment(grains(), zero(), zero_range()),
    "table": table(),
    "table entry": b"\4" * 32 + struct.pack("<I", 7),
    "run check": run_check(),
    "envelope": envelope(),
}
UNSUPPORTED = {
    "manifest: newer version": manifest(version=2),
    "manifest: flag 8": manifest(flags=8),
    "manifest: working and full": manifest(flags=3, pages=0),
    "manifest: digest 4": manifest(digest=4),
    "manifest: key id": manifest(key=b"\1" + bytes(47)),
    "manifest: reserved tail": manifest(tail=b"\1"),
    "manifest: identity padding": manifest(text=identity()[:-1] + b"\1"),
    "delta: newer version": delta(version=2),
    "delta: flag 2": delta(flags=2),
    "delta: digest 0": delta(digest=0),
    "delta: salt": delta(key=bytes(47) + b"\1"),
    "delta: reserved tail": delta(tail=bytes(90) + b"\1"),
    "trailer: newer version": trailer(version=2),
    "trailer: reserved tail": trailer(tail=b"\1"),
    "frame: codec 3": frame(codec=3),
    "frame: reserved": frame(reserved=1),
    "segment: entry kind 4": segment(grains(kind=4), zero(), zero_range()),
    "segment: entry flag 2": segment(grains(flags=2), zero(), zero_range()),
    "segment: zero with pieces": segment(grains(), zero(pieces=1), zero_range()),
    "segment: zero range with a length": segment(grains(), zero(), zero_range(length=65536)),
    "envelope: newer version": envelope(version=b"2"),
}
DAMAGED = {
    "manifest: version 0": manifest(version=0),
    "manifest: more pages than there are": manifest(pages=5121),
    "manifest: working with pages": manifest(flags=1, pages=1),
    "manifest: empty identity": manifest(text=bytes(258)),
    "delta: version 0": delta(version=0),
    "delta: full with a parent": delta(flags=1),
    "trailer: version 0": trailer(version=0),
    "frame: too long": struct.pack("<4sBBHII", b"FRAM", 0, 0, 0, 1114113, 8) + bytes(24),
    "segment: whole with a gap": segment(grains(flags=1), zero(), zero_range()),
    "segment: grain stored and zero": segment(grains(zero=b"\x08\x00"), zero(), zero_range()),
    "segment: pieces miss a grain": segment(grains(pieces=((512, 4096, 1),)), zero(), zero_range()),
    "segment: empty piece": segment(grains(pieces=((512, 4096, 2), (512, 0, 0))), zero(), zero_range()),
    "segment: out of order": segment(zero(), grains(), zero_range()),
    "segment: beyond the volume": segment(grains(), zero(), zero_range(count=7)),
    "segment: elsewhere": segment(grains(), zero(), zero_range(), offset=1001),
    "envelope: version 0": envelope(version=b"0"),
    "envelope: cut": envelope()[:-1],
}

def text(data):
    """Hexadecimal digits; a run of at least 16 zero bytes as its length in brackets."""
    pieces = re.split(rb"(\0{16,})", data)
    return "".join(piece.hex() if any(piece) or not piece else f"({len(piece)})" for piece in pieces)


if __name__ == "__main__":
    groups = {"pinned": PINNED, "unsupported": UNSUPPORTED, "damaged": DAMAGED}
    print(json.dumps({name: {key: text(data) for key, data in group.items()} for name, group in groups.items()}, indent=1))
