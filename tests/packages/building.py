"""The packages as the tests make them, with `make rpm` and `make deb`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Union

import tools
from harness import TREE

SERVICE, CLIENT = "build-service", "build-service-client"
SEARCH_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
"""dpkg wants to see ldconfig and start-stop-daemon."""

TOOLS = {"rpm": ("rpmbuild", "rpm"), "deb": ("dpkg-deb", "dpkg")}
Command = Sequence[Union[str, "os.PathLike[str]"]]


def attempt(argv: Command, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, without questions, whatever comes of it."""
    env = {**os.environ, "PATH": SEARCH_PATH}
    return subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)


def run(argv: Command, **options: Any) -> subprocess.CompletedProcess[str]:
    """The same, and it must succeed."""
    done = attempt(argv, **options)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done


def make(tree: Path, *targets: str, umask: int = 0o022) -> Path:
    """`make TARGETS` in a source tree; returns its directory dist."""
    variables = [f"PYTHON={sys.executable}", f"DIST_PYTHONS={sys.executable}"]
    run(["make", "-s", "-C", tree, *variables, *targets], umask=umask)
    return tree / "dist"


def copy_of_the_sources(directory: Path) -> Path:
    """The source tree, without what git or a build left in it."""
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    return Path(shutil.copytree(TREE, directory, ignore=left_out))


class Packages(NamedTuple):
    """The two packages of one build."""

    service: Path
    client: Path


def build(kind: str, tree: Path, umask: int = 0o022) -> Packages:
    """`make rpm` or `make deb`."""
    tools.need(*TOOLS[kind])
    directory = make(tree, kind, umask=umask)
    (service,) = directory.glob(f"{SERVICE}[-_][0-9]*.{kind}")
    (client,) = directory.glob(f"{CLIENT}[-_][0-9]*.{kind}")
    return Packages(service, client)


def listed(package: Path) -> dict[str, tuple[str, str]]:
    """What a package installs, but for directories: {path: (mode, owner and group)}."""
    if package.suffix == ".rpm":
        columns = r"[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]"
        lines = run(["rpm", "-qp", "--qf", columns, package]).stdout.splitlines()
    else:
        lines = run(["dpkg-deb", "--contents", package]).stdout.splitlines()
    entries = [line.partition(" -> ")[0].split() for line in lines]
    return {entry[-1].lstrip("."): (entry[0], entry[1]) for entry in entries if not entry[0].startswith("d")}
