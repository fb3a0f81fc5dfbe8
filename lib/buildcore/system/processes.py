"""Signals to all the processes below one process.

A supervisor that is a subreaper (prctl(2)) is the ancestor of everything that its build ever started, however
often it forked, changed its group or its session. Nothing here signals a process that it has not just seen
below that ancestor, or in the build's control group (`proctable`): a handle of it is taken first, then it is looked at
once more, and the handle, which no other process ever gets, is what is signalled (pidfd_open(2)).
Where there is no descriptor or memory left to see or to signal one, that is an OSError, never a process less.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import NamedTuple

from ..core.descent import Process, Sighting
from . import proctable
from .proctable import PLAIN, SCARCE, Below, Sight

MAX_FREEZE_PASSES = 100
"""A tree that still grows after so many passes is killed as far as it is known; the caller comes again."""

LOOKS = 5
"""How often one looks again before a signal that comes once, where something came or went meanwhile."""

ENDED_SEC = 2.0
"""How long what got a SIGKILL is waited for; what lives on after that is in uninterruptible sleep."""

AT_ONCE = 32
"""So many handles are open at once, or fewer, should there be no more."""


class _Handle(NamedTuple):
    """A pid, and a pidfd of the process that has it; None where the kernel has none, or Python does not know of it."""

    pid: int
    fd: int | None


def descendants(ancestor: int, sight: Sight = PLAIN) -> list[Process]:
    """Return the living processes below the process `ancestor`, parents before their children.

    What cannot be looked at comes last, without a name and with -1 as its start time.
    """
    found, hidden = _look_until_sure(ancestor, sight)
    return [*_living(found), *(_unseen(pid, ancestor) for pid in sorted(hidden) if _lives(pid))]


def signal_each(processes: Iterable[Process], signum: int, sight: Sight = PLAIN) -> None:
    """Send `signum` to each process that still is the one that was seen; the others are left alone."""
    starts: dict[int, set[int]] = {}
    for process in processes:
        starts.setdefault(process.pid, set()).add(process.start)

    def the_same(pids: Collection[int]) -> set[int]:
        with sight.looking():
            found = [proctable.look_up(pid) for pid in pids]
        return {process.pid for process in found if process is not None and process.start in starts[process.pid]}

    _signal(starts, the_same, signum, sight)


def signal_below(ancestor: int, signum: int, sight: Sight = PLAIN) -> None:
    """Send `signum` to everything below `ancestor`. One that ends is heard: a stopped process is continued.

    SIGSTOP comes pass by pass, until nothing new is found.
    SIGKILL comes in two strokes: all is stopped first, pass by pass, so that little forks away meanwhile. What
    forks and ends faster than one can look (each process gone before its pid was read) is met by its process
    group, which its dead show; only if each of those also moves to a session of its own, a control group alone
    can end it. For the process `ancestor` itself, whose only thread this is.
    """
    if signum == signal.SIGKILL:
        _kill_all(lambda: proctable.below(ancestor, sight), ancestor, sight, proctable.look(ancestor))
        return
    if signum == signal.SIGSTOP:
        _stop_all(lambda: proctable.below(ancestor, sight), ancestor, sight)
        return
    found, hidden = _look_until_sure(ancestor, sight)
    # Parents first, not the whole group at once: a make that sees its child end before it hears of the signal itself
    # may lose track of it ("wait: No child processes").
    for each in (signum, *(() if signum in (signal.SIGCONT, signal.SIGWINCH) else (signal.SIGCONT,))):
        signal_each(_living(found), each, sight)
        _signal_hidden(hidden, each, ancestor, sight)


def kill_orphans(parent: int, known: Collection[int], sight: Sight = PLAIN) -> list[Process]:
    """SIGKILL the children of the process `parent` that are not `known` (pids), and all below them; return the former.

    What was killed has ENDED_SEC to end: `parent` finds its zombies when it finds this process's.
    For a child that `parent` forked for this, so that `parent` itself never looks through /proc: each pass looks once,
    however many there are. What `parent` forked since then is spared as well: it is younger than this process and in
    the session (setsid(2)) of both, which nobody joins who left it, as a build does before it is its caller's. When
    `parent` has ended there is nothing to do: its children are somebody else's.
    """
    own = proctable.look(os.getpid())
    orphans: dict[int, Process] = {}
    everything: dict[int, Process] = {}

    def is_spared(child: Sighting) -> bool:
        process = child.process
        return own is not None and (
            process.pid in known
            or process.pid == own.process.pid
            or (child.session == own.session and process.start >= own.process.start)
        )

    def is_spared_unseen(pid: int) -> bool:
        try:
            return pid in known or pid == os.getpid() or os.getsid(pid) == os.getsid(0)
        except OSError:  # it is gone
            return True

    def look() -> Below:
        seen = proctable.below(parent, sight, is_spared) if os.getppid() == parent else Below([], set(), True)
        if os.getppid() != parent:  # it has ended meanwhile: then its pid may be anybody's
            return Below([], set(), True)
        hidden = {pid for pid in seen.hidden if not is_spared_unseen(pid) and _lives(pid)}
        for process in _living(seen.found) + [_unseen(pid, parent) for pid in hidden]:
            if process.parent == parent and process.pid not in everything:
                orphans[process.pid] = process
            everything.setdefault(process.pid, process)
        return Below(seen.found, hidden, seen.sure)

    # No groups (None): `parent` reaps meanwhile, and with a zombie goes its hold on its group's number.
    _kill_all(look, parent, sight, None)
    _await_ended(everything, ENDED_SEC)
    return list(orphans.values())


def _look_until_sure(ancestor: int, sight: Sight) -> tuple[list[Sighting], set[int]]:
    """Return what was seen below `ancestor` and what was hidden, in the last look after what only former ones saw."""
    found: dict[tuple[int, int], Sighting] = {}
    hidden: set[int] = set()
    for _ in range(LOOKS):
        seen = proctable.below(ancestor, sight)
        latest = {(each.process.pid, each.process.start): each for each in seen.found}
        found = {**{key: each for key, each in found.items() if key not in latest}, **latest}
        hidden |= seen.hidden
        if seen.sure:
            break
    return [*found.values()], hidden


def _living(found: Iterable[Sighting]) -> list[Process]:
    return [seen.process for seen in found if not seen.ended]


def _unseen(pid: int, parent: int) -> Process:
    """Return what is known of a process that is there and cannot be looked at."""
    return Process(pid, parent, -1, "?")


def _stop_all(look: Callable[[], Below], ancestor: int, sight: Sight) -> None:
    found: set[Process] = set()
    hidden: set[int] = set()
    for _ in range(MAX_FREEZE_PASSES):
        seen = look()
        fresh, fresh_hidden = set(_living(seen.found)) - found, seen.hidden - hidden
        signal_each(fresh, signal.SIGSTOP, sight)
        _signal_hidden(fresh_hidden, signal.SIGSTOP, ancestor, sight)
        found |= fresh
        hidden |= fresh_hidden
        if seen.sure and not fresh and not fresh_hidden:
            return


def _kill_all(look: Callable[[], Below], ancestor: int, sight: Sight, own: Sighting | None) -> None:
    """Stop what is found until nothing new is, kill it, and look again: what forks just then is still there.

    `own` is this process, where it is the one to reap what is found: then the groups of its zombies are met as well.
    """
    found: set[Process] = set()
    hidden: set[int] = set()
    groups: set[int] = set()
    killed: tuple[int, int, int] | None = None

    def kill() -> None:
        signal_each(found, signal.SIGKILL, sight)
        _signal_hidden(hidden, signal.SIGKILL, ancestor, sight)
        _signal_groups(groups, signal.SIGKILL, sight)
        if hidden:  # what is below something hidden is found when it has come to `ancestor`
            _await_ended(hidden, ENDED_SEC)

    for _ in range(MAX_FREEZE_PASSES):
        seen = look()
        fresh = set(_living(seen.found)) - found
        fresh_hidden = seen.hidden - hidden
        fresh_groups = {each.group for each in seen.found if own is not None and _holds_group(each, own)} - groups
        if fresh or fresh_hidden or fresh_groups:
            signal_each(fresh, signal.SIGSTOP, sight)
            _signal_hidden(fresh_hidden, signal.SIGSTOP, ancestor, sight)
            _signal_groups(fresh_groups, signal.SIGSTOP, sight)
            found |= fresh
            hidden |= fresh_hidden
            groups |= fresh_groups
            continue
        if not seen.sure:
            continue
        if killed == (len(found), len(hidden), len(groups)):
            return
        killed = (len(found), len(hidden), len(groups))
        kill()
    kill()


def _holds_group(each: Sighting, ancestor: Sighting) -> bool:
    """Tell whether the group of `each` is surely below `ancestor`, which is this process.

    It is where `each` is a zombie that only this process can reap, in a session that began below it (credentials(7)):
    all that is in a session comes from the one that began it, and so stays below a subreaper that this one came from.
    The number is not given away as long as the zombie is there: that keeps its group, and this process reaps nothing
    before the group is signalled.
    """
    return (
        each.ended
        and each.process.parent == ancestor.process.pid
        and each.session != ancestor.session
        and each.group > 1  # kill(2) takes 0 and -1 for something else
    )


def _signal_groups(groups: Iterable[int], signum: int, sight: Sight) -> None:
    for group in groups:
        _kill(-group, signum, sight)


def _signal_hidden(pids: Collection[int], signum: int, ancestor: int, sight: Sight) -> None:
    """Send `signum` to those of `pids` that the kernel itself still names, as children or of the control group."""

    def still_named(some: Collection[int]) -> set[int]:
        with sight.looking():
            return proctable.named(ancestor, sight).intersection(some)

    _signal(pids, still_named, signum, sight)


def _signal(pids: Iterable[int], right: Callable[[Collection[int]], set[int]], signum: int, sight: Sight) -> None:
    """Send `signum` to those of `pids` that are `right`, asked while handles hold them, in this order."""
    todo = [*pids][::-1]
    while todo:
        handles = _open_some(todo)
        try:
            wanted = right([handle.pid for handle in handles])
            for handle in handles:
                if handle.pid in wanted:
                    _send(handle, signum, sight)
        finally:
            for handle in handles:
                if handle.fd is not None:
                    os.close(handle.fd)


def _open_some(todo: list[int]) -> list[_Handle]:
    """Take pids from the end of `todo` and return handles of them: AT_ONCE, or as many as there are descriptors for."""
    handles: list[_Handle] = []
    while todo and len(handles) < AT_ONCE:
        try:
            fd = _open_handle(todo[-1])
        except OSError as exc:
            if exc.errno in SCARCE and handles:
                break
            if exc.errno in SCARCE:
                raise
            pid = todo.pop()
            if exc.errno == errno.ENOSYS:
                return [*handles, _Handle(pid, None)]  # it alone, so that little time passes before the signal
            continue  # it is gone
        handles.append(_Handle(todo.pop(), fd))
    return handles


def _send(handle: _Handle, signum: int, sight: Sight) -> None:
    if handle.fd is None:
        _kill(handle.pid, signum, sight)
        return
    with sight.acting(), suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(handle.fd, signum)


def _lives(pid: int) -> bool:
    """Tell whether a process that is surely there is more than a zombie; True where this kernel has no handles."""
    try:
        handle = _open_handle(pid)
    except OSError as exc:
        return exc.errno == errno.ENOSYS
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return not poll.poll(0)
    finally:
        os.close(handle)


def _await_ended(pids: Iterable[int], seconds: float) -> None:
    """Wait until each of these, which were just killed, has ended, a zombie or not; for so long at most.

    A number that is another process's by now costs time at most.
    """
    deadline = time.monotonic() + seconds
    for pid in pids:
        try:
            handle = _open_handle(pid)
        except OSError:
            continue  # it is gone, or this kernel has none
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return
        finally:
            os.close(handle)


def _open_handle(pid: int) -> int:
    """Return a pidfd; OSError with ENOSYS before Linux 5.3, or in a Python built for one (Rocky 8's 3.9)."""
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return os.pidfd_open(pid)


def _kill(pid: int, signum: int, sight: Sight) -> None:
    with sight.acting(), suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)
