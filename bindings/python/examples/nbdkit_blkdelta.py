"""Serves a backup as a read-only block device: a plugin for nbdkit, on top of the library's random reads.

    nbdkit python nbdkit_blkdelta.py repo=/backup/repo id=latest volume=db
    nbdcopy nbd://localhost restored.img

nbdkit embeds the system's python3, so the module has to be installed for that one. Every block is proven before it is
served; one that is damaged is answered with EIO, never with wrong bytes.
"""

import errno
from typing import Any

import blkdelta
import nbdkit

API_VERSION = 2

settings: dict[str, str] = {}
repository: blkdelta.Repository


def config(key: str, value: str) -> None:
    """repo=DIR, id=ID (the latest unless given), volume=NAME."""
    if key not in ("repo", "id", "volume"):
        raise ValueError(f"unknown parameter {key}")
    settings[key] = value


def config_complete() -> None:
    global repository
    repository = blkdelta.Repository.open(settings["repo"])


def thread_model() -> int:
    return int(nbdkit.THREAD_MODEL_PARALLEL)  # the reader serves several threads at once, without the interpreter's lock


def open(readonly: bool) -> blkdelta.Reader:
    return repository.reader(settings.get("id", "latest"), volume=settings.get("volume"))


def get_size(reader: blkdelta.Reader) -> int:
    return reader.size


def can_multi_conn(reader: blkdelta.Reader) -> bool:
    return True  # a backup never changes


def pread(reader: blkdelta.Reader, buffer: Any, offset: int, flags: int) -> None:
    try:
        reader.read_into(offset, buffer)
    except blkdelta.Error:
        nbdkit.set_error(errno.EIO)
        raise


def close(reader: blkdelta.Reader) -> None:
    reader.close()
