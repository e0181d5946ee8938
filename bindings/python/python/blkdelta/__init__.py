"""Changed-block tracking and incremental backup of raw volumes.

Verbs and arguments have the names of the command `blkdelta`. Sizes are bytes (or texts such as "4MiB"), rates bytes a
second (or "50MiB/s"), times seconds and `datetime`, paths `str` or `os.PathLike`. Long calls release the interpreter's lock,
tell their progress, and stop within a block at Ctrl-C.

>>> with blkdelta.Repository.open("repo") as repo:
...     repo.show("latest", volume="db").kind
'full'
"""

from . import limits
from ._blkdelta import (
    VERSION,
    CancelToken,
    Change,
    ChangedRange,
    ChangedRanges,
    Changes,
    Progress,
    Reader,
    Repository,
    apply,
    scan,
    scan_ranges,
)
from ._errors import (
    AccessDeniedError,
    AlreadyExistsError,
    CancelledError,
    DamagedError,
    DamageWarning,
    Error,
    IdentityMismatchError,
    InternalError,
    IoError,
    LockedError,
    NoRepositoryError,
    NoSpaceError,
    NotFoundError,
    RefusedError,
    SnapshotLostError,
    SourceChangedError,
    UnreadableError,
    UnsupportedError,
    WrongKeyError,
    WrongParentError,
    WrongUseError,
)
from ._records import (
    ApplyReport,
    Backup,
    BackupReport,
    CleanedVolume,
    Decision,
    DiffReport,
    Hint,
    KeptBackup,
    Limits,
    MergeReport,
    Parent,
    Problem,
    PruneProblem,
    PruneReport,
    Record,
    RestoreReport,
    RunningWork,
    ScanReport,
    Statistics,
    Throttle,
    VerifyReport,
)

__version__ = VERSION

__all__ = [
    "AccessDeniedError",
    "AlreadyExistsError",
    "ApplyReport",
    "Backup",
    "BackupReport",
    "CancelToken",
    "CancelledError",
    "Change",
    "ChangedRange",
    "ChangedRanges",
    "Changes",
    "CleanedVolume",
    "DamageWarning",
    "DamagedError",
    "Decision",
    "DiffReport",
    "Error",
    "Hint",
    "IdentityMismatchError",
    "InternalError",
    "IoError",
    "KeptBackup",
    "Limits",
    "LockedError",
    "MergeReport",
    "NoRepositoryError",
    "NoSpaceError",
    "NotFoundError",
    "Parent",
    "Problem",
    "Progress",
    "PruneProblem",
    "PruneReport",
    "Reader",
    "Record",
    "RefusedError",
    "Repository",
    "RestoreReport",
    "RunningWork",
    "ScanReport",
    "SnapshotLostError",
    "SourceChangedError",
    "Statistics",
    "Throttle",
    "UnreadableError",
    "UnsupportedError",
    "VerifyReport",
    "WrongKeyError",
    "WrongParentError",
    "WrongUseError",
    "apply",
    "limits",
    "scan",
    "scan_ranges",
]

# What people see in tracebacks and in help() is where they import it from.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = "blkdelta"
del _name
