"""Images as they are: without Python, with a small one; in a sandbox that forbids sockets; two of one user at once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from container.podman import AS_USER, IMAGE, RUN_DIRECTORY, WORKSPACE, mounts, podman, running, succeeded
from container.world import BUILD_CTL, PODMAN_USER
from harness import write_tree
from harness_world import DEV1
from wire import Gate

MAKEFILE = "all:\n\t@echo on the host\nwait:\n\t@echo waits; read x < gate; echo $(NAME)\n"
FALLBACK = "--env=BUILD_SERVICE_FALLBACK=local"

WITHOUT = {
    "without Python": "RUN rm -f /usr/bin/python3*",
    "with python3-minimal": (
        "RUN dpkg --force-depends --remove"
        " $(dpkg-query -W -f '${Package}\\n' 'libpython3*-stdlib' 'python3*' | grep -v minimal)"
    ),
}
"""What is taken from the image that the tests have."""


def image(name: str) -> str:
    """The image of the tests, less what WITHOUT says."""
    tag = f"localhost/{name.replace(' ', '-').lower()}"
    context = write_tree(PODMAN_USER.home / tag, {"Containerfile": f"FROM {IMAGE}\n{WITHOUT[name]}\n"}, PODMAN_USER)
    succeeded(podman("build", "--isolation=chroot", "--quiet", "--tag", tag, context))
    return tag


def run(image: str, *command: str, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return podman("run", "--rm", *AS_USER, *options, image, *command)


@pytest.fixture
def app(project: Path) -> Path:
    return write_tree(project, {"Makefile": MAKEFILE}, PODMAN_USER)


@pytest.mark.usefixtures("daemon")
def test_an_image_without_python_says_so_or_builds_by_itself(app: Path) -> None:
    small = image("without Python")
    refused = run(small, "make", options=mounts(app))
    line = "build-cli: no python3 found on PATH (looked for python3, /usr/libexec/platform-python)\n"
    assert (refused.stdout, refused.stderr, refused.returncode) == ("", line, 1)
    own = run(small, "make", "--version", options=[FALLBACK, *mounts(app)])
    assert own.stdout.startswith("GNU Make ") and (own.stderr, own.returncode) == ("", 0)


@pytest.mark.usefixtures("daemon")
def test_python3_minimal_is_enough_for_the_client_and_the_doctor(app: Path) -> None:
    small = image("with python3-minimal")
    assert run(small, "python3", "-c", "import dataclasses", options=mounts(app)).returncode == 1
    built = run(small, "make", options=mounts(app))
    assert (built.stdout, built.stderr, built.returncode) == ("on the host\n", "", 0)
    options = [f"--volume={BUILD_CTL}:/usr/local/bin/build-ctl:ro", *mounts(app)]
    healthy = run(small, "build-ctl", "doctor", options=options)
    assert (healthy.stderr, healthy.returncode) == ("", 0), healthy
    assert f"builds run as {DEV1.name}" in healthy.stdout


@pytest.mark.parametrize("call", ["socket", "connect"])
@pytest.mark.usefixtures("daemon")
def test_a_sandbox_is_named_and_the_fallback_works(call: str, app: Path) -> None:
    rules = [{"names": [call], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    write_tree(PODMAN_USER.home, {f"{call}.json": profile}, PODMAN_USER)
    options = [f"--security-opt=seccomp={PODMAN_USER.home}/{call}.json", "--env=CLAUDECODE=1", *mounts(app)]
    refused = run(IMAGE, "make", options=options)
    assert (refused.stdout, refused.returncode) == ("", 1)
    assert "Operation not permitted" in refused.stderr and "the sandbox of Claude Code forbids it" in refused.stderr
    own = run(IMAGE, "make", "--version", options=[FALLBACK, *options])
    assert own.stdout.startswith("GNU Make ") and own.returncode == 0
    assert own.stderr == refused.stderr[:-1] + "; running /usr/bin/make here\n"


@pytest.mark.usefixtures("daemon")
def test_two_containers_of_one_user_build_at_once_each_in_its_own_directory(app: Path) -> None:
    sockets = f"--volume={RUN_DIRECTORY}:{RUN_DIRECTORY}"
    devcontainer = [f"--volume={app}:/workspaces/app", "--workdir=/workspaces/app", sockets]
    at_home = [f"--volume={WORKSPACE}:{PODMAN_USER.home}", f"--workdir={PODMAN_USER.home}/{app.name}", sockets]
    with Gate(app, PODMAN_USER) as gate:
        with running("make", "wait", "NAME=one", options=devcontainer) as one:
            with running("make", "wait", "NAME=two", options=at_home) as two:
                for container in (one, two):
                    container.await_output("waits")
                gate.open()
                gate.open()
                for container, name in ((one, "one"), (two, "two")):
                    assert container.await_exit() == 0
                    assert podman("logs", container.name).stdout == f"waits\n{name}\n"
