"""Fixtures of every test, and watchmen: for what a test leaves behind and what it leaks, that it ends, that it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

import harness
import leftovers
from daemon import Service, running_service
from harness import Process
from harness_world import User, inside

TEST_LIMIT_SEC = float(os.environ.get("BUILD_TEST_LIMIT_SEC", "180"))
"""A test that takes longer hangs, and so does what it does after that, each time anew."""

PHASE = pytest.CallInfo.from_call.__code__
"""What runs while a test is set up, called or torn down, and takes any exception as that one's failure."""

MOST_NAMED = 10
"""So many of the processes that are left are named."""

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
    left = harness.end_all(lambda: harness.descendants(os.getpid()))
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nleft running at the end of all tests: {_named(left)}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for_root, wrongly = _skipped(config, NEEDS_ROOT), _wrongly_skipped(config)
    if for_root:
        terminalreporter.write_line(f"{for_root} tests were skipped: each {NEEDS_ROOT}", yellow=True)
    if wrongly:
        terminalreporter.write_line(f"{wrongly} skipped tests must run here: that is a failure", red=True)


# --- watchmen -----------------------------------------------------------------------------------------------------


# Each stands around the next one: of a test that is cut off, what it started is ended, and then what it left removed.


@pytest.fixture(scope="session")
def world_is_watched() -> bool:
    """Whether the private world has to stay as it was; tests that share theirs with others may say no."""
    return inside()


@pytest.fixture(scope="module", autouse=True)
def module_leaves_nothing(world_is_watched: bool) -> Iterator[None]:
    """No fixture of a module leaves anything."""
    with _nothing_left(world_is_watched):
        yield


@pytest.fixture(autouse=True)
def nothing_left(world_is_watched: bool) -> Iterator[None]:
    """No test leaves a change in this process or in the private world; what it puts into a home is removed."""
    with _nothing_left(world_is_watched):
        yield


@contextlib.contextmanager
def _nothing_left(world: bool) -> Iterator[None]:
    before = leftovers.look(world)
    yield
    after = leftovers.look(world)
    leftovers.undo(before, after)
    problems = leftovers.differences(before, after)
    if problems:
        pytest.fail("left behind: " + "; ".join(problems), pytrace=False)


@pytest.fixture(autouse=True)
def no_leaks(nothing_left: None) -> Iterator[None]:
    """No test leaves a process, a zombie or a descriptor; what a fixture of a wider scope runs is not its own."""
    before = harness.descendants(os.getpid())
    descriptors = _descriptors()
    yield
    problems = []
    deadline = time.monotonic() + harness.GRACE_SEC
    for process in _new_processes(before):
        if process.state != "Z":
            harness.await_exit(process.pid, max(0.0, deadline - time.monotonic()))
    leaked = harness.end_all(lambda: _new_processes(before))
    if leaked:
        problems.append(f"processes: {_named(leaked)}")
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
    first = sorted(leaked)[:MOST_NAMED]
    names = ", ".join(f"{process.pid} {process.name} (state {process.state})" for process in first)
    return names + f" and {len(leaked) - len(first)} more" * (len(leaked) > len(first))


def _descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        if int(number) <= 2:  # pytest's own capturing changes them
            continue
        with contextlib.suppress(FileNotFoundError):  # the descriptor that listed the directory
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


class TooLong(BaseException):
    """The end of a test that hangs; no OSError and no Exception, which the test may expect and go on."""


@pytest.fixture(autouse=True)
def no_hang(no_leaks: None) -> Iterator[None]:
    """A test that does not end fails, and the others run."""

    def too_long(number: int, frame: FrameType | None) -> None:
        if not any(each.f_code is PHASE for each, _ in traceback.walk_stack(frame)):
            return  # pytest tells of a phase that is over; the next alarm comes where another one hangs
        raise TooLong(f"the test runs for more than {TEST_LIMIT_SEC:g} s")

    old = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, TEST_LIMIT_SEC, TEST_LIMIT_SEC)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


# --- fixtures -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=[pytest.param("root", marks=pytest.mark.needs_root), "user"])
def flavour(request: pytest.FixtureRequest) -> str:
    """Runs a test twice: with a daemon that is root and serves others, and with one that serves its own user."""
    return str(request.param)


@pytest.fixture
def open_directory() -> Iterator[Callable[..., Path]]:
    """open_directory(owner) is harness.open_directory; what it made is removed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(owner: User | None = None) -> Path:
            path = harness.open_directory(owner)
            stack.callback(shutil.rmtree, path)
            return path

        yield make


@pytest.fixture
def start_service() -> Iterator[Callable[..., Service]]:
    """start_service(flavour, settings, **options) starts a service that is stopped at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(flavour: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Service:
            return stack.enter_context(running_service(flavour, settings, **options))

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
