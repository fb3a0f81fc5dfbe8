"""Whose effective ids a session has while its caller can make it do anything: never root's, from before the first byte.

Callers that connect and wait, at each place where the service waits for them, and sessions looked at from outside.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from daemon import Service
from harness import PATIENCE_SEC, write_tree
from harness_world import BUILDERS_GID, DEV1, DEV2, UID_WITHOUT_ACCOUNT, User
from wire import WAITING, Gate, RawCaller

pytestmark = pytest.mark.needs_root

StartService = Callable[..., Service]

NOBODY = 65534
ROOT_USER = User("root", 0, 0, (), Path("/root"))
STRANGER = User("stranger", UID_WITHOUT_ACCOUNT, UID_WITHOUT_ACCOUNT, (BUILDERS_GID,), Path("/"))


@pytest.fixture(params=[0, 1])
def service(request: pytest.FixtureRequest, start_service: StartService) -> Service:
    """A session forked ahead and one that is forked as its caller comes."""
    return start_service("root", {"service": {"prefork": request.param}})


def shown(pid: int) -> dict[str, str]:
    """What /proc/PID/status says; nothing of a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return {}
    return {name: " ".join(value.split()) for name, value in re.findall(r"^(\w+):(.*)$", text, re.MULTILINE)}


def await_session(service: Service, uid: int) -> dict[str, str]:
    """A session with this effective uid. Nothing tells that it took it, so this looks again and again."""
    deadline = time.monotonic() + PATIENCE_SEC
    while True:
        for process in harness.descendants(service.daemon.pid):
            found = shown(process.pid)
            if found.get("Uid") == f"0 {uid} 0 {uid}":
                return found
        assert time.monotonic() < deadline, f"no session works as {uid}"
        time.sleep(0.01)


def assert_works_as(user: User, found: dict[str, str]) -> None:
    assert found["Gid"].split()[1] == str(user.gid)
    assert found["Groups"].split() == [str(gid) for gid in sorted({user.gid, *user.groups})]
    assert int(found["CapEff"], 16) == 0


@pytest.mark.parametrize("sent", [b"", b'{"command": "make", "ar'], ids=["nothing", "half a request"])
@pytest.mark.parametrize("user", [DEV1, DEV2], ids=lambda user: user.name)
def test_before_a_request_is_there_its_session_works_as_the_caller(user: User, sent: bytes, service: Service) -> None:
    with RawCaller(service, user) as caller:
        caller.send(sent)
        assert_works_as(user, await_session(service, user.uid))


@pytest.mark.parametrize("sent", [b"", b'{"command": "make", "ar'], ids=["nothing", "half a request"])
@pytest.mark.parametrize("user", [ROOT_USER, STRANGER], ids=lambda user: user.name)
def test_who_may_not_build_is_heard_by_nobody(user: User, sent: bytes, service: Service) -> None:
    with RawCaller(service, user) as caller:
        caller.send(sent)
        found = await_session(service, NOBODY)
        assert (found["Groups"], int(found["CapEff"], 16)) == ("", 0)


def test_while_a_build_runs_and_after_its_end_its_session_works_as_the_caller(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": f"all:\n{WAITING}\t@head -c 9000000 /dev/zero\n"}, DEV1)
    with Gate(service.workspace, DEV1) as gate, RawCaller(service) as caller:
        caller.ask().await_output("waits\n")
        assert_works_as(DEV1, await_session(service, DEV1.uid))
        gate.open()
        caller.await_output("done\n")
        assert_works_as(DEV1, await_session(service, DEV1.uid))
        assert caller.exit()["code"] == 0
