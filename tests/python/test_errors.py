"""The tree of exceptions: what each is besides an `Error`, what it knows, how it reads."""

import errno
import pickle

import pytest

import blkdelta


def test_every_exception_is_an_error():
    for name in blkdelta.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(blkdelta, name), blkdelta.Error), name


def test_what_python_people_expect(repo, volume):
    with pytest.raises(FileNotFoundError) as missing:
        blkdelta.Repository.open("nowhere")
    assert isinstance(missing.value, blkdelta.NoRepositoryError)
    with pytest.raises(FileExistsError):
        blkdelta.Repository.init("repo")
    with pytest.raises(FileNotFoundError, match="no backup 'latest'"):
        repo.show("latest")
    with pytest.raises(FileNotFoundError) as missing:
        repo.backup("nothing.img", volume="db")
    assert (missing.value.errno, missing.value.filename) == (errno.ENOENT, "nothing.img")
    with pytest.raises(ValueError):
        blkdelta.Repository.init("other", block_size="4MB")
    with pytest.raises(OSError):
        blkdelta.Repository.init(volume / "below")


def test_an_error_knows_its_place_and_the_next_step():
    with pytest.raises(blkdelta.Error) as caught:
        blkdelta.Repository.open("nowhere")
    error = caught.value
    assert error.path == "nowhere/config.json"
    assert str(error) == f"{error.message}\nHINT: {error.hint}"
    assert repr(error) == f"NoRepositoryError({error.message!r})"
    assert type(error).__module__ == "blkdelta"


def test_damage_names_the_place(repo, volume):
    backup = repo.backup(volume, volume="db", compression="none")
    delta = next(repo.path.glob("volumes/*/deltas/*"))
    content = bytearray(delta.read_bytes())
    content[len(content) // 2] ^= 1
    delta.write_bytes(content)
    with pytest.raises(blkdelta.DamagedError) as caught:
        repo.restore(backup, "out.img")
    assert caught.value.path == str(delta) and caught.value.offset is not None
    report = repo.verify(data=True)
    assert not report.ok and report.problems[0].id == backup.id and str(delta) in report.problems[0].what


def test_a_live_target_is_refused(repo, volume):
    backup = repo.backup(volume, volume="db")
    with pytest.raises(blkdelta.RefusedError):
        repo.restore(backup, volume)
    with volume.open("r+b"), pytest.raises(blkdelta.RefusedError):
        repo.backup(volume, volume="db")


def test_another_volume_under_the_name_is_a_value_error(repo, volume):
    repo.backup(volume, volume="db")
    volume.rename("gone")
    volume.write_bytes(b"another")
    with pytest.raises(blkdelta.IdentityMismatchError) as caught:
        repo.backup(volume, volume="db")
    assert isinstance(caught.value, ValueError)


def test_an_unreadable_record_is_warned_of(repo, volume):
    repo.backup(volume, volume="db")
    next(repo.path.glob("volumes/*/records/*")).write_bytes(b"{}")
    with pytest.warns(blkdelta.DamageWarning):
        assert repo.list() == []


def test_exceptions_pass_between_processes():
    error = blkdelta.NoSpaceError("writing", "make room", "/x", 4096, 512, errno.ENOSPC)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is blkdelta.NoSpaceError and vars(again) == vars(error) and again.errno == errno.ENOSPC


def test_a_closed_repository_says_so(repo, volume):
    repo.close()
    with pytest.raises(ValueError, match="closed"):
        repo.list()
    assert repr(repo) == "<Repository repo, closed>"
