"""Work in processes of its own: what changes ids, signal handlers or children must not touch the process of the tests.

The tests of the system modules use it. A child never returns into pytest: it reports through a pipe and ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import harness
from buildcore.system import identity
from harness_world import User


def fork(work: Callable[[], Any]) -> int:
    """Forks a child that does `work` and ends: with 0, or with 1 and the traceback on stderr."""
    pid = os.fork()
    if pid == 0:
        _work_and_end(work)
    return pid


def in_child(work: Callable[[], Any]) -> Any:
    """Does `work` in a forked child and returns what it returned (anything that can be pickled).

    What it raised is an AssertionError here that holds the traceback.
    """
    reader, writer = os.pipe()

    def report() -> None:
        os.close(reader)
        try:
            answer = (True, work())
        except BaseException:
            answer = (False, traceback.format_exc())
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(answer, pipe)

    pid = fork(report)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            data = pipe.read()
    finally:
        end(pid)
    assert data, "the child ended without an answer"
    done, answer = pickle.loads(data)
    assert done, answer
    return answer


def in_child_as(user: User, work: Callable[[], Any]) -> Any:
    """The same, with the effective ids and the groups of `user`, as a session has them."""

    def become_and_work() -> Any:
        identity.temporarily_become(identity_of(user))
        return work()

    return in_child(become_and_work)


def identity_of(user: User) -> identity.Identity:
    """What a build of this user runs as."""
    return identity.Identity(user.uid, user.gid, tuple(sorted(user.groups)))


def end(pid: int) -> int:
    """Ends a child of this process and what is below it, if it still runs; reaps it, and returns its exit code.

    That is minus the signal where one ended it.
    """
    below: set[harness.Process] = set()
    with suppress(ProcessLookupError):
        if not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            below = harness.end_all(lambda: harness.descendants(pid))
            os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for process in below:
        with suppress(ChildProcessError):  # it came to somebody else
            os.waitpid(process.pid, os.WNOHANG)
    return code


def exit_code(pid: int) -> int:
    """Waits for a child of this process and returns its exit code (minus the signal)."""
    assert harness.await_exit(pid), f"{pid} does not end"
    return end(pid)


@contextmanager
def running(work: Callable[[], Any]) -> Iterator[int]:
    """A child that does `work` while the block runs, and is killed at its end."""
    pid = fork(work)
    try:
        yield pid
    finally:
        end(pid)


def wait_for_ever() -> NoReturn:
    """What a child does that is there to be looked at."""
    while True:
        signal.pause()


def _work_and_end(work: Callable[[], Any]) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
