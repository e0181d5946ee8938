# Purpose: what really changed between two volumes, found by comparing them byte by byte, without our own code.
# Trade-off: plain Python reading both once; slow (some seconds per GiB) but nothing in it can share a mistake with us.
# If the assumption fails: both volumes must have one size and must not change meanwhile; a mounted one would.

from lib import machine, measure

PAGE = 4096
STRIDE = 4 << 20


def changed_units(first, second, unit):
    """Indices of the units of that size in which the two differ, rising."""
    if machine.size_of(first) != machine.size_of(second):
        raise measure.ProgramFailed(f"{first} and {second} have different sizes")
    changed = []
    with open(first, "rb", buffering=0) as one, open(second, "rb", buffering=0) as other:
        offset = 0
        while old := read_fully(one, STRIDE):
            new = read_fully(other, STRIDE)
            if old != new:
                inside = range(0, len(old), unit)
                changed += [(offset + at) // unit for at in inside if old[at : at + unit] != new[at : at + unit]]
            offset += len(old)
    return changed


def read_fully(file, length):
    """An unbuffered read may return less than asked for."""
    pieces = []
    while length and (piece := file.read(length)):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def widen(pages, unit):
    """How many bigger units hold at least one of the changed pages."""
    return len({page * PAGE // unit for page in pages})
