"""What a build has from the process that started the service: what was set for it on purpose, and nothing by accident.

One service is started with everything set that passes fork(2) and execve(2); docs/SECURITY.md has the list.
"""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import harness
from buildcore.system import inherited
from daemon import Service, running_service
from forked import in_child
from harness import write_tree
from harness_world import DEV1

PROGRAM = harness.TREE / "tests/process_state.py"

ON_PURPOSE = {
    "nice", "io_priority", "scheduler", "affinity", "memory_policy", "limits", "timer_slack", "personality",
    "thp_disable", "coredump_filter", "namespaces", "cgroup", "root", "CapBnd", "securebits", "Seccomp",
    "Speculation_Store_Bypass", "SpeculationIndirectBranch",
}
"""What an administrator sets for the service and its builds: Nice=, CPUAffinity=, LimitNOFILE= and their like."""

OWN = {
    "pdeathsig": 0, "keepcaps": 0, "dumpable": 1, "subreaper": 0, "no_new_privs": 1,
    "CapInh": f"{0:016x}", "CapAmb": f"{0:016x}", "SigBlk": f"{0:016x}", "SigPnd": f"{0:016x}", "ShdPnd": f"{0:016x}",
    "timers": [[0, 0]] * 3, "terminal": "No such device or address", "terminal_number": "0",
}
"""What a build has whatever the service was started with."""

OTHER = {"autogroup", "session"}
"""What is another for each build."""


@pytest.fixture(scope="module")
def shown() -> Iterator[tuple[dict[str, Any], dict[str, Any], Service]]:
    """What the service was started with, what a build of it has, and the service."""
    directory = harness.open_directory()
    before = directory / "before"
    launcher = [f"{harness.daemon_python_directory()}/python3", "-I", str(PROGRAM), "start", str(before)]
    with running_service("root", launcher=launcher) as service:
        makefile = f"all:\n\t@{harness.python_directory()}/python3 -I {PROGRAM} show\n"
        write_tree(service.workspace, {"Makefile": makefile}, DEV1)
        built = service.run("make")
        assert (built.returncode, built.stderr) == (0, ""), built
        yield json.loads(before.read_text()), json.loads(built.stdout), service
    before.unlink()
    directory.rmdir()


@pytest.mark.needs_root
def test_the_service_of_these_tests_was_started_with_everything_set(shown: tuple[Any, Any, Service]) -> None:
    plain = json.loads(subprocess.run([sys.executable, "-I", PROGRAM, "show"], stdout=subprocess.PIPE).stdout)
    before = shown[0]
    expected = {
        "nice", "io_priority", "scheduler", "limits", "timer_slack", "personality", "thp_disable", "coredump_filter",
        "namespaces", "pdeathsig", "CapInh", "SigBlk", "SigIgn", "timers", "terminal_number", "session",
    }
    assert expected <= {name for name in plain if plain[name] != before[name]}


@pytest.mark.needs_root
@pytest.mark.parametrize("name", sorted(ON_PURPOSE))
def test_what_is_set_on_purpose_is_the_build_s_too(name: str, shown: tuple[Any, Any, Service]) -> None:
    before, built, _ = shown
    assert built[name] == before[name]


@pytest.mark.needs_root
@pytest.mark.parametrize("name", sorted(OWN))
def test_what_is_there_by_accident_is_not_the_build_s(name: str, shown: tuple[Any, Any, Service]) -> None:
    assert shown[1][name] == OWN[name]


@pytest.mark.needs_root
@pytest.mark.parametrize("name", sorted(OTHER))
def test_each_build_has_one_of_its_own(name: str, shown: tuple[Any, Any, Service]) -> None:
    before, built, service = shown
    again = json.loads(service.run("make").stdout)
    assert built[name] == "none" or len({str(each[name]) for each in (before, built, again)}) == 3


@pytest.mark.needs_root
def test_nothing_that_this_machine_shows_is_left_undecided(shown: tuple[Any, Any, Service]) -> None:
    assert set(shown[1]) - {"SigIgn", "lsm"} == {*ON_PURPOSE, *OWN, *OTHER}
    assert not int(shown[1]["SigIgn"], 16) >> signal.SIGUSR1 - 1 & 1  # Python and the C library ignore some themselves
    assert set(shown[1]["lsm"].values()) <= {"", "none"}  # execve(2) forgets them


@pytest.mark.needs_root
def test_a_service_is_no_io_flusher_whoever_made_it_one() -> None:
    set_io_flusher, get_io_flusher = 57, 58

    def work() -> int:
        libc = ctypes.CDLL(None)
        libc.prctl(set_io_flusher, 1, 0, 0, 0)
        inherited.shed_privileges()
        return int(libc.prctl(get_io_flusher, 0, 0, 0, 0))

    assert in_child(work) in (0, -1)  # -1 without CAP_SYS_RESOURCE: then it cannot be made one either


def test_timers_that_would_end_the_service_are_stopped() -> None:
    def work() -> list[tuple[float, float]]:
        timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
        for timer in timers:
            signal.setitimer(timer, 1000, 1000)
        inherited.shed_timers()
        return [signal.getitimer(timer) for timer in timers]

    assert in_child(work) == [(0, 0)] * 3
