"""Which processes are below another one, from what was seen of them one by one while they went on forking and ending.

A table of processes that is read one process at a time holds no moment: a parent may have ended since its child was
read, and its number be another process's by now. So whatever looks below a process is read a second time, children
before their parents, and `believed` takes a parent for one only where it was seen before the child told of it and,
unchanged, after that: then it was there in between. Used by `system.proctable`; reads nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple


class Process(NamedTuple):
    """One process as proc(5) shows it; `start` is its start time in clock ticks since boot."""

    pid: int
    parent: int
    start: int
    name: str


class Sighting(NamedTuple):
    """A process as it was seen once, with its group, its session, and whether it was a mere zombie."""

    process: Process
    group: int
    session: int
    ended: bool


def candidates(
    table: Iterable[Sighting],
    ancestor: int,
    members: Collection[int] = (),
    is_spared: Callable[[Sighting], bool] = lambda child: False,
) -> list[Sighting]:
    """Return what of `table` may be below the process `ancestor` or is of `members` (pids), parents before children.

    A child of `ancestor` that `is_spared` is left out, with everything below. `ancestor` itself is left out.
    """
    others = [seen for seen in table if seen.process.pid != ancestor]
    children: dict[int, list[Sighting]] = {}
    for seen in others:
        children.setdefault(seen.process.parent, []).append(seen)
    first = [each for each in children.get(ancestor, ()) if not is_spared(each)]
    return _all_below(first, [seen for seen in others if seen.process.pid in members], children)


def believed(
    table: Iterable[Sighting], again: Sequence[Sighting], ancestor: int, members: Collection[int] = ()
) -> list[Sighting]:
    """Return those of `again` that are below the process `ancestor`, or are `members`, parents before their children.

    `table` was read first, then `members`, the pids in a control group that is only for what is looked for, then
    `again`, in this order. `ancestor` was there all the time. A start time is of a process for good, and a number
    is not given away twice within one of its ticks, so what has both as before is the same process.
    """
    before = {seen.process.pid: seen.process.start for seen in table}
    before.pop(ancestor, None)
    same = [seen for seen in again if before.get(seen.process.pid) == seen.process.start]
    read = {seen.process.pid: at for at, seen in enumerate(same)}
    children: dict[int, list[Sighting]] = {}
    for at, seen in enumerate(same):
        parent = seen.process.parent
        if parent == ancestor or read.get(parent, -1) > at and same[read[parent]].process.start <= seen.process.start:
            children.setdefault(parent, []).append(seen)
    return _all_below(children.get(ancestor, ()), [seen for seen in same if seen.process.pid in members], children)


def _all_below(
    first: Iterable[Sighting], members: Iterable[Sighting], children: dict[int, list[Sighting]]
) -> list[Sighting]:
    """Return `first`, `members` and all below them, each once, whatever circles a table that holds no moment shows."""
    found: dict[int, Sighting] = {}

    def add(todo: Iterable[Sighting]) -> None:
        while todo:
            later: list[Sighting] = []
            for seen in todo:
                if seen.process.pid not in found:
                    found[seen.process.pid] = seen
                    later += children.get(seen.process.pid, ())
            todo = later

    add(first)
    apart = {seen.process.pid: seen for seen in members if seen.process.pid not in found}
    add([seen for seen in apart.values() if seen.process.parent not in apart])
    add([*apart.values()])
    return [*found.values()]
