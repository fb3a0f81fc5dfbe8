"""A stranger lives whoever's number it, its parent or its group has had: with numbers given away again while one looks.

Each test has a pid namespace of its own, in which it says which number comes next (ns_last_pid, proc(5)). What happens
in the middle of a look is done by an audit hook of the process that looks, at the very read it is to come before.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from buildcore.system import linux, processes
from forked import exit_code, fork, in_child, wait_for_ever
from harness import PATIENCE_SEC
from harness_world import CLONE_NEWNS

CLONE_NEWPID, MS_REC, MS_PRIVATE = 0x20000000, 0x4000, 0x40000
"""unshare(2), mount(2)"""

STRANGER, NUMBER, OTHER = 50, 60, 70
"""Numbers in the order in which /proc is read: a stranger's, the one that is given away again, and a later one."""

libc = ctypes.CDLL(None, use_errno=True)

pytestmark = pytest.mark.needs_root


def call(name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def answer_of(work: Callable[[], Any]) -> Any:
    """Does `work` in a forked child that has ended when this returns what it returned; looks for nothing below."""
    reader, writer = os.pipe()
    pid = fork(lambda: os.write(writer, pickle.dumps(work())))
    os.close(writer)
    assert exit_code(pid) == 0
    with os.fdopen(reader, "rb") as pipe:
        return pickle.loads(pipe.read(4096))


def in_pid_namespace(work: Callable[[], Any]) -> Any:
    """Does `work` as the first process of a pid namespace with its own /proc, and returns what it returned."""

    def first() -> Any:
        call("unshare", CLONE_NEWNS)
        call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
        call("mount", b"proc", b"/proc", b"proc", 0, None)
        return work()

    def outside() -> Any:
        call("unshare", CLONE_NEWPID)
        return answer_of(first)

    return in_child(outside)


def next_is(pid: int) -> None:
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))


def fork_as(pid: int, work: Callable[[], Any]) -> int:
    """Forks a child with this number."""
    next_is(pid)
    made = fork(work)
    assert made == pid, f"{made} where {pid} was to come"
    return made


def orphan_as(pid: int) -> int:
    """Forks a child with this number that has a login session of its own when this returns, as builds have."""
    reader, writer = os.pipe()

    def work() -> None:
        os.setsid()
        os.write(writer, b"x")
        wait_for_ever()

    fork_as(pid, work)
    os.read(reader, 1)
    return pid


class Remote:
    """A process that does things by name when it is asked to, and says what came of them."""

    def __init__(self, **works: Callable[[], int]) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def serve() -> None:
            self._ours.close()
            for name in iter(lambda: theirs.recv(64).decode(), ""):
                theirs.send(str(works[name]()).encode())

        self.pid = fork(serve)
        theirs.close()

    def __call__(self, name: str) -> int:
        self._ours.send(name.encode())
        return int(self._ours.recv(64))


class Stranger:
    """A process that answers as long as nothing has ended it."""

    def __init__(self, start: Callable[[Callable[[], None]], int]) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def answer() -> None:
            while True:
                theirs.send(theirs.recv(1))

        self._handle = os.pidfd_open(start(answer))

    def lives(self) -> bool:
        """Whether it answers: with a signal under way that ends it, it never would."""
        self._ours.send(b"?")
        ready, _, _ = select.select([self._ours, self._handle], [], [], PATIENCE_SEC)
        return self._ours in ready


def before(event: str, is_it: Callable[..., bool], act: Callable[[], Any]) -> None:
    """Has this process do `act` once, right before the first such event of `sys.audit` that `is_it`."""
    todo = [act]

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name == event and is_it(*arguments) and todo:
            todo.pop()()

    sys.addaudithook(hook)


def reads(pid: int) -> Callable[..., bool]:
    return lambda path, *rest: path == f"/proc/{pid}/stat"


def stranger_of_a_parent_that_goes() -> tuple[Stranger, Remote]:
    """A stranger with a parent with NUMBER, and who ends the parent when asked to ("end"): then NUMBER is free."""

    def start(answer: Callable[[], None]) -> int:
        reader, writer = os.pipe()

        def parent() -> None:
            fork_as(STRANGER, answer)
            os.write(writer, b"x")
            wait_for_ever()

        works["parent"] = lambda: fork_as(NUMBER, parent)
        works["end"] = end_parent
        remote.append(Remote(**works))
        remote[0]("parent")
        os.read(reader, 1)
        return STRANGER

    def end_parent() -> int:
        os.kill(NUMBER, signal.SIGKILL)
        return os.waitpid(NUMBER, 0)[0]

    works: dict[str, Callable[[], int]] = {}
    remote: list[Remote] = []
    return Stranger(start), remote[0]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_whose_parents_number_a_process_of_the_build_gets_while_one_looks(signum: int) -> None:
    def work() -> tuple[bool, int]:
        stranger, remote = stranger_of_a_parent_that_goes()

        def session() -> int:
            linux.set_child_subreaper()
            made: list[int] = []

            def take_the_number() -> None:
                remote("end")
                made.append(fork_as(NUMBER, wait_for_ever))

            before("open", reads(NUMBER), take_the_number)
            processes.signal_below(os.getpid(), signum)
            return exit_code(made[0])

        ended = answer_of(session)
        return stranger.lives(), ended

    assert in_pid_namespace(work) == (True, -signum)


def seek(arbiter: int, prepare: Callable[[], None]) -> int:
    """A child of the arbiter looks for orphans, prepared in that child, as long as the arbiter does not reap it."""

    def look() -> None:
        prepare()
        processes.kill_orphans(arbiter, {arbiter})

    return fork(look)


def test_whose_parents_number_an_orphan_gets_while_the_arbiter_has_one_look() -> None:
    def work() -> tuple[bool, int]:
        stranger, remote = stranger_of_a_parent_that_goes()

        def arbiter() -> int:
            linux.set_child_subreaper()
            asked, ask = os.pipe()
            told, tell = os.pipe()

            def take_the_number() -> None:
                remote("end")
                os.write(ask, b"x")
                os.read(told, 1)

            looks = seek(os.getpid(), lambda: before("open", reads(NUMBER), take_the_number))
            os.read(asked, 1)
            orphan = orphan_as(NUMBER)
            os.write(tell, b"x")
            assert exit_code(looks) == 0
            return exit_code(orphan)

        ended = answer_of(arbiter)
        return stranger.lives(), ended

    assert in_pid_namespace(work) == (True, -signal.SIGKILL)


# --- process groups -----------------------------------------------------------------------------------------------


def test_the_number_of_a_group_is_given_to_nobody_while_its_zombie_is_there() -> None:
    """Why the session may signal the group that a zombie of its own shows: who asks for that number gets another."""

    def work() -> bool:
        said, say = os.pipe()

        def take_the_number() -> int:
            next_is(NUMBER)
            return fork(lambda: (os.setsid(), answers[0]()))

        answers: list[Callable[[], None]] = []
        outside: list[Remote] = []

        def start(answer: Callable[[], None]) -> int:
            answers.append(answer)
            outside.append(Remote(take=take_the_number))
            return answer_of(session)

        def session() -> int:
            linux.set_child_subreaper()

            def leader() -> None:
                os.setsid()
                os.write(say, str(fork_as(OTHER, wait_for_ever)).encode())

            zombie = fork_as(NUMBER, leader)
            os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
            taken: list[int] = []
            before("os.kill", lambda pid, signum: pid == -NUMBER, lambda: taken.append(outside[0]("take")))
            processes.signal_below(os.getpid(), signal.SIGKILL)
            assert exit_code(int(os.read(said, 16))) == -signal.SIGKILL
            os.waitpid(zombie, 0)
            return taken[0]

        return Stranger(start).lives()

    assert in_pid_namespace(work) is True


def test_the_arbiter_has_no_group_signalled_as_it_may_reap_the_zombie_meanwhile() -> None:
    def work() -> bool:
        answers: list[Callable[[], None]] = []
        outside: list[Remote] = []

        def take_the_number() -> int:
            return fork_as(NUMBER, lambda: (os.setsid(), answers[0]()))

        def start(answer: Callable[[], None]) -> int:
            answers.append(answer)
            outside.append(Remote(take=take_the_number))
            return answer_of(arbiter)

        def arbiter() -> int:
            linux.set_child_subreaper()
            asked, ask = os.pipe()
            told, tell = os.pipe()
            zombie = fork_as(NUMBER, os.setsid)
            os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
            orphan = orphan_as(OTHER)

            def have_it_reaped() -> None:
                os.write(ask, b"x")
                os.read(told, 1)

            looks = seek(os.getpid(), lambda: before("open", reads(OTHER), have_it_reaped))
            os.read(asked, 1)
            os.waitpid(zombie, 0)
            taken = outside[0]("take")
            os.write(tell, b"x")
            assert exit_code(looks) == 0
            assert exit_code(orphan) == -signal.SIGKILL
            return taken

        return Stranger(start).lives()

    assert in_pid_namespace(work) is True
