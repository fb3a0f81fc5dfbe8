"""The file system of the tests' machine: a small Debian with systemd, python3 and make, made once and kept as a tar.

`world` has it made and unpacked, and `boot` boots it. It is kept beside the image of the container tests, which says
where that is and which Debian it is of. It must never be unpacked where the users of this machine can reach it: it is
not kept up to date, and some of it is set-user-ID.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from container.rootfs import LEFT_OUT, cache_directory, mirror, suite

PACKAGES = ("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "python3", "make", "sudo")
"""What the machine has beyond a minimal Debian; the fourth and fifth are for services of users, sudo is README's."""


def archive() -> Path:
    """The tar file, which may have to be made first; its name tells what is in it."""
    return cache_directory() / ("-".join([suite(), platform.machine(), *PACKAGES]) + ".tar")


def make(directory: Path) -> None:
    """Makes the tar file, in `directory`, which has to be empty and may hold device files.

    It appears under its name when it is whole. Raises SystemExit with debootstrap's last words.
    """
    packages = f"--include={','.join(PACKAGES)}"
    command = ["debootstrap", "--variant=minbase", packages, suite(), str(directory), *mirror()]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if run.returncode:
        last = "\n".join(run.stdout.splitlines()[-10:])
        raise SystemExit(f"test-systemd: debootstrap {suite()} failed ({run.returncode}):\n{last}")
    path = archive()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    excluded = [f"--exclude={pattern}" for pattern in LEFT_OUT]
    try:
        subprocess.run(["tar", "-C", directory, "--numeric-owner", *excluded, "-cf", partial, "."], check=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def unpack(directory: Path) -> None:
    """Unpacks the tar file into `directory`."""
    subprocess.run(["tar", "-C", directory, "--numeric-owner", "-xpf", archive()], check=True)
