"""What /proc shows of processes, and what is below one of them; `processes` sends the signals.

A process is its pid and its start time (proc(5)), as a pid alone may have been given away again. Who is below whom is
`core.descent`'s to tell: `below` reads what that takes, all of /proc once and what looks below a second time. What
/proc does not show to this process is found as far as something else tells of it: the kernel's list of a process's own
children, and the control group of a build (`Sight`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from ..core import descent
from ..core.descent import Process, Sighting

SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What the machine has no more of for the moment: then nothing is known of any process, and OSError says so."""

_ENDED = (b"Z", b"X")


@dataclass(frozen=True)
class Sight:
    """How to look: `looking` and `acting` give this process, for a block, the ids to see others with, and to signal.

    `members` returns the pids in the control group of what is looked for, none where it has no group.
    """

    looking: Callable[[], AbstractContextManager[None]] = nullcontext
    acting: Callable[[], AbstractContextManager[None]] = nullcontext
    members: Callable[[], Collection[int]] = frozenset


PLAIN = Sight()
"""With the ids that this process has, and no control group."""


class Below(NamedTuple):
    """What is below a process: zombies too, parents before their children.

    `hidden` are the pids of what is surely there and cannot be looked at. `sure` is False where something came or went
    meanwhile so that another look may find more.
    """

    found: list[Sighting]
    hidden: set[int]
    sure: bool


def look(pid: int) -> Sighting | None:
    """Return what is seen of the process with this pid, None when there is none, or none to be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError as exc:
        if exc.errno in SCARCE:
            raise
        return None
    name_end = stat.rindex(b")")  # the name may itself hold parentheses and spaces
    name = stat[stat.index(b"(") + 1 : name_end].decode("utf-8", "replace")
    fields = stat[name_end + 2 :].split()
    state, parent, group, session, threads, start = (fields[at] for at in (0, 1, 2, 3, 17, 19))
    # A process whose first thread ended looks like a zombie, and runs on with the others (proc(5), num_threads).
    ended = state in _ENDED and int(threads) <= 1
    return Sighting(Process(pid, int(parent), int(start), name), int(group), int(session), ended)


def look_up(pid: int) -> Process | None:
    """Return the process with this pid, None when there is none (or none left but its pid, a zombie's too)."""
    seen = look(pid)
    return None if seen is None or seen.ended else seen.process


def below(ancestor: int, sight: Sight = PLAIN, is_spared: Callable[[Sighting], bool] = lambda child: False) -> Below:
    """Return what is below the process `ancestor`, which lives, or in the control group of `sight`.

    A child of `ancestor` that `is_spared` is left out, with everything below.
    """
    with sight.looking():
        table = [seen for entry in os.listdir("/proc") if entry.isdigit() and (seen := look(int(entry))) is not None]
        members = sight.members()
        maybe = descent.candidates(table, ancestor, members, is_spared)
        looks = [look(seen.process.pid) for seen in reversed(maybe)]
        again = [seen for seen in looks if seen is not None]
        found = descent.believed(table, again, ancestor, members)
        unseen = named(ancestor, sight) - {seen.process.pid for seen in table}
        hidden = {pid for pid in unseen if look(pid) is None}
        if hidden:
            hidden &= named(ancestor, sight)  # the others had just come, and have gone
        doubted = sum(not seen.ended for seen in again) - sum(not seen.ended for seen in found)
        return Below(found, hidden, doubted == 0 and unseen == hidden)


def named(ancestor: int, sight: Sight) -> set[int]:
    """Return the pids that the kernel itself names: of the children of `ancestor`, and in the control group."""
    return {*_children(ancestor), *sight.members()} - {ancestor, 0}  # 0 stands for what has no number here


def _children(pid: int) -> set[int]:
    """Return the pids of the children of a process with one thread; of none where this kernel does not tell."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return {int(child) for child in file.read().split()}
    except OSError as exc:
        if exc.errno in SCARCE:
            raise
        return set()
