# Purpose: what the device itself gives: fio reading a volume in 4 MiB pieces with O_DIRECT, in its two best settings.
# Trade-off: fio's own clock is used for its rate (start-up and making its buffers not counted), which is hard on us.
# If the assumption fails: without huge pages (no root, or memory too fragmented) fio takes ordinary pages, splits every
#   4 MiB read into several requests and reaches less than half; `contiguous` then says False and no goal may be judged.

import json
from dataclasses import dataclass

from lib import machine, measure

SETTINGS = {
    "fio io_uring": ["--ioengine=io_uring", "--registerfiles"],  # and --iodepth, and registered buffers
    "fio psync": ["--ioengine=psync"],
}
BLOCK_MIB, HUGE_PAGE_MIB = 4, 2


@dataclass
class FioRun:
    rate: float  # bytes per second
    wall: float  # of the whole program
    cpu: float
    machine_cpu: float  # CPU seconds of the whole machine while it read, the device's kernel threads included
    contiguous: bool  # huge pages were there


def read(setting, volume, depth):
    """Read the whole volume once. Huge pages are reserved for this run only."""
    depth = depth if setting == "fio io_uring" else 1
    registered = ["--fixedbufs"] if setting == "fio io_uring" and machine.is_root() else []  # RLIMIT_MEMLOCK
    with machine.huge_pages(depth * BLOCK_MIB // HUGE_PAGE_MIB + 8) as contiguous:
        command = [
            "fio",
            "--name=scan",
            "--readonly",
            "--rw=read",
            "--direct=1",
            f"--bs={BLOCK_MIB}M",
            f"--filename={volume}",
            f"--size={machine.size_of(volume)}",
            *SETTINGS[setting],
            *registered,
            f"--iodepth={depth}",
            f"--iomem={'mmaphuge' if contiguous else 'malloc'}",
            "--output-format=json",
        ]
        machine.drop_caches(volume)
        machine.warm("fio", "--version")
        busy_before = machine.busy_seconds()
        cost = measure.run(command)
        busy = machine.busy_seconds() - busy_before
    job = json.loads(cost.stdout[cost.stdout.index("{"):])["jobs"][0]
    said = job["read"]
    if said["io_bytes"] < machine.size_of(volume) - BLOCK_MIB * measure.MIB:
        raise measure.ProgramFailed(f"fio read only {said['io_bytes']} bytes of {volume}")
    reading_cpu = (job["usr_cpu"] + job["sys_cpu"]) / 100 * said["runtime"] / 1000
    around_it = cost.cpu - reading_cpu  # fio's own start and end
    return FioRun(said["bw_bytes"], cost.wall, cost.cpu, max(busy - around_it, reading_cpu), contiguous)
