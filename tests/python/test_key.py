"""Encrypted repositories: made with a passphrase, opened with it or with what the environment names."""

from pathlib import Path

import pytest

import blkdelta


def test_an_encrypted_repository_opens_with_its_passphrase_alone(volume, monkeypatch):
    with blkdelta.Repository.init("sealed", passphrase="correct horse") as made:
        backup = made.backup(volume, volume="db")
    for wrong in (None, "battery staple"):
        with pytest.raises(PermissionError) as caught:
            blkdelta.Repository.open("sealed", passphrase=wrong)
        assert isinstance(caught.value, blkdelta.WrongKeyError)
    with blkdelta.Repository.open("sealed", passphrase="correct horse") as repo:
        repo.restore("latest", "out.img")
    assert Path("out.img").read_bytes() == volume.read_bytes()
    Path("password").write_text("correct horse\n")
    monkeypatch.setenv("BLKDELTA_PASSWORD_FILE", "password")
    with blkdelta.Repository.open("sealed") as repo:
        assert [found.id for found in repo] == [backup.id]
    stored = [path.read_bytes() for path in Path("sealed/volumes").rglob("*.json")]
    assert stored and all(content.startswith(b"\x89BKS") for content in stored)


def test_a_passphrase_for_a_repository_in_clear_is_refused(repo):
    with pytest.raises(blkdelta.WrongKeyError, match="not encrypted"):
        blkdelta.Repository.open("repo", passphrase="correct horse")


def test_what_cannot_be_encrypted_is_not_made():
    with pytest.raises(ValueError, match="xxh3"):
        blkdelta.Repository.init("sealed", passphrase="x", digest="xxh3")
    with pytest.raises(ValueError, match="empty"):
        blkdelta.Repository.init("sealed", passphrase="")
    assert not Path("sealed").exists()
