"""The exceptions. `Error` is above all of them; many are also what Python people expect for the same trouble.

They are made here because one with two bases cannot be made in Rust. Each class stands for one kind of error of the
library, with which it shares its name.
"""

from collections.abc import Sequence
from typing import Any


class Error(Exception):
    """Something that blkdelta could not do. The text says what, where and why, and ends with a hint.

    >>> try:
    ...     blkdelta.Repository.open("nowhere")
    ... except blkdelta.Error as error:
    ...     print(type(error).__name__, error.path)
    NoRepositoryError nowhere/config.json
    """

    committed: Sequence[Any] = ()
    """Reports of the backups that were committed before a later one of their group failed."""

    def __init__(
        self,
        message: str = "",
        hint: str | None = None,
        path: str | None = None,
        offset: int | None = None,
        length: int | None = None,
        errno: int | None = None,
    ) -> None:
        if isinstance(self, OSError):
            OSError.__init__(self, errno, message, path)
        else:
            Exception.__init__(self, message)
        self.message = message
        self.hint = hint
        self.path = path
        self.offset = offset
        self.length = length
        self.errno = errno

    def __str__(self) -> str:
        return f"{self.message}\nHINT: {self.hint}" if self.hint else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.hint, self.path, self.offset, self.length, self.errno)


class WrongUseError(Error, ValueError):
    """The caller asked for something that makes no sense."""


class NotFoundError(Error, FileNotFoundError):
    """The backup, volume or file is not there."""


class NoRepositoryError(Error, FileNotFoundError):
    """There is no repository there."""


class AlreadyExistsError(Error, FileExistsError):
    """Something that must be new is there already."""


class LockedError(Error, BlockingIOError):
    """Another process works on the same volume."""


class WrongKeyError(Error, PermissionError):
    """The key or passphrase does not open the repository."""


class RefusedError(Error):
    """It would be unsafe: a live source, a mounted target, a target that holds data."""


class RolledBackError(Error):
    """The repository went back to an older state, or became another one, since this host last saw it."""


class IdentityMismatchError(Error, ValueError):
    """The volume is not the one that the name, manifest or delta belongs to."""


class WrongParentError(Error, ValueError):
    """A delta or manifest does not belong to this parent."""


class SourceChangedError(Error):
    """The source changed while it was read."""


class SnapshotLostError(Error):
    """The snapshot no longer holds the state at which it was taken."""


class UnreadableError(Error, OSError):
    """The source could not be read."""


class DamagedError(Error):
    """Stored data does not match its checksums or contradicts itself."""


class UnsupportedError(Error):
    """Written by a newer version, or with a feature that this version does not know."""


class NoSpaceError(Error, OSError):
    """No room left on the device."""


class CancelledError(Error):
    """The caller's `CancelToken` was cancelled."""


class IoError(Error, OSError):
    """Any other failure of the operating system; `errno` tells which."""


class AccessDeniedError(IoError, PermissionError):
    """The operating system did not let us."""


class InternalError(Error, RuntimeError):
    """A bug in blkdelta."""


class DamageWarning(UserWarning):
    """Something stored cannot be read, and was left out of a list."""
