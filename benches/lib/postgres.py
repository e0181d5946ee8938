# Purpose: a PostgreSQL server of a benchmark's own: install, make, start, load and stop it, and read pgbench's times.
# Trade-off: Debian's PostgreSQL 15 at its usual place, no other version or path is looked for; the socket is in /tmp.
# If the assumption fails: another server on the same port would be talked to instead of ours; pg_ctl refuses to start
#   ours then, so the script ends before it measures anything.

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lib import machine

BIN = Path("/usr/lib/postgresql/15/bin")
DEFAULT_PORT = 54398
SCALE_PER_GIB, EMPTY_SERVER_GIB = 46.7, 0.25  # fills about two thirds of a volume beside what an empty server takes


def install():
    if (BIN / "pgbench").exists():
        return
    machine.note("installing postgresql-15")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # runlevel 1: do not start a server
    subprocess.run(["apt-get", "update", "-q"], check=True, env=quiet, stdout=sys.stderr)
    packages = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "postgresql-15"]
    subprocess.run(packages, check=True, env=quiet, stdout=sys.stderr)


def add_port_option(parser):
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="of the server's socket in /tmp (default %(default)s)")


def scale_for(size):
    """The pgbench scale that fills about two thirds of a volume of that size."""
    return max(1, int((size / (1 << 30) - EMPTY_SERVER_GIB) * SCALE_PER_GIB))


def run(program, *arguments, stdout=None):
    """Run one of PostgreSQL's programs as its own user; it refuses root."""
    user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    command = [BIN / program, *map(str, arguments)]
    return subprocess.run(command, check=True, cwd="/tmp", stdout=stdout, **user)


class Cluster:
    """One data folder and the server on it, with the database `bench`."""

    def __init__(self, data, port=DEFAULT_PORT):
        self.data, self.port = Path(data), port
        self.socket = ["--host=/tmp", f"--port={port}"]

    def initialise(self, settings):
        self.data.mkdir(mode=0o700)
        shutil.chown(self.data, "postgres", "postgres")
        run("initdb", "-D", self.data, "--auth=trust", stdout=subprocess.DEVNULL)
        settings = {"unix_socket_directories": "'/tmp'", "listen_addresses": "''", **settings}
        with open(self.data / "postgresql.conf", "a") as file:
            file.writelines(f"{key} = {value}\n" for key, value in settings.items())

    @contextlib.contextmanager
    def running(self):
        port = f"--options=-p {self.port}"
        log = self.data / "server.log"
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # a snapshot's; its process has gone, or is a zombie by now
        try:
            run("pg_ctl", "--silent", "--wait", "-D", self.data, "-l", log, port, "start")
        except subprocess.CalledProcessError:
            machine.note("".join(log.read_text().splitlines(keepends=True)[-8:]))
            raise
        try:
            yield
        finally:
            run("pg_ctl", "--silent", "--wait", "--mode=fast", "-D", self.data, "stop")

    def fill(self, scale):
        run("createdb", *self.socket, "bench")
        self.pgbench("--initialize", "--init-steps=dtGvp", f"--scale={scale}", "--quiet")

    def pgbench(self, *arguments, stdout=sys.stderr):
        run("pgbench", *self.socket, *arguments, "bench", stdout=stdout)

    def query(self, *statements):
        """The last statement's answer as text; each is a transaction of its own."""
        commands = [f"--command={statement}" for statement in statements]
        asked = run("psql", *self.socket, "--quiet", "--no-align", "--tuples-only", *commands, "bench", stdout=subprocess.PIPE)
        return asked.stdout.decode()

    def processes(self):
        """The server's process and its children, by number."""
        first = (self.data / "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [int(number) for number in [first, *children]]


def transactions(folder, since=0.0):
    """(latency with lag, lag), in milliseconds, of every transaction that pgbench has logged in that folder (--log) and
    that ended after `since` (seconds of time.time()). The lag is how late a transaction started against its schedule
    (--rate); without a schedule there is none."""
    found = []
    for log in folder.iterdir():
        with open(log) as lines:
            for line in lines:
                words = line.split()
                ended = int(words[4]) + int(words[5]) / 1e6
                if words[2].isdigit() and ended >= since:  # else skipped or failed
                    lag = int(words[6]) if len(words) > 6 else 0
                    found.append((int(words[2]) / 1000, lag / 1000))
    return found
