"""Reads, proves and restores blkdelta repositories. Written from docs/FORMAT.md alone, so that the two prove each other.

    reader.py list REPOSITORY                       one line of JSON for each backup
    reader.py check REPOSITORY                      every checksum and every rule; exit 1 with the first that is broken
    reader.py restore REPOSITORY ID FILE            one backup into a file, proven to its root
    reader.py restore-all REPOSITORY FOLDER         every backup into FOLDER/ID, for each of its ids
    reader.py check-manifest FILE                   a working manifest (scan --write-manifest, local state)
    reader.py check-delta FILE                      a delta without a repository (scan --delta)

Trade-off: whole files are read into memory, and it is slow; it is for tests and for the day when nothing else is left.
If it and the command disagree, one of them or the specification is wrong: find out which before changing any.
Needs Python 3.11 and, from PyPI, blake3, zstandard, lz4 and xxhash; for encrypted repositories what sealed.py names.
"""

import hashlib
import json
import re
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

import lz4.block
import xxhash
import zstandard
from blake3 import blake3

ZERO = bytes(32)
UNKNOWN = b"\xff" * 32
ZERO_GRAIN = bytes(16)
PAGE_BLOCKS = 256
ENTRY_LEN = 36
PAGE_LEN = ENTRY_LEN * PAGE_BLOCKS
FRAME_MAX = (1 << 20) + (64 << 10)
SEGMENT_MAX = 1 << 20
TABLE_PAGE = 1024
JSON_MAX = 1 << 20
KINDS = {1: "blake3", 2: "sha256", 3: "xxh3"}


class Damaged(Exception):
    """Contradicts its checksum, the specification or its neighbours."""


class Unsupported(Exception):
    """Needs a newer program."""


def damaged_unless(condition, what):
    if not condition:
        raise Damaged(what)


def supported_if(condition, what):
    if not condition:
        raise Unsupported(what)


def b3(*parts):
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def place_checksum(offset, *parts):
    return b3(struct.pack("<Q", offset), *parts)[:16]


# --- section 2: cutting ---


@dataclass(frozen=True)
class Geometry:
    volume_size: int
    block_size: int
    grain_size: int

    def __post_init__(self):
        for size, low, high in ((self.block_size, 1 << 16, 1 << 26), (self.grain_size, 1 << 12, 1 << 16)):
            damaged_unless(size.bit_count() == 1 and low <= size <= high, f"a size of {size} bytes")
        damaged_unless(self.volume_size <= 1 << 60, "the volume is too large")

    @property
    def block_count(self):
        return -(-self.volume_size // self.block_size)

    @property
    def page_count(self):
        return -(-self.block_count // PAGE_BLOCKS)

    def offset(self, block):
        return block * self.block_size

    def block_len(self, block):
        return max(0, min(self.block_size, self.volume_size - self.offset(block)))

    def grains_in(self, length):
        return -(-length // self.grain_size)

    def grain_len(self, grain, block_len):
        return min((grain + 1) * self.grain_size, block_len) - grain * self.grain_size


# --- section 3: digests ---


def grain_digest(kind, data):
    if not any(data):
        return bytes(16 if kind == "xxh3" else 32)
    if kind == "blake3":
        return b3(data)
    if kind == "sha256":
        return hashlib.sha256(data).digest()
    return xxhash.xxh3_128_intdigest(data).to_bytes(16, "little")


def tree(kind, *parts):
    if kind == "sha256":
        return hashlib.sha256(b"".join(parts)).digest()
    return b3(*parts)


def block_digest(kind, geometry, data):
    """The block's digest and the stored form of its grains'."""
    step = geometry.grain_size
    grains = [grain_digest(kind, data[at : at + step]) for at in range(0, len(data), step)]
    cut = [grain[:16] for grain in grains]
    if not any(data):
        return ZERO, cut
    return tree(kind, b"blkdelta.blck.v1", struct.pack("<Q", len(data)), *grains), cut


def root_digest(kind, geometry, blocks):
    pages = []
    for first in range(0, len(blocks), PAGE_BLOCKS):
        page = blocks[first : first + PAGE_BLOCKS]
        if all(digest == ZERO for digest in page):
            pages.append(ZERO)
        else:
            pages.append(tree(kind, b"blkdelta.page.v1", struct.pack("<QQ", first, len(page)), *page))
    sizes = struct.pack("<QII", geometry.volume_size, geometry.block_size, geometry.grain_size)
    code = next(code for code, name in KINDS.items() if name == kind)
    return tree(kind, b"blkdelta.root.v1", sizes, bytes([code]), *pages)


# --- section 1: headers ---


class Fields:
    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def bytes(self, count):
        damaged_unless(self.at + count <= len(self.data), "a structure is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size):
        return int.from_bytes(self.bytes(size), "little")

    def reserved(self, count):
        supported_if(not any(self.bytes(count)), "a reserved field is used")

    def identity(self):
        length = self.number(2)
        room = self.bytes(256)
        damaged_unless(1 <= length <= 256, "an identity has a wrong length")
        supported_if(not any(room[length:]), "a reserved field is used")
        try:
            text = room[:length].decode()
        except UnicodeDecodeError:
            raise Damaged("an identity is not text") from None
        damaged_unless(not has_control(text), "an identity has control characters")
        return text

    def digest_kind(self):
        code = self.number(1)
        supported_if(code in KINDS, f"digest kind {code}")
        return KINDS[code]


def has_control(text):
    return any(ord(char) < 0x20 or 0x7F <= ord(char) <= 0x9F for char in text)


def open_header(data, magic, flags_known):
    """Magic, version, checksum, flags, in that order; the fields after them."""
    damaged_unless(data[:8] == magic, f"there is no {magic[1:4].decode()} header here")
    version = struct.unpack_from("<H", data, 8)[0]
    damaged_unless(version > 0, "version 0")
    supported_if(version == 1, f"version {version}")
    damaged_unless(b3(data[:-32]) == data[-32:], "a header does not match its checksum")
    fields = Fields(data[:-32], 10)
    flags = None
    if flags_known is not None:
        flags = fields.number(2)
        supported_if(flags in flags_known, f"flags {flags}")
    return fields, flags


# --- section 5: JSON ---

START, MIDDLE, END = b'{"blkdelta":1,"blake3":"', b'","record":', b"}\n"
CONFIG_KEYS = set("format_version repository_id created_at digest block_size grain_size compression".split())
RECORD_KEYS = set(
    """schema_version backup_id volume identity host kind sequence parent source taken_at finished_at size_bytes block_size
    grain_size digest root oldest_read hint blocks_total blocks_changed grains_changed bytes_read bytes_carried
    bytes_changed bytes_stored duration_s throttled_s complete tags delta manifest tool_version""".split()
)
SINCE_2 = set("snapshot group position".split())  # each may be absent
SINCE_3 = set("revision replaces".split())
SINCE_4 = {"audit"}
AUDIT_KEYS = set(
    """schema_version repository_id number previous time host user pid tool_version verb outcome volume backups
    detail""".split()
)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
HEX16, HEX32 = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")


def read_document(path):
    return read_exact_document(path)[0]


def read_exact_document(path):
    """A document, and its bytes."""
    data = path.read_bytes()
    damaged_unless(len(data) <= JSON_MAX, f"{path}: too long")
    at = len(START) + 64
    sound = data.startswith(START) and data[at : at + len(MIDDLE)] == MIDDLE and data.endswith(END)
    version = re.match(rb'\{"blkdelta":([0-9]+),', data)
    supported_if(sound or not version or int(version[1]) < 2, f"{path}: a newer envelope")
    damaged_unless(sound, f"{path}: not an envelope")
    document = data[at + len(MIDDLE) : -len(END)]
    damaged_unless(b3(document).hex().encode() == data[len(START) : at], f"{path}: does not match its digest")

    def no_key_twice(pairs):
        supported_if(len(dict(pairs)) == len(pairs), f"{path}: a key stands twice")
        return dict(pairs)

    return json.loads(document, object_pairs_hook=no_key_twice), document


def want(pattern, text, what):
    damaged_unless(isinstance(text, str) and pattern.fullmatch(text), f"{what}: {text!r}")


def read_config(path):
    config = read_document(path)
    version = config.get("format_version")
    supported_if(version in (1, 2), f"{path}: format {version}")
    known = CONFIG_KEYS | ({"encryption"} if version == 2 else set())
    supported_if(set(config) == known, f"{path}: keys {set(config) ^ known}")
    supported_if(version == 1 or config["encryption"] == "aes-256-gcm", f"{path}: encryption")
    damaged_unless(version == 1 or config["digest"] != "xxh3", f"{path}: xxh3 in an encrypted repository")
    want(HEX16, config["repository_id"], "repository_id")
    want(TIME, config["created_at"], "created_at")
    want(re.compile("blake3|sha256|xxh3"), config["digest"], "digest")
    want(re.compile(r"none|lz4|zstd:([1-9]|1[0-9])"), config["compression"], "compression")
    Geometry(0, config["block_size"], config["grain_size"])
    return config


# --- section 6: manifest ---


@dataclass
class Manifest:
    geometry: Geometry
    kind: str
    identity: str
    sequence: int
    parent_sequence: int
    scanned_sequence: int
    root: bytes
    parent_root: bytes
    full: bool
    pages: dict = field(default_factory=dict)


def manifest_header(data, forms):
    damaged_unless(len(data) >= 4096, "a manifest is cut short")
    fields, flags = open_header(data[:4096], b"\x89BKM\r\n\x1a\n", {0, 1, 2, 5})
    damaged_unless(flags in forms, f"a manifest of the wrong form (flags {flags})")
    kind = fields.digest_kind()
    fields.reserved(3)
    block_size, grain_size, volume_size = fields.number(4), fields.number(4), fields.number(8)
    geometry = Geometry(volume_size, block_size, grain_size)
    sequence, parent_sequence, scanned, pages = (fields.number(4) for _ in range(4))
    root, parent_root = fields.bytes(32), fields.bytes(32)
    fields.reserved(16 + 32)
    identity = fields.identity()
    fields.reserved(4064 - fields.at)
    damaged_unless(pages <= geometry.page_count, "more pages than the volume has")
    manifest = Manifest(
        geometry, kind, identity, sequence, parent_sequence, scanned, root, parent_root, flags == 2
    )
    return manifest, flags, pages


def check_page(manifest, page, data):
    used = min(PAGE_BLOCKS, manifest.geometry.block_count - page * PAGE_BLOCKS) * ENTRY_LEN
    damaged_unless(not any(data[used:]), f"page {page}: entries beyond the last block")
    for at in range(0, used, ENTRY_LEN):
        last_read = struct.unpack_from("<I", data, at + 32)[0]
        damaged_unless(last_read <= manifest.sequence, f"page {page}: read in a later sequence")


def read_stored_manifest(path):
    data = path.read_bytes()
    manifest, _, count = manifest_header(data, {0, 2})
    directory_end = 4096 + 40 * count
    damaged_unless(len(data) == directory_end + 32 + PAGE_LEN * count, f"{path}: wrong length")
    directory = data[4096:directory_end]
    damaged_unless(b3(directory) == data[directory_end : directory_end + 32], f"{path}: directory")
    before = -1
    for position in range(count):
        page, digest = struct.unpack_from("<Q32s", directory, 40 * position)
        damaged_unless(before < page < manifest.geometry.page_count, f"{path}: page {page} out of order")
        before = page
        start = directory_end + 32 + PAGE_LEN * position
        body = data[start : start + PAGE_LEN]
        damaged_unless(b3(body) == digest, f"{path}: page {page} does not match its digest")
        check_page(manifest, page, body)
        manifest.pages[page] = body
    damaged_unless(manifest.scanned_sequence <= manifest.sequence, f"{path}: scanned in a later sequence")
    return manifest


def table_of(manifests):
    """Overlay (6.4): digests of all blocks of the newest state, proven by its root."""
    newest = manifests[0]
    digests = []
    for page in range(newest.geometry.page_count):
        body = bytes(PAGE_LEN)
        for manifest in manifests:
            if page >= manifest.geometry.page_count:
                break
            if page in manifest.pages:
                body = manifest.pages[page]
                break
            if manifest.full:
                break
        here = min(PAGE_BLOCKS, newest.geometry.block_count - page * PAGE_BLOCKS)
        digests += [body[at : at + 32] for at in range(0, here * ENTRY_LEN, ENTRY_LEN)]
    root = root_digest(newest.kind, newest.geometry, digests)
    damaged_unless(root == newest.root, "the tables of the chain do not give the root")
    return digests


def check_working_manifest(path):
    data = path.read_bytes()
    manifest, flags, pages = manifest_header(data, {1, 5})
    geometry = manifest.geometry
    damaged_unless(pages == 0, f"{path}: a working manifest with pages")
    damaged_unless(flags == 1, f"{path}: unsettled")
    run_len = 8 + 16 * (geometry.block_size // geometry.grain_size)
    runs = 4096 + PAGE_LEN * geometry.page_count
    damaged_unless(len(data) == runs + run_len * geometry.block_count, f"{path}: wrong length")
    for page in range(geometry.page_count):
        check_page(manifest, page, data[4096 + page * PAGE_LEN : 4096 + (page + 1) * PAGE_LEN])
    digests = [data[4096 + ENTRY_LEN * i :][:32] for i in range(geometry.block_count)]
    root = root_digest(manifest.kind, geometry, digests)
    damaged_unless(root == manifest.root, f"{path}: the table does not give its root")
    held = 0
    for i, digest in enumerate(digests):
        grains = geometry.grains_in(geometry.block_len(i))
        check, run = struct.unpack_from(f"<Q{16 * grains}s", data, runs + i * run_len)
        if digest != ZERO and xxhash.xxh3_64_intdigest(digest + run) == check:
            held += 1
    data_blocks = sum(digest != ZERO for digest in digests)
    return {"root": manifest.root.hex(), "sequence": manifest.sequence, "blocks": len(digests),
            "data_blocks": data_blocks, "runs_held": held}


# --- section 7: delta ---


@dataclass
class Entry:
    kind: int
    block: int
    count: int = 1
    length: int = 0
    whole: bool = False
    old: bytes = UNKNOWN
    new: bytes = ZERO
    zero: set = field(default_factory=set)
    stored: dict = field(default_factory=dict)  # grain -> (frame, raw offset, digest)


def grains_of(bitmap, count):
    bits = {8 * at + bit for at, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1}
    damaged_unless(all(grain < count for grain in bits), "a grain beyond the block's end")
    return bits


class Delta:
    def __init__(self, path):
        self.path = path
        self.data = path.read_bytes()
        self.raw = {}
        damaged_unless(len(self.data) >= 768, f"{path}: cut short")
        self.read_header()
        self.read_trailer()
        self.entries = {}
        self.read_index()

    def read_header(self):
        fields, flags = open_header(self.data[:512], b"\x89BKD\r\n\x1a\n", {0, 1})
        self.full = flags == 1
        self.kind = fields.digest_kind()
        fields.reserved(3)
        block_size, grain_size, volume_size = fields.number(4), fields.number(4), fields.number(8)
        self.geometry = Geometry(volume_size, block_size, grain_size)
        self.parent_size, self.sequence, self.parent_sequence = fields.number(8), fields.number(4), fields.number(4)
        self.parent_root = fields.bytes(32)
        fields.reserved(16 + 32)
        self.identity = fields.identity()
        fields.reserved(480 - fields.at)
        Geometry(self.parent_size, block_size, grain_size)
        no_parent = (self.parent_size, self.parent_sequence, self.parent_root) == (0, 0, ZERO)
        damaged_unless(no_parent or not self.full, f"{self.path}: a full with a parent")

    def read_trailer(self):
        self.trailer = len(self.data) - 256
        fields, _ = open_header(self.data[self.trailer :], b"\x89BKT\r\n\x1a\n", None)
        fields.reserved(6)
        self.table, self.segments, self.frames = (fields.number(8) for _ in range(3))
        self.blocks_changed, self.grains_changed, self.bytes_changed = (fields.number(8) for _ in range(3))
        self.root, digest = fields.bytes(32), fields.bytes(32)
        fields.reserved(224 - fields.at)
        pages = -(-self.segments // TABLE_PAGE)
        damaged_unless(self.table + 32 * self.segments + 16 * pages == self.trailer, f"{self.path}: segment table")
        damaged_unless(b3(self.data[: self.trailer]) == digest, f"{self.path}: does not match its digest")

    def table_lines(self):
        at, left = self.table, self.segments
        while left:
            here = min(left, TABLE_PAGE)
            lines, checksum = self.data[at : at + 32 * here], self.data[at + 32 * here :][:16]
            damaged_unless(place_checksum(at, lines) == checksum, f"{self.path}: page of the segment table at {at}")
            yield from struct.iter_unpack("<QIIQQ", lines)
            at, left = at + 32 * here + 16, left - here

    def read_index(self):
        next_block = 0
        self.segment_places = {}
        for offset, length, count, first, last in self.table_lines():
            damaged_unless(length <= SEGMENT_MAX and offset + length <= self.table, f"segment at {offset}")
            self.segment_places[offset] = length
            data = self.data[offset : offset + length]
            fields = Fields(data)
            magic, said = fields.bytes(4), (fields.number(4), fields.number(8), fields.number(8))
            size = fields.number(4)
            fields.reserved(4)
            checksum, body = fields.bytes(16), fields.bytes(size)
            sound = magic == b"INDX" and fields.at == length and said == (count, first, last)
            sound = sound and checksum == place_checksum(offset, data[:32], body)
            damaged_unless(sound, f"{self.path}: segment at {offset}")
            damaged_unless(next_block <= first <= last, f"{self.path}: segment at {offset} out of order")
            next_block = self.read_entries(Fields(body), count, first, last)

    def read_entries(self, fields, count, first, last):
        next_block = first
        for _ in range(count):
            entry = self.read_entry(fields)
            inside = next_block <= entry.block and entry.block + entry.count - 1 <= last
            damaged_unless(inside, f"{self.path}: block {entry.block} out of order")
            next_block = entry.block + entry.count
            for block in range(entry.block, next_block):
                self.entries[block] = entry
        damaged_unless(fields.at == len(fields.data), f"{self.path}: a segment is longer than its entries")
        return next_block

    def read_entry(self, fields):
        kind, flags, pieces, length, block = struct.unpack("<BBHIQ", fields.bytes(16))
        supported_if(kind in (1, 2, 3) and flags in ((0, 1) if kind == 1 else (0,)), f"entry {kind}, flags {flags}")
        damaged_unless(block < self.geometry.block_count, f"block {block} is not in the volume")
        wanted_len = 0 if kind == 3 else self.geometry.block_len(block)
        damaged_unless(length == wanted_len, f"block {block} of {length} bytes")
        entry = Entry(kind, block, length=length, whole=flags == 1)
        if kind == 1:
            self.read_grains(fields, entry, pieces)
            return entry
        supported_if(pieces == 0, "a reserved field is used")
        if kind == 2:
            entry.old = fields.bytes(32)
        else:
            entry.count = fields.number(8)
            damaged_unless(1 <= entry.count <= self.geometry.block_count - block, f"zero range at block {block}")
        return entry

    def read_grains(self, fields, entry, piece_count):
        entry.old, entry.new = fields.bytes(32), fields.bytes(32)
        count = self.geometry.grains_in(entry.length)
        room = -(-count // 8)
        stored, entry.zero = grains_of(fields.bytes(room), count), grains_of(fields.bytes(room), count)
        pieces = [struct.unpack("<QII", fields.bytes(16)) for _ in range(piece_count)]
        digests = [fields.bytes(16) for _ in stored]
        where = f"{self.path}: block {entry.block}"
        damaged_unless(not stored & entry.zero, f"{where}: a grain both stored and zero")
        damaged_unless(not entry.whole or len(stored) + len(entry.zero) == count, f"{where}: whole with a gap")
        damaged_unless(all(grains for _, _, grains in pieces), f"{where}: an empty piece")
        damaged_unless(sum(grains for _, _, grains in pieces) == len(stored), f"{where}: pieces and grains differ")
        ascending = iter(zip(sorted(stored), digests, strict=True))
        for frame, at, grains in pieces:
            for _ in range(grains):
                grain, digest = next(ascending)
                entry.stored[grain] = (frame, at, digest)
                at += self.geometry.grain_len(grain, entry.length)

    def frame(self, offset):
        if offset not in self.raw:
            self.raw[offset] = self.read_frame(offset)[0]
        return self.raw[offset]

    def read_frame(self, offset):
        where = f"{self.path}: frame at {offset}"
        damaged_unless(512 <= offset and offset + 32 <= self.table, where)
        fields = Fields(self.data[offset : offset + 32])
        magic, codec = fields.bytes(4), fields.number(1)
        damaged_unless(magic == b"FRAM", where)
        fields.reserved(3)
        raw_len, stored_len, checksum = fields.number(4), fields.number(4), fields.bytes(16)
        damaged_unless(raw_len <= FRAME_MAX and stored_len <= FRAME_MAX, f"{where}: too long")
        end = offset + 32 + stored_len
        damaged_unless(end <= self.table, f"{where}: reaches beyond the frames")
        payload = self.data[offset + 32 : end]
        sound = place_checksum(offset, self.data[offset : offset + 16], payload) == checksum
        damaged_unless(sound, f"{where}: does not match its checksum")
        supported_if(codec in (0, 1, 2), f"{where}: codec {codec}")
        try:
            if codec == 0:
                raw = payload
            elif codec == 1:
                raw = lz4.block.decompress(payload, uncompressed_size=raw_len)
            else:
                raw = zstandard.ZstdDecompressor().decompress(payload, max_output_size=raw_len)
        except (lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
            raise Damaged(f"{where}: {error}") from error
        damaged_unless(len(raw) == raw_len, f"{where}: does not decode to its length")
        return raw, end

    def walk(self):
        """Every frame and segment in file order: nothing between them, as many frames as the trailer says."""
        at, frames, seen = 512, 0, 0
        while at < self.table:
            if at in self.segment_places:
                at += self.segment_places[at]
                seen += 1
            else:
                at = self.read_frame(at)[1]
                frames += 1
        places = (at, frames, seen) == (self.table, self.frames, self.segments)
        damaged_unless(places, f"{self.path}: frames or segments are missing")

    def grain(self, entry, grain):
        offset, at, digest = entry.stored[grain]
        length = self.geometry.grain_len(grain, entry.length)
        data = self.frame(offset)[at : at + length]
        damaged_unless(len(data) == length, f"{self.path}: a grain reaches beyond its frame")
        found = grain_digest(self.kind, data)[:16]
        damaged_unless(found == digest, f"{self.path}: block {entry.block}, grain {grain}: wrong bytes")
        return data


# --- sections 4 and 8: repository and chains ---


def encode_volume(name):
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    parts = []
    for at, byte in enumerate(name.encode()):
        keep = byte in plain or (byte == ord(".") and at > 0)
        parts.append(chr(byte) if keep else f"%{byte:02X}")
    return "".join(parts)


def decode_volume(folder):
    """The volume's name, or None for a folder that is not one."""
    try:
        raw = re.sub(rb"%([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), folder.encode())
        name = raw.decode()
    except UnicodeDecodeError:
        return None
    good = 1 <= len(raw) <= 80 and not has_control(name) and encode_volume(name) == folder
    return name if good else None


class Backup:
    """A record with its two files, opened when they are needed."""

    def __init__(self, repository, record):
        self.repository, self.record = repository, record
        self.opened = {}

    def names(self):
        """Its id, and those of the backups with the same state that were merged into it."""
        replaced = self.record.get("replaces", [])
        same = [other["backup_id"] for other in replaced if other["sequence"] == self.record["sequence"]]
        return [self.record["backup_id"], *same]

    def file(self, which):
        named = self.record[which]
        path = self.repository.object(self.repository.path / named["name"])
        damaged_unless(path.is_file(), f"{path} is missing")
        damaged_unless(len(path.read_bytes()) == named["size"], f"{path}: not the size in its record")
        return path

    def prove_file(self, which):
        path = self.file(which)
        damaged_unless(b3(path.read_bytes()).hex() == self.record[which]["blake3"], f"{path}: not the record's digest")

    @property
    def manifest(self):
        if "manifest" not in self.opened:
            manifest = read_stored_manifest(self.file("manifest"))
            self.agrees(manifest, "manifest")
            self.opened["manifest"] = manifest
        return self.opened["manifest"]

    @property
    def delta(self):
        if "delta" not in self.opened:
            delta = Delta(self.file("delta"))
            self.agrees(delta, "delta")
            parent = self.parent
            parent_size = parent.record["size_bytes"] if parent else 0
            damaged_unless(delta.parent_size == parent_size, f"{delta.path}: parent_size")
            self.opened["delta"] = delta
        return self.opened["delta"]

    def agrees(self, file, what):
        record, link = self.record, self.record["parent"] or {"sequence": 0, "root": ZERO.hex()}
        geometry = Geometry(record["size_bytes"], record["block_size"], record["grain_size"])
        ours = (record["sequence"], geometry, record["digest"], record["root"], record["parent"] is None)
        theirs = (file.sequence, file.geometry, file.kind, file.root.hex(), file.full)
        damaged_unless(ours == theirs, f"the {what} of backup {record['sequence']} is not the record's: {ours} {theirs}")
        parents = (link["sequence"], link["root"]) == (file.parent_sequence, file.parent_root.hex())
        damaged_unless(parents, f"the {what} of backup {record['sequence']} has another parent")

    @property
    def parent(self):
        link = self.record["parent"]
        if link is None:
            return None
        parent = self.repository.volumes[self.record["volume"]].get(link["sequence"])
        right = parent and parent.record["root"] == link["root"] and link["sequence"] < self.record["sequence"]
        damaged_unless(right, f"backup {self.record['sequence']}: its parent {link['sequence']} is not there")
        return parent

    def chain(self):
        chain = [self]
        while chain[-1].parent:
            chain.append(chain[-1].parent)
        return chain

    def table(self):
        if "table" not in self.opened:
            self.opened["table"] = table_of([backup.manifest for backup in self.chain()])
        return self.opened["table"]

    def blocks(self):
        """The volume's blocks in order, each proven; at the end the root."""
        deltas, table = [backup.delta for backup in self.chain()], self.table()
        kind, geometry = deltas[0].kind, deltas[0].geometry
        digests = []
        for block in range(geometry.block_count):
            data = put_together(deltas, geometry, block)
            digest, _ = block_digest(kind, geometry, data)
            damaged_unless(digest == table[block], f"block {block} does not match its manifest")
            digests.append(digest)
            yield data
        root = root_digest(kind, geometry, digests)
        damaged_unless(root.hex() == self.record["root"], "the root is not the record's")

    def check_index(self):
        delta, after = self.delta, self.table()
        before = self.parent.table() if self.parent else []
        old_geometry = self.parent.delta.geometry if self.parent else None
        for block in range(delta.geometry.block_count):
            where = f"{delta.path}: block {block}"
            old = before[block] if block < len(before) else UNKNOWN
            entry = delta.entries.get(block)
            if entry is None:
                damaged_unless(not delta.full, f"{where}: a full without it")
                same = old == after[block] and old_geometry.block_len(block) == delta.geometry.block_len(block)
                damaged_unless(same, f"{where}: changed, and has no entry")
                continue
            damaged_unless(entry.new == after[block], f"{where}: new digest")
            if entry.kind == 3:
                damaged_unless(old in (ZERO, UNKNOWN), f"{where}: a zero range over data")
            else:
                damaged_unless(entry.old == old, f"{where}: old digest")
                damaged_unless(entry.kind == 1 or block < len(before), f"{where}: a zero block over nothing")
            damaged_unless(not delta.full or entry.kind == 3 or entry.whole, f"{where}: not whole in a full")


def put_together(deltas, geometry, block):
    length = geometry.block_len(block)
    end = geometry.offset(block) + length
    opened = set(range(geometry.grains_in(length)))
    data = bytearray(length)
    for delta in deltas:
        damaged_unless(delta.geometry.volume_size >= end, f"block {block} inherited through a smaller state")
        entry = delta.entries.get(block)
        if entry is None:
            continue
        if entry.kind != 1:
            return bytes(data)
        damaged_unless(entry.length == length, f"block {block} inherited from one of another length")
        for grain in opened & entry.stored.keys():
            start = grain * geometry.grain_size
            bytes_of_grain = delta.grain(entry, grain)
            data[start : start + len(bytes_of_grain)] = bytes_of_grain
        opened -= entry.zero | entry.stored.keys()
        if not opened:
            return bytes(data)
    raise Damaged(f"the chain does not hold all of block {block}")


class Repository:
    def __init__(self, path):
        self.path = Path(path)
        self.config = read_config(self.path / "config.json")
        self.keys = self.read_keys() if "encryption" in self.config else None
        self.volumes = {}
        for folder in sorted((self.path / "volumes").glob("*")):
            name = decode_volume(folder.name)
            if name is not None and folder.is_dir():
                self.volumes[name] = self.read_volume(name, folder)

    def read_keys(self):
        import sealed

        config = (self.path / "config.json").read_bytes()
        return sealed.Keys(self.path, self.config["repository_id"], config, read_exact_document)

    def object(self, path):
        """The file, or what is sealed in it (section 11)."""
        if self.keys is None:
            return path
        import sealed

        return sealed.SealedPath(self.keys, self.path, path)

    def read_volume(self, name, folder):
        backups = {}
        for path in sorted((folder / "records").glob("*")):
            if path.name.endswith(".unfinished"):
                continue
            path = self.object(path)
            record = read_document(path)
            version = record.get("schema_version")
            supported_if(version in (1, 2, 3, 4), f"{path}: schema {version}")
            keys = set(record)
            for since, optional in ((2, SINCE_2), (3, SINCE_3), (4, SINCE_4)):
                keys -= optional if version >= since else set()
            supported_if(keys == RECORD_KEYS, f"{path}: keys {keys ^ RECORD_KEYS}")
            self.check_record(record, name, folder, path)
            older = backups.get(record["sequence"])
            if older is not None and older.record.get("revision", 0) > record.get("revision", 0):
                continue
            self.put_tags(record, folder)
            backups[record["sequence"]] = Backup(self, record)
        return backups

    def put_tags(self, record, folder):
        """Tags that were changed later (5.4)."""
        names = [path for path in (folder / "tags").glob(f"{record['sequence']:010}-*.json")
                 if re.fullmatch(r"[0-9]{10}", path.stem[11:]) and 0 < int(path.stem[11:]) < 1 << 32]
        if not names:
            return
        path = self.object(max(names))
        document = read_document(path)
        supported_if(document.get("schema_version") == 1, f"{path}: schema {document.get('schema_version')}")
        supported_if(set(document) == {"schema_version", "backup_id", "tags"}, f"{path}: keys")
        damaged_unless(all(isinstance(tag, str) for tag in document["tags"]), f"{path}: tags")
        same_state = [old["backup_id"] for old in record.get("replaces", []) if old["sequence"] == record["sequence"]]
        if document["backup_id"] in [record["backup_id"], *same_state]:
            record["tags"] = document["tags"]

    def check_record(self, record, name, folder, path):
        revision = record.get("revision", 0)
        end = f".{revision:010}.json" if revision else ".json"
        place = path.name == f"{record['sequence']:010}{end}" and record["sequence"] > 0
        damaged_unless(place and record["volume"] == name, f"{path}: a record that belongs elsewhere")
        cut = all(record[key] == self.config[key] for key in ("block_size", "grain_size", "digest"))
        damaged_unless(cut, f"{path}: cut or digest differ from config.json")
        for key, kind in (("delta", "deltas"), ("manifest", "manifests")):
            inside = re.fullmatch(rf"volumes/{re.escape(folder.name)}/{kind}/[^/]+", record[key]["name"])
            damaged_unless(inside, f"{path}: {record[key]['name']} is not a file of this volume")
            want(HEX32, record[key]["blake3"], f"{path}: {key}")
        want(HEX16, record["backup_id"], f"{path}: backup_id")
        want(HEX32, record["root"], f"{path}: root")
        for key in ("taken_at", "finished_at"):
            want(TIME, record[key], f"{path}: {key}")
        for replaced in record.get("replaces", []):
            damaged_unless(set(replaced) == {"backup_id", "sequence"}, f"{path}: replaces")
            want(HEX16, replaced["backup_id"], f"{path}: replaces")
        if "audit" in record:
            damaged_unless(set(record["audit"]) == {"repository_id", "number", "digest"}, f"{path}: audit")
            want(HEX32, record["audit"]["digest"], f"{path}: audit")
        damaged_unless((record["kind"] == "full") == (record["parent"] is None), f"{path}: kind and parent")

    def backups(self):
        return [backup for volume in self.volumes.values() for backup in volume.values()]

    def find(self, backup_id):
        found = [backup for backup in self.backups() if any(name.startswith(backup_id) for name in backup.names())]
        damaged_unless(len(found) == 1, f"{len(found)} backups begin with '{backup_id}'")
        return found[0]

    def check_audit(self):
        """The audit log (5.5): a chain without gaps, whose entries the records know."""
        found = (path for path in (self.path / "audit").glob("*.json") if re.fullmatch("[0-9]{10}", path.stem))
        paths = [self.object(path) for path in sorted(found)]
        previous, heads = None, {}
        for number, path in enumerate(paths, 1):
            entry = read_document(path)
            supported_if(entry.get("schema_version") == 1, f"{path}: schema {entry.get('schema_version')}")
            supported_if(set(entry) == AUDIT_KEYS, f"{path}: keys {set(entry) ^ AUDIT_KEYS}")
            place = (entry["number"], int(path.stem), entry["repository_id"])
            damaged_unless(place == (number, number, self.config["repository_id"]), f"{path}: not entry {number}")
            damaged_unless(entry["previous"] == previous, f"{path}: written behind another entry")
            want(TIME, entry["time"], f"{path}: time")
            want(re.compile("begun|done|failed"), entry["outcome"], f"{path}: outcome")
            for backup_id in entry["backups"]:
                want(HEX16, backup_id, f"{path}: backups")
            heads[number] = previous = b3(path.read_bytes()).hex()
        for backup in self.backups():
            head = backup.record.get("audit")
            if head and head["repository_id"] == self.config["repository_id"]:
                known = heads.get(head["number"]) == head["digest"]
                damaged_unless(known, f"backup {backup.record['sequence']} knows another audit log")

    def check(self):
        self.check_audit()
        for backup in self.backups():
            backup.prove_file("delta")
            backup.prove_file("manifest")
            backup.delta.walk()
            backup.check_index()
            for _ in backup.blocks():
                pass
        return len(self.backups())


def check_delta(path):
    delta = Delta(path)
    delta.walk()
    for entry in delta.entries.values():
        for grain in entry.stored:
            delta.grain(entry, grain)
    if delta.full:
        blocks = (put_together([delta], delta.geometry, block) for block in range(delta.geometry.block_count))
        digests = [block_digest(delta.kind, delta.geometry, data)[0] for data in blocks]
        root = root_digest(delta.kind, delta.geometry, digests)
        damaged_unless(root == delta.root, f"{path}: does not give its root")
    return {"root": delta.root.hex(), "full": delta.full, "frames": delta.frames, "segments": delta.segments,
            "blocks": len(delta.entries)}


def restore(backup, target):
    with open(target, "wb") as out:
        for block in backup.blocks():
            out.write(block)


def main(arguments):
    match arguments:
        case ["list", repository]:
            for backup in Repository(repository).backups():
                print(json.dumps(backup.record))
        case ["check", repository]:
            print(f"{Repository(repository).check()} backups are sound")
        case ["restore", repository, backup_id, target]:
            restore(Repository(repository).find(backup_id), target)
        case ["restore-all", repository, folder]:
            for backup in Repository(repository).backups():
                for name in backup.names():
                    restore(backup, Path(folder) / name)
        case ["check-manifest", path]:
            print(json.dumps(check_working_manifest(Path(path))))
        case ["check-delta", path]:
            print(json.dumps(check_delta(Path(path))))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Damaged, Unsupported) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if type(error).__name__ != "SealedError":
            raise
        print(f"{'Unsupported' if error.newer else 'Damaged'}: {error}", file=sys.stderr)
        sys.exit(1)
