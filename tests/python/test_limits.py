"""Limits that are changed while something runs."""

import os
import threading
import time

import pytest

import blkdelta


def test_limits_of_running_work_are_shown_and_changed(repo, large):
    reports = []

    def work():
        reports.append(repo.backup(large, volume="db", bwlimit="256KiB/s", full_speed=True))

    thread = threading.Thread(target=work)
    begun = time.monotonic()
    thread.start()
    while not (running := blkdelta.limits.show()):
        time.sleep(0.01)
    assert (running[0].pid, running[0].limits.bwlimit, running[0].limits.latency_target) == (os.getpid(), 256 << 10, "off")
    changed = blkdelta.limits.set(bwlimit="1GiB/s", pid=os.getpid())
    assert changed[0].limits.bwlimit == 1 << 30
    thread.join()
    assert reports and time.monotonic() - begun < 300  # 512 s at the old limit
    assert blkdelta.limits.show() == []


def test_nothing_runs(folder):
    with pytest.raises(blkdelta.NotFoundError):
        blkdelta.limits.set(full_speed=True)
    with pytest.raises(ValueError):
        blkdelta.limits.set(bwlimit="fast")


def test_cleanup(repo, volume):
    repo.backup(volume, volume="db")
    assert [(cleaned.volume, cleaned.removed_snapshots, cleaned.problem) for cleaned in repo.cleanup()] == [("db", (), None)]
