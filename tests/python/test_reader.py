"""Random reads of a backup, and differences between two."""

import random
import threading

import numpy
import pytest

import blkdelta


def test_any_bytes(repo, volume, change):
    repo.backup(volume, volume="db")
    change(5 << 20, b"new" * 1000)
    backup = repo.backup(volume, volume="db")
    wanted, chance = volume.read_bytes(), random.Random(3)
    with repo.reader(backup) as reader:
        assert reader.size == len(wanted) and reader.backup.id == backup.id
        assert reader.read_at(0, reader.size) == wanted
        for _ in range(200):
            offset = chance.randrange(len(wanted))
            length = chance.randrange(min(20_000, len(wanted) - offset))
            assert reader.read_at(offset, length) == wanted[offset : offset + length]
        for offset, length in [(reader.size, 1), (0, reader.size + 1), ((1 << 64) - 1, 10), (0, 1 << 60)]:
            with pytest.raises(ValueError, match="beyond the end"):
                reader.read_at(offset, length)
    with pytest.raises(ValueError, match="closed"):
        reader.read_at(0, 1)


def test_into_buffers(repo, volume):
    wanted = volume.read_bytes()
    with repo.reader(repo.backup(volume, volume="db")) as reader:
        plain, array = bytearray(5000), numpy.zeros(5000, dtype="u1")
        for buffer in (plain, array, memoryview(plain)[1000:2000]):
            reader.read_into(777, buffer)
            assert bytes(buffer) == wanted[777 : 777 + len(buffer)]
        with pytest.raises(BufferError):
            reader.read_into(0, bytes(10))
        view = reader.read_at(0, 4096)
        assert view.readonly and numpy.frombuffer(view, dtype="<u4")[0] == int.from_bytes(wanted[:4], "little")


def test_several_threads_read(repo, volume):
    wanted, wrong = volume.read_bytes(), []
    with repo.reader(repo.backup(volume, volume="db")) as reader:

        def read(seed):
            chance = random.Random(seed)
            for _ in range(100):
                offset = chance.randrange(len(wanted) - 10_000)
                if reader.read_at(offset, 10_000) != wanted[offset : offset + 10_000]:
                    wrong.append(offset)

        threads = [threading.Thread(target=read, args=[seed]) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_diff_is_a_list_of_ranges(repo, volume, change):
    older = repo.backup(volume, volume="db")
    change(10_000, b"x")
    change(1 << 20, bytes(16384))
    newer = repo.backup(volume, volume="db")
    ranges = repo.diff(older, newer.id)
    assert [(r.offset, r.length, r.kind) for r in ranges] == [(8192, 8192, "data"), (1 << 20, 16384, "zero")]
    assert len(ranges) == 2 and ranges[-1] == list(ranges)[1] != ranges[0]
    assert (ranges.report.older, ranges.report.newer, ranges.report.bytes_changed) == (older.id, newer.id, 24576)
    with pytest.raises(IndexError):
        ranges[2]
    with pytest.raises(IndexError):
        ranges[-3]
    assert repr(ranges) == "<ChangedRanges: 2 with 24.0 KiB>"
