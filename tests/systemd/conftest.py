"""Fixtures of the systemd tests, which run in the world of world.py alone: `make test-systemd`."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from systemd import service as services
from systemd.machine import Machine
from systemd.service import DEVELOPER, OWNER, Installed
from systemd.world import CGROUP, DIRECTORY
from wire import Gate

collect_ignore_glob = [] if DIRECTORY in os.environ else ["test_*.py"]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Shows the machine's journal with a test that failed."""
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for service in getattr(item, "funcargs", {}).values():
            if isinstance(service, Installed):
                since = f"--after-cursor={service.cursor}"
                journal = service.machine.run("journalctl", "--output=short-monotonic", since).stdout
                report.sections.append(("journal of the machine", journal))


@pytest.fixture(scope="session")
def scratch() -> Path:
    """A directory out here for what is built to be installed."""
    path = Path(os.environ[DIRECTORY]) / "scratch"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def machine(scratch: Path) -> Iterator[Machine]:
    """A machine that is up, with the service installed and not enabled, and with accounts."""
    with Machine(Path(os.environ[DIRECTORY]), os.environ[CGROUP]) as machine:
        services.install(machine, scratch)
        machine.output("systemctl", "daemon-reload")
        for user in (DEVELOPER, OWNER):
            services.add_user(machine, user)
        machine.output("loginctl", "enable-linger", OWNER.name)
        machine.output("systemctl", "start", f"user@{OWNER.uid}.service")
        yield machine


@pytest.fixture
def system(machine: Machine) -> Iterator[Installed]:
    """The system's service."""
    yield from _prepared(machine, own=False)


@pytest.fixture
def own(machine: Machine) -> Iterator[Installed]:
    """A user's own service."""
    yield from _prepared(machine, own=True)


@pytest.fixture(params=["system", "user"])
def service(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Installed]:
    """Runs a test twice: with the system's service, and with a user's own."""
    yield from _prepared(machine, own=request.param == "user")


def _prepared(machine: Machine, own: bool) -> Iterator[Installed]:
    installed = Installed(machine, own)
    installed.prepare()
    yield installed
    installed.rest()


@pytest.fixture
def gate(service: Installed) -> Iterator[Gate]:
    """Where the builds `slow` and `stubborn` of the service's caller wait."""
    with Gate(service.machine.path(service.workspace), service.caller) as gate:
        yield gate
