"""Everything below a process is found and signalled, however it hides, and nothing else is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import harness
from buildcore.system import identity, linux, processes, proctable
from forked import end, exit_code, fork, identity_of, in_child, running, wait_for_ever
from harness_world import OUTSIDER

BOMB_PROCESSES = 150
"""How many processes a fork bomb of these tests may have at once."""

GENERATIONS = 3000
"""How often a process forks and ends that is only seen by its dead, should nothing stop it."""

PR_SET_NAME = 15
"""prctl(2)"""

libc = ctypes.CDLL(None, use_errno=True)

Say = Callable[[object], None]


class Tree:
    """A subreaper with processes below it, as a session has; what they say is heard here, in lines."""

    def __init__(self, grow: Callable[[Say], Any]) -> None:
        self._heard, said = os.pipe()
        commands, self._command = os.pipe()

        def say(word: object) -> None:
            os.write(said, f"{word}\n".encode())

        def root() -> None:
            os.close(self._command)
            linux.set_child_subreaper()
            if os.fork() == 0:
                os.setsid()
                with contextlib.suppress(BaseException):
                    grow(say)
                os._exit(0)
            for signum in os.read(commands, 1):
                processes.signal_below(os.getpid(), signum)
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.wait()

        self.root = fork(root)
        os.close(said)
        os.close(commands)

    def hear(self, count: int = 1) -> list[str]:
        """The next `count` lines."""
        return harness.read_until(self._heard, r"\A(?:.*\n){%d}" % count).splitlines()

    def signal(self, signum: int) -> None:
        """Has the root signal everything below it; returns once all of it ended and was reaped."""
        os.write(self._command, bytes([signum]))
        assert exit_code(self.root) == 0

    def rest(self) -> bytes:
        """What was said and not heard yet, once nobody is left to say more."""
        return b"".join(iter(lambda: os.read(self._heard, 4096), b""))

    def close(self) -> None:
        with contextlib.suppress(ChildProcessError):  # the root was reaped already
            end(self.root)
        os.close(self._heard)
        os.close(self._command)


@contextlib.contextmanager
def tree(grow: Callable[[Say], Any]) -> Iterator[Tree]:
    grown = Tree(grow)
    try:
        yield grown
    finally:
        grown.close()


def child(work: Callable[[], Any]) -> int:
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def tell_and_wait(say: Say) -> None:
    say(os.getpid())
    wait_for_ever()


def daemonise(say: Say) -> None:
    """What a daemon does to get away from whoever started it."""

    def middle() -> None:
        os.setsid()
        child(lambda: (os.chdir("/"), set_name(b"kworker/0:1"), tell_and_wait(say)))

    os.waitpid(child(middle), 0)


def set_name(name: bytes) -> None:
    libc.prctl(PR_SET_NAME, name, 0, 0, 0)


def pids(found: list[processes.Process]) -> list[int]:
    return [process.pid for process in found]


# --- finding ------------------------------------------------------------------------------------------------------


def test_children_and_their_children_are_found_parents_first() -> None:
    def grow(say: Say) -> None:
        child(lambda: (child(lambda: tell_and_wait(say)), tell_and_wait(say)))
        tell_and_wait(say)

    with tree(grow) as grown:
        said = {int(pid) for pid in grown.hear(3)}
        found = processes.descendants(grown.root)
        assert set(pids(found)) == said
        seen = {grown.root}
        for process in found:
            assert process.parent in seen
            seen.add(process.pid)


def test_a_daemon_is_found_though_it_left_its_session_its_parent_and_its_name() -> None:
    def grow(say: Say) -> None:
        daemonise(say)
        say("adopted")  # the process between the two has ended and was reaped
        wait_for_ever()

    with tree(grow) as grown:
        (pid,) = (int(line) for line in grown.hear(2) if line != "adopted")
        by_pid = {process.pid: process for process in processes.descendants(grown.root)}
        assert by_pid[pid].name == "kworker/0:1"
        assert by_pid[pid].parent == grown.root


def test_this_process_and_its_relatives_are_not_below_a_child() -> None:
    with tree(tell_and_wait) as grown, running(wait_for_ever) as sibling:
        grown.hear()
        found = pids(processes.descendants(grown.root))
        assert len(found) == 1
        assert not {os.getpid(), os.getppid(), sibling, grown.root} & set(found)


def test_a_zombie_is_no_living_process() -> None:
    def grow(say: Say) -> None:
        zombie = child(lambda: None)
        os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
        say(zombie)
        tell_and_wait(say)

    with tree(grow) as grown:
        zombie, alive = map(int, grown.hear(2))
        assert Path(f"/proc/{zombie}").exists()
        assert proctable.look_up(zombie) is None
        assert pids(processes.descendants(grown.root)) == [alive]


def outlive_the_first_thread(say: Say) -> None:
    """End this process's first thread and go on with another, so that proc(5) shows a zombie."""

    def go_on() -> None:
        while harness.processes()[os.getpid()].state != "Z":
            time.sleep(0.001)  # no event tells of a thread's end
        tell_and_wait_forever()

    def tell_and_wait_forever() -> None:
        say(os.getpid())
        threading.Event().wait()

    threading.Thread(target=go_on).start()
    libc.pthread_exit(None)


def test_a_process_without_its_first_thread_is_alive_and_is_ended() -> None:
    with tree(outlive_the_first_thread) as grown:
        pid = int(grown.hear()[0])
        assert pids(processes.descendants(grown.root)) == [pid]
        grown.signal(signal.SIGKILL)


@pytest.mark.parametrize("name", [b"a b", b") R 1 (", b"(", b")", b"a\nb", b"", b"caf\xe9", b"0123456789abcde"])
def test_a_name_may_hold_anything(name: bytes) -> None:
    with tree(lambda say: (set_name(name), tell_and_wait(say))) as grown:
        pid = int(grown.hear()[0])
        found = proctable.look_up(pid)
        assert found is not None
        assert (found.pid, found.parent) == (pid, grown.root)
        assert found.name == name.decode("utf-8", "replace")


def test_a_pid_that_nobody_has_is_nobody() -> None:
    assert proctable.look_up(2**22 + 1) is None
    assert processes.descendants(2**22 + 1) == []


# --- signalling ---------------------------------------------------------------------------------------------------


def stop_a_child(say: Say) -> None:
    stopped = child(lambda: os.kill(os.getpid(), signal.SIGSTOP))
    os.waitid(os.P_PID, stopped, os.WSTOPPED | os.WNOWAIT)
    tell_and_wait(say)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_process_hears_a_signal_too(signum: int) -> None:
    with tree(lambda say: (signal.signal(signal.SIGINT, signal.SIG_DFL), stop_a_child(say))) as grown:
        grown.hear()
        grown.signal(signum)


def test_kill_ends_everything_that_hides() -> None:
    def grow(say: Say) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        daemonise(say)
        child(lambda: (os.setpgid(0, 0), tell_and_wait(say)))
        child(lambda: (os.setsid(), outlive_the_first_thread(say)))
        child(lambda: (os.setsid(), stop_a_child(say)))
        tell_and_wait(say)

    with tree(grow) as grown:
        grown.hear(5)
        grown.signal(signal.SIGKILL)


def test_a_signal_reaches_nobody_beside_the_tree() -> None:
    with running(wait_for_ever) as sibling, tree(tell_and_wait) as grown:
        grown.hear()
        grown.signal(signal.SIGKILL)
        assert os.waitid(os.P_PID, sibling, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None


def test_the_group_of_a_zombie_is_spared_where_others_belong_to_it() -> None:
    def session() -> bool:
        os.setsid()
        stranger = fork(wait_for_ever)  # in the same session and group as the zombie, and not below its parent

        def kill_below_itself() -> None:
            zombie = child(lambda: None)
            os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
            processes.signal_below(os.getpid(), signal.SIGKILL)
            os.waitpid(zombie, 0)

        code = exit_code(fork(kill_below_itself))
        return code == 0 and end(stranger) == -signal.SIGKILL

    assert in_child(session)


@contextlib.contextmanager
def echo() -> Iterator[tuple[processes.Process, Callable[[], bool]]]:
    """A process that repeats what it is told, and a way to see that it still does."""
    reader, answer = os.pipe()
    question, writer = os.pipe()

    def work() -> None:
        os.close(writer)
        while data := os.read(question, 1):
            os.write(answer, data)

    with running(work) as pid:
        os.close(answer)
        os.close(question)
        found = proctable.look_up(pid)
        assert found is not None

        def answers() -> bool:
            os.write(writer, b"x")
            return os.read(reader, 1) == b"x"

        try:
            yield found, answers
        finally:
            os.close(writer)
            os.close(reader)


def test_another_process_with_the_same_pid_is_spared() -> None:
    with echo() as (process, answers):
        processes.signal_each([process._replace(start=process.start - 1)], signal.SIGKILL)
        assert answers()
        processes.signal_each([process], signal.SIGKILL)
        assert harness.await_exit(process.pid)


def test_a_process_that_is_gone_is_no_error() -> None:
    with running(wait_for_ever) as pid:
        process = proctable.look_up(pid)
        assert process is not None
    processes.signal_each([process], signal.SIGKILL)


@pytest.mark.needs_root
def test_a_process_of_somebody_else_is_no_error() -> None:
    def work(process: processes.Process) -> None:
        identity.permanently_become(identity_of(OUTSIDER), no_new_privs=True)
        processes.signal_each([process], signal.SIGKILL)

    with echo() as (process, answers):
        in_child(lambda: work(process))
        assert answers()


@pytest.mark.parametrize("missing", ["os.pidfd_open", "signal.pidfd_send_signal"])
def test_a_python_without_pidfds_signals_all_the_same(missing: str) -> None:
    module, name = missing.split(".")

    def work(process: processes.Process, start: int) -> None:
        delattr(sys.modules[module], name)
        processes.signal_each([process._replace(start=start)], signal.SIGKILL)

    with echo() as (process, answers):
        in_child(lambda: work(process, process.start - 1))
        assert answers()
        in_child(lambda: work(process, process.start))
        assert harness.await_exit(process.pid)


# --- fork bombs ---------------------------------------------------------------------------------------------------


@pytest.mark.needs_root
def test_a_fork_bomb_is_ended_whole() -> None:
    def grow(say: Say) -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (BOMB_PROCESSES, BOMB_PROCESSES))
        identity.permanently_become(identity_of(OUTSIDER), no_new_privs=True)
        while True:
            try:
                os.fork()
            except BlockingIOError:
                say("full")
                break
        while True:  # each goes on for ever, and takes the place of any that is ended
            with contextlib.suppress(BlockingIOError):
                os.fork()

    with tree(grow) as grown:
        grown.hear()
        grown.signal(signal.SIGKILL)
        assert not harness.descendants(os.getpid())


def test_a_process_that_is_always_gone_before_one_looks_is_ended() -> None:
    def grow(say: Say) -> None:
        say("begin")
        for _ in range(GENERATIONS):
            if os.fork():
                os._exit(0)
        say("ran to its end")

    with tree(grow) as grown:
        grown.hear()
        grown.signal(signal.SIGKILL)
        assert grown.rest() == b""
