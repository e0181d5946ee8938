# The native half, typed. `mypy.stubtest` compares this with the built module; what each thing does stands in its docstring.

import builtins
import datetime
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypeAlias, final

from ._records import (
    ApplyReport,
    Backup,
    BackupReport,
    CleanedVolume,
    CopyReport,
    DiffReport,
    MergeReport,
    PruneReport,
    RestoreReport,
    RunningWork,
    ScanReport,
    VerifyReport,
)

__all__ = [
    "VERSION",
    "CancelToken",
    "Change",
    "ChangedRange",
    "ChangedRanges",
    "Changes",
    "Progress",
    "Reader",
    "Repository",
    "apply",
    "limits_set",
    "limits_show",
    "scan",
    "scan_ranges",
]

VERSION: Final[str]

_StrPath: TypeAlias = str | os.PathLike[str]
# Bytes, or a text such as "4MiB".
_Size: TypeAlias = int | str
# Bytes a second, or a text such as "50MiB/s".
_Rate: TypeAlias = int | str
# Seconds, or a text such as "30s", or a timedelta.
_Span: TypeAlias = float | str | datetime.timedelta
# A datetime (a naive one is local time), or RFC 3339 text.
_Moment: TypeAlias = datetime.datetime | str
# An id or the beginning of one, "latest", "latest~N", or a backup.
_BackupName: TypeAlias = str | Backup
_OnProgress: TypeAlias = Callable[[Progress], object]
_Kind: TypeAlias = Literal["auto", "full", "incremental", "differential"]
_Digest: TypeAlias = Literal["blake3", "sha256", "xxh3"]
_RangeKind: TypeAlias = Literal["data", "zero"]

class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...

@final
class CancelToken:
    def __new__(cls) -> Self: ...
    def cancel(self) -> None: ...
    @property
    def cancelled(self) -> bool: ...

@final
class Progress:
    @property
    def bytes_total(self) -> int: ...
    @property
    def bytes_done(self) -> int: ...
    @property
    def bytes_changed(self) -> int: ...
    @property
    def bytes_stored(self) -> int: ...
    @property
    def note(self) -> str: ...

@final
class ChangedRange:
    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def kind(self) -> _RangeKind: ...
    @property
    def end(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class ChangedRanges:
    @property
    def report(self) -> DiffReport | ScanReport: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> ChangedRange: ...
    def __iter__(self) -> Iterator[ChangedRange]: ...

@final
class Change:
    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def kind(self) -> _RangeKind: ...
    @property
    def data(self) -> memoryview: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Changes:
    def __iter__(self) -> Self: ...
    def __next__(self) -> Change: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, trace: TracebackType | None = None
    ) -> None: ...
    @property
    def report(self) -> ScanReport | None: ...

@final
class Reader:
    @property
    def size(self) -> int: ...
    @property
    def backup(self) -> Backup: ...
    def read_at(self, offset: int, length: int) -> memoryview: ...
    def read_into(self, offset: int, buffer: Any) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, trace: TracebackType | None = None
    ) -> None: ...

@final
class Repository:
    @staticmethod
    def open(path: _StrPath, *, state: _StrPath | None = None, passphrase: str | None = None) -> Repository: ...
    @staticmethod
    def init(
        path: _StrPath,
        *,
        state: _StrPath | None = None,
        passphrase: str | None = None,
        digest: _Digest = "blake3",
        block_size: _Size = "4MiB",
        grain_size: _Size = "8KiB",
        compression: str = "zstd:1",
    ) -> Repository: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, trace: TracebackType | None = None
    ) -> None: ...
    @property
    def path(self) -> pathlib.Path: ...
    @property
    def id(self) -> str: ...
    @property
    def block_size(self) -> int: ...
    @property
    def grain_size(self) -> int: ...
    @property
    def digest(self) -> _Digest: ...
    def list(self, volume: str | None = None) -> builtins.list[Backup]: ...
    def show(self, id: _BackupName, *, volume: str | None = None, at: _Moment | None = None) -> Backup: ...
    def volumes(self) -> builtins.list[str]: ...
    def __iter__(self) -> Iterator[Backup]: ...
    def cleanup(self, volume: str | None = None) -> builtins.list[CleanedVolume]: ...
    def diff(
        self, older: _BackupName, newer: _BackupName, *, volume: str | None = None, cancel: CancelToken | None = None
    ) -> ChangedRanges: ...
    def reader(self, id: _BackupName, *, volume: str | None = None, at: _Moment | None = None) -> Reader: ...
    def backup(
        self,
        source: _StrPath,
        *,
        volume: str | None = None,
        kind: _Kind = "auto",
        parent: _BackupName | None = None,
        tags: Sequence[str] = (),
        compression: str | None = None,
        resume: bool = False,
        max_chain: int | None = None,
        allow_live: bool = False,
        new_identity: bool = False,
        queue_depth: int | None = None,
        hints: _StrPath = "auto",
        hint_sample: str = "auto",
        rescan_every: int | None = None,
        snapshot: Literal["auto", "lvm", "zfs", "none"] = "auto",
        snapshot_size: str = "10%",
        keep_snapshot: Literal["auto", "always", "never"] = "auto",
        before_snapshot: str | None = None,
        after_snapshot: str | None = None,
        freeze: _StrPath | Sequence[_StrPath] = (),
        freeze_timeout: _Span = "30s",
        postgresql: str | None = None,
        mysql: _StrPath | None = None,
        latency_target: str | None = None,
        bwlimit: _Rate | None = None,
        iops_limit: int | None = None,
        write_limit: _Rate | None = None,
        limit_at: Sequence[str] | str = (),
        min_rate: _Rate | None = None,
        full_speed: bool = False,
        ionice: str | None = None,
        nice: int | None = None,
        cgroup: bool = False,
        progress: _OnProgress | None = None,
        cancel: CancelToken | None = None,
    ) -> BackupReport: ...
    def backup_group(
        self,
        sources: Sequence[_StrPath],
        *,
        volumes: Sequence[str] | None = None,
        kind: _Kind = "auto",
        tags: Sequence[str] = (),
        compression: str | None = None,
        resume: bool = False,
        max_chain: int | None = None,
        allow_live: bool = False,
        new_identity: bool = False,
        queue_depth: int | None = None,
        hints: _StrPath = "auto",
        hint_sample: str = "auto",
        rescan_every: int | None = None,
        snapshot: Literal["auto", "lvm", "zfs", "none"] = "auto",
        snapshot_size: str = "10%",
        keep_snapshot: Literal["auto", "always", "never"] = "auto",
        before_snapshot: str | None = None,
        after_snapshot: str | None = None,
        freeze: _StrPath | Sequence[_StrPath] = (),
        freeze_timeout: _Span = "30s",
        postgresql: str | None = None,
        mysql: _StrPath | None = None,
        latency_target: str | None = None,
        bwlimit: _Rate | None = None,
        iops_limit: int | None = None,
        write_limit: _Rate | None = None,
        limit_at: Sequence[str] | str = (),
        min_rate: _Rate | None = None,
        full_speed: bool = False,
        ionice: str | None = None,
        nice: int | None = None,
        cgroup: bool = False,
        progress: _OnProgress | None = None,
        cancel: CancelToken | None = None,
    ) -> builtins.list[BackupReport]: ...
    def restore(
        self,
        id: _BackupName,
        target: _StrPath | int | _HasDescriptor,
        *,
        volume: str | None = None,
        at: _Moment | None = None,
        range: tuple[_Size, _Size] | None = None,
        in_place: bool = False,
        force: bool = False,
        read_back: bool = False,
        skip_damaged: bool = False,
        resume: bool = False,
        latency_target: str | None = None,
        bwlimit: _Rate | None = None,
        iops_limit: int | None = None,
        write_limit: _Rate | None = None,
        limit_at: Sequence[str] | str = (),
        min_rate: _Rate | None = None,
        ionice: str | None = None,
        nice: int | None = None,
        cgroup: bool = False,
        progress: _OnProgress | None = None,
        cancel: CancelToken | None = None,
    ) -> RestoreReport: ...
    def verify(
        self,
        *ids: _BackupName,
        volume: str | None = None,
        data: bool = False,
        sample: str | None = None,
        latency_target: str | None = None,
        bwlimit: _Rate | None = None,
        iops_limit: int | None = None,
        write_limit: _Rate | None = None,
        limit_at: Sequence[str] | str = (),
        min_rate: _Rate | None = None,
        full_speed: bool = False,
        ionice: str | None = None,
        nice: int | None = None,
        cgroup: bool = False,
        progress: _OnProgress | None = None,
        cancel: CancelToken | None = None,
    ) -> VerifyReport: ...
    def copy(
        self,
        to: Repository,
        *ids: _BackupName,
        volume: str | None = None,
        read_back: bool = False,
        dry_run: bool = False,
        latency_target: str | None = None,
        bwlimit: _Rate | None = None,
        iops_limit: int | None = None,
        write_limit: _Rate | None = None,
        limit_at: Sequence[str] | str = (),
        min_rate: _Rate | None = None,
        full_speed: bool = False,
        ionice: str | None = None,
        nice: int | None = None,
        cgroup: bool = False,
        progress: _OnProgress | None = None,
        cancel: CancelToken | None = None,
    ) -> CopyReport: ...
    def merge(
        self,
        last: _BackupName,
        *,
        first: _BackupName | None = None,
        volume: str | None = None,
        compression: str | None = None,
        latency_target: str | None = None,
        bwlimit: _Rate | None = None,
        iops_limit: int | None = None,
        write_limit: _Rate | None = None,
        limit_at: Sequence[str] | str = (),
        min_rate: _Rate | None = None,
        full_speed: bool = False,
        ionice: str | None = None,
        nice: int | None = None,
        cgroup: bool = False,
        progress: _OnProgress | None = None,
        cancel: CancelToken | None = None,
    ) -> MergeReport: ...
    def prune(
        self,
        *,
        volume: str | None = None,
        keep_last: int | None = None,
        keep_hourly: int | None = None,
        keep_daily: int | None = None,
        keep_weekly: int | None = None,
        keep_monthly: int | None = None,
        keep_yearly: int | None = None,
        keep_within: str | datetime.timedelta | None = None,
        keep_tag: Sequence[str] = (),
        min_age: str | datetime.timedelta | None = None,
        time_zone: str | datetime.tzinfo | None = None,
        dry_run: bool = False,
        cancel: CancelToken | None = None,
    ) -> PruneReport: ...
    def tag(
        self, id: _BackupName, *, add: Sequence[str] = (), remove: Sequence[str] = (), volume: str | None = None
    ) -> builtins.list[str]: ...

def apply(
    delta: _StrPath,
    target: _StrPath,
    *,
    force: bool = False,
    progress: _OnProgress | None = None,
    cancel: CancelToken | None = None,
) -> ApplyReport: ...
def scan(
    source: _StrPath,
    *,
    manifest: _StrPath | None = None,
    write_manifest: _StrPath | None = None,
    digest: _Digest = "blake3",
    block_size: _Size = "4MiB",
    grain_size: _Size = "8KiB",
    allow_live: bool = False,
    new_identity: bool = False,
    queue_depth: int | None = None,
    hints: _StrPath = "auto",
    hint_sample: str = "auto",
    rescan_every: int | None = None,
    latency_target: str | None = None,
    bwlimit: _Rate | None = None,
    iops_limit: int | None = None,
    write_limit: _Rate | None = None,
    limit_at: Sequence[str] | str = (),
    min_rate: _Rate | None = None,
    full_speed: bool = False,
    ionice: str | None = None,
    nice: int | None = None,
    cgroup: bool = False,
    state: _StrPath | None = None,
    progress: _OnProgress | None = None,
    cancel: CancelToken | None = None,
) -> Changes: ...
def scan_ranges(
    source: _StrPath,
    *,
    manifest: _StrPath | None = None,
    write_manifest: _StrPath | None = None,
    delta: _StrPath | None = None,
    digest: _Digest = "blake3",
    block_size: _Size = "4MiB",
    grain_size: _Size = "8KiB",
    compression: str = "zstd:1",
    allow_live: bool = False,
    new_identity: bool = False,
    queue_depth: int | None = None,
    hints: _StrPath = "auto",
    hint_sample: str = "auto",
    rescan_every: int | None = None,
    latency_target: str | None = None,
    bwlimit: _Rate | None = None,
    iops_limit: int | None = None,
    write_limit: _Rate | None = None,
    limit_at: Sequence[str] | str = (),
    min_rate: _Rate | None = None,
    full_speed: bool = False,
    ionice: str | None = None,
    nice: int | None = None,
    cgroup: bool = False,
    state: _StrPath | None = None,
    progress: _OnProgress | None = None,
    cancel: CancelToken | None = None,
) -> ChangedRanges: ...
def limits_show(*, state: _StrPath | None = None) -> list[RunningWork]: ...
def limits_set(*, state: _StrPath | None = None, pid: int | None = None, **limits: Any) -> list[RunningWork]: ...
