"""The processes below one process: who they are, and signals to all of them.

A supervisor that is a subreaper (prctl(2)) is the ancestor of everything that its build ever started, however
often it forked, changed its group or its session. Nothing here signals a process that it has not just seen
below that ancestor: a pid alone may have been reused, so a process is its pid and its start time (proc(5)).
Where there is no descriptor or memory left to see or to signal one, that is an OSError, never a process less.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What the machine has no more of for the moment: then nothing is known of any process, and OSError says so."""

MAX_FREEZE_PASSES = 100
"""A tree that still grows after so many passes is killed as far as it is known; the caller comes again."""

ENDED_SEC = 2.0
"""How long what got a SIGKILL is waited for; what lives on after that is in uninterruptible sleep."""

_ENDED = (b"Z", b"X")


class Process(NamedTuple):
    """One process as proc(5) shows it; `start` is its start time in clock ticks since boot."""

    pid: int
    parent: int
    start: int
    name: str


class _Seen(NamedTuple):
    """A process with what only this module needs: its group, its session, and whether it is a mere zombie."""

    process: Process
    group: int
    session: int
    ended: bool


def look_up(pid: int) -> Process | None:
    """Return the process with this pid, None when there is none (or none left but its pid, a zombie's too)."""
    seen = _look(pid)
    return None if seen is None or seen.ended else seen.process


def descendants(ancestor: int) -> list[Process]:
    """Return the living processes below the process `ancestor`, parents before their children."""
    return [seen.process for seen in _below(ancestor) if not seen.ended]


def signal_each(processes: Iterable[Process], signum: int) -> None:
    """Send `signum` to each process that still is the one that was seen; the others are left alone."""
    for process in processes:
        _send(process, signum)


def kill_orphans(parent: int, known: Collection[int]) -> list[Process]:
    """SIGKILL the children of the process `parent` that are not `known` (pids), and all below them; return the former.

    What was killed has ENDED_SEC to end: `parent` finds its zombies when it finds this process's.
    For a child that `parent` forked for this, so that `parent` itself never looks through /proc: each pass looks once,
    however many there are. What `parent` forked since then is spared as well: it is younger than this process and in
    the session (setsid(2)) of both, which nobody joins who left it, as a build does before it is its caller's. When
    `parent` has ended there is nothing to do: its children are somebody else's.
    """
    own = _look(os.getpid())
    orphans: dict[int, Process] = {}
    everything: dict[int, Process] = {}

    def is_spared(child: _Seen) -> bool:
        process = child.process
        return own is not None and (
            process.pid in known
            or process.pid == own.process.pid
            or (child.session == own.session and process.start >= own.process.start)
        )

    def look() -> list[_Seen]:
        found = _below(parent, is_spared) if os.getppid() == parent else []
        for process in [each.process for each in found if not each.ended]:
            if process.parent == parent and process.pid not in everything:
                orphans[process.pid] = process
            everything.setdefault(process.pid, process)
        return found

    _kill_all(look, None)  # no groups: `parent` reaps meanwhile, and with a zombie goes its hold on a number
    _await_ended(everything.values(), ENDED_SEC)
    return list(orphans.values())


def signal_below(ancestor: int, signum: int) -> None:
    """Send `signum` to everything below `ancestor`, and let it be heard: a stopped process is continued.

    SIGKILL comes in two strokes: all is stopped first, pass by pass, so that little forks away meanwhile. What
    forks and ends faster than one can look (each process gone before its pid was read) is met by its process
    group, which its dead show; only if each of those also moves to a session of its own, a control group alone
    can end it.
    """
    if signum == signal.SIGKILL:
        _kill_below(ancestor)
        return
    everything = descendants(ancestor)
    # Parents first, not the whole group at once: a make that sees its child end before it hears of the signal itself
    # may lose track of it ("wait: No child processes").
    signal_each(everything, signum)
    signal_each(everything, signal.SIGCONT)


def _kill_below(ancestor: int) -> None:
    _kill_all(lambda: _below(ancestor), _look(ancestor))


def _kill_all(look: Callable[[], list[_Seen]], own: _Seen | None) -> None:
    """Stop what is found until nothing new is, kill it, and look again: what forks just then is still there.

    `own` is this process, where it is the one to reap what is found: then the groups of its zombies are met as well.
    """
    found: set[Process] = set()
    groups: set[int] = set()
    killed: tuple[int, int] | None = None
    for _ in range(MAX_FREEZE_PASSES):
        below = look()
        fresh = {each.process for each in below if not each.ended} - found
        fresh_groups = {each.group for each in below if own is not None and _holds_group(each, own)} - groups
        if fresh or fresh_groups:
            signal_each(fresh, signal.SIGSTOP)
            _signal_groups(fresh_groups, signal.SIGSTOP)
            found |= fresh
            groups |= fresh_groups
            continue
        if killed == (len(found), len(groups)):
            return
        killed = (len(found), len(groups))
        signal_each(found, signal.SIGKILL)
        _signal_groups(groups, signal.SIGKILL)
    signal_each(found, signal.SIGKILL)
    _signal_groups(groups, signal.SIGKILL)


def _await_ended(processes: Iterable[Process], seconds: float) -> None:
    """Wait until each has ended, a zombie or not; for so long at most, where there are pidfds."""
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            handle = _open_handle(process.pid)
        except OSError:
            continue  # it is gone, or this kernel has none
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if _is_same(process) and not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return
        finally:
            os.close(handle)


def _holds_group(each: _Seen, ancestor: _Seen) -> bool:
    """Tell whether the group of `each` is surely below `ancestor`: a zombie that only the ancestor can reap, so
    that the number is not given away meanwhile, in a session that began below the ancestor (credentials(7))."""
    return each.ended and each.process.parent == ancestor.process.pid and each.session != ancestor.session


def _signal_groups(groups: Iterable[int], signum: int) -> None:
    for group in groups:
        _kill(-group, signum)


def _look(pid: int) -> _Seen | None:
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
    return _Seen(Process(pid, int(parent), int(start), name), int(group), int(session), ended)


def _below(ancestor: int, is_spared: Callable[[_Seen], bool] = lambda child: False) -> list[_Seen]:
    """Return everything below the process `ancestor`, zombies too, parents before their children.

    A child of it that `is_spared` is left out, with everything below.
    """
    children: dict[int, list[_Seen]] = {}
    for entry in os.listdir("/proc"):
        seen = _look(int(entry)) if entry.isdigit() else None
        if seen is not None:
            children.setdefault(seen.process.parent, []).append(seen)
    found: list[_Seen] = []
    below = [seen for seen in children.get(ancestor, ()) if not is_spared(seen)]
    todo = [below]
    while todo:
        below = todo.pop()
        found += below
        todo += [children[seen.process.pid] for seen in below if seen.process.pid in children]
    return found


def _send(process: Process, signum: int) -> None:
    try:
        handle = _open_handle(process.pid)
    except OSError as exc:
        if exc.errno in SCARCE:
            raise
        if exc.errno == errno.ENOSYS and _is_same(process):
            _kill(process.pid, signum)
        return
    try:
        if _is_same(process):  # the handle holds the pid: what is checked now is what is signalled
            signal.pidfd_send_signal(handle, signum)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        os.close(handle)


def _open_handle(pid: int) -> int:
    """Return a pidfd; OSError with ENOSYS before Linux 5.3, or in a Python built for one (Rocky 8's 3.9)."""
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return os.pidfd_open(pid)


def _kill(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        pass


def _is_same(process: Process) -> bool:
    now = look_up(process.pid)
    return now is not None and now.start == process.start
