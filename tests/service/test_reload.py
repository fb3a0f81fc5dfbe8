"""SIGHUP: the daemon goes on as the installed program with a new configuration, and nobody who builds notices."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import harness
from buildcore.service import reload as reload_module
from daemon import Service, merged, toml
from harness import PATIENCE_SEC, await_exit, read_until, write_tree
from manager import Manager, await_connection
from wire import WAITING, Gate, RawCaller, assert_ended, at_rest, parent_of, reap_adopted, waiting_make

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]

LISTENS = r"INFO build_service: build-service listens "


@pytest.fixture
def manager() -> Iterator[Manager]:
    made = Manager()
    yield made
    made.close()


@pytest.fixture
def managed(flavour: str, manager: Manager, start_service: StartService) -> Service:
    """A service whose socket and notifications are a manager's."""
    return start_service(flavour, manager.settings(), **manager.options())


def lines_of(service: Service, pattern: str) -> list[str]:
    return [line for line in service.daemon.log_lines() if re.search(pattern, line)]


def configure(service: Service, **settings: object) -> None:
    text = toml(merged(service.daemon.settings, settings))
    write_tree(service.daemon.directory, {"config.toml": text})


def reload(service: Service, times: int = 1) -> None:
    """Sends SIGHUP and waits for the line of the program that the daemon became, the `times`th after its first."""
    os.kill(service.daemon.pid, signal.SIGHUP)
    service.daemon.await_log(LISTENS, count=times + 1)


def greet(service: Service) -> None:
    write_tree(service.workspace, {"Makefile": f"quick:\n\t@echo quick\nslow:\n{WAITING}"}, service.caller)


def test_a_reload_keeps_pid_socket_and_running_builds(service: Service) -> None:
    greet(service)
    before = service.daemon.socket.stat()
    with Gate(service.workspace, service.caller) as gate:
        client = service.popen("make", "slow")
        assert client.stdout
        read_until(client.stdout.fileno(), "waits\n")
        reload(service)
        assert f"pid={service.daemon.pid} " in lines_of(service, LISTENS)[1]
        assert lines_of(service, LISTENS)[1].endswith(" builds=1")
        assert service.run("make", "quick").stdout == "quick\n"
        gate.open()
        assert client.communicate() == (b"done\n", b"")
        assert client.returncode == 0
    after = service.daemon.socket.stat()
    assert (after.st_ino, after.st_mode, after.st_gid) == (before.st_ino, before.st_mode, before.st_gid)
    assert at_rest(service.daemon)
    service.daemon.stop()
    assert len(lines_of(service, "build completed .* exit_code=0 ")) == 2


def test_the_next_caller_gets_the_new_configuration(service: Service) -> None:
    greet(service)
    assert service.run("id").returncode == 1
    configure(service, build={"commands": {"make": "/usr/bin/make", "id": "/usr/bin/id"}})
    reload(service)
    assert service.run("id", "-u").stdout == f"{service.caller.uid}\n"


def test_the_log_goes_where_the_new_configuration_says_and_no_line_is_lost(service: Service) -> None:
    greet(service)
    with Gate(service.workspace, service.caller) as gate:
        client = service.popen("--request-id", "over-the-reload", "make", "slow")
        assert client.stdout
        read_until(client.stdout.fileno(), "waits\n")
        elsewhere = service.daemon.directory / "elsewhere"
        elsewhere.mkdir()
        harness.give(elsewhere, service.daemon.user)
        first = service.daemon.log_path
        configure(service, logging={"directory": str(elsewhere)})
        service.daemon.log_path = elsewhere / "build-service.log"
        os.kill(service.daemon.pid, signal.SIGHUP)
        service.daemon.await_log(LISTENS)
        gate.open()
        client.communicate()
        service.daemon.await_log("build completed .* request_id=over-the-reload")
    text = first.read_text() + service.daemon.log_path.read_text()
    assert len(re.findall("request_id=over-the-reload", text)) == 2
    assert "log writer had ended" not in text


def test_a_log_that_cannot_be_written_after_a_reload_stops_no_build(service: Service) -> None:
    greet(service)
    configure(service, logging={"directory": "/nonexistent/log"})
    os.kill(service.daemon.pid, signal.SIGHUP)
    service.daemon.await_log("build-service reloads")
    service.daemon.await_error("cannot write the log file, lines are dropped path=/nonexistent/log/build-service.log")
    assert service.run("make", "quick").stdout == "quick\n"


def test_reloads_in_a_row_and_many_builds_lose_nothing(service: Service) -> None:
    greet(service)
    with Gate(service.workspace, service.caller) as gate, ExitStack() as stack:
        callers = []
        for count in range(4):
            caller = stack.enter_context(RawCaller(service))
            caller.ask("slow").await_output("waits\n")
            callers.append(caller)
            reload(service, count + 1)
        gate.open(len(callers))
        for caller in callers:
            assert caller.exit()["code"] == 0
            assert caller.text().endswith("done\n")
    assert at_rest(service.daemon)


def test_a_stop_after_a_reload_ends_the_builds_from_before_it_by_the_ladder(service: Service) -> None:
    greet(service)
    with Gate(service.workspace, service.caller), RawCaller(service) as caller:
        make = waiting_make(caller.ask("slow", features=[]).await_output("waits\n"))
        reload(service)
        service.daemon.stop()
        assert caller.exit()["error"]["kind"] == "stopping"
        assert await_exit(make)


def test_a_session_from_before_the_reload_that_is_killed_is_reported_and_leaves_nothing(service: Service) -> None:
    greet(service)
    with Gate(service.workspace, service.caller), RawCaller(service) as caller:
        make = waiting_make(caller.ask("slow").await_output("waits\n"))
        session = parent_of(make)
        build = sorted(process.pid for process in harness.descendants(session))
        reload(service)
        os.kill(session, signal.SIGKILL)
        service.daemon.await_log(f"a session was killed pid={session} signal=9")
        assert_ended(*build)


BROKEN = {
    "no TOML": ("[build\n", "not valid TOML"),
    "a wrong value": ('[build.timeouts]\nmax_sec = "soon"\n', "build.timeouts.max_sec: must be a whole number"),
    "another format": ('schema_version = "2"\n', "schema_version: must be"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_refused_with_its_faults_and_everything_stays(kind: str, service: Service) -> None:
    greet(service)
    text, fault = BROKEN[kind]
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller:
        caller.ask("slow").await_output("waits\n")
        write_tree(service.daemon.directory, {"config.toml": text})
        os.kill(service.daemon.pid, signal.SIGHUP)
        line = service.daemon.await_log("ERROR build_service: reload refused, everything stays as it was fault=")
        assert fault in line and str(service.daemon.config) in line
        assert service.run("make", "quick").stdout == "quick\n"
        gate.open()
        assert caller.exit()["code"] == 0
    assert len(lines_of(service, LISTENS)) == 1
    configure(service)
    reload(service)


def test_two_faults_are_two_lines(service: Service) -> None:
    write_tree(service.daemon.directory, {"config.toml": "[service]\nprefork = -1\nport = 80\n"})
    os.kill(service.daemon.pid, signal.SIGHUP)
    service.daemon.await_log("reload refused.*service.port: unknown key")
    assert lines_of(service, "reload refused.*service.prefork: must be")


def test_a_signal_that_comes_during_a_trial_counts(service: Service) -> None:
    """The file may have changed since the trial read it."""
    greet(service)
    for _ in range(3):
        os.kill(service.daemon.pid, signal.SIGHUP)
    service.daemon.await_log(LISTENS, count=2)
    configure(service, build={"commands": {"id": "/usr/bin/id"}})
    os.kill(service.daemon.pid, signal.SIGHUP)
    service.daemon.await_log(LISTENS, count=3)
    assert service.run("id", "-u").returncode == 0
    reap_adopted()  # what the launcher of a trial that was killed had started


def test_sigterm_during_a_reload_ends_the_service_in_order(service: Service) -> None:
    greet(service)
    with Gate(service.workspace, service.caller), RawCaller(service) as caller:
        caller.ask("slow").await_output("waits\n")
        os.kill(service.daemon.pid, signal.SIGHUP)
        service.daemon.await_log("build-service reloads")
        service.daemon.stop()
        assert caller.exit()["code"] != 0
        assert caller.text().endswith("build-service is stopping: the build was ended\n")
    reap_adopted()  # what the launcher of the trial had started


def test_callers_that_come_during_a_reload_are_served(service: Service) -> None:
    greet(service)
    os.kill(service.daemon.pid, signal.SIGHUP)
    for number in range(1, 40):
        assert service.run("make", "quick").stdout == "quick\n"
        if len(lines_of(service, LISTENS)) > 1:
            return
        assert number < 39, "the reload did not come to its end"


# --- the installed program --------------------------------------------------------------------------------------------


@pytest.fixture
def installed(open_directory: OpenDirectory) -> Path:
    """A directory with copies of the programs and the library, which a test may change."""
    directory = open_directory()
    for name in ("bin", "lib"):
        shutil.copytree(harness.TREE / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    return directory


def test_the_daemon_becomes_the_program_that_is_installed_now(
    installed: Path, flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour, programs=installed / "bin")
    greet(service)
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller:
        caller.ask("slow").await_output("waits\n")
        version = installed / "lib/buildcore/__init__.py"
        version.write_text(re.sub(r'(__version__ = ").*"', r'\g<1>9.9.9"', version.read_text()))
        reload(service)
        assert " version=9.9.9" in lines_of(service, LISTENS)[1]
        gate.open()
        assert caller.exit()["code"] == 0


def test_an_installed_program_that_does_not_run_changes_nothing(
    installed: Path, flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour, programs=installed / "bin")
    greet(service)
    module = installed / "lib/buildcore/service/main.py"
    text = module.read_text()
    module.write_text("this is no Python")
    os.kill(service.daemon.pid, signal.SIGHUP)
    service.daemon.await_log("reload refused.*SyntaxError")
    (installed / "bin/build-service").rename(installed / "bin/away")
    os.kill(service.daemon.pid, signal.SIGHUP)
    service.daemon.await_log("reload refused.*cannot run .*No such file or directory")
    assert service.run("make", "quick").stdout == "quick\n"
    (installed / "bin/away").rename(installed / "bin/build-service")
    module.write_text(text)
    reload(service)


def test_a_program_that_does_not_know_the_handover_is_not_become(
    installed: Path, flavour: str, start_service: StartService
) -> None:
    service = start_service(flavour, programs=installed / "bin")
    module = installed / "lib/buildcore/service/reload.py"
    module.write_text(module.read_text().replace("READABLE = (1, 2)", "READABLE = (1,)"))
    os.kill(service.daemon.pid, signal.SIGHUP)
    service.daemon.await_log("reload refused.*hands over in version 2, this program reads 1")


def test_what_the_trial_accepted_is_what_counts_whatever_becomes_of_the_file(
    installed: Path, flavour: str, start_service: StartService
) -> None:
    """The installed program breaks the file here as soon as its trial has accepted it."""
    service = start_service(flavour, programs=installed / "bin")
    greet(service)
    configure(service, build={"commands": {"make": "/usr/bin/make", "id": "/usr/bin/id"}})
    module = installed / "lib/buildcore/service/reload.py"
    changed = f"\n    open({str(service.daemon.config)!r}, 'w').write('[broken')\n\n\nclass Trial:"
    module.write_text(module.read_text().replace("\n\n\nclass Trial:", changed))
    reload(service)
    assert service.daemon.config.read_text() == "[broken"
    assert service.run("id", "-u").stdout == f"{service.caller.uid}\n"
    os.kill(service.daemon.pid, signal.SIGHUP)
    service.daemon.await_log("reload refused.*not valid TOML")


def test_sigterm_that_comes_with_the_end_of_a_trial_is_not_forgotten(
    installed: Path, flavour: str, start_service: StartService
) -> None:
    """The daemon stands still until both are there, so that it hears of them at once."""
    service = start_service(flavour, programs=installed / "bin")
    program, real, gate = (installed / "bin" / name for name in ("build-service", "real", "gate"))
    program.rename(real)
    os.mkfifo(gate)
    write_tree(program.parent, {program.name: f"#!/bin/sh\nread line < {gate}\nexec {real} \"$@\"\n"})
    program.chmod(0o755)
    os.kill(service.daemon.pid, signal.SIGHUP)
    with open(gate, "w") as writer:  # the trial has opened it
        (trial,) = (each.pid for each in harness.descendants(service.daemon.pid) if _is_trial(each.pid))
        os.kill(service.daemon.pid, signal.SIGSTOP)
        writer.write("go\n")
    assert await_exit(trial)
    os.kill(service.daemon.pid, signal.SIGTERM)
    os.kill(service.daemon.pid, signal.SIGCONT)
    assert await_exit(service.daemon.pid)
    assert len(lines_of(service, LISTENS)) == 1
    assert lines_of(service, "build-service stopped")


def _is_trial(pid: int) -> bool:
    return b"--check-config" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


@pytest.mark.parametrize("kind", ["another server's socket", "a link"])
def test_what_took_the_place_of_the_socket_is_left_alone(kind: str, service: Service) -> None:
    path, victim = service.daemon.socket, service.daemon.directory / "victim"
    path.rename(service.daemon.directory / "moved")
    with socket.socket(socket.AF_UNIX) as other:
        if kind == "a link":
            victim.touch(0o600)
            path.symlink_to(victim)
        else:
            other.bind(str(path))
            path.chmod(0o600)
        before = path.stat()
        reload(service)
        service.daemon.await_log("ERROR build_service: the socket keeps its group and mode reason=")
        assert (path.stat().st_mode, path.stat().st_gid) == (before.st_mode, before.st_gid)
        os.kill(service.daemon.pid, signal.SIGTERM)
        assert await_exit(service.daemon.pid)
        assert path.stat().st_ino == before.st_ino
        path.unlink()


def test_a_file_with_many_warnings_is_no_worse_than_one_with_none(service: Service) -> None:
    greet(service)
    missing = {f"tool{number}": f"/nonexistent/{'x' * 200}/{number}" for number in range(200)}
    configure(service, build={"commands": {"make": "/usr/bin/make", **missing}})
    reload(service)
    assert service.run("make", "quick").stdout == "quick\n"


def test_a_handover_of_very_many_builds_has_room() -> None:
    sessions = tuple((pid, 4294967295) for pid in range(4_000_000, 4_100_000))
    handover = reload_module.Handover(1, 0, 0, 0, True, (0, 0, 0, 0), 1, sessions, ())
    assert reload_module.take({reload_module.VARIABLE: str(handover.file())}) == handover


def test_builds_start_and_end_while_the_program_s_own_file_is_overwritten(
    flavour: str, open_directory: OpenDirectory, start_service: StartService
) -> None:
    """A package replaces the single file under a running daemon: nothing is read from it any more."""
    programs = open_directory()
    command = ["make", "-s", "-C", str(harness.ROOT), "dist", f"DIST={programs}"]
    subprocess.run([*command, f"PYTHON={harness.daemon_python_directory()}/python3"], check=True, capture_output=True)
    service = start_service(flavour, programs=programs)
    greet(service)
    client = programs / "build-service"
    with open(client, "r+b") as file:
        file.write(b"x" * client.stat().st_size)
    for _ in range(3):
        assert service.run("make", "quick").stdout == "quick\n"
    assert service.run("nonsense").returncode == 1
    with RawCaller(service) as caller:
        assert caller.send(b"{nonsense}\n").exit()["code"] == 1
    service.daemon.stop()


# --- with a manager ---------------------------------------------------------------------------------------------------


def test_the_manager_hears_of_the_reload_and_keeps_its_socket(managed: Service, manager: Manager) -> None:
    greet(managed)
    manager.await_message("^READY=1$")
    os.kill(managed.daemon.pid, signal.SIGHUP)
    assert re.search(r"^MONOTONIC_USEC=\d+$", manager.await_message("^RELOADING=1$"), re.MULTILINE)
    manager.await_message("^READY=1$")
    assert managed.run("make", "quick").stdout == "quick\n"
    managed.daemon.stop()
    assert manager.socket_path.exists()
    with managed.popen("make", "quick") as client:
        assert await_connection(manager.listener)
        client.kill()
        client.wait(PATIENCE_SEC)


def test_the_manager_hears_why_a_reload_was_refused(managed: Service, manager: Manager) -> None:
    manager.await_message("^STATUS=0 builds running$")
    write_tree(managed.daemon.directory, {"config.toml": "[build\n"})
    os.kill(managed.daemon.pid, signal.SIGHUP)
    manager.await_message("^RELOADING=1$")
    assert "STATUS=reload refused: " in manager.await_message("^READY=1$")


def test_the_watchdog_is_kicked_on_after_a_reload(flavour: str, manager: Manager, start_service: StartService) -> None:
    service = start_service(flavour, manager.settings(), **manager.options(WATCHDOG_USEC="200000"))
    os.kill(service.daemon.pid, signal.SIGHUP)
    manager.await_message("^RELOADING=1$")
    manager.await_message("^READY=1$")
    for _ in range(3):
        manager.await_message("^WATCHDOG=1$")


def test_a_handover_for_another_process_is_none(start_service: StartService) -> None:
    left = reload_module.Handover(1, 0, 0, 0, True, (0, 0, 0, 0), 1, ((1, 0),), (), "[broken")
    number = left.file()
    os.set_inheritable(number, True)
    try:
        env = {"_BUILD_SERVICE_HANDOVER": str(number)}
        service = start_service("user", env=env, pass_fds=[number])
    finally:
        os.close(number)
    greet(service)
    assert service.run("make", "quick").stdout == "quick\n"
