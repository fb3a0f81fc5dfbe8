"""On whose account a build is in the audit trail: its caller's, whoever started the service; a build cannot change it.

Where the kernel does not let the service see to that, the log says so.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness
from daemon import Service, running_service
from harness import write_tree
from harness_world import DEV1, DEV2, User
from wire import at_rest

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(not os.path.exists("/proc/self/loginuid"), reason="this kernel knows no login uids"),
]

StartService = Callable[..., Service]

NOBODY = 4294967295
ADMINISTRATOR = 4711

LAUNCHER = """
import ctypes, os, sys
with open("/proc/self/loginuid", "w") as file:
    file.write(sys.argv[1])
if sys.argv[2]:
    assert ctypes.CDLL(None).prctl(24, int(sys.argv[2]), 0, 0, 0) == 0
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Starts the daemon with a login uid, as a login does, and with one capability less (PR_CAPBSET_DROP, prctl(2))."""

CAP_AUDIT_CONTROL = 30

MAKEFILE = """all:
\t@cat /proc/self/loginuid; echo; cat /proc/self/sessionid; echo
\t-@for uid in 0 20002 4294967295; do (echo $$uid > /proc/self/loginuid) 2>/dev/null && echo taken; done; true
\t@cat /proc/self/loginuid; echo
"""


def launcher(login_uid: int, without: int | None = None) -> list[str]:
    python = f"{harness.daemon_python_directory()}/python3"
    return [python, "-I", "-c", LAUNCHER, str(login_uid), "" if without is None else str(without)]


def build(service: Service, user: User) -> list[str]:
    """What the Makefile shows: the login uid, the audit session, the login uid again behind attempts to change it."""
    cwd = service.daemon.workspace_of(user)
    write_tree(cwd, {"Makefile": MAKEFILE}, user)
    built = service.run("make", "-s", user=user, cwd=cwd)
    assert (built.returncode, built.stderr) == (0, ""), built
    return built.stdout.splitlines()


@pytest.fixture(scope="module", params=[NOBODY, ADMINISTRATOR], ids=["by the system", "by an administrator"])
def started(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service that the system started, or an administrator by hand."""
    with running_service("root", launcher=launcher(request.param)) as service:
        assert of(service.daemon.pid, "loginuid") == request.param
        yield service


def of(pid: int, name: str) -> int:
    return int(Path(f"/proc/{pid}/{name}").read_text())


def test_a_build_has_the_login_uid_of_its_caller_and_no_other(started: Service) -> None:
    for user in (DEV1, DEV2):
        shown, _, behind = build(started, user)
        assert (shown, behind) == (str(user.uid), str(user.uid))
    assert "login uid" not in "".join(started.daemon.log_lines())


def test_each_build_is_an_audit_session_of_its_own(started: Service) -> None:
    sessions = {int(build(started, user)[1]) for user in (DEV1, DEV1, DEV2)}
    assert len(sessions) == 3 and of(started.daemon.pid, "sessionid") not in sessions


def test_the_service_keeps_its_own(started: Service) -> None:
    before = of(started.daemon.pid, "loginuid")
    build(started, DEV1)
    assert at_rest(started.daemon)
    below = harness.descendants(started.daemon.pid)
    assert {before} == {of(process.pid, "loginuid") for process in below}


def test_without_the_right_to_change_one_a_first_one_is_given_all_the_same(start_service: StartService) -> None:
    service = start_service("root", launcher=launcher(NOBODY, without=CAP_AUDIT_CONTROL))
    shown, _, behind = build(service, DEV1)
    assert (shown, behind) == (str(DEV1.uid), str(DEV1.uid))
    assert "login uid" not in "".join(service.daemon.log_lines())


def test_where_the_kernel_refuses_it_the_log_says_so_once(start_service: StartService) -> None:
    service = start_service("root", launcher=launcher(ADMINISTRATOR, without=CAP_AUDIT_CONTROL))
    for user in (DEV1, DEV2):
        shown, _, behind = build(service, user)
        assert (shown, behind) == (str(ADMINISTRATOR), str(ADMINISTRATOR))
    os.kill(service.daemon.pid, signal.SIGHUP)
    service.daemon.await_log("build-service listens", count=2)
    (line,) = [line for line in service.daemon.log_lines() if "login uid" in line]
    assert " WARN " in line and f"that of the service, {ADMINISTRATOR} (CAP_AUDIT_CONTROL)" in line


def test_a_user_s_own_service_gives_builds_the_login_uid_of_their_user(start_service: StartService) -> None:
    service = start_service("user")
    own = of(os.getpid(), "loginuid")
    expected = service.caller.uid if own == NOBODY else own
    assert build(service, service.caller)[0] == str(expected)
    assert "login uid" not in "".join(service.daemon.log_lines())
