# Purpose: run one program and tell its wall time, its CPU time, its memory peak and the bytes it wrote.
# Trade-off: the kernel's own accounts (wait4) for time and memory, and a sampling thread only where huge pages must be
#   counted too, because ru_maxrss leaves them out; sampling costs the measured program a little, so it is off by default.
# If the assumption fails: ru_maxrss starts at the size of the process that starts the program (15 to 20 MiB of Python),
#   so this process must stay small: never load a volume or a big JSON document before a memory measurement.

import os
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

MIB = 1 << 20


class ProgramFailed(Exception):
    """A measured program ended with an exit code that its caller did not expect."""


@dataclass
class Measured:
    """What one run of one program cost."""

    wall: float  # seconds from start to end
    cpu: float  # seconds in user and system mode, all threads and waited-for children
    max_rss: int  # bytes, ru_maxrss: without huge pages, but never misses a short peak
    sampled_peak: int  # bytes, the highest sample of Rss and huge pages; 0 when not sampled
    huge_peak: int  # bytes of hugetlb pages at the highest sample
    written: int  # bytes sent towards storage
    exit_code: int
    stdout: str
    stderr: str

    @property
    def peak(self):
        """The memory peak with huge pages counted, by whichever of the two accounts is higher."""
        return max(self.sampled_peak, self.max_rss + self.huge_peak)


def run(argv, env=None, cwd=None, sample_every=None, on_sample=None, accept=(0,)):
    """Run argv to its end. `sample_every` (seconds) turns memory sampling on; `on_sample` may raise to stop the run."""
    argv = [str(word) for word in argv]
    full_env = {**os.environ, **{key: str(value) for key, value in (env or {}).items()}}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(argv, env=full_env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        sampler = MemorySampler(process.pid, sample_every, on_sample)
        sampler.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # Ctrl-C or SIGTERM: do not leave the program behind
            process.kill()
            process.wait()
            sampler.stop()
            raise
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        sampler.stop()
        stdout, stderr = read_back(out), read_back(err)

    if sampler.refused:
        raise ProgramFailed(f"{' '.join(argv)}\nwas stopped: {sampler.refused}")
    if process.returncode not in accept:
        raise ProgramFailed(f"{' '.join(argv)}\nended with {process.returncode}:\n{stderr[-2000:]}{stdout[:500]}")
    return Measured(
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        max_rss=usage.ru_maxrss * 1024,
        sampled_peak=sampler.peak,
        huge_peak=sampler.huge_peak,
        written=usage.ru_oublock * 512,
        exit_code=process.returncode,
        stdout=stdout,
        stderr=stderr,
    )


def read_back(file):
    file.seek(0)
    return file.read().decode("utf-8", "replace")


class MemorySampler:
    """Reads the memory of a running process again and again, in a thread, until stopped."""

    def __init__(self, pid, every, on_sample):
        self.pid, self.every, self.on_sample = pid, every, on_sample
        self.peak = self.huge_peak = 0
        self.refused = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True) if every else None

    def start(self):
        if self.thread:
            self.thread.start()

    def stop(self):
        self.stopping.set()
        if self.thread:
            self.thread.join()

    def watch(self):
        while not self.stopping.is_set():
            memory = memory_of(self.pid)
            if not memory:  # it has ended: its number may soon be another's
                return
            resident, huge = memory
            self.peak = max(self.peak, resident + huge)
            self.huge_peak = max(self.huge_peak, huge)
            try:
                if self.on_sample:
                    self.on_sample()
            except Exception as reason:  # the watcher wants this run to end
                self.refused = str(reason)
                self.kill()
                return
            self.stopping.wait(self.every)

    def kill(self):
        try:
            os.kill(self.pid, 9)
        except ProcessLookupError:
            pass


def memory_of(pid):
    """(resident bytes, hugetlb bytes) of a process now, or None when it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            lines = rollup.readlines()[1:]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    huge = kib.get("Private_Hugetlb", 0) + kib.get("Shared_Hugetlb", 0)
    return kib.get("Rss", 0) * 1024, huge * 1024
