"""`build-ctl doctor` in a container: it passes where a build would work, and names what only containers suffer from.

Collected as soon as `make install` installs build-ctl (conftest.py).
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from container.podman import AS_USER, KEEP_GROUPS, KEEP_ID, SOCKET, mounts, run, running
from container.world import BUILD_CTL
from harness import Daemon

WITH_BUILD_CTL = [f"--volume={BUILD_CTL}:/usr/local/bin/build-ctl:ro"]
"""Images need not have the program."""


def doctor(project: Path, as_user: Sequence[str] = AS_USER) -> subprocess.CompletedProcess[str]:
    """Runs the doctor in a container of its own, in the project."""
    return run("build-ctl", "doctor", options=[*WITH_BUILD_CTL, *mounts(project)], as_user=as_user)


@pytest.mark.usefixtures("daemon")
def test_it_passes_where_a_build_would_work(project: Path) -> None:
    healthy = doctor(project)
    assert (healthy.stderr, healthy.returncode) == ("", 0), healthy


@pytest.mark.usefixtures("daemon")
def test_lost_groups_are_named_with_the_option_that_keeps_them(project: Path) -> None:
    ill = doctor(project, [KEEP_ID])
    assert "--group-add keep-groups" in ill.stdout
    assert ill.returncode == 1


@pytest.mark.usefixtures("daemon")
def test_a_subordinate_uid_is_named_with_the_option_that_keeps_the_user(project: Path) -> None:
    ill = doctor(project, [KEEP_GROUPS, "--user=1000:1000"])
    assert "--userns=keep-id" in ill.stdout
    assert ill.returncode == 1


def test_a_socket_file_that_a_restart_left_behind_is_named(daemon: Daemon, project: Path) -> None:
    options = [*WITH_BUILD_CTL, *mounts(project)[:2], f"--volume={SOCKET}:{SOCKET}"]
    with running("sleep", "infinity", options=options) as container:
        daemon.stop()
        daemon.start()
        ill = container.exec("build-ctl", "doctor")
    assert "mount" in ill.stdout and "directory" in ill.stdout
    assert ill.returncode == 1
