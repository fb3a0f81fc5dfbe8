"""From `systemctl enable --now build-service.socket` to the first build, and what systemd knows of the service."""

from __future__ import annotations

import re
from pathlib import Path

from harness import PATIENCE_SEC
from harness_world import ROOT
from systemd.machine import Machine
from systemd.service import OWNER, SERVICE, SOCKET, USERS_GID, Installed
from wire import Gate


def test_the_daemon_runs_from_the_first_caller_on(service: Installed) -> None:
    assert service.show("ActiveState") == "inactive"
    built = service.build("make", "quick")
    assert (built.stdout, built.stderr, built.returncode) == ("quick\n", "", 0)
    assert service.show("ActiveState") == "active"


def test_the_configuration_as_it_is_installed_serves(system: Installed) -> None:
    system.write_config((ROOT / "etc/config.toml").read_text())
    assert system.build("make", "quick").returncode == 0
    logged = system.machine.path("/var/log/build-service/build-service.log").read_text()
    assert f"build started user=dev1 cwd={system.workspace}" in logged


def test_a_user_needs_no_configuration(own: Installed) -> None:
    own.machine.path(own.config).unlink()
    assert own.build("make", "quick").stdout == "quick\n"


def test_the_system_s_socket_is_its_group_s_alone(system: Installed) -> None:
    found = system.machine.path(system.socket).stat()
    assert (oct(found.st_mode), found.st_uid, found.st_gid) == ("0o140660", 0, USERS_GID)
    refused = system.machine.run(*system.client("make", "quick"), user=OWNER, cwd=OWNER.home / "workspace")
    assert "cannot connect to build-service: Permission denied" in refused.stderr
    assert refused.returncode == 1


def test_a_user_s_own_socket_is_that_user_s_alone(own: Installed) -> None:
    found = own.machine.path(own.socket).stat()
    assert (oct(found.st_mode), found.st_uid, found.st_gid) == ("0o140600", OWNER.uid, OWNER.gid)


def test_a_caller_finds_the_system_s_socket_by_itself(system: Installed) -> None:
    built = system.machine.run("build-cli", "make", "quick", user=system.caller, cwd=system.workspace)
    assert (built.stdout, built.returncode) == ("quick\n", 0)


def test_a_user_whom_the_system_s_service_does_not_admit_finds_its_own(system: Installed, own: Installed) -> None:
    env = {"XDG_RUNTIME_DIR": str(own.runtime)}
    built = own.machine.run("build-cli", "make", "quick", user=own.caller, cwd=own.workspace, env=env)
    assert (built.stdout, built.stderr, built.returncode) == ("quick\n", "", 0)
    assert own.show("ActiveState") == "active"
    assert system.show("ActiveState") == "inactive"


def test_the_variable_names_a_user_s_own_socket(own: Installed) -> None:
    env = {"BUILD_SERVICE_SOCKET": str(own.socket)}
    built = own.machine.run("build-cli", "make", "quick", user=own.caller, cwd=own.workspace, env=env)
    assert (built.stdout, built.returncode) == ("quick\n", 0)


def test_start_waits_until_callers_are_served(service: Installed) -> None:
    service.systemctl("start", SERVICE)
    assert (service.show("ActiveState"), service.show("SubState")) == ("active", "running")
    service.await_property("StatusText", "0 builds running")


def test_the_status_tells_how_many_builds_run(service: Installed, gate: Gate) -> None:
    clients = []
    for running in ("1 build running", "2 builds running"):
        clients.append(service.start_waiting_build("slow"))
        service.await_property("StatusText", running)
    gate.open(2)
    for client in clients:
        assert client.communicate(timeout=PATIENCE_SEC) == (b"done\n", b"")
    service.await_property("StatusText", "0 builds running")


def test_the_journal_shows_what_is_logged_to_the_console(service: Installed) -> None:
    service.build("--request-id", "in-the-journal", "make", "quick")
    lines = service.journal("build completed .*request_id=in-the-journal")
    assert f"build-service listens socket={service.socket} pid={service.main_pid} " in lines
    assert re.search("build started .*request_id=in-the-journal", lines)


def test_a_daemon_that_kicks_the_watchdog_goes_on(service: Installed) -> None:
    service.drop_in("[Service]\nWatchdogSec=1\n")
    service.systemctl("start", SERVICE)
    before = service.main_pid
    service.await_watchdog_kicks()
    assert (service.main_pid, service.show("NRestarts")) == (before, "0")


def test_a_daemon_that_hangs_is_replaced(service: Installed) -> None:
    service.drop_in("[Service]\nWatchdogSec=1\n")
    service.systemctl("start", SERVICE)
    hung = service.main_pid
    service.signal_main("STOP")
    service.journal("Watchdog timeout")
    service.await_property("NRestarts", "1")
    assert service.build("make", "quick").stdout == "quick\n"
    assert service.main_pid != hung


def test_a_stop_leaves_the_socket_and_the_next_caller_starts_the_daemon_again(service: Installed) -> None:
    service.build("make", "quick")
    service.systemctl("stop", SERVICE)
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")
    assert service.show("ActiveState", SOCKET) == "active"
    assert service.build("make", "quick").stdout == "quick\n"


def test_after_a_reboot_the_first_caller_is_served(service: Installed, machine: Machine) -> None:
    service.build("make", "quick")
    before = machine.init_pid
    machine.reboot()
    assert machine.init_pid != before
    machine.output("systemctl", "start", f"user@{OWNER.uid}.service")  # logind starts it, and this waits for that
    assert service.show("ActiveState", SOCKET) == "active"
    assert service.show("ActiveState") == "inactive"
    assert service.build("make", "quick").stdout == "quick\n"


def test_without_the_socket_unit_the_directory_is_made_at_boot(system: Installed) -> None:
    """For a daemon that binds its socket itself."""
    system.systemctl("disable", "--now", SOCKET)
    directory = Path("/run/build-service")
    system.machine.output("rm", "-r", directory)
    system.machine.reboot()
    assert oct(system.machine.path(directory).stat().st_mode) == "0o40755"
    assert list(system.machine.path(directory).iterdir()) == []
