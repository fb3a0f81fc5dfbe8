"""Callers that would keep the service from others: silent, slow and huge ones, many at once, ones that come and go, and
ones that send descriptors. Others are served meanwhile within SERVED_SEC, and nothing of it stays.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from daemon import Service
from forked import exit_code, fork
from harness import PATIENCE_SEC, descendants, write_tree
from harness_world import BUILDERS_GID, DEV1, DEV2, OUTSIDER, User, inside
from wire import WAITING, Gate, RawCaller, at_rest, session_ahead

SERVED_SEC = 1.0
"""How long a build that does nothing may take, from connect to exit, whatever others do."""

IDLE = {"root": 992, "user": 248}
"""How many connections are held open: a little below what the service serves, in all and of one user."""

COMINGS = 1000
SERVED = 20
"""How many callers come and go at least, and how many builds are served meanwhile."""

REQUEST_SEC = 10.0
FLOOD_BYTES = 64 << 20
SESSION_GROWTH_KIB = 8 << 10
"""How much larger than the arbiter a session may ever be."""

PASSED_AT_ONCE = 250
"""Descriptors in one message: the kernel takes 253 (SCM_MAX_FD, unix(7))."""

BUILDERS = [
    DEV1,
    DEV2,
    User("nobody", 65534, 65534, (BUILDERS_GID,), Path("/")),
    User("daemon", 1, 1, (BUILDERS_GID,), Path("/")),
]
"""Who holds connections, besides the one who is served: accounts that each machine has among them."""


@pytest.fixture
def ready(service: Service) -> Service:
    makefile = f"quick:\n\t@echo quick\nslow:\n{WAITING}files:\n\t@ls -l /proc/self/fd; echo listed; read x < gate\n"
    for user in {service.caller, other(service)}:
        write_tree(service.daemon.workspace_of(user), {"Makefile": makefile}, user)
    return service


def other(service: Service) -> User:
    """Somebody else than the callers who are a burden, where there is somebody."""
    return OUTSIDER if service.daemon.user.uid == 0 else service.caller


def seconds_to_serve(service: Service) -> float:
    """How long the next build takes, of a user who has no other one."""
    user = other(service)
    start = time.monotonic()
    with RawCaller(service, user, [user.gid, BUILDERS_GID] if inside() else None) as caller:
        caller.ask("quick", cwd=str(service.daemon.workspace_of(user)))
        assert caller.exit()["code"] == 0, caller.text()
    return time.monotonic() - start


def descriptors(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # it is closed meanwhile
            found.append(re.sub(r"\[\d+\]", "", os.readlink(f"/proc/{pid}/fd/{name}")))
    return found


def await_descriptors(service: Service, wanted: list[str]) -> None:
    """Waits until the daemon is at rest with these. Nothing tells of the last one, so this looks again and again."""
    deadline = time.monotonic() + PATIENCE_SEC
    while not at_rest(service.daemon) or (found := sorted(descriptors(service.daemon.pid))) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def memory_kib(pid: int, what: str) -> int:
    return int(re.findall(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0])


@contextmanager
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_idle_connections_hold_nobody_up_and_leave_nothing(ready: Service, flavour: str) -> None:
    session_ahead(ready)
    before = sorted(descriptors(ready.daemon.pid))
    users = BUILDERS if flavour == "root" else [ready.caller]
    with many_descriptors(), ExitStack() as stack:
        for count in range(IDLE[flavour]):
            user = users[count % len(users)]
            stack.enter_context(RawCaller(ready, user, [user.gid, BUILDERS_GID] if inside() else None))
        seconds_to_serve(ready)  # the queue is in order: then all of them have sessions
        assert len(descendants(ready.daemon.pid)) > IDLE[flavour] // 2  # the first may have been told that it is late
        assert seconds_to_serve(ready) < SERVED_SEC
    await_descriptors(ready, before)
    assert seconds_to_serve(ready) < SERVED_SEC


def test_connections_that_come_and_go_hold_nobody_up_and_leave_nothing(ready: Service) -> None:
    session_ahead(ready)
    before = sorted(descriptors(ready.daemon.pid))
    enough, told = os.pipe()

    def come_and_go() -> None:
        """Beside this process, so that the others are served meanwhile."""
        for count in itertools.count():
            if count >= COMINGS and select.select([enough], [], [], 0)[0]:
                return
            with RawCaller(ready) as caller:
                caller.send([b"", b"{", b'{"command":"make"}\n'][count % 3])

    pid = fork(come_and_go)
    times = [seconds_to_serve(ready) for _ in range(SERVED)]
    os.write(told, b"\n")
    assert exit_code(pid) == 0
    os.close(enough)
    os.close(told)
    assert max(times) < SERVED_SEC, times
    await_descriptors(ready, before)


@pytest.mark.parametrize("flavour", ["root" if inside() else "user"])  # it takes its time, and once is enough
def test_a_caller_who_is_silent_or_slow_is_told_so_when_its_time_is_over(ready: Service) -> None:
    with RawCaller(ready) as silent, RawCaller(ready) as slow:
        start = time.monotonic()
        while not select.select([silent.socket], [], [], 0.5)[0]:  # a byte each half second is no reason to wait on
            slow.send(b" ")
            assert time.monotonic() - start < REQUEST_SEC + PATIENCE_SEC
        assert time.monotonic() - start > REQUEST_SEC - 1
        assert silent.exit()["code"] == slow.exit()["code"] == 1
        assert silent.text() == slow.text() == f"invalid request: not complete within {REQUEST_SEC:.0f} s\n"
    assert at_rest(ready.daemon)


def test_a_request_without_end_is_refused_and_its_session_stays_small(ready: Service) -> None:
    session = session_ahead(ready)
    with RawCaller(ready) as caller:
        caller.socket.settimeout(PATIENCE_SEC)
        sent, most, piece = 0, 0, b'{"args":["' + b"x" * (1 << 20)
        with suppress(ConnectionError):
            while sent < FLOOD_BYTES:
                sent += caller.socket.send(piece)
                with suppress(FileNotFoundError, IndexError):  # it has ended meanwhile
                    most = max(most, memory_kib(session, "VmHWM"))
                assert seconds_to_serve(ready) < SERVED_SEC
        assert caller.exit()["code"] == 1
        assert re.fullmatch("invalid request: .*\n", caller.text())
    assert 0 < most < memory_kib(ready.daemon.pid, "VmRSS") + SESSION_GROWTH_KIB
    assert at_rest(ready.daemon)


@pytest.mark.parametrize("count", [3, PASSED_AT_ONCE])
@pytest.mark.parametrize("before", [0, 20], ids=["before the request", "in the request"])
def test_descriptors_that_a_request_does_not_name_are_closed_at_once_and_refused(
    before: int, count: int, ready: Service
) -> None:
    reader, writer = os.pipe()
    with RawCaller(ready) as caller:
        line = json.dumps({"command": "make", "args": ["files"], "cwd": str(ready.workspace)}).encode() + b"\n"
        caller.send(line[:before])
        with suppress(ConnectionError):
            socket.send_fds(caller.socket, [b" "], [writer] * count)
            caller.send(line[before:])
        os.close(writer)
        assert select.select([reader], [], [], PATIENCE_SEC)[0] and os.read(reader, 1) == b""
        os.close(reader)
        assert caller.exit()["code"] == 1
        assert re.fullmatch("invalid request: .*descriptors .*\n", caller.text())
    assert at_rest(ready.daemon)


def test_descriptors_that_a_caller_sends_during_its_build_are_closed_at_once_and_reach_nobody(ready: Service) -> None:
    reader, writer = os.pipe()
    session = session_ahead(ready)
    with Gate(ready.workspace, ready.caller) as gate, RawCaller(ready) as caller:
        line = json.dumps({"command": "make", "args": ["files"], "cwd": str(ready.workspace)}).encode() + b"\n"
        caller.send(line)
        caller.await_output("listed\n")
        for _ in range(20):
            socket.send_fds(caller.socket, [b" "], [writer] * PASSED_AT_ONCE)
        os.close(writer)
        # All copies are closed while the build runs: there is nobody any more who could write.
        assert select.select([reader], [], [], PATIENCE_SEC)[0] and os.read(reader, 1) == b""
        os.close(reader)
        assert len(descriptors(session)) < 20
        shown = re.findall(r"(\d+) -> ", caller.text())
        assert shown == ["0", "1", "2", "3"]  # 3 is the directory that ls lists
        gate.open()
        assert caller.exit()["code"] == 0
    assert at_rest(ready.daemon)
