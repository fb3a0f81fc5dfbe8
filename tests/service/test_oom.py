"""When memory runs out a build is what ends, and the service lives: in a control group such as MemoryMax= makes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness
from buildcore.system import oomscore
from daemon import Service
from harness import write_tree
from harness_world import DEV1, DEV2
from memory_group import MemoryGroup, memory_group
from wire import WAITING, Gate, RawCaller, at_rest, parent_of, waiting_make

StartService = Callable[..., Service]

LIMIT_BYTES = 300 << 20
PROCESSES = 120
PROCESS_BYTES = 4 << 20

EATER = f"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void) {{
    for (int i = 0; i < {PROCESSES}; i++) {{
        int ends[2];
        char byte;
        if (pipe(ends) != 0)
            return 1;
        if (fork() == 0) {{
            memset(malloc({PROCESS_BYTES}), i + 1, {PROCESS_BYTES});
            if (write(ends[1], "x", 1) == 1)
                close(ends[1]);
            pause();
        }}
        close(ends[1]);
        if (read(ends[0], &byte, 1) == 0)
            puts("one was ended");
        close(ends[0]);
    }}
}}
"""
"""Many small processes, each smaller than any of the service, that together need more memory than there is."""

CAP_SYS_RESOURCE = 24


def may_lower_scores() -> bool:
    status = Path("/proc/self/status").read_text()
    (effective,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> CAP_SYS_RESOURCE & 1)


def score_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    try:
        with memory_group() as made:
            yield made
    except LookupError as exc:
        pytest.skip(str(exc))


@pytest.mark.needs_root
def test_a_build_that_eats_all_memory_is_ended_and_the_service_and_its_sessions_live(
    group: MemoryGroup, start_service: StartService
) -> None:
    service = start_service("root", launcher=group.launcher())
    makefile = "all: eat\n\t@./eat\neat: eat.c\n\t@cc -O0 -o eat eat.c\n"
    write_tree(service.workspace, {"Makefile": makefile, "eat.c": EATER}, DEV1)
    assert service.run("make", "eat").returncode == 0
    group.limit(LIMIT_BYTES)
    others = service.daemon.workspace_of(DEV2)
    write_tree(others, {"Makefile": f"all:\n\t@echo built\nwait:\n{WAITING}"}, DEV2)
    with Gate(others, DEV2) as gate, RawCaller(service, DEV2) as other:
        other.ask("wait", cwd=str(others)).await_output("waits\n")
        session = parent_of(waiting_make(other.text()))
        built = service.run("make")
        assert group.killed() > 0, built
        assert "a session was killed" not in "".join(service.daemon.log_lines())
        gate.open()
        assert other.exit()["code"] in (0, 2)  # its small make may have had to go for the larger build
        assert harness.await_exit(session)
    assert service.run("make", user=DEV2, cwd=others).stdout == "built\n"
    assert at_rest(service.daemon)


# --- the scores ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("started", "own", "expected"),
    [
        (0, -900, 0),
        (-900, -900, 0),
        (-1000, -1000, 0),
        (500, -900, 500),
        (0, 0, 300),
        (200, 200, 500),
        (-100, -100, 200),
        (-500, -500, 0),
        (900, 900, 1000),
    ],
)
def test_builds_have_the_neutral_score_or_a_higher_one_and_never_one_near_the_service_s(
    started: int, own: int, expected: int
) -> None:
    assert oomscore.of_builds(started, own) == expected


SCORES = """all:
\t@cat /proc/self/oom_score_adj
\t@{ echo $(LOWER) > /proc/self/oom_score_adj; } 2> /dev/null; cat /proc/self/oom_score_adj
"""
"""Shows the score that a build has, and the one that it has behind an attempt to lower it."""

STARTER = "echo $0 > /proc/self/oom_score_adj && exec \"$@\""


def scores(service: Service, lower: int) -> tuple[int, int]:
    write_tree(service.workspace, {"Makefile": SCORES}, service.caller)
    built = service.run("make", "-s", f"LOWER={lower}")
    assert (built.returncode, built.stderr) == (0, ""), built
    had, has = map(int, built.stdout.split())
    return had, has


@pytest.mark.needs_root
@pytest.mark.parametrize("started", [0, 500])
def test_the_service_protects_itself_and_none_of_its_builds(started: int, start_service: StartService) -> None:
    service = start_service("root", launcher=["/bin/sh", "-c", STARTER, str(started)])
    own = score_of(service.daemon.pid)
    write_tree(service.workspace, {"wait.mk": f"all:\n{WAITING}"}, DEV1)
    with Gate(service.workspace, DEV1) as gate, RawCaller(service) as held:
        make = waiting_make(held.ask("-f", "wait.mk").await_output("waits\n"))
        builds = {process.pid for process in harness.descendants(parent_of(make))}
        others = {process.pid for process in harness.descendants(service.daemon.pid)} - builds
        assert {score_of(pid) for pid in others} == {own}
        expected = started if may_lower_scores() else started + oomscore.APART
        assert {score_of(pid) for pid in builds} == {expected}
        gate.open()
        assert held.exit()["code"] == 0
    had, has = scores(service, lower=own)
    assert had == expected
    lines = [line for line in service.daemon.log_lines() if "OOM score" in line]
    if may_lower_scores():
        assert (own, has, lines) == (oomscore.PROTECTED, had, [])
    else:
        assert own == started
        assert "builds have a higher one" in lines[0]
        if has != had:  # root without CAP_SYS_RESOURCE cannot keep a build from it, and says so
            assert " WARN " in lines[1] and "a build may take the OOM score of the service" in lines[1]


@pytest.mark.needs_root
def test_builds_after_a_reload_have_the_same_score(start_service: StartService) -> None:
    service = start_service("root", launcher=["/bin/sh", "-c", STARTER, "500"])
    own = score_of(service.daemon.pid)
    before = scores(service, lower=own)[0]
    for count in (2, 3):
        os.kill(service.daemon.pid, signal.SIGHUP)
        service.daemon.await_log("build-service listens", count=count)
        assert score_of(service.daemon.pid) == own
        assert scores(service, lower=own)[0] == before
    said = sum("OOM score" in line for line in service.daemon.log_lines())
    assert said == (0 if may_lower_scores() else 2)


def test_a_user_s_own_service_has_its_builds_go_first(start_service: StartService) -> None:
    service = start_service("user")
    own = score_of(service.daemon.pid)
    assert scores(service, lower=1000)[0] == oomscore.of_builds(own, own) > own
    assert "OOM score" not in "".join(service.daemon.log_lines())
