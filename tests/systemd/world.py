"""The first process of the namespaces that `run` makes: it fills the file system to boot, and becomes pytest.

The file system is in memory, in DIRECTORY, and gone with the last process. Must never mount anything elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from container.rootfs import suite
from harness_world import ROOT
from systemd import rootfs

DIRECTORY = "BUILD_TEST_SYSTEMD"
"""Set in the environment of the tests: the directory that is theirs. Without it they are not collected."""

CGROUP = "BUILD_TEST_SYSTEMD_CGROUP"
"""The control group that becomes the root of the machine's."""


def main() -> None:
    directory, group = Path(sys.argv[1]), sys.argv[2]
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    _mount_memory(directory)
    if not rootfs.archive().exists():
        print(f"making a Debian {suite()} with debootstrap, to be kept as {rootfs.archive()}", flush=True)
        scratch = directory / "debootstrap"
        scratch.mkdir()
        _mount_memory(scratch)
        rootfs.make(scratch)
        subprocess.run(["umount", scratch], check=True)
    (directory / "root").mkdir()
    rootfs.unpack(directory / "root")
    version = subprocess.check_output(["chroot", directory / "root", "systemctl", "--version"], text=True)
    print(f"Debian {suite()}, {version.splitlines()[0]}", flush=True)
    os.environ[DIRECTORY], os.environ[CGROUP] = str(directory), group
    os.chdir(ROOT)
    options = ["-o", f"cache_dir={directory}/cache", f"--basetemp={directory}/tmp", "tests/systemd"]
    os.execv(sys.executable, [sys.executable, "-B", "-m", "pytest", *options, *sys.argv[3:]])


def _mount_memory(directory: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", directory], check=True)


if __name__ == "__main__":
    main()
