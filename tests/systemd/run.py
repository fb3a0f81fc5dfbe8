"""`make test-systemd`: says what this machine lacks, or makes the file system to boot, and starts the tests.

    python -m systemd.run [PYTEST-ARGUMENT]...        with tests/ on PYTHONPATH, as root

The tests run in mount and pid namespaces that end with this program, and everything that they boot with them. It must
never install anything, nor change a file, an account or a mount of the machine. One thing is kept: the tar file of
`rootfs`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from systemd import cgroup, rootfs

PROGRAMS = {
    "make": "make",
    "mount": "mount",
    "nsenter": "util-linux",
    "pivot_root": "util-linux",
    "setpriv": "util-linux",
    "tar": "tar",
    "unshare": "util-linux",
}
"""What is run, and the Debian package that holds it."""

SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WORLD = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private")
ENDS_WITH_THIS = ("setpriv", "--pdeathsig=KILL")

MACHINE = ("unshare", "--cgroup", "--ipc", "--mount", "--net", "--pid", "--uts", "--fork", "--propagation=private")
TRY_CGROUP = ("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
"""What booting needs of this machine's kernel, and of the container that the tests may run in."""


def obstacles() -> Iterator[str]:
    """One line for each reason why the tests cannot run here."""
    if os.geteuid() != 0:
        yield "root is needed: sudo make test-systemd"
        return
    needed = {**PROGRAMS, **({} if rootfs.archive().exists() else {"debootstrap": "debootstrap"})}
    missing = {program: package for program, package in needed.items() if not shutil.which(program, path=SEARCHED)}
    for program, package in missing.items():
        yield f"{program} is missing (Debian package {package})"
    if missing:
        yield f"all of it: apt-get install --no-install-recommends {' '.join(sorted(set(missing.values())))}"
        return
    group = cgroup.own()
    if group is None:
        yield "no cgroup v2 is mounted that this process is in"
    elif os.statvfs(group).f_flag & os.ST_RDONLY:
        yield f"{group} is read-only: there can be no control group for the tests' systemd"
    tried = subprocess.run([*MACHINE, *TRY_CGROUP], stderr=subprocess.PIPE, text=True)
    if tried.returncode:
        yield f"no namespaces to boot a systemd in: {tried.stderr.strip()}"


def main() -> None:
    os.environ["PATH"] = f"{SEARCHED}:{os.environ.get('PATH', '')}"
    found = list(obstacles())
    if found:
        sys.exit("\n".join(f"test-systemd: {line}" for line in found))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="build-service-tests-") as directory:
        group = cgroup.create()
        try:
            sys.exit(_in_namespaces(Path(directory), group))
        finally:
            cgroup.remove(group)


def _in_namespaces(directory: Path, group: Path) -> int:
    """Runs the tests and returns pytest's exit code."""
    python = [sys.executable, "-B", "-m", "systemd.world", str(directory), str(group), *sys.argv[1:]]
    with subprocess.Popen([*ENDS_WITH_THIS, *WORLD, *python]) as world:
        try:
            return world.wait()
        except KeyboardInterrupt:
            return world.wait()  # the terminal's ^C came to pytest as well
        finally:
            world.kill()


if __name__ == "__main__":
    main()
