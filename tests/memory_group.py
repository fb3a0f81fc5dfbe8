"""A control group with a limit of memory for a test, in whatever hierarchy this machine has: v1 or v2 (cgroups(7)).

It is made below the tests' own group, or in v2 below the nearest one above it that gives its children a memory
controller, and is gone behind the block. No other group is touched, and no limit but its own is set.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import harness


class MemoryGroup:
    """The group at `path`."""

    def __init__(self, path: Path, version: int) -> None:
        self.path = path
        self._events = path / ("memory.events" if version == 2 else "memory.oom_control")
        self._version = version

    def limit(self, size: int) -> None:
        """Sets its limit to so many bytes, swap included."""
        self._write("memory.max" if self._version == 2 else "memory.limit_in_bytes", size)
        swap = self.path / ("memory.swap.max" if self._version == 2 else "memory.memsw.limit_in_bytes")
        if swap.exists():
            self._write(swap.name, 0 if self._version == 2 else size)

    def killed(self) -> int:
        """How many processes the kernel has ended in it for lack of memory."""
        lines = dict(line.split() for line in self._events.read_text().splitlines())
        return int(lines["oom_kill"])

    def launcher(self) -> list[str]:
        """What starts a program in it."""
        return ["/bin/sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh"]

    def remove(self) -> None:
        """Ends what a failed test left in it, and removes it."""
        left = [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            harness.await_exit(pid, harness.GRACE_SEC)
        _remove(self.path)

    def _write(self, name: str, value: int) -> None:
        (self.path / name).write_text(str(value))


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A group for one block; LookupError, with what is missing, where this machine can have none."""
    parent, version = _parent()
    path = parent / f"build-service-tests-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as exc:
        raise LookupError(f"no control group can be made in {parent}: {exc.strerror}") from exc
    group = MemoryGroup(path, version)
    try:
        yield group
    finally:
        group.remove()


def _parent() -> tuple[Path, int]:
    """The directory that the group is made in, and the version of its hierarchy."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own["memory" if "memory" in controllers.split(",") else controllers] = path
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, mounted = left.split(" ")[3:5]
        if kind == "cgroup" and "memory" in options.split(",") and "memory" in own:
            return _below(mounted, root, own["memory"]), 1
        if kind == "cgroup2" and "memory" not in own and "" in own:
            found = _with_controller(_below(mounted, root, own[""]), Path(mounted))
            if found is not None:
                return found, 2
    raise LookupError("no control group of this machine has a memory controller to give")


def _below(mounted: str, root: str, path: str) -> Path:
    """Where a group with this path is, in a mount that shows what is below `root`."""
    return Path(mounted, os.path.relpath(path, root) if path.startswith(root) else ".")


def _with_controller(group: Path, top: Path) -> Path | None:
    while True:
        if "memory" in (group / "cgroup.subtree_control").read_text().split():
            return group
        if group == top:
            return None
        group = group.parent


def _remove(path: Path) -> None:
    """A group whose last process was just reaped may be busy for a moment, which nothing tells the end of in v1."""
    for left in range(100, -1, -1):
        try:
            path.rmdir()
        except OSError:
            if not left:
                raise
            select.select([], [], [], 0.02)
        else:
            return
