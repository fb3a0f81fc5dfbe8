"""How the daemon ends, and what becomes of its builds when it, or a process of it, is stopped or killed."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

import pytest

import harness
from daemon import Service
from daemon_by_hand import kill_arbiter, say
from harness import await_exit, read_until, write_tree
from wire import (
    WAITING,
    Gate,
    RawCaller,
    assert_ended,
    foreign_processes,
    log_writer,
    parent_of,
    reap_orphans,
    waiting_make,
)

StartService = Callable[..., Service]
STOPPING = "build-service is stopping: the build was ended\n"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_when_told_to_stop_it_ends_builds_by_the_ladder_and_tells_their_callers(
    signum: signal.Signals, flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour)
    say(service, "@trap 'echo heard TERM; exit 3' TERM; echo make $$PPID waits; read x < gate")
    with Gate(service.workspace, service.caller), RawCaller(service) as raw:
        client = service.popen("make")
        assert client.stdout and client.stderr
        first = waiting_make(read_until(client.stdout.fileno(), "waits\n"))
        second = waiting_make(raw.ask(features=[]).await_output("waits\n"))
        os.kill(service.daemon.pid, signum)
        out, err = client.communicate()
        assert "heard TERM" in out.decode()
        assert err.decode().endswith(STOPPING)
        assert client.returncode not in (0, 124)
        exit_ = raw.exit()
        assert "heard TERM" in raw.text() and raw.text().endswith(STOPPING)
        assert exit_["error"] == {"kind": "stopping", "message": STOPPING.strip()}
        assert exit_["timed_out"] is False
        assert_ended(first, second)
        assert await_exit(service.daemon.pid)
    service.daemon.stop()  # it was 0, and the socket is gone
    lines = service.daemon.log_lines()
    assert sum("build cancelled" in line and "reason=" in line for line in lines) == 2, lines
    assert lines[-1].endswith("build-service stopped")


def test_a_build_that_ignores_sigterm_is_killed_after_the_grace_when_the_daemon_stops(
    flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour, {"build": {"timeouts": {"grace_sec": 1}}})
    say(service, "@trap '' TERM; echo make $$PPID waits; while :; do read x < gate; done")
    with Gate(service.workspace, service.caller), RawCaller(service) as caller:
        caller.ask().await_output("waits\n")
        os.kill(service.daemon.pid, signal.SIGTERM)
        assert caller.exit()["code"] != 0
        assert caller.text().endswith(STOPPING)
    assert await_exit(service.daemon.pid)
    assert not {process.name for process in harness.descendants(os.getpid())} & {"make", "sh"}


def test_a_daemon_that_stops_takes_no_more_callers_and_does_not_wait_for_silent_ones(service: Service) -> None:
    with RawCaller(service) as silent, RawCaller(service) as half:
        half.send(b'{"command":"make"')
        os.kill(service.daemon.pid, signal.SIGTERM)
        assert await_exit(service.daemon.pid, 8)
        refused = service.run("make")
        assert refused.stderr == f"build-service socket not found at {service.daemon.socket}\n"
        assert silent.exit()["code"] == half.exit()["code"] == 1
        assert silent.text() == half.text() == STOPPING


def test_a_second_sigterm_does_not_cut_the_ladder_short(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    on_term = "echo heard; read x < gate; echo finished; exit 0"
    say(service, f"@trap '{on_term}' TERM; echo waits; while :; do read x < gate; done")
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller:
        caller.ask().await_output("waits\n")
        os.kill(service.daemon.pid, signal.SIGTERM)
        caller.await_output("heard\n")
        os.kill(service.daemon.pid, signal.SIGTERM)
        gate.open(2)  # make passes the signal on, so the recipe may hear it, and wait, twice
        caller.exit()
        assert "finished\n" in caller.text()
    assert await_exit(service.daemon.pid)


def test_builds_of_a_killed_daemon_finish_and_the_next_one_serves_beside_them(
    flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour)
    write_tree(service.workspace, {"Makefile": f"all:\n{WAITING}quick:\n\t@echo quick\n"}, service.caller)
    with Gate(service.workspace, service.caller) as gate:
        client = service.popen("--request-id", "over-the-kill", "make")
        assert client.stdout
        read_until(client.stdout.fileno(), "waits\n")
        left = kill_arbiter(service)
        service.daemon.start()
        assert service.run("make", "quick").stdout == "quick\n"
        gate.open()
        out, err = client.communicate()
        assert (out, err, client.returncode) == (b"done\n", b"", 0)
    reap_orphans(left)
    service.daemon.await_log("build completed .*exit_code=0 .*request_id=over-the-kill")


def test_builds_of_a_killed_daemon_still_time_out(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    say(service, WAITING.strip())
    with Gate(service.workspace, service.caller):
        client = service.popen("--timeout", "1", "make")
        assert client.stdout
        make = waiting_make(read_until(client.stdout.fileno(), "waits\n"))
        left = kill_arbiter(service)
        _, err = client.communicate()
        assert client.returncode == 124
        assert err.endswith(b"build timed out after 1s\n")
        reap_orphans([make, *left])
    service.daemon.start()


def test_builds_of_a_killed_daemon_still_end_with_their_caller(flavour: str, start_service: StartService) -> None:
    service = start_service(flavour)
    say(service, WAITING.strip())
    with Gate(service.workspace, service.caller), RawCaller(service) as caller:
        make = waiting_make(caller.ask().await_output("waits\n"))
        left = kill_arbiter(service)
        caller.close()
        reap_orphans([make, *left])
    service.daemon.start()


def test_the_log_writer_that_is_killed_is_replaced_and_loses_no_build(service: Service) -> None:
    say(service, "@echo served")
    os.kill(log_writer(service), signal.SIGKILL)
    assert service.run("--request-id", "between", "make").stdout == "served\n"
    service.daemon.await_log("the log writer had ended and was started again")
    service.daemon.await_log("build completed .*request_id=between")


def test_a_session_that_is_killed_is_reported_and_nothing_of_its_build_is_left(service: Service) -> None:
    hidden = "setsid sh -c 'trap \"\" TERM INT HUP; echo hidden $$$$; exec 3<gate; read x <&3' &"
    say(service, f"@{hidden} echo make $$PPID waits; read x < gate")
    with Gate(service.workspace, service.caller):
        client = service.popen("make")
        assert client.stdout
        text = read_until(client.stdout.fileno(), r"(?s)(?=.*waits\n).*hidden \d+\n")
        make, away = waiting_make(text), int(re.findall(r"hidden (\d+)", text)[0])
        os.kill(parent_of(make), signal.SIGKILL)
        _, err = client.communicate()
        expected = b"invalid response from build-service: the connection ended before the build's exit\n"
        assert (err, client.returncode) == (expected, 1)
        service.daemon.await_log("a session was killed pid=[0-9]+ signal=9")
        service.daemon.await_log("ended what a killed session left running processes=.*make")
        assert_ended(make, away)
    say(service, "@echo served")
    assert service.run("make").stdout == "served\n"
    assert not foreign_processes(service.daemon)


def test_a_build_that_timed_out_is_logged_while_its_caller_does_not_read(service: Service) -> None:
    say(service, "@yes")
    with RawCaller(service) as caller:
        caller.ask(timeout_sec=1)
        service.daemon.await_log("WARN build_service: build timed out .*exit_code=124 ")
        assert caller.exit() == {"type": "exit", "code": 124, "timed_out": True}
