"""Long calls: progress, Ctrl-C, cancelling, the interpreter's lock, exceptions of the callback."""

import signal
import subprocess
import sys
import threading
import time

import pytest

import blkdelta


def test_progress_goes_up_to_the_end(repo, volume):
    told = []
    repo.backup(volume, volume="db", progress=told.append)
    done = [progress.bytes_done for progress in told]
    assert done == sorted(done)
    assert told[-1].bytes_done == told[-1].bytes_total == volume.stat().st_size
    assert told[-1].bytes_changed == 4 << 20
    assert "8.0 MiB of 8.0 MiB" in repr(told[-1])


def test_an_exception_of_the_callback_stops_the_call(repo, large):
    def fail(progress):
        if progress.bytes_done:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        repo.backup(large, volume="db", bwlimit="16MiB/s", full_speed=True, progress=fail)
    assert repo.list() == []
    with pytest.raises(RuntimeError, match="enough"):
        repo.backup(large, volume="db", full_speed=True, progress=fail)


def test_others_run_meanwhile(repo, large):
    """This thread counts while another one waits in a backup that would take a minute."""
    count, ended = 0, threading.Event()

    def work():
        repo.backup(large, volume="db", bwlimit="2MiB/s", full_speed=True)
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not blkdelta.limits.show():
        time.sleep(0.01)
    while count < 100 and not ended.wait(0.001):
        count += 1
    assert count == 100 and not ended.is_set()
    blkdelta.limits.set(bwlimit="1GiB/s")
    thread.join()
    assert ended.is_set()


def test_another_thread_cancels(repo, large):
    cancel = blkdelta.CancelToken()
    threading.Timer(0.5, cancel.cancel).start()
    begun = time.monotonic()
    with pytest.raises(blkdelta.CancelledError):
        repo.backup(large, volume="db", bwlimit="512KiB/s", full_speed=True, cancel=cancel)
    assert time.monotonic() - begun < 120  # of 256
    assert cancel.cancelled and repr(cancel) == "<CancelToken cancelled=True>"
    assert repo.list() == []


SCRIPT = """
import blkdelta, signal, sys
# A test run in the background hands down that SIGINT is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
source, verb = sys.argv[1:]
slowly = dict(bwlimit="1MiB/s", full_speed=True)
begun = False

def told(what):
    global begun
    if not begun and getattr(what, "bytes_done", 1):  # a backup tells of itself before the image is synced and read
        begun = True
        print("begun", flush=True)

try:
    if verb == "backup":
        blkdelta.Repository.init("ctrl-c").backup(source, volume="db", progress=told, **slowly)
    else:
        for change in blkdelta.scan(source, write_manifest="manifest", **slowly):
            told(change)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("verb", ["backup", "scan"])
def test_control_c_stops_within_a_block(verb, large, folder):
    arguments = [sys.executable, "-c", SCRIPT, str(large), verb]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        assert process.stdout.readline() == "interrupted\n"
        assert time.monotonic() - sent < 60  # a block of 4 MiB takes four seconds, all of it 128
        assert process.wait(100) == 0
    assert not (folder / "manifest").exists()
