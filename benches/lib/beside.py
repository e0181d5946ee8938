# Purpose: run a command again and again beside something else until told to stop, and tell how many bytes it has read.
# Trade-off: the bytes are the kernel's own account of what a process fetched from block devices (ru_inblock), which holds
#   for io_uring, for dd and for a run that was cut off alike, where a command's own report would be missing.
# If the assumption fails: a kernel without task I/O accounting counts nothing, and a command that reads through the page
#   cache counts only what was not cached there; zero bytes end the run instead of being shown.

import os
import signal
import subprocess
import tempfile
import threading
import time

from lib import machine
from lib.measure import ProgramFailed

PATIENCE = 10  # seconds between SIGTERM and SIGKILL


class Repeated:
    """`pipeline` is one command, or several with a pipe between them; the first one reads. It starts after `delay`."""

    def __init__(self, pipeline, env, delay=0):
        self.delay = delay
        self.pipeline = [[str(word) for word in command] for command in pipeline]
        self.env = {**os.environ, **{key: str(value) for key, value in env.items()}}
        self.bytes_read = self.seconds = self.finished = 0
        self.failure = None
        self.stubborn = False  # it had to be killed
        self.lock = threading.Lock()
        self.running, self.stopping, self.stop_now = [], False, threading.Event()
        self.thread = threading.Thread(target=self.repeat)
        self.started = time.monotonic()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop()
        try:
            self.thread.join(PATIENCE)
        finally:  # a second Ctrl-C, too
            if self.thread.is_alive():
                self.stubborn = True
                machine.note(f"does not end on SIGTERM: {self}")
                self.send(signal.SIGKILL)
                self.thread.join()

    def stop(self):
        self.stopping = True
        self.stop_now.set()
        self.seconds = time.monotonic() - self.started
        self.send(signal.SIGTERM)

    def send(self, number):
        with self.lock:
            for process in self.running:
                if process.returncode is None:  # not reaped, so the process number is still its own
                    os.kill(process.pid, number)

    def repeat(self):
        self.stop_now.wait(self.delay)
        self.started = time.monotonic()
        try:
            while not self.stopping:
                self.once()
        except Exception as reason:
            self.failure = reason

    def once(self):
        """One run to its end, or until told to stop."""
        with tempfile.TemporaryFile() as errors:
            try:
                processes = self.start(errors)
                codes = [self.wait(process, first=number == 0) for number, process in enumerate(processes)]
            except BaseException:  # Ctrl-C or SIGTERM: do not leave the programs behind
                self.stop()
                raise
            if self.stopping:
                return
            if any(codes):
                errors.seek(0)
                said = errors.read()[-2000:].decode("utf-8", "replace")
                raise ProgramFailed(f"{self}\nended with {codes}:\n{said}")
            self.finished += 1

    def start(self, errors):
        with self.lock:
            self.running = []
            if self.stopping:
                return []
            source = subprocess.DEVNULL
            for number, command in enumerate(self.pipeline):
                last = number == len(self.pipeline) - 1
                out = subprocess.DEVNULL if last else subprocess.PIPE
                process = subprocess.Popen(command, env=self.env, stdin=source, stdout=out, stderr=errors)
                if number:
                    source.close()  # only the next command holds the pipe's end
                self.running.append(process)
                source = process.stdout
            return self.running

    def wait(self, process, first):
        """Not reaped before the lock is held, so that no signal can meet a number that is another's by now."""
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self.lock:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if first:
            self.bytes_read += usage.ru_inblock * 512
        return process.returncode

    @property
    def rate(self):
        """Bytes per second, from the first start to the stop."""
        if self.failure:
            raise self.failure
        if not self.bytes_read:
            raise ProgramFailed(f"{self}\nhas read nothing, or the kernel does not count it")
        return self.bytes_read / self.seconds

    def __str__(self):
        return " | ".join(" ".join(command) for command in self.pipeline)
