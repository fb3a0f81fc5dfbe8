"""What sessions leave of their builds: it is ended, however much it is and whoever holds it, and holds nobody up."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from test_activation import Manager
from test_denial import SERVED_SEC, other, seconds_to_serve

import daemon
import harness
from buildcore.system import linux, processes, proctable
from control_group import control_group
from daemon import Service
from forked import end, exit_code, fork, in_child, wait_for_ever
from harness import PATIENCE_SEC, await_exit, popen_as, read_until, write_tree
from harness_world import inside
from wire import WAITING, Gate, RawCaller, assert_ended, at_rest, parent_of, waiting_make

StartService = Callable[..., Service]

CROWD = 1200
WATCHDOG_SEC = 4.0

CROWDED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER, where Yama minds (ptrace(2))
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)
        while True:
            signal.pause()
    print(pid)
print("crowded", flush=True)
signal.pause()
"""
"""A build's program that has many children, and tells their pids."""

TRACER = """
import ctypes, os, signal, sys
PTRACE_SEIZE = 0x4206
libc = ctypes.CDLL(None, use_errno=True)
for pid in map(int, sys.stdin.readline().split()):
    if libc.ptrace(PTRACE_SEIZE, pid, None, None) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
print("held", flush=True)
sys.stdin.read()
"""
"""Somebody outside who holds them: what of them is killed stays a zombie that nobody but this one can reap."""


@pytest.fixture
def manager() -> Iterator[Manager]:
    made = Manager()
    yield made
    made.close()


class Silence:
    """Hears the kicks of the watchdog in a thread of its own, until `end`, and tells the longest time without one."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._times: list[float] = []
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        notifications = self._manager.notifications
        while self._wake not in (ready := select.select([notifications, self._wake], [], [])[0]):
            if ready and b"WATCHDOG=1" in notifications.recv(4096):
                self._times.append(time.monotonic())

    def end(self) -> None:
        if self._thread.is_alive():
            os.close(self._stop)
            self._thread.join()
            os.close(self._wake)

    def longest(self) -> float:
        self.end()
        assert len(self._times) > 1
        return max(after - before for before, after in zip(self._times, [*self._times[1:], time.monotonic()]))


@pytest.fixture
def silence(manager: Manager) -> Iterator[Silence]:
    made = Silence(manager)
    yield made
    made.end()


def test_very_many_that_are_held_from_outside_hold_nobody_up(
    manager: Manager, silence: Silence, start_service: StartService
) -> None:
    flavour = "root" if inside() else "user"
    options = manager.options(WATCHDOG_USEC=str(round(WATCHDOG_SEC * 1e6)))
    settings = daemon.merged(manager.settings(), {"build": {"timeouts": {"grace_sec": 0}}})
    service = start_service(flavour, settings, **options)
    python = f"{harness.python_directory()}/python3"
    files = {"crowd.py": CROWDED, "Makefile": f"all:\n\t@{python} crowd.py {CROWD}\nquick:\n\t@echo quick\n"}
    for user in {service.caller, other(service)}:
        write_tree(service.daemon.workspace_of(user), files, user)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with popen_as(service.caller, [python, "-I", "-c", TRACER], "/", **pipes) as tracer:
        assert tracer.stdin and tracer.stdout
        with RawCaller(service) as caller:
            pids = re.findall(r"^(\d+)$", caller.ask("all").await_output("crowded\n"), re.MULTILINE)
            assert len(pids) == CROWD
            session = parent_of(parent_of(parent_of(int(pids[0]))))
            tracer.stdin.write(" ".join(pids).encode() + b"\n")
            tracer.stdin.flush()
            read_until(tracer.stdout.fileno(), "held\n")
        assert await_exit(session)  # it gave up: they fall to the arbiter, and stay as they are
        assert seconds_to_serve(service) < SERVED_SEC
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
        tracer.kill()  # all of them end at once
        since, served = time.monotonic(), []
        while any(os.path.exists(f"/proc/{pid}") for pid in pids) or len(served) < 5:
            served.append(seconds_to_serve(service))
            assert time.monotonic() < since + PATIENCE_SEC
        assert max(served) < SERVED_SEC, served
        assert (longest := silence.longest()) < WATCHDOG_SEC / 2, longest
    assert at_rest(service.daemon)


def test_very_many_of_a_killed_session_hold_nobody_up_and_are_ended(start_service: StartService) -> None:
    service = start_service("root" if inside() else "user")
    python = f"{harness.python_directory()}/python3"
    files = {"crowd.py": CROWDED, "Makefile": f"all:\n\t@{python} crowd.py {CROWD}\nquick:\n\t@echo quick\n"}
    for user in {service.caller, other(service)}:
        write_tree(service.daemon.workspace_of(user), files, user)
    with RawCaller(service) as caller:
        pids = [int(pid) for pid in re.findall(r"\d+", caller.ask("all").await_output("crowded\n"))]
        os.kill(parent_of(parent_of(parent_of(pids[0]))), signal.SIGKILL)
        assert seconds_to_serve(service) < SERVED_SEC
        assert_ended(*pids)
    assert at_rest(service.daemon)
    service.daemon.await_log("ended what a killed session left running processes=")


def test_a_look_spares_the_known_and_the_younger_and_ends_the_rest_with_all_below() -> None:
    """In a process that is a subreaper, as the arbiter is, and has children as that one has."""

    def grow() -> None:
        os.setsid()
        fork(wait_for_ever)
        wait_for_ever()

    def arbiter() -> tuple[int, list[bool], list[bool]]:
        linux.set_child_subreaper()
        known, orphan = fork(wait_for_ever), fork(grow)
        while len(below := processes.descendants(orphan)) < 1:  # nothing tells of the fork
            time.sleep(0.001)
        reader, writer = os.pipe()

        def look() -> None:
            os.read(reader, 1)
            found = processes.kill_orphans(os.getppid(), {known})
            assert [each.pid for each in found] == [orphan]

        seeker = fork(look)
        younger = fork(wait_for_ever)
        os.write(writer, b"\0")
        code = exit_code(seeker)
        ended = [await_exit(pid) for pid in (orphan, below[0].pid)]
        spared = [proctable.look_up(pid) is not None for pid in (known, younger)]
        for pid in (known, younger, orphan, below[0].pid):
            end(pid)
        return code, ended, spared

    assert in_child(arbiter) == (0, [True, True], [True, True])


def test_a_look_whose_parent_has_ended_touches_nobody() -> None:
    """Those who are its brothers then are the children of whoever takes orphans in."""

    def arbiter() -> bool:
        linux.set_child_subreaper()
        bystander = fork(wait_for_ever)
        own = os.getpid()
        reader, writer = os.pipe()

        def look() -> None:
            parent = os.getpid()

            def inner() -> None:
                os.read(reader, 1)
                assert os.getppid() == own
                assert processes.kill_orphans(parent, ()) == []

            fork(inner)

        exit_code(fork(look))
        os.write(writer, b"\0")
        pid, status = os.waitpid(-1, 0)
        alive = pid != bystander and status == 0 and proctable.look_up(bystander) is not None
        end(bystander)
        return alive

    assert in_child(arbiter)


@pytest.mark.needs_root
def test_the_control_group_of_a_killed_session_is_ended_and_removed_with_all_that_is_in_it(
    start_service: StartService,
) -> None:
    with control_group("trusted.delegate") as group:
        launcher = ["sh", "-c", 'echo 0 >"$0" && exec "$@"', f"{group}/cgroup.procs"]
        service = start_service("root", launcher=launcher)
        write_tree(service.workspace, {"Makefile": f"all:\n{WAITING}"}, service.caller)
        with Gate(service.workspace, service.caller), RawCaller(service) as caller:
            make = waiting_make(caller.ask("all").await_output("waits\n"))
            (own,) = group.glob("build-*")
            deep = own
            for _ in range(20):
                deep = deep / "inner"
                deep.mkdir()
            os.kill(parent_of(make), signal.SIGKILL)
            assert_ended(make)
            deadline = time.monotonic() + PATIENCE_SEC
            while own.exists():  # nothing tells of it
                assert time.monotonic() < deadline
                time.sleep(0.01)
        service.daemon.stop()
