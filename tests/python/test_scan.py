"""Change tracking without a repository: changes with their bytes, as buffers; ranges; deltas."""

from pathlib import Path

import numpy
import pytest

import blkdelta


def test_changes_are_the_bytes_of_the_volume(volume, change):
    list(blkdelta.scan(volume, write_manifest="manifest"))
    old = volume.read_bytes()
    change(10_000, b"x" * 5000)
    change(1 << 20, bytes(8192))
    changes = list(blkdelta.scan(volume, manifest="manifest"))
    assert [(c.offset, c.length, c.kind) for c in changes] == [(8192, 8192, "data"), (1 << 20, 8192, "zero")]
    new = bytearray(old)
    for c in changes:
        new[c.offset : c.offset + c.length] = c.data if c.kind == "data" else bytes(c.length)
    assert new == volume.read_bytes()
    assert len(changes[1].data) == 0
    assert repr(changes[0]) == "<Change data at 8192, 8.0 KiB>"


def test_data_is_a_buffer_and_not_a_copy(volume):
    first = next(iter(blkdelta.scan(volume)))
    view, array = first.data, numpy.frombuffer(first, dtype="u1")
    assert isinstance(view, memoryview) and view.readonly and view.obj is first
    assert numpy.shares_memory(array, numpy.frombuffer(view, dtype="u1"))
    assert array.ctypes.data == numpy.frombuffer(first.data, dtype="u1").ctypes.data
    with pytest.raises((TypeError, BufferError)):
        view[0] = 0
    with pytest.raises(ValueError):
        array[0] = 0


def test_data_may_be_kept(volume):
    views = [change.data for change in blkdelta.scan(volume, block_size="64KiB")]
    assert len(views) == 64
    assert b"".join(views) == volume.read_bytes()[: 4 << 20]


def test_what_was_not_taken_is_told_again(volume):
    with blkdelta.scan(volume, write_manifest="manifest", block_size="64KiB") as changes:
        next(changes)
        assert changes.report is None
    assert not Path("manifest").exists()
    with pytest.raises(ValueError, match="closed"):
        next(changes)
    changes = blkdelta.scan(volume, write_manifest="manifest", block_size="64KiB")
    assert sum(len(change.data) for change in changes) == changes.report.bytes_changed == 4 << 20
    assert Path("manifest").exists() and list(changes) == []
    assert list(blkdelta.scan(volume, manifest="manifest")) == []


def test_errors_come_from_the_iterator(volume):
    with pytest.raises(FileNotFoundError):
        list(blkdelta.scan("nothing.img"))
    with pytest.raises(FileNotFoundError):
        list(blkdelta.scan(volume, manifest="nothing"))
    with volume.open("r+b"), pytest.raises(blkdelta.RefusedError):
        list(blkdelta.scan(volume))


def test_progress_of_a_scan(volume):
    told = []
    list(blkdelta.scan(volume, progress=told.append))
    assert told[-1].bytes_done == told[-1].bytes_total == 8 << 20


def test_a_cancelled_scan_is_an_error(large):
    cancel = blkdelta.CancelToken()
    changes = blkdelta.scan(large, cancel=cancel)
    next(changes)
    cancel.cancel()
    with pytest.raises(blkdelta.CancelledError):
        list(changes)


def test_ranges_and_a_delta_that_is_applied(volume, change):
    old = volume.read_bytes()
    ranges = blkdelta.scan_ranges(volume, write_manifest="manifest")
    assert [(r.offset, r.end, r.kind) for r in ranges] == [(0, 4 << 20, "data")]
    change(10_000, b"y" * 100)
    ranges = blkdelta.scan_ranges(volume, manifest="manifest", delta="delta", compression="lz4")
    assert (len(ranges), ranges[0].offset, ranges.report.bytes_changed) == (1, 8192, 8192)
    Path("copy.img").write_bytes(old)
    assert blkdelta.apply("delta", "copy.img").bytes_written == 8192
    assert Path("copy.img").read_bytes() == volume.read_bytes()
    assert blkdelta.apply("delta", "copy.img").already_applied
    Path("copy.img").write_bytes(bytes(8 << 20))
    with pytest.raises(blkdelta.WrongParentError):
        blkdelta.apply("delta", "copy.img")
