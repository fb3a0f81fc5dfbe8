"""`make test-container`: says what this machine lacks, or what it has, and starts the tests in a world of their own.

    python -m container.run [PYTEST-ARGUMENT]...        with tests/ on PYTHONPATH, as root

It must never install anything, nor change a file, an account or a mount of the machine: what the tests do, they do in
namespaces that end with them (world.py). The one thing kept is the image's file system, in BUILD_TEST_CACHE.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from container import rootfs

SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = {
    "podman": "podman",
    "crun": "crun",
    "newuidmap": "uidmap",
    "fuse-overlayfs": "fuse-overlayfs",
    "unshare": "util-linux",
    "mount": "mount",
    "make": "make",
    "tar": "tar",
}
"""What is run, and the Debian package that holds it."""

PACKAGES_FOR_THE_IMAGE = {"debootstrap": "debootstrap"}
"""What is needed as long as the image's file system is not in the cache."""

MAX_USER_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")

NAMESPACES = ("--mount", "--pid", "--ipc", "--fork", "--kill-child", "--propagation", "private")
"""The first process of the world takes all others along when it ends, and ends when this program does."""


def missing_packages() -> dict[str, str]:
    """What is not found, as {program: Debian package}."""
    needed = {**PACKAGES, **({} if rootfs.cached_file().exists() else PACKAGES_FOR_THE_IMAGE)}
    return {program: package for program, package in needed.items() if not shutil.which(program, path=SEARCHED)}


def obstacles() -> Iterator[str]:
    """One line for each reason why the tests cannot run here."""
    if os.geteuid() != 0:
        yield "root is needed: the service under test is root's (sudo make test-container)"
        return
    for program, package in missing_packages().items():
        yield f"{program} is missing (Debian package {package})"
    if missing_packages():
        yield f"all of it: apt-get install --no-install-recommends {' '.join(missing_packages().values())}"
    if MAX_USER_NAMESPACES.exists() and int(MAX_USER_NAMESPACES.read_text()) == 0:
        yield f"{MAX_USER_NAMESPACES} is 0: rootless containers need user namespaces"


def version(program: str) -> str:
    """The first line that `program --version` prints."""
    return subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[0]


def main() -> None:
    found = list(obstacles())
    if found:
        sys.exit("\n".join(f"test-container: {line}" for line in found))
    host = f"Linux {platform.release()}, Python {platform.python_version()}"
    print(f"{version('podman')}, {version('crun')}, {host}; in the image Debian {rootfs.suite()}", flush=True)
    os.environ["PATH"] = f"{SEARCHED}:{os.environ.get('PATH', '')}"
    world = [sys.executable, "-B", "-m", "container.world", *sys.argv[1:]]
    os.execvp("unshare", ["unshare", *NAMESPACES, *world])


if __name__ == "__main__":
    main()
