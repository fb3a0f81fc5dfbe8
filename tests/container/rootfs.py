"""The file system of the tests' image: a small Debian with python3 and make, made once and kept as a tar file.

`run` asks whether it is there, `world` has it made, and the fixtures give it to podman. It is kept below
BUILD_TEST_CACHE, by default ~/.cache/build-service-test; removing that directory is all it takes to have it made anew.
BUILD_TEST_SUITE and BUILD_TEST_MIRROR name another Debian than the machine's own.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

PACKAGES = ("python3", "make")
"""What the image has beyond a minimal Debian: Python for the client (python3-minimal lacks json), and a make, which the
wrapper hides."""

OS_RELEASE = Path("/etc/os-release")  # os-release(5)

LEFT_OUT = ("./dev/*", "./proc/*", "./sys/*", "./var/cache/apt/*", "./var/lib/apt/lists/*", "./usr/share/doc/*",
            "./usr/share/locale/*", "./usr/share/man/*")  # fmt: skip
"""What no test needs: half of it."""


def cache_directory() -> Path:
    """Where the tar file is kept; it need not exist."""
    named = os.environ.get("BUILD_TEST_CACHE")
    if named:
        return Path(os.path.abspath(named))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "build-service-test"


def own_suite() -> str:
    """The Debian release that this machine runs; "" if it runs something else."""
    lines = OS_RELEASE.read_text().splitlines() if OS_RELEASE.exists() else []
    codename = next((line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME=")), "")
    return codename if "ID=debian" in lines else ""


def suite() -> str:
    """The Debian release of the image: BUILD_TEST_SUITE, else this machine's if it is a Debian, else bookworm."""
    return os.environ.get("BUILD_TEST_SUITE") or own_suite() or "bookworm"


def cached_file() -> Path:
    """The tar file, which may have to be made first; its name tells what is in it."""
    return cache_directory() / ("-".join([suite(), platform.machine(), *PACKAGES]) + ".tar")


def mirror() -> list[str]:
    """The mirror to take packages from, as debootstrap's argument: BUILD_TEST_MIRROR, else this machine's if it is a
    Debian; none leaves it to debootstrap."""
    named = os.environ.get("BUILD_TEST_MIRROR")
    if named:
        return [named]
    form = ["--format", "$(RELEASE) $(SITE)", "Created-By: Packages", "Component: main"]
    try:
        targets = subprocess.run(["apt-get", "indextargets", *form], stdout=subprocess.PIPE, text=True).stdout
    except FileNotFoundError:
        return []
    sites = [site for release, site in map(str.split, targets.splitlines()) if release == own_suite()]
    return sites[:1]


def make(tar: Path, tree: str) -> None:
    """Makes the file `tar` out of `tree`, an empty directory that may hold device files.

    The file appears under its name when it is whole. Raises SystemExit with debootstrap's last words.
    """
    command = ["debootstrap", "--variant=minbase", "--include=" + ",".join(PACKAGES), suite(), tree, *mirror()]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if run.returncode:
        last = "\n".join(run.stdout.splitlines()[-10:])
        raise SystemExit(f"test-container: debootstrap {suite()} failed ({run.returncode}):\n{last}")
    partial = Path(f"{tree}.partial")
    excluded = [f"--exclude={pattern}" for pattern in LEFT_OUT]
    try:
        subprocess.run(["tar", "-C", tree, "--numeric-owner", *excluded, "-cf", partial, "."], check=True)
        partial.replace(tar)
    finally:
        partial.unlink(missing_ok=True)
