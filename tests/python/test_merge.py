"""Merging backups of a chain, by itself and behind a backup."""

from pathlib import Path

import pytest


@pytest.fixture
def chain(repo, volume, change):
    """Four backups that build on each other."""
    backups = []
    for number in range(4):
        change(number * 100_000, bytes([number + 1]) * 5000)
        backups.append(repo.backup(volume, volume="db"))
    return backups


def test_a_run_becomes_one(repo, volume, chain):
    report = repo.merge(chain[2], first=chain[1].id)
    assert (report.kind, report.removed, report.kept) == ("incremental", (chain[2].id, chain[1].id), ())
    assert repo.show(chain[2].id).root == chain[2].root
    assert [backup.kind for backup in repo] == ["full", "incremental", "incremental"]
    assert repo.verify(data=True).ok
    repo.restore("latest", "out.img", volume="db")
    assert Path("out.img").read_bytes() == volume.read_bytes()
    with pytest.raises(ValueError):
        repo.merge(chain[0])


def test_a_chain_is_bounded(repo, volume, chain):
    report = repo.backup(volume, volume="db", max_chain=2)
    assert report.merged is not None and report.merged.kind == "full" and len(report.merged.removed) == 4
    assert len(repo.list("db")) == 2 and repo.verify(data=True).ok
    assert repo.backup(volume, volume="db", max_chain=9).merged is None
    with pytest.raises(ValueError):
        repo.backup(volume, volume="db", max_chain=0)
