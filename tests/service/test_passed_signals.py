"""Signals for a build that do not end it; and its clock, which stands while the build does."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator

import pytest
from test_faults import Faults

import harness
from daemon import Service
from harness import await_exit, processes, read_until, write_tree
from wire import WAITING, Gate, RawCaller, assert_ended, parent_of, waiting_make

StartService = Callable[..., Service]

TIMEOUT_SEC = 40
MAX_SEC = 100

HEARS = "@trap 'echo heard {name} >&2' {name}; echo make $$PPID waits; until read x < gate; do :; done; echo done"


def recipe(service: Service, line: str) -> None:
    write_tree(service.workspace, {"Makefile": f"all:\n\t{line}\n"}, service.caller)


def state(pid: int) -> str:
    return processes()[pid].state


def test_a_signal_for_make_reaches_make_alone(service: Service) -> None:
    """As `kill` of a local make does: make itself ends by it, and its recipe hears nothing."""
    recipe(service, HEARS.format(name="USR2"))
    with Gate(service.workspace, service.caller), service.popen("make") as client:
        assert client.stdout and client.stderr
        make = waiting_make(read_until(client.stdout.fileno(), "waits\n"))
        client.send_signal(signal.SIGUSR2)
        assert_ended(make)
        errors = client.stderr.read().decode()
        assert client.wait() == 128 + signal.SIGUSR2
    assert "heard" not in errors


def test_make_begins_to_debug_when_it_is_told_to(service: Service) -> None:
    """GNU make does so at SIGUSR1. It has had that when its recipe hears of what was sent next."""
    recipe(service, "@trap 'echo heard USR1 >&2' USR1; " + HEARS.format(name="WINCH")[1:])
    with Gate(service.workspace, service.caller) as gate, service.popen("make") as client:
        assert client.stdout and client.stderr
        read_until(client.stdout.fileno(), "waits\n")
        client.send_signal(signal.SIGUSR1)
        client.send_signal(signal.SIGWINCH)
        read_until(client.stderr.fileno(), "heard WINCH\n")
        gate.open(2)
        out, errors = client.communicate()
        assert client.returncode == 0
    assert b"Successfully remade target file 'all'." in out and b"heard" not in errors


def test_a_window_s_new_size_is_told_to_everything_of_the_build(service: Service) -> None:
    recipe(service, HEARS.format(name="WINCH"))
    with Gate(service.workspace, service.caller) as gate, service.popen("make") as client:
        assert client.stdout and client.stderr
        read_until(client.stdout.fileno(), "waits\n")
        client.send_signal(signal.SIGWINCH)
        read_until(client.stderr.fileno(), "heard WINCH\n")
        gate.open(2)
        assert client.wait() == 0


@pytest.mark.parametrize("more", [',"signal":"KILL"', "", ',"signal":9', ',"signal":["STOP"]'])
def test_another_signal_is_none(more: str, service: Service) -> None:
    recipe(service, WAITING.strip())
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller:
        caller.ask().await_output("waits\n")
        caller.send(b'{"type":"signal"%s}\n' % more.encode())
        gate.open()
        assert (caller.exit()["code"], caller.text().splitlines()[-1]) == (0, "done")


# --- a build that stands still ----------------------------------------------------------------------------------------


@pytest.fixture
def faults() -> Iterator[Faults]:
    directory = harness.open_directory()
    made = Faults(directory)
    yield made
    made.close()
    shutil.rmtree(directory)


@pytest.fixture
def timed(flavour: str, faults: Faults, start_service: StartService) -> Service:
    timeouts = {"default_sec": TIMEOUT_SEC, "max_sec": MAX_SEC, "grace_sec": 1}
    service = start_service(flavour, {"build": {"timeouts": timeouts}}, env=faults.env)
    recipe(service, WAITING.strip())
    return service


def stop(caller: RawCaller) -> None:
    """Has the build stand still, and waits until it does."""
    caller.send(b'{"type":"signal","signal":"STOP"}\n')
    while not any(event["type"] == "stopped" for event in caller.events):
        assert caller.next_event()


def wait_in(caller: RawCaller) -> int:
    return waiting_make(caller.ask(features=["details", "stopped"]).await_output("waits\n"))


def test_everything_of_it_stands_still_and_goes_on(service: Service) -> None:
    recipe(service, "@sh -c 'setsid sh -c \"echo inner $$\\$$; read x < gate\"; :' & echo make $$PPID waits; wait")
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller:
        make = wait_in(caller)
        inner = int(re.findall(r"inner (\d+)", caller.await_output(r"inner \d+\n"))[0])
        stop(caller)
        assert {state(make), state(inner)} == {"T"}
        caller.send(b'{"type":"signal","signal":"CONT"}\n')
        gate.open()
        assert caller.exit()["code"] == 0


def test_its_clock_stands_with_it(timed: Service, faults: Faults) -> None:
    with Gate(timed.workspace, timed.caller) as gate, RawCaller(timed) as caller:
        session = parent_of(wait_in(caller))
        stop(caller)
        faults.let_pass(MAX_SEC - 10)
        os.kill(session, signal.SIGCHLD)  # whatever wakes it: it looks at the clock
        caller.send(b'{"type":"signal","signal":"CONT"}\n')
        gate.open()
        exit_ = caller.exit()
    assert (exit_["code"], exit_["timed_out"], caller.text().splitlines()[-1]) == (0, False, "done")


def test_what_it_stood_still_is_no_more_time_to_run(timed: Service, faults: Faults) -> None:
    with Gate(timed.workspace, timed.caller), RawCaller(timed) as caller:
        session = parent_of(wait_in(caller))
        stop(caller)
        faults.let_pass(MAX_SEC - 10)
        caller.send(b'{"type":"signal","signal":"CONT"}\n')
        caller.send(b'{"type":"signal","signal":"STOP"}\n')
        while [event["type"] for event in caller.events].count("stopped") < 2:
            assert caller.next_event()
        caller.send(b'{"type":"signal","signal":"CONT"}\n')
        faults.let_pass(MAX_SEC - 10 + TIMEOUT_SEC + 1)
        os.kill(session, signal.SIGCHLD)
        exit_ = caller.exit()
    assert (exit_["code"], exit_["timed_out"]) == (124, True)


def test_a_stop_that_is_never_continued_is_a_timeout(timed: Service, faults: Faults) -> None:
    with Gate(timed.workspace, timed.caller), RawCaller(timed) as caller:
        make = wait_in(caller)
        session = parent_of(make)
        stop(caller)
        faults.let_pass(MAX_SEC + TIMEOUT_SEC - 2)
        os.kill(session, signal.SIGCHLD)
        assert not await_exit(make, 0.2)
        faults.let_pass(MAX_SEC + TIMEOUT_SEC + 1)
        os.kill(session, signal.SIGCHLD)
        exit_ = caller.exit()
        assert_ended(make)
    assert (exit_["code"], exit_["timed_out"]) == (124, True)
    timed.daemon.await_log("build timed out")


@pytest.mark.parametrize("end", ["cancel", "hang up", "stop"])
def test_a_build_that_stands_still_ends_as_any_other(end: str, service: Service) -> None:
    recipe(service, WAITING.strip())
    with Gate(service.workspace, service.caller), RawCaller(service) as caller:
        make = wait_in(caller)
        stop(caller)
        if end == "cancel":
            caller.send(b'{"type":"cancel","signal":"INT"}\n')
        elif end == "hang up":
            caller.close()
        else:
            service.daemon.stop()
        assert_ended(make)


def test_a_caller_that_did_not_ask_is_not_told(service: Service) -> None:
    recipe(service, WAITING.strip())
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller:
        make = waiting_make(caller.ask(features=["details"]).await_output("waits\n"))
        caller.send(b'{"type":"signal","signal":"STOP"}\n')
        caller.send(b'{"type":"signal","signal":"CONT"}\n')
        gate.open()
        assert caller.exit()["code"] == 0
        assert_ended(make)
    assert {event["type"] for event in caller.events} == {"stdout", "exit"}
