"""The service restarts and reloads under a container that goes on running, for each way of mounting its socket."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from container.podman import SOCKET, Container, mounts, running
from container.world import PODMAN_USER
from daemon import Daemon
from harness import PATIENCE_SEC, text, write_tree
from harness_world import BUILDERS_GID
from manager import Manager, await_connection

BUILT = ("built\n", "", 0)


@pytest.fixture
def project(project: Path) -> Path:
    return write_tree(project, {"Makefile": "all:\n\t@echo built\n"}, PODMAN_USER)


def with_socket_file(project: Path, socket: Path = SOCKET) -> list[str]:
    """The options of a container that has the socket itself mounted, and not its directory."""
    return [*mounts(project)[:2], f"--volume={socket}:{SOCKET}"]


def build(container: Container) -> tuple[str, str, int]:
    """What a make in the container prints, and its exit code."""
    done = container.exec("make")
    return done.stdout, done.stderr, done.returncode


def restart(daemon: Daemon) -> None:
    daemon.stop()
    daemon.start()


def test_a_container_with_the_directory_goes_on_building(daemon: Daemon, project: Path) -> None:
    with running("sleep", "infinity", options=mounts(project)) as container:
        assert build(container) == BUILT
        restart(daemon)
        assert build(container) == BUILT


def test_a_container_with_the_socket_file_is_stranded_by_a_service_that_holds_its_socket_itself(
    daemon: Daemon, project: Path
) -> None:
    with running("sleep", "infinity", options=with_socket_file(project)) as container:
        assert build(container) == BUILT
        restart(daemon)
        refused = f"cannot connect to build-service: Connection refused ({SOCKET})\n"
        assert build(container) == ("", refused, 1)


def test_a_reload_strands_no_container_with_the_socket_file(daemon: Daemon, project: Path) -> None:
    with running("sleep", "infinity", options=with_socket_file(project)) as container:
        assert build(container) == BUILT
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.await_log("build-service listens", count=2)
        assert build(container) == BUILT


# --- the socket is held outside, as systemd does ------------------------------------------------------------------


@pytest.fixture
def manager() -> Iterator[Manager]:
    """Somebody who holds the socket."""
    made = Manager()
    os.chown(made.socket_path, -1, BUILDERS_GID)
    made.socket_path.chmod(0o660)
    yield made
    made.close()


@pytest.fixture
def held(manager: Manager, start_daemon: Callable[..., Daemon]) -> Daemon:
    """A service on the manager's socket."""
    return start_daemon(manager.settings(), **manager.options())


def test_a_container_with_the_socket_file_goes_on_building_when_the_socket_is_held_outside(
    held: Daemon, project: Path
) -> None:
    with running("sleep", "infinity", options=with_socket_file(project, held.socket)) as container:
        assert build(container) == BUILT
        restart(held)
        assert build(container) == BUILT


def test_a_container_that_builds_while_no_service_runs_waits_for_the_next(
    held: Daemon, manager: Manager, project: Path
) -> None:
    with running("sleep", "infinity", options=with_socket_file(project, held.socket)) as container:
        held.stop()
        with container.start_exec("make") as waiting:
            assert await_connection(manager.listener)
            held.start()
            out, err = waiting.communicate(timeout=PATIENCE_SEC)
        assert (text(out), text(err), waiting.returncode) == BUILT
