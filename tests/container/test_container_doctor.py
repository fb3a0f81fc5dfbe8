"""`build-ctl doctor` in a container: it passes where a build would work, and names what only containers suffer from."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from container.podman import AS_USER, KEEP_GROUPS, KEEP_ID, SOCKET, mounts, run, running
from container.world import BUILD_CTL, PODMAN_USER
from daemon import Daemon

WITH_BUILD_CTL = [f"--volume={BUILD_CTL}:/usr/local/bin/build-ctl:ro"]
"""Images need not have the program."""


def doctor(project: Path, as_user: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs the doctor in a container of its own, in the project."""
    return run("build-ctl", "doctor", options=[*WITH_BUILD_CTL, *mounts(project)], as_user=as_user)


def only_failure(run: subprocess.CompletedProcess[str]) -> str:
    """The line of the one check that failed."""
    lines = [line for line in run.stdout.splitlines() if not line.startswith("ok")]
    assert (len(lines), run.stderr, run.returncode) == (1, "", 1), run
    return lines[0]


@pytest.mark.parametrize("as_user", [AS_USER, [KEEP_GROUPS]], ids=["the user", "root of the container"])
@pytest.mark.usefixtures("daemon")
def test_it_passes_where_a_build_would_work_and_says_as_whom(as_user: Sequence[str], project: Path) -> None:
    healthy = doctor(project, as_user)
    assert f"builds run as {PODMAN_USER.name} (uid {PODMAN_USER.uid}" in healthy.stdout
    assert (healthy.stderr, healthy.returncode) == ("", 0)


@pytest.mark.usefixtures("daemon")
def test_lost_groups_are_named_with_the_option_that_keeps_them(project: Path) -> None:
    assert "--group-add keep-groups" in only_failure(doctor(project, [KEEP_ID]))


@pytest.mark.usefixtures("daemon")
def test_a_subordinate_uid_is_named_with_the_option_that_keeps_the_user(project: Path) -> None:
    assert "--userns=keep-id" in only_failure(doctor(project, [KEEP_GROUPS, "--user=1000:1000"]))


def test_a_socket_file_that_a_restart_left_behind_is_named_with_the_mount_that_lasts(
    daemon: Daemon, project: Path
) -> None:
    options = [*WITH_BUILD_CTL, *mounts(project)[:2], f"--volume={SOCKET}:{SOCKET}"]
    with running("sleep", "infinity", options=options) as container:
        daemon.stop()
        daemon.start()
        ill = container.exec("build-ctl", "doctor")
    assert f"-v {SOCKET.parent}:{SOCKET.parent}" in only_failure(ill)


@pytest.mark.usefixtures("daemon")
def test_a_missing_mount_is_named_with_the_option_that_adds_it(project: Path) -> None:
    ill = run("build-ctl", "doctor", options=[*WITH_BUILD_CTL, *mounts(project)[:2]])
    assert f"-v {SOCKET.parent}:{SOCKET.parent}" in only_failure(ill)
