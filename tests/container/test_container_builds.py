"""A build typed in a rootless container: it runs on the host, as its user, where its user is, and ends as make ends."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from container.podman import ENVIRONMENT, IMAGE, KEEP_ID, RUN_DIRECTORY, WORKSPACE, mounts, run
from container.world import PODMAN_USER, RUNTIME_DIRECTORY
from daemon import Daemon
from harness import write_tree
from harness_world import ROOT
from terminal import Terminal

HOME = PODMAN_USER.home

# --- what README tells --------------------------------------------------------------------------------------------


def readme_command() -> str:
    """The podman command of README's section on containers, with the image of these tests."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^(podman run --rm -it (?:.*\\\n)+ *)builder make$", readme, re.MULTILINE)
    assert found, "README has no command that builds in a container"
    return f"{found[1]}{IMAGE} make"


@pytest.mark.usefixtures("daemon")
def test_the_command_of_the_readme_starts_a_container_that_builds_on_the_host() -> None:
    makefile = "all:\n\t@echo built by $$(id -un) in $(CURDIR)\n"
    project = write_tree(WORKSPACE / "hello", {"Makefile": makefile}, PODMAN_USER)
    with Terminal(PODMAN_USER, ["sh", "-c", readme_command()], ENVIRONMENT) as terminal:
        shown, code = terminal.end()
    assert f"built by {PODMAN_USER.name} in {project}" in shown
    assert code == 0


@pytest.mark.usefixtures("daemon")  # whose socket's directory is mounted
def test_the_make_of_the_image_is_the_wrapper(project: Path) -> None:
    assert run("sh", "-c", "command -v make", options=mounts(project)).stdout == "/usr/local/bin/make\n"


# --- a build ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("daemon")
def test_a_build_runs_outside_of_the_container(project: Path) -> None:
    write_tree(project, {"Makefile": "all:\n\t@readlink /proc/self/ns/mnt\n"}, PODMAN_USER)
    built = run("sh", "-c", "make; readlink /proc/self/ns/mnt", options=mounts(project))
    of_build, of_container = built.stdout.split()
    assert of_build == os.readlink("/proc/self/ns/mnt")
    assert of_container != of_build


@pytest.mark.usefixtures("daemon")
def test_output_and_exit_code_of_a_failing_make_come_through(project: Path) -> None:
    write_tree(project, {"Makefile": "all:\n\t@echo to stdout; echo to stderr >&2; exit 7\n"}, PODMAN_USER)
    failed = run("make", options=mounts(project))
    assert failed.stdout == "to stdout\n"
    assert failed.stderr == "to stderr\nmake: *** [Makefile:2: all] Error 7\n"
    assert failed.returncode == 2


@pytest.mark.usefixtures("daemon")
def test_files_belong_to_the_user_on_both_sides(project: Path) -> None:
    write_tree(project, {"Makefile": "built: typed\n\t@cp typed built; echo more >> typed\n"}, PODMAN_USER)
    script = "echo hello > typed && make && cat typed built && echo more >> built && stat -c '%n %U %u' typed built"
    made = run("sh", "-c", script, options=mounts(project))
    user = f"{PODMAN_USER.name} {PODMAN_USER.uid}"
    assert made.stdout == f"hello\nmore\nhello\ntyped {user}\nbuilt {user}\n"
    for name in ("typed", "built"):
        found = (project / name).stat()
        assert (found.st_uid, found.st_gid) == (PODMAN_USER.uid, PODMAN_USER.gid)


# --- the workspace as the container's home ------------------------------------------------------------------------


def at_home(directory: str) -> list[str]:
    """The options of a container with the workspace mounted as its home directory."""
    return [f"--volume={WORKSPACE}:{HOME}", f"--workdir={directory}", f"--volume={RUN_DIRECTORY}:{RUN_DIRECTORY}"]


MAPPED = {
    "the directory": ("make -s", ".", "Makefile"),
    "a relative directory": ("make -s -C sub", "sub", "Makefile"),
    "a directory of the container": ("make -s -C $PWD/sub", "sub", "Makefile"),
    "a makefile of the container": ("make -s --directory=$PWD/sub -f $PWD/sub/other.mk", "sub", "other.mk"),
}
"""What is typed in the container, and where and by which makefile it builds on the host."""


@pytest.mark.parametrize("case", MAPPED)
def test_a_workspace_mounted_as_the_home_directory_is_mapped(
    case: str, start_daemon: Callable[..., Daemon], project: Path
) -> None:
    command, where, makefile = MAPPED[case]
    start_daemon({"build": {"path_mapping": {"container_template": "/home/{user}"}}})
    files = {
        name: f"all:\n\t@echo {name} built in $(CURDIR) > made\n"
        for name in ("Makefile", "sub/Makefile", "sub/other.mk")
    }
    write_tree(project, files, PODMAN_USER)
    script = f"{command} && cat {where}/made"
    built = run("sh", "-c", script, options=at_home(str(HOME / project.name)))
    assert built.stdout == f"{Path(where, makefile)} built in {project / where}\n"
    assert (built.stderr, built.returncode) == ("", 0)


def test_without_any_mapping_the_path_of_the_container_is_refused(
    start_daemon: Callable[..., Daemon], project: Path
) -> None:
    start_daemon({"build": {"path_mapping": {"mode": "templates"}}})
    inside = HOME / project.name
    refused = run("make", options=at_home(str(inside)))
    expected = f"cwd must be under workspace: {inside}: No such file or directory on the host\n"
    assert (refused.stdout, refused.stderr, refused.returncode) == ("", expected, 1)


# --- a service of one's own, and none -----------------------------------------------------------------------------


def test_a_users_own_service_is_reached_without_any_group(project: Path) -> None:
    directory = RUNTIME_DIRECTORY / "build-service"
    settings = {
        "service": {"socket_path": str(directory / "build-service.sock")},
        "build": {"workspace_root": "/home"},
    }
    write_tree(project, {"Makefile": "all:\n\t@id -un\n"}, PODMAN_USER)
    with Daemon(settings, user=PODMAN_USER):
        options = [*mounts(project)[:2], f"--volume={directory}:{RUN_DIRECTORY}"]
        assert run("make", options=options, as_user=[KEEP_ID]).stdout == f"{PODMAN_USER.name}\n"


def test_without_a_service_one_line_says_so(project: Path) -> None:
    missing = run("make", options=mounts(project)[:2])
    mount = f"-v {RUN_DIRECTORY}:{RUN_DIRECTORY}"
    line = f"build-service socket not found at /run/build-service.sock (start the container with {mount})\n"
    assert missing.stderr == line
    assert (missing.stdout, missing.returncode) == ("", 1)


def test_without_a_service_the_container_builds_itself_if_told_to(project: Path) -> None:
    write_tree(project, {"Makefile": "all:\n\t@readlink /proc/self/ns/mnt\n"}, PODMAN_USER)
    options = [*mounts(project)[:2], "--env=BUILD_SERVICE_FALLBACK=local"]
    built = run("make", options=options)
    assert built.stdout.startswith("mnt:[")
    assert built.stdout.strip() != os.readlink("/proc/self/ns/mnt")
    assert (built.stderr, built.returncode) == ("", 0)
