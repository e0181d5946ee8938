"""What the tests of the Python module share: volumes whose bytes are known, a repository, and the command beside it.

Each test has its own folder as working folder and as folder of local state.
If it is wrong: volumes are made from a seed, so a failure can be repeated; nothing here judges anything.
"""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

import blkdelta

MIB = 1 << 20


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLKDELTA_STATE", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def volume():
    """An image file of 8 MiB, half of it zeros."""
    path = Path("db.img")
    path.write_bytes(random.Random(1).randbytes(4 * MIB) + bytes(4 * MIB))
    return path


@pytest.fixture
def repo():
    with blkdelta.Repository.init("repo") as repository:
        yield repository


@pytest.fixture
def change(volume):
    """Writes bytes into the volume."""

    def write(offset, data):
        with volume.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return write


@pytest.fixture
def large(tmp_path):
    """A volume that takes a while: 128 MiB that is no hole."""
    path = tmp_path / "large.img"
    with path.open("wb") as file:
        block = random.Random(2).randbytes(MIB)
        for number in range(128):
            file.write(number.to_bytes(8, "little") + block[8:])
        file.flush()
        os.fsync(file.fileno())  # whoever opens it as a source would wait for that
    return path


@pytest.fixture
def command():
    """Runs the command in the test's folder; its standard output."""
    found = os.environ.get("BLKDELTA_COMMAND") or shutil.which("blkdelta")
    if not found:
        pytest.skip("needs the command: BLKDELTA_COMMAND or PATH")
    return lambda *arguments: subprocess.run([found, *arguments], check=True, capture_output=True).stdout
