# Purpose: say the numbers: sizes, medians with their spread, tables, ratios with their goals.
# Trade-off: plain text for people; `--save FILE` keeps every single run as JSON for those who want to reckon again.
# If the assumption fails: a median of ratios taken pair by pair holds only when the runs of one pair stood side by side
#   in time; mixing runs of different hours or machines gives numbers that look exact and mean nothing.

import argparse
import json
import os
import platform
from statistics import median

MIB = 1 << 20
UNITS = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


def parse_size(text):
    """`8KiB`, `4 MiB`, `15TiB` or plain bytes."""
    number = text.strip().rstrip("KkMmGgTtIiBb ")
    unit = text.strip()[len(number):].strip().upper()
    if unit not in UNITS:
        raise argparse.ArgumentTypeError(f"{text}: a size is a number with KiB, MiB, GiB or TiB")
    try:
        return int(float(number) * UNITS[unit])
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: a size is a number with KiB, MiB, GiB or TiB") from None


def mib(size, digits=0):
    return f"{size / MIB:.{digits}f}"


def spread(values, digits=2):
    """Median (lowest-highest)."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratios(ours, theirs):
    """Pair by pair: the n-th run of ours with the n-th of theirs."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True) if other]


def table(head, rows):
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for number, row in enumerate([head, *rows]):
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))
        print("  ".join([first, *rest]).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def goal(what, values, limit, at_least=False):
    """One line: the ratio, its spread, its goal, and whether it is met."""
    value = median(values)
    met = value >= limit if at_least else value <= limit
    sign = ">=" if at_least else "<="
    print(f"{what}: {spread(values, 3)}   goal {sign} {limit}   {'met' if met else 'MISSED'}", flush=True)
    return met


def info(what, values, digits=3):
    print(f"{what}: {spread(values, digits)}   (no goal)", flush=True)


def machine_line():
    with open("/proc/meminfo") as meminfo:
        memory = int(meminfo.readline().split()[1]) // 1024
    return f"{os.cpu_count()} cores, {memory} MiB, Linux {platform.release()}, Python {platform.python_version()}"


def save(path, name, results):
    """Every single run, as JSON."""
    if path:
        with open(path, "w") as file:
            json.dump({"bench": name, "machine": machine_line(), "results": results}, file, indent=1)
            file.write("\n")
