"""Backs up the volume of a PostgreSQL server and tells which relations changed since the backup before.

    postgres_changes.py --repo /backup/repo /dev/vg0/db /srv/db                 # a logical volume: its snapshot is read
    postgres_changes.py --repo /backup/repo --hold /dev/sdb1 /srv/db            # held still while it is read

The changed ranges of `Repository.diff` are places on the volume. The file system tells where the blocks of each file lie
(FIEMAP, as `filefrag -v` shows), the server which file belongs to which table or index.

Trade-off: the places of files are asked for now, not of the snapshot. With --hold that is the same moment; else a file that
was made or moved since the snapshot is told with its new place. Grains larger than the file system's blocks may name a
neighbour too.
"""

import argparse
import bisect
import contextlib
import fcntl
import json
import os
import re
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import blkdelta

FS_IOC_FIEMAP = 0xC020660B
HEADER, EXTENT = struct.Struct("=QQIIII"), struct.Struct("=QQQQQIIII")
EXTENTS_AT_ONCE = 256
LAST, UNKNOWN = 1, 2
# A relation's file is its path, then perhaps a fork, then perhaps the number of a segment of 1 GiB.
FORK_AND_SEGMENT = re.compile(r"(_fsm|_vm|_init)?(\.\d+)?$")
RELATIONS = """
    select pg_relation_filepath(c.oid), n.nspname || '.' || c.relname
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where pg_relation_filepath(c.oid) is not null"""


def main() -> None:
    arguments = read_arguments()
    with blkdelta.Repository.open(arguments.repo) as repo:
        before = newest(repo, arguments.volume)
        with held_still(arguments.mount) if arguments.hold else contextlib.nullcontext():
            backup = repo.backup(
                arguments.source,
                volume=arguments.volume,
                allow_live=arguments.hold,
                postgresql=None if arguments.hold else arguments.postgresql,
                progress=show if sys.stderr.isatty() else None,
            )
            places = Places(arguments.mount)
        print(backup, file=sys.stderr)
        files = places.changed(repo.diff(before, backup)) if before else Counter[str]()
    names = relations(arguments.postgresql)
    report = {
        "backup_id": backup.id,
        "kind": backup.kind,
        "bytes_changed": backup.bytes_changed,
        "relations": by_relation(files, names),
        "files": dict(files.most_common()),
    }
    json.dump(report, sys.stdout, indent=2)
    print()


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Back up PostgreSQL's volume, and tell which relations changed.")
    parser.add_argument("source", help="block device of the volume")
    parser.add_argument("mount", help="where its file system is mounted")
    parser.add_argument("--repo", required=True, help="repository")
    parser.add_argument("--volume", default="postgres", help="name of the volume in the repository")
    parser.add_argument("--postgresql", default="", help="libpq connection string; the local server unless given")
    parser.add_argument("--hold", action="store_true", help="no snapshots there: freeze the file system meanwhile")
    return parser.parse_args()


def newest(repo: blkdelta.Repository, volume: str) -> blkdelta.Backup | None:
    backups = repo.list(volume)
    return backups[-1] if backups else None


def show(progress: blkdelta.Progress) -> None:
    print(progress, progress.note, end="\r", file=sys.stderr)


@contextlib.contextmanager
def held_still(mount: str) -> Iterator[None]:
    """Writers wait, and what they have written is on the device."""
    subprocess.run(["fsfreeze", "-f", mount], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", mount], check=True)


class Places:
    """Which file lies where on the volume."""

    def __init__(self, mount: str) -> None:
        found = []
        for folder, _, names in os.walk(mount):
            for name in names:
                path = os.path.join(folder, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    found += [(start, start + length, path) for start, length in extents(path)]
        self.extents = sorted(found)
        self.starts = [start for start, _, _ in self.extents]

    def changed(self, ranges: blkdelta.ChangedRanges) -> Counter[str]:
        """Changed bytes of each file; what lies in no file is the file system's own."""
        bytes_changed: Counter[str] = Counter()
        for changed in ranges:
            left = changed.length
            index = max(bisect.bisect_right(self.starts, changed.offset) - 1, 0)
            while index < len(self.extents) and self.extents[index][0] < changed.end:
                start, end, path = self.extents[index]
                common = min(end, changed.end) - max(start, changed.offset)
                if common > 0:
                    bytes_changed[path] += common
                    left -= common
                index += 1
            if left:
                bytes_changed["(file system)"] += left
        return bytes_changed


def extents(path: str) -> Iterator[tuple[int, int]]:
    """Where the bytes of a file lie on the volume: offset and length."""
    with open(path, "rb", buffering=0) as file:
        at, last = 0, False
        while not last:
            answer = bytearray(HEADER.size + EXTENTS_AT_ONCE * EXTENT.size)
            HEADER.pack_into(answer, 0, at, (1 << 64) - 1 - at, 0, 0, EXTENTS_AT_ONCE, 0)
            fcntl.ioctl(file, FS_IOC_FIEMAP, answer)
            count = HEADER.unpack_from(answer)[3]
            last = count == 0
            for number in range(count):
                logical, place, length, _, _, flags, *_ = EXTENT.unpack_from(answer, HEADER.size + number * EXTENT.size)
                at, last = logical + length, bool(flags & LAST)
                if not flags & UNKNOWN:
                    yield place, length


def relations(connection: str) -> dict[str, str]:
    """Tables and indexes by the path of their first file, as the server knows it, in its data directory."""
    folder = ask(connection, "show data_directory").strip()
    rows = (line.split("\t") for line in ask(connection, RELATIONS).splitlines())
    return {os.path.join(folder, path): name for path, name in rows}


def ask(connection: str, query: str) -> str:
    """psql is what every server comes with; root asks as the user that the local server trusts."""
    command = ["psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", connection, "-c", query]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd="/").stdout


def by_relation(files: Counter[str], names: dict[str, str]) -> dict[str, int]:
    """Changed bytes of each relation, all its forks and segments together."""
    bytes_changed: Counter[str] = Counter()
    for path, number in files.items():
        name = names.get(FORK_AND_SEGMENT.sub("", path))
        if name:
            bytes_changed[name] += number
    return dict(bytes_changed.most_common())


if __name__ == "__main__":
    main()
