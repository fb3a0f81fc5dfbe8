"""A build hears its signals, and ends, whatever /proc hides from the service: hidepid= (proc(5)).

The service has the capabilities of the shipped unit, and a /proc of its own that is mounted like that. Part of the
build hides as well as an ordinary user's process can: nobody but root with CAP_SYS_PTRACE may trace it
(PR_SET_DUMPABLE, prctl(2)).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

import harness
from buildcore.core import procmount
from buildcore.service import lookout
from buildcore.system import identity, proctable
from control_group import control_group
from daemon import Service, running_service
from forked import in_child
from harness import read_until, write_tree
from harness_world import ROOT
from wire import RawCaller, assert_ended, at_rest, parent_of

KERNEL = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(KERNEL < (5, 8), reason="before Linux 5.8 a mount of /proc changes that of the machine"),
]

StartService = Callable[..., Service]

A_GROUP = 4711
SEEN_ALL = {
    "noaccess": "hidepid=1",
    "invisible": "hidepid=2",
    "invisible but to a group": f"hidepid=2,gid={A_GROUP}",
    "ptraceable, with a control group": "hidepid=4",
}
"""Under which the service is to see all of its builds, whatever they do."""

GRACE_SEC = 20
"""So long that no build ends in time that does not hear the first signal."""

IN_TIME_MS = 15_000

BUILD = """
import ctypes, os, signal, sys
child = os.fork()
name = "outer" if child else "inner"
if name == "inner" and sys.argv[1:] == ["hide"]:
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE

def hear(number, frame):
    os.write(1, f"{name} heard {signal.Signals(number).name}\\n".encode())
    if child:
        os.waitpid(child, 0)  # what it says has to come before the end of what make waits for
    os._exit(0)

for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, hear)
os.write(1, f"{name} is {os.getpid()}\\n".encode())
while True:
    signal.pause()
"""


def capabilities() -> list[str]:
    """The bounding set of the shipped unit, as setpriv(1) takes it."""
    unit = (ROOT / "etc/systemd/build-service.service").read_text()
    (line,) = re.findall("^CapabilityBoundingSet=(.+)$", unit, re.MULTILINE)
    return ["-all", *(name.replace("CAP_", "+").lower() for name in line.split())]


def launcher(options: str, group: Path | None = None, bounded: bool = True) -> list[str]:
    """What starts the service in a mount namespace of its own, with such a /proc."""
    enter = f"echo 0 >{group}/cgroup.procs && " if group else ""
    script = f'{enter}mount -t proc -o {options} proc /proc && exec "$@"'
    bound = ["setpriv", "--bounding-set", ",".join(capabilities()), "--"] if bounded else []
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *bound]


@contextmanager
def hidden_service(options: str, group: Path | None = None, grace_sec: int = GRACE_SEC) -> Iterator[Service]:
    settings = {"build": {"timeouts": {"grace_sec": grace_sec}}}
    with running_service("root", settings, launcher=launcher(options, group)) as service:
        python = f"{harness.python_directory()}/python3"
        makefile = f"all:\n\t@{python} build.py hide\nplain:\n\t@{python} build.py\n"
        write_tree(service.workspace, {"build.py": BUILD, "Makefile": makefile}, service.caller)
        yield service


@pytest.fixture(scope="module", params=[*SEEN_ALL])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    # The other attribute takes CAP_SYS_ADMIN to read.
    with control_group("user.delegate") if "control group" in request.param else nullcontext() as group:
        with hidden_service(SEEN_ALL[request.param], group) as one:
            yield one


def pids_of(text: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"is (\d+)$", text, re.MULTILINE)]


def session_of(pids: list[int]) -> int:
    """The session of a build that printed these as its pids."""
    outer = next(pid for pid in pids if parent_of(pid) not in pids)
    return parent_of(parent_of(outer))  # make is between them


def assert_ended_with_its_session(service: Service) -> None:
    with RawCaller(service) as caller:
        pids = pids_of(caller.ask("all").await_output(BOTH_RUN))
        os.kill(session_of(pids), signal.SIGKILL)
        assert_ended(*pids)
    assert at_rest(service.daemon)


BOTH_RUN = r"(?s)(?=.*inner is \d+\n)(?=.*outer is \d+\n)"


def assert_both_heard(name: str, text: str) -> None:
    assert f"inner heard {name}\n" in text and f"outer heard {name}\n" in text


def test_a_timeout_is_heard_in_time(service: Service) -> None:
    with RawCaller(service) as caller:
        exit_ = caller.ask("all", timeout_sec=1, features=["details"]).exit()
        assert_both_heard("SIGTERM", caller.text())
    assert exit_["timed_out"] and exit_["duration_ms"] < IN_TIME_MS, exit_


def test_a_cancel_is_heard(service: Service) -> None:
    with service.popen("make") as client:
        assert client.stdout
        text = read_until(client.stdout.fileno(), BOTH_RUN)
        client.send_signal(signal.SIGINT)
        text += client.communicate(timeout=harness.PATIENCE_SEC)[0].decode()
    assert_both_heard("SIGINT", text)


def test_what_a_killed_session_leaves_is_ended(service: Service) -> None:
    assert_ended_with_its_session(service)


def test_nothing_is_said_of_it(service: Service) -> None:
    assert not [line for line in service.daemon.log_lines() if "hidden from the service" in line]


def test_the_service_has_no_more_rights_for_it(service: Service) -> None:
    """Neither the arbiter nor a session that runs: no capability but the unit's, and no group but the caller's."""
    show = [*launcher("hidepid=0"), "sed", "-n", "s/^CapPrm:\t//p", "/proc/self/status"]
    expected = subprocess.run(show, check=True, capture_output=True, text=True).stdout.strip()
    with RawCaller(service) as caller:
        pids = pids_of(caller.ask("all").await_output(BOTH_RUN))
        session = session_of(pids)
        for pid in (service.daemon.pid, session):
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert status["CapPrm"] == expected
        assert status["Gid"].split()[1] == str(service.caller.gid)
        assert str(A_GROUP) not in status["Groups"].split()
    assert_ended(*pids)
    assert at_rest(service.daemon)


# --- where only who may trace a process sees it, and there is no control group -------------------------------------


@pytest.fixture(scope="module")
def barely_seeing() -> Iterator[Service]:
    with hidden_service("hidepid=4", grace_sec=1) as one:
        yield one


def test_what_does_not_hide_hears_all_the_same(barely_seeing: Service) -> None:
    with RawCaller(barely_seeing) as caller:
        caller.ask("plain", timeout_sec=1, features=["details"]).exit()
        assert_both_heard("SIGTERM", caller.text())


def test_what_hides_is_ended_and_the_log_says_so_before(barely_seeing: Service) -> None:
    said = "WARN build_service: .*what is below the first process of a build may be hidden from the service"
    barely_seeing.daemon.await_log(said)
    with RawCaller(barely_seeing) as caller:
        caller.ask("all", timeout_sec=1).exit()
        pids = pids_of(caller.text())
    assert len(pids) == 2
    assert_ended(*pids)
    assert at_rest(barely_seeing.daemon)


def test_what_hides_is_ended_when_its_session_is_killed(barely_seeing: Service) -> None:
    assert_ended_with_its_session(barely_seeing)


# --- the proof ----------------------------------------------------------------------------------------------------


def test_a_service_that_would_not_see_its_builds_at_all_says_so() -> None:
    nothing = proctable.Below([], set(), True)

    def blind() -> tuple[bool, str | None]:
        nobody = identity.Identity(65534, 65534, (65534,))

        def become(enter: Callable[[], None]) -> None:
            enter()
            identity.permanently_become(nobody, no_new_privs=True)

        return lookout.trial(nobody, become, lambda ancestor, sight: nothing)

    sees, line = in_child(blind)
    assert not sees and line.startswith("builds are hidden from the service")


# --- what a mount hides -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "hiding"),
    [
        ("22 28 0:21 / /proc rw,relatime - proc proc rw", (0, 0)),
        ("22 28 0:21 / /proc rw,relatime shared:5 - proc proc rw,hidepid=2", (2, 0)),
        ("22 28 0:21 / /proc rw - proc proc rw,gid=33,hidepid=invisible", (2, 33)),
        ("22 28 0:21 / /proc rw - proc proc rw,hidepid=noaccess", (1, 0)),
        ("22 28 0:21 / /proc rw - proc none rw,hidepid=ptraceable,subset=pid", (4, 0)),
        ("22 28 0:21 / /proc rw - proc proc rw,hidepid=off", (0, 0)),
        ("22 28 0:21 / /proc rw - proc proc rw,hidepid=more", procmount.UNKNOWN),
        ("22 28 0:21 / /other/proc rw - proc proc rw,hidepid=4", procmount.UNKNOWN),
        ("22 28 0:21 / /proc rw - autofs proc rw", procmount.UNKNOWN),
        ("", procmount.UNKNOWN),
        ("nonsense", procmount.UNKNOWN),
    ],
)
def test_what_a_mount_hides(line: str, hiding: tuple[int, int]) -> None:
    assert procmount.hiding(f"21 28 0:5 / /dev rw - devtmpfs dev rw\n{line}\n") == hiding


def test_the_last_mount_is_on_top() -> None:
    lines = [f"22 28 0:21 / /proc rw - proc proc rw,hidepid={level}\n" for level in (4, 2)]
    assert procmount.hiding("".join(lines)).level == 2
