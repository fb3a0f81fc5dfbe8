"""The running daemon: what it inherits reaches no build, and it never stands still."""

from __future__ import annotations

import itertools
import os
import select
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import harness
from daemon import Service
from daemon_by_hand import say, wrapped_daemon
from harness import await_exit, write_tree
from wire import WAITING, Gate, RawCaller, at_rest, limit, parent_of, session_ahead, waiting_make

StartService = Callable[..., Service]
C_LIBRARYS_OWN = 1 << 31 | 1 << 32
"""Signals 32 and 33 as bits of proc(5): the C library's posix_spawn(3), by which make starts a recipe, ignores them."""

MANY_BUILDS = 60
"""More than the 40 children at which a stock socketserver.ForkingMixIn stops to accept."""


# --- what the daemon inherits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">&- 2>&-"])
def test_a_daemon_that_starts_without_standard_descriptors_serves(
    closed: str, flavour: str, start_service: StartService
) -> None:
    with wrapped_daemon("", closed) as programs:
        service = start_service(flavour, programs=programs)
        say(service, "@echo out", "@echo err >&2", "@cat")
        built = service.run("make")
        assert (built.stdout, built.stderr, built.returncode) == ("out\n", "err\n", 0)
        service.daemon.await_log("build completed")


def test_a_build_gets_no_descriptor_that_the_daemon_was_started_with(flavour: str, start_service: StartService) -> None:
    with wrapped_daemon("", "3</etc/passwd 7</etc/passwd 9>/dev/null") as programs:
        service = start_service(flavour, programs=programs)
        say(service, "@ls -l /proc/self/fd")
        built = service.run("make")
    shown = [line.split(" ", 8)[-1].strip() for line in built.stdout.splitlines()[1:]]
    numbers = sorted(int(line.split()[-3]) for line in built.stdout.splitlines()[1:])
    assert numbers == [0, 1, 2, 3], shown  # 3 is the directory that ls lists
    assert "/etc/passwd" not in built.stdout
    assert "0 -> /dev/null" in built.stdout


def test_signals_that_the_daemon_was_started_with_ignored_do_not_reach_a_build_ignored(
    flavour: str, start_service: StartService
) -> None:
    with wrapped_daemon("trap '' HUP INT QUIT PIPE USR1 TERM") as programs:
        service = start_service(flavour, programs=programs)
        say(service, "@grep -E 'Sig(Ign|Blk)' /proc/self/status")
        built = service.run("make")
    for line in built.stdout.splitlines():
        bits = int(line.split()[1], 16)
        assert bits & ~C_LIBRARYS_OWN == 0, built.stdout
    assert built.stdout.count("Sig") == 2


# --- it never stands still --------------------------------------------------------------------------------------------


def test_many_builds_at_once_do_not_stop_the_next_one(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    write_tree(service.workspace, {"Makefile": f"all:\n{WAITING}quick:\n\t@echo quick\n"}, service.caller)
    with Gate(service.workspace, service.caller) as gate, ExitStack() as stack:
        callers = [stack.enter_context(RawCaller(service)).ask() for _ in range(MANY_BUILDS)]
        for caller in callers:
            caller.await_output("waits\n")
        with RawCaller(service) as one_more:
            assert one_more.ask("quick").exit()["code"] == 0
            assert one_more.text() == "quick\n"
        gate.open(MANY_BUILDS)
        assert [caller.exit()["code"] for caller in callers] == [0] * MANY_BUILDS
    assert at_rest(service.daemon)


def test_silent_callers_hold_nobody_up(service: Service) -> None:
    say(service, "@echo served")
    with ExitStack() as stack:
        for count in range(MANY_BUILDS):
            caller = stack.enter_context(RawCaller(service))
            caller.send(b'{"command":' if count % 2 else b"")
        assert service.run("make").stdout == "served\n"
    assert at_rest(service.daemon)


def test_without_a_descriptor_for_the_next_caller_the_daemon_waits_and_goes_on(
    flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour)
    say(service, "@echo served")
    used = {int(name) for name in os.listdir(f"/proc/{service.daemon.pid}/fd")}
    before = limit(service, "RLIMIT_NOFILE", next(number for number in itertools.count() if number not in used))
    with RawCaller(service) as caller:
        caller.ask()
        service.daemon.await_log("ERROR build_service: cannot accept a caller reason=")
        limit(service, "RLIMIT_NOFILE", before)
        assert caller.exit()["code"] == 0
        assert caller.text() == "served\n"


def test_without_a_process_for_a_caller_the_daemon_tells_it_and_goes_on(start_service: StartService) -> None:
    service = start_service("user", {"service": {"prefork": 0}})
    say(service, "@echo served")
    before = limit(service, "RLIMIT_NPROC", 0)
    refused = service.run("make")
    limit(service, "RLIMIT_NPROC", before)
    expected = "build-service cannot serve this request: Resource temporarily unavailable\n"
    assert (refused.stdout, refused.stderr, refused.returncode) == ("", expected, 1)
    assert service.run("make").stdout == "served\n"


@pytest.mark.parametrize("prefork", [0, 1, 4])
def test_so_many_sessions_as_configured_are_forked_ahead(
    prefork: int, flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour, {"service": {"prefork": prefork}})
    say(service, "@echo served")
    for _ in range(prefork + 2):
        assert service.run("make").stdout == "served\n"
    assert at_rest(service.daemon, prefork)


def test_a_session_forked_ahead_that_is_killed_is_replaced(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    say(service, "@echo served")
    for _ in range(3):
        idle = session_ahead(service)
        os.kill(idle, signal.SIGKILL)
        assert await_exit(idle)
        assert service.run("make").stdout == "served\n"
    service.daemon.await_log("a session was killed pid=[0-9]+ signal=9")
    assert at_rest(service.daemon)


def wake_ups(pids: list[int]) -> list[str]:
    """How often each process gave up the processor because it had nothing to do (proc(5))."""
    counts = []
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        counts.append(next(line for line in lines if line.startswith("voluntary_ctxt_switches")))
    return counts


def test_nothing_wakes_up_while_nothing_happens(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": f"all:\n{WAITING}"}, service.caller)
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller:
        make = waiting_make(caller.ask().await_output("waits\n"))
        assert parent_of(make) in {process.pid for process in harness.descendants(service.daemon.pid)}
        quiet = select.select([caller.socket], [], [], 0.2)  # what the build's start still set going comes to rest
        pids = [service.daemon.pid, *sorted(process.pid for process in harness.descendants(service.daemon.pid))]
        before = wake_ups(pids)
        assert quiet == select.select([caller.socket], [], [], 0.5) == ([], [], [])
        assert wake_ups(pids) == before
        gate.open()
        assert caller.exit()["code"] == 0
