# Purpose: pulls all changes of a volume and looks at one byte of each page: what benches/bindings times for Python.
# Trade-off: the looking is a slice of a memoryview, the cheapest that Python has.
# If the assumption fails: a copy instead of a lent buffer would show as time and memory here, not as an error.

import sys
import time

import blkdelta

told = seen = 0
begun = time.perf_counter()
source, *manifest = sys.argv[1:]
for change in blkdelta.scan(source, manifest=manifest[0] if manifest else None, full_speed=True):
    told += change.length
    seen += sum(change.data[::4096])
print(told, time.perf_counter() - begun)
sys.exit(seen == 1)
