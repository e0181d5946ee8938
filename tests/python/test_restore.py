"""Restores: to paths and streams, in part, in place, as of a time; verify; and how much is proven."""

import datetime
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest

import blkdelta


@pytest.fixture
def two(repo, volume, change):
    """Two backups, with the bytes that they must give back."""
    states = []
    for number in range(2):
        change(100_000 * number, bytes([number + 1]) * 1000)
        states.append((repo.backup(volume, volume="db"), volume.read_bytes()))
    return states


def test_any_point_comes_back(repo, two):
    for number, (backup, wanted) in enumerate(two):
        report = repo.restore(backup.id, f"out{number}.img")
        assert report.root_proven and report.id == backup.id
        assert Path(f"out{number}.img").read_bytes() == wanted
    assert repo.restore("latest~1", "older.img", volume="db", read_back=True).read_back
    assert Path("older.img").read_bytes() == two[0][1]


def test_in_place_writes_what_differs(repo, two):
    (old, _), (new, wanted) = two
    repo.restore(old, "out.img")
    with pytest.raises(blkdelta.RefusedError):
        repo.restore(new, "out.img")
    report = repo.restore(new, "out.img", in_place=True, force=True)
    assert Path("out.img").read_bytes() == wanted and 0 < report.bytes_written < 65536


def test_a_range_at_its_own_offset(repo, two):
    backup, wanted = two[1]
    repo.restore(backup, "part.img", range=("64KiB", 4096))
    part = Path("part.img").read_bytes()
    assert part[65536 : 65536 + 4096] == wanted[65536 : 65536 + 4096] and not any(part[:65536])
    with pytest.raises(ValueError):
        repo.restore(backup, "x.img", range=(1 << 63, 1 << 63))


def test_into_streams(repo, two):
    backup, wanted = two[1]
    with open("out", "wb") as file:
        file.write(b"before")
        repo.restore(backup, file)
    assert Path("out").read_bytes() == b"before" + wanted
    ours, theirs = socket.socketpair()
    received = bytearray()

    def receive():
        while piece := theirs.recv(1 << 16):
            received.extend(piece)

    receiver = threading.Thread(target=receive)
    receiver.start()
    with ours:
        repo.restore(backup, ours)
    receiver.join()
    assert received == wanted
    for wrong in [-1, 999_999]:
        with pytest.raises((OSError, ValueError)):
            repo.restore(backup, wrong)
    with pytest.raises(TypeError):
        repo.restore(backup, object())


def test_as_of_a_time(repo, two):
    moment = two[0][0].taken_at + (two[1][0].taken_at - two[0][0].taken_at) / 2
    local = moment.astimezone().replace(tzinfo=None)
    for at in [moment, local, moment.isoformat(), moment.astimezone(datetime.timezone(datetime.timedelta(hours=5)))]:
        assert repo.show("latest", at=at).id == two[0][0].id
    with pytest.raises(FileNotFoundError):
        repo.show("latest", at=datetime.datetime(1999, 1, 1))
    with pytest.raises(ValueError):
        repo.show("latest", at="yesterday")


def test_verify(repo, two):
    report = repo.verify(two[0][0], "latest", data=True, bwlimit="1GiB/s")
    assert (report.ok, report.backups_checked, report.problems) == (True, 2, ())
    with pytest.raises(FileNotFoundError):
        repo.verify("ffffffff")
    assert repr(report) == "<VerifyReport ok, 2 backups, 0 problems>"


def test_verify_tells_that_the_repository_went_back(repo, volume):
    repo.backup(volume, volume="db")
    shutil.copytree("repo", "older")
    repo.backup(volume, volume="db")
    assert repo.verify().ok
    shutil.rmtree("repo")
    Path("older").rename("repo")
    report = repo.verify(volume="db")
    assert not report.ok and "went back" in report.problems[0].what


def test_a_restore_that_nobody_reads_ends(repo, two):
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(OSError):
        repo.restore(two[0][0], writing)
    os.close(writing)
