"""An empty control group of version 2 for a test, in whatever way this machine has that hierarchy (cgroups(7))."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import harness


@contextmanager
def control_group(delegate: str | None = None) -> Iterator[Path]:
    """A group below the root of the hierarchy, which is mounted for the block where it is not; gone behind it.

    `delegate` is the attribute by which systemd marks a group that it gives away.
    """
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mount = next((Path(line.split(" ")[4]) for line in lines if " - cgroup2 " in line), None)
    made = None
    if mount is None:
        mount = made = harness.open_directory()
        subprocess.run(["mount", "-t", "cgroup2", "none", made], check=True)
    group = mount / f"build-service-test-{os.getpid()}"
    group.mkdir()
    try:
        if delegate:
            os.setxattr(group, delegate, b"1")
        yield group
    finally:
        group.rmdir()
        if made:
            subprocess.run(["umount", made], check=True)
            made.rmdir()
