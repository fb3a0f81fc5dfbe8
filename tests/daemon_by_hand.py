"""build-service started by hand, as a user starts it, and what its tests do to it beside."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import harness
from daemon import Daemon, Service
from harness import BIN, run_as, write_tree


def run_daemon(daemon: Daemon, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Runs build-service with the arguments to its end, as the daemon's user; returns code, stdout and stderr."""
    env = {"PATH": harness.daemon_path(), **(env or {})}
    done = run_as(daemon.user, [BIN / "build-service", *arguments], Path("/"), env)
    return done.returncode, done.stdout, done.stderr


def start_and_fail(daemon: Daemon) -> str:
    """Starts the daemon, which must refuse with exit code 1 and one line; returns that line."""
    code, out, err = run_daemon(daemon, "--config", str(daemon.config))
    assert (code, out) == (1, "")
    assert err.startswith("build-service: ") and err.endswith("\n") and err.count("\n") == 1, err
    return err


def write_config(daemon: Daemon, text: str) -> None:
    write_tree(daemon.directory, {"config.toml": text}, daemon.user)


def say(service: Service, *lines: str) -> None:
    """Writes a Makefile whose only target runs `lines`."""
    write_tree(service.workspace, {"Makefile": "all:\n" + "".join(f"\t{line}\n" for line in lines)}, service.caller)


def kill_arbiter(service: Service) -> list[int]:
    """SIGKILL to the arbiter alone; returns the pids of what it leaves."""
    left = [process.pid for process in harness.descendants(service.daemon.pid)]
    service.daemon.kill()
    return left


@contextmanager
def wrapped_daemon(preparation: str, redirections: str = "") -> Iterator[Path]:
    """A directory of programs whose build-service first runs a line of sh, and starts with some redirections."""
    directory = harness.open_directory()
    program = f'#!/bin/sh\n{preparation}\nexec "{BIN}/build-service" "$@" {redirections}\n'
    write_tree(directory, {"build-service": program})
    (directory / "build-cli").symlink_to(BIN / "build-cli")
    yield directory
    shutil.rmtree(directory)
