"""Backups: what is told of them, their kinds, groups, every argument."""

import datetime
import inspect
import json
from pathlib import Path

import pytest

import blkdelta


def test_the_first_is_full_and_the_next_holds_what_changed(repo, volume, change):
    full = repo.backup(volume, volume="db", tags=["first"])
    assert (full.kind, full.sequence, full.parent, full.tags) == ("full", 1, None, ("first",))
    assert full.bytes_read == full.size_bytes == volume.stat().st_size
    change(8192, b"x" * 100)
    report = repo.backup(str(volume), volume="db")
    assert (report.kind, report.parent.id, report.bytes_changed) == ("incremental", full.id, 8192)
    assert report.taken_at.tzinfo is not None
    assert datetime.datetime.now(datetime.UTC) - report.taken_at < datetime.timedelta(minutes=5)


def test_kinds_and_parents(repo, volume):
    full = repo.backup(volume, volume="db", kind="full")
    repo.backup(volume, volume="db", kind="incremental")
    assert repo.backup(volume, volume="db", kind="differential").parent.id == full.id
    assert repo.backup(volume, volume="db", parent=full).parent.id == full.id
    with pytest.raises(ValueError, match="kind and parent"):
        repo.backup(volume, volume="db", parent=full, kind="full")
    with pytest.raises(ValueError, match="kind='half'"):
        repo.backup(volume, volume="db", kind="half")


def test_every_argument_that_is_shown_is_taken(repo, volume):
    """Defaults are handed over as they stand in the signature, which help() and the stubs show."""
    for verb, arguments in [(repo.backup, [volume]), (repo.backup_group, [[volume]])]:
        shown = {
            name: parameter.default
            for name, parameter in inspect.signature(verb).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        assert len(shown) > 30
        verb(*arguments, **shown)
    with pytest.raises(TypeError, match="unexpected keyword argument 'volum'"):
        repo.backup(volume, volum="db")


def test_arguments_have_the_forms_that_python_people_know(repo, volume, folder):
    report = repo.backup(
        Path(volume),
        volume="db",
        hints="off",
        freeze_timeout=datetime.timedelta(seconds=5),
        bwlimit=500 << 20,
        write_limit="400MiB/s",
        limit_at=["mon-fri 09:00-18:00=500MiB/s"],
        queue_depth=4,
        nice=5,
        ionice="best-effort:7",
        hint_sample="2%",
        before_snapshot="echo before > hook",
        freeze=[],
    )
    assert report.complete and (folder / "hook").read_text() == "before\n"
    for wrong in [{"bwlimit": "fast"}, {"bwlimit": 0}, {"bwlimit": -1}, {"nice": 99}, {"queue_depth": 0}]:
        with pytest.raises(ValueError, match=r".+\nHINT: .+"):
            repo.backup(volume, volume="db", **wrong)
    for wrong in [{"bwlimit": 1.5}, {"bwlimit": True}, {"tags": 3}, {"volume": 3}, {"freeze": 3}]:
        with pytest.raises(TypeError):
            repo.backup(volume, volume="db", **wrong)


def test_hints_from_a_map_file(repo, volume, change):
    repo.backup(volume, volume="db")
    change(5 << 20, b"x" * 100)
    Path("map").write_text(f"0 {5 << 20} same\n{5 << 20} 4096 data\n{(5 << 20) + 4096} {(3 << 20) - 4096} same\n")
    report = repo.backup(volume, volume="db", hints=Path("map"), hint_sample="0", rescan_every=0)
    assert (report.hint.kind, report.alarm, report.bytes_carried) == ("lines", None, 4 << 20)
    change(0, b"not in the map")
    Path("map").write_text(f"0 {8 << 20} same\n")
    report = repo.backup(volume, volume="db", hints="map", hint_sample="100%")
    assert report.alarm is not None and report.bytes_changed == 8192


def test_a_group_has_one_moment_and_a_report_each(repo, volume):
    Path("log.img").write_bytes(bytes(1 << 20))
    reports = repo.backup_group([volume, "log.img"], volumes=["db", "log"])
    assert [report.volume for report in reports] == ["db", "log"]
    assert reports[0].group == reports[1].group == reports[0].id
    assert any("one after the other" in warning for warning in reports[0].warnings)
    with pytest.raises(ValueError, match="as many"):
        repo.backup_group([volume], volumes=["db", "log"])


def test_what_a_group_committed_before_a_failure_is_told(repo, volume):
    Path("log.img").write_bytes(bytes(32 << 20))  # 8 s: it must not end before somebody looks
    cancel = blkdelta.CancelToken()

    def stop_after_the_first(progress):
        if repo.list("db"):
            cancel.cancel()

    with pytest.raises(blkdelta.CancelledError) as caught:
        repo.backup_group(
            [volume, "log.img"],
            volumes=["db", "log"],
            bwlimit="4MiB/s",
            full_speed=True,
            progress=stop_after_the_first,
            cancel=cancel,
        )
    assert [report.volume for report in caught.value.committed] == ["db"] == [backup.volume for backup in repo]


def test_records_say_what_the_command_says(repo, volume, command):
    report = repo.backup(volume, volume="db")
    told = json.loads(command("--repo", "repo", "list", "--json"))
    assert [backup.as_dict() for backup in repo.list()] == told
    assert json.loads(repo.show(report.id[:8]).json) == told[0]
    assert report.as_dict()["throttle"]["throttled_s"] == report.throttle.throttled_s
    assert repr(report).startswith(f"<BackupReport {report.id[:12]} of 'db', full, number 1, 4.0 MiB")
    with pytest.raises(AttributeError):
        report.volume = "other"
