# Purpose: put the machine into a known state before a run and back afterwards: caches, huge pages, loop devices.
# Trade-off: what needs root is done when we are root; without root only the source's own pages are dropped, and said so.
# If the assumption fails: a run that is killed with -9 leaves reserved huge pages or a loop device behind
#   (see them with `grep Huge /proc/meminfo` and `losetup -l`); every other end gives them back.

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

from lib.measure import ProgramFailed

MIB = 1 << 20
HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")


def is_root():
    return os.geteuid() == 0


def need_root(what):
    if not is_root():
        sys.exit(f"{what} needs root")


def need_programs(*names):
    missing = [name for name in names if not shutil.which(name)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}\nHINT: apt-get install {' '.join(missing)}")


def run_script(main):
    """Run a script's main: SIGTERM ends it as Ctrl-C does, and a failed program is told in words."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    before = withheld_seconds()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{' '.join(map(str, failed.cmd))}\nended with {failed.returncode}")
    except ProgramFailed as failed:
        sys.exit(str(failed))
    finally:
        withheld = withheld_seconds() - before
        if withheld > 0:
            note(f"the hypervisor withheld {withheld:.1f} core seconds meanwhile")


def note(text):
    print(text, file=sys.stderr, flush=True)


def drop_caches(*paths):
    """The next read comes from the device. Without root only the pages of `paths` go, not the file system's own."""
    os.sync()
    if is_root():
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        return
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(*argv):
    """Load a program's own pages again after drop_caches: the volume is to be cold, not the program."""
    subprocess.run([str(word) for word in argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def size_of(path):
    """Bytes of a file or of a block device."""
    with open(path, "rb") as file:
        return file.seek(0, os.SEEK_END)


def is_device(path):
    return stat.S_ISBLK(os.stat(path).st_mode)


def allocated(path):
    """Bytes that a file really takes on disk, all files below a folder added up."""
    path = Path(path)
    files = [path] if not path.is_dir() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_blocks * 512 for file in files)


def apparent(path):
    """Bytes of the files below a folder by their lengths, as `du --apparent-size` counts them."""
    path = Path(path)
    files = [path] if not path.is_dir() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def refuse_holes(path):
    """A hole is read at the speed of memory, by some tools not at all: rates over it compare nothing."""
    if not is_device(path) and allocated(path) < size_of(path):
        sys.exit(f"{path} has holes, so its read rate is not the device's\nHINT: cp --sparse=never {path} COPY")


def need_space(folder, wanted):
    free = shutil.disk_usage(folder).free
    if free < wanted:
        sys.exit(f"{folder} has {free / MIB:.0f} MiB free, about {wanted / MIB:.0f} MiB are needed")


def copy_in_place(source, target):
    """Give an existing file another file's content without making a new file: same inode, same place on the disk."""
    command = ["dd", f"if={source}", f"of={target}", "bs=4M", "conv=notrunc,fsync", "status=none"]
    subprocess.run(command, check=True)


def same_content(first, second):
    """Compared by cmp, outside this process, so that its memory stays small."""
    return subprocess.run(["cmp", "-s", str(first), str(second)], check=False).returncode == 0


def busy_seconds():
    """CPU seconds that the whole machine has worked since its start, kernel threads (loop devices) included."""
    user, nice, system, _idle, _iowait, irq, softirq, _steal = processor_ticks()
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def withheld_seconds():
    """CPU seconds in which the machine had work and a hypervisor ran others; 0 where there is none."""
    return processor_ticks()[-1] / os.sysconf("SC_CLK_TCK")


def processor_ticks():
    """All processors together: user, nice, system, idle, iowait, irq, softirq, steal (`man 5 proc_stat`)."""
    return [int(figure) for figure in Path("/proc/stat").read_text().split()[1:9]]


@contextlib.contextmanager
def huge_pages(count):
    """Reserve `count` more huge pages and give them back. Yields whether they are there."""
    if not is_root():
        yield False
        return
    before = int(HUGE_PAGES.read_text())
    HUGE_PAGES.write_text(f"{before + count}\n")
    try:
        yield int(HUGE_PAGES.read_text()) >= before + count
    finally:
        HUGE_PAGES.write_text(f"{before}\n")


@contextlib.contextmanager
def loop_device(image):
    """A loop device over an image, with direct I/O so that its pages are not cached a second time."""
    need_root("a loop device")
    command = ["losetup", "--find", "--show", "--direct-io=on", str(image)]
    device = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextlib.contextmanager
def mounted(device, mount):
    """A device mounted at a new folder, which goes with the mount."""
    mount.mkdir(exist_ok=True)
    subprocess.run(["mount", str(device), str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)
        mount.rmdir()


@contextlib.contextmanager
def work_folder(parent, name):
    """A new empty folder of this run's own, removed at the end."""
    folder = Path(parent) / f"{name}.{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
