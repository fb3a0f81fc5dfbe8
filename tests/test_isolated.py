"""No program loads a module that its environment names: each Python is started isolated (-I), at a reload as well.

What PYTHONPATH names here has a module that Python loads before anything else, and that leaves a mark.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness
from daemon import Service
from daemon_by_hand import say
from harness import BIN, TREE, write_tree

StartService = Callable[..., Service]
OpenDirectory = Callable[..., Path]

TRAP = "import posix\nposix.close(posix.open({mark!r}, posix.O_WRONLY | posix.O_CREAT, 0o666))\nraise ImportError\n"


@pytest.fixture
def trap(open_directory: OpenDirectory) -> Path:
    """A directory that no Python may look into; whoever does makes the file `mark` there, and does not start."""
    directory = open_directory()
    write_tree(directory, {"modules/encodings/__init__.py": TRAP.format(mark=str(directory / "mark"))})
    directory.chmod(0o777)
    return directory


def environment(trap: Path) -> dict[str, str]:
    return {"PATH": harness.daemon_path(), "PYTHONPATH": str(trap / "modules"), "PYTHONHOME": str(trap)}


@pytest.fixture(scope="module")
def single_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, TREE / "etc/packaging/dist.py", "--output", directory]
    subprocess.run(command, check=True, capture_output=True)
    yield directory


def test_a_python_that_is_not_isolated_is_caught(trap: Path) -> None:
    python = f"{harness.daemon_python_directory()}/python3"
    done = subprocess.run([python, "-c", ""], env=environment(trap), capture_output=True)
    assert done.returncode != 0
    assert (trap / "mark").exists()


@pytest.mark.parametrize("program", ["build-service", "build-cli", "build-ctl"])
@pytest.mark.parametrize("kind", ["of the tree", "single"])
def test_a_program_is_started_isolated(kind: str, program: str, trap: Path, single_files: Path) -> None:
    path = (single_files if kind == "single" else BIN) / program
    done = subprocess.run([path, "--version"], env=environment(trap), capture_output=True, text=True, cwd=trap)
    assert (done.stdout.split()[:1], done.stderr, done.returncode) == ([program], "", 0)
    assert not (trap / "mark").exists()


def test_a_service_is_isolated_after_a_reload_too(flavour: str, trap: Path, start_service: StartService) -> None:
    service = start_service(flavour, env=environment(trap))
    for times in (2, 3):
        os.kill(service.daemon.pid, signal.SIGHUP)
        service.daemon.await_log("build-service listens", count=times)
    say(service, "@echo served")
    assert service.run("make").stdout == "served\n"
    assert not (trap / "mark").exists()
