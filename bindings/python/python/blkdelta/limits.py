"""Limits of work that is running, of this process or another one: `show` and `set`.

Work is found through the folder of local state: use the same user and BLKDELTA_STATE (or `state`) as it does.
"""

import os
from collections.abc import Sequence

from ._blkdelta import limits_set, limits_show
from ._records import RunningWork

__all__ = ["set", "show"]


def show(*, state: str | os.PathLike[str] | None = None) -> list[RunningWork]:
    """What runs, and under which limits.

    >>> blkdelta.limits.show()
    []
    """
    return limits_show(state=state)


def set(
    *,
    pid: int | None = None,
    latency_target: str | None = None,
    bwlimit: int | str | None = None,
    iops_limit: int | None = None,
    write_limit: int | str | None = None,
    limit_at: Sequence[str] | str = (),
    min_rate: int | str | None = None,
    full_speed: bool = False,
    state: str | os.PathLike[str] | None = None,
) -> list[RunningWork]:
    """Changes the limits that are named, of all running work or of that of one process; the others stay.

    Rates are bytes a second, or texts such as "50MiB/s"; `full_speed` takes all limits away first. Work looks at its
    limits four times a second.

    Raises `NotFoundError` when nothing runs that is meant.

    >>> try:
    ...     blkdelta.limits.set(bwlimit="50MiB/s")
    ... except blkdelta.NotFoundError as error:
    ...     print(error.message.split(":")[0])
    nothing runs whose limits could be set
    """
    return limits_set(
        pid=pid,
        latency_target=latency_target,
        bwlimit=bwlimit,
        iops_limit=iops_limit,
        write_limit=write_limit,
        limit_at=limit_at,
        min_rate=min_rate,
        full_speed=full_speed,
        state=state,
    )
