# Purpose: two settings of the kernel for the time of a run: the I/O schedulers of block devices, and a bound on the
#   memory (page cache included) of somebody else's processes.
# Trade-off: sysfs and the cgroup file systems are written directly, version 1 or 2, without any daemon being asked.
# If the assumption fails: a run that is killed with -9 leaves the scheduler of the disk and an empty control group behind
#   (see /sys/block/*/queue/scheduler and /sys/fs/cgroup); every other end gives both back.

import contextlib
import os
import time
from pathlib import Path

from lib.measure import ProgramFailed

CGROUPS = Path("/sys/fs/cgroup")


def disks_below(path):
    """The disks that a folder's file system lies on: /sys/block entries, below partitions and device mapper."""
    number = os.stat(path).st_dev
    node = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not node.exists():
        raise ProgramFailed(f"{path} is not on a block device\nHINT: --dir on ext4 or xfs")
    return sorted(set(disks_of(node.resolve())))


def disks_of(node):
    if (node / "partition").exists():
        return disks_of(node.parent)
    slaves = node / "slaves"
    lower = [slave.resolve() for slave in slaves.iterdir()] if slaves.exists() else []
    return [disk for slave in lower for disk in disks_of(slave)] or [node]


@contextlib.contextmanager
def scheduler(block_device, name):
    """The I/O scheduler of one /sys/block entry, given back at the end."""
    file = block_device / "queue/scheduler"
    before = file.read_text()
    try:
        file.write_text(f"{name}\n")
    except OSError as refused:
        raise ProgramFailed(f"{file} has {before.strip()}, not {name}: {refused.strerror}\nHINT: modprobe {name}") from None
    try:
        yield
    finally:
        chosen = next((word.strip("[]") for word in before.split() if word.startswith("[")), before.strip())
        file.write_text(f"{chosen}\n")


@contextlib.contextmanager
def memory_limit(name, size):
    """A control group that bounds memory. Yields what takes processes in, by number; their children are in, too."""
    group = memory_groups() / f"{name}.{os.getpid()}"
    group.mkdir()
    try:
        limit = group / "memory.max"
        limit = limit if limit.exists() else group / "memory.limit_in_bytes"  # version 1
        limit.write_text(f"{size}\n")
        yield lambda processes: [(group / "cgroup.procs").write_text(f"{process}\n") for process in processes]
    finally:
        remove_group(group)


def memory_groups():
    """Where groups with a memory bound are made."""
    if (CGROUPS / "memory").is_dir():
        return CGROUPS / "memory"
    controllers = CGROUPS / "cgroup.controllers"
    if controllers.exists() and "memory" in controllers.read_text().split():
        (CGROUPS / "cgroup.subtree_control").write_text("+memory\n")
        return CGROUPS
    raise ProgramFailed(f"{CGROUPS} has no memory controller, so the database would be read from memory only")


def remove_group(group):
    """The last processes may take a moment to be gone."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            return group.rmdir()
        time.sleep(0.1)
    raise ProgramFailed(f"{group} still has processes")
