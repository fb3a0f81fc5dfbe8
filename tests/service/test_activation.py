"""With a service manager: the daemon takes the socket that it is passed, leaves it alone, and says how it is doing.

A `Manager` plays systemd's part with real sockets. The real one has its turn in tests/systemd.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness
from daemon import Daemon, Service
from harness import PATIENCE_SEC, await_exit, write_tree
from harness_world import DEV1, inside
from manager import PASS_AS_3, Manager, await_connection
from wire import Gate, RawCaller

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]

@pytest.fixture
def manager() -> Iterator[Manager]:
    made = Manager()
    yield made
    made.close()


@pytest.fixture
def service(flavour: str, manager: Manager, start_service: StartService) -> Service:
    service = start_service(flavour, manager.settings(), **manager.options())
    write_tree(service.workspace, {"Makefile": "all:\n\t@echo built\n"}, service.caller)
    return service


# --- the socket -------------------------------------------------------------------------------------------------------


def test_a_passed_socket_is_served_and_left_as_it_is(service: Service, manager: Manager) -> None:
    before = manager.socket_path.stat()
    assert service.run("make").stdout == "built\n"
    service.daemon.stop()
    after = manager.socket_path.stat()
    assert (after.st_ino, after.st_mode, after.st_gid) == (before.st_ino, before.st_mode, before.st_gid)
    assert stat.S_IMODE(after.st_mode) == 0o666  # not the configured 0660


def test_who_comes_while_no_daemon_runs_is_served_by_the_next_one(
    flavour: str, service: Service, manager: Manager, start_service: StartService
) -> None:
    service.daemon.stop()
    client = service.popen("make")
    assert await_connection(manager.listener)
    start_service(flavour, manager.settings(), **manager.options())
    out, err = client.communicate(timeout=PATIENCE_SEC)
    # The second daemon has a workspace of its own where it serves one user; that it answered is what counts here.
    assert out == b"built\n" or b"must be under workspace" in err


def test_who_waits_while_the_daemon_stops_is_not_turned_away(service: Service, manager: Manager) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@trap '' TERM; echo waits; read x < gate; :\n"}, service.caller)
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as building:
        building.ask().await_output("waits\n")
        os.kill(service.daemon.pid, signal.SIGTERM)
        manager.await_message("^STOPPING=1$")
        with RawCaller(service) as waiting:
            waiting.ask()
            gate.open()
            building.exit()
            assert await_exit(service.daemon.pid)
            assert await_connection(manager.listener)
            connection, _ = manager.listener.accept()
            connection.close()


def test_a_socket_for_another_process_is_none(flavour: str, manager: Manager, start_service: StartService) -> None:
    options = manager.options(PASS_AS_3.replace("str(os.getpid())", "'1'"))
    service = start_service(flavour, **options)
    assert service.daemon.socket != manager.socket_path
    with RawCaller(service) as caller:
        assert caller.ask().exit()
    assert not select.select([manager.listener], [], [], 0)[0]


NOT_A_SOCKET_TO_LISTEN_ON = {
    "a file": (PASS_AS_3.replace("int(sys.argv[1])", "os.open('/dev/null', os.O_RDWR)"), "is no socket"),
    "a closed descriptor": (PASS_AS_3.replace("os.dup2(int(sys.argv[1]), 3)", "os.closerange(3, 4)"), "is no socket"),
    "two sockets": (PASS_AS_3.replace('LISTEN_FDS="1"', 'LISTEN_FDS="2"'), "exactly one"),
    "nonsense": (PASS_AS_3.replace('LISTEN_FDS="1"', 'LISTEN_FDS="x"'), "exactly one"),
}


@pytest.mark.parametrize("kind", NOT_A_SOCKET_TO_LISTEN_ON)
def test_what_is_no_listening_socket_is_one_line_and_the_end(kind: str, manager: Manager) -> None:
    script, reason = NOT_A_SOCKET_TO_LISTEN_ON[kind]
    refused(Daemon(**manager.options(script)), reason)


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_a_socket_that_does_not_listen_is_one_line_and_the_end(family: socket.AddressFamily, manager: Manager) -> None:
    with socket.socket(family) as idle:
        os.dup2(idle.fileno(), manager.listener.fileno())
        refused(Daemon(**manager.options()), "is no listening Unix stream socket")


def refused(daemon: Daemon, reason: str) -> None:
    try:
        with pytest.raises(AssertionError, match="did not get ready"):
            daemon.start()
        lines = daemon.errors().splitlines()
        assert len(lines) == 1 and lines[0].startswith("build-service: ") and reason in lines[0], lines
    finally:
        daemon.kill()
        daemon.remove()


# --- what the manager hears -------------------------------------------------------------------------------------------


def test_the_manager_hears_when_it_is_ready_how_many_builds_run_and_when_it_stops(
    service: Service, manager: Manager
) -> None:
    manager.await_message("^READY=1$")
    manager.await_message("^STATUS=0 builds running$")
    write_tree(service.workspace, {"Makefile": "all:\n\t@echo waits; read x < gate\n"}, service.caller)
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller:
        caller.ask().await_output("waits\n")
        manager.await_message("^STATUS=1 build running$")
        gate.open()
        caller.exit()
    manager.await_message("^STATUS=0 builds running$")
    service.daemon.stop()
    assert re.search(r"^EXTEND_TIMEOUT_USEC=\d+$", manager.await_message("^STOPPING=1$"), re.MULTILINE)


def test_a_manager_at_an_abstract_address_hears_too(
    flavour: str, manager: Manager, start_service: StartService
) -> None:
    address = f"build-service-test-{os.getpid()}"
    manager.notifications.close()
    manager.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.notifications.bind("\0" + address)
    start_service(flavour, manager.settings(), **manager.options(NOTIFY_SOCKET="@" + address))
    manager.await_message("^READY=1$")


def test_the_watchdog_is_kicked_again_and_again(flavour: str, manager: Manager, start_service: StartService) -> None:
    start_service(flavour, manager.settings(), **manager.options(WATCHDOG_USEC="200000"))
    begun = time.monotonic()
    for _ in range(5):
        manager.await_message("^WATCHDOG=1$")
    assert time.monotonic() - begun >= 0.3, "kicks come at half the watchdog's time, not in a storm"


@pytest.mark.parametrize("usec", ["5184000000000", "999999999999999999", "18446744073709551615", "9" * 400])
def test_a_watchdog_that_is_very_patient_is_no_fault(usec: str, manager: Manager, start_service: StartService) -> None:
    service = start_service("user", manager.settings(), **manager.options(WATCHDOG_USEC=usec))
    write_tree(service.workspace, {"Makefile": "all:\n\t@echo built\n"}, service.caller)
    assert service.run("make").stdout == "built\n"


def test_no_socket_passed_is_none_passed(manager: Manager, start_service: StartService) -> None:
    script = PASS_AS_3.replace('LISTEN_FDS="1"', 'LISTEN_FDS="0"')
    assert start_service("user", **manager.options(script)).daemon.socket.exists()


@pytest.mark.parametrize("usec", ["0", "-1", "soon", "²"])
def test_a_watchdog_time_that_is_none_is_no_watchdog(usec: str, manager: Manager, start_service: StartService) -> None:
    start_service("user", manager.settings(), **manager.options(WATCHDOG_USEC=usec))
    manager.await_message("^READY=1$")


def test_a_watchdog_of_another_process_is_left_alone(manager: Manager, start_service: StartService) -> None:
    options = manager.options(WATCHDOG_USEC="100000", WATCHDOG_PID="1")
    service = start_service("user", manager.settings(), **options)
    service.daemon.stop()
    manager.await_message("^STOPPING=1$")  # and a kick before it would have been the first to match below
    with pytest.raises(BlockingIOError):
        manager.notifications.setblocking(False)
        manager.notifications.recv(4096)


@pytest.mark.parametrize("address", ["/nonexistent/notify", "@nobody-listens-here", "relative"])
def test_a_manager_that_has_vanished_is_one_log_line_and_builds_go_on(
    address: str, flavour: str, manager: Manager, start_service: StartService
) -> None:
    service = start_service(flavour, manager.settings(), **manager.options(NOTIFY_SOCKET=address))
    service.daemon.await_log("WARN build_service: the service manager does not listen at NOTIFY_SOCKET")
    write_tree(service.workspace, {"Makefile": "all:\n\t@echo built\n"}, service.caller)
    for _ in range(3):
        assert service.run("make").stdout == "built\n"
    assert sum("NOTIFY_SOCKET" in line for line in service.daemon.log_lines()) == 1


def test_a_build_sees_nothing_of_the_manager(service: Service, manager: Manager) -> None:
    write_tree(service.workspace, {"Makefile": "all:\n\t@env; ls -l /proc/self/fd\n"}, service.caller)
    shown = service.run("make").stdout
    assert not re.search("LISTEN_|NOTIFY_|WATCHDOG|_BUILD_SERVICE", shown)
    assert "socket:" not in shown


def test_a_silent_client_finds_a_users_own_service_last(
    start_service: StartService, open_directory: OpenDirectory
) -> None:
    user = DEV1 if inside() else harness.current_user()
    runtime = open_directory(user)
    service = start_service("user", {"service": {"socket_path": str(runtime / "build-service/build-service.sock")}})
    write_tree(service.workspace, {"Makefile": "all:\n\t@echo built\n"}, service.caller)
    env = {"XDG_RUNTIME_DIR": str(runtime)}
    done = harness.run_as(service.caller, [service.daemon.programs / "build-cli", "make"], service.workspace, env)
    assert (done.stdout, done.stderr, done.returncode) == ("built\n", "", 0)


def test_the_line_for_no_socket_names_the_system_s_even_with_a_runtime_directory(open_directory: OpenDirectory) -> None:
    user = DEV1 if inside() else harness.current_user()
    env = {"XDG_RUNTIME_DIR": str(open_directory(user))}
    done = harness.run_as(user, [harness.BIN / "build-cli", "make"], "/", env)
    assert done.stderr == "build-service socket not found at /run/build-service.sock\n"


