"""What stays and what goes, and tags."""

import datetime
import zoneinfo

import pytest

import blkdelta


@pytest.fixture
def three(repo, volume):
    return [repo.backup(volume, volume="db", kind="full") for _ in range(3)]


def test_what_no_rule_keeps_goes(repo, three):
    plan = repo.prune(keep_last=1, dry_run=True)
    assert [(decision.id, decision.keep) for decision in plan.backups] == [
        (three[0].id, False),
        (three[1].id, False),
        (three[2].id, True),
    ]
    assert (plan.dry_run, plan.kept, plan.removed, len(repo.list())) == (True, 1, 2, 3)
    repo.tag(three[0], add=["precious"])
    report = repo.prune(keep_last=1, keep_tag=["precious"], volume="db")
    assert [backup.id for backup in repo] == [three[0].id, three[2].id] and report.removed == 1
    assert report.bytes_removed > 0 and report.problems == () and all(decision.reasons for decision in report.backups)


def test_rules_have_the_forms_that_python_people_know(repo, three):
    zone = zoneinfo.ZoneInfo("UTC")
    assert repo.prune(keep_within=datetime.timedelta(days=1), time_zone=zone).removed == 0
    assert repo.prune(keep_last=1, min_age="1d", time_zone="UTC").removed == 0
    assert repo.prune(keep_daily=1, keep_yearly=1).removed == 2
    for wrong in [{}, {"keep_last": 0}, {"keep_within": "soon"}, {"keep_last": 1, "time_zone": "Nowhere/Land"}]:
        with pytest.raises(ValueError):
            repo.prune(**wrong)
    with pytest.raises(blkdelta.NotFoundError):
        repo.prune(keep_last=1, volume="other")


def test_tags(repo, three):
    assert repo.tag("latest", add=["a", "b"]) == ["a", "b"]
    assert repo.tag(three[2].id, remove=["a"]) == ["b"]
    assert repo.show("latest").tags == ("b",)
    with pytest.raises(ValueError):
        repo.tag("latest", add=["\n"])
