"""Boots systemd as the first process of namespaces of its own, again when it reboots; `machine` starts it.

    python -m systemd.boot ROOT CGROUP NOTIFY_SOCKET

ROOT is the file system, CGROUP what its control groups are below, NOTIFY_SOCKET hears READY=1 when it is up. The one
thing it must never do is to let that systemd write what belongs to the whole machine: /proc/sys and /sys are read-only.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from systemd import cgroup

NAMESPACES = ("cgroup", "ipc", "mount", "net", "pid", "uts")
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


def main() -> None:
    root, group, notify_socket = sys.argv[1:]
    cgroup.enter(Path(group))
    first = [sys.executable, "-B", "-c", "import systemd.boot, sys; systemd.boot.become_init(*sys.argv[1:])"]
    options = [f"--{namespace}" for namespace in NAMESPACES] + ["--fork", "--kill-child", "--propagation=private"]
    # A first process that reboots its pid namespace ends by SIGHUP, one that powers off by SIGINT: reboot(2).
    while subprocess.run(["unshare", *options, *first, root, notify_socket]).returncode == -signal.SIGHUP:
        pass


def become_init(root: str, notify_socket: str) -> None:
    """Makes `root` the root of this process's namespaces, and becomes the systemd in it."""
    os.umask(0)
    os.chdir(root)
    _mount("--bind", ".", ".")
    os.chdir(root)  # into what was mounted just now
    _mount("-t", "proc", "proc", "proc")
    _mount("--bind", "proc/sys", "proc/sys")
    _mount("-o", "remount,bind,ro", "proc/sys")
    _mount("-t", "sysfs", "-o", "ro", "sysfs", "sys")
    _mount("-t", "cgroup2", "cgroup2", "sys/fs/cgroup")
    for directory, mode in (("dev", "755"), ("run", "755"), ("tmp", "1777")):
        _mount("-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", directory)
    _fill_dev()
    Path("run/host").mkdir()
    Path("run/host/notify").touch()
    _mount("--bind", notify_socket, "run/host/notify")
    Path("old").mkdir(exist_ok=True)
    subprocess.run(["pivot_root", ".", "old"], check=True)
    subprocess.run(["/bin/umount", "-l", "/old"], check=True)
    _mount("--make-rshared", "/")
    os.umask(0o022)
    environment = {"container": "test", "NOTIFY_SOCKET": "/run/host/notify", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    os.execve("/sbin/init", ["/sbin/init"], environment)


def _fill_dev() -> None:
    for name, numbers in DEVICES.items():
        os.mknod(f"dev/{name}", stat.S_IFCHR | 0o666, os.makedev(*numbers))
    for name, target in LINKS.items():
        os.symlink(target, f"dev/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"dev/{name}")
    _mount("-t", "devpts", "-o", "newinstance,ptmxmode=666,mode=620,gid=5", "devpts", "dev/pts")
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "dev/shm")


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main()
