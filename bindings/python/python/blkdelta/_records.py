"""Records and reports: frozen dataclasses with what people need; `as_dict` and `json` give the whole document.

They are read from the JSON that the command prints with `--json`, so both always say the same. A key that an older version
did not write is None here.
"""

import dataclasses
import datetime
import json
import types
import typing
from typing import Any, Self

_KEYS = {"id": "backup_id", "older": "from", "newer": "to"}
"""Where a field has another name than in the document."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Record:
    """What all records and reports can do."""

    _document: dict[str, Any] = dataclasses.field(compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The whole document, with every key that the command prints with `--json`; a copy."""
        copy: dict[str, Any] = json.loads(self.json)
        return copy

    @property
    def json(self) -> str:
        """The whole document as JSON."""
        return json.dumps(self._document)

    @classmethod
    def _of_json(cls, text: str) -> Self:
        return cls._of(json.loads(text))

    @classmethod
    def _of(cls, document: dict[str, Any]) -> Self:
        hints = typing.get_type_hints(cls)
        values = {}
        for field in dataclasses.fields(cls):
            if field.name != "_document":
                key = _KEYS.get(field.name, field.name)
                values[field.name] = _value(hints[field.name], document.get(key))
        return cls(_document=document, **values)

    def _about(self) -> str:
        return ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{self._about()}>"


def _value(hint: Any, value: Any) -> Any:
    """What JSON says, in the form that the annotation promises."""
    if isinstance(hint, types.UnionType):
        hint = typing.get_args(hint)[0]
    if value is None:
        return () if typing.get_origin(hint) is tuple else None
    if typing.get_origin(hint) is tuple:
        return tuple(_value(typing.get_args(hint)[0], item) for item in value)
    if hint is datetime.datetime:
        return datetime.datetime.fromisoformat(value)
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint._of(value)
    return value


def _size(number: int) -> str:
    """Bytes for people."""
    value, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Parent(Record):
    """The backup that another one builds on."""

    id: str
    sequence: int
    root: str

    def _about(self) -> str:
        return f" {self.id[:12]}, number {self.sequence}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Hint(Record):
    """Which hint was used, and why."""

    kind: str
    """none, holes, lvm-thin, lvm-thick, zfs, or the form of a map file."""
    reason: str
    sampled_blocks: int
    """Blocks that the hint called unchanged and that were read all the same."""
    rolling_blocks: int
    """Blocks that were read because it was their turn."""
    rolling_runs: int

    def _about(self) -> str:
        return f" {self.kind}: {self.reason}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Throttle(Record):
    """What the limits did to a call. Times in seconds."""

    throttled_s: float
    latency_s: float
    limit_s: float
    write_limit_s: float
    cgroup: str | None
    system_io_pressure_s: float | None
    warnings: tuple[str, ...]

    def _about(self) -> str:
        return f" waited {self.throttled_s:.1f} s"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Statistics(Record):
    """What a pass over a volume counted. Sizes in bytes, times in seconds."""

    blocks_total: int
    blocks_changed: int
    """Blocks that differ from the parent; in a full all that are not zero."""
    grains_changed: int
    bytes_read: int
    """Bytes read from the source."""
    bytes_carried: int
    """Bytes believed unchanged without having been read, on a hint."""
    bytes_changed: int
    """Bytes of the changed grains, before compression."""
    bytes_stored: int
    """Bytes that the repository or the delta file grew by."""
    duration_s: float
    throttled_s: float
    """Part of it spent waiting for limits."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Backup(Statistics):
    """One saved point of one volume.

    >>> backup = repo.show("latest", volume="db")
    >>> backup.sequence, backup.kind, backup.taken_at.tzinfo
    (1, 'full', datetime.timezone.utc)
    """

    id: str
    volume: str
    identity: str
    host: str
    kind: str
    """full, incremental or differential."""
    sequence: int
    """Its number inside the volume."""
    parent: Parent | None
    source: str
    taken_at: datetime.datetime
    """The moment whose state it holds, in UTC."""
    finished_at: datetime.datetime
    size_bytes: int
    block_size: int
    grain_size: int
    digest: str
    root: str
    """Digest of the whole volume."""
    hint: Hint
    group: str | None
    """The backups whose state is of one moment: the id of the group's first one."""
    position: dict[str, Any] | None
    """Where the databases on it stood: `postgres` and `mysql`, as in the command's JSON."""
    complete: bool
    tags: tuple[str, ...]

    def _about(self) -> str:
        changed = _size(self.bytes_changed)
        return f" {self.id[:12]} of {self.volume!r}, {self.kind}, number {self.sequence}, {changed} changed"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class KeptBackup(Record):
    """A backup that stays although it was merged, because others need it."""

    id: str
    reason: str

    def _about(self) -> str:
        return f" {self.id[:12]}: {self.reason}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class MergeReport(Backup):
    """What a merge did: the record of the merged backup, and what became of the others. Sizes in bytes."""

    bytes_copied: int
    """Bytes of frames that were copied as they are."""
    bytes_encoded: int
    """Bytes of grains that were encoded anew."""
    removed: tuple[str, ...]
    """Ids of the backups that were removed, newest first."""
    kept: tuple[KeptBackup, ...]
    warnings: tuple[str, ...]
    throttle: Throttle


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class BackupReport(Backup):
    """What a backup did: its record, and what the user should know."""

    warnings: tuple[str, ...]
    throttle: Throttle
    resumed_at: int | None
    """The offset at which it went on from an interrupted run."""
    blocks_healed: int
    """Blocks that were stored again because what was stored of them is damaged."""
    alarm: str | None
    """A hint was proven wrong; the volume was then read in full."""
    merged: MergeReport | None
    """The merge that bounded its chain (`max_chain`)."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ScanReport(Statistics):
    """What a scan did."""

    source: str
    identity: str
    size_bytes: int
    block_size: int
    grain_size: int
    digest: str
    root: str
    parent_root: str | None
    """Digest of the volume of the manifest that it was compared with."""
    hint: Hint
    warnings: tuple[str, ...]
    throttle: Throttle
    alarm: str | None
    """A hint was proven wrong; the volume was then read in full."""

    def _about(self) -> str:
        return f" of {self.source}, {_size(self.bytes_changed)} changed of {_size(self.size_bytes)}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class DiffReport(Record):
    """Totals of a comparison. Sizes in bytes."""

    older: str
    newer: str
    size_bytes: int
    from_size_bytes: int
    blocks_changed: int
    grains_changed: int
    bytes_changed: int

    def _about(self) -> str:
        return f" {self.older[:12]} to {self.newer[:12]}, {_size(self.bytes_changed)} changed"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class MissingRange(Record):
    """A range of a volume that is damaged and was left out."""

    offset: int
    length: int
    what: str

    def _about(self) -> str:
        return f" {self.offset}+{self.length}: {self.what}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class RestoreReport(Record):
    """What a restore did. Sizes in bytes, times in seconds."""

    id: str
    volume: str
    target: str
    size_bytes: int
    root: str
    root_proven: bool
    """Whether the root was proven on all that was written; a range proves only its blocks."""
    read_back: bool
    bytes_written: int
    bytes_kept: int
    """Bytes that were right already, or left as holes."""
    resumed_at: int | None
    """Where an interrupted run had come to, if this one went on from there."""
    missing: tuple[MissingRange, ...]
    """What is damaged and was skipped (`skip_damaged`)."""
    bytes_missing: int
    duration_s: float
    throttled_s: float
    throttle: Throttle
    warnings: tuple[str, ...]

    def _about(self) -> str:
        return f" of {self.id[:12]} to {self.target}, {_size(self.bytes_written)} written"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Problem(Record):
    """Something that is wrong with what is stored."""

    id: str | None
    """The backup that it hurts, if that can be told."""
    kind: str
    """damaged, or newer: written by a newer version."""
    offset: int
    length: int
    what: str

    def _about(self) -> str:
        return f" {self.what}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Sampled(Record):
    """What the sample of a verification was."""

    bytes: int
    frames: int
    segments: int


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Coverage(Record):
    """How much of what is stored has been proven by samples."""

    bytes_total: int
    bytes_proven: int
    share: float
    """From 0 to 1."""
    since: datetime.datetime
    oldest: datetime.datetime | None
    """When the oldest proof was made; None while something was never proven."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class VerifyReport(Record):
    """What a verification found."""

    ok: bool
    """Nothing is wrong."""
    backups_checked: int
    data: bool
    """Whether every byte was read."""
    sampled: Sampled | None
    coverage: Coverage | None
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    throttled_s: float
    throttle: Throttle

    def _about(self) -> str:
        damaged = any(problem.kind == "damaged" for problem in self.problems)
        state = "ok" if self.ok else "DAMAGED" if damaged else "NEWER"
        return f" {state}, {self.backups_checked} backups, {len(self.problems)} problems"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class CopiedBackup(Record):
    """A backup that was copied, or would be."""

    id: str
    volume: str
    sequence: int
    kind: str
    bytes: int
    """Bytes of its files."""
    needed: bool
    """Whether it was not asked for, but another one builds on it."""

    def _about(self) -> str:
        return f" {self.id[:12]} of {self.volume}, {_size(self.bytes)}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class CopyProblem(Record):
    """Something that could not be copied."""

    id: str | None
    what: str

    def _about(self) -> str:
        return f" {self.what}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class CopyReport(Record):
    """What a copy did, or would do. Sizes in bytes, times in seconds."""

    dry_run: bool
    from_repository: str
    to_repository: str
    backups: tuple[CopiedBackup, ...]
    """What was missing there, parents before children."""
    there_already: int
    """How many of those that were asked for were there before."""
    bytes_copied: int
    bytes_found: int
    """Bytes of files that an interrupted copy had left whole."""
    problems: tuple[CopyProblem, ...]
    warnings: tuple[str, ...]
    duration_s: float
    throttled_s: float
    throttle: Throttle

    def _about(self) -> str:
        return f" {len(self.backups)} backups, {_size(self.bytes_copied)} copied, {len(self.problems)} problems"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Decision(Record):
    """Whether a backup stays, and why."""

    id: str
    volume: str
    sequence: int
    kind: str
    taken_at: datetime.datetime
    bytes_stored: int
    """Bytes that it takes in the repository."""
    keep: bool
    reasons: tuple[str, ...]

    def _about(self) -> str:
        return f" {self.id[:12]} of {self.volume!r} {'stays' if self.keep else 'goes'}: {', '.join(self.reasons)}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class PruneProblem(Record):
    """A volume that was left alone."""

    volume: str
    what: str
    """Why."""

    def _about(self) -> str:
        return f" {self.volume!r}: {self.what}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class PruneReport(Record):
    """What a prune did, or would do."""

    dry_run: bool
    backups: tuple[Decision, ...]
    """Each backup, by volume and sequence."""
    kept: int
    removed: int
    bytes_removed: int
    problems: tuple[PruneProblem, ...]

    def _about(self) -> str:
        return f" {self.kept} kept, {self.removed} removed, {_size(self.bytes_removed)}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ApplyReport(Record):
    """What applying a delta did."""

    target: str
    size_bytes: int
    root: str
    """Digest of the volume now, proven by reading it."""
    bytes_written: int
    already_applied: bool
    duration_s: float

    def _about(self) -> str:
        return f" to {self.target}, {_size(self.bytes_written)} written"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class CleanedVolume(Record):
    """What was cleaned of one volume."""

    volume: str
    removed_snapshots: tuple[str, ...]
    problem: str | None
    """Why it was left as it is."""

    def _about(self) -> str:
        return f" {self.volume!r}: {self.problem or ', '.join(self.removed_snapshots) or 'clean'}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Limits(Record):
    """Limits of running work: bytes and requests a second; None is no limit."""

    bwlimit: int | None
    iops_limit: int | None
    write_limit: int | None
    limit_at: tuple[str, ...]
    latency_target: str
    min_rate: int

    def _about(self) -> str:
        return f" bwlimit={self.bwlimit} write_limit={self.write_limit} latency_target={self.latency_target}"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class RunningWork(Record):
    """Work that goes on, and its present limits."""

    pid: int
    limits: Limits

    def _about(self) -> str:
        return f" of process {self.pid}:{self.limits._about()}"
