"""Opens encrypted repositories for reader.py. Written from section 11 of docs/FORMAT.md alone.

The passphrase is in the file that BLKDELTA_PASSWORD_FILE names; BLKDELTA_KEY_FILE names a key file or an exported key.

Trade-off: whole objects in memory, no care for secrets in it: for tests, and for the day when nothing else is left.
If it and the command disagree, one of them or the specification is wrong: find out which before changing any.
Needs, besides what reader.py does, cryptography and argon2-cffi from PyPI.
"""

import os
import re
import struct
from pathlib import Path

from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

UNIT, TAG, HEADER = 65536, 16, 64
MAGIC = b"\x89BKS\r\n\x1a\n"


class SealedError(Exception):
    """Does not open. `newer` when that is because it is newer than we know."""

    def __init__(self, what, newer=False):
        super().__init__(what)
        self.newer = newer


def need(condition, what, newer=False):
    if not condition:
        raise SealedError(what, newer)


def nonce(number, last):
    return struct.pack("<QB3x", number, last)


def is_clear(name):
    return name == "config.json" or name.split("/")[0] == "keys" or name.split("/")[-1] == "lock"


class Keys:
    """The master keys of a repository, by id."""

    def __init__(self, repository, repository_id, config, read_document):
        self.repository_id, self.config = bytes.fromhex(repository_id), blake3(config).digest()
        kind, secret = secret_of_environment()
        if kind == "exported":
            self.keys = self.of_text(secret)
        else:
            slots = sorted((repository / "keys").glob("*.json"))
            need(0 < len(slots) <= 32, f"{len(slots)} keys")
            opened = [self.of_slot(path, kind, secret, read_document) for path in slots]
            self.keys = next((keys for keys in opened if keys is not None), None)
            need(self.keys is not None, "this key does not open the repository")

    def of_slot(self, path, kind, secret, read_document):
        document, text = read_document(path)
        need(set(document) == {"slot", "wrapped"}, f"{path}: keys", newer=True)
        slot = document["slot"]
        exact = re.fullmatch(rb'\{"slot":(\{.*\}),"wrapped":"[0-9a-f]*"\}', text, re.DOTALL)
        need(slot["schema_version"] == 1, f"{path}: schema", newer=True)
        known = set("schema_version key_id kind created_at host note argon2id salt check".split())
        need(set(slot) == known and exact, f"{path}: keys", newer=True)
        need(slot["key_id"] + ".json" == path.name, f"{path}: belongs elsewhere")
        if slot["kind"] != kind:
            return None
        cost = slot["argon2id"]
        bounded = cost["memory_kib"] <= 262144 and cost["passes"] <= 16 and cost["lanes"] <= 16
        need(bounded, f"{path}: cost", newer=True)
        derived = hash_secret_raw(secret, bytes.fromhex(slot["salt"]), cost["passes"], cost["memory_kib"],
                                  cost["lanes"], 48, Type.ID, version=0x13)
        if derived[32:].hex() != slot["check"]:
            return None
        bound = b"blkdelta.slot.1" + self.config + exact[1]
        try:
            plain = AESGCM(derived[:32]).decrypt(nonce(0, 1), bytes.fromhex(document["wrapped"]), bound)
        except InvalidTag:
            raise SealedError(f"{path}: configuration or slot were changed") from None
        need(plain and len(plain) % 48 == 0, f"{path}: no list of keys")
        return {plain[at : at + 16]: plain[at + 16 : at + 48] for at in range(0, len(plain), 48)}

    def of_text(self, text):
        lines = [line.split() for line in text.decode().splitlines() if line.strip() and not line.startswith("#")]
        need(lines[0] == ["blkdelta-key", "1"], "an exported key of another version", newer=True)
        words = {line[0]: bytes.fromhex("".join(line[1:])) for line in lines[1:] if line[0] != "key"}
        pairs = [bytes.fromhex("".join(line[1:])) for line in lines[1:] if line[0] == "key"]
        checked = b"blkdelta.export.1" + words["repository"] + words["config"] + b"".join(pairs)
        need(words["checksum"] == blake3(checked).digest()[:8], "the exported key does not match its checksum")
        need(words["repository"] == self.repository_id, "the exported key is of another repository")
        need(words["config"] == self.config, "config.json was changed")
        return {pair[:16]: pair[16:] for pair in pairs}

    def unseal(self, name, data):
        """What an object of this name holds."""
        need(data[:8] == MAGIC and len(data) >= HEADER + TAG, f"{name}: not sealed")
        version = struct.unpack_from("<H", data, 8)[0]
        need(version != 0, f"{name}: version 0")
        need(version == 1 and not any(data[10:16]), f"{name}: version {version} or a reserved field", newer=True)
        need(data[16:32] in self.keys, f"{name}: a key that no slot gives")
        info = b"blkdelta.object.1" + self.repository_id + name.encode()
        key = AESGCM(HKDF(SHA256(), 32, salt=data[32:64], info=info).derive(self.keys[data[16:32]]))
        units = -(-(len(data) - HEADER) // (UNIT + TAG))
        size = len(data) - HEADER - TAG * units
        need(size >= 0 and units == max(1, -(-size // UNIT)), f"{name}: no sealed object has this length")
        plain = []
        for number in range(units):
            at = HEADER + number * (UNIT + TAG)
            try:
                plain.append(key.decrypt(nonce(number, number + 1 == units), data[at : at + UNIT + TAG], None))
            except InvalidTag:
                raise SealedError(f"{name}: unit {number}") from None
        return b"".join(plain)


def secret_of_environment():
    for variable, kind in (("BLKDELTA_PASSWORD_FILE", "passphrase"), ("BLKDELTA_KEY_FILE", "key-file")):
        if os.environ.get(variable):
            secret = Path(os.environ[variable]).read_bytes()
            if kind == "passphrase":
                return kind, secret.removesuffix(b"\n").removesuffix(b"\r")
            lines = [line for line in secret.splitlines() if line.strip() and not line.startswith(b"#")]
            return ("exported" if lines and lines[0].startswith(b"blkdelta-key") else kind), secret
    raise SealedError("the repository is encrypted: set BLKDELTA_PASSWORD_FILE or BLKDELTA_KEY_FILE")


class SealedPath:
    """A file of an encrypted repository that reads as what it holds."""

    def __init__(self, keys, root, path):
        self.keys, self.root, self.path = keys, root, path
        self.name = path.name
        self.stem = path.stem

    def read_bytes(self):
        return self.keys.unseal(str(self.path.relative_to(self.root)), self.path.read_bytes())

    def is_file(self):
        return self.path.is_file()

    def __str__(self):
        return str(self.path)

    def __lt__(self, other):
        return self.path < other.path
