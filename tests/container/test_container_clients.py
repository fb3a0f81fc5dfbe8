"""Each kind of image with each kind of mount: the client in Python where there is one, else the one in C."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from container.podman import AS_USER, BASE_IMAGE, RUN_DIRECTORY, SOCKET, WORKSPACE, podman, running, succeeded
from container.test_container_images import FALLBACK, MAKEFILE, WITHOUT
from container.world import DIST, INSTALLED_BIN, INSTALLED_SHARE, PODMAN_USER
from harness import give, write_tree
from wire import Gate

BUSYBOX = "busybox"
IMAGES = ["with python3", *WITHOUT, BUSYBOX]
"""Debian with all of Python, with less, with none; and busybox, which is no Debian."""

SANDBOXES = {
    # What of each sandbox's filter counts here: seccomp(2) answers EPERM to these calls.
    "Claude Code": ("CLAUDECODE", "socket"),
    "Codex": ("CODEX_SANDBOX_NETWORK_DISABLED", "connect"),
}


def image_of(name: str) -> str:
    """The image of that name, made the first time."""
    tag = f"localhost/client-{name.replace(' ', '-').lower()}"
    if podman("image", "exists", tag).returncode == 0:
        return tag
    return busybox(tag) if name == BUSYBOX else debian(name, tag)


def debian(name: str, tag: str) -> str:
    """What README and the snippet say, on a Debian less what WITHOUT tells."""
    context = PODMAN_USER.home / tag.replace("/", "-")
    context.mkdir()
    for path in [*INSTALLED_BIN.iterdir(), INSTALLED_SHARE / "make-wrapper.sh", DIST / "build-cli-static"]:
        shutil.copy(path, context)
    snippet = (INSTALLED_SHARE / "Containerfile.snippet").read_text()
    (context / "Containerfile").write_text(f"FROM {BASE_IMAGE}\n{WITHOUT.get(name, '')}\n{snippet}")
    succeeded(podman("build", "--isolation=chroot", "--quiet", "--tag", tag, context))
    return tag


def busybox(tag: str) -> str:
    """busybox, the libraries that it asks for, the client in C and the wrapper."""
    root = PODMAN_USER.home / "busybox"
    for directory in ("bin", "usr/local/bin", "tmp", "etc", "dev", "proc", "sys", "run"):
        (root / directory).mkdir(parents=True)
    program = shutil.which(BUSYBOX)
    assert program
    listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    for library in re.findall(r"(/\S+)", listed):
        (root / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library.lstrip("/"))
    shutil.copy(program, root / "bin/busybox")
    for applet in subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split():
        if applet != BUSYBOX:
            (root / "bin" / applet).symlink_to(BUSYBOX)
    shutil.copy(DIST / "build-cli-static", root / "usr/local/bin/build-cli")
    shutil.copy(INSTALLED_SHARE / "make-wrapper.sh", root / "usr/local/bin/make")
    path = PODMAN_USER.home / "busybox.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(root, "/", filter=lambda member: member.replace(uid=0, gid=0, uname="", gname="", deep=False))
    shutil.rmtree(root)
    give(path, PODMAN_USER)
    change = "--change=ENV PATH=/usr/local/bin:/bin"
    succeeded(podman("import", "--quiet", change, path, tag))
    path.unlink()
    return tag


@pytest.fixture
def app(project: Path) -> Path:
    return write_tree(project, {"Makefile": MAKEFILE}, PODMAN_USER)


def run(image: str, *command: str, options: list[str]) -> subprocess.CompletedProcess[str]:
    sockets = f"--volume={RUN_DIRECTORY}:{RUN_DIRECTORY}"
    return podman("run", "--rm", *AS_USER, sockets, *options, image_of(image), *command)


def places(app: Path) -> dict[str, list[str]]:
    """Where a container has the workspace, or the project."""
    home = PODMAN_USER.home
    return {
        "the same path": [f"--volume={WORKSPACE}:{WORKSPACE}", f"--workdir={app}"],
        "the home directory": [f"--volume={WORKSPACE}:{home}", f"--workdir={home}/{app.name}"],
        "a devcontainer's": [f"--volume={app}:/workspaces/app", "--workdir=/workspaces/app"],
        "below a tmpfs": [f"--volume={WORKSPACE}:{WORKSPACE}", f"--tmpfs={app}", f"--workdir={app}"],
    }


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.usefixtures("daemon")
def test_every_image_builds_wherever_the_workspace_is_and_nowhere_else(image: str, app: Path) -> None:
    for place, options in places(app).items():
        done = run(image, "make", "-s", options=options)
        if place == "below a tmpfs":
            assert (done.stdout, done.returncode) == ("", 1), place
            assert done.stderr.startswith("cwd must be the same directory on the host: ")
            assert done.stderr.count("\n") == 1
        else:
            assert (done.stdout, done.stderr, done.returncode) == ("on the host\n", "", 0), place


@pytest.mark.parametrize("image", ["without Python", BUSYBOX])
@pytest.mark.parametrize("agent", SANDBOXES)
@pytest.mark.usefixtures("daemon")
def test_a_sandbox_is_named_by_the_client_in_c_too(agent: str, image: str, app: Path) -> None:
    variable, call = SANDBOXES[agent]
    rules = [{"names": [call], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    write_tree(PODMAN_USER.home, {f"{call}.json": profile}, PODMAN_USER)
    options = [f"--security-opt=seccomp={PODMAN_USER.home}/{call}.json", f"--env={variable}=1"]
    options += places(app)["the same path"]
    refused = run(image, "make", options=options)
    assert (refused.stdout, refused.returncode) == ("", 1)
    line = f"cannot connect to build-service: Operation not permitted ({SOCKET}; the sandbox of {agent} forbids it: "
    assert refused.stderr.startswith(line)
    if image != BUSYBOX:  # which has no make of its own
        own = run(image, "make", "--version", options=[FALLBACK, *options])
        assert own.stdout.startswith("GNU Make ") and own.returncode == 0


@pytest.mark.usefixtures("daemon")
def test_images_of_two_kinds_build_at_once_each_in_its_own_directory(app: Path) -> None:
    sockets = f"--volume={RUN_DIRECTORY}:{RUN_DIRECTORY}"
    first, second = places(app)["a devcontainer's"], places(app)["the home directory"]
    with Gate(app, PODMAN_USER) as gate:
        with running("make", "wait", "NAME=one", options=[*first, sockets], image=image_of(BUSYBOX)) as one:
            with running("make", "wait", "NAME=two", options=[*second, sockets], image=image_of("with python3")) as two:
                for container in (one, two):
                    container.await_output("waits\n")
                gate.open(2)
                for container, name in ((one, "one"), (two, "two")):
                    assert container.await_exit() == 0
                    assert podman("logs", container.name).stdout == f"waits\n{name}\n"
