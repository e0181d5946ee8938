# Purpose: call our own command as docs and contract say it, and the options that all benchmarks share.
# Trade-off: only flags of the contract are used here, so that a benchmark breaks where the contract breaks.
# If the assumption fails: the state folder must be this run's own (BLKDELTA_STATE); with a shared one a run would find
#   another run's baseline and look faster than it is.

import json
import shlex
import sys
from pathlib import Path

from lib import measure

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
DEFAULT_BINARY = REPOSITORY_ROOT / "target/release/blkdelta"
DEFAULT_FOLDER = Path("/var/tmp/blkdelta-bench")
NAIVE_DIFFER = REPOSITORY_ROOT / "benches/naive_differ.py"


def add_options(parser):
    """Options that every benchmark of our command has."""
    parser.add_argument("--binary", type=Path, default=DEFAULT_BINARY, help="our command (default: target/release)")
    parser.add_argument("--read-args", default="", help="more arguments for its scan and backup, e.g. '--full-speed'")
    parser.add_argument("--dir", type=Path, default=DEFAULT_FOLDER, help="work folder, on the disk (default %(default)s)")
    parser.add_argument("--save", type=Path, help="write every single run into this JSON file")


def add_volumes_option(parser):
    parser.add_argument(
        "--volumes",
        type=Path,
        default=DEFAULT_FOLDER / "pg",
        help="folder with v0.img and the others, made by pg_volumes (default %(default)s)",
    )


def need_binary(path):
    if not path.is_file():
        sys.exit(f"{path} is not there\nHINT: cargo build --release")
    return path.resolve()


class Blkdelta:
    """Our command, with a state folder and a repository of this benchmark's own."""

    def __init__(self, binary, home, read_args=""):
        self.binary, self.home = binary, Path(home)
        self.state, self.repository = self.home / "state", self.home / "repo"
        self.env = {"BLKDELTA_STATE": self.state}
        self.read_args = shlex.split(read_args)

    def scan_command(self, source, *options):
        return [self.binary, "scan", source, "--json", *options, *self.read_args]

    def init_command(self, *options):
        return [self.binary, "init", "-r", self.repository, "--json", *options]

    def backup_command(self, source, volume, *options):
        common = ["backup", source, "--volume", volume, "--json"]
        return [self.binary, "-r", self.repository, *common, *options, *self.read_args]

    def merge_command(self, run):
        return [self.binary, "-r", self.repository, "merge", run, "--json", "--full-speed"]

    def restore_command(self, target, *options):
        return [self.binary, "-r", self.repository, "restore", "latest", target, "--json", *options]

    def run(self, command, **how):
        """(what it cost, what it said)."""
        cost = measure.run(command, env=self.env, **how)
        return cost, json.loads(cost.stdout or "{}")
