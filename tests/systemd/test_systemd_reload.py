"""`systemctl reload`: the next caller gets the new program and configuration, and no build notices."""

from __future__ import annotations

from pathlib import Path

from harness import PATIENCE_SEC
from systemd import service as services
from systemd.service import SERVICE, Installed
from wire import Gate

LISTENS = "build-service listens "
WITH_ID = {"build": {"commands": {"make": "/usr/bin/make", "id": "/usr/bin/id"}}}
DONE = (b"done\n", b"")


def reload(service: Installed, times: int = 1) -> str:
    """Reloads, and waits for the line of the program that goes on, the `times`th after its first; returns all lines."""
    service.systemctl("reload", SERVICE)
    return service.journal(rf"(?s)({LISTENS}.*){{{times + 1}}}\n")


def test_a_reload_keeps_pid_and_builds_and_brings_the_new_configuration(service: Installed, gate: Gate) -> None:
    client = service.start_waiting_build("slow")
    before = service.main_pid
    assert service.build("id", "-u").returncode == 1
    service.configure(WITH_ID)
    reload(service)
    assert service.build("id", "-u").stdout == f"{service.caller.uid}\n"
    assert (service.main_pid, service.show("ActiveState")) == (before, "active")
    service.await_property("StatusText", "1 build running")
    gate.open()
    assert client.communicate(timeout=PATIENCE_SEC) == DONE
    assert client.returncode == 0


def test_a_reload_goes_on_as_the_program_that_is_installed_now(
    service: Installed, gate: Gate, scratch: Path, tmp_path: Path
) -> None:
    client = service.start_waiting_build("slow")
    before = service.main_pid
    try:
        services.install(service.machine, tmp_path, services.source_with_version("9.9.9", tmp_path / "source"))
        assert f"pid={before} version=9.9.9 builds=1\n" in reload(service)
        assert service.build("make", "quick").stdout == "quick\n"
        gate.open()
        assert client.communicate(timeout=PATIENCE_SEC) == DONE
        assert client.returncode == 0
    finally:
        services.install(service.machine, scratch)


def test_a_reload_with_a_broken_file_fails_with_its_faults_and_changes_nothing(service: Installed, gate: Gate) -> None:
    client = service.start_waiting_build("slow")
    service.write_config("[service]\nprefork = -1\nport = 80\n")
    assert service.try_systemctl("reload", SERVICE).returncode == 1
    lines = service.journal("(?s)Reload failed.*\n")
    assert f"build-service: {service.config}: service.prefork: must be" in lines
    assert f"build-service: {service.config}: service.port: unknown key" in lines
    assert LISTENS not in lines.partition(LISTENS)[2]
    assert service.show("ActiveState") == "active"
    assert service.build("make", "quick").stdout == "quick\n"
    gate.open()
    assert client.communicate(timeout=PATIENCE_SEC) == DONE
    service.configure(WITH_ID)
    reload(service)
    assert service.build("id", "-u").stdout == f"{service.caller.uid}\n"


def test_who_comes_after_the_reload_gets_the_new_configuration(service: Installed) -> None:
    """At once: `systemctl reload` may return while the service still tries the new program (systemd.service(5))."""
    service.build("make", "quick")
    for number in range(5):
        service.configure({"build": {"commands": {"make": "/usr/bin/make", f"id{number}": "/usr/bin/id"}}})
        service.systemctl("reload", SERVICE)
        assert service.build(f"id{number}", "-u").stdout == f"{service.caller.uid}\n"


def test_the_watchdog_is_kicked_on_after_a_reload(service: Installed) -> None:
    service.drop_in("[Service]\nWatchdogSec=1\n")
    service.systemctl("start", SERVICE)
    before = service.main_pid
    reload(service)
    service.await_watchdog_kicks()
    assert (service.main_pid, service.show("NRestarts")) == (before, "0")


def test_a_stop_after_a_reload_ends_the_builds_from_before(service: Installed, gate: Gate) -> None:
    client = service.start_waiting_build("slow")
    reload(service)
    service.systemctl("stop", SERVICE)
    _, err = client.communicate(timeout=PATIENCE_SEC)
    assert err.endswith(b"build-service is stopping: the build was ended\n")
    assert service.show("Result") == "success"
