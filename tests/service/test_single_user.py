"""A single user's service: it lives below that user's own directories, and serves nobody else."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import harness
from daemon import Daemon, Service, toml
from daemon_by_hand import run_daemon
from harness import BIN, run_as, write_tree
from harness_world import DEV1, DEV2, User, inside

StartService = Callable[..., Service]


@contextmanager
def users_own_service(env: Mapping[str, str], user: User) -> Iterator[subprocess.Popen[bytes]]:
    reader, writer = os.pipe()
    argv = [BIN / "build-service", "--user", "--ready-fd", str(writer)]
    env = {"PATH": harness.daemon_path(), **env}
    with harness.popen_as(user, argv, "/", env, pass_fds=[writer], stdin=subprocess.DEVNULL) as process:
        os.close(writer)
        with open(reader, "rb") as lines:
            try:
                assert lines.readline() == b"ready\n"
                yield process
            finally:
                process.terminate()
    assert process.returncode == 0


@pytest.fixture
def single() -> Iterator[tuple[User, Path]]:
    """A user that is not root, and a directory of its own."""
    user = DEV1 if inside() else harness.current_user()
    directory = harness.open_directory(user)
    yield user, directory
    shutil.rmtree(directory)


def xdg(directory: Path) -> dict[str, str]:
    return {
        "XDG_CONFIG_HOME": f"{directory}/config",
        "XDG_RUNTIME_DIR": f"{directory}/run",
        "XDG_STATE_HOME": f"{directory}/state",
    }


def test_a_users_own_service_lives_below_its_xdg_directories_and_builds(single: tuple[User, Path]) -> None:
    user, directory = single
    work = directory / "work" / user.name / "workspace"
    settings = {"build": {"workspace_root": str(directory / "work")}}
    files = {
        "config/build-service/config.toml": toml(settings),
        "run/.keep": "",
        "state/.keep": "",
        str(work.relative_to(directory) / "Makefile"): "all:\n\t@id -un\n",
    }
    write_tree(directory, files, user)
    socket_path = directory / "run/build-service/build-service.sock"
    with users_own_service(xdg(directory), user):
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
        assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
        built = run_as(user, [BIN / "build-cli", "--socket", socket_path, "make"], work)
        assert (built.stdout, built.stderr, built.returncode) == (f"{user.name}\n", "", 0)
        assert stat.S_IMODE((directory / "state/build-service/build-service.log").stat().st_mode) == 0o600
    assert not socket_path.exists()


def test_a_users_own_service_needs_no_configuration(single: tuple[User, Path]) -> None:
    user, directory = single
    write_tree(directory, {"run/.keep": "", "state/.keep": ""}, user)
    with users_own_service(xdg(directory), user):
        assert (directory / "run/build-service/build-service.sock").is_socket()


def test_a_users_own_configuration_may_come_and_go_between_reloads(single: tuple[User, Path]) -> None:
    user, directory = single
    write_tree(directory, {"config/build-service/config.toml": "", "run/.keep": "", "state/.keep": ""}, user)
    config, log = directory / "config/build-service/config.toml", directory / "state/build-service/build-service.log"

    def listens(times: int) -> bool:
        return log.exists() and log.read_text().count("build-service listens") == times

    with users_own_service(xdg(directory), user) as process:
        config.unlink()
        process.send_signal(signal.SIGHUP)
        assert harness.await_in_directory(log.parent, lambda: listens(2)), log.read_text()
        write_tree(directory, {"config/build-service/config.toml": "nonsense"}, user)
        process.send_signal(signal.SIGHUP)
        harness.await_in_directory(log.parent, lambda: "reload refused" in log.read_text())


def test_a_relative_xdg_variable_counts_as_unset(single: tuple[User, Path]) -> None:
    user, directory = single
    env = {**xdg(directory), "PATH": harness.daemon_path(), "XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "config"}
    write_tree(directory, {"config/build-service/config.toml": "nonsense", "run/.keep": ""}, user)
    checked = run_as(user, [BIN / "build-service", "--user", "--check-config"], directory, env)
    assert (checked.stdout, checked.returncode) == ("configuration is valid\n", 0)


def test_a_users_own_service_without_a_runtime_directory_says_what_is_missing(single: tuple[User, Path]) -> None:
    user, directory = single
    env = {**xdg(directory), "XDG_RUNTIME_DIR": f"{directory}/none", "PATH": harness.daemon_path()}
    refused = run_as(user, [BIN / "build-service", "--user"], Path("/"), env)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused
    assert f"{directory}/none/build-service/build-service.sock" in refused.stderr


@pytest.mark.needs_root
def test_root_is_told_that_user_is_not_for_it(daemon: Daemon) -> None:
    expected = "build-service: --user is for ordinary users: root serves everybody, without it\n"
    assert run_daemon(daemon, "--user") == (1, "", expected)


@pytest.mark.needs_root
def test_a_single_users_service_refuses_another_user_whatever_the_socket_lets_through(
    start_service: StartService,
) -> None:
    service = start_service("user")
    service.daemon.socket.chmod(0o666)
    refused = service.run("make", user=DEV2, cwd=Path("/"))
    assert refused.stderr == f"this build-service serves uid {DEV1.uid} alone\n"
    assert (refused.stdout, refused.returncode) == ("", 1)
