"""Copies in another repository: the same backups, found again, and what is damaged told."""

from pathlib import Path

import pytest

import blkdelta


@pytest.fixture
def two(repo, volume, change):
    """Two backups that build on each other."""
    first = repo.backup(volume, volume="db")
    change(0, b"changed")
    return first, repo.backup(volume, volume="db")


@pytest.fixture
def copies():
    with blkdelta.Repository.init("copies") as repository:
        yield repository


def test_a_copy_is_the_same_backup(repo, volume, two, copies):
    report = repo.copy(copies, two[1], read_back=True)
    assert [(backup.id, backup.needed) for backup in report.backups] == [(two[0].id, True), (two[1].id, False)]
    assert report.bytes_copied == sum(backup.bytes for backup in report.backups) and report.problems == ()
    assert (report.from_repository, report.to_repository) == (repo.id, copies.id)
    assert [backup.as_dict() for backup in copies] == [backup.as_dict() for backup in repo]
    copies.restore(two[1], "out.img")
    assert Path("out.img").read_bytes() == volume.read_bytes()
    again = repo.copy(copies)
    assert (again.backups, again.there_already, again.bytes_copied) == ((), 2, 0)


def test_a_dry_run_copies_nothing(repo, two, copies):
    told = []
    report = repo.copy(copies, volume="db", dry_run=True, bwlimit="1GiB/s", progress=told.append)
    assert report.dry_run and len(report.backups) == 2 and list(copies) == []
    assert told


def test_what_does_not_fit_is_refused(repo, two):
    with pytest.raises(blkdelta.WrongUseError):
        repo.copy(repo)
    with blkdelta.Repository.init("other", grain_size="16KiB") as other, pytest.raises(ValueError):
        repo.copy(other)
    with pytest.raises(TypeError):
        repo.copy("copies")
    with blkdelta.Repository.init("third") as third:
        with pytest.raises(blkdelta.NotFoundError):
            repo.copy(third, "0123456789")


def test_damage_is_told_and_the_rest_is_copied(repo, two, copies):
    delta = max(Path("repo/volumes/db/deltas").iterdir())
    delta.chmod(0o600)
    delta.write_bytes(delta.read_bytes()[:-1] + b"x")
    report = repo.copy(copies)
    assert [problem.id for problem in report.problems] == [two[1].id]
    assert [backup.id for backup in copies] == [two[0].id]


def test_cancelled_it_ends(repo, large, copies):
    repo.backup(large, volume="large")
    cancel = blkdelta.CancelToken()
    with pytest.raises(blkdelta.CancelledError):
        repo.copy(copies, bwlimit="16MiB/s", progress=lambda progress: progress.bytes_done and cancel.cancel(), cancel=cancel)
    assert list(copies) == []
