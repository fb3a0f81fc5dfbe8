"""Containers that mount the workspace as they like: a build runs in the very directory of its caller, or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from container.podman import RUN_DIRECTORY, WORKSPACE, run
from container.world import PODMAN_USER
from harness import write_tree

pytestmark = pytest.mark.usefixtures("daemon")

HOME = PODMAN_USER.home
SOCKETS = f"--volume={RUN_DIRECTORY}:{RUN_DIRECTORY}"
MAKEFILE = "all:\n\t@cat name; echo $(CURDIR)\nstage:\n\t@echo $(DESTDIR)\n"


@pytest.fixture
def app() -> Path:
    """A project, beside another one, and one in the home directory that looks like it."""
    for directory in (WORKSPACE / "app", WORKSPACE / "other", HOME / "app"):
        write_tree(directory, {"Makefile": MAKEFILE, "name": f"{directory}\n"}, PODMAN_USER)
    return WORKSPACE / "app"


PLACES: dict[str, tuple[Sequence[str], str]] = {
    "the same path": ((f"--volume={WORKSPACE}:{WORKSPACE}",), f"{WORKSPACE}/app"),
    "the home directory": ((f"--volume={WORKSPACE}:{HOME}",), f"{HOME}/app"),
    "a devcontainer's": ((f"--volume={WORKSPACE}/app:/workspaces/app",), "/workspaces/app"),
    "both": ((f"--volume={WORKSPACE}:{WORKSPACE}", f"--volume={WORKSPACE}/app:/workspaces/app"), "/workspaces/app"),
    "over another's": (
        (f"--volume={WORKSPACE}:{WORKSPACE}", f"--volume={WORKSPACE}/app:{WORKSPACE}/other"), f"{WORKSPACE}/other"
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_build_runs_where_its_caller_is_and_nothing_is_configured(place: str, app: Path) -> None:
    volumes, cwd = PLACES[place]
    built = run("make", options=[*volumes, SOCKETS, f"--workdir={cwd}"])
    assert (built.stdout, built.stderr, built.returncode) == (f"{app}\n{app}\n", "", 0)


def test_a_path_of_the_container_in_a_variable_is_told(app: Path) -> None:
    options = [f"--volume={app}:/workspaces/app", SOCKETS, "--workdir=/workspaces/app"]
    built = run("make", "-s", "stage", "DESTDIR=/workspaces/app/out", options=options)
    assert (built.stdout, built.returncode) == ("/workspaces/app/out\n", 0)
    told = f"DESTDIR (/workspaces/app here is {app} there)\n"
    assert built.stderr == f"build-cli: paths of the container are left in what the host got: {told}"


ELSEWHERE: dict[str, Sequence[str]] = {
    "nothing mounted": (),
    "a file system in memory over it": (f"--volume={WORKSPACE}:{WORKSPACE}", f"--tmpfs={WORKSPACE}/app"),
    "a copy of its own over it": (f"--volume={WORKSPACE}:{WORKSPACE}:O",),
}


@pytest.mark.parametrize("mounted", ELSEWHERE)
def test_a_directory_that_only_the_container_has_is_refused_in_one_line(mounted: str, app: Path) -> None:
    script = f"mkdir -p {app} && cd {app} && make"
    refused = run("sh", "-c", script, options=[*ELSEWHERE[mounted], SOCKETS], as_user=("--group-add=keep-groups",))
    hint = "(mount the host's into the container)"
    line = f"cwd must be the same directory on the host: {app} is another one there {hint}\n"
    assert (refused.stdout, refused.stderr, refused.returncode) == ("", line, 1)


def test_a_directory_of_the_host_that_is_no_workspace_is_refused_by_its_name_there(app: Path) -> None:
    refused = run("make", options=[f"--volume={HOME}/app:/workspaces/app", SOCKETS, "--workdir=/workspaces/app"])
    line = f"cwd must be under workspace: {HOME}/app is not under {WORKSPACE}\n"
    assert (refused.stdout, refused.stderr, refused.returncode) == ("", line, 1)
