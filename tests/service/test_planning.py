"""What a request comes to is found out in bounded time, and for somebody: hang-up, stop and deadline end the looking.

Paths that take hours to look at, and a file system that never answers: a caller who stays is told in one line, one who
goes takes its session along.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import harness
from buildcore.service.planner import PLAN_SEC, TOO_SLOW
from daemon import Service, running_service
from harness import write_tree
from harness_world import DEV1, MS_NODEV, MS_NOSUID
from wire import RawCaller, at_rest, reap_orphans

GONE_SEC = 2.0
"""How long the session of a caller who went may still be seen: it takes a fraction of that on an idle machine."""

LINKS = 38
LONG_REQUEST = 100_000
"""Path options in a request of almost 1 MiB."""


@pytest.fixture(scope="module", params=[pytest.param("root", marks=pytest.mark.needs_root), "user"])
def one(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service for all tests but those that end it."""
    with running_service(str(request.param)) as service:
        yield service


@pytest.fixture(scope="module")
def root_one() -> Iterator[Service]:
    with running_service("root") as service:
        yield service


@contextmanager
def windings(service: Service) -> Iterator[list[str]]:
    """Arguments that lead through so many links and dots to nothing that to look at them takes hours."""
    place = service.workspace / "windings"
    write_tree(place, {"Makefile": "all:\n\t@echo built\n"}, service.caller)
    for number in range(LINKS):
        (place / f"l{number}").symlink_to("./" * 2000 + f"l{number + 1}")
    try:
        yield ["-C", "windings", *["-fl0"] * LONG_REQUEST]
    finally:
        shutil.rmtree(place)


def goes_away(service: Service, caller: RawCaller) -> float:
    """Hangs up; returns how long the session was there after that, in seconds."""
    begin = time.monotonic()
    caller.close()
    assert at_rest(service.daemon)
    return time.monotonic() - begin


def test_a_caller_who_goes_while_its_paths_are_looked_at_takes_its_session_along(one: Service) -> None:
    with windings(one) as args, RawCaller(one) as caller:
        caller.ask(*args, request_id="gone")
        assert goes_away(one, caller) < GONE_SEC
    line = one.daemon.await_log("build refused .*request_id=gone")
    assert ' reason="the caller hung up" kind=cancelled ' in line


def test_a_caller_who_stays_is_told_in_one_line_and_others_are_served_meanwhile(one: Service) -> None:
    begin = time.monotonic()
    with windings(one) as args, RawCaller(one) as caller:
        caller.ask(*args)
        assert one.run("make", cwd=one.workspace / "windings").stdout == "built\n"
        assert time.monotonic() - begin < PLAN_SEC
        exit_ = caller.exit()
    assert (exit_["code"], caller.text()) == (1, f"{TOO_SLOW}\n")
    assert PLAN_SEC <= time.monotonic() - begin < PLAN_SEC + harness.PATIENCE_SEC
    assert at_rest(one.daemon)


def test_a_check_is_bounded_as_well(one: Service) -> None:
    with windings(one) as args, RawCaller(one) as caller:
        request = {"command": "make", "args": args, "cwd": str(one.workspace), "features": []}
        caller.ask(command=None, args=None, cwd=None, check=request)
        assert goes_away(one, caller) < GONE_SEC


def test_a_half_close_is_no_hang_up(one: Service) -> None:
    with windings(one), RawCaller(one) as caller:
        caller.ask(cwd=str(one.workspace / "windings"))
        caller.socket.shutdown(socket.SHUT_WR)
        assert (caller.exit()["code"], caller.text()) == (0, "built\n")


def test_the_service_stops_while_paths_are_looked_at(flavour: str, start_service: Callable[..., Service]) -> None:
    service = start_service(flavour)
    with windings(service) as args, RawCaller(service) as caller:
        caller.ask(*args)  # the session has read almost all of it when this returns
        begin = time.monotonic()
        service.daemon.stop()
        assert time.monotonic() - begin < PLAN_SEC
        assert caller.exit()["code"] == 1
        assert caller.text() == "build-service is stopping: the build was ended\n"


# --- a file system that does not answer -------------------------------------------------------------------------------

MNT_DETACH = 2
FUSE_INIT = 26
FUSE_VERSION = (7, 31)
READ_BYTES = 1 << 18

libc = ctypes.CDLL(None, use_errno=True)


class Held:
    """A file system of dev1's own (fuse(4)), which `others` may enter or not, and whose server never answers.

    It takes what it is asked, so that no signal ends the wait for it, where `takes`; else not even that.
    """

    def __init__(self, path: Path, takes: bool, others: bool) -> None:
        self.path = path
        path.mkdir()
        self._server = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._server},rootmode=40000,user_id={DEV1.uid},group_id={DEV1.gid}".encode()
        options += b",allow_other" if others else b""
        flags = ctypes.c_ulong(MS_NODEV | MS_NOSUID)
        if libc.mount(b"held", os.fsencode(path), b"fuse", flags, options) != 0:
            os.close(self._server)
            pytest.skip(f"no FUSE here: {os.strerror(ctypes.get_errno())}")
        unique = struct.unpack_from("<IIQ", os.read(self._server, READ_BYTES))[2]
        body = struct.pack("<IIIIHHIIHHI28x", *FUSE_VERSION, 0, 0, 1, 1, 1 << 17, 1, 1, 0, 0)
        os.write(self._server, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)
        self._takes = takes

    def await_question(self) -> None:
        """Waits until somebody waits for an answer."""
        assert select.select([self._server], [], [], harness.PATIENCE_SEC)[0]
        if self._takes:
            os.read(self._server, READ_BYTES)

    def close(self) -> None:
        """Ends the server: whoever waits for it is told that there is none any more."""
        os.close(self._server)
        libc.umount2(os.fsencode(self.path), MNT_DETACH)
        self.path.rmdir()


@contextmanager
def held(service: Service, takes: bool = False, others: bool = True) -> Iterator[Held]:
    system = Held(service.workspace / "held", takes, others)
    try:
        yield system
    finally:
        system.close()


WAYS: dict[str, tuple[str, list[str]]] = {
    "as the directory": ("held", []),
    "above the directory": ("held/app", []),
    "as an option's value": (".", ["-f", "held/x"]),
    "as a directory to change to": (".", ["-C", "held"]),
}


@pytest.mark.needs_root
@pytest.mark.parametrize("way", WAYS)
def test_a_caller_who_goes_leaves_no_session_that_waits_for_a_file_system(way: str, root_one: Service) -> None:
    cwd, args = WAYS[way]
    with held(root_one) as system, RawCaller(root_one) as caller:
        caller.ask(*args, cwd=f"{root_one.workspace}/{cwd}")
        system.await_question()
        assert goes_away(root_one, caller) < GONE_SEC


@pytest.mark.needs_root
def test_a_caller_who_waits_for_a_file_system_is_told_that_it_takes_too_long(root_one: Service) -> None:
    with held(root_one) as system, RawCaller(root_one) as caller:
        caller.ask(cwd=str(system.path))
        system.await_question()
        assert (caller.exit()["code"], caller.text()) == (1, f"{TOO_SLOW}\n")
        caller.close()
        assert at_rest(root_one.daemon)


@pytest.mark.needs_root
def test_where_the_kernel_lets_nobody_go_the_session_is_its_user_s_until_the_file_system_ends(
    start_service: Callable[..., Service],
) -> None:
    """What was asked and taken has to be answered (request_wait_answer in the kernel's fs/fuse/dev.c)."""
    service = start_service("root", {"service": {"max_connections_per_user": 1}})
    with held(service, takes=True) as system:
        with RawCaller(service) as caller:
            caller.ask(cwd=str(system.path))
            system.await_question()
            assert (caller.exit()["code"], caller.text()) == (1, f"{TOO_SLOW}\n")
        assert not at_rest(service.daemon, seconds=GONE_SEC)
        assert service.run("make").stderr.startswith("build-service is busy: 1 of your builds")
    assert at_rest(service.daemon)


@pytest.mark.needs_root
def test_a_session_that_the_kernel_holds_does_not_keep_the_service_from_ending(
    start_service: Callable[..., Service],
) -> None:
    service = start_service("root", {"build": {"timeouts": {"grace_sec": 0}}})
    with held(service, takes=True) as system, RawCaller(service) as caller:
        caller.ask(cwd=str(system.path))
        system.await_question()
        sessions = [process.pid for process in harness.descendants(service.daemon.pid)]
        service.daemon.stop()
        assert caller.exit()["code"] == 1
        assert caller.text() == "build-service is stopping: the build was ended\n"
    reap_orphans(sessions)


@pytest.mark.needs_root
def test_a_file_system_that_others_may_not_enter_does_not_hold_a_session(root_one: Service) -> None:
    with held(root_one, others=False) as system, RawCaller(root_one) as caller:
        assert caller.ask(cwd=str(system.path)).exit()["code"] == 1
        assert caller.text() == f"cwd must be under workspace: {system.path}: Permission denied on the host\n"
