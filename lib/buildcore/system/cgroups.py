"""A control group for one build, where the administrator delegated a cgroup v2 subtree to the service.

It makes the last rung of the ladder atomic: `cgroup.kill` ends every process in it at once, which no walk
over /proc can promise against a fork bomb (cgroups(7)). Only a directory that its owner marked as delegated
is touched (systemd's Delegate=, seen by its extended attribute); everywhere else builds run without one.
"""

from __future__ import annotations

import os
import select
import time

from .proctable import SCARCE

MOUNT_INFO = "/proc/self/mountinfo"
DELEGATE_ATTRIBUTES = ("trusted.delegate", "user.delegate")
"""What systemd sets on a delegated control group; the second since version 251."""


def delegated() -> str | None:
    """Return the directory of this process's own cgroup when it is v2, delegated and writable; else None."""
    mount, own = _mount_point(), _own_path()
    if mount is None or own is None:
        return None
    path = mount + own.rstrip("/")
    if own == "/" or not os.access(path, os.W_OK) or not os.path.exists(path + "/cgroup.kill"):
        return None
    return path if any(_attribute(path, name) == b"1" for name in DELEGATE_ATTRIBUTES) else None


def build_path(parent: str, session_pid: int) -> str:
    """Return the directory of the control group of the build that the session `session_pid` runs."""
    return f"{parent}/build-{session_pid}"


def create(path: str) -> None:
    """Make the control group; raises OSError."""
    os.mkdir(path, 0o755)


def enter(path: str) -> None:
    """Move the calling process into it; raises OSError."""
    _write(path + "/cgroup.procs", b"0")


def kill(path: str) -> None:
    """SIGKILL every process in it, at once; raises OSError."""
    _write(path + "/cgroup.kill", b"1")


def members(path: str) -> set[int]:
    """Return the pids of the processes in it, and in groups of their own below it; 0 for one that has no pid here.

    A zombie is in none. What ends or comes meanwhile may be missing.
    """
    found: set[int] = set()
    directories = [path]
    for directory in directories:  # grows meanwhile
        try:
            with open(directory + "/cgroup.procs", "rb") as file:
                found.update(map(int, file.read().split()))
            with os.scandir(directory) as entries:
                directories += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as exc:
            if exc.errno in SCARCE:
                raise  # nothing is known then
    return found


def remove(path: str, patience_sec: float = 0.0) -> None:
    """Kill what is in it and remove it; what cannot be removed yet stays for the next try.

    `patience_sec` is how long what was killed may take to end. Not for the arbiter: a build may have made groups of its
    own in it, where it has the right to, and as many as it likes.
    """
    try:
        kill(path)
        if patience_sec:
            _await_empty(path, patience_sec)
        directories = [path]
        for directory in directories:  # grows meanwhile: parents first
            with os.scandir(directory) as entries:
                directories += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for directory in reversed(directories):
            os.rmdir(directory)
    except OSError:
        pass


def _await_empty(path: str, seconds: float) -> None:
    """Wait until no process lives in it (cgroup.events, cgroups(7)), for so long at most."""
    deadline = time.monotonic() + seconds
    fd = os.open(path + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while b"populated 1" in os.pread(fd, 4096, 0) and (left := deadline - time.monotonic()) > 0:
            poll.poll(left * 1000)
    finally:
        os.close(fd)


def _mount_point() -> str | None:
    with open(MOUNT_INFO, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            if right.startswith("cgroup2 "):
                return left.split(" ")[4]
    return None


def _own_path() -> str | None:
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.startswith("0::"):
                return line[3:].rstrip("\n")
    return None


def _attribute(path: str, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name)
    except OSError:
        return None


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
