"""The control group that the tests' systemd gets as its root: below the one of the tests, in whatever v2 is mounted.

`run` makes and removes it, and the first process of the machine enters it. Must never touch another one.
"""

from __future__ import annotations

import os
import select
from pathlib import Path

EMPTY_SEC = 10.0
"""How long processes that were killed may take to be gone."""


def own() -> Path | None:
    """The directory of this process's own control group (cgroups(7)); None where no v2 is mounted."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    mounted = [line.split(" ")[4] for line in mounts if " - cgroup2 " in line]
    entries = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    paths = [entry[3:].lstrip("/") for entry in entries if entry.startswith("0::")]
    return Path(mounted[0], paths[0]) if mounted and paths else None


def create() -> Path:
    """Makes a group below the own one."""
    parent = own()
    assert parent is not None, "no cgroup v2"
    group = parent / f"build-service-tests-{os.getpid()}"
    group.mkdir()
    return group


def enter(group: Path) -> None:
    """Moves this process into the group."""
    (group / "cgroup.procs").write_text("0")


def remove(group: Path) -> None:
    """Removes the group and what systemd made in it, once what was killed in there is gone."""
    with open(group / "cgroup.events", encoding="ascii") as events:
        poller = select.poll()
        poller.register(events, select.POLLPRI)  # the kernel tells of each change
        while "populated 1" in events.read() and poller.poll(EMPTY_SEC * 1000):
            events.seek(0)
    for directory, _, _ in os.walk(group, topdown=False):
        os.rmdir(directory)
