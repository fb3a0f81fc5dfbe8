"""Fixtures of the container tests, which run in the world of world.py alone: `make test-container`."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import harness
from container import podman, world
from daemon import Daemon, merged
from harness_world import User

collect_ignore_glob = [] if world.inside() else ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    if world.inside():  # where this is the first process of its pid namespace, which would ignore SIGTERM
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def world_is_watched() -> bool:
    """podman keeps images, mounts and sockets from one test to the next."""
    return False


@pytest.fixture(scope="session", autouse=True)
def image() -> Iterator[None]:
    """podman's user has podman.IMAGE."""
    before = harness.descendants(os.getpid())
    podman.make_image(world.ROOTFS)
    yield
    podman.end_pause_process()
    podman.reap(before)


@pytest.fixture(autouse=True)
def no_orphans(no_leaks: None) -> Iterator[None]:
    """What podman left running for a moment is reaped before the watchman looks."""
    before = harness.descendants(os.getpid())
    yield
    podman.reap(before)


@pytest.fixture
def start_daemon(no_orphans: None) -> Iterator[Callable[..., Daemon]]:
    """start_daemon(settings, **options) starts root's service at podman.SOCKET; it is stopped at the test's end."""
    with contextlib.ExitStack() as stack:

        def start(settings: Mapping[str, Any] | None = None, **options: Any) -> Daemon:
            usual = {"service": {"socket_path": str(podman.SOCKET)}}
            return stack.enter_context(Daemon(merged(usual, settings or {}), **options))

        yield start


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    """A service with the default settings."""
    return start_daemon()


@pytest.fixture
def project(workspace: Callable[[User], Path]) -> Path:
    """A fresh directory in the workspace of podman's user."""
    return workspace(world.PODMAN_USER)
