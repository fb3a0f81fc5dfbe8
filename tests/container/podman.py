"""Rootless podman as its user types it: run, exec, stop and kill of containers that have the client and the wrapper.

The tests use it inside the world (world.py). What is on a command line here and not in the user's own configuration
is what README tells users to give. It must never leave a process: each container is removed, each orphan reaped.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import harness
from container.world import DIST, INSTALLED_BIN, INSTALLED_SHARE, PODMAN_USER, RUNTIME_DIRECTORY
from harness import Process, popen_as, run_as, write_tree

BASE_IMAGE = "localhost/debian"
IMAGE = "localhost/build-service-test"

RUN_DIRECTORY = Path("/run/build-service")
SOCKET = RUN_DIRECTORY / "build-service.sock"
"""Where the service listens, on the host, and in a container that mounts the directory there."""

WORKSPACE = PODMAN_USER.home / "workspace"

KEEP_ID = "--userns=keep-id"
KEEP_GROUPS = "--group-add=keep-groups"
AS_USER = (KEEP_ID, KEEP_GROUPS)
"""The same user with the same groups inside."""

STEP_SEC = 60.0
"""How long one podman command may take on a busy machine."""

CONFIGURATION = {
    ".config/containers/storage.conf": '[storage]\ndriver = "overlay"\n',
    # No service of systemd is at hand, and no network is wanted: a Unix socket needs none.
    ".config/containers/containers.conf": """[containers]
netns = "none"
cgroups = "disabled"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
""",
}


ENVIRONMENT = {"XDG_RUNTIME_DIR": str(RUNTIME_DIRECTORY), "TMPDIR": "/tmp"}
"""What podman needs to know of its user's login beyond the ordinary."""


def podman(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a podman command to its end; `options` as for run_as."""
    options = {"timeout": STEP_SEC, **options}
    return run_as(PODMAN_USER, ["podman", *arguments], PODMAN_USER.home, ENVIRONMENT, **options)


def started(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """Starts a podman command; stdout and stderr are pipes."""
    argv = ["podman", *arguments]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return popen_as(PODMAN_USER, argv, PODMAN_USER.home, ENVIRONMENT, **streams)


def succeeded(run: subprocess.CompletedProcess[str]) -> str:
    """The output of a command that must not fail, without the line's end."""
    assert run.returncode == 0, f"{run.args} ended with {run.returncode}\n{run.stdout}{run.stderr}"
    return run.stdout.rstrip("\n")


# --- the image ----------------------------------------------------------------------------------------------------


def make_image(tar: Path) -> None:
    """Gives podman's user an image with the client and the wrapper, as README's Containerfile lines make it."""
    write_tree(PODMAN_USER.home, CONFIGURATION, PODMAN_USER)
    with open(tar, "rb") as file:
        succeeded(podman("import", "--quiet", "-", BASE_IMAGE, stdin=file))
    context = PODMAN_USER.home / "image"
    context.mkdir()
    for path in [*INSTALLED_BIN.iterdir(), INSTALLED_SHARE / "make-wrapper.sh", DIST / "build-cli-static"]:
        shutil.copy(path, context)
    snippet = (INSTALLED_SHARE / "Containerfile.snippet").read_text()
    (context / "Containerfile").write_text(f"FROM {BASE_IMAGE}\n{snippet}")
    succeeded(podman("build", "--isolation=chroot", "--quiet", "--tag", IMAGE, context))


def end_pause_process() -> None:
    """Ends the process that keeps podman's user namespace; the next podman command would start another."""
    path = RUNTIME_DIRECTORY / "libpod/tmp/pause.pid"
    if path.exists():
        os.kill(int(path.read_text()), signal.SIGKILL)


# --- containers ---------------------------------------------------------------------------------------------------


def mounts(directory: Path) -> list[str]:
    """The options of a container that works in `directory`, in the workspace under its own path, and has the socket's
    directory."""
    return [f"--volume={WORKSPACE}:{WORKSPACE}", f"--workdir={directory}", f"--volume={RUN_DIRECTORY}:{RUN_DIRECTORY}"]


def run(*command: str, options: Sequence[str], as_user: Sequence[str] = AS_USER) -> subprocess.CompletedProcess[str]:
    """Runs a command in a container of its own; `as_user` and `options` are podman's."""
    return podman("run", "--rm", *as_user, *options, IMAGE, *command)


class Container(NamedTuple):
    """A container that runs."""

    name: str

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in it."""
        return podman("exec", self.name, *command)

    def start_exec(self, *command: str) -> subprocess.Popen[bytes]:
        """Starts a command in it."""
        return started("exec", self.name, *command)

    def await_output(self, text: str) -> None:
        """Waits until it has printed that; it must not end before."""
        while text not in podman("logs", self.name).stdout:
            assert succeeded(podman("inspect", "--format={{.State.Running}}", self.name)) == "true"

    def await_exit(self) -> int:
        """Waits for its end, and returns the exit code."""
        return int(succeeded(podman("wait", self.name)))


@contextmanager
def running(
    *command: str, options: Sequence[str], as_user: Sequence[str] = AS_USER, image: str = IMAGE
) -> Iterator[Container]:
    """A container in the background; whatever it does at the end of the block, it is removed."""
    name = succeeded(podman("run", "--detach", *as_user, *options, image, *command))
    try:
        yield Container(name)
    finally:
        succeeded(podman("rm", "--force", "--time=0", name))


# --- what podman leaves -------------------------------------------------------------------------------------------


def reap(before: set[Process]) -> None:
    """Reaps the orphans that came to this process since `before`; they have GRACE_SEC to end.

    podman's monitor processes leave their parents, so they end below the tests' process. One that stays is left to
    the watchman for leaks.
    """
    known = {(process.pid, process.start) for process in before}
    while True:
        orphans = [
            process
            for process in harness.descendants(os.getpid())
            if process.parent == os.getpid() and (process.pid, process.start) not in known
        ]
        if not orphans or not all(harness.await_exit(process.pid, harness.GRACE_SEC) for process in orphans):
            return
        for process in orphans:
            os.waitpid(process.pid, 0)
