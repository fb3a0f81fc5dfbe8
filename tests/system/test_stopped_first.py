"""What is killed as a whole is stopped as a whole first: nobody in it lives to see another end, and to act on it.

Many processes watch one, and tell here when it is gone: if any of them ran on while others were killed already, it
could as well have forked one more that nobody has seen.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from buildcore.system import linux, processes
from forked import exit_code, fork, in_child, wait_for_ever

WATCHERS = 60


def grow(told: int, ready: int) -> None:
    """Become a process that WATCHERS children and as many grandchildren watch; never returns."""
    gone, alive = os.pipe()

    def watch() -> None:
        os.close(alive)
        os.write(ready, b".")
        os.read(gone, 1)  # until nobody has the other end open
        os.write(told, b"saw it end\n")
        wait_for_ever()

    def watch_with_a_child() -> None:
        fork(watch)
        watch()

    for _ in range(WATCHERS):
        fork(watch_with_a_child)
    os.close(gone)
    wait_for_ever()


def said(end: Callable[[int], Any]) -> bytes:
    """What the watchers say while `end` ends everything below the process that it is called in.

    It is called with the descriptor where that can be read.
    """

    def work() -> bytes:
        linux.set_child_subreaper()
        heard, told = os.pipe()
        readiness, ready = os.pipe()
        fork(lambda: grow(told, ready))
        for _ in range(2 * WATCHERS):
            os.read(readiness, 1)
        os.close(told)
        end(heard)
        with suppress(ChildProcessError):
            while True:
                os.wait()
        return os.read(heard, 1 << 16)

    return bytes(in_child(work))


def kill_below(heard: int) -> None:
    processes.signal_below(os.getpid(), signal.SIGKILL)


def kill_orphans(heard: int) -> None:
    """As the arbiter has it done: by a child, for what is its parent's."""
    parent = os.getpid()
    assert exit_code(fork(lambda: processes.kill_orphans(parent, ()))) == 0


@pytest.mark.parametrize("end", [kill_below, kill_orphans])
def test_nobody_of_a_tree_sees_another_end(end: Callable[[int], None]) -> None:
    assert said(end) == b""


def test_who_is_told_to_end_may_see_it() -> None:
    """The control: these watchers do tell, where nobody stops them first."""

    def end_the_watched(heard: int) -> None:
        (first,) = [each for each in processes.descendants(os.getpid()) if each.parent == os.getpid()]
        os.kill(first.pid, signal.SIGKILL)
        assert os.read(heard, 1) == b"s"
        processes.signal_below(os.getpid(), signal.SIGTERM)

    assert said(end_the_watched).startswith(b"aw it end\n")
