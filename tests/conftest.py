"""Fixtures of every test, and three watchmen: leaks, tests that hang, tests skipped that must run."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

import harness
from harness import Process, Service
from harness_world import User, inside

TEST_LIMIT_SEC = 180
"""A test that takes longer hangs."""

NEEDS_ROOT = "needs root and the private world: sudo make test (or tests/run.py as root)"

# In CI the same examples every time: a run that fails does so for what was changed. Elsewhere new ones each time.
hypothesis_settings.register_profile("here", deadline=None, database=None, derandomize=os.environ.get("CI") == "true")
hypothesis_settings.load_profile("here")


def pytest_configure(config: pytest.Config) -> None:
    harness.become_subreaper()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not inside():
        for item in items:
            if item.get_closest_marker("needs_root"):
                item.add_marker(pytest.mark.skip(reason=NEEDS_ROOT))


def _skipped(config: pytest.Config, reason: str = "") -> int:
    """How many tests were skipped for a reason that holds `reason`."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    return sum(reason in str(report.longrepr) for report in reporter.stats.get("skipped", ())) if reporter else 0


def _wrongly_skipped(config: pytest.Config) -> int:
    """How many tests were skipped that must run here: in CI all of them, for root those that need root."""
    if os.environ.get("CI") == "true":
        return _skipped(config)
    return _skipped(config, NEEDS_ROOT) if os.geteuid() == 0 else 0


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _wrongly_skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    left = harness.descendants(os.getpid())
    if left:
        harness.kill_all(left)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nleft running at the end of all tests: {_named(left)}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for_root, wrongly = _skipped(config, NEEDS_ROOT), _wrongly_skipped(config)
    if for_root:
        terminalreporter.write_line(f"{for_root} tests were skipped: each {NEEDS_ROOT}", yellow=True)
    if wrongly:
        terminalreporter.write_line(f"{wrongly} skipped tests must run here: that is a failure", red=True)


# --- watchmen -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """No test leaves a process, a zombie or a descriptor; what a fixture of a wider scope runs is not its own."""
    before = harness.descendants(os.getpid())
    descriptors = _descriptors()
    yield
    problems = []
    leaked = _new_processes(before)
    for process in leaked:
        if process.state != "Z":
            harness.await_exit(process.pid, harness.GRACE_SEC)
    leaked = _new_processes(before)
    if leaked:
        problems.append(f"processes: {_named(leaked)}")
        harness.kill_all(leaked)
    opened = {number: target for number, target in _descriptors().items() if descriptors.get(number) != target}
    if opened:
        problems.append(f"descriptors: {opened}")
    if problems:
        pytest.fail("leaked " + "; ".join(problems), pytrace=False)


def _new_processes(before: set[Process]) -> set[Process]:
    """Those below this process that are not in `before`, nor below one that is: the state may have changed since."""
    table = harness.processes()
    known = {(process.pid, process.start) for process in before}
    old = {process for process in harness.descendants(os.getpid(), table) if (process.pid, process.start) in known}
    below_old = {inner for process in old for inner in harness.descendants(process.pid, table)}
    return harness.descendants(os.getpid(), table) - old - below_old


def _named(leaked: set[Process]) -> str:
    return ", ".join(f"{process.pid} {process.name} (state {process.state})" for process in sorted(leaked))


def _descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        if int(number) <= 2:  # pytest's own capturing changes them
            continue
        with contextlib.suppress(FileNotFoundError):  # the descriptor that listed the directory
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A test that does not end fails, and the others run."""

    def too_long(number: int, frame: object) -> None:
        raise TimeoutError(f"the test runs for more than {TEST_LIMIT_SEC} s")

    old = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(TEST_LIMIT_SEC)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


# --- fixtures -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=[pytest.param("root", marks=pytest.mark.needs_root), "user"])
def flavour(request: pytest.FixtureRequest) -> str:
    """Runs a test twice: with a daemon that is root and serves others, and with one that serves its own user."""
    return str(request.param)


@pytest.fixture
def start_service() -> Iterator[Callable[..., Service]]:
    """start_service(flavour, settings, **options) starts a service that is stopped at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(flavour: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Service:
            return stack.enter_context(harness.running_service(flavour, settings, **options))

        yield start


@pytest.fixture
def service(flavour: str, start_service: Callable[..., Service]) -> Service:
    """A service with the default settings, in both flavours."""
    return start_service(flavour)


@pytest.fixture
def workspace(tmp_path: Path) -> Callable[[User], Path]:
    """workspace(user) makes a fresh directory: in the user's workspace in the private world, else a temporary one."""

    def fresh(user: User) -> Path:
        parent = user.home / "workspace" if inside() else tmp_path
        path = parent / f"test-{os.getpid()}-{len(list(parent.iterdir()))}"
        path.mkdir()
        harness.give(path, user)
        return path

    return fresh
