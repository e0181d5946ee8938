# Purpose: how each backup tool is told to do the same five things: make a repository, back up, and restore the newest.
# Trade-off: each tool as its manual shows it, with its own defaults (restic and rustic always encrypt; borg is told not
#   to), except that each must read its source again every time, as a volume must be read whose file times tell nothing.
# If the assumption fails: without --force (restic, rustic) or with borg's files cache, an unchanged step would read
#   nothing at all and look infinitely fast; and a tool that takes the old content for the new would fail the comparison.

import os
import shutil
import sys
from pathlib import Path

from lib import blkdelta

CHUNK = 4 << 20


class Tool:
    """One tool with a home of its own: repository, cache and state lie below it, and nothing anywhere else."""

    name = "?"
    executable = None

    def __init__(self, home):
        self.home = Path(home)
        self.repository = self.home / "repo"
        self.env = {"HOME": self.home, "XDG_CACHE_HOME": self.home / "cache", "XDG_CONFIG_HOME": self.home / "config"}

    def init_commands(self):
        return []

    def backup_command(self, source, step):
        raise NotImplementedError

    def restore_command(self, target):
        """Restores the newest backup to the file `target`, or to a file of the source's name below its folder."""
        raise NotImplementedError

    def restored_file(self, target, source):
        """Tools that keep paths put the file somewhere below the target's folder, under its old name."""
        if target.is_file():
            return target
        return next(path for path in target.parent.rglob(source.name) if path.is_file())

    def warm_command(self):
        return [self.executable, "--version"]


class Ours(Tool):
    name = "blkdelta"

    def __init__(self, home, binary, read_args):
        super().__init__(home)
        self.command = blkdelta.Blkdelta(binary, home, read_args)
        self.executable = binary
        self.env = self.command.env

    def init_commands(self):
        return [self.command.init_command()]

    def backup_command(self, source, step):
        return self.command.backup_command(source, "volume")

    def restore_command(self, target):
        return self.command.restore_command(target)


class Restic(Tool):
    name = "restic"
    executable = "restic"

    def __init__(self, home):
        super().__init__(home)
        self.env |= {"RESTIC_REPOSITORY": self.repository, "RESTIC_PASSWORD": "benchmark"}

    def init_commands(self):
        return [["restic", "init", "--quiet"]]

    def backup_command(self, source, step):
        return ["restic", "backup", "--quiet", "--force", source]

    def restore_command(self, target):
        return ["restic", "restore", "--quiet", "latest", "--target", target.parent]

    def warm_command(self):
        return ["restic", "version"]


class Rustic(Tool):
    name = "rustic"

    def __init__(self, home, executable, fixed=False):
        super().__init__(home)
        self.executable, self.fixed = executable, fixed
        self.name = "rustic fixed 4M" if fixed else "rustic"
        self.env |= {"RUSTIC_REPOSITORY": self.repository, "RUSTIC_PASSWORD": "benchmark", "RUSTIC_NO_PROGRESS": "true"}

    def init_commands(self):
        chunker = ["--set-chunker", "fixed_size", "--set-chunk-size", "4MiB"] if self.fixed else []
        return [[self.executable, "init", *chunker]]

    def backup_command(self, source, step):
        return [self.executable, "backup", "--force", source]

    def restore_command(self, target):
        return [self.executable, "restore", "latest", target.parent]


class Borg(Tool):
    executable = "borg"

    def __init__(self, home, fixed=False):
        super().__init__(home)
        self.fixed = fixed
        self.name = "borg fixed 4M" if fixed else "borg"
        self.newest = None
        self.env |= {
            "BORG_BASE_DIR": self.home,
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    def init_commands(self):
        return [["borg", "init", "--encryption", "none", self.repository]]

    def backup_command(self, source, step):
        self.newest = f"{self.repository}::{step}"
        chunker = ["--chunker-params", f"fixed,{CHUNK}"] if self.fixed else []
        return ["borg", "create", "--files-cache", "disabled", *chunker, self.newest, source]

    def restore_command(self, target):
        return ["sh", "-c", 'cd "$1" && exec borg extract "$2"', "sh", target.parent, self.newest]


class Naive(Tool):
    name = "python differ"
    executable = sys.executable

    def init_commands(self):
        return [["mkdir", self.repository]]

    def backup_command(self, source, step):
        verb = "incremental" if self.deltas() else "full"
        delta = self.repository / f"{len(self.deltas())}-{step}.delta"
        return [sys.executable, blkdelta.NAIVE_DIFFER, verb, source, self.repository / "manifest.json", delta]

    def restore_command(self, target):
        return [sys.executable, blkdelta.NAIVE_DIFFER, "restore", target, *self.deltas()]

    def deltas(self):
        return sorted(self.repository.glob("*.delta"))

    def warm_command(self):
        return [sys.executable, "-c", "import argparse, hashlib, json, struct"]


def all_tools(homes, binary, read_args, rustic=None, skip=()):
    """Every tool that is here; ours first."""
    tools = [
        Ours(homes / "blkdelta", binary, read_args),
        Restic(homes / "restic"),
        Borg(homes / "borg"),
        Borg(homes / "borg-fixed", fixed=True),
    ]
    rustic = rustic or shutil.which("rustic")
    if rustic:
        rustic = os.path.abspath(rustic)
        tools += [Rustic(homes / "rustic", rustic), Rustic(homes / "rustic-fixed", rustic, fixed=True)]
    tools.append(Naive(homes / "python"))
    return [tool for tool in tools if tool.name not in skip and shutil.which(tool.executable)]
