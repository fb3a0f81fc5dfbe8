"""A stranger that has a build's number for a parent, by the time that one looks, is spared: it is nobody's descendant.

In a pid namespace of its own, where a process gets the number that a test wants (ns_last_pid, proc(5)), a number is
given away again in the middle of a look: when /proc is about to be asked about it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import harness
from buildcore.system import linux, processes, proctable
from forked import exit_code, fork, in_child, wait_for_ever

NEXT = Path("/proc/sys/kernel/ns_last_pid")

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(not NEXT.exists(), reason="this kernel lets nobody choose a pid (CONFIG_CHECKPOINT_RESTORE)"),
]

BUILD, STRANGER, REUSED = 200, 300, 500
"""The stranger has a smaller number than its parent, so that it is seen first."""

CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
"""unshare(2)"""


def in_namespace(work: Callable[[], Any]) -> Any:
    """Does `work` as the first process of a pid namespace, with a /proc of its own, and returns what it returned."""
    libc = ctypes.CDLL(None, use_errno=True)

    def first() -> Any:
        assert libc.unshare(CLONE_NEWNS) == 0
        subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
        try:
            return work()
        finally:
            end_all_else()

    def outside() -> Any:
        assert libc.unshare(CLONE_NEWPID) == 0
        return in_child(first)

    return in_child(outside)


def end_all_else() -> None:
    """For the first process of a pid namespace, to which all comes in the end."""
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def fork_as(number: int, work: Callable[[], Any]) -> None:
    NEXT.write_text(str(number - 1))
    assert fork(work) == number


class Rendezvous:
    """One process asks another one to do its part, and waits until that is done."""

    def __init__(self) -> None:
        self._asked, self._ask = os.pipe()
        self._done, self._do = os.pipe()

    def ask(self) -> None:
        os.write(self._ask, b"\0")
        self.await_done()

    def await_done(self) -> None:
        os.read(self._done, 1)

    def await_request(self) -> None:
        os.read(self._asked, 1)

    def done(self) -> None:
        os.write(self._do, b"\0")


def when_first_asked_about(pid: int, act: Callable[[], None]) -> None:
    """Has this process `act` just before it opens /proc/PID/stat for the first time. For good: in a child."""
    pending = [act]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[0] == f"/proc/{pid}/stat" and pending:
            pending.pop()()

    sys.addaudithook(hook)


FAREWELL = 7


def say_farewell(number: int, frame: FrameType | None) -> None:
    """The handler of a process whose exit code is to tell that nothing else ended it."""
    os._exit(FAREWELL)


def farewell(pid: int) -> int:
    """The exit code of a child that is asked for it."""
    os.kill(pid, signal.SIGUSR1)
    return exit_code(pid)


def live_on(ready: Rendezvous) -> None:
    """What a process does that nobody is to end."""
    signal.signal(signal.SIGUSR1, say_farewell)
    ready.done()
    wait_for_ever()


def world(look: Callable[[int], Any]) -> tuple[int, int]:
    """Has a subreaper do `look`, with its pid, while a stranger's parent ends and a build takes over its number.

    Returns the exit codes of the subreaper and of the stranger.
    """
    build_grows, parent_ends = Rendezvous(), Rendezvous()

    def stranger() -> None:
        fork_as(STRANGER, lambda: live_on(parent_ends))
        wait_for_ever()

    def build() -> None:
        os.setsid()
        build_grows.done()
        build_grows.await_request()
        fork_as(REUSED, wait_for_ever)
        build_grows.done()
        wait_for_ever()

    def supervisor() -> None:
        linux.set_child_subreaper()
        fork_as(BUILD, build)
        build_grows.await_done()

        def take_over() -> None:
            parent_ends.ask()
            build_grows.ask()

        when_first_asked_about(REUSED, take_over)
        look(os.getpid())

    fork_as(REUSED, stranger)
    parent_ends.await_done()
    session = fork(supervisor)
    parent_ends.await_request()
    os.kill(REUSED, signal.SIGKILL)
    os.waitpid(REUSED, 0)
    parent_ends.done()
    return exit_code(session), farewell(STRANGER)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_stranger_whose_parent_s_number_a_build_takes_over_gets_no_signal(signum: int) -> None:
    def look(own: int) -> None:
        processes.signal_below(own, signum)
        for pid in (BUILD, REUSED):
            assert harness.await_exit(pid)
            os.waitpid(pid, 0)

    assert in_namespace(lambda: world(look)) == (0, FAREWELL)


def test_nor_is_it_named_as_one_of_the_build() -> None:
    def look(own: int) -> None:
        assert [process.pid for process in processes.descendants(own)] == [BUILD, REUSED]

    assert in_namespace(lambda: world(look))[0] == 0


def test_nor_is_it_ended_with_what_a_session_left() -> None:
    """By the look of a child of the subreaper, as the arbiter has one."""

    def look(own: int) -> None:
        seeker = fork(lambda: processes.kill_orphans(own, ()))
        assert exit_code(seeker) == 0
        for pid in (BUILD, REUSED):
            os.waitpid(pid, 0)

    assert in_namespace(lambda: world(look)) == (0, FAREWELL)


def test_a_number_that_is_another_s_between_the_look_and_the_signal_gets_none() -> None:
    """It has to be seen once more behind the handle that is signalled."""

    def work() -> int:
        ready = Rendezvous()
        fork_as(REUSED, wait_for_ever)
        seen = proctable.look_up(REUSED)
        assert seen is not None
        os.kill(REUSED, signal.SIGKILL)
        os.waitpid(REUSED, 0)
        ticks = float(Path("/proc/uptime").read_text().split()[0])
        while float(Path("/proc/uptime").read_text().split()[0]) == ticks:  # a number comes back after a tick, or more
            pass
        fork_as(REUSED, lambda: live_on(ready))
        ready.await_done()
        processes.signal_each([seen], signal.SIGKILL)
        return farewell(REUSED)

    assert in_namespace(work) == FAREWELL


def test_the_group_of_an_orphaned_zombie_is_not_signalled() -> None:
    """The one who looks does not reap it: when its subreaper does, the number may be the group of anybody."""

    def work() -> tuple[int, int]:
        os.setsid()
        ready = Rendezvous()
        stranger = fork(lambda: live_on(ready))  # in the group that the zombie will seem to hold
        ready.await_done()

        def arbiter() -> None:
            linux.set_child_subreaper()
            zombie = fork(lambda: None)
            os.setsid()  # as if that session had begun below this process
            os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
            own = os.getpid()
            assert exit_code(fork(lambda: processes.kill_orphans(own, ()))) == 0
            assert proctable.look(zombie) is not None
            os.waitpid(zombie, 0)

        return exit_code(fork(arbiter)), farewell(stranger)

    assert in_child(work) == (0, FAREWELL)
