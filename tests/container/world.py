"""The world of the container tests: the private one of harness_world, and what rootless podman needs beyond it.

`run` starts this as the first process of new mount, pid and ipc namespaces; it sets the world up, installs the project
into it and becomes pytest. Every container, daemon and helper of podman lives below that process, so none survives
it. It must never write to the checkout, which may be read-only, nor anywhere else outside of the world but the cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import harness_world
from container import rootfs
from harness_world import CHECKOUT, DEV1, ROOT

INSIDE = "BUILD_TEST_CONTAINER_WORLD"
"""Set in the environment of whatever runs inside this world; the tests of this directory are collected nowhere else."""

PODMAN_USER = DEV1
RUNTIME_DIRECTORY = Path("/run/user") / str(PODMAN_USER.uid)
"""Its XDG_RUNTIME_DIR."""

SUBID_START = 300000
SUBID_COUNT = 65536
"""The subordinate ids of PODMAN_USER (subuid(5))."""

ROOTFS = Path("/run/rootfs.tar")
"""The file system of the image inside, where the cache's own path may be hidden."""

INSTALLED = Path("/run/installed")
PREFIX = "/usr/local"
INSTALLED_BIN = INSTALLED / PREFIX.lstrip("/") / "bin"
INSTALLED_SHARE = INSTALLED / PREFIX.lstrip("/") / "share/build-service"
DIST = Path("/run/dist")
BUILD_CTL = INSTALLED_BIN / "build-ctl"
"""What `make install DESTDIR=/run/installed` made."""


def inside() -> bool:
    """True in a process that runs in this world."""
    return harness_world.inside() and os.environ.get(INSIDE) == "1"


def enter() -> None:
    """Turns the namespaces that this process is the first one of into the world."""
    os.umask(0o022)
    with open(made_rootfs(), "rb") as tar:
        if not harness_world.enter():
            raise SystemExit("test-container: no private world, see above")
        with open(ROOTFS, "wb") as inside:
            shutil.copyfileobj(tar, inside)
    _mount("-t", "proc", "proc", "/proc")
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm")  # podman's locks
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/var/tmp")
    # crun refuses hosts that have cgroup v1 controllers and v2 side by side: a pure v2 tree is always there to mount.
    _mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    for name in ("subuid", "subgid"):
        private = Path("/run") / name
        private.write_text(f"{PODMAN_USER.name}:{SUBID_START}:{SUBID_COUNT}\n")
        _mount("--bind", private, Path("/etc") / name)
    RUNTIME_DIRECTORY.mkdir(mode=0o700, parents=True)
    os.chown(RUNTIME_DIRECTORY, PODMAN_USER.uid, PODMAN_USER.gid)
    _mount("--make-rshared", "/")  # as systemd has it on a real host
    os.environ[INSIDE] = "1"


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def made_rootfs() -> Path:
    """The file system of the image; it is made, in memory, unless the cache has it."""
    tar = rootfs.cached_file()
    if not tar.exists():
        print(f"making the image's file system, Debian {rootfs.suite()}, with debootstrap (a minute)", flush=True)
        tar.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="tree-", dir=tar.parent) as tree:
            _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", tree)
            try:
                rootfs.make(tar, tree)
            finally:
                subprocess.run(["umount", tree], check=True)
    return tar


def install() -> None:
    """`make install` into INSTALLED, as a packager would, and `make static-client`."""
    options = [f"DESTDIR={INSTALLED}", f"PREFIX={PREFIX}", f"DIST={DIST}"]
    command = ["make", "-s", "-C", CHECKOUT, "install", "static-client", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    enter()
    install()
    os.environ["BUILD_TEST_BIN"] = str(INSTALLED_BIN)
    os.chdir(ROOT)
    pytest = [sys.executable, "-B", "-m", "pytest", "-o", "cache_dir=/tmp/pytest", "tests/container", *sys.argv[1:]]
    os.execv(sys.executable, pytest)


if __name__ == "__main__":
    main()
